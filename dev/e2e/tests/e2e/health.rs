//! Health as operators and proxies see it: a configuration is followed, a database that goes is unhealthy at every agent,
//! an agent that cannot reach it is passed over, and both are audited.

use std::io::Write as _;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tidegate_e2e::{Lab, Part, wait};
use tidegate_proto::v1;
use tokio::net::TcpListener;

use crate::main_job::world;

/// A database whose health is looked at.
const DATABASE: &str = "analytics";

/// Writes a document, and has `tgctl` create it.
async fn create(lab: &Lab, document: &str) -> Result<()> {
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(document.as_bytes())?;
    let path = file.path().display().to_string();
    lab.tgctl(&["create", "-f", &path]).await?;
    Ok(())
}

/// Every agent's word on a database: the agent's host name, and the health.
async fn told(lab: &Lab, database: &str) -> Result<Vec<(String, v1::TargetHealth)>, String> {
    let servers = lab.database_servers().await;
    let servers = servers.map_err(|error| format!("{error:#}"))?;
    let is_it = |found: &v1::Database| found.discovered_name == database || found.name == database;
    Ok(servers
        .into_iter()
        .filter(|server| server.database.as_ref().is_some_and(is_it))
        .map(|server| (server.hostname, server.target_health.unwrap_or_default()))
        .collect())
}

/// Waits until an agent says this of a database.
async fn until(lab: &Lab, agent: Part, database: &str, status: &str) -> Result<v1::TargetHealth> {
    let what = format!("{database} to be {status} at {}", agent.name());
    wait::until(&what, || async {
        let told = told(lab, database).await?;
        told.iter()
            .find(|(host, health)| host == agent.name() && health.status == status)
            .map(|(_, health)| health.clone())
            .ok_or_else(|| format!("{told:?}"))
    })
    .await
}

fn every_five_seconds(name: &str, labels: &str) -> String {
    format!(
        "kind: health_check_config
version: v1
metadata:
  name: {name}
spec:
  match:
    db_labels:
    - name: {labels}
      values: ['*']
  interval: 5s
  timeout: 2s
  healthy_threshold: 2
"
    )
}

async fn audited(lab: &Lab, database: &str, code: &str) -> Result<()> {
    wait::until(&format!("{code} of {database}"), || async {
        let events = lab.audit("db.health.change").await;
        let events = events.map_err(|error| format!("{error:#}"))?;
        let is_it =
            |event: &&v1::AuditEvent| event.code == code && event.db_service.starts_with(database);
        events
            .iter()
            .find(is_it)
            .map(|_| ())
            .ok_or_else(|| format!("{events:?}"))
    })
    .await
}

#[tokio::test]
async fn a_database_that_goes_is_unhealthy_audited_and_healthy_again() -> Result<()> {
    let parts = [Part::Auth, Part::Proxy, Part::Discovery, Part::AgentA];
    let lab = Lab::start_in(world()?, &parts).await?;
    lab.wait_for_servers(&[DATABASE], 1).await?;
    create(&lab, &every_five_seconds("a", "env")).await?;
    let healthy = until(&lab, Part::AgentA, DATABASE, "healthy").await?;
    ensure!(healthy.certificate_not_after.is_some(), "{healthy:?}");

    let cluster = awssim::ClusterId::new("111111111111", "us-east-1", DATABASE);
    lab.aws().set_status(&cluster, "rebooting").await?;
    let unhealthy = until(&lab, Part::AgentA, DATABASE, "unhealthy").await?;
    ensure!(unhealthy.failed_layer == "tcp", "{unhealthy:?}");
    ensure!(!unhealthy.transition_error.is_empty(), "{unhealthy:?}");
    audited(&lab, DATABASE, "TDH00W").await?;

    lab.aws().set_status(&cluster, "available").await?;
    until(&lab, Part::AgentA, DATABASE, "healthy").await?;
    audited(&lab, DATABASE, "TDH00I").await?;

    // Nothing matches any more: neither the preset, which this replaces, nor what was made above.
    create(&lab, &every_five_seconds("default", "no-such-label")).await?;
    lab.tgctl(&["rm", "health_check_config/a"]).await?;
    let disabled = until(&lab, Part::AgentA, DATABASE, "unknown").await?;
    ensure!(disabled.transition_reason == "disabled", "{disabled:?}");
    lab.stop().await
}

#[tokio::test]
async fn sessions_go_to_the_agent_that_reaches_the_database() -> Result<()> {
    let parts = [Part::Auth, Part::Proxy, Part::Discovery, Part::AgentB];
    let mut lab = Lab::start_in(world()?, &parts).await?;
    let servers = lab.wait_for_servers(&[DATABASE], 1).await?;
    let name = servers
        .into_iter()
        .filter_map(|server| server.database)
        .find(|database| database.discovered_name == DATABASE)
        .map(|database| database.name)
        .context("it is served")?;
    // Agent A has it in its file at an address where nobody listens.
    let nobody = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let own = json!({
        "name": name, "protocol": "postgres", "uri": nobody.to_string(),
        "tls": { "mode": "insecure" },
    });
    lab.configure(
        Part::AgentA,
        json!({ "db_service": { "databases": [own] } }),
    );
    lab.start_part(Part::AgentA).await?;
    until(&lab, Part::AgentA, &name, "unhealthy").await?;
    until(&lab, Part::AgentB, &name, "healthy").await?;

    let alice = lab.person("alice", "*", "*").await?;
    for _ in 0..6 {
        let answer = lab.query(&alice, DATABASE, "reader", "SELECT 1").await?;
        ensure!(answer == "1", "{answer}");
    }
    let log = lab.log(Part::AgentA);
    ensure!(!log.contains("left a session to another agent"), "{log}");
    audited(&lab, &name, "TDH00W").await?;
    lab.stop().await
}
