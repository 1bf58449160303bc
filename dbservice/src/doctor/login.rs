//! The last step: the login itself, and one statement that touches nothing.

use std::time::Duration;

use bytes::BytesMut;
use tidegate_core::{
    Database, ErrorCode,
    doctor::{Stop, Verdict, Who},
};
use tidegate_service::telemetry;
use tidegate_wire::{
    backend::{BackendTag, ErrorResponse},
    frame::{HEADER_BYTES, LOGIN_FRAME_BYTES_MAX, peek_header},
    startup::{ProtocolVersion, StartupMessage},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::engine::{
    DbLogin, Upstream,
    postgres::{LoginFailure, ScramKeys, log_in},
};

/// How long the statement may take.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes that its answer may have.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// What the database's own lists of sessions show.
const APPLICATION: &str = "tidegate doctor";
/// `Query` with `SELECT 1`, and `Terminate`.
const SELECT_ONE: &[u8] = b"Q\0\0\0\x0dSELECT 1\0";
const TERMINATE: &[u8] = b"X\0\0\0\x04";

/// Logs in, asks `SELECT 1`, and hangs up.
///
/// # Errors
///
/// When the database refuses the login or the statement.
pub(super) async fn try_login(
    database: &Database,
    mut upstream: Upstream,
    login: &DbLogin,
    db_name: &str,
) -> Result<Vec<String>, Stop> {
    let startup = StartupMessage::new(ProtocolVersion::V3_0)
        .with_param("user", &login.user)
        .with_param("database", db_name)
        .with_param("application_name", APPLICATION);
    let logged_in = log_in(&mut upstream, &startup, login, &ScramKeys::default())
        .await
        .map_err(|failure| refused(database, login, db_name, &failure))?;
    let asked = tokio::time::timeout(STATEMENT_TIMEOUT, async {
        upstream.write_all(SELECT_ONE).await?;
        upstream.flush().await?;
        answer(&mut upstream, BytesMut::from(&logged_in.rest[..])).await
    });
    let unanswered = |why: String| {
        let verdict = Verdict::new(
            ErrorCode::DatabaseUnreachable,
            format!(
                "database `{}` lets us in and does not answer `SELECT 1`",
                database.name
            ),
            Who::DatabaseAdministrator,
        )
        .how("see in the database whether it is overloaded, or waits in a queue");
        Stop::new(verdict, why)
    };
    match asked.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(unanswered(error.to_string())),
        Err(_) => {
            let why = format!("no answer within {} s", STATEMENT_TIMEOUT.as_secs());
            return Err(unanswered(why));
        }
    }
    // A goodbye that does not arrive changes nothing.
    let _ = upstream.write_all(TERMINATE).await;
    let _ = upstream.shutdown().await;
    Ok(vec![
        format!("logged in as {}", login.user),
        "SELECT 1 was answered".to_owned(),
    ])
}

/// Reads up to ReadyForQuery.
async fn answer(upstream: &mut Upstream, mut buffer: BytesMut) -> std::io::Result<()> {
    let invalid = |what: String| std::io::Error::new(std::io::ErrorKind::InvalidData, what);
    let mut total = 0;
    loop {
        while let Some(header) = peek_header(&buffer, LOGIN_FRAME_BYTES_MAX)
            .map_err(|error| invalid(error.to_string()))?
            .filter(|header| buffer.len() >= header.total())
        {
            let whole = buffer.split_to(header.total());
            total += whole.len();
            match header.tag {
                BackendTag::READY_FOR_QUERY => return Ok(()),
                BackendTag::ERROR_RESPONSE => {
                    let error = ErrorResponse::parse(&whole[HEADER_BYTES..]);
                    return Err(invalid(format!("{} {}", error.code, error.message)));
                }
                _ if total > ANSWER_BYTES_MAX => {
                    return Err(invalid("a longer answer than `SELECT 1` has".to_owned()));
                }
                _ => {}
            }
        }
        if upstream.read_buf(&mut buffer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// What a login that failed means. Pure.
fn refused(database: &Database, login: &DbLogin, db_name: &str, failure: &LoginFailure) -> Stop {
    let (name, user) = (&database.name, &login.user);
    let verdict = match failure {
        LoginFailure::Refused { error, .. } => {
            let what = format!("database `{name}` refuses the login of `{user}`");
            let (code, who, how) = match error.code.as_str() {
                "3D000" => (
                    ErrorCode::DatabaseLogin,
                    Who::User,
                    format!("there is no database `{db_name}` in it: name another with --db-name"),
                ),
                "53300" => (
                    ErrorCode::TooMany,
                    Who::DatabaseAdministrator,
                    "it has as many connections as it takes: end some, or raise its limit"
                        .to_owned(),
                ),
                "57P03" => (
                    ErrorCode::DatabaseNotAvailable,
                    Who::Wait,
                    "it is starting or stopping".to_owned(),
                ),
                _ => (
                    ErrorCode::DatabaseLogin,
                    Who::DatabaseAdministrator,
                    how_to_let_in(database, user),
                ),
            };
            Verdict::new(code, what, who).how(how)
        }
        LoginFailure::Answer(_) => Verdict::new(
            ErrorCode::DatabaseLogin,
            format!("database `{name}` asks for a login that this agent cannot do"),
            Who::DatabaseAdministrator,
        )
        .how("let the database trust this agent, or use a database with IAM login"),
        _ => Verdict::new(
            ErrorCode::DatabaseUnreachable,
            format!("the login to database `{name}` broke off"),
            Who::Operator,
        )
        .how("try again; something between the agent and the database ends connections"),
    };
    Stop::new(verdict, telemetry::chain(failure))
}

/// What makes the user one that can log in.
fn how_to_let_in(database: &Database, user: &str) -> String {
    let plain = user.split_once(':').map_or(user, |(_, plain)| plain);
    let quoted = plain.replace('"', "\"\"");
    match database.kind {
        Some(_) => format!(
            "make the user in the database: CREATE USER \"{quoted}\" PASSWORD DISABLE (Redshift), or CREATE USER \"{quoted}\"; GRANT rds_iam TO \"{quoted}\" (RDS)"
        ),
        None => format!(
            "make the user in the database: CREATE USER \"{quoted}\", and let `pg_hba.conf` trust this agent's address"
        ),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tidegate_wire::SqlState;

    use super::*;
    use crate::testing::redshift;

    fn verdict(state: &str) -> Verdict {
        let state = SqlState::from_bytes(state.as_bytes()).unwrap();
        let failure = LoginFailure::Refused {
            raw: Bytes::new(),
            error: Box::new(ErrorResponse::fatal(state, "no")),
        };
        let login = DbLogin {
            user: "IAM:read\"er".to_owned(),
            password: None,
        };
        *refused(&redshift("orders", &[]), &login, "dev", &failure).verdict
    }

    #[test]
    fn each_refusal_of_a_database_has_its_own_remedy() {
        for (state, code, who) in [
            ("3D000", "database_login", Who::User),
            ("53300", "too_many", Who::DatabaseAdministrator),
            ("57P03", "database_not_available", Who::Wait),
            ("28000", "database_login", Who::DatabaseAdministrator),
        ] {
            let verdict = verdict(state);
            assert_eq!((verdict.code.as_str(), verdict.who), (code, who), "{state}");
        }
        assert!(verdict("28000").how[0].contains(r#"CREATE USER "read""er" PASSWORD DISABLE"#));
    }

    #[test]
    fn the_statement_is_a_whole_message() {
        let header = peek_header(SELECT_ONE, LOGIN_FRAME_BYTES_MAX)
            .unwrap()
            .unwrap();
        assert_eq!((header.tag, header.total()), (b'Q', SELECT_ONE.len()));
        let header = peek_header(TERMINATE, LOGIN_FRAME_BYTES_MAX)
            .unwrap()
            .unwrap();
        assert_eq!(header.total(), TERMINATE.len());
    }
}
