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
use tidegate_core::{Database, HealthLayer, Protocol};
use tidegate_identity::tls;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpStream, lookup_host},
    sync::Semaphore,
    time::{Instant, timeout, timeout_at},
};

use super::{
    mysql,
    state::{Checked, Failure, Passed},
};
use crate::{
    engine::{Connector, mysql::Greeted},
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
            .map_err(|error| self.counted(Failure::new(HealthLayer::Dns, error)))?;
        self.passed(CheckedLayer::Dns);
        let connecting = self.connect(database, &addresses, deadline, patience);
        let reached = self.timed(CheckedLayer::Tcp, connecting).await;
        let reached = reached.map_err(|failure| self.counted(failure))?;
        self.passed(CheckedLayer::Tcp);
        if !with_tls {
            leave(reached, patience).await;
            return Ok(Passed::Tcp);
        }
        let shaking = timeout(patience, Box::pin(self.shake_hands(database, reached)));
        let not_after = self
            .timed(CheckedLayer::Tls, shaking)
            .await
            .unwrap_or_else(|elapsed| Err(Failure::new(HealthLayer::Tls, late(elapsed))))
            .map_err(|failure| self.counted(failure))?;
        self.passed(CheckedLayer::Tls);
        Ok(Passed::Tls(not_after))
    }

    /// Connects to every address, and hears the greetings of servers that speak first. One connection is kept.
    async fn connect(
        &self,
        database: &Database,
        addresses: &[SocketAddr],
        deadline: Instant,
        patience: Duration,
    ) -> Result<Reached, Failure> {
        let streams = connect_all(addresses, deadline, patience)
            .await
            .map_err(|error| Failure::new(HealthLayer::Tcp, error))?;
        let mut kept = None;
        for stream in streams {
            let reached = match database.protocol {
                Protocol::Postgres => Reached::Silent(stream),
                Protocol::Mysql => {
                    let hearing = timeout_at(deadline, mysql::hear(database, stream));
                    let greeted = hearing.await.unwrap_or_else(|_| {
                        let late = format!("no greeting in {} s", patience.as_secs_f64());
                        Err(Failure::new(HealthLayer::Tcp, late))
                    });
                    Reached::Greeted(Box::new(greeted?))
                }
            };
            if let Some(other) = kept.replace(reached) {
                leave(other, patience).await;
            }
        }
        kept.ok_or_else(|| Failure::new(HealthLayer::Dns, "the name has no address"))
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
        reached: Reached,
    ) -> Result<Option<Timestamp>, Failure> {
        let (mut upstream, greeting) = match reached {
            Reached::Silent(stream) => {
                let upstream = self.connector.tls(database, stream).await;
                let upstream =
                    upstream.map_err(|problem| Failure::new(HealthLayer::Tls, problem.operator))?;
                (upstream, None)
            }
            Reached::Greeted(greeted) => {
                let (upstream, greeting) =
                    mysql::shake_hands(&self.connector, database, *greeted).await?;
                (upstream, Some(greeting))
            }
        };
        let certificates = upstream.get_ref().1.peer_certificates();
        let not_after = certificates
            .and_then(<[_]>::first)
            .and_then(|leaf| tls::expires_at(leaf).ok());
        let leaving = async {
            if let Some(greeting) = &greeting {
                mysql::leave_tls(&mut upstream, greeting).await;
            }
            upstream.shutdown().await
        };
        // The database is told that this is the end; whether it hears it makes no difference.
        let _ = timeout(GOODBYE_TIMEOUT, leaving).await;
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

    fn counted(&self, failure: Failure) -> Failure {
        let layer = match failure.layer {
            HealthLayer::Dns => CheckedLayer::Dns,
            HealthLayer::Tcp => CheckedLayer::Tcp,
            HealthLayer::Tls | HealthLayer::Credential | HealthLayer::Login => CheckedLayer::Tls,
        };
        self.count(layer, CheckOutcome::Failed);
        failure
    }

    fn count(&self, layer: CheckedLayer, outcome: CheckOutcome) {
        self.metrics
            .checks
            .get_or_create(&CheckLabel { layer, outcome })
            .inc();
    }
}

/// A database that was connected to.
enum Reached {
    /// It has greeted, and wants an answer.
    Greeted(Box<Greeted>),
    /// It waits for the client to speak.
    Silent(TcpStream),
}

/// Closes a connection that was good, as its server likes it.
async fn leave(reached: Reached, patience: Duration) {
    match reached {
        Reached::Silent(stream) => drop(stream),
        Reached::Greeted(greeted) => {
            // A server that does not answer in time is left all the same.
            let _ = timeout(patience, mysql::leave(*greeted)).await;
        }
    }
}

/// Connects to every address.
async fn connect_all(
    addresses: &[SocketAddr],
    deadline: Instant,
    patience: Duration,
) -> Result<Vec<TcpStream>, String> {
    let connects: Vec<_> = addresses
        .iter()
        .map(|address| connect(*address, deadline, patience))
        .collect();
    stream::iter(connects)
        .buffered(CONNECTS_MAX)
        .try_collect()
        .await
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

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use rustls::ServerConfig;
    use tidegate_core::{ClusterName, TlsMode, TlsSettings};
    use tidegate_identity::{
        CaKind, CertificateAuthority, KeyPair,
        tls::{ClientAuth, ServerTls},
    };
    use tidegate_service::metrics::Metrics;
    use tokio::{io::AsyncReadExt, net::TcpListener, task::JoinHandle};
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::{metrics::ServiceMetrics, testing::redshift};

    const PATIENCE: Duration = Duration::from_secs(20);
    const TTL: Duration = Duration::from_hours(1);

    fn prober() -> Prober {
        let metrics = ServiceMetrics::register(&Metrics::new());
        let connector = Connector::new(metrics.connect_seconds.clone(), crate::testing::trust());
        let connector = Arc::new(connector);
        Prober::new(connector, metrics.health)
    }

    fn ca() -> (ClusterName, CertificateAuthority) {
        let cluster: ClusterName = "tg.test".parse().unwrap();
        // Its time began early enough for certificates that have ended.
        let begun = Timestamp::now() - SignedDuration::from_hours(48);
        let ca = CertificateAuthority::create(CaKind::Db, &cluster, begun).unwrap();
        (cluster, ca)
    }

    /// A certificate that was issued so many hours ago, for an hour.
    fn certificate(
        ca: &(ClusterName, CertificateAuthority),
        hours_ago: i64,
    ) -> (Arc<ServerConfig>, Timestamp) {
        let key = KeyPair::generate().unwrap();
        let at = Timestamp::now() - SignedDuration::from_hours(hours_ago);
        let issued =
            ca.1.issue_database_server(&key.public_key_der(), &ca.0, at, TTL)
                .unwrap();
        let config = tls::server_config(ServerTls {
            chain_pem: &issued.chain_pem,
            key: &key,
            clients: ClientAuth::None,
            alpn: &[],
        });
        (config.unwrap(), issued.expires_at)
    }

    fn database(address: SocketAddr, trusts: &CertificateAuthority) -> Database {
        Database {
            uri: address.to_string().parse().unwrap(),
            tls: TlsSettings {
                mode: TlsMode::VerifyFull,
                server_name: Some("orders.db.tg.test".to_owned()),
                ca_cert_pem: Some(trusts.cert_pem().to_owned()),
                ..TlsSettings::default()
            },
            ..redshift("orders", &[])
        }
    }

    /// Serves one connection that asks for TLS; how it ended.
    fn serve(
        listener: TcpListener,
        config: Arc<ServerConfig>,
    ) -> JoinHandle<std::io::Result<usize>> {
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await?;
            stream.read_exact(&mut [0; 8]).await?;
            stream.write_all(b"S").await?;
            let mut client = TlsAcceptor::from(config).accept(stream).await?;
            client.read(&mut [0; 1]).await
        })
    }

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    async fn layer_of(database: &Database, with_tls: bool) -> (HealthLayer, String) {
        let failure = prober().check(database, PATIENCE, with_tls).await;
        let Failure { layer, error } = failure.unwrap_err();
        (layer, error)
    }

    #[tokio::test]
    async fn a_good_database_passes_shows_when_its_certificate_ends_and_hears_a_goodbye() {
        let ca = ca();
        let (listener, address) = listener().await;
        let (config, expires_at) = certificate(&ca, 0);
        let serving = serve(listener, config);
        let checked = prober()
            .check(&database(address, &ca.1), PATIENCE, true)
            .await;
        let seconds = Timestamp::from_second(expires_at.as_second()).unwrap();
        assert_eq!(checked, Ok(Passed::Tls(Some(seconds))));
        assert_eq!(serving.await.unwrap().unwrap(), 0);
    }

    #[tokio::test]
    async fn a_check_without_tls_says_nothing_to_the_database() {
        let ca = ca();
        let (listener, address) = listener().await;
        let checked = prober()
            .check(&database(address, &ca.1), PATIENCE, false)
            .await;
        assert_eq!(checked, Ok(Passed::Tcp));
        let (mut stream, _) = listener.accept().await.unwrap();
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_closed_port_fails_at_tcp_and_names_the_address() {
        let ca = ca();
        let (listener, address) = listener().await;
        drop(listener);
        let (layer, error) = layer_of(&database(address, &ca.1), true).await;
        assert_eq!(layer, HealthLayer::Tcp);
        assert!(error.contains(&address.to_string()), "{error}");
    }

    #[tokio::test]
    async fn a_certificate_of_another_ca_and_one_that_has_ended_fail_at_tls() {
        let (ours, strangers) = (ca(), ca());
        for (signer, hours_ago, says) in [(&strangers, 0, "UnknownIssuer"), (&ours, 3, "xpired")] {
            let (listener, address) = listener().await;
            let (config, _) = certificate(signer, hours_ago);
            let serving = serve(listener, config);
            let (layer, error) = layer_of(&database(address, &ours.1), true).await;
            assert_eq!(layer, HealthLayer::Tls);
            assert!(error.contains(says), "{error}");
            serving.await.unwrap().unwrap_err();
        }
    }

    #[tokio::test]
    async fn a_database_that_hangs_in_the_handshake_fails_at_tls_in_time() {
        let ca = ca();
        let (_listener, address) = listener().await;
        let patience = Duration::from_secs(1);
        let checked = prober()
            .check(&database(address, &ca.1), patience, true)
            .await;
        let failure = checked.unwrap_err();
        assert_eq!(failure.layer, HealthLayer::Tls);
        assert_eq!(failure.error, "no answer in 1 s");
    }

    #[tokio::test]
    async fn every_address_has_to_take_a_connection() {
        let (open, address) = listener().await;
        let (closed, gone) = listener().await;
        drop(closed);
        let deadline = Instant::now() + PATIENCE;
        assert!(
            connect_all(&[address, address], deadline, PATIENCE)
                .await
                .is_ok()
        );
        let error = connect_all(&[address, gone], deadline, PATIENCE)
            .await
            .unwrap_err();
        assert!(error.contains(&gone.to_string()), "{error}");
        drop(open);
    }
}
