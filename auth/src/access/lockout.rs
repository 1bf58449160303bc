//! Slows down who guesses passwords and codes.
//!
//! After a few failures in a row a name has to wait, twice as long each time, whether or not there is such a person.
//! Failures are counted in memory, bounded; from the one on that makes a name wait they are in the store too ([`shared`]),
//! so that all instances over one store make it wait. An instance alone thus grants a name [`FAILURES_FREE`] tries, and
//! several of them that many each.
//!
//! Invariant: a try counts before its outcome is known, so that tries at the same time count too.

mod shared;

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

/// Failures in a row that cost nothing.
const FAILURES_FREE: u32 = 5;
/// Longest wait.
const WAIT_MAX: Duration = Duration::from_mins(5);
/// How long failures are remembered after the last one.
const REMEMBERED: Duration = Duration::from_mins(10);
/// Names that are remembered.
const NAMES_MAX: usize = 10_000;

/// Failures of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failures {
    /// In a row; 0 says that those before `last` are forgiven.
    pub(super) count: u32,
    /// When the last one was.
    pub(super) last: Timestamp,
}

impl Failures {
    fn wait(self) -> Duration {
        match self.count.checked_sub(FAILURES_FREE) {
            None => Duration::ZERO,
            Some(beyond) => Duration::from_secs(1 << beyond.min(16)).min(WAIT_MAX),
        }
    }

    /// How long the name has to wait from now on.
    pub(super) fn left(self, now: Timestamp) -> Duration {
        let since = Duration::try_from(now.duration_since(self.last)).unwrap_or(Duration::ZERO);
        self.wait().saturating_sub(since)
    }

    /// Until when the name has to wait, if it has to.
    pub(super) fn until(self, now: Timestamp) -> Option<Timestamp> {
        let left = self.left(now);
        let left = SignedDuration::try_from(left)
            .ok()
            .filter(|left| !left.is_zero())?;
        now.checked_add(left).ok()
    }

    /// Whether the name has to wait because of the last one.
    pub(super) const fn makes_wait(self) -> bool {
        self.count >= FAILURES_FREE
    }

    /// Whether it can be forgotten: long enough ago that it tells nothing.
    fn is_stale(self, now: Timestamp) -> bool {
        let remembered = SignedDuration::try_from(REMEMBERED).unwrap_or(SignedDuration::MAX);
        now.duration_since(self.last) > remembered
    }
}

/// What two places know of one name comes to: neither forgets what the other has seen, unless it was forgiven since.
fn merged(here: Option<Failures>, stored: Option<Failures>) -> Option<Failures> {
    match (here, stored) {
        (Some(here), Some(stored)) if stored.count == 0 => {
            (here.last > stored.last).then_some(here)
        }
        (Some(here), Some(stored)) => Some(Failures {
            count: here.count.max(stored.count),
            last: here.last.max(stored.last),
        }),
        (here, None) => here,
        (None, stored) => stored.filter(|stored| stored.count > 0),
    }
}

/// Failed tries by name.
#[derive(Debug, Default)]
pub(super) struct Lockout {
    names: Mutex<HashMap<String, Failures>>,
}

impl Lockout {
    fn names(&self) -> std::sync::MutexGuard<'_, HashMap<String, Failures>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long this name has to wait before the next try.
    pub(super) fn wait(&self, name: &str, stored: Option<Failures>, now: Timestamp) -> Duration {
        let here = self.names().get(name).copied();
        merged(here, stored).map_or(Duration::ZERO, |failures| failures.left(now))
    }

    /// A try fails, as far as is known: what that comes to.
    pub(super) fn failed(&self, name: &str, stored: Option<Failures>, now: Timestamp) -> Failures {
        let mut names = self.names();
        if names.len() >= NAMES_MAX && !names.contains_key(name) {
            make_room(&mut names, now);
        }
        let before = merged(names.get(name).copied(), stored);
        let before = before.filter(|failures| !failures.is_stale(now));
        let failures = Failures {
            count: before
                .map_or(0, |failures| failures.count)
                .saturating_add(1),
            last: now,
        };
        names.insert(name.to_owned(), failures);
        failures
    }

    /// A try could not be looked at after all.
    pub(super) fn forgive(&self, name: &str) {
        if let Some(failures) = self.names().get_mut(name) {
            failures.count = failures.count.saturating_sub(1);
        }
    }

    /// A try succeeded, or an administrator says that the name is to be tried again.
    pub(super) fn clear(&self, name: &str) {
        self.names().remove(name);
    }
}

/// Forgets what is stale; if nothing is, the name with the fewest failures.
fn make_room(names: &mut HashMap<String, Failures>, now: Timestamp) {
    names.retain(|_, failures| !failures.is_stale(now));
    if names.len() >= NAMES_MAX {
        let least = names
            .iter()
            .min_by_key(|(_, failures)| (failures.count, failures.last))
            .map(|(name, _)| name.clone());
        if let Some(name) = least {
            names.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn failures(count: u32, second: i64) -> Option<Failures> {
        Some(Failures {
            count,
            last: at(second),
        })
    }

    #[test]
    fn waits_double_after_a_few_failures_and_end_with_a_success() {
        let lockout = Lockout::default();
        let failed = |second| lockout.failed("alice", None, at(second));
        let wait = |name: &str, second| lockout.wait(name, None, at(second));
        for _ in 0..4 {
            assert!(!failed(0).makes_wait());
        }
        assert_eq!(wait("alice", 0), Duration::ZERO);
        assert!(failed(0).makes_wait());
        assert_eq!(wait("alice", 0), Duration::from_secs(1));
        failed(1);
        failed(3);
        assert_eq!(wait("alice", 3), Duration::from_secs(4));
        assert_eq!(wait("alice", 5), Duration::from_secs(2));
        for _ in 0..100 {
            failed(5);
        }
        assert_eq!(wait("alice", 5), WAIT_MAX);
        assert_eq!(wait("bob", 5), Duration::ZERO);
        lockout.clear("alice");
        assert_eq!(wait("alice", 5), Duration::ZERO);
    }

    #[test]
    fn a_name_waits_here_for_what_failed_elsewhere() {
        let lockout = Lockout::default();
        let stored = failures(7, 10);
        assert_eq!(
            lockout.wait("alice", stored, at(10)),
            Duration::from_secs(4)
        );
        assert_eq!(lockout.failed("alice", stored, at(20)).count, 8);
        assert_eq!(lockout.wait("alice", None, at(20)), Duration::from_secs(8));
    }

    #[test]
    fn what_is_forgiven_in_the_store_is_forgiven_here_and_what_fails_later_counts_anew() {
        let lockout = Lockout::default();
        for _ in 0..8 {
            lockout.failed("alice", None, at(10));
        }
        let forgiven = failures(0, 10);
        assert_eq!(lockout.wait("alice", forgiven, at(10)), Duration::ZERO);
        assert_eq!(lockout.failed("alice", forgiven, at(11)).count, 1);
        assert_eq!(lockout.failed("alice", forgiven, at(12)).count, 2);
    }

    #[test]
    fn failures_of_long_ago_tell_nothing() {
        let lockout = Lockout::default();
        for _ in 0..8 {
            lockout.failed("alice", None, at(0));
        }
        assert_eq!(lockout.failed("alice", None, at(601)).count, 1);
    }

    #[test]
    fn names_are_bounded_and_who_guessed_most_is_kept() {
        let lockout = Lockout::default();
        for _ in 0..10 {
            lockout.failed("alice", None, at(0));
        }
        for index in 0..NAMES_MAX + 5 {
            lockout.failed(&format!("name{index}"), None, at(1));
        }
        assert!(lockout.names().len() <= NAMES_MAX);
        assert!(lockout.wait("alice", None, at(1)) > Duration::ZERO);
    }
}
