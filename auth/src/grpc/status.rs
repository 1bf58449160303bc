//! Failures as gRPC statuses: one place, by kind, with a stable reason that programs can read.
//!
//! A fault of ours is logged here in full and told without its cause.

use std::collections::HashMap;

use tidegate_proto::convert::told;
use tidegate_service::{backup::BackupError, telemetry::chain};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{
    access::AccessError,
    audit::AuditUnavailable,
    backup::{CreateError, MarkerError, RestoreError},
    configs::ConfigError,
    databases::DatabaseError,
    diagnoses::DiagnoseError,
    health_configs::HealthConfigError,
    inventory::WatchEnd,
    ledger::{AcquireError, AdoptError, ListScopesError, PublishError, RescanError, WhatIfError},
    presence::PresenceError,
    store::StoreUnavailable,
};

/// The domain of our reasons.
const DOMAIN: &str = "tidegate.dev";

/// Most problems of a role that a status lists; all together must fit into the headers of an answer.
const PROBLEMS_TOLD_MAX: usize = 4;

/// A refusal with a stable reason.
pub(super) fn refuse(code: Code, reason: &str, message: impl Into<String>) -> Status {
    let details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
    Status::with_error_details(code, told(&message.into()), details)
}

/// A fault of ours: all of it to the log, nothing of the cause to the caller.
pub(super) fn internal(error: &(dyn std::error::Error + 'static)) -> Status {
    tracing::error!(error = chain(error), "a request failed");
    refuse(
        Code::Internal,
        "INTERNAL",
        "the auth service failed; its log says why",
    )
}

pub(super) fn store(error: &StoreUnavailable) -> Status {
    tracing::error!(error = chain(error), "the state store failed a request");
    refuse(
        Code::Unavailable,
        "STORE_UNAVAILABLE",
        "the state store is not available: try again",
    )
}

impl From<AccessError> for Status {
    fn from(error: AccessError) -> Self {
        let message = error.to_string();
        match error {
            AccessError::Busy => refuse(Code::ResourceExhausted, "BUSY", message),
            AccessError::Conflict { .. } => refuse(Code::Aborted, "CONFLICT", message),
            AccessError::Denied { reason, .. } => refuse(Code::PermissionDenied, reason, message),
            AccessError::Exists { .. } => refuse(Code::AlreadyExists, "EXISTS", message),
            AccessError::Forbidden { reason, .. } => {
                refuse(Code::FailedPrecondition, reason, message)
            }
            AccessError::Iam(iam) => refuse(iam.code(), iam.reason(), message),
            AccessError::Internal { .. } => internal(&error),
            AccessError::Invalid(invalid) => invalid.into(),
            AccessError::LockedOut { .. } => refuse(Code::ResourceExhausted, "LOCKED_OUT", message),
            AccessError::NotFound { .. } => refuse(Code::NotFound, "NOT_FOUND", message),
            AccessError::Role(problems) => {
                let mut details = ErrorDetails::new();
                for problem in problems.into_iter().take(PROBLEMS_TOLD_MAX) {
                    details.add_bad_request_violation(told(&problem.field), told(&problem.problem));
                }
                Self::with_error_details(Code::InvalidArgument, told(&message), details)
            }
            AccessError::Unavailable(unavailable) => store(&unavailable),
            AccessError::Unproven(_) => refuse(Code::Unauthenticated, "UNPROVEN", message),
        }
    }
}

impl From<AcquireError> for Status {
    fn from(error: AcquireError) -> Self {
        match error {
            AcquireError::Contended => refuse(Code::Aborted, "CONFLICT", error.to_string()),
            AcquireError::Invalid(invalid) => invalid.into(),
            AcquireError::Unavailable(unavailable) => store(&unavailable),
        }
    }
}

impl From<AdoptError> for Status {
    fn from(error: AdoptError) -> Self {
        let message = error.to_string();
        match error {
            AdoptError::Alive { .. } => refuse(Code::FailedPrecondition, "GROUP_ALIVE", message),
            AdoptError::Contended { .. } => refuse(Code::Aborted, "CONFLICT", message),
            AdoptError::Invalid(invalid) => invalid.into(),
            AdoptError::NoScopes { .. } => refuse(Code::FailedPrecondition, "NO_SCOPES", message),
            AdoptError::Unavailable(unavailable) => store(&unavailable),
        }
    }
}

impl From<AuditUnavailable> for Status {
    fn from(error: AuditUnavailable) -> Self {
        let message = error.to_string();
        match error {
            AuditUnavailable::Closed | AuditUnavailable::Failed => {
                refuse(Code::Unavailable, "AUDIT_UNAVAILABLE", message)
            }
            AuditUnavailable::Full => refuse(Code::ResourceExhausted, "AUDIT_FULL", message),
        }
    }
}

impl From<CreateError> for Status {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::Busy => refuse(Code::ResourceExhausted, "BUSY", error.to_string()),
            CreateError::TooFast => refuse(Code::Aborted, "CHANGES_TOO_FAST", error.to_string()),
            CreateError::Unavailable(unavailable) => store(&unavailable),
            CreateError::Write(_) => internal(&error),
        }
    }
}

impl From<RestoreError> for Status {
    fn from(error: RestoreError) -> Self {
        let message = error.to_string();
        match error {
            RestoreError::Backup(BackupError::Io(_)) | RestoreError::Spool(_) => {
                tracing::error!(error = chain(&error), "a backup cannot be taken in");
                let message = "the backup cannot be taken in: see the auth service's log, and whether its disk is full";
                refuse(Code::Unavailable, "SPOOL_UNAVAILABLE", message)
            }
            RestoreError::Backup(invalid) => refuse(
                Code::InvalidArgument,
                "BACKUP_UNUSABLE",
                invalid.to_string(),
            ),
            RestoreError::Busy => refuse(Code::ResourceExhausted, "BUSY", message),
            RestoreError::Cluster { .. } => {
                refuse(Code::FailedPrecondition, "OTHER_CLUSTER", message)
            }
            RestoreError::Commit(_) => internal(&error),
            RestoreError::Contended => refuse(Code::Aborted, "CONFLICT", message),
            RestoreError::Marker(MarkerError::Unavailable(unavailable))
            | RestoreError::Unavailable(unavailable) => store(&unavailable),
            RestoreError::Marker(_) => internal(&error),
            RestoreError::NotNew { .. } => refuse(Code::FailedPrecondition, "NOT_NEW", message),
        }
    }
}

impl From<ConfigError> for Status {
    fn from(error: ConfigError) -> Self {
        let message = error.to_string();
        match error {
            ConfigError::Conflict { .. } => refuse(Code::Aborted, "CONFLICT", message),
            ConfigError::Invalid(invalid) => invalid.into(),
            ConfigError::NotFound(_) => refuse(Code::NotFound, "NOT_FOUND", message),
            ConfigError::TooMany => refuse(Code::ResourceExhausted, "TOO_MANY", message),
            ConfigError::Unavailable(unavailable) => store(&unavailable),
        }
    }
}

impl From<HealthConfigError> for Status {
    fn from(error: HealthConfigError) -> Self {
        let message = error.to_string();
        match error {
            HealthConfigError::Conflict { .. } => refuse(Code::Aborted, "CONFLICT", message),
            HealthConfigError::Invalid(invalid) => invalid.into(),
            HealthConfigError::NotFound(_) => refuse(Code::NotFound, "NOT_FOUND", message),
            HealthConfigError::TooMany => refuse(Code::ResourceExhausted, "TOO_MANY", message),
            HealthConfigError::Unavailable(unavailable) => store(&unavailable),
        }
    }
}

impl From<ListScopesError> for Status {
    fn from(error: ListScopesError) -> Self {
        match error {
            ListScopesError::Invalid(invalid) => invalid.into(),
            ListScopesError::Unavailable(unavailable) => store(&unavailable),
        }
    }
}

impl From<DatabaseError> for Status {
    fn from(error: DatabaseError) -> Self {
        let message = error.to_string();
        match error {
            DatabaseError::Conflict(_) => refuse(Code::Aborted, "CONFLICT", message),
            DatabaseError::Exists(_) => refuse(Code::AlreadyExists, "EXISTS", message),
            DatabaseError::Invalid(invalid) => invalid.into(),
            DatabaseError::NotFound(_) => refuse(Code::NotFound, "NOT_FOUND", message),
            DatabaseError::NotOurs { .. } => {
                refuse(Code::FailedPrecondition, "NOT_DYNAMIC", message)
            }
            DatabaseError::Unavailable(unavailable) => store(&unavailable),
        }
    }
}

impl From<DiagnoseError> for Status {
    fn from(error: DiagnoseError) -> Self {
        let message = error.to_string();
        match error {
            DiagnoseError::Busy { .. } => refuse(Code::ResourceExhausted, "BUSY", message),
            DiagnoseError::Invalid(invalid) => invalid.into(),
            DiagnoseError::NotAnswered { .. } => {
                refuse(Code::DeadlineExceeded, "NOT_ANSWERED", message)
            }
            DiagnoseError::NotTaken { .. } => refuse(Code::Unavailable, "NOT_TAKEN", message),
            DiagnoseError::NotUp { .. } => refuse(Code::NotFound, "AGENT_NOT_UP", message),
            DiagnoseError::Refused(_) => internal(&error),
            DiagnoseError::Unavailable(unavailable) => store(&unavailable),
        }
    }
}

impl From<PresenceError> for Status {
    fn from(error: PresenceError) -> Self {
        let message = error.to_string();
        match error {
            PresenceError::Denied { .. } => {
                refuse(Code::PermissionDenied, "SERVICE_NOT_ALLOWED", message)
            }
            PresenceError::Invalid(invalid) => invalid.into(),
            PresenceError::LeaseGone => refuse(Code::Aborted, "LEASE_GONE", message),
            PresenceError::Refused(_) => internal(&error),
            PresenceError::Unavailable(unavailable) => store(&unavailable),
        }
    }
}

impl From<PublishError> for Status {
    fn from(error: PublishError) -> Self {
        let message = error.to_string();
        match error {
            PublishError::Contended { .. } | PublishError::Superseded { .. } => {
                refuse(Code::Aborted, "CONFLICT", message)
            }
            PublishError::Invalid(invalid) => invalid.into(),
            PublishError::NotHolder { .. } => {
                refuse(Code::FailedPrecondition, "SCOPE_NOT_HELD", message)
            }
            PublishError::Record { .. } => internal(&error),
            PublishError::Unavailable(unavailable) => store(&unavailable),
        }
    }
}

impl From<RescanError> for Status {
    fn from(error: RescanError) -> Self {
        match error {
            RescanError::Invalid(invalid) => invalid.into(),
            RescanError::Unavailable(unavailable) => store(&unavailable),
        }
    }
}

impl From<WatchEnd> for Status {
    fn from(end: WatchEnd) -> Self {
        let message = end.to_string();
        match end {
            WatchEnd::HistoryGone(_) => refuse(Code::OutOfRange, "HISTORY_GONE", message),
            WatchEnd::RolesChanged => refuse(Code::OutOfRange, "ROLES_CHANGED", message),
            WatchEnd::ShuttingDown(_) => refuse(Code::Unavailable, "SHUTTING_DOWN", message),
            WatchEnd::TooSlow(_) => refuse(Code::ResourceExhausted, "WATCHER_TOO_SLOW", message),
            WatchEnd::Unavailable(_) => {
                tracing::error!(error = chain(&end), "cannot read history for a watch");
                refuse(Code::Unavailable, "STORE_UNAVAILABLE", message)
            }
        }
    }
}

impl From<WhatIfError> for Status {
    fn from(error: WhatIfError) -> Self {
        let message = error.to_string();
        match error {
            WhatIfError::Busy => refuse(Code::ResourceExhausted, "BUSY", message),
            WhatIfError::Fault(_) => internal(&error),
            WhatIfError::Invalid(invalid) => invalid.into(),
            WhatIfError::TooMuch(_) => refuse(Code::ResourceExhausted, "TOO_MUCH", message),
            WhatIfError::Unavailable(unavailable) => store(&unavailable),
        }
    }
}
