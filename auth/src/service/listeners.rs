//! Where callers come from: one port over TLS, and a local socket for administrators.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::Pin,
};

use futures::Stream;
use tidegate_service::rpc::{self, Connection};
use tokio::net::{TcpListener, UnixStream};

use super::AuthError;

/// The local socket's name in the data directory.
const SOCKET_NAME: &str = "auth.sock";

type LocalIncoming = Pin<Box<dyn Stream<Item = io::Result<Connection<UnixStream>>> + Send>>;

/// Where callers come from.
pub(super) struct Listeners {
    pub(super) tcp: TcpListener,
    pub(super) local: LocalIncoming,
    pub(super) local_addr: SocketAddr,
    pub(super) socket: PathBuf,
}

impl Listeners {
    pub(super) async fn bind(address: SocketAddr, data_dir: &Path) -> Result<Self, AuthError> {
        let refused = |on: String| move |source| AuthError::Listen { on, source };
        let tcp = TcpListener::bind(address)
            .await
            .map_err(refused(address.to_string()))?;
        let local_addr = tcp.local_addr().map_err(refused(address.to_string()))?;
        let socket = data_dir.join(SOCKET_NAME);
        let local = rpc::unix_incoming(&socket).map_err(refused(socket.display().to_string()))?;
        Ok(Self {
            tcp,
            local: Box::pin(local),
            local_addr,
            socket,
        })
    }
}
