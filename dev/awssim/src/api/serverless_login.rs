//! Redshift Serverless: GetCredentials, and the namespace that a workgroup's data is in.
//!
//! A user is its IAM identity, made in the database at its first log-in; nobody can ask for another one.

use serde_json::{Value, json};

use super::Call;
use super::credentials::{REFRESH_AHEAD_SECONDS, iam_login};
use super::error::ApiError;
use super::serverless::{not_found, workgroup_arn};
use crate::clock::after;
use crate::mint::Grant;
use crate::state::State;
use crate::world::{ClusterId, Kind, ResourceId, Workgroup, arn, derived_uuid, is_db_identifier};

pub(super) fn get_credentials(state: &State, call: &Call<'_>) -> Result<Value, ApiError> {
    let form = call.form;
    let db_name = form.non_empty("dbName");
    if let Some(name) = db_name.filter(|name| !is_db_identifier(name)) {
        return Err(ApiError::validation(format!("Invalid dbName: `{name}`")));
    }
    let seconds = form.number("durationSeconds", 900..=3600, 900)?;
    let name = find_workgroup(state, call)?;
    let (account, region) = (call.caller.account(), call.region);
    call.require(state, &workgroup_arn(account, region, &name))?;
    let id = ClusterId::new(account, region, &name);
    let at = ResourceId::new(Kind::Workgroup, &id);
    if !state.world().exists(&at) {
        return Err(not_found(&format!("Workgroup {name}")));
    }
    let login = iam_login(call.caller);
    let grant = Grant {
        at,
        role: login.clone(),
        login,
        creates_user: true,
        db_name: db_name.map(str::to_owned),
    };
    let now = state.clock.now();
    let mint = state.mints.mint(grant, now, after(now, seconds));
    let refresh = after(now, seconds.saturating_sub(REFRESH_AHEAD_SECONDS));
    Ok(json!({
        "dbUser": mint.grant.login,
        "dbPassword": mint.password.expose(),
        "expiration": mint.expires_at.as_second(),
        "nextRefreshTime": refresh.as_second(),
    }))
}

/// The workgroup that is named, or whose custom domain is; by its name it need not exist.
fn find_workgroup(state: &State, call: &Call<'_>) -> Result<String, ApiError> {
    if let Some(name) = call.form.non_empty("workgroupName") {
        return Ok(name.to_owned());
    }
    let Some(domain) = call.form.non_empty("customDomainName") else {
        let message = "Either workgroupName or customDomainName is required.";
        return Err(ApiError::validation(message));
    };
    let world = state.world();
    let region = world.region(call.caller.account(), call.region);
    let mut workgroups = region.into_iter().flat_map(|region| &region.workgroups);
    let found = workgroups.find(|(_, it)| it.custom_domain_name.as_deref() == Some(domain));
    found
        .map(|(name, _)| name.clone())
        .ok_or_else(|| not_found(&format!("Custom domain {domain}")))
}

/// A namespace is known by its workgroup, of which it has one.
pub(super) fn get_namespace(state: &State, call: &Call<'_>) -> Result<Value, ApiError> {
    let name = call.form.required("namespaceName")?;
    let (account, region) = (call.caller.account(), call.region);
    let id = derived_uuid(&format!("namespace/{account}/{region}/{name}"));
    let resource = format!("namespace/{id}");
    let arn = arn("redshift-serverless", region, account, &resource);
    call.require(state, &arn)?;
    let world = state.world();
    let found = world.region(account, region).into_iter();
    let mut workgroups = found.flat_map(|region| region.workgroups.values());
    let workgroup: &Workgroup = workgroups
        .find(|it| it.namespace == name)
        .ok_or_else(|| not_found(&format!("Namespace {name}")))?;
    Ok(json!({ "namespace": {
        "namespaceName": name,
        "namespaceArn": arn,
        "namespaceId": id,
        "dbName": workgroup.db_name,
        "adminUsername": workgroup.admin_username,
        "status": "AVAILABLE",
    } }))
}
