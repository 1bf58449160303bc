//! When a scope is scanned next. Pure but for the random spread.
//!
//! A scope that works is scanned every poll interval, counted from start to start and spread by
//! [`JITTER`], so that workers and scopes that started together drift apart. A scope that fails is tried
//! again after a few seconds, then ever less often, up to [`FAILING_INTERVALS_MAX`] poll intervals; as each
//! wait is drawn between the shortest and that, it costs no more calls in the long run than one that works.

use std::time::Duration;

use tidegate_identity::secret;
use tidegate_service::rpc::Backoff;
use tokio::time::Instant;

/// Share of the poll interval by which a scan may come earlier or later.
const JITTER: f64 = 0.1;
/// Longest wait of a failing scope, in poll intervals.
const FAILING_INTERVALS_MAX: u32 = 2;
/// First wait of a failing scope, unless the poll interval is shorter.
const RETRY_MIN: Duration = Duration::from_secs(5);

/// When one scope is scanned next.
#[derive(Debug)]
pub(crate) struct Schedule {
    poll_interval: Duration,
    due: Instant,
    failing: Backoff,
}

impl Schedule {
    /// Due now.
    pub(crate) fn new(poll_interval: Duration, now: Instant) -> Self {
        let longest = poll_interval.saturating_mul(FAILING_INTERVALS_MAX);
        Self {
            poll_interval,
            due: now,
            failing: Backoff::between(RETRY_MIN.min(poll_interval), longest),
        }
    }

    /// When it is due.
    pub(crate) const fn due(&self) -> Instant {
        self.due
    }

    /// Due at once: somebody asked for it.
    pub(crate) fn hurry(&mut self, now: Instant) {
        self.due = self.due.min(now);
    }

    /// Not before `until`: there is no call left for it.
    pub(crate) fn put_off(&mut self, until: Instant) {
        self.due = self.due.max(until);
    }

    /// A scan that began at `started` read its scope to the end, and was published.
    pub(crate) fn succeeded(&mut self, started: Instant) {
        self.failing.reset();
        // Without randomness scans are merely not spread out.
        let random = secret::random_bytes::<4>().map_or(u32::MAX / 2, u32::from_le_bytes);
        self.due = started + jittered(self.poll_interval, random);
    }

    /// A scan broke off, or was not published, at `now`.
    pub(crate) fn failed(&mut self, now: Instant) {
        self.due = now + self.failing.next();
    }
}

/// The interval that `random` stands for, within [`JITTER`] of `interval`.
fn jittered(interval: Duration, random: u32) -> Duration {
    let share = f64::from(random) / f64::from(u32::MAX);
    interval.mul_f64(1.0 - JITTER + 2.0 * JITTER * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLL: Duration = Duration::from_secs(300);

    #[test]
    fn polls_are_spread_by_a_tenth_from_start_to_start() {
        assert_eq!(jittered(POLL, 0).as_secs(), 270);
        assert_eq!(jittered(POLL, u32::MAX).as_secs(), 330);

        let started = Instant::now();
        let mut schedule = Schedule::new(POLL, started);
        assert_eq!(schedule.due(), started);
        schedule.succeeded(started);
        assert!((270..=330).contains(&(schedule.due() - started).as_secs()));
    }

    #[test]
    fn a_failing_scope_is_tried_soon_and_then_ever_less_often_within_bounds() {
        let now = Instant::now();
        let mut schedule = Schedule::new(POLL, now);
        schedule.failed(now);
        assert!(schedule.due() - now <= RETRY_MIN * 2);
        for _ in 0..50 {
            schedule.failed(now);
            assert!((RETRY_MIN..=POLL * FAILING_INTERVALS_MAX).contains(&(schedule.due() - now)));
        }
        schedule.succeeded(now);
        schedule.failed(now);
        assert!(schedule.due() - now <= RETRY_MIN * 2);
    }

    #[test]
    fn a_short_poll_interval_bounds_the_first_retry() {
        let now = Instant::now();
        let mut schedule = Schedule::new(Duration::from_secs(1), now);
        schedule.failed(now);
        assert!(schedule.due() - now <= Duration::from_secs(2));
    }
}
