//! What every connection of the proxy shares.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use axum::Router;
use tidegate_core::{ClusterName, HostId};
use tidegate_service::{
    handover::Sockets,
    rpc::Connection,
    settings::Network,
    tasks::{ShutdownToken, Tasks},
};
use tokio::sync::mpsc;
use tokio_rustls::server::TlsStream;

use crate::{
    certificates::Certificates,
    directory::Directory,
    limit::{CancelLimit, Handshakes},
    metrics::ProxyMetrics,
    net::Replayed,
    session::Sessions,
    tunnel::{agents::Agents, dials::Dials},
};

/// One proxy.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) cluster: ClusterName,
    pub(crate) host_id: HostId,
    /// Tells this process from others of the same host.
    pub(crate) instance: String,
    /// Where the proxy is; empty is unknown.
    pub(crate) zone: String,
    /// Whose word on where clients are is believed.
    pub(crate) balancers: Vec<Network>,
    pub(crate) sockets: Sockets,
    /// Cancelled when the drain is over and nobody has to be told anything any longer.
    pub(crate) drained: ShutdownToken,
    /// Since when clients are accepted.
    pub(crate) opened: OnceLock<Instant>,
    pub(crate) handshakes: Handshakes,
    pub(crate) public_addr: String,
    pub(crate) auth_servers: Vec<String>,
    /// What MySQL clients are told, before it is known which server they want.
    pub(crate) mysql_server_version: String,
    pub(crate) agents: Agents,
    pub(crate) dials: Dials,
    pub(crate) directory: Arc<Directory>,
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) cancels: Mutex<CancelLimit>,
    pub(crate) sessions: Sessions,
    pub(crate) metrics: ProxyMetrics,
    pub(crate) tasks: Tasks,
    pub(crate) web: Router,
    /// Control connections on their way to the gRPC server.
    pub(crate) tunnels: mpsc::Sender<Connection<TlsStream<Replayed>>>,
    pub(crate) turn: AtomicUsize,
}

impl Shared {
    /// Moves on with each session.
    pub(crate) fn next_turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether a connection comes from a balancer.
    pub(crate) fn is_balancer(&self, address: IpAddr) -> bool {
        self.balancers
            .iter()
            .any(|network| network.contains(address))
    }

    /// The host that clients reach the proxy by.
    pub(crate) fn public_host(&self) -> &str {
        self.public_addr
            .rsplit_once(':')
            .map_or(self.public_addr.as_str(), |(host, _)| host)
    }
}
