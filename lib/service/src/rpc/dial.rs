//! Reaching one of several addresses over TLS.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{CONNECT_TIMEOUT, Endpoints};

/// Resolved addresses of one name that are tried.
const RESOLVED_MAX: usize = 8;

/// Why one address could not be reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// Nobody listens, or the network does not let us through.
    #[error("{0}")]
    Connect(#[source] io::Error),
    /// The name does not resolve.
    #[error("could not resolve the name: {0}")]
    Resolve(#[source] io::Error),
    /// A step took longer than [`CONNECT_TIMEOUT`].
    #[error("no answer within {} s", CONNECT_TIMEOUT.as_secs())]
    TimedOut,
    /// Whoever answered does not speak TLS as we do, or hung up.
    #[error("TLS handshake failed: {0}")]
    Tls(#[source] io::Error),
    /// Whoever answered could not prove to be who we look for.
    #[error("cannot trust the server: {0}")]
    Untrusted(#[source] rustls::Error),
}

/// None of the addresses could be reached.
#[derive(Debug)]
pub struct ConnectError {
    attempts: Vec<(String, DialError)>,
}

impl ConnectError {
    /// Each address with what went wrong there.
    #[must_use]
    pub fn attempts(&self) -> &[(String, DialError)] {
        &self.attempts
    }

    /// Whether every address answered, and none could prove to be who we look for: waiting does not help.
    #[must_use]
    pub fn is_untrusted(&self) -> bool {
        !self.attempts.is_empty()
            && self
                .attempts
                .iter()
                .all(|(_, error)| matches!(error, DialError::Untrusted(_)))
    }
}

impl std::error::Error for ConnectError {}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.attempts.is_empty() {
            return f.write_str("no address to connect to is configured");
        }
        f.write_str("could not reach ")?;
        for (index, (address, error)) in self.attempts.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{address}: {error}")?;
        }
        Ok(())
    }
}

/// Tries each address once, beginning with the one that answered last, or after the one that failed last.
pub(crate) async fn dial_any(
    endpoints: &Endpoints,
    tls: Arc<ClientConfig>,
    server_name: &'static str,
) -> Result<TlsStream<TcpStream>, ConnectError> {
    let mut attempts = Vec::new();
    for _ in 0..endpoints.len() {
        let Some((position, address)) = endpoints.current() else {
            break;
        };
        match dial(address, Arc::clone(&tls), server_name).await {
            Ok(stream) => return Ok(stream),
            Err(error) => {
                endpoints.failed(position);
                attempts.push((address.to_owned(), error));
            }
        }
    }
    Err(ConnectError { attempts })
}

async fn dial(
    address: &str,
    tls: Arc<ClientConfig>,
    server_name: &'static str,
) -> Result<TlsStream<TcpStream>, DialError> {
    let resolved: Vec<SocketAddr> = timeout(CONNECT_TIMEOUT, lookup_host(address))
        .await
        .map_err(|_| DialError::TimedOut)?
        .map_err(DialError::Resolve)?
        .take(RESOLVED_MAX)
        .collect();
    let stream = connect_first(&resolved).await?;
    stream.set_nodelay(true).map_err(DialError::Connect)?;
    let name = ServerName::try_from(server_name)
        .map_err(|error| DialError::Tls(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    timeout(
        CONNECT_TIMEOUT,
        TlsConnector::from(tls).connect(name, stream),
    )
    .await
    .map_err(|_| DialError::TimedOut)?
    .map_err(tls_error)
}

/// The first of the addresses that accepts; together they get [`CONNECT_TIMEOUT`], each its share.
async fn connect_first(addresses: &[SocketAddr]) -> Result<TcpStream, DialError> {
    let mut last = DialError::Resolve(io::Error::new(
        io::ErrorKind::NotFound,
        "the name has no address",
    ));
    let share = share(CONNECT_TIMEOUT, addresses.len());
    for address in addresses {
        last = match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => DialError::Connect(error),
            Err(_) => DialError::TimedOut,
        };
    }
    Err(last)
}

fn share(total: Duration, parts: usize) -> Duration {
    total / u32::try_from(parts.max(1)).unwrap_or(u32::MAX)
}

fn tls_error(error: io::Error) -> DialError {
    match error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
    {
        Some(cause @ rustls::Error::InvalidCertificate(_)) => DialError::Untrusted(cause.clone()),
        _ => DialError::Tls(error),
    }
}
