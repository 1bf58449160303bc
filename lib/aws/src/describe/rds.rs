//! Instances, clusters and proxies of RDS, and the tags of proxies.

use aws_sdk_rds::{
    Client,
    types::{DbCluster, DbInstance, DbProxy, DbProxyEndpoint, Tag},
};
use tidegate_core::{AwsMetadata, DatabaseKind};

use super::{
    Described, DescribedEndpoint, Listing, PAGE_RECORDS, Page, account_of, endpoint, failed,
    labels, lower, text, yes_or_no,
};
use crate::{AwsFailure, classify};

const LIST_TAGS: &str = "rds:ListTagsForResource";

pub(super) async fn page(
    client: &Client,
    listing: Listing,
    name: Option<String>,
    marker: Option<String>,
) -> Result<Page, AwsFailure> {
    let is_named = name.is_some();
    let records = (!is_named).then_some(PAGE_RECORDS);
    match listing {
        Listing::RdsClusters => {
            let request = client.describe_db_clusters();
            let request = request.set_db_cluster_identifier(name);
            let request = request.set_max_records(records).set_marker(marker);
            let answer = request.send().await;
            let answer = answer.map_err(|error| failed(listing, is_named, error))?;
            Ok(Page {
                items: answer.db_clusters().iter().filter_map(cluster).collect(),
                next: answer.marker,
            })
        }
        Listing::RdsProxies => {
            let request = client.describe_db_proxies().set_db_proxy_name(name);
            let request = request.set_max_records(records).set_marker(marker);
            let answer = request.send().await;
            let answer = answer.map_err(|error| failed(listing, is_named, error))?;
            Ok(Page {
                items: answer.db_proxies().iter().filter_map(proxy).collect(),
                next: answer.marker,
            })
        }
        Listing::RdsProxyEndpoints => {
            let request = client.describe_db_proxy_endpoints();
            let request = request.set_db_proxy_endpoint_name(name);
            let request = request.set_max_records(records).set_marker(marker);
            let answer = request.send().await;
            let answer = answer.map_err(|error| failed(listing, is_named, error))?;
            let endpoints = answer.db_proxy_endpoints().iter();
            Ok(Page {
                items: endpoints.filter_map(proxy_endpoint).collect(),
                next: answer.marker,
            })
        }
        _ => {
            let request = client.describe_db_instances();
            let request = request.set_db_instance_identifier(name);
            let request = request.set_max_records(records).set_marker(marker);
            let answer = request.send().await;
            let answer = answer.map_err(|error| failed(listing, is_named, error))?;
            Ok(Page {
                items: answer.db_instances().iter().filter_map(instance).collect(),
                next: answer.marker,
            })
        }
    }
}

pub(super) async fn tags_of(
    client: &Client,
    arn: &str,
) -> Result<Vec<(String, String)>, AwsFailure> {
    let request = client.list_tags_for_resource().resource_name(arn);
    let answer = request.send().await;
    let answer = answer.map_err(|error| classify(LIST_TAGS, error))?;
    Ok(tags(answer.tag_list()))
}

fn tags(tags: &[Tag]) -> Vec<(String, String)> {
    let tags = tags.iter();
    tags.filter_map(|tag| Some((text(tag.key())?, tag.value()?.to_owned())))
        .collect()
}

fn instance(instance: &DbInstance) -> Option<Described> {
    let name = text(instance.db_instance_identifier())?;
    let at = instance.endpoint();
    let host = at.and_then(|at| at.address());
    let port = at.and_then(|at| at.port());
    let vpc = instance.db_subnet_group().and_then(|group| group.vpc_id());
    Some(Described {
        kind: DatabaseKind::Rds,
        arn: text(instance.db_instance_arn()),
        account: account_of(instance.db_instance_arn()),
        endpoints: endpoint(host, port, "instance").into_iter().collect(),
        aws: AwsMetadata {
            rds_instance_id: Some(name.clone()),
            rds_cluster_id: text(instance.db_cluster_identifier()),
            rds_resource_id: text(instance.dbi_resource_id()),
            rds_iam_auth: instance.iam_database_authentication_enabled(),
            ..AwsMetadata::default()
        },
        labels: labels([
            ("availability-zone", text(instance.availability_zone())),
            ("encrypted", yes_or_no(instance.storage_encrypted())),
            ("engine", text(instance.engine())),
            ("engine-version", text(instance.engine_version())),
            (
                "publicly-accessible",
                yes_or_no(instance.publicly_accessible()),
            ),
            ("vpc-id", text(vpc)),
        ]),
        tags: Some(tags(instance.tag_list())),
        status: lower(instance.db_instance_status()),
        name,
    })
}

fn cluster(cluster: &DbCluster) -> Option<Described> {
    let name = text(cluster.db_cluster_identifier())?;
    let port = cluster.port();
    let named = [
        endpoint(cluster.endpoint(), port, "primary"),
        endpoint(cluster.reader_endpoint(), port, "reader"),
    ];
    let custom = cluster.custom_endpoints().iter();
    let custom = custom.filter_map(|host| endpoint(Some(host), port, "custom"));
    Some(Described {
        kind: DatabaseKind::Rds,
        arn: text(cluster.db_cluster_arn()),
        account: account_of(cluster.db_cluster_arn()),
        endpoints: named.into_iter().flatten().chain(custom).collect(),
        aws: AwsMetadata {
            rds_cluster_id: Some(name.clone()),
            rds_resource_id: text(cluster.db_cluster_resource_id()),
            rds_iam_auth: cluster.iam_database_authentication_enabled(),
            ..AwsMetadata::default()
        },
        labels: labels([
            ("encrypted", yes_or_no(cluster.storage_encrypted())),
            ("engine", text(cluster.engine())),
            ("engine-version", text(cluster.engine_version())),
            (
                "publicly-accessible",
                yes_or_no(cluster.publicly_accessible()),
            ),
        ]),
        tags: Some(tags(cluster.tag_list())),
        status: lower(cluster.status()),
        name,
    })
}

fn proxy(proxy: &DbProxy) -> Option<Described> {
    let name = text(proxy.db_proxy_name())?;
    Some(Described {
        kind: DatabaseKind::Rdsproxy,
        arn: text(proxy.db_proxy_arn()),
        account: account_of(proxy.db_proxy_arn()),
        endpoints: endpoint(proxy.endpoint(), None, "proxy")
            .into_iter()
            .collect(),
        aws: AwsMetadata {
            rdsproxy_name: Some(name.clone()),
            ..AwsMetadata::default()
        },
        labels: labels([
            ("engine", text(proxy.engine_family())),
            ("vpc-id", text(proxy.vpc_id())),
        ]),
        tags: None,
        status: lower(proxy.status().map(|status| status.as_str())),
        name,
    })
}

fn proxy_endpoint(access: &DbProxyEndpoint) -> Option<Described> {
    let endpoint_type = match access.target_role().map(|role| role.as_str()) {
        Some("READ_ONLY") => "READ_ONLY",
        _ => "READ_WRITE",
    };
    let at: Option<DescribedEndpoint> = endpoint(access.endpoint(), None, endpoint_type);
    Some(Described {
        kind: DatabaseKind::Rdsproxy,
        name: text(access.db_proxy_endpoint_name())?,
        arn: text(access.db_proxy_endpoint_arn()),
        account: account_of(access.db_proxy_endpoint_arn()),
        endpoints: at.into_iter().collect(),
        aws: AwsMetadata {
            rdsproxy_name: text(access.db_proxy_name()),
            ..AwsMetadata::default()
        },
        labels: labels([("vpc-id", text(access.vpc_id()))]),
        tags: None,
        status: lower(access.status().map(|status| status.as_str())),
    })
}
