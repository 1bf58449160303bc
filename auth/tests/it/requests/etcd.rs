//! An etcd server that several instances of the control plane share, gone when its test is.

use std::{
    fs::File,
    net::{Ipv4Addr, TcpListener},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;
use tidegate_service::settings::{EtcdSettings, StorageSettings};

/// Attempts to find a loopback address that nobody uses.
const ADDRESS_ATTEMPTS_MAX: usize = 20;
const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;
/// Kills what it started once its input ends: when we say so, and also when we are gone, however that came.
const GUARD: &str = r#""$@" & pid=$!; read -r _; kill -9 $pid; wait $pid 2>/dev/null; true"#;

/// A running server.
pub(super) struct Etcd {
    address: Ipv4Addr,
    guard: Child,
    _directory: TempDir,
}

impl Etcd {
    pub(super) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = free_address();
        let (client, peer) = (
            format!("http://{address}:{CLIENT_PORT}"),
            format!("http://{address}:{PEER_PORT}"),
        );
        let log = File::create(directory.path().join("log")).unwrap();
        let mut command = Command::new("sh");
        command
            .args(["-c", GUARD, "guard", "etcd", "--name=one"])
            .arg(format!("--initial-cluster=one={peer}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!(
                "--data-dir={}",
                directory.path().join("data").display()
            ))
            // One member elects itself: the quicker the better.
            .args(["--heartbeat-interval=10", "--election-timeout=100"])
            .arg("--log-level=warn")
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        if cfg!(target_arch = "aarch64") {
            command.env("ETCD_UNSUPPORTED_ARCH", "arm64");
        }
        Self {
            guard: command.spawn().unwrap(),
            address,
            _directory: directory,
        }
    }

    /// How instances use it.
    pub(super) fn storage(&self) -> StorageSettings {
        StorageSettings::Etcd(EtcdSettings {
            peers: vec![format!("http://{}:{CLIENT_PORT}", self.address)],
            prefix: "/tidegate".to_owned(),
            ca_file: None,
            identity: None,
            login: None,
            dial_timeout: None,
            request_timeout: None,
        })
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

fn free_address() -> Ipv4Addr {
    for _ in 0..ADDRESS_ATTEMPTS_MAX {
        let [a, b, c] = uuid::Uuid::new_v4().into_bytes()[..3].try_into().unwrap();
        let address = Ipv4Addr::new(127, u8::max(a, 1), b, u8::clamp(c, 1, 254));
        let is_free = |port| TcpListener::bind((address, port)).is_ok();
        if is_free(CLIENT_PORT) && is_free(PEER_PORT) {
            return address;
        }
    }
    panic!("no loopback address is free");
}
