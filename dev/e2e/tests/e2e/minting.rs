//! Credentials from AWS: storms of logins, identities that expire and come back, roles that lose their rights, and
//! refusals that say what to change.

use std::{process::Stdio, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use aws_config::{BehaviorVersion, ConfigLoader};
use aws_credential_types::Credentials;
use awssim::{Cluster, Fault, FaultKind, RateLimit, Role, Sim, SimConfig, World};
use futures::future::join_all;
use jiff::Timestamp;
use serde_json::{Value, json};
use tidegate_aws::{
    AwsErrorClass, AwsFactory, AwsMinter, CredentialCache, CredentialKey, Login, LoginRequest,
    RoleChain, SessionTag, diagnose, diagnosis::Step, login::NewUser,
};
use tidegate_e2e::{Lab, Part, lab::Person, wait};
use tokio::process::Command;

use crate::main_job::world;

const ACCOUNT: &str = "111111111111";
const MINT: &str = "GetClusterCredentials";
const PARTS: [Part; 4] = [Part::Auth, Part::Proxy, Part::Discovery, Part::AgentA];
/// How many clients connect at once. Each is a process of its own on this machine.
const CLIENTS: usize = 30;

/// What AWS is assumed to allow.
fn five_a_second() -> RateLimit {
    RateLimit {
        per_second: 5.0,
        burst: 5,
    }
}

/// How often passwords were asked for, and how often that was throttled.
fn minted(sim: &Sim) -> (usize, usize) {
    let calls = sim.calls();
    let mints: Vec<_> = calls.iter().filter(|call| call.action == MINT).collect();
    let throttled = mints.iter().filter(|call| call.status == 400);
    (mints.len(), throttled.count())
}

/// A role that trusts a principal of the account for these actions, with these permissions.
fn role(trusted: &Value, statements: &Value) -> Result<Role> {
    Ok(serde_json::from_value(json!({
        "trust": { "Version": "2012-10-17", "Statement": trusted },
        "policies": [{ "Version": "2012-10-17", "Statement": statements }],
    }))?)
}

fn trust(actions: &[&str]) -> Value {
    let principal = format!("arn:aws:iam::{ACCOUNT}:user/tidegate-agent-a");
    json!([{ "Effect": "Allow", "Principal": { "AWS": principal }, "Action": actions }])
}

fn may(actions: &[&str]) -> Value {
    json!([{ "Effect": "Allow", "Action": actions, "Resource": "*" }])
}

async fn query(
    lab: &Lab,
    person: &Person,
    database: &str,
    db_user: &str,
) -> Result<String, String> {
    let answer = lab.query(person, database, db_user, "SELECT current_user");
    answer.await.map_err(|error| format!("{error:#}"))
}

#[tokio::test]
async fn a_storm_of_clients_costs_one_mint_and_what_aws_takes_away_is_told_and_given_back()
-> Result<()> {
    let lab = Lab::start_in(world()?, &PARTS).await?;
    lab.wait_for_servers(&["analytics", "reporting"], 1).await?;
    let alice = lab.person("alice", "*", "*").await?;
    let limits = [(format!("redshift:{MINT}"), five_a_second())];
    lab.aws().set_rate_limits(limits.into())?;

    let client = lab
        .client_environment(&alice, "analytics", "reader")
        .await?;
    let clients = (0..CLIENTS).map(|_| {
        let mut psql = Command::new("psql");
        psql.args(["-X", "-A", "-t", "-c", "SELECT 40 + 2"])
            .envs(&client);
        psql.stdin(Stdio::null()).kill_on_drop(true);
        async move { psql.output().await }
    });
    for output in join_all(clients).await {
        let output = output?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{said}");
        ensure!(output.stdout == b"42\n", "{said}");
    }
    ensure!(minted(lab.aws()) == (1, 0), "{:?}", minted(lab.aws()));

    expired_and_back(&lab, &alice).await?;
    without_rights(&lab, &alice).await?;
    lab.stop().await
}

/// While AWS takes the agent's credentials for expired, cached passwords serve; others say who has to act.
async fn expired_and_back(lab: &Lab, alice: &Person) -> Result<()> {
    lab.aws().fault(Fault {
        service: Some("redshift".to_owned()),
        action: Some(MINT.to_owned()),
        account: None,
        region: None,
        page: None,
        times: None,
        kind: FaultKind::ExpiredToken,
    })?;
    ensure!(query(lab, alice, "analytics", "reader").await == Ok("reader".to_owned()));
    let said = query(lab, alice, "analytics", "alice")
        .await
        .err()
        .context("refused")?;
    ensure!(
        said.contains("redshift:GetClusterCredentials was refused: the credentials expired"),
        "{said}"
    );
    lab.aws().clear_faults();
    wait::until("credentials that are good again", || async {
        query(lab, alice, "analytics", "alice").await
    })
    .await?;
    Ok(())
}

/// A session goes on while its role loses its rights; the next login says which statement it needs.
async fn without_rights(lab: &Lab, alice: &Person) -> Result<()> {
    let client = lab.client_environment(alice, "analytics", "reader").await?;
    let running = Command::new("psql")
        .args(["-X", "-A", "-t", "-c", "SELECT pg_sleep(3), 'still here'"])
        .envs(&client)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    wait::until("the statement", || async {
        let asked = lab.audit("db.session.query").await;
        let asked = asked.map_err(|error| format!("{error:#}"))?;
        let sleeps = asked
            .iter()
            .any(|event| format!("{event:?}").contains("still here"));
        sleeps.then_some(()).ok_or_else(|| "not yet".to_owned())
    })
    .await?;
    let before = world()?.accounts[ACCOUNT].roles["tidegate-access-a"].clone();
    let without = Role {
        policies: Vec::new(),
        ..before.clone()
    };
    lab.aws().put_role(ACCOUNT, "tidegate-access-a", without)?;
    let said = query(lab, alice, "reporting", "reader")
        .await
        .err()
        .context("refused")?;
    let caller = format!("arn:aws:iam::{ACCOUNT}:role/tidegate-access-a");
    for part in [
        format!("redshift:GetClusterCredentials was denied, called as {caller}"),
        format!(
            "add to the identity policy of {caller} {{\"Effect\":\"Allow\",\"Action\":\"redshift:GetClusterCredentials\""
        ),
        format!("\"arn:aws:redshift:us-west-2:{ACCOUNT}:dbuser:reporting/reader\""),
    ] {
        ensure!(said.contains(&part), "{part} in {said}");
    }
    let output = running.wait_with_output().await?;
    ensure!(String::from_utf8_lossy(&output.stdout).contains("still here"));
    lab.aws().put_role(ACCOUNT, "tidegate-access-a", before)?;
    wait::until("the role's rights", || async {
        query(lab, alice, "reporting", "reader").await
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn session_tags_that_a_role_does_not_take_are_named_and_sent_where_it_does() -> Result<()> {
    let mut lab = Lab::start_in(world()?, &[Part::Auth, Part::Proxy, Part::Discovery]).await?;
    let session = json!({ "name": "tg-{user}", "tags": { "team": "data", "to": "{database}" } });
    lab.configure(
        Part::AgentA,
        json!({ "db_service": { "aws_session": session } }),
    );
    lab.start_part(Part::AgentA).await?;
    lab.wait_for_servers(&["analytics"], 1).await?;
    let alice = lab.person("alice", "*", "*").await?;

    let said = query(&lab, &alice, "analytics", "reader")
        .await
        .err()
        .context("refused")?;
    for part in [
        "for want of sts:TagSession",
        "because `db_service.aws_session.tags` is set",
        r#""Action":["sts:AssumeRole","sts:TagSession"]"#,
    ] {
        ensure!(said.contains(part), "{part} in {said}");
    }

    let trusted = trust(&["sts:AssumeRole", "sts:TagSession"]);
    let allowed = may(&["redshift:GetClusterCredentials"]);
    lab.aws()
        .put_role(ACCOUNT, "tidegate-access-a", role(&trusted, &allowed)?)?;
    wait::until("a login with tags", || async {
        query(&lab, &alice, "analytics", "reader").await
    })
    .await?;
    let calls = lab.aws().calls();
    let assumed = calls
        .iter()
        .rfind(|call| call.action == "AssumeRole" && call.params["RoleSessionName"] == "tg-alice")
        .context("a session of that name")?;
    ensure!(
        assumed.params["Tags"].starts_with("team=data,to=analytics"),
        "{:?}",
        assumed.params
    );
    lab.stop().await
}

/// An AWS without databases to log in to, and a way to ask it as its one user.
async fn aws(dir: &std::path::Path, policy: &Value) -> Result<(Sim, AwsFactory)> {
    let mut world = World::from_json(
        &json!({ "accounts": { ACCOUNT: {
            "users": { "agent": {
                "access_keys": [{ "id": "AKIAAGENT00000000001", "secret": "simulated" }],
                "policies": [{ "Version": "2012-10-17", "Statement": policy }],
            }},
            "regions": { "us-east-1": { "clusters": {} } },
        }}})
        .to_string(),
    )?;
    let region = world
        .accounts
        .get_mut(ACCOUNT)
        .and_then(|account| account.regions.get_mut("us-east-1"));
    region
        .context("a region")?
        .clusters
        .insert("orders".to_owned(), Cluster::default());
    world.rate_limits = [(format!("redshift:{MINT}"), five_a_second())].into();
    let sim = Sim::start(SimConfig::new(world, dir).without_postgres()).await?;
    let keys = Credentials::new("AKIAAGENT00000000001", "simulated", None, None, "test");
    let loader = ConfigLoader::default()
        .behavior_version(BehaviorVersion::latest())
        .region(aws_config::Region::new("us-east-1"))
        .endpoint_url(sim.endpoint_url())
        .credentials_provider(keys);
    let factory = AwsFactory::builder().loader(loader).load().await;
    Ok((sim, factory))
}

fn key(db_user: &str, create: Option<NewUser>) -> CredentialKey {
    let login = Login::ClusterUser {
        cluster: "orders".to_owned(),
        db_user: db_user.to_owned(),
        db_name: "dev".to_owned(),
        create,
    };
    let request = LoginRequest {
        login,
        region: "us-east-1".parse().expect("a region"),
        account: Some(ACCOUNT.parse().expect("an account")),
        chain: RoleChain::default(),
    };
    CredentialKey::new(request, &SessionTag::new("alice"))
}

#[tokio::test]
async fn logins_by_the_thousand_stay_within_what_aws_allows_and_none_fails() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (sim, factory) = aws(dir.path(), &may(&["redshift:GetClusterCredentials"])).await?;
    let cache = CredentialCache::new(Timestamp::now, Arc::new(AwsMinter::new(factory)));

    // One person: a thousand logins over some seconds.
    let one = key("reader", None);
    for _ in 0..20 {
        for login in join_all((0..50).map(|_| cache.get(&one))).await {
            ensure!(login?.user == "IAM:reader");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ensure!(minted(&sim) == (1, 0), "{:?}", minted(&sim));

    // Forty people, each some times at once.
    let keys: Vec<_> = (0..40)
        .map(|number| key(&format!("user{number}"), None))
        .collect();
    let logins = keys.iter().flat_map(|key| (0..25).map(|_| cache.get(key)));
    for login in join_all(logins).await {
        login?;
    }
    let (calls, throttled) = minted(&sim);
    ensure!(
        calls - throttled == 41 && throttled <= 4,
        "{calls} calls, {throttled} throttled"
    );
    sim.stop().await;
    Ok(())
}

#[tokio::test]
async fn users_are_made_with_their_groups_where_policies_allow_each_part() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let allowed = may(&[
        "redshift:GetClusterCredentials",
        "redshift:CreateClusterUser",
    ]);
    let (sim, factory) = aws(dir.path(), &allowed).await?;
    let minter = AwsMinter::new(factory);
    let made = minter.mint(&key("alice", Some(NewUser::default()))).await?;
    ensure!(made.user == "IAMA:alice", "{}", made.user);

    let groups = vec!["readers".to_owned()];
    let grouped = key("alice", Some(NewUser { groups }));
    let failure = minter.mint(&grouped).await.err().context("refused")?;
    ensure!(failure.class == AwsErrorClass::AccessDenied, "{failure}");
    let step = Step::of_failure(&failure, &grouped.request, &grouped.session());
    let hint = diagnose(&failure, &step).hint();
    let statement = format!(
        r#"{{"Effect":"Allow","Action":"redshift:JoinGroup","Resource":"arn:aws:redshift:us-east-1:{ACCOUNT}:dbgroup:orders/readers"}}"#
    );
    ensure!(hint.contains(&statement), "{hint}");
    sim.stop().await;
    Ok(())
}
