//! The login to a database, up to its first ReadyForQuery.
//!
//! What the database says to a logged-in client is kept as it came and goes to the client; the authentication exchange
//! and the database's own cancel key stay here.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tidegate_wire::{
    SqlState,
    backend::{Authentication, BackendError, BackendKeyData, BackendTag, ErrorResponse},
    frame::{FrameError, LOGIN_FRAME_BYTES_MAX, peek_header},
    startup::StartupMessage,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{
    login::{Login, LoginError, Step},
    scram::ScramKeys,
};
use crate::engine::{DbLogin, entry::LoginRefusal};

/// How long a login may take, from start-up message to ReadyForQuery.
pub(crate) const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);

/// The most that a database may say during a login.
const LOGIN_BYTES_MAX: usize = 256 << 10;

/// The parameter that would hide the stream from audit.
const COMPRESSION: &str = "_pq_.compression";

/// What a login gave.
#[derive(Debug)]
pub(crate) struct LoggedIn {
    /// Messages for the client, up to where its cancel key belongs.
    pub(crate) before_key: BytesMut,
    /// The database's cancel key, when it gave one.
    pub(crate) key: Option<BackendKeyData>,
    /// The other messages for the client, ReadyForQuery the last.
    pub(crate) after_key: BytesMut,
    /// What was read beyond them.
    pub(crate) rest: Bytes,
}

/// Why there is no login.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum LoginFailure {
    /// A challenge without an answer.
    #[error("cannot answer the database's login")]
    Answer(#[from] LoginError),
    /// The database hung up.
    #[error("database closed the connection during login")]
    Closed,
    /// A message that is no message.
    #[error("database sent a malformed message during login")]
    Frame(#[from] FrameError),
    /// The connection broke.
    #[error("connection to the database broke during login")]
    Io(#[from] std::io::Error),
    /// A message whose body does not fit its type.
    #[error("database sent a malformed message during login")]
    Message(#[from] BackendError),
    /// The database said no, in its own words.
    #[error("database refused the login: {} {}", .error.code, .error.message)]
    Refused {
        raw: Bytes,
        error: Box<ErrorResponse>,
    },
    /// Not done in time.
    #[error("database did not complete the login in {} s", LOGIN_TIMEOUT.as_secs())]
    TimedOut,
    /// Too many words.
    #[error("database said more than {LOGIN_BYTES_MAX} bytes during login")]
    TooLong,
    /// A message that does not belong here.
    #[error("database sent an unexpected message {0:?} before it asked for a login")]
    Unexpected(char),
}

impl LoginRefusal for LoginFailure {
    fn refused_password(&self) -> Option<String> {
        match self {
            Self::Refused { error, .. } => {
                let states = [SqlState::INVALID_AUTHORIZATION, SqlState::INVALID_PASSWORD];
                let is_it = states.contains(&error.code);
                is_it.then(|| format!("{} {}", error.code, error.message))
            }
            _ => None,
        }
    }
}

/// The client's start-up message, with the user and database that were decided, and without what would hide the
/// stream from audit. Everything else passes as it came.
pub(crate) fn startup_for(client: StartupMessage, user: &str, database: &str) -> StartupMessage {
    client
        .without(COMPRESSION)
        .with_param("user", user)
        .with_param("database", database)
}

/// Logs in, with the `keys` of passwords that were logged in with before.
///
/// # Errors
///
/// [`LoginFailure`]; the connection is of no use then.
pub(crate) async fn log_in<S>(
    stream: &mut S,
    startup: &StartupMessage,
    login: &DbLogin,
    keys: &ScramKeys,
) -> Result<LoggedIn, LoginFailure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let logging_in = async {
        stream.write_all(&startup.encode()).await?;
        stream.flush().await?;
        let mut frames = Frames::new(stream);
        let mut logged_in = LoggedIn {
            before_key: BytesMut::new(),
            key: None,
            after_key: BytesMut::new(),
            rest: Bytes::new(),
        };
        authenticate(&mut frames, login, keys, &mut logged_in.before_key).await?;
        settle(&mut frames, &mut logged_in).await?;
        logged_in.rest = frames.buffer.freeze();
        Ok(logged_in)
    };
    tokio::time::timeout(LOGIN_TIMEOUT, logging_in)
        .await
        .unwrap_or(Err(LoginFailure::TimedOut))
}

/// Answers challenges until the database consents.
async fn authenticate<S>(
    frames: &mut Frames<'_, S>,
    login: &DbLogin,
    keys: &ScramKeys,
    for_client: &mut BytesMut,
) -> Result<(), LoginFailure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut answers = Login::new(&login.user, login.password.as_ref(), keys);
    loop {
        let frame = frames.next().await?;
        match frame.tag {
            BackendTag::AUTHENTICATION => {
                match answers.answer(Authentication::parse(frame.body())?)? {
                    Step::Done => {
                        for_client.extend_from_slice(&frame.whole);
                        return Ok(());
                    }
                    Step::Send(reply) => {
                        frames.stream.write_all(&reply).await?;
                        frames.stream.flush().await?;
                    }
                    Step::Wait => {}
                }
            }
            BackendTag::NEGOTIATE_PROTOCOL_VERSION | BackendTag::NOTICE_RESPONSE => {
                for_client.extend_from_slice(&frame.whole);
            }
            BackendTag::ERROR_RESPONSE => return Err(frame.refusal()),
            tag => return Err(LoginFailure::Unexpected(char::from(tag))),
        }
    }
}

/// Collects what the database says to its new client.
async fn settle<S>(frames: &mut Frames<'_, S>, logged_in: &mut LoggedIn) -> Result<(), LoginFailure>
where
    S: AsyncRead + Unpin,
{
    loop {
        let frame = frames.next().await?;
        match frame.tag {
            BackendTag::BACKEND_KEY_DATA => {
                logged_in.key = Some(BackendKeyData::parse(frame.body())?);
                continue;
            }
            BackendTag::ERROR_RESPONSE => return Err(frame.refusal()),
            _ => {}
        }
        let part = match logged_in.key {
            None => &mut logged_in.before_key,
            Some(_) => &mut logged_in.after_key,
        };
        part.extend_from_slice(&frame.whole);
        if frame.tag == BackendTag::READY_FOR_QUERY {
            return Ok(());
        }
    }
}

/// One whole message.
struct Frame {
    tag: u8,
    whole: Bytes,
}

impl Frame {
    fn body(&self) -> &[u8] {
        &self.whole[tidegate_wire::frame::HEADER_BYTES..]
    }

    fn refusal(&self) -> LoginFailure {
        LoginFailure::Refused {
            error: Box::new(ErrorResponse::parse(self.body())),
            raw: self.whole.clone(),
        }
    }
}

/// Cuts a stream into messages.
struct Frames<'s, S> {
    stream: &'s mut S,
    buffer: BytesMut,
    total: usize,
}

impl<'s, S: AsyncRead + Unpin> Frames<'s, S> {
    fn new(stream: &'s mut S) -> Self {
        Self {
            stream,
            buffer: BytesMut::with_capacity(2048),
            total: 0,
        }
    }

    async fn next(&mut self) -> Result<Frame, LoginFailure> {
        loop {
            if let Some(header) = peek_header(&self.buffer, LOGIN_FRAME_BYTES_MAX)?
                && self.buffer.len() >= header.total()
            {
                self.total += header.total();
                if self.total > LOGIN_BYTES_MAX {
                    return Err(LoginFailure::TooLong);
                }
                let whole = self.buffer.split_to(header.total()).freeze();
                return Ok(Frame {
                    tag: header.tag,
                    whole,
                });
            }
            self.buffer.reserve(1024);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(LoginFailure::Closed);
            }
        }
    }
}

#[cfg(test)]
mod tests;
