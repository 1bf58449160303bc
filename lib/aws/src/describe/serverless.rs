//! Workgroups of Redshift Serverless, their VPC endpoints and their tags.

use aws_sdk_redshiftserverless::{
    Client,
    types::{EndpointAccess, Workgroup},
};
use tidegate_core::{AwsMetadata, DatabaseKind};

use super::{
    Described, Listing, PAGE_RECORDS, Page, account_of, endpoint, failed, labels, lower, text,
    yes_or_no,
};
use crate::{AwsFailure, classify};

const LIST_TAGS: &str = "redshift-serverless:ListTagsForResource";

pub(super) async fn page(
    client: &Client,
    listing: Listing,
    name: Option<String>,
    marker: Option<String>,
) -> Result<Page, AwsFailure> {
    match name {
        Some(name) if listing == Listing::ServerlessWorkgroups => {
            let request = client.get_workgroup().workgroup_name(name);
            let answer = request.send().await;
            let answer = answer.map_err(|error| failed(listing, true, error))?;
            Ok(Page {
                items: answer.workgroup().and_then(workgroup).into_iter().collect(),
                next: None,
            })
        }
        _ if listing == Listing::ServerlessEndpoints => {
            let request = client.list_endpoint_access().max_results(PAGE_RECORDS);
            let answer = request.set_next_token(marker).send().await;
            let answer = answer.map_err(|error| failed(listing, false, error))?;
            Ok(Page {
                items: answer.endpoints.iter().filter_map(vpc_endpoint).collect(),
                next: answer.next_token,
            })
        }
        _ => {
            let request = client.list_workgroups().max_results(PAGE_RECORDS);
            let answer = request.set_next_token(marker).send().await;
            let answer = answer.map_err(|error| failed(listing, false, error))?;
            Ok(Page {
                items: answer.workgroups.iter().filter_map(workgroup).collect(),
                next: answer.next_token,
            })
        }
    }
}

pub(super) async fn tags_of(
    client: &Client,
    arn: &str,
) -> Result<Vec<(String, String)>, AwsFailure> {
    let request = client.list_tags_for_resource().resource_arn(arn);
    let answer = request.send().await;
    let answer = answer.map_err(|error| classify(LIST_TAGS, error))?;
    let tags = answer.tags().iter();
    Ok(tags
        .map(|tag| (tag.key().to_owned(), tag.value().to_owned()))
        .collect())
}

fn workgroup(workgroup: &Workgroup) -> Option<Described> {
    let name = text(workgroup.workgroup_name())?;
    let at = workgroup.endpoint();
    let host = at.and_then(|at| at.address());
    let port = at.and_then(|at| at.port());
    let vpc = at.and_then(|at| at.vpc_endpoints().first());
    let vpc = vpc.and_then(|vpc| vpc.vpc_id());
    Some(Described {
        kind: DatabaseKind::RedshiftServerless,
        arn: text(workgroup.workgroup_arn()),
        account: account_of(workgroup.workgroup_arn()),
        endpoints: endpoint(host, port, "workgroup").into_iter().collect(),
        aws: AwsMetadata {
            redshift_serverless_workgroup: Some(name.clone()),
            ..AwsMetadata::default()
        },
        labels: labels([
            ("custom-domain", text(workgroup.custom_domain_name())),
            ("engine-version", text(workgroup.workgroup_version())),
            ("namespace", text(workgroup.namespace_name())),
            (
                "publicly-accessible",
                yes_or_no(workgroup.publicly_accessible()),
            ),
            ("vpc-id", text(vpc)),
        ]),
        tags: None,
        status: lower(workgroup.status().map(|status| status.as_str())),
        name,
    })
}

fn vpc_endpoint(access: &EndpointAccess) -> Option<Described> {
    let name = text(access.endpoint_name())?;
    let vpc = access.vpc_endpoint().and_then(|vpc| vpc.vpc_id());
    let workgroup = text(access.workgroup_name());
    Some(Described {
        kind: DatabaseKind::RedshiftServerless,
        arn: text(access.endpoint_arn()),
        account: account_of(access.endpoint_arn()),
        endpoints: endpoint(access.address(), access.port(), "vpc-endpoint")
            .into_iter()
            .collect(),
        aws: AwsMetadata {
            redshift_serverless_workgroup: workgroup.clone(),
            redshift_serverless_endpoint: Some(name.clone()),
            ..AwsMetadata::default()
        },
        labels: labels([("vpc-id", text(vpc)), ("workgroup", workgroup)]),
        tags: Some(Vec::new()),
        status: lower(access.endpoint_status()),
        name,
    })
}
