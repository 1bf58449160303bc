//! Checks against a real MariaDB, and what they do to its counters.
//!
//! The server reaches its own conclusions about hosts, and takes connections from 127.0.0.1 for its own; so checks come
//! through a forwarder that connects from another loopback address.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tidegate_core::{Database, Protocol, TlsMode, TlsSettings};
use tidegate_identity::{CaKind, CertificateAuthority, KeyPair};
use tidegate_service::metrics::Metrics;
use tokio::{
    io::{AsyncReadExt, copy_bidirectional},
    net::{TcpListener, TcpSocket, TcpStream},
};

use super::{probe::Prober, state::Passed};
use crate::{engine::Connector, metrics::ServiceMetrics, testing::redshift};

/// The server's `max_connect_errors`.
const ERRORS_MAX: usize = 4;
/// Where the server sees checks come from.
const HOST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);
const PATIENCE: Duration = Duration::from_secs(30);
const TTL: Duration = Duration::from_hours(1);
const START_MAX: Duration = Duration::from_secs(120);

/// A server that ends with this value.
struct Server {
    child: std::process::Child,
    dir: tempfile::TempDir,
    database: Database,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok(); // it may have ended already
        self.child.wait().ok();
    }
}

fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("`{name}` is not installed: run `cargo xtask test`"))
}

/// Who runs it: the one who runs the test, whom the server asks to confirm that it is root.
fn user() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    let name = String::from_utf8(output.stdout).unwrap();
    format!("--user={}", name.trim())
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

impl Server {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let cluster = "tg.test".parse().unwrap();
        let ca = CertificateAuthority::create(CaKind::Db, &cluster, Timestamp::now()).unwrap();
        let key = KeyPair::generate().unwrap();
        let issued = ca
            .issue_database_server(&key.public_key_der(), &cluster, Timestamp::now(), TTL)
            .unwrap();
        fs::write(at("cert.pem"), &issued.chain_pem).unwrap();
        fs::write(
            at("key.pem"),
            secrecy::ExposeSecret::expose_secret(&key.to_pem()),
        )
        .unwrap();
        let install = Command::new(program("mariadb-install-db"))
            .args(["--no-defaults", "--skip-test-db", &user()])
            .arg("--auth-root-authentication-method=normal")
            .arg(format!("--datadir={}", at("data").display()))
            .output()
            .unwrap();
        assert!(install.status.success(), "{install:?}");
        let port = free_port();
        let log = fs::File::create(at("log")).unwrap();
        let child = Command::new(program("mariadbd"))
            .args(["--no-defaults", "--bind-address=127.0.0.1", &user()])
            .arg(format!("--datadir={}", at("data").display()))
            .arg(format!("--socket={}", at("s").display()))
            .arg(format!("--port={port}"))
            .arg(format!("--max-connect-errors={ERRORS_MAX}"))
            .arg(format!("--ssl-cert={}", at("cert.pem").display()))
            .arg(format!("--ssl-key={}", at("key.pem").display()))
            .args(["--innodb-buffer-pool-size=16M", "--performance-schema=ON"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut database = redshift("orders", &[]);
        database.protocol = Protocol::Mysql;
        database.uri = listener.local_addr().unwrap().to_string().parse().unwrap();
        database.tls = TlsSettings {
            mode: TlsMode::VerifyFull,
            server_name: Some("orders.db.tg.test".to_owned()),
            ca_cert_pem: Some(ca.cert_pem().to_owned()),
            trust_system_pool: false,
        };
        tokio::spawn(forward(listener, (Ipv4Addr::LOCALHOST, port).into()));
        let server = Self {
            child,
            dir,
            database,
        };
        let begun = Instant::now();
        while !server.sql("SELECT 1").1 {
            let log = fs::read_to_string(server.dir.path().join("log")).unwrap();
            assert!(begun.elapsed() < START_MAX, "{log}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // A server greets hosts alone from which somebody may log in.
        let (_, made) = server.sql("CREATE USER 'reader'@'%' IDENTIFIED BY 'secret' REQUIRE SSL");
        assert!(made);
        server
    }

    /// What the server's administrator is told, and whether it went well.
    fn sql(&self, sql: &str) -> (String, bool) {
        let socket: &Path = &self.dir.path().join("s");
        let output = Command::new("mariadb")
            .args(["--no-defaults", "--user=root", "--batch"])
            .arg("--skip-column-names")
            .arg(format!("--socket={}", socket.display()))
            .args(["-e", sql])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        (said, output.status.success())
    }

    fn counter(&self, name: &str) -> usize {
        let (said, _) = self.sql(&format!("SHOW GLOBAL STATUS LIKE '{name}'"));
        let value = said.split('\t').nth(1).map(str::parse);
        value
            .unwrap_or_else(|| panic!("no `{name}`: {said}"))
            .unwrap()
    }

    /// Errors that the server holds against the host of the checks.
    fn held_against(&self) -> usize {
        let sql = format!(
            "SELECT COALESCE(SUM(sum_connect_errors), 0) FROM performance_schema.host_cache WHERE ip = '{HOST}'"
        );
        self.sql(&sql).0.parse().unwrap()
    }

    fn counters(&self) -> [usize; 3] {
        [
            "Aborted_connects",
            "Aborted_connects_preauth",
            "Access_denied_errors",
        ]
        .map(|name| self.counter(name))
    }

    async fn check(&self, times: usize) {
        let metrics = ServiceMetrics::register(&Metrics::new());
        let connector = Connector::new(metrics.connect_seconds.clone(), crate::testing::trust());
        let prober = Prober::new(connector.into(), metrics.health);
        for number in 0..times {
            let with_tls = number % 2 == 1;
            let checked = prober.check(&self.database, PATIENCE, with_tls).await;
            let passed = checked.unwrap_or_else(|failure| panic!("check {number}: {failure:?}"));
            assert_eq!(matches!(passed, Passed::Tls(_)), with_tls);
        }
    }

    /// What a client from the host of the checks hears first.
    async fn first_words(&self) -> Vec<u8> {
        let at = (self.database.uri.host(), self.database.uri.port());
        let mut stream = TcpStream::connect(at).await.unwrap();
        let mut words = vec![0; 512];
        let len = stream.read(&mut words).await.unwrap();
        words.truncate(len);
        words
    }
}

/// Connects clients to the server, from [`HOST`].
async fn forward(listener: TcpListener, server: SocketAddr) {
    while let Ok((mut client, _)) = listener.accept().await {
        tokio::spawn(async move {
            let socket = TcpSocket::new_v4()?;
            socket.bind((HOST, 0).into())?;
            let mut stream = socket.connect(server).await?;
            copy_bidirectional(&mut client, &mut stream).await
        });
    }
}

#[tokio::test]
async fn many_checks_neither_block_their_host_nor_count_as_broken_connections() {
    let server = Server::start().await;
    let before = server.counters();
    server.check(5 * ERRORS_MAX).await;
    let [aborted, preauth, denied] = server.counters();
    assert_eq!(preauth, before[1], "connections that broke off");
    assert_eq!(server.held_against(), 0);
    // What each of them does count as: somebody who was not let in.
    assert_eq!(
        [aborted - before[0], denied - before[2]],
        [5 * ERRORS_MAX; 2]
    );

    let (_, made) = server.sql("CREATE USER 'tidegate-health'@'%' WITH MAX_USER_CONNECTIONS 4");
    assert!(made);
    let before = server.counters();
    server.check(5 * ERRORS_MAX).await;
    assert_eq!(server.counters(), before, "where the checks' user exists");

    // The server is one that blocks: as many connections that break off are too many for it.
    for _ in 0..=ERRORS_MAX {
        server.first_words().await;
    }
    let words = server.first_words().await;
    let words = String::from_utf8_lossy(&words);
    assert!(words.contains("is blocked"), "{words}");
}
