//! The reference of queries: a PostgreSQL with the same databases, labels as `jsonb` under a GIN index.
//!
//! Its settings are PostgreSQL's own but for memory, which it gets plenty of, and for what would disturb: nothing is
//! vacuumed while it is measured. It is asked over its unix socket, as the auth service is, with prepared statements that
//! hold their values, so that each was planned for them.

mod client;

use std::{
    ffi::OsStr,
    fs,
    io::Write,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Stdio,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use bytes::{BufMut, BytesMut};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, User, geteuid},
};
use prost::Message;
use tidegate_e2e::{lab, wait};
use tidegate_proto::v1;
use tokio::process::{Child, Command};

pub(super) use client::{Client, Row};

const SUPERUSER: &str = "bench";
const SETTINGS: [&str; 14] = [
    "listen_addresses=",
    "max_connections=20",
    "shared_buffers=2GB",
    "effective_cache_size=8GB",
    "maintenance_work_mem=1GB",
    "random_page_cost=1.1",
    "max_wal_size=16GB",
    "wal_level=minimal",
    "max_wal_senders=0",
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "autovacuum=off",
    "logging_collector=off",
];
const TABLE: &str =
    "CREATE TABLE databases (name text PRIMARY KEY, labels jsonb NOT NULL, body bytea NOT NULL)";
/// After the rows are there: the index, statistics, and nothing left to tidy up.
const FINISH: [&str; 2] = [
    "CREATE INDEX ON databases USING gin (labels jsonb_path_ops)",
    "VACUUM (FREEZE, ANALYZE) databases",
];
const COPY: &str = "COPY databases (name, labels, body) FROM STDIN (FORMAT binary)";

/// A running server.
pub(super) struct Postgres {
    child: Child,
    dir: PathBuf,
}

impl Postgres {
    /// Starts an empty one, in a folder of its own.
    pub(super) async fn start(parent: &Path) -> Result<Self> {
        let dir = parent.join("reference");
        fs::create_dir(&dir)?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
        let data = dir.join("data");
        // PostgreSQL refuses to run as root.
        let owner = if geteuid().is_root() {
            let find = |name| User::from_name(name).ok().flatten();
            Some(
                find("postgres")
                    .or_else(|| find("nobody"))
                    .context("no user to run PostgreSQL as")?,
            )
        } else {
            None
        };
        if let Some(owner) = &owner {
            chown(&dir, Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))?;
        }
        let command = |program: &str| -> Result<Command> {
            let mut command = Command::new(lab::postgres_program(program)?);
            command
                .current_dir(&dir)
                .env("LC_ALL", "C")
                .env("TZ", "UTC");
            command.stdin(Stdio::null());
            if let Some(owner) = &owner {
                command.uid(owner.uid.as_raw()).gid(owner.gid.as_raw());
            }
            Ok(command)
        };
        let made = command("initdb")?
            .args([OsStr::new("-D"), data.as_os_str()])
            .args([
                "-U",
                SUPERUSER,
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C",
                "--no-sync",
            ])
            .kill_on_drop(true)
            .output()
            .await?;
        ensure!(
            made.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let log = fs::File::create(parent.join("reference.log"))?;
        let mut server = command("postgres")?;
        server.arg("-D").arg(&data);
        for setting in SETTINGS {
            server.args(["-c", setting]);
        }
        server
            .arg("-c")
            .arg(format!("unix_socket_directories={}", dir.display()));
        let child = server.stdout(log.try_clone()?).stderr(log).spawn()?;
        let server = Self { child, dir };
        wait::until("PostgreSQL", || server.connect()).await?;
        Ok(server)
    }

    /// A connection.
    pub(super) async fn connect(&self) -> Result<Client> {
        Client::connect(&self.dir.join(".s.PGSQL.5432"), SUPERUSER, "postgres").await
    }

    /// Stops it; sessions are cut.
    pub(super) async fn stop(mut self) -> Result<()> {
        if let Some(id) = self.child.id() {
            kill(Pid::from_raw(i32::try_from(id)?), Signal::SIGINT)?;
        }
        let status = self.child.wait().await?;
        fs::remove_dir_all(&self.dir)?;
        ensure!(status.success(), "PostgreSQL ended with {status}");
        Ok(())
    }
}

impl Drop for Postgres {
    /// Ends a server that nobody stopped, in PostgreSQL's own way: killed it would leave shared memory behind.
    fn drop(&mut self) {
        if let Some(id) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
            let _ = kill(Pid::from_raw(id), Signal::SIGQUIT);
        }
    }
}

/// The table, while it is filled.
pub(super) struct Filling {
    client: Client,
    rows: BytesMut,
    started: Instant,
}

impl Filling {
    /// Makes the table.
    pub(super) async fn start(mut client: Client) -> Result<Self> {
        client.run(TABLE).await?;
        client.copy_in(COPY).await?;
        let mut rows = BytesMut::from(&b"PGCOPY\n\xff\r\n\0"[..]);
        rows.put_u64(0);
        Ok(Self {
            client,
            rows,
            started: Instant::now(),
        })
    }

    /// Adds databases. Labels are in their own column and nowhere else.
    pub(super) async fn add(&mut self, databases: Vec<v1::Database>) -> Result<()> {
        for mut database in databases {
            let labels = serde_json::to_vec(&std::mem::take(&mut database.labels))?;
            let name = std::mem::take(&mut database.name);
            self.rows.put_i16(3);
            self.field(&[name.as_bytes()])?;
            // `jsonb` travels as its text after a version.
            self.field(&[&[1], &labels])?;
            self.field(&[&database.encode_to_vec()])?;
        }
        self.client.copy_data(self.rows.split().freeze()).await
    }

    fn field(&mut self, parts: &[&[u8]]) -> Result<()> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        self.rows.put_i32(i32::try_from(length)?);
        parts.iter().for_each(|part| self.rows.put_slice(part));
        Ok(())
    }

    /// Indexes what was added; the connection, for queries.
    pub(super) async fn finish(mut self) -> Result<Client> {
        self.rows.put_i16(-1);
        self.client.copy_data(self.rows.split().freeze()).await?;
        self.client.copy_done().await?;
        for statement in FINISH {
            self.client.run(statement).await?;
        }
        let sizes = "SELECT pg_table_size('databases'), pg_indexes_size('databases')";
        let sizes = self.client.texts(sizes).await?;
        let seconds = self.started.elapsed().as_secs_f64();
        let mut told = std::io::stderr().lock();
        writeln!(
            told,
            "filled PostgreSQL in {seconds:.1} s; bytes of table and indexes: {sizes:?}"
        )?;
        drop(told);
        Ok(self.client)
    }
}
