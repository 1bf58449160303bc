//! Role entries that stand for values of the person's traits: `{{internal.db_users}}`, `dev-{{external.team}}`,
//! `{{email.local(external.email)}}`, `{{regexp.replace(external.groups, "^db-(.*)$", "$1")}}`.
//!
//! The inner part is the predicate language over the traits. A text without braces stands for itself.

use std::borrow::Cow;

use super::Traits;
use crate::predicate::{Fields, Schema, Values};

/// What an entry of a role stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expanded {
    /// These values; none when the trait is absent.
    Values(Vec<String>),
    /// It cannot be told: the template is wrong, or takes too long.
    Unknown(String),
}

/// Whether a text is a template at all.
pub(super) fn is_template(written: &str) -> bool {
    written.contains("{{") || written.contains("}}")
}

/// What is wrong with a template, if anything is.
pub(super) fn problem(written: &str) -> Option<String> {
    is_template(written).then(|| parts(written).err()).flatten()
}

/// The values that an entry stands for.
pub(super) fn expand(written: &str, traits: &Traits) -> Expanded {
    if !is_template(written) {
        return Expanded::Values(vec![written.to_owned()]);
    }
    let (before, values, after) = match parts(written) {
        Ok(parts) => parts,
        Err(problem) => return Expanded::Unknown(problem),
    };
    match values.evaluate(&Person(traits)) {
        Ok(values) => Expanded::Values(
            values
                .into_iter()
                .filter(|value| !value.is_empty())
                .map(|value| format!("{before}{value}{after}"))
                .collect(),
        ),
        Err(over) => Expanded::Unknown(over.to_string()),
    }
}

fn parts(written: &str) -> Result<(&str, Values, &str), String> {
    let unbalanced = || "a template begins with `{{` and ends with `}}`".to_owned();
    let (before, rest) = written.split_once("{{").ok_or_else(unbalanced)?;
    let (inner, after) = rest.rsplit_once("}}").ok_or_else(unbalanced)?;
    let values = Values::parse_for(&Schema::TEMPLATE, inner).map_err(|error| error.to_string())?;
    Ok((before, values, after))
}

/// A person's traits as templates see them: where a trait came from makes no difference.
struct Person<'t>(&'t Traits);

impl Fields for Person<'_> {
    fn text(&self, _path: &str) -> Option<Cow<'_, str>> {
        None
    }

    fn traits(&self, _path: &str) -> Option<&Traits> {
        Some(self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn traits() -> Traits {
        [
            (
                "db_users".to_owned(),
                vec!["reader".to_owned(), "writer".to_owned()],
            ),
            (
                "email".to_owned(),
                vec!["alice@example.com".to_owned(), "bad".to_owned()],
            ),
            (
                "groups".to_owned(),
                vec!["db-bi".to_owned(), "vpn".to_owned()],
            ),
            ("my-team".to_owned(), vec!["bi".to_owned()]),
            ("empty".to_owned(), vec![String::new()]),
        ]
        .into()
    }

    fn values(written: &str) -> Vec<String> {
        match expand(written, &traits()) {
            Expanded::Values(values) => values,
            Expanded::Unknown(problem) => panic!("{written}: {problem}"),
        }
    }

    #[test]
    fn a_template_stands_for_the_values_of_a_trait() {
        for (written, expected) in [
            ("reader", vec!["reader"]),
            ("*", vec!["*"]),
            ("{{internal.db_users}}", vec!["reader", "writer"]),
            ("{{ external.db_users }}", vec!["reader", "writer"]),
            (r#"{{external["my-team"]}}"#, vec!["bi"]),
            ("{{external.my-team}}", vec!["bi"]),
            ("dev-{{external.my-team}}-x", vec!["dev-bi-x"]),
            ("{{internal.absent}}", vec![]),
            ("{{internal.empty}}", vec![]),
            ("{{email.local(external.email)}}", vec!["alice"]),
            (
                r#"{{regexp.replace(external.groups, "^db-(.{2})$", "$1")}}"#,
                vec!["bi"],
            ),
            (
                r#"{{regexp.replace(external.groups, "^db-(.{2}}x)$", "$1")}}"#,
                vec![],
            ),
            (
                r#"{{strings.upper(regexp.replace(email.local(external.email), "al*", "$1"))}}"#,
                vec!["ICE"],
            ),
        ] {
            assert_eq!(values(written), expected, "{written}");
        }
    }

    #[test]
    fn a_wrong_template_is_unknown_and_says_why() {
        for (written, said) in [
            (
                "{{internal.x",
                "a template begins with `{{` and ends with `}}`",
            ),
            (
                "internal.x}}",
                "a template begins with `{{` and ends with `}}`",
            ),
            (
                "{{intern.x}}",
                "at character 1: a template has no field `intern.x`: did you mean `internal`",
            ),
            (
                "{{internal}}",
                "at character 1: expected a list, this is all traits: name one, as in `user.spec.traits[\"teams\"]`",
            ),
        ] {
            assert_eq!(
                expand(written, &traits()),
                Expanded::Unknown(said.to_owned())
            );
            assert_eq!(problem(written).as_deref(), Some(said));
        }
        assert_eq!(problem("reader"), None);
        assert!(problem("{{internal.a}}{{internal.b}}").is_some());
    }

    proptest! {
        #[test]
        fn expanding_never_panics(before in any::<String>(), inner in any::<String>(), after in any::<String>()) {
            let _ = expand(&format!("{before}{{{{{inner}}}}}{after}"), &traits());
            let _ = expand(&inner, &traits());
        }
    }
}
