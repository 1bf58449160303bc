//! Puts the control plane together and serves it: TLS on one port, a local socket for administrators.
//!
//! Starting is in order, and what cannot work stops the start: the store is opened, the CAs are read or made, the
//! inventory is loaded, the listeners are bound; then everything is served. The service's own certificate is replaced in
//! place before it ends.
//!
//! Over etcd several instances serve one cluster at the same time, and know nothing of each other: what they must agree
//! on is decided by guards in the store. What is of one instance only: its audit log, its count of the first
//! failed logins, and the times of scans and of scopes that wait to be retired, as status tells them.

mod gauges;
mod identity;
mod listeners;
mod state;
mod storage;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use futures::Stream;
use tidegate_core::HostId;
use tidegate_identity::{CaPin, IdentityError, KeyPair};
use tidegate_service::{
    admin::{ComponentHandle, Readiness},
    clock::SharedClock,
    host::{IssuedHost, TrustBundle},
    metrics::Metrics,
    rpc::{self, Connection},
    settings::AuthSettings,
    tasks::{ShutdownToken, Tasks},
    telemetry::chain,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};
use tonic::service::Routes;

use crate::{
    audit::{Origin, export},
    authority::{Authority, HostRequest},
    grpc,
    store::BoxError,
};

use gauges::gauges;
use identity::{OwnIdentity, own_host_id};
use listeners::Listeners;
use state::State;

/// How long presence outlives the last sign of life.
pub const PRESENCE_LEASE: Duration = Duration::from_secs(30);
/// How long a worker keeps a scope without asking again.
pub const SCOPE_LEASE: Duration = Duration::from_secs(30);
/// Shortest time from when no worker names a scope any more to when its databases go.
pub const RETIRE_GRACE_MIN: Duration = Duration::from_mins(3);

/// Where and as whom the service runs.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where the process keeps its files; the local socket is in it.
    pub data_dir: PathBuf,
    /// The process's name for people.
    pub nodename: String,
}

/// Leases and times of grace; longer ones notice losses later, shorter ones take more signs of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    /// How long presence outlives the last sign of life. Default [`PRESENCE_LEASE`].
    pub presence_lease: Duration,
    /// How long a worker keeps a scope without asking again. Default [`SCOPE_LEASE`].
    pub scope_lease: Duration,
    /// Shortest time from when no worker names a scope any more to when its databases go; three polls of the scope when
    /// that is longer. Default [`RETIRE_GRACE_MIN`].
    pub retire_grace_min: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            presence_lease: PRESENCE_LEASE,
            scope_lease: SCOPE_LEASE,
            retire_grace_min: RETIRE_GRACE_MIN,
        }
    }
}

/// Why the auth service could not start, or not do what its own process asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// The cluster's CAs could not be made or read, or the state is of another cluster.
    #[error("could not load the cluster's certificate authorities")]
    Authority(#[source] BoxError),
    /// A certificate or TLS configuration could not be made.
    #[error("could not make the service's own certificate")]
    Identity(#[from] IdentityError),
    /// The address or the socket is taken, or may not be used.
    #[error("could not listen on {on}")]
    Listen {
        /// Address or path.
        on: String,
        /// What the system said.
        source: io::Error,
    },
    /// Something else is not as it must be: a fault of ours.
    #[error("could not set up {what}")]
    Setup {
        /// What.
        what: &'static str,
        /// Why.
        source: BoxError,
    },
    /// The state cannot be read or written.
    #[error("could not open the state in {place}")]
    Store {
        /// The directory, or the members of etcd.
        place: String,
        /// Why.
        source: BoxError,
    },
}

fn setup<E: Into<BoxError>>(what: &'static str) -> impl FnOnce(E) -> AuthError {
    move |source| AuthError::Setup {
        what,
        source: source.into(),
    }
}

/// The control plane.
#[derive(Debug)]
pub struct AuthService;

/// A running control plane. Clones are the same one.
#[derive(Clone)]
pub struct AuthHandle {
    /// Where gRPC is served.
    pub local_addr: SocketAddr,
    /// By which newcomers know the cluster.
    pub ca_pin: CaPin,
    /// The local socket: `<data_dir>/auth.sock`.
    pub socket: PathBuf,
    authority: Arc<Authority>,
    host_id: HostId,
}

impl std::fmt::Debug for AuthHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthHandle")
            .field("local_addr", &self.local_addr)
            .field("ca_pin", &self.ca_pin)
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

impl AuthHandle {
    /// An identity for the other services of this process, which need no token: whoever runs the auth service may run
    /// them. `names` are the DNS names and addresses that they are reached by.
    ///
    /// # Errors
    ///
    /// [`AuthError::Identity`] when a name cannot be put into a certificate.
    #[allow(clippy::unused_async)] // with CAs in a key management service this will have to wait
    pub async fn issue_host(
        &self,
        services: &[String],
        names: &[String],
        hostname: &str,
    ) -> Result<IssuedHost, AuthError> {
        let key = KeyPair::generate()?;
        let issued = self.authority.issue_host(HostRequest {
            public_key: &key.public_key_der(),
            host_id: &self.host_id,
            hostname,
            services,
            names,
        })?;
        let trust = TrustBundle::try_from(self.authority.trust()).map_err(setup("trust"))?;
        Ok(IssuedHost {
            key,
            chain_pem: issued.client.chain_pem,
            server_chain_pem: issued.server.map(|server| server.chain_pem),
            trust,
        })
    }
}

impl AuthService {
    /// Starts the control plane; it runs until `tasks` shut down.
    ///
    /// # Errors
    ///
    /// [`AuthError`]: nothing is left running then.
    pub async fn start(
        settings: AuthSettings,
        node: Node,
        clock: SharedClock,
        metrics: Metrics,
        readiness: Readiness,
        tasks: &Tasks,
    ) -> Result<AuthHandle, AuthError> {
        let timings = Timings::default();
        Self::start_with(settings, node, timings, clock, metrics, readiness, tasks).await
    }

    /// As [`Self::start`], with leases other than the usual ones.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub async fn start_with(
        settings: AuthSettings,
        node: Node,
        timings: Timings,
        clock: SharedClock,
        metrics: Metrics,
        readiness: Readiness,
        tasks: &Tasks,
    ) -> Result<AuthHandle, AuthError> {
        let component = readiness.component("auth");
        let host_id = own_host_id(&node.data_dir)?;
        let origin = Origin {
            cluster: settings.cluster_name.to_string(),
            instance: host_id.to_string(),
        };
        // Boxed, here and below: starting is large, and every caller would be as large.
        let opening = State::open(&settings, origin, clock.clone(), &metrics);
        let state = Box::pin(opening).await?;
        let targets = &settings.audit_targets;
        export::start(&state.audit, targets, &metrics, &readiness, tasks);
        let own = OwnIdentity::new(
            state.authority.clone(),
            host_id.clone(),
            node.nodename,
            clock,
        )?;
        let listeners = Listeners::bind(settings.listen_addr, &node.data_dir).await?;
        let handle = AuthHandle {
            local_addr: listeners.local_addr,
            ca_pin: state.authority.pin(),
            socket: listeners.socket.clone(),
            authority: state.authority.clone(),
            host_id,
        };
        let serving = state.serve(
            settings, timings, own, listeners, &metrics, component, tasks,
        );
        Box::pin(serving).await?;
        tracing::info!(address = %handle.local_addr, ca_pin = %handle.ca_pin, "serving the control plane");
        Ok(handle)
    }
}

impl State {
    #[allow(clippy::too_many_arguments)] // each is a part of the process, handed on once
    async fn serve(
        self,
        settings: AuthSettings,
        timings: Timings,
        own: OwnIdentity,
        listeners: Listeners,
        metrics: &Metrics,
        component: ComponentHandle,
        tasks: &Tasks,
    ) -> Result<(), AuthError> {
        // The store and the inventory outlive the requests that use them.
        let until_drained = ShutdownToken::new();
        let services = self
            .services(&settings, timings, metrics, tasks.shutdown())
            .await?;
        let routes = grpc::routes(services.clone(), metrics)
            .await
            .map_err(setup("gRPC"))?;
        let shutdown = tasks.shutdown();
        let tls = own.current.clone();
        tasks.spawn("auth_certificate", own.keep(shutdown.clone()));
        tasks.spawn(
            "auth_authorities",
            self.authority.clone().follow(until_drained.clone()),
        );
        tasks.spawn(
            "auth_inventory",
            self.inventory
                .clone()
                .follow(self.watch, until_drained.clone()),
        );
        tasks.spawn(
            "auth_locks",
            services
                .access
                .locks()
                .clone()
                .follow(until_drained.clone()),
        );
        let requests = (services.clone(), shutdown.clone());
        tasks.spawn("auth_requests", async move {
            requests.0.access.tend_requests(requests.1).await;
        });
        tasks.spawn(
            "auth_gauges",
            gauges(self.inventory.clone(), metrics, shutdown.clone()),
        );
        tasks.spawn(
            "auth_diagnoses",
            services.diagnoses.clone().follow(until_drained.clone()),
        );
        tasks.spawn(
            "auth_health_configs",
            services.health.clone().follow(until_drained.clone()),
        );
        tasks.spawn(
            "auth_restores",
            services.restores.clone().follow(shutdown.clone()),
        );
        let ended = shutdown.clone();
        tasks.spawn(
            "auth_scopes",
            async move { services.ledger.tend(ended).await },
        );
        let Listeners { tcp, local, .. } = listeners;
        let remote = rpc::tls_incoming(tcp, tls, shutdown.clone());
        // Each server holds a sender; when both are gone no request is left that needs the state.
        let (serving, mut served) = mpsc::channel::<()>(1);
        let local_served = (serving.clone(), routes.clone(), shutdown.clone());
        tasks.spawn("auth_grpc", async move {
            let _serving = serving;
            serve("TLS", routes, remote, shutdown).await;
        });
        tasks.spawn("auth_grpc_local", async move {
            let (_serving, routes, shutdown) = local_served;
            serve("local", routes, local, shutdown).await;
        });
        component.ready();
        let (storage, audit, shutdown) = (self.storage, self.audit, tasks.shutdown());
        tasks.spawn("auth_state", async move {
            shutdown.cancelled().await;
            component.not_ready("shutting down");
            // Nothing is ever sent.
            let _ = served.recv().await;
            until_drained.cancel();
            audit.close().await;
            storage.close().await;
        });
        Ok(())
    }
}

async fn serve<S, I>(which: &'static str, routes: Routes, incoming: I, shutdown: ShutdownToken)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    I: Stream<Item = io::Result<Connection<S>>>,
{
    if let Err(error) = rpc::serve(routes, incoming, shutdown).await {
        tracing::error!(
            listener = which,
            error = chain(&error),
            "stopped serving gRPC"
        );
    }
}
