//! The Resource Groups Tagging API: the tags of many resources, whatever their service, in one listing.
//!
//! Only what has tags is listed. (AWS also lists what once had some, with an empty list; that is not
//! simulated.) Pages are in order of ARNs, and the last one has an empty token, not none.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Call;
use super::error::ApiError;
use super::form::{Filter, Form};
use super::page::{PAGINATION_TOKEN, Paging};
use super::rds::Place;
use super::{rds_proxy, serverless};
use crate::state::State;
use crate::world::{Kind, Region, arn};

/// Every resource type that the simulation can list, as filters name it.
const TYPES: [(&str, Kind); 5] = [
    ("rds:cluster", Kind::DbCluster),
    ("rds:db", Kind::DbInstance),
    ("rds:db-proxy", Kind::DbProxy),
    ("redshift-serverless:workgroup", Kind::Workgroup),
    ("redshift:cluster", Kind::Cluster),
];
/// Most ARNs, and most type filters, of one request.
const LIST_MAX: usize = 100;
/// Most keys of the tag filters of one request.
const TAG_KEYS_MAX: usize = 50;
/// Most values of one tag filter.
const TAG_VALUES_MAX: usize = 20;

type Tags = BTreeMap<String, String>;

/// What a request asks for.
struct Wanted {
    kinds: Vec<Kind>,
    arns: Vec<String>,
    tags: Vec<Filter>,
}

impl Wanted {
    fn read(form: &Form) -> Result<Self, ApiError> {
        for name in ["IncludeComplianceDetails", "ExcludeCompliantResources"] {
            if form.flag(name)? {
                return Err(ApiError::not_simulated(name));
            }
        }
        if form.get("TagsPerPage").is_some() {
            return Err(ApiError::not_simulated("TagsPerPage"));
        }
        let (types, arns) = (
            form.list("ResourceTypeFilters"),
            form.list("ResourceARNList"),
        );
        let tags = form.tag_filters();
        let paged = form.get("ResourcesPerPage").is_some() || form.get("PaginationToken").is_some();
        if !arns.is_empty() && (paged || !types.is_empty() || !tags.is_empty()) {
            let message = "ResourceARNList can not be given together with filters or pages";
            return Err(ApiError::invalid_parameter(message));
        }
        let too_many_values = tags.iter().any(|tag| tag.values.len() > TAG_VALUES_MAX);
        if types.len().max(arns.len()) > LIST_MAX || tags.len() > TAG_KEYS_MAX || too_many_values {
            let message = "a list of the request has too many members";
            return Err(ApiError::invalid_parameter(message));
        }
        let kinds: Result<Vec<_>, _> = types.iter().map(|name| kinds_of(name)).collect();
        let mut kinds = kinds?.concat();
        if types.is_empty() {
            kinds.extend(TYPES.map(|(_, kind)| kind));
        }
        Ok(Self { kinds, arns, tags })
    }

    /// Every filter needs the key, with one of the values if it has any.
    fn fits(&self, arn: &String, tags: &Tags) -> bool {
        let has = |filter: &Filter| {
            let value = tags.get(&filter.name);
            value.is_some_and(|is| filter.values.is_empty() || filter.values.contains(is))
        };
        (self.arns.is_empty() || self.arns.contains(arn)) && self.tags.iter().all(has)
    }
}

/// The kinds that a filter means: `service` or `service:type`.
fn kinds_of(filter: &str) -> Result<Vec<Kind>, ApiError> {
    let fits = |name: &str| {
        let service = name.split_once(':').map(|(service, _)| service);
        name == filter || service == Some(filter)
    };
    let kinds = TYPES.iter().filter(|(name, _)| fits(name));
    let kinds: Vec<Kind> = kinds.map(|(_, kind)| *kind).collect();
    if kinds.is_empty() {
        return Err(ApiError::not_simulated(&format!("resources of {filter}")));
    }
    Ok(kinds)
}

/// Answers GetResources.
pub(super) fn get_resources(state: &State, call: &Call<'_>) -> Result<Value, ApiError> {
    call.require(state, "*")?;
    let wanted = Wanted::read(call.form)?;
    let world = state.world();
    let paging = Paging::read(call, &world, &PAGINATION_TOKEN)?;
    let place = Place::new(state, &world, call);
    let mut tagged = BTreeMap::new();
    for kind in &wanted.kinds {
        if let Some(region) = place.of(&world) {
            collect(&place, region, *kind, &mut tagged);
        }
    }
    let after = paging.after().to_owned();
    let rest = tagged.into_iter();
    let rest = rest.filter(|(arn, tags)| *arn > after && wanted.fits(arn, tags));
    let (page, token) = paging.cut(rest);
    let mappings: Vec<Value> = page
        .into_iter()
        .map(|(arn, tags)| {
            let tags = tags.iter();
            let tags: Vec<Value> = tags
                .map(|(key, value)| json!({ "Key": key, "Value": value }))
                .collect();
            json!({ "ResourceARN": arn, "Tags": tags })
        })
        .collect();
    Ok(json!({
        "PaginationToken": token.unwrap_or_default(),
        "ResourceTagMappingList": mappings,
    }))
}

/// Adds what a region has of a kind, as far as listings show it and it has tags.
fn collect<'t>(
    place: &'t Place<'_>,
    region: &'t Region,
    kind: Kind,
    tagged: &mut BTreeMap<String, &'t Tags>,
) {
    let names: Vec<&String> = match kind {
        Kind::Cluster => region.clusters.keys().collect(),
        Kind::Workgroup => region.workgroups.keys().collect(),
        Kind::DbInstance => region.db_instances.keys().collect(),
        Kind::DbCluster => region.db_clusters.keys().collect(),
        Kind::DbProxy => region.db_proxies.keys().collect(),
    };
    let shown = names.into_iter().filter(|name| !place.hides(kind, name));
    tagged.extend(shown.filter_map(|name| {
        let tags = place.tags(kind, name, region.tags(kind, name)?);
        (!tags.is_empty()).then(|| (arn_of(place, kind, name), tags))
    }));
}

/// As the listings of its own service name it.
fn arn_of(place: &Place<'_>, kind: Kind, name: &str) -> String {
    match kind {
        Kind::Cluster => arn(
            "redshift",
            place.region,
            place.account,
            &format!("cluster:{name}"),
        ),
        Kind::DbCluster => place.arn(&format!("cluster:{name}")),
        Kind::DbInstance => place.arn(&format!("db:{name}")),
        Kind::DbProxy => rds_proxy::proxy_arn(place, name),
        Kind::Workgroup => serverless::workgroup_arn(place.account, place.region, name),
    }
}
