//! A refusal for want of permission: which policies may lack it.

use tidegate_core::RoleArn;

use super::{
    Actor, Blame, Call, Edit, Identity, PolicyChange, PolicyKind, Statement, Step,
    blame::{principal, told_caller},
    step::{ASSUME_ROLE, SET_SOURCE_IDENTITY, TAG_SESSION},
};
use crate::error::AwsFailure;

/// What stands for the principal of a trust policy when nothing tells this process's own ARN.
const OWN_PRINCIPAL: &str = "<ARN of the database service's own AWS identity>";

pub(super) struct Denied {
    pub(super) who: Actor,
    pub(super) remedy: String,
    pub(super) changes: Vec<PolicyChange>,
    pub(super) any_of: bool,
}

pub(super) fn read(failure: &AwsFailure, step: &Step) -> Denied {
    let blame = failure.blame();
    let changes = match &blame {
        Blame::Denied { policy, arn } => vec![PolicyChange {
            policy: *policy,
            of: owner(*policy, failure, step),
            edit: Edit::StopDenying {
                action: action(failure, step).to_owned(),
                policy_arn: arn.clone(),
            },
        }],
        Blame::Missing(policy) => additions(*policy, failure, step),
        Blame::Unsaid => {
            let mut open = additions(PolicyKind::Trust, failure, step);
            open.extend(additions(PolicyKind::Identity, failure, step));
            open
        }
    };
    Denied {
        who: match &blame {
            Blame::Denied { policy, .. } | Blame::Missing(policy) => actor(*policy),
            Blame::Unsaid => Actor::AwsAdministrator,
        },
        remedy: remedy(failure, step, &blame),
        // A refusal that names an action behind `sts:AssumeRole` has got past everything else.
        any_of: blame == Blame::Unsaid && changes.len() > 1 && !is_of_session(failure),
        changes,
    }
}

pub(super) const fn actor(policy: PolicyKind) -> Actor {
    match policy {
        PolicyKind::ResourceControl | PolicyKind::ServiceControl => {
            Actor::OrganizationAdministrator
        }
        PolicyKind::Boundary
        | PolicyKind::Identity
        | PolicyKind::Session
        | PolicyKind::Trust
        | PolicyKind::VpcEndpoint => Actor::AwsAdministrator,
    }
}

/// The action that was refused: AWS's word for it, else the call.
fn action<'f>(failure: &'f AwsFailure, step: &Step) -> &'f str {
    failure
        .denied_action
        .as_deref()
        .unwrap_or_else(|| step.action())
}

/// Whether only what is sent along with a role's session was refused.
fn is_of_session(failure: &AwsFailure) -> bool {
    matches!(
        failure.denied_action.as_deref(),
        Some(SET_SOURCE_IDENTITY | TAG_SESSION)
    )
}

/// What would let the call pass a policy of this kind.
pub(super) fn additions(
    policy: PolicyKind,
    failure: &AwsFailure,
    step: &Step,
) -> Vec<PolicyChange> {
    let of = owner(policy, failure, step);
    let add = |statement| PolicyChange {
        policy,
        of: of.clone(),
        edit: Edit::Add(statement),
    };
    if policy == PolicyKind::Trust {
        let principal = told_caller(&failure.message).map(principal);
        let principal = match (&step.caller, principal) {
            (Identity::Role(role), _) => role.to_string(),
            (Identity::Own, Some(principal)) => principal,
            (Identity::Own, None) => OWN_PRINCIPAL.to_owned(),
        };
        return step.trust(&principal).map(add).into_iter().collect();
    }
    let refused = action(failure, step);
    let mut needs = step.needs();
    // Of several statements only the one that was missed, where AWS tells which.
    if needs.iter().any(|need| names(need, refused)) {
        needs.retain(|need| names(need, refused));
    }
    needs.into_iter().map(add).collect()
}

fn names(statement: &Statement, action: &str) -> bool {
    statement.actions().iter().any(|named| named == action)
}

pub(super) fn owner(policy: PolicyKind, failure: &AwsFailure, step: &Step) -> String {
    match (policy, &step.call) {
        (PolicyKind::Trust, Call::AssumeRole { role, .. }) => role.role_arn.to_string(),
        (PolicyKind::ResourceControl, _) => "the organization that owns the database".to_owned(),
        (PolicyKind::ServiceControl, _) => "the organization of the caller's account".to_owned(),
        (PolicyKind::VpcEndpoint, _) => "the VPC endpoint that the call goes through".to_owned(),
        _ => match (&step.caller, told_caller(&failure.message)) {
            (Identity::Own, Some(caller)) => principal(caller),
            _ => step.caller.to_string(),
        },
    }
}

/// What to do about an action that only goes along with `sts:AssumeRole`.
pub(super) fn session_remedy(action: &str, role: &RoleArn) -> Option<String> {
    let why = match action {
        TAG_SESSION => {
            "session tags are sent because `db_service.aws_session.tags` is set, or `aws.session_tags` of the database"
        }
        SET_SOURCE_IDENTITY => {
            "a source identity is sent because `db_service.aws_session.source_identity` is set"
        }
        _ => return None,
    };
    Some(format!("allow {action} on {role} ({why})"))
}

pub(super) fn remedy(failure: &AwsFailure, step: &Step, blame: &Blame) -> String {
    let refused = action(failure, step);
    let Call::AssumeRole { role, .. } = &step.call else {
        return format!("allow {refused}");
    };
    if let Some(remedy) = session_remedy(refused, &role.role_arn) {
        return remedy;
    }
    let may_be_the_trust = matches!(blame, Blame::Unsaid | Blame::Missing(PolicyKind::Trust))
        && refused == ASSUME_ROLE;
    let external_id = match (&role.external_id, may_be_the_trust) {
        (_, false) => "",
        (Some(_), true) => {
            "; an external id is sent, and has to be the one that the trust policy asks for, if it asks for one"
        }
        (None, true) => "; no external id is sent, so the trust policy must not ask for one",
    };
    format!("let {} be assumed{external_id}", role.role_arn)
}
