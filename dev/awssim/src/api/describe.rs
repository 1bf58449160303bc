//! DescribeClusters: listing, filtering by tag, paging.
//!
//! A marker holds the last identifier that was read, not a position: clusters that come and go
//! between two pages shift nothing.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::error::ApiError;
use super::form::Form;
use super::xml::Xml;
use super::{Call, require};
use crate::crypto::{hex, sha256};
use crate::state::State;
use crate::world::{Cluster, ClusterId, World};

/// Where the next page starts.
#[derive(Serialize, Deserialize)]
struct Marker {
    scope: String,
    page: u32,
    after: String,
}

impl Marker {
    fn read(form: &Form) -> Result<Option<Self>, ApiError> {
        let Some(text) = form.get("Marker").filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        let marker = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        marker.map(Some).ok_or_else(bad_marker)
    }

    fn write(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::json!(self).to_string())
    }
}

fn bad_marker() -> ApiError {
    ApiError::invalid_parameter("The specified marker is invalid")
}

/// The page that a request asks for, from 1; a bad marker counts as page 1.
pub(super) fn page_of(form: &Form) -> u32 {
    Marker::read(form)
        .ok()
        .flatten()
        .map_or(1, |marker| marker.page)
}

/// Answers DescribeClusters; `empty` leaves this page's records for the next one.
pub(super) fn describe_clusters(
    state: &State,
    call: &Call<'_>,
    empty: bool,
) -> Result<Xml, ApiError> {
    let wanted = call
        .form
        .get("ClusterIdentifier")
        .filter(|id| !id.is_empty());
    let account = call.caller.account();
    let arn = format!(
        "arn:aws:redshift:{}:{account}:cluster:{}",
        call.region,
        wanted.unwrap_or("*")
    );
    let context = call.caller.context(call.region);
    require(
        state,
        call.caller,
        "redshift:DescribeClusters",
        &arn,
        &context,
    )?;
    let marker = Marker::read(call.form)?;
    let page_size = call.form.number("MaxRecords", 20..=100, 100)? as usize;
    let world = state.world();
    let Some(id) = wanted else {
        let page_size = world
            .page_records_max
            .map_or(page_size, |most| page_size.min(most));
        return list(&world, call, marker, if empty { 0 } else { page_size });
    };
    if marker.is_some() {
        let message = "ClusterIdentifier and Marker can not be given together";
        return Err(ApiError::new(400, "InvalidParameterCombination", message));
    }
    let id = ClusterId::new(account, call.region, id);
    let cluster = world
        .cluster(&id)
        .ok_or_else(|| ApiError::cluster_not_found(&id.id))?;
    let mut xml = Xml::default();
    xml.node("Clusters", |xml| write_cluster(xml, &world, &id, cluster));
    Ok(xml)
}

fn list(
    world: &World,
    call: &Call<'_>,
    marker: Option<Marker>,
    page_size: usize,
) -> Result<Xml, ApiError> {
    let account = call.caller.account();
    let (keys, values) = (call.form.list("TagKeys"), call.form.list("TagValues"));
    let scope = hex(&sha256(
        format!("{account}/{}/{keys:?}/{values:?}", call.region).as_bytes(),
    ));
    let (page, after) = match marker {
        Some(marker) if marker.scope != scope => return Err(bad_marker()),
        Some(marker) => (marker.page, marker.after),
        None => (1, String::new()),
    };
    let region = world.region(account, call.region);
    let clusters = region.into_iter().flat_map(|region| &region.clusters);
    let mut rest = clusters
        .filter(|(id, cluster)| id.as_str() > after.as_str() && has_tags(cluster, &keys, &values));
    let records: Vec<_> = rest.by_ref().take(page_size).collect();
    let more = rest.next().is_some();
    let mut xml = Xml::default();
    if more {
        let after = records.last().map_or(after, |(id, _)| (*id).clone());
        xml.leaf(
            "Marker",
            Marker {
                scope,
                page: page + 1,
                after,
            }
            .write(),
        );
    }
    xml.node("Clusters", |xml| {
        for (id, cluster) in records {
            write_cluster(
                xml,
                world,
                &ClusterId::new(account, call.region, id),
                cluster,
            );
        }
    });
    Ok(xml)
}

/// One tag has to have one of the keys and one of the values; no keys or no values: any.
fn has_tags(cluster: &Cluster, keys: &[String], values: &[String]) -> bool {
    let one_of = |wanted: &[String], is: &String| wanted.is_empty() || wanted.contains(is);
    (keys.is_empty() && values.is_empty())
        || cluster
            .tags
            .iter()
            .any(|(key, value)| one_of(keys, key) && one_of(values, value))
}

fn write_cluster(xml: &mut Xml, world: &World, id: &ClusterId, cluster: &Cluster) {
    let text = |yes: bool| if yes { "true" } else { "false" };
    xml.node("Cluster", |xml| {
        xml.leaf("ClusterIdentifier", &id.id);
        xml.leaf("NodeType", &cluster.node_type);
        xml.leaf("ClusterStatus", &cluster.status);
        xml.leaf("ClusterAvailabilityStatus", availability(cluster));
        xml.leaf("MasterUsername", &cluster.master_username);
        xml.leaf("DBName", &cluster.db_name);
        if cluster.has_endpoint() {
            xml.node("Endpoint", |xml| {
                xml.leaf("Address", world.host_name(id));
                xml.leaf("Port", cluster.port.unwrap_or(world.port).to_string());
            });
        }
        xml.leaf("VpcId", &cluster.vpc_id);
        let zone = || format!("{}a", id.region);
        xml.leaf(
            "AvailabilityZone",
            cluster.availability_zone.clone().unwrap_or_else(zone),
        );
        xml.leaf("ClusterVersion", &cluster.version);
        xml.leaf("NumberOfNodes", "2");
        xml.leaf("PubliclyAccessible", text(cluster.publicly_accessible));
        xml.leaf("Encrypted", text(cluster.encrypted));
        xml.node("PendingModifiedValues", |_| {});
        xml.node("Tags", |xml| {
            for (key, value) in &cluster.tags {
                xml.node("Tag", |xml| {
                    xml.leaf("Key", key);
                    xml.leaf("Value", value);
                });
            }
        });
        xml.leaf("ClusterNamespaceArn", namespace_arn(id, cluster));
        xml.maybe("CustomDomainName", cluster.custom_domain_name.as_deref());
        xml.leaf("IpAddressType", "ipv4");
        xml.leaf("MultiAZ", &cluster.multi_az);
    });
}

fn availability(cluster: &Cluster) -> String {
    let derived = match cluster.status.as_str() {
        status if status.starts_with("available") => "Available",
        "modifying" | "resizing" | "renaming" | "rotating-keys" => "Modifying",
        status if status.starts_with("incompatible") || status == "hardware-failure" => "Failed",
        _ => "Unavailable",
    };
    cluster
        .availability_status
        .clone()
        .unwrap_or_else(|| derived.to_owned())
}

fn namespace_arn(id: &ClusterId, cluster: &Cluster) -> String {
    let derived = || {
        let digest = sha256(id.to_string().as_bytes());
        let bytes: [u8; 16] = std::array::from_fn(|i| digest[i]);
        uuid::Builder::from_random_bytes(bytes)
            .into_uuid()
            .to_string()
    };
    let namespace = cluster.namespace_id.clone().unwrap_or_else(derived);
    format!(
        "arn:aws:redshift:{}:{}:namespace:{namespace}",
        id.region, id.account
    )
}
