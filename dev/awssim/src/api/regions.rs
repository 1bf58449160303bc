//! Account management: which regions are enabled.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Call;
use super::error::ApiError;
use super::page::{Paging, REGIONS_TOKEN};
use crate::state::State;
use crate::world::{DEFAULT_REGIONS, OPT_IN_REGIONS, Region, partition};

/// Answers ListRegions: the world's regions are enabled, all others of AWS's are not.
pub(super) fn list_regions(state: &State, call: &Call<'_>) -> Result<Value, ApiError> {
    let account = call.caller.account();
    call.require(
        state,
        &format!("arn:{}:account::{account}:account", partition(call.region)),
    )?;
    if call.form.non_empty("AccountId").is_some() {
        return Err(ApiError::not_simulated("AccountId"));
    }
    let world = state.world();
    let paging = Paging::read(call, &world, &REGIONS_TOKEN)?;
    let enabled = world.accounts.get(account).map(|found| &found.regions);
    let regions = statuses(partition(call.region), enabled.into_iter().flatten());
    let wanted = call.form.list("RegionOptStatusContains");
    let rest = regions
        .into_iter()
        .filter(|(name, _)| *name > paging.after().to_owned().as_str())
        .filter(|(_, status)| wanted.is_empty() || wanted.iter().any(|w| w == status))
        .collect::<Vec<_>>();
    let (page, token) = paging.cut(rest.into_iter());
    let page = page.into_iter();
    let regions: Vec<Value> = page
        .map(|(name, status)| json!({ "RegionName": name, "RegionOptStatus": status }))
        .collect();
    let mut json = json!({ "Regions": regions });
    if let Some(token) = token {
        json["NextToken"] = json!(token);
    }
    Ok(json)
}

/// Every region of a partition; only those of `aws` are known beyond the enabled ones.
fn statuses<'a>(
    of: &str,
    enabled: impl Iterator<Item = (&'a String, &'a Region)>,
) -> BTreeMap<&'a str, &'static str> {
    let known = DEFAULT_REGIONS.into_iter().chain(OPT_IN_REGIONS);
    let known = known.filter(|_| of == "aws");
    let mut regions: BTreeMap<&str, &str> = known.map(|name| (name, "DISABLED")).collect();
    for (name, _) in enabled.filter(|(_, region)| !region.disabled) {
        let by_default = of != "aws" || DEFAULT_REGIONS.contains(&name.as_str());
        let status = if by_default {
            "ENABLED_BY_DEFAULT"
        } else {
            "ENABLED"
        };
        regions.insert(name, status);
    }
    regions
}
