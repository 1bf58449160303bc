//! Redshift Serverless workgroups, and the VPC endpoints that Redshift manages for them.
//!
//! `ListWorkgroups` gives neither tags nor database names. Tags come in one list where that is allowed
//! ([`super::tagging`]); those that it leaves open, or all, take a `ListTagsForResource` for each workgroup,
//! remembered for a few scans ([`super::tags`]). A workgroup whose tags cannot be read goes out without them and
//! says so, and the scan is partial: what the inventory has of it stays.
//!
//! VPC endpoints have no tags of their own here: they carry those of their workgroup, whose certificate they show.
//! `ListEndpointAccess` is asked only when there is a workgroup and the scope wants VPC endpoints.
//!
//! Source: Amazon Redshift Serverless API reference.

use std::{collections::HashMap, sync::Arc};

use aws_sdk_redshiftserverless::{
    Client,
    types::{EndpointAccess, Workgroup},
};
use futures::future::BoxFuture;
use tidegate_core::{AwsMetadata, Protocol, ScanScope};

use super::{
    FetchError, Memory, Reading,
    arn::{self, Arn},
    calls::Calls,
    draft::{Draft, Unread, named, some, yes_or_no},
    status::{Availability, CREATING, Status, of_vpc_endpoint},
    tagging::{self, WORKGROUPS},
    tags::{KnownTags, Tags},
};
use crate::found::Found;

/// The first permission that scanning needs.
pub(super) const LIST_WORKGROUPS: &str = "redshift-serverless:ListWorkgroups";
const LIST_ENDPOINT_ACCESS: &str = "redshift-serverless:ListEndpointAccess";
const LIST_TAGS: &str = "redshift-serverless:ListTagsForResource";

/// Workgroups or endpoints asked for a page, the most that AWS gives.
const PAGE_RECORDS: i32 = 100;

const WORKGROUP: &str = "workgroup";
const VPC_ENDPOINT: &str = "vpc-endpoint";

/// Reads workgroups, their tags and their VPC endpoints.
pub(super) async fn fetch(
    client: &Client,
    tagging: &aws_sdk_resourcegroupstagging::Client,
    scope: &ScanScope,
    reading: &mut Reading,
    memory: &Memory,
) -> Result<(), FetchError> {
    let mut workgroups = Vec::new();
    let listed = list_workgroups(client, reading, &mut workgroups).await;
    let goes_on = !matches!(&listed, Err(error) if error.concerns_every_call());
    let arns: Vec<String> = workgroups
        .iter()
        .filter_map(|workgroup| some(workgroup.workgroup_arn()).map(str::to_owned))
        .collect();
    let known = tags(client, tagging, scope, reading, memory, arns, goes_on).await;
    let mut parents = HashMap::new();
    for workgroup in &workgroups {
        let tags = known.get(workgroup.workgroup_arn().unwrap_or_default());
        match Parent::read(workgroup, tags.map(Arc::as_ref)) {
            Ok(parent) => {
                memory.statuses.look(scope.kind, &parent.status);
                reading.take(convert(scope, &parent));
                parents.insert(parent.name, parent);
            }
            Err(error) => reading.missed(error),
        }
    }
    if goes_on && !parents.is_empty() && scope.endpoints.admits(VPC_ENDPOINT) {
        let mut endpoints = Vec::new();
        let read = list_endpoints(client, reading, &mut endpoints).await;
        for endpoint in &endpoints {
            // One of another account's workgroup, or of a workgroup that came after the list was read.
            let Some(parent) = parents.get(endpoint.workgroup_name().unwrap_or_default()) else {
                continue;
            };
            reading.take(convert_endpoint(scope, parent, endpoint, memory));
        }
        if let Err(error) = read {
            reading.missed(error.in_part("VPC endpoints", &[VPC_ENDPOINT]));
        }
    }
    listed
}

/// The tags of `arns` as far as they can be read; with `may_ask` false only what is remembered.
async fn tags(
    client: &Client,
    tagging: &aws_sdk_resourcegroupstagging::Client,
    scope: &ScanScope,
    reading: &mut Reading,
    memory: &Memory,
    arns: Vec<String>,
    may_ask: bool,
) -> KnownTags {
    let (mut known, mut open) = (KnownTags::new(), arns);
    if may_ask
        && !open.is_empty()
        && let Some(listed) = tagging::list(tagging, WORKGROUPS, scope, reading, memory).await
    {
        (known, open) = memory.tags.settle(open, listed);
    }
    let calls = Arc::clone(&reading.calls);
    let ask = |arn| tags_of(client.clone(), Arc::clone(&calls), arn);
    known.extend(memory.tags.read(open, reading, may_ask, ask).await);
    known
}

async fn list_workgroups(
    client: &Client,
    reading: &mut Reading,
    listed: &mut Vec<Workgroup>,
) -> Result<(), FetchError> {
    let ask = |token| {
        client
            .list_workgroups()
            .max_results(PAGE_RECORDS)
            .set_next_token(token)
            .send()
    };
    reading
        .calls
        .list(LIST_WORKGROUPS, ask, |page| {
            listed.extend(page.workgroups);
            page.next_token
        })
        .await
}

async fn list_endpoints(
    client: &Client,
    reading: &mut Reading,
    listed: &mut Vec<EndpointAccess>,
) -> Result<(), FetchError> {
    let ask = |token| {
        client
            .list_endpoint_access()
            .max_results(PAGE_RECORDS)
            .set_next_token(token)
            .send()
    };
    reading
        .calls
        .list(LIST_ENDPOINT_ACCESS, ask, |page| {
            listed.extend(page.endpoints);
            page.next_token
        })
        .await
}

fn tags_of(
    client: Client,
    calls: Arc<Calls>,
    arn: String,
) -> BoxFuture<'static, Result<Tags, FetchError>> {
    Box::pin(async move {
        let request = client.list_tags_for_resource().resource_arn(arn);
        let answer = calls.call(LIST_TAGS, request.send()).await?;
        let tags = answer.tags().iter();
        Ok(tags
            .map(|tag| (tag.key().to_owned(), tag.value().to_owned()))
            .collect())
    })
}

/// A workgroup, as it and its VPC endpoints need it.
#[derive(Debug)]
struct Parent<'w> {
    workgroup: &'w Workgroup,
    name: &'w str,
    arn_text: &'w str,
    arn: Arn<'w>,
    status: Status,
    tags: Option<&'w Tags>,
}

impl<'w> Parent<'w> {
    fn read(workgroup: &'w Workgroup, tags: Option<&'w Tags>) -> Result<Self, FetchError> {
        let name = workgroup.workgroup_name();
        let name = named(name, LIST_WORKGROUPS, "a workgroup", "workgroupName")?;
        let arn_text = workgroup.workgroup_arn().unwrap_or_default();
        let arn = arn::read(arn_text, "redshift-serverless").ok_or_else(|| {
            let workgroup = format!("workgroup `{name}`");
            FetchError::malformed(LIST_WORKGROUPS, workgroup, "workgroupArn")
        })?;
        let status = workgroup.status().map(|status| status.as_str());
        Ok(Self {
            workgroup,
            name,
            arn_text,
            arn,
            status: Status::read(status, availability),
            tags,
        })
    }

    fn host(&self) -> Option<&'w str> {
        some(self.workgroup.endpoint()?.address())
    }

    fn tags(&self) -> Vec<(&'w str, &'w str)> {
        let tags = self.tags.map(Vec::as_slice).unwrap_or_default().iter();
        tags.map(|(key, value)| (key.as_str(), value.as_str()))
            .collect()
    }

    fn unread(&self) -> Unread {
        if self.tags.is_some() {
            Unread::Nothing
        } else {
            Unread::Tags
        }
    }

    fn metadata(&self, endpoint: Option<&str>) -> AwsMetadata {
        AwsMetadata {
            redshift_serverless_workgroup: Some(self.name.to_owned()),
            redshift_serverless_endpoint: endpoint.map(str::to_owned),
            ..AwsMetadata::default()
        }
    }

    /// What the workgroup and its endpoints are both labelled with.
    fn told(&self) -> Vec<(&'static str, Option<&'w str>)> {
        let workgroup = self.workgroup;
        vec![
            ("custom-domain", workgroup.custom_domain_name()),
            ("engine-version", workgroup.workgroup_version()),
            ("namespace", workgroup.namespace_name()),
            (
                "publicly-accessible",
                yes_or_no(workgroup.publicly_accessible()),
            ),
        ]
    }
}

/// The database that a workgroup is; `None` when the scope does not ask for it, or it is not there yet.
fn convert(scope: &ScanScope, parent: &Parent<'_>) -> Result<Option<Found>, FetchError> {
    let endpoint = parent.workgroup.endpoint();
    let vpc = endpoint
        .and_then(|endpoint| endpoint.vpc_endpoints().first())
        .and_then(|vpc| vpc.vpc_id());
    let mut told = parent.told();
    told.push(("vpc-id", vpc));
    let draft = Draft {
        action: LIST_WORKGROUPS,
        what: "workgroup",
        identity: parent.arn_text.to_owned(),
        account: parent.arn.account.clone(),
        id: parent.name,
        endpoint: String::new(),
        endpoint_type: WORKGROUP,
        subtype: None,
        description: format!("Redshift Serverless workgroup in {}", scope.region),
        protocol: Protocol::Postgres,
        host: parent.host(),
        port: endpoint.and_then(|endpoint| endpoint.port()),
        server_name: None,
        aws: parent.metadata(None),
        status: parent.status.clone(),
        told,
        tags: parent.tags(),
        unread: parent.unread(),
    };
    draft.find(scope)
}

/// The database that a VPC endpoint of a workgroup is.
fn convert_endpoint(
    scope: &ScanScope,
    parent: &Parent<'_>,
    endpoint: &EndpointAccess,
    memory: &Memory,
) -> Result<Option<Found>, FetchError> {
    let action = LIST_ENDPOINT_ACCESS;
    let what = "a VPC endpoint";
    let name = named(endpoint.endpoint_name(), action, what, "endpointName")?;
    let status = Status::read(endpoint.endpoint_status(), of_vpc_endpoint);
    memory.statuses.look(scope.kind, &status);
    let vpc = endpoint.vpc_endpoint().and_then(|vpc| vpc.vpc_id());
    let mut told = parent.told();
    told.push(("vpc-id", vpc));
    told.push(("workgroup", Some(parent.name)));
    let draft = Draft {
        action,
        what: "VPC endpoint of workgroup",
        identity: format!("{}#{VPC_ENDPOINT}/{name}", parent.arn_text),
        account: parent.arn.account.clone(),
        id: parent.name,
        endpoint: name.to_owned(),
        endpoint_type: VPC_ENDPOINT,
        subtype: None,
        description: format!(
            "VPC endpoint of a Redshift Serverless workgroup in {}",
            scope.region
        ),
        protocol: Protocol::Postgres,
        // Without the workgroup's own host its certificate could not be checked.
        host: parent.host().and(endpoint.address()),
        port: endpoint.port(),
        server_name: parent.host().map(str::to_owned),
        aws: parent.metadata(Some(name)),
        status,
        told,
        tags: parent.tags(),
        unread: parent.unread(),
    };
    draft.find(scope)
}

fn availability(status: &str) -> Availability {
    match status {
        "available" | "modifying" => Availability::Available,
        CREATING | "deleting" => Availability::Unavailable,
        _ => Availability::Unknown,
    }
}

#[cfg(test)]
mod tests;
