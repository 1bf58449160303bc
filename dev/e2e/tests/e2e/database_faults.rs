//! What happens to databases while people use them: they are renamed, moved, lost by DNS, paused, shown with other
//! certificates, and the role that opens them is deleted. Of each: what sessions that run see, and what new ones do.

use std::{process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use awssim::{Certificate, Cluster, DbInstance, IdentityPolicy, Kind, ResourceId, World};
use futures::future::try_join_all;
use tidegate_e2e::{
    Lab, Part,
    lab::{Person, words},
    wait,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use crate::kinds::{ACCESS, HOME, PROD, aurora, bare, id, served, with_reader};

/// How long an answer to a held session may take.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// A `psql` that stays connected.
struct Held {
    child: Child,
    typed: ChildStdin,
    rows: Lines<BufReader<ChildStdout>>,
}

impl Held {
    /// Connects, and has an answer.
    async fn open(lab: &Lab, person: &Person, database: &str) -> Result<Self> {
        let client = lab.client_environment(person, database, "reader").await?;
        let mut child = Command::new("psql")
            .args(["-X", "-A", "-t", "-q"])
            .envs(client)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let typed = child.stdin.take().context("no input")?;
        let rows = BufReader::new(child.stdout.take().context("no output")?).lines();
        let mut held = Self { child, typed, rows };
        held.goes_on().await.context(database.to_owned())?;
        Ok(held)
    }

    /// Its session is the one that it was.
    async fn goes_on(&mut self) -> Result<()> {
        self.typed.write_all(b"SELECT 40 + 2;\n").await?;
        let row = timeout(ANSWER_MAX, self.rows.next_line()).await??;
        ensure!(row.as_deref() == Some("42"), "{row:?}");
        Ok(())
    }

    /// Its session has ended; what it was told.
    async fn was_told(mut self) -> Result<String> {
        // It reads what it was told when it next has something to say.
        self.typed.write_all(b"SELECT 1;\n").await.ok();
        drop((self.typed, self.rows));
        let output = timeout(ANSWER_MAX, self.child.wait_with_output()).await??;
        ensure!(!output.status.success(), "{}", words(&output));
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

async fn ask(lab: &Lab, person: &Person, database: &str, db_user: &str) -> Result<(), String> {
    let answer = lab.query(person, database, db_user, "SELECT current_user");
    match answer.await {
        Ok(user) if user == db_user => Ok(()),
        Ok(other) => Err(format!("it is {other}")),
        Err(error) => Err(format!("{error:#}")),
    }
}

/// Waits until a new session has its answer.
async fn until_in(lab: &Lab, person: &Person, database: &str) -> Result<()> {
    let what = format!("a new session of {database}");
    let asked = wait::until(&what, || ask(lab, person, database, "reader")).await;
    asked.with_context(|| lab.log(Part::AgentA))
}

/// Waits until a new session is refused with all of these words.
async fn until_refused(
    lab: &Lab,
    person: &Person,
    database: &str,
    db_user: &str,
    told: &[&str],
) -> Result<()> {
    wait::until(&format!("a refusal of {database}"), || async {
        match ask(lab, person, database, db_user).await {
            Err(said) if told.iter().all(|part| said.contains(part)) => Ok(()),
            Err(said) => Err(said),
            Ok(()) => Err("it was let in".to_owned()),
        }
    })
    .await
    .with_context(|| lab.log(Part::AgentA))
}

fn cluster() -> Cluster {
    Cluster::with(PROD, ["reader", "alice"])
}

#[tokio::test]
async fn a_database_that_dns_loses_or_moves_that_changes_its_address_or_its_name_is_found_again()
-> Result<()> {
    let mut world = bare()?;
    let access = world.account(HOME).roles.get_mut(ACCESS);
    let may_ask = IdentityPolicy::allow(["redshift:DescribeClusters"], ["*"]);
    access.context("a role")?.policies.push(may_ask);
    for name in ["analytics", "reporting"] {
        world.put_cluster(&id(name), cluster());
    }
    let lab = served(world, &["analytics", "reporting"]).await?;
    let alice = lab.person("alice", "*", "*").await?;
    let mut held = Held::open(&lab, &alice, "analytics").await?;
    let mut other = Held::open(&lab, &alice, "reporting").await?;

    let analytics = ResourceId::cluster(&id("analytics"));
    lab.aws().set_named(&analytics, false).await?;
    let unknown = "cannot reach database `analytics-redshift-us-east-1-111111111111`";
    until_refused(&lab, &alice, "analytics", "reader", &[unknown]).await?;
    held.goes_on().await?;
    lab.aws().set_named(&analytics, true).await?;
    until_in(&lab, &alice, "analytics").await?;
    held.goes_on().await?;

    lab.aws().readdress(&analytics).await?;
    let told = held.was_told().await?;
    ensure!(
        told.contains("the database closed the connection"),
        "{told}"
    );
    until_in(&lab, &alice, "analytics").await?;
    other.goes_on().await?;

    // Another endpoint of the same name, which knows none of the passwords that were given for the last one.
    lab.aws().remove_cluster(&id("reporting")).await?;
    let elsewhere = Cluster {
        port: Some(5555),
        ..cluster()
    };
    lab.aws().add_cluster(&id("reporting"), elsewhere).await?;
    other.was_told().await?;
    until_in(&lab, &alice, "reporting").await?;
    let log = lab.log(Part::AgentA);
    ensure!(log.contains("refused a kept password"), "{log}");

    let held = Held::open(&lab, &alice, "analytics").await?;
    lab.aws().rename(&analytics, "insights").await?;
    held.was_told().await?;
    lab.wait_for_databases(&["insights", "reporting"]).await?;
    until_in(&lab, &alice, "insights").await?;
    ask(&lab, &alice, "analytics", "reader")
        .await
        .err()
        .context("the old name leads nowhere")?;
    lab.stop().await
}

/// One database of each kind that can be stopped, and what AWS calls that.
fn kinds(world: &mut World) -> Vec<(&'static str, ResourceId, &'static str)> {
    world.put_cluster(&id("analytics"), cluster());
    world.put(&id("shop"), with_reader(DbInstance::with("postgres", PROD)));
    world.put(
        &id("orders"),
        awssim::DbCluster {
            custom_endpoints: [].into(),
            ..aurora()
        },
    );
    let member = DbInstance::member("orders", "aurora-postgresql", true);
    world.put(&id("orders-1"), member);
    let of = |kind, name| ResourceId::new(kind, &id(name));
    vec![
        ("analytics", of(Kind::Cluster, "analytics"), "paused"),
        ("shop", of(Kind::DbInstance, "shop"), "stopped"),
        ("orders", of(Kind::DbCluster, "orders"), "stopped"),
    ]
}

#[tokio::test]
async fn certificates_that_change_and_databases_that_stop_are_told_and_overcome_in_each_kind()
-> Result<()> {
    let mut world = bare()?;
    let kinds = kinds(&mut world);
    let lab = served(world, &["analytics", "orders", "shop"]).await?;
    let alice = lab.person("alice", "*", "*").await?;
    let mut sessions = Vec::new();
    for (name, _, _) in &kinds {
        sessions.push(Held::open(&lab, &alice, name).await?);
    }

    let rotated = Certificate {
        other_ca: true,
        ..Certificate::default()
    };
    let of_a_stranger = Certificate {
        unknown_ca: true,
        ..Certificate::default()
    };
    for (name, of, _) in &kinds {
        lab.aws().show_certificate(of, &rotated).await?;
        ask(&lab, &alice, name, "reader")
            .await
            .map_err(anyhow::Error::msg)?;
        lab.aws().show_certificate(of, &of_a_stranger).await?;
        let told = ["FATAL", "no trusted TLS connection", "tls.ca_cert_file"];
        until_refused(&lab, &alice, name, "reader", &told).await?;
        lab.aws().show_certificate(of, &rotated).await?;
        until_in(&lab, &alice, name).await?;
    }
    for held in &mut sessions {
        held.goes_on().await?;
    }

    for (_, of, status) in &kinds {
        lab.aws().set_status_of(of, status).await?;
    }
    for held in sessions {
        held.was_told().await?;
    }
    try_join_all(kinds.iter().map(|(name, _, status)| {
        let told = ["FATAL", *status];
        let (lab, alice) = (&lab, &alice);
        async move { until_refused(lab, alice, name, "reader", &told).await }
    }))
    .await?;
    for (_, of, _) in &kinds {
        lab.aws().set_status_of(of, "available").await?;
    }
    try_join_all(kinds.iter().map(|(name, ..)| until_in(&lab, &alice, name))).await?;
    lab.stop().await
}

#[tokio::test]
async fn a_deleted_role_ends_no_session_is_told_to_new_ones_and_works_again_when_it_is_back()
-> Result<()> {
    let mut world = bare()?;
    world.put_cluster(&id("analytics"), cluster());
    world.put(&id("shop"), with_reader(DbInstance::with("postgres", PROD)));
    let role = world.account(HOME).roles[ACCESS].clone();
    let lab = served(world, &["analytics", "shop"]).await?;
    let alice = lab.person("alice", "*", "*").await?;
    let mut analytics = Held::open(&lab, &alice, "analytics").await?;
    let mut shop = Held::open(&lab, &alice, "shop").await?;

    lab.aws().remove_role(HOME, ACCESS)?;
    // The password that is kept for this user is the database's by now, and opens it until it ends.
    until_in(&lab, &alice, "analytics").await?;
    let told = ["sts:AssumeRole was denied", ACCESS];
    until_refused(&lab, &alice, "analytics", "alice", &told).await?;
    // A token is looked at with its signer at each login.
    until_refused(&lab, &alice, "shop", "reader", &told).await?;
    analytics.goes_on().await?;
    shop.goes_on().await?;

    lab.aws().put_role(HOME, ACCESS, role)?;
    until_in(&lab, &alice, "shop").await?;
    let back = "a new user's session";
    wait::until(back, || ask(&lab, &alice, "analytics", "alice")).await?;
    analytics.goes_on().await?;
    shop.goes_on().await?;
    drop((analytics, shop));
    lab.stop().await
}
