//! etcd servers for tests: real ones, on loopback addresses of their own, gone when their test is.

use std::{
    fs::File,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use http::Uri;
use tidegate_identity::secret;

use super::EtcdOptions;

/// Attempts to find a loopback address that nobody uses.
const ADDRESS_ATTEMPTS_MAX: usize = 20;
const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;
/// Kills what it started once its input ends: when we say so, and also when we are gone, however that came.
const GUARD: &str = r#""$@" & pid=$!; read -r _; kill -9 $pid; wait $pid 2>/dev/null; true"#;

/// What a server shows its clients, and where their certificates must come from.
#[derive(Debug)]
pub(super) struct ServerTls {
    pub(super) ca_file: PathBuf,
    pub(super) cert_file: PathBuf,
    pub(super) key_file: PathBuf,
}

/// One etcd server.
#[derive(Debug)]
pub(super) struct Server {
    directory: tempfile::TempDir,
    address: Ipv4Addr,
    args: Vec<String>,
    scheme: &'static str,
    guard: Option<Child>,
}

impl Server {
    /// A cluster of one, with quick elections, so that it is there at once and leases may be short.
    pub(super) fn start(extra: &[&str]) -> Self {
        let address = free_address();
        let quick = ["--heartbeat-interval=10", "--election-timeout=100"];
        let extra: Vec<&str> = quick.iter().chain(extra).copied().collect();
        let mut server = Self::prepared(
            "one",
            address,
            &format!("one=http://{address}:{PEER_PORT}"),
            &extra,
        );
        server.run();
        server
    }

    /// As [`Self::start`], asking clients for a certificate.
    pub(super) fn start_tls(address: Ipv4Addr, tls: &ServerTls) -> Self {
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let args = [
            format!("--trusted-ca-file={}", path(&tls.ca_file)),
            format!("--cert-file={}", path(&tls.cert_file)),
            format!("--key-file={}", path(&tls.key_file)),
            "--client-cert-auth".to_owned(),
        ];
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let cluster = format!("one=http://{address}:{PEER_PORT}");
        let mut server = Self::prepared("one", address, &cluster, &args);
        server.scheme = "https";
        server.run();
        server
    }

    /// A cluster of three.
    pub(super) fn start_three() -> [Self; 3] {
        let members = ["a", "b", "c"].map(|name| (name, free_address()));
        let cluster = members.map(|(name, address)| format!("{name}=http://{address}:{PEER_PORT}"));
        let cluster = cluster.join(",");
        members.map(|(name, address)| {
            let mut server = Self::prepared(name, address, &cluster, &[]);
            server.run();
            server
        })
    }

    fn prepared(name: &str, address: Ipv4Addr, cluster: &str, extra: &[&str]) -> Self {
        let mut args = vec![
            format!("--name={name}"),
            format!("--initial-cluster={cluster}"),
            format!("--listen-peer-urls=http://{address}:{PEER_PORT}"),
            format!("--initial-advertise-peer-urls=http://{address}:{PEER_PORT}"),
            "--log-level=warn".to_owned(),
        ];
        args.extend(extra.iter().map(|arg| (*arg).to_owned()));
        Self {
            directory: tempfile::tempdir().unwrap(),
            address,
            args,
            scheme: "http",
            guard: None,
        }
    }

    /// Starts it, again or for the first time.
    pub(super) fn run(&mut self) {
        assert!(
            is_installed("etcd"),
            "there is no `etcd`: install Debian's packages etcd-server and etcd-client, or let `cargo xtask test` do it as root"
        );
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.directory.path().join("log"))
            .unwrap();
        let endpoint = self.url();
        let mut command = Command::new("sh");
        command
            .args(["-c", GUARD, "guard", "etcd"])
            .args(&self.args)
            .arg(format!(
                "--data-dir={}",
                self.directory.path().join("data").display()
            ))
            .arg(format!("--listen-client-urls={endpoint}"))
            .arg(format!("--advertise-client-urls={endpoint}"))
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        if cfg!(target_arch = "aarch64") {
            command.env("ETCD_UNSUPPORTED_ARCH", "arm64");
        }
        self.guard = Some(command.spawn().unwrap());
    }

    /// Kills it, as a power cut would.
    pub(super) fn kill(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            guard.wait().unwrap();
        }
    }

    /// Kills it and starts it with what it had.
    pub(super) fn restart(&mut self) {
        self.kill();
        self.run();
    }

    /// Where it listens.
    pub(super) fn endpoint(&self) -> Uri {
        self.url().parse().unwrap()
    }

    fn url(&self) -> String {
        format!("{}://{}:{CLIENT_PORT}", self.scheme, self.address)
    }

    /// How to use it.
    pub(super) fn options(&self) -> EtcdOptions {
        EtcdOptions::new(vec![self.endpoint()], "/tidegate")
    }

    /// Runs etcdctl with it, to its success.
    pub(super) fn ctl(&self, args: &[&str]) -> String {
        assert!(
            is_installed("etcdctl"),
            "there is no `etcdctl`: install Debian's package etcd-client"
        );
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", self.url()))
            .args(args)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "{args:?}: {}",
            text(&output.stderr)
        );
        text(&output.stdout)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn is_installed(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// A loopback address where etcd's usual ports are free. Addresses are many, and nobody is given one at random by the
/// system, as ports are: it is still free after a restart.
pub(super) fn free_address() -> Ipv4Addr {
    for _ in 0..ADDRESS_ATTEMPTS_MAX {
        let [a, b, c] = secret::random_bytes::<3>().unwrap();
        let address = Ipv4Addr::new(127, a.max(1), b, c.clamp(1, 254));
        let is_free = |port| TcpListener::bind((address, port)).is_ok();
        if is_free(CLIENT_PORT) && is_free(PEER_PORT) {
            return address;
        }
    }
    panic!("no free loopback address")
}
