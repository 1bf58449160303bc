//! How the name of a discovered database came about, told from what the inventory keeps of it.
//!
//! The control plane names a database once and then keeps the name; nothing records how. What can be told is what the
//! name would be today, and which of the rules gives the name that it has.

use serde::Serialize;
use tidegate_core::naming::{self, NAME_TAGS, NameParts};
use tidegate_proto::v1;

/// How a name came about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NameStory {
    /// What it starts with.
    pub base: String,
    /// Where that is from.
    pub base_source: BaseSource,
    /// Part for an endpoint that is not the main one: `reader`, …
    #[serde(skip_serializing_if = "String::is_empty")]
    pub endpoint: String,
    /// What is added, where the name does not contain it; nothing when a tag gives the name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub suffix: Vec<String>,
    /// Which rule gives the name.
    pub given: Given,
}

/// Where the base of a name is from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BaseSource {
    /// The identifier in AWS.
    Identifier,
    /// The value of this tag.
    Tag(String),
    /// An identifier or tag that the inventory does not keep.
    Unknown,
}

/// Which rule gives a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "rule", content = "usual")]
pub enum Given {
    /// The identifier or tag has changed since: it would be called this today. A name once given stays.
    Earlier(Option<String>),
    /// The usual name was taken, so every part of the suffix was added.
    Full(Option<String>),
    /// The usual and the full name were taken, so a hash of the identity was added.
    Hashed(Option<String>),
    /// Base, endpoint, and what of the suffix is not in them yet.
    Usual,
}

/// The story of a database's name; `None` when discovery did not name it.
#[must_use]
pub(super) fn story(database: &v1::Database) -> Option<NameStory> {
    if database.identity.is_empty() {
        return None;
    }
    let (base, base_source, endpoint) = base_of(database);
    let tagged = matches!(base_source, BaseSource::Tag(_));
    let rule = |suffix: &[&str]| {
        let parts = NameParts {
            base: &base,
            tagged,
            endpoint: &endpoint,
            suffix,
        };
        rule_of(&parts, database)
    };
    let variants = suffixes(database);
    let told = |suffix: &Vec<String>| {
        let suffix: Vec<&str> = suffix.iter().map(String::as_str).collect();
        rule(&suffix)
    };
    let (suffix, given) = variants
        .iter()
        .map(|suffix| (suffix, told(suffix)))
        .find(|(_, given)| !matches!(given, Given::Earlier(_)))
        .or_else(|| variants.first().map(|suffix| (suffix, told(suffix))))?;
    let suffix = if tagged && given == Given::Usual {
        Vec::new()
    } else {
        suffix.clone()
    };
    Some(NameStory {
        base,
        base_source,
        endpoint,
        suffix,
        given,
    })
}

fn rule_of(parts: &NameParts<'_>, database: &v1::Database) -> Given {
    let name = database.name.as_str();
    let usual = naming::usual(parts).map(|usual| usual.to_string());
    if usual.as_deref() == Some(name) {
        Given::Usual
    } else if naming::full(parts).is_some_and(|full| full.as_str() == name) {
        Given::Full(usual)
    } else if naming::hashed(parts, &database.identity).as_str() == name {
        Given::Hashed(usual)
    } else {
        Given::Earlier(usual)
    }
}

/// Base, where it is from, and the endpoint's part.
fn base_of(database: &v1::Database) -> (String, BaseSource, String) {
    let discovered = database.discovered_name.as_str();
    let tag = NAME_TAGS.iter().find_map(|key| {
        let kept = format!("aws/{key}");
        let labels = &database.labels;
        let value = labels.get(*key).or_else(|| labels.get(&kept))?;
        (!value.trim().is_empty()).then_some((*key, value.as_str()))
    });
    if let Some((key, value)) = tag
        && let Some(endpoint) = rest(discovered, value)
    {
        return (value.to_owned(), BaseSource::Tag(key.to_owned()), endpoint);
    }
    let aws = database.aws.clone().unwrap_or_default();
    let mut identifiers = [
        aws.redshift_cluster_id,
        aws.redshift_serverless_workgroup,
        aws.rds_instance_id,
        aws.rds_cluster_id,
        aws.rdsproxy_name,
    ];
    identifiers.sort_by_key(|id| std::cmp::Reverse(id.len()));
    for id in identifiers.into_iter().filter(|id| !id.is_empty()) {
        if let Some(endpoint) = rest(discovered, &id) {
            return (id, BaseSource::Identifier, endpoint);
        }
    }
    (discovered.to_owned(), BaseSource::Unknown, String::new())
}

/// What the undecorated name has after its base.
fn rest(discovered: &str, base: &str) -> Option<String> {
    let base = naming::undecorated(&NameParts {
        base,
        tagged: false,
        endpoint: "",
        suffix: &[],
    });
    let rest = discovered.strip_prefix(base.as_str())?;
    if rest.is_empty() {
        return Some(String::new());
    }
    rest.strip_prefix('-').map(str::to_owned)
}

/// The suffixes that the kind may have, the likeliest first.
fn suffixes(database: &v1::Database) -> Vec<Vec<String>> {
    let aws = database.aws.clone().unwrap_or_default();
    let with = |subtype: Option<&str>| {
        [Some(database.kind.as_str()), subtype]
            .into_iter()
            .flatten()
            .chain([aws.region.as_str(), aws.account_id.as_str()])
            .map(str::to_owned)
            .collect()
    };
    if database.kind == "rds" && aws.rds_instance_id.is_empty() {
        vec![with(Some("aurora")), with(None)]
    } else {
        vec![with(None)]
    }
}
