//! What can be done to a running simulation, in process and over HTTP alike.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::faults::{FAULTS_MAX, Fault};
use crate::fleet::{Endpoint, FleetError, settle};
use crate::state::State;
use crate::world::{
    AuthCode, Cluster, ClusterId, Kind, RateLimit, Resource, Role, User, World, WorldError,
    check_iam_name, check_rate_limits, check_role,
};

/// Why a simulation did not do what it was told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SimError {
    /// A cluster of this name is there.
    #[error("there is a cluster {0} already")]
    Exists(ClusterId),
    /// Its server could not follow.
    #[error("could not bring up the servers")]
    Fleet(#[from] FleetError),
    /// Too many faults are ordered.
    #[error("{FAULTS_MAX} faults are ordered already; clear them first")]
    TooManyFaults,
    /// There is no such workgroup, RDS database or proxy.
    #[error("there is no {kind:?} {id}")]
    Unknown {
        /// What it would be.
        kind: Kind,
        /// Where.
        id: ClusterId,
    },
    /// There is no such cluster.
    #[error("there is no cluster {0}")]
    UnknownCluster(ClusterId),
    /// There is no such account.
    #[error("there is no account {0}")]
    UnknownAccount(String),
    /// The account never had such a region.
    #[error("account {account} has no region {region}")]
    UnknownRegion {
        /// The account.
        account: String,
        /// What was asked for.
        region: String,
    },
    /// The change would break a rule of AWS's.
    #[error("the change breaks a rule")]
    World(#[from] WorldError),
}

/// Changes to a cluster; what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterPatch {
    /// New status; what listens follows it at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// All tags anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, String>>,
    /// All database users anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub db_users: Option<BTreeSet<String>>,
    /// How later log-ins are asked for passwords.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthCode>,
    /// Whether later log-ins need TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub require_ssl: Option<bool>,
}

/// Where a running simulation is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// Value for `AWS_ENDPOINT_URL`.
    pub endpoint_url: String,
    /// File with the CA that signs cluster endpoints, PEM.
    pub ca_pem: PathBuf,
    /// File with `address name` lines, for `NSS_WRAPPER_HOSTS`.
    pub hosts_file: PathBuf,
    /// Folder of the PostgreSQL server behind the fronts, if it was started.
    pub postgres_home: Option<PathBuf>,
    /// Process id.
    pub pid: u32,
    /// Every cluster's endpoint.
    pub clusters: Vec<Endpoint>,
}

impl State {
    pub(crate) async fn info(&self) -> Info {
        Info {
            endpoint_url: self.endpoint_url.clone(),
            ca_pem: self.fleet.ca_file(),
            hosts_file: self.fleet.hosts_file(),
            postgres_home: self.fleet.postgres_home(),
            pid: std::process::id(),
            clusters: self.fleet.endpoints().await,
        }
    }

    pub(crate) fn order_fault(&self, fault: Fault) -> Result<(), SimError> {
        if self.faults.order(fault) {
            Ok(())
        } else {
            Err(SimError::TooManyFaults)
        }
    }

    pub(crate) fn put_role(&self, account: &str, name: &str, role: Role) -> Result<(), SimError> {
        check_role("roles", name, &role)?;
        let mut world = self.world();
        let found = world.accounts.get_mut(account);
        let found = found.ok_or_else(|| SimError::UnknownAccount(account.to_owned()))?;
        found.roles.insert(name.to_owned(), role);
        Ok(())
    }

    pub(crate) fn put_user(&self, account: &str, name: &str, user: User) -> Result<(), SimError> {
        check_iam_name("users", name)?;
        let mut world = self.world();
        check_keys(&world, account, name, &user)?;
        let found = world.accounts.get_mut(account);
        let found = found.ok_or_else(|| SimError::UnknownAccount(account.to_owned()))?;
        found.users.insert(name.to_owned(), user);
        Ok(())
    }

    pub(crate) fn set_region_enabled(
        &self,
        account: &str,
        region: &str,
        enabled: bool,
    ) -> Result<(), SimError> {
        let mut world = self.world();
        let found = world.accounts.get_mut(account);
        let found = found.ok_or_else(|| SimError::UnknownAccount(account.to_owned()))?;
        let found = found.regions.get_mut(region);
        let found = found.ok_or_else(|| SimError::UnknownRegion {
            account: account.to_owned(),
            region: region.to_owned(),
        })?;
        found.disabled = !enabled;
        Ok(())
    }

    pub(crate) fn set_rate_limits(
        &self,
        limits: BTreeMap<String, RateLimit>,
    ) -> Result<(), SimError> {
        check_rate_limits(&limits)?;
        self.world().rate_limits.clone_from(&limits);
        self.limits.set(limits);
        Ok(())
    }

    pub(crate) fn put_resource(&self, id: &ClusterId, resource: Resource) -> Result<(), SimError> {
        let (kind, now) = (resource.kind(), self.clock.now());
        let mut world = self.world();
        let (appear_ms, tags_ms) = (world.appear_after_ms, world.tags_lag_ms);
        let account = world.accounts.get_mut(&id.account);
        let account = account.ok_or_else(|| SimError::UnknownAccount(id.account.clone()))?;
        let region = account.regions.entry(id.region.clone()).or_default();
        let before = region.tags(kind, &id.id).cloned();
        let mut changed = region.without_clusters();
        changed.put(&id.id, resource.clone());
        changed.validate_listed(&format!("{}.{}", id.account, id.region))?;
        region.put(&id.id, resource);
        match before {
            None => self.lag.added(kind, id, now, appear_ms),
            Some(old) if region.tags(kind, &id.id) != Some(&old) => {
                self.lag.retagged(kind, id, old, now, tags_ms);
            }
            Some(_) => {}
        }
        Ok(())
    }

    pub(crate) fn remove_resource(&self, id: &ClusterId, kind: Kind) -> Result<(), SimError> {
        self.lag.removed(kind, id);
        if take_out(self, id, kind) {
            return Ok(());
        }
        let id = id.clone();
        Err(SimError::Unknown { kind, id })
    }
}

/// No other user may have one of these keys.
fn check_keys(world: &World, account: &str, name: &str, user: &User) -> Result<(), SimError> {
    let mine: BTreeSet<&str> = user.access_keys.iter().map(|key| key.id.as_str()).collect();
    for (other_account, in_account) in &world.accounts {
        for (other, user) in &in_account.users {
            let same = other_account == account && other == name;
            let taken = |id: &&str| mine.contains(id);
            let mut theirs = user.access_keys.iter().map(|key| key.id.as_str());
            if let Some(id) = theirs.find(taken).filter(|_| !same) {
                return Err(WorldError::AccessKeyTwice { id: id.to_owned() }.into());
            }
        }
    }
    Ok(())
}

pub(crate) async fn add_cluster(
    state: &Arc<State>,
    id: &ClusterId,
    cluster: Cluster,
) -> Result<Endpoint, SimError> {
    cluster.validate("clusters", &id.id)?;
    {
        let mut world = state.world();
        if !world.accounts.contains_key(&id.account) {
            return Err(SimError::UnknownAccount(id.account.clone()));
        }
        if world.cluster(id).is_some() {
            return Err(SimError::Exists(id.clone()));
        }
        let unreachable = cluster.unreachable;
        world.put_cluster(id, cluster);
        let (now, ms) = (state.clock.now(), world.appear_after_ms);
        state.lag.added(Kind::Cluster, id, now, ms);
        if unreachable {
            return Ok(unplaced(&world, id));
        }
    }
    if let Err(error) = settle(state, id).await {
        take_out(state, id, Kind::Cluster);
        settle(state, id).await?;
        return Err(error.into());
    }
    endpoint(state, id).await
}

pub(crate) async fn remove_cluster(state: &Arc<State>, id: &ClusterId) -> Result<(), SimError> {
    let (found, flickers) = {
        let world = state.world();
        (world.cluster(id).cloned(), world.deleted_flicker)
    };
    let unreachable = found.as_ref().is_some_and(|cluster| cluster.unreachable);
    if !take_out(state, id, Kind::Cluster) {
        return Err(SimError::UnknownCluster(id.clone()));
    }
    state.lag.removed(Kind::Cluster, id);
    state.mints.forget(id);
    if let Some(cluster) = found.filter(|_| flickers) {
        state.lag.haunt(id, cluster);
    }
    if unreachable {
        return Ok(());
    }
    Ok(settle(state, id).await?)
}

pub(crate) async fn change_cluster(
    state: &Arc<State>,
    id: &ClusterId,
    patch: ClusterPatch,
) -> Result<Endpoint, SimError> {
    {
        let mut world = state.world();
        let (now, ms) = (state.clock.now(), world.tags_lag_ms);
        let found = world.cluster_mut(id);
        let found = found.ok_or_else(|| SimError::UnknownCluster(id.clone()))?;
        let mut changed = found.clone();
        changed.status = patch.status.unwrap_or(changed.status);
        changed.tags = patch.tags.unwrap_or(changed.tags);
        changed.db_users = patch.db_users.unwrap_or(changed.db_users);
        changed.auth = patch.auth.unwrap_or(changed.auth);
        changed.require_ssl = patch.require_ssl.unwrap_or(changed.require_ssl);
        changed.validate("clusters", &id.id)?;
        let unreachable = changed.unreachable;
        let before = std::mem::replace(found, changed);
        if before.tags != found.tags {
            let old = before.tags;
            state.lag.retagged(Kind::Cluster, id, old, now, ms);
        }
        if unreachable {
            return Ok(unplaced(&world, id));
        }
    }
    settle(state, id).await?;
    endpoint(state, id).await
}

async fn endpoint(state: &State, id: &ClusterId) -> Result<Endpoint, SimError> {
    let endpoints = state.fleet.endpoints().await;
    let found = endpoints
        .into_iter()
        .find(|endpoint| endpoint.cluster == *id);
    found.ok_or_else(|| SimError::UnknownCluster(id.clone()))
}

/// The endpoint of a cluster that is only listed: no address, nothing listens.
fn unplaced(world: &World, id: &ClusterId) -> Endpoint {
    let port = world.cluster(id).and_then(|cluster| cluster.port);
    Endpoint {
        cluster: id.clone(),
        host: world.host_name(id),
        address: std::net::Ipv4Addr::UNSPECIFIED,
        port: port.unwrap_or(world.port),
        listening: false,
    }
}

fn take_out(state: &State, id: &ClusterId, kind: Kind) -> bool {
    let mut world = state.world();
    let account = world.accounts.get_mut(&id.account);
    let region = account.and_then(|account| account.regions.get_mut(&id.region));
    region.is_some_and(|region| region.take_out(kind, &id.id))
}
