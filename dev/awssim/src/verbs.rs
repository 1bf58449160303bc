//! What can be done to a running simulation, in process and over HTTP alike.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::faults::{FAULTS_MAX, Fault};
use crate::fleet::{self, Endpoint, FleetError, settle};
use crate::front::{DELAY_MS_MAX, Manner};
use crate::iam::IdentityPolicy;
use crate::state::State;
use crate::tls::{Certificate, DAYS_MAX};
use crate::world::{
    AuthCode, Cluster, ClusterId, Kind, Machine, OidcProvider, RateLimit, Resource, ResourceId,
    Role, User, World, WorldError, check_iam_name, check_rate_limits, check_role, invalid,
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
    /// A machine's token could not be written.
    #[error("could not write {}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
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
    /// There is no such role.
    #[error("there is no role {0}")]
    UnknownRole(String),
    /// There is no such machine.
    #[error("there is no machine {0}")]
    UnknownMachine(String),
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
    /// The own endpoint of every Redshift cluster.
    pub clusters: Vec<Endpoint>,
    /// Every endpoint, these among them.
    pub endpoints: Vec<Endpoint>,
}

impl State {
    pub(crate) async fn info(&self) -> Info {
        let endpoints = self.fleet.endpoints().await;
        let clusters = {
            let world = self.world();
            let is_own = |it: &&Endpoint| {
                it.kind == Kind::Cluster && it.host == world.host_name(&it.cluster)
            };
            endpoints.iter().filter(is_own).cloned().collect()
        };
        Info {
            endpoint_url: self.endpoint_url.clone(),
            ca_pem: self.fleet.ca_file(),
            hosts_file: self.fleet.hosts_file(),
            postgres_home: self.fleet.postgres_home(),
            pid: std::process::id(),
            clusters,
            endpoints,
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

    /// Deletes a role; what its sessions have is of no use from then on.
    pub(crate) fn remove_role(&self, account: &str, name: &str) -> Result<(), SimError> {
        let mut world = self.world();
        let found = world.accounts.get_mut(account);
        let found = found.ok_or_else(|| SimError::UnknownAccount(account.to_owned()))?;
        if found.roles.remove(name).is_none() {
            return Err(SimError::UnknownRole(format!("{account}/{name}")));
        }
        drop(world);
        self.sessions.forget_role(account, name);
        Ok(())
    }

    pub(crate) fn put_oidc_provider(
        &self,
        account: &str,
        issuer: &str,
        provider: OidcProvider,
    ) -> Result<(), SimError> {
        let mut world = self.world();
        let found = world.accounts.get_mut(account);
        let found = found.ok_or_else(|| SimError::UnknownAccount(account.to_owned()))?;
        found.oidc_providers.insert(issuer.to_owned(), provider);
        Ok(())
    }

    pub(crate) fn put_service_control_policies(
        &self,
        account: &str,
        policies: Vec<IdentityPolicy>,
    ) -> Result<(), SimError> {
        let mut world = self.world();
        let found = world.accounts.get_mut(account);
        let found = found.ok_or_else(|| SimError::UnknownAccount(account.to_owned()))?;
        found.service_control_policies = policies;
        Ok(())
    }

    pub(crate) fn put_machine(&self, name: &str, machine: Machine) -> Result<(), SimError> {
        machine.validate(name)?;
        self.machines.forget(name);
        self.world().machines.insert(name.to_owned(), machine);
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

    fn put_resource(&self, id: &ClusterId, resource: Resource) -> Result<(), SimError> {
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
}

/// Adds or replaces something; its endpoints.
pub(crate) async fn put_resource(
    state: &Arc<State>,
    id: &ClusterId,
    resource: Resource,
) -> Result<Vec<Endpoint>, SimError> {
    let of = ResourceId::new(resource.kind(), id);
    state.put_resource(id, resource)?;
    settle(state, &of).await?;
    Ok(state.fleet.endpoints_of(&of).await)
}

/// Makes the endpoints of something show another certificate.
pub(crate) async fn show_certificate(
    state: &State,
    of: &ResourceId,
    certificate: &Certificate,
) -> Result<(), SimError> {
    if certificate.days.abs() > DAYS_MAX {
        let days = certificate.days.to_string();
        let rule = "must be within 10000 days";
        return Err(invalid("certificate.days", &days, rule).into());
    }
    Ok(state.fleet.show(of, certificate).await?)
}

/// Makes the fronts of something treat connections otherwise.
pub(crate) async fn behave(state: &State, of: &ResourceId, manner: Manner) -> Result<(), SimError> {
    if let Manner::Slow { ms } = manner
        && ms > DELAY_MS_MAX
    {
        let rule = "must be a delay of at most 600000";
        return Err(invalid("manner.slow.ms", &ms.to_string(), rule).into());
    }
    Ok(state.fleet.behave(of, manner).await?)
}

/// Sets the status of anything.
pub(crate) async fn set_status(
    state: &Arc<State>,
    of: &ResourceId,
    status: &str,
) -> Result<Vec<Endpoint>, SimError> {
    let is_there = state.world().set_status(of, status);
    if !is_there {
        let (kind, id) = (of.kind, of.id.clone());
        return Err(SimError::Unknown { kind, id });
    }
    settle(state, of).await?;
    Ok(state.fleet.endpoints_of(of).await)
}

/// Gives something another name, as AWS does: its data, ids and tags stay, its host names are others, and passwords that
/// were minted for it are gone.
pub(crate) async fn rename(
    state: &Arc<State>,
    of: &ResourceId,
    name: &str,
) -> Result<Vec<Endpoint>, SimError> {
    if [Kind::DbProxy, Kind::Workgroup].contains(&of.kind) {
        let rule = "is of a kind that is not renamed here";
        return Err(invalid("rename", &of.to_string(), rule).into());
    }
    let to = ResourceId::new(
        of.kind,
        &ClusterId::new(&of.id.account, &of.id.region, name),
    );
    {
        let mut world = state.world();
        let (kind, id) = (of.kind, of.id.clone());
        if !world.exists(of) {
            return Err(SimError::Unknown { kind, id });
        }
        if world.exists(&to) {
            return Err(SimError::Exists(to.id));
        }
        world.rename(of, name)?;
    }
    state.lag.removed(of.kind, &of.id);
    state.mints.forget(of);
    fleet::rename(state, of, &to).await?;
    Ok(state.fleet.endpoints_of(&to).await)
}

/// Moves the endpoints of something to other addresses; where they are then.
pub(crate) async fn readdress(
    state: &Arc<State>,
    of: &ResourceId,
) -> Result<Vec<Endpoint>, SimError> {
    fleet::readdress(state, of).await?;
    Ok(state.fleet.endpoints_of(of).await)
}

/// Takes something out, an RDS cluster's members with it.
pub(crate) async fn remove_resource(
    state: &Arc<State>,
    id: &ClusterId,
    kind: Kind,
) -> Result<(), SimError> {
    let of = ResourceId::new(kind, id);
    let members = state.world().members(&of);
    state.lag.removed(kind, id);
    if !take_out(state, id, kind) {
        let id = id.clone();
        return Err(SimError::Unknown { kind, id });
    }
    state.mints.forget(&of);
    for gone in members.iter().chain([&of]) {
        settle(state, gone).await?;
    }
    Ok(())
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
    let of = ResourceId::cluster(id);
    if let Err(error) = settle(state, &of).await {
        take_out(state, id, Kind::Cluster);
        settle(state, &of).await?;
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
    state.mints.forget(&ResourceId::cluster(id));
    if let Some(cluster) = found.filter(|_| flickers) {
        state.lag.haunt(id, cluster);
    }
    if unreachable {
        return Ok(());
    }
    Ok(settle(state, &ResourceId::cluster(id)).await?)
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
    settle(state, &ResourceId::cluster(id)).await?;
    endpoint(state, id).await
}

/// A cluster's own endpoint.
async fn endpoint(state: &State, id: &ClusterId) -> Result<Endpoint, SimError> {
    let found = own_endpoint(state, &ResourceId::cluster(id)).await;
    found.ok_or_else(|| SimError::UnknownCluster(id.clone()))
}

/// The first endpoint of something: a cluster's own, an RDS cluster's writer, a proxy's default one.
pub(crate) async fn own_endpoint(state: &State, of: &ResourceId) -> Option<Endpoint> {
    let first = state.world().wanted(of).into_iter().next()?;
    let endpoints = state.fleet.endpoints_of(of).await;
    endpoints.into_iter().find(|it| it.host == first.host)
}

/// The endpoint of a cluster that is only listed: no address, nothing listens.
fn unplaced(world: &World, id: &ClusterId) -> Endpoint {
    let port = world.cluster(id).and_then(|cluster| cluster.port);
    Endpoint {
        kind: Kind::Cluster,
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
