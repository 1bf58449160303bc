//! The simulation as one value: start it, watch it, stop it. What can be changed while it runs: [`changes`].

mod changes;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::bundles;
use crate::faults::Fault;
use crate::fleet::{Endpoint, Fleet, FleetError, settle_all};
use crate::journal::{Call, Login};
use crate::state::State;
use crate::tls::{Ca, TlsError};
use crate::verbs::{self, Info, SimError};
use crate::world::{ClusterId, ResourceId, World, WorldError};

/// What to simulate, and where.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// What exists.
    pub world: World,
    /// Address of the AWS endpoint. Default `127.0.0.1:0`: a free port.
    pub listen: SocketAddr,
    /// Folder for the CA, the hosts file and PostgreSQL's data; made if it is not there. Use a
    /// fresh one for fresh databases.
    pub dir: PathBuf,
    /// Folder with `initdb` and `postgres`. Default: found on `PATH`, else Debian's newest.
    pub pg_bin_dir: Option<PathBuf>,
    /// Start PostgreSQL with the simulation (default) instead of at the first log-in: without it
    /// a missing server is noticed late, and nothing is spent on it where nobody logs in.
    pub start_postgres: bool,
}

impl SimConfig {
    /// This world, with its state in `dir`, on a free port.
    pub fn new(world: World, dir: impl Into<PathBuf>) -> Self {
        Self {
            world,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            dir: dir.into(),
            pg_bin_dir: None,
            start_postgres: true,
        }
    }

    /// For tests that only call the API: PostgreSQL starts at the first log-in, if ever.
    #[must_use]
    pub fn without_postgres(mut self) -> Self {
        self.start_postgres = false;
        self
    }
}

/// Why a simulation did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// An endpoint's server or address.
    #[error("could not bring up the endpoints")]
    Fleet(#[from] FleetError),
    /// The AWS endpoint's address.
    #[error("could not listen on {address}")]
    Listen {
        /// What was asked for.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The state folder.
    #[error("could not write to {}", path.display())]
    State {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The CA.
    #[error("could not make the CA")]
    Tls(#[from] TlsError),
    /// The world breaks a rule.
    #[error("the world breaks a rule")]
    World(#[from] WorldError),
}

/// A running simulation. Dropping it ends it without waiting; [`Sim::stop`] waits.
#[derive(Debug)]
pub struct Sim {
    state: Arc<State>,
    tasks: TaskTracker,
}

impl Sim {
    /// Starts everything; when it returns, the API answers and available clusters listen.
    ///
    /// # Errors
    ///
    /// [`StartError`]; nothing is left running then.
    pub async fn start(config: SimConfig) -> Result<Self, StartError> {
        config.world.validate()?;
        let at = |path: &PathBuf| {
            let path = path.clone();
            move |source| StartError::State { path, source }
        };
        std::fs::create_dir_all(&config.dir).map_err(at(&config.dir))?;
        let dir = config.dir.canonicalize().map_err(at(&config.dir))?;
        let fleet = Fleet::new(dir, config.pg_bin_dir, Ca::new()?);
        std::fs::write(fleet.ca_file(), fleet.ca_pem()).map_err(at(&fleet.ca_file()))?;
        let listen = |source| StartError::Listen {
            address: config.listen,
            source,
        };
        let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
        let url = format!("http://{}", listener.local_addr().map_err(listen)?);
        let sim = Self {
            state: Arc::new(State::new(config.world, fleet, url)),
            tasks: TaskTracker::new(),
        };
        if let Err(error) = sim.bring_up(config.start_postgres).await {
            sim.stop().await;
            return Err(error.into());
        }
        let (state, tasks) = (Arc::clone(&sim.state), sim.tasks.clone());
        let cancel = sim.state.cancel.clone();
        let serving = crate::http_server::serve(listener, state, tasks);
        sim.tasks.spawn(cancel.run_until_cancelled_owned(serving));
        Ok(sim)
    }

    async fn bring_up(&self, start_postgres: bool) -> Result<(), FleetError> {
        if start_postgres {
            self.state.fleet.shared().await?;
        }
        settle_all(&self.state).await
    }

    /// Ends every connection and server and waits for them. A repeat does nothing.
    pub async fn stop(&self) {
        self.state.cancel.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.state.fleet.stop().await;
    }

    /// Value for `AWS_ENDPOINT_URL`, without a slash at the end.
    pub fn endpoint_url(&self) -> &str {
        &self.state.endpoint_url
    }

    /// The CA that signs the certificates of cluster endpoints, PEM.
    pub fn ca_pem_path(&self) -> PathBuf {
        self.state.fleet.ca_file()
    }

    /// Lines of `address name`, one an endpoint; rewritten when endpoints come and go.
    pub fn hosts_file(&self) -> PathBuf {
        self.state.fleet.hosts_file()
    }

    /// All addresses.
    pub async fn info(&self) -> Info {
        self.state.info().await
    }

    /// A cluster's endpoint, if the cluster exists.
    pub async fn endpoint(&self, id: &ClusterId) -> Option<Endpoint> {
        verbs::own_endpoint(&self.state, &ResourceId::cluster(id)).await
    }

    /// Every endpoint of something, its own one first; none if it is only listed.
    pub async fn endpoints_of(&self, of: &ResourceId) -> Vec<Endpoint> {
        let order = self.state.world().wanted(of);
        let mut endpoints = self.state.fleet.endpoints_of(of).await;
        endpoints.sort_by_key(|it| order.iter().position(|wanted| wanted.host == it.host));
        endpoints
    }

    /// Every API call so far, in order (the last [`crate::RECORDS_MAX`]).
    pub fn calls(&self) -> Vec<Call> {
        self.calls_since(0)
    }

    /// The calls after the one numbered `seq`.
    pub fn calls_since(&self, seq: u64) -> Vec<Call> {
        self.state.calls.since(seq)
    }

    /// Every log-in to a wire front so far, in order.
    pub fn logins(&self) -> Vec<Login> {
        self.state.logins.since(0)
    }

    /// Forgets calls and log-ins.
    pub fn clear_journal(&self) {
        self.state.calls.clear();
        self.state.logins.clear();
    }

    /// Orders a fault; it stays until it has struck often enough or is cleared.
    ///
    /// # Errors
    ///
    /// [`SimError::TooManyFaults`].
    pub fn fault(&self, fault: Fault) -> Result<(), SimError> {
        self.state.order_fault(fault)
    }

    /// Takes back every fault.
    pub fn clear_faults(&self) {
        self.state.faults.clear();
    }

    /// The simulation's time.
    pub fn now(&self) -> Timestamp {
        self.state.clock.now()
    }

    /// Puts the simulation's clock so many seconds after (or before) the system's.
    pub fn set_clock_offset(&self, seconds: i64) {
        self.state.clock.set_offset(seconds);
    }

    /// Moves the simulation's clock on.
    pub fn advance_clock(&self, seconds: i64) {
        let offset = self.state.clock.offset_seconds();
        self.state.clock.set_offset(offset.saturating_add(seconds));
    }

    /// Where the CA bundles are that AWS publishes: `<region>/<region>-bundle.pem` and others below it.
    pub fn trust_url(&self) -> String {
        format!(
            "{}{}",
            self.endpoint_url(),
            bundles::PATH.trim_end_matches('/')
        )
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.state.cancel.cancel();
    }
}
