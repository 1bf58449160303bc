use std::time::Duration;

use tidegate_auth::Timings;
use tidegate_proto::v1::{self, announce_request::Message, watch_database_servers_response::Event};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::house::{Caller, House, Identity, code, database};

/// A process that announces itself.
pub(crate) struct Agent {
    messages: mpsc::Sender<v1::AnnounceRequest>,
    answers: Streaming<v1::AnnounceResponse>,
}

impl Agent {
    pub(crate) async fn start(house: &House, identity: &Identity, services: &[&str]) -> Self {
        let mut agent = Self::connect(&house.known(identity)).await;
        let hello = hello(services, "");
        let answer = agent.say(Message::Hello(hello)).await.unwrap();
        assert!(answer.heartbeat_seconds > 0);
        agent
    }

    async fn connect(caller: &Caller) -> Self {
        let (messages, incoming) = mpsc::channel(4);
        let answers = caller
            .presence()
            .announce(ReceiverStream::new(incoming))
            .await;
        Self {
            messages,
            answers: answers.unwrap().into_inner(),
        }
    }

    async fn say(&mut self, message: Message) -> Result<v1::AnnounceResponse, Status> {
        let message = v1::AnnounceRequest {
            message: Some(message),
        };
        self.messages.send(message).await.unwrap();
        Ok(self.answers.message().await?.unwrap())
    }

    async fn serve(
        &mut self,
        databases: &[&str],
        removed: &[&str],
        full: bool,
    ) -> Result<v1::AnnounceResponse, Status> {
        let upserted = databases
            .iter()
            .map(|name| v1::DatabaseServer {
                database: Some(v1::Database {
                    origin: v1::Origin::Config.into(),
                    ..database(name, "prod")
                }),
                host_id: "somebody-else".to_owned(),
                ..v1::DatabaseServer::default()
            })
            .collect();
        self.say(Message::Delta(v1::AnnounceDelta {
            upserted,
            removed: removed.iter().map(|name| (*name).to_owned()).collect(),
            full,
            more: false,
        }))
        .await
    }

    /// A part of a change, of which more follows or not.
    async fn part(
        &mut self,
        name: &str,
        full: bool,
        more: bool,
    ) -> Result<v1::AnnounceResponse, Status> {
        let server = v1::DatabaseServer {
            database: Some(v1::Database {
                origin: v1::Origin::Config.into(),
                ..database(name, "prod")
            }),
            ..v1::DatabaseServer::default()
        };
        self.say(Message::Delta(v1::AnnounceDelta {
            upserted: vec![server],
            removed: Vec::new(),
            full,
            more,
        }))
        .await
    }
}

fn hello(services: &[&str], public_addr: &str) -> v1::Hello {
    v1::Hello {
        hostname: "liar".to_owned(),
        version: "0.1.0".to_owned(),
        services: services
            .iter()
            .map(|service| (*service).to_owned())
            .collect(),
        public_addr: public_addr.to_owned(),
        ..v1::Hello::default()
    }
}

async fn names(house: &House) -> Vec<String> {
    let servers = house.admin().servers().await;
    servers.into_iter().map(|(database, _)| database).collect()
}

#[tokio::test]
async fn an_agent_is_present_with_what_it_serves_under_its_own_name() {
    let house = House::new().await;
    let identity = house.host(&["db"]).await;
    let mut agent = Agent::start(&house, &identity, &["db"]).await;
    agent.serve(&["a", "b"], &[], true).await.unwrap();
    let id = identity.host_id.clone();
    assert_eq!(
        house.admin().servers().await,
        [("a".to_owned(), id.clone()), ("b".to_owned(), id)]
    );

    agent.serve(&["c"], &["a"], false).await.unwrap();
    assert_eq!(names(&house).await, ["b", "c"]);
    agent.serve(&["c"], &[], true).await.unwrap();
    assert_eq!(
        names(&house).await,
        ["c"],
        "what a full set does not name is removed"
    );

    let request = v1::ListDatabaseServersRequest {
        database: "c".to_owned(),
        ..v1::ListDatabaseServersRequest::default()
    };
    let listed = house
        .admin()
        .inventory()
        .list_database_servers(request)
        .await;
    let server = listed.unwrap().into_inner().database_servers.remove(0);
    assert_eq!(
        (server.hostname.as_str(), server.version.as_str()),
        ("node", "0.1.0")
    );
}

#[tokio::test]
async fn a_full_set_in_parts_replaces_nothing_before_its_last_part() {
    let house = House::new().await;
    let identity = house.host(&["db"]).await;
    let mut agent = Agent::start(&house, &identity, &["db"]).await;
    agent.serve(&["a", "b", "old"], &[], true).await.unwrap();

    agent.part("a", true, true).await.unwrap();
    assert_eq!(names(&house).await, ["a", "b", "old"]);
    agent.part("b", true, true).await.unwrap();
    agent.part("c", true, false).await.unwrap();
    assert_eq!(names(&house).await, ["a", "b", "c"]);

    agent.part("d", false, true).await.unwrap();
    let refused = agent.part("e", true, false).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(
        names(&house).await,
        ["a", "b", "c"],
        "parts that do not belong together change nothing"
    );
}

#[tokio::test]
async fn a_goodbye_removes_at_once() {
    let house = House::new().await;
    let identity = house.host(&["db"]).await;
    let mut agent = Agent::start(&house, &identity, &["db"]).await;
    agent.serve(&["a"], &[], true).await.unwrap();
    let goodbye = v1::AnnounceRequest {
        message: Some(Message::Goodbye(v1::Goodbye {})),
    };
    agent.messages.send(goodbye).await.unwrap();
    assert!(agent.answers.message().await.unwrap().is_none());
    let mut watch = watch(&house).await;
    loop {
        match watch.message().await.unwrap().unwrap().event.unwrap() {
            Event::Deleted(key) => {
                assert_eq!(key.database, "a");
                break;
            }
            Event::Synced(_) if names(&house).await.is_empty() => break,
            _ => {}
        }
    }
}

async fn watch(house: &House) -> Streaming<v1::WatchDatabaseServersResponse> {
    let request = v1::WatchDatabaseServersRequest::default();
    let watch = house
        .admin()
        .inventory()
        .watch_database_servers(request)
        .await;
    watch.unwrap().into_inner()
}

#[tokio::test]
async fn a_lost_stream_is_gone_within_the_lease_and_not_before() {
    let timings = Timings {
        presence_lease: Duration::from_secs(1),
        ..Timings::default()
    };
    let house = House::with(timings).await;
    let identity = house.host(&["db"]).await;
    let mut agent = Agent::start(&house, &identity, &["db"]).await;
    agent.serve(&["a"], &[], true).await.unwrap();
    let mut watch = watch(&house).await;
    drop(agent);
    assert_eq!(names(&house).await, ["a"]);
    let gone = async {
        loop {
            if let Event::Deleted(key) = watch.message().await.unwrap().unwrap().event.unwrap() {
                return key;
            }
        }
    };
    let key = tokio::time::timeout(Duration::from_secs(10), gone)
        .await
        .unwrap();
    assert_eq!(
        (key.database.as_str(), key.host_id.as_str()),
        ("a", identity.host_id.as_str())
    );
    assert_eq!(names(&house).await, Vec::<String>::new());
}

#[tokio::test]
async fn who_comes_back_in_time_changes_nothing() {
    let house = House::new().await;
    let identity = house.host(&["db"]).await;
    let mut agent = Agent::start(&house, &identity, &["db"]).await;
    let before = agent.serve(&["a", "b"], &[], true).await.unwrap().revision;
    drop(agent);
    let mut agent = Agent::start(&house, &identity, &["db"]).await;
    let after = agent.serve(&["a", "b"], &[], true).await.unwrap().revision;
    assert_eq!(before, after);
}

#[tokio::test]
async fn proxies_are_listed_with_their_address_beside_agents_of_the_same_process() {
    let house = House::new().await;
    let token = house.join_token(&["db", "proxy"]).await;
    let identity = house.join(&token, &["db", "proxy"], "").await.unwrap();
    let mut proxy = Agent::connect(&house.known(&identity)).await;
    proxy
        .say(Message::Hello(hello(&["proxy"], "proxy.test:3080")))
        .await
        .unwrap();
    let mut agent = Agent::start(&house, &identity, &["db"]).await;
    agent.serve(&["a"], &[], true).await.unwrap();
    let listed = house
        .admin()
        .inventory()
        .list_proxies(v1::ListProxiesRequest {})
        .await;
    let proxies = listed.unwrap().into_inner().proxies;
    assert_eq!(proxies.len(), 1);
    assert_eq!(
        (
            proxies[0].public_addr.as_str(),
            proxies[0].hostname.as_str()
        ),
        ("proxy.test:3080", "node")
    );
    let status = house
        .admin()
        .access()
        .get_cluster_status(v1::GetClusterStatusRequest {})
        .await;
    let status = status.unwrap().into_inner();
    assert_eq!(
        (status.agents, status.proxies, status.database_servers),
        (1, 1, 1)
    );
}

#[tokio::test]
async fn nobody_announces_what_the_certificate_does_not_allow() {
    let house = House::new().await;
    let caller = house.known(&house.host(&["proxy"]).await);
    let mut proxy = Agent::connect(&caller).await;
    let posing = proxy.say(Message::Hello(hello(&["db"], ""))).await;
    assert_eq!(code(posing), Code::PermissionDenied);

    let mut proxy = Agent::connect(&caller).await;
    proxy
        .say(Message::Hello(hello(&["proxy"], "p:1")))
        .await
        .unwrap();
    assert_eq!(
        code(proxy.serve(&["a"], &[], true).await),
        Code::PermissionDenied
    );

    let mut silent = Agent::connect(&caller).await;
    let early = silent.say(Message::Heartbeat(v1::Heartbeat {})).await;
    assert_eq!(code(early), Code::InvalidArgument);
}
