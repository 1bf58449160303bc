use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{FutureExt as _, future::BoxFuture};

use super::{Monotonic, OpenError, SqliteOptions, SqliteStore};
use crate::store::{
    Store, Txn,
    conformance::{Factory, conformance},
};

#[derive(Default)]
struct ManualTime(Mutex<Duration>);

impl Monotonic for ManualTime {
    fn elapsed(&self) -> Duration {
        *self.0.lock().unwrap()
    }
}

struct Sqlite {
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
