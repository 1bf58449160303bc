//! Reaching one of several members, over TLS or, for `http` endpoints, in the clear.
//!
//! Invariant: one attempt tries each member at most once and each within the dial timeout; the one that answered last
//! comes first, the one that failed last comes last.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig,
    pki_types::{PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tidegate_identity::{IdentityError, tls as identity_tls};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::options::{EtcdIdentity, EtcdTls};

/// The port that etcd serves clients on when the endpoint names none.
const PORT_DEFAULT: u16 = 2379;

/// A connection, whatever it goes over.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// What gRPC is spoken over.
pub(super) type Connection = TokioIo<Box<dyn Io>>;

/// Why one member could not be reached.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    /// The endpoint is no address.
    #[error("it is not of the form `https://host:port`")]
    Address,
    /// Nobody listens, or the network does not let us through.
    #[error("{0}")]
    Connect(#[source] io::Error),
    /// A certificate or key file cannot be read.
    #[error("could not read `{}`: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A certificate or key file does not hold what it should.
    #[error("could not set up TLS: {0}")]
    Identity(#[from] IdentityError),
    /// No answer within the dial timeout.
    #[error("no answer in time")]
    TimedOut,
    /// Whoever answered does not speak TLS as we do, does not trust us, or is not trusted by us.
    #[error("TLS handshake failed: {0}")]
    Tls(#[source] io::Error),
}

/// No member could be reached.
#[derive(Debug)]
pub(super) struct ConnectError(Vec<(String, DialError)>);

impl std::error::Error for ConnectError {}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no etcd endpoint is configured");
        }
        f.write_str("could not reach ")?;
        for (index, (endpoint, error)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{endpoint}: {error}")?;
        }
        Ok(())
    }
}

/// Members, and which is tried next.
#[derive(Debug)]
pub(super) struct Dialer {
    endpoints: Vec<Uri>,
    next: AtomicUsize,
    tls: EtcdTls,
    timeout: Duration,
}

impl Dialer {
    pub(super) const fn new(endpoints: Vec<Uri>, tls: EtcdTls, timeout: Duration) -> Self {
        Self {
            endpoints,
            next: AtomicUsize::new(0),
            tls,
            timeout,
        }
    }

    /// Begins with the next member from now on: the current one answers, and is of no use.
    pub(super) fn move_on(&self) {
        self.next.fetch_add(1, Ordering::Relaxed);
    }

    fn moved_on_from(&self, position: usize) {
        // Somebody else who moved on first did it for all.
        let _ = self.next.compare_exchange(
            position,
            position.wrapping_add(1),
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
    }

    /// Connects to the first member that answers.
    pub(super) async fn dial(self: Arc<Self>) -> Result<Connection, ConnectError> {
        let mut attempts = Vec::new();
        for _ in 0..self.endpoints.len() {
            let position = self.next.load(Ordering::Relaxed);
            let Some(endpoint) = self.endpoints.get(position % self.endpoints.len()) else {
                break;
            };
            let dialled = timeout(self.timeout, self.dial_one(endpoint)).await;
            match dialled.unwrap_or(Err(DialError::TimedOut)) {
                Ok(stream) => return Ok(TokioIo::new(stream)),
                Err(error) => {
                    self.moved_on_from(position);
                    attempts.push((endpoint.to_string(), error));
                }
            }
        }
        Err(ConnectError(attempts))
    }

    async fn dial_one(&self, endpoint: &Uri) -> Result<Box<dyn Io>, DialError> {
        let host = endpoint.host().ok_or(DialError::Address)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = endpoint.port_u16().unwrap_or(PORT_DEFAULT);
        let stream = TcpStream::connect((host, port))
            .await
            .map_err(DialError::Connect)?;
        stream.set_nodelay(true).map_err(DialError::Connect)?;
        match endpoint.scheme_str() {
            Some("http") => Ok(Box::new(stream)),
            Some("https") => {
                let name = ServerName::try_from(host.to_owned()).map_err(|_| DialError::Address)?;
                let tls = TlsConnector::from(client_config(&self.tls).await?);
                let stream = tls.connect(name, stream).await.map_err(DialError::Tls)?;
                Ok(Box::new(stream))
            }
            _ => Err(DialError::Address),
        }
    }
}

async fn client_config(tls: &EtcdTls) -> Result<Arc<ClientConfig>, DialError> {
    let builder = ClientConfig::builder_with_provider(identity_tls::provider())
        .with_safe_default_protocol_versions()
        .map_err(IdentityError::from)?;
    let roots = match &tls.ca_file {
        Some(path) => identity_tls::root_store(&read(path).await?)?,
        None => identity_tls::system_roots()?,
    };
    let builder = builder.with_root_certificates(roots);
    let mut config = match &tls.identity {
        Some(EtcdIdentity {
            cert_file,
            key_file,
        }) => {
            let chain = identity_tls::certificates(&read(cert_file).await?)?;
            // Any kind of key: it is etcd's CA that issued it, not ours.
            let key = PrivateKeyDer::from_pem_slice(read(key_file).await?.as_bytes())
                .map_err(|_| IdentityError::Pem { what: "key" })?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(IdentityError::from)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

async fn read(path: &Path) -> Result<String, DialError> {
    tokio::fs::read_to_string(path)
        .await
        .map_err(|source| DialError::File {
            path: path.to_owned(),
            source,
        })
}
