//! What a region holds besides clusters, to be put and removed by one pair of verbs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    ClusterId, DbCluster, DbInstance, DbProxy, Region, ResourceId, Workgroup, World, WorldError,
    db_cluster_id, db_instance_id, namespace_id,
};

/// A kind of thing that listings show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A provisioned Redshift cluster.
    Cluster,
    /// A Redshift Serverless workgroup.
    Workgroup,
    /// An RDS instance.
    DbInstance,
    /// An RDS cluster.
    DbCluster,
    /// An RDS proxy.
    DbProxy,
}

impl Kind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Workgroup => "workgroup",
            Self::DbInstance => "db_instance",
            Self::DbCluster => "db_cluster",
            Self::DbProxy => "db_proxy",
        }
    }
}

/// Anything but a provisioned Redshift cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// An RDS cluster.
    DbCluster(DbCluster),
    /// An RDS instance.
    DbInstance(DbInstance),
    /// An RDS proxy.
    DbProxy(DbProxy),
    /// A Redshift Serverless workgroup.
    Workgroup(Workgroup),
}

impl Resource {
    /// What it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::DbCluster(_) => Kind::DbCluster,
            Self::DbInstance(_) => Kind::DbInstance,
            Self::DbProxy(_) => Kind::DbProxy,
            Self::Workgroup(_) => Kind::Workgroup,
        }
    }
}

macro_rules! from {
    ($($of:ident),*) => {$(
        impl From<$of> for Resource {
            fn from(of: $of) -> Self {
                Self::$of(of)
            }
        }
    )*};
}
from!(DbCluster, DbInstance, DbProxy, Workgroup);

impl World {
    /// Adds or replaces a workgroup, RDS instance, cluster or proxy, enabling its region.
    pub fn put(&mut self, id: &ClusterId, resource: impl Into<Resource>) {
        let regions = &mut self.account(&id.account).regions;
        let region = regions.entry(id.region.clone()).or_default();
        region.put(&id.id, resource.into());
    }
}

impl World {
    /// Sets the status of something; false if it is not there.
    pub(crate) fn set_status(&mut self, of: &ResourceId, status: &str) -> bool {
        let name = &of.id.id;
        let account = self.accounts.get_mut(&of.id.account);
        let Some(region) = account.and_then(|it| it.regions.get_mut(&of.id.region)) else {
            return false;
        };
        let found = match of.kind {
            Kind::Cluster => region.clusters.get_mut(name).map(|it| &mut it.status),
            Kind::DbCluster => region.db_clusters.get_mut(name).map(|it| &mut it.status),
            Kind::DbInstance => region.db_instances.get_mut(name).map(|it| &mut it.status),
            Kind::DbProxy => region.db_proxies.get_mut(name).map(|it| &mut it.status),
            Kind::Workgroup => region.workgroups.get_mut(name).map(|it| &mut it.status),
        };
        found.map(|found| status.clone_into(found)).is_some()
    }

    /// Gives something that is there another name. Ids that were derived from the old one stay.
    pub(crate) fn rename(&mut self, of: &ResourceId, to: &str) -> Result<(), WorldError> {
        let ClusterId {
            account,
            region: in_region,
            id: from,
        } = &of.id;
        let found = self.accounts.get_mut(account);
        let Some(region) = found.and_then(|it| it.regions.get_mut(in_region)) else {
            return Ok(());
        };
        let mut changed = region.clone();
        changed.keep_ids(account, in_region, from);
        changed.move_to(of.kind, from, to);
        changed.validate(&format!("{account}.{in_region}"))?;
        *region = changed;
        Ok(())
    }
}

impl Region {
    /// Writes down the ids that are derived from a name.
    fn keep_ids(&mut self, account: &str, region: &str, name: &str) {
        if let Some(it) = self.clusters.get_mut(name) {
            let id = ClusterId::new(account, region, name);
            it.namespace_id.get_or_insert_with(|| namespace_id(&id));
        }
        if let Some(it) = self.db_instances.get_mut(name) {
            it.resource_id = Some(db_instance_id(account, region, name, it));
        }
        if let Some(it) = self.db_clusters.get_mut(name) {
            it.resource_id = Some(db_cluster_id(account, region, name, it));
        }
    }

    /// Moves something to another name, and what refers to it with it.
    fn move_to(&mut self, kind: Kind, from: &str, to: &str) {
        match kind {
            Kind::Cluster => rekey(&mut self.clusters, from, to),
            Kind::DbCluster => {
                rekey(&mut self.db_clusters, from, to);
                for it in self.db_instances.values_mut() {
                    refer(&mut it.cluster, from, to);
                }
            }
            Kind::DbInstance => rekey(&mut self.db_instances, from, to),
            Kind::DbProxy => rekey(&mut self.db_proxies, from, to),
            Kind::Workgroup => rekey(&mut self.workgroups, from, to),
        }
        if [Kind::DbCluster, Kind::DbInstance].contains(&kind) {
            for it in self.db_proxies.values_mut() {
                refer(&mut it.target, from, to);
            }
        }
    }

    /// A copy of everything but the clusters, of which there may be many.
    pub(crate) fn without_clusters(&self) -> Self {
        Self {
            clusters: BTreeMap::new(),
            workgroups: self.workgroups.clone(),
            db_instances: self.db_instances.clone(),
            db_clusters: self.db_clusters.clone(),
            db_proxies: self.db_proxies.clone(),
            kms_keys: self.kms_keys.clone(),
            unknown_engines: self.unknown_engines.clone(),
            disabled: self.disabled,
            host_hash: self.host_hash.clone(),
        }
    }

    pub(crate) fn put(&mut self, name: &str, resource: Resource) {
        let name = name.to_owned();
        match resource {
            Resource::DbCluster(it) => drop(self.db_clusters.insert(name, it)),
            Resource::DbInstance(it) => drop(self.db_instances.insert(name, it)),
            Resource::DbProxy(it) => drop(self.db_proxies.insert(name, it)),
            Resource::Workgroup(it) => drop(self.workgroups.insert(name, it)),
        }
    }

    /// Takes something out, a cluster's members with it; false if it was not there.
    pub(crate) fn take_out(&mut self, kind: Kind, name: &str) -> bool {
        match kind {
            Kind::Cluster => self.clusters.remove(name).is_some(),
            Kind::DbCluster => {
                let is_member = |it: &DbInstance| it.cluster.as_deref() == Some(name);
                self.db_instances.retain(|_, instance| !is_member(instance));
                self.db_clusters.remove(name).is_some()
            }
            Kind::DbInstance => self.db_instances.remove(name).is_some(),
            Kind::DbProxy => self.db_proxies.remove(name).is_some(),
            Kind::Workgroup => self.workgroups.remove(name).is_some(),
        }
    }

    /// The tags of something that is there.
    pub(crate) fn tags(&self, kind: Kind, name: &str) -> Option<&BTreeMap<String, String>> {
        match kind {
            Kind::Cluster => self.clusters.get(name).map(|it| &it.tags),
            Kind::DbCluster => self.db_clusters.get(name).map(|it| &it.tags),
            Kind::DbInstance => self.db_instances.get(name).map(|it| &it.tags),
            Kind::DbProxy => self.db_proxies.get(name).map(|it| &it.tags),
            Kind::Workgroup => self.workgroups.get(name).map(|it| &it.tags),
        }
    }
}

fn rekey<T>(map: &mut BTreeMap<String, T>, from: &str, to: &str) {
    if let Some(it) = map.remove(from) {
        map.insert(to.to_owned(), it);
    }
}

fn refer(reference: &mut Option<String>, from: &str, to: &str) {
    if reference.as_deref() == Some(from) {
        *reference = Some(to.to_owned());
    }
}
