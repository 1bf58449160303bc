//! What agents cost that are there and have nothing to say.
//!
//! Each is a joined host with a TLS connection of its own, which it opens, announces its databases on, and keeps alive as
//! often as it is told to: presence as a real agent keeps it, and nothing of what else one does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use tidegate_e2e::wait;
use tidegate_proto::announce;
use tidegate_proto::v1::{
    self, announce_request::Message, inventory_service_client::InventoryServiceClient,
    presence_service_client::PresenceServiceClient,
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::MissedTickBehavior,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::{
    BENCH, Options,
    member::{Gate, Member},
    memory,
};
use crate::{figure::Figure, usage};

/// Databases of one agent.
const DATABASES: usize = 10;
/// Agents that connect and announce at once.
const OPENS_MAX: usize = 32;
/// Messages of an agent that wait to be sent.
const OUTGOING_MAX: usize = 4;
/// How long all may take to be there.
const PATIENCE: Duration = Duration::from_secs(600);

/// Measures; the service's process is `auth`.
pub(super) async fn measure(
    gate: &Gate,
    inventory: &mut InventoryServiceClient<Channel>,
    auth: u32,
    options: &Options,
) -> Result<Vec<Figure>> {
    let mut databases = listed(inventory, options.agents * DATABASES)
        .await?
        .into_iter()
        .cycle();
    let members = gate.join_many(options.agents, "db").await?;
    let before = memory::settled(auth).await?;
    let opening = Arc::new(Semaphore::new(OPENS_MAX));
    let there = Arc::new(AtomicUsize::new(0));
    let mut agents = JoinSet::new();
    for member in members {
        let served = databases.by_ref().take(DATABASES).map(server).collect();
        agents.spawn(run(member, served, opening.clone(), there.clone()));
    }
    wait::until_within(PATIENCE, "the agents", || async {
        match there.load(Ordering::Relaxed) {
            count if count == options.agents => Ok(()),
            count => Err(format!("{count} of {} are there", options.agents)),
        }
    })
    .await?;
    let after = memory::settled(auth).await?;
    let spent = usage::cpu_seconds(auth)?;
    tokio::time::sleep(Duration::from_secs(options.agent_seconds.into())).await;
    let cores = (usage::cpu_seconds(auth)? - spent) / f64::from(options.agent_seconds);
    if let Some(ended) = agents.try_join_next() {
        ended?.context("an agent ended")?;
    }
    let each = (after - before) / options.agents as f64 / 1024.0;
    Ok(vec![
        Figure::once(BENCH, "agents_10k_cores", "cores", cores),
        Figure::once(BENCH, "agents_10k_kib_each", "KiB", each),
    ])
}

/// The first databases of the inventory: so many, or all when there are fewer.
async fn listed(
    inventory: &mut InventoryServiceClient<Channel>,
    count: usize,
) -> Result<Vec<v1::Database>> {
    let mut request = v1::ListDatabasesRequest {
        page_size: 1_000,
        ..Default::default()
    };
    let mut databases = Vec::new();
    while databases.len() < count {
        let page = inventory
            .list_databases(request.clone())
            .await?
            .into_inner();
        databases.extend(page.databases);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    ensure!(!databases.is_empty(), "there is nothing to serve");
    databases.truncate(count);
    Ok(databases)
}

fn server(database: v1::Database) -> v1::DatabaseServer {
    let health = v1::TargetHealth {
        address: database.uri.clone(),
        protocol: "TCP".to_owned(),
        status: "healthy".to_owned(),
        ..v1::TargetHealth::default()
    };
    v1::DatabaseServer {
        effective_role: database
            .aws
            .as_ref()
            .and_then(|aws| aws.assume_role.clone()),
        role_source: v1::RoleSource::Database.into(),
        database: Some(database),
        target_health: Some(health),
        ..v1::DatabaseServer::default()
    }
}

fn said(message: Message) -> v1::AnnounceRequest {
    v1::AnnounceRequest {
        message: Some(message),
    }
}

/// One agent, for as long as the service keeps its stream open.
async fn run(
    member: Member,
    upserted: Vec<v1::DatabaseServer>,
    opening: Arc<Semaphore>,
    there: Arc<AtomicUsize>,
) -> Result<()> {
    let permit = opening.acquire_owned().await?;
    let (outgoing, messages) = mpsc::channel(OUTGOING_MAX);
    let hello = v1::Hello {
        services: vec!["db".to_owned()],
        ..v1::Hello::default()
    };
    let parts = announce::full_set(upserted).into_iter().map(Message::Delta);
    let mut client = PresenceServiceClient::new(member.channel());
    outgoing.send(said(Message::Hello(hello))).await?;
    let mut answers = client
        .announce(ReceiverStream::new(messages))
        .await?
        .into_inner();
    let answer = answers.message().await?;
    let every = answer
        .context("no answer to the hello")?
        .heartbeat_seconds
        .max(1);
    for part in parts {
        outgoing.send(said(part)).await?;
        let answer = answers.message().await?;
        answer.context("no answer to the databases")?;
    }
    drop(permit);
    there.fetch_add(1, Ordering::Relaxed);
    let mut beat = tokio::time::interval(Duration::from_secs(every.into()));
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat.reset();
    loop {
        tokio::select! {
            _ = beat.tick() => {
                outgoing.send(said(Message::Heartbeat(v1::Heartbeat {}))).await?;
            }
            answer = answers.message() => {
                if answer?.is_none() {
                    bail!("the auth service ended the stream");
                }
            }
        }
    }
}
