//! What every connection of the proxy shares.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use axum::Router;
use tidegate_core::{ClusterName, HostId};
use tidegate_service::{rpc::Connection, tasks::Tasks};
use tokio::sync::mpsc;
use tokio_rustls::server::TlsStream;

use crate::{
    certificates::Certificates,
    directory::Directory,
    limit::CancelLimit,
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

    /// The host that clients reach the proxy by.
    pub(crate) fn public_host(&self) -> &str {
        self.public_addr
            .rsplit_once(':')
            .map_or(self.public_addr.as_str(), |(host, _)| host)
    }
}
