//! The world that is simulated: accounts, who may sign requests in them, and their clusters.
//!
//! A [`World`] is a value, read from JSON or built by code, and checked once by
//! [`World::validate`]. It says what *is*; what happened (sessions, minted passwords, the
//! journal) is kept elsewhere. Unknown keys are refused, so a misspelt fault in a test's world
//! is found when it loads.
//!
//! Not here: how policies are evaluated ([`crate::iam`]), the servers behind clusters
//! (`fleet`).

mod account;
mod behind;
mod check;
mod cluster;
mod endpoint;
mod generate;
mod kms;
mod machine;
mod names;
mod rds;
mod resource;
mod serverless;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use account::{AccessKey, Account, OidcProvider, Role, User};
pub(crate) use account::{IamName, ROLE_SESSION_SECONDS_MAX, ROLE_SESSION_SECONDS_MIN};
pub(crate) use behind::{
    Holder, RdsTerms, db_cluster_id, db_instance_id, db_proxy_id, namespace_id,
};
pub(crate) use check::{check_iam_name, check_rate_limits, check_role, invalid};
use check::{is_no, is_zero};
pub(crate) use cluster::is_db_identifier;
pub use cluster::{AuthCode, Cluster, ClusterId, Native, ParseClusterIdError, PasswordEncryption};
pub use endpoint::ResourceId;
pub(crate) use endpoint::{
    Speaks, Wanted, redshift_endpoint_label, serverless_endpoint_label, serverless_host,
};
pub use generate::{GENERATED_HOME, GENERATED_KEY, GENERATED_ROLE, GENERATED_SECRET};
pub use kms::KmsKey;
pub use machine::{CredentialSource, Machine};
pub(crate) use names::{
    DEFAULT_REGIONS, OPT_IN_REGIONS, arn, derived_hex, derived_uuid, dns_suffix, host_hash,
    partition,
};
pub use rds::{DbCluster, DbInstance, DbProxy, DbProxyEndpoint};
pub(crate) use rds::{ENGINES, default_port as engine_port};
pub use resource::{Kind, Resource};
pub use serverless::{VpcEndpoint, Workgroup};

/// The port that Redshift listens on unless told otherwise.
pub const REDSHIFT_PORT: u16 = 5439;

/// Everything that exists in the simulated AWS.
///
/// In JSON every key but `accounts` has a default; policies are written as in AWS:
///
/// ```
/// let world = awssim::World::from_json(r#"{
///   "accounts": {
///     "111111111111": {
///       "regions": {"us-east-1": {}},
///       "users": {"worker": {
///         "access_keys": [{"id": "AKIAWORKER", "secret": "secret"}],
///         "policies": [{"Version": "2012-10-17", "Statement": [
///           {"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "*"}]}]
///       }}
///     },
///     "222222222222": {
///       "roles": {"discover": {
///         "trust": {"Version": "2012-10-17", "Statement": [{
///           "Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::111111111111:root"},
///           "Action": ["sts:AssumeRole", "sts:SetSourceIdentity", "sts:TagSession"],
///           "Condition": {"StringEquals": {"sts:ExternalId": "x-1"}}}]},
///         "policies": [{"Version": "2012-10-17", "Statement": [
///           {"Effect": "Allow", "Action": "redshift:DescribeClusters", "Resource": "*"}]}]
///       }},
///       "regions": {"us-east-1": {"clusters": {
///         "orders": {"tags": {"env": "prod"}, "db_users": ["alice"], "auth": 5}
///       }}}
///     }
///   }
/// }"#)?;
/// assert_eq!(world.cluster_ids()[0].to_string(), "222222222222/us-east-1/orders");
/// # Ok::<(), awssim::WorldError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct World {
    /// Accounts by their 12 digit number.
    pub accounts: BTreeMap<String, Account>,
    /// Where programs run that get AWS credentials from their surroundings, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub machines: BTreeMap<String, Machine>,
    /// Port of every Redshift cluster that does not name its own. Default 5439.
    #[serde(default = "default_port")]
    pub port: u16,
    /// Caps the records of a page below what was asked for, so that small worlds page.
    /// Default none: a page holds `MaxRecords` (20 to 100, 100 if not given).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_records_max: Option<usize>,
    /// Request rates by `service:Operation`, for instance `redshift:DescribeClusters`. Each account
    /// that owns calling credentials has a bucket of its own per region and operation. Default
    /// none: nothing is throttled.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rate_limits: BTreeMap<String, RateLimit>,
    /// How long something new stays out of every listing after it was added to the running
    /// simulation, in milliseconds of its clock. Default 0. What the world has at the start is
    /// there at once.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub appear_after_ms: u64,
    /// How long earlier tags are still shown after a change, in milliseconds of the simulation's
    /// clock. Default 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tags_lag_ms: u64,
    /// Whether a cluster that was deleted from the running simulation shows once more: the first
    /// listing after it is without it, the second has it again, all later ones are without it.
    /// Default no.
    #[serde(default, skip_serializing_if = "is_no")]
    pub deleted_flicker: bool,
}

/// A token bucket: what it holds when full, and how fast it fills.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Requests a second in the long run; 0 never fills it again.
    pub per_second: f64,
    /// Requests at once, at least 1.
    pub burst: u32,
}

/// An enabled region of one account.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Region {
    /// Provisioned Redshift clusters by identifier.
    pub clusters: BTreeMap<String, Cluster>,
    /// Redshift Serverless workgroups by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub workgroups: BTreeMap<String, Workgroup>,
    /// RDS instances by identifier, members of clusters too.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub db_instances: BTreeMap<String, DbInstance>,
    /// RDS clusters (Aurora and Multi-AZ) by identifier.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub db_clusters: BTreeMap<String, DbCluster>,
    /// RDS proxies by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub db_proxies: BTreeMap<String, DbProxy>,
    /// KMS keys by id.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub kms_keys: BTreeMap<String, KmsKey>,
    /// Engines that RDS does not have in this region: an `engine` filter that names one is refused
    /// with `InvalidParameterValue`.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub unknown_engines: BTreeSet<String>,
    /// Whether the account has disabled it: what it holds stays, and no call reaches it.
    #[serde(skip_serializing_if = "is_no")]
    pub disabled: bool,
    /// Second label of endpoint host names; all clusters of an account and region share it.
    /// Default: derived from account and region.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_hash: Option<String>,
}

/// Why a world cannot be simulated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorldError {
    /// One access key id belongs to two users.
    #[error("access key {id} is given twice")]
    AccessKeyTwice {
        /// The public id.
        id: String,
    },
    /// Some name or number breaks AWS's rules.
    #[error("{at}: `{value}` {rule}")]
    Invalid {
        /// Where in the world.
        at: String,
        /// What was written.
        value: String,
        /// What has to hold.
        rule: &'static str,
    },
    /// The text is no world: bad JSON, an unknown key, or an unsupported policy element.
    #[error("could not read the world")]
    Parse(#[from] serde_json::Error),
}

impl Default for World {
    fn default() -> Self {
        Self {
            accounts: BTreeMap::new(),
            machines: BTreeMap::new(),
            port: default_port(),
            page_records_max: None,
            rate_limits: BTreeMap::new(),
            appear_after_ms: 0,
            tags_lag_ms: 0,
            deleted_flicker: false,
        }
    }
}

impl World {
    /// An empty world on port 5439.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads and checks a world in JSON.
    ///
    /// # Errors
    ///
    /// [`WorldError`]: text that is not a world, or names that AWS would not allow.
    pub fn from_json(text: &str) -> Result<Self, WorldError> {
        let world: Self = serde_json::from_str(text)?;
        world.validate()?;
        Ok(world)
    }

    /// The account `id`, made if it is not there.
    pub fn account(&mut self, id: &str) -> &mut Account {
        self.accounts.entry(id.to_owned()).or_default()
    }

    /// Adds or replaces a cluster, enabling its region.
    pub fn put_cluster(&mut self, id: &ClusterId, cluster: Cluster) {
        let region = self
            .account(&id.account)
            .regions
            .entry(id.region.clone())
            .or_default();
        region.clusters.insert(id.id.clone(), cluster);
    }

    /// The cluster `id`, if it exists.
    pub fn cluster(&self, id: &ClusterId) -> Option<&Cluster> {
        self.region(&id.account, &id.region)?.clusters.get(&id.id)
    }

    /// The cluster `id`, to be changed.
    pub fn cluster_mut(&mut self, id: &ClusterId) -> Option<&mut Cluster> {
        let account = self.accounts.get_mut(&id.account)?;
        account
            .regions
            .get_mut(&id.region)?
            .clusters
            .get_mut(&id.id)
    }

    /// Every cluster, ordered by account, region and identifier.
    pub fn cluster_ids(&self) -> Vec<ClusterId> {
        let mut ids = Vec::new();
        for (account, in_account) in &self.accounts {
            for (region, in_region) in &in_account.regions {
                ids.extend(
                    in_region
                        .clusters
                        .keys()
                        .map(|id| ClusterId::new(account, region, id)),
                );
            }
        }
        ids
    }

    /// The AWS host name of a cluster's endpoint, `<id>.<hash>.<region>.redshift.amazonaws.com`.
    pub fn host_name(&self, id: &ClusterId) -> String {
        let end = self.host_end(&id.account, &id.region, "redshift");
        format!("{}.{end}", id.id)
    }

    /// What host names of a service end with: `<hash>.<region>.<service>.amazonaws.com`.
    pub(crate) fn host_end(&self, account: &str, region: &str, service: &str) -> String {
        let given = self
            .region(account, region)
            .and_then(|r| r.host_hash.clone());
        let hash = given.unwrap_or_else(|| host_hash(account, region));
        format!("{hash}.{region}.{service}.{}", dns_suffix(region))
    }

    pub(crate) fn region(&self, account: &str, region: &str) -> Option<&Region> {
        self.accounts.get(account)?.regions.get(region)
    }

    /// Checks names and ranges against AWS's rules.
    ///
    /// # Errors
    ///
    /// The first [`WorldError`] found.
    pub fn validate(&self) -> Result<(), WorldError> {
        let mut keys = BTreeSet::new();
        for (id, account) in &self.accounts {
            if id.len() != 12 || !id.bytes().all(|b| b.is_ascii_digit()) {
                return Err(invalid("accounts", id, "must be 12 digits"));
            }
            account.validate(id, &mut keys)?;
        }
        for (name, machine) in &self.machines {
            machine.validate(name)?;
        }
        if self.page_records_max == Some(0) {
            return Err(invalid("page_records_max", "0", "must be at least 1"));
        }
        check_rate_limits(&self.rate_limits)
    }
}

impl Region {
    pub(crate) fn validate(&self, at: &str) -> Result<(), WorldError> {
        let clusters = format!("{at}.clusters");
        for (name, cluster) in &self.clusters {
            cluster.validate(&clusters, name)?;
        }
        self.validate_listed(at)
    }

    /// As [`Region::validate`], without the clusters.
    pub(crate) fn validate_listed(&self, at: &str) -> Result<(), WorldError> {
        for (name, workgroup) in &self.workgroups {
            workgroup.validate(&format!("{at}.workgroups"), name)?;
        }
        self.validate_rds(at)
    }
}

fn default_port() -> u16 {
    REDSHIFT_PORT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_are_refused() {
        let error = World::from_json(r#"{"accounts": {}, "prot": 1}"#).unwrap_err();
        assert!(
            std::error::Error::source(&error)
                .unwrap()
                .to_string()
                .contains("prot")
        );
    }

    #[test]
    fn unsupported_policy_elements_are_refused_at_load() {
        let world = |statement: &str| {
            World::from_json(&format!(
                r#"{{"accounts": {{"111111111111": {{"users": {{"u": {{"policies":
                [{{"Version": "2012-10-17", "Statement": [{statement}]}}]}}}}}}}}}}"#
            ))
        };
        assert!(world(r#"{"Effect":"Allow","Action":"*","Resource":"*"}"#).is_ok());
        assert!(world(r#"{"Effect":"Allow","NotAction":"*","Resource":"*"}"#).is_err());
        assert!(world(r#"{"Effect":"Allow","Action":"*","NotResource":"*"}"#).is_err());
        let numeric = r#"{"Effect":"Allow","Action":"*","Resource":"*",
            "Condition":{"NumericEquals":{"redshift:DurationSeconds":"900"}}}"#;
        assert!(world(numeric).is_err());
    }

    #[test]
    fn accounts_have_twelve_digits() {
        assert!(World::from_json(r#"{"accounts": {"12": {}}}"#).is_err());
    }

    #[test]
    fn clusters_of_one_region_share_a_host_hash() {
        let world = World::new();
        let host = |id| world.host_name(&ClusterId::new("111111111111", "us-east-1", id));
        let hash = |name: &str| name.split('.').nth(1).unwrap().to_owned();
        assert_eq!(hash(&host("a")), hash(&host("b")));
        assert!(host("a").ends_with(".us-east-1.redshift.amazonaws.com"));
    }
}
