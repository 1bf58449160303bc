//! What every store must do, as tests that run against any of them.
//!
//! [`conformance!`] makes one test of each rule for a [`Factory`].

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, future::BoxFuture};

use super::{Batch, CommitError, LeaseError, RangeQuery, Store, Txn, Watch, WatchError, Watched};

/// Makes one store, opens it again, and moves its time.
pub(crate) trait Factory: Sized + Send + Sync {
    /// A place for a new store that keeps this many revisions of history at least.
    fn new(history_revisions_min: u64) -> Self;
    /// Opens the store in its place; what was open before is closed first.
    fn open(&self) -> BoxFuture<'_, Arc<dyn Store>>;
    /// Lets time pass, and what is due happen.
    fn advance(&self, by: Duration) -> BoxFuture<'_, ()>;
}

const HISTORY: u64 = 1000;

fn key(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put(name: &str, value: &str) -> Txn {
    Txn::new().put(key(name), key(value))
}

async fn next(watch: &mut Watch) -> Watched {
    tokio::time::timeout(Duration::from_secs(10), watch.next())
        .await
        .expect("a watch must not hang")
        .expect("a watch must not end")
        .expect("a watch must not fail")
}

async fn next_batch(watch: &mut Watch) -> Batch {
    loop {
        if let Watched::Batch(batch) = next(watch).await {
            return batch;
        }
    }
}

/// Key, value now, value before.
type Shape = (String, Option<String>, Option<String>);

fn shape(batch: &Batch) -> (u64, Vec<Shape>) {
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let changes = batch
        .changes
        .iter()
        .map(|change| {
            (
                text(&change.key),
                change.current.as_ref().map(|entry| text(&entry.value)),
                change.previous.as_ref().map(|entry| text(&entry.value)),
            )
        })
        .collect();
    (batch.revision, changes)
}

pub(crate) async fn each_change_raises_the_one_revision_by_one<F: Factory>() {
    let factory = F::new(HISTORY);
    let store = factory.open().await;
    assert_eq!(store.commit(put("/a", "1")).await.unwrap(), 1);
    assert_eq!(store.commit(put("/b", "1")).await.unwrap(), 2);
    let both = Txn::new().put(key("/a"), key("2")).delete(key("/b"));
    assert_eq!(store.commit(both).await.unwrap(), 3);

    let entry = store.get(key("/a")).await.unwrap().unwrap();
    assert_eq!((entry.created, entry.modified), (1, 3));
    assert_eq!(store.get(key("/b")).await.unwrap(), None);
}

pub(crate) async fn what_changes_nothing_raises_nothing<F: Factory>() {
    let factory = F::new(HISTORY);
    let store = factory.open().await;
    assert_eq!(
        store.commit(Txn::new().delete(key("/none"))).await.unwrap(),
        0
    );
    assert_eq!(store.commit(Txn::new()).await.unwrap(), 0);
}

pub(crate) async fn a_failed_guard_leaves_no_trace<F: Factory>() {
    let factory = F::new(HISTORY);
    let store = factory.open().await;
    store.commit(put("/a", "1")).await.unwrap();
    let refused = [
        Txn::new().absent(key("/a")).put(key("/x"), key("1")),
        Txn::new().at(key("/a"), 9).put(key("/x"), key("1")),
        Txn::new().at(key("/none"), 1).put(key("/x"), key("1")),
    ];
    for txn in refused {
        let error = store.commit(txn).await.unwrap_err();
        assert!(matches!(error, CommitError::Conflict { .. }), "{error}");
    }
    assert_eq!(store.get(key("/x")).await.unwrap(), None);
    let fitting = Txn::new()
        .at(key("/a"), 1)
        .absent(key("/x"))
        .put(key("/x"), key("1"));
    assert_eq!(store.commit(fitting).await.unwrap(), 2);
}

pub(crate) async fn of_many_that_claim_one_key_one_wins<F: Factory>() {
    let factory = F::new(HISTORY);
    let store = factory.open().await;
    let claims = (0..50).map(|index| {
        let claim = Txn::new()
            .absent(key("/lock"))
            .put(key("/lock"), key(&index.to_string()));
        store.commit(claim)
    });
    let outcomes = futures::future::join_all(claims).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert_eq!(store.get(key("/lock")).await.unwrap().unwrap().modified, 1);
}

pub(crate) async fn one_key_cannot_change_twice_in_a_transaction<F: Factory>() {
    let factory = F::new(HISTORY);
    let store = factory.open().await;
    let twice = put("/a", "1").delete(key("/a"));
    let error = store.commit(twice).await.unwrap_err();
    assert!(matches!(error, CommitError::Duplicate { .. }), "{error}");
}

pub(crate) async fn ranges_are_ordered_bounded_and_resumable<F: Factory>() {
    let factory = F::new(HISTORY);
    let store = factory.open().await;
    for name in ["/b/2", "/a/1", "/b/1", "/b/3", "/c"] {
        store.commit(put(name, name)).await.unwrap();
    }
    let mut query = RangeQuery::prefix("/b/");
    query.limit = 2;
    let first = store.range(query.clone()).await.unwrap();
    let keys: Vec<_> = first.entries.iter().map(|entry| &entry.key[..]).collect();
    assert_eq!(keys, [b"/b/1", b"/b/2"]);
    assert!(first.more && first.revision == 5);

    query.after = Some(first.entries[1].key.clone());
    let second = store.range(query).await.unwrap();
    assert_eq!(second.entries[0].key, key("/b/3"));
    assert!(!second.more && second.entries.len() == 1);
    let all = store.range(RangeQuery::prefix("")).await.unwrap();
    assert_eq!(all.entries.len(), 5);
}

pub(crate) async fn a_watch_gives_history_then_what_is_new<F: Factory>() {
    let factory = F::new(HISTORY);
    let store = factory.open().await;
    store.commit(put("/a", "1")).await.unwrap();
    store.commit(put("/a", "2")).await.unwrap();
    store.commit(put("/other", "1")).await.unwrap();
    let mut watch = store.watch(key("/a"), 1).await.unwrap();
    let Watched::Batch(batch) = next(&mut watch).await else {
        panic!("history comes first")
    };
    let one = Some("1".to_owned());
    let two = Some("2".to_owned());
    assert_eq!(
        shape(&batch),
        (2, vec![("/a".to_owned(), two.clone(), one)])
    );
    assert_eq!(next(&mut watch).await, Watched::CaughtUp(3));

    store.commit(put("/other", "2")).await.unwrap();
    store.commit(Txn::new().delete(key("/a"))).await.unwrap();
    let batch = next_batch(&mut watch).await;
    assert_eq!(shape(&batch), (5, vec![("/a".to_owned(), None, two)]));
}

pub(crate) async fn a_watch_misses_nothing_while_others_write<F: Factory>() {
    const WRITES: u64 = 300;
    let factory = F::new(HISTORY);
    let store = factory.open().await;
    let writes = async {
        for index in 0..WRITES {
            store.commit(put("/a", &index.to_string())).await.unwrap();
        }
    };
    let reads = async {
        for round in 0..5 {
            let mut seen = round * 10;
            while store
                .get(key("/a"))
                .await
                .unwrap()
                .is_none_or(|entry| entry.modified < seen)
            {
                tokio::task::yield_now().await;
            }
            let mut watch = store.watch(key(""), seen).await.unwrap();
            while seen < WRITES {
                let batch = next_batch(&mut watch).await;
                assert_eq!(batch.revision, seen + 1);
                seen = batch.revision;
            }
        }
    };
    futures::join!(writes, reads);
}

pub(crate) async fn a_watch_resumes_over_a_restart<F: Factory>() {
    let factory = F::new(HISTORY);
    let store = factory.open().await;
    for value in ["1", "2", "3"] {
        store.commit(put("/a", value)).await.unwrap();
    }
    drop(store);
    let store = factory.open().await;
    let mut watch = store.watch(key("/"), 1).await.unwrap();
    assert_eq!(next_batch(&mut watch).await.revision, 2);
    assert_eq!(next_batch(&mut watch).await.revision, 3);
    assert_eq!(store.commit(put("/a", "4")).await.unwrap(), 4);
    assert_eq!(next_batch(&mut watch).await.revision, 4);
}

pub(crate) async fn a_watch_from_lost_history_is_refused<F: Factory>() {
    let factory = F::new(10);
    let store = factory.open().await;
    for index in 0..100 {
        store.commit(put("/a", &index.to_string())).await.unwrap();
    }
    let refused = store.watch(key("/"), 1).await.err().unwrap();
    assert!(matches!(refused, WatchError::Compacted { compacted } if compacted >= 1));
    let mut watch = store.watch(key("/"), 90).await.unwrap();
    assert_eq!(next_batch(&mut watch).await.revision, 91);
    let ahead = store.watch(key("/"), 101).await.err().unwrap();
    assert!(matches!(ahead, WatchError::Ahead { current: 100, .. }));
}

pub(crate) async fn a_lease_takes_its_keys_with_it_at_once<F: Factory>() {
    let factory = F::new(HISTORY);
    let store = factory.open().await;
    let lease = store.grant(Duration::from_secs(30)).await.unwrap();
    for name in ["/a", "/b"] {
        let txn = Txn::new().put_with(key(name), key("1"), Some(lease));
        store.commit(txn).await.unwrap();
    }
    store.commit(put("/c", "1")).await.unwrap();
    let mut watch = store.watch(key("/"), 3).await.unwrap();

    factory.advance(Duration::from_secs(29)).await;
    store.keep_alive(lease).await.unwrap();
    factory.advance(Duration::from_secs(29)).await;
    assert!(store.get(key("/a")).await.unwrap().is_some());
    factory.advance(Duration::from_secs(2)).await;

    let gone = next_batch(&mut watch).await;
    assert_eq!((gone.revision, gone.changes.len()), (4, 2));
    assert!(store.get(key("/c")).await.unwrap().is_some());
    assert!(matches!(
        store.keep_alive(lease).await,
        Err(LeaseError::Gone(_))
    ));
    let late = Txn::new().put_with(key("/a"), key("1"), Some(lease));
    let refused = store.commit(late).await.unwrap_err();
    assert!(
        matches!(refused, CommitError::LeaseGone { .. }),
        "{refused}"
    );
}

pub(crate) async fn a_key_written_again_without_its_lease_stays<F: Factory>() {
    let factory = F::new(HISTORY);
    let store = factory.open().await;
    let lease = store.grant(Duration::from_secs(30)).await.unwrap();
    let leased = Txn::new().put_with(key("/a"), key("1"), Some(lease));
    store.commit(leased).await.unwrap();
    store.commit(put("/a", "2")).await.unwrap();
    store.revoke(lease).await.unwrap();
    assert!(store.get(key("/a")).await.unwrap().is_some());
}

pub(crate) async fn a_revoked_lease_ends_at_once<F: Factory>() {
    let factory = F::new(HISTORY);
    let store = factory.open().await;
    let lease = store.grant(Duration::from_secs(30)).await.unwrap();
    let leased = Txn::new().put_with(key("/a"), key("1"), Some(lease));
    store.commit(leased).await.unwrap();
    store.revoke(lease).await.unwrap();
    assert_eq!(store.get(key("/a")).await.unwrap(), None);
    assert!(store.keep_alive(lease).await.is_err());
    store.revoke(lease).await.unwrap();
}

pub(crate) async fn after_a_restart_a_lease_has_its_full_time<F: Factory>() {
    let factory = F::new(HISTORY);
    let store = factory.open().await;
    let lease = store.grant(Duration::from_secs(30)).await.unwrap();
    let leased = Txn::new().put_with(key("/a"), key("1"), Some(lease));
    store.commit(leased).await.unwrap();
    factory.advance(Duration::from_secs(20)).await;
    drop(store);

    let store = factory.open().await;
    factory.advance(Duration::from_secs(20)).await;
    assert!(store.get(key("/a")).await.unwrap().is_some());
    store.keep_alive(lease).await.unwrap();
    factory.advance(Duration::from_secs(31)).await;
    assert_eq!(store.get(key("/a")).await.unwrap(), None);
}

/// One test of each rule.
macro_rules! conformance {
    ($factory:ty) => {
        $crate::store::conformance::conformance!($factory:
            each_change_raises_the_one_revision_by_one,
            what_changes_nothing_raises_nothing,
            a_failed_guard_leaves_no_trace,
            of_many_that_claim_one_key_one_wins,
            one_key_cannot_change_twice_in_a_transaction,
            ranges_are_ordered_bounded_and_resumable,
            a_watch_gives_history_then_what_is_new,
            a_watch_misses_nothing_while_others_write,
            a_watch_resumes_over_a_restart,
            a_watch_from_lost_history_is_refused,
            a_lease_takes_its_keys_with_it_at_once,
            a_key_written_again_without_its_lease_stays,
            a_revoked_lease_ends_at_once,
            after_a_restart_a_lease_has_its_full_time,
        );
    };
    ($factory:ty: $($rule:ident,)*) => {
        $(
            #[tokio::test]
            async fn $rule() {
                $crate::store::conformance::$rule::<$factory>().await;
            }
        )*
    };
}
pub(crate) use conformance;
