//! What the role's side says of a refusal: whether there is such a role, and whom its trust policy lets in.

use tidegate_core::RoleArn;

use super::{
    super::{
        Actor, Call, Edit, PolicyChange, PolicyKind, Step,
        blame::principal,
        denied,
        trust::{Answer, Asker, Named, TrustPolicy},
    },
    Look, RoleSeen, unseen,
};
use crate::{error::AwsFailure, iam::IamRefusal};

/// Most principals of a trust policy that are told.
const PRINCIPALS_MAX: usize = 6;

/// What the role's side says.
pub(super) enum RoleSide {
    Fine(Named),
    Lacks {
        change: Option<PolicyChange>,
        who: Actor,
        remedy: String,
        /// How far the caller is named once that is done.
        then: Named,
    },
    Unknown,
}

pub(super) fn side(
    failure: &AwsFailure,
    step: &Step,
    asker: &str,
    look: &Look<RoleSeen>,
    told: &mut Vec<String>,
) -> RoleSide {
    let Call::AssumeRole { role, .. } = &step.call else {
        return RoleSide::Fine(Named::No);
    };
    let arn = &role.role_arn;
    if *look == Look::Refused(IamRefusal::Absent) {
        told.push(format!("iam:GetRole finds no role of the name of {arn}"));
        return RoleSide::Lacks {
            change: None,
            who: Actor::Operator,
            remedy: format!("name a role that exists, or have {arn} created"),
            then: Named::No,
        };
    }
    let Some(seen) = look.seen() else {
        told.extend(unseen(look, "iam:GetRole", "the role"));
        // Where AWS blames what the caller has, nobody asked for the role, and it is not at fault.
        return RoleSide::Unknown;
    };
    if seen.arn != arn.as_str() {
        told.push(format!(
            "iam:GetRole: the role of that name is {}",
            seen.arn
        ));
        return RoleSide::Lacks {
            change: None,
            who: Actor::Operator,
            remedy: format!("name the role with its path, as {}", seen.arn),
            then: Named::No,
        };
    }
    let Some(trust) = &seen.trust else {
        told.push(format!(
            "iam:GetRole: the trust policy of {arn} cannot be read"
        ));
        return RoleSide::Unknown;
    };
    judge(trust, failure, step, asker, told)
}

fn judge(
    trust: &TrustPolicy,
    failure: &AwsFailure,
    step: &Step,
    caller: &str,
    told: &mut Vec<String>,
) -> RoleSide {
    let Call::AssumeRole { role, .. } = &step.call else {
        return RoleSide::Unknown;
    };
    let asker = Asker {
        arn: caller,
        external_id: role.external_id.as_ref(),
    };
    let arn = &role.role_arn;
    let named = trust.names(asker);
    let answers = step.role_actions().into_iter();
    let mut answers = answers.map(|action| (action, trust.answer(asker, action)));
    let gap = answers.find(|(_, answer)| !matches!(answer, Answer::Allows(_)));
    let mut tell =
        |says: String| told.push(format!("the trust policy of {arn} (iam:GetRole) {says}"));
    let trusted = principal(caller);
    let lacks = |change, remedy, then| RoleSide::Lacks {
        change,
        who: Actor::AwsAdministrator,
        remedy,
        then,
    };
    let addition = || {
        denied::additions(PolicyKind::Trust, failure, step)
            .into_iter()
            .next()
    };
    match gap {
        None => {
            tell(format!("lets {trusted} assume it"));
            RoleSide::Fine(named)
        }
        Some((_, Answer::NotTheCaller)) => {
            tell(format!("does not name {trusted}: {}", whom(trust)));
            let remedy = format!("let the trust policy of {arn} name {trusted}");
            lacks(addition(), remedy, Named::Directly)
        }
        Some((action, Answer::NotTheAction)) => {
            tell(format!("names {trusted}, and not for {action}"));
            lacks(addition(), setting(action, arn), named)
        }
        Some((_, Answer::ExternalId)) => {
            let (sent, now) = match &role.external_id {
                Some(_) => ("which is not the one that was sent", "another is sent now"),
                None => ("and none was sent", "none is sent now"),
            };
            tell(format!(
                "names {trusted}, and asks for an external id, {sent}"
            ));
            RoleSide::Lacks {
                change: None,
                who: Actor::Operator,
                remedy: format!(
                    "write the external id that the trust policy of {arn} asks for into the configuration, as `external_id` \
                     beside the role; {now}"
                ),
                then: named,
            }
        }
        Some((action, Answer::Denies)) => {
            tell(format!("denies {trusted} {action}"));
            let change = PolicyChange {
                policy: PolicyKind::Trust,
                of: arn.to_string(),
                edit: Edit::StopDenying {
                    action: action.to_owned(),
                    policy_arn: None,
                },
            };
            lacks(Some(change), format!("let {arn} be assumed"), named)
        }
        Some((_, Answer::Unclear(what))) => {
            tell(format!(
                "names {trusted} under conditions that are not judged here: {what}"
            ));
            RoleSide::Unknown
        }
        Some((_, Answer::Allows(_))) => RoleSide::Fine(named),
    }
}

/// What an action besides `sts:AssumeRole` is wanted for.
fn setting(action: &str, role: &RoleArn) -> String {
    denied::session_remedy(action, role)
        .unwrap_or_else(|| format!("let the trust policy of {role} allow {action}"))
}

fn whom(trust: &TrustPolicy) -> String {
    let principals = trust.principals();
    let mut told = match principals.len() {
        0 => "it names no AWS identity".to_owned(),
        count => {
            let shown = principals[..count.min(PRINCIPALS_MAX)].join(", ");
            match count.saturating_sub(PRINCIPALS_MAX) {
                0 => format!("it names {shown}"),
                more => format!("it names {shown} and {more} more"),
            }
        }
    };
    if !trust.deleted().is_empty() {
        told.push_str(
            "; an id instead of an ARN is of a user or role that was deleted, and of none that was made anew with its name",
        );
    }
    told
}
