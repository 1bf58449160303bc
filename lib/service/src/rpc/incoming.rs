//! Where a gRPC server's connections come from: a TLS listener, a Unix socket, or somebody who accepted them before.
//!
//! Invariant: nothing that a client does, or leaves undone, keeps others from connecting. Handshakes run beside each
//! other and in bounded number, each within [`HANDSHAKE_TIMEOUT`]; a client that sends nothing takes no part in that
//! number; and a failing `accept` (no file descriptors left) is tried again instead of ending the server.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::Path,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use futures::{Stream, StreamExt};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tracing::{debug, warn};

use super::{
    ConnectInfo, Connection, HANDSHAKE_TIMEOUT, HANDSHAKES_MAX, PENDING_CONNECTIONS_MAX, Peer,
};
use crate::{tasks::ShutdownToken, telemetry::chain};

/// Connections that are ready and wait for the server to take them.
const READY_QUEUE_MAX: usize = 64;
/// How long to wait before accepting again after `accept` failed.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(200);
/// Only root and the service's user may open the Unix socket.
const SOCKET_MODE: u32 = 0o600;

/// Why a connection did not become a TLS connection of a known peer.
#[derive(Debug, thiserror::Error)]
enum HandshakeError {
    #[error("its certificate carries no usable identity")]
    Identity(#[from] tidegate_identity::IdentityError),
    #[error("the handshake took too long")]
    TooSlow,
    #[error("the handshake failed")]
    Tls(#[from] io::Error),
}

/// Accepts TLS connections until `shutdown`, or until the stream is dropped. `tls` is read for each connection, so a
/// renewed certificate is used from then on.
///
/// The stream yields no errors: a connection that fails its handshake is logged and forgotten.
pub fn tls_incoming(
    listener: TcpListener,
    tls: Arc<ArcSwap<ServerConfig>>,
    shutdown: ShutdownToken,
) -> impl Stream<Item = io::Result<Connection<TlsStream<TcpStream>>>> + Send + use<> {
    let (ready, incoming) = mpsc::channel(READY_QUEUE_MAX);
    let acceptor = Acceptor {
        tls,
        ready,
        handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
        pending: Arc::new(Semaphore::new(PENDING_CONNECTIONS_MAX)),
    };
    tokio::spawn(acceptor.run(listener, shutdown));
    ReceiverStream::new(incoming).map(Ok)
}

/// Connections that somebody else accepted: send each, in any number up to `queue_max` ahead of the server.
pub fn established<S>(
    queue_max: usize,
) -> (
    mpsc::Sender<Connection<S>>,
    impl Stream<Item = io::Result<Connection<S>>> + Send + use<S>,
)
where
    S: Send,
{
    let (ready, incoming) = mpsc::channel(queue_max);
    (ready, ReceiverStream::new(incoming).map(Ok))
}

/// Accepts connections on a Unix socket from processes of root and of the user who runs this. A socket file that a
/// dead process left is replaced.
///
/// # Errors
///
/// When `path` cannot be bound: another process serves there, or it is no socket.
pub fn unix_incoming(
    path: &Path,
) -> io::Result<impl Stream<Item = io::Result<Connection<UnixStream>>> + Send + use<>> {
    remove_dead_socket(path)?;
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
    let own_uid = fs::metadata(path)?.uid();
    Ok(futures::stream::unfold(
        listener,
        move |listener| async move {
            let connection = accept_local(&listener, own_uid).await;
            Some((Ok(connection), listener))
        },
    ))
}

struct Acceptor {
    tls: Arc<ArcSwap<ServerConfig>>,
    ready: mpsc::Sender<Connection<TlsStream<TcpStream>>>,
    handshakes: Arc<Semaphore>,
    pending: Arc<Semaphore>,
}

impl Acceptor {
    async fn run(self, listener: TcpListener, shutdown: ShutdownToken) {
        let mut working = JoinSet::new(); // dropped with this future, and its tasks with it
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.ready.closed() => return,
                accepted = listener.accept() => accepted,
                Some(_) = working.join_next() => continue,
            };
            match accepted {
                Ok((stream, remote)) => {
                    let Ok(pending) = Arc::clone(&self.pending).try_acquire_owned() else {
                        warn!(client.address = %remote, "closed a connection: too many unfinished handshakes");
                        continue;
                    };
                    working.spawn(self.admit(stream, remote, pending));
                }
                Err(error) => {
                    warn!(error = %error, "could not accept a connection; trying again");
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                }
            }
        }
    }

    /// Takes one connection through its handshake and hands it to the server.
    fn admit(
        &self,
        stream: TcpStream,
        remote: SocketAddr,
        pending: OwnedSemaphorePermit,
    ) -> impl Future<Output = ()> + use<> {
        let handshakes = Arc::clone(&self.handshakes);
        let ready = self.ready.clone();
        let tls = self.tls.load_full();
        async move {
            let shaken = tokio::time::timeout(
                HANDSHAKE_TIMEOUT,
                handshake(stream, remote, tls, handshakes),
            )
            .await;
            match shaken.unwrap_or(Err(HandshakeError::TooSlow)) {
                // The server is gone only when nobody serves any more.
                Ok(connection) => drop(ready.send(connection).await),
                Err(error) => {
                    debug!(client.address = %remote, error = chain(&error), "closed a connection")
                }
            }
            drop(pending);
        }
    }
}

async fn handshake(
    stream: TcpStream,
    remote: SocketAddr,
    tls: Arc<ServerConfig>,
    handshakes: Arc<Semaphore>,
) -> Result<Connection<TlsStream<TcpStream>>, HandshakeError> {
    stream.set_nodelay(true)?;
    stream.peek(&mut [0]).await?; // a silent client waits here, without a permit
    let Ok(_permit) = handshakes.acquire().await else {
        return Err(HandshakeError::TooSlow);
    };
    let stream = TlsAcceptor::from(tls).accept(stream).await?;
    let info = ConnectInfo::of_tls(stream.get_ref().1, Some(remote))?;
    Ok(Connection::new(stream, info))
}

/// Waits for the next connection of a process that may connect.
async fn accept_local(listener: &UnixListener, own_uid: u32) -> Connection<UnixStream> {
    loop {
        match accept_credentials(listener).await {
            Ok((stream, uid)) if uid == own_uid || uid == 0 => {
                return Connection::new(
                    stream,
                    ConnectInfo {
                        peer: Peer::Local,
                        remote: None,
                    },
                );
            }
            Ok((_, uid)) => warn!(
                client.uid = uid,
                "closed a local connection of another user"
            ),
            Err(error) => {
                warn!(error = %error, "could not accept a local connection; trying again");
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
}

async fn accept_credentials(listener: &UnixListener) -> io::Result<(UnixStream, u32)> {
    let (stream, _) = listener.accept().await?;
    let uid = stream.peer_cred()?.uid();
    Ok((stream, uid))
}

fn remove_dead_socket(path: &Path) -> io::Result<()> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "the path exists and is no socket",
        ));
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another process serves this socket",
        ));
    }
    fs::remove_file(path)
}
