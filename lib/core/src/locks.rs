//! Locks: who and what is shut out now, whatever roles allow.
//!
//! A lock names a target; whoever or whatever has every part of it is struck. Pure: which locks there are, who asks and
//! the time all come in as values. Sessions ask when they begin and again whenever the locks change.
//!
//! Not here: keeping locks and telling agents about them, and ending sessions.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::access::LockMode;

/// How old knowledge of the locks may be before it counts as unknown.
pub const LOCKS_STALE_AFTER: Duration = Duration::from_mins(5);
/// Longest message of a lock.
pub const LOCK_MESSAGE_BYTES_MAX: usize = 1024;

/// Why a lock cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidLock {
    /// It would never strike.
    #[error("the lock ends before it begins")]
    EndsBeforeItBegins,
    /// The message is longer than [`LOCK_MESSAGE_BYTES_MAX`].
    #[error("the message is longer than {LOCK_MESSAGE_BYTES_MAX} bytes")]
    MessageTooLong,
    /// It names nobody and nothing, and so would strike everybody.
    #[error("a lock names a user, a role, an agent, a database or an access request")]
    NoTarget,
}

/// Who or what is locked. Every part that is named has to fit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LockTarget {
    /// A person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Everybody who has this role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// An agent or other service, by host id or host name.
    #[serde(
        skip_serializing_if = "Option::is_none",
        alias = "server_id",
        alias = "node"
    )]
    pub agent: Option<String>,
    /// A database, by its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Whoever has roles by this access request, by its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_request: Option<String>,
    /// One login of `user`, by its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// Every login of `user` up to this instant, and certificates that tell of none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logins_until: Option<Timestamp>,
}

/// One login of a person, as every certificate that comes of it tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginMark {
    /// Names it.
    pub id: String,
    /// When it was. Later than everything that ended logins of the person before: see [`login_time`].
    pub at: Timestamp,
}

/// What is known of the login that a session or call comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoginFact<'f> {
    /// Nothing.
    #[default]
    Unknown,
    /// That the certificate tells of none: a program gave it that knew of none yet.
    Unmarked,
    /// Which.
    Marked(&'f LoginMark),
}

impl<'f> From<Option<&'f LoginMark>> for LoginFact<'f> {
    fn from(mark: Option<&'f LoginMark>) -> Self {
        mark.map_or(Self::Unmarked, Self::Marked)
    }
}

/// A lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// Names the lock.
    pub name: String,
    /// Who or what is locked.
    pub target: LockTarget,
    /// What those who are struck may read.
    #[serde(default)]
    pub message: String,
    /// From when.
    pub created: Timestamp,
    /// Until when; `None` is until it is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// Who made it.
    #[serde(default)]
    pub created_by: String,
}

/// What is known of a session or call that locks may strike. What is not known fits no target that names it.
#[derive(Clone, Copy, Debug, Default)]
pub struct LockFacts<'f> {
    /// The person.
    pub user: Option<&'f str>,
    /// The roles that the person has.
    pub roles: &'f [String],
    /// The agent's or service's host id.
    pub host_id: Option<&'f str>,
    /// Its host name.
    pub hostname: Option<&'f str>,
    /// The database.
    pub database: Option<&'f str>,
    /// The access requests that some of the roles come from.
    pub access_requests: &'f [String],
    /// The login that it comes from.
    pub login: LoginFact<'f>,
}

/// What locks say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockVerdict<'l> {
    /// Nothing strikes.
    Free,
    /// This lock strikes.
    Locked(&'l Lock),
    /// The locks are not known well enough, and a role asks that this ends sessions.
    Unknown,
}

impl LockTarget {
    /// Whether nothing is named; such a target fits nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.user.is_none()
            && self.role.is_none()
            && self.agent.is_none()
            && self.database.is_none()
            && self.access_request.is_none()
            && self.login.is_none()
            && self.logins_until.is_none()
    }

    /// Whether logins are what it ends: it comes of a login that was ended, and administrators neither make nor lift it.
    #[must_use]
    pub const fn is_of_logins(&self) -> bool {
        self.login.is_some() || self.logins_until.is_some()
    }

    fn fits_login(&self, facts: LockFacts<'_>) -> bool {
        if !self.is_of_logins() {
            return true;
        }
        // Ids and times are compared within one person's logins only.
        if self.user.is_none() {
            return false;
        }
        match facts.login {
            LoginFact::Unknown => false,
            LoginFact::Unmarked => self.login.is_none(),
            LoginFact::Marked(mark) => {
                self.login.as_ref().is_none_or(|id| *id == mark.id)
                    && self.logins_until.is_none_or(|until| mark.at <= until)
            }
        }
    }

    /// Whether every part that is named fits.
    #[must_use]
    pub fn fits(&self, facts: LockFacts<'_>) -> bool {
        let is = |named: &Option<String>, known: Option<&str>| {
            named.as_deref().is_none_or(|named| known == Some(named))
        };
        let role = self.role.as_ref();
        let request = self.access_request.as_ref();
        let agent = self.agent.as_deref();
        !self.is_empty()
            && is(&self.user, facts.user)
            && is(&self.database, facts.database)
            && self.fits_login(facts)
            && role.is_none_or(|role| facts.roles.contains(role))
            && request.is_none_or(|request| facts.access_requests.contains(request))
            && agent.is_none_or(|agent| {
                facts.host_id == Some(agent)
                    || facts
                        .hostname
                        .is_some_and(|name| name.eq_ignore_ascii_case(agent))
            })
    }
}

impl Lock {
    /// Checks what no type rules out.
    ///
    /// # Errors
    ///
    /// [`InvalidLock`] for a lock without a target, without an end after its beginning, or with an endless message.
    pub fn checked(self) -> Result<Self, InvalidLock> {
        if self.target.is_empty() {
            return Err(InvalidLock::NoTarget);
        }
        if self.message.len() > LOCK_MESSAGE_BYTES_MAX {
            return Err(InvalidLock::MessageTooLong);
        }
        if self.expires.is_some_and(|expires| expires <= self.created) {
            return Err(InvalidLock::EndsBeforeItBegins);
        }
        Ok(self)
    }

    /// Whether it is in force. One whose beginning lies ahead is too: clocks differ, and a lock is meant at once.
    #[must_use]
    pub fn is_in_force(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

/// The time that a login is marked with: now, or just after everything that ended logins of the same person, should the
/// clock that did so be ahead. So no login is struck by what was meant for those before it.
pub fn login_time<'l>(
    locks: impl IntoIterator<Item = &'l Lock>,
    user: &str,
    now: Timestamp,
) -> Timestamp {
    locks
        .into_iter()
        .filter(|lock| lock.target.user.as_deref() == Some(user))
        .filter_map(|lock| lock.target.logins_until)
        .filter_map(|until| until.checked_add(Duration::from_millis(1)).ok())
        .fold(now, Timestamp::max)
}

/// The first lock in force that strikes.
pub fn strikes<'l>(
    locks: impl IntoIterator<Item = &'l Lock>,
    facts: LockFacts<'_>,
    now: Timestamp,
) -> Option<&'l Lock> {
    locks
        .into_iter()
        .find(|lock| lock.is_in_force(now) && lock.target.fits(facts))
}

/// What the locks, as they were known at `known_at`, say now.
///
/// `known_at` is when the source of the locks last said that they are complete; `None` is never. In
/// [`LockMode::Strict`], knowledge older than [`LOCKS_STALE_AFTER`] is none.
pub fn verdict<'l>(
    locks: impl IntoIterator<Item = &'l Lock>,
    facts: LockFacts<'_>,
    mode: LockMode,
    known_at: Option<Timestamp>,
    now: Timestamp,
) -> LockVerdict<'l> {
    if let Some(lock) = strikes(locks, facts, now) {
        return LockVerdict::Locked(lock);
    }
    let fresh = known_at.is_some_and(|at| {
        let age = now.duration_since(at);
        Duration::try_from(age).is_ok_and(|age| age <= LOCKS_STALE_AFTER) || age.is_negative()
    });
    match mode {
        LockMode::Strict if !fresh => LockVerdict::Unknown,
        LockMode::Strict | LockMode::BestEffort => LockVerdict::Free,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn lock(target: LockTarget, expires: Option<i64>) -> Lock {
        Lock {
            name: "l1".to_owned(),
            target,
            message: "left the company".to_owned(),
            created: at(100),
            expires: expires.map(at),
            created_by: "root".to_owned(),
        }
    }

    fn user(name: &str) -> LockTarget {
        LockTarget {
            user: Some(name.to_owned()),
            ..LockTarget::default()
        }
    }

    const ROLES: &[String] = &[];

    fn alice() -> LockFacts<'static> {
        LockFacts {
            user: Some("alice"),
            roles: ROLES,
            host_id: Some("h-1"),
            hostname: Some("Agent-1"),
            database: Some("orders"),
            access_requests: ROLES,
            login: LoginFact::Unknown,
        }
    }

    #[test]
    fn a_lock_strikes_what_has_every_part_of_its_target() {
        let roles = ["dba".to_owned()];
        let facts = LockFacts {
            roles: &roles,
            ..alice()
        };
        let named = |text: &str| Some(text.to_owned());
        for (target, expected) in [
            (user("alice"), true),
            (user("bob"), false),
            (
                LockTarget {
                    role: named("dba"),
                    ..LockTarget::default()
                },
                true,
            ),
            (
                LockTarget {
                    role: named("access"),
                    ..LockTarget::default()
                },
                false,
            ),
            (
                LockTarget {
                    agent: named("h-1"),
                    ..LockTarget::default()
                },
                true,
            ),
            (
                LockTarget {
                    agent: named("agent-1"),
                    ..LockTarget::default()
                },
                true,
            ),
            (
                LockTarget {
                    agent: named("h-2"),
                    ..LockTarget::default()
                },
                false,
            ),
            (
                LockTarget {
                    database: named("orders"),
                    ..LockTarget::default()
                },
                true,
            ),
            (
                LockTarget {
                    database: named("orders"),
                    ..user("alice")
                },
                true,
            ),
            (
                LockTarget {
                    database: named("users"),
                    ..user("alice")
                },
                false,
            ),
            (LockTarget::default(), false),
        ] {
            assert_eq!(target.fits(facts), expected, "{target:?}");
        }
    }

    #[test]
    fn a_lock_on_an_access_request_strikes_whoever_has_roles_by_it() {
        let carried = ["q1".to_owned(), "q2".to_owned()];
        let facts = LockFacts {
            access_requests: &carried,
            ..alice()
        };
        let on = |id: &str| LockTarget {
            access_request: Some(id.to_owned()),
            ..LockTarget::default()
        };
        assert!(on("q2").fits(facts));
        assert!(!on("q3").fits(facts));
        assert!(!on("q2").fits(alice()));
    }

    #[test]
    fn what_is_not_known_fits_no_target_that_names_it() {
        assert!(!user("alice").fits(LockFacts::default()));
        let agent = LockTarget {
            agent: Some("h-1".to_owned()),
            ..LockTarget::default()
        };
        assert!(!agent.fits(LockFacts::default()));
    }

    fn mark(id: &str, second: i64) -> LoginMark {
        LoginMark {
            id: id.to_owned(),
            at: at(second),
        }
    }

    fn of(login: LoginFact<'_>) -> LockFacts<'_> {
        LockFacts { login, ..alice() }
    }

    #[test]
    fn an_ended_login_strikes_itself_and_no_other_login_or_person() {
        let target = LockTarget {
            login: Some("a".to_owned()),
            ..user("alice")
        };
        let (a, b) = (mark("a", 10), mark("b", 10));
        assert!(target.fits(of(LoginFact::Marked(&a))));
        assert!(!target.fits(of(LoginFact::Marked(&b))));
        assert!(!target.fits(of(LoginFact::Unmarked)));
        assert!(!target.fits(of(LoginFact::Unknown)));
        let bob = LockFacts {
            user: Some("bob"),
            ..of(LoginFact::Marked(&a))
        };
        assert!(!target.fits(bob));
        let nobody = LockTarget {
            user: None,
            ..target
        };
        assert!(!nobody.fits(of(LoginFact::Marked(&a))));
    }

    #[test]
    fn all_logins_ended_strikes_those_before_and_unmarked_ones_and_none_after() {
        let target = LockTarget {
            logins_until: Some(at(20)),
            ..user("alice")
        };
        for (second, expected) in [(10, true), (20, true), (21, false)] {
            let mark = mark("a", second);
            assert_eq!(target.fits(of(LoginFact::Marked(&mark))), expected);
        }
        assert!(target.fits(of(LoginFact::Unmarked)));
        assert!(!target.fits(of(LoginFact::Unknown)));
    }

    #[test]
    fn a_login_is_later_than_what_ended_the_ones_before_even_by_a_clock_that_is_ahead() {
        let ended = LockTarget {
            logins_until: Some(at(100)),
            ..user("alice")
        };
        let locks = [lock(ended.clone(), None), lock(user("alice"), None)];
        let later = login_time(&locks, "alice", at(90));
        assert!(later > at(100));
        let mark = LoginMark {
            id: "a".to_owned(),
            at: later,
        };
        let facts = LockFacts {
            login: LoginFact::Marked(&mark),
            ..alice()
        };
        assert!(!ended.fits(facts));
        assert_eq!(login_time(&locks, "bob", at(90)), at(90));
        assert_eq!(login_time(&locks, "alice", at(200)), at(200));
    }

    #[test]
    fn a_lock_strikes_until_it_expires() {
        let locks = [lock(user("bob"), None), lock(user("alice"), Some(200))];
        assert_eq!(strikes(&locks, alice(), at(199)), Some(&locks[1]));
        assert_eq!(strikes(&locks, alice(), at(200)), None);
        // A clock that is behind the one that made the lock.
        assert_eq!(strikes(&locks, alice(), at(50)), Some(&locks[1]));
    }

    #[test]
    fn strict_mode_ends_sessions_when_the_locks_are_not_known() {
        let stale = at(1000) + LOCKS_STALE_AFTER + Duration::from_secs(1);
        let none: [Lock; 0] = [];
        for (mode, known_at, expected) in [
            (LockMode::Strict, Some(at(1000)), LockVerdict::Unknown),
            (LockMode::Strict, None, LockVerdict::Unknown),
            (LockMode::Strict, Some(stale), LockVerdict::Free),
            (
                LockMode::Strict,
                Some(stale + Duration::from_secs(9)),
                LockVerdict::Free,
            ),
            (LockMode::BestEffort, Some(at(1000)), LockVerdict::Free),
            (LockMode::BestEffort, None, LockVerdict::Free),
        ] {
            assert_eq!(verdict(&none, alice(), mode, known_at, stale), expected);
        }
        let locks = [lock(user("alice"), None)];
        assert_eq!(
            verdict(&locks, alice(), LockMode::BestEffort, None, stale),
            LockVerdict::Locked(&locks[0])
        );
    }

    #[test]
    fn a_lock_that_names_nothing_or_never_strikes_is_refused() {
        assert_eq!(
            lock(LockTarget::default(), None).checked(),
            Err(InvalidLock::NoTarget)
        );
        assert_eq!(
            lock(user("alice"), Some(100)).checked(),
            Err(InvalidLock::EndsBeforeItBegins)
        );
        let mut long = lock(user("alice"), None);
        long.message = "x".repeat(LOCK_MESSAGE_BYTES_MAX + 1);
        assert_eq!(long.checked(), Err(InvalidLock::MessageTooLong));
        assert!(lock(user("alice"), Some(101)).checked().is_ok());
    }
}
