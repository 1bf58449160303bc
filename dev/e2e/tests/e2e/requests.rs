//! Roles that are asked for, approved, used by a stock `psql`, and over.

use std::{
    collections::BTreeMap,
    process::{Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tidegate_e2e::{Lab, Part, Person, lab::words, wait};
use tidegate_proto::v1::AuditEvent;
use tokio::process::{Child, Command};

use crate::main_job::world;

const PARTS: [Part; 4] = [Part::Auth, Part::Proxy, Part::Discovery, Part::AgentA];
const DATABASE: &str = "analytics";
/// How long the roles are had in the test that waits for their end.
const ACCESS: Duration = Duration::from_secs(75);
/// How much sooner a session may end: certificates end with whole seconds, and one is made from the other.
const EARLY_MAX: Duration = Duration::from_secs(5);
/// How long the removal of a request may take to reach a session that runs.
const REACH_MAX: Duration = Duration::from_secs(2);

/// Somebody with one role, who may be any database user.
async fn person(lab: &Lab, name: &str, role: &str) -> Result<Person> {
    let person = lab.person(name, "*", "*").await?;
    let set_roles = format!("--set-roles={role}");
    lab.tgctl(&["users", "update", name, &set_roles]).await?;
    lab.login(&person, None).await?;
    Ok(person)
}

/// A session in which a statement runs for two minutes.
fn busy(client: &BTreeMap<String, String>) -> Result<Child> {
    let child = Command::new("psql")
        .args(["-X", "-A", "-t", "-c", "SELECT pg_sleep(120)"])
        .envs(client)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    Ok(child)
}

async fn until_audited(lab: &Lab, event: &str, count: usize) -> Result<Vec<AuditEvent>> {
    wait::until(event, || async {
        let events = lab.audit(event).await;
        match events.map_err(|error| format!("{error:#}"))? {
            events if events.len() >= count => Ok(events),
            events => Err(format!("{} of {count}", events.len())),
        }
    })
    .await
}

fn json(output: &Output) -> Result<Value> {
    ensure!(output.status.success(), "{}", words(output));
    serde_json::from_slice(&output.stdout).with_context(|| words(output))
}

/// The one request that waits for a reviewer.
async fn waiting(lab: &Lab, reviewer: &Person) -> Result<String> {
    wait::until("a request to review", || async {
        let args = ["request", "ls", "--reviewable", "--format=json"];
        let output = lab.tg(reviewer, &args).await;
        let listed = json(&output.map_err(|error| error.to_string())?);
        let listed = listed.map_err(|error| format!("{error:#}"))?;
        let id = listed[0]["metadata"]["name"].as_str();
        id.map(str::to_owned).ok_or_else(|| "none".to_owned())
    })
    .await
}

#[tokio::test]
async fn roles_that_a_reviewer_approves_open_a_database_until_their_time_is_over() -> Result<()> {
    let lab = Lab::start_in(world()?, &PARTS).await?;
    lab.wait_for_servers(&[DATABASE], 1).await?;
    let alice = person(&lab, "alice", "requester").await?;
    let bob = person(&lab, "bob", "reviewer").await?;
    let before = lab.query(&alice, DATABASE, "reader", "SELECT 1").await;
    ensure!(
        before.is_err(),
        "without the role it is refused: {before:?}"
    );

    let asked = Instant::now();
    let max_duration = format!("--max-duration={}s", ACCESS.as_secs());
    let create = [
        "request",
        "create",
        "--roles=access",
        "--reason=look at SEC-123",
        &max_duration,
        "--format=json",
    ];
    let review = async {
        let id = waiting(&lab, &bob).await?;
        let review = ["request", "review", &id, "--approve", "--reason=go on"];
        let reviewed = lab.tg(&bob, &review).await?;
        ensure!(reviewed.status.success(), "{}", words(&reviewed));
        anyhow::Ok(id)
    };
    let (created, id) = tokio::join!(lab.tg(&alice, &create), review);
    let (created, id) = (json(&created?)?, id?);
    ensure!(created["spec"]["state"] == "APPROVED", "{created}");
    let status = json(&lab.tg(&alice, &["status", "--format=json"]).await?)?;
    ensure!(
        status["roles"] == serde_json::json!(["requester", "access"]),
        "{status}"
    );
    ensure!(
        status["access_requests"][0]["id"] == id.as_str(),
        "{status}"
    );

    let rows = lab.query(&alice, DATABASE, "reader", "SELECT 1").await?;
    ensure!(rows == "1", "{rows}");
    let started = until_audited(&lab, "db.session.start", 1).await?;
    let started = started.iter().find(|event| event.code == "TDB00I");
    let carried = started.and_then(|event| event.fields.get("access_requests"));
    ensure!(carried == Some(&id), "{started:?}");

    // Whoever stays connected loses the role all the same.
    let client = lab.client_environment(&alice, DATABASE, "reader").await?;
    let session = busy(&client)?.wait_with_output().await?;
    let said = String::from_utf8_lossy(&session.stderr).into_owned();
    ensure!(said.contains("has expired"), "{}", words(&session));
    let took = asked.elapsed();
    ensure!(took >= ACCESS - EARLY_MAX && took < ACCESS * 2, "{took:?}");
    // A certificate ends with the second that its time is over in, and one made from it a second before.
    wait::until("own roles", || async {
        let output = lab.tg(&alice, &["status", "--format=json"]).await;
        let status = json(&output.map_err(|error| error.to_string())?);
        let status = status.map_err(|error| format!("{error:#}"))?;
        let is_own = status["roles"] == serde_json::json!(["requester"]);
        is_own.then_some(()).ok_or_else(|| status.to_string())
    })
    .await?;
    let after = lab.query(&alice, DATABASE, "reader", "SELECT 1").await;
    ensure!(after.is_err(), "the role is over: {after:?}");
    lab.stop().await
}

#[tokio::test]
async fn a_removed_request_ends_its_sessions_within_two_seconds_and_dropping_it_goes_back()
-> Result<()> {
    let lab = Lab::start_in(world()?, &PARTS).await?;
    lab.wait_for_servers(&[DATABASE], 1).await?;
    let alice = person(&lab, "alice", "requester").await?;
    let create = [
        "request",
        "create",
        "--roles=access",
        "--nowait",
        "--format=json",
    ];
    let created = json(&lab.tg(&alice, &create).await?)?;
    let id = created["metadata"]["name"]
        .as_str()
        .context("no id")?
        .to_owned();
    lab.tgctl(&["requests", "approve", &id, "--reason=outage"])
        .await?;
    let request_id = format!("--request-id={id}");
    let proxy = ["login", request_id.as_str()];
    let assumed = lab.tg(&alice, &proxy).await?;
    ensure!(assumed.status.success(), "{}", words(&assumed));
    let client = lab.client_environment(&alice, DATABASE, "reader").await?;
    let session = busy(&client)?;
    until_audited(&lab, "db.session.query", 1).await?;

    let removed = Instant::now();
    let told = lab.tgctl(&["requests", "rm", &id]).await?;
    ensure!(told.contains(&format!("access-request-{id}")), "{told}");
    let session = session.wait_with_output().await?;
    let took = removed.elapsed();
    let said = String::from_utf8_lossy(&session.stderr).into_owned();
    ensure!(
        took < REACH_MAX && said.contains("was removed"),
        "{took:?}: {said}"
    );

    let locked = lab.tg(&alice, &["db", "ls"]).await?;
    ensure!(
        !locked.status.success() && words(&locked).contains("tg request drop"),
        "{}",
        words(&locked)
    );
    let dropped = lab.tg(&alice, &["request", "drop"]).await?;
    ensure!(dropped.status.success(), "{}", words(&dropped));
    let listed = lab.tg(&alice, &["db", "ls"]).await?;
    ensure!(listed.status.success(), "{}", words(&listed));
    lab.stop().await
}
