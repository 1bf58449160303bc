//! How a machine that knows nothing of a cluster learns its host CA: from the proxy's own web address, over a
//! certificate that this machine trusts anyway.

use std::{io, sync::Arc, time::Duration};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, body::Bytes};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde::Deserialize;
use tidegate_console::{Failure, client::tls_unusable, profile::ProxyAddr, rpc};
use tidegate_identity::{
    ALPN_HTTP11,
    tls::{self, ClientTls, Roots},
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

const PATH: &str = "/webapi/find";
/// From connecting to the last byte of the answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// What we need of the answer; it says more.
#[derive(Deserialize)]
struct Found {
    /// The host CA's certificates in PEM.
    ca_certs: Vec<String>,
}

/// The cluster's host CA in PEM, as the proxy says.
pub(super) async fn host_ca(proxy: &ProxyAddr) -> Result<String, Failure> {
    let answer = timeout(ANSWER_TIMEOUT, fetch(proxy))
        .await
        .unwrap_or_else(|_| {
            Err(Failure::new(format!(
                "{proxy} did not answer within {} seconds",
                ANSWER_TIMEOUT.as_secs()
            )))
        })?;
    read(&answer).ok_or_else(|| {
        Failure::new(format!("{proxy} does not answer like a Tidegate proxy"))
            .hint("check the address and the port")
    })
}

fn read(answer: &[u8]) -> Option<String> {
    let found: Found = serde_json::from_slice(answer).ok()?;
    let pem = found.ca_certs.join("\n");
    tls::certificates(&pem).ok()?;
    Some(pem)
}

async fn fetch(proxy: &ProxyAddr) -> Result<Bytes, Failure> {
    let unreachable = |problem: &dyn std::fmt::Display| {
        Failure::new(format!("cannot reach {proxy}: {problem}"))
            .hint("check the address and that the proxy is up")
    };
    let stream = TcpStream::connect((proxy.host(), proxy.port()))
        .await
        .map_err(|error| unreachable(&error))?;
    let config = tls::client_config(ClientTls {
        roots: Roots::System,
        identity: None,
        alpn: &[ALPN_HTTP11],
    })
    .map_err(tls_unusable)?;
    let name =
        ServerName::try_from(proxy.host().to_owned()).map_err(|error| unreachable(&error))?;
    let stream = TlsConnector::from(Arc::clone(&config))
        .connect(name, stream)
        .await
        .map_err(|error| distrusted(proxy, &error).unwrap_or_else(|| unreachable(&error)))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
            .await
            .map_err(|error| unreachable(&error))?;
    let request = Request::get(PATH)
        .header(hyper::header::HOST, proxy.to_string())
        .body(Empty::new())
        .map_err(|error| unreachable(&error))?;
    let exchange = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| unreachable(&error))?;
        if response.status() != StatusCode::OK {
            return Err(unreachable(&format!("it answered {}", response.status())));
        }
        Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await
            .map(|body| body.to_bytes())
            .map_err(|error| unreachable(&error))
    };
    tokio::pin!(exchange, connection);
    tokio::select! {
        answer = &mut exchange => answer,
        _ = &mut connection => exchange.await,
    }
}

/// The proxy's certificate is none that this machine trusts: a pin is the way in.
fn distrusted(proxy: &ProxyAddr, error: &io::Error) -> Option<Failure> {
    let inner = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(match inner {
        rustls::Error::InvalidCertificate(why) => Failure::new(format!(
            "this machine does not trust the certificate of {proxy} ({why})"
        ))
        .hint(
            "log in with the `--ca-pin` that an administrator gives you (`tgctl status` prints it); it identifies the \
             cluster without the proxy's certificate",
        ),
        other => rpc::tls_failure(other),
    })
}

#[cfg(test)]
mod tests {
    use tidegate_identity::{CaKind, CertificateAuthority};

    use super::*;

    #[test]
    fn an_answer_holds_the_host_ca() {
        let ca = CertificateAuthority::create(
            CaKind::Host,
            &"example.com".parse().unwrap(),
            jiff::Timestamp::now(),
        )
        .unwrap();
        let answer = serde_json::json!({
            "cluster_name": "example.com",
            "ca_certs": [ca.cert_pem()],
        });
        assert_eq!(
            read(answer.to_string().as_bytes()).as_deref(),
            Some(ca.cert_pem())
        );
    }

    #[test]
    fn another_servers_answer_is_not_taken() {
        for other in [
            "",
            "{}",
            "<html>",
            r#"{"ca_certs": []}"#,
            r#"{"ca_certs": ["x"]}"#,
        ] {
            assert_eq!(read(other.as_bytes()), None, "{other}");
        }
    }
}
