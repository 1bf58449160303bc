//! What a region holds besides clusters, to be put and removed by one pair of verbs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ClusterId, DbCluster, DbInstance, DbProxy, Region, Workgroup, World};

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

impl Region {
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
