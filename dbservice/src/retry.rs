//! Loops that keep a stream to another service: try, say each distinct cause once, wait, try again.

use std::time::Duration;

use tidegate_service::{
    rpc::{self, Backoff},
    tasks::ShutdownToken,
    telemetry::SaidOnce,
};
use tokio::time::Instant;
use tonic::Status;

/// An attempt that lived this long was a good one: its end is a new failure, and the first wait is short again.
const STEADY_AFTER: Duration = Duration::from_secs(30);

/// The state of one such loop.
#[derive(Debug)]
pub(crate) struct Retry {
    backoff: Backoff,
    said: SaidOnce,
    begun: Instant,
}

impl Retry {
    /// Before the first attempt.
    pub(crate) fn new() -> Self {
        Self {
            backoff: Backoff::new(),
            said: SaidOnce::new(),
            begun: Instant::now(),
        }
    }

    /// An attempt begins.
    pub(crate) fn begin(&mut self) {
        self.begun = Instant::now();
    }

    /// The attempt did what it should: whatever fails next is news.
    pub(crate) fn succeeded(&mut self) {
        self.backoff.reset();
        self.said.clear();
    }

    /// The attempt failed; whether its cause has not been said yet.
    pub(crate) fn failed(&mut self, cause: &str) -> bool {
        if self.begun.elapsed() >= STEADY_AFTER {
            self.succeeded();
        }
        self.said.is_new(cause)
    }

    /// How long to wait before the next attempt, which counts as begun then.
    pub(crate) fn delay(&mut self) -> Duration {
        let delay = self.backoff.next();
        self.begun = Instant::now() + delay;
        delay
    }

    /// Waits before the next attempt, whatever else happens.
    pub(crate) async fn pause(&mut self) {
        tokio::time::sleep(self.delay()).await;
    }

    /// Waits before the next attempt; `false` when there is none because of shutdown.
    pub(crate) async fn wait(&mut self, shutdown: &ShutdownToken) -> bool {
        shutdown.run_until_cancelled(self.pause()).await.is_some()
    }
}

/// Keeps one stream to the auth service until shutdown: `once` opens it and returns when it ends, `lost` says a cause that
/// has not been said yet.
pub(crate) async fn follow<O, F>(shutdown: &ShutdownToken, mut once: O, lost: impl Fn(&str))
where
    O: FnMut() -> F,
    F: Future<Output = Result<(), Status>>,
{
    let mut retry = Retry::new();
    loop {
        retry.begin();
        let cause = match shutdown.run_until_cancelled(once()).await {
            None => return,
            Some(Ok(())) => "the auth service ended the stream".to_owned(),
            Some(Err(status)) => rpc::describe(&status),
        };
        if retry.failed(&cause) {
            lost(&cause);
        }
        if !retry.wait(shutdown).await {
            return;
        }
    }
}
