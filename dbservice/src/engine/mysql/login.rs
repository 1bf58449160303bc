//! The login to a database, from the client's answer to the database's OK.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tidegate_service::telemetry;
use tidegate_wire::mysql::{
    handshake::{self, Answer, Challenge, Greeting, HandshakeError},
    packet::Packet,
    reply::{self, ServerError},
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::{
    answers::{AnswerError, Answers, Proof},
    packets::{self, ReadError},
};
use crate::{
    engine::{DbLogin, entry::LoginRefusal, farewell::Farewell, record::Ended},
    metrics::Cause,
    wanted::Wanted,
};
use tidegate_core::{ErrorCode, Problem};

/// How long a login may take.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Steps that a login may take; the longest known one takes four.
const STEPS_MAX: usize = 16;

/// `ER_ACCESS_DENIED_ERROR`: no such user, or another password.
///
/// Source: MySQL server error message reference.
const ACCESS_DENIED: u16 = 1045;

/// What a login gave.
#[derive(Debug)]
pub(crate) struct LoggedIn {
    /// The database's OK, for the client.
    pub(crate) ok: Bytes,
    /// What was read beyond it.
    pub(crate) rest: Bytes,
}

/// Why there is no login.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum LoginFailure {
    /// A challenge without an answer.
    #[error("cannot answer the database's login")]
    Answer(#[from] AnswerError),
    /// A packet that is none here.
    #[error("database sent a malformed packet during login")]
    Malformed(#[from] HandshakeError),
    /// No packet.
    #[error("no login to the database")]
    Read(#[from] ReadError),
    /// The database said no, in its own words.
    #[error("database refused the login: {code} {message}")]
    Refused {
        code: u16,
        message: String,
        /// As it came.
        payload: Bytes,
    },
    /// Not done in time.
    #[error("database did not complete the login in {} s", LOGIN_TIMEOUT.as_secs())]
    TimedOut,
    /// It goes on and on.
    #[error("database asked for more than {STEPS_MAX} steps of login")]
    TooManySteps,
}

impl LoginRefusal for LoginFailure {
    fn refused_password(&self) -> Option<String> {
        match self {
            Self::Refused { code, message, .. } if *code == ACCESS_DENIED => {
                Some(format!("{code} {message}"))
            }
            _ => None,
        }
    }
}

impl From<std::io::Error> for LoginFailure {
    fn from(error: std::io::Error) -> Self {
        Self::Read(error.into())
    }
}

/// Logs in over TLS, with the client's `answer` but for user and proof, which are those of `login`. `sequence` is the
/// answer's place: one behind the request for TLS.
///
/// # Errors
///
/// [`LoginFailure`]; the connection is of no use then.
pub(crate) async fn log_in<S>(
    stream: &mut S,
    greeting: &Greeting,
    answer: Answer,
    login: &DbLogin,
    sequence: u8,
) -> Result<LoggedIn, LoginFailure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let logging_in = async {
        let mut answers = Answers::new(login.password.as_ref());
        let proof = answers.first(&greeting.plugin, &greeting.scramble);
        let answer = Answer {
            user: login.user.clone(),
            proof: Bytes::from_owner(proof),
            plugin: Some(greeting.plugin.clone()),
            ..answer
        };
        stream.write_all(&answer.encode(sequence)).await?;
        stream.flush().await?;
        let mut buffer = BytesMut::new();
        for _ in 0..STEPS_MAX {
            let Packet { sequence, payload } = packets::next(stream, &mut buffer).await?;
            let proof = match payload.first() {
                Some(&reply::OK) => {
                    return Ok(LoggedIn {
                        ok: payload,
                        rest: buffer.freeze(),
                    });
                }
                Some(&reply::ERR) => return Err(refused(payload)),
                _ => answered(&mut answers, &payload)?,
            };
            if let Some(proof) = proof {
                let sequence = sequence.wrapping_add(1);
                stream
                    .write_all(&handshake::proof(sequence, &proof))
                    .await?;
                stream.flush().await?;
            }
        }
        Err(LoginFailure::TooManySteps)
    };
    tokio::time::timeout(LOGIN_TIMEOUT, logging_in)
        .await
        .unwrap_or(Err(LoginFailure::TimedOut))
}

fn answered(answers: &mut Answers<'_>, payload: &Bytes) -> Result<Option<Proof>, LoginFailure> {
    match Challenge::parse(payload)? {
        Challenge::Switch { plugin, data } => Ok(Some(answers.switched(&plugin, &data)?)),
        Challenge::MoreData(data) => Ok(answers.more(&data)?),
        _ => Err(HandshakeError::Malformed("challenge").into()),
    }
}

fn refused(payload: Bytes) -> LoginFailure {
    let (code, message) = ServerError::parse(&payload).map_or((0, String::new()), |error| {
        (error.code, error.message.into_owned())
    });
    LoginFailure::Refused {
        code,
        message,
        payload,
    }
}

/// What a database said goes to the client as it came; what went wrong on our side is told in our words.
pub(crate) fn login_failed(
    wanted: &Wanted,
    failure: &LoginFailure,
    sequence: u8,
) -> (Farewell, Ended) {
    let ended = Ended::because(Cause::DatabaseRefused, telemetry::chain(failure));
    let name = &wanted.database.name;
    let told = |code, message: String, hint: &str| {
        Farewell::Said(Box::new(Problem::new(code, message).hint(hint)))
    };
    let farewell = match failure {
        LoginFailure::Refused { payload, .. } => {
            Farewell::AsSent(reply::renumbered(sequence, payload))
        }
        LoginFailure::Answer(AnswerError::NoPassword) => told(
            ErrorCode::DatabaseLogin,
            format!("database `{name}` asks for a password, and this agent has none for it"),
            "an operator has to let the database trust this agent, or use a database with IAM login",
        ),
        LoginFailure::Answer(_) => told(
            ErrorCode::DatabaseLogin,
            format!("database `{name}` asks for a login that this agent cannot do"),
            "an operator finds the cause in the log of the database service",
        ),
        _ => told(
            ErrorCode::DatabaseUnreachable,
            format!("the login to database `{name}` broke off"),
            "try again; an operator finds the cause in the log of the database service",
        ),
    };
    (farewell, ended)
}
