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
}

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
}
