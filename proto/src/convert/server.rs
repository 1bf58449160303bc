//! Database servers: which agent serves what, and how it fares.

use tidegate_core::{
    DatabaseServer, HealthLayer, HealthStatus, RoleSource, SessionsSaw, TargetHealth,
};

use super::{Invalid, assume_role, instant, parse, timestamp};
use crate::v1;

impl From<TargetHealth> for v1::TargetHealth {
    fn from(health: TargetHealth) -> Self {
        let status = match health.status {
            HealthStatus::Healthy => "healthy",
            HealthStatus::Unknown => "unknown",
            HealthStatus::Unhealthy => "unhealthy",
        };
        Self {
            address: health.address,
            protocol: health.protocol,
            status: status.to_owned(),
            transition_timestamp: health.transition_timestamp.map(timestamp),
            transition_reason: health.transition_reason,
            transition_error: health.transition_error,
            message: health.message,
            failed_layer: health
                .failed_layer
                .map(|layer| layer.as_str().to_owned())
                .unwrap_or_default(),
            certificate_not_after: health.certificate_not_after.map(timestamp),
            credential: health.credential.map(Into::into),
            login: health.login.map(Into::into),
        }
    }
}

impl From<SessionsSaw> for v1::SessionsSaw {
    fn from(saw: SessionsSaw) -> Self {
        Self {
            passed: saw.passed,
            since: Some(timestamp(saw.since)),
        }
    }
}

impl TryFrom<v1::SessionsSaw> for SessionsSaw {
    type Error = Invalid;

    fn try_from(saw: v1::SessionsSaw) -> Result<Self, Invalid> {
        let since = saw
            .since
            .ok_or_else(|| Invalid::new("since", "is missing"))?;
        Ok(Self {
            passed: saw.passed,
            since: instant(&since)?,
        })
    }
}

impl TryFrom<v1::TargetHealth> for TargetHealth {
    type Error = Invalid;

    fn try_from(health: v1::TargetHealth) -> Result<Self, Invalid> {
        let status = match health.status.as_str() {
            "healthy" => HealthStatus::Healthy,
            "unknown" | "" => HealthStatus::Unknown,
            "unhealthy" => HealthStatus::Unhealthy,
            _ => {
                return Err(Invalid::new(
                    "status",
                    "is none of `healthy`, `unknown`, `unhealthy`",
                ));
            }
        };
        Ok(Self {
            status,
            address: health.address,
            protocol: health.protocol,
            transition_timestamp: health
                .transition_timestamp
                .as_ref()
                .map(instant)
                .transpose()?,
            transition_reason: health.transition_reason,
            transition_error: health.transition_error,
            message: health.message,
            // A layer that a later version knows is left out and nothing else is lost.
            failed_layer: HealthLayer::ALL
                .into_iter()
                .find(|layer| layer.as_str() == health.failed_layer),
            certificate_not_after: health
                .certificate_not_after
                .as_ref()
                .map(instant)
                .transpose()?,
            credential: saw("credential", health.credential)?,
            login: saw("login", health.login)?,
        })
    }
}

fn saw(field: &str, saw: Option<v1::SessionsSaw>) -> Result<Option<SessionsSaw>, Invalid> {
    saw.map(SessionsSaw::try_from)
        .transpose()
        .map_err(|invalid| invalid.within(field))
}

impl From<DatabaseServer> for v1::DatabaseServer {
    fn from(server: DatabaseServer) -> Self {
        let role_source = match server.role_source {
            RoleSource::Override => v1::RoleSource::Override,
            RoleSource::Database => v1::RoleSource::Database,
            RoleSource::Agent => v1::RoleSource::Agent,
        };
        Self {
            host_id: server.host_id.into(),
            hostname: server.hostname,
            version: server.version,
            database: Some(server.database.into()),
            effective_role: server.effective_role.map(Into::into),
            role_source: role_source.into(),
            target_health: Some(server.target_health.into()),
            revision: 0,
            role_reason: server.role_reason,
            remarks: server.remarks,
            conflict: String::new(),
        }
    }
}

impl TryFrom<v1::DatabaseServer> for DatabaseServer {
    type Error = Invalid;

    fn try_from(server: v1::DatabaseServer) -> Result<Self, Invalid> {
        let role_source = match server.role_source() {
            v1::RoleSource::Override => RoleSource::Override,
            v1::RoleSource::Database => RoleSource::Database,
            v1::RoleSource::Unspecified | v1::RoleSource::Agent => RoleSource::Agent,
        };
        let database = server
            .database
            .ok_or_else(|| Invalid::new("database", "is missing"))?;
        Ok(Self {
            role_source,
            host_id: parse("host_id", &server.host_id)?,
            database: database
                .try_into()
                .map_err(|invalid: Invalid| invalid.within("database"))?,
            effective_role: assume_role("effective_role", server.effective_role)?,
            target_health: server
                .target_health
                .unwrap_or_default()
                .try_into()
                .map_err(|invalid: Invalid| invalid.within("target_health"))?,
            hostname: server.hostname,
            version: server.version,
            role_reason: server.role_reason,
            remarks: server.remarks,
        })
    }
}
