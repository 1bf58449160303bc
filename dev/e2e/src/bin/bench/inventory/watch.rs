//! What watching costs: many watchers of one database each, and changes one at a time.
//!
//! Every watcher has a connection of its own, as an agent has. The changes are made three times a round: with nobody who
//! watches, with the watchers, and (as messages alone) by the bare server. The first is what writing costs by itself, and
//! is taken off. A delivery is timed from before its change was asked for, so the commit is in it.
//!
//! Watchers resume after the revision of the moment: what the full listing costs at a watch's start is told apart.

use std::{
    process::Stdio,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use prost::Message;
use serde_json::Value;
use tidegate_proto::v1::{
    self, inventory_service_client::InventoryServiceClient, watch_databases_response::Event,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::timeout,
};
use tonic::{Streaming, transport::Channel};

use super::{
    BENCH, Options, bare, fleet,
    member::{Gate, Member},
    queries::of_label,
};
use crate::{figure::Figure, usage};

/// Rounds; each measures all three.
const ROUNDS: usize = 3;
/// Watches that are opened at once.
const OPENS_MAX: usize = 32;
/// Changes that are asked for and not answered yet.
const CHANGES_MAX: usize = 256;
/// How long the last deliveries may take.
const DELIVERY_PATIENCE: Duration = Duration::from_secs(60);
/// A busy machine comes to rest between opening and measuring.
const REST: Duration = Duration::from_secs(2);
/// Between two bursts of changes.
const TICK: Duration = Duration::from_millis(1);

type Inventory = InventoryServiceClient<Channel>;
type Response = v1::WatchDatabasesResponse;

/// A delivery: the change's number, when it came, and the message of the first.
struct Delivery {
    change: usize,
    at: Instant,
    message: Option<Response>,
}

/// Measures; the service's process is `auth`.
pub(super) async fn measure(
    gate: &Gate,
    inventory: &Inventory,
    auth: u32,
    options: &Options,
) -> Result<Vec<Figure>> {
    let watched = create(inventory, options.watchers).await?;
    let members = gate.join_many(options.watchers, "db").await?;
    tell_of_listing(&members, options.watchers).await?;
    let mut cpu = Figure::of_rounds(BENCH, "watch_cpu_over_bare_stream", "us");
    let mut delays: Vec<f64> = Vec::new();
    let changes = options.changes as usize * options.watch_seconds as usize;
    for round in 1..=ROUNDS {
        let before = usage::cpu_seconds(auth)?;
        Changes::make(inventory, &watched, changes, options.changes).await?;
        let writing = usage::cpu_seconds(auth)? - before;

        let revision = revision(inventory).await?;
        let mut watchers = Watchers::open(&members, revision).await?;
        let before = usage::cpu_seconds(auth)?;
        let made = Changes::make(inventory, &watched, changes, options.changes).await?;
        let (deliveries, message) = watchers.deliveries(changes).await?;
        let watching = usage::cpu_seconds(auth)? - before;
        drop(watchers);
        delays.extend(
            deliveries
                .iter()
                .map(|(change, at)| made.delay(*change, *at)),
        );

        let bare = Bare::start().await?;
        let sending = bare
            .send(members.len(), changes, options.changes, &message)
            .await?;
        let each = |seconds: f64| seconds * 1e6 / changes as f64;
        eprintln!(
            "watching, round {round}: {:.0} changes a second; of the auth service {:.0} us a change with watchers and {:.0} \
             without, of the bare server {:.0}",
            made.per_second,
            each(watching),
            each(writing),
            each(sending),
        );
        cpu.add((each(watching - writing), each(sending)));
    }
    delays.sort_by(f64::total_cmp);
    let p99 = delays
        .get(delays.len() * 99 / 100)
        .context("nothing was delivered")?;
    Ok(vec![
        cpu,
        Figure::once(BENCH, "watch_delivery_p99_ms", "ms", p99 * 1e3),
    ])
}

/// One database for each watcher.
async fn create(inventory: &Inventory, count: usize) -> Result<Vec<v1::Database>> {
    stream::iter(0..count)
        .map(|number| {
            let mut inventory = inventory.clone();
            async move {
                let database = Some(fleet::watched(number));
                let made = inventory
                    .create_database(v1::CreateDatabaseRequest { database })
                    .await?;
                Ok(v1::Database {
                    revision: 0,
                    ..made.into_inner()
                })
            }
        })
        .buffered(CHANGES_MAX)
        .try_collect()
        .await
}

async fn revision(inventory: &Inventory) -> Result<u64> {
    let request = v1::ListDatabasesRequest {
        page_size: 1,
        ..Default::default()
    };
    Ok(inventory
        .clone()
        .list_databases(request)
        .await?
        .into_inner()
        .revision)
}

/// How long a narrow watch takes from its request to `synced`, with the full listing.
async fn tell_of_listing(members: &[Member], watchers: usize) -> Result<()> {
    let member = members.first().context("no watcher")?;
    let started = Instant::now();
    open(member.channel(), 0, 0).await?;
    let took = started.elapsed().as_secs_f64() * 1e3;
    eprintln!(
        "a watch of one database with a full listing: {took:.1} ms; {watchers} watchers resume instead"
    );
    Ok(())
}

/// Opens a watch of one database and reads up to `synced`.
async fn open(channel: Channel, number: usize, after_revision: u64) -> Result<Streaming<Response>> {
    let request = v1::WatchDatabasesRequest {
        selectors: vec![of_label(fleet::SHARD, &fleet::shard(number))],
        after_revision,
    };
    let mut events = Inventory::new(channel)
        .watch_databases(request)
        .await?
        .into_inner();
    loop {
        let event = events.message().await?.context("the watch ended")?.event;
        if matches!(event, Some(Event::Synced(_))) {
            return Ok(events);
        }
    }
}

/// Changes that were made, one a tick, each of another database than the ones before it.
struct Changes {
    asked_for: Arc<[OnceLock<Instant>]>,
    per_second: f64,
}

impl Changes {
    async fn make(
        inventory: &Inventory,
        databases: &[v1::Database],
        count: usize,
        per_second: u32,
    ) -> Result<Self> {
        let asked_for: Arc<[OnceLock<Instant>]> = (0..count).map(|_| OnceLock::new()).collect();
        let open = Arc::new(Semaphore::new(CHANGES_MAX.min(databases.len())));
        let mut answers: JoinSet<Result<()>> = JoinSet::new();
        let started = Instant::now();
        for change in 0..count {
            let due = Duration::from_secs(1) * u32::try_from(change)? / per_second;
            if started.elapsed() + TICK <= due {
                tokio::time::sleep_until((started + due).into()).await;
            }
            let permit = open.clone().acquire_owned().await?;
            let database = v1::Database {
                description: change.to_string(),
                ..databases[change % databases.len()].clone()
            };
            let (mut inventory, asked_for) = (inventory.clone(), asked_for.clone());
            answers.spawn(async move {
                let request = v1::UpdateDatabaseRequest {
                    database: Some(database),
                };
                // Nobody else sets it.
                let _ = asked_for[change].set(Instant::now());
                inventory.update_database(request).await?;
                drop(permit);
                Ok(())
            });
            while let Some(answer) = answers.try_join_next() {
                answer??;
            }
        }
        while let Some(answer) = answers.join_next().await {
            answer??;
        }
        let per_second = count as f64 / started.elapsed().as_secs_f64();
        Ok(Self {
            asked_for,
            per_second,
        })
    }

    /// Seconds from before a change was asked for to its delivery.
    fn delay(&self, change: usize, delivered: Instant) -> f64 {
        let asked_for = self.asked_for[change].get().copied().unwrap_or(delivered);
        delivered.saturating_duration_since(asked_for).as_secs_f64()
    }
}

/// Open watches, each of one database, with a connection each.
struct Watchers {
    deliveries: mpsc::Receiver<Delivery>,
    _tasks: JoinSet<()>,
}

impl Watchers {
    async fn open(members: &[Member], after_revision: u64) -> Result<Self> {
        let opened: Vec<Streaming<Response>> = stream::iter(members.iter().enumerate())
            .map(|(number, member)| open(member.channel(), number, after_revision))
            .buffered(OPENS_MAX)
            .try_collect()
            .await?;
        Ok(Self::read(opened).await)
    }

    async fn read(opened: Vec<Streaming<Response>>) -> Self {
        let (sender, deliveries) = mpsc::channel(opened.len() * CHANGES_MAX);
        let mut tasks = JoinSet::new();
        for (number, events) in opened.into_iter().enumerate() {
            tasks.spawn(follow(events, number == 0, sender.clone()));
        }
        tokio::time::sleep(REST).await;
        Self {
            deliveries,
            _tasks: tasks,
        }
    }

    /// Waits for so many: which change came when, and one of the messages.
    async fn deliveries(&mut self, count: usize) -> Result<(Vec<(usize, Instant)>, Response)> {
        let (mut found, mut kept) = (Vec::with_capacity(count), None);
        while found.len() < count {
            let next = timeout(DELIVERY_PATIENCE, self.deliveries.recv()).await;
            let delivery = next
                .ok()
                .flatten()
                .with_context(|| format!("{} of {count} deliveries came", found.len()))?;
            found.push((delivery.change, delivery.at));
            kept = kept.or(delivery.message);
        }
        Ok((found, kept.context("no message was kept")?))
    }
}

/// Tells of each change until the watch ends; `keeps` its messages with them.
async fn follow(mut events: Streaming<Response>, keeps: bool, deliveries: mpsc::Sender<Delivery>) {
    while let Ok(Some(message)) = events.message().await {
        let at = Instant::now();
        let Some(Event::Upserted(database)) = &message.event else {
            continue;
        };
        let Ok(change) = database.description.parse() else {
            continue;
        };
        let message = keeps.then_some(message);
        // Nobody counts any more when this fails.
        let _ = deliveries
            .send(Delivery {
                change,
                at,
                message,
            })
            .await;
    }
}

/// The bare server's process.
struct Bare {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    address: String,
    ca_pem: String,
}

impl Bare {
    async fn start() -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("bare")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let orders = child
            .stdin
            .take()
            .context("the bare server takes no orders")?;
        let answers = child
            .stdout
            .take()
            .context("the bare server says nothing")?;
        let mut answers = BufReader::new(answers).lines();
        let hello = answers
            .next_line()
            .await?
            .context("the bare server did not start")?;
        let hello: Value = serde_json::from_str(&hello)?;
        let text = |key: &str| hello[key].as_str().map(str::to_owned).context("no address");
        let (address, ca_pem) = (text("address")?, text("ca_pem")?);
        Ok(Self {
            child,
            orders,
            answers,
            address,
            ca_pem,
        })
    }

    /// CPU seconds of sending so many of these messages, to so many streams on connections of their own.
    async fn send(
        mut self,
        streams: usize,
        count: usize,
        per_second: u32,
        message: &Response,
    ) -> Result<f64> {
        let stranger = Member::stranger(self.address.clone(), &self.ca_pem)?;
        let opened: Vec<Streaming<Response>> = stream::iter(0..streams)
            .map(|_| {
                let mut client = Inventory::new(stranger.channel());
                async move {
                    let request = v1::WatchDatabasesRequest::default();
                    Ok::<_, anyhow::Error>(client.watch_databases(request).await?.into_inner())
                }
            })
            .buffered(OPENS_MAX)
            .try_collect()
            .await?;
        let mut watchers = Watchers::read(opened).await;
        let message = bare::hex(&message.encode_to_vec());
        self.say(&format!("{count} {per_second} {message}\n"), "ready")
            .await?;
        let process = self.child.id().context("the bare server is gone")?;
        let before = usage::cpu_seconds(process)?;
        self.say("go\n", "sent").await?;
        watchers.deliveries(count).await?;
        let seconds = usage::cpu_seconds(process)? - before;
        drop(watchers);
        drop(self.orders);
        let status = self.child.wait().await?;
        ensure!(status.success(), "the bare server ended with {status}");
        Ok(seconds)
    }

    async fn say(&mut self, words: &str, answer: &str) -> Result<()> {
        self.orders.write_all(words.as_bytes()).await?;
        let said = self.answers.next_line().await?;
        ensure!(
            said.as_deref() == Some(answer),
            "the bare server said {said:?} instead of {answer}"
        );
        Ok(())
    }
}
