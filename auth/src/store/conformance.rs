//! What every store must do, as tests that run against any of them.
//!
//! [`conformance!`] makes one test of each rule for a [`Factory`].

mod past;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, future::BoxFuture};

use super::{
    Batch, CommitError, LeaseError, RangeQuery, Store, TXN_OPS_MAX, Txn, Watch, WatchError, Watched,
};

pub(crate) use past::{
    a_lease_tells_how_long_it_lives, a_range_of_the_past_shows_what_was_there,
    neither_lost_history_nor_the_future_can_be_read,
};

/// Makes one store, opens it again, and moves its time.
pub(crate) trait Factory: Sized + Send + Sync {
    /// How long leases are made to live; short where time cannot be moved, only waited for.
    const LEASE: Duration = Duration::from_secs(30);

    /// A place for a new store that keeps this many revisions of history at least.
    fn new(history_revisions_min: u64) -> Self;
    /// Opens the store in its place; what was open before is closed first.
    fn open(&self) -> BoxFuture<'_, Arc<dyn Store>>;
    /// Lets time pass, and what is due happen.
    fn advance(&self, by: Duration) -> BoxFuture<'_, ()>;
}

const HISTORY: u64 = 1000;
/// How long what happens by itself may take to be seen.
const PATIENCE: Duration = Duration::from_secs(10);

fn key(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put(name: &str, value: &str) -> Txn {
    Txn::new().put(key(name), key(value))
}

async fn next(watch: &mut Watch) -> Watched {
    tokio::time::timeout(PATIENCE, watch.next())
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

/// The store's revision.
async fn revision(store: &Arc<dyn Store>) -> u64 {
    let range = store.range(RangeQuery::prefix("")).await.unwrap();
    range.revision
}

/// Waits until there is no such key.
async fn gone(store: &Arc<dyn Store>, name: &str) {
    let wait = async {
        while store.get(key(name)).await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .expect("the key must go");
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

pub(crate) async fn each_change_raises_the_one_revision<F: Factory>() {
    let factory = F::new(HISTORY);
    let store = factory.open().await;
    let base = revision(&store).await;
    assert_eq!(store.commit(put("/a", "1")).await.unwrap(), base + 1);
    assert_eq!(store.commit(put("/b", "1")).await.unwrap(), base + 2);
    let both = Txn::new().put(key("/a"), key("2")).delete(key("/b"));
    assert_eq!(store.commit(both).await.unwrap(), base + 3);

    let entry = store.get(key("/a")).await.unwrap().unwrap();
    assert_eq!((entry.created, entry.modified), (base + 1, base + 3));
    assert_eq!(store.get(key("/b")).await.unwrap(), None);
    let range = store.range(RangeQuery::prefix("/")).await.unwrap();
    assert_eq!((range.revision, range.entries), (base + 3, vec![entry]));
}

pub(crate) async fn what_changes_nothing_raises_nothing<F: Factory>() {
    let factory = F::new(HISTORY);
    let store = factory.open().await;
    let base = revision(&store).await;
    let nothing = Txn::new().delete(key("/none"));
    assert_eq!(store.commit(nothing).await.unwrap(), base);
    assert_eq!(store.commit(Txn::new()).await.unwrap(), base);
    let looked = Txn::new().absent(key("/none"));
    assert_eq!(store.commit(looked).await.unwrap(), base);
    assert_eq!(revision(&store).await, base);
}

pub(crate) async fn a_failed_guard_leaves_no_trace<F: Factory>() {
    let factory = F::new(HISTORY);
    let store = factory.open().await;
    let first = store.commit(put("/a", "1")).await.unwrap();
    let refused = [
        Txn::new().absent(key("/a")).put(key("/x"), key("1")),
        Txn::new().at(key("/a"), 999).put(key("/x"), key("1")),
        Txn::new().at(key("/a"), 0).put(key("/x"), key("1")),
        Txn::new().at(key("/none"), 1).put(key("/x"), key("1")),
        Txn::new().at(key("/none"), 0).put(key("/x"), key("1")),
    ];
    for txn in refused {
        let guarded = txn.guards[0].key().clone();
        match store.commit(txn).await.unwrap_err() {
            CommitError::Conflict { key } => assert_eq!(key, guarded),
            other => panic!("{other}"),
        }
    }
    assert_eq!(store.get(key("/x")).await.unwrap(), None);
    assert_eq!(revision(&store).await, first);
    let fitting = Txn::new()
        .at(key("/a"), first)
        .absent(key("/x"))
        .put(key("/x"), key("1"));
    assert_eq!(store.commit(fitting).await.unwrap(), first + 1);
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
    let won: Vec<u64> = outcomes.into_iter().filter_map(Result::ok).collect();
    assert_eq!(won.len(), 1);
    let entry = store.get(key("/lock")).await.unwrap().unwrap();
    assert_eq!(entry.modified, won[0]);
}

/// A transaction as large as they may be: a guard and a change for each of many keys.
fn large(revision: Option<u64>, value: &str) -> Txn {
    (0..TXN_OPS_MAX).fold(Txn::new(), |txn, index| {
        let name = key(&format!("/large/{:04}", TXN_OPS_MAX - index));
        let txn = match revision {
            Some(revision) => txn.at(name.clone(), revision),
            None => txn.absent(name.clone()),
        };
        txn.put(name, key(value))
    })
}

pub(crate) async fn the_largest_transaction_is_one_step<F: Factory>() {
    let factory = F::new(HISTORY);
    let store = factory.open().await;
    let base = revision(&store).await;
    let mut watch = store.watch(key("/"), base).await.unwrap();
    let txn = large(None, "1");
    let order: Vec<Bytes> = txn.ops.iter().map(|op| op.key().clone()).collect();
    let made = store.commit(txn).await.unwrap();
    assert_eq!(made, base + 1);
    let batch = next_batch(&mut watch).await;
    let given: Vec<Bytes> = batch.changes.into_iter().map(|change| change.key).collect();
    assert_eq!((batch.revision, given), (made, order));

    let touched = "/large/0700";
    let later = store.commit(put(touched, "2")).await.unwrap();
    match store.commit(large(Some(made), "3")).await.unwrap_err() {
        CommitError::Conflict { key } => assert_eq!(key, touched),
        other => panic!("{other}"),
    }
    assert_eq!(revision(&store).await, later);
    let entry = store.get(key("/large/0001")).await.unwrap().unwrap();
    assert_eq!(entry.value, "1");

    let longer = large(None, "4").put(key("/one/more"), key("4"));
    let refused = store.commit(longer).await.unwrap_err();
    assert!(matches!(refused, CommitError::TooLarge { .. }), "{refused}");
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
    let base = revision(&store).await;
    for name in ["/b/2", "/a/1", "/b/1", "/b/3", "/c"] {
        store.commit(put(name, name)).await.unwrap();
    }
    let mut query = RangeQuery::prefix("/b/");
    query.limit = 2;
    let first = store.range(query.clone()).await.unwrap();
    let keys: Vec<_> = first.entries.iter().map(|entry| &entry.key[..]).collect();
    assert_eq!(keys, [b"/b/1", b"/b/2"]);
    assert!(first.more && first.revision == base + 5);

    query.after = Some(first.entries[1].key.clone());
    let second = store.range(query).await.unwrap();
    assert_eq!(second.entries[0].key, key("/b/3"));
    assert!(!second.more && second.entries.len() == 1);
    let all = store.range(RangeQuery::prefix("")).await.unwrap();
    assert_eq!(all.entries.len(), 5);
}

/// Large enough that few of them fit one transaction, and few transactions one answer.
const LARGE_VALUE_BYTES: usize = 300_000;

pub(crate) async fn large_values_come_back_whole<F: Factory>() {
    const VALUES: usize = 100;
    let factory = F::new(HISTORY);
    let store = factory.open().await;
    let base = revision(&store).await;
    for index in 0..VALUES / 4 {
        let txn = (0..4).fold(Txn::new(), |txn, part| {
            let name = key(&format!("/{:03}", index * 4 + part));
            txn.put(name, vec![part as u8; LARGE_VALUE_BYTES].into())
        });
        store.commit(txn).await.unwrap();
    }
    let mut query = RangeQuery::prefix("/");
    let mut found = Vec::new();
    loop {
        let page = store.range(query.clone()).await.unwrap();
        query.after = page.entries.last().map(|entry| entry.key.clone());
        found.extend(page.entries);
        if !page.more {
            break;
        }
    }
    assert_eq!(found.len(), VALUES);
    let is_whole = |value: &Bytes| value.len() == LARGE_VALUE_BYTES;
    assert!(found.iter().all(|entry| is_whole(&entry.value)));

    let mut watch = store.watch(key("/"), base).await.unwrap();
    for _ in 0..VALUES / 4 {
        let batch = next_batch(&mut watch).await;
        let values = batch
            .changes
            .iter()
            .filter_map(|change| change.current.as_ref());
        assert_eq!(values.filter(|entry| is_whole(&entry.value)).count(), 4);
    }
}

pub(crate) async fn a_watch_gives_history_then_what_is_new<F: Factory>() {
    let factory = F::new(HISTORY);
    let store = factory.open().await;
    let first = store.commit(put("/a", "1")).await.unwrap();
    let second = store.commit(put("/a", "2")).await.unwrap();
    let third = store.commit(put("/other", "1")).await.unwrap();
    let mut watch = store.watch(key("/a"), first).await.unwrap();
    let Watched::Batch(batch) = next(&mut watch).await else {
        panic!("history comes first")
    };
    let one = Some("1".to_owned());
    let two = Some("2".to_owned());
    assert_eq!(
        shape(&batch),
        (second, vec![("/a".to_owned(), two.clone(), one)])
    );
    assert_eq!(next(&mut watch).await, Watched::CaughtUp(third));

    store.commit(put("/other", "2")).await.unwrap();
    let deletion = Txn::new().delete(key("/a"));
    let gone = store.commit(deletion).await.unwrap();
    let batch = next_batch(&mut watch).await;
    assert_eq!(shape(&batch), (gone, vec![("/a".to_owned(), None, two)]));
    let again = store.commit(put("/a", "3")).await.unwrap();
    let batch = next_batch(&mut watch).await;
    let three = Some("3".to_owned());
    assert_eq!(shape(&batch), (again, vec![("/a".to_owned(), three, None)]));
}

pub(crate) async fn a_watch_from_now_is_caught_up_at_once<F: Factory>() {
    let factory = F::new(HISTORY);
    let store = factory.open().await;
    let written = store.commit(put("/a", "1")).await.unwrap();
    let mut watch = store.watch(key("/"), written).await.unwrap();
    assert_eq!(next(&mut watch).await, Watched::CaughtUp(written));
    let later = store.commit(put("/a", "2")).await.unwrap();
    assert_eq!(next_batch(&mut watch).await.revision, later);
}

pub(crate) async fn a_watch_misses_nothing_while_others_write<F: Factory>() {
    const WRITES: u64 = 300;
    let factory = F::new(HISTORY);
    let store = factory.open().await;
    let base = revision(&store).await;
    let number = |value: &Bytes| -> u64 { std::str::from_utf8(value).unwrap().parse().unwrap() };
    let writes = async {
        for index in 1..=WRITES {
            store.commit(put("/a", &index.to_string())).await.unwrap();
        }
    };
    let reads = async {
        for round in 0..5 {
            let (mut seen, mut seen_number) = loop {
                let entry = store.get(key("/a")).await.unwrap();
                let now = entry.map_or((base, 0), |entry| (entry.modified, number(&entry.value)));
                if now.1 >= round * 10 {
                    break now;
                }
                tokio::task::yield_now().await;
            };
            let mut watch = store.watch(key(""), seen).await.unwrap();
            while seen_number < WRITES {
                let batch = next_batch(&mut watch).await;
                let change = &batch.changes[0];
                let before = change
                    .previous
                    .as_ref()
                    .map_or(base, |entry| entry.modified);
                assert_eq!(before, seen);
                seen = batch.revision;
                seen_number = number(&change.current.as_ref().unwrap().value);
            }
        }
    };
    futures::join!(writes, reads);
}

pub(crate) async fn a_watch_resumes_over_a_restart<F: Factory>() {
    let factory = F::new(HISTORY);
    let store = factory.open().await;
    let mut written = Vec::new();
    for value in ["1", "2", "3"] {
        written.push(store.commit(put("/a", value)).await.unwrap());
    }
    drop(store);
    let store = factory.open().await;
    let mut watch = store.watch(key("/"), written[0]).await.unwrap();
    assert_eq!(next_batch(&mut watch).await.revision, written[1]);
    assert_eq!(next_batch(&mut watch).await.revision, written[2]);
    let later = store.commit(put("/a", "4")).await.unwrap();
    assert!(later > written[2]);
    assert_eq!(next_batch(&mut watch).await.revision, later);
}

pub(crate) async fn a_watch_from_lost_history_is_refused<F: Factory>() {
    let factory = F::new(10);
    let store = factory.open().await;
    let mut written = Vec::new();
    for index in 0..100 {
        written.push(store.commit(put("/a", &index.to_string())).await.unwrap());
    }
    let refused = async {
        loop {
            match store.watch(key("/"), written[0]).await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(refused) => return refused,
            }
        }
    };
    let refused = tokio::time::timeout(PATIENCE, refused)
        .await
        .expect("history must go");
    assert!(matches!(refused, WatchError::Compacted { compacted } if compacted > written[0]));
    let mut watch = store.watch(key("/"), written[89]).await.unwrap();
    assert_eq!(next_batch(&mut watch).await.revision, written[90]);
    let last = written[99];
    let ahead = store.watch(key("/"), last + 1000).await.err().unwrap();
    assert!(matches!(ahead, WatchError::Ahead { current, .. } if current >= last));
}

pub(crate) async fn a_lease_takes_its_keys_with_it_at_once<F: Factory>() {
    let factory = F::new(HISTORY);
    let store = factory.open().await;
    let lease = store.grant(F::LEASE).await.unwrap();
    for name in ["/a", "/b"] {
        let txn = Txn::new().put_with(key(name), key("1"), Some(lease));
        store.commit(txn).await.unwrap();
    }
    let last = store.commit(put("/c", "1")).await.unwrap();
    let mut watch = store.watch(key("/"), last).await.unwrap();
    let entry = store.get(key("/a")).await.unwrap().unwrap();
    assert_eq!(entry.lease, Some(lease));

    factory.advance(F::LEASE * 2 / 3).await;
    store.keep_alive(lease).await.unwrap();
    factory.advance(F::LEASE * 2 / 3).await;
    assert!(store.get(key("/a")).await.unwrap().is_some());
    factory.advance(F::LEASE * 2 / 3).await;

    let gone = next_batch(&mut watch).await;
    assert_eq!((gone.revision, gone.changes.len()), (last + 1, 2));
    let previous = gone.changes[0].previous.as_ref().unwrap();
    assert_eq!((&previous.key, previous.lease), (&key("/a"), Some(lease)));
    assert!(store.get(key("/c")).await.unwrap().is_some());
    assert!(matches!(
        store.keep_alive(lease).await,
        Err(LeaseError::Gone(_))
    ));
    let late = Txn::new().put_with(key("/a"), key("1"), Some(lease));
    let refused = store.commit(late).await.unwrap_err();
    assert!(
        matches!(refused, CommitError::LeaseGone { lease: gone } if gone == lease),
        "{refused}"
    );
}

pub(crate) async fn of_two_leases_the_one_that_is_gone_is_named<F: Factory>() {
    let factory = F::new(HISTORY);
    let store = factory.open().await;
    let [kept, ended] = [store.grant(F::LEASE).await, store.grant(F::LEASE).await];
    let (kept, ended) = (kept.unwrap(), ended.unwrap());
    store.revoke(ended).await.unwrap();
    let txn = Txn::new()
        .put_with(key("/a"), key("1"), Some(kept))
        .put_with(key("/b"), key("1"), Some(ended));
    let refused = store.commit(txn).await.unwrap_err();
    assert!(
        matches!(refused, CommitError::LeaseGone { lease } if lease == ended),
        "{refused}"
    );
    assert_eq!(store.get(key("/a")).await.unwrap(), None);
}

pub(crate) async fn many_leases_are_kept_at_once<F: Factory>() {
    let factory = F::new(HISTORY);
    let store = factory.open().await;
    let grants = (0..50).map(|_| store.grant(F::LEASE));
    let leases = futures::future::try_join_all(grants).await.unwrap();
    let ended = leases[25];
    store.revoke(ended).await.unwrap();
    let kept = leases.iter().map(|lease| store.keep_alive(*lease));
    for (lease, kept) in leases.iter().zip(futures::future::join_all(kept).await) {
        match kept {
            Ok(()) => assert_ne!(*lease, ended),
            Err(LeaseError::Gone(gone)) => assert_eq!((*lease, gone), (ended, ended)),
            Err(other) => panic!("{other}"),
        }
    }
}

pub(crate) async fn a_key_written_again_without_its_lease_stays<F: Factory>() {
    let factory = F::new(HISTORY);
    let store = factory.open().await;
    let lease = store.grant(F::LEASE).await.unwrap();
    let leased = Txn::new().put_with(key("/a"), key("1"), Some(lease));
    store.commit(leased).await.unwrap();
    store.commit(put("/a", "2")).await.unwrap();
    store.revoke(lease).await.unwrap();
    let entry = store.get(key("/a")).await.unwrap().unwrap();
    assert_eq!(entry.lease, None);
}

pub(crate) async fn a_revoked_lease_ends_at_once<F: Factory>() {
    let factory = F::new(HISTORY);
    let store = factory.open().await;
    let lease = store.grant(F::LEASE).await.unwrap();
    let leased = Txn::new().put_with(key("/a"), key("1"), Some(lease));
    store.commit(leased).await.unwrap();
    store.revoke(lease).await.unwrap();
    assert_eq!(store.get(key("/a")).await.unwrap(), None);
    let gone = store.keep_alive(lease).await;
    assert!(matches!(gone, Err(LeaseError::Gone(_))));
    store.revoke(lease).await.unwrap();
}

pub(crate) async fn after_a_restart_a_lease_has_its_full_time<F: Factory>() {
    let factory = F::new(HISTORY);
    let store = factory.open().await;
    let lease = store.grant(F::LEASE).await.unwrap();
    let leased = Txn::new().put_with(key("/a"), key("1"), Some(lease));
    store.commit(leased).await.unwrap();
    factory.advance(F::LEASE * 2 / 3).await;
    drop(store);

    let store = factory.open().await;
    factory.advance(F::LEASE * 2 / 3).await;
    assert!(store.get(key("/a")).await.unwrap().is_some());
    store.keep_alive(lease).await.unwrap();
    factory.advance(F::LEASE + Duration::from_secs(1)).await;
    gone(&store, "/a").await;
}

/// One test of each rule.
macro_rules! conformance {
    ($factory:ty) => {
        $crate::store::conformance::conformance!($factory:
            each_change_raises_the_one_revision,
            what_changes_nothing_raises_nothing,
            a_failed_guard_leaves_no_trace,
            of_many_that_claim_one_key_one_wins,
            the_largest_transaction_is_one_step,
            one_key_cannot_change_twice_in_a_transaction,
            ranges_are_ordered_bounded_and_resumable,
            large_values_come_back_whole,
            a_range_of_the_past_shows_what_was_there,
            neither_lost_history_nor_the_future_can_be_read,
            a_watch_gives_history_then_what_is_new,
            a_watch_from_now_is_caught_up_at_once,
            a_watch_misses_nothing_while_others_write,
            a_watch_resumes_over_a_restart,
            a_watch_from_lost_history_is_refused,
            a_lease_takes_its_keys_with_it_at_once,
            of_two_leases_the_one_that_is_gone_is_named,
            many_leases_are_kept_at_once,
            a_key_written_again_without_its_lease_stays,
            a_revoked_lease_ends_at_once,
            a_lease_tells_how_long_it_lives,
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
