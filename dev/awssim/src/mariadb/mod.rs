//! Runs a real MariaDB server that plays an RDS database of MySQL or MariaDB.
//!
//! Each database has a server of its own, since clients may open any logical database of a server. It listens on a
//! socket alone and trusts it; the front asks for the tokens. As with PostgreSQL ([`crate::postgres`]) a shell holds a
//! pipe from this process and ends the server when that closes, and run by root everything is done as another user.

pub(crate) mod client;
pub(crate) mod wire;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Child;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use self::client::{Client, SqlError};
use crate::postgres::{Home, PostgresError, io_error};

/// The server's own administrator.
const ROOT: &str = "root";
/// How long a server may take to start.
const START_MAX: Duration = Duration::from_secs(120);
/// Between two looks whether the server accepts connections.
const START_POLL: Duration = Duration::from_millis(50);
/// How long a server may take to end.
const STOP_MAX: Duration = Duration::from_secs(30);
/// How much of the server's log an error shows, in bytes.
const LOG_TAIL_BYTES: usize = 2_000;
/// Where distributions put programs that are not on everybody's `PATH`.
const ELSEWHERE: [&str; 2] = ["/usr/sbin", "/usr/libexec"];

/// Starts `"$@"`, and kills it when standard input ends: its data is worth nothing then.
const GUARD: &str = r#"
exec 3<&0 </dev/null
"$@" 3<&- &
server=$!
(read -r _ <&3; kill -KILL "$server") 2>/dev/null &
guard=$!
exec 3<&-
wait "$server" 2>/dev/null
code=$?
kill "$guard" 2>/dev/null
exit "$code"
"#;

/// Why MariaDB could not be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MariadbError {
    /// No server was found.
    #[error(
        "found no MariaDB server (`mariadbd` and `mariadb-install-db`); install it (Debian, Ubuntu: apt-get install \
         mariadb-server)"
    )]
    Absent,
    /// A program ended with an error.
    #[error("{program} failed: {output}")]
    Failed {
        /// Which program.
        program: &'static str,
        /// The end of what it wrote.
        output: String,
    },
    /// A file or process operation failed.
    #[error(transparent)]
    Home(#[from] PostgresError),
    /// A statement failed.
    #[error("SQL failed: {0}")]
    Sql(String),
    /// The server did not accept connections in time.
    #[error("MariaDB did not start within {} s: {output}", START_MAX.as_secs())]
    Timeout {
        /// The end of its log.
        output: String,
    },
}

impl From<SqlError> for MariadbError {
    fn from(error: SqlError) -> Self {
        Self::Sql(crate::error_chain(&error))
    }
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Mariadb {
    socket: PathBuf,
    child: Mutex<Option<Child>>,
    // Last: removes a temporary folder after the server's pipe is closed.
    _home: Home,
}

impl Mariadb {
    /// Makes the data folder if there is none, starts the server and waits until it answers.
    pub(crate) async fn start(home: Home) -> Result<Self, MariadbError> {
        let (server, install) = (find("mariadbd")?, find("mariadb-install-db")?);
        let data = home.path().join("data");
        if !data.join("mysql").exists() {
            install_db(&install, &home, &data).await?;
        }
        let socket = home.path().join("s");
        let log = home.path().join("mariadb.log");
        let child = spawn(&server, &home, &data, &socket, &log)?;
        let server = Self {
            socket,
            child: Mutex::new(Some(child)),
            _home: home,
        };
        server.wait_ready(&log).await?;
        Ok(server)
    }

    /// Path of the unix socket.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// A connection as administrator.
    pub(crate) async fn connect(&self) -> Result<Client, MariadbError> {
        Ok(Client::connect(&self.socket, ROOT).await?)
    }

    /// Makes sure that databases exist, and users who may do everything in them. A repeat changes nothing.
    pub(crate) async fn ensure(
        &self,
        databases: &[String],
        users: &BTreeSet<String>,
    ) -> Result<(), MariadbError> {
        let mut client = self.connect().await?;
        for database in databases {
            let sql = format!("CREATE DATABASE IF NOT EXISTS {}", ident(database));
            client.run(&sql).await?;
        }
        for user in users {
            let user = format!("{}@localhost", literal(user));
            let sql = format!(
                "CREATE USER IF NOT EXISTS {user} IDENTIFIED VIA mysql_native_password USING ''"
            );
            client.run(&sql).await?;
            for database in databases {
                let sql = format!("GRANT ALL ON {}.* TO {user}", ident(database));
                client.run(&sql).await?;
            }
        }
        Ok(())
    }

    /// Ends the server, and waits for it. A repeat does nothing.
    pub(crate) async fn stop(&self) {
        let Some(mut child) = self.child.lock().await.take() else {
            return;
        };
        drop(child.stdin.take());
        if timeout(STOP_MAX, child.wait()).await.is_err() {
            let killed = child.kill().await;
            tracing::warn!(?killed, "mariadbd did not end in time; killed its guard");
        }
    }

    async fn wait_ready(&self, log: &Path) -> Result<(), MariadbError> {
        let polls = START_MAX.as_millis() / START_POLL.as_millis();
        for _ in 0..polls {
            if self.connect().await.is_ok() {
                return Ok(());
            }
            let ended = match self.child.lock().await.as_mut() {
                Some(child) => child.try_wait().is_ok_and(|status| status.is_some()),
                None => true,
            };
            if ended {
                return Err(MariadbError::Failed {
                    program: "mariadbd",
                    output: tail(log),
                });
            }
            sleep(START_POLL).await;
        }
        Err(MariadbError::Timeout { output: tail(log) })
    }
}

fn find(program: &str) -> Result<PathBuf, MariadbError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let elsewhere = ELSEWHERE.iter().map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(elsewhere)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
        .ok_or(MariadbError::Absent)
}

async fn install_db(install: &Path, home: &Home, data: &Path) -> Result<(), MariadbError> {
    let mut command = home.command(install);
    command
        .arg("--no-defaults")
        .arg(format!("--datadir={}", data.display()))
        .args(["--auth-root-authentication-method=normal", "--skip-test-db"])
        .args(["--skip-name-resolve", "--innodb-log-file-size=8M"])
        .stdin(Stdio::null());
    let output = command
        .output()
        .await
        .map_err(|e| io_error("run mariadb-install-db", e))?;
    if output.status.success() {
        return Ok(());
    }
    let written = [output.stdout, output.stderr].concat();
    Err(MariadbError::Failed {
        program: "mariadb-install-db",
        output: String::from_utf8_lossy(&written).trim().to_owned(),
    })
}

fn spawn(
    server: &Path,
    home: &Home,
    data: &Path,
    socket: &Path,
    log: &Path,
) -> Result<Child, MariadbError> {
    let to_log = || File::options().append(true).open(log);
    let (out, err) = File::create(log)
        .and_then(|_| to_log())
        .and_then(|out| Ok((out, to_log()?)))
        .map_err(|e| io_error("open the log of mariadbd", e))?;
    let mut command = home.command("/bin/sh");
    command
        .args(["-c", GUARD, "awssim-mariadb"])
        .arg(server)
        .arg("--no-defaults")
        .arg(format!("--datadir={}", data.display()))
        .arg(format!("--socket={}", socket.display()))
        .args([
            "--skip-networking",
            "--skip-name-resolve",
            "--local-infile=1",
            // As RDS for MySQL 8.0 has it; MariaDB's own default is 16 MiB.
            "--max-allowed-packet=64M",
        ])
        .args([
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-log-file-size=8M",
        ])
        .args(["--innodb-buffer-pool-size=32M", "--performance-schema=OFF"])
        .arg(format!("--pid-file={}", home.path().join("pid").display()))
        .stdin(Stdio::piped())
        .stdout(out)
        .stderr(err)
        .process_group(0);
    command
        .spawn()
        .map_err(|e| io_error("start mariadbd", e).into())
}

fn tail(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let from = bytes.len().saturating_sub(LOG_TAIL_BYTES);
    String::from_utf8_lossy(&bytes[from..]).trim().to_owned()
}

fn ident(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', r"\\").replace('\'', "''"))
}
