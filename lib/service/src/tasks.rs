//! Tasks that nobody loses sight of, and the process's shutdown.
//!
//! Invariant: every task of the process is spawned here, so a panic is logged with the task's name, a service that
//! ends by itself takes the process down in order instead of leaving half of it, and shutdown knows whom to wait for.
//!
//! Shutdown has two phases: the token is cancelled, which asks; then [`Tasks::close_and_wait`] waits, bounded.

use std::{
    any::Any,
    collections::BTreeMap,
    fmt,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use futures::FutureExt;
use tokio::task::AbortHandle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, error, error_span, info, warn};

use crate::settings::DRAIN_TIMEOUT_DEFAULT;

/// Asks everybody who holds a clone to stop.
pub type ShutdownToken = CancellationToken;

/// Why the process has to stop although nobody asked it to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TaskFailure {
    /// A task that runs as long as the process does has returned.
    #[error("task `{name}` ended by itself")]
    Ended {
        /// The task.
        name: &'static str,
    },
    /// A task that the process cannot do without has panicked.
    #[error("task `{name}` panicked: {message}")]
    Panicked {
        /// The task.
        name: &'static str,
        /// What the panic said.
        message: String,
    },
}

/// Spawns and supervises the tasks of one process. Clones supervise together.
#[derive(Clone, Default)]
pub struct Tasks {
    inner: Arc<Inner>,
}

/// How much time sessions have when the process is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// From shutdown on.
    pub timeout: Duration,
    /// Whether another process of the same host goes on in this one's place, so that nobody is to be told that the
    /// host is gone.
    pub is_succeeded: bool,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            timeout: DRAIN_TIMEOUT_DEFAULT,
            is_succeeded: false,
        }
    }
}

#[derive(Default)]
struct Inner {
    tracker: TaskTracker,
    shutdown: ShutdownToken,
    drain: Mutex<Drain>,
    hurry: ShutdownToken,
    failure: OnceLock<TaskFailure>,
    running: Mutex<BTreeMap<&'static str, usize>>,
}

impl Tasks {
    /// No tasks yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs what the process cannot do without. It must watch [`Self::shutdown`]: when it returns earlier, or
    /// panics, that is logged as an error, kept as [`Self::failure`], and the process shuts down.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        let running = Running::new(&self.inner, name);
        let supervised = async move {
            let _running = running;
            let failure = match AssertUnwindSafe(task).catch_unwind().await {
                Ok(()) if inner.shutdown.is_cancelled() => return,
                Ok(()) => TaskFailure::Ended { name },
                Err(panic) => TaskFailure::Panicked {
                    name,
                    message: panic_message(&*panic),
                },
            };
            error!(error = %failure, "a service failed; shutting down");
            // Only the first failure is the cause; later ones follow from it.
            let _ = inner.failure.set(failure);
            inner.shutdown.cancel();
        };
        self.inner
            .tracker
            .spawn(supervised.instrument(error_span!("task", task.name = name)));
    }

    /// Runs what may end, and even panic, without harm to the rest: one connection, one request. The task keeps the
    /// caller's span. The handle aborts it; dropping the handle does not.
    pub fn spawn_quiet<F>(&self, name: &'static str, task: F) -> AbortHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.spawn_session(name, task.in_current_span())
    }

    /// As [`Self::spawn_quiet`], in no span: for what is woken thousands of times a second, of which each would enter it.
    pub fn spawn_session<F>(&self, name: &'static str, task: F) -> AbortHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let running = Running::new(&self.inner, name);
        let watched = async move {
            let _running = running;
            if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
                error!(
                    task.name = name,
                    error = panic_message(&*panic),
                    "a task panicked; the others go on"
                );
            }
        };
        self.inner.tracker.spawn(watched).abort_handle()
    }

    /// The token that asks every task to stop. Cancelling any clone shuts the process down.
    #[must_use]
    pub fn shutdown(&self) -> ShutdownToken {
        self.inner.shutdown.clone()
    }

    /// How much time sessions have once shutdown was asked for.
    #[must_use]
    pub fn drain(&self) -> Drain {
        *self
            .inner
            .drain
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Says how much time sessions will have. Counts for a shutdown that is asked for later.
    pub fn set_drain(&self, drain: Drain) {
        *self
            .inner
            .drain
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = drain;
    }

    /// The token that, once cancelled, leaves sessions of a shutdown that is under way no more time than it takes to say
    /// that they end.
    #[must_use]
    pub fn hurry(&self) -> ShutdownToken {
        self.inner.hurry.clone()
    }

    /// Why the process stops, when a task was the cause.
    #[must_use]
    pub fn failure(&self) -> Option<TaskFailure> {
        self.inner.failure.get().cloned()
    }

    /// How many tasks run now.
    #[must_use]
    pub fn running(&self) -> usize {
        self.inner.tracker.len()
    }

    /// Asks every task to stop and waits for them, at most `grace`. `true` when all have ended; otherwise those
    /// still running are logged by name, and go on until the runtime ends.
    pub async fn close_and_wait(&self, grace: Duration) -> bool {
        self.inner.shutdown.cancel();
        self.inner.tracker.close();
        if tokio::time::timeout(grace, self.inner.tracker.wait())
            .await
            .is_ok()
        {
            info!("every task has ended");
            return true;
        }
        let left = self.inner.names_running();
        warn!(
            tasks = left,
            grace_seconds = grace.as_secs(),
            "gave up waiting for tasks"
        );
        false
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks")
            .field("running", &self.inner.names_running())
            .finish()
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, usize>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `name` or `name (count)`, joined by commas.
    fn names_running(&self) -> String {
        let names: Vec<String> = self
            .lock()
            .iter()
            .map(|(name, count)| {
                if *count == 1 {
                    (*name).to_owned()
                } else {
                    format!("{name} ({count})")
                }
            })
            .collect();
        names.join(", ")
    }
}

/// Counts a task by name for as long as it lives, however it ends.
struct Running {
    inner: Arc<Inner>,
    name: &'static str,
}

impl Running {
    fn new(inner: &Arc<Inner>, name: &'static str) -> Self {
        *inner.lock().entry(name).or_default() += 1;
        Self {
            inner: Arc::clone(inner),
            name,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut running = self.inner.lock();
        match running.get_mut(self.name) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(running.remove(self.name)),
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without text".to_owned())
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn a_service_that_panics_takes_the_process_down_and_tells_why() {
        let tasks = Tasks::new();
        tasks.spawn("doomed", async { panic!("out of luck") });
        tasks.shutdown().cancelled().await;
        assert_eq!(
            tasks.failure().unwrap().to_string(),
            "task `doomed` panicked: out of luck"
        );
    }

    #[tokio::test]
    async fn a_service_that_ends_early_takes_the_process_down() {
        let tasks = Tasks::new();
        tasks.spawn("short", async {});
        tasks.shutdown().cancelled().await;
        assert_eq!(tasks.failure(), Some(TaskFailure::Ended { name: "short" }));
    }

    #[tokio::test]
    async fn a_connection_that_panics_hurts_nobody_else() {
        let tasks = Tasks::new();
        let shutdown = tasks.shutdown();
        tasks.spawn("service", async move { shutdown.cancelled().await });
        tasks.spawn_quiet("connection", async { panic!("bad bytes") });
        while tasks.running() > 1 {
            tokio::task::yield_now().await;
        }
        assert!(!tasks.shutdown().is_cancelled());
        assert!(tasks.close_and_wait(Duration::from_secs(5)).await);
        assert_eq!(tasks.failure(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_tasks_is_bounded_and_names_who_is_left() {
        let tasks = Tasks::new();
        tasks.spawn("deaf", pending());
        tasks.spawn_quiet("session", pending());
        tasks.spawn_quiet("session", pending());

        assert!(!tasks.close_and_wait(Duration::from_secs(30)).await);

        assert_eq!(tasks.inner.names_running(), "deaf, session (2)");
    }
}
