use tempfile::TempDir;
use tidegate_core::LockTarget;
use tidegate_service::clock::ManualClock;
use tokio::time::{Instant, timeout};

use super::*;
use crate::{
    record::encode,
    store::{
        Txn,
        sqlite::{SqliteOptions, SqliteStore},
    },
};

/// Longest time until another instance knows of a lock.
const KNOWN_WITHIN: Duration = Duration::from_secs(2);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn lock(name: &str, expires: Option<i64>) -> Lock {
    Lock {
        name: name.to_owned(),
        target: LockTarget {
            user: Some("alice".to_owned()),
            ..LockTarget::default()
        },
        message: String::new(),
        created: at(0),
        expires: expires.map(at),
        created_by: String::new(),
    }
}

/// A store and instances over it.
struct Cluster {
    _directory: TempDir,
    store: Arc<SqliteStore>,
    clock: ManualClock,
    shutdown: ShutdownToken,
}

impl Cluster {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(directory.path(), SqliteOptions::default()).unwrap();
        Self {
            _directory: directory,
            store,
            clock: ManualClock::new(at(100)),
            shutdown: ShutdownToken::new(),
        }
    }

    async fn instance(&self) -> Arc<Locks> {
        let locks = Locks::open(self.store.clone(), Arc::new(self.clock.clone()));
        let locks = Arc::new(locks.await.unwrap());
        tokio::spawn(locks.clone().follow(self.shutdown.clone()));
        locks
    }

    async fn put(&self, lock: Lock) {
        let key = keys::lock(&lock.name);
        let record = encode(&v1::Lock::from(lock));
        let txn = Txn::new().put(key, record);
        self.store.commit(txn).await.unwrap();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn names(known: &Known, now: Timestamp) -> Vec<String> {
    let messages = known.messages(now);
    messages.into_iter().map(|lock| lock.name).collect()
}

async fn comes_to(locks: &Locks, now: Timestamp, expected: &[&str]) {
    let mut watch = locks.watch();
    let reached = watch.wait_for(|known| names(known, now) == expected);
    assert!(
        timeout(KNOWN_WITHIN, reached).await.is_ok(),
        "{:?} instead of {expected:?}",
        names(&locks.known(), now)
    );
}

#[tokio::test]
async fn instances_over_one_store_know_each_others_locks() {
    let cluster = Cluster::new();
    cluster.put(lock("before", None)).await;
    let (one, other) = (cluster.instance().await, cluster.instance().await);
    let facts = LockFacts {
        user: Some("alice"),
        ..LockFacts::default()
    };
    assert!(one.struck(facts).is_some());
    cluster.put(lock("later", None)).await;
    comes_to(&one, at(100), &["before", "later"]).await;
    comes_to(&other, at(100), &["before", "later"]).await;
    let gone = Txn::new()
        .delete(keys::lock("before"))
        .delete(keys::lock("later"));
    cluster.store.commit(gone).await.unwrap();
    comes_to(&other, at(100), &[]).await;
    assert!(other.struck(facts).is_none());
}

#[tokio::test]
async fn watchers_are_told_when_a_lock_ends() {
    let cluster = Cluster::new();
    cluster.put(lock("short", Some(160))).await;
    let locks = cluster.instance().await;
    comes_to(&locks, at(100), &["short"]).await;
    let mut watch = locks.watch();
    watch.mark_unchanged();
    cluster.clock.advance(Duration::from_secs(61));
    timeout(KNOWN_WITHIN, watch.changed())
        .await
        .unwrap()
        .unwrap();
    assert!(names(&watch.borrow(), at(161)).is_empty());
}

#[tokio::test(start_paused = true)]
async fn watchers_are_told_at_least_once_a_minute() {
    let cluster = Cluster::new();
    let locks = cluster.instance().await;
    let mut watch = locks.watch();
    for _ in 0..3 {
        let before = Instant::now();
        watch.changed().await.unwrap();
        assert!(before.elapsed() <= Duration::from_secs(60));
    }
}

#[tokio::test]
async fn a_reading_never_takes_the_place_of_a_later_one() {
    let cluster = Cluster::new();
    cluster.put(lock("kept", None)).await;
    let locks = Locks::open(cluster.store.clone(), Arc::new(cluster.clock.clone()));
    let locks = locks.await.unwrap();
    let later = Known {
        revision: u64::MAX,
        ..Known::of([lock("of-later", None)])
    };
    locks.known.send_replace(Arc::new(later));
    locks.read().await.unwrap();
    assert_eq!(names(&locks.known(), at(100)), ["of-later"]);
}

#[test]
fn a_lock_tells_its_message_and_its_end() {
    assert_eq!(told(&lock("l", None)), "locked by an administrator");
    let lock = Lock {
        message: "left the company".to_owned(),
        ..lock("l", Some(86_400))
    };
    assert_eq!(
        told(&lock),
        "locked: left the company (until 1970-01-02T00:00:00Z)"
    );
}
