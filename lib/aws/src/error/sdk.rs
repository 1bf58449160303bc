//! From the SDK's errors to ours: which code is which class, and where the real cause is hidden.
//!
//! Source of the codes: the services' API references, "Common Errors"; they differ by protocol.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sts::{
    error::{ErrorMetadata, ProvideErrorMetadata},
    operation::{
        RequestId, assume_role::AssumeRoleError,
        assume_role_with_web_identity::AssumeRoleWithWebIdentityError,
    },
};
use aws_smithy_runtime_api::client::{orchestrator::HttpResponse, result::SdkError};

use super::{AwsErrorClass, AwsFailure};
use crate::hop::HopError;

/// Sources that are walked down before giving up.
const SOURCES_MAX: usize = 32;

/// What an error of the SDK means. `action` is the call as a policy names it
/// (`redshift:DescribeClusters`).
pub fn classify<E>(action: &'static str, error: SdkError<E, HttpResponse>) -> AwsFailure
where
    E: ProvideErrorMetadata + Error + 'static,
{
    read(action, &error)
}

/// What it means that there are no credentials for `action`.
pub(crate) fn classify_credentials(action: &'static str, error: &CredentialsError) -> AwsFailure {
    beneath(action, error, sources(error), AwsErrorClass::NoCredentials)
}

/// The class of an error of the SDK.
pub(crate) fn class_of<E>(error: &SdkError<E, HttpResponse>) -> AwsErrorClass
where
    E: ProvideErrorMetadata + Error + 'static,
{
    read("", error).class
}

fn read<E>(action: &'static str, error: &SdkError<E, HttpResponse>) -> AwsFailure
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let class = match error {
        SdkError::ServiceError(answer) => {
            return refused(action, answer.err().meta(), answer.raw());
        }
        SdkError::TimeoutError(_) => AwsErrorClass::Timeout,
        SdkError::DispatchFailure(failure) if failure.is_timeout() => AwsErrorClass::Timeout,
        SdkError::DispatchFailure(failure) if failure.is_io() => AwsErrorClass::Unavailable,
        SdkError::DispatchFailure(_) => {
            return beneath(
                action,
                error,
                sources(error).skip(1),
                AwsErrorClass::Unavailable,
            );
        }
        SdkError::ConstructionFailure(_) => {
            return beneath(
                action,
                error,
                sources(error).skip(1),
                AwsErrorClass::InvalidRequest,
            );
        }
        _ => AwsErrorClass::Malformed,
    };
    AwsFailure::new(class, action, told(error))
}

/// An answer of AWS that is an error.
fn refused(action: &'static str, meta: &ErrorMetadata, raw: &HttpResponse) -> AwsFailure {
    let status = raw.status().as_u16();
    let class = match meta.code() {
        None => class_of_status(status),
        Some(_) if meta.message().is_some_and(is_about_the_time) => AwsErrorClass::ClockSkew,
        Some(code) => class_of_code(code, status),
    };
    let message = meta
        .message()
        .map_or_else(|| format!("HTTP status {status}"), str::to_owned);
    AwsFailure {
        code: meta.code().map(str::to_owned),
        request_id: meta
            .request_id()
            .or_else(|| raw.request_id())
            .map(Into::into),
        denied_action: denied_action(&message).map(Into::into),
        ..AwsFailure::new(class, action, message)
    }
}

/// The cause of a request that was never sent: mostly that no credentials could be had for it.
fn beneath<'e>(
    action: &'static str,
    error: &'e (dyn Error + 'static),
    causes: impl Iterator<Item = &'e (dyn Error + 'static)>,
    otherwise: AwsErrorClass,
) -> AwsFailure {
    let mut class = otherwise;
    let mut hop = None;
    for cause in causes {
        if let Some(found) = cause.downcast_ref::<HopError>() {
            hop = Some(found.role.clone());
        }
        let answer = None
            .or_else(|| {
                cause
                    .downcast_ref()
                    .map(|e: &SdkError<AssumeRoleError, HttpResponse>| read("sts:AssumeRole", e))
            })
            .or_else(|| {
                let answer = cause
                    .downcast_ref::<SdkError<AssumeRoleWithWebIdentityError, HttpResponse>>()?;
                Some(read("sts:AssumeRoleWithWebIdentity", answer))
            });
        if let Some(answer) = answer {
            return AwsFailure {
                hop: answer.hop.clone().or(hop),
                ..answer
            };
        }
        class = class_of_credentials(cause).unwrap_or(class);
    }
    AwsFailure {
        hop,
        ..AwsFailure::new(class, action, told(error))
    }
}

fn class_of_credentials(cause: &(dyn Error + 'static)) -> Option<AwsErrorClass> {
    // The SDK's identity cache has no public type for its timeout.
    if cause.to_string().starts_with("identity resolver timed out") {
        return Some(AwsErrorClass::Timeout);
    }
    Some(match cause.downcast_ref::<CredentialsError>()? {
        CredentialsError::ProviderTimedOut(_) => AwsErrorClass::Timeout,
        _ => AwsErrorClass::NoCredentials,
    })
}

fn class_of_code(code: &str, status: u16) -> AwsErrorClass {
    match code {
        "AccessDenied" | "AccessDeniedException" | "NotAuthorized" | "UnauthorizedOperation" => {
            AwsErrorClass::AccessDenied
        }
        "ExpiredToken" | "ExpiredTokenException" => AwsErrorClass::ExpiredCredentials,
        "RequestExpired" | "RequestTimeTooSkewed" => AwsErrorClass::ClockSkew,
        "IDPRejectedClaim"
        | "IncompleteSignature"
        | "InvalidIdentityToken"
        | "InvalidSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "SignatureDoesNotMatch" => AwsErrorClass::NoCredentials,
        "BandwidthLimitExceeded"
        | "PriorRequestNotComplete"
        | "RequestLimitExceeded"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "SlowDown"
        | "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "TooManyRequestsException" => AwsErrorClass::Throttled,
        "AuthFailure"
        | "InvalidClientTokenId"
        | "OptInRequired"
        | "RegionDisabledException"
        | "UnrecognizedClientException" => AwsErrorClass::RegionDisabled,
        "RequestTimeout" | "RequestTimeoutException" => AwsErrorClass::Timeout,
        "IDPCommunicationError"
        | "InternalError"
        | "InternalFailure"
        | "InternalServerError"
        | "InternalServerException"
        | "ServiceException"
        | "ServiceUnavailable"
        | "ServiceUnavailableException" => AwsErrorClass::Unavailable,
        "NoSuchEntity" => AwsErrorClass::NotFound,
        _ if code
            .trim_end_matches("Exception")
            .trim_end_matches("Fault")
            .ends_with("NotFound") =>
        {
            AwsErrorClass::NotFound
        }
        _ if status >= 500 => AwsErrorClass::Unavailable,
        _ => AwsErrorClass::InvalidRequest,
    }
}

/// Whether AWS says that a signature is too old or too new, which it does under the codes of wrong signatures:
/// "Signature expired: 20260101T000000Z is now earlier than …", "Signature not yet current: … is still later than …".
fn is_about_the_time(message: &str) -> bool {
    ["Signature expired", "Signature not yet current"]
        .iter()
        .any(|opening| message.starts_with(opening))
}

/// For answers that are no AWS error document: a gateway's page, or something that is not AWS.
fn class_of_status(status: u16) -> AwsErrorClass {
    match status {
        429 => AwsErrorClass::Throttled,
        500.. => AwsErrorClass::Unavailable,
        _ => AwsErrorClass::Malformed,
    }
}

/// The action in "… is not authorized to perform: redshift:GetClusterCredentials on resource: …".
pub(crate) fn denied_action(message: &str) -> Option<&str> {
    let (_, behind) = message.split_once("not authorized to perform: ")?;
    let action = behind
        .split_whitespace()
        .next()?
        .trim_end_matches(['.', ',']);
    action.contains(':').then_some(action)
}

/// What an error and its sources say, each part once.
pub(crate) fn told(error: &(dyn Error + 'static)) -> String {
    let mut told = String::new();
    for cause in sources(error) {
        let text = cause.to_string();
        if told.ends_with(&text) {
            continue;
        }
        if !told.is_empty() {
            told.push_str(": ");
        }
        told.push_str(&text);
    }
    told
}

fn sources<'e>(
    error: &'e (dyn Error + 'static),
) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source()).take(SOURCES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_protocols_spelling_of_a_code_has_the_same_class() {
        let cases = [
            (
                AwsErrorClass::AccessDenied,
                &[
                    "AccessDenied",
                    "AccessDeniedException",
                    "UnauthorizedOperation",
                ][..],
            ),
            (
                AwsErrorClass::ExpiredCredentials,
                &["ExpiredToken", "ExpiredTokenException"],
            ),
            (
                AwsErrorClass::ClockSkew,
                &["RequestExpired", "RequestTimeTooSkewed"],
            ),
            (
                AwsErrorClass::NoCredentials,
                &["SignatureDoesNotMatch", "InvalidSignatureException"],
            ),
            (
                AwsErrorClass::Throttled,
                &[
                    "Throttling",
                    "ThrottlingException",
                    "RequestLimitExceeded",
                    "TooManyRequestsException",
                ],
            ),
            (
                AwsErrorClass::RegionDisabled,
                &[
                    "InvalidClientTokenId",
                    "UnrecognizedClientException",
                    "AuthFailure",
                ],
            ),
            (
                AwsErrorClass::NotFound,
                &[
                    "ClusterNotFound",
                    "DBClusterNotFoundFault",
                    "ResourceNotFoundException",
                    "ResourceNotFoundFault",
                ],
            ),
            (
                AwsErrorClass::InvalidRequest,
                &[
                    "ValidationError",
                    "UnsupportedOperation",
                    "InvalidClusterState",
                ],
            ),
        ];
        for (class, codes) in cases {
            for code in codes {
                assert_eq!(class_of_code(code, 400), class, "{code}");
            }
        }
        assert_eq!(
            class_of_code("SomethingNew", 503),
            AwsErrorClass::Unavailable
        );
    }

    #[test]
    fn a_page_that_is_no_aws_error_is_judged_by_its_status() {
        assert_eq!(class_of_status(500), AwsErrorClass::Unavailable);
        assert_eq!(class_of_status(429), AwsErrorClass::Throttled);
        assert_eq!(class_of_status(404), AwsErrorClass::Malformed);
    }

    #[test]
    fn the_action_to_allow_is_taken_from_what_aws_says() {
        let message = "User: arn:aws:sts::1:assumed-role/a/b is not authorized to perform: \
                       redshift:GetClusterCredentials on resource: arn:aws:redshift:x because no policy allows it";

        assert_eq!(
            denied_action(message),
            Some("redshift:GetClusterCredentials")
        );
        assert_eq!(denied_action("Access denied"), None);
    }
}
