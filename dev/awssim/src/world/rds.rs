//! RDS: instances, clusters (Aurora and Multi-AZ) and proxies. Those of PostgreSQL are served, the others listed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::check::{check_address, check_databases, check_users};
use super::{Region, WorldError, invalid, is_no};

/// Engines that AWS knows; a filter that names another one is refused.
pub(crate) const ENGINES: [&str; 14] = [
    "aurora-mysql",
    "aurora-postgresql",
    "db2-ae",
    "db2-se",
    "docdb",
    "mariadb",
    "mysql",
    "neptune",
    "oracle-ee",
    "oracle-se2",
    "postgres",
    "sqlserver-ee",
    "sqlserver-se",
    "sqlserver-web",
];

/// The port of an engine unless told otherwise.
pub(crate) fn default_port(engine: &str) -> u16 {
    match engine {
        "aurora-mysql" | "mariadb" | "mysql" => 3306,
        "docdb" => 27017,
        "neptune" => 8182,
        engine if engine.starts_with("oracle") => 1521,
        engine if engine.starts_with("sqlserver") => 1433,
        engine if engine.starts_with("db2") => 50_000,
        _ => 5432,
    }
}

/// An RDS instance, alone or a member of a cluster. `DbInstance::default()` is an available
/// PostgreSQL 16.4 with IAM authentication.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DbInstance {
    /// `DBInstanceStatus`, any text. While `creating` there is no endpoint.
    pub status: String,
    /// `Engine`.
    pub engine: String,
    /// `EngineVersion`.
    pub engine_version: String,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// `DBSubnetGroup.VpcId`.
    pub vpc_id: String,
    /// Port. Default: the engine's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// `IAMDatabaseAuthenticationEnabled`.
    pub iam_auth: bool,
    /// `PubliclyAccessible`.
    pub publicly_accessible: bool,
    /// `MultiAZ`.
    pub multi_az: bool,
    /// The cluster (of the same account and region) that it is a member of; it must exist.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Whether it is its cluster's writer.
    pub writer: bool,
    /// `DBName`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub db_name: Option<String>,
    /// `MasterUsername`.
    pub master_username: String,
    /// `DbiResourceId`. Default: derived from its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_id: Option<String>,
    /// Further databases, besides `postgres`. A member's are its cluster's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub databases: Vec<String>,
    /// Database users that log in with IAM tokens (that have `rds_iam`). A member's are its cluster's.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub db_users: BTreeSet<String>,
    /// Loopback address of its endpoint. Default: the next free one of 127.77.0.0/16.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    /// Listed only: nothing listens on its endpoint.
    #[serde(skip_serializing_if = "is_no")]
    pub unreachable: bool,
}

impl Default for DbInstance {
    fn default() -> Self {
        Self {
            status: "available".to_owned(),
            engine: "postgres".to_owned(),
            engine_version: "16.4".to_owned(),
            tags: BTreeMap::new(),
            vpc_id: "vpc-0a1b2c3d4e5f60718".to_owned(),
            port: None,
            iam_auth: true,
            publicly_accessible: false,
            multi_az: false,
            cluster: None,
            writer: false,
            db_name: None,
            master_username: "postgres".to_owned(),
            resource_id: None,
            databases: Vec::new(),
            db_users: BTreeSet::new(),
            address: None,
            unreachable: false,
        }
    }
}

impl DbInstance {
    /// An available instance of an engine with these tags.
    pub fn with<'a>(engine: &str, tags: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self {
            engine: engine.to_owned(),
            tags: owned(tags),
            ..Self::default()
        }
    }

    /// An available member of a cluster.
    pub fn member(cluster: &str, engine: &str, writer: bool) -> Self {
        Self {
            engine: engine.to_owned(),
            cluster: Some(cluster.to_owned()),
            writer,
            ..Self::default()
        }
    }

    pub(crate) fn has_endpoint(&self) -> bool {
        self.status != "creating"
    }
}

/// An Aurora or Multi-AZ cluster. Its members are the instances whose
/// [`DbInstance::cluster`] names it. `DbCluster::default()` is an available Aurora PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DbCluster {
    /// `Status`, any text. While `creating` there are no endpoints.
    pub status: String,
    /// `Engine`.
    pub engine: String,
    /// `EngineVersion`.
    pub engine_version: String,
    /// `EngineMode`: `provisioned`, `serverless`, `parallelquery`, `global`.
    pub engine_mode: String,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// VPC, named by its members' subnet group.
    pub vpc_id: String,
    /// Port. Default: the engine's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// `IAMDatabaseAuthenticationEnabled`.
    pub iam_auth: bool,
    /// `MultiAZ`.
    pub multi_az: bool,
    /// Names of its custom endpoints.
    pub custom_endpoints: BTreeSet<String>,
    /// `DatabaseName`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database_name: Option<String>,
    /// `MasterUsername`.
    pub master_username: String,
    /// `DbClusterResourceId`. Default: derived from its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_id: Option<String>,
    /// Further databases, besides `postgres`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub databases: Vec<String>,
    /// Database users that log in with IAM tokens (that have `rds_iam`).
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub db_users: BTreeSet<String>,
    /// Loopback address of the writer's endpoint. Default: the next free one of 127.77.0.0/16.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    /// Listed only: nothing listens on its endpoints.
    #[serde(skip_serializing_if = "is_no")]
    pub unreachable: bool,
}

impl Default for DbCluster {
    fn default() -> Self {
        Self {
            status: "available".to_owned(),
            engine: "aurora-postgresql".to_owned(),
            engine_version: "16.4".to_owned(),
            engine_mode: "provisioned".to_owned(),
            tags: BTreeMap::new(),
            vpc_id: "vpc-0a1b2c3d4e5f60718".to_owned(),
            port: None,
            iam_auth: true,
            multi_az: false,
            custom_endpoints: BTreeSet::new(),
            database_name: None,
            master_username: "postgres".to_owned(),
            resource_id: None,
            databases: Vec::new(),
            db_users: BTreeSet::new(),
            address: None,
            unreachable: false,
        }
    }
}

impl DbCluster {
    /// An available cluster of an engine with these tags and custom endpoints.
    pub fn with<'a>(
        engine: &str,
        tags: impl IntoIterator<Item = (&'a str, &'a str)>,
        custom_endpoints: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        Self {
            engine: engine.to_owned(),
            tags: owned(tags),
            custom_endpoints: custom_endpoints.into_iter().map(str::to_owned).collect(),
            ..Self::default()
        }
    }

    pub(crate) fn has_endpoint(&self) -> bool {
        self.status != "creating"
    }
}

/// An RDS proxy. `DbProxy::default()` is available, for PostgreSQL, and requires TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DbProxy {
    /// `Status`, any text.
    pub status: String,
    /// `EngineFamily`: `MYSQL`, `POSTGRESQL` or `SQLSERVER`.
    pub engine_family: String,
    /// Tags; only ListTagsForResource shows them.
    pub tags: BTreeMap<String, String>,
    /// `VpcId`.
    pub vpc_id: String,
    /// `RequireTLS`.
    pub require_tls: bool,
    /// `Auth[].IAMAuth`: `DISABLED`, `REQUIRED` or `ENABLED`.
    pub iam_auth: String,
    /// Endpoints besides the default one, by name.
    pub endpoints: BTreeMap<String, DbProxyEndpoint>,
    /// The RDS cluster or instance (of the same account and region) that it stands before. Without one it has no
    /// database users, as a proxy without secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Loopback address of its default endpoint. Default: the next free one of 127.77.0.0/16.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    /// Listed only: nothing listens on its endpoints.
    #[serde(skip_serializing_if = "is_no")]
    pub unreachable: bool,
}

impl Default for DbProxy {
    fn default() -> Self {
        Self {
            status: "available".to_owned(),
            engine_family: "POSTGRESQL".to_owned(),
            tags: BTreeMap::new(),
            vpc_id: "vpc-0a1b2c3d4e5f60718".to_owned(),
            require_tls: true,
            iam_auth: "REQUIRED".to_owned(),
            endpoints: BTreeMap::new(),
            target: None,
            address: None,
            unreachable: false,
        }
    }
}

impl DbProxy {
    /// The port of its endpoints, that of its engine family.
    pub(crate) fn port(&self) -> u16 {
        match self.engine_family.as_str() {
            "MYSQL" => default_port("mysql"),
            "SQLSERVER" => default_port("sqlserver-ee"),
            _ => default_port("postgres"),
        }
    }

    /// An available proxy with these tags.
    pub fn with<'a>(tags: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self {
            tags: owned(tags),
            ..Self::default()
        }
    }
}

/// An endpoint of a proxy besides its default one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DbProxyEndpoint {
    /// `Status`, any text.
    pub status: String,
    /// `TargetRole`: `READ_WRITE` or `READ_ONLY`.
    pub target_role: String,
    /// `VpcId`. Default: the proxy's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vpc_id: Option<String>,
}

impl Default for DbProxyEndpoint {
    fn default() -> Self {
        Self {
            status: "available".to_owned(),
            target_role: "READ_ONLY".to_owned(),
            vpc_id: None,
        }
    }
}

impl Region {
    /// Checks what RDS holds in this region.
    pub(super) fn validate_rds(&self, at: &str) -> Result<(), WorldError> {
        names_in(&format!("{at}.db_instances"), self.db_instances.keys())?;
        names_in(&format!("{at}.db_clusters"), self.db_clusters.keys())?;
        names_in(&format!("{at}.db_proxies"), self.db_proxies.keys())?;
        let mut writers = BTreeSet::new();
        for (name, instance) in &self.db_instances {
            let it = instance;
            let at_it = format!("{at}.db_instances.{name}");
            check_served(
                &at_it,
                it.address,
                it.db_name.iter().chain(&it.databases),
                &it.db_users,
            )?;
            let Some(cluster) = &instance.cluster else {
                continue;
            };
            let at = at_it;
            if !self.db_clusters.contains_key(cluster) {
                return Err(invalid(&at, cluster, "is no cluster of this region"));
            }
            if instance.writer && !writers.insert(cluster) {
                return Err(invalid(&at, cluster, "has a writer already"));
            }
        }
        for (name, it) in &self.db_clusters {
            let at = format!("{at}.db_clusters.{name}");
            let databases = it.database_name.iter().chain(&it.databases);
            check_served(&at, it.address, databases, &it.db_users)?;
        }
        for (name, proxy) in &self.db_proxies {
            let at = format!("{at}.db_proxies.{name}");
            check_address(&at, proxy.address)?;
            let is_there = |target: &&String| {
                self.db_clusters.contains_key(*target) || self.db_instances.contains_key(*target)
            };
            if let Some(target) = proxy.target.as_ref().filter(|target| !is_there(target)) {
                let rule = "is no RDS cluster or instance of this region";
                return Err(invalid(&at, target, rule));
            }
        }
        for (name, cluster) in &self.db_clusters {
            let at = format!("{at}.db_clusters.{name}.custom_endpoints");
            names_in(&at, cluster.custom_endpoints.iter())?;
        }
        for (name, proxy) in &self.db_proxies {
            let at = format!("{at}.db_proxies.{name}.endpoints");
            names_in(&at, proxy.endpoints.keys())?;
        }
        Ok(())
    }
}

fn check_served<'a>(
    at: &str,
    address: Option<Ipv4Addr>,
    databases: impl Iterator<Item = &'a String>,
    users: &'a BTreeSet<String>,
) -> Result<(), WorldError> {
    check_address(at, address)?;
    check_databases(at, databases)?;
    check_users(at, users.iter())
}

fn names_in<'a>(at: &str, mut names: impl Iterator<Item = &'a String>) -> Result<(), WorldError> {
    names.try_for_each(|name| check_name(at, name))
}

/// RDS identifiers: stored in lower case, a letter first, no dash at the end nor two in a row.
fn check_name(at: &str, name: &str) -> Result<(), WorldError> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let good = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.len() <= 63
        && name.bytes().all(allowed)
        && !name.ends_with('-')
        && !name.contains("--");
    if good {
        return Ok(());
    }
    let rule = "must be 1 to 63 lower-case letters, digits and single dashes";
    Err(invalid(at, name, rule))
}

fn owned<'a>(tags: impl IntoIterator<Item = (&'a str, &'a str)>) -> BTreeMap<String, String> {
    let tags = tags.into_iter();
    tags.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}
