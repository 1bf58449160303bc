//! Where a client is, by the word of the balancer that it came through.
//!
//! Only connections from the networks of `proxy_protocol_from` begin with such a word, and all of those do: whoever could
//! leave it out, or send one from elsewhere, would choose the address that limits and audit go by.

use std::net::SocketAddr;

use bytes::{Buf, BytesMut};
use tidegate_wire::proxy_header::{self, ProxyHeader};
use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::{handshake::HANDSHAKE_MAX, handshake::Opened, net, opening::Refusal};

/// Reads the header off a balancer's connection; what was read behind it stays in `received`. `None` is a connection of the
/// balancer's own.
///
/// # Errors
///
/// How the connection ended instead.
pub(crate) async fn source(
    stream: &mut TcpStream,
    received: &mut BytesMut,
) -> Result<Option<SocketAddr>, Opened> {
    let refusal = match tokio::time::timeout(HANDSHAKE_MAX, header(stream, received)).await {
        Ok(Ok(Some(header))) => {
            received.advance(header.len);
            return Ok(header.source);
        }
        // Balancers also connect and say nothing, to see whether we live.
        Ok(Ok(None)) => return Err(Opened::Gone),
        Ok(Err(refusal)) => refusal,
        Err(_) if received.is_empty() => return Err(Opened::Gone),
        Err(_) => Refusal::Truncated,
    };
    net::close_with(stream, &refusal.answer().encode()).await;
    Err(Opened::Refused(refusal))
}

/// `None` for a connection that ended before its first byte, or that broke.
async fn header(
    stream: &mut TcpStream,
    received: &mut BytesMut,
) -> Result<Option<ProxyHeader>, Refusal> {
    loop {
        if let Some(header) = proxy_header::parse(received).map_err(Refusal::NoProxyHeader)? {
            return Ok(Some(header));
        }
        match stream.read_buf(received).await {
            Ok(0) if !received.is_empty() => return Err(Refusal::Truncated),
            Ok(0) | Err(_) => return Ok(None),
            Ok(_) => {}
        }
    }
}
