//! A process of the laboratory: its log goes to a file, and it ends when its owner does.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

/// How long a process may take to stop when asked to.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// A running process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program; `environment` is all that it sees beside `PATH` and `HOME`.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn start(
        name: &str,
        program: &Path,
        args: &[&str],
        environment: &BTreeMap<String, String>,
        dir: &Path,
    ) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log)?;
        let child = Command::new(program)
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", dir)
            .envs(environment)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("could not start {}", program.display()))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// Its process id; `None` once it has ended.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// What it has written so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends SIGHUP.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub fn hang_up(&self) -> Result<()> {
        self.signal(Signal::SIGHUP)
    }

    /// Asks it to stop and waits until it has.
    ///
    /// # Errors
    ///
    /// When it ends with an error, or does not end and has to be killed.
    pub async fn stop(mut self) -> Result<()> {
        self.signal(Signal::SIGTERM)?;
        match timeout(STOP_PATIENCE, self.child.wait()).await {
            Ok(status) if status.as_ref().is_ok_and(std::process::ExitStatus::success) => Ok(()),
            Ok(status) => anyhow::bail!(
                "{} ended with {:?}; its log:\n{}",
                self.name,
                status,
                self.log()
            ),
            Err(_) => {
                self.child.kill().await?;
                anyhow::bail!(
                    "{} did not stop within {} s; its log:\n{}",
                    self.name,
                    STOP_PATIENCE.as_secs(),
                    self.log()
                )
            }
        }
    }

    /// Kills it without warning, as a crash would.
    ///
    /// # Errors
    ///
    /// When the signal cannot be sent.
    pub async fn kill(mut self) -> Result<()> {
        self.child.kill().await?;
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let Some(id) = self.child.id() else {
            return Ok(());
        };
        kill(Pid::from_raw(i32::try_from(id)?), signal).context("could not send a signal")
    }
}
