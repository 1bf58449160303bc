//! Tells a database client why it gets no session, when nobody but the proxy is there to tell it.
//!
//! The proxy ends the client's TLS itself for this one message, with its own certificate: it has no certificate for
//! database host names, so a client that verifies the name (`sslmode=verify-full`) reports the certificate instead of
//! the message. That is the price of a proxy that cannot impersonate a database.
//!
//! Not here: refusals before TLS ([`crate::opening`]).

use std::{io, net::SocketAddr};

use bytes::{Bytes, BytesMut};
use tidegate_wire::{
    SqlState,
    backend::ErrorResponse,
    mysql::{
        packet::{HANDSHAKE_BYTES_MAX, take_packet},
        reply,
    },
    startup::{CancelRequest, FirstMessage, parse_first},
};
use tokio::{io::AsyncReadExt, net::TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tracing::{debug, info};

use crate::{
    cancel,
    handshake::HANDSHAKE_MAX,
    mysql::BEHIND_ANSWER_IN_TLS,
    net,
    net::Replayed,
    route::{self, Speaks},
    shared::Shared,
};

/// Says which host name to use, to a client that named none or a wrong one.
pub(crate) async fn no_database(
    shared: &Shared,
    stream: TcpStream,
    hello: Bytes,
    addr: SocketAddr,
    given: Option<&str>,
    speaks: Speaks,
) {
    info!(client.address = %addr, client.server_name = given, "refused a client that named no database");
    let message = match given {
        Some(host) => format!("\"{host}\" is not the host name of a database"),
        None => "the connection does not say which database it is for".to_owned(),
    };
    let pattern = route::host_pattern(&shared.cluster);
    let hint = match speaks {
        Speaks::Postgres => format!(
            "Connect to {pattern} by host name, not by address, with a client that sends the server name over TLS (libpq 14 or later; set hostaddr={} where the name does not resolve).",
            shared.public_host(),
        ),
        Speaks::Mysql | Speaks::MysqlInTls => format!(
            "Connect with `tg db connect`, or to {pattern} by host name with a client that sends the server name over TLS."
        ),
    };
    let answer = ErrorResponse::fatal(SqlState::CONNECTION_REJECTED, message).hint(hint);
    client(shared, stream, hello, addr, speaks, answer).await;
}

/// Ends the client's TLS and answers with the error, in the protocol that it speaks.
pub(crate) async fn client(
    shared: &Shared,
    stream: TcpStream,
    hello: Bytes,
    addr: SocketAddr,
    speaks: Speaks,
    answer: ErrorResponse,
) {
    match speaks {
        Speaks::Postgres => postgres(shared, stream, hello, addr, answer).await,
        Speaks::Mysql => mysql(shared, stream, hello, addr, true, &answer).await,
        Speaks::MysqlInTls => mysql(shared, stream, hello, addr, false, &answer).await,
    }
}

/// A client that was greeted is heard out first: its answer comes before ours.
async fn mysql(
    shared: &Shared,
    stream: TcpStream,
    hello: Bytes,
    addr: SocketAddr,
    is_greeted: bool,
    answer: &ErrorResponse,
) {
    let acceptor = TlsAcceptor::from(shared.certificates.databases());
    let opened = async {
        let mut tls = acceptor.accept(Replayed::new(hello, stream)).await?;
        let mut received = BytesMut::with_capacity(512);
        while is_greeted
            && !matches!(
                take_packet(&mut received, HANDSHAKE_BYTES_MAX),
                Ok(Some(_)) | Err(_)
            )
        {
            if tls.read_buf(&mut received).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok::<_, io::Error>(tls)
    };
    let text = match &answer.hint {
        Some(hint) => format!("{}. {hint}", answer.message),
        None => answer.message.clone(),
    };
    let sequence = if is_greeted { BEHIND_ANSWER_IN_TLS } else { 0 };
    let words = reply::error_like(sequence, answer.code, &text);
    match tokio::time::timeout(HANDSHAKE_MAX, opened).await {
        Ok(Ok(mut tls)) => net::close_with(&mut tls, &words).await,
        Ok(Err(error)) => {
            debug!(client.address = %addr, error = %error, "could not tell a client why it was refused");
        }
        Err(_) => {
            debug!(client.address = %addr, "a client took too long to be told why it was refused");
        }
    }
}

/// Ends the client's TLS, reads what it wants, and answers with the error. A cancel request is passed on instead.
async fn postgres(
    shared: &Shared,
    stream: TcpStream,
    hello: Bytes,
    addr: SocketAddr,
    answer: ErrorResponse,
) {
    let acceptor = TlsAcceptor::from(shared.certificates.databases());
    let opened = async {
        let mut tls = acceptor.accept(Replayed::new(hello, stream)).await?;
        let first = first_message(&mut tls).await?;
        Ok::<_, io::Error>((tls, first))
    };
    match tokio::time::timeout(HANDSHAKE_MAX, opened).await {
        Ok(Ok((_, First::Cancel(request)))) => cancel::pass_on(shared, &request, addr),
        Ok(Ok((mut tls, First::Other))) => net::close_with(&mut tls, &answer.encode()).await,
        Ok(Ok((mut tls, First::Invalid(answer)))) => {
            net::close_with(&mut tls, &answer.encode()).await;
        }
        Ok(Err(error)) => {
            debug!(client.address = %addr, error = %error, "could not tell a client why it was refused");
        }
        Err(_) => {
            debug!(client.address = %addr, "a client took too long to be told why it was refused")
        }
    }
}

enum First {
    Cancel(CancelRequest),
    Invalid(ErrorResponse),
    Other,
}

async fn first_message(tls: &mut TlsStream<Replayed>) -> io::Result<First> {
    let violation =
        |text: String| First::Invalid(ErrorResponse::fatal(SqlState::PROTOCOL_VIOLATION, text));
    let mut received = BytesMut::with_capacity(512);
    loop {
        match parse_first(&received) {
            Ok(Some((FirstMessage::Cancel(request), _))) => return Ok(First::Cancel(request)),
            Ok(Some((FirstMessage::Startup(_), _))) => return Ok(First::Other),
            Ok(Some(_)) => {
                return Ok(violation("encryption was requested inside TLS".to_owned()));
            }
            Ok(None) => {}
            Err(error) => return Ok(violation(error.to_string())),
        }
        if tls.read_buf(&mut received).await? == 0 {
            return Ok(violation("start-up message was cut short".to_owned()));
        }
    }
}
