//! Runs a real PostgreSQL server that plays the databases.
//!
//! The server is started by a few lines of shell that hold a pipe from this process: when the
//! pipe closes, because [`Postgres::stop`] closed it or because this process died in whatever way,
//! the shell stops the server. So no server outlives its simulation. Run by root, everything is
//! done as the user `postgres` (or `nobody`), since PostgreSQL refuses root.
//!
//! Not here: what is in the databases ([`crate::fleet`]).

mod home;
pub(crate) mod sql;

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

pub(crate) use home::{Home, find_binaries};
use sql::Client;

use crate::world::PasswordEncryption;

/// The simulation's own superuser; no database user can have this name.
pub(crate) const SUPERUSER: &str = "awssim:superuser";
/// How long a server may take to start.
const START_MAX: Duration = Duration::from_secs(120);
/// Between two looks whether the server accepts connections.
const START_POLL: Duration = Duration::from_millis(50);
/// How long a server may take to stop before it is killed.
const STOP_MAX: Duration = Duration::from_secs(30);
/// How much of the server's log an error shows, in bytes.
const LOG_TAIL_BYTES: usize = 2_000;

/// Starts `"$@"`, and interrupts it when standard input ends.
const GUARD: &str = r#"
exec 3<&0 </dev/null
"$@" 3<&- &
server=$!
(read -r _ <&3; kill -INT "$server") 2>/dev/null &
guard=$!
exec 3<&-
wait "$server"
code=$?
kill "$guard" 2>/dev/null
exit "$code"
"#;

/// Why PostgreSQL could not be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostgresError {
    /// No server binaries were found.
    #[error(
        "found no PostgreSQL server (`initdb` and `postgres`) in {looked}; install it (Debian, \
         Ubuntu: apt-get install postgresql) or name its folder with --pg-bin-dir"
    )]
    Absent {
        /// Where was looked.
        looked: String,
    },
    /// Somebody else listens where a native cluster's server should.
    #[error("the address of a native cluster is taken: {output}")]
    AddressTaken {
        /// The end of the server's log.
        output: String,
    },
    /// `initdb` or `postgres` ended with an error.
    #[error("{program} failed: {output}")]
    Failed {
        /// Which program.
        program: &'static str,
        /// The end of what it wrote.
        output: String,
    },
    /// A file or process operation failed.
    #[error("could not {what}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system says.
        source: io::Error,
    },
    /// The process runs as root and there is no user to give the server to.
    #[error(
        "run by root, but there is neither a user `postgres` nor `nobody` to run PostgreSQL as"
    )]
    NoUser,
    /// A statement failed.
    #[error("SQL failed: {0}")]
    Sql(#[from] sql::SqlError),
    /// The server did not accept connections in time.
    #[error("PostgreSQL did not start within {} s: {output}", START_MAX.as_secs())]
    Timeout {
        /// The end of its log.
        output: String,
    },
}

/// A TLS listener of a native cluster.
pub(crate) struct Tcp {
    pub(crate) address: Ipv4Addr,
    pub(crate) port: u16,
    pub(crate) cert_pem: String,
    pub(crate) key_pem: String,
    pub(crate) passwords: PasswordEncryption,
    /// Keeps others from taking the address until the server is about to bind it.
    pub(crate) reserved: Option<TcpListener>,
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Postgres {
    socket: PathBuf,
    child: Mutex<Option<Child>>,
    // Last: removes a temporary folder after the server's pipe is closed.
    home: Home,
}

impl Postgres {
    /// Makes the data folder if there is none, starts the server and waits until it answers.
    pub(crate) async fn start(
        binaries: &Path,
        home: Home,
        tcp: Option<Tcp>,
    ) -> Result<Self, PostgresError> {
        let data = home.path().join("data");
        if !data.join("PG_VERSION").exists() {
            initdb(binaries, &home, &data).await?;
        }
        let mut settings = settings(&home, tcp.is_some());
        let mut hba = "local all all trust\n".to_owned();
        if let Some(tcp) = &tcp {
            for (name, pem) in [("server.crt", &tcp.cert_pem), ("server.key", &tcp.key_pem)] {
                home.write_private(&data.join(name), pem)?;
            }
            let method = tcp.passwords.as_str();
            hba.push_str(&format!("hostssl all all 127.0.0.0/8 {method}\n"));
            settings.extend([
                ("listen_addresses", tcp.address.to_string()),
                ("port", tcp.port.to_string()),
                ("ssl", "on".to_owned()),
                ("password_encryption", method.to_owned()),
            ]);
        }
        home.write_private(&data.join("pg_hba.conf"), &hba)?;
        let port = settings
            .iter()
            .rev()
            .find(|(name, _)| *name == "port")
            .map(|(_, port)| port);
        let socket = home
            .path()
            .join(format!(".s.PGSQL.{}", port.map_or("5432", String::as_str)));
        let log = home.path().join("postgres.log");
        drop(tcp.and_then(|tcp| tcp.reserved));
        let child = spawn(binaries, &home, &data, &settings, &log)?;
        let server = Self {
            socket,
            child: Mutex::new(Some(child)),
            home,
        };
        server.wait_ready(&log).await?;
        let template = server.connect("template1").await?;
        template
            .run_once("GRANT ALL ON SCHEMA public TO PUBLIC")
            .await?;
        Ok(server)
    }

    /// Path of the unix socket.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// The server's folder.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// A connection as superuser.
    pub(crate) async fn connect(&self, database: &str) -> Result<Client, PostgresError> {
        Ok(Client::connect(&self.socket, SUPERUSER, database).await?)
    }

    /// Stops the server at once, rolling back what runs, and waits for its end. A repeat does
    /// nothing.
    pub(crate) async fn stop(&self) {
        let Some(mut child) = self.child.lock().await.take() else {
            return;
        };
        drop(child.stdin.take());
        match timeout(STOP_MAX, child.wait()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "could not wait for postgres"),
            Err(_) => {
                tracing::warn!("postgres did not stop in time; killing its guard");
                let killed = child.kill().await;
                tracing::warn!(?killed, "killed the guard of postgres");
            }
        }
    }

    async fn wait_ready(&self, log: &Path) -> Result<(), PostgresError> {
        let polls = START_MAX.as_millis() / START_POLL.as_millis();
        for _ in 0..polls {
            if self.connect("template1").await.is_ok() {
                return Ok(());
            }
            let ended = match self.child.lock().await.as_mut() {
                Some(child) => child.try_wait().is_ok_and(|status| status.is_some()),
                None => true,
            };
            if ended {
                return Err(start_error(tail(log)));
            }
            sleep(START_POLL).await;
        }
        Err(PostgresError::Timeout { output: tail(log) })
    }
}

async fn initdb(binaries: &Path, home: &Home, data: &Path) -> Result<(), PostgresError> {
    let mut command = home.command(binaries.join("initdb"));
    command
        .arg("-D")
        .arg(data)
        .args(["-U", SUPERUSER, "-A", "trust", "-E", "UTF8"]);
    command
        .args(["--locale=C", "--no-sync", "--no-instructions"])
        .stdin(Stdio::null());
    let output = command
        .output()
        .await
        .map_err(|e| io_error("run initdb", e))?;
    if output.status.success() {
        return Ok(());
    }
    let written = String::from_utf8_lossy(&output.stderr);
    Err(PostgresError::Failed {
        program: "initdb",
        output: written.trim().to_owned(),
    })
}

fn settings(home: &Home, native: bool) -> Vec<(&'static str, String)> {
    let (connections, buffers) = if native {
        ("400", "256MB")
    } else {
        ("300", "64MB")
    };
    vec![
        ("listen_addresses", String::new()),
        ("port", "5432".to_owned()),
        ("unix_socket_directories", home.path().display().to_string()),
        ("unix_socket_permissions", "0700".to_owned()),
        ("max_connections", connections.to_owned()),
        ("shared_buffers", buffers.to_owned()),
        ("fsync", "off".to_owned()),
        ("synchronous_commit", "off".to_owned()),
        ("full_page_writes", "off".to_owned()),
    ]
}

fn spawn(
    binaries: &Path,
    home: &Home,
    data: &Path,
    settings: &[(&str, String)],
    log: &Path,
) -> Result<Child, PostgresError> {
    let to_log = || File::options().append(true).open(log);
    let (out, err) = File::create(log)
        .and_then(|_| to_log())
        .and_then(|out| Ok((out, to_log()?)))
        .map_err(|e| io_error("open the log of postgres", e))?;
    let mut command: Command = home.command(Path::new("/bin/sh"));
    command
        .args(["-c", GUARD, "awssim-postgres"])
        .arg(binaries.join("postgres"));
    command.arg("-D").arg(data);
    for (name, value) in settings {
        command.arg("-c").arg(format!("{name}={value}"));
    }
    command
        .stdin(Stdio::piped())
        .stdout(out)
        .stderr(err)
        .process_group(0);
    command.spawn().map_err(|e| io_error("start postgres", e))
}

fn start_error(output: String) -> PostgresError {
    if output.contains("Address already in use") {
        return PostgresError::AddressTaken { output };
    }
    PostgresError::Failed {
        program: "postgres",
        output,
    }
}

fn tail(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let from = bytes.len().saturating_sub(LOG_TAIL_BYTES);
    String::from_utf8_lossy(&bytes[from..]).trim().to_owned()
}

pub(crate) fn io_error(what: impl Into<String>, source: io::Error) -> PostgresError {
    PostgresError::Io {
        what: what.into(),
        source,
    }
}
