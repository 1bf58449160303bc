//! Whether a scope means a database, and which clause keeps it from it.

use serde::Serialize;
use tidegate_core::{EndpointFilter, Labels, Selector, labels::ENDPOINT_TYPE};

use super::{
    scope::{Scope, State},
    status::failed,
};

/// What is known of a database that a scope may mean. What is not known is empty or `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) identity: String,
    pub(super) kind: String,
    pub(super) region: String,
    pub(super) account: String,
    pub(super) labels: Option<Labels>,
    pub(super) owner: String,
}

/// What a scope has to do with a database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ScopeVerdict {
    /// The scope.
    pub scope: String,
    /// The outcome.
    pub verdict: Verdict,
    /// Every clause, in the order that they are looked at.
    pub clauses: Vec<Clause>,
    /// The same in a line.
    pub why: String,
}

/// The outcome for one scope, nearest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It owns the database.
    Owns,
    /// It found the database too, and takes over when the owner lets go.
    Shadowed,
    /// Nothing keeps it from the database, as far as is known here, but it has not found it.
    NotFound,
    /// A clause keeps it from the database.
    NoMatch,
}

/// One clause of a matcher against one database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Clause {
    /// Which.
    pub clause: ClauseName,
    /// How it goes.
    pub outcome: Outcome,
    /// Why it fails, or cannot be told.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// The clauses of a matcher, in the order that they are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClauseName {
    /// The kind of database.
    Type,
    /// The region.
    Region,
    /// The account of the role.
    Account,
    /// Tags and generated labels.
    Tags,
    /// The sort of endpoint.
    Endpoints,
}

/// How a clause goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It holds.
    Matches,
    /// It does not.
    Fails,
    /// What it asks about is not known here.
    Unknown,
}

impl ScopeVerdict {
    /// The first clause that fails.
    #[must_use]
    pub fn first_failure(&self) -> Option<&Clause> {
        self.clauses
            .iter()
            .find(|clause| clause.outcome == Outcome::Fails)
    }
}

/// What this scope has to do with the database.
pub(super) fn of(scope: &Scope, facts: &Facts) -> ScopeVerdict {
    let clauses = vec![
        same(ClauseName::Type, &scope.kind, &facts.kind),
        same(ClauseName::Region, &scope.region, &facts.region),
        account(scope, facts),
        tags(scope, facts),
        endpoints(scope, facts),
    ];
    let failure = clauses
        .iter()
        .find(|clause| clause.outcome == Outcome::Fails)
        .map(|clause| clause.why.clone());
    let shadowed = scope
        .shadowed
        .iter()
        .any(|shadowed| shadowed.identity == facts.identity);
    let (verdict, why) = if !facts.owner.is_empty() && scope.id == facts.owner {
        let why = match failure {
            Some(why) => format!("owns it, and lets it go with its next scan: {why}"),
            None => "owns it".to_owned(),
        };
        (Verdict::Owns, why)
    } else if shadowed {
        let why = "found it too; takes over when the owner lets go";
        (Verdict::Shadowed, why.to_owned())
    } else if let Some(why) = failure {
        (Verdict::NoMatch, why)
    } else {
        (Verdict::NotFound, not_found(scope, &clauses))
    };
    ScopeVerdict {
        scope: scope.id.clone(),
        verdict,
        clauses,
        why,
    }
}

/// Why a scope that nothing keeps from the database does not have it.
fn not_found(scope: &Scope, clauses: &[Clause]) -> String {
    let unknown: Vec<&str> = clauses
        .iter()
        .filter(|clause| clause.outcome == Outcome::Unknown)
        .map(|clause| clause.why.as_str())
        .collect();
    let state = match (scope.state, &scope.failure) {
        (State::Failed, Some(failure)) => format!("its last scan {}", failed(failure)),
        (State::Never, _) => "it was not scanned yet".to_owned(),
        (State::Retiring, _) => "no live worker names it".to_owned(),
        (State::Failed | State::Ok, _) => "its last scan did not find it".to_owned(),
    };
    if unknown.is_empty() {
        format!("matches, but {state}")
    } else {
        format!("may match ({}), but {state}", unknown.join("; "))
    }
}

fn clause(clause: ClauseName, outcome: Outcome, why: String) -> Clause {
    Clause {
        clause,
        outcome,
        why,
    }
}

fn same(name: ClauseName, wanted: &str, is: &str) -> Clause {
    let what = match name {
        ClauseName::Type => "type",
        ClauseName::Region => "region",
        ClauseName::Account => "account",
        ClauseName::Tags => "tags",
        ClauseName::Endpoints => "endpoints",
    };
    if is.is_empty() {
        clause(name, Outcome::Unknown, format!("{what} is not known"))
    } else if wanted == is {
        clause(name, Outcome::Matches, String::new())
    } else {
        let why = format!("{what}: looks for {wanted}, it is {is}");
        clause(name, Outcome::Fails, why)
    }
}

fn account(scope: &Scope, facts: &Facts) -> Clause {
    if scope.account_id.is_empty() {
        let why = "account of the worker's own identity is not known here".to_owned();
        return clause(ClauseName::Account, Outcome::Unknown, why);
    }
    same(ClauseName::Account, &scope.account_id, &facts.account)
}

fn tags(scope: &Scope, facts: &Facts) -> Clause {
    let name = ClauseName::Tags;
    let selector = match Selector::new(scope.tags.clone()) {
        Ok(selector) => selector,
        Err(error) => return clause(name, Outcome::Unknown, format!("tags: {error}")),
    };
    if selector.is_everything() {
        return clause(name, Outcome::Matches, String::new());
    }
    let Some(labels) = &facts.labels else {
        return clause(name, Outcome::Unknown, "tags are not known".to_owned());
    };
    if selector.is_empty() {
        let why = "tags: an empty selector matches nothing".to_owned();
        return clause(name, Outcome::Fails, why);
    }
    let Some(key) = selector.first_mismatch(labels) else {
        return clause(name, Outcome::Matches, String::new());
    };
    let wanted = scope
        .tags
        .get(key)
        .map(|values| values.join(" or "))
        .unwrap_or_default();
    let why = match labels.get(key) {
        Some(value) => format!("tags: looks for {key}={wanted}, it has {key}={value}"),
        None => format!("tags: looks for {key}={wanted}, it has no {key}"),
    };
    clause(name, Outcome::Fails, why)
}

fn endpoints(scope: &Scope, facts: &Facts) -> Clause {
    let name = ClauseName::Endpoints;
    let Some(endpoints) = &scope.endpoints else {
        return clause(name, Outcome::Matches, String::new());
    };
    let Some(kind) = facts
        .labels
        .as_ref()
        .and_then(|labels| labels.get(ENDPOINT_TYPE))
    else {
        return clause(
            name,
            Outcome::Unknown,
            "type of endpoint is not known".to_owned(),
        );
    };
    let filter = EndpointFilter {
        include: endpoints.include.clone(),
        exclude: endpoints.exclude.clone(),
    };
    if filter.admits(kind) {
        return clause(name, Outcome::Matches, String::new());
    }
    let why = if filter.exclude.iter().any(|excluded| excluded == kind) {
        format!("endpoints: leaves out {kind}, which it is")
    } else {
        format!(
            "endpoints: looks for {}, it is {kind}",
            filter.include.join(" or ")
        )
    };
    clause(name, Outcome::Fails, why)
}
