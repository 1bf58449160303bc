//! Why a session does not come about, in words for the client and words for the operator. Pure.

use tidegate_core::{ErrorCode, Problem, access::Explanation};
use tidegate_service::telemetry;

use super::{
    farewell::Farewell, identify::Asked, login::LoginError, record::Ended, terms::Breach,
    upstream_login::LoginFailure,
};
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

/// What a database said goes to the client as it came; what went wrong on our side is told in our words.
pub(crate) fn login_failed(wanted: &Wanted, failure: &LoginFailure) -> (Farewell, Ended) {
    let ended = Ended::because(Cause::DatabaseRefused, telemetry::chain(failure));
    let name = &wanted.database.name;
    let farewell = match failure {
        LoginFailure::Refused { raw, .. } => Farewell::AsSent(raw.clone()),
        LoginFailure::Answer(LoginError::NoPassword) => {
            Farewell::Said(Box::new(
                Problem::new(
                    ErrorCode::DatabaseLogin,
                    format!("database `{name}` asks for a password, and this agent has none for it"),
                )
                .hint("an operator has to let the database trust this agent, or use a database with IAM login"),
            ))
        }
        LoginFailure::Answer(_) => Farewell::Said(Box::new(
            Problem::new(
                ErrorCode::DatabaseLogin,
                format!("database `{name}` asks for a login that this agent cannot do"),
            )
            .hint("an operator finds the cause in the log of the database service"),
        )),
        _ => Farewell::Said(Box::new(
            Problem::new(
                ErrorCode::DatabaseUnreachable,
                format!("the login to database `{name}` broke off"),
            )
            .hint("try again; an operator finds the cause in the log of the database service"),
        )),
    };
    (farewell, ended)
}
