//! What is behind endpoints: where the data is, who may log in, and how.

use std::collections::BTreeSet;

use super::endpoint::{Speaks, rds_listens};
use super::{
    AuthCode, ClusterId, DbCluster, DbInstance, Kind, ResourceId, World, derived_hex, derived_uuid,
};
use crate::crypto::derived_id;

/// Where data is, and who may get at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) at: ResourceId,
    /// The first one first.
    pub(crate) databases: Vec<String>,
    /// Database users that can log in.
    pub(crate) users: BTreeSet<String>,
    /// Who owns the databases.
    pub(crate) master: String,
    /// Whether it accepts connections; a proxy in front of it may, all the same.
    pub(crate) is_up: bool,
}

/// How a Redshift endpoint takes log-ins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RedshiftTerms {
    pub(crate) auth: AuthCode,
    pub(crate) require_ssl: bool,
}

/// How an RDS endpoint takes log-ins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RdsTerms {
    /// As policies on `rds-db:connect` name it: `db-…`, `cluster-…` or `prx-…`.
    pub(crate) resource_id: String,
    /// Whether IAM authentication is enabled.
    pub(crate) iam: bool,
    pub(crate) require_tls: bool,
}

impl World {
    /// The data behind something's endpoints: of a member its cluster's, of a proxy its target's.
    pub(crate) fn holder(&self, of: &ResourceId) -> Option<Holder> {
        let region = self.region(&of.id.account, &of.id.region)?;
        let name = of.id.id.as_str();
        match of.kind {
            Kind::Cluster => {
                let it = region.clusters.get(name)?;
                Some(Holder {
                    at: of.clone(),
                    databases: it.database_names().map(str::to_owned).collect(),
                    users: with(&it.db_users, &it.master_username),
                    master: it.master_username.clone(),
                    is_up: it.listens(),
                })
            }
            Kind::Workgroup => {
                let it = region.workgroups.get(name)?;
                let first = std::iter::once(&it.db_name);
                Some(Holder {
                    at: of.clone(),
                    databases: first.chain(&it.databases).cloned().collect(),
                    users: with(&it.db_users, &it.admin_username),
                    master: it.admin_username.clone(),
                    is_up: it.listens(),
                })
            }
            Kind::DbCluster => {
                let it = region.db_clusters.get(name)?;
                Some(Holder {
                    at: of.clone(),
                    databases: rds_databases(&it.engine, it.database_name.as_ref(), &it.databases),
                    users: it.db_users.clone(),
                    master: it.master_username.clone(),
                    is_up: rds_listens(&it.status),
                })
            }
            Kind::DbInstance => {
                let it = region.db_instances.get(name)?;
                if let Some(cluster) = &it.cluster {
                    return self.holder(&of.beside(Kind::DbCluster, cluster));
                }
                Some(Holder {
                    at: of.clone(),
                    databases: rds_databases(&it.engine, it.db_name.as_ref(), &it.databases),
                    users: it.db_users.clone(),
                    master: it.master_username.clone(),
                    is_up: rds_listens(&it.status),
                })
            }
            Kind::DbProxy => {
                let target = region.db_proxies.get(name)?.target.as_ref()?;
                let kind = if region.db_clusters.contains_key(target) {
                    Kind::DbCluster
                } else {
                    Kind::DbInstance
                };
                self.holder(&of.beside(kind, target))
            }
        }
    }

    /// Adds a database user to a Redshift cluster or workgroup, as a first log-in does.
    pub(crate) fn add_redshift_user(&mut self, of: &ResourceId, user: &str) {
        let account = self.accounts.get_mut(&of.id.account);
        let Some(region) = account.and_then(|it| it.regions.get_mut(&of.id.region)) else {
            return;
        };
        let users = match of.kind {
            Kind::Cluster => region
                .clusters
                .get_mut(&of.id.id)
                .map(|it| &mut it.db_users),
            Kind::Workgroup => region
                .workgroups
                .get_mut(&of.id.id)
                .map(|it| &mut it.db_users),
            Kind::DbCluster | Kind::DbInstance | Kind::DbProxy => None,
        };
        users.map(|users| users.insert(user.to_owned()));
    }

    /// How a Redshift cluster or workgroup takes log-ins.
    pub(crate) fn redshift_terms(&self, of: &ResourceId) -> Option<RedshiftTerms> {
        let region = self.region(&of.id.account, &of.id.region)?;
        let (auth, require_ssl) = match of.kind {
            Kind::Cluster => region
                .clusters
                .get(&of.id.id)
                .map(|it| (it.auth, it.require_ssl)),
            Kind::Workgroup => region
                .workgroups
                .get(&of.id.id)
                .map(|it| (it.auth, it.require_ssl)),
            Kind::DbCluster | Kind::DbInstance | Kind::DbProxy => None,
        }?;
        Some(RedshiftTerms { auth, require_ssl })
    }

    /// How an RDS instance, cluster or proxy takes log-ins.
    pub(crate) fn rds_terms(&self, of: &ResourceId) -> Option<RdsTerms> {
        let region = self.region(&of.id.account, &of.id.region)?;
        let ClusterId {
            account,
            region: of_region,
            id,
        } = &of.id;
        match of.kind {
            Kind::DbCluster => {
                let it = region.db_clusters.get(id)?;
                Some(RdsTerms {
                    resource_id: db_cluster_id(account, of_region, id, it),
                    iam: it.iam_auth,
                    require_tls: true,
                })
            }
            Kind::DbInstance => {
                let it = region.db_instances.get(id)?;
                if let Some(cluster) = &it.cluster {
                    return self.rds_terms(&of.beside(Kind::DbCluster, cluster));
                }
                Some(RdsTerms {
                    resource_id: db_instance_id(account, of_region, id, it),
                    iam: it.iam_auth,
                    require_tls: true,
                })
            }
            Kind::DbProxy => {
                let it = region.db_proxies.get(id)?;
                Some(RdsTerms {
                    resource_id: db_proxy_id(account, of_region, id),
                    iam: it.iam_auth != "DISABLED",
                    require_tls: it.require_tls,
                })
            }
            Kind::Cluster | Kind::Workgroup => None,
        }
    }
}

/// The id in a cluster's `ClusterNamespaceArn`, unless the world names another.
pub(crate) fn namespace_id(id: &ClusterId) -> String {
    derived_uuid(&id.to_string())
}

/// `DbiResourceId`.
pub(crate) fn db_instance_id(account: &str, region: &str, name: &str, it: &DbInstance) -> String {
    let derived = || derived_id("db-", &format!("{account}/{region}/{name}"));
    it.resource_id.clone().unwrap_or_else(derived)
}

/// `DbClusterResourceId`.
pub(crate) fn db_cluster_id(account: &str, region: &str, name: &str, it: &DbCluster) -> String {
    let derived = || derived_id("cluster-", &format!("{account}/{region}/{name}"));
    it.resource_id.clone().unwrap_or_else(derived)
}

/// What a proxy's ARN ends in.
pub(crate) fn db_proxy_id(account: &str, region: &str, name: &str) -> String {
    derived_hex("prx-", &format!("{account}/{region}/{name}"))
}

/// The databases that were made, and PostgreSQL's own; MySQL has none that a user could open.
fn rds_databases(engine: &str, first: Option<&String>, others: &[String]) -> Vec<String> {
    let own = match Speaks::of_engine(engine) {
        Some(Speaks::Mysql) => None,
        _ => Some("postgres".to_owned()),
    };
    let made = first.into_iter().chain(others);
    let made = made.filter(|name| Some(*name) != own.as_ref());
    made.cloned().chain(own.clone()).collect()
}

fn with(users: &BTreeSet<String>, master: &str) -> BTreeSet<String> {
    let mut users = users.clone();
    users.insert(master.to_owned());
    users
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::DbProxy;

    fn id(name: &str) -> ClusterId {
        ClusterId::new("111111111111", "us-east-1", name)
    }

    #[test]
    fn members_and_proxies_lead_to_the_clusters_data() {
        let mut world = World::new();
        world.put(&id("orders"), DbCluster::default());
        world.put(
            &id("orders-1"),
            DbInstance::member("orders", "aurora-postgresql", true),
        );
        let gateway = DbProxy {
            target: Some("orders".to_owned()),
            ..DbProxy::default()
        };
        world.put(&id("gateway"), gateway);
        let orders = ResourceId::new(Kind::DbCluster, &id("orders"));
        for of in [
            ResourceId::new(Kind::DbInstance, &id("orders-1")),
            ResourceId::new(Kind::DbProxy, &id("gateway")),
        ] {
            assert_eq!(world.holder(&of).unwrap().at, orders);
        }
        let member = world
            .rds_terms(&ResourceId::new(Kind::DbInstance, &id("orders-1")))
            .unwrap();
        assert!(member.resource_id.starts_with("cluster-"));
    }
}
