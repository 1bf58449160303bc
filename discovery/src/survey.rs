//! Looks at AWS once, with given matchers: what a worker that has them would see.
//!
//! This is the worker's own path: the same expansion to scopes, the same fetchers, budgets and time limits. Only
//! the lease and the publication are missing, so nothing changes anywhere. Failures are told as to a person who looks
//! with their own credentials.
//!
//! Not here: what a scan would change in the inventory, and how databases are named (`tidegate-auth`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream};
use tidegate_aws::{AwsFactory, AwsFailure, SessionTag};
use tidegate_core::{AssumeRole, AwsMatcher, Region, Regions, ScanScope};
use tidegate_proto::v1;
use tidegate_service::clock::SystemClock;

use crate::{
    budget::{Budget, Budgets},
    configs::Configs,
    fetch::{AwsFetch, FetchError, Viewpoint},
    found::Databases,
    planner::LISTS_AT_ONCE_MAX,
    regions::{AwsRegions, Caller, ListRegions},
    scan::{self, Observed, Terms},
    wanted::{self, Expansion},
    worker::{self, DiscoveryError, SCANS_MAX},
};

/// What assumed-role sessions are called; it begins as those of workers do, for policies that ask for that.
const SESSION: &str = "tidegate-discovery-survey";

/// What one look at AWS came to.
#[derive(Debug, Default)]
pub struct Survey {
    /// Each scope, in order.
    pub scopes: Vec<Surveyed>,
    /// Matchers with `regions: ["*"]` whose account did not tell its regions: none of their scopes is in `scopes`.
    pub unexpanded: Vec<Unexpanded>,
}

/// What was seen of one scope.
#[derive(Debug)]
#[non_exhaustive]
pub struct Surveyed {
    /// Which it is.
    pub scope: ScanScope,
    /// What was seen, in identity order.
    pub items: Vec<v1::ScanItem>,
    /// Why not all was seen; `None`: what is not among the items is not there.
    pub failure: Option<v1::ScanFailure>,
    /// Calls to AWS, retries within a call not counted.
    pub aws_calls: u32,
    /// How many were left out because no agent could serve them, by reason.
    pub left_out: BTreeMap<&'static str, usize>,
    /// How long it took.
    pub took: Duration,
}

/// An account that did not tell which regions it has enabled.
#[derive(Debug)]
#[non_exhaustive]
pub struct Unexpanded {
    /// The role that it was asked with; `None` is the own identity.
    pub assume_role: Option<AssumeRole>,
    /// Why.
    pub failure: v1::ScanFailure,
    /// Positions of the matchers that ask for its regions.
    pub matchers: Vec<usize>,
}

/// Looks once at everything that `matchers` name, at most [`SCANS_MAX`] scopes at a time. `config` is the
/// `discovery_config` resource that holds them; `None` when a file does. `progress` is told after each scope how
/// many are done, and of how many.
///
/// # Errors
///
/// [`DiscoveryError::TooManyScopes`], before any scope is looked at. What fails in AWS is told in the answer.
pub async fn survey(
    group: &str,
    config: Option<&str>,
    matchers: &[AwsMatcher],
    aws: AwsFactory,
    mut progress: impl FnMut(usize, usize),
) -> Result<Survey, DiscoveryError> {
    let session = SessionTag::new(SESSION);
    let lister = AwsRegions::new(aws.clone(), session.clone());
    let (regions, unexpanded) = regions(matchers, &lister).await;
    let expansion = expand(group, config, matchers, &regions);
    worker::checked(&expansion)?;
    let fetch = AwsFetch::new(aws, session);
    let total = expansion.scopes.len();
    let mut budgets = Budgets::default();
    let scopes = expansion.scopes.into_iter().map(|scope| {
        let budget = budgets.of(scope.assume_role.as_ref(), &scope.region);
        (scope, budget)
    });
    // All now, since a budget lasts as long as somebody holds it.
    let scopes: Vec<_> = scopes.collect();
    let mut looking = stream::iter(scopes)
        .map(|(scope, budget)| look(&fetch, scope, budget))
        .buffered(SCANS_MAX);
    let mut scopes = Vec::with_capacity(total);
    while let Some(surveyed) = looking.next().await {
        scopes.push(surveyed);
        progress(scopes.len(), total);
    }
    Ok(Survey { scopes, unexpanded })
}

type Enabled = BTreeMap<Caller, Vec<Region>>;

/// Asks the accounts whose regions the matchers do not name.
async fn regions(matchers: &[AwsMatcher], lister: &dyn ListRegions) -> (Enabled, Vec<Unexpanded>) {
    let wildcards = matchers.iter().enumerate();
    let wildcards: Vec<(usize, &Caller)> = wildcards
        .filter(|(_, matcher)| matcher.regions == Regions::Enabled)
        .map(|(position, matcher)| (position, &matcher.assume_role))
        .collect();
    let callers: BTreeSet<&Caller> = wildcards.iter().map(|(_, caller)| *caller).collect();
    let answers =
        stream::iter(callers).map(|caller| async move { (caller, lister.list(caller).await) });
    let answers: Vec<_> = answers.buffered(LISTS_AT_ONCE_MAX).collect().await;
    let (mut enabled, mut unexpanded) = (Enabled::new(), Vec::new());
    for (caller, answer) in answers {
        match answer {
            Ok(regions) => drop(enabled.insert(caller.clone(), regions)),
            Err(failure) => {
                let concerned = wildcards.iter().filter(|(_, other)| *other == caller);
                unexpanded.push(Unexpanded {
                    assume_role: caller.clone(),
                    failure: untold(failure, caller),
                    matchers: concerned.map(|(position, _)| *position).collect(),
                });
            }
        }
    }
    (enabled, unexpanded)
}

fn untold(failure: AwsFailure, caller: &Caller) -> v1::ScanFailure {
    let error = FetchError::from(failure);
    let hint = if error.is_denial() {
        ", or the matcher has to name its regions"
    } else {
        ""
    };
    let mut failure = error.met_with(caller.as_ref(), Viewpoint::Person, 0);
    failure.message.push_str(hint);
    failure
}

fn expand(
    group: &str,
    config: Option<&str>,
    matchers: &[AwsMatcher],
    regions: &Enabled,
) -> Expansion {
    let enabled = |matcher: &AwsMatcher, _: Option<&str>| {
        regions
            .get(&matcher.assume_role)
            .cloned()
            .unwrap_or_default()
    };
    match config {
        None => wanted::expand(group, matchers, &Configs::new(), enabled),
        Some(name) => {
            let configs = Configs::from([(name.to_owned(), matchers.into())]);
            wanted::expand(group, &[], &configs, enabled)
        }
    }
}

async fn look(fetch: &AwsFetch, scope: ScanScope, budget: Arc<Budget>) -> Surveyed {
    let terms = Terms {
        budget,
        prepaid: false,
        fresh: false,
        known: None,
    };
    let scan = scan::scan(fetch, &scope, terms, &SystemClock).await;
    let (seen, failure) = match scan.observed {
        Observed::Complete(seen) => (seen, None),
        // There is no last scan.
        Observed::Same(_) => (Databases::new(), None),
        Observed::Partial {
            seen,
            cause,
            further,
        } => {
            let failure = cause.status(&scope, Viewpoint::Person, further);
            (seen, Some(failure))
        }
    };
    Surveyed {
        scope,
        items: seen.into_values().map(Into::into).collect(),
        failure,
        aws_calls: scan.aws_calls,
        left_out: scan.left_out,
        took: scan.took,
    }
}

#[cfg(test)]
mod tests;
