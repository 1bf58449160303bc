//! Core types to messages and back.
//!
//! Towards the wire nothing can fail. From the wire every field is checked; [`Invalid`] names the one that is wrong
//! and becomes an `INVALID_ARGUMENT` status with a field violation.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tidegate_core::{
    AssumeRole, AwsMatcher, AwsMetadata, Database, DatabaseServer, EndpointFilter, HealthStatus,
    InvalidId, InvalidSelector, Labels, Origin, Regions, Role, RoleConditions, RoleSource,
    ScanScope, Selector, TargetHealth, TlsMode, TlsSettings, Traits,
};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::v1;

/// A message whose field does not hold what it must.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("field `{field}`: {problem}")]
pub struct Invalid {
    /// The field, dotted from the message.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Invalid {
    /// A field that is wrong, and why.
    pub fn new(field: impl Into<String>, problem: impl std::fmt::Display) -> Self {
        Self {
            field: field.into(),
            problem: problem.to_string(),
        }
    }

    /// The same, seen from the message around it.
    #[must_use]
    pub fn within(mut self, outer: &str) -> Self {
        self.field = format!("{outer}.{}", self.field);
        self
    }
}

impl From<Invalid> for Status {
    fn from(invalid: Invalid) -> Self {
        let details = ErrorDetails::with_bad_request_violation(
            invalid.field.clone(),
            invalid.problem.clone(),
        );
        Self::with_error_details(Code::InvalidArgument, invalid.to_string(), details)
    }
}

/// An instant for the wire.
#[must_use]
pub fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: at.as_second(),
        nanos: at.subsec_nanosecond(),
    }
}

/// An instant from the wire.
///
/// # Errors
///
/// When it lies outside the years that can be represented.
pub fn instant(at: &prost_types::Timestamp) -> Result<Timestamp, Invalid> {
    Timestamp::new(at.seconds, at.nanos).map_err(|_| Invalid::new("timestamp", "out of range"))
}

fn parse<T: std::str::FromStr<Err = InvalidId>>(field: &str, text: &str) -> Result<T, Invalid> {
    text.parse().map_err(|error| Invalid::new(field, error))
}

fn parse_some<T: std::str::FromStr<Err = InvalidId>>(
    field: &str,
    text: &str,
) -> Result<Option<T>, Invalid> {
    if text.is_empty() {
        Ok(None)
    } else {
        parse(field, text).map(Some)
    }
}

fn text<T: AsRef<str>>(value: Option<&T>) -> String {
    value
        .map(|value| value.as_ref().to_owned())
        .unwrap_or_default()
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

impl From<AssumeRole> for v1::AssumeRole {
    fn from(role: AssumeRole) -> Self {
        Self {
            role_arn: role.role_arn.into(),
            external_id: text(role.external_id.as_ref()),
        }
    }
}

impl TryFrom<v1::AssumeRole> for AssumeRole {
    type Error = Invalid;

    fn try_from(role: v1::AssumeRole) -> Result<Self, Invalid> {
        Ok(Self {
            role_arn: parse("role_arn", &role.role_arn)?,
            external_id: parse_some("external_id", &role.external_id)?,
        })
    }
}

fn assume_role(field: &str, role: Option<v1::AssumeRole>) -> Result<Option<AssumeRole>, Invalid> {
    role.filter(|role| !role.role_arn.is_empty())
        .map(|role| {
            role.try_into()
                .map_err(|invalid: Invalid| invalid.within(field))
        })
        .transpose()
}

impl From<Selector> for v1::Selector {
    fn from(selector: Selector) -> Self {
        Self {
            labels: label_values(selector.written()),
        }
    }
}

impl TryFrom<v1::Selector> for Selector {
    type Error = Invalid;

    fn try_from(selector: v1::Selector) -> Result<Self, Invalid> {
        let pairs = selector
            .labels
            .into_iter()
            .map(|(key, values)| (key, values.values));
        Self::new(pairs).map_err(|error: InvalidSelector| Invalid::new("labels", error))
    }
}

/// Lists by key, such as traits, for the wire.
#[must_use]
pub fn label_values(lists: &BTreeMap<String, Vec<String>>) -> BTreeMap<String, v1::LabelValues> {
    lists
        .iter()
        .map(|(key, values)| {
            (
                key.clone(),
                v1::LabelValues {
                    values: values.clone(),
                },
            )
        })
        .collect()
}

/// Lists by key, such as traits, from the wire.
#[must_use]
pub fn traits(lists: BTreeMap<String, v1::LabelValues>) -> Traits {
    lists
        .into_iter()
        .map(|(key, values)| (key, values.values))
        .collect()
}

/// Labels for the wire.
#[must_use]
pub fn label_map(labels: Labels) -> BTreeMap<String, String> {
    labels.into_iter().collect()
}

impl From<TlsSettings> for v1::TlsSettings {
    fn from(tls: TlsSettings) -> Self {
        let mode = match tls.mode {
            TlsMode::VerifyFull => v1::TlsMode::VerifyFull,
            TlsMode::VerifyCa => v1::TlsMode::VerifyCa,
            TlsMode::Insecure => v1::TlsMode::Insecure,
        };
        Self {
            mode: mode.into(),
            server_name: tls.server_name.unwrap_or_default(),
            ca_cert_pem: tls.ca_cert_pem.unwrap_or_default(),
        }
    }
}

impl From<v1::TlsSettings> for TlsSettings {
    fn from(tls: v1::TlsSettings) -> Self {
        let mode = match tls.mode() {
            v1::TlsMode::Unspecified | v1::TlsMode::VerifyFull => TlsMode::VerifyFull,
            v1::TlsMode::VerifyCa => TlsMode::VerifyCa,
            v1::TlsMode::Insecure => TlsMode::Insecure,
        };
        Self {
            mode,
            server_name: some(tls.server_name),
            ca_cert_pem: some(tls.ca_cert_pem),
        }
    }
}

impl From<AwsMetadata> for v1::AwsMetadata {
    fn from(aws: AwsMetadata) -> Self {
        Self {
            region: text(aws.region.as_ref()),
            account_id: text(aws.account_id.as_ref()),
            assume_role: aws.assume_role.map(Into::into),
            redshift_cluster_id: aws.redshift_cluster_id.unwrap_or_default(),
            redshift_serverless_workgroup: aws.redshift_serverless_workgroup.unwrap_or_default(),
            redshift_serverless_endpoint: aws.redshift_serverless_endpoint.unwrap_or_default(),
            rds_instance_id: aws.rds_instance_id.unwrap_or_default(),
            rds_cluster_id: aws.rds_cluster_id.unwrap_or_default(),
            rds_resource_id: aws.rds_resource_id.unwrap_or_default(),
            rds_iam_auth: aws.rds_iam_auth,
            rdsproxy_name: aws.rdsproxy_name.unwrap_or_default(),
        }
    }
}

impl TryFrom<v1::AwsMetadata> for AwsMetadata {
    type Error = Invalid;

    fn try_from(aws: v1::AwsMetadata) -> Result<Self, Invalid> {
        Ok(Self {
            region: parse_some("region", &aws.region)?,
            account_id: parse_some("account_id", &aws.account_id)?,
            assume_role: assume_role("assume_role", aws.assume_role)?,
            redshift_cluster_id: some(aws.redshift_cluster_id),
            redshift_serverless_workgroup: some(aws.redshift_serverless_workgroup),
            redshift_serverless_endpoint: some(aws.redshift_serverless_endpoint),
            rds_instance_id: some(aws.rds_instance_id),
            rds_cluster_id: some(aws.rds_cluster_id),
            rds_resource_id: some(aws.rds_resource_id),
            rds_iam_auth: aws.rds_iam_auth,
            rdsproxy_name: some(aws.rdsproxy_name),
        })
    }
}

impl From<Database> for v1::Database {
    fn from(database: Database) -> Self {
        let origin = match database.origin {
            Origin::Cloud => v1::Origin::Cloud,
            Origin::Config => v1::Origin::Config,
            Origin::Dynamic => v1::Origin::Dynamic,
        };
        Self {
            name: database.name.into(),
            description: database.description,
            labels: label_map(database.labels),
            origin: origin.into(),
            protocol: database.protocol.as_str().to_owned(),
            uri: database.uri.to_string(),
            tls: Some(database.tls.into()),
            aws: Some(database.aws.into()),
            kind: database
                .kind
                .map(|kind| kind.as_str().to_owned())
                .unwrap_or_default(),
            identity: database.identity,
            discovered_name: database.discovered_name,
            unavailable: database.unavailable,
            revision: 0,
            scope_id: String::new(),
        }
    }
}

impl TryFrom<v1::Database> for Database {
    type Error = Invalid;

    fn try_from(database: v1::Database) -> Result<Self, Invalid> {
        let origin = match database.origin() {
            v1::Origin::Cloud => Origin::Cloud,
            v1::Origin::Config => Origin::Config,
            v1::Origin::Dynamic => Origin::Dynamic,
            v1::Origin::Unspecified => return Err(Invalid::new("origin", "is missing")),
        };
        Ok(Self {
            origin,
            name: parse("name", &database.name)?,
            protocol: parse("protocol", &database.protocol)?,
            uri: parse("uri", &database.uri)?,
            kind: parse_some("kind", &database.kind)?,
            tls: database.tls.map(Into::into).unwrap_or_default(),
            aws: database
                .aws
                .unwrap_or_default()
                .try_into()
                .map_err(|invalid: Invalid| invalid.within("aws"))?,
            description: database.description,
            labels: database.labels.into_iter().collect(),
            identity: database.identity,
            discovered_name: database.discovered_name,
            unavailable: database.unavailable,
        })
    }
}

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
        }
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
        })
    }
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
        })
    }
}

impl From<RoleConditions> for v1::RoleConditions {
    fn from(conditions: RoleConditions) -> Self {
        Self {
            db_labels: Some(conditions.db_labels.into()),
            db_users: conditions.db_users,
            db_names: conditions.db_names,
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
            db_users: conditions.db_users,
            db_names: conditions.db_names,
        })
    }
}

impl From<Role> for v1::Role {
    fn from(role: Role) -> Self {
        Self {
            name: role.name,
            allow: Some(role.allow.into()),
            deny: Some(role.deny.into()),
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
        Ok(Self {
            name: role.name,
            allow: role
                .allow
                .unwrap_or_default()
                .try_into()
                .map_err(|invalid: Invalid| invalid.within("allow"))?,
            deny: role
                .deny
                .unwrap_or_default()
                .try_into()
                .map_err(|invalid: Invalid| invalid.within("deny"))?,
        })
    }
}

impl From<EndpointFilter> for v1::EndpointFilter {
    fn from(filter: EndpointFilter) -> Self {
        Self {
            include: filter.include,
            exclude: filter.exclude,
        }
    }
}

impl From<v1::EndpointFilter> for EndpointFilter {
    fn from(filter: v1::EndpointFilter) -> Self {
        Self {
            include: filter.include,
            exclude: filter.exclude,
        }
    }
}

impl From<AwsMatcher> for v1::AwsMatcher {
    fn from(matcher: AwsMatcher) -> Self {
        let regions = match matcher.regions {
            Regions::Enabled => vec!["*".to_owned()],
            Regions::These(regions) => regions.into_iter().map(Into::into).collect(),
        };
        Self {
            types: matcher
                .types
                .iter()
                .map(|kind| kind.as_str().to_owned())
                .collect(),
            regions,
            tags: Some(matcher.tags.into()),
            assume_role: matcher.assume_role.map(Into::into),
            endpoints: (!matcher.endpoints.is_everything()).then(|| matcher.endpoints.into()),
        }
    }
}

impl TryFrom<v1::AwsMatcher> for AwsMatcher {
    type Error = Invalid;

    fn try_from(matcher: v1::AwsMatcher) -> Result<Self, Invalid> {
        if matcher.types.is_empty() || matcher.regions.is_empty() {
            let field = if matcher.types.is_empty() {
                "types"
            } else {
                "regions"
            };
            return Err(Invalid::new(field, "must name at least one"));
        }
        let regions = if matcher.regions == ["*"] {
            Regions::Enabled
        } else {
            Regions::These(
                matcher
                    .regions
                    .iter()
                    .map(|region| parse("regions", region))
                    .collect::<Result<_, _>>()?,
            )
        };
        let endpoints = EndpointFilter::from(matcher.endpoints.unwrap_or_default());
        let unknown = endpoints
            .include
            .iter()
            .chain(&endpoints.exclude)
            .find(|name| !EndpointFilter::TYPES.contains(&name.as_str()));
        if let Some(name) = unknown {
            return Err(Invalid::new(
                "endpoints",
                format!("`{name}` is no endpoint type"),
            ));
        }
        let tags = match matcher.tags {
            Some(tags) => tags
                .try_into()
                .map_err(|invalid: Invalid| invalid.within("tags"))?,
            None => Selector::everything(),
        };
        Ok(Self {
            types: matcher
                .types
                .iter()
                .map(|kind| parse("types", kind))
                .collect::<Result<_, _>>()?,
            regions,
            tags,
            endpoints,
            assume_role: assume_role("assume_role", matcher.assume_role)?,
        })
    }
}

impl From<&ScanScope> for v1::ScanScope {
    fn from(scope: &ScanScope) -> Self {
        Self {
            id: scope.id().0,
            group: scope.group.clone(),
            kind: scope.kind.as_str().to_owned(),
            region: scope.region.to_string(),
            assume_role: scope.assume_role.clone().map(Into::into),
            tags: Some(scope.tags.clone().into()),
            order: scope.order,
            endpoints: (!scope.endpoints.is_everything()).then(|| scope.endpoints.clone().into()),
            config: scope.config.clone().unwrap_or_default(),
        }
    }
}

impl TryFrom<v1::ScanScope> for ScanScope {
    type Error = Invalid;

    fn try_from(scope: v1::ScanScope) -> Result<Self, Invalid> {
        let checked = Self {
            kind: parse("kind", &scope.kind)?,
            region: parse("region", &scope.region)?,
            assume_role: assume_role("assume_role", scope.assume_role)?,
            tags: scope
                .tags
                .unwrap_or_default()
                .try_into()
                .map_err(|invalid: Invalid| invalid.within("tags"))?,
            order: scope.order,
            group: scope.group,
            endpoints: scope.endpoints.unwrap_or_default().into(),
            config: some(scope.config),
        };
        if checked.id().0 == scope.id {
            Ok(checked)
        } else {
            Err(Invalid::new(
                "id",
                "does not name the scope that the other fields describe",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database() -> Database {
        Database {
            name: "orders".parse().unwrap(),
            description: "Redshift cluster in us-east-1".to_owned(),
            labels: [("env", "prod")].into_iter().collect(),
            origin: Origin::Cloud,
            protocol: tidegate_core::Protocol::Postgres,
            uri: "orders.abc.us-east-1.redshift.amazonaws.com:5439"
                .parse()
                .unwrap(),
            tls: TlsSettings {
                mode: TlsMode::VerifyCa,
                server_name: Some("x".to_owned()),
                ca_cert_pem: None,
            },
            aws: AwsMetadata {
                region: Some("us-east-1".parse().unwrap()),
                account_id: Some("111122223333".parse().unwrap()),
                assume_role: Some(AssumeRole {
                    role_arn: "arn:aws:iam::111122223333:role/x".parse().unwrap(),
                    external_id: Some("ext".parse().unwrap()),
                }),
                redshift_cluster_id: Some("orders".to_owned()),
                rds_iam_auth: Some(false),
                ..AwsMetadata::default()
            },
            kind: Some(tidegate_core::DatabaseKind::Redshift),
            identity: "arn:aws:redshift:us-east-1:111122223333:cluster:orders".to_owned(),
            discovered_name: "orders".to_owned(),
            unavailable: "paused".to_owned(),
        }
    }

    #[test]
    fn a_database_survives_the_wire() {
        let there = v1::Database::from(database());
        assert_eq!(Database::try_from(there).unwrap(), database());
    }

    #[test]
    fn a_database_server_survives_the_wire() {
        let server = DatabaseServer {
            host_id: "h-1".parse().unwrap(),
            hostname: "ip-10-0-0-1".to_owned(),
            version: "0.1.0".to_owned(),
            effective_role: database().aws.assume_role,
            database: database(),
            role_source: RoleSource::Override,
            target_health: TargetHealth {
                transition_timestamp: Some(Timestamp::new(5, 7).unwrap()),
                ..TargetHealth::default()
            },
        };
        assert_eq!(
            DatabaseServer::try_from(v1::DatabaseServer::from(server.clone())).unwrap(),
            server
        );
    }

    #[test]
    fn a_wrong_field_is_named_from_the_outside_in() {
        let mut message = v1::Database::from(database());
        message.aws.as_mut().unwrap().region = "nowhere".to_owned();
        assert_eq!(Database::try_from(message).unwrap_err().field, "aws.region");
    }

    #[test]
    fn a_scope_whose_id_lies_is_refused() {
        let scope = ScanScope {
            group: "prod".to_owned(),
            kind: tidegate_core::DatabaseKind::Redshift,
            region: "us-east-1".parse().unwrap(),
            assume_role: None,
            tags: Selector::everything(),
            endpoints: EndpointFilter {
                include: vec!["primary".to_owned()],
                exclude: Vec::new(),
            },
            config: Some("team".to_owned()),
            order: 0,
        };
        let mut message = v1::ScanScope::from(&scope);
        assert_eq!(ScanScope::try_from(message.clone()).unwrap(), scope);
        message.region = "us-west-2".to_owned();
        assert_eq!(ScanScope::try_from(message).unwrap_err().field, "id");
    }
}
