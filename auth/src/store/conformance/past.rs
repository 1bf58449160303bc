//! Reading keys as they were, and how long they will be.

use std::collections::BTreeMap;

use super::{Arc, Factory, HISTORY, PATIENCE, RangeQuery, Store, Txn, key, put, revision};
use crate::store::PastError;

type Keys = BTreeMap<String, String>;

/// All keys at a revision, read a few at a time.
async fn at(store: &Arc<dyn Store>, prefix: &str, revision: u64) -> Result<Keys, PastError> {
    let mut query = RangeQuery {
        limit: 3,
        ..RangeQuery::prefix(key(prefix))
    };
    let mut keys = Keys::new();
    loop {
        let page = store.range_at(query.clone(), revision).await?;
        assert_eq!(page.revision, revision);
        assert!(page.entries.len() <= query.limit);
        query.after = page.entries.last().map(|entry| entry.key.clone());
        for entry in page.entries {
            assert!(entry.modified <= revision);
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let twice = keys.insert(text(&entry.key), text(&entry.value));
            assert_eq!(twice, None);
        }
        if !page.more {
            return Ok(keys);
        }
        assert!(
            query.after.is_some(),
            "a page with more after it is not empty"
        );
    }
}

pub(crate) async fn a_range_of_the_past_shows_what_was_there<F: Factory>() {
    let factory = F::new(HISTORY);
    let store = factory.open().await;
    let mut model = Keys::new();
    let mut states = vec![(revision(&store).await, model.clone())];
    // Keys come, change, go and come again, at changing places of the order.
    for step in 0..40_usize {
        let (made, gone) = ((step * 7) % 11, (step * 5) % 13);
        let mut txn = put(&format!("/a/{made:02}"), &step.to_string());
        model.insert(format!("/a/{made:02}"), step.to_string());
        if gone != made {
            txn = txn.delete(key(&format!("/a/{gone:02}")));
            model.remove(&format!("/a/{gone:02}"));
        }
        states.push((store.commit(txn).await.unwrap(), model.clone()));
    }
    for (revision, state) in &states {
        assert_eq!(at(&store, "/a/", *revision).await.unwrap(), *state);
    }
    drop(store);
    let store = factory.open().await;
    for (revision, state) in &states {
        let mut under: Keys = state.clone();
        under.retain(|name, _| name.starts_with("/a/0"));
        assert_eq!(at(&store, "/a/0", *revision).await.unwrap(), under);
    }
}

pub(crate) async fn neither_lost_history_nor_the_future_can_be_read<F: Factory>() {
    const KEPT: u64 = 10;
    let factory = F::new(KEPT);
    let store = factory.open().await;
    let first = store.commit(put("/a", "0")).await.unwrap();
    let ahead = at(&store, "/", first + 1000).await.unwrap_err();
    assert!(matches!(ahead, PastError::Future { .. }), "{ahead}");
    let wait = async {
        // etcd's history is given up by a task of its own, after a change.
        for step in 0.. {
            store.commit(put("/a", &step.to_string())).await.unwrap();
            match at(&store, "/", first).await {
                Ok(_) => {}
                Err(PastError::Compacted { .. }) => return,
                Err(other) => panic!("{other}"),
            }
        }
    };
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    waited.expect("history must go");
    let now = revision(&store).await;
    assert_eq!(at(&store, "/", now).await.unwrap().len(), 1);
    let txn = Txn::new().delete(key("/a"));
    store.commit(txn).await.unwrap();
    assert_eq!(at(&store, "/", now).await.unwrap().len(), 1);
}

pub(crate) async fn a_lease_tells_how_long_it_lives<F: Factory>() {
    let factory = F::new(HISTORY);
    let store = factory.open().await;
    let lease = store.grant(F::LEASE).await.unwrap();
    let left = store.time_left(lease).await.unwrap().unwrap();
    assert!(left <= F::LEASE && left >= F::LEASE / 2, "{left:?}");
    store.revoke(lease).await.unwrap();
    assert_eq!(store.time_left(lease).await.unwrap(), None);
}
