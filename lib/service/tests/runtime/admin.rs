//! The diagnostics port.

use prometheus_client::metrics::counter::Counter;
use serde_json::{Value, json};
use tidegate_service::{
    admin::{self, Readiness},
    metrics::Metrics,
    tasks::ShutdownToken,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

struct Port {
    address: std::net::SocketAddr,
    shutdown: ShutdownToken,
    server: JoinHandle<std::io::Result<()>>,
}

impl Port {
    async fn open(metrics: Metrics, readiness: Readiness) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let shutdown = ShutdownToken::new();
        Self {
            address: listener.local_addr().unwrap(),
            server: tokio::spawn(admin::serve(listener, metrics, readiness, shutdown.clone())),
            shutdown,
        }
    }

    /// Status and body.
    async fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (
            head.split(' ').nth(1).unwrap().parse().unwrap(),
            body.to_owned(),
        )
    }

    async fn json(&self, path: &str) -> (u16, Value) {
        let (status, body) = self.get(path).await;
        (status, serde_json::from_str(&body).unwrap())
    }

    async fn close(self) {
        self.shutdown.cancel();
        self.server.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn readiness_is_all_components_and_tells_why_not() {
    let readiness = Readiness::new();
    let port = Port::open(Metrics::new(), readiness.clone()).await;
    assert_eq!(
        port.json("/readyz").await,
        (503, json!({ "status": "not_ready", "components": {} }))
    );

    let auth = readiness.component("auth");
    let proxy = readiness.component("proxy");
    auth.ready();
    proxy.not_ready("no agent is connected");
    assert_eq!(
        port.json("/readyz").await,
        (
            503,
            json!({ "status": "not_ready", "components": {
                "auth": { "status": "ready" },
                "proxy": { "status": "not_ready", "reason": "no agent is connected" },
            } })
        )
    );

    proxy.ready();
    assert_eq!(port.json("/readyz").await.0, 200);
    port.close().await;
}

#[tokio::test]
async fn a_process_that_is_not_ready_is_alive() {
    let port = Port::open(Metrics::new(), Readiness::new()).await;
    assert_eq!(
        port.json("/healthz").await,
        (200, json!({ "status": "ok" }))
    );
    port.close().await;
}

#[tokio::test]
async fn metrics_are_shown_under_their_full_names() {
    let metrics = Metrics::new();
    metrics
        .register(
            "tidegate_test_sessions_total",
            "Sessions",
            Counter::<u64>::default(),
        )
        .inc();
    let port = Port::open(metrics, Readiness::new()).await;

    let (status, text) = port.get("/metrics").await;

    assert_eq!(status, 200);
    assert!(text.contains("tidegate_test_sessions_total 1\n"), "{text}");
    port.close().await;
}

#[tokio::test]
async fn a_process_that_drains_is_not_ready_whatever_its_components_say() {
    let readiness = Readiness::new();
    let port = Port::open(Metrics::new(), readiness.clone()).await;
    let proxy = readiness.component("proxy");
    proxy.ready();

    readiness.drain();
    proxy.ready();

    assert!(!readiness.is_ready());
    assert_eq!(
        port.json("/readyz").await,
        (
            503,
            json!({ "status": "draining", "components": { "proxy": { "status": "ready" } } })
        )
    );
    port.close().await;
}
