//! Slows down who guesses passwords.
//!
//! After a few failures in a row a name has to wait, twice as long each time, whether or not there is such a person.
//! It is kept in memory, per instance and bounded: it makes guessing slow, it is not a record.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

/// Failures in a row that cost nothing.
const FAILURES_FREE: u32 = 5;
/// Longest wait.
const WAIT_MAX: Duration = Duration::from_secs(300);
/// Names that are remembered.
const NAMES_MAX: usize = 10_000;

#[derive(Clone, Copy, Debug)]
struct Record {
    failures: u32,
    last: Timestamp,
}

impl Record {
    fn wait(self) -> Duration {
        match self.failures.checked_sub(FAILURES_FREE) {
            None => Duration::ZERO,
            Some(beyond) => Duration::from_secs(1 << beyond.min(16)).min(WAIT_MAX),
        }
    }

    fn left(self, now: Timestamp) -> Duration {
        let since = Duration::try_from(now.duration_since(self.last)).unwrap_or(Duration::ZERO);
        self.wait().saturating_sub(since)
    }

    /// Whether it can be forgotten: long enough ago that it tells nothing.
    fn is_stale(self, now: Timestamp) -> bool {
        now.duration_since(self.last)
            > SignedDuration::try_from(WAIT_MAX * 2).unwrap_or(SignedDuration::MAX)
    }
}

/// Failed logins by name.
#[derive(Debug, Default)]
pub(super) struct Lockout {
    records: Mutex<HashMap<String, Record>>,
}

impl Lockout {
    fn records(&self) -> std::sync::MutexGuard<'_, HashMap<String, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long this name has to wait before the next try.
    pub(super) fn wait(&self, name: &str, now: Timestamp) -> Duration {
        self.records()
            .get(name)
            .map_or(Duration::ZERO, |record| record.left(now))
    }

    /// A try failed. It counts before its outcome is known to the caller, so tries at the same time count too.
    pub(super) fn failed(&self, name: &str, now: Timestamp) {
        let mut records = self.records();
        if records.len() >= NAMES_MAX && !records.contains_key(name) {
            make_room(&mut records, now);
        }
        let record = records.entry(name.to_owned()).or_insert(Record {
            failures: 0,
            last: now,
        });
        if record.is_stale(now) {
            record.failures = 0;
        }
        record.failures = record.failures.saturating_add(1);
        record.last = now;
    }

    /// A try could not be looked at after all.
    pub(super) fn forgive(&self, name: &str) {
        if let Some(record) = self.records().get_mut(name) {
            record.failures = record.failures.saturating_sub(1);
        }
    }

    /// A try succeeded.
    pub(super) fn succeeded(&self, name: &str) {
        self.records().remove(name);
    }
}

/// Forgets what is stale; if nothing is, the name with the fewest failures.
fn make_room(records: &mut HashMap<String, Record>, now: Timestamp) {
    records.retain(|_, record| !record.is_stale(now));
    if records.len() >= NAMES_MAX {
        let least = records
            .iter()
            .min_by_key(|(_, record)| (record.failures, record.last))
            .map(|(name, _)| name.clone());
        if let Some(name) = least {
            records.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn waits_double_after_a_few_failures_and_end_with_a_success() {
        let lockout = Lockout::default();
        for _ in 0..4 {
            lockout.failed("alice", at(0));
        }
        assert_eq!(lockout.wait("alice", at(0)), Duration::ZERO);
        lockout.failed("alice", at(0));
        assert_eq!(lockout.wait("alice", at(0)), Duration::from_secs(1));
        lockout.failed("alice", at(1));
        lockout.failed("alice", at(3));
        assert_eq!(lockout.wait("alice", at(3)), Duration::from_secs(4));
        assert_eq!(lockout.wait("alice", at(5)), Duration::from_secs(2));
        for _ in 0..100 {
            lockout.failed("alice", at(5));
        }
        assert_eq!(lockout.wait("alice", at(5)), WAIT_MAX);
        assert_eq!(lockout.wait("bob", at(5)), Duration::ZERO);
        lockout.succeeded("alice");
        assert_eq!(lockout.wait("alice", at(5)), Duration::ZERO);
    }

    #[test]
    fn names_are_bounded_and_who_guessed_most_is_kept() {
        let lockout = Lockout::default();
        for _ in 0..10 {
            lockout.failed("alice", at(0));
        }
        for index in 0..NAMES_MAX + 5 {
            lockout.failed(&format!("name{index}"), at(1));
        }
        assert!(lockout.records().len() <= NAMES_MAX);
        assert!(lockout.wait("alice", at(1)) > Duration::ZERO);
    }
}
