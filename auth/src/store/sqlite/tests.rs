use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture};

use super::{Monotonic, OpenError, SqliteOptions, SqliteStore};
use crate::store::{
    CommitError, LeaseId, RangeQuery, Store, Txn, WatchError,
    conformance::{Factory, conformance},
};

#[derive(Default)]
struct ManualTime(Mutex<Duration>);

impl Monotonic for ManualTime {
    fn elapsed(&self) -> Duration {
        *self.0.lock().unwrap()
    }
}

pub(crate) struct Sqlite {
    directory: tempfile::TempDir,
    time: Arc<ManualTime>,
    history_revisions_min: u64,
    open: Mutex<Option<Arc<SqliteStore>>>,
}

impl Factory for Sqlite {
    fn new(history_revisions_min: u64) -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            time: Arc::default(),
            history_revisions_min,
            open: Mutex::default(),
        }
    }

    fn open(&self) -> BoxFuture<'_, Arc<dyn Store>> {
        async {
            let before = self.open.lock().unwrap().take();
            if let Some(store) = before {
                store.close().await;
            }
            let options = SqliteOptions {
                history_revisions_min: self.history_revisions_min,
                time: self.time.clone(),
                ..SqliteOptions::default()
            };
            let store = SqliteStore::open(self.directory.path(), options).unwrap();
            *self.open.lock().unwrap() = Some(store.clone());
            store as Arc<dyn Store>
        }
        .boxed()
    }

    fn advance(&self, by: Duration) -> BoxFuture<'_, ()> {
        async move {
            *self.time.0.lock().unwrap() += by;
            let store = self.open.lock().unwrap().clone();
            if let Some(store) = store {
                store.expire_leases().await;
            }
        }
        .boxed()
    }
}

conformance!(Sqlite);

#[tokio::test]
async fn a_full_disk_refuses_writes_whole_keeps_what_is_there_and_is_used_again_with_room() {
    let directory = tempfile::tempdir().unwrap();
    let small = SqliteOptions {
        pages_max: Some(64),
        ..SqliteOptions::default()
    };
    let store = SqliteStore::open(directory.path(), small).unwrap();
    let put = |index: usize| {
        let key = |half: &str| Bytes::from(format!("/{index:03}/{half}"));
        let value = Bytes::from(vec![7; 8000]);
        Txn::new().put(key("a"), value.clone()).put(key("b"), value)
    };
    let mut written = 0;
    let refused = loop {
        match store.commit(put(written)).await {
            Ok(_) => written += 1,
            Err(refused) => break refused,
        }
        assert!(written < 100, "the file must be full some time");
    };
    assert!(matches!(refused, CommitError::Unavailable(_)), "{refused}");
    let before = store.range(RangeQuery::prefix("/")).await.unwrap();
    assert_eq!((written > 0, before.entries.len()), (true, 2 * written));
    // The refused one took no revision either, and does not show after a restart.
    assert_eq!(before.entries.last().unwrap().modified, before.revision);
    store.close().await;
    let store = SqliteStore::open(directory.path(), SqliteOptions::default()).unwrap();
    let after = store.range(RangeQuery::prefix("/")).await.unwrap();
    assert_eq!(
        (after.entries, after.revision),
        (before.entries, before.revision)
    );
    let next = store.commit(put(written)).await.unwrap();
    assert_eq!(next, before.revision + 1);
}

#[tokio::test]
async fn a_store_of_a_newer_program_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path(), SqliteOptions::default()).unwrap();
    store.close().await;
    let raw = rusqlite::Connection::open(directory.path().join("state.db")).unwrap();
    raw.pragma_update(None, "user_version", 99).unwrap();
    drop(raw);

    let refused = SqliteStore::open(directory.path(), SqliteOptions::default()).err();
    assert!(matches!(refused, Some(OpenError::Newer { found: 99, .. })));
}

#[tokio::test]
async fn a_store_in_use_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path(), SqliteOptions::default()).unwrap();
    let refused = SqliteStore::open(directory.path(), SqliteOptions::default()).err();
    assert!(matches!(refused, Some(OpenError::InUse { .. })));
    store.close().await;
    SqliteStore::open(directory.path(), SqliteOptions::default()).unwrap();
}

#[tokio::test]
async fn only_the_owner_may_read_the_files() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("backend");
    let store = SqliteStore::open(&place, SqliteOptions::default()).unwrap();
    let txn = Txn::new().put("/a".into(), "1".into());
    store.commit(txn).await.unwrap();
    for entry in std::fs::read_dir(&place).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?}", entry.path());
    }
    let mode = std::fs::metadata(&place).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0);
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path(), SqliteOptions::default()).unwrap();
    store.close().await;
    assert!(store.commit(Txn::new()).await.is_err());
}

#[tokio::test]
async fn an_older_file_keeps_its_entries_and_gives_up_its_history() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let old = super::schema::open_writer(&path, &super::schema::MIGRATIONS[..1]).unwrap();
    old.execute_batch(
        "INSERT INTO leases VALUES (1, 30000);
         INSERT INTO kv VALUES (x'2f61', x'31', 3, 4, NULL), (x'2f62', x'32', 4, 4, 1);
         INSERT INTO history (revision, place, key, value) VALUES (4, 0, x'2f61', x'31');
         UPDATE meta SET value = 4 WHERE name = 'revision';",
    )
    .unwrap();
    drop(old);

    let store = SqliteStore::open(directory.path(), SqliteOptions::default()).unwrap();
    let range = store.range(RangeQuery::prefix("/")).await.unwrap();
    let seen: Vec<_> = range
        .entries
        .iter()
        .map(|entry| {
            (
                &entry.key[..],
                &entry.value[..],
                entry.created,
                entry.modified,
                entry.lease,
            )
        })
        .collect();
    assert_eq!(range.revision, 4);
    assert_eq!(
        seen,
        [
            (&b"/a"[..], &b"1"[..], 3, 4, None),
            (&b"/b"[..], &b"2"[..], 4, 4, Some(LeaseId(1)))
        ]
    );
    let gone = store.watch("/".into(), 3).await.err();
    assert!(matches!(gone, Some(WatchError::Compacted { compacted: 4 })));
    let txn = Txn::new().at("/a".into(), 4).delete("/a".into());
    assert_eq!(store.commit(txn).await.unwrap(), 5);
    store.revoke(LeaseId(1)).await.unwrap();
    assert!(
        store
            .range(RangeQuery::prefix("/"))
            .await
            .unwrap()
            .entries
            .is_empty()
    );
}

#[tokio::test]
async fn history_that_is_given_up_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let options = SqliteOptions {
        history_revisions_min: 10,
        ..SqliteOptions::default()
    };
    let store = SqliteStore::open(directory.path(), options).unwrap();
    for n in 0..100_u8 {
        let txn = Txn::new().put("/a".into(), vec![n].into());
        let txn = match n % 3 {
            0 => txn.put("/b".into(), vec![n].into()),
            _ => txn.delete("/b".into()),
        };
        store.commit(txn).await.unwrap();
    }
    store.close().await;
    let raw = rusqlite::Connection::open(directory.path().join("state.db")).unwrap();
    let rows = |table: &str| -> u64 {
        let sql = format!("SELECT count(*) FROM {table}");
        raw.query_row(&sql, [], |row| row.get(0)).unwrap()
    };
    assert!(rows("log") <= 50, "{}", rows("log"));
    let store = SqliteStore::open(directory.path(), SqliteOptions::default()).unwrap();
    let range = store.range(RangeQuery::prefix("/")).await.unwrap();
    assert_eq!(range.entries.len(), 2);
    assert_eq!(range.entries[0].value[..], [99]);
}
