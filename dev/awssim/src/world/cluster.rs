//! One provisioned Redshift cluster as the world describes it, and its name in the simulation.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::check::{check_address, check_databases, check_users};
use super::serverless::check_endpoint_names;
use super::{VpcEndpoint, WorldError, invalid};

/// Longest cluster identifier, in characters.
const CLUSTER_ID_CHARS_MAX: usize = 63;

/// Names a cluster, workgroup, RDS database or proxy in the whole world; written `account/region/identifier`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterId {
    /// 12 digit account number.
    pub account: String,
    /// Region name.
    pub region: String,
    /// Identifier, unique among its kind within account and region.
    pub id: String,
}

impl ClusterId {
    /// Joins the three parts; nothing is checked.
    pub fn new(account: &str, region: &str, id: &str) -> Self {
        Self {
            account: account.to_owned(),
            region: region.to_owned(),
            id: id.to_owned(),
        }
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.account, self.region, self.id)
    }
}

/// The text is not `account/region/identifier`.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not account/region/identifier")]
pub struct ParseClusterIdError(String);

impl FromStr for ClusterId {
    type Err = ParseClusterIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(account), Some(region), Some(id), None) => Ok(Self::new(account, region, id)),
            _ => Err(ParseClusterIdError(text.to_owned())),
        }
    }
}

/// How a cluster's front asks for the password; in JSON the code itself: 3, 5 or 13.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum AuthCode {
    /// 3: the password itself, inside TLS.
    #[default]
    Cleartext,
    /// 5: PostgreSQL's salted MD5.
    Md5,
    /// 13: Redshift's digest over SHA-256, a salt and two nonces.
    Sha256Digest,
}

impl TryFrom<u8> for AuthCode {
    type Error = String;

    fn try_from(code: u8) -> Result<Self, String> {
        match code {
            3 => Ok(Self::Cleartext),
            5 => Ok(Self::Md5),
            13 => Ok(Self::Sha256Digest),
            other => Err(format!("authentication code {other} is none of 3, 5, 13")),
        }
    }
}

impl From<AuthCode> for u8 {
    fn from(code: AuthCode) -> Self {
        match code {
            AuthCode::Cleartext => 3,
            AuthCode::Md5 => 5,
            AuthCode::Sha256Digest => 13,
        }
    }
}

/// Makes a cluster's endpoint a PostgreSQL of its own, without a wire front: for measuring.
///
/// The server's TLS listener has the cluster's address, port and AWS host name. Minted users are
/// roles named `IAM:<user>` whose password is set at minting, so **only the last minted password
/// of a user works**, it is bound to no database, expires by the system's clock, and nothing of
/// Redshift's start-up is imitated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Native {
    /// How the server keeps and asks for passwords. Default `md5`.
    pub password_encryption: PasswordEncryption,
}

/// PostgreSQL's `password_encryption`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PasswordEncryption {
    /// Authentication code 5.
    #[default]
    Md5,
    /// Authentication code 10.
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
}

impl PasswordEncryption {
    /// The value as PostgreSQL spells it, in its settings and in `pg_hba.conf`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::ScramSha256 => "scram-sha-256",
        }
    }
}

/// A provisioned cluster. `Cluster::default()` is one that works: available, database `dev`,
/// master user `awsuser`, no other user, no tags, cleartext passwords over required TLS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cluster {
    /// `ClusterStatus`, any text; see [`Cluster::listens`] and [`Cluster::has_endpoint`] for
    /// what follows from it.
    pub status: String,
    /// `ClusterAvailabilityStatus`. Default: derived from the status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub availability_status: Option<String>,
    /// `DBName`, the database made with the cluster.
    pub db_name: String,
    /// Further databases.
    pub databases: Vec<String>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Loopback address of the endpoint. Default: the next free one of 127.77.0.0/16.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    /// Port of the endpoint. Default: the world's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// `MasterUsername`; exists in the database and owns it.
    pub master_username: String,
    /// Database users that exist besides the master user. Grows when a login creates one.
    pub db_users: BTreeSet<String>,
    /// How the front asks for passwords.
    pub auth: AuthCode,
    /// Refuse log-ins without TLS.
    pub require_ssl: bool,
    /// A PostgreSQL of its own instead of a front.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub native: Option<Native>,
    /// `NodeType`.
    pub node_type: String,
    /// `VpcId`.
    pub vpc_id: String,
    /// `AvailabilityZone`. Default: the region's zone `a`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub availability_zone: Option<String>,
    /// `ClusterVersion`.
    pub version: String,
    /// `Encrypted`.
    pub encrypted: bool,
    /// `PubliclyAccessible`.
    pub publicly_accessible: bool,
    /// `MultiAZ`, which AWS sends as text: `Enabled` or `Disabled`.
    pub multi_az: String,
    /// `CustomDomainName`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom_domain_name: Option<String>,
    /// Id in `ClusterNamespaceArn`. Default: derived from the cluster's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_id: Option<String>,
    /// Redshift-managed VPC endpoints by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub vpc_endpoints: BTreeMap<String, VpcEndpoint>,
    /// Listed only: no address, no server, no line in the hosts file. For worlds of many clusters.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unreachable: bool,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            status: "available".to_owned(),
            availability_status: None,
            db_name: "dev".to_owned(),
            databases: Vec::new(),
            tags: BTreeMap::new(),
            address: None,
            port: None,
            master_username: "awsuser".to_owned(),
            db_users: BTreeSet::new(),
            auth: AuthCode::default(),
            require_ssl: true,
            native: None,
            node_type: "ra3.xlplus".to_owned(),
            vpc_id: "vpc-0a1b2c3d4e5f60718".to_owned(),
            availability_zone: None,
            version: "1.0".to_owned(),
            encrypted: true,
            publicly_accessible: false,
            multi_az: "Disabled".to_owned(),
            custom_domain_name: None,
            namespace_id: None,
            vpc_endpoints: BTreeMap::new(),
            unreachable: false,
        }
    }
}

impl Cluster {
    /// A working cluster with these tags and database users.
    pub fn with<'a>(
        tags: impl IntoIterator<Item = (&'a str, &'a str)>,
        db_users: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        Self {
            tags: tags
                .into_iter()
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .collect(),
            db_users: db_users.into_iter().map(str::to_owned).collect(),
            ..Self::default()
        }
    }

    /// A cluster with these tags that is listed and nothing more.
    pub fn listed<'a>(tags: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self {
            unreachable: true,
            ..Self::with(tags, [])
        }
    }

    /// Every database of the cluster, the first one first.
    pub fn database_names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.db_name.as_str()).chain(self.databases.iter().map(String::as_str))
    }

    /// Whether a database user exists.
    pub fn has_user(&self, name: &str) -> bool {
        self.master_username == name || self.db_users.contains(name)
    }

    /// Whether DescribeClusters shows an endpoint: always, except while creating.
    pub fn has_endpoint(&self) -> bool {
        self.status != "creating"
    }

    /// Whether the endpoint accepts TCP connections in this status.
    pub fn listens(&self) -> bool {
        const DOWN: [&str; 5] = [
            "paused",
            "creating",
            "deleting",
            "rebooting",
            "hardware-failure",
        ];
        !self.unreachable
            && !DOWN.contains(&self.status.as_str())
            && !self.status.starts_with("incompatible-")
    }

    pub(crate) fn validate(&self, at: &str, id: &str) -> Result<(), WorldError> {
        let lower = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let first_is_letter = id.starts_with(|c: char| c.is_ascii_lowercase());
        let dashes = id.ends_with('-') || id.contains("--");
        if !first_is_letter || dashes || id.len() > CLUSTER_ID_CHARS_MAX || !id.bytes().all(lower) {
            let rule = "must be 1 to 63 lower-case letters, digits and single dashes";
            return Err(invalid(at, id, rule));
        }
        let at = format!("{at}.{id}");
        check_users(&at, self.db_users.iter().chain([&self.master_username]))?;
        check_databases(&at, [&self.db_name].into_iter().chain(&self.databases))?;
        check_endpoint_names(&format!("{at}.vpc_endpoints"), &self.vpc_endpoints)?;
        check_address(&at, self.address)
    }
}

/// Redshift's rule for `DbUser` and `DbName`: 1 to 64 of letters, digits and `_+.@-`, a letter
/// first, not a reserved word, nor what PostgreSQL keeps for itself.
pub(crate) fn is_db_identifier(name: &str) -> bool {
    const RESERVED: [&str; 12] = [
        "public", "user", "select", "table", "all", "default", "grant", "group", "order", "role",
        "from", "to",
    ];
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_+.@-".contains(&b);
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.len() <= 64
        && name.bytes().all(allowed)
        && !name.starts_with("pg_")
        && !RESERVED.contains(&name.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn database_users_follow_redshifts_rules() {
        for good in ["alice", "a.b@c", "Ann+1", "x_-y"] {
            assert!(is_db_identifier(good), "{good}");
        }
        for bad in ["", "1a", "a:b", "a/b", "PUBLIC", "public", &"a".repeat(65)] {
            assert!(!is_db_identifier(bad), "{bad}");
        }
    }

    #[test]
    fn paused_clusters_keep_their_endpoint_and_refuse_tcp() {
        let paused = Cluster {
            status: "paused".to_owned(),
            ..Cluster::default()
        };
        assert!(paused.has_endpoint() && !paused.listens());
        let resizing = Cluster {
            status: "available, prep-for-resize".to_owned(),
            ..Cluster::default()
        };
        assert!(resizing.listens());
    }

    #[test]
    fn authentication_codes_are_numbers_in_json() {
        assert_eq!(
            serde_json::from_str::<AuthCode>("13").unwrap(),
            AuthCode::Sha256Digest
        );
        assert!(serde_json::from_str::<AuthCode>("10").is_err());
    }
}
