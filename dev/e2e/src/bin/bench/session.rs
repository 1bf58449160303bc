//! `cargo xtask bench NAME [--json]`: ours beside the reference, interleaved in one run, as medians of ratios.
//!
//! `session`: a stock `pgbench` and `psql` through proxy and agent, and the same straight to the database over TLS. The
//! database is one PostgreSQL with its own TLS listener; both ways use TLS and the same user's rights. Machines are
//! noisy and shared, so every round measures both, one after the other, and the median of the rounds' ratios counts.

use std::{collections::BTreeMap, path::Path, process::Stdio, time::Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use serde_json::json;
use tidegate_e2e::{Lab, lab};
use tokio::{io::AsyncReadExt, process::Command};

/// Measures ours beside the reference.
#[derive(Parser)]
struct Args {
    /// What to measure: `session`.
    name: String,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
    /// Rounds; each measures both sides.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each pgbench run.
    #[arg(long, default_value_t = 4)]
    seconds: u32,
}

/// Clients of the throughput runs.
const CLIENTS: [u32; 3] = [1, 16, 64];
/// Rows of the COPY, each of [`ROW_BYTES`].
const ROWS: u32 = 400_000;
const ROW_BYTES: u32 = 1_000;
/// Connections of the connect run.
const CONNECTS: u32 = 100;

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(
        args.name == "session",
        "there is no benchmark `{}`: try `session`",
        args.name
    );
    let lab = Lab::start_bench().await?;
    let outcome = session(&lab, &args).await;
    lab.stop().await?;
    for line in outcome? {
        line.print(args.json);
    }
    Ok(())
}

/// One measured figure beside its reference.
struct Figure {
    metric: String,
    unit: &'static str,
    /// Ours and the reference, a pair a round.
    rounds: Vec<(f64, f64)>,
}

impl Figure {
    fn print(&self, as_json: bool) {
        let (ours, reference, ratio) = (
            median(self.rounds.iter().map(|round| round.0)),
            median(self.rounds.iter().map(|round| round.1)),
            median(self.rounds.iter().map(|round| round.0 / round.1)),
        );
        if as_json {
            let value = rounded(ours);
            let line = json!({"bench": "session", "metric": self.metric, "value": value, "unit": self.unit, "reference": rounded(reference), "ratio": rounded(ratio)});
            println!("{line}");
        } else {
            println!(
                "{:<34} {:>12.2} {:<6} direct {:>12.2}   ratio {:>6.3}",
                self.metric, ours, self.unit, reference, ratio
            );
        }
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

async fn session(lab: &Lab, args: &Args) -> Result<Vec<Figure>> {
    let (ours, direct) = (lab.bench_route().await?, lab.bench_direct().await?);
    let statement = lab.dir().join("select1.sql");
    std::fs::write(&statement, "SELECT 1;\n")?;
    sql(&direct, &format!("CREATE TABLE bulk AS SELECT repeat('x', {ROW_BYTES}) AS line FROM generate_series(1, {ROWS}); GRANT SELECT ON bulk TO PUBLIC")).await?;
    let mut figures: Vec<Figure> = Vec::new();
    let mut add = |metric: &str, unit: &'static str, pair: (f64, f64)| match figures
        .iter_mut()
        .find(|figure| figure.metric == metric)
    {
        Some(figure) => figure.rounds.push(pair),
        None => figures.push(Figure {
            metric: metric.to_owned(),
            unit,
            rounds: vec![pair],
        }),
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
