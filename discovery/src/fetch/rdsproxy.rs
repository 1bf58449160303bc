//! RDS proxies and their further endpoints.
//!
//! Tags take a `ListTagsForResource` for each proxy, remembered for a few scans ([`super::tags`]); its endpoints
//! carry them too. The certificate of an endpoint names the proxy's default endpoint.
//!
//! Left out, with a count: a proxy that takes connections without TLS, and one for an engine that nobody here speaks.
//!
//! Source: Amazon RDS API reference, `DescribeDBProxies`, `DescribeDBProxyEndpoints`.

use std::{collections::HashMap, sync::Arc};

use aws_sdk_rds::{
    Client,
    types::{DbProxy, DbProxyEndpoint},
};
use futures::future::BoxFuture;
use tidegate_core::{AwsMetadata, Protocol, ScanScope};

use super::{
    FetchError, Memory, Reading,
    arn::{self, Arn},
    calls::Calls,
    draft::{Draft, Unread, named, some},
    status::{Availability, CREATING, Status},
    tags::Tags,
};
use crate::found::Found;

/// The first permission that scanning needs.
pub(super) const DESCRIBE_PROXIES: &str = "rds:DescribeDBProxies";
const DESCRIBE_ENDPOINTS: &str = "rds:DescribeDBProxyEndpoints";
const LIST_TAGS: &str = "rds:ListTagsForResource";

/// Proxies or endpoints asked for a page, the most that AWS gives.
const PAGE_RECORDS: i32 = 100;

const PROXY: &str = "proxy";
/// The endpoint types of a proxy's further endpoints.
static ROLES: [&str; 2] = ["READ_ONLY", "READ_WRITE"];

const WITHOUT_TLS: &str = "the proxy does not require TLS";
const OTHER_ENGINE: &str = "the proxy is for an engine that is not supported";

/// Reads proxies, their tags and their further endpoints.
pub(super) async fn fetch(
    client: &Client,
    scope: &ScanScope,
    reading: &mut Reading,
    memory: &Memory,
) -> Result<(), FetchError> {
    let mut proxies = Vec::new();
    let listed = list_proxies(client, reading, &mut proxies).await;
    let goes_on = !matches!(&listed, Err(error) if error.concerns_every_call());
    proxies.retain(|proxy| served(proxy).map_err(|why| reading.left_out(why)).is_ok());
    let arns: Vec<String> = proxies
        .iter()
        .filter_map(|proxy| some(proxy.db_proxy_arn()).map(str::to_owned))
        .collect();
    let calls = Arc::clone(&reading.calls);
    let known = memory
        .tags
        .read(arns, reading, goes_on, |arn| {
            tags_of(client.clone(), Arc::clone(&calls), arn)
        })
        .await;
    let mut parents = HashMap::new();
    for proxy in &proxies {
        let tags = known.get(proxy.db_proxy_arn().unwrap_or_default());
        match Parent::read(proxy, tags.map(Arc::as_ref)) {
            Ok(parent) => {
                memory.statuses.look(scope.kind, &parent.status);
                reading.take(convert(scope, &parent));
                parents.insert(parent.name, parent);
            }
            Err(error) => reading.missed(error),
        }
    }
    let with_endpoints = ROLES.iter().any(|role| scope.endpoints.admits(role));
    if goes_on && !parents.is_empty() && with_endpoints {
        let mut endpoints = Vec::new();
        let read = list_endpoints(client, reading, &mut endpoints).await;
        for endpoint in &endpoints {
            let Some(parent) = parents.get(endpoint.db_proxy_name().unwrap_or_default()) else {
                continue;
            };
            if endpoint.is_default() != Some(true) {
                reading.take(convert_endpoint(scope, parent, endpoint, memory));
            }
        }
        if let Err(error) = read {
            reading.missed(error.in_part("proxy endpoints", &ROLES));
        }
    }
    listed
}

async fn list_proxies(
    client: &Client,
    reading: &mut Reading,
    listed: &mut Vec<DbProxy>,
) -> Result<(), FetchError> {
    let ask = |marker| {
        client
            .describe_db_proxies()
            .max_records(PAGE_RECORDS)
            .set_marker(marker)
            .send()
    };
    reading
        .calls
        .list(DESCRIBE_PROXIES, ask, |page| {
            listed.extend(page.db_proxies.unwrap_or_default());
            page.marker
        })
        .await
}

async fn list_endpoints(
    client: &Client,
    reading: &mut Reading,
    listed: &mut Vec<DbProxyEndpoint>,
) -> Result<(), FetchError> {
    let ask = |marker| {
        client
            .describe_db_proxy_endpoints()
            .max_records(PAGE_RECORDS)
            .set_marker(marker)
            .send()
    };
    reading
        .calls
        .list(DESCRIBE_ENDPOINTS, ask, |page| {
            listed.extend(page.db_proxy_endpoints.unwrap_or_default());
            page.marker
        })
        .await
}

fn tags_of(
    client: Client,
    calls: Arc<Calls>,
    arn: String,
) -> BoxFuture<'static, Result<Tags, FetchError>> {
    Box::pin(async move {
        let request = client.list_tags_for_resource().resource_name(arn);
        let answer = calls.call(LIST_TAGS, request.send()).await?;
        let tags = answer.tag_list().iter().filter_map(|tag| {
            let value = tag.value().unwrap_or_default();
            Some((tag.key()?.to_owned(), value.to_owned()))
        });
        Ok(tags.collect())
    })
}

/// Why a proxy is left out, if it is.
fn served(proxy: &DbProxy) -> Result<(), &'static str> {
    if proxy.require_tls() == Some(false) {
        Err(WITHOUT_TLS)
    } else if some(proxy.engine_family()).is_some_and(|family| speaks(family).is_none()) {
        Err(OTHER_ENGINE)
    } else {
        Ok(())
    }
}

/// What the proxies of an engine family speak, and on which port.
fn speaks(family: &str) -> Option<(Protocol, i32)> {
    match family {
        "MYSQL" => Some((Protocol::Mysql, 3306)),
        "POSTGRESQL" => Some((Protocol::Postgres, 5432)),
        _ => None,
    }
}

/// A proxy, as it and its endpoints need it.
#[derive(Debug)]
struct Parent<'p> {
    proxy: &'p DbProxy,
    name: &'p str,
    arn_text: &'p str,
    arn: Arn<'p>,
    family: &'p str,
    protocol: Protocol,
    port: i32,
    status: Status,
    tags: Option<&'p Tags>,
}

impl<'p> Parent<'p> {
    fn read(proxy: &'p DbProxy, tags: Option<&'p Tags>) -> Result<Self, FetchError> {
        let name = proxy.db_proxy_name();
        let name = named(name, DESCRIBE_PROXIES, "a proxy", "DBProxyName")?;
        let lacks = |field| {
            let proxy = format!("proxy `{name}`");
            FetchError::malformed(DESCRIBE_PROXIES, proxy, field)
        };
        let arn_text = proxy.db_proxy_arn().unwrap_or_default();
        let arn = arn::read(arn_text, "rds").ok_or_else(|| lacks("DBProxyArn"))?;
        let family = proxy.engine_family().unwrap_or_default();
        let (protocol, port) = speaks(family).ok_or_else(|| lacks("EngineFamily"))?;
        let status = proxy.status().map(|status| status.as_str());
        Ok(Self {
            proxy,
            name,
            arn_text,
            arn,
            family,
            protocol,
            port,
            status: Status::read(status, availability),
            tags,
        })
    }

    fn draft(&self, scope: &ScanScope) -> Draft<'p> {
        let tags = self.tags.map(Vec::as_slice).unwrap_or_default().iter();
        Draft {
            action: DESCRIBE_PROXIES,
            what: "proxy",
            identity: self.arn_text.to_owned(),
            account: self.arn.account.clone(),
            id: self.name,
            endpoint: String::new(),
            endpoint_type: PROXY,
            subtype: None,
            description: format!("RDS proxy in {}", scope.region),
            protocol: self.protocol,
            host: self.proxy.endpoint(),
            port: Some(self.port),
            server_name: None,
            aws: AwsMetadata {
                rdsproxy_name: Some(self.name.to_owned()),
                rds_resource_id: self
                    .arn
                    .resource
                    .strip_prefix("db-proxy:")
                    .map(str::to_owned),
                ..AwsMetadata::default()
            },
            status: self.status.clone(),
            told: vec![
                ("engine", Some(self.family)),
                ("vpc-id", self.proxy.vpc_id()),
            ],
            tags: tags
                .map(|(key, value)| (key.as_str(), value.as_str()))
                .collect(),
            unread: if self.tags.is_some() {
                Unread::Nothing
            } else {
                Unread::Tags
            },
        }
    }
}

/// The database that a proxy is; `None` when the scope does not ask for it, or it is not there yet.
fn convert(scope: &ScanScope, parent: &Parent<'_>) -> Result<Option<Found>, FetchError> {
    parent.draft(scope).find(scope)
}

/// The database that a further endpoint of a proxy is.
fn convert_endpoint(
    scope: &ScanScope,
    parent: &Parent<'_>,
    endpoint: &DbProxyEndpoint,
    memory: &Memory,
) -> Result<Option<Found>, FetchError> {
    let action = DESCRIBE_ENDPOINTS;
    let what = "a proxy endpoint";
    let name = endpoint.db_proxy_endpoint_name();
    let name = named(name, action, what, "DBProxyEndpointName")?;
    let role = endpoint.target_role().map(|role| role.as_str());
    let role = named(role, action, what, "TargetRole")?;
    let status = endpoint.status().map(|status| status.as_str());
    let status = Status::read(status, availability);
    memory.statuses.look(scope.kind, &status);
    let default_host = some(parent.proxy.endpoint());
    let draft = Draft {
        action,
        what: "endpoint of proxy",
        identity: format!("{}#endpoint/{name}", parent.arn_text),
        endpoint: name.to_owned(),
        endpoint_type: role,
        description: format!("Endpoint of an RDS proxy in {}", scope.region),
        // Without the proxy's own host its certificate could not be checked.
        host: default_host.and(endpoint.endpoint()),
        server_name: default_host.map(str::to_owned),
        status,
        told: vec![
            ("engine", Some(parent.family)),
            ("vpc-id", endpoint.vpc_id()),
        ],
        ..parent.draft(scope)
    };
    draft.find(scope)
}

/// Of proxies and of their endpoints.
fn availability(status: &str) -> Availability {
    match status {
        "available" | "modifying" | "reactivating" => Availability::Available,
        CREATING
        | "deleting"
        | "incompatible-network"
        | "insufficient-resource-limits"
        | "suspended"
        | "suspending" => Availability::Unavailable,
        _ => Availability::Unknown,
    }
}

#[cfg(test)]
mod tests;
