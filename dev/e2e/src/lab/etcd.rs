//! The etcd server of the laboratory: one real one, which instances of the control plane share.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, TcpListener},
    path::Path,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::Process;

/// Its host in the laboratory's network.
const HOST: u8 = 200;
const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;

/// A running etcd server.
#[derive(Debug)]
pub(super) struct Etcd {
    process: Process,
    url: String,
}

impl Etcd {
    /// Starts it, empty. Whoever uses it waits until it answers.
    pub(super) fn start(network: [u8; 2], dir: &Path) -> Result<Self> {
        let address = address(network);
        let url = format!("http://{address}:{CLIENT_PORT}");
        let peer_url = format!("http://{address}:{PEER_PORT}");
        let data_dir = dir.join("etcd");
        let args = [
            "--name=one".to_owned(),
            format!("--data-dir={}", data_dir.display()),
            format!("--initial-cluster=one={peer_url}"),
            format!("--listen-peer-urls={peer_url}"),
            format!("--initial-advertise-peer-urls={peer_url}"),
            format!("--listen-client-urls={url}"),
            format!("--advertise-client-urls={url}"),
            "--log-level=warn".to_owned(),
            // One member elects itself: the quicker the better.
            "--heartbeat-interval=10".to_owned(),
            "--election-timeout=100".to_owned(),
        ];
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut environment = BTreeMap::new();
        if cfg!(target_arch = "aarch64") {
            environment.insert("ETCD_UNSUPPORTED_ARCH".to_owned(), "arm64".to_owned());
        }
        let process = Process::start("etcd", Path::new("etcd"), &args, &environment, dir).context(
            "there is no `etcd`: install Debian's package etcd-server, or let `cargo xtask test` do it as root",
        )?;
        Ok(Self { process, url })
    }

    /// Whether nobody listens where it would.
    pub(super) fn is_free(network: [u8; 2]) -> bool {
        [CLIENT_PORT, PEER_PORT]
            .iter()
            .all(|port| TcpListener::bind((address(network), *port)).is_ok())
    }

    /// Where it serves clients.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Key `storage` of whoever uses it, over the one of the example.
    pub(super) fn storage(&self) -> Value {
        json!({
            "type": "etcd",
            "path": null,
            "peers": [self.url],
            "prefix": "/tidegate",
            "tls_ca_file": null,
            "tls_cert_file": null,
            "tls_key_file": null,
        })
    }

    /// Ends it; what it holds goes with the laboratory's folder.
    pub(super) async fn end(self) -> Result<()> {
        self.process.kill().await
    }
}

fn address([second, third]: [u8; 2]) -> Ipv4Addr {
    Ipv4Addr::new(127, second, third, HOST)
}
