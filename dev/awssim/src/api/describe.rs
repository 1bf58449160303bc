//! Redshift's listings: clusters, the VPC endpoints that Redshift manages, custom domains.

use std::collections::BTreeMap;

use super::error::ApiError;
use super::page::{MARKER, Paging};
use super::xml::Xml;
use super::{Call, yes_no};
use crate::lag::View;
use crate::state::State;
use crate::world::{
    Cluster, ClusterId, Kind, VpcEndpoint, World, arn, derived_hex, derived_uuid, namespace_id,
    redshift_endpoint_label,
};

/// What writing a cluster takes besides the cluster.
struct Shown<'a> {
    account: &'a str,
    region: &'a str,
    host_end: String,
    port: u16,
    view: View<'a>,
}

impl<'a> Shown<'a> {
    fn new(state: &'a State, world: &World, call: &'a Call<'_>) -> Self {
        let (account, region) = (call.caller.account(), call.region);
        Self {
            account,
            region,
            host_end: world.host_end(account, region, "redshift"),
            port: world.port,
            view: state.lag.view(state.clock.now()),
        }
    }

    fn hides(&self, name: &str) -> bool {
        self.view
            .hides(Kind::Cluster, self.account, self.region, name)
    }
}

/// Answers DescribeClusters.
pub(super) fn describe_clusters(state: &State, call: &Call<'_>) -> Result<Xml, ApiError> {
    let wanted = call.form.non_empty("ClusterIdentifier");
    let resource = format!("cluster:{}", wanted.unwrap_or("*"));
    call.require(state, &call.arn("redshift", &resource))?;
    let world = state.world();
    let paging = Paging::read(call, &world, &MARKER)?;
    let shown = Shown::new(state, &world, call);
    let region = world.region(shown.account, shown.region);
    let mut xml = Xml::default();
    if let Some(id) = wanted {
        if call.form.non_empty("Marker").is_some() {
            let message = "ClusterIdentifier and Marker can not be given together";
            return Err(ApiError::new(400, "InvalidParameterCombination", message));
        }
        let found = region.and_then(|region| region.clusters.get(id));
        let found = found.filter(|_| !shown.hides(id));
        let cluster = found.ok_or_else(|| ApiError::cluster_not_found(id))?;
        xml.node("Clusters", |xml| write_cluster(xml, &shown, id, cluster));
        return Ok(xml);
    }
    let (keys, values) = (call.form.list("TagKeys"), call.form.list("TagValues"));
    let rest = region.map(|region| paging.rest(&region.clusters));
    let fits = |(name, cluster): &(&String, &Cluster)| {
        !shown.hides(name) && has_tags(&shown, name, cluster, &keys, &values)
    };
    let ghosts = state
        .lag
        .ghosts(shown.account, shown.region, paging.is_first());
    let rest_of_ghosts = paging.rest(&ghosts);
    let rest = rest.into_iter().flatten();
    let rest: Box<dyn Iterator<Item = (&String, &Cluster)>> = if ghosts.is_empty() {
        Box::new(rest)
    } else {
        let merged: BTreeMap<_, _> = rest_of_ghosts.chain(rest).collect();
        Box::new(merged.into_iter())
    };
    let (page, marker) = paging.cut(rest.filter(fits));
    xml.maybe("Marker", marker.as_deref());
    xml.node("Clusters", |xml| {
        for (name, cluster) in page {
            write_cluster(xml, &shown, name, cluster);
        }
    });
    Ok(xml)
}

/// One tag has to have one of the keys and one of the values; no keys or no values: any.
fn has_tags(
    shown: &Shown<'_>,
    name: &str,
    cluster: &Cluster,
    keys: &[String],
    values: &[String],
) -> bool {
    if keys.is_empty() && values.is_empty() {
        return true;
    }
    let one_of = |wanted: &[String], is: &String| wanted.is_empty() || wanted.contains(is);
    let tags = shown.tags(name, cluster);
    tags.iter()
        .any(|(key, value)| one_of(keys, key) && one_of(values, value))
}

impl Shown<'_> {
    fn tags<'a>(&'a self, name: &str, cluster: &'a Cluster) -> &'a BTreeMap<String, String> {
        let (account, region) = (self.account, self.region);
        self.view
            .tags(Kind::Cluster, account, region, name, &cluster.tags)
    }
}

fn write_cluster(xml: &mut Xml, shown: &Shown<'_>, name: &str, cluster: &Cluster) {
    let (account, region) = (shown.account, shown.region);
    xml.node("Cluster", |xml| {
        xml.leaf("ClusterIdentifier", name);
        xml.leaf("NodeType", &cluster.node_type);
        xml.leaf("ClusterStatus", &cluster.status);
        xml.leaf("ClusterAvailabilityStatus", availability(cluster));
        xml.leaf("MasterUsername", &cluster.master_username);
        xml.leaf("DBName", &cluster.db_name);
        if cluster.has_endpoint() {
            write_endpoint(xml, shown, name, cluster);
        }
        xml.leaf("VpcId", &cluster.vpc_id);
        let zone = || format!("{region}a");
        let zone = cluster.availability_zone.clone().unwrap_or_else(zone);
        xml.leaf("AvailabilityZone", zone);
        xml.leaf("ClusterVersion", &cluster.version);
        xml.leaf("NumberOfNodes", "2");
        xml.leaf("PubliclyAccessible", yes_no(cluster.publicly_accessible));
        xml.leaf("Encrypted", yes_no(cluster.encrypted));
        xml.node("PendingModifiedValues", |_| {});
        xml.tags("Tags", shown.tags(name, cluster));
        let derived = || namespace_id(&ClusterId::new(account, region, name));
        let namespace = cluster.namespace_id.clone().unwrap_or_else(derived);
        let namespace = format!("namespace:{namespace}");
        xml.leaf(
            "ClusterNamespaceArn",
            arn("redshift", region, account, &namespace),
        );
        xml.maybe("CustomDomainName", cluster.custom_domain_name.as_deref());
        xml.leaf("IpAddressType", "ipv4");
        xml.leaf("MultiAZ", &cluster.multi_az);
    });
}

fn write_endpoint(xml: &mut Xml, shown: &Shown<'_>, name: &str, cluster: &Cluster) {
    xml.node("Endpoint", |xml| {
        xml.leaf("Address", format!("{name}.{}", shown.host_end));
        xml.leaf("Port", cluster.port.unwrap_or(shown.port).to_string());
        if !cluster.vpc_endpoints.is_empty() {
            xml.node("VpcEndpoints", |xml| {
                for (endpoint, of) in &cluster.vpc_endpoints {
                    xml.node("VpcEndpoint", |xml| {
                        write_vpc_endpoint(xml, shown, endpoint, of);
                    });
                }
            });
        }
    });
}

fn write_vpc_endpoint(xml: &mut Xml, shown: &Shown<'_>, name: &str, endpoint: &VpcEndpoint) {
    let name = format!("{}/{}/{name}", shown.account, shown.region);
    xml.leaf("VpcEndpointId", derived_hex("vpce-", &name));
    xml.leaf("VpcId", &endpoint.vpc_id);
}

fn availability(cluster: &Cluster) -> &str {
    let derived = match cluster.status.as_str() {
        status if status.starts_with("available") => "Available",
        "modifying" | "resizing" | "renaming" | "rotating-keys" => "Modifying",
        status if status.starts_with("incompatible") || status == "hardware-failure" => "Failed",
        _ => "Unavailable",
    };
    cluster.availability_status.as_deref().unwrap_or(derived)
}

/// Answers DescribeEndpointAccess: the VPC endpoints of one cluster or of all.
pub(super) fn describe_endpoint_access(state: &State, call: &Call<'_>) -> Result<Xml, ApiError> {
    call.require(state, "*")?;
    let world = state.world();
    let paging = Paging::read(call, &world, &MARKER)?;
    let shown = Shown::new(state, &world, call);
    let cluster_id = call.form.non_empty("ClusterIdentifier");
    let endpoint_name = call.form.non_empty("EndpointName");
    let vpc_id = call.form.non_empty("VpcId");
    let owner = call.form.non_empty("ResourceOwner");
    let clusters = world
        .region(shown.account, shown.region)
        .into_iter()
        .flat_map(|region| &region.clusters);
    let mut of_cluster: Vec<(&String, &Cluster)> = clusters
        .filter(|(name, _)| cluster_id.is_none_or(|id| id == name.as_str()) && !shown.hides(name))
        .collect();
    if let Some(id) = cluster_id.filter(|_| of_cluster.is_empty()) {
        return Err(ApiError::cluster_not_found(id));
    }
    of_cluster.retain(|_| owner.is_none_or(|owner| owner == shown.account));
    let mut endpoints: Vec<(&String, (&str, &Cluster, &VpcEndpoint))> = of_cluster
        .into_iter()
        .flat_map(|(id, cluster)| {
            let endpoints = cluster.vpc_endpoints.iter();
            endpoints.map(move |(name, endpoint)| (name, (id.as_str(), cluster, endpoint)))
        })
        .filter(|(name, _)| endpoint_name.is_none_or(|wanted| wanted == name.as_str()))
        .filter(|(_, (_, _, it))| vpc_id.is_none_or(|wanted| wanted == it.vpc_id))
        .collect();
    if let Some(name) = endpoint_name.filter(|_| endpoints.is_empty()) {
        let message = format!("Endpoint {name} not found.");
        return Err(ApiError::new(404, "EndpointNotFound", message));
    }
    endpoints.retain(|(name, _)| name.as_str() > paging.after());
    endpoints.sort_by_key(|(name, _)| *name);
    let (page, marker) = paging.cut(endpoints.into_iter());
    let mut xml = Xml::default();
    xml.node("EndpointAccessList", |xml| {
        for (name, (id, cluster, endpoint)) in page {
            xml.node("member", |xml| {
                write_access(xml, &shown, name, (id, cluster), endpoint);
            });
        }
    });
    xml.maybe("Marker", marker.as_deref());
    Ok(xml)
}

fn write_access(
    xml: &mut Xml,
    shown: &Shown<'_>,
    name: &str,
    (id, cluster): (&str, &Cluster),
    endpoint: &VpcEndpoint,
) {
    xml.leaf("ClusterIdentifier", id);
    xml.leaf("ResourceOwner", shown.account);
    xml.leaf("SubnetGroupName", "default");
    xml.leaf("EndpointStatus", &endpoint.status);
    xml.leaf("EndpointName", name);
    if endpoint.has_address() {
        let label = redshift_endpoint_label(shown.account, shown.region, name);
        xml.leaf("Address", format!("{label}.{}", shown.host_end));
        xml.leaf("Port", cluster.port.unwrap_or(shown.port).to_string());
    }
    xml.node("VpcEndpoint", |xml| {
        write_vpc_endpoint(xml, shown, name, endpoint);
    });
}

/// Answers DescribeCustomDomainAssociations; each cluster's domain has a certificate of its own.
pub(super) fn describe_custom_domains(state: &State, call: &Call<'_>) -> Result<Xml, ApiError> {
    call.require(state, "*")?;
    let world = state.world();
    let paging = Paging::read(call, &world, &MARKER)?;
    let shown = Shown::new(state, &world, call);
    let wanted = call.form.non_empty("CustomDomainName");
    let clusters = world
        .region(shown.account, shown.region)
        .into_iter()
        .flat_map(|region| &region.clusters);
    let mut domains: Vec<(&str, &str)> = clusters
        .filter(|(id, _)| !shown.hides(id))
        .filter_map(|(id, cluster)| Some((cluster.custom_domain_name.as_deref()?, id.as_str())))
        .filter(|(domain, _)| wanted.is_none_or(|wanted| wanted == *domain))
        .collect();
    if let Some(domain) = wanted.filter(|_| domains.is_empty()) {
        return Err(ApiError::custom_domain_not_found(domain));
    }
    domains.retain(|(domain, _)| *domain > paging.after());
    domains.sort_unstable();
    let (page, marker) = paging.cut(domains.into_iter());
    let mut xml = Xml::default();
    xml.maybe("Marker", marker.as_deref());
    xml.node("Associations", |xml| {
        for (domain, id) in page {
            let certificate = format!("certificate/{}", derived_uuid(domain));
            let certificate = arn("acm", shown.region, shown.account, &certificate);
            xml.node("Association", |xml| {
                xml.leaf("CustomDomainCertificateArn", certificate);
                xml.node("CertificateAssociations", |xml| {
                    xml.node("CertificateAssociation", |xml| {
                        xml.leaf("CustomDomainName", domain);
                        xml.leaf("ClusterIdentifier", id);
                    });
                });
            });
        }
    });
    Ok(xml)
}
