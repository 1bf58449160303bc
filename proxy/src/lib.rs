//! The proxy: one port that every client and agent comes to.
//!
//! It looks at the first bytes of a connection and sends it where it belongs, unopened wherever it can: Postgres
//! clients to an agent that serves their database, clients of the control plane to an auth server. It holds no keys of
//! database sessions and can neither read nor change what they say; a session costs it one copy a direction.
//!
//! - [`listen`], [`balancer`], [`handshake`], [`opening`], [`mysql`], [`route`]: what a connection is, and where it goes.
//! - [`session`], [`dial`], [`choice`], [`relay`]: a database session.
//! - [`limit`], [`drain`]: what one source may have; how the proxy comes to its end.
//! - [`tunnel`], [`directory`]: which agents are connected, and what they serve.
//! - [`auth_relay`], [`cancel`], [`refuse`], [`web`]: the other destinations.
//! - [`certificates`], [`presence`]: what the proxy shows, and says, of itself.
//!
//! Not here: authorisation and audit, which agents do, since they alone see who a client is.

mod auth_relay;
mod balancer;
mod cancel;
mod certificates;
mod choice;
mod dial;
mod directory;
mod drain;
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
    sync::{Arc, Mutex, OnceLock, atomic::AtomicUsize},
    time::Instant,
};

use tidegate_identity::{IdentityError, secret};
use tidegate_service::{
    admin::Readiness,
    handover::Sockets,
    host::HostHandle,
    metrics::Metrics,
    rpc,
    settings::ProxySettings,
    tasks::{ShutdownToken, Tasks},
    telemetry,
};
use tokio::net::TcpListener;
use tracing::{error, info};

pub use certificates::CertificateError;
pub use drain::END_MAX;

use crate::{
    certificates::Certificates,
    directory::Directory,
    limit::{CancelLimit, Handshakes},
    listen::Front,
    metrics::ProxyMetrics,
    presence::Announcement,
    session::Sessions,
    shared::Shared,
    tunnel::{agents::Agents, dials::Dials},
};

/// Control connections that wait for the gRPC server to take them.
const TUNNELS_READY_MAX: usize = 64;
/// Random bytes that tell this process from others of the same host.
const INSTANCE_BYTES: usize = 8;

/// Why the proxy did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// The certificates it would show cannot be used.
    #[error("cannot set up the proxy's certificates")]
    Certificates(#[from] CertificateError),
    /// There are no random bytes to be had.
    #[error("cannot name this process")]
    Instance(#[from] IdentityError),
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
    /// Listens on `sockets`, and serves until the tasks' shutdown; then takes nothing new, gives sessions the time of
    /// [`Tasks::drain`], and the rest [`END_MAX`] to be told that they end.
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
        (sockets, tasks): (&Sockets, &Tasks),
    ) -> Result<ProxyHandle, ProxyError> {
        let certificates = Arc::new(Certificates::load(settings.https_keypairs, &host)?);
        let (listener, local_addr) = listen_on(sockets, settings.listen_addr)?;
        let mysql = settings.mysql.as_ref();
        let for_mysql = mysql
            .map(|mysql| listen_on(sockets, mysql.listen_addr))
            .transpose()?;
        let directory = Arc::new(Directory::default());
        let shutdown = tasks.shutdown();
        let (tunnels, tunnels_incoming) = rpc::established(TUNNELS_READY_MAX);
        let shared = Arc::new(Shared {
            cluster: host.cluster(),
            host_id: host.host_id(),
            instance: secret::random_bytes::<INSTANCE_BYTES>()?
                .map(|byte| format!("{byte:02x}"))
                .concat(),
            zone: settings.zone,
            balancers: settings.balancers,
            sockets: sockets.clone(),
            drained: ShutdownToken::new(),
            opened: OnceLock::new(),
            handshakes: Handshakes::new(settings.limits.handshakes_per_source),
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
            sessions: Sessions::new(settings.limits),
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
            presence::announce(announcement, host.clone(), tasks.clone()),
        );
        tasks.spawn(
            "proxy-certificates",
            certificates.follow(host, shutdown.clone()),
        );
        let tunnel = tunnel::service::routes(Arc::clone(&shared));
        let ended = shared.drained.clone();
        tasks.spawn("proxy-tunnel", async move {
            if let Err(error) = rpc::serve(tunnel, tunnels_incoming, ended).await {
                error!(
                    error = telemetry::chain(&error),
                    "control connections cannot be served"
                );
            }
        });
        if let Some(returned) = sockets.returned() {
            let taking = listen::take_returned(Arc::clone(&shared), returned);
            tasks.spawn("proxy-returned", taking);
        }
        tasks.spawn("proxy-drain", drain::drain(shared, shutdown));
        info!(listen.address = %local_addr, "proxy listens");
        Ok(ProxyHandle {
            local_addr,
            mysql_addr,
        })
    }
}

fn listen_on(sockets: &Sockets, addr: SocketAddr) -> Result<(TcpListener, SocketAddr), ProxyError> {
    let listen = || {
        let listener = sockets.listen(addr)?;
        let local_addr = listener.local_addr()?;
        Ok((listener, local_addr))
    };
    listen().map_err(|source| ProxyError::Listen { addr, source })
}
