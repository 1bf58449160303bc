//! How a connection gets from this machine to an agent, by way of the proxy. The proxy's name is looked up for each, since
//! laptops move between networks.
//!
//! Invariant: nothing is sent over TLS before the agent's certificate was verified for the database's host name.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Mutex,
    time::Duration,
};

use jiff::Timestamp;
use rustls_pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tidegate_console::{
    Failure,
    profile::{Profile, ProxyAddr},
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::passport::Passport;
use crate::db::target;

/// How long the proxy's name may take to look up.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one address of the proxy may take to connect to.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long TLS with the agent may take; the proxy may ask several agents meanwhile.
const TLS_TIMEOUT: Duration = Duration::from_secs(30);
/// How a connection is found dead after a laptop slept or moved: asked after so much silence, so often, so many times.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;

/// Why a connection did not get there.
#[derive(Debug, thiserror::Error)]
pub(super) enum WayError {
    /// The login has ended, or the cluster gives no certificate.
    #[error("{}", .0.message())]
    Person(Failure),
    /// The network, the proxy or the agent.
    #[error("cannot reach the database through the proxy: {0}")]
    Unreachable(#[from] io::Error),
}

impl WayError {
    /// What the person can do.
    pub(super) fn hint(&self) -> String {
        match self {
            Self::Person(failure) => failure.hint_text().unwrap_or_default().to_owned(),
            Self::Unreachable(_) => {
                "check your network; \"tg db ls\" shows whether an agent serves the database now"
                    .to_owned()
            }
        }
    }
}

/// A way to one database.
pub(crate) struct Way {
    proxy: ProxyAddr,
    /// The proxy's addresses as they were found last, for when a lookup fails.
    known: Mutex<Vec<IpAddr>>,
    name: ServerName<'static>,
    passport: Passport,
}

impl Way {
    /// The way that a passport is for.
    ///
    /// # Errors
    ///
    /// When the database's host name is none.
    pub(crate) fn new(profile: &Profile, host: &str, passport: Passport) -> Result<Self, Failure> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| Failure::new(format!("{host} is no host name")))?;
        Ok(Self {
            proxy: profile.facts().proxy_addr.clone(),
            known: Mutex::new(Vec::new()),
            name,
            passport,
        })
    }

    /// What is shown to agents.
    pub(crate) fn passport(&self) -> &Passport {
        &self.passport
    }

    /// A connection to the proxy, nothing said yet. The first address that answers is the one.
    pub(super) async fn dial(&self) -> io::Result<TcpStream> {
        let mut last = io::ErrorKind::AddrNotAvailable.into();
        for address in self.addresses().await? {
            let connecting = TcpStream::connect(SocketAddr::new(address, self.proxy.port()));
            match timeout(CONNECT_TIMEOUT, connecting).await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true)?;
                    let keepalive = TcpKeepalive::new()
                        .with_time(KEEPALIVE_IDLE)
                        .with_interval(KEEPALIVE_INTERVAL)
                        .with_retries(KEEPALIVE_RETRIES);
                    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
                    return Ok(stream);
                }
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(last)
    }

    /// A TLS connection to an agent of the database.
    pub(super) async fn connect(&self) -> Result<TlsStream<TcpStream>, WayError> {
        let config = self.passport.config(Timestamp::now()).await;
        let config = config.map_err(WayError::Person)?;
        let stream = self.dial().await?;
        let connector = TlsConnector::from(std::sync::Arc::clone(&config));
        let securing = connector.connect(self.name.clone(), stream);
        let secured = timeout(TLS_TIMEOUT, securing)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        if let Err(error) = &secured
            && error.kind() == io::ErrorKind::InvalidData
        {
            self.passport.distrust(&config).await;
        }
        Ok(secured?)
    }

    async fn addresses(&self) -> io::Result<Vec<IpAddr>> {
        let lookup = timeout(LOOKUP_TIMEOUT, target::resolve(&self.proxy)).await;
        let mut known = self.known.lock().unwrap_or_else(|held| held.into_inner());
        match lookup {
            Ok(Ok(found)) => {
                known.clone_from(&found);
                Ok(found)
            }
            // A resolver that is away for a moment knows no less than before.
            _ if !known.is_empty() => Ok(known.clone()),
            Ok(Err(failure)) => Err(io::Error::other(failure.message().to_owned())),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}
