//! RDS proxies and their endpoints: DescribeDBProxies, DescribeDBProxyEndpoints.
//!
//! Endpoints are listed with each proxy's default one, as `default`, which AWS marks with
//! `IsDefault`.

use super::error::ApiError;
use super::page::{MARKER, Paging};
use super::rds::{Place, not_found};
use super::xml::Xml;
use super::{Call, Paged, yes_no};
use crate::state::State;
use crate::world::{DbProxy, DbProxyEndpoint, Kind, Region, db_proxy_id, derived_hex};

/// Name of the endpoint that every proxy has.
const DEFAULT_ENDPOINT: &str = "default";

pub(super) fn describe_proxies(state: &State, call: &Call<'_>) -> Result<Xml, ApiError> {
    let wanted = call.form.non_empty("DBProxyName");
    call.require(state, &call.arn("rds", "db-proxy:*"))?;
    refuse_filters(call)?;
    let world = state.world();
    let paging = Paging::read(call, &world, &MARKER)?;
    let place = Place::new(state, &world, call);
    let rest = place
        .of(&world)
        .map(|region| paging.rest(&region.db_proxies));
    let shown = |(name, _): &(&String, &DbProxy)| {
        wanted.is_none_or(|wanted| wanted.eq_ignore_ascii_case(name))
            && !place.hides(Kind::DbProxy, name)
    };
    let (page, marker) = paging.cut(rest.into_iter().flatten().filter(shown));
    if let Some(name) = wanted.filter(|_| page.is_empty() && call.paged != Paged::Empty) {
        return Err(not_found("DBProxyNotFoundFault", "DBProxy", name));
    }
    let mut xml = Xml::default();
    xml.node("DBProxies", |xml| {
        for (name, proxy) in page {
            xml.node("member", |xml| write_proxy(xml, &place, name, proxy));
        }
    });
    xml.maybe("Marker", marker.as_deref());
    Ok(xml)
}

/// The proxy whose ARN ends in `id`.
pub(super) fn name_of<'w>(place: &Place<'_>, region: &'w Region, id: &str) -> Option<&'w str> {
    let mut names = region.db_proxies.keys();
    names
        .find(|name| db_proxy_id(place.account, place.region, name) == id)
        .map(String::as_str)
}

pub(super) fn proxy_arn(place: &Place<'_>, name: &str) -> String {
    place.arn(&format!(
        "db-proxy:{}",
        db_proxy_id(place.account, place.region, name)
    ))
}

fn write_proxy(xml: &mut Xml, place: &Place<'_>, name: &str, proxy: &DbProxy) {
    xml.leaf("DBProxyName", name);
    xml.leaf("DBProxyArn", proxy_arn(place, name));
    xml.leaf("Status", &proxy.status);
    xml.leaf("EngineFamily", &proxy.engine_family);
    xml.leaf("VpcId", &proxy.vpc_id);
    xml.node("Auth", |xml| {
        xml.node("member", |xml| {
            xml.leaf("AuthScheme", "SECRETS");
            xml.leaf("IAMAuth", &proxy.iam_auth);
        });
    });
    xml.leaf("Endpoint", place.host(name, "proxy-"));
    xml.leaf("RequireTLS", yes_no(proxy.require_tls));
}

pub(super) fn describe_endpoints(state: &State, call: &Call<'_>) -> Result<Xml, ApiError> {
    let wanted_proxy = call.form.non_empty("DBProxyName");
    let wanted = call.form.non_empty("DBProxyEndpointName");
    call.require(state, &call.arn("rds", "db-proxy-endpoint:*"))?;
    refuse_filters(call)?;
    let world = state.world();
    let paging = Paging::read(call, &world, &MARKER)?;
    let place = Place::new(state, &world, call);
    let proxies = place
        .of(&world)
        .into_iter()
        .flat_map(|region| &region.db_proxies);
    let proxies: Vec<(&String, &DbProxy)> = proxies
        .filter(|(name, _)| wanted_proxy.is_none_or(|wanted| wanted.eq_ignore_ascii_case(name)))
        .filter(|(name, _)| !place.hides(Kind::DbProxy, name))
        .collect();
    if let Some(name) = wanted_proxy.filter(|_| proxies.is_empty()) {
        return Err(not_found("DBProxyNotFoundFault", "DBProxy", name));
    }
    let mut endpoints: Vec<(String, EndpointOf<'_>)> = proxies
        .into_iter()
        .flat_map(|(proxy_name, proxy)| {
            let named = proxy
                .endpoints
                .iter()
                .map(|(name, it)| (name.as_str(), Some(it)));
            let all = std::iter::once((DEFAULT_ENDPOINT, None)).chain(named);
            all.map(move |(name, endpoint)| {
                let of = EndpointOf {
                    proxy_name,
                    proxy,
                    name,
                    endpoint,
                };
                (format!("{proxy_name}/{name}"), of)
            })
        })
        .filter(|(_, of)| wanted.is_none_or(|wanted| wanted.eq_ignore_ascii_case(of.name)))
        .collect();
    if let Some(name) = wanted.filter(|_| endpoints.is_empty()) {
        return Err(not_found(
            "DBProxyEndpointNotFoundFault",
            "DBProxyEndpoint",
            name,
        ));
    }
    endpoints.retain(|(key, _)| key.as_str() > paging.after());
    endpoints.sort_by(|(a, _), (b, _)| a.cmp(b));
    let (page, marker) = paging.cut(endpoints.into_iter());
    let mut xml = Xml::default();
    xml.node("DBProxyEndpoints", |xml| {
        for (key, of) in page {
            xml.node("member", |xml| write_endpoint(xml, &place, &key, &of));
        }
    });
    xml.maybe("Marker", marker.as_deref());
    Ok(xml)
}

/// An endpoint with its proxy; the default one has nothing of its own.
struct EndpointOf<'a> {
    proxy_name: &'a str,
    proxy: &'a DbProxy,
    name: &'a str,
    endpoint: Option<&'a DbProxyEndpoint>,
}

fn write_endpoint(xml: &mut Xml, place: &Place<'_>, key: &str, of: &EndpointOf<'_>) {
    let full = format!("{}/{}/{key}", place.account, place.region);
    let id = derived_hex("db-proxy-endpoint:prx-endpoint-", &full);
    let own = of.endpoint;
    xml.leaf("DBProxyEndpointName", of.name);
    xml.leaf("DBProxyEndpointArn", place.arn(&id));
    xml.leaf("DBProxyName", of.proxy_name);
    xml.leaf("Status", own.map_or(&of.proxy.status, |it| &it.status));
    let vpc_id = own.and_then(|it| it.vpc_id.as_ref());
    xml.leaf("VpcId", vpc_id.unwrap_or(&of.proxy.vpc_id));
    let host = match own {
        Some(_) => place.host(of.name, "endpoint.proxy-"),
        None => place.host(of.proxy_name, "proxy-"),
    };
    xml.leaf("Endpoint", host);
    xml.leaf("TargetRole", own.map_or("READ_WRITE", |it| &it.target_role));
    xml.leaf("IsDefault", yes_no(own.is_none()));
}

/// AWS documents that these listings take no filters.
fn refuse_filters(call: &Call<'_>) -> Result<(), ApiError> {
    if call.form.filters().is_empty() {
        return Ok(());
    }
    let message = "This operation does not support filters";
    Err(ApiError::invalid_parameter(message))
}
