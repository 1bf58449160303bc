//! Why a database is in the inventory, under the name and with the labels that it has; or why it is not.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use tidegate_core::{Labels, generated, labels};
use tidegate_proto::v1;

use super::{
    name::{self, BaseSource, Given, NameStory},
    scope::Scope,
    status::relative,
    verdict::{self, Facts, ScopeVerdict, Verdict},
};
use crate::{Table, table::visible};

/// Most scopes that do not match which are shown to a person; the nearest are.
const NO_MATCH_SHOWN_MAX: usize = 20;

/// Everything that is known of why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// What was asked about: a name or an ARN.
    pub subject: String,
    /// The database; `None` when the inventory has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseFacts>,
    /// How its name came about; `None` when discovery did not give it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<NameStory>,
    /// Its labels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<LabelStory>,
    /// Every scope, the nearest first.
    pub scopes: Vec<ScopeVerdict>,
}

/// The database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DatabaseFacts {
    /// Its name.
    pub name: String,
    /// Its ARN and endpoint role; empty when it was not discovered.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub identity: String,
    /// `cloud`, `config` or `dynamic`.
    pub origin: &'static str,
    /// `redshift`, …
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// `host:port`.
    pub uri: String,
    /// Why it cannot be connected to now.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub unavailable: String,
    /// The scope that owns it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub owner: String,
}

/// One label, and where it is from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LabelStory {
    /// The key.
    pub key: String,
    /// The value.
    pub value: String,
    /// Where it is from.
    pub source: LabelSource,
}

/// Where a label is from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LabelSource {
    /// Discovery or the control plane set it.
    Generated,
    /// A tag in AWS.
    Tag,
    /// A tag in AWS whose key is not for tags: it does not count as the label of that key.
    ShadowedTag,
    /// Whoever wrote the database.
    Written,
}

/// Explains a database of the inventory. `listed` are all scopes.
#[must_use]
pub fn database(database: &v1::Database, listed: &[Scope]) -> Explanation {
    let discovered = !database.identity.is_empty();
    let facts = facts(database);
    Explanation {
        subject: database.name.clone(),
        database: Some(DatabaseFacts {
            name: database.name.clone(),
            identity: database.identity.clone(),
            origin: crate::resource::origin(database.origin()),
            kind: database.kind.clone(),
            uri: database.uri.clone(),
            unavailable: database.unavailable.clone(),
            owner: database.scope_id.clone(),
        }),
        name: name::story(database),
        labels: label_stories(&database.labels, discovered),
        scopes: if discovered {
            verdicts(&facts, listed)
        } else {
            Vec::new()
        },
    }
}

/// What is known of a database.
pub(super) fn facts(database: &v1::Database) -> Facts {
    let labels: Labels = database.labels.clone().into_iter().collect();
    let aws = database.aws.clone().unwrap_or_default();
    Facts {
        identity: database.identity.clone(),
        kind: database.kind.clone(),
        region: aws.region,
        account: aws.account_id,
        labels: Some(labels),
        owner: database.scope_id.clone(),
    }
}

/// Explains a database that the inventory does not have, as far as its ARN tells.
#[must_use]
pub fn absent(arn: &str, listed: &[Scope]) -> Explanation {
    let facts = facts_of_arn(arn);
    Explanation {
        subject: arn.to_owned(),
        database: None,
        name: None,
        labels: Vec::new(),
        scopes: verdicts(&facts, listed),
    }
}

/// Kind, region and account by `arn:<partition>:<service>:<region>:<account>:<resource>`.
fn facts_of_arn(arn: &str) -> Facts {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let &["arn", _, service, region, account, resource] = parts.as_slice() else {
        return Facts {
            identity: arn.to_owned(),
            ..Facts::default()
        };
    };
    let kind = match service {
        "rds" if resource.starts_with("db-proxy") => "rdsproxy",
        known @ ("rds" | "redshift" | "redshift-serverless") => known,
        _ => "",
    };
    Facts {
        identity: arn.to_owned(),
        kind: kind.to_owned(),
        region: region.to_owned(),
        account: account.to_owned(),
        ..Facts::default()
    }
}

/// The owner, then who found it too, then who could have, then the rest by how near they come.
fn verdicts(facts: &Facts, listed: &[Scope]) -> Vec<ScopeVerdict> {
    let mut verdicts: Vec<ScopeVerdict> = listed
        .iter()
        .map(|scope| verdict::of(scope, facts))
        .collect();
    verdicts.sort_by_key(|verdict| {
        let failing = verdict.first_failure().map(|clause| clause.clause);
        (verdict.verdict, std::cmp::Reverse(failing))
    });
    verdicts
}

fn label_stories(labels: &BTreeMap<String, String>, discovered: bool) -> Vec<LabelStory> {
    let generated = |key: &str| {
        labels::is_reserved(key) || generated::labels().iter().any(|label| label.key == key)
    };
    labels
        .iter()
        .map(|(key, value)| {
            let source = match key.strip_prefix("aws/") {
                _ if !discovered && labels::is_reserved(key) => LabelSource::Generated,
                _ if !discovered => LabelSource::Written,
                Some(shadowed) if generated(shadowed) => LabelSource::ShadowedTag,
                _ if generated(key) => LabelSource::Generated,
                _ => LabelSource::Tag,
            };
            LabelStory {
                key: key.clone(),
                value: value.clone(),
                source,
            }
        })
        .collect()
}

/// The explanation for a person. `listed` are the scopes that it was made with.
#[must_use]
pub fn text(explanation: &Explanation, listed: &[Scope], now: Timestamp) -> String {
    let mut text = match &explanation.database {
        Some(database) => facts_text(database, listed, now),
        None => format!(
            "The inventory has no database {}\n",
            visible(&explanation.subject)
        ),
    };
    if let Some(name) = &explanation.name {
        text.push_str("\nName\n");
        text.push_str(&name_text(name));
    }
    if !explanation.labels.is_empty() {
        text.push('\n');
        text.push_str(&labels_table(&explanation.labels).render(None));
    }
    if !explanation.scopes.is_empty() {
        text.push('\n');
        text.push_str(&scopes_text(&explanation.scopes, listed));
    }
    text
}

fn facts_text(database: &DatabaseFacts, listed: &[Scope], now: Timestamp) -> String {
    let owner = listed
        .iter()
        .find(|scope| !database.owner.is_empty() && scope.id == database.owner);
    let owner = match (owner, database.origin) {
        (Some(scope), _) => format!(
            "{}, {}; last success {}",
            scope.sentence(),
            asked_by(scope),
            relative(scope.last_success, now)
        ),
        (None, "cloud") if database.owner.is_empty() => {
            "no scope: the next scan that finds it takes it".to_owned()
        }
        (None, "cloud") => format!("{}, which is not known any more", database.owner),
        (None, "config") => "the configuration of the agents that serve it".to_owned(),
        (None, _) => "whoever created it".to_owned(),
    };
    let status = if database.unavailable.is_empty() {
        String::new()
    } else {
        format!("cannot be connected to: {}", database.unavailable)
    };
    let lines = [
        ("Database", database.name.as_str()),
        ("Identity", &database.identity),
        ("Type", &database.kind),
        ("Address", &database.uri),
        ("Origin", database.origin),
        ("Status", &status),
        ("Owner", &owner),
    ];
    lines
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| format!("{key:<9} {}\n", visible(value)))
        .collect()
}

fn name_text(name: &NameStory) -> String {
    let source = match &name.base_source {
        BaseSource::Identifier => "the identifier in AWS".to_owned(),
        BaseSource::Tag(key) => format!("the tag {key}"),
        BaseSource::Unknown => "the undecorated name".to_owned(),
    };
    let would = |usual: &Option<String>| match usual {
        Some(usual) => format!("`{usual}`"),
        None => "no valid name".to_owned(),
    };
    let given = match &name.given {
        Given::Usual => "as usual: parts that the name has already are left out".to_owned(),
        Given::Full(usual) => format!("in full, since the usual name, {}, was taken", would(usual)),
        Given::Hashed(usual) => format!(
            "with a hash of the identity, since the usual name, {}, and the full one were taken or invalid",
            would(usual)
        ),
        Given::Earlier(usual) => format!("earlier, and kept; today it would be {}", would(usual)),
    };
    let suffix = if name.suffix.is_empty() {
        "none: a tag gives the name".to_owned()
    } else {
        name.suffix.join(", ")
    };
    let lines = [
        ("Base", format!("{} ({source})", name.base)),
        ("Endpoint", name.endpoint.clone()),
        ("Suffix", suffix),
        ("Given", given),
    ];
    lines
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| format!("  {key:<9} {}\n", visible(value)))
        .collect()
}

fn labels_table(stories: &[LabelStory]) -> Table {
    let mut table = Table::new(["Label", "Value", "From"]);
    for story in stories {
        let source = match story.source {
            LabelSource::Generated => "generated".to_owned(),
            LabelSource::Tag => "tag".to_owned(),
            LabelSource::ShadowedTag => {
                let key = story.key.strip_prefix("aws/").unwrap_or(&story.key);
                format!("tag {key}, shadowed: that key is not for tags")
            }
            LabelSource::Written => "written".to_owned(),
        };
        table.row([&story.key, &story.value, &source]);
    }
    table
}

fn scopes_text(verdicts: &[ScopeVerdict], listed: &[Scope]) -> String {
    let mut table = Table::new([
        "Group",
        "Type",
        "Region",
        "Account/Role",
        "Tags",
        "Asked By",
        "Verdict",
    ]);
    let mut no_match: usize = 0;
    for verdict in verdicts {
        if verdict.verdict == Verdict::NoMatch {
            no_match += 1;
            if no_match > NO_MATCH_SHOWN_MAX {
                continue;
            }
        }
        let Some(scope) = listed.iter().find(|scope| scope.id == verdict.scope) else {
            continue;
        };
        table.row([
            scope.group.as_str(),
            &scope.kind,
            &scope.region,
            &scope.role_text(),
            &scope.tags_text(),
            &asked_by(scope),
            &verdict.why,
        ]);
    }
    let mut text = table.render(None);
    let more = no_match.saturating_sub(NO_MATCH_SHOWN_MAX);
    if more > 0 {
        text.push_str(&format!(
            "and {more} more scopes that do not match (--format=json has all)\n"
        ));
    }
    text
}

fn asked_by(scope: &Scope) -> String {
    if scope.config.is_empty() {
        "configuration file".to_owned()
    } else {
        format!("discovery_config {}", scope.config)
    }
}
