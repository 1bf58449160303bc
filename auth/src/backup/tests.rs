use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::TryStreamExt as _;
use jiff::Timestamp;
use tidegate_service::{clock::ManualClock, tasks::ShutdownToken};

use super::*;
use crate::{
    record::{ScopeRecord, decode, encode},
    store::{
        Entry, RangeQuery, Txn, conformance::Factory, etcd::tests::Etcd, sqlite::tests::Sqlite,
    },
};

const HISTORY: u64 = 1000;
/// How long what happens by itself may take to be seen.
const PATIENCE: Duration = Duration::from_secs(10);

/// A store, and what makes backups of it.
struct Site<F> {
    _factory: F,
    store: Arc<dyn Store>,
    backups: Backups,
    folder: tempfile::TempDir,
}

fn start() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

impl<F: Factory> Site<F> {
    async fn new() -> Self {
        Self::of("tidegate.test").await
    }

    async fn of(cluster: &str) -> Self {
        let factory = F::new(HISTORY);
        let store = factory.open().await;
        let folder = tempfile::tempdir().unwrap();
        let backups = backups(store.clone(), cluster, folder.path()).await;
        Self {
            _factory: factory,
            store,
            backups,
            folder,
        }
    }

    async fn put(&self, key: &str, value: &str) {
        let txn = Txn::new().put(Bytes::from(key.to_owned()), Bytes::from(value.to_owned()));
        self.store.commit(txn).await.unwrap();
    }

    async fn put_leased(&self, key: &str, ttl: Duration) {
        let lease = self.store.grant(ttl).await.unwrap();
        let key = Bytes::from(key.to_owned());
        let txn = Txn::new().put_with(key, Bytes::from_static(b"1"), Some(lease));
        self.store.commit(txn).await.unwrap();
    }

    async fn backup(&self) -> Vec<u8> {
        let chunks = self.backups.create("eve").await.unwrap();
        let chunks: Vec<Bytes> = chunks.try_collect().await.unwrap();
        chunks.concat()
    }

    async fn restore(&self, file: &[u8], force: bool) -> Result<Tally, RestoreError> {
        let mut incoming = self.backups.receive()?;
        for chunk in file.chunks(1000) {
            incoming = incoming.push(Bytes::copy_from_slice(chunk)).await?;
        }
        let done = incoming.restore("eve", force).await?;
        Ok((done.entries, done.written, done.deleted, done.expired))
    }

    /// All keys with their values, but for the marker.
    async fn keys(&self) -> Vec<(String, Bytes)> {
        let all = entries(self.store.as_ref()).await;
        let text = |key: &Bytes| String::from_utf8(key.to_vec()).unwrap();
        all.into_iter()
            .filter(|entry| entry.key != "/restore")
            .map(|entry| (text(&entry.key), entry.value))
            .collect()
    }
}

/// Entries, written, deleted, expired.
type Tally = (u64, u64, u64, u64);

async fn backups(store: Arc<dyn Store>, cluster: &str, folder: &std::path::Path) -> Backups {
    let clock = Arc::new(ManualClock::new(start()));
    let audit = AuditLog::open(folder, clock.clone()).unwrap();
    Backups::new(BackupParts {
        restores: Arc::new(Restores::open(store.clone()).await.unwrap()),
        store,
        cluster: cluster.parse().unwrap(),
        audit,
        clock,
        folder: folder.to_owned(),
    })
}

async fn entries(store: &dyn Store) -> Vec<Entry> {
    let mut query = RangeQuery::prefix("");
    let mut all = Vec::new();
    loop {
        let page = store.range(query.clone()).await.unwrap();
        query.after = page.entries.last().map(|entry| entry.key.clone());
        all.extend(page.entries);
        if !page.more {
            return all;
        }
    }
}

/// A state as a cluster has it: many keys, large values, some that end, some that live with a process.
async fn used<F: Factory>() -> Site<F> {
    let site = Site::new().await;
    site.put("/ca/host", "-----BEGIN PRIVATE KEY-----").await;
    site.put("/cluster", "c").await;
    site.put("/users/alice", "hash").await;
    site.put("/owners/big", &"x".repeat(300_000)).await;
    let many = (0..1000).fold(Txn::new(), |txn, index| {
        let key = Bytes::from(format!("/databases/{index:04}"));
        txn.put(key, Bytes::from(index.to_string()))
    });
    site.store.commit(many).await.unwrap();
    site.put_leased("/tokens/day", Duration::from_hours(24))
        .await;
    site.put_leased("/presence/h/a", Duration::from_hours(24))
        .await;
    let record = ScopeRecord {
        scan_epoch: 1_000_000,
        settled_digest: vec![7; 32],
        ..ScopeRecord::default()
    };
    let txn = Txn::new().put(Bytes::from_static(b"/scopes/s"), encode(&record));
    site.store.commit(txn).await.unwrap();
    site
}

async fn moves<From: Factory, To: Factory>() {
    let from = used::<From>().await;
    let file = from.backup().await;
    let to = Site::<To>::new().await;
    to.put("/ca/host", "made at first start").await;
    to.put("/cluster", "c").await;
    let kept = 1006;
    assert_eq!(
        to.restore(&file, false).await.unwrap(),
        (kept, kept - 1, 0, 0)
    );

    let mut before = from.keys().await;
    before.retain(|(key, _)| !key.starts_with("/presence/"));
    let after = to.keys().await;
    let differs: Vec<&str> = before
        .iter()
        .zip(&after)
        .filter(|(one, other)| one != other)
        .map(|(one, _)| one.0.as_str())
        .collect();
    assert_eq!((before.len(), differs), (after.len(), vec!["/scopes/s"]));
    let all = entries(to.store.as_ref()).await;
    let scope = all.iter().find(|entry| entry.key == "/scopes/s").unwrap();
    let scope: ScopeRecord = decode(scope).unwrap();
    assert_eq!((scope.scan_epoch, scope.settled_digest), (0, vec![7; 32]));
    let token = all.iter().find(|entry| entry.key == "/tokens/day").unwrap();
    let left = to.store.time_left(token.lease.unwrap()).await.unwrap();
    assert!(left.unwrap() > Duration::from_hours(23), "{left:?}");
    assert!(!to.backups.parts.restores.is_unfinished());
}

#[tokio::test]
async fn a_state_moves_from_sqlite_to_sqlite() {
    moves::<Sqlite, Sqlite>().await;
}

#[tokio::test]
async fn a_state_moves_from_sqlite_to_etcd() {
    moves::<Sqlite, Etcd>().await;
}

#[tokio::test]
async fn a_state_moves_from_etcd_to_sqlite() {
    moves::<Etcd, Sqlite>().await;
}

#[tokio::test]
async fn one_backup_is_made_or_restored_at_a_time() {
    let site = used::<Sqlite>().await;
    let making = site.backups.create("eve").await.unwrap();
    let another = site.backups.create("eve").await.err();
    assert!(matches!(another, Some(CreateError::Busy)), "{another:?}");
    let restoring = site.backups.receive().err();
    assert!(matches!(restoring, Some(RestoreError::Busy)));
    drop(making);
    site.backup().await;
}

#[tokio::test]
async fn a_backup_shows_one_revision_while_others_write() {
    let site = Site::<Sqlite>::new().await;
    let pair = |value: &str| {
        let value = Bytes::from(value.to_owned());
        Txn::new()
            .put(Bytes::from_static(b"/databases/a"), value.clone())
            .put(Bytes::from_static(b"/users/z"), value)
    };
    for index in 0..1000 {
        site.put(&format!("/owners/{index:04}"), "1").await;
    }
    site.store.commit(pair("old")).await.unwrap();
    let mut chunks = Box::pin(site.backups.create("eve").await.unwrap());
    let mut file = chunks.try_next().await.unwrap().unwrap().to_vec();
    site.store.commit(pair("new")).await.unwrap();
    while let Some(chunk) = chunks.try_next().await.unwrap() {
        file.extend_from_slice(&chunk);
    }
    let to = Site::<Sqlite>::new().await;
    to.restore(&file, false).await.unwrap();
    let keys = to.keys().await;
    let value = |name: &str| keys.iter().find(|(key, _)| key == name).unwrap().1.clone();
    assert_eq!(
        (value("/databases/a"), value("/users/z")),
        ("old".into(), "old".into())
    );
}

#[tokio::test]
async fn what_is_in_use_is_replaced_only_by_force_and_what_lives_with_a_process_stays() {
    let from = Site::<Sqlite>::new().await;
    from.put("/users/alice", "hash").await;
    let file = from.backup().await;
    let to = Site::<Sqlite>::new().await;
    to.put("/users/bob", "other").await;
    to.put_leased("/presence/h/a", Duration::from_hours(1))
        .await;
    let before = to.keys().await;
    let refused = to.restore(&file, false).await.unwrap_err();
    assert!(matches!(refused, RestoreError::NotNew { .. }), "{refused}");
    assert_eq!(to.keys().await, before);
    assert_eq!(to.restore(&file, true).await.unwrap(), (1, 1, 1, 0));
    let names: Vec<String> = to.keys().await.into_iter().map(|(key, _)| key).collect();
    assert_eq!(names, ["/presence/h/a", "/users/alice"]);
    // A second time there is nothing to do.
    assert_eq!(to.restore(&file, true).await.unwrap(), (1, 0, 0, 0));
}

#[tokio::test]
async fn a_file_that_is_not_sound_or_not_ours_writes_nothing() {
    let from = Site::<Sqlite>::new().await;
    from.put("/users/alice", "hash").await;
    let file = from.backup().await;
    let to = Site::<Sqlite>::new().await;
    let mut damaged = file.clone();
    let middle = file.len() / 2;
    damaged[middle] ^= 1;
    for bad in [&file[..file.len() - 1], &damaged, b"kind: role\n"] {
        let refused = to.restore(bad, true).await.unwrap_err();
        assert!(matches!(refused, RestoreError::Backup(_)), "{refused}");
    }
    let stranger = Site::<Sqlite>::of("other.test").await;
    let refused = stranger.restore(&file, true).await.unwrap_err();
    assert!(matches!(refused, RestoreError::Cluster { .. }), "{refused}");
    for site in [to, stranger] {
        assert_eq!(entries(site.store.as_ref()).await, []);
        let left = std::fs::read_dir(site.folder.path()).unwrap();
        let files = left.filter(|file| {
            let name = file.as_ref().unwrap().file_name();
            name.to_string_lossy().starts_with("restore-")
        });
        assert_eq!(files.count(), 0);
    }
}

#[tokio::test]
async fn what_has_ended_since_is_not_restored() {
    let from = Site::<Sqlite>::new().await;
    from.put_leased("/tokens/hour", Duration::from_hours(1))
        .await;
    from.put("/users/alice", "hash").await;
    let file = from.backup().await;
    let to = Site::<Sqlite>::new().await;
    let parts = BackupParts {
        clock: Arc::new(ManualClock::new(
            start().checked_add(Duration::from_hours(2)).unwrap(),
        )),
        ..to.backups.parts.clone()
    };
    let later = Site {
        backups: Backups::new(parts),
        ..to
    };
    assert_eq!(later.restore(&file, false).await.unwrap(), (2, 1, 0, 1));
}

#[tokio::test]
async fn a_restore_that_was_cut_off_says_so_and_can_be_repeated() {
    let from = used::<Sqlite>().await;
    let file = from.backup().await;
    let to = Site::<Sqlite>::new().await;
    // As a crash leaves it: begun, some of it written.
    let begun = encode(&crate::record::RestoreRecord::default());
    let txn = Txn::new().put(Bytes::from_static(b"/restore"), begun);
    to.store.commit(txn).await.unwrap();
    to.put("/databases/0001", "1").await;
    to.put("/databases/left-over", "1").await;

    let again = backups(to.store.clone(), "tidegate.test", to.folder.path());
    let again = Site {
        backups: again.await,
        ..to
    };
    assert!(again.backups.parts.restores.is_unfinished());
    let (_, written, deleted, _) = again.restore(&file, false).await.unwrap();
    assert_eq!((written, deleted), (1005, 1));
    assert!(!again.backups.parts.restores.is_unfinished());
}

#[tokio::test]
async fn every_instance_ends_once_a_restore_is_done() {
    let from = Site::<Sqlite>::new().await;
    let file = from.backup().await;
    let to = Site::<Sqlite>::new().await;
    let other = Arc::new(Restores::open(to.store.clone()).await.unwrap());
    let following = tokio::spawn(other.follow(ShutdownToken::new()));
    let own = to.backups.parts.restores.clone();
    let own = tokio::spawn(own.follow(ShutdownToken::new()));
    to.restore(&file, false).await.unwrap();
    for ended in [following, own] {
        tokio::time::timeout(PATIENCE, ended)
            .await
            .unwrap()
            .unwrap();
    }
    // One that starts later knows the state as it is.
    let later = Arc::new(Restores::open(to.store.clone()).await.unwrap());
    let going_on = tokio::time::timeout(
        Duration::from_millis(200),
        later.follow(ShutdownToken::new()),
    );
    assert!(going_on.await.is_err());
}
