//! A store that is waited for so long and no longer.
//!
//! A disk that hangs, or a member that takes requests and is silent, would otherwise hold every request that needs the
//! state for as long as its caller waits. An answer that comes after its time is nobody's: a commit may have been carried
//! out all the same, as [`CommitError::Unavailable`] says.
//!
//! Not here: a watch's silence, which is no fault; each store finds by itself when its own has ended.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture};
use tokio::time::timeout;

use super::{
    CommitError, Entry, LeaseError, LeaseId, PastError, Range, RangeQuery, Store, StoreUnavailable,
    Txn, Watch, WatchError,
};

/// How long an answer may take. Longer than etcd may take for a read and its repetitions at other members; shorter than
/// what callers wait.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Waits for a store, within [`ANSWER_TIMEOUT`].
pub(crate) struct Patient(Arc<dyn Store>);

impl Patient {
    /// Waits for this one.
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self(store)
    }
}

/// No answer in time.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {} s", ANSWER_TIMEOUT.as_secs())]
struct Silent;

async fn within<T, E: From<StoreUnavailable>>(
    action: &'static str,
    answer: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    timeout(ANSWER_TIMEOUT, answer).await.unwrap_or_else(|_| {
        let source = Box::new(Silent);
        Err(StoreUnavailable { action, source }.into())
    })
}

impl Store for Patient {
    fn get(&self, key: Bytes) -> BoxFuture<'_, Result<Option<Entry>, StoreUnavailable>> {
        within("read", self.0.get(key)).boxed()
    }

    fn range(&self, query: RangeQuery) -> BoxFuture<'_, Result<Range, StoreUnavailable>> {
        within("read", self.0.range(query)).boxed()
    }

    fn range_at(
        &self,
        query: RangeQuery,
        revision: u64,
    ) -> BoxFuture<'_, Result<Range, PastError>> {
        within("read", self.0.range_at(query, revision)).boxed()
    }

    fn commit(&self, txn: Txn) -> BoxFuture<'_, Result<u64, CommitError>> {
        within("write", self.0.commit(txn)).boxed()
    }

    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId, StoreUnavailable>> {
        within("write", self.0.grant(ttl)).boxed()
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), LeaseError>> {
        within("write", self.0.keep_alive(lease)).boxed()
    }

    fn time_left(
        &self,
        lease: LeaseId,
    ) -> BoxFuture<'_, Result<Option<Duration>, StoreUnavailable>> {
        within("read", self.0.time_left(lease)).boxed()
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreUnavailable>> {
        within("write", self.0.revoke(lease)).boxed()
    }

    fn watch(&self, prefix: Bytes, after: u64) -> BoxFuture<'_, Result<Watch, WatchError>> {
        within("watch", self.0.watch(prefix, after)).boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::store::{conformance::Factory as _, sqlite::tests::Sqlite};

    /// Never answers while it hangs.
    struct Hanging {
        store: Arc<dyn Store>,
        hangs: AtomicBool,
    }

    impl Hanging {
        async fn wait(&self) {
            if self.hangs.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
        }
    }

    impl Store for Hanging {
        fn get(&self, key: Bytes) -> BoxFuture<'_, Result<Option<Entry>, StoreUnavailable>> {
            async move {
                self.wait().await;
                self.store.get(key).await
            }
            .boxed()
        }

        fn range(&self, query: RangeQuery) -> BoxFuture<'_, Result<Range, StoreUnavailable>> {
            async move {
                self.wait().await;
                self.store.range(query).await
            }
            .boxed()
        }

        fn range_at(
            &self,
            query: RangeQuery,
            revision: u64,
        ) -> BoxFuture<'_, Result<Range, PastError>> {
            async move {
                self.wait().await;
                self.store.range_at(query, revision).await
            }
            .boxed()
        }

        fn commit(&self, txn: Txn) -> BoxFuture<'_, Result<u64, CommitError>> {
            async move {
                self.wait().await;
                self.store.commit(txn).await
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

    fn key(name: &'static str) -> Bytes {
        Bytes::from_static(name.as_bytes())
    }

    #[tokio::test]
    async fn a_store_that_never_answers_is_unavailable_in_time_and_used_again_when_it_answers() {
        let factory = Sqlite::new(1000);
        let hanging = Arc::new(Hanging {
            store: factory.open().await,
            hangs: AtomicBool::new(true),
        });
        let patient = Patient::new(hanging.clone());
        let put = |value: &'static str| Txn::new().put(key("/a"), key(value));

        tokio::time::pause();
        let read = patient.get(key("/a")).await.unwrap_err();
        assert_eq!(read.action, "read");
        let paged = patient.range(RangeQuery::prefix("/")).await;
        assert!(paged.is_err());
        let written = patient.commit(put("lost")).await.unwrap_err();
        assert!(matches!(written, CommitError::Unavailable(_)), "{written}");
        tokio::time::resume();

        hanging.hangs.store(false, Ordering::Relaxed);
        assert_eq!(patient.get(key("/a")).await.unwrap(), None);
        patient.commit(put("1")).await.unwrap();
        let entry = patient.get(key("/a")).await.unwrap().unwrap();
        assert_eq!(entry.value, "1");
    }
}
