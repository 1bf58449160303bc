//! RDS instances and clusters: DescribeDBInstances, DescribeDBClusters, ListTagsForResource.

use std::collections::BTreeMap;

use super::error::ApiError;
use super::form::Filter;
use super::page::{MARKER, Paging};
use super::xml::Xml;
use super::{Call, Paged, rds_proxy, yes_no};
use crate::lag::View;
use crate::state::State;
use crate::world::{
    DbCluster, DbInstance, ENGINES, Kind, Region, World, arn, db_cluster_id, db_instance_id,
    engine_port,
};

/// Where a request looks, and what writing takes.
pub(super) struct Place<'a> {
    pub(super) account: &'a str,
    pub(super) region: &'a str,
    host_end: String,
    view: View<'a>,
}

impl<'a> Place<'a> {
    pub(super) fn new(state: &'a State, world: &World, call: &'a Call<'_>) -> Self {
        let (account, region) = (call.caller.account(), call.region);
        Self {
            account,
            region,
            host_end: world.host_end(account, region, "rds"),
            view: state.lag.view(state.clock.now()),
        }
    }

    pub(super) fn of<'w>(&self, world: &'w World) -> Option<&'w Region> {
        world.region(self.account, self.region)
    }

    pub(super) fn hides(&self, kind: Kind, name: &str) -> bool {
        self.view.hides(kind, self.account, self.region, name)
    }

    pub(super) fn tags<'t>(
        &'t self,
        kind: Kind,
        name: &str,
        tags: &'t BTreeMap<String, String>,
    ) -> &'t BTreeMap<String, String> {
        self.view.tags(kind, self.account, self.region, name, tags)
    }

    pub(super) fn arn(&self, resource: &str) -> String {
        arn("rds", self.region, self.account, resource)
    }

    /// `<name>.<infix><hash>.<region>.rds.amazonaws.com`.
    pub(super) fn host(&self, name: &str, infix: &str) -> String {
        format!("{name}.{infix}{}", self.host_end)
    }

    /// Whether `wanted` names something by identifier or by ARN; neither minds case.
    fn names(&self, wanted: &str, kind: &str, name: &str) -> bool {
        wanted.eq_ignore_ascii_case(name)
            || wanted.eq_ignore_ascii_case(&self.arn(&format!("{kind}:{name}")))
    }
}

/// Refuses filters that RDS does not have, and engines that the region does not have.
fn check_filters(
    filters: &[Filter],
    known: &[&str],
    region: Option<&Region>,
) -> Result<(), ApiError> {
    for filter in filters {
        if !known.contains(&filter.name.as_str()) {
            let message = format!("Unrecognized filter name: {}", filter.name);
            return Err(ApiError::invalid_parameter(message));
        }
        if filter.values.is_empty() {
            return Err(ApiError::invalid_parameter(format!(
                "Filter {} has no value",
                filter.name
            )));
        }
        let unknown = |engine: &&String| {
            let here = region.is_none_or(|region| !region.unknown_engines.contains(*engine));
            !(here && ENGINES.contains(&engine.as_str()))
        };
        let engine = filter.values.iter().find(unknown);
        if let Some(engine) = engine.filter(|_| filter.name == "engine") {
            let message = format!("Unrecognized engine name: {engine}");
            return Err(ApiError::invalid_parameter(message));
        }
    }
    Ok(())
}

/// Each filter needs one of its values.
fn fits(filters: &[Filter], one: impl Fn(&str, &str) -> bool) -> bool {
    filters
        .iter()
        .all(|filter| filter.values.iter().any(|value| one(&filter.name, value)))
}

pub(super) fn describe_instances(state: &State, call: &Call<'_>) -> Result<Xml, ApiError> {
    let wanted = call.form.non_empty("DBInstanceIdentifier");
    call.require(state, &resource_arn(call, "db", wanted))?;
    let filters = call.form.filters();
    let world = state.world();
    let paging = Paging::read(call, &world, &MARKER)?;
    let place = Place::new(state, &world, call);
    let region = place.of(&world);
    let known = [
        "db-cluster-id",
        "db-instance-id",
        "dbi-resource-id",
        "engine",
    ];
    check_filters(&filters, &known, region)?;
    let rest = region.map(|region| paging.rest(&region.db_instances));
    let shown = |(name, instance): &(&String, &DbInstance)| {
        let by = |filter: &str, value: &str| match filter {
            "db-cluster-id" => {
                let cluster = instance.cluster.as_deref();
                cluster.is_some_and(|cluster| place.names(value, "cluster", cluster))
            }
            "db-instance-id" => place.names(value, "db", name),
            "dbi-resource-id" => {
                db_instance_id(place.account, place.region, name, instance) == value
            }
            _ => instance.engine == value,
        };
        wanted.is_none_or(|wanted| place.names(wanted, "db", name))
            && !place.hides(Kind::DbInstance, name)
            && fits(&filters, by)
    };
    let (page, marker) = paging.cut(rest.into_iter().flatten().filter(shown));
    if let Some(id) = wanted.filter(|_| page.is_empty() && call.paged != Paged::Empty) {
        return Err(not_found("DBInstanceNotFound", "DBInstance", id));
    }
    let mut xml = Xml::default();
    xml.node("DBInstances", |xml| {
        for (name, instance) in page {
            xml.node("DBInstance", |xml| {
                write_instance(xml, &place, name, instance);
            });
        }
    });
    xml.maybe("Marker", marker.as_deref());
    Ok(xml)
}

fn write_instance(xml: &mut Xml, place: &Place<'_>, name: &str, instance: &DbInstance) {
    xml.leaf("DBInstanceIdentifier", name);
    xml.leaf("DBInstanceClass", "db.m6g.large");
    xml.leaf("Engine", &instance.engine);
    xml.leaf("DBInstanceStatus", &instance.status);
    xml.leaf("MasterUsername", &instance.master_username);
    xml.maybe("DBName", instance.db_name.as_deref());
    if instance.has_endpoint() {
        let port = instance
            .port
            .unwrap_or_else(|| engine_port(&instance.engine));
        xml.node("Endpoint", |xml| {
            xml.leaf("Address", place.host(name, ""));
            xml.leaf("Port", port.to_string());
        });
    }
    xml.leaf("AvailabilityZone", format!("{}a", place.region));
    xml.node("DBSubnetGroup", |xml| {
        xml.leaf("DBSubnetGroupName", "default");
        xml.leaf("VpcId", &instance.vpc_id);
        xml.leaf("SubnetGroupStatus", "Complete");
    });
    xml.leaf("MultiAZ", yes_no(instance.multi_az));
    xml.leaf("EngineVersion", &instance.engine_version);
    xml.leaf("PubliclyAccessible", yes_no(instance.publicly_accessible));
    xml.maybe("DBClusterIdentifier", instance.cluster.as_deref());
    xml.leaf("StorageEncrypted", "true");
    xml.leaf(
        "DbiResourceId",
        db_instance_id(place.account, place.region, name, instance),
    );
    xml.leaf("DBInstanceArn", place.arn(&format!("db:{name}")));
    xml.leaf(
        "IAMDatabaseAuthenticationEnabled",
        yes_no(instance.iam_auth),
    );
    xml.tags(
        "TagList",
        place.tags(Kind::DbInstance, name, &instance.tags),
    );
}

pub(super) fn describe_clusters(state: &State, call: &Call<'_>) -> Result<Xml, ApiError> {
    let wanted = call.form.non_empty("DBClusterIdentifier");
    call.require(state, &resource_arn(call, "cluster", wanted))?;
    let filters = call.form.filters();
    let world = state.world();
    let paging = Paging::read(call, &world, &MARKER)?;
    let place = Place::new(state, &world, call);
    let region = place.of(&world);
    check_filters(
        &filters,
        &["db-cluster-id", "db-cluster-resource-id", "engine"],
        region,
    )?;
    let rest = region.map(|region| paging.rest(&region.db_clusters));
    let shown = |(name, cluster): &(&String, &DbCluster)| {
        let by = |filter: &str, value: &str| match filter {
            "db-cluster-id" => place.names(value, "cluster", name),
            "db-cluster-resource-id" => {
                db_cluster_id(place.account, place.region, name, cluster) == value
            }
            _ => cluster.engine == value,
        };
        wanted.is_none_or(|wanted| place.names(wanted, "cluster", name))
            && !place.hides(Kind::DbCluster, name)
            && fits(&filters, by)
    };
    let (page, marker) = paging.cut(rest.into_iter().flatten().filter(shown));
    if let Some(id) = wanted.filter(|_| page.is_empty() && call.paged != Paged::Empty) {
        return Err(not_found("DBClusterNotFoundFault", "DBCluster", id));
    }
    let members = members(region);
    let mut xml = Xml::default();
    xml.maybe("Marker", marker.as_deref());
    xml.node("DBClusters", |xml| {
        for (name, cluster) in page {
            let members = members.get(name.as_str()).map_or(&[][..], Vec::as_slice);
            xml.node("DBCluster", |xml| {
                write_cluster(xml, &place, name, cluster);
                write_members(xml, members);
            });
        }
    });
    Ok(xml)
}

/// The instances of each cluster, in order of their names.
fn members(region: Option<&Region>) -> BTreeMap<&str, Vec<(&str, bool)>> {
    let mut members: BTreeMap<&str, Vec<(&str, bool)>> = BTreeMap::new();
    let instances = region.into_iter().flat_map(|region| &region.db_instances);
    for (name, instance) in instances {
        if let Some(cluster) = &instance.cluster {
            let of_cluster = members.entry(cluster).or_default();
            of_cluster.push((name, instance.writer));
        }
    }
    members
}

fn write_members(xml: &mut Xml, members: &[(&str, bool)]) {
    xml.node("DBClusterMembers", |xml| {
        for (name, writer) in members {
            xml.node("DBClusterMember", |xml| {
                xml.leaf("DBInstanceIdentifier", name);
                xml.leaf("IsClusterWriter", yes_no(*writer));
            });
        }
    });
}

fn write_cluster(xml: &mut Xml, place: &Place<'_>, name: &str, cluster: &DbCluster) {
    xml.leaf("DBClusterIdentifier", name);
    xml.leaf("Status", &cluster.status);
    xml.maybe("DatabaseName", cluster.database_name.as_deref());
    xml.leaf("MasterUsername", &cluster.master_username);
    xml.leaf("Engine", &cluster.engine);
    xml.leaf("EngineVersion", &cluster.engine_version);
    xml.leaf("EngineMode", &cluster.engine_mode);
    if cluster.has_endpoint() {
        let port = cluster.port.unwrap_or_else(|| engine_port(&cluster.engine));
        xml.leaf("Endpoint", place.host(name, "cluster-"));
        xml.leaf("ReaderEndpoint", place.host(name, "cluster-ro-"));
        xml.leaf("Port", port.to_string());
        xml.node("CustomEndpoints", |xml| {
            for custom in &cluster.custom_endpoints {
                xml.leaf("member", place.host(custom, "cluster-custom-"));
            }
        });
    }
    xml.leaf("DBSubnetGroup", "default");
    xml.leaf("MultiAZ", yes_no(cluster.multi_az));
    xml.leaf("StorageEncrypted", "true");
    xml.leaf(
        "DbClusterResourceId",
        db_cluster_id(place.account, place.region, name, cluster),
    );
    xml.leaf("DBClusterArn", place.arn(&format!("cluster:{name}")));
    xml.leaf("IAMDatabaseAuthenticationEnabled", yes_no(cluster.iam_auth));
    xml.tags("TagList", place.tags(Kind::DbCluster, name, &cluster.tags));
}

/// Answers ListTagsForResource for instances, clusters and proxies, by ARN.
pub(super) fn list_tags(state: &State, call: &Call<'_>) -> Result<Xml, ApiError> {
    let wanted = call.form.required("ResourceName")?;
    call.require(state, wanted)?;
    let world = state.world();
    let place = Place::new(state, &world, call);
    let resource = wanted.strip_prefix(&place.arn(""));
    let (kind, name) = resource
        .and_then(|resource| resource.split_once(':'))
        .ok_or_else(|| ApiError::invalid_parameter(format!("Invalid resource name: {wanted}")))?;
    let (kind, code) = match kind {
        "cluster" => (Kind::DbCluster, "DBClusterNotFoundFault"),
        "db" => (Kind::DbInstance, "DBInstanceNotFound"),
        "db-proxy" => (Kind::DbProxy, "DBProxyNotFoundFault"),
        other => return Err(ApiError::not_simulated(&format!("tags of {other}"))),
    };
    let region = place.of(&world);
    let name = match kind {
        Kind::DbProxy => region.and_then(|region| rds_proxy::name_of(&place, region, name)),
        _ => Some(name),
    };
    let found = name.filter(|name| !place.hides(kind, name));
    let tags = found.and_then(|name| Some((name, region?.tags(kind, name)?)));
    let (name, tags) = tags.ok_or_else(|| not_found(code, "Resource", wanted))?;
    let mut xml = Xml::default();
    xml.tags("TagList", place.tags(kind, name, tags));
    Ok(xml)
}

/// The ARN that a describe call is authorised on.
fn resource_arn(call: &Call<'_>, kind: &str, wanted: Option<&str>) -> String {
    match wanted {
        Some(arn) if arn.starts_with("arn:") => arn.to_owned(),
        Some(name) => call.arn("rds", &format!("{kind}:{name}")),
        None => call.arn("rds", &format!("{kind}:*")),
    }
}

pub(super) fn not_found(code: &str, what: &str, name: &str) -> ApiError {
    ApiError::new(404, code, format!("{what} {name} not found."))
}
