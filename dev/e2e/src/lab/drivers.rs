//! Stock drivers of other languages, and the programs of `drivers/` that walk through what each can do.
//!
//! What Debian has no package of is installed by `cargo xtask test` beside what cargo builds (`dev/xtask/src/drivers.rs`).
//! Every program takes the options of MySQL's own clients, so that `tg db connect` can start it in a client's place.

use std::{
    net::IpAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use super::{Lab, Person, programs::Names, words};

/// How long a driver's program may take, on a machine that does other things too.
const WALK_MAX: Duration = Duration::from_secs(180);

/// Where Debian puts MariaDB Connector/J, and what it reaches sockets in files with.
const JARS: &str = "/usr/share/java/mariadb-java-client.jar:/usr/share/java/jna.jar";

/// A driver that is not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// MariaDB Connector/J.
    ConnectorJ,
    /// MySQL Connector/Python.
    ConnectorPython,
    /// DBD::MariaDB for Perl, over MariaDB Connector/C.
    DbdMariadb,
    /// mysql2 for Node.js.
    Mysql2,
    /// PyMySQL.
    PyMysql,
}

impl Driver {
    /// What starts its program, up to the program's own arguments.
    fn starts(self) -> Result<Vec<String>> {
        let program = |file: &str| {
            let file = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("drivers")
                .join(file);
            file.display().to_string()
        };
        let python = || -> Result<String> { Ok(text(&installed("python/bin/python")?)) };
        Ok(match self {
            Self::ConnectorJ => vec![
                "java".to_owned(),
                "-cp".to_owned(),
                JARS.to_owned(),
                program("ConnectorJ.java"),
            ],
            Self::ConnectorPython => vec![python()?, program("connector_python_steps.py")],
            Self::DbdMariadb => vec!["perl".to_owned(), program("dbd_mariadb_steps.pl")],
            Self::Mysql2 => vec![
                "env".to_owned(),
                format!("NODE_DRIVERS={}", text(&installed("node")?)),
                "node".to_owned(),
                program("mysql2_steps.mjs"),
            ],
            Self::PyMysql => vec![python()?, program("pymysql_steps.py")],
        })
    }
}

/// What a driver's program said, step by step.
#[derive(Debug)]
pub struct Walked {
    /// Steps that passed.
    pub passed: Vec<String>,
    /// The rest of what was said: steps that did not, and whatever broke the program.
    pub failed: Vec<String>,
}

impl Walked {
    fn read(output: &std::process::Output) -> Self {
        let said = String::from_utf8_lossy(&output.stdout);
        let passed = said.lines().filter_map(|line| line.strip_prefix("ok "));
        let mut failed: Vec<String> = said
            .lines()
            .filter(|line| !line.starts_with("ok "))
            .map(str::to_owned)
            .collect();
        if !output.status.success() {
            failed.push(words(output));
        }
        Self {
            passed: passed.map(str::to_owned).collect(),
            failed,
        }
    }
}

impl Lab {
    /// Has `tg db connect` start a driver's program as if it were MySQL's client.
    ///
    /// # Errors
    ///
    /// When the driver is not installed, or `tg` is not there.
    pub async fn walk_tunnel(
        &self,
        driver: Driver,
        person: &Person,
        connect: &[&str],
        more: &[String],
    ) -> Result<Walked> {
        let folder = self.dir().join(format!("as-client-{driver:?}"));
        std::fs::create_dir_all(&folder)?;
        let client = folder.join("mysql");
        let start = driver.starts()?.join("' '");
        std::fs::write(&client, format!("#!/bin/sh\nexec '{start}' \"$@\"\n"))?;
        std::fs::set_permissions(&client, std::fs::Permissions::from_mode(0o755))?;
        let mut args: Vec<&str> = ["db", "connect"].iter().chain(connect).copied().collect();
        args.push("--");
        args.extend(more.iter().map(String::as_str));
        let path = std::env::var("PATH").unwrap_or_default();
        let mut tg = self.tg_command(person, &args)?;
        tg.env("PATH", format!("{}:{path}", folder.display()));
        finished(tg).await
    }

    /// Runs a driver's program where `host` is `address`.
    ///
    /// # Errors
    ///
    /// When the driver is not installed.
    pub async fn walk_port(
        &self,
        driver: Driver,
        (host, address): (&str, IpAddr),
        more: &[String],
    ) -> Result<Walked> {
        let hosts = self.dir().join("hosts-of-people");
        std::fs::write(&hosts, format!("127.0.0.1 localhost\n{address} {host}\n"))?;
        let mut command = self.names.command(&hosts)?;
        command.args(driver.starts()?).args(more);
        finished(command).await
    }
}

async fn finished(mut command: Command) -> Result<Walked> {
    let output = tokio::time::timeout(WALK_MAX, command.output()).await;
    let output = output.with_context(|| format!("it hangs: {command:?}"))??;
    Ok(Walked::read(&output))
}

impl Names {
    /// A command that goes on with another, which finds the names of this file.
    fn command(self, hosts: &Path) -> Result<Command> {
        let mut command = match self {
            Self::Namespace => {
                let mount = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
                let mut command = Command::new("unshare");
                command
                    .args(["--mount", "--", "sh", "-c", mount])
                    .arg(hosts);
                command
            }
            Self::Preload => {
                let mut command = Command::new("env");
                command
                    .env("LD_PRELOAD", super::programs::nss_wrapper()?)
                    .env("NSS_WRAPPER_HOSTS", hosts);
                command
            }
        };
        command.kill_on_drop(true);
        Ok(command)
    }
}

/// Something that `cargo xtask test` installed beside what cargo builds.
fn installed(name: &str) -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    let target = here.ancestors().find(|dir| dir.join("drivers").is_dir());
    let found = target
        .map(|target| target.join("drivers").join(name))
        .context("the drivers are not installed: run `cargo xtask drivers`")?;
    ensure!(
        found.exists(),
        "{} is not there: run `cargo xtask drivers`",
        found.display()
    );
    Ok(found)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
