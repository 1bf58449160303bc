//! Which regions an account has enabled, for matchers that ask for all of them.
//!
//! One paged call: `account:ListRegions`. Accounts are managed in one region of each partition, which is derived
//! from the role's ARN or from the region that this process runs in.
//!
//! Source: AWS Account Management API reference, `ListRegions`.

use std::collections::HashSet;

use aws_sdk_account::types::RegionOptStatus;
use tidegate_aws::{AwsErrorClass, AwsFactory, AwsFailure, RoleChain, SessionTag, classify};
use tidegate_core::{AssumeRole, Region};

use crate::budget::{Budget, service};

/// Partition, how its regions begin, and where its accounts are managed; `aws` is what is not listed.
///
/// Source: the endpoint rules of the SDK (`implicitGlobalRegion`).
const HOMES: [(&str, &str, &str); 7] = [
    ("aws-cn", "cn-", "cn-northwest-1"),
    ("aws-eusc", "eusc-", "eusc-de-east-1"),
    ("aws-iso", "us-iso-", "us-iso-east-1"),
    ("aws-iso-b", "us-isob-", "us-isob-east-1"),
    ("aws-iso-e", "eu-isoe-", "eu-isoe-west-1"),
    ("aws-iso-f", "us-isof-", "us-isof-south-1"),
    ("aws-us-gov", "us-gov-", "us-gov-west-1"),
];

/// The permission that it needs.
pub(crate) const LIST_REGIONS: &str = "account:ListRegions";

/// Regions asked for a page, the most that AWS gives.
const PAGE_RECORDS: i32 = 50;

/// Most pages that are read: AWS has some 40 regions.
const PAGES_MAX: usize = 20;

/// The regions that are enabled for the account of `role`, or of this process, in order of name.
///
/// A region that is being enabled or disabled is not among them, and neither is one whose name cannot be read.
///
/// # Errors
///
/// When AWS does not give the whole list: part of it would make scopes come and go.
pub(crate) async fn enabled(
    factory: &AwsFactory,
    role: Option<&AssumeRole>,
    session: &SessionTag,
    budget: &Budget,
) -> Result<Vec<Region>, AwsFailure> {
    let chain = RoleChain::new(role.cloned(), None);
    let home = home(role, factory.own_region().as_ref());
    let config = factory.config(&chain, &home, session).await;
    let client = aws_sdk_account::Client::new(&config);
    let mut regions = Vec::new();
    let mut tokens = HashSet::new();
    let mut token: Option<String> = None;
    for _ in 0..PAGES_MAX {
        budget.take(service(LIST_REGIONS)).await;
        let page = client
            .list_regions()
            .max_results(PAGE_RECORDS)
            .region_opt_status_contains(RegionOptStatus::Enabled)
            .region_opt_status_contains(RegionOptStatus::EnabledByDefault)
            .set_next_token(token)
            .send()
            .await
            .map_err(|error| classify(LIST_REGIONS, error))?;
        regions.extend(page.regions().iter().filter_map(usable));
        token = page.next_token.filter(|token| !token.is_empty());
        let Some(next) = &token else {
            regions.sort();
            regions.dedup();
            return Ok(regions);
        };
        if !tokens.insert(next.clone()) {
            return Err(endless("it repeated the token of an earlier page"));
        }
    }
    Err(endless("it has too many pages"))
}

fn usable(region: &aws_sdk_account::types::Region) -> Option<Region> {
    // AWS was asked for these alone; an answer with others must not widen the scan.
    matches!(
        region.region_opt_status(),
        Some(RegionOptStatus::Enabled | RegionOptStatus::EnabledByDefault)
    )
    .then(|| region.region_name()?.parse().ok())?
}

/// The region of the account service in the partition that is asked.
fn home(role: Option<&AssumeRole>, own: Option<&Region>) -> Region {
    let own = own.map_or("", Region::as_str);
    let found = match role.map(|role| role.role_arn.partition()) {
        Some(partition) => HOMES.iter().find(|(named, ..)| *named == partition),
        None => HOMES.iter().find(|(_, prefix, _)| own.starts_with(prefix)),
    };
    let home = found.map_or("us-east-1", |(.., home)| *home);
    home.parse().expect("a region name written above is one")
}

fn endless(message: &str) -> AwsFailure {
    AwsFailure::new(AwsErrorClass::Malformed, LIST_REGIONS, message)
}

#[cfg(test)]
mod tests;
