//! An agent that starts while the control plane is away: whom it lets in, whom not, and what happens afterwards.

use std::{collections::BTreeMap, fs, path::PathBuf, process::Output, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tidegate_e2e::{Lab, Part, lab::words, wait};
use tidegate_proto::v1::{self, access_service_client::AccessServiceClient};
use tokio::process::Command;

use crate::main_job::{cluster, world};

/// The environment of a stock client.
type Client = BTreeMap<String, String>;

const DATABASE: &str = "my-redshift";

/// What an agent logs when what was kept stands in.
const STANDS_IN: &str = "the control plane is away: deciding by roles and locks that were kept";

/// What an agent logs when nothing does.
const NOTHING_STANDS_IN: &str = "nothing stands in for it: nobody is let in until it answers";

async fn psql(client: &Client) -> Result<Output> {
    let output = Command::new("psql")
        .args(["-X", "-A", "-t", "-c", "SELECT 7"])
        .envs(client)
        .kill_on_drop(true)
        .output();
    Ok(output.await?)
}

async fn until_let_in(lab: &Lab, client: &Client) -> Result<()> {
    wait::until("a session", || async {
        let output = psql(client).await.map_err(|error| format!("{error:#}"))?;
        if output.status.success() && output.stdout == b"7\n" {
            Ok(())
        } else {
            Err(words(&output))
        }
    })
    .await
    .with_context(|| lab.log(Part::AgentA))
}

async fn until_refused(lab: &Lab, client: &Client, with: &str) -> Result<()> {
    wait::until(&format!("a refusal with {with:?}"), || async {
        let output = psql(client).await.map_err(|error| format!("{error:#}"))?;
        let said = words(&output);
        if !output.status.success() && said.contains(with) {
            Ok(())
        } else {
            Err(said)
        }
    })
    .await
    .with_context(|| lab.log(Part::AgentA))
}

async fn until_logged(lab: &Lab, text: &str) -> Result<()> {
    // Twice what an outage has to last before what was kept is too old.
    wait::until_within(Duration::from_secs(120), text, || async {
        let log = lab.log(Part::AgentA);
        if log.contains(text) { Ok(()) } else { Err(log) }
    })
    .await
}

async fn settings(lab: &Lab, offline_start: &str) -> Result<Value> {
    let endpoint = lab
        .aws()
        .endpoint(&cluster("111111111111", "us-east-1", "sandbox"))
        .await
        .context("sandbox")?;
    let database = json!({
        "name": DATABASE,
        "protocol": "postgres",
        "uri": format!("{}:{}", endpoint.host, endpoint.port),
        "static_labels": { "env": "test" },
        "aws": { "assume_role_arn": "arn:aws:iam::111111111111:role/tidegate-access-a" },
    });
    Ok(json!({ "db_service": {
        "resources": null,
        "databases": [database],
        "offline_start": offline_start,
    } }))
}

/// A lab whose agent has one database of its own.
async fn lab(offline_start: &str) -> Result<Lab> {
    let mut lab = Lab::start_in(world()?, &[Part::Auth, Part::Proxy]).await?;
    let settings = settings(&lab, offline_start).await?;
    lab.configure(Part::AgentA, settings);
    lab.start_part(Part::AgentA).await?;
    wait::until("the agent to serve its database", || async {
        let servers = lab.database_servers().await;
        match servers.map_err(|error| format!("{error:#}"))?.len() {
            1 => Ok(()),
            other => Err(format!("{other} databases are served")),
        }
    })
    .await
    .with_context(|| lab.log(Part::AgentA))?;
    Ok(lab)
}

/// Somebody with these roles, as a stock client.
async fn client(lab: &Lab, name: &str, roles: &str) -> Result<Client> {
    let person = lab.person(name, "*", "*").await?;
    if roles != "access" {
        lab.tgctl(&["users", "rm", name]).await?;
        let args = [
            "users",
            "add",
            &format!("--roles={roles}"),
            "--db-users=*",
            "--db-names=*",
            "--format=json",
            name,
        ];
        let answer: Value = serde_json::from_str(&lab.tgctl(&args).await?)?;
        lab.login(&person, answer["signup_token"].as_str()).await?;
    }
    lab.client_environment(&person, DATABASE, "reader").await
}

async fn make_role(lab: &Lab, role: v1::Role) -> Result<()> {
    AccessServiceClient::new(lab.admin())
        .upsert_role(v1::UpsertRoleRequest { role: Some(role) })
        .await
        .context("could not make the role")?;
    Ok(())
}

async fn lock(lab: &Lab, user: &str) -> Result<()> {
    let lock = v1::Lock {
        name: format!("lock-{user}"),
        target: Some(v1::LockTarget {
            user: user.to_owned(),
            ..v1::LockTarget::default()
        }),
        message: "left the company".to_owned(),
        ..v1::Lock::default()
    };
    AccessServiceClient::new(lab.admin())
        .upsert_lock(v1::UpsertLockRequest { lock: Some(lock) })
        .await
        .context("could not make the lock")?;
    Ok(())
}

fn kept(lab: &Lab) -> PathBuf {
    lab.dir().join(Part::AgentA.name()).join("offline.sealed")
}

#[tokio::test]
async fn an_agent_that_starts_without_a_control_plane_goes_on_by_what_it_was_told_until_it_is_told_more()
-> Result<()> {
    let mut lab = lab("1h").await?;
    let held = v1::Role {
        name: "held".to_owned(),
        options: Some(v1::RoleOptions {
            lock: v1::LockMode::Strict.into(),
            ..v1::RoleOptions::default()
        }),
        ..v1::Role::default()
    };
    make_role(&lab, held).await?;
    let not_reader = v1::Role {
        name: "not-reader".to_owned(),
        deny: Some(v1::RoleConditions {
            db_users: vec!["reader".to_owned()],
            ..v1::RoleConditions::default()
        }),
        ..v1::Role::default()
    };
    make_role(&lab, not_reader).await?;
    let alice = client(&lab, "alice", "access").await?;
    let carol = client(&lab, "carol", "access,held").await?;
    let dave = client(&lab, "dave", "access").await?;
    let bob = client(&lab, "bob", "access,not-reader").await?;
    until_let_in(&lab, &carol).await?;
    until_let_in(&lab, &dave).await?;
    lock(&lab, "dave").await?;
    until_refused(&lab, &dave, "left the company").await?;
    lab.stop_part(Part::Auth).await?;
    lab.stop_part(Part::AgentA).await?;
    lab.start_part(Part::AgentA).await?;
    until_logged(&lab, STANDS_IN).await?;
    until_let_in(&lab, &alice).await?;
    until_refused(&lab, &dave, "left the company").await?;
    until_refused(&lab, &bob, "denied").await?;
    until_refused(&lab, &carol, "does not know which locks").await?;
    until_logged(&lab, "component is degraded").await?;

    lab.start_part(Part::Auth).await?;
    until_logged(&lab, "the control plane is back").await?;
    until_let_in(&lab, &carol).await?;
    lock(&lab, "alice").await?;
    until_refused(&lab, &alice, "left the company").await?;
    let sessions = lab.audit("db.session.end").await?;
    ensure!(
        sessions.iter().any(|event| event.user == "alice"),
        "the session of the outage is audited: {sessions:?}"
    );
    lab.stop().await
}

#[tokio::test]
async fn what_was_kept_too_long_ago_or_is_damaged_lets_nobody_in() -> Result<()> {
    let mut lab = lab("1m").await?;
    let alice = client(&lab, "alice", "access").await?;
    until_let_in(&lab, &alice).await?;
    lab.stop_part(Part::Auth).await?;
    lab.stop_part(Part::AgentA).await?;

    lab.start_part(Part::AgentA).await?;
    until_logged(&lab, STANDS_IN).await?;
    until_let_in(&lab, &alice).await?;
    until_logged(&lab, "what was kept of it is too old now").await?;
    until_refused(&lab, &alice, "does not know the cluster's roles").await?;

    lab.stop_part(Part::AgentA).await?;
    lab.start_part(Part::AgentA).await?;
    until_logged(&lab, NOTHING_STANDS_IN).await?;
    until_logged(&lab, "longer ago than `offline_start` allows").await?;
    ensure!(!psql(&alice).await?.status.success());

    lab.stop_part(Part::AgentA).await?;
    let mut bytes = fs::read(kept(&lab))?;
    let last = bytes.last_mut().context("an empty file")?;
    *last ^= 1;
    fs::write(kept(&lab), bytes)?;
    lab.start_part(Part::AgentA).await?;
    until_logged(&lab, NOTHING_STANDS_IN).await?;
    until_logged(&lab, "is damaged").await?;
    ensure!(!psql(&alice).await?.status.success());

    lab.start_part(Part::Auth).await?;
    until_let_in(&lab, &alice).await?;
    lab.stop().await
}
