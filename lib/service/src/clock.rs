//! The wall clock, as a value that can be handed in.
//!
//! Whatever decides by the time of day (certificates, tokens, leases) asks a [`Clock`]; plain waits use the runtime's
//! own timer. Tests hand in a [`ManualClock`] and move it.

use std::{fmt, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

/// Longest sleep before the wall clock is read again, so that a suspended or corrected machine is noticed.
pub const RECHECK_INTERVAL_MAX: Duration = Duration::from_secs(30);

/// Tells the time, and waits for an instant.
pub trait Clock: Send + Sync + 'static {
    /// The present instant, in UTC.
    fn now(&self) -> Timestamp;

    /// Waits until [`Self::now`] is at or after `at`; returns at once when it already is.
    fn wait_until(&self, at: Timestamp) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            while let Some(left) = left_until(self.now(), at) {
                tokio::time::sleep(left.min(RECHECK_INTERVAL_MAX)).await;
            }
        })
    }
}

/// A clock that many share.
pub type SharedClock = Arc<dyn Clock>;

fn left_until(now: Timestamp, at: Timestamp) -> Option<Duration> {
    let left = Duration::try_from(at.duration_since(now)).ok()?;
    (!left.is_zero()).then_some(left)
}

/// The operating system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A clock that stands still until it is moved. Clones show the same time.
#[derive(Clone)]
pub struct ManualClock {
    now: watch::Sender<Timestamp>,
}

impl ManualClock {
    /// A clock that shows `now`.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self {
            now: watch::Sender::new(now),
        }
    }

    /// Shows `now` from here on, whether later or earlier than before.
    pub fn set(&self, now: Timestamp) {
        self.now.send_replace(now);
    }

    /// Moves forward; stops at the last instant that can be told.
    pub fn advance(&self, by: Duration) {
        let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
        self.now
            .send_modify(|now| *now = now.saturating_add(by).unwrap_or(Timestamp::MAX));
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ManualClock").field(&self.now()).finish()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.now.borrow()
    }

    fn wait_until(&self, at: Timestamp) -> BoxFuture<'_, ()> {
        let mut changes = self.now.subscribe();
        Box::pin(async move {
            // The sender is `self`, which outlives this future, so the channel cannot close under it.
            let _ = changes.wait_for(|now| *now >= at).await;
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_system_clock_waits_until_the_instant_and_not_longer_than_needed() {
        let clock = SystemClock;
        clock.wait_until(clock.now()).await;
        clock.wait_until(Timestamp::UNIX_EPOCH).await;
    }

    #[tokio::test]
    async fn a_manual_clock_wakes_who_waits_when_it_is_moved_far_enough() {
        let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
        let at = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(10);
        let waiting = clock.clone();
        let waiter = tokio::spawn(async move { waiting.wait_until(at).await });

        clock.advance(Duration::from_secs(9));
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());

        clock.advance(Duration::from_secs(1));
        waiter.await.unwrap();
    }
}
