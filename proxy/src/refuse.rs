//! Tells a Postgres client why it gets no session, when nobody but the proxy is there to tell it.
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
    startup::{CancelRequest, FirstMessage, parse_first},
};
use tokio::{io::AsyncReadExt, net::TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tracing::{debug, info};

use crate::{cancel, handshake::HANDSHAKE_MAX, net, net::Replayed, route, shared::Shared};

/// Says which host name to use, to a client that named none or a wrong one.
pub(crate) async fn no_database(
    shared: &Shared,
    stream: TcpStream,
    hello: Bytes,
    addr: SocketAddr,
    given: Option<&str>,
) {
    info!(client.address = %addr, client.server_name = given, "refused a Postgres client that named no database");
    let message = match given {
        Some(host) => format!("\"{host}\" is not the host name of a database"),
        None => "the connection does not say which database it is for".to_owned(),
    };
    let hint = format!(
        "Connect to {} by host name, not by address, with a client that sends the server name over TLS (libpq 14 or later; set hostaddr={} where the name does not resolve).",
        route::host_pattern(&shared.cluster),
        shared.public_host(),
    );
    let answer = ErrorResponse::fatal(SqlState::CONNECTION_REJECTED, message).hint(hint);
    postgres(shared, stream, hello, addr, answer).await;
}

/// Ends the client's TLS, reads what it wants, and answers with the error. A cancel request is passed on instead.
pub(crate) async fn postgres(
    shared: &Shared,
    stream: TcpStream,
    hello: Bytes,
    addr: SocketAddr,
    answer: ErrorResponse,
) {
    let acceptor = TlsAcceptor::from(shared.certificates.postgres());
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
