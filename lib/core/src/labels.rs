//! Labels of a database, and the keys that Tidegate itself sets.
//!
//! Invariant: a generated label always wins over an AWS tag of the same key, because who may tag a resource must
//! not steer access. The tag that lost is kept as `aws/<key>`.

use std::{borrow::Cow, cmp::Ordering, collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

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
///
/// A cluster keeps millions of these and changes hardly any, so all texts lie behind each other in one buffer, and a
/// change makes the buffer anew: building a set from pairs at once is cheaper than inserting one at a time.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Labels {
    /// Key, value, key, value, … in key order.
    text: Box<str>,
    /// Where each key and each value ends.
    ends: Box<[u32]>,
}

impl Labels {
    /// No labels.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The value of a key; keys under Teleport's prefixes read the same label under ours.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        match canonical_key(key) {
            Some(ours) => self.stored(&ours),
            None => self.stored(key),
        }
    }

    /// Sets a label, replacing what was there.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<String>) {
        let (key, value) = (key.into(), value.into());
        *self = match self.place(&key) {
            Ok(at) => self.with(at, at + 1, &[(&key, &value)]),
            Err(at) => self.with(at, at, &[(&key, &value)]),
        };
    }

    /// Takes a label away, whose key is written as it is stored; what it was.
    pub fn remove(&mut self, key: &str) -> Option<String> {
        let at = self.place(key).ok()?;
        let value = self.value(at).to_owned();
        *self = self.with(at, at + 1, &[]);
        Some(value)
    }

    /// Sets each label that comes with a value, and takes each away that comes without one. Of a key that comes twice
    /// the later one counts.
    pub fn change<'c>(&mut self, changes: &[(&'c str, Option<&'c str>)]) {
        *self = self.changed(changes);
    }

    /// These labels as [`Self::change`] would leave them.
    #[must_use]
    pub fn changed<'c>(&self, changes: &[(&'c str, Option<&'c str>)]) -> Self {
        let kept = self
            .iter()
            .filter(|(kept, _)| changes.iter().all(|(key, _)| key != kept));
        let last = |at: usize| {
            changes[at + 1..]
                .iter()
                .all(|(key, _)| *key != changes[at].0)
        };
        let set = changes.iter().enumerate().filter(|(at, _)| last(*at));
        let set = set.filter_map(|(_, (key, value))| Some((*key, (*value)?)));
        let mut pairs = Vec::with_capacity(self.len() + changes.len());
        pairs.extend(kept);
        pairs.extend(set);
        Self::packed(pairs)
    }

    /// All labels in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        let mut start = 0;
        self.ends.chunks_exact(2).map(move |ends| {
            let (key, value) = (ends[0] as usize, ends[1] as usize);
            let pair = (&self.text[start..key], &self.text[key..value]);
            start = value;
            pair
        })
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.ends.len() / 2
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Adds AWS tags below the labels that are already here.
    ///
    /// A tag whose key is generated or reserved does not replace it: it is kept under `aws/<key>`. Tags with keys
    /// that are no label keys are left out, and so are those past [`LABELS_MAX`]; both are counted in the answer.
    pub fn add_tags<'t>(&mut self, tags: impl IntoIterator<Item = (&'t str, &'t str)>) -> usize {
        let mut left_out = 0;
        let mut added: Vec<(Cow<'_, str>, &str)> = Vec::new();
        // Nothing goes in before all tags were looked at: only what was here before counts as generated.
        for (key, value) in tags {
            if !is_label_key(key) || self.len() + added.len() >= LABELS_MAX {
                left_out += 1;
                continue;
            }
            let shadowed = is_reserved(key) || self.stored(key).is_some();
            let key = if shadowed {
                Cow::Owned(format!("aws/{key}"))
            } else {
                Cow::Borrowed(key)
            };
            added.push((key, value));
        }
        let added = added.iter().map(|(key, value)| (key.as_ref(), *value));
        *self = Self::packed(self.iter().chain(added).collect());
        left_out
    }

    /// The place of a key as it is stored, or where it would be.
    fn place(&self, key: &str) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            match self.key(middle).cmp(key) {
                Ordering::Equal => return Ok(middle),
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    /// The value of a key as it is stored. Every row of a scan is asked this, and none of them is in the processor's
    /// caches: most keys differ in length, which is told without looking at the text.
    fn stored(&self, key: &str) -> Option<&str> {
        let mut start = 0;
        for ends in self.ends.chunks_exact(2) {
            let (end, next) = (ends[0] as usize, ends[1] as usize);
            if end - start == key.len() && self.text.as_bytes()[start..end] == *key.as_bytes() {
                return Some(&self.text[end..next]);
            }
            start = next;
        }
        None
    }

    fn key(&self, at: usize) -> &str {
        let start = at.checked_sub(1).map_or(0, |last| self.end(2 * last + 1));
        &self.text[start..self.end(2 * at)]
    }

    fn value(&self, at: usize) -> &str {
        &self.text[self.end(2 * at)..self.end(2 * at + 1)]
    }

    fn end(&self, at: usize) -> usize {
        self.ends[at] as usize
    }

    /// These labels with other pairs in the place of those from one place to before another.
    fn with(&self, from: usize, to: usize, pairs: &[(&str, &str)]) -> Self {
        let before = self.iter().take(from);
        let after = self.iter().skip(to);
        Self::sorted(before.chain(pairs.iter().copied()).chain(after))
    }

    /// From pairs in any order; of a key that comes twice the later one counts.
    fn packed(mut pairs: Vec<(&str, &str)>) -> Self {
        if !pairs.is_sorted_by(|(a, _), (b, _)| a < b) {
            pairs.sort_by_key(|(key, _)| *key);
            pairs.reverse();
            pairs.dedup_by_key(|(key, _)| *key);
            pairs.reverse();
        }
        Self::sorted(pairs.into_iter())
    }

    /// From pairs in key order. They are gone through twice, so that each buffer is made once, and as long as it stays.
    fn sorted<'p>(pairs: impl Iterator<Item = (&'p str, &'p str)> + Clone) -> Self {
        let (count, bytes) = pairs.clone().fold((0, 0), |(count, bytes), (key, value)| {
            (count + 1, bytes + key.len() + value.len())
        });
        let (mut text, mut ends) = (String::with_capacity(bytes), Vec::with_capacity(2 * count));
        for (key, value) in pairs {
            text.push_str(key);
            ends.push(end_of(&text));
            text.push_str(value);
            ends.push(end_of(&text));
        }
        Self {
            text: text.into_boxed_str(),
            ends: ends.into_boxed_slice(),
        }
    }
}

fn end_of(text: &str) -> u32 {
    u32::try_from(text.len()).expect("no message that brings labels is as large as 4 GiB")
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let pairs: Vec<(K, V)> = pairs.into_iter().collect();
        let texts = pairs
            .iter()
            .map(|(key, value)| (key.as_ref(), value.as_ref()));
        Self::packed(texts.collect())
    }
}

impl From<BTreeMap<String, String>> for Labels {
    fn from(map: BTreeMap<String, String>) -> Self {
        Self::from(&map)
    }
}

impl From<&BTreeMap<String, String>> for Labels {
    fn from(map: &BTreeMap<String, String>) -> Self {
        Self::sorted(
            map.iter()
                .map(|(key, value)| (key.as_str(), value.as_str())),
        )
    }
}

impl From<&Labels> for BTreeMap<String, String> {
    fn from(labels: &Labels) -> Self {
        labels
            .iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }
}

impl From<Labels> for BTreeMap<String, String> {
    fn from(labels: Labels) -> Self {
        Self::from(&labels)
    }
}

impl IntoIterator for Labels {
    type Item = (String, String);
    type IntoIter = std::collections::btree_map::IntoIter<String, String>;

    fn into_iter(self) -> Self::IntoIter {
        BTreeMap::from(self).into_iter()
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BTreeMap::deserialize(deserializer).map(|map: BTreeMap<String, String>| Self::from(map))
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
    use proptest::prelude::*;

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
    fn several_labels_change_at_once() {
        let mut labels: Labels = [("a", "1"), ("b", "2"), ("c", "3")].into_iter().collect();
        labels.change(&[
            ("d", Some("4")),
            ("b", None),
            ("a", Some("0")),
            ("x", None),
            ("d", Some("5")),
        ]);
        let changed = [("a", "0"), ("c", "3"), ("d", "5")];
        assert_eq!(labels, changed.into_iter().collect());
    }

    #[test]
    fn of_a_key_that_comes_twice_the_later_value_counts() {
        let labels: Labels = [("b", "1"), ("a", ""), ("b", "2"), ("a", "3")]
            .into_iter()
            .collect();
        let pairs: Vec<_> = labels.iter().collect();
        assert_eq!(pairs, [("a", "3"), ("b", "2")]);
        let mut labels = labels;
        labels.add_tags([("c", "x"), ("c", "y")]);
        assert_eq!(labels.get("c"), Some("y"));
    }

    proptest! {
        #[test]
        fn labels_are_what_a_sorted_map_is(
            steps in prop::collection::vec(("[a-dé]{0,2}", "[x-zü]{0,3}", any::<bool>()), 0..40),
        ) {
            let (mut labels, mut map) = (Labels::new(), BTreeMap::new());
            for (key, value, keep) in steps {
                if keep {
                    labels.insert(key.clone(), value.clone());
                    map.insert(key, value);
                } else {
                    prop_assert_eq!(labels.remove(&key), map.remove(&key));
                }
                prop_assert!(labels.iter().eq(map.iter().map(|(k, v)| (k.as_str(), v.as_str()))));
                prop_assert_eq!(labels.len(), map.len());
                for key in map.keys() {
                    prop_assert_eq!(labels.get(key), map.get(key).map(String::as_str));
                }
                prop_assert_eq!(&labels, &Labels::from(&map));
                prop_assert_eq!(&labels, &map.clone().into_iter().rev().collect::<Labels>());
                let json = serde_json::to_string(&labels).unwrap();
                prop_assert_eq!(&json, &serde_json::to_string(&map).unwrap());
                prop_assert_eq!(&labels, &serde_json::from_str::<Labels>(&json).unwrap());
            }
        }
    }

    #[test]
    fn tags_with_impossible_keys_are_counted_and_left_out() {
        let mut labels = Labels::new();
        assert_eq!(labels.add_tags([("a b", "1"), ("ok", "2")]), 1);
        assert_eq!(labels.len(), 1);
    }
}
