//! A stock `pgbench` and `psql` through proxy and agent, and the same straight to the database over TLS.
//!
//! The database is one PostgreSQL with its own TLS listener; both ways use TLS. Every round measures both, one after the
//! other; one round that does not count warms caches, credentials and the CPU's clock.

use std::{collections::BTreeMap, path::Path, process::Stdio, time::Instant};

use anyhow::{Context, Result, bail, ensure};
use tidegate_e2e::{Lab, lab};
use tokio::{io::AsyncReadExt, process::Command};

use crate::{Args, figure::Figure};

/// Clients of the throughput runs.
const CLIENTS: [u32; 3] = [1, 16, 64];
/// Rows of the COPY, each of [`ROW_BYTES`].
const ROWS: u32 = 400_000;
const ROW_BYTES: u32 = 1_000;
/// Connections of the connect run.
const CONNECTS: u32 = 100;

/// Measures, and stops everything.
pub(crate) async fn run(args: &Args) -> Result<Vec<Figure>> {
    let lab = Lab::start_bench().await?;
    let outcome = session(&lab, args).await;
    lab.stop().await?;
    outcome
}

async fn session(lab: &Lab, args: &Args) -> Result<Vec<Figure>> {
    let (ours, direct) = (lab.bench_route().await?, lab.bench_direct().await?);
    let statement = lab.dir().join("select1.sql");
    std::fs::write(&statement, "SELECT 1;\n")?;
    sql(&direct, &format!("CREATE TABLE bulk AS SELECT repeat('x', {ROW_BYTES}) AS line FROM generate_series(1, {ROWS}); GRANT SELECT ON bulk TO PUBLIC")).await?;
    let mut figures: Vec<Figure> = Vec::new();
    let mut add = |metric: &str, unit: &'static str, pair| {
        let at = figures
            .iter()
            .position(|figure| figure.metric() == metric)
            .unwrap_or_else(|| {
                figures.push(Figure::of_rounds("session", metric, unit));
                figures.len() - 1
            });
        figures[at].add(pair);
    };
    // One round that does not count warms caches, credentials and the CPU's clock.
    for round in 0..=args.rounds {
        let mut found = Vec::new();
        for clients in CLIENTS {
            let through = pgbench(&ours, &statement, clients, args.seconds).await?;
            let straight = pgbench(&direct, &statement, clients, args.seconds).await?;
            found.push((
                format!("tps_{clients}_over_direct"),
                "tps",
                (through, straight),
            ));
        }
        found.push((
            "copy_out_mbps_over_direct".to_owned(),
            "MB/s",
            (copy_out(&ours).await?, copy_out(&direct).await?),
        ));
        found.push((
            "connect_p50_over_direct".to_owned(),
            "ms",
            (connect_p50(&ours).await?, connect_p50(&direct).await?),
        ));
        eprintln!(
            "round {round} of {}{}",
            args.rounds,
            if round == 0 { " (warm-up)" } else { "" }
        );
        if round > 0 {
            found
                .iter()
                .for_each(|(metric, unit, pair)| add(metric, unit, *pair));
        }
    }
    Ok(figures)
}

fn client(program: &Path, environment: &BTreeMap<String, String>) -> Command {
    let mut command = Command::new(program);
    command
        .envs(environment)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn sql(environment: &BTreeMap<String, String>, statement: &str) -> Result<()> {
    let output = client(Path::new("psql"), environment)
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", statement])
        .output()
        .await?;
    ensure!(
        output.status.success(),
        "psql: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Transactions a second of a prepared `SELECT 1`.
async fn pgbench(
    environment: &BTreeMap<String, String>,
    statement: &Path,
    clients: u32,
    seconds: u32,
) -> Result<f64> {
    let output = client(&lab::postgres_program("pgbench")?, environment)
        .args(["-n", "-M", "prepared", "-f"])
        .arg(statement)
        .args([
            "-c",
            &clients.to_string(),
            "-j",
            "2",
            "-T",
            &seconds.to_string(),
        ])
        .output()
        .await?;
    let text = String::from_utf8_lossy(&output.stdout);
    let tps = text.lines().find_map(|line| {
        line.strip_prefix("tps = ")?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    });
    tps.with_context(|| {
        format!(
            "pgbench printed no tps: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        )
    })
}

/// Megabytes a second of `COPY … TO STDOUT`, connecting left out.
async fn copy_out(environment: &BTreeMap<String, String>) -> Result<f64> {
    let mut child = client(Path::new("psql"), environment)
        .args(["-X", "-q", "-c", "COPY bulk TO STDOUT"])
        .spawn()?;
    let mut output = child.stdout.take().context("psql has no output")?;
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = output.read(&mut buffer).await?;
    let started = Instant::now();
    loop {
        match output.read(&mut buffer).await? {
            0 => break,
            read => bytes += read,
        }
    }
    let elapsed = started.elapsed();
    let status = child.wait().await?;
    if !status.success() || bytes < (ROWS * ROW_BYTES) as usize {
        bail!("psql copied {bytes} bytes and ended with {status}");
    }
    Ok(bytes as f64 / 1e6 / elapsed.as_secs_f64())
}

/// Milliseconds from start to end of a connection that does nothing, the median, with a fresh connection each time.
async fn connect_p50(environment: &BTreeMap<String, String>) -> Result<f64> {
    let script = tempfile::NamedTempFile::new()?;
    std::fs::write(script.path(), "SELECT 1;\n")?;
    let output = client(&lab::postgres_program("pgbench")?, environment)
        .args(["-n", "-C", "-c", "1", "-t", &CONNECTS.to_string(), "-f"])
        .arg(script.path())
        .output()
        .await?;
    let text = String::from_utf8_lossy(&output.stdout);
    let latency = text.lines().find_map(|line| {
        line.strip_prefix("average connection time = ")?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    });
    latency.with_context(|| {
        format!(
            "pgbench printed no connection time: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        )
    })
}
