//! The simulation's clock: the system's, moved by an offset that tests set.
//!
//! Signatures, sessions, minted passwords and the `Date` header all go by it, so a test can jump
//! over fifteen minutes without waiting.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};

/// How far the clock can be moved, in seconds either way (about ten years).
pub(crate) const OFFSET_SECONDS_MAX: i64 = 315_360_000;

#[derive(Debug, Default)]
pub(crate) struct Clock {
    offset_seconds: AtomicI64,
}

impl Clock {
    /// The simulated instant.
    pub(crate) fn now(&self) -> Timestamp {
        let offset = SignedDuration::from_secs(self.offset_seconds());
        Timestamp::now()
            .saturating_add(offset)
            .unwrap_or(Timestamp::MAX)
    }

    pub(crate) fn offset_seconds(&self) -> i64 {
        self.offset_seconds.load(Ordering::Relaxed)
    }

    /// Puts the clock `offset` seconds before or after the system's, within the bound.
    pub(crate) fn set_offset(&self, offset: i64) {
        let bounded = offset.clamp(-OFFSET_SECONDS_MAX, OFFSET_SECONDS_MAX);
        self.offset_seconds.store(bounded, Ordering::Relaxed);
    }
}

/// `Timestamp` plus seconds that may be negative, within time.
pub(crate) fn moved(instant: Timestamp, seconds: i64) -> Timestamp {
    let bounded = seconds.clamp(-OFFSET_SECONDS_MAX, OFFSET_SECONDS_MAX);
    instant
        .saturating_add(SignedDuration::from_secs(bounded))
        .unwrap_or(Timestamp::MAX)
}

/// `Timestamp` plus seconds, at the end of time at most.
pub(crate) fn after(instant: Timestamp, seconds: u32) -> Timestamp {
    instant
        .saturating_add(SignedDuration::from_secs(i64::from(seconds)))
        .unwrap_or(Timestamp::MAX)
}

/// As in XML replies: whole seconds, `2026-01-02T03:04:05Z`.
pub(crate) fn iso(instant: Timestamp) -> String {
    instant.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// As in the `Date` header.
pub(crate) fn http_date(instant: Timestamp) -> String {
    instant.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_have_the_forms_that_aws_sends() {
        let instant = Timestamp::from_second(784_111_777).unwrap();
        assert_eq!(http_date(instant), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(iso(instant), "1994-11-06T08:49:37Z");
    }
}
