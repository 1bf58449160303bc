//! What a configuration would change, told database by database.
//!
//! The control plane says what becomes of each database; here that is put into the words of those who wrote the
//! configuration: which label, role or owner changes, and which clause leaves a database out.
//!
//! Not here: making the plan (`tidegate-auth`), looking at AWS (`tidegate-discovery`), the text ([`text`]).

mod difference;
mod text;

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use tidegate_proto::v1::{self, PlanAction};

use super::{
    explain,
    scope::{LeftOut, Scope, ScopeFailure},
    verdict::{self, ClauseName, Facts, Verdict},
};
use crate::resource;
pub use difference::Difference;
pub use text::text;

/// Most scopes that are asked why they leave a database out.
const ASKED_WHY_MAX: usize = 20;

/// What a configuration would change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DiscoveryPlan {
    /// The discovery group.
    pub group: String,
    /// The `discovery_config` that it would be; empty is a configuration file.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub config: String,
    /// Where the scopes looked.
    pub source: Source,
    /// What changes, in order of name.
    pub changes: Vec<Change>,
    /// Names of what stays as it is, when asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<String>,
    /// What could not be seen in full.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unseen: Vec<Unseen>,
    /// What was found and no agent could serve.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOutOf>,
    /// The counts.
    pub summary: Summary,
}

/// Where the scopes of a plan looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// At AWS.
    Live,
    /// Into the inventory, taken for AWS.
    Recorded,
}

/// What happens to a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It would be listed.
    Add,
    /// It would stay, and be different.
    Change,
    /// It would go.
    Remove,
}

/// One database that would change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What happens to it.
    pub action: Action,
    /// Its name.
    pub name: String,
    /// Its ARN and endpoint role.
    pub identity: String,
    /// Why it would go.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// What would be different.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<Difference>,
    /// The scope that owns it now.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub owner_before: String,
    /// The scope that would own it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub owner_after: String,
    /// As it is now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<resource::Database>,
    /// As it would be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<resource::Database>,
}

/// Something that could not be seen in full: nothing is removed there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unseen {
    /// The scope; empty when it is not known which scopes there are.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub scope: String,
    /// The same for people.
    pub what: String,
    /// The role that was used; empty is the own identity.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub assume_role_arn: String,
    /// Why.
    pub failure: ScopeFailure,
}

/// What one scope found and no agent could serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftOutOf {
    /// The scope.
    pub scope: String,
    /// The same for people.
    pub what: String,
    /// Why, and how many.
    #[serde(flatten)]
    pub left_out: LeftOut,
}

/// The counts of a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Databases that would be listed.
    pub added: u32,
    /// That would be different.
    pub changed: u32,
    /// That would go.
    pub removed: u32,
    /// That would stay as they are.
    pub kept: u32,
    /// Of the removed: held back until a second scan agrees.
    pub held: u32,
    /// Found, and owned by another group or by a matcher that comes before.
    pub shadowed: u32,
    /// Left alone since their tags could not be read.
    pub unjudged: u32,
    /// Scopes that are there now and are no longer named.
    pub retired_scopes: u32,
    /// Scopes that could not be seen in full.
    pub partial_scopes: u32,
    /// Whether everything was seen.
    pub complete: bool,
}

impl Summary {
    /// Whether anything would change.
    #[must_use]
    pub const fn changes_something(&self) -> bool {
        self.added > 0 || self.changed > 0 || self.removed > 0
    }
}

/// The scopes that a plan is about.
#[derive(Clone, Debug, Default)]
pub struct Scopes {
    /// Those of the configuration, by type and region.
    places: HashMap<(String, String), Vec<Scope>>,
    /// Those that are there now and those of the configuration, by id, as people know them.
    sentences: BTreeMap<String, String>,
}

impl Scopes {
    /// The scopes of the configuration, which is of this group and `discovery_config`, and those that are stored.
    #[must_use]
    pub fn new(group: &str, config: &str, planned: Vec<Scope>, stored: &[Scope]) -> Self {
        let mut scopes = Self::default();
        for scope in stored.iter().chain(&planned) {
            let told = if scope.group == group && scope.config == config {
                scope.sentence()
            } else {
                sentence(scope)
            };
            scopes.sentences.insert(scope.id.clone(), told);
        }
        for scope in planned {
            let place = (scope.kind.clone(), scope.region.clone());
            scopes.places.entry(place).or_default().push(scope);
        }
        scopes
    }

    /// A scope as people know it.
    fn named<'s>(&'s self, id: &'s str) -> &'s str {
        self.sentences.get(id).map_or(id, String::as_str)
    }

    /// Why no scope of the configuration has a database.
    fn why_none(&self, database: &v1::Database) -> String {
        let place = (
            database.kind.clone(),
            database
                .aws
                .as_ref()
                .map(|aws| aws.region.clone())
                .unwrap_or_default(),
        );
        let Some(there) = self.places.get(&place) else {
            let (kind, region) = place;
            return format!("nothing looks for {kind} in {region}");
        };
        let facts = Facts {
            owner: String::new(),
            ..explain::facts(database)
        };
        let asked = there.iter().take(ASKED_WHY_MAX);
        let nearest = asked
            .map(|scope| (scope, verdict::of(scope, &facts)))
            .min_by_key(|(_, verdict)| {
                let failing = verdict.first_failure().map(|clause| clause.clause);
                (verdict.verdict, std::cmp::Reverse(failing))
            });
        let failing = nearest
            .as_ref()
            .and_then(|(_, verdict)| verdict.first_failure());
        if failing.is_some_and(|clause| clause.clause == ClauseName::Account) {
            let (kind, region) = place;
            let account = facts.account;
            return format!("nothing looks for {kind} in {region} of account {account}");
        }
        match nearest {
            Some((scope, verdict)) if verdict.verdict == Verdict::NoMatch => {
                format!("{}: {}", scope.sentence(), verdict.why)
            }
            Some((scope, _)) => format!("{} does not find it", scope.sentence()),
            None => String::new(),
        }
    }
}

/// A scope of another group or configuration.
fn sentence(scope: &Scope) -> String {
    let group = if scope.group.is_empty() {
        "no group".to_owned()
    } else {
        format!("group {}", scope.group)
    };
    let asked_by = if scope.config.is_empty() {
        group
    } else {
        format!("{group}, discovery_config {}", scope.config)
    };
    format!("{} ({asked_by})", scope.sentence())
}

impl Change {
    /// What the control plane says of a database; `None` when it stays as it is.
    #[must_use]
    pub fn of(change: &v1::PlannedChange, scopes: &Scopes) -> Option<Self> {
        let action = match change.action() {
            PlanAction::Add => Action::Add,
            PlanAction::Change => Action::Change,
            PlanAction::Remove => Action::Remove,
            PlanAction::Keep | PlanAction::Unspecified => return None,
        };
        let (before, after) = (change.before.as_ref(), change.after.as_ref());
        let database = before.or(after)?;
        let owner = |database: Option<&v1::Database>| {
            database
                .map(|database| database.scope_id.clone())
                .unwrap_or_default()
        };
        Some(Self {
            action,
            name: database.name.clone(),
            identity: database.identity.clone(),
            why: if action == Action::Remove {
                scopes.why_none(database)
            } else {
                String::new()
            },
            differences: match (before, after) {
                (Some(before), Some(after)) => difference::between(before, after),
                _ => Vec::new(),
            },
            owner_before: owner(before),
            owner_after: owner(after),
            before: before.map(resource::Database::from),
            after: after.map(resource::Database::from),
        })
    }
}

impl Unseen {
    /// A scope that could not be seen in full.
    #[must_use]
    pub fn of(scope: &Scope, failure: ScopeFailure) -> Self {
        Self {
            scope: scope.id.clone(),
            what: scope.sentence(),
            assume_role_arn: scope.assume_role_arn.clone(),
            failure,
        }
    }
}

impl Summary {
    /// The control plane's counts, and whether everything was seen.
    #[must_use]
    pub const fn of(summary: &v1::PlanSummary, complete: bool) -> Self {
        Self {
            added: summary.added,
            changed: summary.changed,
            removed: summary.removed,
            kept: summary.kept,
            held: summary.held,
            shadowed: summary.shadowed,
            unjudged: summary.unjudged,
            retired_scopes: summary.retired_scopes,
            partial_scopes: summary.partial_scopes,
            complete,
        }
    }
}

#[cfg(test)]
mod tests;
