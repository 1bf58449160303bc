//! One HTTP request and its answer, on a connection of its own: what services ask of AWS besides what the SDK asks.
//!
//! No answer is followed elsewhere, and each has an end. No proxy is used, whatever the environment says. Not here: what
//! is asked and who signs it (the auth service asks STS and puts objects, agents fetch CA certificates); the time of a
//! whole call, which is its caller's.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tidegate_identity::tls::{self, ClientTls, Roots};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::OnceCell,
};
use tokio_rustls::TlsConnector;

/// What went wrong, for whoever reads a log: name look-up, connection, TLS, HTTP, or an answer that is too long.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Name look-up and connection, and again the handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer that is read unless its caller says otherwise; those of AWS have some hundred bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Asks, over TLS with what the system trusts.
#[derive(Debug)]
pub struct Https {
    answer_bytes_max: usize,
    /// Read once, when it is first needed.
    tls: OnceCell<Arc<ClientConfig>>,
}

impl Default for Https {
    fn default() -> Self {
        Self::with_answers_to(ANSWER_BYTES_MAX)
    }
}

impl Https {
    /// Reads answers of at most this many bytes; a longer one is an error.
    #[must_use]
    pub fn with_answers_to(answer_bytes_max: usize) -> Self {
        Self {
            answer_bytes_max,
            tls: OnceCell::new(),
        }
    }

    /// One request to a host, over TLS or in clear, and its whole answer. Nothing is tried again.
    ///
    /// # Errors
    ///
    /// Without a connection within 5 s, or a handshake within another 5 s; with an answer that breaks off or is too
    /// long. Any status is an answer.
    pub async fn ask(
        &self,
        host: &str,
        port: u16,
        is_tls: bool,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, BoxError> {
        let stream = in_time(TcpStream::connect((host, port))).await?;
        if !is_tls {
            return self.exchange(stream, request).await;
        }
        let connector = TlsConnector::from(self.tls().await?);
        let name = ServerName::try_from(host.to_owned())?;
        let stream = in_time(connector.connect(name, stream)).await?;
        self.exchange(stream, request).await
    }

    async fn exchange<S>(
        &self,
        stream: S,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, BoxError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let answer = async {
            let response: Response<Incoming> = sender.send_request(request).await?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, self.answer_bytes_max);
            let body = body.collect().await?.to_bytes();
            Ok(Response::from_parts(head, body))
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
