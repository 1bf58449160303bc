//! Parts die: the others say so and recover by themselves; nobody restarts anything else.

use anyhow::{Context, Result, ensure};
use tidegate_e2e::{Lab, Part, wait};

use crate::main_job::world;

#[tokio::test]
async fn when_an_agent_is_killed_the_other_serves() -> Result<()> {
    let mut lab = Lab::start_in(world()?, &Part::ALL).await?;
    lab.wait_for_servers(&["analytics"], 2).await?;
    let alice = lab.person("alice", "*", "*").await?;
    ensure!(lab.query(&alice, "analytics", "reader", "SELECT 1").await? == "1");

    lab.kill_part(Part::AgentA).await?;
    // Every one of these meets a proxy that may still list the dead agent.
    for _ in 0..5 {
        ensure!(lab.query(&alice, "analytics", "reader", "SELECT 2").await? == "2");
    }
    lab.wait_for_servers(&["analytics"], 1).await?;
    lab.start_part(Part::AgentA).await?;
    lab.wait_for_servers(&["analytics"], 2).await?;
    lab.stop().await
}

#[tokio::test]
async fn sessions_go_on_while_the_auth_service_is_away() -> Result<()> {
    let mut lab = Lab::start_in(world()?, &Part::ALL).await?;
    lab.wait_for_servers(&["analytics"], 2).await?;
    let alice = lab.person("alice", "*", "*").await?;
    ensure!(lab.query(&alice, "analytics", "reader", "SELECT 1").await? == "1");
    let client = lab
        .client_environment(&alice, "analytics", "reader")
        .await?;
    lab.kill_part(Part::Auth).await?;
    let output = tokio::process::Command::new("psql")
        .args(["-X", "-A", "-t", "-c", "SELECT 3"])
        .envs(&client)
        .output()
        .await?;
    ensure!(
        output.status.success(),
        "{}",
        tidegate_e2e::lab::words(&output)
    );

    lab.start_part(Part::Auth).await?;
    lab.wait_for_servers(&["analytics", "finance", "reporting"], 2)
        .await?;
    ensure!(lab.query(&alice, "finance", "reader", "SELECT 4").await? == "4");
    lab.stop().await
}

#[tokio::test]
async fn agents_find_a_proxy_that_comes_back() -> Result<()> {
    let mut lab = Lab::start_in(world()?, &Part::ALL).await?;
    lab.wait_for_servers(&["analytics"], 2).await?;
    let alice = lab.person("alice", "*", "*").await?;
    lab.kill_part(Part::Proxy).await?;
    lab.start_part(Part::Proxy).await?;
    wait::until("a session through the new proxy", || async {
        match lab.query(&alice, "analytics", "reader", "SELECT 1").await {
            Ok(rows) if rows == "1" => Ok(()),
            Ok(rows) => Err(rows),
            Err(error) => Err(format!("{error:#}")),
        }
    })
    .await
    .with_context(|| format!("{}\n{}", lab.log(Part::Proxy), lab.log(Part::AgentA)))?;
    lab.stop().await
}
