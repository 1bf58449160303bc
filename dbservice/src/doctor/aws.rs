//! The steps between an agent's own AWS identity and a password for a database.
//!
//! Each role is assumed on its own, with those before it, so that the step that fails is the one that AWS refused. What a
//! failure means is [`tidegate_aws::diagnosis`]'s to say; here it is put into the doctor's words.

use tidegate_aws::{
    AwsFactory, AwsFailure, LoginRequest, RoleChain, SessionTag,
    diagnosis::{Actor, Call, Diagnosis, Edit, Identity, PolicyKind as AwsPolicy, Step, diagnose},
};
use tidegate_core::{
    AssumeRole,
    doctor::{Fix, PolicyKind, Stop, Verdict, Who},
};

/// Assumes the roles up to this one, and says who AWS takes us for.
///
/// # Errors
///
/// When AWS refuses it.
pub(super) async fn assume(
    aws: &AwsFactory,
    hops: &[AssumeRole],
    request: &LoginRequest,
    session: &SessionTag,
) -> Result<Vec<String>, Stop> {
    let chain = RoleChain::from_hops(hops.to_vec()).unwrap_or_else(|_| request.chain.clone());
    match aws.who_am_i(&chain, &request.region, session).await {
        Ok(arn) => Ok(vec![format!("is {arn}")]),
        Err(failure) => Err(stop(&failure, request, session)),
    }
}

/// Who AWS takes the agent itself for.
///
/// # Errors
///
/// When AWS does not take its credentials.
pub(super) async fn own(aws: &AwsFactory, request: &LoginRequest) -> Result<String, Stop> {
    let (itself, session) = (RoleChain::default(), SessionTag::new(super::PERSON));
    let asked = aws.who_am_i(&itself, &request.region, &session).await;
    asked.map(|arn| format!("is {arn}")).map_err(|failure| {
        // Nobody asks for more than credentials that AWS knows, so what is asked for behind it does not matter.
        let step = Step {
            caller: Identity::Own,
            call: Call::Mint(Box::new(request.clone())),
        };
        let diagnosis = diagnose(&failure, &step);
        Stop::new(verdict(&diagnosis), diagnosis.evidence)
    })
}

/// What a failure at one of a request's steps means.
pub(super) fn stop(failure: &AwsFailure, request: &LoginRequest, session: &SessionTag) -> Stop {
    let step = Step::of_failure(failure, request, session);
    let diagnosis = diagnose(failure, &step);
    let mut stop = Stop::new(verdict(&diagnosis), diagnosis.evidence);
    if let Some(hop) = request.chain.hops().first()
        && failure.hop.as_ref() == Some(&hop.role_arn)
    {
        stop.evidence.push(match &hop.external_id {
            Some(id) => format!("external id sent: {}", id.as_str()),
            None => "no external id was sent".to_owned(),
        });
    }
    stop
}

fn verdict(diagnosis: &Diagnosis) -> Verdict {
    let mut verdict = Verdict::new(diagnosis.code, diagnosis.what.clone(), who(diagnosis.who))
        .how(diagnosis.remedy.clone())
        .any_of(diagnosis.any_of);
    for change in &diagnosis.changes {
        verdict = match &change.edit {
            Edit::Add(statement) => verdict.fix(Fix {
                policy: policy(change.policy),
                of: change.of.clone(),
                json: statement.json_pretty(),
            }),
            Edit::StopDenying { action, policy_arn } => {
                let which = policy_arn.as_ref().map(|arn| format!(" ({arn})"));
                verdict.how(format!(
                    "stop {} of {}{} from denying {action}",
                    policy(change.policy).described(),
                    change.of,
                    which.unwrap_or_default()
                ))
            }
        };
    }
    verdict
}

const fn who(actor: Actor) -> Who {
    match actor {
        Actor::AwsAdministrator => Who::AwsAdministrator,
        Actor::DatabaseAdministrator => Who::DatabaseAdministrator,
        Actor::OrganizationAdministrator => Who::OrganizationAdministrator,
        Actor::User => Who::User,
        Actor::Wait => Who::Wait,
        _ => Who::Operator,
    }
}

const fn policy(kind: AwsPolicy) -> PolicyKind {
    match kind {
        AwsPolicy::Boundary => PolicyKind::PermissionsBoundary,
        AwsPolicy::ResourceControl => PolicyKind::ResourceControl,
        AwsPolicy::ServiceControl => PolicyKind::ServiceControl,
        AwsPolicy::Session => PolicyKind::Session,
        AwsPolicy::Trust => PolicyKind::Trust,
        AwsPolicy::VpcEndpoint => PolicyKind::VpcEndpoint,
        _ => PolicyKind::Identity,
    }
}
