//! `kind: db_server`: one agent serving one database, with its health and the role it assumes.

use jiff::Timestamp;
use serde::Serialize;
use tidegate_proto::v1;

use super::{Database, Metadata, Resource, instant, revision_text};

/// Who serves what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServerSpec {
    /// The agent's host name.
    pub hostname: String,
    /// The agent.
    pub host_id: String,
    /// The agent's program version.
    pub version: String,
    /// The database as the agent sees it.
    pub database: Database,
}

/// How it goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServerStatus {
    /// Whether the agent reached the database.
    pub target_health: TargetHealthStatus,
    /// The role it assumes; empty for its own identity.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub effective_role_arn: String,
    /// Why that role: `override`, `database` or `agent`.
    pub role_source: &'static str,
    /// The same in words: which entry decided, and where it is written.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub role_reason: String,
    /// What the agent wants known of how it serves the database.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
    /// What other agents say otherwise of a database of this name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub conflict: String,
}

/// The outcome of health checks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TargetHealthStatus {
    /// What was dialled.
    pub address: String,
    /// How.
    pub protocol: String,
    /// `healthy`, `unknown` or `unhealthy`.
    pub status: String,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transition_timestamp: Option<Timestamp>,
    /// Why it changed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub transition_reason: String,
    /// The last error.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub transition_error: String,
    /// One line for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The lowest layer that failed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub failed_layer: String,
    /// The last instant at which the database's certificate counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_not_after: Option<Timestamp>,
    /// Whether sessions got credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<SessionsSawStatus>,
    /// Whether sessions were let in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login: Option<SessionsSawStatus>,
}

/// How a layer fared in people's own sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SessionsSawStatus {
    /// `passed` or `failed`.
    pub last: &'static str,
    /// Since when all of them fare so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

impl From<v1::SessionsSaw> for SessionsSawStatus {
    fn from(saw: v1::SessionsSaw) -> Self {
        Self {
            last: if saw.passed { "passed" } else { "failed" },
            since: instant(saw.since.as_ref()),
        }
    }
}

impl From<&v1::DatabaseServer> for super::DatabaseServer {
    fn from(server: &v1::DatabaseServer) -> Self {
        let database = server.database.clone().unwrap_or_default();
        let health = server.target_health.clone().unwrap_or_default();
        Resource {
            kind: "db_server",
            version: "v3",
            metadata: Metadata {
                name: database.name.clone(),
                description: database.description.clone(),
                labels: database.labels.clone(),
                expires: None,
                revision: revision_text(server.revision),
            },
            spec: ServerSpec {
                hostname: server.hostname.clone(),
                host_id: server.host_id.clone(),
                version: server.version.clone(),
                database: Database::from(&database),
            },
            status: Some(ServerStatus {
                target_health: TargetHealthStatus {
                    transition_timestamp: instant(health.transition_timestamp.as_ref()),
                    status: if health.status.is_empty() {
                        "unknown".to_owned()
                    } else {
                        health.status
                    },
                    address: health.address,
                    protocol: health.protocol,
                    transition_reason: health.transition_reason,
                    transition_error: health.transition_error,
                    message: health.message,
                    failed_layer: health.failed_layer,
                    certificate_not_after: instant(health.certificate_not_after.as_ref()),
                    credential: health.credential.map(Into::into),
                    login: health.login.map(Into::into),
                },
                effective_role_arn: server
                    .effective_role
                    .as_ref()
                    .map(|role| role.role_arn.clone())
                    .unwrap_or_default(),
                role_source: role_source(server.role_source()),
                role_reason: server.role_reason.clone(),
                remarks: server.remarks.clone(),
                conflict: server.conflict.clone(),
            }),
        }
    }
}

const fn role_source(source: v1::RoleSource) -> &'static str {
    match source {
        v1::RoleSource::Unspecified | v1::RoleSource::Agent => "agent",
        v1::RoleSource::Override => "override",
        v1::RoleSource::Database => "database",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{output, resource};

    #[test]
    fn a_database_server_answers_the_guides_question() {
        let server = v1::DatabaseServer {
            host_id: "e5e670ac".to_owned(),
            hostname: "ip-10-0-0-111".to_owned(),
            version: "0.1.0".to_owned(),
            database: Some(super::super::database::tests::message()),
            effective_role: Some(v1::AssumeRole {
                role_arn: "arn:aws:iam::111122223333:role/access".to_owned(),
                external_id: String::new(),
            }),
            role_source: v1::RoleSource::Override.into(),
            target_health: Some(v1::TargetHealth {
                address: "orders.abc:5439".to_owned(),
                protocol: "TCP".to_owned(),
                status: "unhealthy".to_owned(),
                transition_timestamp: Some(prost_types::Timestamp {
                    seconds: 1_700_000_000,
                    nanos: 0,
                }),
                transition_reason: "threshold_reached".to_owned(),
                transition_error: "timed out".to_owned(),
                message: "3 health checks failed".to_owned(),
                failed_layer: "tcp".to_owned(),
                certificate_not_after: Some(prost_types::Timestamp {
                    seconds: 1_800_000_000,
                    nanos: 0,
                }),
                credential: None,
                login: Some(v1::SessionsSaw {
                    passed: true,
                    since: Some(prost_types::Timestamp {
                        seconds: 1_700_000_000,
                        nanos: 0,
                    }),
                }),
            }),
            revision: 7,
            role_reason: "entry 1 of `db_service.resources` (line 9) is the first that matches"
                .to_owned(),
            remarks: vec!["label `load`: /bin/false ended with exit status 1".to_owned()],
            conflict: "agent `b` serves it at h:2".to_owned(),
        };
        let document: serde_json::Value = serde_json::from_str(
            &output::json(&[resource::DatabaseServer::from(&server)]).unwrap(),
        )
        .unwrap();
        let first = &document[0];
        assert_eq!(first["kind"], "db_server");
        assert_eq!(first["version"], "v3");
        assert_eq!(
            first["metadata"]["name"],
            "orders-redshift-us-east-1-111122223333"
        );
        assert_eq!(first["spec"]["hostname"], "ip-10-0-0-111");
        assert_eq!(first["spec"]["host_id"], "e5e670ac");
        assert_eq!(first["spec"]["version"], "0.1.0");
        assert_eq!(first["spec"]["database"]["kind"], "db");
        assert_eq!(
            first["status"],
            serde_json::json!({
                "target_health": {
                    "address": "orders.abc:5439",
                    "protocol": "TCP",
                    "status": "unhealthy",
                    "transition_timestamp": "2023-11-14T22:13:20Z",
                    "transition_reason": "threshold_reached",
                    "transition_error": "timed out",
                    "message": "3 health checks failed",
                    "failed_layer": "tcp",
                    "certificate_not_after": "2027-01-15T08:00:00Z",
                    "login": { "last": "passed", "since": "2023-11-14T22:13:20Z" },
                },
                "effective_role_arn": "arn:aws:iam::111122223333:role/access",
                "role_source": "override",
                "role_reason": "entry 1 of `db_service.resources` (line 9) is the first that matches",
                "remarks": ["label `load`: /bin/false ended with exit status 1"],
                "conflict": "agent `b` serves it at h:2",
            })
        );
    }
}
