//! Why a session does not come about, in words for the client and words for the operator. Pure.

use tidegate_core::{ErrorCode, Problem, access::Explanation};

use super::{identify::Asked, terms::Breach};
use crate::{metrics::Cause, places::NoPlace, wanted::Wanted};

/// Lines of a decision's reasons that log and audit carry; `tgctl access explain` prints them all.
const REASON_LINES_MAX: usize = 12;

/// What somebody who is not let in may know: not which role said what, but what to ask for. The operator reads the
/// first lines of the reasons.
pub(crate) fn denied(asked: &Asked, database: &str, why: &Explanation) -> Problem {
    Problem::new(
        ErrorCode::AccessDenied,
        format!(
            "access to database `{database}` denied for `{}`",
            asked.user.name
        ),
    )
    .because(first_lines(why))
    .hint(format!(
        "ask an administrator for a role that allows database user `{}` and database name `{}` there",
        asked.db_user, asked.db_name
    ))
}

/// The beginning of the tree of reasons, in one line.
fn first_lines(why: &Explanation) -> String {
    let lines = why.lines();
    let more = lines.len().saturating_sub(REASON_LINES_MAX);
    let mut told: Vec<String> = lines
        .iter()
        .take(REASON_LINES_MAX)
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    if more > 0 {
        told.push(format!("and {more} more lines"));
    }
    told.join(" / ")
}

/// What ends a session, or keeps one from beginning, whatever roles allow.
pub(crate) fn breach(breach: &Breach, database: &str) -> (Cause, Problem) {
    match breach {
        Breach::CertificateExpired => (
            Cause::CertificateExpired,
            Problem::new(
                ErrorCode::ClientCertificate,
                "the certificate that opened this session has expired",
            )
            .hint("log in again with `tg login`, then connect again"),
        ),
        Breach::Locked { name, message } => {
            let told = if message.is_empty() {
                format!("access to database `{database}` is locked")
            } else {
                format!("access to database `{database}` is locked: {message}")
            };
            let problem = Problem::new(ErrorCode::Locked, told)
                .because(format_args!("lock `{name}`"))
                .hint(format!("an administrator can lift lock `{name}`"));
            (Cause::Locked, problem)
        }
        Breach::LoginEnded { message } => (
            Cause::Locked,
            Problem::new(
                ErrorCode::ClientCertificate,
                format!("the login that your certificate comes from has ended: {message}"),
            )
            .hint("log in again with `tg login`, then connect again"),
        ),
        Breach::LocksUnknown => (
            Cause::LocksUnknown,
            Problem::new(
                ErrorCode::AgentUnavailable,
                "the database service does not know which locks are in force, and your roles allow no session then",
            )
            .hint("try again later; an operator has to let the database service reach the auth service"),
        ),
    }
}

/// The answer where a session that cannot be audited may not be.
pub(crate) fn not_audited() -> Problem {
    Problem::new(
        ErrorCode::AgentUnavailable,
        "this session cannot be audited, and your roles allow none that is not",
    )
    .hint("try again later; an operator has to let the database service reach the auth service")
}

/// The answer to one session more than roles allow.
pub(crate) fn too_many(NoPlace { most }: NoPlace) -> Problem {
    Problem::new(
        ErrorCode::TooMany,
        format!("you have {most} sessions on this database service, the most that your roles allow"),
    )
    .hint("end another session, or ask an administrator for a role with a larger `max_db_connections`")
}

/// Whether the database can be connected to, as far as AWS says.
pub(crate) fn available(wanted: &Wanted) -> Result<(), Problem> {
    let database = &wanted.database;
    if database.unavailable.is_empty() {
        return Ok(());
    }
    Err(Problem::new(
        ErrorCode::DatabaseNotAvailable,
        format!(
            "database `{}` cannot be connected to now: {}",
            database.name, database.unavailable
        ),
    )
    .hint("connect again when it is available"))
}

/// The answer while the auth service has not told any roles.
pub(crate) fn roles_unknown() -> Problem {
    Problem::new(
        ErrorCode::AgentUnavailable,
        "the database service does not know the cluster's roles yet",
    )
    .hint("try again in a moment")
}
