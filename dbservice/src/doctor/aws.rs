//! The steps between an agent's own AWS identity and a password for a database.
//!
//! Each role is assumed on its own, with those before it, so that the step that fails is the one that AWS refused. What a
//! failure means is [`tidegate_aws::diagnosis`]'s to say; here it is put into the doctor's words.

use std::time::Instant;

use tidegate_aws::{
    AwsFactory, AwsFailure, LoginRequest, RoleChain, SessionTag,
    diagnosis::{
        Actor, Call, Diagnosis, Edit, Identity, PolicyKind as AwsPolicy, Step, diagnose,
        evidence::{Inquiry, narrow},
    },
    sources::ask_sources,
};
use tidegate_core::{
    AssumeRole,
    doctor::{Fix, Ladder, PolicyKind, StepName, Stop, Verdict, Who},
};

use super::{Doctor, Outcome, minting, note, own, with_evidence};
use crate::engine::DbLogin;

impl Doctor {
    /// Finds the agent's own credentials, and who AWS takes it for.
    pub(super) async fn identity(
        &self,
        ladder: &mut Ladder,
        request: &LoginRequest,
    ) -> Outcome<String> {
        let begun = Instant::now();
        let sources = ask_sources().await;
        let own = match own::read(&sources) {
            Ok(mut evidence) => match own_arn(&self.aws, request).await {
                Ok(arn) => {
                    evidence.push(format!("is {arn}"));
                    Ok((arn, evidence))
                }
                Err(stop) => Err(with_evidence(stop, &evidence)),
            },
            Err(stop) => Err(stop),
        };
        note(
            ladder,
            StepName::Credentials,
            "find the agent's own AWS credentials",
            begun,
            own,
        )
    }

    /// Assumes the first `hops` roles, each as a step; `own` is the ARN that [`Self::identity`] gave.
    pub(super) async fn assume(
        &self,
        ladder: &mut Ladder,
        hops: usize,
        own: &str,
        request: &LoginRequest,
        session: &SessionTag,
    ) -> Outcome<()> {
        let hops = &request.chain.hops()[..hops.min(request.chain.hops().len())];
        if hops.is_empty() {
            ladder.skipped(
                StepName::Role,
                "not needed: the agent's own identity is used",
            );
        }
        for (index, hop) in hops.iter().enumerate() {
            let begun = Instant::now();
            let assumed = assume(&self.aws, &hops[..=index], request, session).await;
            let assumed = match assumed {
                Ok(told) => Ok(((), told)),
                Err(failure) => Err(self.refused(&failure, own, request, session).await),
            };
            let what = format!("assume {}", hop.role_arn);
            note(ladder, StepName::Role, what, begun, assumed)?;
        }
        Ok(())
    }

    /// Asks for the password.
    pub(super) async fn mint(
        &self,
        ladder: &mut Ladder,
        own: &str,
        request: &LoginRequest,
        session: &SessionTag,
    ) -> Outcome<DbLogin> {
        let begun = Instant::now();
        let minted = match minting::mint(&self.aws, request, session).await {
            Ok(minted) => Ok(minted),
            Err(failure) => Err(self.refused(&failure, own, request, session).await),
        };
        let what = format!("ask AWS for a password: {}", request.action());
        note(ladder, StepName::Mint, what, begun, minted)
    }

    /// What a failure at one of a request's steps means, and what policies say of it where AWS leaves that open.
    async fn refused(
        &self,
        failure: &AwsFailure,
        own: &str,
        request: &LoginRequest,
        session: &SessionTag,
    ) -> Stop {
        let step = Step::of_failure(failure, request, session);
        let diagnosis = diagnose(failure, &step);
        let (diagnosis, told) = match Inquiry::of(failure, &step, own) {
            Some(inquiry) => {
                let evidence = self.looker.look(&self.aws, &inquiry).await;
                narrow(diagnosis, failure, &step, own, &evidence)
            }
            None => (diagnosis, Vec::new()),
        };
        let mut stop = Stop::new(verdict(&diagnosis), diagnosis.evidence);
        if let Some(hop) = request.chain.hops().first()
            && failure.hop.as_ref() == Some(&hop.role_arn)
        {
            stop.evidence.push(match &hop.external_id {
                Some(id) => format!("external id sent: {}", id.as_str()),
                None => "no external id was sent".to_owned(),
            });
        }
        stop.evidence.extend(told);
        stop
    }
}

/// Assumes the roles up to this one, and says who AWS takes us for.
async fn assume(
    aws: &AwsFactory,
    hops: &[AssumeRole],
    request: &LoginRequest,
    session: &SessionTag,
) -> Result<Vec<String>, AwsFailure> {
    let chain = RoleChain::from_hops(hops.to_vec()).unwrap_or_else(|_| request.chain.clone());
    let arn = aws.who_am_i(&chain, &request.region, session).await?;
    Ok(vec![format!("is {arn}")])
}

/// Who AWS takes the agent itself for.
async fn own_arn(aws: &AwsFactory, request: &LoginRequest) -> Result<String, Stop> {
    let (itself, session) = (RoleChain::default(), SessionTag::new(super::PERSON));
    let asked = aws.who_am_i(&itself, &request.region, &session).await;
    asked.map_err(|failure| {
        // Nobody asks for more than credentials that AWS knows, so what is asked for behind it does not matter.
        let step = Step {
            caller: Identity::Own,
            call: Call::Mint(Box::new(request.clone())),
        };
        let diagnosis = diagnose(&failure, &step);
        Stop::new(verdict(&diagnosis), diagnosis.evidence)
    })
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
