//! Entries of `db_service.resources` that can never decide, because an earlier one always does.
//!
//! Only what can be proven from the words: an earlier selector that is `*`, or that asks for nothing that the later
//! one does not ask for too. Whether one pattern contains another is not looked into.

use tidegate_core::{ResourceMatcher, Selector};

/// The earlier entry, counted from 0, that always decides before this one. An entry decides when it matches and names a
/// role; one without a role never keeps a later one from deciding.
pub(super) fn decided_by(earlier: &[ResourceMatcher], later: &ResourceMatcher) -> Option<usize> {
    earlier
        .iter()
        .position(|entry| entry.assume_role.is_some() && covers(&entry.labels, &later.labels))
}

/// Whether everything that `narrow` matches is matched by `wide`, as far as the words prove it.
fn covers(wide: &Selector, narrow: &Selector) -> bool {
    if wide.is_empty() {
        return false;
    }
    wide.written()
        .iter()
        .filter(|(key, _)| *key != "*")
        .all(|(key, allowed)| {
            narrow.written().get(key).is_some_and(|asked| {
                asked
                    .iter()
                    .all(|value| allowed.iter().any(|other| other == "*" || other == value))
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(labels: &str, role: bool) -> ResourceMatcher {
        ResourceMatcher {
            labels: serde_json::from_str(labels).unwrap(),
            assume_role: role.then(|| tidegate_core::AssumeRole {
                role_arn: "arn:aws:iam::111111111111:role/x".parse().unwrap(),
                external_id: None,
            }),
            line: 1,
        }
    }

    #[test]
    fn a_selector_that_asks_for_less_covers_one_that_asks_for_more() {
        for (wide, narrow, covered) in [
            (r#"{"*": "*"}"#, r#"{"env": "prod"}"#, true),
            (r#"{"env": "prod"}"#, r#"{"*": "*"}"#, false),
            (r#"{"env": "*"}"#, r#"{"env": "prod"}"#, true),
            (r#"{"env": "*"}"#, r#"{"team": "bi"}"#, false),
            (
                r#"{"env": ["a", "b"]}"#,
                r#"{"env": "b", "team": "bi"}"#,
                true,
            ),
            (r#"{"env": "a"}"#, r#"{"env": ["a", "b"]}"#, false),
            (r#"{"env": "a", "team": "bi"}"#, r#"{"env": "a"}"#, false),
            (r#"{"env": "dw-*"}"#, r#"{"env": "dw-*"}"#, true),
            (r#"{"env": "dw-*"}"#, r#"{"env": "dw-1"}"#, false),
        ] {
            let earlier = [entry(wide, true)];
            let found = decided_by(&earlier, &entry(narrow, true));
            assert_eq!(found.is_some(), covered, "{wide} {narrow}");
        }
    }

    #[test]
    fn an_entry_without_a_role_leaves_the_decision_to_later_ones() {
        let earlier = [
            entry(r#"{"*": "*"}"#, false),
            entry(r#"{"env": "a"}"#, true),
        ];
        assert_eq!(
            decided_by(&earlier, &entry(r#"{"env": "a"}"#, false)),
            Some(1)
        );
        assert_eq!(decided_by(&earlier, &entry(r#"{"env": "b"}"#, true)), None);
    }
}
