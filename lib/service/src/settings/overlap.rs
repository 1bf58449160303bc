//! Entries of `db_service.resources` that can never decide, or where their order does.
//!
//! Only what can be proven from the words. An entry never decides when an earlier selector is `*`, or asks for nothing
//! that this one does not ask for too; it never matches when it asks for a label that Tidegate gives to no database. Two
//! entries may both match a database unless one key keeps them apart. Whether one pattern contains another is not looked
//! into.

use tidegate_core::{DatabaseKind, Labels, Origin, ResourceMatcher, Selector, labels};

/// What Tidegate's own labels are called in the configuration files of Teleport, and here.
const RESERVED_PREFIXES: [&str; 3] = [
    labels::RESERVED_PREFIX,
    labels::TELEPORT_PREFIX,
    labels::TELEPORT_INTERNAL_PREFIX,
];

/// The earlier entry, counted from 0, that always decides before this one. An entry decides when it matches and names a
/// role; one without a role never keeps a later one from deciding.
pub(super) fn decided_by(earlier: &[ResourceMatcher], later: &ResourceMatcher) -> Option<usize> {
    earlier
        .iter()
        .position(|entry| entry.assume_role.is_some() && covers(&entry.labels, &later.labels))
}

/// The first earlier entry, counted from 0, that names another role and may match the same databases: their order decides.
pub(super) fn order_decides(earlier: &[ResourceMatcher], later: &ResourceMatcher) -> Option<usize> {
    later.assume_role.as_ref()?;
    earlier.iter().position(|entry| {
        entry.assume_role.is_some()
            && entry.assume_role != later.assume_role
            && !are_apart(&entry.labels, &later.labels)
    })
}

/// Whether no database matches both.
fn are_apart(one: &Selector, other: &Selector) -> bool {
    one.written().iter().any(|(key, values)| {
        other.written().get(key).is_some_and(|others| {
            values
                .iter()
                .all(|value| others.iter().all(|other| are_values_apart(value, other)))
        })
    })
}

/// Whether no value matches both patterns; two patterns that are no plain texts may always meet.
fn are_values_apart(one: &str, other: &str) -> bool {
    match (is_plain(one), is_plain(other)) {
        (true, true) => one != other,
        (true, false) => !matches(other, one),
        (false, true) => !matches(one, other),
        (false, false) => false,
    }
}

fn is_plain(value: &str) -> bool {
    let is_expression = value.starts_with('^') && value.ends_with('$');
    !value.contains('*') && !is_expression
}

fn matches(pattern: &str, value: &str) -> bool {
    // A pattern of a selector that was read is sound.
    Selector::new([("any", [pattern])]).is_ok_and(|selector| {
        let labels: Labels = [("any", value)].into_iter().collect();
        selector.matches(&labels)
    })
}

/// Why an entry matches no database of the inventory, whatever it holds.
pub(super) fn never_matches(selector: &Selector) -> Option<String> {
    let mut from_discovery = None;
    let mut not_discovered = false;
    for (key, values) in selector.written() {
        let Some(name) = RESERVED_PREFIXES
            .iter()
            .find_map(|prefix| key.strip_prefix(prefix))
        else {
            continue;
        };
        let possible: Vec<&str> = match name {
            "origin" => vec![Origin::Cloud.as_str(), Origin::Dynamic.as_str()],
            "cloud" => vec!["AWS"],
            "discovery-type" => DatabaseKind::ALL.iter().map(|kind| kind.as_str()).collect(),
            "discovery-group" | "discovery-group-name" | "discovery-config" => Vec::new(),
            _ => return Some(format!("no database has the label `{key}`")),
        };
        let met = |value: &&&str| values.iter().any(|pattern| matches(pattern, value));
        let met: Vec<&&str> = possible.iter().filter(met).collect();
        if met.is_empty() && !possible.is_empty() {
            let known = possible.join("`, `");
            return Some(format!(
                "the label `{key}` of a database of the inventory is one of `{known}`"
            ));
        }
        if name == "origin" {
            not_discovered = !met.iter().any(|value| **value == Origin::Cloud.as_str());
        } else {
            from_discovery = Some(key);
        }
    }
    let key = from_discovery.filter(|_| not_discovered)?;
    Some(format!(
        "only discovery gives the label `{key}`, and the entry asks for databases that were not discovered"
    ))
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

    fn with_role(labels: &str, name: &str) -> ResourceMatcher {
        let mut entry = entry(labels, true);
        if let Some(role) = &mut entry.assume_role {
            role.role_arn = format!("arn:aws:iam::111111111111:role/{name}")
                .parse()
                .unwrap();
        }
        entry
    }

    #[test]
    fn order_decides_where_two_roles_may_meet() {
        for (one, other, meet) in [
            (r#"{"env": "prod"}"#, r#"{"team": "bi"}"#, true),
            (r#"{"env": "prod"}"#, r#"{"env": "dev"}"#, false),
            (r#"{"env": ["prod", "dev"]}"#, r#"{"env": "dev"}"#, true),
            (
                r#"{"env": "prod", "region": "a"}"#,
                r#"{"env": "prod", "region": "b"}"#,
                false,
            ),
            (r#"{"env": "dw-*"}"#, r#"{"env": "dw-1"}"#, true),
            (r#"{"env": "dw-*"}"#, r#"{"env": "rds-1"}"#, false),
            (r#"{"env": "^dw.$"}"#, r#"{"env": "dw1"}"#, true),
            (r#"{"env": "^dw.$"}"#, r#"{"env": "dw"}"#, false),
            (r#"{"env": "a*"}"#, r#"{"env": "b*"}"#, true),
            (r#"{"*": "*"}"#, r#"{"env": "prod"}"#, true),
        ] {
            let earlier = [with_role(one, "a")];
            let found = order_decides(&earlier, &with_role(other, "b"));
            assert_eq!(found.is_some(), meet, "{one} {other}");
            assert_eq!(order_decides(&earlier, &with_role(other, "a")), None);
            assert_eq!(order_decides(&earlier, &entry(other, false)), None);
        }
    }

    #[test]
    fn labels_that_no_database_has_are_told() {
        for (labels, told) in [
            (
                r#"{"tidegate.dev/origin": "config"}"#,
                "is one of `cloud`, `dynamic`",
            ),
            (
                r#"{"teleport.dev/origin": "discovery"}"#,
                "is one of `cloud`",
            ),
            (
                r#"{"tidegate.dev/colour": "*"}"#,
                "no database has the label",
            ),
            (
                r#"{"tidegate.dev/discovery-type": "redshit"}"#,
                "`redshift`",
            ),
            (
                r#"{"tidegate.dev/origin": "dynamic", "tidegate.dev/cloud": "AWS"}"#,
                "only discovery gives the label `tidegate.dev/cloud`",
            ),
            (
                r#"{"teleport.dev/origin": "dynamic", "teleport.internal/discovery-group-name": "x"}"#,
                "only discovery gives",
            ),
        ] {
            let never = never_matches(&entry(labels, false).labels).unwrap();
            assert!(never.contains(told), "{never}");
        }
        for labels in [
            r#"{"tidegate.dev/origin": "*"}"#,
            r#"{"teleport.dev/origin": ["dynamic", "cloud"], "teleport.dev/cloud": "AWS"}"#,
            r#"{"tidegate.dev/discovery-type": "r*"}"#,
            r#"{"tidegate.dev/discovery-config": "team"}"#,
            r#"{"env": "prod", "*": "*"}"#,
        ] {
            assert_eq!(
                never_matches(&entry(labels, false).labels),
                None,
                "{labels}"
            );
        }
    }
}
