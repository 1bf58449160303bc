//! Provisioned Redshift clusters.
//!
//! One call gives all, tags included: `redshift:DescribeClusters`. AWS names no ARN of a cluster; it
//! is built from the cluster's namespace ARN, or from the role when that is not sent.
//!
//! A paused cluster, or one that cannot be connected to for another reason, stays listed with
//! `unavailable`. A cluster without an address cannot be listed: while it is `creating` it was never
//! there and is left out; in any other status it may have been, so it counts as missed, which makes
//! the scan partial and keeps what the inventory has of it until AWS lists it no more.
//!
//! Source: Amazon Redshift API reference, `DescribeClusters` and data type `Cluster`.

use aws_sdk_redshift::{
    Client,
    types::{Cluster, Endpoint},
};
use tidegate_aws::classify;
use tidegate_core::{
    AccountId, AwsMetadata, Database, DatabaseKind, Labels, Origin, Protocol, ScanScope,
    TlsSettings, Uri, labels, naming,
};

use super::{FetchError, Reading, StrangeStatuses, pages::Pages};
use crate::found::{Found, NameBase};

/// The one permission that scanning needs.
pub(super) const DESCRIBE_CLUSTERS: &str = "redshift:DescribeClusters";

/// Clusters asked for a page, the most that AWS gives.
const PAGE_RECORDS: i32 = 100;

/// The status of a cluster that has not been there before.
const CREATING: &str = "creating";

/// Reads every page.
pub(super) async fn fetch(
    client: &Client,
    scope: &ScanScope,
    reading: &mut Reading,
    strange_statuses: &StrangeStatuses,
) -> Result<(), FetchError> {
    let mut pages = Pages::new(DESCRIBE_CLUSTERS);
    let mut marker = None;
    // Ends: `pages` gives a bounded number of markers.
    loop {
        reading.called();
        let page = client
            .describe_clusters()
            .max_records(PAGE_RECORDS)
            .set_marker(marker)
            .send()
            .await
            .map_err(|error| classify(DESCRIBE_CLUSTERS, error))?;
        for cluster in page.clusters() {
            let status = cluster.cluster_status().unwrap_or_default();
            if availability(status) == Availability::Unknown {
                strange_statuses.met(DatabaseKind::Redshift, status);
            }
            match convert(scope, cluster) {
                Ok(Some(found)) => reading.found(found),
                Ok(None) => {}
                Err(error) => reading.missed(error),
            }
        }
        marker = pages.after(page.marker)?;
        if marker.is_none() {
            return Ok(());
        }
    }
}

/// The database that a cluster is; `None` when the scope does not ask for it, or it is not there yet.
fn convert(scope: &ScanScope, cluster: &Cluster) -> Result<Option<Found>, FetchError> {
    let id = some(cluster.cluster_identifier())
        .ok_or_else(|| malformed("a cluster", "ClusterIdentifier"))?;
    let resource = || format!("cluster `{id}`");
    let owner =
        Owner::of(scope, cluster).ok_or_else(|| malformed(resource(), "ClusterNamespaceArn"))?;
    let labels = labels_of(scope, cluster, &owner);
    if !scope.tags.matches(&labels) {
        return Ok(None);
    }
    let status = cluster.cluster_status().unwrap_or_default();
    let Some((host, port)) = cluster.endpoint().and_then(address) else {
        return if status == CREATING {
            Ok(None)
        } else {
            Err(FetchError::NoAddress {
                action: DESCRIBE_CLUSTERS,
                resource: resource(),
                status: status.to_owned(),
            })
        };
    };
    let uri = u16::try_from(port)
        .ok()
        .and_then(|port| Uri::new(host, port).ok())
        .ok_or_else(|| malformed(resource(), "Endpoint"))?;
    let identity = owner.cluster_arn(scope, id);
    let name = name_base(scope, cluster, id, &owner);
    let unavailable = match availability(status) {
        Availability::Available | Availability::Unknown => String::new(),
        Availability::Unavailable => status.to_owned(),
    };
    let database = Database {
        name: name.likely(&identity),
        description: format!("Redshift cluster in {}", scope.region),
        labels,
        origin: Origin::Cloud,
        protocol: Protocol::Postgres,
        uri,
        tls: TlsSettings::default(),
        aws: AwsMetadata {
            region: Some(scope.region.clone()),
            account_id: Some(owner.account),
            assume_role: scope.assume_role.clone(),
            redshift_cluster_id: Some(id.to_owned()),
        },
        kind: Some(DatabaseKind::Redshift),
        identity,
        discovered_name: name.undecorated(),
        unavailable,
    };
    Ok(Some(Found { database, name }))
}

/// Whom a cluster belongs to.
#[derive(Debug, PartialEq, Eq)]
struct Owner {
    partition: String,
    account: AccountId,
    /// The id of the cluster's namespace, where AWS tells it.
    namespace: Option<String>,
}

impl Owner {
    /// From the cluster's namespace ARN; the owner of the role, when AWS sends none.
    fn of(scope: &ScanScope, cluster: &Cluster) -> Option<Self> {
        match some(cluster.cluster_namespace_arn()) {
            Some(arn) => Self::from_namespace_arn(arn),
            None => scope.assume_role.as_ref().map(|role| Self {
                partition: role.role_arn.partition().to_owned(),
                account: role.role_arn.account(),
                namespace: None,
            }),
        }
    }

    /// From `arn:<partition>:redshift:<region>:<account>:namespace:<id>`.
    fn from_namespace_arn(arn: &str) -> Option<Self> {
        let parts: Vec<&str> = arn.splitn(6, ':').collect();
        let ["arn", partition, "redshift", _, account, resource] = parts.as_slice() else {
            return None;
        };
        partition.starts_with("aws").then_some(())?;
        Some(Self {
            partition: (*partition).to_owned(),
            account: account.parse().ok()?,
            namespace: some(resource.strip_prefix("namespace:")).map(str::to_owned),
        })
    }

    fn cluster_arn(&self, scope: &ScanScope, id: &str) -> String {
        let Self {
            partition, account, ..
        } = self;
        format!(
            "arn:{partition}:redshift:{}:{account}:cluster:{id}",
            scope.region
        )
    }
}

/// Generated labels first, so that no tag can take their place.
fn labels_of(scope: &ScanScope, cluster: &Cluster, owner: &Owner) -> Labels {
    let mut all = Labels::new();
    all.insert(labels::ACCOUNT_ID, owner.account.as_str());
    all.insert(labels::REGION, scope.region.as_str());
    all.insert(labels::CLOUD, "AWS");
    all.insert(labels::ORIGIN, Origin::Cloud.as_str());
    all.insert(labels::DISCOVERY_TYPE, scope.kind.as_str());
    if !scope.group.is_empty() {
        all.insert(labels::DISCOVERY_GROUP, scope.group.as_str());
    }
    all.insert("endpoint-type", "cluster");
    let yes_or_no = |value: Option<bool>| value.map(|yes| if yes { "true" } else { "false" });
    let told = [
        ("availability-zone", cluster.availability_zone()),
        ("encrypted", yes_or_no(cluster.encrypted())),
        ("engine-version", cluster.cluster_version()),
        ("namespace", owner.namespace.as_deref()),
        (
            "publicly-accessible",
            yes_or_no(cluster.publicly_accessible()),
        ),
        ("status", cluster.cluster_status()),
        ("vpc-id", cluster.vpc_id()),
    ];
    for (key, value) in told {
        if let Some(value) = some(value) {
            all.insert(key, value);
        }
    }
    let left_out = all.add_tags(tags(cluster));
    if left_out > 0 {
        let cluster = cluster.cluster_identifier().unwrap_or_default();
        tracing::debug!(cluster, left_out, "left out tags that cannot be labels");
    }
    all
}

fn name_base(scope: &ScanScope, cluster: &Cluster, id: &str, owner: &Owner) -> NameBase {
    let tag = naming::name_tag(|wanted| {
        tags(cluster)
            .find(|(key, _)| *key == wanted)
            .map(|(_, value)| value)
    });
    NameBase {
        base: tag.unwrap_or(id).to_owned(),
        tagged: tag.is_some(),
        endpoint: String::new(),
        suffix: vec![
            scope.kind.as_str().to_owned(),
            scope.region.to_string(),
            owner.account.to_string(),
        ],
    }
}

fn tags(cluster: &Cluster) -> impl Iterator<Item = (&str, &str)> {
    cluster
        .tags()
        .iter()
        .filter_map(|tag| Some((tag.key()?, tag.value().unwrap_or_default())))
}

fn address(endpoint: &Endpoint) -> Option<(&str, i32)> {
    Some((some(endpoint.address())?, endpoint.port()?))
}

fn some(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

fn malformed(resource: impl Into<String>, field: &'static str) -> FetchError {
    FetchError::Malformed {
        action: DESCRIBE_CLUSTERS,
        resource: resource.into(),
        field,
    }
}

/// Whether a cluster in some status can be connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Availability {
    Available,
    Unavailable,
    /// A status that AWS added later: taken for available.
    Unknown,
}

fn availability(status: &str) -> Availability {
    match status {
        // AWS does not have to send one.
        "" => Availability::Available,
        "available"
        | "available, prep-for-resize"
        | "available, resize-cleanup"
        | "cancelling-resize"
        | "final-snapshot"
        | "incompatible-hsm"
        | "incompatible-parameters"
        | "modifying"
        | "rebooting"
        | "renaming"
        | "resizing"
        | "rotating-keys"
        | "storage-full"
        | "updating-hsm" => Availability::Available,
        CREATING
        | "deleting"
        | "hardware-failure"
        | "incompatible-network"
        | "incompatible-restore"
        | "paused" => Availability::Unavailable,
        _ => Availability::Unknown,
    }
}

#[cfg(test)]
mod tests;
