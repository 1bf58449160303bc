//! The inventory of a large company: what loading, asking, watching and announcing cost, and how much memory it takes.
//!
//! The auth service is a process of its own and is asked over gRPC; this process plays everybody else. PostgreSQL, the raw
//! stores and a bare gRPC server are the references, in the same run. Sections can be chosen with `--only`; all but `etcd`
//! work on one loaded service.

pub(crate) mod bare;

mod agents;
mod fleet;
mod load;
mod member;
mod memory;
mod queries;
mod raw;
mod reference;
mod watch;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use awssim::World;
use clap::ValueEnum;
use prost::Message;
use tidegate_e2e::{Lab, Part};
use tidegate_proto::v1::{self, inventory_service_client::InventoryServiceClient};
use tokio::signal::unix::{SignalKind, signal};
use tonic::transport::Channel;

use crate::{Args, figure::Figure, usage};
use load::Worker;
use member::Gate;
use raw::Raw;
use reference::Postgres;

/// The benchmark's name, and that of its part on etcd.
const BENCH: &str = "inventory";
const BENCH_ETCD: &str = "inventory_etcd";
/// Open files for each agent's connection, and for everything else.
const FILES_BESIDE: u64 = 1_000;
/// How long a service may take to start over a full store.
const START_PATIENCE: Duration = Duration::from_secs(600);
/// Between two looks whether it has.
const LOOK: Duration = Duration::from_millis(10);
/// Pages that a database's size is taken from.
const SIZED_PAGES: usize = 5;

/// How much of everything.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Databases of `inventory`, with 20 labels each, on SQLite.
    #[arg(long, default_value_t = 1_000_000)]
    databases: usize,
    /// The same on etcd.
    #[arg(long, default_value_t = 100_000)]
    etcd_databases: usize,
    /// Watchers of `inventory`.
    #[arg(long, default_value_t = 1_000)]
    watchers: usize,
    /// Changes a second that they watch.
    #[arg(long, default_value_t = 1_000)]
    changes: u32,
    /// Seconds of changes in each round.
    #[arg(long, default_value_t = 10)]
    watch_seconds: u32,
    /// Agents of `inventory`.
    #[arg(long, default_value_t = 10_000)]
    agents: usize,
    /// Seconds that they are looked at.
    #[arg(long, default_value_t = 60)]
    agent_seconds: u32,
    #[arg(skip)]
    pub(crate) only: Vec<Section>,
}

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Section {
    /// `load_per_s_over_store`.
    Load,
    /// `bytes_per_database`.
    Memory,
    /// `cold_start_s_per_million`.
    Restart,
    /// The three over PostgreSQL.
    Queries,
    /// `watch_cpu_over_bare_stream` and `watch_delivery_p99_ms`.
    Watch,
    /// `agents_10k_cores` and `agents_10k_kib_each`.
    Agents,
    /// Load, memory and restart with the state in etcd.
    Etcd,
}

impl Options {
    fn has(&self, section: Section) -> bool {
        self.only.is_empty() || self.only.contains(&section)
    }
}

/// Measures, prints each figure when it is there, and stops everything.
pub(crate) async fn run(args: &Args) -> Result<()> {
    let options = &args.inventory;
    usage::raise_open_files(options.agents as u64 + FILES_BESIDE)?;
    if options.only.is_empty() || options.only.iter().any(|section| *section != Section::Etcd) {
        let mut lab = Lab::start_in(World::default(), &[Part::Auth]).await?;
        let outcome = until_signal(on_sqlite(&mut lab, args)).await;
        let stopped = lab.stop().await;
        outcome.and(stopped)?;
    }
    if options.has(Section::Etcd) {
        let mut lab = Lab::start_over_etcd(World::default(), &[Part::Auth]).await?;
        let outcome = until_signal(on_etcd(&mut lab, args)).await;
        let stopped = lab.stop().await;
        outcome.and(stopped)?;
    }
    Ok(())
}

/// Ends early when this process is asked to stop, so that nothing that it started stays.
async fn until_signal(work: impl Future<Output = Result<()>>) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        outcome = work => outcome,
        _ = terminate.recv() => bail!("asked to stop"),
        _ = tokio::signal::ctrl_c() => bail!("asked to stop"),
    }
}

async fn on_sqlite(lab: &mut Lab, args: &Args) -> Result<()> {
    let options = &args.inventory;
    let gate = Gate::of(lab).await?;
    let state = lab.dir().join(Part::Auth.name()).join("backend/state.db");
    let raw = options
        .has(Section::Load)
        .then(|| Raw::sqlite(&state, lab.dir()))
        .transpose()?;
    load_and_restart(lab, &gate, BENCH, options.databases, raw, args).await?;
    let mut inventory = InventoryServiceClient::new(lab.admin());
    if options.has(Section::Queries) {
        let postgres = Postgres::start(lab.dir()).await?;
        let outcome = beside_postgres(&mut inventory, &postgres, args).await;
        let stopped = postgres.stop().await;
        outcome.and(stopped)?;
    }
    if options.has(Section::Watch) {
        let auth = process_id(lab)?;
        print(
            &watch::measure(&gate, &inventory, auth, options).await?,
            args,
        );
    }
    if options.has(Section::Agents) {
        // What agents take would else be hidden in memory that earlier sections gave back and the process kept.
        let databases = count(&mut inventory).await?;
        restart(lab, &mut inventory, databases).await?;
        let auth = process_id(lab)?;
        print(
            &agents::measure(&gate, &mut inventory, auth, options).await?,
            args,
        );
    }
    Ok(())
}

async fn beside_postgres(
    inventory: &mut InventoryServiceClient<Channel>,
    postgres: &Postgres,
    args: &Args,
) -> Result<()> {
    let (mut client, count) = queries::fill(inventory, postgres).await?;
    let databases = args.inventory.databases;
    ensure!(count == databases, "{count} of {databases} were listed");
    print(
        &queries::measure(inventory, &mut client, args.rounds).await?,
        args,
    );
    Ok(())
}

async fn on_etcd(lab: &mut Lab, args: &Args) -> Result<()> {
    let gate = Gate::of(lab).await?;
    let raw = Raw::etcd(lab.etcd_url().context("the laboratory has no etcd")?)?;
    let databases = args.inventory.etcd_databases;
    load_and_restart(lab, &gate, BENCH_ETCD, databases, Some(raw), args).await
}

/// What is measured on either store.
async fn load_and_restart(
    lab: &mut Lab,
    gate: &Gate,
    bench: &'static str,
    databases: usize,
    mut raw: Option<Raw>,
    args: &Args,
) -> Result<()> {
    let on_etcd = bench == BENCH_ETCD;
    let has = |section| on_etcd || args.inventory.has(section);
    let empty = memory::settled(process_id(lab)?).await?;
    let worker =
        Worker::start(gate.join("worker", "discovery").await?.channel(), databases).await?;
    let loaded = load::load(bench, &worker, databases, raw.as_mut()).await?;
    // Nobody scans from here on; while a whole group is away nothing of it is retired.
    drop((worker, raw.take()));
    let mut inventory = InventoryServiceClient::new(lab.admin());
    ensure!(
        count(&mut inventory).await? == databases as u64,
        "not all are listed"
    );
    if has(Section::Load) {
        print(&[loaded], args);
    }
    let encoded = encoded_bytes(&mut inventory).await?;
    let beyond = |full: f64| (full - empty) / databases as f64 - encoded;
    if has(Section::Memory) {
        let full = memory::settled(process_id(lab)?).await?;
        eprintln!(
            "{:.0} MiB empty, {:.0} MiB loaded; a database is {encoded:.0} B encoded",
            empty / MIB,
            full / MIB
        );
        print(
            &[Figure::once(bench, "bytes_per_database", "B", beyond(full))],
            args,
        );
    }
    if has(Section::Restart) {
        let seconds = restart(lab, &mut inventory, databases as u64).await?;
        let per_million = seconds * 1e6 / databases as f64;
        print(
            &[Figure::once(
                bench,
                "cold_start_s_per_million",
                "s",
                per_million,
            )],
            args,
        );
        let full = memory::settled(process_id(lab)?).await?;
        eprintln!(
            "after the restart: {seconds:.2} s, {:.0} MiB, {:.0} B a database",
            full / MIB,
            beyond(full)
        );
    }
    Ok(())
}

const MIB: f64 = 1024.0 * 1024.0;

fn print(figures: &[Figure], args: &Args) {
    figures.iter().for_each(|figure| figure.print(args.json));
}

fn process_id(lab: &Lab) -> Result<u32> {
    let found = lab.process_ids().find(|(part, _)| *part == Part::Auth);
    found.map(|(_, id)| id).context("the auth service is gone")
}

/// How many databases the service shows.
async fn count(inventory: &mut InventoryServiceClient<Channel>) -> Result<u64> {
    let request = v1::CountDatabasesRequest {
        label: "region".to_owned(),
        ..Default::default()
    };
    Ok(inventory.count_databases(request).await?.into_inner().total)
}

/// The bytes of a listed database as a message, on average over some pages.
async fn encoded_bytes(inventory: &mut InventoryServiceClient<Channel>) -> Result<f64> {
    let mut request = v1::ListDatabasesRequest {
        page_size: 1_000,
        ..Default::default()
    };
    let (mut databases, mut bytes) = (0, 0);
    for _ in 0..SIZED_PAGES {
        let page = inventory
            .list_databases(request.clone())
            .await?
            .into_inner();
        ensure!(
            page.databases
                .iter()
                .all(|database| database.labels.len() == fleet::LABELS),
            "a database has other labels than it should"
        );
        databases += page.databases.len();
        bytes += page
            .databases
            .iter()
            .map(Message::encoded_len)
            .sum::<usize>();
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    Ok(bytes as f64 / databases as f64)
}

/// Stops the service as an operator would, and starts it over the same store: the seconds until it shows everything.
async fn restart(
    lab: &mut Lab,
    inventory: &mut InventoryServiceClient<Channel>,
    databases: u64,
) -> Result<f64> {
    lab.stop_part(Part::Auth).await?;
    let started = Instant::now();
    let answered = async {
        loop {
            match count(inventory).await {
                Ok(total) if total == databases => return Ok(started.elapsed()),
                seen if started.elapsed() > START_PATIENCE => {
                    bail!("the restarted service shows {seen:?}")
                }
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    };
    let (answered, running) = tokio::join!(answered, lab.start_part(Part::Auth));
    running?;
    Ok(answered?.as_secs_f64())
}
