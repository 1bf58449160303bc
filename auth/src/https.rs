//! One HTTP request and its answer, on a connection of its own: what the auth service asks of AWS besides what the SDK
//! asks.
//!
//! No answer is followed elsewhere, and each has an end. Not here: what is asked and who signs it
//! ([`crate::access`] asks STS, [`crate::audit`] puts objects); the time of a whole call, which is its caller's.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, Response, StatusCode, body::Incoming};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tidegate_identity::tls::{self, ClientTls, Roots};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::OnceCell,
};
use tokio_rustls::TlsConnector;

use crate::store::BoxError;

/// Name look-up and connection, and again the handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer that is read; those of AWS that are asked for here have some hundred bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Asks, over TLS with what the system trusts.
#[derive(Debug, Default)]
pub(crate) struct Https {
    /// Read once, when it is first needed.
    tls: OnceCell<Arc<ClientConfig>>,
}

impl Https {
    /// One request to a host, over TLS or in clear.
    pub(crate) async fn ask(
        &self,
        host: &str,
        port: u16,
        is_tls: bool,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), BoxError> {
        let stream = in_time(TcpStream::connect((host, port))).await?;
        if !is_tls {
            return exchange(stream, request).await;
        }
        let connector = TlsConnector::from(self.tls().await?);
        let name = ServerName::try_from(host.to_owned())?;
        let stream = in_time(connector.connect(name, stream)).await?;
        exchange(stream, request).await
    }

    async fn tls(&self) -> Result<Arc<ClientConfig>, BoxError> {
        let made = self.tls.get_or_try_init(|| async {
            let make = || {
                tls::client_config(ClientTls {
                    roots: Roots::System,
                    identity: None,
                    alpn: &[b"http/1.1"],
                })
            };
            tokio::task::spawn_blocking(make)
                .await?
                .map_err(BoxError::from)
        });
        Ok(made.await?.clone())
    }
}

/// Connecting, and then the handshake, within [`CONNECT_TIMEOUT`] each.
async fn in_time<T>(connecting: impl Future<Output = io::Result<T>>) -> Result<T, BoxError> {
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
    let connected = connected.map_err(|_| format!("no connection within {CONNECT_TIMEOUT:?}"))?;
    Ok(connected?)
}

async fn exchange<S>(
    stream: S,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), BoxError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let answer = async {
        let response: Response<Incoming> = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        Ok((status, body.collect().await?.to_bytes()))
    };
    tokio::pin!(answer);
    // The connection works only while it is polled, and what it has read before it ends is still there to take.
    tokio::select! {
        answer = &mut answer => answer,
        ended = connection => {
            ended?;
            answer.await
        }
    }
}
