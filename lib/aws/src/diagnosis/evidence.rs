//! What a look into policies adds to a refusal: which of those that may have refused did.
//!
//! AWS often leaves that open. An [`Inquiry`] says what is worth asking IAM then, with the credentials that this process has
//! itself and so about its own account only; [`narrow`] reads the answers, and takes off the list what they clear. What
//! was not seen stays on it.
//!
//! IAM simulates policies of users and roles, boundaries and service control policies. Policies of sessions, of VPC
//! endpoints, resource control policies, and service control policies with conditions it leaves out; neither does it
//! look at trust policies, which is why those are read.
//!
//! Pure. `caller` reads what is said of the one side, `role` of the other. Not here: asking (`dbservice/src/doctor`; sessions never do).
//!
//! Source: IAM API reference, `SimulatePrincipalPolicy`, `EvaluationResult`; IAM user guide, "Testing IAM policies with
//! the IAM policy simulator", "Policy evaluation logic".

mod caller;
mod role;

use tidegate_core::{ExternalId, RoleArn};

use super::{
    Blame, Call, Diagnosis, Edit, Identity, PolicyKind, Step,
    blame::principal,
    denied,
    trust::{Named, TrustPolicy, place},
};
use crate::{
    error::{AwsErrorClass, AwsFailure},
    iam::{IamQuestion, IamRefusal, Simulated},
};
use caller::Side;
use role::RoleSide;

/// Most statements of which the actions are simulated.
const STATEMENTS_MAX: usize = 4;

/// A user or role whose policies are looked into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// It is in the account that can be asked.
    Here {
        /// Its ARN; without its path where [`Self::Here::role_of_session`] says so.
        arn: String,
        /// The name of the role when only a session of it is known, which does not tell the path.
        role_of_session: Option<String>,
    },
    /// It is in this account, which cannot be asked.
    Elsewhere(String),
}

/// What is worth asking about a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inquiry {
    /// The partition of both accounts.
    pub partition: String,
    /// Whose policies may have refused; `None` when AWS says that they have not.
    pub caller: Option<Subject>,
    /// The role whose trust policy may have refused, and its name where it can be asked for.
    pub role: Option<(RoleArn, Subject)>,
    statements: Vec<(Vec<String>, Vec<String>)>,
    external_id: Option<ExternalId>,
}

impl Inquiry {
    /// What is worth asking, `own` being the ARN of this process's own identity; `None` when AWS has told all.
    #[must_use]
    pub fn of(failure: &AwsFailure, step: &Step, own: &str) -> Option<Self> {
        let (partition, account) = place(own)?;
        let blame = failure.blame();
        if failure.class != AwsErrorClass::AccessDenied {
            return None;
        }
        let whose = |arn: &str| match place(arn) {
            Some((_, there)) if there != account => Subject::Elsewhere(there.to_owned()),
            _ => Subject::Here {
                arn: principal(arn),
                role_of_session: role_of_session(arn),
            },
        };
        let caller = match &step.caller {
            Identity::Own => own,
            Identity::Role(role) => role.as_str(),
        };
        let caller = (blame == Blame::Unsaid).then(|| whose(caller));
        let (role, external_id) = match &step.call {
            Call::AssumeRole { role, .. } => (
                matches!(blame, Blame::Unsaid | Blame::Missing(PolicyKind::Trust))
                    .then(|| (role.role_arn.clone(), whose(role.role_arn.as_str()))),
                role.external_id.clone(),
            ),
            Call::Mint(_) => (None, None),
        };
        if caller.is_none() && role.is_none() {
            return None;
        }
        let needs = denied::additions(PolicyKind::Identity, failure, step);
        let statements = needs.into_iter().take(STATEMENTS_MAX);
        let statements = statements.filter_map(|need| match need.edit {
            Edit::Add(statement) => {
                Some((statement.actions().to_vec(), statement.resources().to_vec()))
            }
            Edit::StopDenying { .. } => None,
        });
        Some(Self {
            partition: partition.to_owned(),
            caller,
            role,
            statements: statements.collect(),
            external_id,
        })
    }

    /// The questions about what the policies of `source` allow, an ARN with its path.
    #[must_use]
    pub fn simulations(&self, source: &str) -> Vec<IamQuestion> {
        let ask = |(actions, resources): &(Vec<String>, Vec<String>)| IamQuestion::Simulate {
            source: source.to_owned(),
            actions: actions.clone(),
            resources: resources.clone(),
            external_id: self.external_id.clone(),
        };
        self.statements.iter().map(ask).collect()
    }
}

/// The role behind the ARN of a session.
fn role_of_session(arn: &str) -> Option<String> {
    let (_, session) = arn.split_once(":assumed-role/")?;
    session.split_once('/').map(|(role, _)| role.to_owned())
}

/// What came of a look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Look<T> {
    /// Nobody looked: AWS has told already.
    #[default]
    NotNeeded,
    /// It is in this account, and credentials of another are at hand.
    Elsewhere(String),
    /// IAM did not tell.
    Refused(IamRefusal),
    /// IAM did not answer.
    Unanswered(String),
    /// This is what it says.
    Seen(T),
}

impl<T> Look<T> {
    const fn seen(&self) -> Option<&T> {
        match self {
            Self::Seen(seen) => Some(seen),
            _ => None,
        }
    }
}

/// A role that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleSeen {
    /// With its path.
    pub arn: String,
    /// `None` where it has not the form of one.
    pub trust: Option<TrustPolicy>,
}

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Whose policies were simulated, with path.
    pub source: String,
    /// What they say.
    pub caller: Look<Vec<Simulated>>,
    /// ARN of the caller's permissions boundary, where it was seen.
    pub boundary: Option<String>,
    /// The role that was to be assumed.
    pub role: Look<RoleSeen>,
}

/// What a refusal means with what was seen, and what was seen, one fact a line. `own` is the ARN of this process's own
/// identity.
#[must_use]
pub fn narrow(
    diagnosis: Diagnosis,
    failure: &AwsFailure,
    step: &Step,
    own: &str,
    evidence: &Evidence,
) -> (Diagnosis, Vec<String>) {
    let asker = match &step.caller {
        Identity::Own => own,
        Identity::Role(role) => role.as_str(),
    };
    let mut told = Vec::new();
    let caller = caller::side(failure, step, evidence, &mut told);
    let role = role::side(failure, step, asker, &evidence.role, &mut told);
    (with(diagnosis, failure, step, asker, caller, role), told)
}

/// What both sides come to.
fn with(
    mut diagnosis: Diagnosis,
    failure: &AwsFailure,
    step: &Step,
    asker: &str,
    mut caller: Side,
    role: RoleSide,
) -> Diagnosis {
    let named = match &role {
        RoleSide::Fine(named) | RoleSide::Lacks { then: named, .. } => Some(*named),
        RoleSide::Unknown => None,
    };
    if named == Some(Named::Directly)
        && is_of_one_account(step, asker)
        && let Side::Lacks(changes) = &mut caller
    {
        // Who is named in a trust policy of its own account needs no policy of its own.
        changes.retain(|(change, _)| {
            change.policy != PolicyKind::Identity || matches!(change.edit, Edit::StopDenying { .. })
        });
        if changes.is_empty() {
            caller = Side::Fine;
        }
    }
    let (mut changes, mut remedies, mut who) = (Vec::new(), Vec::new(), None);
    if let Side::Lacks(lacking) = &caller {
        for (change, remedy) in lacking {
            who.get_or_insert(denied::actor(change.policy));
            changes.push(change.clone());
            remedies.push(remedy.clone());
        }
    }
    if let RoleSide::Lacks {
        change,
        who: actor,
        remedy,
        ..
    } = &role
    {
        who.get_or_insert(*actor);
        changes.extend(change.clone());
        remedies.push(remedy.clone());
    }
    if let Some(who) = who {
        (diagnosis.who, diagnosis.any_of, diagnosis.changes) = (who, false, changes);
        diagnosis.remedy = remedies.join("; and ");
        return diagnosis;
    }
    let only = match (&caller, &role) {
        (Side::Fine, RoleSide::Fine(_)) => {
            diagnosis.changes.clear();
            diagnosis.any_of = false;
            diagnosis.remedy = HIDDEN.to_owned();
            return diagnosis;
        }
        (Side::Fine, _) => PolicyKind::Trust,
        (_, RoleSide::Fine(_)) if diagnosis.changes.len() > 1 => PolicyKind::Identity,
        _ => return diagnosis,
    };
    diagnosis.changes.retain(|change| change.policy == only);
    diagnosis.any_of = false;
    diagnosis.remedy = denied::remedy(failure, step, &Blame::Missing(only));
    if only == PolicyKind::Trust {
        diagnosis
            .remedy
            .push_str("; AWS says the same of a role that does not exist");
    }
    diagnosis
}

/// What to do when nothing that can be seen refuses.
const HIDDEN: &str = "look where IAM shows nothing, since the policies that it shows allow the call: a session policy, the \
                      policy of a VPC endpoint, a resource control policy, a service control policy with conditions; or \
                      wait a minute where a policy was changed just now";

fn is_of_one_account(step: &Step, asker: &str) -> bool {
    match &step.call {
        Call::AssumeRole { role, .. } => place(role.role_arn.as_str()) == place(asker),
        Call::Mint(_) => false,
    }
}

/// Why nothing was seen; nothing where nobody looked.
fn unseen<T>(look: &Look<T>, action: &str, whose: &str) -> Option<String> {
    match look {
        Look::NotNeeded | Look::Seen(_) => None,
        Look::Elsewhere(account) => Some(format!(
            "{action} was not asked: {whose} is in account {account}, and the agent's own identity is not"
        )),
        Look::Refused(IamRefusal::Denied { code }) => Some(format!(
            "{action} was refused ({code}): not permitted to look. With it and iam:GetRole the doctor can tell more"
        )),
        Look::Refused(refusal) => Some(format!("{action} told nothing: {refusal}")),
        Look::Unanswered(why) => Some(format!("{action} did not answer: {why}")),
    }
}

#[cfg(test)]
#[path = "evidence/tests.rs"]
mod tests;
