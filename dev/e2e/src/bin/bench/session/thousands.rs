//! Whether connecting costs more where many databases are registered and served: two systems at the same time, one with a
//! single database and one with thousands beside it, connected to in turns.

use anyhow::{Context, Result};
use serde_json::json;
use tidegate_e2e::{Lab, Part};

use super::{
    BENCH, CONNECTS,
    stock::{self, Way},
};
use crate::{
    Args,
    agent::{FLEET, Fleet, PATIENCE, PATIENCE_ONE, far::Far, far_name},
    figure::{Figure, median},
};

pub(super) async fn run(args: &Args, beside: usize) -> Result<()> {
    let far = Far::start(beside).await?;
    let one = serving_one().await?;
    let outcome = async {
        let many = serving_one().await?;
        let outcome = measure(args, &one, &many, &far).await;
        let outcome = outcome.with_context(|| many.log(Part::AgentA));
        many.stop().await?;
        outcome
    }
    .await;
    one.stop().await?;
    outcome
}

/// A system whose agent serves what carries the label, and so far that one database.
async fn serving_one() -> Result<Lab> {
    let mut lab = Lab::start_bench_cluster(&["reader"]).await?;
    let (label, value) = FLEET;
    lab.configure(
        Part::AgentA,
        json!({ "db_service": { "resources": [{ "labels": { label: value } }] } }),
    );
    lab.start_part(Part::AgentA).await?;
    let fleet = Fleet::new(&lab).await?;
    let mut watch = fleet.watch().await?;
    fleet.create(fleet.cluster_database("bench")).await?;
    watch.healthy(["bench"], PATIENCE_ONE).await?;
    Ok(lab)
}

async fn measure(args: &Args, one: &Lab, many: &Lab, far: &Far) -> Result<()> {
    let fleet = Fleet::new(many).await?;
    let mut watch = fleet.watch().await?;
    fleet.create_all(&far.listening).await?;
    let names: Vec<String> = (0..far.listening.addresses.len()).map(far_name).collect();
    watch
        .healthy(names.iter().map(String::as_str), PATIENCE)
        .await?;
    let (one, many) = (way(one).await?, way(many).await?);
    let mut figure = Figure::of_rounds(BENCH, "connect_p50_10k_databases_over_1", "ms");
    for round in 0..=args.rounds {
        let (mut beside_many, mut alone) = (Vec::new(), Vec::new());
        for _ in 0..CONNECTS {
            beside_many.push(stock::connection(&many).await?);
            alone.push(stock::connection(&one).await?);
        }
        // The first warms caches and credentials.
        if round > 0 {
            figure.add((median(beside_many.into_iter()), median(alone.into_iter())));
        }
    }
    figure.print(args.json);
    Ok(())
}

async fn way(lab: &Lab) -> Result<Way> {
    let person = lab.person("bench", "*", "*").await?;
    lab.client_environment(&person, "bench", "reader").await
}
