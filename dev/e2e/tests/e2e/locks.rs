//! Locks and the options of roles, seen by a stock `psql` that has a session.

use std::{
    collections::BTreeMap,
    process::{Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tidegate_e2e::{
    Lab, Part,
    lab::{Person, words},
    wait,
};
use tidegate_proto::v1::{self, access_service_client::AccessServiceClient};
use tokio::process::{Child, Command};

use crate::main_job::world;

/// How long a lock may take to reach a session that runs.
const REACH_MAX: Duration = Duration::from_secs(2);

const PARTS: [Part; 4] = [Part::Auth, Part::Proxy, Part::Discovery, Part::AgentA];

/// A session in which a statement runs for a minute.
fn busy(client: &BTreeMap<String, String>) -> Result<Child> {
    let child = Command::new("psql")
        .args(["-X", "-A", "-t", "-c", "SELECT pg_sleep(60)"])
        .envs(client)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    Ok(child)
}

async fn until_audited(lab: &Lab, event: &str, count: usize) -> Result<Vec<v1::AuditEvent>> {
    wait::until(event, || async {
        let events = lab.audit(event).await;
        match events.map_err(|error| format!("{error:#}"))? {
            events if events.len() >= count => Ok(events),
            events => Err(format!("{} of {count}", events.len())),
        }
    })
    .await
}

fn last_words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_lock_ends_a_running_session_within_two_seconds_and_keeps_the_next_from_beginning()
-> Result<()> {
    let lab = Lab::start_in(world()?, &PARTS).await?;
    lab.wait_for_servers(&["analytics"], 1).await?;
    let alice = lab.person("alice", "*", "*").await?;
    let client = lab
        .client_environment(&alice, "analytics", "reader")
        .await?;
    let session = busy(&client)?;
    until_audited(&lab, "db.session.query", 1).await?;

    let mut access = AccessServiceClient::new(lab.admin());
    let made = Instant::now();
    let lock = v1::Lock {
        name: "leaver".to_owned(),
        target: Some(v1::LockTarget {
            user: "alice".to_owned(),
            ..v1::LockTarget::default()
        }),
        message: "left the company".to_owned(),
        ..v1::Lock::default()
    };
    access
        .upsert_lock(v1::UpsertLockRequest { lock: Some(lock) })
        .await
        .context("could not make the lock")?;
    let output = session.wait_with_output().await?;
    let took = made.elapsed();
    let said = last_words(&output);
    ensure!(took < REACH_MAX, "{took:?}: {said}");
    ensure!(
        said.contains("left the company") && said.contains("leaver"),
        "{said}"
    );
    let ends = until_audited(&lab, "client.disconnect", 1).await?;
    ensure!(
        ends[0].code == "T3006I" && ends[0].fields["reason"] == "locked",
        "{ends:?}"
    );

    let next = busy(&client)?.wait_with_output().await?;
    ensure!(
        last_words(&next).contains("left the company"),
        "{}",
        words(&next)
    );
    access
        .delete_lock(v1::DeleteLockRequest {
            name: "leaver".to_owned(),
        })
        .await?;
    wait::until("the lock to be lifted", || async {
        let rows = lab.query(&alice, "analytics", "reader", "SELECT 1").await;
        rows.map_err(|error| format!("{error:#}"))
    })
    .await?;
    lab.stop().await
}

/// Somebody with these roles, who may be any database user.
async fn with_roles(lab: &Lab, name: &str, roles: &str) -> Result<Person> {
    let person = lab.person(name, "*", "*").await?;
    lab.tgctl(&["users", "rm", name]).await?;
    let roles = format!("--roles={roles}");
    let args = [
        "users",
        "add",
        &roles,
        "--db-users=*",
        "--db-names=*",
        "--format=json",
        name,
    ];
    let answer: serde_json::Value = serde_json::from_str(&lab.tgctl(&args).await?)?;
    let token = answer["signup_token"].as_str();
    lab.login(&person, token).await?;
    Ok(person)
}

#[tokio::test]
async fn a_silent_client_and_one_session_too_many_end_as_the_role_says() -> Result<()> {
    let lab = Lab::start_in(world()?, &PARTS).await?;
    lab.wait_for_servers(&["analytics"], 1).await?;
    let role = v1::Role {
        name: "held".to_owned(),
        options: Some(v1::RoleOptions {
            max_db_connections: 1,
            client_idle_timeout: Some(Duration::from_secs(4).try_into()?),
            ..v1::RoleOptions::default()
        }),
        ..v1::Role::default()
    };
    AccessServiceClient::new(lab.admin())
        .upsert_role(v1::UpsertRoleRequest { role: Some(role) })
        .await
        .context("could not make the role")?;
    let alice = with_roles(&lab, "alice", "access,held").await?;
    let client = lab
        .client_environment(&alice, "analytics", "reader")
        .await?;
    let begun = Instant::now();
    let first = busy(&client)?;
    until_audited(&lab, "db.session.query", 1).await?;
    let second = busy(&client)?.wait_with_output().await?;
    ensure!(
        last_words(&second).contains("max_db_connections"),
        "{}",
        words(&second)
    );
    let first = first.wait_with_output().await?;
    ensure!(
        begun.elapsed() >= Duration::from_secs(4) && last_words(&first).contains("for 4 s"),
        "{:?}: {}",
        begun.elapsed(),
        words(&first)
    );
    let third = lab.query(&alice, "analytics", "reader", "SELECT 1").await?;
    ensure!(third == "1", "the place was given back: {third}");
    lab.stop().await
}
