//! What people's sessions cost: stock clients through proxy and agent, straight to the same database over TLS, and through
//! the peers.
//!
//! One PostgreSQL with its own TLS listener is the database of all ways, and every way but a pass-through ends TLS. Each round
//! goes all ways, one after the other; one round that does not count warms caches, credentials and the CPU's clock.
//! Memory is that of proxy and agent together, and needs no rounds.

mod memory;
mod peers;
mod stock;
mod thousands;

use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args as ClapArgs, ValueEnum};
use tidegate_e2e::{Lab, Part};

use crate::{
    Args,
    figure::{Figure, median},
    usage,
};
use peers::Peer;
use stock::{Transactions, Way};

pub(crate) const BENCH: &str = "session";
/// Clients of the throughput runs, and those whose CPU is looked at.
const CLIENTS: [u32; 3] = [1, 16, 64];
const CPU_CLIENTS: u32 = 16;
/// Rows of the COPY, each of [`ROW_BYTES`] and an end of line.
const ROWS: u32 = 800_000;
const ROW_BYTES: u32 = 999;
const COPY_BYTES: f64 = ROWS as f64 * (ROW_BYTES as f64 + 1.0);
/// Pairs of connections in a round.
const CONNECTS: usize = 40;
/// Open files of an idle session, at the proxy and at the agent alike; and of everything else.
const FILES_PER_SESSION: u64 = 2;
const FILES_BESIDE: u64 = 4_096;
/// Clients of the connect storm.
const STORM_CLIENTS: u32 = 8;

/// How much of everything.
#[derive(ClapArgs)]
pub(crate) struct SessionOptions {
    /// Seconds of each pgbench run of `session`.
    #[arg(long, default_value_t = 4)]
    seconds: u32,
    /// Idle sessions of `session`, one measurement each.
    #[arg(long, value_delimiter = ',', default_value = "1000,5000")]
    idle: Vec<usize>,
    /// Gigabytes that one session of `session` streams to a slow reader.
    #[arg(long, default_value_t = 20)]
    stream_gb: u64,
    /// Databases of `session` beside the one that is connected to.
    #[arg(long, default_value_t = 10_000)]
    beside: usize,
}

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Section {
    /// Prepared statements: `tps_…`, `cpu_per_tx_16_over_haproxy2` and `rtt_p50_over_haproxy2`.
    Statements,
    /// `copy_…`.
    Copy,
    /// `connect_p50_over_direct` and `connect_storm_over_direct`.
    Connect,
    /// `connect_p50_10k_databases_over_1`.
    Thousands,
    /// `idle_kib_per_session`.
    Idle,
    /// `idle_kib_after_bulk`.
    Bulk,
    /// `rss_growth_mib`.
    Stream,
}

/// Measures, prints each figure when it is there, and stops everything.
pub(crate) async fn run(args: &Args) -> Result<()> {
    let only: Vec<Section> = crate::sections(&args.only)?;
    let has = |section| only.is_empty() || only.contains(&section);
    let options = &args.session;
    let sessions = options.idle.iter().max().filter(|_| has(Section::Idle));
    let (sessions, databases) = (
        sessions.copied().unwrap_or_default() as u64 * FILES_PER_SESSION,
        options.beside as u64 * u64::from(has(Section::Thousands)),
    );
    usage::raise_open_files(sessions.max(databases) + FILES_BESIDE)?;
    if [Section::Statements, Section::Copy, Section::Connect]
        .into_iter()
        .any(has)
    {
        let lab = Lab::start_bench().await?;
        let outcome = ways(&lab, args, has).await;
        let outcome = outcome.with_context(|| lab.log(Part::AgentA));
        lab.stop().await?;
        outcome?;
    }
    if [Section::Idle, Section::Bulk, Section::Stream]
        .into_iter()
        .any(has)
    {
        let wanted = memory::Wanted {
            idle: if has(Section::Idle) {
                &options.idle
            } else {
                &[]
            },
            bulk: has(Section::Bulk),
            stream_gb: has(Section::Stream).then_some(options.stream_gb),
        };
        memory::run(args, &wanted).await?;
    }
    if has(Section::Thousands) {
        thousands::run(args, options.beside).await?;
    }
    Ok(())
}

/// All ways to the database.
struct Ways {
    ours: Way,
    direct: Way,
    haproxies: Peer,
    pgbouncer: Peer,
    /// Processes of proxy and agent.
    measured: [u32; 2],
}

impl Ways {
    fn cpu_seconds(&self) -> Result<f64> {
        self.measured.into_iter().map(usage::cpu_seconds).sum()
    }
}

async fn ways(lab: &Lab, args: &Args, has: impl Fn(Section) -> bool) -> Result<()> {
    let (ours, direct) = (lab.bench_route().await?, lab.bench_direct().await?);
    let ways = Ways {
        haproxies: Peer::two_haproxies(lab, &direct).await?,
        pgbouncer: Peer::pgbouncer(lab, &direct).await?,
        measured: measured(lab)?,
        ours,
        direct,
    };
    let mut figures = Figures::default();
    let copies = Copies::prepare(lab, &ways, has(Section::Copy)).await?;
    for round in 0..=args.rounds {
        figures.counts = round > 0;
        if has(Section::Statements) {
            statements(&ways, args.session.seconds, &mut figures).await?;
        }
        if has(Section::Copy) {
            copies.measure(&ways, &mut figures).await?;
        }
        if has(Section::Connect) {
            connections(&ways, args.session.seconds, &mut figures).await?;
        }
        let what = if round == 0 { " (warm-up)" } else { "" };
        eprintln!("round {round} of {}{what}", args.rounds);
    }
    figures
        .all
        .iter()
        .for_each(|figure| figure.print(args.json));
    ways.haproxies.stop().await?;
    ways.pgbouncer.stop().await
}

/// The processes that are ours on the way.
fn measured(lab: &Lab) -> Result<[u32; 2]> {
    let id = |part| {
        lab.process_ids()
            .find(|(found, _)| *found == part)
            .map(|(_, id)| id)
            .context("a measured process is gone")
    };
    Ok([id(Part::Proxy)?, id(Part::AgentA)?])
}

/// Figures by name, in the order in which they came.
#[derive(Default)]
struct Figures {
    all: Vec<Figure>,
    counts: bool,
}

impl Figures {
    /// Adds a round's ours and reference.
    fn add(&mut self, metric: &str, unit: &'static str, ours: f64, reference: f64) {
        if !self.counts {
            return;
        }
        let at = self.all.iter().position(|figure| figure.metric() == metric);
        let at = at.unwrap_or_else(|| {
            self.all.push(Figure::of_rounds(BENCH, metric, unit));
            self.all.len() - 1
        });
        self.all[at].add((ours, reference));
    }
}

async fn statements(ways: &Ways, seconds: u32, figures: &mut Figures) -> Result<()> {
    for clients in CLIENTS {
        let (through, ours_cpu) = {
            let before = ways.cpu_seconds()?;
            let run = stock::transactions(&ways.ours, clients, seconds).await?;
            (run, ways.cpu_seconds()? - before)
        };
        let direct = stock::transactions(&ways.direct, clients, seconds).await?;
        told("ours", clients, &through);
        told("direct", clients, &direct);
        let metric = format!("tps_{clients}_over_direct");
        figures.add(&metric, "tps", through.per_second, direct.per_second);
        if clients != 1 && clients != CPU_CLIENTS {
            continue;
        }
        let before = ways.haproxies.cpu_seconds()?;
        let passed = stock::transactions(&ways.haproxies.way, clients, seconds).await?;
        let cpu = ways.haproxies.cpu_seconds()? - before;
        told("haproxy2", clients, &passed);
        if clients == 1 {
            figures.add("rtt_p50_over_haproxy2", "us", through.p50, passed.p50);
        } else {
            let each = |seconds: f64, run: &Transactions| seconds * 1e6 / run.count;
            figures.add(
                "cpu_per_tx_16_over_haproxy2",
                "us",
                each(ours_cpu, &through),
                each(cpu, &passed),
            );
        }
    }
    Ok(())
}

/// Latencies are told and not compared: with many clients on few cores they are throughput by another name.
fn told(way: &str, clients: u32, run: &Transactions) {
    eprintln!(
        "{way}: {clients} clients, {:.0} tps, p50 {:.0} us, p99 {:.0} us",
        run.per_second, run.p50, run.p99
    );
}

/// One table out, and the same rows in.
struct Copies {
    out: String,
    within: String,
}

impl Copies {
    async fn prepare(lab: &Lab, ways: &Ways, wanted: bool) -> Result<Self> {
        let file = lab.dir().join("rows");
        let copies = Self {
            out: "\\copy bulk to '/dev/null'".to_owned(),
            within: format!("\\copy sink from '{}'", file.display()),
        };
        if wanted {
            let made = format!(
                "CREATE TABLE bulk AS SELECT repeat('x', {ROW_BYTES}) AS line FROM generate_series(1, {ROWS}); \
                 CREATE UNLOGGED TABLE sink (line text); GRANT ALL ON bulk, sink TO PUBLIC; VACUUM bulk"
            );
            for statement in made.split(';') {
                stock::sql(&ways.direct, statement).await?;
            }
            let rows = format!("\\copy bulk to '{}'", file.display());
            stock::copy(&ways.direct, &rows).await?;
        }
        Ok(copies)
    }

    async fn measure(&self, ways: &Ways, figures: &mut Figures) -> Result<()> {
        let rate = |took: Duration| COPY_BYTES / 1e6 / took.as_secs_f64();
        let before = ways.cpu_seconds()?;
        let through = rate(stock::copy(&ways.ours, &self.out).await?);
        let ours_cpu = (ways.cpu_seconds()? - before) * 1e9 / COPY_BYTES;
        let direct = rate(stock::copy(&ways.direct, &self.out).await?);
        let before = ways.pgbouncer.cpu_seconds()?;
        let pooled = rate(stock::copy(&ways.pgbouncer.way, &self.out).await?);
        let cpu = (ways.pgbouncer.cpu_seconds()? - before) * 1e9 / COPY_BYTES;
        let passed = rate(stock::copy(&ways.haproxies.way, &self.out).await?);
        eprintln!(
            "COPY out, MB/s: ours {through:.0}, direct {direct:.0}, pgbouncer {pooled:.0}, haproxy2 {passed:.0}"
        );
        figures.add("copy_out_mbps_over_direct", "MB/s", through, direct);
        figures.add("copy_out_cpu_over_pgbouncer", "s/GB", ours_cpu, cpu);
        let mut rates = [0.0; 2];
        for (way, rate_of) in [&ways.ours, &ways.direct].into_iter().zip(&mut rates) {
            stock::sql(&ways.direct, "TRUNCATE sink").await?;
            *rate_of = rate(stock::copy(way, &self.within).await?);
        }
        let [through, direct] = rates;
        eprintln!("COPY in, MB/s: ours {through:.0}, direct {direct:.0}");
        figures.add("copy_in_mbps_over_direct", "MB/s", through, direct);
        Ok(())
    }
}

async fn connections(ways: &Ways, seconds: u32, figures: &mut Figures) -> Result<()> {
    let (mut through, mut direct) = (Vec::new(), Vec::new());
    for _ in 0..CONNECTS {
        through.push(stock::connection(&ways.ours).await?);
        direct.push(stock::connection(&ways.direct).await?);
    }
    let (through, direct) = (median(through.into_iter()), median(direct.into_iter()));
    figures.add("connect_p50_over_direct", "ms", through, direct);
    let through = stock::storm(&ways.ours, STORM_CLIENTS, seconds).await?;
    let direct = stock::storm(&ways.direct, STORM_CLIENTS, seconds).await?;
    eprintln!("connections a second: ours {through:.0}, direct {direct:.0}");
    figures.add("connect_storm_over_direct", "1/s", through, direct);
    Ok(())
}
