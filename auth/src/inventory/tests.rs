use std::pin::Pin;

use futures::Stream;
use tidegate_core::{Selector, Subject};

use super::{list::ListRows as _, tables::Row as _, *};
use crate::{
    keys,
    record::{DatabaseRecord, encode},
    store::{
        Txn,
        sqlite::{SqliteOptions, SqliteStore},
    },
};

mod by_index;

struct House {
    _directory: tempfile::TempDir,
    store: Arc<SqliteStore>,
    inventory: Arc<Inventory>,
    shutdown: ShutdownToken,
}

impl Drop for House {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl House {
    async fn new() -> Self {
        let options = SqliteOptions {
            history_revisions_min: 50,
            ..SqliteOptions::default()
        };
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(directory.path(), options).unwrap();
        let (inventory, watch) = Inventory::load(store.clone()).await.unwrap();
        let shutdown = ShutdownToken::new();
        tokio::spawn(inventory.clone().follow(watch, shutdown.clone()));
        Self {
            _directory: directory,
            store,
            inventory,
            shutdown,
        }
    }

    async fn commit(&self, txn: Txn) -> u64 {
        let revision = self.store.commit(txn).await.unwrap();
        self.inventory.reached(revision).await;
        revision
    }

    async fn put(&self, name: &str, env: &str) -> u64 {
        self.commit(Txn::new().put(keys::database(name), record(name, env)))
            .await
    }

    async fn delete(&self, name: &str) -> u64 {
        self.commit(Txn::new().delete(keys::database(name))).await
    }

    async fn watch(&self, env: &str, after: u64) -> Result<Events, WatchEnd> {
        let filter = Filter {
            selectors: vec![Selector::new([("env", [env])]).unwrap()],
            conditions: Conditions::default(),
            viewer: Viewer::All,
        };
        let stream = self
            .inventory
            .watch::<DatabaseRow>(filter, after, self.shutdown.clone())
            .await?;
        Ok(Events(Box::pin(stream)))
    }

    async fn names(
        &self,
        page_size: i32,
        token: &str,
        search: &[&str],
        viewer: &Viewer,
    ) -> (Vec<String>, String) {
        let request = ListRequest {
            page_size,
            page_token: token.to_owned(),
            search: search.iter().map(|word| (*word).to_owned()).collect(),
            ..ListRequest::default()
        };
        self.list(request, viewer).await.unwrap()
    }

    async fn list(
        &self,
        request: ListRequest,
        viewer: &Viewer,
    ) -> Result<(Vec<String>, String), QueryError> {
        let query = ListQuery::new("db", DatabaseRow::SCHEMA, request).unwrap();
        let page = self.inventory.list::<DatabaseRow>(&query, viewer).await?;
        let names = page.rows.iter().map(|row| row.name().to_owned()).collect();
        Ok((names, page.next_page_token))
    }
}

struct Events(Pin<Box<dyn Stream<Item = Result<RowEvent<DatabaseRow>, WatchEnd>> + Send>>);

impl Events {
    async fn next(&mut self) -> String {
        let next = tokio::time::timeout(Duration::from_secs(10), self.0.next());
        match next.await.unwrap().unwrap() {
            Ok(RowEvent::Upserted(at, row)) => format!("{at} +{}", row.name()),
            Ok(RowEvent::Deleted(at, row)) => format!("{at} -{}", row.name()),
            Ok(RowEvent::Synced(at)) => format!("{at} synced"),
            Ok(RowEvent::Bookmark(at)) => format!("{at} bookmark"),
            Err(end) => format!("{end:?}"),
        }
    }
}

fn record(name: &str, env: &str) -> bytes::Bytes {
    labelled(name, &[("env", env)])
}

fn labelled(name: &str, labels: &[(&str, &str)]) -> bytes::Bytes {
    let labels = labels
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    encode(&DatabaseRecord {
        database: Some(v1::Database {
            name: name.to_owned(),
            labels: labels.collect(),
            ..v1::Database::default()
        }),
        ..DatabaseRecord::default()
    })
}

#[tokio::test]
async fn a_page_goes_on_where_the_last_ended_whatever_came_between() {
    let house = House::new().await;
    for name in ["a", "b", "d", "e"] {
        house.put(name, "prod").await;
    }
    let (first, token) = house.names(2, "", &[], &Viewer::All).await;
    assert_eq!(first, ["a", "b"]);
    house.put("aa", "prod").await;
    house.put("c", "prod").await;
    house.delete("b").await;
    let (second, token) = house.names(2, &token, &[], &Viewer::All).await;
    assert_eq!(second, ["c", "d"]);
    let (third, token) = house.names(2, &token, &[], &Viewer::All).await;
    assert_eq!((third, token), (vec!["e".to_owned()], String::new()));
}

#[tokio::test]
async fn search_words_must_all_occur_in_name_or_labels() {
    let house = House::new().await;
    house.put("Orders", "prod").await;
    house.put("orders-old", "dev").await;
    assert_eq!(
        house
            .names(0, "", &["ORDERS", "prod"], &Viewer::All)
            .await
            .0,
        ["Orders"]
    );
}

#[tokio::test]
async fn a_person_sees_what_a_role_allows_and_no_more() {
    let house = House::new().await;
    house.put("a", "prod").await;
    house.put("b", "dev").await;
    let role = v1::Role {
        name: "devs".to_owned(),
        allow: Some(v1::RoleConditions {
            db_labels: Some(Selector::new([("env", ["dev"])]).unwrap().into()),
            ..v1::RoleConditions::default()
        }),
        ..v1::Role::default()
    };
    house
        .commit(Txn::new().put(keys::role("devs"), encode(&role)))
        .await;
    let viewer = |roles: &[&str]| {
        Viewer::Person(Subject {
            user: "alice".to_owned(),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            traits: [].into(),
        })
    };
    assert_eq!(house.names(0, "", &[], &viewer(&["devs"])).await.0, ["b"]);
    assert_eq!(
        house.names(0, "", &[], &viewer(&[])).await.0,
        Vec::<String>::new()
    );
    assert_eq!(
        house.names(0, "", &[], &viewer(&["access"])).await.0,
        ["a", "b"]
    );
}

#[tokio::test]
async fn a_watch_lists_then_tells_changes_of_what_it_selected() {
    let house = House::new().await;
    house.put("a", "prod").await;
    house.put("b", "dev").await;
    let mut events = house.watch("prod", 0).await.unwrap();
    assert_eq!(events.next().await, "0 +a");
    assert_eq!(events.next().await, "2 synced");

    house.put("c", "dev").await;
    house.put("b", "prod").await;
    assert_eq!(events.next().await, "4 +b");
    house.put("a", "dev").await;
    assert_eq!(
        events.next().await,
        "5 -a",
        "a row that stops matching is gone"
    );
    house.put("a", "test").await;
    house.delete("c").await;
    house.delete("b").await;
    assert_eq!(
        events.next().await,
        "8 -b",
        "what never matched is not mentioned"
    );
}

#[tokio::test]
async fn a_bookmark_follows_changes_that_a_watch_was_not_told_of() {
    let house = House::new().await;
    let mut events = house.watch("prod", 0).await.unwrap();
    assert_eq!(events.next().await, "0 synced");
    house.put("a", "dev").await;
    let seen = house.put("b", "dev").await;
    tokio::time::pause();
    let bookmark = events.0.next().await.unwrap().unwrap();
    assert!(
        matches!(bookmark, RowEvent::Bookmark(revision) if revision == seen),
        "{bookmark:?}"
    );
    let quiet = tokio::time::timeout(10 * watch::BOOKMARK_INTERVAL, events.0.next());
    assert!(quiet.await.is_err(), "what was told once is not told again");
    tokio::time::resume();
    house.put("c", "prod").await;
    assert_eq!(events.next().await, "3 +c");
}

#[tokio::test]
async fn a_watch_may_have_several_selectors() {
    let house = House::new().await;
    for (name, env) in [("a", "prod"), ("b", "dev"), ("c", "test")] {
        house.put(name, env).await;
    }
    let selector = |env| Selector::new([("env", [env])]).unwrap();
    let filter = Filter {
        selectors: vec![selector("prod"), selector("te*")],
        conditions: Conditions::default(),
        viewer: Viewer::All,
    };
    let stream = house
        .inventory
        .watch::<DatabaseRow>(filter, 0, house.shutdown.clone());
    let mut events = Events(Box::pin(stream.await.unwrap()));
    assert_eq!(
        [
            events.next().await,
            events.next().await,
            events.next().await
        ],
        ["0 +a", "0 +c", "3 synced"]
    );
}

#[tokio::test]
async fn an_empty_listing_is_synced_too() {
    let house = House::new().await;
    let mut events = house.watch("prod", 0).await.unwrap();
    assert_eq!(events.next().await, "0 synced");
}

#[tokio::test]
async fn a_watch_resumes_with_what_it_missed() {
    let house = House::new().await;
    house.put("a", "prod").await;
    house.put("b", "prod").await;
    let seen = house.put("c", "prod").await;
    house.put("a", "dev").await;
    let both = Txn::new()
        .put(keys::database("d"), record("d", "prod"))
        .put(keys::database("e"), record("e", "prod"));
    house.commit(both).await;
    house.delete("b").await;

    let mut events = house.watch("prod", seen).await.unwrap();
    let mut all = Vec::new();
    for _ in 0..5 {
        all.push(events.next().await);
    }
    // Of one transaction the last event alone carries the revision: resuming after any other repeats it.
    assert_eq!(all, ["4 -a", "4 +d", "5 +e", "6 -b", "6 synced"]);
    house.put("f", "prod").await;
    assert_eq!(events.next().await, "7 +f");
}

#[tokio::test]
async fn a_watch_cannot_resume_where_history_is_gone() {
    let house = House::new().await;
    for _ in 0..200 {
        house.put("a", "prod").await;
    }
    let end = house.watch("prod", 1).await.err().unwrap();
    assert!(matches!(end, WatchEnd::HistoryGone(1)), "{end:?}");
}

#[tokio::test]
async fn a_slow_watcher_is_told_where_to_resume() {
    let house = House::new().await;
    let mut events = house.watch("prod", 0).await.unwrap();
    assert_eq!(events.next().await, "0 synced");
    for _ in 0..feed::QUEUE_MAX / 50 + 1 {
        let writes = (0..50).map(|_| {
            house
                .store
                .commit(Txn::new().put(keys::database("a"), record("a", "prod")))
        });
        let revisions = futures::future::join_all(writes).await;
        house
            .inventory
            .reached(revisions.into_iter().map(Result::unwrap).max().unwrap())
            .await;
    }
    assert_eq!(events.next().await, "TooSlow(0)");
}

#[tokio::test]
async fn who_watches_starts_again_when_roles_change() {
    let house = House::new().await;
    let alice = Subject {
        user: "alice".to_owned(),
        roles: vec!["access".to_owned()],
        traits: [].into(),
    };
    // At once, whether or not a database changes.
    for (round, viewer) in [Viewer::Person(alice), Viewer::AllByRule]
        .into_iter()
        .enumerate()
    {
        let filter = Filter {
            selectors: Vec::new(),
            conditions: Conditions::default(),
            viewer,
        };
        let stream = house
            .inventory
            .watch::<DatabaseRow>(filter, 0, house.shutdown.clone())
            .await
            .unwrap();
        let mut events = Events(Box::pin(stream));
        assert_eq!(events.next().await, format!("{round} synced"));
        let role = v1::Role {
            name: format!("x{round}"),
            ..v1::Role::default()
        };
        house
            .commit(Txn::new().put(keys::role(&role.name), encode(&role)))
            .await;
        assert_eq!(events.next().await, "RolesChanged");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_loaded_is_what_was_written() {
    let house = House::new().await;
    house.put("a", "prod").await;
    house.put("b", "dev").await;
    let (again, _watch) = Inventory::load(house.store.clone()).await.unwrap();
    let (look, other) = (house.inventory.tables(), again.tables());
    assert_eq!(look.databases, other.databases);
    assert_eq!(look.revision, other.revision);
    assert!(look.databases["a"].mentions("prod"));
}

#[tokio::test]
async fn an_ordered_page_goes_on_after_the_last_row_whatever_came_between() {
    let house = House::new().await;
    for (name, env) in [("a", "prod"), ("b", "dev"), ("c", "prod"), ("d", "test")] {
        house.put(name, env).await;
    }
    house
        .commit(Txn::new().put(keys::database("e"), labelled("e", &[])))
        .await;
    let page = |token: String| {
        let request = ListRequest {
            page_size: 2,
            page_token: token,
            order_by: "labels.env desc".to_owned(),
            ..ListRequest::default()
        };
        house.list(request, &Viewer::All)
    };
    let (first, token) = page(String::new()).await.unwrap();
    assert_eq!(first, ["d", "a"]);
    // One comes before the place, one after it, and the row that was shown last changes its own place.
    house.put("f", "test").await;
    house.put("bb", "prod").await;
    house.put("a", "zzz").await;
    let (second, token) = page(token).await.unwrap();
    assert_eq!(second, ["bb", "c"]);
    let (third, token) = page(token).await.unwrap();
    assert_eq!(
        (third, token),
        (vec!["b".to_owned(), "e".to_owned()], String::new())
    );
}

#[tokio::test]
async fn a_token_is_bound_to_the_whole_query() {
    let house = House::new().await;
    for name in ["a", "b", "c"] {
        house.put(name, "prod").await;
    }
    let asked = ListRequest {
        page_size: 1,
        ..ListRequest::default()
    };
    let (_, token) = house.list(asked.clone(), &Viewer::All).await.unwrap();
    let others = [
        ListRequest {
            filter: "name != \"x\"".to_owned(),
            ..ListRequest::default()
        },
        ListRequest {
            order_by: "region".to_owned(),
            ..ListRequest::default()
        },
        ListRequest {
            search: vec!["a".to_owned()],
            ..ListRequest::default()
        },
        ListRequest {
            database: "a".to_owned(),
            ..ListRequest::default()
        },
        ListRequest {
            selector: Some(Selector::everything()),
            ..ListRequest::default()
        },
    ];
    for other in others {
        let other = ListRequest {
            page_token: token.clone(),
            ..other
        };
        let refused = ListQuery::new("db", DatabaseRow::SCHEMA, other).unwrap_err();
        assert_eq!(refused.field, "page_token");
    }
    let larger = ListRequest {
        page_size: 9,
        page_token: token,
        ..asked
    };
    assert_eq!(
        house.list(larger, &Viewer::All).await.unwrap().0,
        ["b", "c"]
    );
}

#[tokio::test]
async fn counts_are_the_same_from_the_index_and_from_the_rows() {
    let house = House::new().await;
    for (name, labels) in [
        ("a", &[("env", "prod"), ("team", "bi")][..]),
        ("b", &[("env", "prod")]),
        ("c", &[("env", "dev"), ("team", "bi")]),
        ("d", &[("team", "")]),
    ] {
        house
            .commit(Txn::new().put(keys::database(name), labelled(name, labels)))
            .await;
    }
    let person = Viewer::Person(Subject {
        user: "alice".to_owned(),
        roles: vec!["access".to_owned()],
        traits: [].into(),
    });
    let bi = Selector::new([("team", ["bi", "none"])]).unwrap();
    for (selector, label, expected) in [
        (None, "env", "prod=2 =1 dev=1 /4"),
        (None, "team", "=2 bi=2 /4"),
        (None, "none", "=4 /4"),
        (Some(bi), "env", "dev=1 prod=1 /2"),
        (Some(Selector::default()), "env", "/0"),
    ] {
        let conditions = Conditions::new(DatabaseRow::SCHEMA, selector, &[], "").unwrap();
        for viewer in [&Viewer::All, &person] {
            let counted = house.inventory.count_databases(&conditions, label, viewer);
            let (counts, _) = counted.await.unwrap();
            let values = counts
                .values
                .iter()
                .map(|(value, count)| format!("{value}={count} "));
            let shown = values.collect::<String>() + &format!("/{}", counts.total);
            assert_eq!(shown, expected, "{label} {viewer:?}");
        }
    }
}

#[tokio::test]
async fn a_query_that_looks_at_too_much_is_refused() {
    let house = House::new().await;
    // One label is longer than one evaluation may search.
    let long = "x".repeat(4_000_000);
    house
        .commit(Txn::new().put(keys::database("a"), labelled("a", &[("env", &long)])))
        .await;
    let request = ListRequest {
        filter: "search(\"zzz\")".to_owned(),
        ..ListRequest::default()
    };
    let refused = house.list(request, &Viewer::All).await;
    assert!(
        matches!(refused, Err(QueryError::TooExpensive)),
        "{refused:?}"
    );
}
