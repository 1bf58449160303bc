//! `DescribeClusters` and `DescribeEndpointAccess` of provisioned Redshift.

use aws_sdk_redshift::{
    Client,
    types::{Cluster, EndpointAccess},
};
use tidegate_core::{AwsMetadata, DatabaseKind};

use super::{
    Described, Listing, PAGE_RECORDS, Page, account_of, endpoint, failed, labels, lower, text,
    yes_or_no,
};
use crate::AwsFailure;

pub(super) async fn page(
    client: &Client,
    listing: Listing,
    name: Option<String>,
    marker: Option<String>,
) -> Result<Page, AwsFailure> {
    let is_named = name.is_some();
    let records = (!is_named).then_some(PAGE_RECORDS);
    if listing == Listing::RedshiftEndpoints {
        let request = client.describe_endpoint_access().set_endpoint_name(name);
        let request = request.set_max_records(records).set_marker(marker);
        let answer = request.send().await;
        let answer = answer.map_err(|error| failed(listing, is_named, error))?;
        let endpoints = answer.endpoint_access_list.unwrap_or_default();
        return Ok(Page {
            items: endpoints.iter().filter_map(vpc_endpoint).collect(),
            next: answer.marker,
        });
    }
    let request = client.describe_clusters().set_cluster_identifier(name);
    let request = request.set_max_records(records).set_marker(marker);
    let answer = request.send().await;
    let answer = answer.map_err(|error| failed(listing, is_named, error))?;
    let clusters = answer.clusters.unwrap_or_default();
    Ok(Page {
        items: clusters.iter().filter_map(cluster).collect(),
        next: answer.marker,
    })
}

fn cluster(cluster: &Cluster) -> Option<Described> {
    let name = text(cluster.cluster_identifier())?;
    let at = cluster.endpoint();
    let host = at.and_then(|at| at.address());
    let port = at.and_then(|at| at.port());
    let namespace = cluster.cluster_namespace_arn();
    let namespace_id = namespace.and_then(|arn| arn.rsplit_once(":namespace:"));
    let tags = cluster.tags().iter();
    Some(Described {
        kind: DatabaseKind::Redshift,
        arn: None,
        account: account_of(namespace),
        endpoints: endpoint(host, port, "cluster").into_iter().collect(),
        aws: AwsMetadata {
            redshift_cluster_id: Some(name.clone()),
            ..AwsMetadata::default()
        },
        labels: labels([
            ("availability-zone", text(cluster.availability_zone())),
            ("custom-domain", text(cluster.custom_domain_name())),
            ("encrypted", yes_or_no(cluster.encrypted())),
            ("engine-version", text(cluster.cluster_version())),
            ("namespace", namespace_id.map(|(_, id)| id.to_owned())),
            (
                "publicly-accessible",
                yes_or_no(cluster.publicly_accessible()),
            ),
            ("vpc-id", text(cluster.vpc_id())),
        ]),
        tags: Some(
            tags.filter_map(|tag| Some((text(tag.key())?, tag.value()?.to_owned())))
                .collect(),
        ),
        status: lower(cluster.cluster_status()),
        name,
    })
}

fn vpc_endpoint(access: &EndpointAccess) -> Option<Described> {
    let vpc = access.vpc_endpoint().and_then(|vpc| vpc.vpc_id());
    Some(Described {
        kind: DatabaseKind::Redshift,
        name: text(access.endpoint_name())?,
        arn: None,
        account: access.resource_owner().and_then(|owner| owner.parse().ok()),
        endpoints: endpoint(access.address(), access.port(), "vpc-endpoint")
            .into_iter()
            .collect(),
        aws: AwsMetadata {
            redshift_cluster_id: text(access.cluster_identifier()),
            ..AwsMetadata::default()
        },
        labels: labels([("vpc-id", text(vpc))]),
        tags: Some(Vec::new()),
        status: lower(access.endpoint_status()),
    })
}
