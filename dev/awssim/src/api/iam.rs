//! IAM, as far as a diagnosis asks: SimulatePrincipalPolicy, GetRole.
//!
//! What is simulated is what the simulation itself goes by, so the answer is always that of a call. Resource policies are not
//! taken along, as AWS does not for roles' trust policies.
//!
//! Source: IAM API reference, `SimulatePrincipalPolicy`, `EvaluationResult`, `GetRole`; IAM user guide, "Testing IAM policies
//! with the IAM policy simulator".

use std::collections::BTreeSet;

use super::error::ApiError;
use super::sts::parse_role_arn;
use super::xml::Xml;
use super::{Call, yes_no};
use crate::crypto::derived_id;
use crate::iam::{Context, IdentityPolicy, Layer, Layers, Verdict, deciding};
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
    let mut layers = world.layers(&account, &name);
    // Service control policies with conditions are left out of simulations.
    let of_organization = layers.service_control.iter();
    let unconditional: Vec<IdentityPolicy> = of_organization
        .filter(|policy| !policy.is_conditional())
        .cloned()
        .collect();
    layers.service_control = &unconditional;
    let mut xml = Xml::default();
    xml.node("EvaluationResults", |xml| {
        for action in &actions {
            let of = |resource: &String| Simulated::new(&layers, action, resource, &context);
            let results: Vec<Simulated> = resources.iter().map(of).collect();
            xml.node("member", |xml| write_action(xml, action, &results));
        }
    });
    xml.leaf("IsTruncated", "false");
    Ok(xml)
}

/// What all policies say of one action on one resource.
struct Simulated {
    resource: String,
    decision: Decided,
    matched: Vec<String>,
    missing: Vec<String>,
    by_organization: Option<bool>,
    by_boundary: Option<bool>,
}

/// Sorted by how much it restricts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Decided {
    Allowed,
    Implicit,
    Explicit,
}

impl Decided {
    fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Implicit => "implicitDeny",
            Self::Explicit => "explicitDeny",
        }
    }
}

impl Simulated {
    fn new(layers: &Layers<'_>, action: &str, resource: &str, context: &Context) -> Self {
        let verdicts = layers.verdicts(action, resource, context);
        let decision = |verdicts: &[(Layer, Verdict)]| {
            let of = |verdict: &Verdict| match verdict {
                Verdict::Allowed => Decided::Allowed,
                Verdict::NotAllowed => Decided::Implicit,
                Verdict::Forbidden => Decided::Explicit,
            };
            let decided = verdicts.iter().map(|(_, verdict)| of(verdict));
            decided.max().unwrap_or(Decided::Implicit)
        };
        let allowed_by = |layer| {
            let found = verdicts.iter().find(|(it, _)| *it == layer);
            found.map(|(_, verdict)| *verdict == Verdict::Allowed)
        };
        let by_organization = allowed_by(Layer::ServiceControl);
        if by_organization == Some(false) {
            // The simulation ends here.
            let of_organization = verdicts
                .iter()
                .filter(|(it, _)| *it == Layer::ServiceControl);
            return Self {
                resource: resource.to_owned(),
                decision: decision(&of_organization.copied().collect::<Vec<_>>()),
                matched: Vec::new(),
                missing: Vec::new(),
                by_organization,
                by_boundary: None,
            };
        }
        let policies = layers.identity.iter().chain(layers.boundary);
        let keys: BTreeSet<String> = policies.flat_map(IdentityPolicy::context_keys).collect();
        let missing = keys.into_iter().filter(|key| context.get(key).is_none());
        Self {
            resource: resource.to_owned(),
            decision: decision(&verdicts),
            matched: deciding(layers.identity, action, resource, context),
            missing: missing.collect(),
            by_organization,
            by_boundary: allowed_by(Layer::Boundary),
        }
    }

    /// What an action and a resource below it both have.
    fn write_details(&self, xml: &mut Xml) {
        xml.node("MatchedStatements", |xml| {
            for name in &self.matched {
                xml.node("member", |xml| {
                    xml.leaf("SourcePolicyId", name);
                    xml.leaf("SourcePolicyType", "IAM Policy");
                });
            }
        });
        if let Some(allowed) = self.by_boundary {
            xml.node("PermissionsBoundaryDecisionDetail", |xml| {
                xml.leaf("AllowedByPermissionsBoundary", yes_no(allowed));
            });
        }
    }

    fn write_missing(&self, xml: &mut Xml) {
        xml.node("MissingContextValues", |xml| {
            for key in &self.missing {
                xml.leaf("member", key);
            }
        });
    }
}

/// One result an action: what holds for the resource that is most restricted, and each resource below it.
fn write_action(xml: &mut Xml, action: &str, results: &[Simulated]) {
    let Some(worst) = results.iter().max_by_key(|it| it.decision) else {
        return;
    };
    let all = results.iter().all(|it| it.resource == "*");
    xml.leaf("EvalActionName", action);
    xml.leaf(
        "EvalResourceName",
        if results.len() == 1 {
            &worst.resource
        } else {
            "*"
        },
    );
    xml.leaf("EvalDecision", worst.decision.as_str());
    if let Some(allowed) = worst.by_organization {
        xml.node("OrganizationsDecisionDetail", |xml| {
            xml.leaf("AllowedByOrganizations", yes_no(allowed));
        });
    }
    worst.write_details(xml);
    if all {
        return worst.write_missing(xml);
    }
    xml.node("MissingContextValues", |_| ());
    xml.node("ResourceSpecificResults", |xml| {
        for one in results {
            xml.node("member", |xml| {
                xml.leaf("EvalResourceName", &one.resource);
                xml.leaf("EvalResourceDecision", one.decision.as_str());
                one.write_details(xml);
                one.write_missing(xml);
            });
        }
    });
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
