//! Roles: what they allow and deny, and what they ask of sessions.

use std::time::Duration;

use tidegate_core::{
    access::{
        AuditMode, DbUserMode, LockMode, RecordSession, Role, RoleConditions, RoleOptions, Rule,
        VerbPattern,
    },
    requests::{RequestConditions, ReviewConditions, Threshold},
};

use super::{Invalid, span};
use crate::v1;

impl From<RoleConditions> for v1::RoleConditions {
    fn from(conditions: RoleConditions) -> Self {
        Self {
            db_labels: Some(conditions.db_labels.into()),
            db_labels_expression: conditions
                .db_labels_expression
                .map(String::from)
                .unwrap_or_default(),
            db_users: conditions.db_users,
            db_names: conditions.db_names,
            db_roles: conditions.db_roles,
            rules: conditions.rules.into_iter().map(Into::into).collect(),
            request: Some(conditions.request.into()),
            review_requests: Some(conditions.review_requests.into()),
        }
    }
}

impl TryFrom<v1::RoleConditions> for RoleConditions {
    type Error = Invalid;

    fn try_from(conditions: v1::RoleConditions) -> Result<Self, Invalid> {
        Ok(Self {
            db_labels: conditions
                .db_labels
                .unwrap_or_default()
                .try_into()
                .map_err(|invalid: Invalid| invalid.within("db_labels"))?,
            db_labels_expression: expression(
                "db_labels_expression",
                conditions.db_labels_expression,
            )?,
            db_users: conditions.db_users,
            db_names: conditions.db_names,
            db_roles: conditions.db_roles,
            rules: conditions
                .rules
                .into_iter()
                .enumerate()
                .map(|(place, rule)| {
                    Rule::try_from(rule)
                        .map_err(|invalid| invalid.within(&format!("rules[{place}]")))
                })
                .collect::<Result<_, _>>()?,
            request: conditions
                .request
                .unwrap_or_default()
                .try_into()
                .map_err(|invalid: Invalid| invalid.within("request"))?,
            review_requests: conditions
                .review_requests
                .unwrap_or_default()
                .try_into()
                .map_err(|invalid: Invalid| invalid.within("review_requests"))?,
        })
    }
}

/// A predicate, or none when there is no text.
fn expression<T>(field: &str, text: String) -> Result<Option<T>, Invalid>
where
    T: TryFrom<String>,
    T::Error: std::fmt::Display,
{
    if text.is_empty() {
        return Ok(None);
    }
    T::try_from(text)
        .map(Some)
        .map_err(|error| Invalid::new(field, error))
}

impl From<Rule> for v1::Rule {
    fn from(rule: Rule) -> Self {
        Self {
            resources: rule.resources,
            verbs: rule
                .verbs
                .into_iter()
                .map(|verb| verb.as_str().to_owned())
                .collect(),
            r#where: rule.filter.map(String::from).unwrap_or_default(),
        }
    }
}

impl TryFrom<v1::Rule> for Rule {
    type Error = Invalid;

    fn try_from(rule: v1::Rule) -> Result<Self, Invalid> {
        Ok(Self {
            resources: rule.resources,
            verbs: rule
                .verbs
                .iter()
                .map(|verb| verb.parse::<VerbPattern>())
                .collect::<Result<_, _>>()
                .map_err(|error| Invalid::new("verbs", error))?,
            filter: expression("where", rule.r#where)?,
        })
    }
}

impl From<RequestConditions> for v1::RequestConditions {
    fn from(conditions: RequestConditions) -> Self {
        Self {
            roles: conditions.roles,
            thresholds: conditions
                .thresholds
                .into_iter()
                .map(|threshold| v1::ReviewThreshold {
                    name: threshold.name,
                    approve: threshold.approve,
                    deny: threshold.deny,
                })
                .collect(),
            max_duration: conditions.max_duration.and_then(wire_span),
        }
    }
}

impl TryFrom<v1::RequestConditions> for RequestConditions {
    type Error = Invalid;

    fn try_from(conditions: v1::RequestConditions) -> Result<Self, Invalid> {
        Ok(Self {
            roles: conditions.roles,
            thresholds: conditions
                .thresholds
                .into_iter()
                .map(|threshold| Threshold {
                    name: threshold.name,
                    approve: threshold.approve,
                    deny: threshold.deny,
                })
                .collect(),
            max_duration: span("max_duration", conditions.max_duration)?,
        })
    }
}

impl From<ReviewConditions> for v1::ReviewConditions {
    fn from(conditions: ReviewConditions) -> Self {
        Self {
            roles: conditions.roles,
            r#where: conditions.filter.map(String::from).unwrap_or_default(),
        }
    }
}

impl TryFrom<v1::ReviewConditions> for ReviewConditions {
    type Error = Invalid;

    fn try_from(conditions: v1::ReviewConditions) -> Result<Self, Invalid> {
        Ok(Self {
            roles: conditions.roles,
            filter: expression("where", conditions.r#where)?,
        })
    }
}

fn wire_span(span: Duration) -> Option<prost_types::Duration> {
    span.try_into().ok()
}

impl From<RoleOptions> for v1::RoleOptions {
    fn from(options: RoleOptions) -> Self {
        let lock = match options.lock {
            None => v1::LockMode::Unspecified,
            Some(LockMode::BestEffort) => v1::LockMode::BestEffort,
            Some(LockMode::Strict) => v1::LockMode::Strict,
        };
        let audit = match options.record_session.default {
            None => v1::AuditMode::Unspecified,
            Some(AuditMode::BestEffort) => v1::AuditMode::BestEffort,
            Some(AuditMode::Strict) => v1::AuditMode::Strict,
        };
        let user_mode = match options.create_db_user_mode {
            None => v1::DbUserMode::Unspecified,
            Some(DbUserMode::Off) => v1::DbUserMode::Off,
            Some(DbUserMode::Keep) => v1::DbUserMode::Keep,
            Some(DbUserMode::BestEffortDrop) => v1::DbUserMode::BestEffortDrop,
        };
        Self {
            max_session_ttl: options.max_session_ttl.and_then(wire_span),
            client_idle_timeout: options.client_idle_timeout.and_then(wire_span),
            disconnect_expired_cert: options.disconnect_expired_cert,
            lock: lock.into(),
            max_db_connections: options.max_db_connections.unwrap_or_default(),
            record_session: audit.into(),
            create_db_user_mode: user_mode.into(),
        }
    }
}

impl TryFrom<v1::RoleOptions> for RoleOptions {
    type Error = Invalid;

    fn try_from(options: v1::RoleOptions) -> Result<Self, Invalid> {
        let lock = match options.lock() {
            v1::LockMode::Unspecified => None,
            v1::LockMode::BestEffort => Some(LockMode::BestEffort),
            v1::LockMode::Strict => Some(LockMode::Strict),
        };
        let audit = match options.record_session() {
            v1::AuditMode::Unspecified => None,
            v1::AuditMode::BestEffort => Some(AuditMode::BestEffort),
            v1::AuditMode::Strict => Some(AuditMode::Strict),
        };
        let user_mode = match options.create_db_user_mode() {
            v1::DbUserMode::Unspecified => None,
            v1::DbUserMode::Off => Some(DbUserMode::Off),
            v1::DbUserMode::Keep => Some(DbUserMode::Keep),
            v1::DbUserMode::BestEffortDrop => Some(DbUserMode::BestEffortDrop),
        };
        Ok(Self {
            max_session_ttl: span("max_session_ttl", options.max_session_ttl)?,
            client_idle_timeout: span("client_idle_timeout", options.client_idle_timeout)?,
            disconnect_expired_cert: options.disconnect_expired_cert,
            lock,
            max_db_connections: (options.max_db_connections > 0)
                .then_some(options.max_db_connections),
            record_session: RecordSession { default: audit },
            create_db_user_mode: user_mode,
        })
    }
}

impl From<Role> for v1::Role {
    fn from(role: Role) -> Self {
        Self {
            name: role.name,
            allow: Some(role.allow.into()),
            deny: Some(role.deny.into()),
            options: Some(role.options.into()),
            revision: 0,
        }
    }
}

impl TryFrom<v1::Role> for Role {
    type Error = Invalid;

    fn try_from(role: v1::Role) -> Result<Self, Invalid> {
        if role.name.is_empty() {
            return Err(Invalid::new("name", "is missing"));
        }
        let within = |side: &'static str| move |invalid: Invalid| invalid.within(side);
        Ok(Self {
            name: role.name,
            options: role
                .options
                .unwrap_or_default()
                .try_into()
                .map_err(within("options"))?,
            allow: role
                .allow
                .unwrap_or_default()
                .try_into()
                .map_err(within("allow"))?,
            deny: role
                .deny
                .unwrap_or_default()
                .try_into()
                .map_err(within("deny"))?,
        })
    }
}
