//! Why a session does not come about, in words for the client and words for the operator. Pure.

use tidegate_core::{Denial, ErrorCode, Problem};
use tidegate_service::telemetry;

use super::{
    farewell::Farewell, identify::Asked, login::LoginError, record::Ended,
    upstream_login::LoginFailure,
};
use crate::{metrics::Cause, wanted::Wanted};

/// What somebody who is not let in may know: not which role said what, but what to ask for.
pub(crate) fn denied(asked: &Asked, database: &str, denial: &Denial) -> Problem {
    Problem::new(
        ErrorCode::AccessDenied,
        format!(
            "access to database `{database}` denied for `{}`",
            asked.user.name
        ),
    )
    .because(denial)
    .hint(format!(
        "ask an administrator for a role that allows database user `{}` and database name `{}` there",
        asked.db_user, asked.db_name
    ))
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
