//! What agents learn from AWS and whom they trust: records without facts, records that AWS contradicts, and downloads
//! that are blocked.

use anyhow::{Context, Result, ensure};
use awssim::{Cluster, ClusterId, World};
use serde_json::{Value, json};
use tidegate_e2e::{DEMO_WORLD, Lab, Part, wait};

const ACCOUNT: &str = "111111111111";

/// The world of the demo, where agent A may also ask what clusters there are.
fn world() -> Result<World> {
    let mut world: Value = serde_json::from_str(DEMO_WORLD)?;
    let account = &mut world["accounts"][ACCOUNT];
    let may_ask =
        json!({ "Effect": "Allow", "Action": "redshift:DescribeClusters", "Resource": "*" });
    for (sort, who) in [
        ("users", "tidegate-agent-a"),
        ("roles", "tidegate-access-a"),
    ] {
        let statements = account[sort][who]["policies"][0]["Statement"].as_array_mut();
        statements.context("no statements")?.push(may_ask.clone());
    }
    Ok(World::from_json(&world.to_string())?)
}

fn analytics() -> ClusterId {
    ClusterId::new(ACCOUNT, "us-east-1", "analytics")
}

#[tokio::test]
async fn agents_complete_what_is_written_go_without_downloads_and_refuse_what_aws_contradicts()
-> Result<()> {
    let world = world()?;
    let host = world.host_name(&analytics());
    let mut lab = Lab::start_in(world, &[Part::Auth, Part::Proxy, Part::Discovery]).await?;
    lab.configure(
        Part::AgentA,
        json!({ "db_service": {
            // Nobody listens there.
            "ca_bundles": "http://127.0.0.1:9",
            "databases": [{ "name": "written", "protocol": "postgres", "uri": format!("{host}:5439") }],
        }}),
    );
    lab.start_part(Part::AgentA).await?;

    // Its address is all that was written of it.
    let written = wait::until("the facts of AWS", || async {
        let servers = lab
            .database_servers()
            .await
            .map_err(|error| format!("{error:#}"))?;
        let databases = servers.into_iter().filter_map(|server| server.database);
        let mut written = databases.filter(|database| database.name == "written");
        let written = written.next().ok_or("there is no such server".to_owned())?;
        let label = |key: &str| written.labels.get(key).cloned().unwrap_or_default();
        let told = (label("account-id"), label("region"), label("env"));
        let expected = (
            ACCOUNT.to_owned(),
            "us-east-1".to_owned(),
            "prod".to_owned(),
        );
        if told == expected {
            Ok(written)
        } else {
            Err(format!("{written:?}"))
        }
    })
    .await
    .with_context(|| lab.log(Part::AgentA))?;
    let aws = written.aws.context("no facts")?;
    ensure!(
        (aws.account_id.as_str(), aws.redshift_cluster_id.as_str()) == (ACCOUNT, "analytics"),
        "{aws:?}"
    );

    lab.wait_for_servers(&["analytics"], 1).await?;
    let alice = lab.person("alice", "reader", "dev").await?;
    let rows = lab.query(&alice, "analytics", "reader", "SELECT 1").await;
    rows.with_context(|| lab.log(Part::AgentA))?;
    let log = lab.log(Part::AgentA);
    ensure!(log.contains("cannot refresh a CA bundle"), "{log}");

    // The cluster moves while nobody scans: the record is as good as one that somebody tampered with.
    lab.stop_part(Part::Discovery).await?;
    lab.stop_part(Part::AgentA).await?;
    let cluster = Cluster {
        port: Some(5555),
        unreachable: true,
        ..Cluster::default()
    };
    lab.aws().remove_cluster(&analytics()).await?;
    lab.aws().add_cluster(&analytics(), cluster).await?;
    lab.start_part(Part::AgentA).await?;
    let event = wait::until("the refusal in audit", || async {
        let events = lab.audit("db.endpoint.refused").await;
        let events = events.map_err(|error| format!("{error:#}"))?;
        events.into_iter().next().ok_or("there is none".to_owned())
    })
    .await
    .with_context(|| lab.log(Part::AgentA))?;
    ensure!(
        event.code == "TDE00W" && event.db_service.starts_with("analytics-"),
        "{event:?}"
    );
    ensure!(event.error.contains(":5555"), "{event:?}");
    let servers = lab.database_servers().await?;
    let served = servers.iter().filter_map(|server| server.database.as_ref());
    let names: Vec<&str> = served
        .map(|database| database.discovered_name.as_str())
        .collect();
    ensure!(!names.contains(&"analytics"), "{names:?}");
    lab.stop().await
}
