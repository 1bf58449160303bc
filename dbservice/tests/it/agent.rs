//! What the agent serves, and how the cluster hears of it.

use tidegate_core::{AwsMetadata, Database, DatabaseKind, Labels, Origin, Protocol, TlsSettings};
use tidegate_proto::v1::{
    self, WatchDatabasesResponse, announce_request::Message, control_request, control_response,
    watch_databases_response::Event,
};
use tonic::Status;

use crate::world::{World, patiently, role};

fn event(revision: u64, event: Event) -> Result<WatchDatabasesResponse, Status> {
    Ok(WatchDatabasesResponse {
        revision,
        event: Some(event),
    })
}

fn orders(host: &str) -> v1::Database {
    Database {
        name: "orders".parse().unwrap(),
        description: String::new(),
        labels: [("env", "prod")].into_iter().collect::<Labels>(),
        origin: Origin::Cloud,
        protocol: Protocol::Postgres,
        uri: format!("{host}:5439").parse().unwrap(),
        tls: TlsSettings::default(),
        aws: AwsMetadata {
            region: Some("us-east-1".parse().unwrap()),
            account_id: Some("123456789012".parse().unwrap()),
            assume_role: Some(role("discovery")),
            redshift_cluster_id: Some("orders".to_owned()),
            ..AwsMetadata::default()
        },
        kind: Some(DatabaseKind::Redshift),
        identity: String::new(),
        discovered_name: String::new(),
        unavailable: String::new(),
    }
    .into()
}

const GOOD: &str = "orders.abc.us-east-1.redshift.amazonaws.com";

fn names(delta: &v1::AnnounceDelta) -> Vec<&str> {
    delta
        .upserted
        .iter()
        .map(|server| server.database.as_ref().unwrap().name.as_str())
        .collect()
}

#[tokio::test]
async fn the_full_set_is_announced_first_with_its_health_following() {
    let mut world = World::start().await;
    let Message::Hello(hello) = world.announced().await else {
        panic!("a hello")
    };
    assert_eq!(hello.services, ["db"]);
    let Message::Delta(full) = world.announced().await else {
        panic!("the full set")
    };
    assert!(full.full);
    assert_eq!(names(&full), ["own"]);
    let is_healthy = |delta: &v1::AnnounceDelta| {
        delta
            .upserted
            .iter()
            .any(|server| server.target_health.as_ref().unwrap().status == "healthy")
    };
    if !is_healthy(&full) {
        world.until_announced(is_healthy).await;
    }
}

#[tokio::test]
async fn what_the_inventory_adds_and_removes_is_announced_with_the_overriding_role() {
    let mut world = World::start().await;
    let (request, watch) = patiently(world.seen.watches.recv()).await.unwrap();
    assert_eq!(request.selectors.len(), 1);
    watch.send(event(5, Event::Upserted(orders(GOOD)))).unwrap();
    watch.send(event(5, Event::Synced(v1::Synced {}))).unwrap();
    world
        .until_announced(|delta| {
            delta.upserted.iter().any(|server| {
                server.database.as_ref().unwrap().name == "orders"
                    && server.effective_role.as_ref().unwrap().role_arn
                        == role("agent").role_arn.as_str()
                    && server.role_source() == v1::RoleSource::Override
            })
        })
        .await;
    watch
        .send(event(6, Event::Deleted("orders".to_owned())))
        .unwrap();
    world
        .until_announced(|delta| delta.removed == ["orders"])
        .await;
}

#[tokio::test]
async fn a_watch_that_breaks_is_resumed_and_nothing_is_withdrawn_meanwhile() {
    let mut world = World::start().await;
    let (first, watch) = patiently(world.seen.watches.recv()).await.unwrap();
    assert_eq!(first.after_revision, 0);
    watch.send(event(5, Event::Upserted(orders(GOOD)))).unwrap();
    watch.send(event(5, Event::Synced(v1::Synced {}))).unwrap();
    world
        .until_announced(|delta| names(delta).contains(&"orders"))
        .await;
    watch.send(Err(Status::unavailable("going away"))).unwrap();
    drop(watch);

    let (second, watch) = patiently(world.seen.watches.recv()).await.unwrap();
    assert_eq!(second.after_revision, 5);
    watch
        .send(Err(Status::out_of_range("history is gone")))
        .unwrap();
    drop(watch);

    let (third, watch) = patiently(world.seen.watches.recv()).await.unwrap();
    assert_eq!(third.after_revision, 0);
    watch.send(event(9, Event::Synced(v1::Synced {}))).unwrap();
    world
        .until_announced(|delta| delta.removed == ["orders"])
        .await;
}

#[tokio::test]
async fn a_tampered_address_is_never_served() {
    let mut world = World::start().await;
    let (_, watch) = patiently(world.seen.watches.recv()).await.unwrap();
    watch
        .send(event(
            5,
            Event::Upserted(orders("orders.abc.evil.example.com")),
        ))
        .unwrap();
    watch.send(event(5, Event::Synced(v1::Synced {}))).unwrap();
    let mut good = orders("stock.abc.us-east-1.redshift.amazonaws.com");
    good.name = "stock".to_owned();
    good.aws.as_mut().unwrap().redshift_cluster_id = "stock".to_owned();
    watch.send(event(6, Event::Upserted(good))).unwrap();
    world
        .until_announced(|delta| {
            assert!(!names(delta).contains(&"orders"));
            names(delta).contains(&"stock")
        })
        .await;
}

#[tokio::test]
async fn a_clean_shutdown_drains_and_says_goodbye() {
    let mut world = World::start().await;
    let mut line = world.line().await;
    line.tell(control_response::Message::Ping(v1::Ping {}));
    assert!(matches!(
        line.next().await,
        control_request::Message::Pong(_)
    ));
    world.until_announced(|delta| delta.full).await;
    let tasks = world.tasks.clone();
    let stopping = tokio::spawn(async move { tasks.close_and_wait(crate::world::PATIENCE).await });
    assert!(matches!(
        line.next().await,
        control_request::Message::Draining(_)
    ));
    loop {
        if let Message::Goodbye(_) = world.announced().await {
            break;
        }
    }
    assert!(patiently(stopping).await.unwrap(), "every task ends");
    assert_eq!(world.tasks.failure(), None);
}

#[tokio::test]
async fn a_lost_control_connection_is_opened_again() {
    let mut world = World::start().await;
    let line = world.line().await;
    drop(line);
    world.line().await;
}
