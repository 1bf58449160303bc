//! A database's greeting, which it says as soon as it is connected to.
//!
//! Reading it is as far as a connection can be made before anything is known of the client: the request for TLS that
//! follows already says what the client can.

use bytes::{Bytes, BytesMut};
use tidegate_core::{Database, ErrorCode, Problem};
use tidegate_wire::mysql::{
    Capabilities,
    handshake::{Greeting, HandshakeError},
    packet::HEADER_BYTES,
    reply::ServerError,
};
use tokio::{net::TcpStream, time::timeout};

use super::packets::{self, ReadError};
use crate::engine::upstream::{Connector, TLS_TIMEOUT, Upstream};

/// A connection to a database that has greeted.
#[derive(Debug)]
pub(crate) struct Greeted {
    pub(crate) stream: TcpStream,
    pub(crate) greeting: Greeting,
}

/// Why a greeting cannot be used.
#[derive(Debug, thiserror::Error)]
enum GreetingError {
    #[error("it said more than a greeting")]
    More,
    #[error(transparent)]
    Malformed(#[from] HandshakeError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("it did not greet in {} s", TLS_TIMEOUT.as_secs())]
    TimedOut,
    #[error("it said: {code} {message}")]
    TurnedAway { code: u16, message: String },
}

/// Hears the greeting of a database that was just connected to.
///
/// # Errors
///
/// A [`Problem`] of code `DatabaseUnreachable`, or `DatabaseTls` for a database without TLS.
pub(crate) async fn greeted(
    database: &Database,
    mut stream: TcpStream,
) -> Result<Greeted, Problem> {
    let greeting = timeout(TLS_TIMEOUT, read(&mut stream))
        .await
        .unwrap_or(Err(GreetingError::TimedOut))
        .map_err(|error| {
            Problem::new(
                ErrorCode::DatabaseUnreachable,
                format!("database `{}` takes no connection", database.name),
            )
            .because(format_args!("{}: {error}", database.uri))
            .hint("try again; an operator finds the cause in the log of the database service")
        })?;
    if !greeting.capabilities.has(Capabilities::SSL) {
        return Err(Problem::new(
            ErrorCode::DatabaseTls,
            format!("no TLS on the side of database `{}`", database.name),
        )
        .because(format_args!("{} does not offer it", database.uri))
        .hint(
            "the database service connects over TLS alone; an operator has to switch TLS on there",
        ));
    }
    Ok(Greeted { stream, greeting })
}

/// Connects to a database, and hears its greeting.
///
/// # Errors
///
/// As [`greeted`].
pub(crate) async fn connect_greeted(
    connector: &Connector,
    database: &Database,
) -> Result<Greeted, Problem> {
    let stream = connector.tcp(database).await?;
    greeted(database, stream).await
}

/// Makes TLS with a database that has greeted, behind the `request` that its greeting is answered with. Its greeting is
/// another one when it had to be connected to again, to verify its certificate with newer CAs.
///
/// # Errors
///
/// As [`Connector::tls_after`].
pub(crate) async fn secured(
    connector: &Connector,
    database: &Database,
    greeted: Greeted,
    request: impl Fn(&Greeting) -> Bytes,
) -> Result<(Upstream, Greeting), Problem> {
    let Greeted {
        stream,
        mut greeting,
    } = greeted;
    let first = (stream, request(&greeting));
    let again = async {
        let again = connect_greeted(connector, database).await?;
        greeting = again.greeting;
        Ok((again.stream, request(&greeting)))
    };
    let upstream = connector.tls_after(database, first, None, again).await?;
    Ok((upstream, greeting))
}

async fn read(stream: &mut TcpStream) -> Result<Greeting, GreetingError> {
    let mut buffer = BytesMut::with_capacity(HEADER_BYTES + 128);
    let packet = packets::next(stream, &mut buffer).await?;
    if let Some(error) = ServerError::parse(&packet.payload) {
        return Err(GreetingError::TurnedAway {
            code: error.code,
            message: error.message.into_owned(),
        });
    }
    if !buffer.is_empty() {
        return Err(GreetingError::More);
    }
    Ok(Greeting::parse(&packet.payload)?)
}
