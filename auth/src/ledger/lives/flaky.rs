//! A store that fails when it is told to, before or after it wrote.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture};

use crate::store::{
    CommitError, Entry, LeaseError, LeaseId, PastError, Range, RangeQuery, Store, StoreUnavailable,
    Txn, Watch, WatchError,
};

/// A commit that fails.
#[derive(Clone, Copy, Debug)]
pub(in crate::ledger) struct Failure {
    /// Commits that succeed before.
    pub(in crate::ledger) after: u8,
    /// Whether it is written all the same, and only the answer is lost.
    pub(in crate::ledger) written: bool,
}

pub(super) struct Flaky {
    pub(super) store: Arc<dyn Store>,
    pub(super) failure: Mutex<Option<Failure>>,
}

impl Flaky {
    /// The failure of this commit, if it is the one.
    fn fails(&self) -> Option<Failure> {
        let mut failure = self.failure.lock().unwrap();
        match &mut *failure {
            Some(waiting) if waiting.after > 0 => {
                waiting.after -= 1;
                None
            }
            waiting => waiting.take(),
        }
    }
}

impl Store for Flaky {
    fn get(&self, key: Bytes) -> BoxFuture<'_, Result<Option<Entry>, StoreUnavailable>> {
        self.store.get(key)
    }

    fn range(&self, query: RangeQuery) -> BoxFuture<'_, Result<Range, StoreUnavailable>> {
        self.store.range(query)
    }

    fn range_at(
        &self,
        query: RangeQuery,
        revision: u64,
    ) -> BoxFuture<'_, Result<Range, PastError>> {
        self.store.range_at(query, revision)
    }

    fn commit(&self, txn: Txn) -> BoxFuture<'_, Result<u64, CommitError>> {
        let Some(failure) = self.fails() else {
            return self.store.commit(txn);
        };
        async move {
            if failure.written {
                self.store.commit(txn).await?;
            }
            let unavailable = StoreUnavailable {
                action: "write",
                source: "as the test wants it".into(),
            };
            Err(unavailable.into())
        }
        .boxed()
    }

    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId, StoreUnavailable>> {
        self.store.grant(ttl)
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), LeaseError>> {
        self.store.keep_alive(lease)
    }

    fn time_left(
        &self,
        lease: LeaseId,
    ) -> BoxFuture<'_, Result<Option<Duration>, StoreUnavailable>> {
        self.store.time_left(lease)
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreUnavailable>> {
        self.store.revoke(lease)
    }

    fn watch(&self, prefix: Bytes, after: u64) -> BoxFuture<'_, Result<Watch, WatchError>> {
        self.store.watch(prefix, after)
    }
}
