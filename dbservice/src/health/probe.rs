//! One check of one database, layer by layer: its name resolves, every address takes a connection, and, when that is due,
//! the TLS handshake that sessions make, verified as theirs is.
//!
//! A layer that fails ends the check: what lies above it is not tried. Nothing is logged in to, and AWS is not asked for
//! anything.
//!
//! Not here: when checks are made ([`super::schedule`]), and what they come to ([`super::state`]).

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use tidegate_core::{Database, HealthLayer};
use tidegate_identity::tls;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpStream, lookup_host},
    sync::Semaphore,
    time::{Instant, timeout, timeout_at},
};

use super::state::{Checked, Failure, Passed};
use crate::{
    engine::postgres::Connector,
    metrics::{CheckLabel, CheckOutcome, CheckedLayer, HealthMetrics, LayerLabel},
};

/// Addresses of one name that are tried; DNS rarely gives more.
const ADDRESSES_MAX: usize = 32;
/// Addresses of one database that are connected to at once.
const CONNECTS_MAX: usize = 10;
/// Names that are resolved at once: each takes a thread, and goes on after its check gave up.
const LOOKUPS_MAX: usize = 32;
/// How long a goodbye may take.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// Makes checks.
#[derive(Debug)]
pub(crate) struct Prober {
    connector: Arc<Connector>,
    lookups: Arc<Semaphore>,
    metrics: HealthMetrics,
}

impl Prober {
    /// One that verifies certificates as `connector` does for sessions.
    pub(crate) fn new(connector: Arc<Connector>, metrics: HealthMetrics) -> Self {
        Self {
            connector,
            lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
            metrics,
        }
    }

    /// Checks a database. `patience` is how long DNS and TCP may take together, and then TLS.
    pub(super) async fn check(
        &self,
        database: &Database,
        patience: Duration,
        with_tls: bool,
    ) -> Checked {
        let deadline = Instant::now() + patience;
        let resolving = timeout_at(deadline, self.resolve(database));
        let resolved = self.timed(CheckedLayer::Dns, resolving).await;
        let late = |_| format!("no answer in {} s", patience.as_secs_f64());
        let addresses = resolved
            .unwrap_or_else(|elapsed| Err(late(elapsed)))
            .map_err(|error| self.failed(CheckedLayer::Dns, error))?;
        self.passed(CheckedLayer::Dns);
        let connecting = connect_all(&addresses, deadline, patience);
        let stream = self
            .timed(CheckedLayer::Tcp, connecting)
            .await
            .map_err(|error| self.failed(CheckedLayer::Tcp, error))?;
        self.passed(CheckedLayer::Tcp);
        if !with_tls {
            return Ok(Passed::Tcp);
        }
        let shaking = timeout(patience, self.shake_hands(database, stream));
        let not_after = self
            .timed(CheckedLayer::Tls, shaking)
            .await
            .unwrap_or_else(|elapsed| Err(late(elapsed)))
            .map_err(|error| self.failed(CheckedLayer::Tls, error))?;
        self.passed(CheckedLayer::Tls);
        Ok(Passed::Tls(not_after))
    }

    async fn resolve(&self, database: &Database) -> Result<Vec<SocketAddr>, String> {
        let (host, port) = (database.uri.host(), database.uri.port());
        if let Ok(address) = host.parse() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let Ok(permit) = Arc::clone(&self.lookups).acquire_owned().await else {
            return Err("this agent shuts down".to_owned());
        };
        let host = host.to_owned();
        // In a task: a lookup cannot be broken off, and gives its place back only when it is over.
        let looking = tokio::spawn(async move {
            let found = lookup_host((host.as_str(), port)).await;
            drop(permit);
            found.map(|found| found.take(ADDRESSES_MAX).collect::<Vec<_>>())
        });
        let found = looking.await.map_err(|error| error.to_string())?;
        let addresses = found.map_err(|error| error.to_string())?;
        if addresses.is_empty() {
            return Err("the name has no address".to_owned());
        }
        Ok(addresses)
    }

    /// When the certificate that the database shows ends.
    async fn shake_hands(
        &self,
        database: &Database,
        stream: TcpStream,
    ) -> Result<Option<Timestamp>, String> {
        let mut upstream = self
            .connector
            .tls(database, stream)
            .await
            .map_err(|problem| problem.operator)?;
        let certificates = upstream.get_ref().1.peer_certificates();
        let not_after = certificates
            .and_then(<[_]>::first)
            .and_then(|leaf| tls::expires_at(leaf).ok());
        // The database is told that this is the end; whether it hears it makes no difference.
        let _ = timeout(GOODBYE_TIMEOUT, upstream.shutdown()).await;
        Ok(not_after)
    }

    async fn timed<F: Future>(&self, layer: CheckedLayer, work: F) -> F::Output {
        let begun = Instant::now();
        let output = work.await;
        self.metrics
            .seconds
            .get_or_create(&LayerLabel { layer })
            .observe(begun.elapsed().as_secs_f64());
        output
    }

    fn passed(&self, layer: CheckedLayer) {
        self.count(layer, CheckOutcome::Passed);
    }

    fn failed(&self, layer: CheckedLayer, error: String) -> Failure {
        self.count(layer, CheckOutcome::Failed);
        let layer = match layer {
            CheckedLayer::Dns => HealthLayer::Dns,
            CheckedLayer::Tcp => HealthLayer::Tcp,
            CheckedLayer::Tls => HealthLayer::Tls,
        };
        Failure::new(layer, error)
    }

    fn count(&self, layer: CheckedLayer, outcome: CheckOutcome) {
        self.metrics
            .checks
            .get_or_create(&CheckLabel { layer, outcome })
            .inc();
    }
}

/// Connects to every address; gives one of the connections, and closes the others.
async fn connect_all(
    addresses: &[SocketAddr],
    deadline: Instant,
    patience: Duration,
) -> Result<TcpStream, String> {
    if let [address] = addresses {
        return connect(*address, deadline, patience).await;
    }
    let connects: Vec<_> = addresses
        .iter()
        .map(|address| connect(*address, deadline, patience))
        .collect();
    let streams = stream::iter(connects)
        .buffered(CONNECTS_MAX)
        .try_collect::<Vec<_>>()
        .await?;
    let first = streams.into_iter().next();
    first.ok_or_else(|| "the name has no address".to_owned())
}

async fn connect(
    address: SocketAddr,
    deadline: Instant,
    patience: Duration,
) -> Result<TcpStream, String> {
    let told = |error: &dyn std::fmt::Display| format!("{address}: {error}");
    let stream = timeout_at(deadline, TcpStream::connect(address))
        .await
        .map_err(|_| told(&format_args!("no answer in {} s", patience.as_secs_f64())))?
        .map_err(|error| told(&error))?;
    stream.set_nodelay(true).map_err(|error| told(&error))?;
    Ok(stream)
}
