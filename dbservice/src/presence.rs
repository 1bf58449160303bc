//! Tells the cluster which databases this agent serves, and keeps telling that it lives.
//!
//! One stream: hello, the full set, then what changes, and a heartbeat when nothing does. A stream that breaks is opened
//! again and begins with the full set. A clean shutdown says goodbye, so that nobody is sent here any more.
//!
//! What was announced is remembered as what it was made from, so that a change of one database among thousands makes
//! one message and looks at one database; a change of health looks at all and makes messages of what differs.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use prost::Message;
use tidegate_core::{Database, DatabaseName, DatabaseServer, HostId, TargetHealth};
use tidegate_proto::v1::{
    self, announce_request::Message as Announcement, presence_service_client::PresenceServiceClient,
};
use tidegate_service::{
    rpc::{self, MESSAGE_BYTES_MAX},
    tasks::ShutdownToken,
};
use tokio::{
    sync::mpsc,
    time::{Interval, MissedTickBehavior},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, transport::Channel};
use tracing::{info, warn};

use crate::{health::Health, retry::Retry, served::ServedSet, wanted::Wanted};

/// What this process runs, as presence names it.
const SERVICE: &str = "db";

/// Messages that wait to be sent.
const OUTGOING_MAX: usize = 16;

/// Databases and bytes in one message, well below what gRPC takes.
const DELTA_DATABASES_MAX: usize = 2_000;
const DELTA_BYTES_MAX: usize = 3 << 20;

/// How often a heartbeat is sent until the auth service says how often it wants one.
const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(10);

/// How often at most, whatever it says.
const HEARTBEAT_MIN: Duration = Duration::from_secs(1);

/// How long a goodbye may take.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// What was announced, by name.
type Announced = BTreeMap<DatabaseName, Told>;

/// What an announcement was made from.
#[derive(Debug, PartialEq)]
struct Told {
    wanted: Arc<Wanted>,
    health: TargetHealth,
}

/// Who announces.
#[derive(Clone, Debug)]
pub(crate) struct Announcer {
    pub(crate) host_id: HostId,
    pub(crate) hostname: String,
    pub(crate) served: Arc<ServedSet>,
    pub(crate) health: Arc<Health>,
}

impl Announcer {
    /// Announces until shutdown, and says goodbye then.
    pub(crate) async fn run(self, channel: Channel, shutdown: ShutdownToken) {
        let mut retry = Retry::new();
        loop {
            retry.begin();
            let cause = match self.announce(channel.clone(), &shutdown, &mut retry).await {
                Ok(()) if shutdown.is_cancelled() => return,
                Ok(()) => "the auth service ended the stream".to_owned(),
                Err(_) if shutdown.is_cancelled() => return,
                Err(status) => rpc::describe(&status),
            };
            if retry.failed(&cause) {
                warn!(error = cause, "cannot announce databases");
            }
            if !retry.wait(&shutdown).await {
                return;
            }
        }
    }

    /// One stream, from hello to its end. `Ok` after a goodbye, or when the other side ended it.
    async fn announce(
        &self,
        channel: Channel,
        shutdown: &ShutdownToken,
        retry: &mut Retry,
    ) -> Result<(), Status> {
        let mut client =
            PresenceServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let (outgoing, outgoing_stream) = mpsc::channel(OUTGOING_MAX);
        let (served, mut health) = (self.served.names(), self.health.changes());
        health.mark_unchanged();
        let mut announced = Announced::new();
        let opening = std::iter::once(self.hello()).chain(self.full(&mut announced));
        let opening: Vec<_> = opening.collect();
        // The call is answered only once the server has read something, so sending goes on beside it.
        let (first, rest) = opening.split_at(opening.len().min(OUTGOING_MAX));
        for message in first {
            send(&outgoing, message.clone()).await?;
        }
        let answers = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            answers = client.announce(ReceiverStream::new(outgoing_stream)) => answers?,
        };
        let mut answers = answers.into_inner();
        for message in rest {
            send(&outgoing, message.clone()).await?;
        }
        let mut heartbeat = beat(HEARTBEAT_DEFAULT);
        loop {
            let changed = tokio::select! {
                () = shutdown.cancelled() => {
                    say_goodbye(outgoing, &mut answers).await;
                    return Ok(());
                }
                answer = answers.message() => {
                    let Some(answer) = answer? else { return Ok(()) };
                    retry.succeeded();
                    let wanted = Duration::from_secs(answer.heartbeat_seconds.into()).max(HEARTBEAT_MIN);
                    if answer.heartbeat_seconds > 0 && heartbeat.period() != wanted {
                        info!(databases = announced.len(), heartbeat_seconds = wanted.as_secs(), "announced databases");
                        heartbeat = beat(wanted);
                    }
                    continue;
                }
                names = served.next() => names,
                changed = health.changed() => {
                    changed.map_err(|_| Status::cancelled("no more health"))?;
                    announced.keys().cloned().collect()
                }
                _ = heartbeat.tick() => {
                    send(&outgoing, Announcement::Heartbeat(v1::Heartbeat {})).await?;
                    continue;
                }
            };
            for delta in self.changes(&mut announced, changed) {
                send(&outgoing, delta).await?;
            }
        }
    }

    fn hello(&self) -> Announcement {
        Announcement::Hello(v1::Hello {
            hostname: self.hostname.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            services: vec![SERVICE.to_owned()],
            ..v1::Hello::default()
        })
    }

    /// The full set in as many messages as it takes, of which only the first replaces what was there.
    fn full(&self, announced: &mut Announced) -> Vec<Announcement> {
        announced.clear();
        let all = self.served.all();
        let servers = all
            .into_iter()
            .filter_map(|wanted| self.upserted(announced, wanted));
        let mut deltas = split(servers);
        if deltas.is_empty() {
            deltas.push(v1::AnnounceDelta::default());
        }
        if let Some(first) = deltas.first_mut() {
            first.full = true;
        }
        deltas.into_iter().map(Announcement::Delta).collect()
    }

    /// What leads from what was announced of these databases to what is so now; nothing when it is the same.
    fn changes(
        &self,
        announced: &mut Announced,
        names: BTreeSet<DatabaseName>,
    ) -> Vec<Announcement> {
        let (mut upserted, mut removed) = (Vec::new(), Vec::new());
        for name in names {
            match self.served.get(&name) {
                Some(wanted) => upserted.extend(self.upserted(announced, wanted)),
                None if announced.remove(&name).is_some() => removed.push(name.to_string()),
                None => {}
            }
        }
        let mut deltas = split(upserted.into_iter());
        if !removed.is_empty() {
            deltas.push(v1::AnnounceDelta {
                removed,
                ..v1::AnnounceDelta::default()
            });
        }
        deltas.into_iter().map(Announcement::Delta).collect()
    }

    /// The announcement of a database, unless it was announced just so.
    fn upserted(
        &self,
        announced: &mut Announced,
        wanted: Arc<Wanted>,
    ) -> Option<v1::DatabaseServer> {
        let health = self.health.of(&wanted);
        let name = wanted.database.name.clone();
        let told = Told { wanted, health };
        if announced.get(&name) == Some(&told) {
            return None;
        }
        let server = self.server(&told);
        announced.insert(name, told);
        Some(server)
    }

    fn server(&self, told: &Told) -> v1::DatabaseServer {
        let Wanted {
            database,
            effective,
            role_reason,
            remarks,
            ..
        } = &*told.wanted;
        let server = DatabaseServer {
            host_id: self.host_id.clone(),
            hostname: self.hostname.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            effective_role: effective.role.clone(),
            role_source: effective.source,
            role_reason: role_reason.to_string(),
            remarks: remarks.clone(),
            target_health: told.health.clone(),
            database: Database::clone(database),
        };
        server.into()
    }
}

/// A beat that does not hurry after a pause.
fn beat(every: Duration) -> Interval {
    let mut interval = tokio::time::interval(every);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

async fn send(
    outgoing: &mpsc::Sender<v1::AnnounceRequest>,
    message: Announcement,
) -> Result<(), Status> {
    let request = v1::AnnounceRequest {
        message: Some(message),
    };
    outgoing
        .send(request)
        .await
        .map_err(|_| Status::unavailable("the stream has ended"))
}

/// Says goodbye and waits for the stream to end, so that it is heard before the process is gone.
async fn say_goodbye(
    outgoing: mpsc::Sender<v1::AnnounceRequest>,
    answers: &mut tonic::Streaming<v1::AnnounceResponse>,
) {
    let saying = async {
        send(&outgoing, Announcement::Goodbye(v1::Goodbye {})).await?;
        drop(outgoing);
        while answers.message().await?.is_some() {}
        Ok::<_, Status>(())
    };
    match tokio::time::timeout(GOODBYE_TIMEOUT, saying).await {
        Ok(Ok(())) => info!("said goodbye to the cluster"),
        Ok(Err(status)) => warn!(
            error = rpc::describe(&status),
            "the goodbye was not heard; the lease will run out"
        ),
        Err(_) => warn!("the goodbye was not answered; the lease will run out"),
    }
}

fn split(servers: impl Iterator<Item = v1::DatabaseServer>) -> Vec<v1::AnnounceDelta> {
    let mut deltas: Vec<v1::AnnounceDelta> = Vec::new();
    let mut bytes = 0;
    for server in servers {
        let size = server.encoded_len();
        match deltas.last_mut() {
            Some(last)
                if last.upserted.len() < DELTA_DATABASES_MAX && bytes + size <= DELTA_BYTES_MAX =>
            {
                last.upserted.push(server);
                bytes += size;
            }
            _ => {
                deltas.push(v1::AnnounceDelta {
                    upserted: vec![server],
                    ..v1::AnnounceDelta::default()
                });
                bytes = size;
            }
        }
    }
    deltas
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::wanted;

    fn name(name: &str) -> DatabaseName {
        name.parse().unwrap()
    }

    fn announcer(names: &[&str]) -> Announcer {
        let served = ServedSet::new();
        served.apply(names.iter().map(|text| (name(text), Some(wanted(text)))));
        Announcer {
            host_id: "agent-1".parse().unwrap(),
            hostname: "h".to_owned(),
            served: Arc::new(served),
            health: Arc::new(Health::new()),
        }
    }

    fn deltas(messages: Vec<Announcement>) -> Vec<(Vec<String>, Vec<String>, bool)> {
        messages
            .into_iter()
            .map(|message| match message {
                Announcement::Delta(delta) => (
                    delta
                        .upserted
                        .into_iter()
                        .map(|server| server.database.unwrap().name)
                        .collect(),
                    delta.removed,
                    delta.full,
                ),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn only_what_changed_is_announced() {
        let announcer = announcer(&["orders", "users"]);
        let mut announced = Announced::new();
        announcer.full(&mut announced);
        let all = || BTreeSet::from(["orders", "stock", "users"].map(name));
        assert!(announcer.changes(&mut announced, all()).is_empty());
        let changes = [
            (name("orders"), None),
            (name("stock"), Some(wanted("stock"))),
        ];
        announcer.served.apply(changes);
        assert_eq!(
            deltas(announcer.changes(&mut announced, all())),
            [
                (strings(&["stock"]), Vec::new(), false),
                (Vec::new(), strings(&["orders"]), false)
            ]
        );
        assert!(announcer.changes(&mut announced, all()).is_empty());
    }

    #[test]
    fn the_role_is_announced_with_its_reason_and_with_what_should_be_known() {
        let announcer = announcer(&[]);
        let mut changed = Wanted::clone(&wanted("orders"));
        changed.role_reason = "entry 1".into();
        changed.remarks = vec!["label `load`: fails".to_owned()];
        let changed = [(name("orders"), Some(Arc::new(changed)))];
        announcer.served.apply(changed);
        let told = announcer.full(&mut Announced::new());
        let [Announcement::Delta(delta)] = told.as_slice() else {
            panic!("{told:?}")
        };
        let server = &delta.upserted[0];
        assert_eq!(server.role_reason, "entry 1");
        assert_eq!(server.remarks, ["label `load`: fails"]);
    }

    #[test]
    fn an_agent_without_databases_says_so() {
        let full = announcer(&[]).full(&mut Announced::new());
        assert_eq!(deltas(full), [(Vec::new(), Vec::new(), true)]);
    }

    #[test]
    fn a_set_too_large_for_one_message_is_split_and_only_the_first_replaces() {
        let names: Vec<String> = (0..=DELTA_DATABASES_MAX)
            .map(|number| format!("d{number:06}"))
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let parts = announcer(&names).full(&mut Announced::new());
        let parts: Vec<_> = deltas(parts)
            .into_iter()
            .map(|(names, _, full)| (names.len(), full))
            .collect();
        assert_eq!(parts, [(DELTA_DATABASES_MAX, true), (1, false)]);
    }
}
