//! Which regions the accounts have enabled, for matchers that say `regions: ["*"]`.
//!
//! One list per role, asked for at the start and every [`REFRESH`]. The last list stays in force when asking fails.
//!
//! Not here: the call itself ([`crate::fetch::regions`]), and when it is made ([`crate::planner`]).

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use futures::future::BoxFuture;
use tidegate_aws::{AwsErrorClass, AwsFactory, AwsFailure, RoleChain, SessionTag};
use tidegate_core::{AssumeRole, Region};
use tidegate_service::rpc::Backoff;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::{
    budget::Budget,
    fetch::regions::{self, LIST_REGIONS},
};

/// How often an account is asked again.
pub(crate) const REFRESH: Duration = Duration::from_secs(3_600);
/// First wait after asking failed; later ones grow up to [`REFRESH`].
const RETRY_MIN: Duration = Duration::from_secs(10);

/// A role to ask with; `None` is the worker's own identity.
pub(crate) type Caller = Option<AssumeRole>;

/// Lists the regions that an account has enabled.
pub(crate) trait ListRegions: Send + Sync + 'static {
    /// Never an empty list.
    fn list<'f>(&'f self, caller: &'f Caller) -> BoxFuture<'f, Result<Vec<Region>, AwsFailure>>;
}

/// Asks AWS.
#[derive(Debug)]
pub(crate) struct AwsRegions {
    factory: AwsFactory,
    session: SessionTag,
    budget: Budget,
}

impl AwsRegions {
    /// Assumed-role sessions are named as `session` says.
    pub(crate) fn new(factory: AwsFactory, session: SessionTag) -> Self {
        Self {
            factory,
            session,
            budget: Budget::default(),
        }
    }
}

impl ListRegions for AwsRegions {
    fn list<'f>(&'f self, caller: &'f Caller) -> BoxFuture<'f, Result<Vec<Region>, AwsFailure>> {
        Box::pin(async move {
            // One budget for all accounts: the calls are few, and none of them is urgent.
            let (role, session) = (caller.as_ref(), &self.session);
            let listed = regions::enabled(&self.factory, role, session, &self.budget).await;
            let regions = listed.inspect_err(|failure| {
                // Where accounts are managed every key is known: one that is not is gone.
                if failure.hop.is_none() && failure.class.is_of_credentials() {
                    let chain = RoleChain::new(role.cloned(), None);
                    self.factory.refused(&chain, session);
                }
            })?;
            if regions.is_empty() {
                let class = AwsErrorClass::Malformed;
                return Err(AwsFailure::new(class, LIST_REGIONS, "no region is enabled"));
            }
            Ok(regions)
        })
    }
}

#[derive(Debug)]
struct Entry {
    /// Sorted; `None` until the first answer.
    regions: Option<Vec<Region>>,
    due: Instant,
    asking: bool,
    /// Whether there was an answer, whatever it was.
    asked: bool,
    failing: Backoff,
    /// What was said of the failure that lasts.
    said: Option<String>,
}

/// What is known of the regions of each role that is needed.
#[derive(Debug, Default)]
pub(crate) struct RegionBook {
    callers: HashMap<Caller, Entry>,
}

impl RegionBook {
    /// Knows these callers and no others; new ones are due now.
    pub(crate) fn need(&mut self, callers: &BTreeSet<Caller>, now: Instant) {
        self.callers.retain(|caller, _| callers.contains(caller));
        for caller in callers {
            self.callers.entry(caller.clone()).or_insert_with(|| Entry {
                regions: None,
                due: now,
                asking: false,
                asked: false,
                failing: Backoff::between(RETRY_MIN, REFRESH),
                said: None,
            });
        }
    }

    /// The next caller to ask at `now`, if any; it counts as being asked until [`Self::settle`].
    pub(crate) fn start_due(&mut self, now: Instant) -> Option<Caller> {
        let (caller, entry) = self
            .callers
            .iter_mut()
            .find(|(_, entry)| !entry.asking && entry.due <= now)?;
        entry.asking = true;
        Some(caller.clone())
    }

    /// When the next caller falls due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let idle = self.callers.values().filter(|entry| !entry.asking);
        idle.map(|entry| entry.due).min()
    }

    /// The last list, if there was one.
    pub(crate) fn known(&self, caller: &Caller) -> Option<&[Region]> {
        self.callers.get(caller)?.regions.as_deref()
    }

    /// Whether every caller was asked once at least, with whatever result.
    pub(crate) fn is_settled(&self) -> bool {
        self.callers.values().all(|entry| entry.asked)
    }

    /// Takes an answer in.
    pub(crate) fn settle(
        &mut self,
        caller: &Caller,
        answer: Result<Vec<Region>, AwsFailure>,
        now: Instant,
    ) {
        let Some(entry) = self.callers.get_mut(caller) else {
            return;
        };
        entry.asking = false;
        entry.asked = true;
        match answer {
            Ok(mut regions) => {
                regions.sort();
                regions.dedup();
                entry.due = now + REFRESH;
                entry.failing.reset();
                if entry.said.take().is_some() || entry.regions.as_ref() != Some(&regions) {
                    let role = role_of(caller);
                    info!(
                        aws.role = role,
                        regions = regions.len(),
                        "knows the account's regions"
                    );
                }
                entry.regions = Some(regions);
            }
            Err(failure) => {
                entry.due = now + entry.failing.next();
                let key = format!("{} {:?} {:?}", failure.class, failure.code, failure.hop);
                if entry.said.as_ref() != Some(&key) {
                    complain(caller, &failure, entry.regions.as_ref().map_or(0, Vec::len));
                    entry.said = Some(key);
                }
            }
        }
    }
}

fn role_of(caller: &Caller) -> &str {
    caller
        .as_ref()
        .map_or("own identity", |role| role.role_arn.as_str())
}

fn complain(caller: &Caller, failure: &AwsFailure, known: usize) {
    let role = role_of(caller);
    let action = failure.denied_action.as_deref().unwrap_or(failure.action);
    if failure.class == AwsErrorClass::AccessDenied {
        let hint = if failure.hop.is_some() {
            failure.hint()
        } else {
            format!(
                "an AWS administrator has to allow {action} for {role}, or the matcher has to name its regions"
            )
        };
        error!(
            aws.role = role,
            aws.action = action,
            error = %failure,
            regions.known = known,
            hint,
            "AWS does not tell which regions are enabled; matchers with `regions: [\"*\"]` find nothing new"
        );
    } else {
        warn!(
            aws.role = role,
            aws.action = action,
            error = %failure,
            regions.known = known,
            "could not list the enabled regions; goes on with what is known"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book(now: Instant) -> RegionBook {
        let mut book = RegionBook::default();
        book.need(&BTreeSet::from([None]), now);
        book
    }

    fn regions(names: &[&str]) -> Vec<Region> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn denied() -> AwsFailure {
        AwsFailure::new(AwsErrorClass::AccessDenied, LIST_REGIONS, "no")
    }

    #[test]
    fn a_list_is_kept_when_asking_again_fails_and_asked_for_soon_and_then_less_often() {
        let now = Instant::now();
        let mut book = book(now);
        assert_eq!(book.start_due(now), Some(None));
        assert_eq!(book.start_due(now), None);
        book.settle(&None, Ok(regions(&["us-west-2", "us-east-1"])), now);
        assert_eq!(book.next_due(), Some(now + REFRESH));

        let later = now + REFRESH;
        assert_eq!(book.start_due(later), Some(None));
        book.settle(&None, Err(denied()), later);
        assert_eq!(
            book.known(&None),
            Some(&*regions(&["us-east-1", "us-west-2"]))
        );
        assert!(book.next_due().unwrap() <= later + RETRY_MIN * 2);
    }

    #[test]
    fn it_is_settled_when_everybody_was_asked_with_whatever_result() {
        let now = Instant::now();
        let mut book = book(now);
        assert!(!book.is_settled());
        book.start_due(now);
        assert!(!book.is_settled());
        book.settle(&None, Err(denied()), now);
        assert!(book.is_settled());
        assert_eq!(book.known(&None), None);
    }

    #[test]
    fn a_role_that_no_matcher_names_any_more_is_forgotten() {
        let now = Instant::now();
        let mut book = book(now);
        book.need(&BTreeSet::new(), now);
        assert_eq!((book.start_due(now), book.next_due()), (None, None));
    }
}
