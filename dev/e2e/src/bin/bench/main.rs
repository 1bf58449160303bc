//! `cargo xtask bench NAME [--json]`: ours beside the reference, interleaved in one run, as medians of ratios.
//!
//! Machines are noisy and shared: ratios count, and CPU per unit of work is steadier than throughput. Each benchmark is
//! one module; [`figure`] prints. `floor`, `bare` and `far` are what benchmarks start as processes of
//! their own.

mod agent;
mod discovery;
mod figure;
mod floor;
mod inventory;
mod session;
mod usage;

use anyhow::{Result, bail};
use clap::{Parser, ValueEnum};

/// Measures ours beside the reference.
#[derive(Parser)]
pub(crate) struct Args {
    /// What to measure: `session`, `discovery`, `inventory` or `agent`.
    name: String,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
    /// Rounds of `session`, of the queries of `inventory`, and of the connections of `agent`; each measures both sides.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Sections to measure, of `session` and `inventory`; all when none is named.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Accounts of `discovery`.
    #[arg(long, default_value_t = 100)]
    accounts: usize,
    /// Regions of each account of `discovery`.
    #[arg(long, default_value_t = 10)]
    regions: usize,
    /// Clusters of each region of `discovery`.
    #[arg(long, default_value_t = 100)]
    clusters: usize,
    /// Where the simulated AWS is, for `floor`, which `discovery` starts as a process of its own.
    #[arg(long, hide = true)]
    endpoint: Option<String>,
    /// What `floor` reads.
    #[arg(long, hide = true, value_delimiter = ',')]
    account_list: Vec<String>,
    /// What `floor` reads.
    #[arg(long, hide = true, value_delimiter = ',')]
    region_list: Vec<String>,
    #[command(flatten)]
    inventory: inventory::Options,
    #[command(flatten)]
    agent: agent::AgentOptions,
    #[command(flatten)]
    session: session::SessionOptions,
}

/// The sections of a benchmark, by their names.
fn sections<S: ValueEnum>(names: &[String]) -> Result<Vec<S>> {
    let section = |name: &String| S::from_str(name, false).map_err(anyhow::Error::msg);
    names.iter().map(section).collect()
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = Args::parse();
    let figures = match args.name.as_str() {
        "discovery" => discovery::run(&args).await?,
        // They are long: each figure is printed when it is there.
        "session" => return session::run(&args).await,
        "inventory" => {
            args.inventory.only = sections(&args.only)?;
            return inventory::run(&args).await;
        }
        "agent" => return agent::run(&args).await,
        "far" => return agent::far::run(args.agent.served).await,
        "floor" => return floor::run(&args).await,
        "bare" => return inventory::bare::run().await,
        other => {
            bail!(
                "there is no benchmark `{other}`: try `session`, `discovery`, `inventory` or `agent`"
            )
        }
    };
    figures.iter().for_each(|figure| figure.print(args.json));
    Ok(())
}
