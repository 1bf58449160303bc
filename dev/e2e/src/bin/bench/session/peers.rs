//! What sessions are measured beside: `PgBouncer`, one hop that ends TLS on both sides, and two HAProxy in a chain that
//! pass bytes on without reading them.

use std::{
    collections::BTreeMap, net::TcpListener, os::unix::fs::PermissionsExt, path::Path,
    path::PathBuf,
};

use anyhow::{Context, Result};
use jiff::Timestamp;
use nix::unistd::geteuid;
use secrecy::ExposeSecret;
use tidegate_e2e::{Lab, Process, wait};
use tidegate_identity::{CaKind, CertificateAuthority, HOST_CERT_TTL, KeyPair};

use super::stock::Way;
use crate::usage;

/// The user that PgBouncer runs as when we are root, which it refuses to be.
const UNPRIVILEGED: &str = "postgres";

/// Another way to the measured database.
pub(super) struct Peer {
    processes: Vec<Process>,
    pub(super) way: Way,
}

impl Peer {
    /// CPU seconds of its processes so far.
    pub(super) fn cpu_seconds(&self) -> Result<f64> {
        self.processes
            .iter()
            .map(|process| usage::cpu_seconds(process.id().context("a peer is gone")?))
            .sum()
    }

    pub(super) async fn stop(self) -> Result<()> {
        // HAProxy ends a signal to stop with that signal's status, and what a peer says at its end does not matter.
        for process in self.processes {
            process.kill().await?;
        }
        Ok(())
    }

    /// Two HAProxy processes, the first in front of the second, in front of the database. TLS is the client's and the
    /// database's.
    pub(super) async fn two_haproxies(lab: &Lab, direct: &Way) -> Result<Self> {
        let mut to = (fact(direct, "PGHOSTADDR")?, fact(direct, "PGPORT")?);
        let mut processes = Vec::new();
        for name in ["haproxy-near-database", "haproxy-near-client"] {
            let port = free_port()?;
            let config = lab.dir().join(format!("{name}.cfg"));
            std::fs::write(&config, pass_through(port, &to))?;
            let args = ["-db", "-f", utf8(&config)?];
            let program = system_program("haproxy")?;
            let process = Process::start(name, &program, &args, &BTreeMap::new(), lab.dir())?;
            processes.push(process);
            to = ("127.0.0.1".to_owned(), port.to_string());
            listens(name, port).await?;
        }
        Ok(Self {
            processes,
            way: direct.clone().into_iter().chain(at(&to)).collect(),
        })
    }

    /// One PgBouncer whose clients keep their server for the session. It asks for TLS on both sides, and for a password.
    pub(super) async fn pgbouncer(lab: &Lab, direct: &Way) -> Result<Self> {
        let folder = lab.dir().join("pgbouncer");
        std::fs::create_dir(&folder)?;
        let port = free_port()?;
        let cluster = "pgbouncer.example.com".parse()?;
        let now = Timestamp::now();
        let ca = CertificateAuthority::create(CaKind::Db, &cluster, now)?;
        let key = KeyPair::generate()?;
        let issued =
            ca.issue_database_server(&key.public_key_der(), &cluster, now, HOST_CERT_TTL)?;
        let (user, password) = (fact(direct, "PGUSER")?, fact(direct, "PGPASSWORD")?);
        let write = |name: &str, text: &str| -> Result<PathBuf> {
            let file = folder.join(name);
            std::fs::write(&file, text)?;
            // Of this run alone, and read by another user than ours when we are root.
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644))?;
            Ok(file)
        };
        let certificate = write("server.pem", &issued.chain_pem)?;
        let key = write("server.key", key.to_pem().expose_secret())?;
        let users = write("users.txt", &format!("\"{user}\" \"{password}\"\n"))?;
        let text = format!(
            "[databases]\n{database} = host={host} port={server_port} dbname={database}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = scram-sha-256\nauth_file = {users}\npool_mode = session\n\
             max_client_conn = 1000\ndefault_pool_size = 200\n\
             client_tls_sslmode = require\nclient_tls_cert_file = {certificate}\nclient_tls_key_file = {key}\n\
             server_tls_sslmode = verify-ca\nserver_tls_ca_file = {ca}\n\
             log_connections = 0\nlog_disconnections = 0\n",
            database = fact(direct, "PGDATABASE")?,
            host = fact(direct, "PGHOSTADDR")?,
            server_port = fact(direct, "PGPORT")?,
            users = users.display(),
            certificate = certificate.display(),
            key = key.display(),
            ca = fact(direct, "PGSSLROOTCERT")?,
        );
        let config = write("pgbouncer.ini", &text)?;
        let config = utf8(&config)?;
        let args: &[&str] = if geteuid().is_root() {
            &["-u", UNPRIVILEGED, config]
        } else {
            &[config]
        };
        let program = system_program("pgbouncer")?;
        let process = Process::start("pgbouncer", &program, args, &BTreeMap::new(), lab.dir())?;
        listens("pgbouncer", port).await?;
        let to = ("127.0.0.1".to_owned(), port.to_string());
        let mut way: Way = direct.clone().into_iter().chain(at(&to)).collect();
        way.insert("PGSSLMODE".to_owned(), "require".to_owned());
        way.remove("PGSSLROOTCERT");
        way.remove("PGHOST");
        Ok(Self {
            processes: vec![process],
            way,
        })
    }
}

/// What a libpq program needs to go to another address; the host's name stays, which certificates are checked for.
fn at((address, port): &(String, String)) -> [(String, String); 2] {
    [
        ("PGHOSTADDR".to_owned(), address.clone()),
        ("PGPORT".to_owned(), port.clone()),
    ]
}

fn pass_through(port: u16, (address, to_port): &(String, String)) -> String {
    format!(
        "global\n    maxconn 4096\n\
         defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 1h\n    timeout server 1h\n\
         listen bench\n    bind 127.0.0.1:{port}\n    server database {address}:{to_port}\n"
    )
}

fn fact(way: &Way, name: &str) -> Result<String> {
    way.get(name)
        .cloned()
        .with_context(|| format!("the way has no {name}"))
}

fn utf8(path: &Path) -> Result<&str> {
    path.to_str().context("a temporary folder with an odd name")
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

async fn listens(name: &str, port: u16) -> Result<()> {
    wait::until(name, || tokio::net::TcpStream::connect(("127.0.0.1", port))).await?;
    Ok(())
}

/// A program of the system, also where only administrators look for them.
fn system_program(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .with_context(|| format!("`{name}` is not installed"))
}
