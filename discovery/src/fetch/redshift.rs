//! Provisioned Redshift clusters, and the VPC endpoints that Redshift manages for them.
//!
//! `redshift:DescribeClusters` gives all of a cluster, tags and custom domain included. AWS names no ARN of a
//! cluster; it is built from the cluster's namespace ARN, or from the role when that is not sent.
//!
//! VPC endpoints take `redshift:DescribeEndpointAccess`, which the policies that people have often lack. So it is
//! optional: while it is not allowed their databases are not found. That matters where a cluster lists VPC
//! endpoints (without their addresses), or where this process has read some before the permission went: there the
//! scan is `Partial`, because the ledger takes a scan as whole or not, and the matcher can be told to exclude such
//! endpoints. Anywhere else nothing depends on the call, and the scan stays complete. A refusal is asked about again
//! after [`super::refusals::REMEMBERED_FOR`], and is no reason to scan again before the next poll. An endpoint has the labels of its cluster but for where it is, and its
//! certificate names the cluster's own host.
//!
//! A paused cluster, or one that cannot be connected to for another reason, stays listed with `unavailable`.
//!
//! Source: Amazon Redshift API reference, `DescribeClusters`, `DescribeEndpointAccess` and data type `Cluster`.

use std::collections::HashMap;

use aws_sdk_redshift::{
    Client,
    types::{Cluster, EndpointAccess},
};
use tidegate_aws::AwsFailure;
use tidegate_core::{AccountId, AwsMetadata, Protocol, ScanScope, labels};

use super::{
    FetchError, Memory, Reading, arn,
    draft::{Draft, Unread, named, some, yes_or_no},
    status::{Availability, CREATING, Status, of_vpc_endpoint},
};
use crate::found::Found;

/// The one permission that scanning needs.
pub(super) const DESCRIBE_CLUSTERS: &str = "redshift:DescribeClusters";
/// The permission without which VPC endpoints stay unknown.
pub(super) const DESCRIBE_ENDPOINT_ACCESS: &str = "redshift:DescribeEndpointAccess";

/// Clusters or endpoints asked for a page, the most that AWS gives.
const PAGE_RECORDS: i32 = 100;

const CLUSTER: &str = "cluster";
const VPC_ENDPOINT: &str = "vpc-endpoint";

/// The labels in which a VPC endpoint differs from its cluster.
const DIFFERING: [&str; 3] = [labels::ENDPOINT_TYPE, "status", "vpc-id"];

/// Reads every page.
///
/// When all answers are those of the last scan of the scope, nothing is read out of them ([`crate::known`]).
pub(super) async fn fetch(
    client: &Client,
    scope: &ScanScope,
    reading: &mut Reading,
    memory: &Memory,
) -> Result<(), FetchError> {
    let mut clusters = Vec::new();
    let listed = list_clusters(client, reading, &mut clusters).await;
    let as_before = reading.comparison.went_on().filter(|_| listed.is_ok());
    let asks = match as_before {
        Some(asked) => asked,
        None => {
            read_clusters(scope, reading, memory, &mut clusters);
            listed?;
            !clusters.is_empty()
        }
    };
    reading.comparison.goes_on(asks);
    let mut endpoints = Vec::new();
    let refusal = if asks {
        ask_for_endpoints(client, scope, reading, memory, &mut endpoints).await
    } else {
        None
    };
    if as_before.is_some() {
        if reading.comparison.ends_the_same() {
            return Ok(());
        }
        read_clusters(scope, reading, memory, &mut clusters);
    }
    if !endpoints.is_empty() {
        memory.refusals.told(DESCRIBE_ENDPOINT_ACCESS, scope);
    }
    if let Some(refusal) = refusal
        && (clusters.iter().any(has_vpc_endpoints)
            || memory.refusals.has_told(DESCRIBE_ENDPOINT_ACCESS, scope))
    {
        reading.missed(FetchError::from(refusal).in_part("VPC endpoints", &[VPC_ENDPOINT]));
    }
    read_endpoints(scope, reading, memory, &clusters, &endpoints);
    Ok(())
}

/// Takes in what the clusters are, and keeps those whose VPC endpoints may be asked for.
fn read_clusters(
    scope: &ScanScope,
    reading: &mut Reading,
    memory: &Memory,
    clusters: &mut Vec<Cluster>,
) {
    let with_endpoints = scope.endpoints.admits(VPC_ENDPOINT);
    let written = scope.tags.written();
    let by_endpoint =
        DIFFERING.iter().any(|key| written.contains_key(*key)) || !scope.endpoints.admits(CLUSTER);
    clusters.retain(|cluster| {
        memory.statuses.look(scope.kind, &status_of(cluster));
        let found = convert(scope, cluster);
        let asked_for = !matches!(found, Ok(None));
        reading.take(found);
        with_endpoints && (asked_for || by_endpoint)
    });
}

/// Lists VPC endpoints, unless a refusal is remembered; gives the refusal.
async fn ask_for_endpoints(
    client: &Client,
    scope: &ScanScope,
    reading: &mut Reading,
    memory: &Memory,
    listed: &mut Vec<EndpointAccess>,
) -> Option<AwsFailure> {
    let known = memory.refusals.known(DESCRIBE_ENDPOINT_ACCESS, scope);
    let refusal = match known.filter(|_| !reading.fresh) {
        Some(refusal) => Some(refusal),
        None => {
            let error = list_endpoints(client, reading, listed).await.err()?;
            memory
                .refusals
                .remember(DESCRIBE_ENDPOINT_ACCESS, scope, error)
                .map_err(|error| reading.missed(error))
                .ok()
        }
    };
    reading.comparison.answers.incomparable();
    refusal
}

/// Takes in the VPC endpoints of the clusters.
fn read_endpoints(
    scope: &ScanScope,
    reading: &mut Reading,
    memory: &Memory,
    clusters: &[Cluster],
    endpoints: &[EndpointAccess],
) {
    let by_id: HashMap<&str, &Cluster> = clusters
        .iter()
        .filter_map(|cluster| Some((cluster.cluster_identifier()?, cluster)))
        .collect();
    for endpoint in endpoints {
        // An endpoint of another account's cluster, or of one that was not asked for.
        let Some(cluster) = by_id.get(endpoint.cluster_identifier().unwrap_or_default()) else {
            continue;
        };
        reading.take(convert_endpoint(scope, cluster, endpoint, memory));
    }
}

async fn list_clusters(
    client: &Client,
    reading: &mut Reading,
    listed: &mut Vec<Cluster>,
) -> Result<(), FetchError> {
    let answers = &reading.comparison.answers;
    let ask = |marker| {
        client
            .describe_clusters()
            .max_records(PAGE_RECORDS)
            .set_marker(marker)
            .customize()
            .interceptor(answers.clone())
            .send()
    };
    reading
        .calls
        .list(DESCRIBE_CLUSTERS, ask, |page| {
            listed.extend(page.clusters.unwrap_or_default());
            page.marker
        })
        .await
}

async fn list_endpoints(
    client: &Client,
    reading: &mut Reading,
    listed: &mut Vec<EndpointAccess>,
) -> Result<(), FetchError> {
    let answers = &reading.comparison.answers;
    let ask = |marker| {
        client
            .describe_endpoint_access()
            .max_records(PAGE_RECORDS)
            .set_marker(marker)
            .customize()
            .interceptor(answers.clone())
            .send()
    };
    reading
        .calls
        .list(DESCRIBE_ENDPOINT_ACCESS, ask, |page| {
            listed.extend(page.endpoint_access_list.unwrap_or_default());
            page.marker
        })
        .await
}

/// The database that a cluster is; `None` when the scope does not ask for it, or it is not there yet.
fn convert(scope: &ScanScope, cluster: &Cluster) -> Result<Option<Found>, FetchError> {
    let id = id_of(cluster)?;
    let owner = owner_of(scope, cluster, id)?;
    let endpoint = cluster.endpoint();
    let draft = Draft {
        action: DESCRIBE_CLUSTERS,
        what: "cluster",
        identity: owner.cluster_arn(scope, id),
        account: owner.account.clone(),
        id,
        endpoint: String::new(),
        endpoint_type: CLUSTER,
        subtype: None,
        description: format!("Redshift cluster in {}", scope.region),
        protocol: Protocol::Postgres,
        host: endpoint.and_then(|endpoint| endpoint.address()),
        port: endpoint.and_then(|endpoint| endpoint.port()),
        server_name: None,
        aws: metadata(id),
        status: status_of(cluster),
        told: told(cluster, &owner, cluster.vpc_id()),
        tags: tags(cluster),
        unread: Unread::Nothing,
    };
    draft.find(scope)
}

/// The database that a VPC endpoint of a cluster is.
fn convert_endpoint(
    scope: &ScanScope,
    cluster: &Cluster,
    endpoint: &EndpointAccess,
    memory: &Memory,
) -> Result<Option<Found>, FetchError> {
    let id = id_of(cluster)?;
    let owner = owner_of(scope, cluster, id)?;
    if some(endpoint.resource_owner()).is_some_and(|account| account != owner.account.as_str()) {
        // It leads to a cluster of the same name in another account.
        return Ok(None);
    }
    let what = "a VPC endpoint";
    let action = DESCRIBE_ENDPOINT_ACCESS;
    let name = named(endpoint.endpoint_name(), action, what, "EndpointName")?;
    let status = Status::read(endpoint.endpoint_status(), of_vpc_endpoint);
    memory.statuses.look(scope.kind, &status);
    let vpc = endpoint.vpc_endpoint().and_then(|vpc| vpc.vpc_id());
    let cluster_host = some(cluster.endpoint().and_then(|endpoint| endpoint.address()));
    let draft = Draft {
        action,
        what: "VPC endpoint of cluster",
        identity: format!("{}#{VPC_ENDPOINT}/{name}", owner.cluster_arn(scope, id)),
        account: owner.account.clone(),
        id,
        endpoint: name.to_owned(),
        endpoint_type: VPC_ENDPOINT,
        subtype: None,
        description: format!("VPC endpoint of a Redshift cluster in {}", scope.region),
        protocol: Protocol::Postgres,
        // Without the cluster's own host its certificate could not be checked.
        host: cluster_host.and(endpoint.address()),
        port: endpoint.port(),
        server_name: cluster_host.map(str::to_owned),
        aws: metadata(id),
        status,
        told: told(cluster, &owner, vpc),
        tags: tags(cluster),
        unread: Unread::Nothing,
    };
    draft.find(scope)
}

fn id_of(cluster: &Cluster) -> Result<&str, FetchError> {
    let id = cluster.cluster_identifier();
    named(id, DESCRIBE_CLUSTERS, "a cluster", "ClusterIdentifier")
}

fn status_of(cluster: &Cluster) -> Status {
    Status::read(cluster.cluster_status(), availability)
}

fn metadata(id: &str) -> AwsMetadata {
    AwsMetadata {
        redshift_cluster_id: Some(id.to_owned()),
        ..AwsMetadata::default()
    }
}

/// Whether a cluster says that it can be reached through VPC endpoints.
fn has_vpc_endpoints(cluster: &Cluster) -> bool {
    cluster
        .endpoint()
        .is_some_and(|endpoint| !endpoint.vpc_endpoints().is_empty())
}

/// Whom a cluster belongs to.
#[derive(Debug, PartialEq, Eq)]
struct Owner<'c> {
    partition: &'c str,
    account: AccountId,
    /// The id of the cluster's namespace, where AWS tells it.
    namespace: Option<&'c str>,
}

/// From the cluster's namespace ARN; the owner of the role, when AWS sends none.
fn owner_of<'c>(
    scope: &'c ScanScope,
    cluster: &'c Cluster,
    id: &str,
) -> Result<Owner<'c>, FetchError> {
    let owner = match some(cluster.cluster_namespace_arn()) {
        Some(text) => arn::read(text, "redshift").map(|arn| Owner {
            partition: arn.partition,
            account: arn.account,
            namespace: some(arn.resource.strip_prefix("namespace:")),
        }),
        None => scope.assume_role.as_ref().map(|role| Owner {
            partition: role.role_arn.partition(),
            account: role.role_arn.account(),
            namespace: None,
        }),
    };
    owner.ok_or_else(|| {
        let cluster = format!("cluster `{id}`");
        FetchError::malformed(DESCRIBE_CLUSTERS, cluster, "ClusterNamespaceArn")
    })
}

impl Owner<'_> {
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

fn told<'c>(
    cluster: &'c Cluster,
    owner: &Owner<'c>,
    vpc: Option<&'c str>,
) -> Vec<(&'static str, Option<&'c str>)> {
    vec![
        ("availability-zone", cluster.availability_zone()),
        ("custom-domain", cluster.custom_domain_name()),
        ("encrypted", yes_or_no(cluster.encrypted())),
        ("engine-version", cluster.cluster_version()),
        ("namespace", owner.namespace),
        (
            "publicly-accessible",
            yes_or_no(cluster.publicly_accessible()),
        ),
        ("vpc-id", vpc),
    ]
}

fn tags(cluster: &Cluster) -> Vec<(&str, &str)> {
    let tags = cluster.tags().iter();
    tags.filter_map(|tag| Some((tag.key()?, tag.value().unwrap_or_default())))
        .collect()
}

fn availability(status: &str) -> Availability {
    match status {
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
