//! The calls on the way to a login, one by one.

use std::fmt;

use tidegate_core::{AssumeRole, RoleArn};

use super::Statement;
use crate::{error::AwsFailure, login::LoginRequest, session::SessionTag};

/// Who makes a call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// This process, with the credentials that its environment gives it.
    Own,
    /// A session of a role that was assumed before.
    Role(RoleArn),
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => f.write_str("the database service's own AWS identity"),
            Self::Role(role) => write!(f, "{role}"),
        }
    }
}

/// A call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Call {
    /// `sts:AssumeRole`.
    AssumeRole {
        /// The role, and the external id that is sent.
        role: AssumeRole,
        /// Whether a source identity is set, or inherited from the role before.
        with_source_identity: bool,
        /// Whether session tags are set.
        with_tags: bool,
    },
    /// The call that gives the credentials of the login; for RDS no call, but what the database asks IAM.
    Mint(Box<LoginRequest>),
}

/// One call, and who makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Who.
    pub caller: Identity,
    /// What.
    pub call: Call,
}

impl Step {
    /// The step of `request` that a failure is of: the role that could not be assumed, else the call that mints.
    #[must_use]
    pub fn of_failure(failure: &AwsFailure, request: &LoginRequest, session: &SessionTag) -> Self {
        let mut steps = request.steps(session);
        let failed = failure.hop.as_ref().and_then(|hop| {
            steps.iter().position(
                |step| matches!(&step.call, Call::AssumeRole { role, .. } if role.role_arn == *hop),
            )
        });
        let last = steps.len() - 1;
        steps.swap_remove(failed.unwrap_or(last))
    }

    /// The action that a policy has to allow for it.
    #[must_use]
    pub fn action(&self) -> &'static str {
        match &self.call {
            Call::AssumeRole { .. } => ASSUME_ROLE,
            Call::Mint(request) => request.action(),
        }
    }

    /// What the caller's own policies have to allow for it, each as one statement.
    #[must_use]
    pub fn needs(&self) -> Vec<Statement> {
        match &self.call {
            Call::AssumeRole { role, .. } => vec![Statement::allow_all(
                self.role_actions(),
                [role.role_arn.as_str()],
            )],
            Call::Mint(request) => request.needs(),
        }
    }

    /// What the trust policy of the role that is assumed has to say, `principal` being the caller's ARN; `None` for
    /// calls that assume none.
    #[must_use]
    pub fn trust(&self, principal: &str) -> Option<Statement> {
        match &self.call {
            Call::AssumeRole { role, .. } => Some(Statement::trust(
                principal,
                self.role_actions(),
                role.external_id.clone(),
            )),
            Call::Mint(_) => None,
        }
    }

    /// All that is asked of STS at once when a role is assumed.
    pub(super) fn role_actions(&self) -> Vec<&'static str> {
        let Call::AssumeRole {
            with_source_identity,
            with_tags,
            ..
        } = &self.call
        else {
            return Vec::new();
        };
        let wanted = [
            (true, ASSUME_ROLE),
            (*with_source_identity, SET_SOURCE_IDENTITY),
            (*with_tags, TAG_SESSION),
        ];
        let wanted = wanted.into_iter().filter(|(is_wanted, _)| *is_wanted);
        wanted.map(|(_, action)| action).collect()
    }
}

pub(super) const ASSUME_ROLE: &str = "sts:AssumeRole";
pub(super) const SET_SOURCE_IDENTITY: &str = "sts:SetSourceIdentity";
pub(super) const TAG_SESSION: &str = "sts:TagSession";
