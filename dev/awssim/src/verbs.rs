//! What can be done to a running simulation, in process and over HTTP alike.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::faults::{FAULTS_MAX, Fault};
use crate::fleet::{Endpoint, FleetError, settle};
use crate::state::State;
use crate::world::{AuthCode, Cluster, ClusterId, Role, User, World, WorldError, check_role};

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
    /// There is no such cluster.
    #[error("there is no cluster {0}")]
    UnknownCluster(ClusterId),
    /// There is no such account.
    #[error("there is no account {0}")]
    UnknownAccount(String),
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
        self.try_change(|world| {
            let found = world.accounts.get_mut(account);
            let found = found.ok_or_else(|| SimError::UnknownAccount(account.to_owned()))?;
            found.users.insert(name.to_owned(), user);
            Ok(())
        })
    }

    /// Changes a copy of the world and puts it in place if it is valid.
    fn try_change(
        &self,
        change: impl FnOnce(&mut World) -> Result<(), SimError>,
    ) -> Result<(), SimError> {
        let mut world = self.world();
        let mut changed = world.clone();
        change(&mut changed)?;
        changed.validate()?;
        *world = changed;
        Ok(())
    }
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
        world.put_cluster(id, cluster);
    }
    if let Err(error) = settle(state, id).await {
        take_out(state, id);
        settle(state, id).await?;
        return Err(error.into());
    }
    endpoint(state, id).await
}

pub(crate) async fn remove_cluster(state: &Arc<State>, id: &ClusterId) -> Result<(), SimError> {
    if !take_out(state, id) {
        return Err(SimError::UnknownCluster(id.clone()));
    }
    state.mints.forget(id);
    Ok(settle(state, id).await?)
}

pub(crate) async fn change_cluster(
    state: &Arc<State>,
    id: &ClusterId,
    patch: ClusterPatch,
) -> Result<Endpoint, SimError> {
    {
        let mut world = state.world();
        let found = world.cluster_mut(id);
        let found = found.ok_or_else(|| SimError::UnknownCluster(id.clone()))?;
        let mut changed = found.clone();
        changed.status = patch.status.unwrap_or(changed.status);
        changed.tags = patch.tags.unwrap_or(changed.tags);
        changed.db_users = patch.db_users.unwrap_or(changed.db_users);
        changed.auth = patch.auth.unwrap_or(changed.auth);
        changed.require_ssl = patch.require_ssl.unwrap_or(changed.require_ssl);
        changed.validate("clusters", &id.id)?;
        *found = changed;
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

fn take_out(state: &State, id: &ClusterId) -> bool {
    let mut world = state.world();
    let account = world.accounts.get_mut(&id.account);
    let region = account.and_then(|account| account.regions.get_mut(&id.region));
    region.is_some_and(|region| region.clusters.remove(&id.id).is_some())
}
