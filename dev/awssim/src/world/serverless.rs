//! Redshift Serverless workgroups, and the VPC endpoints that Redshift manages.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::check::{check_address, check_databases, check_users};
use super::{AuthCode, REDSHIFT_PORT, WorldError, invalid, is_no};

/// A Redshift Serverless workgroup, with what its namespace holds. `Workgroup::default()` is available, in namespace
/// `default` with the database `dev`, without tags.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Workgroup {
    /// `AVAILABLE`, `CREATING`, `MODIFYING`, `DELETING`, or any text. While `CREATING` there is
    /// no endpoint.
    pub status: String,
    /// Name of its namespace.
    pub namespace: String,
    /// Tags; only ListTagsForResource and the tagging API show them.
    pub tags: BTreeMap<String, String>,
    /// The namespace's `dbName`, the database made with it.
    pub db_name: String,
    /// Further databases.
    pub databases: Vec<String>,
    /// The namespace's `adminUsername`; exists in the databases and owns them.
    pub admin_username: String,
    /// Database users that exist besides the administrator. Grows when a log-in creates one.
    pub db_users: BTreeSet<String>,
    /// How its fronts ask for passwords.
    pub auth: AuthCode,
    /// Refuse log-ins without TLS.
    pub require_ssl: bool,
    /// VPC of its own endpoint.
    pub vpc_id: String,
    /// Loopback address of its own endpoint. Default: the next free one of 127.77.0.0/16.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    /// Port of its endpoints.
    pub port: u16,
    /// `publiclyAccessible`.
    pub publicly_accessible: bool,
    /// `workgroupVersion`.
    pub version: String,
    /// `customDomainName`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom_domain_name: Option<String>,
    /// Redshift-managed VPC endpoints by name.
    pub vpc_endpoints: BTreeMap<String, VpcEndpoint>,
    /// Listed only: nothing listens on its endpoints.
    #[serde(skip_serializing_if = "is_no")]
    pub unreachable: bool,
}

impl Default for Workgroup {
    fn default() -> Self {
        Self {
            status: "AVAILABLE".to_owned(),
            namespace: "default".to_owned(),
            tags: BTreeMap::new(),
            db_name: "dev".to_owned(),
            databases: Vec::new(),
            admin_username: "admin".to_owned(),
            db_users: BTreeSet::new(),
            auth: AuthCode::default(),
            require_ssl: true,
            vpc_id: "vpc-0a1b2c3d4e5f60718".to_owned(),
            address: None,
            port: REDSHIFT_PORT,
            publicly_accessible: false,
            version: "1.0".to_owned(),
            custom_domain_name: None,
            vpc_endpoints: BTreeMap::new(),
            unreachable: false,
        }
    }
}

impl Workgroup {
    /// An available workgroup with these tags.
    pub fn with<'a>(tags: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let tags = tags.into_iter();
        Self {
            tags: tags.map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
            ..Self::default()
        }
    }

    pub(crate) fn has_endpoint(&self) -> bool {
        self.status != "CREATING"
    }

    /// Whether its endpoints accept TCP connections in this status.
    pub(crate) fn listens(&self) -> bool {
        !["CREATING", "DELETING"].contains(&self.status.as_str())
    }

    pub(crate) fn validate(&self, at: &str, name: &str) -> Result<(), WorldError> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if !(3..=64).contains(&name.len()) || !name.bytes().all(allowed) {
            let rule = "must be 3 to 64 lower-case letters, digits and dashes";
            return Err(invalid(at, name, rule));
        }
        let at = format!("{at}.{name}");
        check_address(&at, self.address)?;
        check_databases(&at, [&self.db_name].into_iter().chain(&self.databases))?;
        check_users(&at, self.db_users.iter().chain([&self.admin_username]))?;
        check_endpoint_names(&format!("{at}.vpc_endpoints"), &self.vpc_endpoints)
    }
}

/// A VPC endpoint that Redshift manages, of a cluster or of a workgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VpcEndpoint {
    /// `active`, `creating`, `modifying`, `deleting`, or any text.
    pub status: String,
    /// The VPC that it is in.
    pub vpc_id: String,
}

impl Default for VpcEndpoint {
    fn default() -> Self {
        Self {
            status: "active".to_owned(),
            vpc_id: "vpc-0f1e2d3c4b5a69788".to_owned(),
        }
    }
}

impl VpcEndpoint {
    pub(crate) fn has_address(&self) -> bool {
        !self.status.eq_ignore_ascii_case("creating")
    }

    /// Whether it accepts connections in this status.
    pub(crate) fn is_active(&self) -> bool {
        !["creating", "deleting"].contains(&self.status.to_ascii_lowercase().as_str())
    }
}

pub(crate) fn check_endpoint_names(
    at: &str,
    endpoints: &BTreeMap<String, VpcEndpoint>,
) -> Result<(), WorldError> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    for name in endpoints.keys() {
        if !(1..=30).contains(&name.len()) || !name.bytes().all(allowed) {
            let rule = "must be 1 to 30 lower-case letters, digits and dashes";
            return Err(invalid(at, name, rule));
        }
    }
    Ok(())
}
