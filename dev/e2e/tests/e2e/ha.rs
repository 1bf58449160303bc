//! Three instances of the control plane over one etcd, killed one after another under load.
//!
//! What was acknowledged is there; a watch that goes on elsewhere has seen each change once; sessions open, and discovery
//! and agents go on.

mod follow;
mod load;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use awssim::{Cluster, ClusterId};
use tidegate_e2e::{Lab, Part, Person, wait};

use crate::main_job::world;
use follow::Follower;
use load::Load;

/// By when a new session opens after an instance was killed.
const SESSION_AFTER_KILL_MAX: Duration = Duration::from_secs(10);
/// Writes that have to be acknowledged after each kill before the next thing happens.
const WRITES_BETWEEN: usize = 200;

#[tokio::test]
async fn instances_of_the_control_plane_die_and_nothing_is_lost_missed_or_repeated() -> Result<()> {
    let parts = [
        Part::Auth,
        Part::AuthB,
        Part::AuthC,
        Part::Proxy,
        Part::Discovery,
        Part::AgentA,
    ];
    let mut lab = Lab::start_over_etcd(world()?, &parts).await?;
    lab.wait_for_servers(&["analytics"], 1).await?;
    let alice = lab.person("alice", "*", "*").await?;
    ensure!(lab.query(&alice, "analytics", "reader", "SELECT 1").await? == "1");

    let instances = Part::AUTHS.map(|part| lab.admin_of(part));
    let follower = Follower::start(instances.to_vec()).await?;
    let load = Load::start(&instances);
    load.acknowledged(WRITES_BETWEEN).await?;

    // Each dies once, the last while another is away: whoever was connected to whichever has to move.
    lose(&mut lab, Part::Auth, &alice, &load).await?;
    lab.start_part(Part::Auth).await?;
    lose(&mut lab, Part::AuthB, &alice, &load).await?;
    lose(&mut lab, Part::AuthC, &alice, &load).await?;

    let written = load.stop().await?;
    follower.finish(&lab, &written).await?;
    written.check(&lab).await?;
    discovery_goes_on(&lab, &alice).await?;
    lab.stop().await
}

/// Kills an instance, and waits until writes go on and a new session opens.
async fn lose(lab: &mut Lab, part: Part, alice: &Person, load: &Load) -> Result<()> {
    let killed = Instant::now();
    lab.kill_part(part).await?;
    let left = || SESSION_AFTER_KILL_MAX.saturating_sub(killed.elapsed());
    wait::until_within(left(), "a session after the kill", || async {
        match lab.query(alice, "analytics", "reader", "SELECT 2").await {
            Ok(rows) if rows == "2" => Ok(()),
            Ok(rows) => Err(rows),
            Err(error) => Err(format!("{error:#}")),
        }
    })
    .await
    .with_context(|| format!("{} was killed\n{}", part.name(), lab.log(Part::Proxy)))?;
    load.acknowledged(WRITES_BETWEEN)
        .await
        .with_context(|| format!("{} was killed", part.name()))
}

/// A new cluster is found by the worker, and served by the agent, through what is left of the control plane.
async fn discovery_goes_on(lab: &Lab, alice: &Person) -> Result<()> {
    lab.aws()
        .add_cluster(
            &ClusterId::new("111111111111", "us-west-2", "marketing"),
            Cluster::with([("env", "prod")], ["reader"]),
        )
        .await?;
    lab.wait_for_servers(&["marketing"], 1)
        .await
        .with_context(|| format!("{}\n{}", lab.log(Part::Auth), lab.log(Part::Discovery)))?;
    ensure!(lab.query(alice, "marketing", "reader", "SELECT 3").await? == "3");
    Ok(())
}
