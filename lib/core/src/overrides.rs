//! Which databases an agent picks up, and which IAM role it assumes for each.
//!
//! The first `db_service.resources` entry that matches and names a role wins; matching entries without one inherit
//! the database's role; without either the agent uses its own identity.

use crate::{
    database::{Database, RoleSource},
    ids::AssumeRole,
    labels::Labels,
    selector::Selector,
};

/// One entry of `db_service.resources`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceMatcher {
    /// Which databases; never empty.
    pub labels: Selector,
    /// The role to assume for them instead of the database's own.
    pub assume_role: Option<AssumeRole>,
    /// The line of the configuration file that it stands on; 0 when it was made from one of the agent's own `aws`
    /// matchers.
    pub line: u64,
}

impl ResourceMatcher {
    /// Whether both decide the same, wherever they are written.
    #[must_use]
    pub fn decides_like(&self, other: &Self) -> bool {
        self.labels == other.labels && self.assume_role == other.assume_role
    }
}

/// Longest text of selectors within a reason, in characters; a selector may be far longer than anybody reads.
const LABELS_CHARS_MAX: usize = 200;

/// The IAM role that an agent assumes for a database, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectiveRole {
    /// The role; `None` is the agent's own identity.
    pub role: Option<AssumeRole>,
    /// Why that one.
    pub source: RoleSource,
    /// The `resources` entry that decided, counted from 0, when an override did.
    pub entry: Option<usize>,
}

/// Whether any entry picks the database up.
#[must_use]
pub fn is_wanted(entries: &[ResourceMatcher], labels: &Labels) -> bool {
    entries.iter().any(|entry| entry.labels.matches(labels))
}

/// The role for a database, by the first matching entry that names one.
#[must_use]
pub fn effective_role(entries: &[ResourceMatcher], database: &Database) -> EffectiveRole {
    let overriding = entries
        .iter()
        .enumerate()
        .filter(|(_, entry)| entry.labels.matches(&database.labels))
        .find_map(|(index, entry)| Some((index, entry.assume_role.clone()?)));
    match (overriding, &database.aws.assume_role) {
        (Some((index, role)), _) => EffectiveRole {
            role: Some(role),
            source: RoleSource::Override,
            entry: Some(index),
        },
        (None, Some(role)) => EffectiveRole {
            role: Some(role.clone()),
            source: RoleSource::Database,
            entry: None,
        },
        (None, None) => EffectiveRole {
            role: None,
            source: RoleSource::Agent,
            entry: None,
        },
    }
}

/// Why a database has the role that it has, in words for people: which entry decided and where that is written.
///
/// `entries` must be those that `effective` was decided by. A repeat gives the same text.
#[must_use]
pub fn reason(entries: &[ResourceMatcher], effective: &EffectiveRole) -> String {
    let decided = effective
        .entry
        .and_then(|index| Some((index + 1, entries.get(index)?)));
    match (effective.source, decided) {
        (RoleSource::Override, Some((_, entry))) if entry.line == 0 => format!(
            "a matcher under `db_service.aws` names it, for databases with {}",
            labels_text(&entry.labels)
        ),
        (RoleSource::Override, Some((number, entry))) => format!(
            "entry {number} of `db_service.resources` (line {}) is the first that matches and names a role: {}",
            entry.line,
            labels_text(&entry.labels)
        ),
        (RoleSource::Override, None) => "an entry of `db_service.resources` names it".to_owned(),
        (RoleSource::Database, _) => {
            "the database names it, and no entry of `db_service.resources` that matches names another"
                .to_owned()
        }
        (RoleSource::Agent, _) => {
            "neither the database nor an entry that matches names a role: the agent's own identity"
                .to_owned()
        }
    }
}

/// `env: prod, region: us-east-1 or us-west-2`, cut off where nobody reads on.
fn labels_text(selector: &Selector) -> String {
    let terms: Vec<String> = selector
        .written()
        .iter()
        .map(|(key, values)| format!("{key}: {}", values.join(" or ")))
        .collect();
    let text = terms.join(", ");
    match text.char_indices().nth(LABELS_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::{AwsMetadata, Origin, Protocol, TlsSettings};

    fn role(name: &str) -> AssumeRole {
        AssumeRole {
            role_arn: format!("arn:aws:iam::123456789012:role/{name}")
                .parse()
                .unwrap(),
            external_id: None,
        }
    }

    fn entry(env: &str, assume: Option<&str>) -> ResourceMatcher {
        ResourceMatcher {
            labels: Selector::new([("env", [env])]).unwrap(),
            assume_role: assume.map(role),
            line: 7,
        }
    }

    fn database(env: &str, assume: Option<&str>) -> Database {
        Database {
            name: "db".parse().unwrap(),
            description: String::new(),
            labels: [("env", env)].into_iter().collect(),
            origin: Origin::Cloud,
            protocol: Protocol::Postgres,
            uri: "h:1".parse().unwrap(),
            tls: TlsSettings::default(),
            aws: AwsMetadata {
                assume_role: assume.map(role),
                ..AwsMetadata::default()
            },
            kind: None,
            identity: String::new(),
            discovered_name: String::new(),
            unavailable: String::new(),
        }
    }

    #[test]
    fn the_first_matching_entry_with_a_role_wins() {
        let entries = [
            entry("prod", None),
            entry("prod", Some("first")),
            entry("prod", Some("second")),
        ];
        let effective = effective_role(&entries, &database("prod", Some("discovery")));
        assert_eq!(
            effective,
            EffectiveRole {
                role: Some(role("first")),
                source: RoleSource::Override,
                entry: Some(1)
            }
        );
    }

    #[test]
    fn an_entry_without_a_role_inherits_the_database_s() {
        let effective = effective_role(&[entry("dev", None)], &database("dev", Some("discovery")));
        assert_eq!(
            (effective.role, effective.source),
            (Some(role("discovery")), RoleSource::Database)
        );
    }

    #[test]
    fn without_any_role_the_agent_is_itself() {
        let effective = effective_role(&[entry("dev", None)], &database("dev", None));
        assert_eq!(
            (effective.role, effective.source),
            (None, RoleSource::Agent)
        );
    }

    #[test]
    fn the_reason_names_the_entry_that_decided_and_where_it_is_written() {
        let mut entries = [entry("prod", None), entry("prod", Some("agent"))];
        entries[1].line = 12;
        let why = |entries: &[ResourceMatcher], database: &Database| {
            reason(entries, &effective_role(entries, database))
        };
        assert_eq!(
            why(&entries, &database("prod", None)),
            "entry 2 of `db_service.resources` (line 12) is the first that matches and names a role: env: prod"
        );
        assert!(why(&entries, &database("dev", Some("x"))).starts_with("the database names it"));
        assert!(why(&entries, &database("dev", None)).ends_with("the agent's own identity"));
        entries[1].line = 0;
        assert!(
            why(&entries, &database("prod", None)).starts_with("a matcher under `db_service.aws`")
        );
    }

    #[test]
    fn a_reason_stays_short_however_long_a_selector_is() {
        let values: Vec<String> = (0..200).map(|n| format!("é-value-{n}")).collect();
        let entries = [ResourceMatcher {
            labels: Selector::new([("env", values)]).unwrap(),
            assume_role: Some(role("x")),
            line: 1,
        }];
        let effective = effective_role(&entries, &database("é-value-7", None));
        let reason = reason(&entries, &effective);
        assert!(reason.chars().count() < 2 * LABELS_CHARS_MAX && reason.ends_with('…'));
    }
}
