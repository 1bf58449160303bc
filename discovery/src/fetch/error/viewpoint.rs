//! How a failure is told: to the operator of a worker, or to a person who looks once.

use tidegate_aws::{AwsErrorClass, AwsFailure};
use tidegate_core::AssumeRole;

/// How the SDK begins to tell of credentials that it could not load: [`AwsErrorClass`] says it already.
pub(super) const LOADING: &str = "an error occurred while loading credentials: ";
/// How it says that no place had any; every place follows, each with its reasons.
pub(super) const NOWHERE: &str = "no credentials found in chain";
/// The places, in the order of the SDK's default chain.
const PLACES: &str = "none in environment variables, the shared configuration and credentials files, web identity, \
                      container and instance metadata";

/// Whose credentials made the calls, and who goes on after they failed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Viewpoint {
    /// Somebody looks once, with credentials of their own, and reads it at once.
    Person,
    /// A worker scans again and again; an operator reads it some time.
    Worker,
}

impl Viewpoint {
    /// Who makes the calls.
    pub(super) fn caller(self, role: Option<&AssumeRole>) -> String {
        match (role, self) {
            (Some(role), _) => role.role_arn.to_string(),
            (None, Self::Person) => "your own AWS identity".to_owned(),
            (None, Self::Worker) => "the worker's own AWS identity".to_owned(),
        }
    }

    /// Who can end a failure of `action`, and how. Of what waiting mends a worker says what it does itself.
    pub(super) fn remedy(
        self,
        failure: &AwsFailure,
        action: &str,
        role: Option<&AssumeRole>,
    ) -> String {
        use AwsErrorClass as Class;
        match (failure.class, self) {
            (Class::AccessDenied, _) if failure.hop.is_none() => {
                let caller = self.caller(role);
                format!("an AWS administrator has to allow {action} for {caller}")
            }
            (Class::AccessDenied | Class::ClockSkew | Class::RegionDisabled, _) => failure.hint(),
            (Class::ExpiredCredentials | Class::NoCredentials, Self::Person) => {
                "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, to credentials that are valid, or \
                 sign in again with the AWS CLI"
                    .to_owned()
            }
            (Class::ExpiredCredentials | Class::NoCredentials, Self::Worker) => {
                "an operator has to give the worker AWS credentials that are valid".to_owned()
            }
            (Class::InvalidRequest | Class::NotFound, _) => {
                "the same call is refused again until what AWS says was seen to".to_owned()
            }
            (
                Class::Malformed | Class::OverBudget | Class::Throttled | Class::Timeout | Class::Unavailable,
                Self::Person,
            ) => failure.hint(),
            (Class::OverBudget | Class::Throttled, Self::Worker) => {
                "this worker tries again by itself, and calls less often there".to_owned()
            }
            (
                Class::Malformed | Class::Timeout | Class::Unavailable,
                Self::Worker,
            ) => {
                "this worker tries again by itself".to_owned()
            }
        }
    }
}

/// The failure; of credentials that are missing one line instead of a paragraph.
pub(super) fn shortened(failure: &AwsFailure) -> AwsFailure {
    let mut failure = failure.clone();
    if failure.class == AwsErrorClass::NoCredentials {
        if failure.message.contains(NOWHERE) {
            failure.message = PLACES.into();
        } else if let Some((_, cause)) = failure.message.split_once(LOADING) {
            failure.message = cause.into();
        }
    }
    failure
}
