//! Counts by the values of a field, a label or a trait.

use std::{borrow::Cow, collections::HashMap};

use tidegate_core::{
    labels::is_label_key,
    predicate::{FieldType, Fields, Schema},
};
use tidegate_proto::Invalid;

use crate::inventory::{Counts, VALUES_MAX, nearest};

/// The prefix of one label.
const LABEL: &str = "labels.";
/// The field of the request that names what is counted by.
const BY: &str = "by";
/// Longest key of a trait.
const TRAIT_KEY_BYTES_MAX: usize = 256;

/// What is counted by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// A yes or no.
    Flag(&'static str),
    /// A label, by its key.
    Label(String),
    /// Each of several texts.
    List(&'static str),
    /// A text or number.
    Text(&'static str),
    /// Each value of a trait: the field, and the trait's key.
    Trait(&'static str, String),
}

impl By {
    /// Reads `by`; empty is nothing.
    ///
    /// # Errors
    ///
    /// [`Invalid`] names what is not known, and what may have been meant.
    pub(crate) fn parse(schema: &'static Schema, written: &str) -> Result<Option<Self>, Invalid> {
        if written.is_empty() {
            return Ok(None);
        }
        let has_labels = schema.iter().any(|field| field.holds == FieldType::Labels);
        if let Some(key) = written.strip_prefix(LABEL).filter(|_| has_labels) {
            return if is_label_key(key) {
                Ok(Some(Self::Label(key.to_owned())))
            } else {
                Err(Invalid::new(BY, "has no label key after `labels.`"))
            };
        }
        let needs_key = |field: &str| Invalid::new(BY, format!("needs a key: write `{field}.KEY`"));
        let Some(field) = schema.field(written) else {
            return Self::trait_of(schema, written).map(Some);
        };
        match field.holds {
            FieldType::Flag => Ok(Some(Self::Flag(field.path))),
            FieldType::List => Ok(Some(Self::List(field.path))),
            FieldType::Number | FieldType::Text => Ok(Some(Self::Text(field.path))),
            FieldType::Labels | FieldType::Traits => Err(needs_key(field.path)),
        }
    }

    fn trait_of(schema: &'static Schema, written: &str) -> Result<Self, Invalid> {
        let keyed = written.split_once('.').and_then(|(field, key)| {
            let field = schema.field(field)?;
            (field.holds == FieldType::Traits).then_some((field.path, key))
        });
        match keyed {
            Some((path, key)) if (1..=TRAIT_KEY_BYTES_MAX).contains(&key.len()) => {
                Ok(Self::Trait(path, key.to_owned()))
            }
            Some(_) => Err(Invalid::new(BY, "has no key that a trait could have")),
            None => {
                let shown: String = written.chars().take(60).collect();
                let known = schema.iter().map(|field| field.path);
                let problem = format!("cannot be `{shown}`: {}", nearest(written, known));
                Err(Invalid::new(BY, problem))
            }
        }
    }

    fn values<'f>(&'f self, fields: &'f dyn Fields) -> Vec<Cow<'f, str>> {
        match self {
            Self::Flag(path) => vec![if fields.flag(path) { "yes" } else { "no" }.into()],
            Self::Label(key) => {
                let labels = fields.labels("labels");
                let value = labels.and_then(|labels| labels.get(key));
                value.map(Cow::Borrowed).into_iter().collect()
            }
            Self::List(path) => fields.list(path),
            Self::Text(path) => fields.text(path).into_iter().collect(),
            Self::Trait(path, key) => {
                let values = fields.traits(path).and_then(|traits| traits.get(key));
                let values = values.into_iter().flatten();
                values.map(|value| value.as_str().into()).collect()
            }
        }
    }
}

/// Counts as they grow.
pub(crate) struct Tally<'b> {
    by: Option<&'b By>,
    values: HashMap<String, u64>,
    total: u64,
}

impl<'b> Tally<'b> {
    /// Nothing yet.
    pub(crate) fn new(by: Option<&'b By>) -> Self {
        Self {
            by,
            values: HashMap::new(),
            total: 0,
        }
    }

    /// Counts one resource: once for each of its values, and as the empty value when it has none.
    pub(crate) fn add(&mut self, fields: &dyn Fields) {
        self.total += 1;
        let Some(by) = self.by else { return };
        let mut values = by.values(fields);
        values.sort_unstable();
        values.dedup();
        if values.is_empty() {
            values.push(Cow::Borrowed(""));
        }
        for value in values {
            match self.values.get_mut(value.as_ref()) {
                Some(count) => *count += 1,
                None => drop(self.values.insert(value.into_owned(), 1)),
            }
        }
    }

    /// The largest, and the total.
    pub(crate) fn counts(&self) -> Counts {
        let values = self
            .values
            .iter()
            .map(|(value, count)| (value.as_str(), *count));
        Counts::largest(values, self.total, VALUES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use tidegate_core::predicate::Facts;

    use super::*;

    #[test]
    fn what_is_counted_by_is_a_field_a_label_or_a_trait() {
        let parse = |schema, text| By::parse(schema, text);
        assert_eq!(parse(&Schema::USER, ""), Ok(None));
        assert_eq!(parse(&Schema::USER, "roles"), Ok(Some(By::List("roles"))));
        assert_eq!(
            parse(&Schema::USER, "traits.team"),
            Ok(Some(By::Trait("traits", "team".to_owned())))
        );
        assert_eq!(
            parse(&Schema::DATABASE, "labels.env"),
            Ok(Some(By::Label("env".to_owned())))
        );
        for (schema, wrong, problem) in [
            (&Schema::USER, "rolse", "did you mean `roles`"),
            (&Schema::USER, "labels.env", "cannot be"),
            (&Schema::USER, "traits", "traits.KEY"),
            (&Schema::USER, "traits.", "no key"),
            (&Schema::DATABASE, "labels", "labels.KEY"),
            (&Schema::DATABASE, "labels.", "no label key"),
        ] {
            let invalid = parse(schema, wrong).unwrap_err();
            assert_eq!(invalid.field, "by");
            assert!(invalid.problem.contains(problem), "{wrong}: {invalid}");
        }
    }

    #[test]
    fn each_of_several_values_counts_and_no_value_is_the_empty_one() {
        let by = By::List("roles");
        let mut tally = Tally::new(Some(&by));
        tally.add(&Facts::new().with_list("roles", ["a", "b", "a"]));
        tally.add(&Facts::new().with_list("roles", ["a"]));
        tally.add(&Facts::new());
        let counts = tally.counts();
        assert_eq!(counts.total, 3);
        let expected = [("a", 2), ("", 1), ("b", 1)];
        assert_eq!(
            counts.values,
            expected.map(|(value, count)| (value.to_owned(), count))
        );
    }
}
