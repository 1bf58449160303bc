//! What a failed call means: whether it was carried out, and what helps.
//!
//! etcd tells its errors apart by their texts alone; those named here are part of its published API.

use std::error::Error as _;

use tidegate_service::telemetry::chain;
use tonic::{Code, Status};

use super::dial::ConnectError;

/// What a failed call means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The answer is longer than we take: ask for less.
    AnswerTooLong,
    /// The member has too much to do, and did nothing.
    Busy,
    /// History at the revision is gone.
    Compacted,
    /// The revision is not there yet.
    FutureRevision,
    /// There is no such lease.
    LeaseNotFound,
    /// Nothing was done, and another member may do it.
    NotDone,
    /// Nothing was done, and nothing will be until somebody acts: permissions, a full disk, a wrong password.
    Refused,
    /// More bytes, or more operations, than this etcd takes in one request.
    TooLong,
    /// Nothing was done; a new token is needed.
    TokenStale,
    /// It may have been carried out, or may be yet.
    Unknown,
}

/// Texts that decide, whatever the code that comes with them.
const TEXTS: [(&str, Failure); 22] = [
    ("decoded message length too large", Failure::AnswerTooLong),
    ("etcdserver: too many requests", Failure::Busy),
    (
        "etcdserver: mvcc: required revision has been compacted",
        Failure::Compacted,
    ),
    (
        "etcdserver: mvcc: required revision is a future revision",
        Failure::FutureRevision,
    ),
    (
        "etcdserver: requested lease not found",
        Failure::LeaseNotFound,
    ),
    ("etcdserver: no leader", Failure::NotDone),
    ("etcdserver: not leader", Failure::NotDone),
    ("etcdserver: not capable", Failure::NotDone),
    (
        "etcdserver: rpc not supported for learner",
        Failure::NotDone,
    ),
    (
        "etcdserver: mvcc: database space exceeded",
        Failure::Refused,
    ),
    ("etcdserver: authentication failed", Failure::Refused),
    (
        "etcdserver: authentication is not enabled",
        Failure::Refused,
    ),
    ("etcdserver: user name is empty", Failure::Refused),
    ("etcdserver: permission denied", Failure::Refused),
    ("etcdserver: corrupt cluster", Failure::Refused),
    ("etcdserver: request is too large", Failure::TooLong),
    (
        "etcdserver: too many operations in txn request",
        Failure::TooLong,
    ),
    ("received message larger than max", Failure::TooLong),
    ("etcdserver: invalid auth token", Failure::TokenStale),
    (
        "etcdserver: revision of auth store is old",
        Failure::TokenStale,
    ),
    ("etcdserver: leader changed", Failure::Unknown),
    ("etcdserver: request timed out", Failure::Unknown),
];

/// What a status means.
pub(super) fn of(status: &Status) -> Failure {
    if is_not_sent(status) {
        return Failure::NotDone;
    }
    let text = status.message();
    if let Some((_, failure)) = TEXTS.iter().find(|(known, _)| text.contains(known)) {
        return *failure;
    }
    match status.code() {
        Code::Unimplemented
        | Code::InvalidArgument
        | Code::PermissionDenied
        | Code::FailedPrecondition => Failure::Refused,
        Code::Unauthenticated => Failure::TokenStale,
        _ => Failure::Unknown,
    }
}

/// Whether nothing was sent: there was no connection, or it was gone before the request was its turn.
fn is_not_sent(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        let was_cancelled = |error: &hyper::Error| error.is_canceled();
        if error.is::<ConnectError>() || error.downcast_ref().is_some_and(was_cancelled) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// What etcd, or the way to it, said: the status and what caused it.
pub(super) fn describe(status: &Status) -> String {
    let text = tidegate_service::rpc::describe(status);
    match status.source().map(chain) {
        // tonic's own errors tell their first words twice.
        Some(cause) if cause.starts_with(&text) => cause,
        Some(cause) if !text.contains(&cause) => format!("{text}: {cause}"),
        _ => text,
    }
}

/// What an operator can do about it, where the text of etcd alone does not say.
pub(super) fn hint(status: &Status) -> Option<&'static str> {
    let text = status.message();
    if text.contains("database space exceeded") {
        Some(
            "etcd has reached its quota: compact and defragment it, or raise --quota-backend-bytes, then `etcdctl alarm disarm`",
        )
    } else if text.contains("too many operations") {
        Some("run etcd with --max-txn-ops of 128 or more")
    } else if text.contains("user name is empty") {
        Some(
            "this etcd asks for a login: configure a user name and a password, or a client certificate",
        )
    } else if text.contains("permission denied") {
        Some("grant the etcd user readwrite permission on everything under the prefix")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_surely_was_not_done_counts_as_not_done() {
        for (code, text, meaning) in [
            (Code::Unavailable, "etcdserver: no leader", Failure::NotDone),
            (
                Code::Unavailable,
                "etcdserver: request timed out, possibly due to connection lost",
                Failure::Unknown,
            ),
            (
                Code::Unavailable,
                "etcdserver: server stopped",
                Failure::Unknown,
            ),
            (Code::Unavailable, "connection reset", Failure::Unknown),
            (Code::Unknown, "h2 protocol error", Failure::Unknown),
            (
                Code::ResourceExhausted,
                "etcdserver: mvcc: database space exceeded",
                Failure::Refused,
            ),
            (
                Code::ResourceExhausted,
                "etcdserver: too many requests",
                Failure::Busy,
            ),
            (
                Code::Unauthenticated,
                "etcdserver: invalid auth token",
                Failure::TokenStale,
            ),
            (
                Code::InvalidArgument,
                "etcdserver: request is too large",
                Failure::TooLong,
            ),
        ] {
            assert_eq!(of(&Status::new(code, text)), meaning, "{text}");
        }
    }
}
