//! One agent with thousands of databases: what it costs while nothing happens, how soon it serves a new one, and what
//! people's connections cost.
//!
//! Databases that nobody opens are addresses of one process that speaks TLS ([`far`]); those that are opened are all one
//! PostgreSQL, with and without proxy and agent in between. The simulated AWS mints for that one alone.

pub(crate) mod client;
pub(crate) mod far;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use awssim::RateLimit;
use clap::Args as ClapArgs;
use futures::{TryStreamExt, stream};
use rustls::ClientConfig;
use serde_json::json;
use tidegate_e2e::{
    Lab, Part,
    lab::{BENCH_ACCOUNT, BENCH_CLUSTER, BENCH_REGION, Person},
};
use tidegate_identity::{
    KeyPair,
    tls::{self, ClientTls, Roots},
};
use tidegate_proto::v1::{
    self, inventory_service_client::InventoryServiceClient, watch_database_servers_response::Event,
};
use tokio::task::JoinSet;
use tonic::{Streaming, transport::Channel};

use crate::{
    Args,
    figure::{Figure, median},
    usage,
};
use client::Way;
use far::{Far, Listening};

const BENCH: &str = "agent";
/// Open files beside the far side's listeners and connections.
const FILES_BESIDE: u64 = 4_096;
/// The label that the agent serves by.
pub(crate) const FLEET: (&str, &str) = ("fleet", "bench");
/// Databases that are created at once.
const CREATES_MAX: usize = 16;
/// How long all of them may take to be served, and one.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);
pub(crate) const PATIENCE_ONE: Duration = Duration::from_secs(30);
/// After the databases are there, until memory and CPU are looked at: longer than a check's interval, so that what is
/// measured has every database checked more than once.
const SETTLE: Duration = Duration::from_secs(45);
/// Database users of the cluster: one whose credentials are warm, and one that nobody was before the burst.
const WARM_USER: &str = "reader";
const COLD_USER: &str = "clerk";
/// Calls a second that AWS lets through during the burst, by operation.
const CALLS_PER_SECOND: u32 = 5;
const LIMITED: [&str; 2] = ["redshift:GetClusterCredentials", "sts:AssumeRole"];
/// Over which the logins of the burst begin.
const BURST: Duration = Duration::from_secs(10);
/// Pairs of connections in one round, and pairs before the first.
const PAIRS: usize = 40;
const WARM_UP: usize = 10;

/// What `agent` measures, and how long.
#[derive(ClapArgs)]
pub(crate) struct AgentOptions {
    /// Databases of `agent`.
    #[arg(long, default_value_t = 5_000)]
    pub(crate) served: usize,
    /// Quiet seconds over which `agent` is looked at.
    #[arg(long, default_value_t = 60)]
    quiet_seconds: u32,
    /// Databases that `agent` creates one after the other to time them.
    #[arg(long, default_value_t = 100)]
    samples: usize,
    /// Logins of the burst of `agent`.
    #[arg(long, default_value_t = 1_000)]
    logins: u32,
}

/// Measures, prints each figure when it is there, and stops everything.
pub(crate) async fn run(args: &Args) -> Result<()> {
    let options = &args.agent;
    usage::raise_open_files(2 * options.served as u64 + FILES_BESIDE)?;
    let far = Far::start(options.served).await?;
    let mut lab = Lab::start_bench_cluster(&[WARM_USER, COLD_USER]).await?;
    let outcome = measure(&mut lab, args, &far.listening).await;
    let outcome = outcome.with_context(|| lab.log(Part::AgentA));
    lab.stop().await?;
    outcome
}

async fn measure(lab: &mut Lab, args: &Args, listening: &Listening) -> Result<()> {
    let options = &args.agent;
    let print = |figure: Figure| figure.print(args.json);
    let (name, value) = FLEET;
    lab.configure(
        Part::AgentA,
        json!({ "db_service": { "resources": [{ "labels": { name: value } }] } }),
    );
    lab.start_part(Part::AgentA).await?;
    let agent = lab
        .process_ids()
        .find(|(part, _)| *part == Part::AgentA)
        .map(|(_, id)| id)
        .context("the agent is gone")?;
    let fleet = Fleet::new(lab).await?;
    let mut watch = fleet.watch().await?;
    fleet.create(fleet.cluster_database("bench")).await?;
    watch.healthy(["bench"], PATIENCE_ONE).await?;
    let person = lab.person("bench", "*", "*").await?;
    let ours = through(lab, &person)?;
    ours.select_one().await.context("the first session")?;

    tokio::time::sleep(SETTLE).await;
    let before = usage::resident_bytes(agent)?;
    let begun = Instant::now();
    fleet.create_all(listening).await?;
    let created = begun.elapsed();
    let names: Vec<String> = (0..options.served).map(far_name).collect();
    watch
        .healthy(names.iter().map(String::as_str), PATIENCE)
        .await?;
    eprintln!(
        "{} databases were created in {:.1} s and healthy after {:.1} s",
        options.served,
        created.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    );
    tokio::time::sleep(SETTLE).await;
    let spent = usage::cpu_seconds(agent)?;
    tokio::time::sleep(Duration::from_secs(options.quiet_seconds.into())).await;
    let cores = (usage::cpu_seconds(agent)? - spent) / f64::from(options.quiet_seconds);
    print(Figure::once(BENCH, "idle_cores", "cores", cores));
    let each = (usage::resident_bytes(agent)? - before) / options.served as f64 / 1024.0;
    print(Figure::once(BENCH, "kib_per_database", "KiB", each));

    let p99 = created_to_served(&fleet, &mut watch, &ours, options.samples).await?;
    print(Figure::once(BENCH, "created_to_served_p99_s", "s", p99));
    print(burst_mints(lab, &ours, options.logins).await?);
    print(connect_over_direct(lab, &ours, args.rounds).await?);
    Ok(())
}

pub(crate) fn far_name(number: usize) -> String {
    format!("far-{number:05}")
}

/// The databases of the inventory, as an administrator makes them.
pub(crate) struct Fleet {
    inventory: InventoryServiceClient<Channel>,
    cluster_uri: String,
}

impl Fleet {
    pub(crate) async fn new(lab: &Lab) -> Result<Self> {
        let endpoint = lab.bench_endpoint().await?;
        Ok(Self {
            inventory: lab.inventory(),
            cluster_uri: format!("{}:{}", endpoint.host, endpoint.port),
        })
    }

    pub(crate) async fn create(&self, database: v1::Database) -> Result<()> {
        let request = v1::CreateDatabaseRequest {
            database: Some(database),
        };
        self.inventory.clone().create_database(request).await?;
        Ok(())
    }

    async fn delete(&self, name: &str) -> Result<()> {
        let request = v1::DeleteDatabaseRequest {
            name: name.to_owned(),
        };
        self.inventory.clone().delete_database(request).await?;
        Ok(())
    }

    /// The measured cluster under another name.
    pub(crate) fn cluster_database(&self, name: &str) -> v1::Database {
        let role = format!("arn:aws:iam::{BENCH_ACCOUNT}:role/tidegate-access-a");
        v1::Database {
            uri: self.cluster_uri.clone(),
            aws: Some(v1::AwsMetadata {
                region: BENCH_REGION.to_owned(),
                account_id: BENCH_ACCOUNT.to_owned(),
                assume_role: Some(v1::AssumeRole {
                    role_arn: role,
                    external_id: String::new(),
                }),
                redshift_cluster_id: BENCH_CLUSTER.to_owned(),
                ..v1::AwsMetadata::default()
            }),
            ..database(name)
        }
    }

    /// One database for each address of the far side.
    pub(crate) async fn create_all(&self, listening: &Listening) -> Result<()> {
        let databases = listening
            .addresses
            .iter()
            .enumerate()
            .map(|(number, address)| v1::Database {
                uri: address.clone(),
                tls: Some(v1::TlsSettings {
                    mode: v1::TlsMode::VerifyFull.into(),
                    server_name: listening.server_name.clone(),
                    ca_cert_pem: listening.ca_pem.clone(),
                    ..v1::TlsSettings::default()
                }),
                ..database(&far_name(number))
            });
        stream::iter(databases.map(Ok))
            .try_for_each_concurrent(CREATES_MAX, |database| self.create(database))
            .await
    }

    pub(crate) async fn watch(&self) -> Result<Watch> {
        let request = v1::WatchDatabaseServersRequest::default();
        let mut inventory = self.inventory.clone();
        Ok(Watch {
            events: inventory
                .watch_database_servers(request)
                .await?
                .into_inner(),
            healthy: BTreeSet::new(),
        })
    }
}

/// A database with labels as people have them.
fn database(name: &str) -> v1::Database {
    let (fleet, bench) = FLEET;
    let labels = [
        (fleet, bench),
        ("env", "prod"),
        ("team", "analytics"),
        ("cost-center", "1234"),
        ("region", BENCH_REGION),
        ("engine", "postgres"),
    ];
    v1::Database {
        name: name.to_owned(),
        description: "A database that is measured".to_owned(),
        labels: labels
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        protocol: "postgres".to_owned(),
        ..v1::Database::default()
    }
}

/// What database servers are told to be like.
pub(crate) struct Watch {
    events: Streaming<v1::WatchDatabaseServersResponse>,
    healthy: BTreeSet<String>,
}

impl Watch {
    /// Waits until all of these are healthy.
    pub(crate) async fn healthy<'n>(
        &mut self,
        names: impl IntoIterator<Item = &'n str>,
        patience: Duration,
    ) -> Result<()> {
        let names: Vec<&str> = names.into_iter().collect();
        let mut waiting: BTreeSet<&str> = names.iter().copied().collect();
        let watching = async {
            waiting.retain(|name| !self.healthy.contains(*name));
            while !waiting.is_empty() {
                let name = self.next().await?;
                if self.healthy.contains(&name) {
                    waiting.remove(name.as_str());
                }
            }
            Ok(())
        };
        match tokio::time::timeout(patience, watching).await {
            Ok(watched) => watched,
            Err(_) => bail!(
                "{} of {} databases are healthy after {} s",
                names
                    .iter()
                    .filter(|name| self.healthy.contains(**name))
                    .count(),
                names.len(),
                patience.as_secs()
            ),
        }
    }

    /// Takes one event; the database that it was about.
    async fn next(&mut self) -> Result<String> {
        loop {
            let message = self.events.message().await?.context("the watch ended")?;
            match message.event {
                Some(Event::Upserted(server)) => {
                    let name = server.database.unwrap_or_default().name;
                    let health = server.target_health.unwrap_or_default();
                    if health.status == "healthy" {
                        self.healthy.insert(name.clone());
                    } else {
                        self.healthy.remove(&name);
                    }
                    return Ok(name);
                }
                Some(Event::Deleted(key)) => {
                    self.healthy.remove(&key.database);
                    return Ok(key.database);
                }
                _ => {}
            }
        }
    }
}

/// The 99th percentile of seconds from before a database is created to the end of a session with it.
async fn created_to_served(
    fleet: &Fleet,
    watch: &mut Watch,
    ours: &Way,
    samples: usize,
) -> Result<f64> {
    let (mut healthy, mut whole) = (Vec::new(), Vec::new());
    for number in 0..samples {
        let name = format!("made-{number:03}");
        let database = fleet.cluster_database(&name);
        let begun = Instant::now();
        fleet.create(database).await?;
        watch.healthy([name.as_str()], PATIENCE_ONE).await?;
        healthy.push(begun.elapsed().as_secs_f64());
        let left = PATIENCE_ONE.saturating_sub(begun.elapsed());
        let served = ours.to_database(&name).soon(left).await;
        served.with_context(|| name.clone())?;
        whole.push(begun.elapsed().as_secs_f64());
        fleet.delete(&name).await?;
    }
    eprintln!(
        "from creation: healthy after {:.3} s and a session after {:.3} s (p50)",
        median(healthy.into_iter()),
        median(whole.iter().copied())
    );
    whole.sort_by(f64::total_cmp);
    let at = (whole.len() * 99).div_ceil(100).saturating_sub(1);
    whole.get(at).copied().context("nothing was created")
}

/// AWS calls for many logins of one user in a short time. A login that fails fails the benchmark.
async fn burst_mints(lab: &Lab, ours: &Way, logins: u32) -> Result<Figure> {
    let limit = || RateLimit {
        per_second: f64::from(CALLS_PER_SECOND),
        burst: CALLS_PER_SECOND,
    };
    let limits: BTreeMap<String, RateLimit> = LIMITED
        .iter()
        .map(|operation| ((*operation).to_owned(), limit()))
        .collect();
    lab.aws().set_rate_limits(limits)?;
    let before = lab.aws().calls().last().map_or(0, |call| call.seq);
    let way = ours.as_user(COLD_USER);
    let mut every = tokio::time::interval(BURST / logins.max(1));
    let mut running = JoinSet::new();
    let begun = Instant::now();
    for _ in 0..logins {
        every.tick().await;
        let way = way.clone();
        running.spawn(async move { way.select_one().await });
    }
    let asked = begun.elapsed();
    let outcomes = running.join_all().await;
    let failed: Vec<String> = outcomes
        .iter()
        .filter_map(|outcome| Some(format!("{:#}", outcome.as_ref().err()?)))
        .collect();
    eprintln!(
        "{logins} logins were begun in {:.1} s and over after {:.1} s",
        asked.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    );
    ensure!(
        failed.is_empty(),
        "{} of {logins} logins failed, the first with {}",
        failed.len(),
        failed.first().map_or("", String::as_str)
    );
    let calls = lab.aws().calls_since(before);
    for call in &calls {
        eprintln!("AWS was called: {}:{}", call.service, call.action);
    }
    lab.aws().set_rate_limits(BTreeMap::new())?;
    Ok(Figure::once(
        BENCH,
        "burst_mints",
        "calls",
        calls.len() as f64,
    ))
}

/// Milliseconds to connect, ask and go, through proxy and agent and straight: in turns, as medians of rounds.
async fn connect_over_direct(lab: &Lab, ours: &Way, rounds: usize) -> Result<Figure> {
    let direct = straight(lab).await?;
    for _ in 0..WARM_UP {
        ours.select_one().await?;
        direct.select_one().await?;
    }
    let mut figure = Figure::of_rounds(BENCH, "connect_over_direct", "ms");
    for _ in 0..rounds {
        let (mut through, mut straight) = (Vec::new(), Vec::new());
        for _ in 0..PAIRS {
            through.push(milliseconds(ours).await?);
            straight.push(milliseconds(&direct).await?);
        }
        figure.add((median(through.into_iter()), median(straight.into_iter())));
    }
    Ok(figure)
}

async fn milliseconds(way: &Way) -> Result<f64> {
    let begun = Instant::now();
    way.select_one().await?;
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

/// The way through proxy and agent, with the person's own certificate.
pub(crate) fn through(lab: &Lab, person: &Person) -> Result<Way> {
    let folder = profile(person)?;
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))
    };
    let key = KeyPair::from_pem(&read("user.key")?)?;
    Ok(Way {
        address: lab.proxy_addr().parse()?,
        tls: client_tls(&read("db-ca.pem")?, Some((&read("user.pem")?, &key)))?,
        host: client::host("bench"),
        user: WARM_USER.to_owned(),
        password: None,
    })
}

/// The folder that `tg login` made: the only one below `~/.tidegate`.
fn profile(person: &Person) -> Result<PathBuf> {
    std::fs::read_dir(person.home().join(".tidegate"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.is_dir())
        .context("`tg login` left no profile")
}

/// The way straight to the database.
async fn straight(lab: &Lab) -> Result<Way> {
    let facts = lab.bench_direct().await?;
    let fact = |name: &str| facts.get(name).cloned().context("a fact is missing");
    let ca_pem = std::fs::read_to_string(fact("PGSSLROOTCERT")?)?;
    Ok(Way {
        address: format!("{}:{}", fact("PGHOSTADDR")?, fact("PGPORT")?).parse()?,
        tls: client_tls(&ca_pem, None)?,
        host: fact("PGHOST")?,
        user: fact("PGUSER")?,
        password: Some(fact("PGPASSWORD")?),
    })
}

fn client_tls(ca_pem: &str, identity: Option<(&str, &KeyPair)>) -> Result<Arc<ClientConfig>> {
    Ok(tls::client_config(ClientTls {
        roots: Roots::Pem(ca_pem),
        identity,
        alpn: &[],
    })?)
}
