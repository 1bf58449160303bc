//! The endpoints that things have: host names and ports, what is spoken there, and whether anything listens.
//!
//! Listings and fronts both ask here, so that what is listed is what answers. An engine that no front speaks has its
//! endpoints listed and nothing behind them: [`Speaks::of_engine`] is the one place that knows.
//!
//! Not here: the data behind an endpoint and who may log in ([`super::behind`]).

use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::{ClusterId, Kind, World, derived_hex, dns_suffix, engine_port};

/// Something in the world: what it is, and its name among its kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceId {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub id: ClusterId,
}

impl ResourceId {
    /// Joins the two parts; nothing is checked.
    pub fn new(kind: Kind, id: &ClusterId) -> Self {
        Self {
            kind,
            id: id.clone(),
        }
    }

    /// A provisioned Redshift cluster.
    pub fn cluster(id: &ClusterId) -> Self {
        Self::new(Kind::Cluster, id)
    }

    /// Something else of the same account and region.
    pub(super) fn beside(&self, kind: Kind, name: &str) -> Self {
        let id = ClusterId::new(&self.id.account, &self.id.region, name);
        Self { kind, id }
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.id)
    }
}

/// What is spoken at an endpoint, and which passwords open it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// MySQL with RDS's IAM tokens.
    Mysql,
    /// As [`Speaks::Mysql`], with RDS Proxy's own errors.
    MysqlProxy,
    /// PostgreSQL with RDS's IAM tokens.
    Postgres,
    /// As [`Speaks::Postgres`], with RDS Proxy's own errors.
    PostgresProxy,
    /// Redshift, with passwords that its API minted.
    Redshift,
}

impl Speaks {
    /// Of an RDS engine; nothing if there is no front for it.
    pub(super) fn of_engine(engine: &str) -> Option<Self> {
        match engine {
            "aurora-mysql" | "mariadb" | "mysql" => Some(Self::Mysql),
            "aurora-postgresql" | "postgres" => Some(Self::Postgres),
            _ => None,
        }
    }

    /// Of RDS Proxy's engine families.
    fn of_family(family: &str) -> Option<Self> {
        match family {
            "MYSQL" => Some(Self::MysqlProxy),
            "POSTGRESQL" => Some(Self::PostgresProxy),
            _ => None,
        }
    }
}

/// An endpoint as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The loopback address that the world names.
    pub(crate) address: Option<Ipv4Addr>,
    /// Whether it accepts connections in this status.
    pub(crate) listens: bool,
    pub(crate) speaks: Speaks,
    /// The host of the endpoint that this one is a further one of. AWS's certificates for further endpoints are those of
    /// the first one.
    pub(crate) further_of: Option<String>,
}

/// All endpoints of something, the first of them its own.
fn with_further(own: Wanted, further: impl Iterator<Item = Wanted>) -> Vec<Wanted> {
    let first = own.host.clone();
    let further = further.map(|it| Wanted {
        further_of: Some(first.clone()),
        ..it
    });
    std::iter::once(own).chain(further).collect()
}

impl World {
    /// The endpoints of something, none if it is not there or is only listed.
    pub(crate) fn wanted(&self, of: &ResourceId) -> Vec<Wanted> {
        match of.kind {
            Kind::Cluster => self.wanted_of_cluster(&of.id),
            Kind::DbCluster => self.wanted_of_db_cluster(&of.id),
            Kind::DbInstance => self.wanted_of_db_instance(&of.id),
            Kind::DbProxy => self.wanted_of_db_proxy(&of.id),
            Kind::Workgroup => self.wanted_of_workgroup(&of.id),
        }
    }

    fn wanted_of_cluster(&self, id: &ClusterId) -> Vec<Wanted> {
        let Some(cluster) = self.cluster(id).filter(|cluster| !cluster.unreachable) else {
            return Vec::new();
        };
        let wanted = |host, address, listens| Wanted {
            host,
            port: cluster.port.unwrap_or(self.port),
            address,
            listens,
            speaks: Speaks::Redshift,
            further_of: None,
        };
        let own = wanted(self.host_name(id), cluster.address, cluster.listens());
        // A native cluster's server has one address.
        let managed = cluster.vpc_endpoints.iter();
        let managed = managed.filter(|(_, it)| cluster.native.is_none() && it.has_address());
        let managed = managed.map(|(name, it)| {
            let label = redshift_endpoint_label(&id.account, &id.region, name);
            let end = self.host_end(&id.account, &id.region, "redshift");
            wanted(
                format!("{label}.{end}"),
                None,
                cluster.listens() && it.is_active(),
            )
        });
        with_further(own, managed)
    }

    fn wanted_of_workgroup(&self, id: &ClusterId) -> Vec<Wanted> {
        let workgroup = self.region(&id.account, &id.region);
        let workgroup = workgroup.and_then(|region| region.workgroups.get(&id.id));
        let Some(workgroup) = workgroup.filter(|it| it.has_endpoint() && !it.unreachable) else {
            return Vec::new();
        };
        let wanted = |label: &str, address, listens| Wanted {
            host: serverless_host(&id.account, &id.region, label),
            port: workgroup.port,
            address,
            listens: listens && workgroup.listens(),
            speaks: Speaks::Redshift,
            further_of: None,
        };
        let own = wanted(&id.id, workgroup.address, true);
        let managed = workgroup.vpc_endpoints.iter();
        let managed = managed
            .filter(|(_, it)| it.has_address())
            .map(|(name, it)| {
                let label = serverless_endpoint_label(&id.account, &id.region, name);
                wanted(&label, None, it.is_active())
            });
        with_further(own, managed)
    }

    fn wanted_of_db_instance(&self, id: &ClusterId) -> Vec<Wanted> {
        let instance = self.region(&id.account, &id.region);
        let instance = instance.and_then(|region| region.db_instances.get(&id.id));
        let Some(instance) = instance.filter(|it| it.has_endpoint() && !it.unreachable) else {
            return Vec::new();
        };
        let wanted = Speaks::of_engine(&instance.engine).map(|speaks| Wanted {
            host: self.rds_host(&id.account, &id.region, "", &id.id),
            port: instance
                .port
                .unwrap_or_else(|| engine_port(&instance.engine)),
            address: instance.address,
            listens: rds_listens(&instance.status),
            speaks,
            further_of: None,
        });
        wanted.into_iter().collect()
    }

    fn wanted_of_db_cluster(&self, id: &ClusterId) -> Vec<Wanted> {
        let cluster = self.region(&id.account, &id.region);
        let cluster = cluster.and_then(|region| region.db_clusters.get(&id.id));
        let Some(cluster) = cluster.filter(|it| it.has_endpoint() && !it.unreachable) else {
            return Vec::new();
        };
        let Some(speaks) = Speaks::of_engine(&cluster.engine) else {
            return Vec::new();
        };
        let wanted = |infix, name: &str, address| Wanted {
            host: self.rds_host(&id.account, &id.region, infix, name),
            port: cluster.port.unwrap_or_else(|| engine_port(&cluster.engine)),
            address,
            listens: rds_listens(&cluster.status),
            speaks,
            further_of: None,
        };
        let own = wanted("cluster-", &id.id, cluster.address);
        let reader = std::iter::once(wanted("cluster-ro-", &id.id, None));
        let custom = cluster.custom_endpoints.iter();
        let custom = custom.map(|name| wanted("cluster-custom-", name, None));
        with_further(own, reader.chain(custom))
    }

    fn wanted_of_db_proxy(&self, id: &ClusterId) -> Vec<Wanted> {
        let proxy = self.region(&id.account, &id.region);
        let proxy = proxy.and_then(|region| region.db_proxies.get(&id.id));
        let Some(proxy) = proxy.filter(|it| !it.unreachable) else {
            return Vec::new();
        };
        let Some(speaks) = Speaks::of_family(&proxy.engine_family) else {
            return Vec::new();
        };
        let wanted = |infix, name: &str, address, listens| Wanted {
            host: self.rds_host(&id.account, &id.region, infix, name),
            port: proxy.port(),
            address,
            listens: listens && rds_listens(&proxy.status),
            speaks,
            further_of: None,
        };
        let own = wanted("proxy-", &id.id, proxy.address, true);
        let others = proxy
            .endpoints
            .iter()
            .map(|(name, it)| wanted("endpoint.proxy-", name, None, rds_listens(&it.status)));
        with_further(own, others)
    }

    /// Whether data of its own is behind MySQL's protocol.
    pub(crate) fn speaks_mysql(&self, of: &ResourceId) -> bool {
        let region = self.region(&of.id.account, &of.id.region);
        let engine = region.and_then(|region| match of.kind {
            Kind::DbCluster => region.db_clusters.get(&of.id.id).map(|it| &it.engine),
            Kind::DbInstance => region.db_instances.get(&of.id.id).map(|it| &it.engine),
            Kind::Cluster | Kind::DbProxy | Kind::Workgroup => None,
        });
        engine.is_some_and(|engine| Speaks::of_engine(engine) == Some(Speaks::Mysql))
    }

    /// The instances of an RDS cluster.
    pub(crate) fn members(&self, of: &ResourceId) -> Vec<ResourceId> {
        let region = self.region(&of.id.account, &of.id.region);
        let region = region.filter(|_| of.kind == Kind::DbCluster);
        let instances = region.into_iter().flat_map(|region| &region.db_instances);
        let members = instances.filter(|(_, it)| it.cluster.as_ref() == Some(&of.id.id));
        members
            .map(|(name, _)| of.beside(Kind::DbInstance, name))
            .collect()
    }

    /// Whether something is there.
    pub(crate) fn exists(&self, of: &ResourceId) -> bool {
        let region = self.region(&of.id.account, &of.id.region);
        region.is_some_and(|region| region.tags(of.kind, &of.id.id).is_some())
    }

    /// Whether there is anything to log in to, now or after a change of status.
    pub fn is_served(&self) -> bool {
        self.resource_ids()
            .iter()
            .any(|of| !self.wanted(of).is_empty())
    }

    /// Everything that can have endpoints.
    pub(crate) fn resource_ids(&self) -> Vec<ResourceId> {
        let mut all = Vec::new();
        for (account, in_account) in &self.accounts {
            for (name, region) in &in_account.regions {
                let id = |kind, id: &String| ResourceId {
                    kind,
                    id: ClusterId::new(account, name, id),
                };
                all.extend(region.clusters.keys().map(|it| id(Kind::Cluster, it)));
                all.extend(region.workgroups.keys().map(|it| id(Kind::Workgroup, it)));
                all.extend(
                    region
                        .db_instances
                        .keys()
                        .map(|it| id(Kind::DbInstance, it)),
                );
                all.extend(region.db_clusters.keys().map(|it| id(Kind::DbCluster, it)));
                all.extend(region.db_proxies.keys().map(|it| id(Kind::DbProxy, it)));
            }
        }
        all
    }

    /// `<name>.<infix><hash>.<region>.rds.amazonaws.com`.
    pub(crate) fn rds_host(&self, account: &str, region: &str, infix: &str, name: &str) -> String {
        format!("{name}.{infix}{}", self.host_end(account, region, "rds"))
    }
}

/// `<label>.<account>.<region>.redshift-serverless.amazonaws.com`.
pub(crate) fn serverless_host(account: &str, region: &str, label: &str) -> String {
    let suffix = dns_suffix(region);
    format!("{label}.{account}.{region}.redshift-serverless.{suffix}")
}

/// The first label of a VPC endpoint that Redshift manages for a workgroup.
pub(crate) fn serverless_endpoint_label(account: &str, region: &str, name: &str) -> String {
    endpoint_label(name, &format!("endpoint/{account}/{region}/{name}"))
}

/// The first label of a VPC endpoint that Redshift manages for a cluster.
pub(crate) fn redshift_endpoint_label(account: &str, region: &str, name: &str) -> String {
    endpoint_label(name, &format!("{account}/{region}/{name}"))
}

fn endpoint_label(name: &str, full: &str) -> String {
    derived_hex(&format!("{name}-endpoint-"), full)
}

/// Whether RDS accepts connections in a status.
pub(super) fn rds_listens(status: &str) -> bool {
    const DOWN: [&str; 10] = [
        "creating",
        "deleting",
        "failed",
        "inaccessible-encryption-credentials",
        "rebooting",
        "restore-error",
        "starting",
        "stopped",
        "stopping",
        "suspended",
    ];
    !DOWN.contains(&status) && !status.starts_with("incompatible-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{DbCluster, DbInstance, DbProxy, DbProxyEndpoint, VpcEndpoint, Workgroup};

    fn id(name: &str) -> ClusterId {
        ClusterId::new("111111111111", "us-east-1", name)
    }

    fn hosts(world: &World, kind: Kind, name: &str) -> Vec<String> {
        let wanted = world.wanted(&ResourceId::new(kind, &id(name)));
        wanted.into_iter().map(|it| it.host).collect()
    }

    #[test]
    fn an_aurora_cluster_has_a_writer_a_reader_and_its_custom_endpoints() {
        let mut world = World::new();
        let orders = DbCluster::with("aurora-postgresql", [], ["batch"]);
        world.put(&id("orders"), orders);
        let hosts = hosts(&world, Kind::DbCluster, "orders");
        assert_eq!(hosts.len(), 3);
        for (host, start) in hosts.iter().zip([
            "orders.cluster-",
            "orders.cluster-ro-",
            "batch.cluster-custom-",
        ]) {
            assert!(
                host.starts_with(start) && host.ends_with(".us-east-1.rds.amazonaws.com"),
                "{host}"
            );
        }
    }

    #[test]
    fn workgroups_and_proxies_have_their_further_endpoints() {
        let mut world = World::new();
        let etl = Workgroup {
            vpc_endpoints: [("private".to_owned(), VpcEndpoint::default())].into(),
            ..Workgroup::default()
        };
        world.put(&id("etl"), etl);
        let gateway = DbProxy {
            endpoints: [("reports".to_owned(), DbProxyEndpoint::default())].into(),
            ..DbProxy::default()
        };
        world.put(&id("gateway"), gateway);
        let serverless = "us-east-1.redshift-serverless.amazonaws.com";
        let found = hosts(&world, Kind::Workgroup, "etl");
        assert_eq!(found[0], format!("etl.111111111111.{serverless}"));
        assert!(found[1].starts_with("private-endpoint-"), "{found:?}");
        let found = hosts(&world, Kind::DbProxy, "gateway");
        assert!(
            found[0].starts_with("gateway.proxy-")
                && found[1].starts_with("reports.endpoint.proxy-")
        );
    }

    #[test]
    fn what_no_front_speaks_is_listed_only() {
        let mut world = World::new();
        world.put(&id("ora"), DbInstance::with("oracle-ee", []));
        assert!(hosts(&world, Kind::DbInstance, "ora").is_empty());
    }

    #[test]
    fn a_stopped_instance_keeps_its_endpoint_and_refuses_tcp() {
        let mut world = World::new();
        let stopped = DbInstance {
            status: "stopped".to_owned(),
            ..DbInstance::default()
        };
        world.put(&id("shop"), stopped);
        let wanted = world.wanted(&ResourceId::new(Kind::DbInstance, &id("shop")));
        assert!(matches!(&wanted[..], [only] if !only.listens));
    }
}
