//! Accepts connections and brings each to where it belongs.
//!
//! Bounds of each port: [`CONNECTIONS_MAX`] open at one time, [`HANDSHAKES_MAX`] of them not yet known, each of those for at most
//! [`crate::handshake::HANDSHAKE_MAX`]. At a bound accepting waits, and the kernel's queue with it.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use tidegate_service::{
    handover::Returned,
    rpc::{Backoff, ConnectInfo, Connection},
    tasks::ShutdownToken,
    telemetry,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tracing::{debug, info, warn};

use crate::{
    auth_relay, balancer, cancel,
    handshake::{self, HANDSHAKE_MAX, Opened, RECEIVED_BYTES_USUAL},
    limit::Shaking,
    metrics::Handshake,
    mysql,
    net::{self, Replayed},
    opening::{Opening, Token},
    refuse,
    route::{self, Route, Speaks},
    session::{self, Identified},
    shared::Shared,
    web,
};

/// Clients' connections open at one time; those that agents dial back belong to their sessions.
const CONNECTIONS_MAX: usize = 65_536;
/// Connections of which it is not known yet what they want.
const HANDSHAKES_MAX: usize = 4_096;
/// How often it is said that all places are taken.
const FULL_SAID_INTERVAL: Duration = Duration::from_secs(10);

/// What a port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Front {
    /// Everything: whoever connects speaks first.
    Main,
    /// MySQL clients, who wait to be greeted.
    Mysql,
}

/// Accepts until shutdown.
pub(crate) async fn accept(
    shared: Arc<Shared>,
    listener: TcpListener,
    front: Front,
    shutdown: ShutdownToken,
) {
    let _accepting = tokio::select! {
        () = shutdown.cancelled() => return,
        accepting = shared.sockets.accepting() => accepting,
    };
    shared.opened.get_or_init(Instant::now);
    let mut places = Places::new();
    let mut backoff = Backoff::new();
    loop {
        let slot = tokio::select! {
            () = shutdown.cancelled() => return,
            slot = places.take() => slot,
        };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, addr)) => {
                backoff.reset();
                let shared_now = Arc::clone(&shared);
                shared.tasks.spawn_session(
                    "proxy-connection",
                    serve(shared_now, stream, addr, front, slot),
                );
            }
            Err(error) => {
                // Out of file descriptors, mostly: trying at once would spin.
                warn!(error = %error, "could not accept a connection");
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(backoff.next()) => {}
                }
            }
        }
    }
}

/// A connection's place among those open, and among those unknown.
struct Slot {
    connection: OwnedSemaphorePermit,
    handshake: OwnedSemaphorePermit,
}

/// The places that there are.
struct Places {
    connections: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    /// When it was last said that all are taken.
    said: Option<Instant>,
}

impl Places {
    fn new() -> Self {
        Self {
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
            said: None,
        }
    }

    /// The next free place; waits for one.
    async fn take(&mut self) -> Slot {
        let full =
            self.connections.available_permits() == 0 || self.handshakes.available_permits() == 0;
        if full
            && self
                .said
                .is_none_or(|said| said.elapsed() >= FULL_SAID_INTERVAL)
        {
            self.said = Some(Instant::now());
            warn!(
                connections_max = CONNECTIONS_MAX,
                handshakes_max = HANDSHAKES_MAX,
                "accepting waits: as many connections as allowed are open"
            );
        }
        const OPEN: &str = "the semaphore is never closed";
        Slot {
            connection: Arc::clone(&self.connections)
                .acquire_owned()
                .await
                .expect(OPEN),
            handshake: Arc::clone(&self.handshakes)
                .acquire_owned()
                .await
                .expect(OPEN),
        }
    }
}

/// One connection, from accept to its end.
async fn serve(shared: Arc<Shared>, stream: TcpStream, addr: SocketAddr, front: Front, slot: Slot) {
    let Slot {
        connection,
        handshake,
    } = slot;
    if let Err(error) = net::tune(&stream) {
        return debug!(client.address = %addr, error = %error, "connection broke at once");
    }
    let (opened, addr, shaking) = Box::pin(open(&shared, stream, addr, front)).await;
    drop(handshake);
    match opened {
        Opened::As(opening, received, stream) => {
            let client = Client {
                stream,
                addr,
                received,
                greeted_as: 0,
            };
            client.serve(&shared, opening, shaking).await;
        }
        Opened::Limited => {
            shared.metrics.handshake(Handshake::Limited);
            // Counted rather than told: whoever connects too often would also fill the log.
            debug!(client.address = %addr, "closed a connection: its source has too many that say nothing yet");
        }
        Opened::Gone => shared.metrics.handshake(Handshake::Gone),
        Opened::Refused(refusal) => {
            shared.metrics.handshake(Handshake::Refused);
            info!(client.address = %addr, error = %refusal, "refused a connection");
        }
    }
    drop(connection);
}

/// What a connection is, where its client is, and its place among those of which nothing was known.
async fn open(
    shared: &Shared,
    mut stream: TcpStream,
    peer: SocketAddr,
    front: Front,
) -> (Opened, SocketAddr, Option<Shaking>) {
    let mut received = BytesMut::with_capacity(RECEIVED_BYTES_USUAL);
    let mut addr = peer;
    if shared.is_balancer(peer.ip()) {
        match balancer::source(&mut stream, &mut received).await {
            Ok(source) => addr = source.unwrap_or(peer),
            Err(ended) => return (ended, addr, None),
        }
    }
    let is_exempt = shared.agents.come_from(addr.ip());
    let Some(shaking) = shared.handshakes.begin(addr.ip(), is_exempt) else {
        return (Opened::Limited, addr, None);
    };
    let opened = match front {
        Front::Main => Box::pin(handshake::open(stream, received)).await,
        Front::Mysql => Box::pin(mysql::open(stream, received, &shared.mysql_server_version)).await,
    };
    (opened, addr, Some(shaking))
}

/// Takes connections that a process after this one accepted, and that agents dialled back for this one, or for one
/// before it. Until the drain is over: nobody waits for any then.
pub(crate) async fn take_returned(shared: Arc<Shared>, mut returned: mpsc::Receiver<Returned>) {
    loop {
        let (token, stream) = tokio::select! {
            () = shared.drained.cancelled() => return,
            Some(returned) = returned.recv() => returned,
            else => return,
        };
        let stream = stream
            .set_nonblocking(true)
            .and_then(|()| TcpStream::from_std(stream));
        match stream {
            Ok(stream) => dialled_back(&shared, Token(token), stream),
            Err(error) => debug!(error = %error, "a connection that was given back is broken"),
        }
    }
}

/// Brings a dialled-back connection to who waits for it: here, or in a process before this one.
fn dialled_back(shared: &Shared, token: Token, stream: TcpStream) {
    let Err(stream) = shared.dials.connected(token, stream) else {
        return;
    };
    if !shared.sockets.give_back(token.0, &stream) {
        info!("closed a dialled-back connection that nobody waits for");
    }
}

struct Client {
    stream: TcpStream,
    addr: SocketAddr,
    received: Bytes,
    /// The number for its connection that it was greeted with; 0 for a client that was not greeted.
    greeted_as: u32,
}

impl Client {
    async fn serve(mut self, shared: &Arc<Shared>, opening: Opening, shaking: Option<Shaking>) {
        match opening {
            Opening::Cancel(request) => {
                shared.metrics.handshake(Handshake::Cancel);
                cancel::pass_on(shared, &request, self.addr);
            }
            Opening::DialBack(token) => {
                shared.metrics.handshake(Handshake::DialBack);
                dialled_back(shared, token, self.stream);
            }
            Opening::Mysql { hello, greeted_as } => {
                self.greeted_as = greeted_as;
                let route = route::database(&hello, Speaks::Mysql, &shared.cluster);
                self.serve_tls(shared, route, shaking).await;
            }
            Opening::Tls {
                hello,
                after_ssl_request,
            } => {
                let route = route::decide(&hello, after_ssl_request, &shared.cluster);
                self.serve_tls(shared, route, shaking).await;
            }
        }
    }

    async fn serve_tls(self, shared: &Arc<Shared>, route: Route, shaking: Option<Shaking>) {
        let Self {
            stream,
            addr,
            received,
            greeted_as,
        } = self;
        match route {
            Route::AuthRelay => {
                drop(shaking);
                shared.metrics.handshake(Handshake::AuthRelay);
                auth_relay::serve(shared, stream, received, addr).await;
            }
            Route::Database(route, speaks) => {
                shared.metrics.handshake(Handshake::Database);
                let client = Identified {
                    stream,
                    hello: received,
                    addr,
                    route,
                    speaks,
                    greeted_as,
                };
                session::serve(shared, client, shaking).await;
            }
            Route::NoDatabase { given, speaks } => {
                shared.metrics.handshake(Handshake::NoDatabase);
                let given = given.as_deref();
                let told = refuse::no_database(shared, stream, received, addr, given, speaks);
                Box::pin(told).await;
            }
            Route::Tunnel => {
                drop(shaking);
                shared.metrics.handshake(Handshake::Tunnel);
                Box::pin(tunnel(shared, Replayed::new(received, stream), addr)).await;
            }
            Route::Web => {
                drop(shaking);
                shared.metrics.handshake(Handshake::Web);
                Box::pin(http(shared, Replayed::new(received, stream), addr)).await;
            }
        }
    }
}

async fn http(shared: &Shared, stream: Replayed, addr: SocketAddr) {
    let Some(tls) = secure(shared.certificates.web(), stream, addr).await else {
        return;
    };
    let shutdown = shared.tasks.shutdown();
    if let Err(error) = web::serve(tls, shared.web.clone(), &shutdown).await {
        debug!(client.address = %addr, error = %error, "HTTP connection broke");
    }
}

async fn tunnel(shared: &Shared, stream: Replayed, addr: SocketAddr) {
    let Some(tls) = secure(shared.certificates.tunnel(), stream, addr).await else {
        return;
    };
    let info = match ConnectInfo::of_tls(tls.get_ref().1, Some(addr)) {
        Ok(info) => info,
        Err(error) => {
            return warn!(client.address = %addr, error = telemetry::chain(&error), "refused a control connection");
        }
    };
    // The server takes them until shutdown, and then there is nobody to serve them.
    let _ = shared.tunnels.send(Connection::new(tls, info)).await;
}

async fn secure(
    config: Arc<rustls::ServerConfig>,
    stream: Replayed,
    addr: SocketAddr,
) -> Option<TlsStream<Replayed>> {
    let accept = TlsAcceptor::from(config).accept(stream);
    match tokio::time::timeout(HANDSHAKE_MAX, accept).await {
        Ok(Ok(tls)) => return Some(tls),
        Ok(Err(error)) => info!(client.address = %addr, error = %error, "TLS handshake failed"),
        Err(_) => info!(client.address = %addr, "TLS handshake took too long"),
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a connection's task holds while it relays; a session that idles costs little more than this.
    const TASK_BYTES_MAX: usize = 2 << 10;

    fn future_bytes<A, B, C, D, E, F>(_: impl Fn(A, B, C, D, E) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_task_of_a_session_stays_small() {
        let bytes = future_bytes(serve);
        assert!(bytes <= TASK_BYTES_MAX, "{bytes} bytes");
    }
}
