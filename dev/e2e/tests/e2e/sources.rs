//! What agents' own files say: read again while they run, labels that commands print, and agents that disagree.

use std::{
    fs,
    net::TcpListener,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use awssim::World;
use serde_json::{Value, json};
use tidegate_e2e::{Lab, Part, wait};

/// By when what a clean stop withdrew is gone.
const STOP_MAX: Duration = Duration::from_secs(10);
/// By when what a crash left behind is gone.
const CRASH_MAX: Duration = Duration::from_secs(60);

/// What agents need.
const PARTS: [Part; 2] = [Part::Auth, Part::Proxy];

/// A database that nobody logs in to: these tests are about what is served, and not about sessions.
fn database(name: &str, listener: &TcpListener) -> Result<Value> {
    let uri = listener.local_addr()?.to_string();
    Ok(json!({ "name": name, "protocol": "postgres", "uri": uri }))
}

fn listener() -> Result<TcpListener> {
    Ok(TcpListener::bind("127.0.0.1:0")?)
}

/// What `tgctl db ls` says, by agent and database.
async fn served(lab: &Lab) -> Result<Vec<Value>> {
    let text = lab.tgctl(&["db", "ls", "--format=json"]).await?;
    serde_json::from_str(&text).with_context(|| text)
}

fn names(servers: &[Value]) -> Vec<(&str, &str)> {
    servers
        .iter()
        .filter_map(|server| {
            Some((
                server["spec"]["hostname"].as_str()?,
                server["metadata"]["name"].as_str()?,
            ))
        })
        .collect()
}

/// Waits until exactly these agents serve exactly these databases.
async fn until_served(
    lab: &Lab,
    patience: Duration,
    wanted: &[(&str, &str)],
) -> Result<Vec<Value>> {
    wait::until_within(patience, &format!("{wanted:?} to be served"), || async {
        let servers = served(lab).await.map_err(|error| format!("{error:#}"))?;
        if names(&servers) == wanted {
            Ok(servers)
        } else {
            Err(format!("there are {:?}", names(&servers)))
        }
    })
    .await
    .with_context(|| lab.log(Part::AgentA))
}

/// Waits until a part has logged this text so many times.
async fn until_logged(lab: &Lab, part: Part, text: &str, times: usize) -> Result<String> {
    wait::until(&format!("{text:?} in the log"), || async {
        let log = lab.log(part);
        if log.matches(text).count() >= times {
            Ok(log)
        } else {
            Err(log)
        }
    })
    .await
}

#[tokio::test]
async fn a_file_is_read_again_on_sighup_and_a_bad_one_changes_nothing() -> Result<()> {
    let mut lab = Lab::start_in(World::default(), &PARTS).await?;
    let listens = listener()?;
    let (own, second) = (database("own", &listens)?, database("second", &listens)?);
    let settings = |databases: &[&Value]| json!({ "db_service": { "databases": databases } });
    lab.configure(Part::AgentA, settings(&[&own]));
    lab.start_part(Part::AgentA).await?;
    until_served(&lab, wait::PATIENCE, &[("agent-a", "own")]).await?;

    let mut changes = settings(&[&own, &second]);
    changes["tidegate"] = json!({ "nodename": "renamed", "log": { "severity": "debug" } });
    lab.reconfigure(Part::AgentA, changes)?;
    let both = [("agent-a", "own"), ("agent-a", "second")];
    until_served(&lab, wait::PATIENCE, &both).await?;
    let log = until_logged(&lab, Part::AgentA, "count only after a restart", 1).await?;
    let warning = log
        .lines()
        .find(|line| line.contains("count only after a restart"))
        .context("just seen")?;
    ensure!(
        warning.contains("tidegate.nodename") && !warning.contains("db_service"),
        "{warning}"
    );

    let file = lab.config_file(Part::AgentA);
    let good = fs::read_to_string(&file)?;
    fs::write(&file, good.replace("\"databases\"", "\"databasse\""))?;
    lab.hang_up(Part::AgentA)?;
    let log = until_logged(&lab, Part::AgentA, "refused the configuration file", 1).await?;
    ensure!(log.contains("did you mean `databases`?"), "{log}");
    fs::write(&file, "db_service: [")?;
    lab.hang_up(Part::AgentA)?;
    until_logged(&lab, Part::AgentA, "refused the configuration file", 2).await?;
    until_served(&lab, wait::PATIENCE, &both).await?;

    lab.reconfigure(Part::AgentA, settings(&[&second]))?;
    until_served(&lab, wait::PATIENCE, &[("agent-a", "second")]).await?;
    lab.stop().await
}

#[tokio::test]
async fn labels_that_commands_print_change_while_the_agent_runs() -> Result<()> {
    let mut lab = Lab::start_in(World::default(), &PARTS).await?;
    let listens = listener()?;
    let file = lab.dir().join("colour");
    fs::write(&file, "blue\n")?;
    let mut own = database("own", &listens)?;
    own["static_labels"] = json!({ "env": "prod" });
    own["dynamic_labels"] =
        json!([{ "name": "colour", "command": ["/bin/cat", file], "period": "1s" }]);
    let settings = json!({ "db_service": { "databases": [own] } });
    lab.configure(Part::AgentA, settings);
    lab.start_part(Part::AgentA).await?;
    let colour = |servers: &[Value]| servers[0]["metadata"]["labels"]["colour"].clone();
    let servers = until_served(&lab, wait::PATIENCE, &[("agent-a", "own")]).await?;
    ensure!(colour(&servers) == "blue", "{servers:?}");

    fs::write(&file, "green\n")?;
    wait::until("the other label", || async {
        let servers = served(&lab).await.map_err(|error| format!("{error:#}"))?;
        if colour(&servers) == "green" {
            Ok(())
        } else {
            Err(format!("{servers:?}"))
        }
    })
    .await?;
    fs::remove_file(&file)?;
    wait::until("what is wrong with the command", || async {
        let servers = served(&lab).await.map_err(|error| format!("{error:#}"))?;
        let remark = &servers[0]["status"]["remarks"][0];
        match remark.as_str() {
            Some(remark) if remark.contains("its last value is kept") => Ok(()),
            _ => Err(format!("{servers:?}")),
        }
    })
    .await?;
    ensure!(colour(&served(&lab).await?) == "green", "the value stays");
    lab.stop().await
}

#[tokio::test]
async fn agents_that_disagree_are_told_and_what_they_serve_goes_with_them() -> Result<()> {
    let mut lab = Lab::start_in(World::default(), &PARTS).await?;
    let (here, there) = (listener()?, listener()?);
    for (part, listens) in [(Part::AgentA, &here), (Part::AgentB, &there)] {
        let settings = json!({ "db_service": { "databases": [database("own", listens)?] } });
        lab.configure(part, settings);
        lab.start_part(part).await?;
    }
    let both = [("agent-a", "own"), ("agent-b", "own")];
    let servers = until_served(&lab, wait::PATIENCE, &both).await?;
    for (server, other) in servers.iter().zip([&there, &here]) {
        let conflict = server["status"]["conflict"].as_str().unwrap_or_default();
        let address = other.local_addr()?.to_string();
        ensure!(conflict.contains(&address), "{server}");
    }
    let yaml = lab
        .tgctl(&["get", "db_server/own", "--format=yaml"])
        .await?;
    ensure!(yaml.matches("conflict: ").count() == 2, "{yaml}");
    let text = lab.tgctl(&["db", "ls"]).await?;
    ensure!(text.contains("from its own file"), "{text}");
    let told = wait::until("the conflict in the audit log", || async {
        let events = lab
            .audit("db.conflict")
            .await
            .map_err(|error| format!("{error:#}"))?;
        if events.is_empty() {
            Err("nothing".to_owned())
        } else {
            Ok(events)
        }
    })
    .await?;
    ensure!(told.len() == 1 && told[0].db_service == "own", "{told:?}");

    let stopped = Instant::now();
    lab.stop_part(Part::AgentA).await?;
    let left = STOP_MAX.saturating_sub(stopped.elapsed());
    let servers = until_served(&lab, left, &[("agent-b", "own")]).await?;
    ensure!(servers[0]["status"]["conflict"].is_null(), "{servers:?}");

    lab.kill_part(Part::AgentB).await?;
    until_served(&lab, CRASH_MAX, &[]).await?;
    lab.stop().await
}
