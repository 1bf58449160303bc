//! Stock clients, one run each: what `pgbench` and `psql` say of one way to a database.
//!
//! A way is the environment of a libpq program, so that what is compared is the way and nothing else.

use std::{collections::BTreeMap, path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use tidegate_e2e::lab;
use tokio::process::Command;

/// What libpq reads from its environment.
pub(super) type Way = BTreeMap<String, String>;

/// Threads of `pgbench` for statements; connections are opened by one thread each, since libpq waits for each.
const THREADS: u32 = 2;
/// Of how many transactions one is timed, beyond one client.
const SAMPLED: &str = "0.1";

/// One run of prepared statements.
pub(super) struct Transactions {
    pub(super) per_second: f64,
    pub(super) count: f64,
    /// Microseconds.
    pub(super) p50: f64,
    pub(super) p99: f64,
}

/// A prepared `SELECT 1` by this many clients.
pub(super) async fn transactions(way: &Way, clients: u32, seconds: u32) -> Result<Transactions> {
    let folder = tempfile::tempdir()?;
    let statement = folder.path().join("statement.sql");
    std::fs::write(&statement, "SELECT 1;\n")?;
    let mut command = client(&lab::postgres_program("pgbench")?, way);
    command
        .args(["-n", "-M", "prepared", "-l", "--log-prefix"])
        .arg(folder.path().join("log"))
        .arg("-f")
        .arg(&statement)
        .args(["-c", &clients.to_string(), "-j", &THREADS.to_string()])
        .args(["-T", &seconds.to_string()]);
    if clients > 1 {
        command.args(["--sampling-rate", SAMPLED]);
    }
    let text = said(command).await?;
    let count = number(&text, "number of transactions actually processed: ")?;
    let mut times = logged(folder.path())?;
    times.sort_by(f64::total_cmp);
    Ok(Transactions {
        per_second: number(&text, "tps = ")?,
        count,
        p50: quantile(&times, 50)?,
        p99: quantile(&times, 99)?,
    })
}

/// The third column of what `pgbench -l` wrote: microseconds of each transaction (manual, "Per-Transaction Logging").
fn logged(folder: &Path) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with("log.") {
            continue;
        }
        let text = std::fs::read_to_string(entry.path())?;
        times.extend(
            text.lines()
                .filter_map(|line| line.split_whitespace().nth(2)?.parse::<f64>().ok()),
        );
    }
    Ok(times)
}

fn quantile(sorted: &[f64], percent: usize) -> Result<f64> {
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().context("nothing was timed")
}

/// Milliseconds of one connection, from dialling to ReadyForQuery, in a process that has connected before.
pub(super) async fn connection(way: &Way) -> Result<f64> {
    let mut command = client(&lab::postgres_program("pgbench")?, way);
    let folder = tempfile::tempdir()?;
    command
        .args(["-n", "-C", "-c", "1", "-t", "1", "-f"])
        .arg(empty_statement(folder.path())?);
    number(&said(command).await?, "average connection time = ")
}

/// Connections a second of this many clients that connect, ask for nothing, and go.
pub(super) async fn storm(way: &Way, clients: u32, seconds: u32) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let mut command = client(&lab::postgres_program("pgbench")?, way);
    let clients = clients.to_string();
    command
        .args(["-n", "-C", "-c", &clients, "-j", &clients, "-T"])
        .arg(seconds.to_string())
        .arg("-f")
        .arg(empty_statement(folder.path())?);
    number(&said(command).await?, "tps = ")
}

/// A script that does nothing: what is timed is the connection.
fn empty_statement(folder: &Path) -> Result<std::path::PathBuf> {
    let file = folder.join("nothing.sql");
    std::fs::write(&file, "\\set nothing 0\n")?;
    Ok(file)
}

/// How long psql took for one `\copy`, by its own clock.
pub(super) async fn copy(way: &Way, copy: &str) -> Result<Duration> {
    let mut command = client(Path::new("psql"), way);
    command.args(["-X", "-v", "ON_ERROR_STOP=1", "-c", "\\timing on", "-c"]);
    command.arg(copy);
    let text = said(command).await?;
    Ok(Duration::from_secs_f64(number(&text, "Time: ")? / 1e3))
}

/// Statements that must succeed.
pub(super) async fn sql(way: &Way, statement: &str) -> Result<()> {
    let mut command = client(Path::new("psql"), way);
    command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", statement]);
    said(command).await?;
    Ok(())
}

fn client(program: &Path, way: &Way) -> Command {
    let mut command = Command::new(program);
    command
        .envs(way)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// What a program printed, when it ended well.
async fn said(mut command: Command) -> Result<String> {
    let output = command.output().await?;
    let (text, complaint) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    ensure!(
        output.status.success(),
        "{:?} ended with {}: {text}{complaint}",
        command.as_std().get_program(),
        output.status
    );
    Ok(text.into_owned())
}

/// The number behind these words, at the beginning of a line.
fn number(text: &str, words: &str) -> Result<f64> {
    text.lines()
        .find_map(|line| {
            line.strip_prefix(words)?
                .split_whitespace()
                .next()?
                .split('/')
                .next()?
                .parse()
                .ok()
        })
        .with_context(|| format!("no `{words}` in {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pgbench_and_psql_print_is_read() {
        let pgbench = "number of transactions actually processed: 1234\ntps = 5678.9 (without initial connection time)\n";
        assert!((number(pgbench, "tps = ").unwrap() - 5678.9).abs() < 1e-9);
        assert!(
            (number(pgbench, "number of transactions actually processed: ").unwrap() - 1234.0)
                .abs()
                < 1e-9
        );
        let psql = "Timing is on.\nCOPY 3\nTime: 1023.456 ms (00:01.023)\n";
        assert!((number(psql, "Time: ").unwrap() - 1023.456).abs() < 1e-9);
        assert!(number(psql, "tps = ").is_err());
    }
}
