//! `cargo xtask demo [--check]`: everything on this machine, against a simulated AWS.
//!
//! Two accounts, two regions, five Redshift clusters of which three carry the tag that discovery looks for, and every other
//! kind with each sort of endpoint that it has; a discovery worker, two agents with different role overrides, a proxy, an auth service, and a person who logs in and asks a question
//! with a stock `psql`. Then a cluster is added and one removed. With `--check` each step is asserted and everything
//! stops; without, it stays up and says what to type.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use awssim::{Cluster, ClusterId};
use clap::Parser;
use tidegate_e2e::{Lab, Person, lab};
use tokio::signal::unix::{SignalKind, signal};

/// The Redshift clusters with the tag, which agents serve.
const SERVED: [&str; 3] = ["analytics", "finance", "reporting"];
/// All that discovery finds: Redshift Serverless, RDS, Aurora and RDS Proxy too.
const FOUND: [&str; 14] = [
    "analytics",
    "analytics-bi",
    "etl",
    "etl-private",
    "finance",
    "gateway",
    "gateway-reports",
    "ledger",
    "ledger-reader",
    "orders",
    "orders-custom-batch",
    "orders-reader",
    "reporting",
    "shop",
];

/// Each kind of database with each sort of endpoint.
const KINDS: [(&str, &str); 10] = [
    ("redshift", "cluster"),
    ("redshift", "vpc-endpoint"),
    ("redshift-serverless", "workgroup"),
    ("redshift-serverless", "vpc-endpoint"),
    ("rds", "instance"),
    ("rds", "primary"),
    ("rds", "reader"),
    ("rds", "custom"),
    ("rdsproxy", "proxy"),
    ("rdsproxy", "READ_ONLY"),
];

/// Shows the main job.
#[derive(Parser)]
struct Args {
    /// Prove each step, stop everything, and exit.
    #[arg(long)]
    check: bool,
}

const QUESTION: &str = "SELECT month, revenue FROM sales ORDER BY month";

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    step(
        "starting a simulated AWS (2 accounts, 2 regions, 5 clusters), auth, proxy, discovery, 2 agents",
    );
    let lab = Lab::start().await?;
    let outcome = show(&lab, &args).await;
    let stopped = lab.stop().await;
    outcome?;
    stopped?;
    if args.check {
        step("all of it holds; everything is stopped");
    }
    Ok(())
}

async fn show(lab: &Lab, args: &Args) -> Result<()> {
    seed(lab, &analytics()).await?;
    lab.wait_for_databases(&FOUND).await?;
    lab.wait_for_servers(&SERVED, 2).await?;
    step("what discovery found: every kind, with its endpoints");
    kinds(lab).await?;
    step("a user is created, signs up with the one-time token, and logs in");
    let alice = lab.person("alice", "*", "*").await?;

    step("what alice sees: $ tg db ls");
    print_of(lab, &alice, &["db", "ls"]).await?;
    step("who serves what, with which IAM role");
    roles(lab).await?;
    step(&format!(
        "$ tg db connect analytics --db-user=reader --db-name=dev -- -c '{QUESTION}'"
    ));
    let rows = ask(lab, &alice).await?;
    ensure!(
        rows.contains("2026-10") && rows.contains("1400"),
        "psql printed other rows than the table has:\n{rows}"
    );

    step("one query to each cluster that agents serve; each asks for the password in another way");
    for name in SERVED {
        let rows = lab.query(&alice, name, "reader", "SELECT 40 + 2").await?;
        ensure!(rows == "42", "{name} answered {rows}");
        println!("    {name:<12} {rows}");
    }

    let (added, removed) = (
        ClusterId::new("111111111111", "us-east-1", "marketing"),
        ClusterId::new("111111111111", "us-west-2", "reporting"),
    );
    step("a cluster `marketing` is created in AWS, with the tag");
    lab.aws()
        .add_cluster(&added, Cluster::with([("env", "prod")], ["reader"]))
        .await?;
    lab.wait_for_databases(&changed(&["marketing"], &[]))
        .await?;
    lab.wait_for_servers(&["marketing"], 2).await?;
    step("the cluster `reporting` is deleted in AWS");
    lab.aws().remove_cluster(&removed).await?;
    lab.wait_for_databases(&changed(&["marketing"], &["reporting"]))
        .await?;
    print_of(lab, &alice, &["db", "ls"]).await?;
    if !args.check {
        stay(lab, &alice).await?;
    }
    Ok(())
}

/// What each database is: its kind, its sort of endpoint, and what is spoken there.
async fn kinds(lab: &Lab) -> Result<()> {
    let mut databases = lab.databases().await?;
    databases.sort_by(|one, other| {
        (&one.kind, &one.discovered_name).cmp(&(&other.kind, &other.discovered_name))
    });
    let mut shown = BTreeSet::new();
    for database in &databases {
        let (kind, protocol) = (database.kind.as_str(), database.protocol.as_str());
        let endpoint = database
            .labels
            .get("endpoint-type")
            .map_or("", String::as_str);
        let name = &database.discovered_name;
        println!("    {name:<20} {kind:<20} {endpoint:<13} {protocol}");
        shown.insert((kind, endpoint));
    }
    let missing: Vec<_> = KINDS.iter().filter(|kind| !shown.contains(kind)).collect();
    ensure!(missing.is_empty(), "{missing:?} are not shown");
    Ok(())
}

/// [`FOUND`] with some more and without others.
fn changed(more: &[&'static str], without: &[&str]) -> Vec<&'static str> {
    let mut names: Vec<&str> = FOUND
        .iter()
        .chain(more)
        .copied()
        .filter(|name| !without.contains(name))
        .collect();
    names.sort_unstable();
    names
}

fn analytics() -> ClusterId {
    ClusterId::new("111111111111", "us-east-1", "analytics")
}

async fn seed(lab: &Lab, cluster: &ClusterId) -> Result<()> {
    let table = "CREATE TABLE sales (month text, revenue int); \
                 INSERT INTO sales VALUES ('2026-09', 1200), ('2026-10', 1400), ('2026-11', 900); \
                 GRANT SELECT ON sales TO PUBLIC";
    lab.aws().sql(cluster, table).await?;
    Ok(())
}

async fn ask(lab: &Lab, person: &Person) -> Result<String> {
    print_of(
        lab,
        person,
        &[
            "db",
            "connect",
            "analytics",
            "--db-user=reader",
            "--db-name=dev",
            "--",
            "-X",
            "-c",
            QUESTION,
        ],
    )
    .await
}

/// The effective role of every database on every agent, as administrators see it, proven against what AWS saw.
async fn roles(lab: &Lab) -> Result<()> {
    let mut servers = lab.database_servers().await?;
    servers.sort_by_key(|server| {
        (
            server
                .database
                .as_ref()
                .map(|database| database.name.clone()),
            server.hostname.clone(),
        )
    });
    for server in &servers {
        let name = server
            .database
            .as_ref()
            .map_or("", |database| database.discovered_name.as_str());
        let role = server
            .effective_role
            .as_ref()
            .map_or("its own identity", |role| role.role_arn.as_str());
        println!(
            "    {name:<12} {:<9} {role}  ({})",
            server.hostname,
            server
                .role_source()
                .as_str_name()
                .trim_start_matches("ROLE_SOURCE_")
                .to_lowercase()
        );
    }
    let role_of = |name: &str, agent: &str| {
        let server = servers.iter().find(|server| {
            server.hostname == agent
                && server
                    .database
                    .as_ref()
                    .is_some_and(|database| database.discovered_name == name)
        });
        server
            .and_then(|server| server.effective_role.as_ref())
            .map(|role| role.role_arn.clone())
    };
    for (name, agent, role) in [
        (
            "analytics",
            "agent-a",
            "arn:aws:iam::111111111111:role/tidegate-access-a",
        ),
        (
            "analytics",
            "agent-b",
            "arn:aws:iam::111111111111:role/tidegate-access-b",
        ),
        (
            "finance",
            "agent-a",
            "arn:aws:iam::222222222222:role/tidegate-discovery",
        ),
        (
            "finance",
            "agent-b",
            "arn:aws:iam::222222222222:role/tidegate-access",
        ),
    ] {
        let found =
            role_of(name, agent).with_context(|| format!("{agent} does not serve {name}"))?;
        ensure!(
            found == role,
            "{agent} assumes {found} for {name} instead of {role}"
        );
    }
    Ok(())
}

async fn print_of(lab: &Lab, person: &Person, args: &[&str]) -> Result<String> {
    let output = lab.tg(person, args).await?;
    ensure!(
        output.status.success(),
        "tg {}: {}",
        args.join(" "),
        lab::words(&output)
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().for_each(|line| println!("    {line}"));
    Ok(text)
}

async fn stay(lab: &Lab, person: &Person) -> Result<()> {
    let (tg, tgctl) = (lab::program("tg")?, lab::program("tgctl")?);
    println!("\nIt stays up. In another terminal:\n");
    println!(
        "    export TIDEGATE_HOME={}",
        person.home().join(".tidegate").display()
    );
    println!("    {} db ls", tg.display());
    println!(
        "    {} db connect analytics --db-user=reader --db-name=dev",
        tg.display()
    );
    println!(
        "    {} --data-dir={} get db_server",
        tgctl.display(),
        lab.dir().join("auth").display()
    );
    println!(
        "\nLogs are in {}. Ctrl-C stops everything.",
        lab.dir().display()
    );
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminate.recv() => {}
    }
    step("stopping");
    Ok(())
}

fn step(text: &str) {
    println!("==> {text}");
}
