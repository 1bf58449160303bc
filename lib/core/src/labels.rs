//! Labels of a database, and the keys that Tidegate itself sets.
//!
//! Invariant: a generated label always wins over an AWS tag of the same key, because who may tag a resource must
//! not steer access. The tag that lost is kept as `aws/<key>`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Prefix of the keys that only Tidegate sets.
pub const RESERVED_PREFIX: &str = "tidegate.dev/";
/// The prefix that selectors written for Teleport use for the same labels.
pub const TELEPORT_PREFIX: &str = "teleport.dev/";
/// Teleport's prefix of internal labels; read as [`RESERVED_PREFIX`] too.
pub const TELEPORT_INTERNAL_PREFIX: &str = "teleport.internal/";

/// How the database got here: `cloud`, `config` or `dynamic`.
pub const ORIGIN: &str = "tidegate.dev/origin";
/// The cloud it was found in: `AWS`.
pub const CLOUD: &str = "tidegate.dev/cloud";
/// The discovery group that found it.
pub const DISCOVERY_GROUP: &str = "tidegate.dev/discovery-group";
/// The kind of matcher that found it, such as `redshift`.
pub const DISCOVERY_TYPE: &str = "tidegate.dev/discovery-type";
/// The `discovery_config` resource whose matcher found it.
pub const DISCOVERY_CONFIG: &str = "tidegate.dev/discovery-config";
/// What sort of endpoint it is: `cluster`, `workgroup`, `instance`, `primary`, `reader`, …
pub const ENDPOINT_TYPE: &str = "endpoint-type";
/// The AWS account.
pub const ACCOUNT_ID: &str = "account-id";
/// The AWS region.
pub const REGION: &str = "region";

/// Most labels that one database may carry: AWS allows 50 tags (200 on some kinds), and we add about a dozen.
pub const LABELS_MAX: usize = 300;

/// A sorted set of key and value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// No labels.
    #[must_use]
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// The value of a key; keys under Teleport's prefixes read the same label under ours.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        match canonical_key(key) {
            Some(ours) => self.0.get(&ours),
            None => self.0.get(key),
        }
        .map(String::as_str)
    }

    /// Sets a label, replacing what was there.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.0.insert(key.into(), value.into());
    }

    /// Takes a label away, whose key is written as it is stored; what it was.
    pub fn remove(&mut self, key: &str) -> Option<String> {
        self.0.remove(key)
    }

    /// All labels in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds AWS tags below the labels that are already here.
    ///
    /// A tag whose key is generated or reserved does not replace it: it is kept under `aws/<key>`. Tags with keys
    /// that are no label keys are left out, and so are those past [`LABELS_MAX`]; both are counted in the answer.
    pub fn add_tags<'t>(&mut self, tags: impl IntoIterator<Item = (&'t str, &'t str)>) -> usize {
        let mut left_out = 0;
        let mut added = Vec::new();
        // Nothing goes in before all tags were looked at: only what was here before counts as generated.
        for (key, value) in tags {
            if !is_label_key(key) || self.0.len() + added.len() >= LABELS_MAX {
                left_out += 1;
                continue;
            }
            let shadowed = is_reserved(key) || self.0.contains_key(key);
            let key = if shadowed {
                format!("aws/{key}")
            } else {
                key.to_owned()
            };
            added.push((key, value.to_owned()));
        }
        self.0.extend(added);
        left_out
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self(
            pairs
                .into_iter()
                .map(|(key, value)| (key.into(), value.into()))
                .collect(),
        )
    }
}

impl From<BTreeMap<String, String>> for Labels {
    fn from(map: BTreeMap<String, String>) -> Self {
        Self(map)
    }
}

impl From<Labels> for BTreeMap<String, String> {
    fn from(labels: Labels) -> Self {
        labels.0
    }
}

impl IntoIterator for Labels {
    type Item = (String, String);
    type IntoIter = std::collections::btree_map::IntoIter<String, String>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// Whether a key may be a label key: letters, digits and `/.-_:*`, at most 256 characters.
#[must_use]
pub fn is_label_key(key: &str) -> bool {
    (1..=256).contains(&key.len())
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"/.-_:*".contains(&b))
}

/// Whether only Tidegate may set this key.
#[must_use]
pub fn is_reserved(key: &str) -> bool {
    key.starts_with(RESERVED_PREFIX) || canonical_key(key).is_some()
}

fn canonical_key(key: &str) -> Option<String> {
    let rest = key
        .strip_prefix(TELEPORT_PREFIX)
        .or_else(|| key.strip_prefix(TELEPORT_INTERNAL_PREFIX))?;
    let rest = if rest == "discovery-group-name" {
        "discovery-group"
    } else {
        rest
    };
    Some(format!("{RESERVED_PREFIX}{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_never_overwrites_a_generated_label() {
        let mut labels: Labels = [(ACCOUNT_ID, "111122223333")].into_iter().collect();
        labels.add_tags([
            ("account-id", "999999999999"),
            ("env", "dev"),
            ("tidegate.dev/origin", "config"),
            ("teleport.dev/origin", "x"),
        ]);

        assert_eq!(labels.get("account-id"), Some("111122223333"));
        assert_eq!(labels.get("aws/account-id"), Some("999999999999"));
        assert_eq!(labels.get("env"), Some("dev"));
        assert_eq!(labels.get(ORIGIN), None);
        assert_eq!(labels.get("aws/tidegate.dev/origin"), Some("config"));
    }

    #[test]
    fn keys_written_for_teleport_read_the_same_label() {
        let labels: Labels = [(ORIGIN, "cloud"), (DISCOVERY_GROUP, "prod")]
            .into_iter()
            .collect();
        assert_eq!(labels.get("teleport.dev/origin"), Some("cloud"));
        assert_eq!(
            labels.get("teleport.internal/discovery-group-name"),
            Some("prod")
        );
    }

    #[test]
    fn tags_with_impossible_keys_are_counted_and_left_out() {
        let mut labels = Labels::new();
        assert_eq!(labels.add_tags([("a b", "1"), ("ok", "2")]), 1);
        assert_eq!(labels.len(), 1);
    }
}
