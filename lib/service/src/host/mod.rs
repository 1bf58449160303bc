//! The process's own identity in the cluster: how it gets one, keeps it and renews it.
//!
//! A new process exchanges a join token, or a proof of its AWS identity, for a host certificate, over TLS that a CA pin (or the trust kept from an
//! earlier join) verifies; from then on it renews by showing that certificate. [`HostHandle`] is what the services
//! hold: every TLS configuration taken from it uses the newest identity. While it runs it follows the cluster's CAs through
//! their rotations.
//!
//! Invariant: a private key is made here and never leaves the process, except to its data directory with mode 0600.
//!
//! Not here: giving certificates (`tidegate-auth`).

mod error;
mod follow;
mod identity;
mod join;
mod renew;
mod state;
mod stored;

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rustls::{ClientConfig, ServerConfig};
use tidegate_core::{ClusterName, HostId};
use tidegate_identity::{
    ALPN_AUTH, IdentityError, KeyPair, SERVER_NAME_AUTH,
    tls::{self, ClientAuth, ServerTls},
};
use tokio::sync::{Mutex, Notify, watch};
use tonic::transport::Channel;

use identity::Current;

pub use error::HostError;
pub use identity::{IssuedHost, TrustBundle};
pub use join::iam::{ProveCaller, ProveError, Proving};
pub use stored::stored_auth_channel;

use crate::{
    clock::SharedClock,
    rpc::{self, Endpoints},
    settings::JoinSettings,
    tasks::Tasks,
};

/// What a process needs to join, and to keep its identity.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// Where the identity is kept.
    pub data_dir: PathBuf,
    /// The process's name for people.
    pub nodename: String,
    /// What it wants to run: `proxy`, `db`, `discovery`.
    pub services: Vec<String>,
    /// DNS names and addresses that it is reached by.
    pub names: Vec<String>,
    /// Auth service addresses, tried first.
    pub auth_servers: Vec<String>,
    /// A proxy that relays to the auth service, tried after them.
    pub proxy_server: Option<String>,
    /// Method, token and pins.
    pub join: JoinSettings,
    /// Signs as the process's AWS identity; needed when it joins by that.
    pub prover: Option<Arc<dyn ProveCaller>>,
}

impl HostConfig {
    fn endpoints(&self) -> Endpoints {
        Endpoints::new(self.auth_servers.iter().chain(&self.proxy_server).cloned())
    }
}

/// How the identity is renewed.
struct Renewal {
    names: Vec<String>,
    /// For a process that joined by itself: where to keep the identity, and how to join again should it run out.
    joined: Option<HostConfig>,
}

/// The process's identity, renewed by itself. Clones are the same identity.
#[derive(Clone)]
pub struct HostHandle {
    inner: Arc<Inner>,
}

struct Inner {
    current: ArcSwap<Current>,
    clock: SharedClock,
    renewal: Renewal,
    renew_now: Notify,
    renewed: watch::Sender<()>,
    auth: Channel,
    endpoints: Endpoints,
    /// Held while an identity is put in place of another one.
    installing: Mutex<()>,
    outcast: Outcast,
}

/// Whether the process and the cluster have no CA in common any more.
#[derive(Debug, Default)]
struct Outcast(AtomicBool);

impl Outcast {
    fn is(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Whether that is a change.
    fn set(&self, outcast: bool) -> bool {
        self.0.swap(outcast, Ordering::AcqRel) != outcast
    }
}

impl HostHandle {
    /// Loads the identity in the data directory, or joins the cluster when there is none that serves. Waits, and
    /// tries again, while the auth service is away; each distinct cause is logged once.
    ///
    /// # Errors
    ///
    /// When waiting does not help: see [`HostError`]. [`HostError::Stopped`] when the process shuts down meanwhile.
    pub async fn join_or_load(
        config: HostConfig,
        clock: SharedClock,
        tasks: &Tasks,
    ) -> Result<Self, HostError> {
        let current = join::load_or_join(&config, &clock, &tasks.shutdown()).await?;
        let endpoints = config.endpoints();
        let renewal = Renewal {
            names: config.names.clone(),
            joined: Some(config),
        };
        Ok(Self::start(current, endpoints, renewal, clock, tasks))
    }

    /// Takes the identity that an auth service in the same process issued. It is renewed through `auth_servers` (that
    /// service's own address) like any other, and not written anywhere.
    ///
    /// # Errors
    ///
    /// When the parts of `issued` do not belong together.
    pub fn from_issued(
        issued: IssuedHost,
        auth_servers: &[String],
        names: Vec<String>,
        clock: SharedClock,
        tasks: &Tasks,
    ) -> Result<Self, HostError> {
        let current = Current::new(issued, clock.now())?;
        let endpoints = Endpoints::new(auth_servers);
        Ok(Self::start(
            current,
            endpoints,
            Renewal {
                names,
                joined: None,
            },
            clock,
            tasks,
        ))
    }

    fn start(
        current: Current,
        endpoints: Endpoints,
        renewal: Renewal,
        clock: SharedClock,
        tasks: &Tasks,
    ) -> Self {
        let inner = Arc::new_cyclic(|weak: &std::sync::Weak<Inner>| {
            let newest = weak.clone();
            let first = current.client_config(&[ALPN_AUTH]);
            let tls = move || match newest.upgrade() {
                Some(inner) => inner.current.load().client_config(&[ALPN_AUTH]),
                None => Arc::clone(&first),
            };
            Inner {
                auth: rpc::channel(endpoints.clone(), tls, SERVER_NAME_AUTH),
                endpoints,
                installing: Mutex::new(()),
                outcast: Outcast::default(),
                current: ArcSwap::from_pointee(current),
                clock,
                renewal,
                renew_now: Notify::new(),
                renewed: watch::Sender::new(()),
            }
        });
        let handle = Self { inner };
        tasks.spawn("host_renewal", renew::run(handle.clone(), tasks.shutdown()));
        tasks.spawn("host_trust", follow::run(handle.clone(), tasks.shutdown()));
        handle
    }

    /// The process's id.
    #[must_use]
    pub fn host_id(&self) -> HostId {
        self.inner.current.load().holder.host_id.clone()
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> ClusterName {
        self.inner.current.load().cluster.clone()
    }

    /// What the certificate allows to run.
    #[must_use]
    pub fn services(&self) -> Vec<String> {
        self.inner.current.load().holder.services.clone()
    }

    /// Whether the identity is the same one at the process's next start, as its data directory has it. One that an auth
    /// service in the process issued is another one each time.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.inner.renewal.joined.is_some()
    }

    /// Whom the cluster trusts, as last told.
    #[must_use]
    pub fn trust(&self) -> Arc<TrustBundle> {
        Arc::clone(&self.inner.current.load().trust)
    }

    /// The certificate, then its CA, in PEM.
    #[must_use]
    pub fn chain_pem(&self) -> String {
        self.inner.current.load().chain_pem.clone()
    }

    /// The certificate's key. Take both from one TLS configuration rather than one by one: a renewal changes both.
    #[must_use]
    pub fn key(&self) -> KeyPair {
        self.inner.current.load().key.clone()
    }

    /// When the certificate ends.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        self.inner.current.load().expires_at
    }

    /// To connect to services of the cluster with the present identity.
    #[must_use]
    pub fn client_config(&self, alpn: &[&[u8]]) -> Arc<ClientConfig> {
        self.inner.current.load().client_config(alpn)
    }

    /// To accept connections with the present identity.
    ///
    /// # Errors
    ///
    /// When the CAs in `clients` cannot be read.
    pub fn server_config(
        &self,
        clients: ClientAuth,
        alpn: &[&[u8]],
    ) -> Result<Arc<ServerConfig>, IdentityError> {
        let current = self.inner.current.load();
        tls::server_config(ServerTls {
            chain_pem: current.server_chain_pem(),
            key: &current.key,
            clients,
            alpn,
        })
    }

    /// A server configuration that follows renewals, for [`rpc::tls_incoming`]. `clients` is asked anew each time,
    /// with the trust of that moment.
    ///
    /// # Errors
    ///
    /// When the first configuration cannot be built; later failures are logged and leave the one before.
    pub fn live_server_config<C>(
        &self,
        clients: C,
        alpn: &'static [&'static [u8]],
        tasks: &Tasks,
    ) -> Result<Arc<ArcSwap<ServerConfig>>, IdentityError>
    where
        C: Fn(&TrustBundle) -> ClientAuth + Send + Sync + 'static,
    {
        let mut renewed = self.renewed();
        let live = Arc::new(ArcSwap::new(
            self.server_config(clients(&self.trust()), alpn)?,
        ));
        let (handle, updated, shutdown) = (self.clone(), Arc::clone(&live), tasks.shutdown());
        tasks.spawn("host_server_tls", async move {
            while let Some(Ok(())) = shutdown.run_until_cancelled(renewed.changed()).await {
                match handle.server_config(clients(&handle.trust()), alpn) {
                    Ok(config) => updated.store(config),
                    Err(error) => {
                        let error = crate::telemetry::chain(&error);
                        tracing::error!(error, "could not take the renewed certificate into use");
                    }
                }
            }
        });
        Ok(live)
    }

    /// The one channel to the auth service. It connects with the identity of the moment.
    #[must_use]
    pub fn auth_channel(&self) -> Channel {
        self.inner.auth.clone()
    }

    /// Tells of every change of identity or trust.
    #[must_use]
    pub fn renewed(&self) -> watch::Receiver<()> {
        self.inner.renewed.subscribe()
    }

    /// Renews now instead of when it is due.
    pub fn renew_now(&self) {
        self.inner.renew_now.notify_one();
    }
}

impl fmt::Debug for HostHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let current = self.inner.current.load();
        f.debug_struct("HostHandle")
            .field("cluster", &current.cluster)
            .field("holder", &current.holder)
            .field("expires_at", &current.expires_at)
            .finish_non_exhaustive()
    }
}
