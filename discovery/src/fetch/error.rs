//! Why a scope could not be read in full.

use std::time::Duration;

use tidegate_aws::{AwsErrorClass, AwsFailure};
use tidegate_core::{AssumeRole, ScanScope};
use tidegate_proto::v1;

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

    /// The worker's own budget of calls left no call in time.
    #[error(
        "the scan ended after {calls} calls, with no call of {action} left to it: a worker makes at most \
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

    /// One line for the operator: what failed with `role` (`None`: the own identity) and, where that is known, who
    /// can end it and how.
    pub(crate) fn explain(&self, role: Option<&AssumeRole>) -> String {
        let text = match self {
            Self::Aws(failure) if self.is_denial() && failure.hop.is_none() => {
                let (action, caller) = (self.action(), caller(role));
                format!("{failure}; an AWS administrator has to allow {action} for {caller}")
            }
            Self::NotAllowedInPart {
                failure,
                part,
                excludable,
            } => {
                let (action, caller) = (self.action(), caller(role));
                let or = match excludable {
                    [] => String::new(),
                    types => format!(
                        ", or the matcher excludes endpoints of type `{}`",
                        types.join("` and `")
                    ),
                };
                format!(
                    "{failure}; {part} cannot be read, and nothing is deleted, until an AWS administrator allows \
                     {action} for {caller}{or}"
                )
            }
            Self::Aws(failure) if !failure.class.is_transient() => {
                format!("{failure}; {}", failure.hint())
            }
            Self::RepeatedMarker { .. } => {
                format!(
                    "{self}; the list cannot be read to its end, and nothing is deleted, until AWS gives it one"
                )
            }
            Self::Aws(failure) => {
                let slower = match failure.class {
                    AwsErrorClass::Throttled => ", and calls less often there",
                    _ => "",
                };
                format!("{failure}; this worker tries again by itself{slower}")
            }
            other => other.to_string(),
        };
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// For the scope's status; `further` more failures were met in the same scan.
    pub(crate) fn status(&self, scope: &ScanScope, further: usize) -> v1::ScanFailure {
        self.met_with(scope.assume_role.as_ref(), further)
    }

    /// The same for a call that was made with `role`, of no scope in particular.
    pub(crate) fn met_with(&self, role: Option<&AssumeRole>, further: usize) -> v1::ScanFailure {
        let mut message = self.explain(role);
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

fn caller(role: Option<&AssumeRole>) -> String {
    role.map_or_else(
        || "the worker's own AWS identity".to_owned(),
        |role| role.role_arn.to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(arn: &str) -> AssumeRole {
        AssumeRole {
            role_arn: arn.parse().unwrap(),
            external_id: None,
        }
    }

    fn denied(message: &str) -> FetchError {
        AwsFailure::new(
            AwsErrorClass::AccessDenied,
            "redshift:DescribeClusters",
            message,
        )
        .into()
    }

    #[test]
    fn a_denial_names_the_missing_action_and_the_role() {
        let role = role("arn:aws:iam::123456789012:role/finder");
        let status = denied("no\nway").met_with(Some(&role), 2);
        assert_eq!(status.class, "access_denied");
        assert_eq!(status.action, "redshift:DescribeClusters");
        assert!(
            status.message.contains(
                "allow redshift:DescribeClusters for arn:aws:iam::123456789012:role/finder"
            )
        );
        assert!(status.message.ends_with("and 2 more"), "{}", status.message);
        assert!(!status.message.contains('\n'));
        assert!(
            denied("")
                .explain(None)
                .contains("worker's own AWS identity")
        );
    }

    #[test]
    fn one_cause_has_one_key_however_aws_words_it() {
        assert_eq!(denied("request 1").key(), denied("request 2").key());
        let other = FetchError::TooManyPages { action: "a" };
        assert_ne!(denied("").key(), other.key());
    }

    #[test]
    fn what_is_withheld_in_part_is_no_denial_of_the_scan_and_says_both_ways_out() {
        let failure = AwsFailure::new(
            AwsErrorClass::AccessDenied,
            "redshift:DescribeEndpointAccess",
            "no",
        );
        let error = FetchError::from(failure).in_part("VPC endpoints", &["vpc-endpoint"]);
        assert!(!error.is_denial() && !error.broke_off());
        let text = error.explain(None);
        assert!(text.contains("allows redshift:DescribeEndpointAccess for the worker's"));
        assert!(text.contains("excludes endpoints of type `vpc-endpoint`"));

        let tags = denied("").in_part("tags", &[]).explain(None);
        assert!(tags.contains("tags cannot be read") && !tags.contains("excludes"));
        let throttled = AwsFailure::new(AwsErrorClass::Throttled, "a", "");
        let error = FetchError::from(throttled).in_part("tags", &[]);
        assert!(matches!(error, FetchError::Aws(_)));
    }

    #[test]
    fn what_one_call_was_refused_another_may_still_get() {
        assert!(!denied("").concerns_every_call());
        for class in [
            AwsErrorClass::Throttled,
            AwsErrorClass::RegionDisabled,
            AwsErrorClass::Timeout,
        ] {
            let error = FetchError::from(AwsFailure::new(class, "a", ""));
            assert!(error.concerns_every_call(), "{class}");
        }
        let mut hop = AwsFailure::new(AwsErrorClass::AccessDenied, "sts:AssumeRole", "");
        hop.hop = Some("arn:aws:iam::123456789012:role/finder".parse().unwrap());
        assert!(FetchError::from(hop).concerns_every_call());
    }
}
