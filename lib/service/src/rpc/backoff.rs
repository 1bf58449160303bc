//! How long to wait before the next attempt.

use std::time::Duration;

use tidegate_identity::secret;

/// Shortest wait of a [`Backoff`].
pub const BACKOFF_MIN: Duration = Duration::from_millis(200);
/// Longest wait of a [`Backoff`].
pub const BACKOFF_MAX: Duration = Duration::from_secs(15);

/// Waits that grow exponentially, each drawn at random between the shortest and the grown one ("full jitter"), so
/// that many clients that lost the same server do not come back together.
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    attempts: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

impl Backoff {
    /// Between [`BACKOFF_MIN`] and [`BACKOFF_MAX`].
    #[must_use]
    pub const fn new() -> Self {
        Self::between(BACKOFF_MIN, BACKOFF_MAX)
    }

    /// With bounds of one's own; a `max` below `min` counts as `min`.
    #[must_use]
    pub const fn between(min: Duration, max: Duration) -> Self {
        Self {
            min,
            max,
            attempts: 0,
        }
    }

    /// The wait before the next attempt.
    #[expect(
        clippy::should_implement_trait,
        reason = "it never ends and is never iterated"
    )]
    pub fn next(&mut self) -> Duration {
        let ceiling = ceiling(self.min, self.max, self.attempts);
        self.attempts = self.attempts.saturating_add(1);
        // Without randomness waits are merely not spread out.
        let random = secret::random_bytes::<4>().map_or(u32::MAX, u32::from_le_bytes);
        between(self.min, ceiling, random)
    }

    /// Starts anew, after a success.
    pub const fn reset(&mut self) {
        self.attempts = 0;
    }
}

/// The longest wait of this attempt, counted from 0: doubled each time.
fn ceiling(min: Duration, max: Duration, attempt: u32) -> Duration {
    let factor = 2_u32.saturating_pow(attempt.saturating_add(1).min(31));
    min.saturating_mul(factor).min(max).max(min)
}

/// The point between `min` and `max` that `random` stands for.
fn between(min: Duration, max: Duration, random: u32) -> Duration {
    let share = f64::from(random) / f64::from(u32::MAX);
    min + max.saturating_sub(min).mul_f64(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let ceilings: Vec<u128> = (0..9)
            .map(|attempt| ceiling(BACKOFF_MIN, BACKOFF_MAX, attempt).as_millis())
            .collect();
        assert_eq!(
            ceilings,
            [
                400, 800, 1_600, 3_200, 6_400, 12_800, 15_000, 15_000, 15_000
            ]
        );
        assert_eq!(ceiling(BACKOFF_MIN, BACKOFF_MAX, u32::MAX), BACKOFF_MAX);
        assert_eq!(ceiling(BACKOFF_MAX, BACKOFF_MIN, 3), BACKOFF_MAX);
    }

    #[test]
    fn every_wait_stays_within_bounds_and_a_success_starts_anew() {
        let mut backoff = Backoff::new();
        for _ in 0..50 {
            assert!((BACKOFF_MIN..=BACKOFF_MAX).contains(&backoff.next()));
        }
        backoff.reset();
        assert!(backoff.next() <= BACKOFF_MIN * 2);
    }

    #[test]
    fn jitter_spans_the_whole_range() {
        assert_eq!(between(BACKOFF_MIN, BACKOFF_MAX, 0), BACKOFF_MIN);
        assert_eq!(between(BACKOFF_MIN, BACKOFF_MAX, u32::MAX), BACKOFF_MAX);
    }
}
