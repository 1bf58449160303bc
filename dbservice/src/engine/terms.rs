//! What a session is held to while it runs: locks, the life of its certificate, and how long its client may be silent.
//! Pure: locks, time and what was heard come in as values.
//!
//! The terms are those of the roles as they were when the session began. A role that changes later counts for sessions
//! that begin later; a lock is what reaches sessions that run.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tidegate_core::{
    access::{LockMode, SessionOptions},
    locks::{self, LOCKS_STALE_AFTER, LockFacts, LockVerdict, LoginMark},
};
use tokio::time::Instant;

use crate::locks::Known;

/// A silent client is looked at this many times within the time that it has, so that it is noticed at most that part
/// late, and never early.
const LOOKS: u32 = 8;

/// Shortest time between two looks.
const LOOK_APART_MIN: Duration = Duration::from_millis(100);

/// Longest time between two looks, and so the most that a silence is noticed late.
const LOOK_APART_MAX: Duration = Duration::from_secs(30);

/// Which agent this is, as locks may name it.
#[derive(Clone, Debug, Default)]
pub(crate) struct AgentNames {
    pub(crate) host_id: String,
    pub(crate) hostname: String,
}

/// What one session is held to.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) user: String,
    pub(crate) roles: Vec<String>,
    /// The access requests that some of the roles come from.
    pub(crate) access_requests: Vec<String>,
    /// The login that its certificate comes from.
    pub(crate) login: Option<LoginMark>,
    pub(crate) database: String,
    pub(crate) agent: AgentNames,
    /// When the certificate that opened it ends.
    pub(crate) certificate_ends: Timestamp,
    pub(crate) options: SessionOptions,
}

/// Why a session may not go on, or not begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Breach {
    /// Its certificate ended, and a role asks that the session ends with it.
    CertificateExpired,
    /// A lock strikes.
    Locked {
        name: String,
        /// For those who are struck.
        message: String,
    },
    /// The login that it comes from was ended.
    LoginEnded {
        /// For the person.
        message: String,
    },
    /// It is not known which locks there are, and a role asks that no session goes on then.
    LocksUnknown,
}

impl Terms {
    /// Whether the session may go on.
    ///
    /// # Errors
    ///
    /// The first [`Breach`]; a lock before everything else.
    pub(crate) fn judge(&self, known: &Known, now: Timestamp) -> Result<(), Breach> {
        let facts = LockFacts {
            user: Some(&self.user),
            roles: &self.roles,
            host_id: Some(&self.agent.host_id),
            hostname: Some(&self.agent.hostname),
            database: Some(&self.database),
            access_requests: &self.access_requests,
            login: self.login.as_ref().into(),
        };
        match locks::verdict(&*known.locks, facts, self.options.lock, known.at, now) {
            LockVerdict::Free => {}
            LockVerdict::Locked(lock) if lock.target.is_of_logins() => {
                return Err(Breach::LoginEnded {
                    message: lock.message.clone(),
                });
            }
            LockVerdict::Locked(lock) => {
                return Err(Breach::Locked {
                    name: lock.name.clone(),
                    message: lock.message.clone(),
                });
            }
            LockVerdict::Unknown => return Err(Breach::LocksUnknown),
        }
        if self.options.disconnect_expired_cert && now >= self.certificate_ends {
            return Err(Breach::CertificateExpired);
        }
        Ok(())
    }

    /// When to judge again if no lock changes until then; `None` is never.
    pub(crate) fn judge_again_at(&self, known: &Known) -> Option<Timestamp> {
        let certificate = self
            .options
            .disconnect_expired_cert
            .then_some(self.certificate_ends);
        let stale = match self.options.lock {
            LockMode::BestEffort => None,
            LockMode::Strict => known.at.map(stale_from),
        };
        certificate.into_iter().chain(stale).min()
    }
}

/// The first instant at which locks that were known at `known_at` are not known any more.
fn stale_from(known_at: Timestamp) -> Timestamp {
    SignedDuration::try_from(LOCKS_STALE_AFTER + Duration::from_millis(1))
        .ok()
        .and_then(|after| known_at.checked_add(after).ok())
        .unwrap_or(Timestamp::MAX)
}

/// A client that may be silent only for so long. What was heard is a count that the relay raises; when that happened is
/// known to the last look.
#[derive(Debug)]
pub(crate) struct Silence {
    most: Duration,
    heard: u64,
    since: Instant,
}

/// What a look at a client shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Look again after this long.
    Again(Duration),
    /// It was silent for too long.
    TooLong,
}

impl Silence {
    /// A client that was heard just now and may be silent for `most`.
    pub(crate) fn new(most: Duration, heard: u64, now: Instant) -> Self {
        Self {
            most,
            heard,
            since: now,
        }
    }

    /// The most that was allowed.
    pub(crate) fn most(&self) -> Duration {
        self.most
    }

    /// Looks at how much was heard so far.
    pub(crate) fn look(&mut self, heard: u64, now: Instant) -> Look {
        if heard != self.heard {
            self.heard = heard;
            self.since = now;
        }
        let left = self.most.saturating_sub(now.duration_since(self.since));
        if left.is_zero() {
            return Look::TooLong;
        }
        let apart = (self.most / LOOKS).clamp(LOOK_APART_MIN, LOOK_APART_MAX);
        Look::Again(left.min(apart))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidegate_core::{Lock, LockTarget};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn terms(options: SessionOptions) -> Terms {
        Terms {
            user: "alice".to_owned(),
            roles: vec!["access".to_owned()],
            access_requests: vec!["q1".to_owned()],
            login: Some(LoginMark {
                id: "login-1".to_owned(),
                at: at(500),
            }),
            database: "orders".to_owned(),
            agent: AgentNames {
                host_id: "h-1".to_owned(),
                hostname: "agent-1".to_owned(),
            },
            certificate_ends: at(1000),
            options,
        }
    }

    fn known(target: LockTarget, known_at: i64) -> Known {
        let lock = Lock {
            name: "l1".to_owned(),
            target,
            message: "left".to_owned(),
            created: at(0),
            expires: None,
            created_by: String::new(),
        };
        Known {
            locks: [lock].into(),
            at: Some(at(known_at)),
        }
    }

    #[test]
    fn a_lock_on_person_role_agent_database_or_request_is_a_breach_and_one_on_others_is_none() {
        let named = |text: &str| Some(text.to_owned());
        let none = LockTarget::default;
        let user = |name| LockTarget {
            user: named(name),
            ..none()
        };
        let role = |name| LockTarget {
            role: named(name),
            ..none()
        };
        let agent = |name| LockTarget {
            agent: named(name),
            ..none()
        };
        let database = |name| LockTarget {
            database: named(name),
            ..none()
        };
        let request = |id| LockTarget {
            access_request: named(id),
            ..none()
        };
        let terms = terms(SessionOptions::default());
        for target in [
            request("q1"),
            user("alice"),
            role("access"),
            agent("h-1"),
            agent("agent-1"),
            database("orders"),
        ] {
            let judged = terms.judge(&known(target.clone(), 0), at(1));
            assert!(matches!(judged, Err(Breach::Locked { .. })), "{target:?}");
        }
        for target in [
            request("q2"),
            user("bob"),
            role("editor"),
            agent("h-2"),
            database("users"),
            none(),
        ] {
            assert_eq!(terms.judge(&known(target, 0), at(1)), Ok(()));
        }
    }

    #[test]
    fn an_ended_login_is_a_breach_for_what_comes_of_it_alone() {
        let terms = terms(SessionOptions::default());
        let alice = || LockTarget {
            user: Some("alice".to_owned()),
            ..LockTarget::default()
        };
        let login = |id: &str| LockTarget {
            login: Some(id.to_owned()),
            ..alice()
        };
        let until = |second| LockTarget {
            logins_until: Some(at(second)),
            ..alice()
        };
        for target in [login("login-1"), until(500)] {
            let judged = terms.judge(&known(target.clone(), 0), at(501));
            assert!(
                matches!(judged, Err(Breach::LoginEnded { .. })),
                "{target:?}"
            );
        }
        for target in [login("login-2"), until(499)] {
            assert_eq!(terms.judge(&known(target, 0), at(501)), Ok(()));
        }
    }

    #[test]
    fn a_certificate_that_ended_is_a_breach_only_where_a_role_asks_for_it() {
        let ended = at(1000);
        let lax = terms(SessionOptions::default());
        assert_eq!(lax.judge(&Known::default(), ended), Ok(()));
        assert_eq!(lax.judge_again_at(&Known::default()), None);
        let strict = terms(SessionOptions {
            disconnect_expired_cert: true,
            ..SessionOptions::default()
        });
        assert_eq!(strict.judge_again_at(&Known::default()), Some(ended));
        assert_eq!(strict.judge(&Known::default(), at(999)), Ok(()));
        assert_eq!(
            strict.judge(&Known::default(), ended),
            Err(Breach::CertificateExpired)
        );
    }

    #[test]
    fn strict_sessions_are_judged_again_the_moment_the_locks_are_stale() {
        let strict = terms(SessionOptions {
            lock: LockMode::Strict,
            ..SessionOptions::default()
        });
        let known = known(LockTarget::default(), 100);
        let again = strict.judge_again_at(&known).unwrap();
        let before = again - SignedDuration::from_millis(1);
        assert_eq!(strict.judge(&known, before), Ok(()));
        assert_eq!(strict.judge(&known, again), Err(Breach::LocksUnknown));
        assert_eq!(
            strict.judge(&Known::default(), at(1)),
            Err(Breach::LocksUnknown)
        );
    }

    proptest! {
        #[test]
        fn silence_is_never_noticed_early_and_at_most_an_eighth_late(
            most_ms in 1_000_u64..100_000,
            speaks_at_ms in proptest::collection::btree_set(0_u64..500_000, 0..20),
        ) {
            let (begun, most) = (Instant::now(), Duration::from_millis(most_ms));
            let mut silence = Silence::new(most, 0, begun);
            let mut passed = Duration::ZERO;
            loop {
                let said = speaks_at_ms.iter().filter(|at| Duration::from_millis(**at) <= passed);
                let last = said.clone().max().map_or(Duration::ZERO, |at| Duration::from_millis(*at));
                match silence.look(said.count() as u64, begun + passed) {
                    Look::Again(after) => {
                        prop_assert!(!after.is_zero());
                        passed += after;
                    }
                    Look::TooLong => {
                        let silent = passed - last;
                        prop_assert!(silent >= most, "early: {silent:?} of {most:?}");
                        prop_assert!(silent <= most + most / 8 + LOOK_APART_MIN, "late: {silent:?}");
                        break;
                    }
                }
            }
        }
    }
}
