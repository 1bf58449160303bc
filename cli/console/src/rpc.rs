//! Calls to the auth service, and what their failures mean to a person.
//!
//! Every call has a deadline. A status becomes one line that says what was being done, and a hint that says who can
//! do something about it; the service's own words are kept where it wrote them for the caller.

use std::{error::Error, io, time::Duration};

use tidegate_service::rpc::{ConnectError, DialError};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

use crate::{Failure, table::visible};

/// How long a call may take before the program gives up.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Reason of a status: a name has to wait after too many failed logins.
const LOCKED_OUT: &str = "LOCKED_OUT";
/// Reason of a status: a lock strikes the caller.
const LOCKED: &str = "LOCKED";
/// Reason of a status: a query would look at more than one query may.
const QUERY_TOO_EXPENSIVE: &str = "QUERY_TOO_EXPENSIVE";
/// Most causes looked at behind a failed call.
const CAUSES_MAX: usize = 16;

/// A call that was answered with a status.
#[derive(Debug)]
pub struct Refused {
    /// The word by which the service tells why; empty when nobody answered.
    pub reason: String,
    /// What it means to a person.
    pub failure: Failure,
}

/// As [`call`], for who goes on in another way for some reasons.
///
/// # Errors
///
/// As [`call`], with the reason.
pub async fn call_or_reason<T>(
    doing: &str,
    answer: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Refused> {
    match tokio::time::timeout(CALL_TIMEOUT, answer).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(Refused {
            reason: reason(&status),
            failure: failure(doing, &status),
        }),
        Err(_) => Err(Refused {
            reason: String::new(),
            failure: no_answer(doing),
        }),
    }
}

/// Waits for an answer. `doing` reads after "could not ": `list databases`.
///
/// # Errors
///
/// When the call fails or takes longer than [`CALL_TIMEOUT`].
pub async fn call<T>(
    doing: &str,
    answer: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Failure> {
    call_refusable(doing, answer, None).await
}

/// As [`call`], with a hint of its own for when the service refuses: what may help then is not the same everywhere.
///
/// # Errors
///
/// As [`call`].
pub async fn call_refusable<T>(
    doing: &str,
    answer: impl Future<Output = Result<Response<T>, Status>>,
    refused_hint: Option<&str>,
) -> Result<T, Failure> {
    match tokio::time::timeout(CALL_TIMEOUT, answer).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => {
            let failure = failure(doing, &status);
            let refused = matches!(
                status.code(),
                Code::Unauthenticated | Code::PermissionDenied | Code::NotFound
            );
            Err(match refused_hint {
                Some(hint) if refused => failure.hint(hint),
                _ => failure,
            })
        }
        Err(_) => Err(no_answer(doing)),
    }
}

fn no_answer(doing: &str) -> Failure {
    unreachable(&format!(
        "no answer within {} seconds",
        CALL_TIMEOUT.as_secs()
    ))
    .within(doing)
}

/// What a status means.
pub fn failure(doing: &str, status: &Status) -> Failure {
    meaning(status).within(doing)
}

/// The word by which the service tells why.
fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.map(|info| info.reason).unwrap_or_default()
}

fn meaning(status: &Status) -> Failure {
    let said = visible(status.message());
    let said = if said.is_empty() {
        status.code().description().to_owned()
    } else {
        said
    };
    match status.code() {
        Code::Unavailable | Code::Unknown | Code::Cancelled if status.source().is_some() => {
            transport(status)
        }
        Code::Unavailable => Failure::new(said).hint("try again in a moment; if it goes on, an administrator should look at the auth service's log"),
        Code::DeadlineExceeded => unreachable(&said),
        Code::Unauthenticated => Failure::new(said)
            .hint("log in again with `tg login`"),
        Code::PermissionDenied if reason(status) == LOCKED => {
            Failure::new(said).hint("an administrator can lift the lock (`tgctl get lock`)")
        }
        Code::PermissionDenied => Failure::new(said)
            .hint("an administrator can give you a role that allows this (`tgctl users`)"),
        Code::ResourceExhausted if reason(status) == QUERY_TOO_EXPENSIVE => {
            Failure::new(said).hint("narrow it by labels, or ask for a simpler predicate")
        }
        Code::ResourceExhausted if reason(status) == LOCKED_OUT => Failure::new(said).hint(
            "an administrator can let you try again at once (`tgctl users unlock`)",
        ),
        Code::ResourceExhausted => Failure::new(said).hint("wait a moment and try again"),
        Code::Unimplemented => Failure::new(format!("the auth service does not know this call ({said})"))
            .hint("the program and the cluster differ in version; `tgctl status` shows the cluster's, `version` the program's"),
        Code::Internal | Code::DataLoss | Code::Unknown => {
            Failure::new(format!("the auth service failed: {said}"))
                .hint("an administrator finds the cause in the auth service's log")
        }
        Code::Ok
        | Code::Cancelled
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange => Failure::new(said),
    }
}

/// Whether a call failed because whoever answered could not prove to be the cluster.
#[must_use]
pub fn is_untrusted(status: &Status) -> bool {
    tidegate_service::rpc::connect_error(status).is_some_and(ConnectError::is_untrusted)
}

fn unreachable(why: &str) -> Failure {
    Failure::new(format!("the auth service cannot be reached: {why}")).hint(
        "check the address and that the cluster is up; through a proxy, check that the proxy is up",
    )
}

/// A call that never reached the service: the innermost cause says why.
fn transport(status: &Status) -> Failure {
    let mut why = status.message().to_owned();
    let mut connected = false;
    let mut cause = status.source();
    for _ in 0..CAUSES_MAX {
        let Some(error) = cause else { break };
        if let Some(refused) = error.downcast_ref::<ConnectError>() {
            return not_connected(refused);
        }
        if let Some(tls) = tls_cause(error) {
            return tls_failure(tls);
        }
        connected |= error.is::<hyper::Error>();
        why = error.to_string();
        cause = error.source();
    }
    if connected {
        hung_up(&visible(&why))
    } else {
        unreachable(&visible(&why))
    }
}

/// A connection came about and ended before the answer. Since TLS 1.3 a refused certificate looks like this: the alert
/// comes after the handshake, and the HTTP/2 client keeps it to itself.
fn hung_up(why: &str) -> Failure {
    Failure::new(format!("the auth service closed the connection ({why})")).hint(
        "it may be starting again: try once more; if it goes on, it no longer accepts your certificate: log in again \
         with `tg login`",
    )
}

/// No connection came about: distrust is told from an outage.
fn not_connected(refused: &ConnectError) -> Failure {
    let distrusted = refused
        .attempts()
        .iter()
        .find_map(|(_, error)| match error {
            DialError::Untrusted(tls) => Some(tls),
            _ => None,
        });
    match distrusted {
        Some(tls) if refused.is_untrusted() => tls_failure(tls),
        _ => unreachable(&visible(&refused.to_string())),
    }
}

/// A TLS failure inside an error; an [`io::Error`] hides what it was made of from `source()`.
fn tls_cause<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    if let Some(tls) = error.downcast_ref::<rustls::Error>() {
        return Some(tls);
    }
    error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref)
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
}

/// What a TLS failure towards the cluster means.
pub fn tls_failure(error: &rustls::Error) -> Failure {
    use rustls::{AlertDescription, Error as Tls};
    match error {
        Tls::AlertReceived(
            AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateRequired,
        ) => Failure::new("the cluster does not accept your certificate")
            .hint("log in again with `tg login`"),
        Tls::InvalidCertificate(why) => Failure::new(format!(
            "the server's certificate cannot be verified ({why})"
        ))
        .hint(
            "this is not the cluster you know, or its CA was changed: check the proxy's address, then log in with the \
             `--ca-pin` that an administrator gives you (`tgctl status` prints it)",
        ),
        other => unreachable(&format!("TLS: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_what_was_done_and_who_has_to_act() {
        let denied = failure(
            "list users",
            &Status::permission_denied("role `access` does not allow it"),
        );
        assert_eq!(
            denied.message(),
            "could not list users: role `access` does not allow it"
        );
        assert!(denied.hint_text().unwrap().contains("administrator"));
        let expired = failure("log in", &Status::unauthenticated("wrong name or password"));
        assert!(expired.hint_text().unwrap().contains("tg login"));
        let missing = failure(
            "remove user `x`",
            &Status::not_found("there is no user `x`"),
        );
        assert_eq!(
            missing.to_string(),
            "ERROR: could not remove user `x`: there is no user `x`"
        );
    }

    #[test]
    fn what_helps_against_a_lock_is_not_a_role() {
        let said = |code, reason: &str| {
            let details = tonic_types::ErrorDetails::with_error_info(
                reason,
                "d",
                [("k", "v")].map(|(k, v)| (k.to_owned(), v.to_owned())),
            );
            let status = Status::with_error_details(code, "no", details);
            let failure = failure("list databases", &status);
            failure.hint_text().unwrap().to_owned()
        };
        let locked = said(Code::PermissionDenied, "LOCKED");
        assert!(locked.contains("lift the lock"), "{locked}");
        let denied = said(Code::PermissionDenied, "DENIED");
        assert!(denied.contains("role"), "{denied}");
        let dear = said(Code::ResourceExhausted, "QUERY_TOO_EXPENSIVE");
        assert!(dear.contains("simpler"), "{dear}");
    }

    #[test]
    fn a_call_that_never_arrived_names_the_innermost_cause() {
        let refused = io::Error::new(io::ErrorKind::ConnectionRefused, "connection refused");
        let status = Status::from_error(Box::new(refused));
        let failure = failure("log in", &status);
        assert!(
            failure.message().contains("connection refused"),
            "{failure}"
        );
    }

    #[test]
    fn another_clusters_certificate_is_told_from_an_outage() {
        let tls = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let wrapped = io::Error::new(io::ErrorKind::InvalidData, tls);
        assert!(tls_cause(&wrapped).is_some());
        let failure = tls_failure(tls_cause(&wrapped).unwrap());
        assert!(
            failure.hint_text().unwrap().contains("--ca-pin"),
            "{failure}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_without_an_answer_ends() {
        let never = std::future::pending::<Result<Response<()>, Status>>();
        let failure = call("list databases", never).await.unwrap_err();
        assert!(
            failure.message().contains("no answer within 30 seconds"),
            "{failure}"
        );
    }
}
