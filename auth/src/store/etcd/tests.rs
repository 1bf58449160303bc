//! The store against real etcd servers, which each test starts for itself on a loopback address of its own.

mod access;
mod faults;
mod relay;
mod server;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture};

use super::*;
use crate::store::{
    TXN_OPS_MAX, Watched,
    conformance::{Factory, conformance},
};
use server::Server;

pub(crate) struct Etcd {
    server: Mutex<Server>,
    history_revisions_min: u64,
    open: Mutex<Option<Arc<EtcdStore>>>,
}

impl Factory for Etcd {
    const LEASE: Duration = Duration::from_secs(3);

    fn new(history_revisions_min: u64) -> Self {
        Self {
            server: Mutex::new(Server::start(&[])),
            history_revisions_min,
            open: Mutex::default(),
        }
    }

    fn open(&self) -> BoxFuture<'_, Arc<dyn Store>> {
        async {
            let before = self.open.lock().unwrap().take();
            if let Some(store) = before {
                store.close();
                self.server.lock().unwrap().restart();
            }
            let mut options = self.server.lock().unwrap().options();
            options.history_revisions_min = Some(self.history_revisions_min);
            let store = EtcdStore::open(options).await.unwrap();
            *self.open.lock().unwrap() = Some(store.clone());
            store as Arc<dyn Store>
        }
        .boxed()
    }

    fn advance(&self, by: Duration) -> BoxFuture<'_, ()> {
        // etcd's own time passes: there is nothing to do but wait.
        tokio::time::sleep(by).boxed()
    }
}

conformance!(Etcd);

fn put(name: &'static str, value: &'static str) -> Txn {
    Txn::new().put(Bytes::from(name), Bytes::from(value))
}

/// How long what happens by itself may take to be seen.
const PATIENCE: Duration = Duration::from_secs(20);

async fn next(watch: &mut Watch) -> Result<Watched, WatchError> {
    tokio::time::timeout(PATIENCE, watch.next())
        .await
        .expect("a watch must not hang")
        .expect("a watch must not end in silence")
}

async fn open(server: &Server) -> Arc<EtcdStore> {
    EtcdStore::open(server.options()).await.unwrap()
}

#[tokio::test]
async fn what_is_under_other_prefixes_is_not_seen() {
    let server = Server::start(&[]);
    let ours = open(&server).await;
    let mut options = server.options();
    options.prefix = "/tidegate2/".to_owned();
    let theirs = EtcdStore::open(options).await.unwrap();
    server.ctl(&["put", "/tidegate-not", "1"]);
    theirs.commit(put("/a", "theirs")).await.unwrap();
    let mut watch = ours.watch(Bytes::new(), 1).await.unwrap();
    ours.commit(put("/a", "ours")).await.unwrap();

    let all = ours.range(RangeQuery::prefix("")).await.unwrap();
    let values: Vec<&Bytes> = all.entries.iter().map(|entry| &entry.value).collect();
    assert_eq!(values, ["ours"]);
    let batch = loop {
        if let Watched::Batch(batch) = next(&mut watch).await.unwrap() {
            break batch;
        }
    };
    assert_eq!(batch.changes[0].current, all.entries.into_iter().next());
    assert_eq!(
        server.ctl(&["get", "--print-value-only", "/tidegate/data/a"]),
        "ours\n"
    );
}

#[tokio::test]
async fn a_watch_is_told_a_revision_that_others_raised() {
    let server = Server::start(&[]);
    let store = open(&server).await;
    let now = store.commit(Txn::new()).await.unwrap();
    let mut watch = store.watch(Bytes::new(), now).await.unwrap();
    assert_eq!(next(&mut watch).await.unwrap(), Watched::CaughtUp(now));
    server.ctl(&["put", "/somebody/else", "1"]);
    let raised = store.commit(Txn::new()).await.unwrap();
    assert_eq!(raised, now + 1);
    assert_eq!(next(&mut watch).await.unwrap(), Watched::CaughtUp(raised));
    server.ctl(&["put", "/somebody/else", "2"]);
    let read = store.range(RangeQuery::prefix("/")).await.unwrap().revision;
    assert!(read > raised);
    assert_eq!(next(&mut watch).await.unwrap(), Watched::CaughtUp(read));
    // What a change of ours tells needs no telling.
    let changed = store.commit(put("/a", "1")).await.unwrap();
    let read = store.range(RangeQuery::prefix("/")).await.unwrap().revision;
    assert_eq!(read, changed);
    let Watched::Batch(batch) = next(&mut watch).await.unwrap() else {
        panic!("told twice")
    };
    assert_eq!(batch.revision, changed);
}

#[tokio::test]
async fn a_store_of_a_newer_program_is_refused() {
    let server = Server::start(&[]);
    open(&server).await;
    open(&server).await; // what is there already is found again
    assert_eq!(
        server.ctl(&["get", "--print-value-only", "/tidegate/meta/format"]),
        "1\n"
    );
    server.ctl(&["put", "/tidegate/meta/format", "2"]);
    let refused = EtcdStore::open(server.options()).await.err();
    assert!(matches!(refused, Some(OpenError::Newer { found: 2, .. })));
    server.ctl(&["put", "/tidegate/meta/format", "mine"]);
    let refused = EtcdStore::open(server.options()).await.err();
    assert!(matches!(refused, Some(OpenError::Foreign { .. })));
}

#[tokio::test]
async fn once_a_newer_program_has_taken_the_store_over_nothing_is_written() {
    let server = Server::start(&[]);
    let store = open(&server).await;
    let written = store.commit(put("/a", "1")).await.unwrap();
    server.ctl(&["put", "/tidegate/meta/format", "2"]);
    let grouped = (0..TXN_OPS_MAX).fold(Txn::new(), |txn, index| {
        txn.put(format!("/b/{index}").into(), Bytes::new())
    });
    let guarded = Txn::new().at("/a".into(), written);
    for txn in [put("/a", "2"), guarded.delete("/a".into()), grouped] {
        let refused = store.commit(txn).await.unwrap_err();
        let CommitError::Unavailable(error) = &refused else {
            panic!("{refused}")
        };
        let told = tidegate_service::telemetry::chain(error);
        assert!(told.contains("a newer program has taken it over"), "{told}");
    }
    let entry = store.get("/a".into()).await.unwrap().unwrap();
    assert_eq!(entry.modified, written);
}

#[tokio::test]
async fn a_closed_store_says_so_and_ends_its_watches() {
    let server = Server::start(&[]);
    let store = open(&server).await;
    let now = store.commit(put("/a", "1")).await.unwrap();
    let mut watch = store.watch(Bytes::new(), now).await.unwrap();
    assert_eq!(next(&mut watch).await.unwrap(), Watched::CaughtUp(now));
    store.close();
    assert!(matches!(next(&mut watch).await, Err(WatchError::Closed)));
    assert!(watch.next().await.is_none());
    assert!(store.commit(Txn::new()).await.is_err());
    let lease = store.grant(Duration::from_secs(3)).await;
    assert!(lease.is_err());
}

#[tokio::test]
async fn a_transaction_of_too_many_bytes_says_so() {
    let server = Server::start(&[]);
    let store = open(&server).await;
    for size in [2_000_000, 3_000_000] {
        let txn = Txn::new().put("/a".into(), vec![0; size].into());
        let bytes = txn.bytes();
        match store.commit(txn).await.unwrap_err() {
            CommitError::TooLong { bytes: told, .. } => assert_eq!(told, bytes),
            other => panic!("{other}"),
        }
    }
    assert_eq!(store.get("/a".into()).await.unwrap(), None);
}

#[tokio::test]
async fn a_reader_that_falls_behind_compaction_is_told_and_misses_nothing_before() {
    const WRITES: usize = 150;
    const VALUE_BYTES: usize = 200_000;
    let server = Server::start(&[]);
    let mut options = server.options();
    options.history_revisions_min = None;
    let store = EtcdStore::open(options).await.unwrap();
    let first = store.commit(put("/a", "1")).await.unwrap();
    let mut watch = store.watch(Bytes::new(), first).await.unwrap();
    assert_eq!(next(&mut watch).await.unwrap(), Watched::CaughtUp(first));
    let mut last = first;
    for index in 0..WRITES {
        let value = vec![u8::try_from(index % 250).unwrap(); VALUE_BYTES];
        last = store
            .commit(Txn::new().put("/a".into(), value.into()))
            .await
            .unwrap();
    }
    server.ctl(&["compact", &last.to_string()]);

    let mut seen = first;
    let ended = loop {
        match next(&mut watch).await {
            Ok(Watched::Batch(batch)) => {
                let previous = batch.changes[0].previous.as_ref().unwrap();
                assert_eq!(previous.modified, seen);
                seen = batch.revision;
                assert!(seen < last, "the reader was not behind");
            }
            Ok(Watched::CaughtUp(_)) => {}
            Err(ended) => break ended,
        }
    };
    assert!(
        matches!(ended, WatchError::Compacted { compacted } if compacted > seen),
        "{ended}"
    );
}

#[tokio::test]
async fn the_inventories_of_two_instances_show_the_same() {
    use crate::{inventory::Inventory, keys, record::DatabaseRecord, record::encode};
    use tidegate_service::tasks::ShutdownToken;

    let server = Mutex::new(Server::start(&[]));
    let options = server.lock().unwrap().options();
    let shutdown = ShutdownToken::new();
    let mut instances = Vec::new();
    for _ in 0..2 {
        let store = EtcdStore::open(options.clone()).await.unwrap();
        let (inventory, watch) = Inventory::load(store.clone()).await.unwrap();
        tokio::spawn(inventory.clone().follow(watch, shutdown.clone()));
        instances.push((store, inventory));
    }
    for round in 0..4 {
        let (store, _) = &instances[round % 2];
        let name = format!("db-{round}");
        let record = DatabaseRecord {
            database: Some(tidegate_proto::v1::Database {
                name: name.clone(),
                ..Default::default()
            }),
            ..DatabaseRecord::default()
        };
        let txn = Txn::new().put(keys::database(&name), encode(&record));
        let written = store.commit(txn).await.unwrap();
        for (_, inventory) in &instances {
            inventory.reached(written).await;
            assert!(inventory.revision() >= written);
            assert_eq!(inventory.tables().databases.len(), round + 1);
        }
        server.lock().unwrap().restart();
        store.get(keys::cluster()).await.unwrap();
    }
    shutdown.cancel();
}
