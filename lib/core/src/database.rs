//! Databases and database servers: what can be reached, and who serves it.

use std::{collections::BTreeMap, fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    ids::{AccountId, AssumeRole, DatabaseName, ExternalId, HostId, InvalidId, Region},
    labels::Labels,
    matcher::DatabaseKind,
};

/// What is spoken with a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// PostgreSQL, and Redshift's dialect of it.
    Postgres,
    /// MySQL and MariaDB. Listed; not served yet.
    Mysql,
}

impl Protocol {
    /// The name used in configuration and output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Mysql => "mysql",
        }
    }
}

impl FromStr for Protocol {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        match text {
            "postgres" => Ok(Self::Postgres),
            "mysql" => Ok(Self::Mysql),
            _ => Err(InvalidId {
                what: "protocol",
                value: text.to_owned(),
                expected: "`postgres` or `mysql`",
            }),
        }
    }
}

/// How a database got into the inventory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Found by discovery.
    Cloud,
    /// Written in an agent's configuration file; lives with that agent's presence only.
    Config,
    /// Created over the API.
    Dynamic,
}

impl Origin {
    /// The value of the label `tidegate.dev/origin`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cloud => "cloud",
            Self::Config => "config",
            Self::Dynamic => "dynamic",
        }
    }
}

/// Where a database listens: `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Uri {
    host: String,
    port: u16,
}

impl Uri {
    /// A host name or address, and a port.
    ///
    /// # Errors
    ///
    /// When the host is empty or holds characters that no host has.
    pub fn new(host: &str, port: u16) -> Result<Self, InvalidId> {
        let sound = !host.is_empty()
            && host.len() <= 253
            && host
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(&b));
        if sound && port != 0 {
            Ok(Self {
                host: host.to_owned(),
                port,
            })
        } else {
            Err(InvalidId {
                what: "database address",
                value: format!("{host}:{port}"),
                expected: "`host:port`",
            })
        }
    }

    /// The host, without brackets when it is an IPv6 address.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for Uri {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = || InvalidId {
            what: "database address",
            value: text.to_owned(),
            expected: "`host:port`",
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(invalid)?;
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        let port = port.parse().map_err(|_| invalid())?;
        Self::new(host, port).map_err(|_| invalid())
    }
}

impl TryFrom<String> for Uri {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<Uri> for String {
    fn from(uri: Uri) -> Self {
        uri.to_string()
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// How the database's certificate is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// Chain and host name. The default.
    #[default]
    VerifyFull,
    /// Chain only.
    VerifyCa,
    /// Neither: for tests against a database that nobody else can reach.
    Insecure,
}

/// TLS towards the database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TlsSettings {
    /// What is verified.
    #[serde(default)]
    pub mode: TlsMode,
    /// The name the certificate must carry, when it is not the host of the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// Extra trusted certificates in PEM; the system's roots are used when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_cert_pem: Option<String>,
    /// Whether the system's roots are trusted beside [`Self::ca_cert_pem`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub trust_system_pool: bool,
}

/// What AWS knows of a database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AwsMetadata {
    /// The region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<Region>,
    /// The owning account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_id: Option<AccountId>,
    /// The role that discovery used, or that the database's author wrote; agents may override it by label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assume_role: Option<AssumeRole>,
    /// Shown to the role that somebody names as database user, when no role is assumed for the database: it is then
    /// the first. Where a role is, that has its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<ExternalId>,
    /// Identifier of the provisioned Redshift cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redshift_cluster_id: Option<String>,
    /// Name of the Redshift Serverless workgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redshift_serverless_workgroup: Option<String>,
    /// Name of the Redshift Serverless VPC endpoint, when it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redshift_serverless_endpoint: Option<String>,
    /// Identifier of the RDS instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rds_instance_id: Option<String>,
    /// Identifier of the Aurora or Multi-AZ cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rds_cluster_id: Option<String>,
    /// The opaque id that `rds-db:connect` policies name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rds_resource_id: Option<String>,
    /// Whether IAM authentication is on; `None` when AWS did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rds_iam_auth: Option<bool>,
    /// Name of the RDS Proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rdsproxy_name: Option<String>,
    /// Tags that are sent with each role that is assumed for a session with the database. They come before those that an
    /// agent's configuration has by the same keys.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub session_tags: BTreeMap<String, String>,
}

/// Desired state: how to reach one database endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Database {
    /// Unique in the cluster, stable once given.
    pub name: DatabaseName,
    /// One line for people.
    #[serde(default)]
    pub description: String,
    /// Labels, generated and from tags.
    #[serde(default)]
    pub labels: Labels,
    /// How it got here.
    pub origin: Origin,
    /// What is spoken with it.
    pub protocol: Protocol,
    /// Where it listens.
    pub uri: Uri,
    /// TLS towards it.
    #[serde(default)]
    pub tls: TlsSettings,
    /// AWS facts.
    #[serde(default)]
    pub aws: AwsMetadata,
    /// What it is in AWS; `None` for one that is hosted elsewhere.
    #[serde(default)]
    pub kind: Option<DatabaseKind>,
    /// For discovered databases: the ARN, with `#<endpoint role>` unless it is the writer. Empty otherwise.
    ///
    /// This is the identity; the name is a view of it.
    #[serde(default)]
    pub identity: String,
    /// The undecorated name, which people may type when it is unambiguous.
    #[serde(default)]
    pub discovered_name: String,
    /// Why it cannot be connected to now (`paused`, `creating`, …); empty when it can.
    #[serde(default)]
    pub unavailable: String,
}

/// Whether an agent could reach a database when it last tried.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// Reached.
    Healthy,
    /// Not tried yet.
    #[default]
    Unknown,
    /// Not reached.
    Unhealthy,
}

/// What a connection to a database passes through, from below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthLayer {
    /// The host's name resolves.
    Dns,
    /// Every address takes connections.
    Tcp,
    /// The certificate can be trusted.
    Tls,
    /// There are credentials to log in with.
    Credential,
    /// The database lets them in.
    Login,
}

impl HealthLayer {
    /// All of them, from below.
    pub const ALL: [Self; 5] = [
        Self::Dns,
        Self::Tcp,
        Self::Tls,
        Self::Credential,
        Self::Login,
    ];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Credential => "credential",
            Self::Login => "login",
        }
    }
}

/// How a layer fared in people's own sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionsSaw {
    /// Whether the last one got through it.
    pub passed: bool,
    /// Since when all of them fare so.
    pub since: Timestamp,
}

/// The outcome of health checks, with the field names of the `db_server` resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetHealth {
    /// What was dialled.
    pub address: String,
    /// How: `TCP`.
    pub protocol: String,
    /// The outcome.
    pub status: HealthStatus,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transition_timestamp: Option<Timestamp>,
    /// Why it changed: `initialized`, `threshold_reached`, `disabled`.
    pub transition_reason: String,
    /// The last error, empty when healthy.
    pub transition_error: String,
    /// One line for people.
    pub message: String,
    /// The lowest layer that failed; `None` unless unhealthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_layer: Option<HealthLayer>,
    /// The last instant at which the database's certificate counts, as the last TLS handshake showed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_not_after: Option<Timestamp>,
    /// Whether sessions got credentials; `None` before there were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<SessionsSaw>,
    /// Whether sessions were let in; `None` before there were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<SessionsSaw>,
}

/// Why an agent assumes the role that it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoleSource {
    /// The first matching `db_service.resources` entry names it.
    Override,
    /// The database itself names it (discovery's matcher, or its author).
    Database,
    /// No role: the agent's own identity.
    Agent,
}

/// Presence: one agent serving one database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseServer {
    /// The agent.
    pub host_id: HostId,
    /// Its host name.
    pub hostname: String,
    /// Its program version.
    pub version: String,
    /// The database as this agent sees it.
    pub database: Database,
    /// The role it assumes for this database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_role: Option<AssumeRole>,
    /// Why that one.
    pub role_source: RoleSource,
    /// The same in words: which entry decided, and where it is written. Empty from agents that do not say.
    #[serde(default)]
    pub role_reason: String,
    /// What the agent wants known of how it serves the database: commands for labels that fail.
    #[serde(default)]
    pub remarks: Vec<String>,
    /// Whether it reaches the database.
    pub target_health: TargetHealth,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_print_back_as_they_were_read() {
        for text in [
            "c0.abc.us-east-1.redshift.amazonaws.com:5439",
            "127.0.0.1:1",
            "[::1]:5432",
        ] {
            assert_eq!(text.parse::<Uri>().unwrap().to_string(), text);
        }
        for bad in [
            "host",
            ":5432",
            "host:",
            "host:0",
            "host:99999",
            "a b:1",
            "a/b:1",
        ] {
            assert!(bad.parse::<Uri>().is_err(), "{bad}");
        }
    }
}
