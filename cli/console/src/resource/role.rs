//! `kind: role`: a named set of rights.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use serde::Serialize;
use tidegate_core::access::{AuditMode, DbUserMode, LockMode, RoleOptions};
use tidegate_proto::v1;

use super::{Metadata, Resource};

/// What the role grants and forbids, and what it asks of sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RoleSpec {
    /// What it asks of its holders' sessions.
    #[serde(skip_serializing_if = "OptionsSpec::is_empty")]
    pub options: OptionsSpec,
    /// What it grants.
    pub allow: ConditionsSpec,
    /// What it forbids, whatever other roles grant.
    pub deny: ConditionsSpec,
}

/// What a role asks of its holders' sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OptionsSpec {
    /// How long a login lasts at most: `12h`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_session_ttl: Option<String>,
    /// After how long without a byte from the client a session ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_idle_timeout: Option<String>,
    /// Whether sessions end with the certificate that opened them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disconnect_expired_cert: Option<bool>,
    /// What counts when it is not known which locks are in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock: Option<LockMode>,
    /// Most sessions to databases that a person has at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_db_connections: Option<u64>,
    /// What happens to a session that cannot be audited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record_session: Option<RecordSessionSpec>,
    /// Whether database users are made for sessions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub create_db_user_mode: Option<DbUserMode>,
}

/// What happens to a session that cannot be audited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RecordSessionSpec {
    /// For sessions of every kind.
    pub default: AuditMode,
}

/// One side of a role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ConditionsSpec {
    /// Which databases.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub db_labels: BTreeMap<String, Vec<String>>,
    /// Which databases, as a predicate.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub db_labels_expression: String,
    /// As which database users.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub db_users: Vec<String>,
    /// On which logical databases.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub db_names: Vec<String>,
    /// Which database roles users made for a session get.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub db_roles: Vec<String>,
    /// What may be done with the cluster's resources.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleSpec>,
    /// Which roles may be asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestSpec>,
    /// About requests for which roles may be decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub review_requests: Option<ReviewSpec>,
}

/// What may be done with which kinds of resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RuleSpec {
    /// Kinds, or `*`.
    pub resources: Vec<String>,
    /// Verbs, or `*`.
    pub verbs: Vec<String>,
    /// Only with resources for which this holds.
    #[serde(rename = "where", skip_serializing_if = "String::is_empty")]
    pub filter: String,
}

/// Which roles may be asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RequestSpec {
    /// Names, globs or `^…$` expressions.
    pub roles: Vec<String>,
    /// How many reviews decide.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub thresholds: Vec<ThresholdSpec>,
    /// How long these roles may be had at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_duration: Option<String>,
}

/// How many reviews decide a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ThresholdSpec {
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Approvals that decide.
    pub approve: u32,
    /// Denials that decide.
    pub deny: u32,
}

/// About requests for which roles may be decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReviewSpec {
    /// Names, globs or `^…$` expressions.
    pub roles: Vec<String>,
    /// Only requests for which this holds.
    #[serde(rename = "where", skip_serializing_if = "String::is_empty")]
    pub filter: String,
}

impl OptionsSpec {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl From<&v1::Role> for super::Role {
    fn from(role: &v1::Role) -> Self {
        Resource {
            kind: "role",
            version: "v7",
            metadata: Metadata::named(&role.name, role.revision),
            spec: RoleSpec {
                options: options(role.options.unwrap_or_default()),
                allow: conditions(role.allow.clone().unwrap_or_default()),
                deny: conditions(role.deny.clone().unwrap_or_default()),
            },
            status: None,
        }
    }
}

/// Options that cannot be read are left out: what an older program does not know it cannot show.
fn options(options: v1::RoleOptions) -> OptionsSpec {
    let options = RoleOptions::try_from(options).unwrap_or_default();
    OptionsSpec {
        max_session_ttl: options.max_session_ttl.map(span),
        client_idle_timeout: options.client_idle_timeout.map(span),
        disconnect_expired_cert: options.disconnect_expired_cert,
        lock: options.lock,
        max_db_connections: options.max_db_connections,
        record_session: options
            .record_session
            .default
            .map(|default| RecordSessionSpec { default }),
        create_db_user_mode: options.create_db_user_mode,
    }
}

fn conditions(conditions: v1::RoleConditions) -> ConditionsSpec {
    let labels = conditions.db_labels.unwrap_or_default().labels;
    let request = conditions.request.unwrap_or_default();
    let review = conditions.review_requests.unwrap_or_default();
    ConditionsSpec {
        db_labels: labels
            .into_iter()
            .map(|(key, values)| (key, values.values))
            .collect(),
        db_labels_expression: conditions.db_labels_expression,
        db_users: conditions.db_users,
        db_names: conditions.db_names,
        db_roles: conditions.db_roles,
        rules: conditions
            .rules
            .into_iter()
            .map(|rule| RuleSpec {
                resources: rule.resources,
                verbs: rule.verbs,
                filter: rule.r#where,
            })
            .collect(),
        request: (request != v1::RequestConditions::default()).then(|| requests(request)),
        review_requests: (review != v1::ReviewConditions::default()).then_some(ReviewSpec {
            roles: review.roles,
            filter: review.r#where,
        }),
    }
}

fn requests(request: v1::RequestConditions) -> RequestSpec {
    RequestSpec {
        roles: request.roles,
        thresholds: request
            .thresholds
            .into_iter()
            .map(|threshold| ThresholdSpec {
                name: threshold.name,
                approve: threshold.approve,
                deny: threshold.deny,
            })
            .collect(),
        max_duration: request
            .max_duration
            .and_then(|length| Duration::try_from(length).ok())
            .map(span),
    }
}

/// A length of time to the second, as roles write it: `12h`, `1h30m`, `45s`.
fn span(length: Duration) -> String {
    let seconds = length.as_secs();
    let parts = [
        (seconds / 3600, 'h'),
        (seconds % 3600 / 60, 'm'),
        (seconds % 60, 's'),
    ];
    let mut text = String::new();
    for (count, unit) in parts.into_iter().filter(|(count, _)| *count > 0) {
        // Writing to a string cannot fail.
        let _ = write!(text, "{count}{unit}");
    }
    if text.is_empty() {
        text.push_str("0s");
    }
    text
}

#[cfg(test)]
mod tests {
    use tidegate_core::Role;

    use super::*;
    use crate::{output, resource};

    #[test]
    fn a_role_is_printed_in_the_known_shape() {
        let access = Role::builtin().into_iter().next().unwrap();
        let text = output::yaml(&resource::Role::from(&access.into())).unwrap();
        assert_eq!(
            text,
            "\
kind: role
version: v7
metadata:
  name: access
spec:
  allow:
    db_labels:
      \"*\":
      - \"*\"
    db_users:
    - \"{{internal.db_users}}\"
    db_names:
    - \"{{internal.db_names}}\"
  deny: {}
"
        );
    }

    #[test]
    fn lengths_of_time_are_printed_as_roles_write_them() {
        for (seconds, text) in [
            (0, "0s"),
            (45, "45s"),
            (5400, "1h30m"),
            (43_200, "12h"),
            (3661, "1h1m1s"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
    }
}
