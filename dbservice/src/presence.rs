//! Tells the cluster which databases this agent serves, and keeps telling that it lives.
//!
//! One stream: hello, the full set, then what changes, and a heartbeat when nothing does. A stream that breaks is opened
//! again and begins with the full set. A clean shutdown says goodbye, so that nobody is sent here any more. Sets and
//! changes go in parts, each sent when the one before was answered (`tidegate_proto::announce` says why).
//!
//! What was announced is remembered as what it was made from, so that a change of one database among thousands makes
//! one message and looks at one database; a change of health looks at all and makes messages of what differs.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use tidegate_core::{Database, DatabaseName, DatabaseServer, HostId, TargetHealth};
use tidegate_proto::{
    announce,
    v1::{
        self, announce_request::Message as Announcement,
        presence_service_client::PresenceServiceClient,
    },
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
        let mut waiting: VecDeque<_> = self.full(&mut announced).into();
        let mut unanswered = 1_usize;
        send(&outgoing, self.hello()).await?;
        let answers = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            answers = client.announce(ReceiverStream::new(outgoing_stream)) => answers?,
        };
        let mut answers = answers.into_inner();
        let mut heartbeat = beat(HEARTBEAT_DEFAULT);
        loop {
            if unanswered == 0
                && let Some(part) = waiting.pop_front()
            {
                send(&outgoing, part).await?;
                unanswered += 1;
            }
            // While parts wait, what changes is left to be looked at once they are through.
            let idle = waiting.is_empty();
            let changed = tokio::select! {
                () = shutdown.cancelled() => {
                    say_goodbye(outgoing, &mut answers).await;
                    return Ok(());
                }
                answer = answers.message() => {
                    let Some(answer) = answer? else { return Ok(()) };
                    retry.succeeded();
                    unanswered = unanswered.saturating_sub(1);
                    let wanted = Duration::from_secs(answer.heartbeat_seconds.into()).max(HEARTBEAT_MIN);
                    if answer.heartbeat_seconds > 0 && heartbeat.period() != wanted {
                        info!(databases = announced.len(), heartbeat_seconds = wanted.as_secs(), "announced databases");
                        heartbeat = beat(wanted);
                    }
                    continue;
                }
                names = served.next(), if idle => names,
                changed = health.changed(), if idle => {
                    changed.map_err(|_| Status::cancelled("no more health"))?;
                    announced.keys().cloned().collect()
                }
                _ = heartbeat.tick() => {
                    send(&outgoing, Announcement::Heartbeat(v1::Heartbeat {})).await?;
                    unanswered += 1;
                    continue;
                }
            };
            waiting.extend(self.changes(&mut announced, changed));
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

    /// The full set, in parts.
    fn full(&self, announced: &mut Announced) -> Vec<Announcement> {
        announced.clear();
        let all = self.served.all();
        let servers = all
            .into_iter()
            .filter_map(|wanted| self.upserted(announced, wanted))
            .collect();
        let parts = announce::full_set(servers).into_iter();
        parts.map(Announcement::Delta).collect()
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
        let parts = announce::change(upserted, removed).into_iter();
        parts.map(Announcement::Delta).collect()
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
}
