//! The proxy process that sessions come through. It sees ciphertext, so when it ends it asks us to tell its clients.
//!
//! A proxy process may be connected to more than once: its control connection broke, or it drains and another process has
//! its address. So what is asked counts for the process, and reaches the sessions that came over any of its connections.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

/// The longest that a proxy may leave to statements: it waits no longer than seconds itself.
const FINISH_MAX: Duration = Duration::from_secs(30);

/// One proxy process. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Through {
    process: Arc<Process>,
}

#[derive(Debug, Default)]
struct Process {
    ends: CancellationToken,
    within: OnceLock<Duration>,
}

impl Through {
    /// The proxy ends: sessions end too, and may finish their statements within this time.
    pub(crate) fn end(&self, within: Duration) {
        self.process.within.get_or_init(|| within.min(FINISH_MAX));
        self.process.ends.cancel();
    }

    /// Waits until the proxy ends; how long statements may take then.
    pub(crate) async fn ended(&self) -> Duration {
        self.process.ends.cancelled().await;
        self.process.within.get().copied().unwrap_or_default()
    }
}

/// The proxy processes that are connected or have sessions, by what they call themselves.
#[derive(Debug, Default)]
pub(crate) struct Processes {
    known: Mutex<HashMap<String, Weak<Process>>>,
}

impl Processes {
    /// The process of this name. One without a name is known by its connection only.
    pub(crate) fn of(&self, instance: &str) -> Through {
        if instance.is_empty() {
            return Through::default();
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, process| process.strong_count() > 0);
        if let Some(process) = known.get(instance).and_then(Weak::upgrade) {
            return Through { process };
        }
        let through = Through::default();
        known.insert(instance.to_owned(), Arc::downgrade(&through.process));
        through
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn a_process_is_one_over_all_its_connections_and_forgotten_with_its_last_session() {
        let processes = Processes::default();
        let first = processes.of("p1");
        let again = processes.of("p1");
        let other = processes.of("p2");
        first.end(Duration::from_secs(3));

        assert_eq!(again.ended().now_or_never(), Some(Duration::from_secs(3)));
        assert_eq!(other.ended().now_or_never(), None);
        drop((first, again, other));
        assert_eq!(processes.of("p1").ended().now_or_never(), None);
        assert_eq!(processes.known.lock().unwrap().len(), 1);
    }

    #[test]
    fn what_a_proxy_leaves_to_statements_is_bounded() {
        let through = Through::default();
        through.end(Duration::MAX);
        assert_eq!(through.ended().now_or_never(), Some(FINISH_MAX));
    }
}
