//! gRPC between the cluster's programs: servers and channels over the cluster's own TLS, and over Unix sockets.
//!
//! TLS is ours rather than tonic's, because we choose ALPN and server name freely, accept many handshakes at once, and
//! hand connections to a gRPC server that were looked at before. Who is at the other end is read once, at the
//! handshake, and travels with every request: [`peer`].
//!
//! Not here: what a caller may do (each service decides from its [`Peer`]), and certificates (`tidegate-identity`).

mod backoff;
mod channel;
mod connection;
mod dial;
mod incoming;
mod server;

use std::{error::Error, net::SocketAddr, sync::Arc, time::Duration};

use rustls::ServerConnection;
use tidegate_identity::{IdentityError, PeerIdentity};
use tonic::{Request, Status};

pub use backoff::{BACKOFF_MAX, BACKOFF_MIN, Backoff};
pub use channel::{Endpoints, channel, unix_channel};
pub use connection::Connection;
pub use dial::{ConnectError, DialError};
pub use incoming::{established, tls_incoming, unix_incoming};
pub use server::{ServeError, serve, server_builder};

/// Largest message, in either direction; services set it on what tonic generates for them.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Requests in flight on one connection.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 1_024;
/// Largest HTTP/2 frame that is accepted.
pub const FRAME_BYTES_MAX: u32 = 64 * 1024;
/// Largest set of request headers that is accepted.
pub const HEADER_BYTES_MAX: u32 = 16 * 1024;
/// How often an HTTP/2 connection is asked for a sign of life.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How long the other side may take to give one before the connection counts as lost.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one address may take to accept a TCP connection, and again for the TLS handshake.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client may take from connecting to the end of its TLS handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// TLS handshakes worked on at once by one listener.
pub const HANDSHAKES_MAX: usize = 512;
/// Connections of one listener that have not finished their handshake; further ones are closed at once.
pub const PENDING_CONNECTIONS_MAX: usize = 4_096;
/// How long requests in flight may go on once a server was asked to stop.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Who is at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Somebody who showed no certificate.
    Anonymous,
    /// The holder of a certificate that was verified.
    Certified(Arc<PeerIdentity>),
    /// A process of root or of the service's own user, over the Unix socket.
    Local,
}

/// What is known of a connection since it was accepted. Every request of it carries this as an extension.
#[derive(Clone, Debug)]
pub struct ConnectInfo {
    /// Who it is.
    pub peer: Peer,
    /// From where; a Unix socket has no address.
    pub remote: Option<SocketAddr>,
}

impl ConnectInfo {
    /// Reads the peer from a TLS connection whose handshake is done.
    ///
    /// # Errors
    ///
    /// When the client's certificate was verified, yet carries no identity of a cluster.
    pub fn of_tls(
        tls: &ServerConnection,
        remote: Option<SocketAddr>,
    ) -> Result<Self, IdentityError> {
        let peer = match tls.peer_certificates().and_then(<[_]>::first) {
            Some(certificate) => Peer::Certified(Arc::new(PeerIdentity::from_der(certificate)?)),
            None => Peer::Anonymous,
        };
        Ok(Self { peer, remote })
    }
}

/// Who sent a request. A request that did not come over a [`Connection`] is anonymous.
#[must_use]
pub fn peer<T>(request: &Request<T>) -> Peer {
    request
        .extensions()
        .get::<ConnectInfo>()
        .map_or(Peer::Anonymous, |info| info.peer.clone())
}

/// The address that a request came from.
#[must_use]
pub fn remote<T>(request: &Request<T>) -> Option<SocketAddr> {
    request
        .extensions()
        .get::<ConnectInfo>()
        .and_then(|info| info.remote)
}

/// Why nobody could be reached, when that is what a status tells.
#[must_use]
pub fn connect_error(status: &Status) -> Option<&ConnectError> {
    let mut cause = status.source();
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// A status as one line for logs: what the server or the connector said, else the code's own words.
#[must_use]
pub fn describe(status: &Status) -> String {
    if status.message().is_empty() {
        status.code().description().to_lowercase()
    } else {
        status.message().to_owned()
    }
}
