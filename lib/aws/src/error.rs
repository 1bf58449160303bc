//! What went wrong in a call to AWS, and who has to act.
//!
//! The SDK reports a role that could not be assumed as a failure to send the request, with the real
//! answer of STS several sources deep. [`classify`] walks down to it: a failure here always names
//! the action that AWS refused, and the role of the chain that was being assumed.

mod sdk;

use std::{error::Error, fmt};

use tidegate_core::{ErrorCode, Problem, RoleArn};

use crate::diagnosis::{Blame, told_caller};

pub use sdk::classify;
#[cfg(test)]
pub(crate) use sdk::denied_action;
pub(crate) use sdk::{class_of, classify_credentials, told};

/// The longest text taken over from AWS.
const MESSAGE_CHARS_MAX: usize = 1024;

/// Kinds of failure, by what helps against them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AwsErrorClass {
    /// A policy does not allow the call.
    AccessDenied,
    /// The clock of this machine and that of AWS differ by more than AWS takes; the SDK has tried to make up for it.
    ClockSkew,
    /// The credentials were good once.
    ExpiredCredentials,
    /// No credentials were found, or none that AWS could verify.
    NoCredentials,
    /// Not called: this process keeps to a rate of its own, and too many others were waiting.
    OverBudget,
    /// Too many calls, to the last attempt.
    Throttled,
    /// What was asked for does not exist.
    NotFound,
    /// The region knows no such credentials: it is not enabled for the account, or, if every region
    /// says so, the credentials were deleted. Never to be taken for a failure of all regions.
    RegionDisabled,
    /// AWS understood the call and refuses it as it is; the same call will fail again.
    InvalidRequest,
    /// No answer in time.
    Timeout,
    /// No connection, or an error on the side of AWS.
    Unavailable,
    /// An answer that cannot be read, or that lacks what it always has.
    Malformed,
}

impl AwsErrorClass {
    /// The word for metrics and status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AccessDenied => "access_denied",
            Self::ClockSkew => "clock_skew",
            Self::ExpiredCredentials => "expired_credentials",
            Self::NoCredentials => "no_credentials",
            Self::OverBudget => "over_budget",
            Self::Throttled => "throttled",
            Self::NotFound => "not_found",
            Self::RegionDisabled => "region_disabled",
            Self::InvalidRequest => "invalid_request",
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
            Self::Malformed => "malformed",
        }
    }

    /// Whether the same call may work soon without anybody acting.
    #[must_use]
    pub const fn is_transient(self) -> bool {
        matches!(
            self,
            Self::Malformed
                | Self::OverBudget
                | Self::Throttled
                | Self::Timeout
                | Self::Unavailable
        )
    }

    /// Whether other credentials may help: STS is asked where it is enabled for everybody, so that there an unknown
    /// key is a key that is gone.
    #[must_use]
    pub const fn is_of_credentials(self) -> bool {
        matches!(
            self,
            Self::ExpiredCredentials | Self::NoCredentials | Self::RegionDisabled
        )
    }

    /// The code of the common taxonomy.
    #[must_use]
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::AccessDenied => ErrorCode::AwsAccessDenied,
            Self::ClockSkew
            | Self::ExpiredCredentials
            | Self::NoCredentials
            | Self::RegionDisabled => ErrorCode::AwsCredentials,
            Self::NotFound => ErrorCode::DatabaseNotAvailable,
            Self::InvalidRequest => ErrorCode::DatabaseLogin,
            Self::Malformed
            | Self::OverBudget
            | Self::Throttled
            | Self::Timeout
            | Self::Unavailable => ErrorCode::AwsUnavailable,
        }
    }

    pub(crate) const fn phrase(self) -> &'static str {
        match self {
            Self::AccessDenied => "was denied",
            Self::ClockSkew => "was refused: this machine's clock differs from that of AWS",
            Self::ExpiredCredentials => "was refused: the credentials expired",
            Self::NoCredentials => "was not possible: no usable AWS credentials",
            Self::OverBudget => "was not made: too many other calls are waiting",
            Self::Throttled => "was throttled to the last attempt",
            Self::NotFound => "found nothing of that name",
            Self::RegionDisabled => "was refused: the region does not know these credentials",
            Self::InvalidRequest => "was refused as invalid",
            Self::Timeout => "got no answer in time",
            Self::Unavailable => "did not reach AWS, or AWS failed",
            Self::Malformed => "got an answer that cannot be read",
        }
    }
}

impl fmt::Display for AwsErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A call that failed, for the operator: its text holds role names and what AWS said.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AwsFailure {
    /// What helps against it.
    pub class: AwsErrorClass,
    /// The call that AWS refused or did not answer, as in a policy: `sts:AssumeRole` when it was a
    /// hop of the role chain.
    pub action: &'static str,
    /// The error code that AWS gave.
    pub code: Option<String>,
    /// What AWS, or the SDK, said.
    pub message: Box<str>,
    /// For a support case with AWS.
    pub request_id: Option<Box<str>>,
    /// The role that was being assumed when it failed.
    pub hop: Option<RoleArn>,
    /// The action that a policy would have to allow, where AWS names it.
    pub denied_action: Option<Box<str>>,
}

impl AwsFailure {
    /// A failure without an answer of AWS behind it.
    #[must_use]
    pub fn new(class: AwsErrorClass, action: &'static str, message: impl Into<String>) -> Self {
        let message = bounded(message.into()).into_boxed_str();
        Self {
            class,
            action,
            code: None,
            message,
            request_id: None,
            hop: None,
            denied_action: None,
        }
    }

    /// What AWS says about why it denied the call.
    #[must_use]
    pub fn blame(&self) -> Blame {
        Blame::read(&self.message)
    }

    /// Who called, where AWS tells: the ARN of a user or of a role's session.
    #[must_use]
    pub fn caller(&self) -> Option<&str> {
        told_caller(&self.message)
    }

    /// Who can fix it, and how, when no more is known than the failure itself; [`crate::diagnosis`] says more.
    #[must_use]
    pub fn hint(&self) -> String {
        let action = self.denied_action.as_deref().unwrap_or(self.action);
        match (self.class, &self.hop) {
            (AwsErrorClass::AccessDenied, Some(role)) => format!(
                "an AWS administrator has to let the trust policy of {role} name the caller, with the external id \
                 configured here if it asks for one, and to allow the caller {action} on that role"
            ),
            (AwsErrorClass::AccessDenied, None) => {
                format!("an AWS administrator has to allow {action} for the role that is assumed for this database")
            }
            (AwsErrorClass::ClockSkew, _) => {
                "an operator has to set the clock of the machine that made the call (AWS takes a difference of 5 minutes)"
                    .to_owned()
            }
            (AwsErrorClass::ExpiredCredentials | AwsErrorClass::NoCredentials, _) => {
                "an operator has to give the service AWS credentials that are valid".to_owned()
            }
            (AwsErrorClass::RegionDisabled, _) => {
                "an AWS administrator has to enable the region for the account, or to renew the credentials".to_owned()
            }
            (AwsErrorClass::NotFound, _) => "check that it still exists in this account and region".to_owned(),
            (AwsErrorClass::InvalidRequest, _) => "check the database user and database name".to_owned(),
            (
                AwsErrorClass::OverBudget
                | AwsErrorClass::Throttled
                | AwsErrorClass::Timeout
                | AwsErrorClass::Unavailable
                | AwsErrorClass::Malformed,
                _,
            ) => "try again in a moment".to_owned(),
        }
    }

    /// The failure in the common taxonomy: to the client the call and the hint, to the operator all.
    #[must_use]
    pub fn problem(&self) -> Problem {
        Problem::new(
            self.class.code(),
            format!("{} {}", self.action, self.class.phrase()),
        )
        .because(self)
        .hint(self.hint())
    }
}

impl fmt::Display for AwsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.action, self.class.phrase())?;
        if let Some(role) = &self.hop {
            write!(f, " while assuming {role}")?;
        }
        if let Some(code) = &self.code {
            write!(f, " ({code}")?;
            self.request_id
                .iter()
                .try_for_each(|id| write!(f, ", request {id}"))?;
            write!(f, ")")?;
        }
        if self.message.is_empty() {
            Ok(())
        } else {
            write!(f, ": {}", self.message)
        }
    }
}

impl Error for AwsFailure {}

fn bounded(message: String) -> String {
    match message.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_aws_says_is_bounded() {
        let failure = AwsFailure::new(AwsErrorClass::Malformed, "sts:AssumeRole", "é".repeat(5000));

        assert_eq!(failure.message.chars().count(), MESSAGE_CHARS_MAX + 1);
    }

    #[test]
    fn the_client_reads_the_call_and_the_hint_but_not_what_aws_said() {
        let failure = AwsFailure {
            code: Some("AccessDenied".into()),
            hop: Some("arn:aws:iam::123456789012:role/dba".parse().unwrap()),
            ..AwsFailure::new(
                AwsErrorClass::AccessDenied,
                "sts:AssumeRole",
                "User: arn:aws:iam::1:user/x is not …",
            )
        };
        let problem = failure.problem();

        assert_eq!(problem.code, ErrorCode::AwsAccessDenied);
        assert_eq!(problem.message, "sts:AssumeRole was denied");
        assert!(problem.hint.unwrap().contains("role/dba"));
        assert!(problem.operator.contains("user/x"));
    }
}
