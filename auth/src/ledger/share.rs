//! Decides which of a group's workers scans what.
//!
//! Pure. Each scope goes to the worker that scores highest for it (rendezvous hashing): a worker that comes or goes
//! moves only the scopes that it wins or held, and everybody who computes it gets the same answer.
//!
//! Rule: a scope is never taken from a worker that holds it; the worker is told at its next request that it moves, and
//! the next one gets it after that.

use std::collections::{HashMap, HashSet};

use tidegate_identity::secret;

/// Names a scope in a worker's record: short, so that the record of a worker with thousands of scopes is.
pub(super) type ScopeMark = [u8; MARK_BYTES];

/// Bytes of a mark.
pub(super) const MARK_BYTES: usize = 16;

/// The mark of a scope.
pub(super) fn mark(scope_id: &str) -> ScopeMark {
    let digest = secret::digest(scope_id);
    std::array::from_fn(|place| digest[place])
}

/// A live worker of a group, and what it names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LiveWorker {
    /// The worker.
    pub(super) host_id: String,
    /// Its name for people.
    pub(super) hostname: String,
    /// The scopes that its configuration names.
    pub(super) named: HashSet<ScopeMark>,
}

/// Who holds a scope, and since which epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holding {
    /// The worker.
    pub(super) host_id: String,
    /// Its fencing epoch.
    pub(super) epoch: u64,
}

/// What becomes of one scope that a worker names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nobody holds it and it is this worker's turn.
    Claim,
    /// This worker holds it and goes on.
    Keep {
        /// Since this epoch.
        epoch: u64,
    },
    /// This worker holds it, and another's turn has come.
    MoveOn {
        /// The other worker.
        to: String,
    },
    /// Another worker holds it, or will.
    Wait {
        /// The other worker.
        on: String,
    },
}

/// The worker that scores highest for a scope; `None` without workers.
pub(super) fn chosen<'w>(
    scope: &ScopeMark,
    hosts: impl IntoIterator<Item = &'w str>,
) -> Option<&'w str> {
    hosts
        .into_iter()
        .max_by_key(|host| (score(scope, host), *host))
}

/// How a worker scores for a scope. Both ends are digests, so that similar names do not score alike.
fn score(scope: &ScopeMark, host: &str) -> u64 {
    let word = |bytes: &[u8]| {
        bytes
            .iter()
            .take(8)
            .fold(0_u64, |word, byte| word << 8 | u64::from(*byte))
    };
    // The finisher of SplitMix64: every bit of the two words moves every bit of the score.
    let mut mixed = word(scope) ^ word(&secret::digest(host)).rotate_left(32);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// What becomes of each scope that `me` names. `live` must have `me` among them.
pub(super) fn turns(
    me: &str,
    scopes: &[String],
    live: &[LiveWorker],
    holders: &HashMap<String, Holding>,
) -> Vec<Turn> {
    scopes
        .iter()
        .map(|scope| turn(me, scope, live, holders.get(scope)))
        .collect()
}

fn turn(me: &str, scope: &str, live: &[LiveWorker], holder: Option<&Holding>) -> Turn {
    let mark = mark(scope);
    let naming = live
        .iter()
        .filter(|worker| worker.named.contains(&mark))
        .map(|worker| worker.host_id.as_str());
    let next = chosen(&mark, naming).unwrap_or(me);
    match holder {
        Some(held) if held.host_id != me => Turn::Wait {
            on: held.host_id.clone(),
        },
        Some(held) if next == me => Turn::Keep { epoch: held.epoch },
        Some(_) => Turn::MoveOn {
            to: next.to_owned(),
        },
        None if next == me => Turn::Claim,
        None => Turn::Wait {
            on: next.to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes(count: usize) -> Vec<String> {
        (0..count)
            .map(|index| format!("prod|redshift|us-east-1|arn:aws:iam::{index:012}:role/x|-|"))
            .collect()
    }

    fn hosts(count: usize) -> Vec<String> {
        (0..count).map(|index| format!("host-{index}")).collect()
    }

    fn owner<'h>(scope: &str, hosts: &'h [String]) -> &'h str {
        chosen(&mark(scope), hosts.iter().map(String::as_str)).unwrap()
    }

    #[test]
    fn scopes_are_spread_evenly() {
        let (scopes, hosts) = (scopes(9000), hosts(9));
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for scope in &scopes {
            *counts.entry(owner(scope, &hosts)).or_default() += 1;
        }
        assert_eq!(counts.len(), 9);
        for (host, count) in counts {
            assert!((850..=1150).contains(&count), "{host} has {count} of 9000");
        }
    }

    #[test]
    fn a_worker_that_comes_or_goes_moves_only_its_own_scopes() {
        let (scopes, all) = (scopes(3000), hosts(4));
        let without = &all[..3];
        let mut moved = 0;
        for scope in &scopes {
            let (before, after) = (owner(scope, without), owner(scope, &all));
            if before != after {
                assert_eq!(after, all[3], "a scope moved between two that stayed");
                moved += 1;
            }
        }
        assert!((600..=900).contains(&moved), "{moved} of 3000 moved");
    }

    #[test]
    fn the_answer_does_not_depend_on_the_order_of_workers() {
        let hosts = hosts(5);
        let backwards: Vec<String> = hosts.iter().rev().cloned().collect();
        for scope in &scopes(200) {
            assert_eq!(owner(scope, &hosts), owner(scope, &backwards));
        }
    }

    fn live(host: &str, scopes: &[String]) -> LiveWorker {
        LiveWorker {
            host_id: host.to_owned(),
            hostname: host.to_owned(),
            named: scopes.iter().map(|scope| mark(scope)).collect(),
        }
    }

    #[test]
    fn two_workers_never_hold_one_scope_and_end_with_half_each() {
        let scopes = scopes(200);
        let workers = [live("a", &scopes), live("b", &scopes)];
        let mut holders: HashMap<String, Holding> = HashMap::new();
        let ask = |me: &str, live: &[LiveWorker], holders: &mut HashMap<String, Holding>| {
            let mut held = 0;
            for (scope, turn) in scopes.iter().zip(turns(me, &scopes, live, holders)) {
                match turn {
                    Turn::Claim => {
                        let holding = Holding {
                            host_id: me.to_owned(),
                            epoch: 1,
                        };
                        assert!(holders.insert(scope.clone(), holding).is_none());
                        held += 1;
                    }
                    Turn::Keep { .. } => held += 1,
                    Turn::MoveOn { .. } => {
                        assert_eq!(holders.remove(scope).unwrap().host_id, me);
                    }
                    Turn::Wait { on } => assert_ne!(on, me),
                }
            }
            held
        };
        assert_eq!(ask("a", &workers[..1], &mut holders), 200);
        assert_eq!(
            ask("b", &workers, &mut holders),
            0,
            "a holds all until it asks again"
        );
        let kept = ask("a", &workers, &mut holders);
        let taken = ask("b", &workers, &mut holders);
        assert_eq!(kept + taken, 200);
        assert!((60..=140).contains(&kept), "{kept}");
        assert_eq!(ask("a", &workers, &mut holders), kept);
        assert_eq!(
            ask("b", &workers[1..], &mut holders),
            taken,
            "b does not take what a holds"
        );
        holders.retain(|_, holding| holding.host_id != "a");
        assert_eq!(ask("b", &workers[1..], &mut holders), 200);
    }

    #[test]
    fn a_worker_is_chosen_only_for_what_it_names() {
        let scopes = scopes(20);
        let workers = [live("a", &scopes), live("b", &scopes[..10])];
        let turns = turns("a", &scopes, &workers, &HashMap::new());
        assert!(turns[10..].iter().all(|turn| *turn == Turn::Claim));
    }
}
