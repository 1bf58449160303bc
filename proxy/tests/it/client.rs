//! Clients: over Postgres' request for TLS, over direct TLS, and as raw bytes.

use std::{sync::Arc, time::Duration};

use rustls_pki_types::ServerName;
use tidegate_identity::tls::{self, ClientTls, Roots};
use tidegate_wire::{
    backend::ErrorResponse,
    startup::{ProtocolVersion, SSL_REQUEST, StartupMessage},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::world::{PATIENCE, World};

/// A TLS connection to the proxy.
pub(crate) struct Client<'w> {
    pub(crate) world: &'w World,
    /// Asks for TLS as Postgres does, before starting it.
    pub(crate) ssl_request: bool,
    pub(crate) server_name: &'w str,
    pub(crate) send_server_name: bool,
    pub(crate) alpn: &'w [&'w [u8]],
}

impl<'w> Client<'w> {
    pub(crate) fn new(world: &'w World, server_name: &'w str) -> Self {
        Self {
            world,
            ssl_request: true,
            server_name,
            send_server_name: true,
            alpn: &[],
        }
    }

    /// Connects and verifies the server by `roots`.
    pub(crate) async fn connect(self, roots: Roots<'_>) -> std::io::Result<TlsStream<TcpStream>> {
        let mut stream = raw(self.world).await;
        if self.ssl_request {
            stream.write_all(&SSL_REQUEST).await?;
            assert_eq!(stream.read_u8().await?, b'S');
        }
        let config = tls::client_config(ClientTls {
            roots,
            identity: None,
            alpn: self.alpn,
        });
        let mut config = rustls::ClientConfig::clone(&config.unwrap());
        config.enable_sni = self.send_server_name;
        let name = ServerName::try_from(self.server_name.to_owned()).unwrap();
        let connect = TlsConnector::from(Arc::new(config)).connect(name, stream);
        tokio::time::timeout(PATIENCE, connect).await.unwrap()
    }

    /// Connects to a database and reads who serves it.
    pub(crate) async fn open(self, greeting: &str) -> TlsStream<TcpStream> {
        let roots = Roots::Pem(self.world.cas.db.cert_pem());
        let mut tls = self.connect(roots).await.unwrap();
        let mut greeted = vec![0; greeting.len()];
        tls.read_exact(&mut greeted).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&greeted), greeting);
        tls
    }

    /// Connects to whoever answers: the error, or `None` when it is served.
    pub(crate) async fn refused_or_served(self) -> Option<ErrorResponse> {
        let mut tls = self.connect(Roots::Unverified).await.unwrap();
        tls.write_all(&startup()).await.unwrap();
        let mut first = [0];
        tls.read_exact(&mut first).await.unwrap();
        match first {
            [b'E'] => Some(ErrorResponse::parse(&rest(&mut tls).await[4..])),
            _ => None,
        }
    }

    /// Connects to be refused: ignores the certificate, sends a start-up message, reads the error.
    pub(crate) async fn refused(self) -> ErrorResponse {
        let mut tls = self.connect(Roots::Unverified).await.unwrap();
        tls.write_all(&startup()).await.unwrap();
        error(&mut tls).await
    }
}

pub(crate) fn startup() -> Vec<u8> {
    StartupMessage::new(ProtocolVersion::V3_0)
        .with_param("user", "alice")
        .encode()
        .to_vec()
}

pub(crate) async fn raw(world: &World) -> TcpStream {
    let stream = TcpStream::connect(world.proxy).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Reads to the end, which must come after exactly one well-formed error.
pub(crate) async fn error(stream: &mut (impl AsyncRead + Unpin)) -> ErrorResponse {
    let bytes = rest(stream).await;
    assert_eq!(bytes.first(), Some(&b'E'), "{bytes:?}");
    let declared = u32::from_be_bytes(bytes[1..5].try_into().unwrap());
    assert_eq!(declared as usize + 1, bytes.len());
    ErrorResponse::parse(&bytes[5..])
}

pub(crate) async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes))
        .await
        .expect("the proxy closes")
        .unwrap();
    bytes
}

pub(crate) async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(limit, future).await.unwrap()
}
