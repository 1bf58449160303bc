//! Why a login to a database did not come about, in words for the client and words for the operator. Pure.

use tidegate_core::{ErrorCode, Problem};
use tidegate_service::telemetry;

use super::{login::LoginError, upstream_login::LoginFailure};
use crate::{
    engine::{farewell::Farewell, record::Ended},
    metrics::Cause,
    wanted::Wanted,
};

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
