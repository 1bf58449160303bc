//! The proxy: one port that every client and agent comes to.
//!
//! It looks at the first bytes of a connection and sends it where it belongs, unopened wherever it can: Postgres
//! clients to an agent that serves their database, clients of the control plane to an auth server. It holds no keys of
//! database sessions and can neither read nor change what they say; a session costs it one copy a direction.
//!
//! - [`listen`], [`handshake`], [`opening`], [`mysql`], [`route`]: what a connection is, and where it goes.
//! - [`session`], [`dial`], [`choice`], [`relay`]: a database session.
//! - [`tunnel`], [`directory`]: which agents are connected, and what they serve.
//! - [`auth_relay`], [`cancel`], [`refuse`], [`web`]: the other destinations.
//! - [`certificates`], [`presence`]: what the proxy shows, and says, of itself.
//!
//! Not here: authorisation and audit, which agents do, since they alone see who a client is.

mod auth_relay;
mod cancel;
mod certificates;
mod choice;
mod dial;
mod directory;
mod handshake;
mod limit;
mod listen;
mod metrics;
mod mysql;
mod net;
mod opening;
mod presence;
mod refuse;
mod relay;
mod route;
mod session;
mod shared;
mod tunnel;
mod web;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, atomic::AtomicUsize},
    time::{Duration, Instant},
};

use tidegate_service::{
    admin::Readiness,
    host::HostHandle,
    metrics::Metrics,
    rpc,
    settings::ProxySettings,
    tasks::{ShutdownToken, Tasks},
    telemetry,
};
use tokio::net::{TcpListener, TcpSocket};
use tracing::{error, info, warn};

pub use certificates::CertificateError;

use crate::{
    certificates::Certificates,
    directory::Directory,
    limit::CancelLimit,
    listen::Front,
    metrics::ProxyMetrics,
    presence::Announcement,
    session::Sessions,
    shared::Shared,
    tunnel::{agents::Agents, dials::Dials},
};

/// How long sessions may go on after the proxy was asked to stop.
pub const DRAIN_MAX: Duration = Duration::from_secs(30);

/// Connections that the kernel accepts ahead of us.
const BACKLOG: u32 = 4_096;
/// Control connections that wait for the gRPC server to take them.
const TUNNELS_READY_MAX: usize = 64;
const DRAIN_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Why the proxy did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// The certificates it would show cannot be used.
    #[error("cannot set up the proxy's certificates")]
    Certificates(#[from] CertificateError),
    /// Another process has the port, or we may not have it.
    #[error("cannot listen on {addr}")]
    Listen {
        /// The address, as configured.
        addr: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

/// A proxy that runs.
#[derive(Clone, Debug)]
pub struct ProxyHandle {
    /// Where it listens; the port is the one that the system chose when the setting was 0.
    pub local_addr: SocketAddr,
    /// Where it listens for MySQL clients, if it does.
    pub mysql_addr: Option<SocketAddr>,
}

/// The proxy service.
#[derive(Debug)]
pub struct Proxy;

impl Proxy {
    /// Listens, and serves until the tasks' shutdown; then takes nothing new and gives sessions [`DRAIN_MAX`].
    ///
    /// `auth_servers` (`host:port`) are what connections to the control plane are relayed to, in order. The readiness
    /// component `proxy` is ready once the inventory was read.
    ///
    /// # Errors
    ///
    /// [`ProxyError`], before anything runs.
    pub async fn start(
        settings: ProxySettings,
        host: HostHandle,
        auth_servers: Vec<String>,
        metrics: Metrics,
        readiness: Readiness,
        tasks: &Tasks,
    ) -> Result<ProxyHandle, ProxyError> {
        let certificates = Arc::new(Certificates::load(settings.https_keypairs, &host)?);
        let (listener, local_addr) = listen_on(settings.listen_addr)?;
        let mysql = settings.mysql.as_ref();
        let for_mysql = mysql
            .map(|mysql| listen_on(mysql.listen_addr))
            .transpose()?;
        let directory = Arc::new(Directory::default());
        let shutdown = tasks.shutdown();
        let (tunnels, tunnels_incoming) = rpc::established(TUNNELS_READY_MAX);
        let shared = Arc::new(Shared {
            cluster: host.cluster(),
            host_id: host.host_id(),
            public_addr: settings.public_addr.clone(),
            auth_servers,
            mysql_server_version: mysql
                .map(|mysql| mysql.server_version.clone())
                .unwrap_or_default(),
            agents: Agents::default(),
            dials: Dials::default(),
            directory: Arc::clone(&directory),
            certificates: Arc::clone(&certificates),
            cancels: Mutex::new(CancelLimit::new(Instant::now())),
            sessions: Sessions::default(),
            metrics: ProxyMetrics::register(&metrics),
            tasks: tasks.clone(),
            web: web::router(host.cluster(), settings.public_addr.clone(), host.clone()),
            tunnels,
            turn: AtomicUsize::new(0),
        });
        let announcement = Announcement {
            hostname: shared.public_host().to_owned(),
            public_addr: settings.public_addr,
        };
        tasks.spawn(
            "proxy-accept",
            listen::accept(Arc::clone(&shared), listener, Front::Main, shutdown.clone()),
        );
        let mysql_addr = for_mysql.map(|(listener, addr)| {
            let accepting = listen::accept(
                Arc::clone(&shared),
                listener,
                Front::Mysql,
                shutdown.clone(),
            );
            tasks.spawn("proxy-accept-mysql", accepting);
            info!(listen.address = %addr, "proxy listens for MySQL clients");
            addr
        });
        tasks.spawn(
            "proxy-directory",
            directory::watch(
                directory,
                host.clone(),
                readiness.component("proxy"),
                shutdown.clone(),
            ),
        );
        tasks.spawn(
            "proxy-presence",
            presence::announce(announcement, host.clone(), shutdown.clone()),
        );
        tasks.spawn(
            "proxy-certificates",
            certificates.follow(host, shutdown.clone()),
        );
        let tunnel = tunnel::service::routes(Arc::clone(&shared));
        let ended = shutdown.clone();
        tasks.spawn("proxy-tunnel", async move {
            if let Err(error) = rpc::serve(tunnel, tunnels_incoming, ended).await {
                error!(
                    error = telemetry::chain(&error),
                    "control connections cannot be served"
                );
            }
        });
        tasks.spawn("proxy-drain", drain(shared, shutdown));
        info!(listen.address = %local_addr, "proxy listens");
        Ok(ProxyHandle {
            local_addr,
            mysql_addr,
        })
    }
}

fn listen_on(addr: SocketAddr) -> Result<(TcpListener, SocketAddr), ProxyError> {
    let listen = || {
        let socket = match addr {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        socket.set_reuseaddr(true)?;
        socket.bind(addr)?;
        let listener = socket.listen(BACKLOG)?;
        let local_addr = listener.local_addr()?;
        Ok((listener, local_addr))
    };
    listen().map_err(|source| ProxyError::Listen { addr, source })
}

/// Waits for shutdown, then for sessions to end by themselves, and in the end cuts off those that do not.
async fn drain(shared: Arc<Shared>, shutdown: ShutdownToken) {
    shutdown.cancelled().await;
    let deadline = tokio::time::Instant::now() + DRAIN_MAX;
    while shared.sessions.len() > 0 && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(DRAIN_CHECK_INTERVAL).await;
    }
    let left = shared.sessions.len();
    if left > 0 {
        warn!(
            sessions = left,
            "cutting off sessions that outlast the drain"
        );
        shared.sessions.abort_all();
    }
}
