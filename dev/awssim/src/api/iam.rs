//! IAM, as far as a diagnosis asks: SimulatePrincipalPolicy, GetRole.
//!
//! What is simulated is what the simulation itself goes by, so the answer is always that of a call. Resource policies are not
//! taken along, as AWS does not for roles' trust policies.
//!
//! Source: IAM API reference, `SimulatePrincipalPolicy`, `GetRole`.

use super::error::ApiError;
use super::sts::parse_role_arn;
use super::xml::Xml;
use super::{Call, yes_no};
use crate::crypto::derived_id;
use crate::iam::{Context, Layer, Verdict};
use crate::state::State;
use crate::world::{IamName, World};

/// Most actions, and most resources, of one simulation.
const LIST_MAX: usize = 1_000;

pub(super) fn simulate_principal_policy(state: &State, call: &Call<'_>) -> Result<Xml, ApiError> {
    let form = call.form;
    for parameter in [
        "CallerArn",
        "ResourcePolicy",
        "ResourceHandlingOption",
        "Marker",
    ] {
        if form.get(parameter).is_some() {
            return Err(ApiError::not_simulated(parameter));
        }
    }
    let source = form.required("PolicySourceArn")?;
    call.require(state, source)?;
    let (actions, mut resources) = (form.list("ActionNames"), form.list("ResourceArns"));
    if actions.is_empty() || actions.len().max(resources.len()) > LIST_MAX {
        return Err(ApiError::validation(
            "ActionNames must have 1 to 1000 members",
        ));
    }
    if resources.is_empty() {
        resources.push("*".to_owned());
    }
    let world = state.world();
    let (account, name) = find(&world, source)?;
    let mut context = Context::default();
    for (key, value) in form.context_entries() {
        context.set(&key, value);
    }
    let layers = world.layers(&account, &name);
    let mut xml = Xml::default();
    xml.node("EvaluationResults", |xml| {
        for (action, resource) in actions
            .iter()
            .flat_map(|a| resources.iter().map(move |r| (a, r)))
        {
            let verdicts = layers.verdicts(action, resource, &context);
            xml.node("member", |xml| {
                write_result(xml, action, resource, &verdicts)
            });
        }
    });
    xml.leaf("IsTruncated", "false");
    Ok(xml)
}

fn write_result(xml: &mut Xml, action: &str, resource: &str, verdicts: &[(Layer, Verdict)]) {
    let has = |verdict| verdicts.iter().any(|(_, it)| *it == verdict);
    let decision = if has(Verdict::Forbidden) {
        "explicitDeny"
    } else if has(Verdict::NotAllowed) {
        "implicitDeny"
    } else {
        "allowed"
    };
    xml.leaf("EvalActionName", action);
    xml.leaf("EvalResourceName", resource);
    xml.leaf("EvalDecision", decision);
    for (layer, detail, leaf) in [
        (
            Layer::ServiceControl,
            "OrganizationsDecisionDetail",
            "AllowedByOrganizations",
        ),
        (
            Layer::Boundary,
            "PermissionsBoundaryDecisionDetail",
            "AllowedByPermissionsBoundary",
        ),
    ] {
        if let Some((_, verdict)) = verdicts.iter().find(|(it, _)| *it == layer) {
            xml.node(detail, |xml| {
                xml.leaf(leaf, yes_no(*verdict == Verdict::Allowed));
            });
        }
    }
}

/// The user or role of an ARN.
fn find(world: &World, arn: &str) -> Result<(String, IamName), ApiError> {
    let missing = || {
        let message = format!("The entity {arn} cannot be found.");
        ApiError::new(404, "NoSuchEntity", message)
    };
    if let Some((account, name)) = parse_role_arn(arn) {
        let roles = world.accounts.get(&account).map(|it| &it.roles);
        let there = roles.is_some_and(|roles| roles.contains_key(&name));
        return there
            .then_some((account, IamName::Role(name)))
            .ok_or_else(missing);
    }
    let rest = arn.split_once(":iam::").map(|(_, rest)| rest);
    let Some((account, name)) = rest.and_then(|rest| rest.split_once(":user/")) else {
        return Err(ApiError::new(
            400,
            "InvalidInput",
            format!("Invalid Entity Arn: {arn}"),
        ));
    };
    let users = world.accounts.get(account).map(|it| &it.users);
    let there = users.is_some_and(|users| users.contains_key(name));
    let found = there.then(|| (account.to_owned(), IamName::User(name.to_owned())));
    found.ok_or_else(missing)
}

pub(super) fn get_role(state: &State, call: &Call<'_>) -> Result<Xml, ApiError> {
    let name = call.form.required("RoleName")?;
    let account = call.caller.account();
    let world = state.world();
    let in_account = world.accounts.get(account);
    let role = in_account.and_then(|it| it.roles.get(name));
    let path = role.map_or("/", |role| &role.path);
    let partition = in_account.map_or("aws", |it| it.partition());
    let arn = format!("arn:{partition}:iam::{account}:role{path}{name}");
    let (role, path) = (role.cloned(), path.to_owned());
    drop(world);
    call.require(state, &arn)?;
    let Some(role) = role else {
        let message = format!("The role with name {name} cannot be found.");
        return Err(ApiError::new(404, "NoSuchEntity", message));
    };
    let trust = serde_json::to_string(&role.trust);
    let trust = trust.map_err(|error| ApiError::internal(error.to_string()))?;
    let mut xml = Xml::default();
    xml.node("Role", |xml| {
        xml.leaf("Path", &path);
        xml.leaf("RoleName", name);
        xml.leaf("RoleId", derived_id("AROA", &format!("{account}/{name}")));
        xml.leaf("Arn", &arn);
        xml.leaf("CreateDate", "2024-01-01T00:00:00Z");
        xml.leaf("AssumeRolePolicyDocument", crate::presigned::encode(&trust));
        xml.leaf("MaxSessionDuration", role.max_session_duration.to_string());
        if role.boundary.is_some() {
            xml.node("PermissionsBoundary", |xml| {
                xml.leaf("PermissionsBoundaryType", "Policy");
                let arn = format!("arn:{partition}:iam::{account}:policy/{name}-boundary");
                xml.leaf("PermissionsBoundaryArn", arn);
            });
        }
    });
    Ok(xml)
}
