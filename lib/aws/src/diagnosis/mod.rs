//! What a failed call on the way to a login means: who has to act, and the exact statement to add to which policy.
//!
//! [`diagnose`] is pure: a failure and the step that it is of give one [`Diagnosis`], which errors of sessions and the
//! doctor both print. It says no more than AWS told: where AWS leaves open which policy refused, every policy that may
//! have is listed, the likeliest first.
//!
//! [`evidence`] narrows that list by what IAM tells when it is asked.
//!
//! Not here: classes of failures ([`crate::error`]), and asking.

mod blame;
mod denied;
pub mod evidence;
mod other;
mod statement;
mod step;
pub mod trust;

use tidegate_core::{ErrorCode, Problem};

pub(crate) use blame::told_caller;
pub use blame::{Blame, PolicyKind};
pub use other::rds_login_refused;
pub use statement::Statement;
pub use step::{Call, Identity, Step};

use crate::error::{AwsErrorClass, AwsFailure};

/// Who can end a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Actor {
    /// Whoever administers IAM in the account.
    AwsAdministrator,
    /// Whoever administers users inside the database.
    DatabaseAdministrator,
    /// Whoever runs the database service and writes its configuration.
    Operator,
    /// Whoever administers the AWS organization.
    OrganizationAdministrator,
    /// The one who connects.
    User,
    /// Time: the same call may work in a moment.
    Wait,
}

impl Actor {
    /// As a sentence begins with it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AwsAdministrator => "an AWS administrator",
            Self::DatabaseAdministrator => "a database administrator",
            Self::Operator => "an operator of the database service",
            Self::OrganizationAdministrator => "an administrator of the AWS organization",
            Self::User => "you",
            Self::Wait => "nobody",
        }
    }
}

/// What has to change in a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// This statement has to be added.
    Add(Statement),
    /// Whatever denies this action has to go, or to make an exception.
    StopDenying {
        /// The action.
        action: String,
        /// The policy that denies it, where AWS tells.
        policy_arn: Option<String>,
    },
}

/// One change of one policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyChange {
    /// Which kind of policy.
    pub policy: PolicyKind,
    /// Whose policy it is: an ARN, or a description where only AWS knows.
    pub of: String,
    /// What has to change.
    pub edit: Edit,
}

impl PolicyChange {
    fn told(&self) -> String {
        let (policy, of) = (self.policy.as_str(), &self.of);
        match &self.edit {
            Edit::Add(statement) => {
                format!(
                    "add to the {policy} of {of} {}",
                    statement.json_for_clients()
                )
            }
            Edit::StopDenying { action, policy_arn } => {
                let which = policy_arn.as_ref().map(|arn| format!(" ({arn})"));
                let which = which.unwrap_or_default();
                format!("stop the {policy} of {of}{which} from denying {action}")
            }
        }
    }
}

/// What a failure means.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diagnosis {
    /// The code of the common taxonomy.
    pub code: ErrorCode,
    /// What failed, of whom; everybody may read it.
    pub what: String,
    /// Who has to act.
    pub who: Actor,
    /// What that person has to do, after "has to"; everybody may read it. For [`Actor::Wait`] and [`Actor::User`]
    /// what to try.
    pub remedy: String,
    /// What AWS said, with its code and request id; for operators.
    pub evidence: String,
    /// Policies to change, the likeliest first. With [`Self::any_of`] one of them is enough and AWS does not say which.
    pub changes: Vec<PolicyChange>,
    /// Whether AWS left open which of [`Self::changes`] is missing.
    pub any_of: bool,
}

impl Diagnosis {
    /// Who has to do what, with the statements, on one line. External ids are left out.
    #[must_use]
    pub fn hint(&self) -> String {
        let mut hint = match self.who {
            Actor::Wait | Actor::User => self.remedy.clone(),
            who => format!("{} has to {}", who.as_str(), self.remedy),
        };
        for (index, change) in self.changes.iter().enumerate() {
            let lead = match (index, self.any_of) {
                (0, _) => ": ",
                (_, true) => "; or ",
                (_, false) => "; and ",
            };
            hint.push_str(lead);
            hint.push_str(&change.told());
        }
        hint
    }

    /// The same in the common taxonomy.
    #[must_use]
    pub fn problem(&self) -> Problem {
        Problem::new(self.code, self.what.clone())
            .because(&self.evidence)
            .hint(self.hint())
    }
}

/// What a failure at a step means. Pure.
#[must_use]
pub fn diagnose(failure: &AwsFailure, step: &Step) -> Diagnosis {
    let (who, remedy, changes, any_of) = match failure.class {
        AwsErrorClass::AccessDenied => {
            let found = denied::read(failure, step);
            (found.who, found.remedy, found.changes, found.any_of)
        }
        _ => {
            let (who, remedy) = other::remedy(failure, step);
            (who, remedy, Vec::new(), false)
        }
    };
    Diagnosis {
        code: other::code(failure),
        what: what(failure, step),
        who,
        remedy,
        evidence: failure.to_string(),
        changes,
        any_of,
    }
}

/// Which call, of whom, ended how.
fn what(failure: &AwsFailure, step: &Step) -> String {
    let (call, phrase) = (failure.action, failure.class.phrase());
    match &step.call {
        Call::AssumeRole { role, .. } if failure.hop.is_some() => {
            // A refusal names the part of the call that was refused.
            let part = failure
                .denied_action
                .as_deref()
                .filter(|action| *action != call)
                .map_or(String::new(), |action| format!(" for want of {action}"));
            format!(
                "{call} {phrase}{part}, assuming {} as {}",
                role.role_arn, step.caller
            )
        }
        _ => format!("{call} {phrase}, called as {}", step.caller),
    }
}

#[cfg(test)]
mod tests;
