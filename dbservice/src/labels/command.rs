//! Runs one command for a label: no shell, a bounded time, a bounded output.
//!
//! Invariant: whatever the command started in its own process group is killed when it takes too long, prints too much
//! or is no longer wanted; nothing of it outlives the run that gave up on it.

use std::{
    io,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::AsyncReadExt,
    process::{ChildStderr, ChildStdout, Command},
    time::timeout,
};

/// How long a command may run.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Longest value of a label, in bytes.
const VALUE_BYTES_MAX: usize = 1024;

/// What is read of the standard error output, for the log.
const STDERR_BYTES_MAX: u64 = 256;

/// Why a command gave no value. What it wrote itself is in the source only, which goes to the log of this host.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// There is no such program, or it may not be run.
    #[error("the command cannot be started")]
    CannotStart(#[source] io::Error),

    /// It says that it failed.
    #[error("the command ended with {status}")]
    Failed {
        status: ExitStatus,
        #[source]
        said: Said,
    },

    /// What it printed is no single line of text.
    #[error("the command printed something else than one line of text")]
    NotText,

    /// It still ran.
    #[error("the command took longer than {} s", TIME_MAX.as_secs())]
    TimedOut,

    /// It printed more than a label holds.
    #[error("the command printed more than {VALUE_BYTES_MAX} bytes")]
    TooLong,

    /// It was started and could not be followed.
    #[error("the command could not be followed to its end")]
    Unfollowed(#[source] io::Error),
}

/// The beginning of what a command wrote about its failure.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Said(String);

/// Runs a program with its arguments and gives the line that it printed, without blanks around it.
///
/// Dropping the future kills the program. Run as root or not, it has this process's rights and environment.
pub(crate) async fn run(command: &[String]) -> Result<String, CommandError> {
    run_within(command, TIME_MAX).await
}

async fn run_within(command: &[String], time_max: Duration) -> Result<String, CommandError> {
    let none = || CommandError::CannotStart(io::ErrorKind::InvalidInput.into());
    let (program, arguments) = command.split_first().ok_or_else(none)?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(CommandError::CannotStart)?;
    let group = Group::of(child.id());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let ended = async {
        let (printed, said) = tokio::join!(printed(stdout), complaint(stderr));
        let (printed, said) = (printed?, said?);
        if printed.len() > VALUE_BYTES_MAX {
            return Err(CommandError::TooLong);
        }
        let status = child.wait().await.map_err(CommandError::Unfollowed)?;
        if !status.success() {
            let said = String::from_utf8_lossy(&said);
            let said = Said(said.lines().next().unwrap_or_default().to_owned());
            return Err(CommandError::Failed { status, said });
        }
        value(printed)
    };
    let outcome = timeout(time_max, ended)
        .await
        .unwrap_or(Err(CommandError::TimedOut));
    if child.id().is_none() {
        group.has_ended();
    }
    outcome
}

/// What a command prints, up to one byte more than a label holds. Who prints on finds nobody reading.
async fn printed(stdout: Option<ChildStdout>) -> Result<Vec<u8>, CommandError> {
    let mut read = Vec::new();
    if let Some(stdout) = stdout {
        let mut stdout = stdout.take(VALUE_BYTES_MAX as u64 + 1);
        stdout
            .read_to_end(&mut read)
            .await
            .map_err(CommandError::Unfollowed)?;
    }
    Ok(read)
}

/// The beginning of what a command complains of. The rest is read too and dropped, so that complaining stops nobody.
async fn complaint(stderr: Option<ChildStderr>) -> Result<Vec<u8>, CommandError> {
    let mut read = Vec::new();
    if let Some(mut stderr) = stderr {
        let mut beginning = (&mut stderr).take(STDERR_BYTES_MAX);
        beginning
            .read_to_end(&mut read)
            .await
            .map_err(CommandError::Unfollowed)?;
        tokio::io::copy(&mut stderr, &mut tokio::io::sink())
            .await
            .map_err(CommandError::Unfollowed)?;
    }
    Ok(read)
}

fn value(printed: Vec<u8>) -> Result<String, CommandError> {
    let text = String::from_utf8(printed).map_err(|_| CommandError::NotText)?;
    let line = text.trim();
    if line.chars().any(char::is_control) {
        return Err(CommandError::NotText);
    }
    Ok(line.to_owned())
}

/// The process group of a command; what is left of it is killed when this is dropped.
struct Group(Option<Pid>);

impl Group {
    fn of(leader: Option<u32>) -> Self {
        let pid = leader.and_then(|pid| i32::try_from(pid).ok());
        Self(pid.map(Pid::from_raw))
    }

    /// The leader has ended and its number may be another's soon.
    fn has_ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // A group that is gone already needs nothing.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sh(script: &str, time_max: Duration) -> Result<String, CommandError> {
        run_within(&["/bin/sh", "-c", script].map(str::to_owned), time_max).await
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn arguments_are_given_as_they_are_and_no_shell_reads_them() {
        let command = ["/bin/echo", "$HOME; false", " `id` "].map(str::to_owned);
        assert_eq!(run(&command).await.unwrap(), "$HOME; false  `id`");
    }

    #[tokio::test]
    async fn failures_are_told_apart() {
        let missing = run(&["/nonexistent/program".to_owned()]).await;
        assert!(matches!(missing, Err(CommandError::CannotStart(_))));
        let failed = sh("echo why >&2; exit 3", LONG).await.unwrap_err();
        assert_eq!(failed.to_string(), "the command ended with exit status: 3");
        assert_eq!(
            tidegate_service::telemetry::chain(&failed),
            "the command ended with exit status: 3: why"
        );
        assert!(matches!(
            sh("printf 'a\\nb'", LONG).await,
            Err(CommandError::NotText)
        ));
        assert!(matches!(
            sh("printf '\\377'", LONG).await,
            Err(CommandError::NotText)
        ));
        assert!(matches!(
            sh("while :; do echo 0123456789; done", LONG).await,
            Err(CommandError::TooLong)
        ));
        assert!(matches!(run(&[]).await, Err(CommandError::CannotStart(_))));
    }

    #[tokio::test]
    async fn nothing_of_a_command_that_takes_too_long_is_left() {
        let dir = std::env::temp_dir().join(format!("tidegate-label-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let pid = dir.join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", pid.display());
        // The time is what this test is about: it only has to be long enough for the shell to begin.
        let mut outcome = sh(&script, Duration::from_millis(500)).await;
        let mut time_max = Duration::from_secs(1);
        while std::fs::read_to_string(&pid).is_ok_and(|pid| pid.trim().is_empty()) || !pid.exists()
        {
            outcome = sh(&script, time_max).await;
            time_max *= 2;
        }
        assert!(matches!(outcome, Err(CommandError::TimedOut)));
        let pid: i32 = std::fs::read_to_string(&pid)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        let is_gone = || {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.is_empty() || status.contains("State:\tZ")
        };
        while !is_gone() {
            tokio::task::yield_now().await;
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
