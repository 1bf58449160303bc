//! The connection to a database: TCP, `SSLRequest`, TLS.
//!
//! It is begun while the client's own handshake is still in flight ([`super::ahead`]), so that the client waits for one of
//! them and not for both; a login never happens here.
//!
//! Invariant: nothing is sent to a database before its certificate was verified as its settings say ([`crate::trust`]). A database
//! that does not speak TLS is not served.
//!
//! Not here: the login (of each protocol).

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rustls_pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tidegate_core::{Database, ErrorCode, Problem};
use tidegate_service::gather::GatherStream;
use tidegate_wire::startup::SSL_REQUEST;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{bulk::BulkReader, postgres::ScramKeys};
use crate::{
    metrics::{ConnectSeconds, Stage, StageLabel},
    trust::{Trust, Trusted, handshake_problem, is_unknown_issuer},
};

/// How long a TCP connection to a database may take, all its addresses together. Below the proxy's patience for a
/// dial-back (5 s), so that the proxy is told why and asks another agent.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// How long `SSLRequest` and TLS handshake may take.
pub(crate) const TLS_TIMEOUT: Duration = Duration::from_secs(10);

/// Silence after which the kernel asks whether the other side is still there, and how often it asks again.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// A database's answer to `SSLRequest` when it speaks TLS.
const TLS_ACCEPTED: u8 = b'S';

/// A connection to a database, inside TLS, before any login.
pub(crate) type Upstream = TlsStream<BulkReader<GatherStream>>;

/// Connects to databases.
pub(crate) struct Connector {
    trust: Arc<Trust>,
    seconds: ConnectSeconds,
    scram_keys: ScramKeys,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

impl Connector {
    /// A connector that tells how long connections took.
    pub(crate) fn new(seconds: ConnectSeconds, trust: Arc<Trust>) -> Self {
        Self {
            trust,
            seconds,
            scram_keys: ScramKeys::default(),
        }
    }

    /// Keys of passwords that databases were logged in to with.
    pub(crate) fn scram_keys(&self) -> &ScramKeys {
        &self.scram_keys
    }

    /// Opens a TCP connection to a database.
    ///
    /// # Errors
    ///
    /// A [`Problem`] of code `DatabaseUnreachable`.
    pub(crate) async fn tcp(&self, database: &Database) -> Result<TcpStream, Problem> {
        let (host, port) = (database.uri.host(), database.uri.port());
        self.dial(database, TcpStream::connect((host, port))).await
    }

    /// The same, to the very address that a session is connected to.
    ///
    /// # Errors
    ///
    /// As [`Self::tcp`].
    pub(crate) async fn tcp_to(
        &self,
        database: &Database,
        address: SocketAddr,
    ) -> Result<TcpStream, Problem> {
        self.dial(database, TcpStream::connect(address)).await
    }

    async fn dial(
        &self,
        database: &Database,
        connecting: impl Future<Output = io::Result<TcpStream>>,
    ) -> Result<TcpStream, Problem> {
        let unreachable = |cause: &dyn std::fmt::Display| {
            Problem::new(
                ErrorCode::DatabaseUnreachable,
                format!("cannot reach database `{}`", database.name),
            )
            .because(format_args!("{}: {cause}", database.uri))
            .hint("an operator has to check that the database runs and that its network lets the database service in")
        };
        let begun = Instant::now();
        let stream = match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(connected) => connected.map_err(|error| unreachable(&error))?,
            Err(_) => {
                return Err(unreachable(&format_args!(
                    "no answer in {} s",
                    CONNECT_TIMEOUT.as_secs()
                )));
            }
        };
        tune(&stream).map_err(|error| unreachable(&error))?;
        self.took(Stage::Tcp, begun);
        Ok(stream)
    }

    fn took(&self, stage: Stage, begun: Instant) {
        self.seconds
            .get_or_create(&StageLabel { stage })
            .observe(begun.elapsed().as_secs_f64());
    }

    /// Makes TLS of a TCP connection to a database, with one more connection as [`Self::tls_after`] has it.
    ///
    /// # Errors
    ///
    /// As [`Self::tls_after`].
    pub(crate) async fn tls(
        &self,
        database: &Database,
        stream: TcpStream,
    ) -> Result<Upstream, Problem> {
        let request = || Bytes::from_static(&SSL_REQUEST);
        let again = async { Ok((self.tcp(database).await?, request())) };
        self.tls_after(database, (stream, request()), Some(TLS_ACCEPTED), again)
            .await
    }

    /// Makes TLS of a TCP connection to a database behind a request, and behind the one byte that `consents` to it. When
    /// nobody trusted signed the certificate and a newer CA bundle is to be had, this goes on with `again`, another
    /// connection and request, to verify with that.
    ///
    /// # Errors
    ///
    /// A [`Problem`] of code `DatabaseTls`, or `DatabaseUnreachable` when the connection breaks.
    pub(crate) async fn tls_after(
        &self,
        database: &Database,
        first: (TcpStream, Bytes),
        consents: Option<u8>,
        again: impl Future<Output = Result<(TcpStream, Bytes), Problem>>,
    ) -> Result<Upstream, Problem> {
        let trusted = self.trusted(database).await?;
        // Large, and not needed for as long as the session.
        let shaken = Box::pin(self.shake(database, first, consents, &trusted));
        let error = match shaken.await? {
            Ok(upstream) => return Ok(upstream),
            Err(error) => error,
        };
        if !is_unknown_issuer(&error) || !self.trust.changed_since(&trusted).await {
            return Err(handshake_problem(database, &error, &trusted));
        }
        let trusted = self.trusted(database).await?;
        let second = again.await?;
        let shaken = Box::pin(self.shake(database, second, consents, &trusted));
        shaken
            .await?
            .map_err(|error| handshake_problem(database, &error, &trusted))
    }

    async fn trusted(&self, database: &Database) -> Result<Trusted, Problem> {
        let trusted = self.trust.of(database).await;
        trusted.map_err(|error| failed(database, "cannot verify the certificate").because(error))
    }

    /// One handshake; the inner error is what it failed with.
    async fn shake(
        &self,
        database: &Database,
        (mut stream, request): (TcpStream, Bytes),
        consents: Option<u8>,
        trusted: &Trusted,
    ) -> Result<io::Result<Upstream>, Problem> {
        let host = database
            .tls
            .server_name
            .as_deref()
            .unwrap_or_else(|| database.uri.host());
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| failed(database, "cannot verify the name").because(error))?;
        let begun = Instant::now();
        let config = Arc::clone(&trusted.config);
        let shaking = async {
            stream.write_all(&request).await?;
            if let Some(consent) = consents {
                let answer = stream.read_u8().await?;
                if answer != consent {
                    return Ok(Err(answer));
                }
            }
            TlsConnector::from(config)
                .connect(name, BulkReader::new(GatherStream::new(stream)))
                .await
                .map(Ok)
        };
        match tokio::time::timeout(TLS_TIMEOUT, shaking).await {
            Ok(Ok(Ok(upstream))) => {
                self.took(Stage::Tls, begun);
                Ok(Ok(upstream))
            }
            Ok(Ok(Err(answer))) => Err(failed(database, "no TLS on the side")
                .because(format_args!(
                    "{} answered {:?} to SSLRequest",
                    database.uri,
                    char::from(answer)
                ))
                .hint(
                    "the database service connects over TLS alone; an operator has to switch TLS on there",
                )),
            Ok(Err(error)) => Ok(Err(error)),
            Err(_) => Ok(Err(io::ErrorKind::TimedOut.into())),
        }
    }
}

fn failed(database: &Database, message: &str) -> Problem {
    Problem::new(
        ErrorCode::DatabaseTls,
        format!("{message} of database `{}`", database.name),
    )
}

/// Small messages go at once, and a peer that vanished is noticed.
pub(crate) fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}
