//! Tells the audit log of calls that were denied.
//!
//! A program that tries again and again must not fill the log: the same caller and method are told once in
//! [`QUIET_FOR`].

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tidegate_service::clock::SharedClock;

use super::caller::Caller;
use crate::audit::{AuditLog, event};

/// How long the same denial is not told again.
const QUIET_FOR: Duration = Duration::from_mins(1);
/// Denials that are remembered.
const REMEMBERED_MAX: usize = 4096;

/// Tells of denied calls.
pub(super) struct Denials {
    audit: AuditLog,
    clock: SharedClock,
    told: Told,
}

impl Denials {
    pub(super) fn new(audit: AuditLog, clock: SharedClock) -> Self {
        Self {
            audit,
            clock,
            told: Told::default(),
        }
    }

    /// A caller was denied a method.
    pub(super) fn tell(&self, caller: &Caller, method: &str, error: &str) {
        let actor = caller.actor();
        if !self.told.is_new(&actor, method, self.clock.now()) {
            return;
        }
        let mut denied = event::new(event::ACCESS_DENIED);
        if matches!(caller, Caller::Host(..)) {
            denied.server_id.clone_from(&actor);
        }
        denied.user = actor;
        error.clone_into(&mut denied.error);
        let method = method.trim_start_matches('/').to_owned();
        denied.fields.insert("method".to_owned(), method);
        self.audit.record(denied);
    }
}

/// What was told, and when.
#[derive(Default)]
struct Told(Mutex<HashMap<(String, String), Timestamp>>);

impl Told {
    fn is_new(&self, actor: &str, method: &str, now: Timestamp) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let quiet = SignedDuration::try_from(QUIET_FOR).unwrap_or(SignedDuration::MAX);
        let is_quiet = |since: &Timestamp| now.duration_since(*since) < quiet;
        let key = (actor.to_owned(), method.to_owned());
        if told.get(&key).is_some_and(is_quiet) {
            return false;
        }
        if told.len() >= REMEMBERED_MAX {
            told.retain(|_, since| is_quiet(since));
        }
        if told.len() >= REMEMBERED_MAX {
            // So many at once: better told twice than not at all.
            told.clear();
        }
        told.insert(key, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_is_told_once_a_minute_and_the_memory_of_it_is_bounded() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let told = Told::default();
        assert!(told.is_new("alice", "/a", at(0)));
        assert!(!told.is_new("alice", "/a", at(59)));
        assert!(told.is_new("alice", "/b", at(59)));
        assert!(told.is_new("alice", "/a", at(60)));
        for index in 0..REMEMBERED_MAX + 5 {
            assert!(told.is_new(&format!("user{index}"), "/a", at(60)));
        }
        assert!(told.0.lock().unwrap().len() <= REMEMBERED_MAX);
    }
}
