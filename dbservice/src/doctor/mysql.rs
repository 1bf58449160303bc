//! TLS and login to a database that speaks MySQL's protocol, where the server speaks first.

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use tidegate_core::{
    Database, ErrorCode, TlsMode,
    doctor::{Stop, Verdict, Who},
};
use tidegate_service::telemetry;
use tidegate_wire::mysql::{
    Capabilities,
    handshake::{Answer, Greeting},
    packet::{HANDSHAKE_BYTES_MAX, packet},
    reply::{self, ServerError},
};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{Duration, timeout},
};

use super::handshake::{certificates, verdict};
use crate::engine::{
    Connector, DbLogin, Upstream,
    mysql::{LoginFailure, greeted, log_in, next_packet, secured},
};

/// How long the statement may take.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);
/// utf8mb4_general_ci.
const CHARSET: u8 = 45;
/// Places of the request for TLS and of the answer behind it.
const SSL_REQUEST_AT: u8 = 1;
const ANSWER_AT: u8 = 2;
/// `COM_QUERY` and `COM_QUIT`.
const QUERY: u8 = 3;
const QUIT: u8 = 1;

/// A database that greeted, inside TLS.
pub(super) struct Reached {
    upstream: Upstream,
    greeting: Greeting,
    answer: Answer,
}

/// Hears the greeting and makes TLS of the connection.
///
/// # Errors
///
/// When the database does not greet, speaks no TLS, or shows a certificate that is not trusted for it.
pub(super) async fn shake(
    connector: &Connector,
    database: &Database,
    stream: TcpStream,
    db_name: &str,
    now: Timestamp,
) -> Result<(Reached, Vec<String>), Stop> {
    let mut evidence = Vec::new();
    match reach(connector, database, stream, db_name).await {
        Ok(reached) => {
            evidence.push(format!(
                "greeted as version {}",
                String::from_utf8_lossy(&reached.greeting.server_version)
            ));
            evidence.extend(certificates(&reached.upstream, now));
            Ok((reached, evidence))
        }
        Err(problem) => {
            evidence.push(problem.operator.clone());
            let mut unverified = database.clone();
            unverified.tls.mode = TlsMode::Insecure;
            if let Ok(stream) = connector.tcp(&unverified).await
                && let Ok(shown) = reach(connector, &unverified, stream, db_name).await
            {
                evidence.extend(certificates(&shown.upstream, now));
            }
            Err(Stop {
                evidence,
                verdict: Box::new(verdict(&problem)),
            })
        }
    }
}

async fn reach(
    connector: &Connector,
    database: &Database,
    stream: TcpStream,
    db_name: &str,
) -> Result<Reached, tidegate_core::Problem> {
    let greeted = greeted(database, stream).await?;
    let request = |greeting: &Greeting| answer(greeting, db_name).ssl_request(SSL_REQUEST_AT);
    let (upstream, greeting) = secured(connector, database, greeted, request).await?;
    let answer = answer(&greeting, db_name);
    Ok(Reached {
        upstream,
        greeting,
        answer,
    })
}

fn answer(greeting: &Greeting, db_name: &str) -> Answer {
    let mut capabilities = Capabilities::PROTOCOL_41
        | Capabilities::SECURE_CONNECTION
        | Capabilities::SSL
        | (greeting.capabilities & Capabilities::PLUGIN_AUTH)
        | (greeting.capabilities & Capabilities::PLUGIN_AUTH_LENENC);
    if !db_name.is_empty() {
        capabilities = capabilities | Capabilities::CONNECT_WITH_DB;
    }
    Answer {
        capabilities,
        packet_bytes_max: u32::try_from(HANDSHAKE_BYTES_MAX).unwrap_or(u32::MAX),
        charset: CHARSET,
        user: String::new(),
        proof: Bytes::new(),
        database: Some(db_name.to_owned()).filter(|name| !name.is_empty()),
        plugin: None,
        attributes: Bytes::new(),
    }
}

/// Logs in, asks `SELECT 1`, and hangs up.
///
/// # Errors
///
/// When the database refuses the login or the statement.
pub(super) async fn try_login(
    database: &Database,
    reached: Reached,
    login: &DbLogin,
) -> Result<Vec<String>, Stop> {
    let Reached {
        mut upstream,
        greeting,
        answer,
    } = reached;
    log_in(&mut upstream, &greeting, answer, login, ANSWER_AT)
        .await
        .map_err(|failure| refused(database, login, &failure))?;
    let asked = timeout(STATEMENT_TIMEOUT, select_one(&mut upstream)).await;
    let why = match asked {
        Ok(Ok(())) => {
            // A goodbye that does not arrive changes nothing.
            let _ = upstream
                .write_all(&packet(0, |out| out.extend_from_slice(&[QUIT])))
                .await;
            let _ = upstream.shutdown().await;
            return Ok(vec![
                format!("logged in as {}", login.user),
                "SELECT 1 was answered".to_owned(),
            ]);
        }
        Ok(Err(why)) => why,
        Err(_) => format!("no answer within {} s", STATEMENT_TIMEOUT.as_secs()),
    };
    let verdict = Verdict::new(
        ErrorCode::DatabaseUnreachable,
        format!(
            "database `{}` lets us in and does not answer `SELECT 1`",
            database.name
        ),
        Who::DatabaseAdministrator,
    )
    .how("see in the database whether it is overloaded");
    Err(Stop::new(verdict, why))
}

async fn select_one(upstream: &mut Upstream) -> Result<(), String> {
    let ask = packet(0, |out| {
        out.extend_from_slice(&[QUERY]);
        out.extend_from_slice(b"SELECT 1");
    });
    let sent = async {
        upstream.write_all(&ask).await?;
        upstream.flush().await
    };
    sent.await.map_err(|error| error.to_string())?;
    let mut buffer = BytesMut::new();
    let answer = next_packet(upstream, &mut buffer).await;
    let answer = answer.map_err(|error| telemetry::chain(&error))?;
    match answer.payload.first() {
        Some(&reply::ERR) => Err(ServerError::parse(&answer.payload).map_or_else(
            || "an error that cannot be read".to_owned(),
            |error| format!("{} {}", error.code, error.message),
        )),
        _ => Ok(()),
    }
}

/// What a login that failed means. Pure.
///
/// Source: MySQL server error reference: 1040, 1044, 1045, 1049.
fn refused(database: &Database, login: &DbLogin, failure: &LoginFailure) -> Stop {
    let (name, user) = (&database.name, &login.user);
    let what = format!("database `{name}` refuses the login of `{user}`");
    let verdict = match failure {
        LoginFailure::Refused { code: 1040, .. } => {
            Verdict::new(ErrorCode::TooMany, what, Who::DatabaseAdministrator)
                .how("it has as many connections as it takes: end some, or raise its limit")
        }
        LoginFailure::Refused { code: 1049, .. } => {
            Verdict::new(ErrorCode::DatabaseLogin, what, Who::User)
                .how("there is no such database in it: name another with --db-name")
        }
        LoginFailure::Refused { .. } | LoginFailure::Answer(_) => {
            let quoted = user.replace('\'', "''");
            let how = match database.kind {
                Some(_) => format!(
                    "make the user in the database: CREATE USER '{quoted}' IDENTIFIED WITH AWSAuthenticationPlugin AS 'RDS', \
                     and allow rds-db:connect on it"
                ),
                None => format!(
                    "make the user in the database: CREATE USER '{quoted}', and let it log in from this agent's address"
                ),
            };
            Verdict::new(ErrorCode::DatabaseLogin, what, Who::DatabaseAdministrator).how(how)
        }
        _ => Verdict::new(
            ErrorCode::DatabaseUnreachable,
            format!("the login to database `{name}` broke off"),
            Who::Operator,
        )
        .how("try again; something between the agent and the database ends connections"),
    };
    Stop::new(verdict, telemetry::chain(failure))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::redshift;

    #[test]
    fn each_refusal_of_a_server_has_its_own_remedy() {
        for (code, told, who) in [
            (1040, "too_many", Who::DatabaseAdministrator),
            (1049, "database_login", Who::User),
            (1045, "database_login", Who::DatabaseAdministrator),
        ] {
            let failure = LoginFailure::Refused {
                code,
                message: String::new(),
                payload: Bytes::new(),
            };
            let login = DbLogin {
                user: "it's".to_owned(),
                password: None,
            };
            let verdict = refused(&redshift("orders", &[]), &login, &failure).verdict;
            assert_eq!((verdict.code.as_str(), verdict.who), (told, who), "{code}");
        }
    }
}
