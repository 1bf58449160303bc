//! The one taxonomy of failures that users and operators meet.
//!
//! A [`Problem`] has a stable code, one text that a client may read and one for the operator, and a hint that says
//! who can fix it. It is turned into a Postgres error, a gRPC status or an exit code in one place each, by its code.

pub mod page;

use std::fmt;

/// Where a failure happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layer {
    /// The configuration.
    Config,
    /// Names and connections.
    Network,
    /// Certificates and handshakes.
    Tls,
    /// AWS APIs and IAM.
    Aws,
    /// Tidegate's own roles.
    Rbac,
    /// The database.
    Database,
    /// Ourselves.
    Internal,
}

/// A stable name for one way to fail. Codes are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// No role allows what was asked.
    AccessDenied,
    /// No agent serves the database now.
    AgentUnavailable,
    /// AWS refused a call for want of permission.
    AwsAccessDenied,
    /// The agent has no AWS credentials, or expired ones.
    AwsCredentials,
    /// AWS did not answer, or throttled to the last attempt.
    AwsUnavailable,
    /// The client showed no certificate, or one that does not fit.
    ClientCertificate,
    /// The database refused the login.
    DatabaseLogin,
    /// The database is paused, stopped or being made.
    DatabaseNotAvailable,
    /// The database cannot be reached.
    DatabaseUnreachable,
    /// The database's certificate cannot be verified.
    DatabaseTls,
    /// A lock shuts out who asks, or what is asked for, whatever roles allow.
    Locked,
    /// The client broke the protocol.
    ProtocolViolation,
    /// A bound was reached.
    TooMany,
    /// No database of that name.
    UnknownDatabase,
    /// A fault of ours.
    Internal,
}

impl ErrorCode {
    /// Every code, for the reference page and its test.
    pub const ALL: [Self; 15] = [
        Self::AccessDenied,
        Self::AgentUnavailable,
        Self::AwsAccessDenied,
        Self::AwsCredentials,
        Self::AwsUnavailable,
        Self::ClientCertificate,
        Self::DatabaseLogin,
        Self::DatabaseNotAvailable,
        Self::DatabaseUnreachable,
        Self::DatabaseTls,
        Self::Locked,
        Self::ProtocolViolation,
        Self::TooMany,
        Self::UnknownDatabase,
        Self::Internal,
    ];

    /// The code as printed and searched for.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AccessDenied => "access_denied",
            Self::AgentUnavailable => "agent_unavailable",
            Self::AwsAccessDenied => "aws_access_denied",
            Self::AwsCredentials => "aws_credentials",
            Self::AwsUnavailable => "aws_unavailable",
            Self::ClientCertificate => "client_certificate",
            Self::DatabaseLogin => "database_login",
            Self::DatabaseNotAvailable => "database_not_available",
            Self::DatabaseUnreachable => "database_unreachable",
            Self::DatabaseTls => "database_tls",
            Self::Locked => "locked",
            Self::ProtocolViolation => "protocol_violation",
            Self::TooMany => "too_many",
            Self::UnknownDatabase => "unknown_database",
            Self::Internal => "internal",
        }
    }

    /// Where it happened.
    #[must_use]
    pub const fn layer(self) -> Layer {
        match self {
            Self::AccessDenied | Self::Locked => Layer::Rbac,
            Self::AgentUnavailable
            | Self::DatabaseUnreachable
            | Self::TooMany
            | Self::UnknownDatabase => Layer::Network,
            Self::AwsAccessDenied | Self::AwsCredentials | Self::AwsUnavailable => Layer::Aws,
            Self::ClientCertificate | Self::DatabaseTls => Layer::Tls,
            Self::DatabaseLogin | Self::DatabaseNotAvailable => Layer::Database,
            Self::ProtocolViolation | Self::Internal => Layer::Internal,
        }
    }

    /// The SQLSTATE that a Postgres client gets.
    ///
    /// Source: PostgreSQL manual, appendix A.
    #[must_use]
    pub const fn sqlstate(self) -> &'static str {
        match self {
            Self::AccessDenied | Self::ClientCertificate | Self::Locked => "28000",
            Self::DatabaseLogin => "28P01",
            Self::AgentUnavailable | Self::DatabaseUnreachable | Self::DatabaseTls => "08006",
            Self::AwsAccessDenied | Self::AwsCredentials | Self::AwsUnavailable => "08001",
            Self::DatabaseNotAvailable => "57P03",
            Self::ProtocolViolation => "08P01",
            Self::TooMany => "53300",
            Self::UnknownDatabase => "3D000",
            Self::Internal => "XX000",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A failure, told twice: to the client, and to the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// The stable code.
    pub code: ErrorCode,
    /// What the client may read: what failed, without inner addresses or source errors.
    pub message: String,
    /// What the operator reads in the log: the client's text and the cause behind it.
    pub operator: String,
    /// What was tried, on what, before it failed. The client sees it, so it holds no inner addresses.
    pub detail: Option<String>,
    /// Who can fix it, and how. The client sees it.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem whose operator text is the client's, until [`Self::because`] adds the cause.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            code,
            operator: message.clone(),
            message,
            detail: None,
            hint: None,
        }
    }

    /// Adds what only the operator should read.
    #[must_use]
    pub fn because(mut self, cause: impl fmt::Display) -> Self {
        self.operator = format!("{}: {cause}", self.message);
        self
    }

    /// Says what was tried, on what: for the client, so without inner addresses.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Says who can fix it and how.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_sqlstates_well_formed() {
        let names: std::collections::HashSet<_> =
            ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), ErrorCode::ALL.len());
        assert!(ErrorCode::ALL.iter().all(|code| code.sqlstate().len() == 5));
    }

    #[test]
    fn the_cause_is_told_to_the_operator_only() {
        let problem = Problem::new(ErrorCode::DatabaseUnreachable, "cannot reach the database")
            .because("connect 10.0.0.1:5439: timed out");
        assert_eq!(problem.message, "cannot reach the database");
        assert!(problem.operator.contains("10.0.0.1"));
    }
}
