//! The tags of all workgroups of a region in one list: `tag:GetResources`, a call for a hundred of them.
//!
//! It is a convenience and never a need. While it is not allowed, or not to be had (a network with endpoints of some
//! services only), tags take a call for each workgroup as if there were no such list; that it failed is remembered
//! for a while, and said once.
//!
//! What a resource that is not on the list has is decided in [`super::tags::TagCache::settle`].
//!
//! Source: Resource Groups Tagging API reference, `GetResources`.

use std::{collections::HashMap, sync::PoisonError, time::Duration};

use aws_sdk_resourcegroupstagging::{Client, types::ResourceTagMapping};
use tidegate_aws::{AwsErrorClass, AwsFailure};
use tidegate_core::ScanScope;
use tracing::{info, warn};

use super::{FetchError, Memory, Reading, draft::some, refusals::REMEMBERED_FOR, tags::Tags};

/// The permission that it needs.
pub(super) const GET_RESOURCES: &str = "tag:GetResources";

/// Workgroups, as the API names types of resources.
pub(super) const WORKGROUPS: &str = "redshift-serverless:workgroup";

/// Resources asked for a page, the most that AWS gives.
const PAGE_RECORDS: i32 = 100;

/// How long a failure that is no refusal keeps scans from asking again: a call that hangs costs each scan half a
/// minute.
const AWAY_FOR: Duration = Duration::from_secs(5 * 60);

/// The tags of every resource of a type that has or had some, by ARN; `None` when they are to be had one by one only.
pub(super) async fn list(
    client: &Client,
    resource_type: &'static str,
    scope: &ScanScope,
    reading: &mut Reading,
    memory: &Memory,
) -> Option<HashMap<String, Tags>> {
    if !reading.fresh && memory.refusals.known(GET_RESOURCES, scope).is_some() {
        return None;
    }
    match read(client, resource_type, reading).await {
        Ok(tags) => Some(tags),
        Err(error) => {
            set_aside(error, scope, memory);
            None
        }
    }
}

async fn read(
    client: &Client,
    resource_type: &str,
    reading: &Reading,
) -> Result<HashMap<String, Tags>, FetchError> {
    let mut listed = HashMap::new();
    let ask = |token| {
        client
            .get_resources()
            .resource_type_filters(resource_type)
            .resources_per_page(PAGE_RECORDS)
            .set_pagination_token(token)
            .send()
    };
    reading
        .calls
        .list(GET_RESOURCES, ask, |page| {
            let resources = page.resource_tag_mapping_list.unwrap_or_default();
            listed.extend(resources.iter().filter_map(tags_of));
            page.pagination_token
        })
        .await?;
    Ok(listed)
}

fn tags_of(resource: &ResourceTagMapping) -> Option<(String, Tags)> {
    let arn = some(resource.resource_arn())?;
    let tags = resource.tags().iter();
    let tags = tags.map(|tag| (tag.key().to_owned(), tag.value().to_owned()));
    Some((arn.to_owned(), tags.collect()))
}

/// Remembers why the list is not to be had, and says it once.
fn set_aside(error: FetchError, scope: &ScanScope, memory: &Memory) {
    let key = error.key();
    let FetchError::Aws(failure) = error else {
        // A list that does not end, or no call left for it: of this scan alone.
        warn!(
            cloud.region = scope.region.as_str(),
            error = %error,
            "could not list tags; reads those of each workgroup by itself"
        );
        return;
    };
    let role = scope.assume_role.as_ref();
    let role = role.map_or("own identity", |role| role.role_arn.as_str());
    let mut said = memory.said.lock().unwrap_or_else(PoisonError::into_inner);
    if said.is_new(&format!("{role} {key}")) {
        info!(
            aws.role = role,
            aws.action = GET_RESOURCES,
            cloud.region = scope.region.as_str(),
            error = %failure,
            "the tags of all workgroups cannot be had in one list; reads those of each by itself"
        );
    }
    drop(said);
    if let Some(time) = counts_for(&failure) {
        memory.refusals.keep(GET_RESOURCES, scope, *failure, time);
    }
}

/// How long a failure answers for calls that are not made; `None` when it says nothing of this call.
fn counts_for(failure: &AwsFailure) -> Option<Duration> {
    if failure.hop.is_some() {
        return None;
    }
    match failure.class {
        AwsErrorClass::AccessDenied | AwsErrorClass::InvalidRequest | AwsErrorClass::NotFound => {
            Some(REMEMBERED_FOR)
        }
        class if class.is_transient() => Some(AWAY_FOR),
        _ => None,
    }
}
