//! Label selectors: which databases a matcher, an agent, a role or a query means.
//!
//! Every key must be on the database (AND) and any of its values may match (OR). A value is `*`, a regular
//! expression when written `^…$`, and otherwise a glob anchored at both ends. `{"*": "*"}` matches everything,
//! an empty selector nothing. Compiled once, evaluated in linear time.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{labels::Labels, pattern::Pattern};

/// Most keys in one selector, and most values of one key.
pub const SELECTOR_TERMS_MAX: usize = 200;
/// Longest value pattern in characters.
pub const PATTERN_CHARS_MAX: usize = 512;
/// Memory that one compiled pattern may take.
pub const PATTERN_BYTES_MAX: usize = 1 << 20;

/// Why a selector cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSelector {
    /// `*` as a key means "any database", so it cannot ask for a value.
    #[error("key `*` can only have the value `*`")]
    AnyKeyWithValue,
    /// A pattern is not a regular expression, or a too large one.
    #[error("value `{value}` of key `{key}` is not a valid pattern: {problem}")]
    Pattern {
        /// The key it stands under.
        key: String,
        /// The pattern as written.
        value: String,
        /// What the compiler of expressions said, in one line.
        problem: String,
    },
    /// More keys or values than [`SELECTOR_TERMS_MAX`].
    #[error(
        "a selector may have at most {SELECTOR_TERMS_MAX} keys and {SELECTOR_TERMS_MAX} values a key"
    )]
    TooMany,
    /// A key without values could never match.
    #[error("key `{key}` has no value to match")]
    WithoutValues {
        /// The key.
        key: String,
    },
}

/// A compiled selector.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    written: BTreeMap<String, Vec<String>>,
    terms: Vec<(String, Vec<Pattern>)>,
    everything: bool,
}

impl Selector {
    /// Matches every database, labelled or not.
    #[must_use]
    pub fn everything() -> Self {
        Self {
            written: BTreeMap::from([("*".to_owned(), vec!["*".to_owned()])]),
            terms: Vec::new(),
            everything: true,
        }
    }

    /// Compiles a selector.
    ///
    /// # Errors
    ///
    /// When a pattern cannot be compiled, a key has no values, or there are too many of either.
    pub fn new<K, V, I>(pairs: I) -> Result<Self, InvalidSelector>
    where
        K: Into<String>,
        V: IntoIterator<Item: Into<String>>,
        I: IntoIterator<Item = (K, V)>,
    {
        let written: BTreeMap<String, Vec<String>> = pairs
            .into_iter()
            .map(|(key, values)| (key.into(), values.into_iter().map(Into::into).collect()))
            .collect();
        if written.len() > SELECTOR_TERMS_MAX
            || written
                .values()
                .any(|values| values.len() > SELECTOR_TERMS_MAX)
        {
            return Err(InvalidSelector::TooMany);
        }
        let mut terms = Vec::with_capacity(written.len());
        let mut everything = false;
        for (key, values) in &written {
            if values.is_empty() {
                return Err(InvalidSelector::WithoutValues { key: key.clone() });
            }
            if key == "*" {
                if values.iter().any(|value| value != "*") {
                    return Err(InvalidSelector::AnyKeyWithValue);
                }
                everything = true;
                continue;
            }
            let patterns = values
                .iter()
                .map(|value| compile(key, value))
                .collect::<Result<Vec<_>, _>>()?;
            terms.push((key.clone(), patterns));
        }
        Ok(Self {
            written,
            terms,
            everything,
        })
    }

    /// Whether nothing was asked for; such a selector matches nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.written.is_empty()
    }

    /// Whether it matches every database.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.everything && self.terms.is_empty()
    }

    /// The selector as it was written, in key order.
    #[must_use]
    pub fn written(&self) -> &BTreeMap<String, Vec<String>> {
        &self.written
    }

    /// Whether a database with these labels is meant.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        !self.is_empty() && self.first_mismatch(labels).is_none()
    }

    /// The first key that keeps these labels from matching; `None` when all match. For explanations.
    #[must_use]
    pub fn first_mismatch(&self, labels: &Labels) -> Option<&str> {
        self.terms
            .iter()
            .find(|(key, patterns)| {
                !labels
                    .get(key)
                    .is_some_and(|value| patterns.iter().any(|pattern| pattern.matches(value)))
            })
            .map(|(key, _)| key.as_str())
    }
}

impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Eq for Selector {}

fn compile(key: &str, value: &str) -> Result<Pattern, InvalidSelector> {
    Pattern::new(value, PATTERN_BYTES_MAX).map_err(|problem| InvalidSelector::Pattern {
        key: key.to_owned(),
        value: value.to_owned(),
        problem,
    })
}

/// One value or a list of values, as people write it.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written: BTreeMap<String, OneOrMany> = BTreeMap::deserialize(deserializer)?;
        let pairs = written.into_iter().map(|(key, values)| match values {
            OneOrMany::One(value) => (key, vec![value]),
            OneOrMany::Many(values) => (key, values),
        });
        Self::new(pairs).map_err(D::Error::custom)
    }
}

impl Serialize for Selector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.written.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(pairs: &[(&str, &[&str])]) -> Selector {
        Selector::new(
            pairs
                .iter()
                .map(|(key, values)| (*key, values.iter().copied())),
        )
        .unwrap()
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().copied().collect()
    }

    #[test]
    fn keys_are_anded_and_values_are_ored() {
        let chosen = selector(&[("env", &["prod", "dev"]), ("team", &["bi"])]);
        assert!(chosen.matches(&labels(&[("env", "dev"), ("team", "bi")])));
        assert!(!chosen.matches(&labels(&[("env", "dev")])));
        assert!(!chosen.matches(&labels(&[("env", "stage"), ("team", "bi")])));
        assert_eq!(
            chosen.first_mismatch(&labels(&[("env", "dev"), ("team", "x")])),
            Some("team")
        );
    }

    #[test]
    fn an_empty_selector_matches_nothing_and_the_star_everything() {
        assert!(!Selector::default().matches(&labels(&[("a", "b")])));
        assert!(selector(&[("*", &["*"])]).matches(&Labels::new()));
        assert!(Selector::everything().matches(&Labels::new()));
        assert_eq!(
            Selector::new([("*", ["x"])]),
            Err(InvalidSelector::AnyKeyWithValue)
        );
    }

    #[test]
    fn globs_are_anchored_and_expressions_are_kept() {
        assert!(selector(&[("name", &["dw-*"])]).matches(&labels(&[("name", "dw-1")])));
        assert!(!selector(&[("name", &["dw-*"])]).matches(&labels(&[("name", "my-dw-1")])));
        assert!(!selector(&[("name", &["a.c"])]).matches(&labels(&[("name", "abc")])));
        assert!(selector(&[("name", &["^a.c$"])]).matches(&labels(&[("name", "abc")])));
        assert!(Selector::new([("name", ["^(a$"])]).is_err());
    }

    #[test]
    fn a_star_value_still_asks_for_the_key() {
        assert!(!selector(&[("env", &["*"])]).matches(&Labels::new()));
    }

    #[test]
    fn one_value_and_a_list_read_the_same() {
        let one: Selector = serde_json::from_str(r#"{"env": "prod"}"#).unwrap();
        let many: Selector = serde_json::from_str(r#"{"env": ["prod"]}"#).unwrap();
        assert_eq!(one, many);
    }
}
