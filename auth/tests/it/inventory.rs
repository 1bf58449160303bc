use tidegate_core::Selector;
use tidegate_proto::v1::{self, watch_databases_response::Event};
use tonic::{Code, Streaming};

use crate::house::{House, code, database};

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
