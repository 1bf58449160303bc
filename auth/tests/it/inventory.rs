use prost_types::FieldMask;
use tidegate_core::Selector;
use tidegate_proto::v1::{self, watch_databases_response::Event};
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    discovery::Worker,
    house::{House, Identity, code, database},
};

struct Events(Streaming<v1::WatchDatabasesResponse>);

impl Events {
    async fn next(&mut self) -> String {
        let event = self.0.message().await.unwrap().unwrap();
        match event.event.unwrap() {
            Event::Upserted(database) => format!("+{}", database.name),
            Event::Deleted(name) => format!("-{name}"),
            Event::Synced(_) => "synced".to_owned(),
            Event::Bookmark(_) => "bookmark".to_owned(),
        }
    }
}

async fn watch(house: &House, env: &str, after_revision: u64) -> Result<Events, tonic::Status> {
    let request = v1::WatchDatabasesRequest {
        selectors: vec![Selector::new([("env", [env])]).unwrap().into()],
        after_revision,
    };
    let watch = house.admin().inventory().watch_databases(request).await?;
    Ok(Events(watch.into_inner()))
}

async fn revision(house: &House) -> u64 {
    let mut inventory = house.admin().inventory();
    let listed = inventory.list_databases(v1::ListDatabasesRequest::default());
    listed.await.unwrap().into_inner().revision
}

async fn delete(house: &House, name: &str) {
    let request = v1::DeleteDatabaseRequest {
        name: name.to_owned(),
    };
    house
        .admin()
        .inventory()
        .delete_database(request)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_watch_resumes_over_a_restart_with_what_it_missed() {
    let house = House::new().await;
    house.add_database("a", "prod").await;
    let mut events = watch(&house, "prod", 0).await.unwrap();
    assert_eq!([events.next().await, events.next().await], ["+a", "synced"]);
    house.add_database("b", "prod").await;
    assert_eq!(events.next().await, "+b");
    let seen = revision(&house).await;
    house.add_database("c", "dev").await;
    delete(&house, "a").await;

    let house = house.restart().await;
    let mut events = watch(&house, "prod", seen).await.unwrap();
    assert_eq!([events.next().await, events.next().await], ["-a", "synced"]);
    house.add_database("d", "prod").await;
    assert_eq!(events.next().await, "+d");
}

#[tokio::test]
async fn a_watch_from_a_revision_that_never_was_starts_over() {
    let house = House::new().await;
    let refused = watch(&house, "prod", 1_000_000).await;
    assert_eq!(refused.err().unwrap().code(), Code::OutOfRange);
}

#[tokio::test]
async fn a_watch_says_that_the_service_stops() {
    let house = House::new().await;
    let mut events = watch(&house, "prod", 0).await.unwrap();
    assert_eq!(events.next().await, "synced");
    let house = house.restart().await;
    let end = events.0.message().await;
    assert_eq!(code(end), Code::Unavailable);
    drop(house);
}

#[tokio::test]
async fn listings_are_paged_selected_and_searched() {
    let house = House::new().await;
    for name in ["a", "b", "c"] {
        house.add_database(name, "prod").await;
    }
    house.add_database("lab", "dev").await;
    let list = |request| async { house.admin().inventory().list_databases(request).await };
    let first = v1::ListDatabasesRequest {
        page_size: 2,
        selector: Some(Selector::new([("env", ["prod"])]).unwrap().into()),
        ..v1::ListDatabasesRequest::default()
    };
    let page = list(first.clone()).await.unwrap().into_inner();
    assert_eq!(page.databases.len(), 2);
    let next = v1::ListDatabasesRequest {
        page_token: page.next_page_token.clone(),
        ..first
    };
    let page = list(next).await.unwrap().into_inner();
    assert_eq!(
        (
            page.databases[0].name.as_str(),
            page.next_page_token.as_str()
        ),
        ("c", "")
    );

    let foreign = v1::ListDatabasesRequest {
        page_token: "00ff".to_owned(),
        ..v1::ListDatabasesRequest::default()
    };
    assert_eq!(code(list(foreign).await), Code::InvalidArgument);
    let search = v1::ListDatabasesRequest {
        search: vec!["DEV".to_owned()],
        ..v1::ListDatabasesRequest::default()
    };
    let found = list(search).await.unwrap().into_inner().databases;
    assert_eq!((found.len(), found[0].name.as_str()), (1, "lab"));
}

#[tokio::test]
async fn written_databases_are_checked_and_labelled() {
    let house = House::new().await;
    let mut inventory = house.admin().inventory();
    let create = |database| v1::CreateDatabaseRequest {
        database: Some(database),
    };
    let created = inventory
        .create_database(create(database("a", "prod")))
        .await;
    let created = created.unwrap().into_inner();
    assert_eq!(created.labels["tidegate.dev/origin"], "dynamic");
    assert!(created.revision > 0);
    let again = inventory
        .create_database(create(database("a", "prod")))
        .await;
    assert_eq!(code(again), Code::AlreadyExists);

    let mut reserved = database("b", "prod");
    reserved
        .labels
        .insert("tidegate.dev/cloud".to_owned(), "AWS".to_owned());
    assert_eq!(
        code(inventory.create_database(create(reserved)).await),
        Code::InvalidArgument
    );
    assert_eq!(
        code(
            inventory
                .create_database(create(database("a.b", "x")))
                .await
        ),
        Code::InvalidArgument
    );
    let missing = v1::DeleteDatabaseRequest {
        name: "none".to_owned(),
    };
    assert_eq!(
        code(inventory.delete_database(missing).await),
        Code::NotFound
    );
}

/// A status as programs read it: its code, its reason or the field that is wrong, and its text.
fn told<T: std::fmt::Debug>(outcome: Result<T, Status>) -> (Code, String, String) {
    let status = outcome.unwrap_err();
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.clone());
    let field = || {
        Some(
            details
                .bad_request()?
                .field_violations
                .first()?
                .field
                .clone(),
        )
    };
    let reason = reason.or_else(field).unwrap_or_default();
    (status.code(), reason, status.message().to_owned())
}

#[tokio::test]
async fn listings_are_filtered_ordered_and_masked() {
    let house = House::new().await;
    for (name, env) in [
        ("dw-a", "prod"),
        ("dw-b", "dev"),
        ("lake", "prod"),
        ("dw-c", "prod"),
    ] {
        house.add_database(name, env).await;
    }
    let list = |request| async { house.admin().inventory().list_databases(request).await };
    let asked = v1::ListDatabasesRequest {
        page_size: 1,
        filter: "labels[\"env\"] == \"prod\" && hasPrefix(name, \"dw-\")".to_owned(),
        order_by: "labels.env, name desc".to_owned(),
        read_mask: Some(FieldMask {
            paths: vec!["name".to_owned(), "labels.env".to_owned()],
        }),
        ..v1::ListDatabasesRequest::default()
    };
    let page = list(asked.clone()).await.unwrap().into_inner();
    let expected = v1::Database {
        name: "dw-c".to_owned(),
        labels: [("env".to_owned(), "prod".to_owned())].into(),
        ..v1::Database::default()
    };
    assert_eq!(page.databases, [expected]);
    let next = v1::ListDatabasesRequest {
        page_token: page.next_page_token.clone(),
        ..asked.clone()
    };
    let page = list(next).await.unwrap().into_inner();
    assert_eq!(
        (
            page.databases[0].name.as_str(),
            page.next_page_token.as_str()
        ),
        ("dw-a", "")
    );

    let filter = v1::ListDatabasesRequest {
        filter: "nmae == \"x\"".to_owned(),
        ..Default::default()
    };
    let (code, field, message) = told(list(filter).await);
    assert_eq!((code, field.as_str()), (Code::InvalidArgument, "filter"));
    assert!(message.contains("nmae == \"x\"\n^ "), "{message}");
    let order = v1::ListDatabasesRequest {
        order_by: "regoin".to_owned(),
        ..Default::default()
    };
    let (code, field, message) = told(list(order).await);
    assert_eq!((code, field.as_str()), (Code::InvalidArgument, "order_by"));
    assert!(message.contains("did you mean `region`"), "{message}");
    let mask = Some(FieldMask {
        paths: vec!["nmae".to_owned()],
    });
    let mask = v1::ListDatabasesRequest {
        read_mask: mask,
        ..Default::default()
    };
    let (code, field, _) = told(list(mask).await);
    assert_eq!((code, field.as_str()), (Code::InvalidArgument, "read_mask"));
}

#[tokio::test]
async fn a_person_lists_counts_and_watches_only_what_roles_show() {
    let house = House::new().await;
    for (name, env) in [("a", "prod"), ("b", "dev"), ("c", "dev")] {
        house.add_database(name, env).await;
    }
    let dev = Selector::new([("env", ["dev"])]).unwrap();
    let role = v1::Role {
        name: "devs".to_owned(),
        allow: Some(v1::RoleConditions {
            db_labels: Some(dev.into()),
            ..v1::RoleConditions::default()
        }),
        ..v1::Role::default()
    };
    let request = v1::UpsertRoleRequest { role: Some(role) };
    house.admin().access().upsert_role(request).await.unwrap();
    let alice = house.known(&house.person("alice", &["devs"]).await);

    assert_eq!(alice.database_names().await, ["b", "c"]);
    let count = v1::CountDatabasesRequest {
        label: "env".to_owned(),
        ..v1::CountDatabasesRequest::default()
    };
    let counted = alice.inventory().count_databases(count.clone()).await;
    let counted = counted.unwrap().into_inner();
    let dev_only = v1::LabelCount {
        value: "dev".to_owned(),
        count: 2,
    };
    assert_eq!((counted.counts, counted.total), (vec![dev_only], 2));
    let counted = house.admin().inventory().count_databases(count).await;
    assert_eq!(counted.unwrap().into_inner().total, 3);

    let all = Selector::everything();
    let request = v1::WatchDatabasesRequest {
        selectors: vec![all.into()],
        after_revision: 0,
    };
    let watch = alice.inventory().watch_databases(request).await.unwrap();
    let mut events = Events(watch.into_inner());
    assert_eq!(
        [
            events.next().await,
            events.next().await,
            events.next().await
        ],
        ["+b", "+c", "synced"]
    );
    house.add_database("d", "prod").await;
    house.add_database("e", "dev").await;
    assert_eq!(events.next().await, "+e");
}

#[tokio::test]
async fn counts_refuse_what_is_no_label() {
    let house = House::new().await;
    let count = v1::CountDatabasesRequest::default();
    let (code, field, _) = told(house.admin().inventory().count_databases(count).await);
    assert_eq!((code, field.as_str()), (Code::InvalidArgument, "label"));
}

async fn update(house: &House, database: v1::Database) -> Result<v1::Database, Status> {
    let request = v1::UpdateDatabaseRequest {
        database: Some(database),
    };
    let updated = house.admin().inventory().update_database(request).await?;
    Ok(updated.into_inner())
}

#[tokio::test]
async fn a_written_database_is_replaced_at_the_revision_that_was_read() {
    let house = House::new().await;
    house.add_database("a", "prod").await;
    let get = v1::GetDatabaseRequest {
        name: "a".to_owned(),
    };
    let read = house
        .admin()
        .inventory()
        .get_database(get)
        .await
        .unwrap()
        .into_inner();
    let changed = v1::Database {
        description: "new".to_owned(),
        ..read.clone()
    };
    let written = update(&house, changed.clone()).await.unwrap();
    assert!(written.revision > read.revision);
    assert_eq!(written.description, "new");
    assert_eq!(house.admin().database_names().await, ["a"]);

    let (code, reason, message) = told(update(&house, changed.clone()).await);
    assert_eq!((code, reason.as_str()), (Code::Aborted, "CONFLICT"));
    assert!(message.contains("read it again"), "{message}");
    let whatever = v1::Database {
        revision: 0,
        ..changed
    };
    update(&house, whatever.clone()).await.unwrap();
    let other = v1::Database {
        name: "none".to_owned(),
        ..whatever
    };
    assert_eq!(told(update(&house, other).await).0, Code::NotFound);

    let request = v1::ListEventsRequest {
        limit: 100,
        ..v1::ListEventsRequest::default()
    };
    let events = house
        .admin()
        .audit()
        .list_events(request)
        .await
        .unwrap()
        .into_inner();
    let updates = events.events.iter().filter(|event| event.code == "TDB04I");
    assert_eq!(
        updates
            .map(|event| event.db_service.as_str())
            .collect::<Vec<_>>(),
        ["a", "a"]
    );
}

#[tokio::test]
async fn a_database_that_is_not_the_administrators_cannot_be_replaced_and_says_whose_it_is() {
    let house = House::new().await;
    let identity = house.host(&["db"]).await;
    let agent = serve(&house, &identity, &["static"]).await;
    let (code, reason, message) = told(update(&house, database("static", "prod")).await);
    assert_eq!(
        (code, reason.as_str()),
        (Code::FailedPrecondition, "NOT_DYNAMIC")
    );
    assert!(message.contains(&identity.host_id), "{message}");

    drop(agent);

    let worker = Worker::start(&house, "prod", 0).await;
    worker.complete(1, &["orders"]).await;
    let name = house.admin().database_names().await.remove(0);
    let (code, reason, message) = told(update(&house, database(&name, "prod")).await);
    assert_eq!(
        (code, reason.as_str()),
        (Code::FailedPrecondition, "NOT_DYNAMIC")
    );
    assert!(message.contains("discovered by scan scope"), "{message}");
}

/// An agent's presence, which ends when it is dropped.
pub(crate) struct Presence {
    _messages: mpsc::Sender<v1::AnnounceRequest>,
    _answers: Streaming<v1::AnnounceResponse>,
}

/// Announces databases of an agent's configuration file.
pub(crate) async fn serve(house: &House, identity: &Identity, names: &[&str]) -> Presence {
    use v1::announce_request::Message;
    let configured = |name: &&str| v1::DatabaseServer {
        database: Some(v1::Database {
            origin: v1::Origin::Config.into(),
            ..database(name, "prod")
        }),
        ..v1::DatabaseServer::default()
    };
    let hello = v1::Hello {
        services: vec!["db".to_owned()],
        ..v1::Hello::default()
    };
    let delta = v1::AnnounceDelta {
        upserted: names.iter().map(configured).collect(),
        removed: Vec::new(),
        full: true,
        more: false,
    };
    let (messages, incoming) = mpsc::channel(2);
    let mut presence = house.known(identity).presence();
    let answers = presence.announce(ReceiverStream::new(incoming)).await;
    let mut answers = answers.unwrap().into_inner();
    for message in [Message::Hello(hello), Message::Delta(delta)] {
        let message = v1::AnnounceRequest {
            message: Some(message),
        };
        messages.send(message).await.unwrap();
        answers.message().await.unwrap().unwrap();
    }
    Presence {
        _messages: messages,
        _answers: answers,
    }
}

#[tokio::test]
async fn servers_are_filtered_and_ordered_too() {
    let house = House::new().await;
    let identity = house.host(&["db"]).await;
    let agent = serve(&house, &identity, &["a", "b", "c"]).await;
    let request = v1::ListDatabaseServersRequest {
        filter: "health.status == \"unknown\" && name != \"b\"".to_owned(),
        order_by: "hostname, name desc".to_owned(),
        read_mask: Some(FieldMask {
            paths: vec!["database.name".to_owned()],
        }),
        ..v1::ListDatabaseServersRequest::default()
    };
    let listed = house
        .admin()
        .inventory()
        .list_database_servers(request)
        .await;
    let servers = listed.unwrap().into_inner().database_servers;
    assert!(servers.iter().all(|server| server.host_id.is_empty()));
    let names = servers
        .into_iter()
        .map(|server| server.database.unwrap().name);
    assert_eq!(names.collect::<Vec<_>>(), ["c", "a"]);
    drop(agent);
}
