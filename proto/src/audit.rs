//! Audit records as third parties may rely on them: the hash chain, the names in JSON, and the lines of an export.
//!
//! Everything here is pure, so that the auth service which writes a chain and the program that verifies it, online or
//! from a file, cannot disagree.
//!
//! Not here: what the auth service does to an event so that it can be stored (`auth/src/audit/shape.rs`).

mod chain;
mod json;
mod line;

pub use chain::{
    Break, Chain, HASH_BYTES, Hash, Head, Link, REPEATS_KEPT_MAX, Repeats, Verifier, digest,
    follow, genesis,
};
pub use json::EventJson;
pub use line::{InvalidLine, Line, ReadLine, hex, read_hash};

use jiff::{SignedDuration, Timestamp};

use crate::{convert, v1::AuditEvent};

/// How far a source's clock may be ahead of the auth service's before its time is not believed.
pub const CLOCK_AHEAD_MAX: SignedDuration = SignedDuration::from_mins(5);

/// How late an event may arrive before its time is not believed: a source that was cut off keeps its events meanwhile.
pub const CLOCK_BEHIND_MAX: SignedDuration = SignedDuration::from_hours(7 * 24);

/// When an event counts as having happened: what its source says, or when it arrived if that cannot be.
///
/// Pure in what is stored, so a search by time and a check of the stored row always agree. An event from before there
/// were chains has no time of arrival, and its source is believed.
#[must_use]
pub fn happened_at(event: &AuditEvent) -> Timestamp {
    let read =
        |at: &Option<prost_types::Timestamp>| at.as_ref().and_then(|at| convert::instant(at).ok());
    match (read(&event.time), read(&event.received)) {
        (Some(said), Some(received)) if is_believable(said, received) => said,
        (_, Some(received)) => received,
        (Some(said), None) => said,
        (None, None) => Timestamp::UNIX_EPOCH,
    }
}

fn is_believable(said: Timestamp, received: Timestamp) -> bool {
    let late = received.duration_since(said);
    late <= CLOCK_BEHIND_MAX && late >= -CLOCK_AHEAD_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Option<prost_types::Timestamp> {
        Some(convert::timestamp(text.parse().unwrap()))
    }

    #[test]
    fn a_clock_that_cannot_be_right_is_not_believed() {
        let happened = |said: Option<prost_types::Timestamp>| {
            happened_at(&AuditEvent {
                time: said,
                received: at("2026-11-22T12:00:00Z"),
                ..AuditEvent::default()
            })
            .to_string()
        };
        let arrival = "2026-11-22T12:00:00Z";
        assert_eq!(happened(at("2026-11-22T11:59:00Z")), "2026-11-22T11:59:00Z");
        assert_eq!(happened(at("2026-11-22T12:04:00Z")), "2026-11-22T12:04:00Z");
        assert_eq!(happened(at("2026-11-22T12:06:00Z")), arrival);
        assert_eq!(happened(at("2026-11-16T12:00:00Z")), "2026-11-16T12:00:00Z");
        assert_eq!(happened(at("1970-01-01T00:00:00Z")), arrival);
        let never = prost_types::Timestamp {
            seconds: i64::MAX,
            nanos: -1,
        };
        assert_eq!(happened(Some(never)), arrival);
        assert_eq!(happened(None), arrival);
    }
}
