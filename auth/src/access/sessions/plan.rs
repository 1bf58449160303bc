//! What to write to end logins of a person. Pure.
//!
//! Invariant: what is ended stays ended when locks on single logins make room for the one on all of them, also where
//! clocks of instances differ.

use jiff::{SignedDuration, Timestamp};
use tidegate_core::LockTarget;
use tidegate_identity::USER_CERT_TTL_MAX;

/// Most logins of one person that are listed: the record of the oldest one makes room for a new one, and the login goes on.
pub(super) const LOGINS_KEPT_MAX: usize = 500;

/// Which logins of a person to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which<'w> {
    /// All that there were so far, those that are not listed included.
    All,
    /// One.
    One {
        /// Its id.
        id: &'w str,
        /// When it was and when its certificate ends, for one that may be listed no more.
        known: Option<(Timestamp, Timestamp)>,
    },
}

/// A login as it is listed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Listed {
    pub(super) id: String,
    pub(super) at: Timestamp,
    pub(super) ends: Timestamp,
}

/// What to write to end logins.
#[derive(Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) target: LockTarget,
    /// Until when the lock has to strike.
    pub(super) ends: Timestamp,
    /// Ids of those of the listed ones that end.
    pub(super) ended: Vec<String>,
}

/// How to end logins of a person, of whom these are listed, and of whom those up to `ended_until` were ended before, all
/// or one by one. `None` when there is no such login.
pub(super) fn plan(
    user: &str,
    listed: &[Listed],
    ended_until: Option<Timestamp>,
    which: Which<'_>,
    now: Timestamp,
) -> Option<Plan> {
    let of_user = LockTarget {
        user: Some(user.to_owned()),
        ..LockTarget::default()
    };
    let one = match which {
        Which::All => None,
        Which::One { id, known } => {
            let found = listed.iter().find(|login| login.id == id);
            let span = found.map(|login| (login.at, login.ends)).or(known)?;
            // The last one that goes on: one lock does for it and for those that were ended before it. Not so when there
            // may be others that are not listed.
            let is_last = listed.iter().all(|login| login.id == id);
            let is_all = is_last && found.is_some() && listed.len() < LOGINS_KEPT_MAX;
            (!is_all).then_some((id, span))
        }
    };
    Some(match one {
        Some((id, (at, ends))) => Plan {
            target: LockTarget {
                login: Some(id.to_owned()),
                logins_until: Some(at),
                ..of_user
            },
            ends,
            ended: vec![id.to_owned()],
        },
        None => {
            // Another instance's clock may be ahead.
            let until = listed
                .iter()
                .map(|login| login.at)
                .chain(ended_until)
                .fold(now, Timestamp::max);
            let longest =
                SignedDuration::try_from(USER_CERT_TTL_MAX).unwrap_or(SignedDuration::MAX);
            Plan {
                target: LockTarget {
                    logins_until: Some(until),
                    ..of_user
                },
                ends: until.saturating_add(longest).unwrap_or(Timestamp::MAX),
                ended: listed.iter().map(|login| login.id.clone()).collect(),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn login(id: &str, second: i64) -> Listed {
        Listed {
            id: id.to_owned(),
            at: at(second),
            ends: at(second + 100),
        }
    }

    fn one(id: &str) -> Which<'_> {
        Which::One { id, known: None }
    }

    fn planned(listed: &[Listed], which: Which<'_>) -> Plan {
        plan("alice", listed, None, which, at(10)).unwrap()
    }

    #[test]
    fn one_login_of_several_gets_a_lock_of_its_own_that_ends_with_it() {
        let listed = [login("a", 1), login("b", 2)];
        let plan = planned(&listed, one("a"));
        assert_eq!(plan.target.user.as_deref(), Some("alice"));
        assert_eq!(plan.target.login.as_deref(), Some("a"));
        assert_eq!((plan.ends, plan.ended.len()), (at(101), 1));
    }

    #[test]
    fn the_last_login_and_all_of_them_share_one_lock() {
        let listed = [login("b", 2)];
        let longest = SignedDuration::try_from(USER_CERT_TTL_MAX).unwrap();
        for which in [one("b"), Which::All] {
            let plan = planned(&listed, which);
            assert_eq!(plan.target.logins_until, Some(at(10)), "{which:?}");
            assert_eq!(plan.target.login, None);
            assert_eq!((plan.ends, plan.ended.len()), (at(10) + longest, 1));
        }
        assert_eq!(planned(&[], Which::All).ended, Vec::<String>::new());
    }

    #[test]
    fn a_login_by_a_clock_that_is_ahead_is_ended_too() {
        let all = planned(&[login("b", 20)], Which::All);
        assert_eq!(all.target.logins_until, Some(at(20)));
        // The lock on one that was ended before goes, so this one has to strike it too.
        let ended = plan("alice", &[], Some(at(30)), Which::All, at(10)).unwrap();
        assert_eq!(ended.target.logins_until, Some(at(30)));
    }

    #[test]
    fn where_others_may_not_be_listed_the_last_listed_one_is_not_all() {
        let many: Vec<Listed> = (0..LOGINS_KEPT_MAX)
            .map(|index| login(&format!("l{index}"), 1))
            .collect();
        assert!(planned(&many, one("l1")).target.login.is_some());
        let unlisted = Which::One {
            id: "x",
            known: Some((at(1), at(50))),
        };
        let one = planned(&[], unlisted);
        assert_eq!(one.target.login.as_deref(), Some("x"));
    }

    #[test]
    fn an_unknown_login_is_none() {
        let listed = [login("a", 1)];
        assert_eq!(plan("alice", &listed, None, one("b"), at(10)), None);
    }
}
