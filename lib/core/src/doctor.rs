//! What the doctor says: the steps that it took, each with its evidence, and a verdict that names who acts and what to
//! paste where.
//!
//! The words here are for all that explains or plans: a step has a status and evidence, a verdict a code of
//! [`ErrorCode`], somebody who acts, and fixes, each a policy, whose it is, and the JSON that belongs into it.
//!
//! Invariant: steps stand in the order of [`StepName::LADDER`], and none after one that failed was tried.
//!
//! Not here: taking the steps (`tidegate-dbservice`).

mod ladder;
mod text;

use std::fmt;

use serde::Serialize;

pub use ladder::{Ladder, Stop};

use crate::ErrorCode;

/// The code of a verdict when nothing is wrong.
pub const OK: &str = "ok";

/// One way from an agent to a database, as far as it leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// The database.
    pub database: String,
    /// The database user that was logged in as.
    pub db_user: String,
    /// The logical database.
    pub db_name: String,
    /// Who looked: the agent's name for people.
    pub host: String,
    /// In the order in which they were taken.
    pub steps: Vec<Step>,
    /// What it comes to.
    pub verdict: Verdict,
}

impl Diagnosis {
    /// Whether every step that was needed passed.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.verdict.code == OK
    }
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Which.
    pub step: StepName,
    /// How it went.
    pub status: StepStatus,
    /// What was done to what, in one line.
    pub what: String,
    /// What was seen, one fact a line.
    pub evidence: Vec<String>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// The steps from an agent to a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StepName {
    /// Whether the agent serves the database, and with which role.
    Serve,
    /// The name of its host has addresses.
    Dns,
    /// One of them takes a connection.
    Tcp,
    /// Its certificate can be verified.
    Tls,
    /// The agent has AWS credentials of its own.
    Credentials,
    /// A role is assumed; once for each of the chain.
    Role,
    /// AWS gives a password.
    Mint,
    /// The database takes it, and answers `SELECT 1`.
    Login,
}

impl StepName {
    /// The order in which they are taken.
    pub const LADDER: [Self; 8] = [
        Self::Serve,
        Self::Dns,
        Self::Tcp,
        Self::Tls,
        Self::Credentials,
        Self::Role,
        Self::Mint,
        Self::Login,
    ];

    /// The word for it in outputs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Serve => "serve",
            Self::Dns => "dns",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Credentials => "credentials",
            Self::Role => "role",
            Self::Mint => "mint",
            Self::Login => "login",
        }
    }
}

impl fmt::Display for StepName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StepStatus {
    /// As it should.
    Passed,
    /// Nothing behind it was tried.
    Failed,
    /// It was not needed, or not reached; the step says which.
    Skipped,
}

impl StepStatus {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Passed, Self::Failed, Self::Skipped];

    /// The word for it in outputs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// What the steps come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// A code of [`ErrorCode`], or [`OK`].
    pub code: String,
    /// What is wrong, in one sentence.
    pub what: String,
    /// Who can put it right.
    pub who: Who,
    /// What they do, in words, one action a line, the likeliest first.
    pub how: Vec<String>,
    /// What they paste, the likeliest first.
    pub fixes: Vec<Fix>,
    /// Whether one of the fixes is enough, and AWS does not tell which; otherwise all are needed.
    pub any_of: bool,
}

impl Verdict {
    /// Nothing is wrong.
    #[must_use]
    pub fn ok(what: impl Into<String>) -> Self {
        Self {
            code: OK.to_owned(),
            what: what.into(),
            who: Who::Nobody,
            how: Vec::new(),
            fixes: Vec::new(),
            any_of: false,
        }
    }

    /// Something is.
    #[must_use]
    pub fn new(code: ErrorCode, what: impl Into<String>, who: Who) -> Self {
        Self {
            code: code.as_str().to_owned(),
            what: what.into(),
            who,
            how: Vec::new(),
            fixes: Vec::new(),
            any_of: false,
        }
    }

    /// Adds what to do.
    #[must_use]
    pub fn how(mut self, how: impl Into<String>) -> Self {
        self.how.push(how.into());
        self
    }

    /// Says that one of the fixes is enough.
    #[must_use]
    pub const fn any_of(mut self, any_of: bool) -> Self {
        self.any_of = any_of;
        self
    }

    /// Adds what to paste.
    #[must_use]
    pub fn fix(mut self, fix: Fix) -> Self {
        self.fixes.push(fix);
        self
    }
}

/// Who can put something right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// An administrator of the cluster: roles, databases, users of Tidegate.
    Administrator,
    /// An administrator of the AWS account or organization that the fix names.
    AwsAdministrator,
    /// An administrator of the database itself.
    DatabaseAdministrator,
    /// Nobody has to.
    Nobody,
    /// An administrator of the AWS organization.
    OrganizationAdministrator,
    /// Whoever runs the agent: its host, its network, its configuration.
    Operator,
    /// Whoever connects: another user or database name is to be asked for.
    User,
    /// Nobody now: the same thing may work in a moment.
    Wait,
}

impl Who {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Administrator,
        Self::AwsAdministrator,
        Self::DatabaseAdministrator,
        Self::Nobody,
        Self::Operator,
        Self::OrganizationAdministrator,
        Self::User,
        Self::Wait,
    ];

    /// The word for it in outputs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Administrator => "administrator",
            Self::AwsAdministrator => "aws_administrator",
            Self::DatabaseAdministrator => "database_administrator",
            Self::Nobody => "nobody",
            Self::OrganizationAdministrator => "organization_administrator",
            Self::Operator => "operator",
            Self::User => "user",
            Self::Wait => "wait",
        }
    }

    /// The same for people, to begin a sentence with.
    #[must_use]
    pub const fn described(self) -> &'static str {
        match self {
            Self::Administrator => "an administrator of the cluster",
            Self::AwsAdministrator => "an AWS administrator",
            Self::DatabaseAdministrator => "an administrator of the database",
            Self::Nobody => "nobody has to act",
            Self::OrganizationAdministrator => "an administrator of the AWS organization",
            Self::Operator => "the operator of the database service",
            Self::User => "whoever connects",
            Self::Wait => "nobody yet: try again in a moment",
        }
    }
}

/// A change of one policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fix {
    /// Which policy.
    pub policy: PolicyKind,
    /// Whose it is: the ARN of a role or user, or an account.
    pub of: String,
    /// The statement that belongs into it, as it can be pasted.
    pub json: String,
}

/// The policies that decide about a call to AWS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyKind {
    /// What a role or user may do.
    Identity,
    /// The most that a role or user may do, whatever its policies allow.
    PermissionsBoundary,
    /// The most that anybody may do to what an account owns: of the organization.
    ResourceControl,
    /// The most that anybody in an account may do: of the organization.
    ServiceControl,
    /// What was handed in when a session began.
    Session,
    /// Who may assume a role.
    Trust,
    /// What may pass a VPC endpoint.
    VpcEndpoint,
}

impl PolicyKind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Identity,
        Self::PermissionsBoundary,
        Self::ResourceControl,
        Self::ServiceControl,
        Self::Session,
        Self::Trust,
        Self::VpcEndpoint,
    ];

    /// The word for it in outputs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::PermissionsBoundary => "permissions_boundary",
            Self::ResourceControl => "resource_control",
            Self::ServiceControl => "service_control",
            Self::Session => "session",
            Self::Trust => "trust",
            Self::VpcEndpoint => "vpc_endpoint",
        }
    }

    /// The same for people.
    #[must_use]
    pub const fn described(self) -> &'static str {
        match self {
            Self::Identity => "the permissions policy",
            Self::PermissionsBoundary => "the permissions boundary",
            Self::ResourceControl => "the resource control policy",
            Self::ServiceControl => "the service control policy",
            Self::Session => "the session policy",
            Self::Trust => "the trust policy",
            Self::VpcEndpoint => "the VPC endpoint policy",
        }
    }
}
