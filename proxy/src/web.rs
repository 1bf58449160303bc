//! HTTP on the proxy's port, for those who do not know the cluster yet.
//!
//! `/webapi/find` says what a client needs to find its way: names, versions, and the CA certificates that later
//! connections are checked against. It holds nothing secret and asks for no proof of who asks.

use std::{sync::Arc, time::Duration};

use axum::{Json, Router, extract::State, routing::get};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use serde::Serialize;
use tidegate_core::ClusterName;
use tidegate_service::{host::HostHandle, tasks::ShutdownToken};
use tidegate_wire::route::db_suffix;
use tokio::io::{AsyncRead, AsyncWrite};

/// The oldest client that still understands this cluster.
const MIN_CLIENT_VERSION: &str = "0.1.0";
/// From the start of a request to the end of its headers, and between two requests.
const HEADERS_MAX: Duration = Duration::from_secs(10);
/// Streams that one HTTP/2 client may have open.
const STREAMS_MAX: u32 = 64;
/// Between two HTTP/2 pings to a client that is silent.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a client needs to find its way.
#[derive(Debug, Serialize)]
struct Found {
    cluster_name: String,
    server_version: &'static str,
    min_client_version: &'static str,
    /// What database host names end in.
    db_suffix: String,
    /// The CAs of auth services, proxies and agents, in PEM.
    ca_certs: Vec<String>,
    auth: FoundAuth,
    proxy: FoundProxy,
}

#[derive(Debug, Serialize)]
struct FoundAuth {
    #[serde(rename = "type")]
    kind: &'static str,
    local: FoundLocal,
}

#[derive(Debug, Serialize)]
struct FoundLocal {
    name: &'static str,
}

#[derive(Debug, Serialize)]
struct FoundProxy {
    public_addr: String,
    tls_routing_enabled: bool,
    db: FoundDb,
}

#[derive(Debug, Serialize)]
struct FoundDb {
    postgres_public_addr: String,
}

#[derive(Debug)]
struct About {
    cluster: ClusterName,
    public_addr: String,
    host: HostHandle,
}

/// The routes of the web front.
pub(crate) fn router(cluster: ClusterName, public_addr: String, host: HostHandle) -> Router {
    let about = About {
        cluster,
        public_addr,
        host,
    };
    Router::new()
        .route("/webapi/find", get(find))
        .route("/webapi/ping", get(find))
        .route("/v1/webapi/find", get(find))
        .route("/v1/webapi/ping", get(find))
        .with_state(Arc::new(about))
}

async fn find(State(about): State<Arc<About>>) -> Json<Found> {
    Json(Found {
        cluster_name: about.cluster.to_string(),
        server_version: env!("CARGO_PKG_VERSION"),
        min_client_version: MIN_CLIENT_VERSION,
        db_suffix: db_suffix(about.cluster.as_str()),
        ca_certs: certificates(&about.host.trust().host_ca_pem),
        auth: FoundAuth {
            kind: "local",
            local: FoundLocal { name: "local" },
        },
        proxy: FoundProxy {
            public_addr: about.public_addr.clone(),
            tls_routing_enabled: true,
            db: FoundDb {
                postgres_public_addr: about.public_addr.clone(),
            },
        },
    })
}

/// The certificates in a PEM text, one by one.
fn certificates(pem: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    pem.split_inclusive(END)
        .filter(|one| one.contains(END))
        .map(|one| format!("{}\n", one.trim()))
        .collect()
}

/// Serves HTTP on one connection until its client leaves or the proxy shuts down.
pub(crate) async fn serve<S>(
    stream: S,
    router: Router,
    shutdown: &ShutdownToken,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_MAX)
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_concurrent_streams(STREAMS_MAX);
    let connection =
        builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    tokio::select! {
        served = connection.as_mut() => return served,
        () = shutdown.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_listed_certificate_by_certificate() {
        let one = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
        assert_eq!(certificates(&format!("{one}{one}")), [one, one]);
        assert!(certificates("").is_empty());
    }
}
