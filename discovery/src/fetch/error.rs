//! Why a scope could not be read in full.

mod viewpoint;

use std::time::Duration;

use tidegate_aws::{AwsErrorClass, AwsFailure};
use tidegate_core::{AssumeRole, ScanScope};
use tidegate_proto::v1;

pub(crate) use self::viewpoint::Viewpoint;
use self::viewpoint::shortened;
use super::pages::PAGES_MAX;
use crate::budget::CALLS_PER_SECOND;

/// Why a scope could not be read in full.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// A call failed; AWS's answer says who must act.
    #[error("{0}")]
    Aws(Box<AwsFailure>),

    /// AWS answered without something that it always sends, or with something that cannot be read.
    #[error("{action} returned {resource} without a usable {field}")]
    Malformed {
        /// The call.
        action: &'static str,
        /// What lacks it.
        resource: String,
        /// What is lacking.
        field: &'static str,
    },

    /// A database that was there before is listed without an address: it must not be taken for gone.
    #[error("{action} returned {resource} in status `{status}` without an address")]
    NoAddress {
        /// The call.
        action: &'static str,
        /// What lacks it.
        resource: String,
        /// Its status.
        status: String,
    },

    /// A call that only part of a scope needs is not allowed; everything else was read.
    #[error("{failure}")]
    NotAllowedInPart {
        /// AWS's answer.
        failure: Box<AwsFailure>,
        /// What cannot be read without it.
        part: &'static str,
        /// The endpoint types that a matcher may exclude to do without; none when that does not help.
        excludable: &'static [&'static str],
    },

    /// The budget of calls of the account and region left no call in time.
    #[error(
        "the scan ended after {calls} calls, with no call of {action} left to it: scans make at most \
         {CALLS_PER_SECOND} calls a second to one service in one account and region, and fewer after AWS throttled it"
    )]
    OverBudget {
        /// The call that was not made.
        action: &'static str,
        /// Calls made until then.
        calls: u32,
    },

    /// A page named an earlier page as its next one.
    #[error("{action} repeated the marker of an earlier page after {pages} pages")]
    RepeatedMarker {
        /// The call.
        action: &'static str,
        /// Pages read until then.
        pages: usize,
    },

    /// The scan took too long.
    #[error("the scan did not end within {} s", after.as_secs())]
    TimedOut {
        /// The call that it was waiting for.
        action: &'static str,
        /// The limit.
        after: Duration,
    },

    /// More pages than a scan may read.
    #[error("{action} has more than {PAGES_MAX} pages")]
    TooManyPages {
        /// The call.
        action: &'static str,
    },
}

impl From<AwsFailure> for FetchError {
    fn from(failure: AwsFailure) -> Self {
        Self::Aws(Box::new(failure))
    }
}

impl FetchError {
    /// `resource` came without `field`, or with one that cannot be read.
    pub(crate) fn malformed(
        action: &'static str,
        resource: impl Into<String>,
        field: &'static str,
    ) -> Self {
        Self::Malformed {
            action,
            resource: resource.into(),
            field,
        }
    }

    /// The same as a denial of `part` alone, when it is a denial.
    pub(crate) fn in_part(self, part: &'static str, excludable: &'static [&'static str]) -> Self {
        match self {
            Self::Aws(failure)
                if failure.class == AwsErrorClass::AccessDenied && failure.hop.is_none() =>
            {
                Self::NotAllowedInPart {
                    failure,
                    part,
                    excludable,
                }
            }
            other => other,
        }
    }

    /// The class as status and metrics have it.
    pub(crate) const fn class(&self) -> &'static str {
        match self {
            Self::Aws(failure) | Self::NotAllowedInPart { failure, .. } => failure.class.as_str(),
            Self::Malformed { .. } => AwsErrorClass::Malformed.as_str(),
            Self::RepeatedMarker { .. } => "repeated_marker",
            Self::NoAddress { .. } => "no_address",
            Self::OverBudget { .. } => "over_budget",
            Self::TimedOut { .. } => AwsErrorClass::Timeout.as_str(),
            Self::TooManyPages { .. } => "too_many_pages",
        }
    }

    /// The call that failed, as a policy names it; empty when none was made.
    pub(crate) fn action(&self) -> &str {
        match self {
            Self::Aws(failure) | Self::NotAllowedInPart { failure, .. } => {
                failure.denied_action.as_deref().unwrap_or(failure.action)
            }
            Self::Malformed { action, .. }
            | Self::NoAddress { action, .. }
            | Self::OverBudget { action, .. }
            | Self::RepeatedMarker { action, .. }
            | Self::TimedOut { action, .. }
            | Self::TooManyPages { action } => action,
        }
    }

    /// Whether somebody has to change a policy before anything is found.
    pub(crate) fn is_denial(&self) -> bool {
        matches!(self, Self::Aws(failure) if failure.class == AwsErrorClass::AccessDenied)
    }

    /// Whether AWS refused the credentials of the calls themselves, so that they have to be looked for again. With
    /// those of a role, a region that does not know them is one that is not enabled.
    pub(crate) fn refuses_credentials(&self, role: Option<&AssumeRole>) -> bool {
        let Self::Aws(failure) = self else {
            return false;
        };
        failure.hop.is_none()
            && match failure.class {
                AwsErrorClass::ExpiredCredentials | AwsErrorClass::NoCredentials => true,
                AwsErrorClass::RegionDisabled => role.is_none(),
                _ => false,
            }
    }

    /// Whether any other call of the same scope would meet the same, so that it is not worth making.
    pub(crate) fn concerns_every_call(&self) -> bool {
        match self {
            Self::Aws(failure) => {
                failure.hop.is_some()
                    || !matches!(
                        failure.class,
                        AwsErrorClass::AccessDenied
                            | AwsErrorClass::InvalidRequest
                            | AwsErrorClass::Malformed
                            | AwsErrorClass::NotFound
                    )
            }
            Self::OverBudget { .. } | Self::TimedOut { .. } => true,
            Self::Malformed { .. }
            | Self::NoAddress { .. }
            | Self::NotAllowedInPart { .. }
            | Self::RepeatedMarker { .. }
            | Self::TooManyPages { .. } => false,
        }
    }

    /// Whether the scan broke off, so that trying again soon may bring more. Otherwise all was read but single
    /// databases or what a policy withholds: the next poll is soon enough.
    pub(crate) const fn broke_off(&self) -> bool {
        match self {
            Self::Aws(_)
            | Self::OverBudget { .. }
            | Self::RepeatedMarker { .. }
            | Self::TimedOut { .. }
            | Self::TooManyPages { .. } => true,
            Self::Malformed { .. } | Self::NoAddress { .. } | Self::NotAllowedInPart { .. } => {
                false
            }
        }
    }

    /// What tells this cause from another: the text without what differs in each attempt.
    pub(crate) fn key(&self) -> String {
        match self {
            Self::Aws(failure) | Self::NotAllowedInPart { failure, .. } => format!(
                "{} {} {:?} {:?}",
                failure.class,
                self.action(),
                failure.code,
                failure.hop
            ),
            Self::OverBudget { action, .. } => format!("{} {action}", self.class()),
            other => other.to_string(),
        }
    }

    /// One line for whom it concerns: what failed with `role` (`None`: the own identity) and, where that is known,
    /// who can end it and how.
    pub(crate) fn explain(&self, role: Option<&AssumeRole>, viewpoint: Viewpoint) -> String {
        // Workers delete; a person who looks deletes nothing anyway.
        let nothing_deleted = match viewpoint {
            Viewpoint::Person => "",
            Viewpoint::Worker => ", and nothing is deleted,",
        };
        let text = match self {
            Self::Aws(failure) => {
                let remedy = viewpoint.remedy(failure, self.action(), role);
                format!("{}; {remedy}", shortened(failure))
            }
            Self::NotAllowedInPart {
                failure,
                part,
                excludable,
            } => {
                let (action, caller) = (self.action(), viewpoint.caller(role));
                let or = match excludable {
                    [] => String::new(),
                    types => format!(
                        ", or the matcher excludes endpoints of type `{}`",
                        types.join("` and `")
                    ),
                };
                format!(
                    "{failure}; {part} cannot be read{nothing_deleted} until an AWS administrator allows {action} for \
                     {caller}{or}"
                )
            }
            Self::RepeatedMarker { .. } => {
                format!(
                    "{self}; the list cannot be read to its end{nothing_deleted} until AWS gives it one"
                )
            }
            other => other.to_string(),
        };
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// For the scope's status; `further` more failures were met in the same scan.
    pub(crate) fn status(
        &self,
        scope: &ScanScope,
        viewpoint: Viewpoint,
        further: usize,
    ) -> v1::ScanFailure {
        self.met_with(scope.assume_role.as_ref(), viewpoint, further)
    }

    /// The same for a call that was made with `role`, of no scope in particular.
    pub(crate) fn met_with(
        &self,
        role: Option<&AssumeRole>,
        viewpoint: Viewpoint,
        further: usize,
    ) -> v1::ScanFailure {
        let mut message = self.explain(role, viewpoint);
        if further > 0 {
            message.push_str(&format!("; and {further} more"));
        }
        let aws_code = match self {
            Self::Aws(failure) | Self::NotAllowedInPart { failure, .. } => {
                failure.code.clone().unwrap_or_default()
            }
            _ => String::new(),
        };
        v1::ScanFailure {
            class: self.class().to_owned(),
            aws_code,
            action: self.action().to_owned(),
            message,
        }
    }
}

#[cfg(test)]
mod tests;
