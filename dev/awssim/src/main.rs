//! The simulated AWS as a program: reads a world, prints where everything is, runs until told to stop.

use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use awssim::{Sim, SimConfig, World};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tracing_subscriber::EnvFilter;

/// A simulated AWS (STS, Redshift, RDS, tagging) with clusters that answer, for tests and demos.
///
/// When all is up, one line of JSON with the addresses is printed on standard output. Stops, with
/// everything it started, on SIGTERM and SIGINT.
#[derive(Debug, Parser)]
#[command(name = "awssim", version)]
struct Args {
    /// The world, a JSON file.
    #[arg(long, value_name = "FILE", required_unless_present = "generate")]
    world: Option<PathBuf>,
    /// Makes a world of listed clusters instead: seed, accounts, regions of each, clusters of each.
    #[arg(long, value_name = "SEED,ACCOUNTS,REGIONS,CLUSTERS", value_parser = parse_size)]
    #[arg(conflicts_with = "world")]
    generate: Option<Size>,
    /// Start PostgreSQL at the first log-in, if ever.
    #[arg(long)]
    without_postgres: bool,
    /// Address of the AWS endpoint; port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Folder for the CA, the hosts file and the databases.
    #[arg(long, value_name = "FOLDER")]
    dir: PathBuf,
    /// Folder with PostgreSQL's `initdb` and `postgres`.
    #[arg(long, value_name = "FOLDER")]
    pg_bin_dir: Option<PathBuf>,
    /// Stop also when standard input ends, as it does when the parent process dies.
    #[arg(long)]
    exit_with_parent: bool,
}

/// The size of a generated world.
#[derive(Clone, Copy, Debug)]
struct Size {
    seed: u64,
    accounts: usize,
    regions: usize,
    clusters: usize,
}

fn parse_size(text: &str) -> Result<Size, String> {
    let numbers: Result<Vec<u64>, _> = text.split(',').map(str::parse).collect();
    let numbers = numbers.map_err(|error| error.to_string())?;
    let &[seed, accounts, regions, clusters] = numbers.as_slice() else {
        return Err("give four numbers".to_owned());
    };
    let count = |n: u64| usize::try_from(n).map_err(|error| error.to_string());
    Ok(Size {
        seed,
        accounts: count(accounts)?,
        regions: count(regions)?,
        clusters: count(clusters)?,
    })
}

fn read_world(args: &Args) -> anyhow::Result<World> {
    match (&args.world, args.generate) {
        (Some(path), _) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("could not read {}", path.display()))?;
            World::from_json(&text).with_context(|| format!("{} is no world", path.display()))
        }
        (None, Some(size)) => {
            let (accounts, regions) = (size.accounts, size.regions);
            Ok(World::generate(size.seed, accounts, regions, size.clusters))
        }
        (None, None) => Ok(World::new()),
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into()))
        .init();
    let world = read_world(&args)?;
    let mut config = SimConfig::new(world, args.dir);
    config.listen = args.listen;
    config.pg_bin_dir = args.pg_bin_dir;
    config.start_postgres = !args.without_postgres;

    let mut stop = Box::pin(told_to_stop(args.exit_with_parent));
    let sim = tokio::select! {
        started = Sim::start(config) => started.context("could not start the simulation")?,
        told = &mut stop => return told,
    };
    println!("{}", serde_json::to_string(&sim.info().await)?);
    let told = stop.await;
    sim.stop().await;
    told
}

/// Returns on SIGTERM, SIGINT and, if asked to, the end of standard input.
async fn told_to_stop(on_stdin_end: bool) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (ended, stdin_end) = oneshot::channel();
    let _kept_open = if on_stdin_end {
        // A thread of its own: the read cannot be cancelled, and must not hold up the exit.
        std::thread::spawn(move || {
            let mut buffer = [0; 256];
            while std::io::stdin().read(&mut buffer).is_ok_and(|n| n > 0) {}
            ended.send(())
        });
        None
    } else {
        Some(ended)
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = stdin_end => {}
    }
    Ok(())
}
