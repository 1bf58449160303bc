//! What the scopes of a configuration see: AWS, or the inventory, which the control plane looks into itself.
//!
//! Invariant: a scope that is known from before and cannot be looked at is planned as seen in part, never left out:
//! leaving it out would say that nobody asks for it any more.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tidegate_aws::AwsFactory;
use tidegate_console::{
    Failure,
    discovery::{
        LeftOut, Scope, ScopeFailure,
        plan::{LeftOutOf, Source, Unseen},
    },
    output,
};
use tidegate_core::{AssumeRole, AwsMatcher, Region, Regions, ScanScope};
use tidegate_discovery::{SCOPES_MAX, Survey, survey};
use tidegate_proto::v1;

use super::wanted::Wanted;

/// A scope, and what it sees.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    pub(super) scope: v1::PlanScope,
    pub(super) items: Vec<v1::ScanItem>,
}

/// What all scopes see.
#[derive(Debug)]
pub(super) struct Looked {
    pub(super) source: Source,
    pub(super) planned: Vec<Planned>,
    pub(super) unseen: Vec<Unseen>,
    pub(super) left_out: Vec<LeftOutOf>,
}

impl Looked {
    /// The scopes as people know them.
    pub(super) fn scopes(&self) -> Vec<Scope> {
        let scopes = self.planned.iter();
        scopes
            .filter_map(|planned| planned.scope.scope.clone())
            .map(Scope::from)
            .collect()
    }

    /// Takes in what a scope saw of AWS. It has its place by `scope`.
    fn add(&mut self, scope: &ScanScope, one: SeenScope) {
        let people = Scope::from(v1::ScanScope::from(scope));
        for (reason, count) in one.left_out {
            self.left_out.push(LeftOutOf {
                scope: people.id.clone(),
                what: people.sentence(),
                left_out: LeftOut {
                    reason: reason.to_owned(),
                    count: u32::try_from(count).unwrap_or(u32::MAX),
                },
            });
        }
        self.planned.push(match one.failure {
            Some(failure) => {
                let unseen = Unseen::of(&people, failure.clone().into());
                self.unseen.push(unseen);
                in_part(scope, failure, one.items)
            }
            None => Planned {
                items: one.items,
                ..whole(scope)
            },
        });
    }

    /// Of scopes that see the inventory, those of which it does not tell which account they look into, if it does not.
    pub(super) fn unknown_accounts(&self, scopes: &[Scope]) -> Vec<Unseen> {
        let own = |scope: &&Scope| scope.assume_role_arn.is_empty();
        let of_own = scopes.iter().filter(own).map(|scope| {
            let message = "which account this looks into is not known, since no worker of the group found anything \
                           with its own identity yet: plan with --live";
            Unseen::of(scope, problem("unknown_account", message))
        });
        match self.source {
            Source::Recorded => of_own.collect(),
            Source::Live => Vec::new(),
        }
    }
}

fn problem(class: &str, message: &str) -> ScopeFailure {
    ScopeFailure {
        class: class.to_owned(),
        aws_code: String::new(),
        action: String::new(),
        message: message.to_owned(),
    }
}

/// The scopes of the configuration, which see the inventory.
pub(super) fn recorded(wanted: &Wanted, stored: &[v1::ScopeStatus]) -> Result<Looked, Failure> {
    let places = ScopePlaces::of(stored);
    let enabled = |matcher: &AwsMatcher| places.of_account(&wanted.group, matcher);
    let config = wanted.config.as_deref();
    let scopes = ScanScope::expand(&wanted.group, config, &wanted.matchers, enabled);
    if scopes.len() > SCOPES_MAX {
        return Err(Failure::new(format!(
            "the matchers make {} scan scopes; there may be {SCOPES_MAX}",
            scopes.len()
        )));
    }
    let everywhere = wanted.matchers.iter();
    let unlisted = everywhere
        .filter(|matcher| matcher.regions == Regions::Enabled && enabled(matcher).is_empty());
    let unseen = unlisted.map(|matcher| {
        let message = "no worker has listed the regions that this account has enabled yet: name them, or plan with \
                       --live";
        every_region(matcher.assume_role.as_ref(), problem("unknown_regions", message))
    });
    Ok(Looked {
        source: Source::Recorded,
        planned: scopes.iter().map(whole).collect(),
        unseen: unseen.collect(),
        left_out: Vec::new(),
    })
}

/// Where all scopes look that the control plane knows.
struct ScopePlaces(Vec<ScanScope>);

impl ScopePlaces {
    fn of(stored: &[v1::ScopeStatus]) -> Self {
        let scopes = stored.iter().filter_map(|status| status.scope.clone());
        Self(
            scopes
                .filter_map(|scope| ScanScope::try_from(scope).ok())
                .collect(),
        )
    }

    /// Every region in which anything can be recorded of the account that a matcher looks into.
    fn of_account(&self, group: &str, matcher: &AwsMatcher) -> Vec<Region> {
        let account = |role: &Option<AssumeRole>| role.as_ref().map(|role| role.role_arn.account());
        let wanted = account(&matcher.assume_role);
        let regions: BTreeSet<Region> = self
            .0
            .iter()
            .filter(|scope| match (&wanted, account(&scope.assume_role)) {
                (Some(wanted), Some(account)) => *wanted == account,
                // The account of the workers' own identity may be that one.
                _ => scope.group == group,
            })
            .map(|scope| scope.region.clone())
            .collect();
        regions.into_iter().collect()
    }
}

fn whole(scope: &ScanScope) -> Planned {
    Planned {
        scope: v1::PlanScope {
            scope: Some(scope.into()),
            completeness: v1::Completeness::Complete.into(),
            failure: None,
        },
        items: Vec::new(),
    }
}

/// The scopes of the configuration, and what each sees in AWS now.
pub(super) async fn live(wanted: &Wanted, stored: &[v1::ScopeStatus]) -> Result<Looked, Failure> {
    let aws = AwsFactory::load().await;
    let config = wanted.config.as_deref();
    let seen = survey(&wanted.group, config, &wanted.matchers, aws, |done, all| {
        output::progress(&format!("looked at {done} of {all} scopes"));
    });
    let seen = seen.await;
    output::end_progress();
    let seen = seen.map_err(|error| Failure::new(error).within("plan"))?;
    Ok(merged(wanted, &known(wanted, stored), seen.into()))
}

/// What a look at AWS came to.
#[derive(Debug, Default)]
struct Seen {
    scopes: Vec<SeenScope>,
    /// Roles whose account did not tell its regions, and why.
    silent: Vec<(Option<AssumeRole>, v1::ScanFailure)>,
}

#[derive(Debug)]
struct SeenScope {
    scope: ScanScope,
    items: Vec<v1::ScanItem>,
    failure: Option<v1::ScanFailure>,
    left_out: BTreeMap<&'static str, usize>,
}

impl From<Survey> for Seen {
    fn from(survey: Survey) -> Self {
        let scopes = survey.scopes.into_iter().map(|one| SeenScope {
            scope: one.scope,
            items: one.items,
            failure: one.failure,
            left_out: one.left_out,
        });
        let silent = survey.unexpanded.into_iter();
        Self {
            scopes: scopes.collect(),
            silent: silent.map(|one| (one.assume_role, one.failure)).collect(),
        }
    }
}

/// What was seen, and the scopes that are known from before where regions could not be listed.
fn merged(wanted: &Wanted, known: &[ScanScope], seen: Seen) -> Looked {
    let mut looked = Looked {
        source: Source::Live,
        planned: Vec::new(),
        unseen: Vec::new(),
        left_out: Vec::new(),
    };
    let mut places: Vec<ScanScope> = seen.scopes.iter().map(|one| one.scope.clone()).collect();
    for (role, failure) in &seen.silent {
        let here = |matcher: &&AwsMatcher| {
            matcher.regions == Regions::Enabled && matcher.assume_role == *role
        };
        for matcher in wanted.matchers.iter().filter(here) {
            places.extend(known.iter().filter(|scope| is_of(scope, matcher)).cloned());
        }
        let unseen = every_region(role.as_ref(), failure.clone().into());
        looked.unseen.push(unseen);
    }
    let mut of_id: HashMap<String, SeenScope> = seen
        .scopes
        .into_iter()
        .map(|one| (one.scope.id().0, one))
        .collect();
    for scope in expand(wanted, &places) {
        match of_id.remove(&scope.id().0) {
            Some(one) => looked.add(&scope, one),
            None => {
                let silent = seen.silent.iter();
                let failure = silent
                    .filter(|(role, _)| *role == scope.assume_role)
                    .map(|(_, failure)| failure.clone())
                    .next();
                let failure = failure.unwrap_or_default();
                looked.planned.push(in_part(&scope, failure, Vec::new()));
            }
        }
    }
    looked
}

fn in_part(scope: &ScanScope, failure: v1::ScanFailure, items: Vec<v1::ScanItem>) -> Planned {
    Planned {
        scope: v1::PlanScope {
            scope: Some(scope.into()),
            completeness: v1::Completeness::Partial.into(),
            failure: Some(failure),
        },
        items,
    }
}

/// The regions of an account that did not tell them.
fn every_region(role: Option<&AssumeRole>, failure: ScopeFailure) -> Unseen {
    let role_arn = role
        .map(|role| role.role_arn.to_string())
        .unwrap_or_default();
    let whose = match role {
        Some(role) => format!("{}/{}", role.role_arn.account(), role.role_arn.role_name()),
        None => "the own identity".to_owned(),
    };
    Unseen {
        scope: String::new(),
        what: format!("every region of {whose}"),
        assume_role_arn: role_arn,
        failure,
    }
}

/// The scopes that the control plane knows of the same group and configuration.
fn known(wanted: &Wanted, stored: &[v1::ScopeStatus]) -> Vec<ScanScope> {
    let scopes = stored.iter().filter_map(|status| status.scope.clone());
    scopes
        .filter_map(|scope| ScanScope::try_from(scope).ok())
        .filter(|scope| scope.group == wanted.group && scope.config == wanted.config)
        .collect()
}

/// The scopes of the configuration; matchers that ask for every region have those of `places`.
fn expand(wanted: &Wanted, places: &[ScanScope]) -> Vec<ScanScope> {
    let config = wanted.config.as_deref();
    ScanScope::expand(&wanted.group, config, &wanted.matchers, |matcher| {
        regions_in(places, matcher)
    })
}

fn regions_in(scopes: &[ScanScope], matcher: &AwsMatcher) -> Vec<Region> {
    let regions: BTreeSet<Region> = scopes
        .iter()
        .filter(|scope| is_of(scope, matcher))
        .map(|scope| scope.region.clone())
        .collect();
    regions.into_iter().collect()
}

/// Whether a matcher asks for this scope, region aside.
fn is_of(scope: &ScanScope, matcher: &AwsMatcher) -> bool {
    matcher.types.contains(&scope.kind)
        && scope.assume_role == matcher.assume_role
        && scope.tags.written() == matcher.tags.written()
        && scope.endpoints == matcher.endpoints
}

#[cfg(test)]
mod tests;
