//! The store of clusters with several auth instances: etcd, over its v3 gRPC API.
//!
//! etcd itself has what the trait asks for; this translates, and keeps connections, logins, watches and leases going
//! while members come and go. All instances share the keys under one prefix and need no other coordination.
//!
//! What differs from the embedded store, as far as callers can see: revisions are those of all of etcd, so they rise
//! also when others write to it; a lease lives at etcd, so its time goes on while no instance runs, and starts anew
//! only when etcd itself elects a leader; leases have whole seconds, and at least what etcd makes its shortest.
//!
//! What a lost answer to a write means is in [`commit`]; how watches survive lost connections in [`watch`].

mod client;
mod commit;
mod compact;
mod convert;
mod dial;
mod events;
mod failure;
mod format;
mod leases;
mod namespace;
mod options;
mod pb;
mod txn;
mod watch;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture};
use tokio::sync::watch as cell;
use tonic::transport::Channel;

use super::{
    CommitError, Entry, LeaseError, LeaseId, PastError, RANGE_ENTRIES_MAX, Range, RangeQuery,
    Store, StoreUnavailable, Txn, Watch, WatchError,
};
use client::{CallError, Client, Kind};
use compact::Compactor;
use convert::{entry, entry_under, signed, unsigned};
use failure::Failure;
pub(crate) use format::OpenError;
use leases::Keeper;
use namespace::{Namespace, prefix_end, successor};
pub(crate) use options::{EtcdIdentity, EtcdLogin, EtcdOptions, EtcdTls};
use pb::etcdserverpb::{RangeRequest, RangeResponse, kv_client::KvClient};

/// Largest answer to a read; a longer page is read in parts.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The store in etcd. Closes when dropped.
pub(crate) struct EtcdStore(Arc<Inner>);

/// What the store and its watches share.
struct Inner {
    client: Arc<Client>,
    names: Namespace,
    keeper: Keeper,
    compactor: Arc<Compactor>,
    /// The highest revision that somebody was told, without a change of ours that would tell it to watches.
    wanted: cell::Sender<u64>,
}

impl EtcdStore {
    /// Finds the store under its prefix, or begins a new one. Must run inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: etcd cannot be used or reached, or what is under the prefix is not for this program.
    pub(crate) async fn open(options: EtcdOptions) -> Result<Arc<Self>, OpenError> {
        let client = Arc::new(Client::new(&options));
        let inner = Inner {
            names: Namespace::new(&options.prefix),
            keeper: Keeper::start(client.clone()),
            compactor: Arc::new(Compactor::new(options.history_revisions_min)),
            wanted: cell::Sender::new(0),
            client,
        };
        format::check(&inner).await?;
        Ok(Arc::new(Self(Arc::new(inner))))
    }

    /// Makes later calls fail, and ends watches. Leases go on until their time is over.
    pub(crate) fn close(&self) {
        self.0.client.close();
    }
}

impl Drop for EtcdStore {
    fn drop(&mut self) {
        self.close();
    }
}

fn kv(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

impl Inner {
    async fn read(&self, request: RangeRequest) -> Result<RangeResponse, CallError> {
        self.client
            .call(Kind::Read, request, |channel, request| async move {
                kv(channel).range(request).await
            })
            .await
    }

    async fn get(&self, key: Bytes) -> Result<Option<Entry>, StoreUnavailable> {
        let request = RangeRequest {
            key: self.names.data(&key),
            ..RangeRequest::default()
        };
        let range = self
            .read(request)
            .await
            .map_err(|error| error.unavailable("read"))?;
        let found = range.kvs.into_iter().next();
        Ok(found.map(|found| entry_under(key, found)))
    }

    async fn range(&self, query: RangeQuery) -> Result<Range, StoreUnavailable> {
        let read = self.pages(query, 0).await;
        let page = self.page(read.map_err(|error| error.unavailable("read"))?);
        self.told(page.revision);
        Ok(page)
    }

    async fn range_at(&self, query: RangeQuery, revision: u64) -> Result<Range, PastError> {
        // 0 would mean now, and an empty etcd is at revision 1.
        let asked = revision.max(1);
        match self.pages(query, asked).await {
            Ok(found) => Ok(Range {
                revision,
                ..self.page(found)
            }),
            Err(error) => Err(match error.failure {
                Failure::Compacted => PastError::Compacted {
                    compacted: revision + 1,
                },
                Failure::FutureRevision => PastError::Future { asked: revision },
                _ => error.unavailable("read").into(),
            }),
        }
    }

    /// Reads a page as it was at a revision; 0 is now.
    async fn pages(&self, query: RangeQuery, revision: u64) -> Result<RangeResponse, CallError> {
        let first = self.names.data(&query.prefix);
        let range_end = prefix_end(&first);
        let key = match &query.after {
            Some(after) => successor(&self.names.data(after)).max(first),
            None => first,
        };
        let mut limit = query.limit.clamp(1, RANGE_ENTRIES_MAX);
        loop {
            let request = RangeRequest {
                key: key.clone(),
                range_end: range_end.clone(),
                limit: i64::try_from(limit).unwrap_or(i64::MAX),
                revision: signed(revision),
                ..RangeRequest::default()
            };
            match self.read(request).await {
                Err(error) if error.failure == Failure::AnswerTooLong && limit > 1 => limit /= 2,
                outcome => return outcome,
            }
        }
    }

    fn page(&self, found: RangeResponse) -> Range {
        let entries = found.kvs.into_iter();
        Range {
            entries: entries.filter_map(|kv| entry(&self.names, kv)).collect(),
            revision: found.header.map_or(0, |header| unsigned(header.revision)),
            more: found.more,
        }
    }

    /// Makes watches reach a revision that somebody was told: who reads waits for its own view to show that much.
    fn told(&self, revision: u64) {
        self.wanted.send_if_modified(|wanted| {
            let is_higher = revision > *wanted;
            *wanted = revision.max(*wanted);
            is_higher
        });
    }

    /// Checks that history after a revision is there, and gives the store's own revision.
    async fn check_history(&self, after: u64) -> Result<u64, WatchError> {
        let revision_at = |revision| RangeRequest {
            key: self.names.format().clone(),
            revision,
            keys_only: true,
            ..RangeRequest::default()
        };
        let current = |range: RangeResponse| range.header.map_or(0, |h| unsigned(h.revision));
        // An empty etcd is at revision 1; 0 would mean now.
        match self.read(revision_at(signed(after.max(1)))).await {
            Ok(range) => Ok(current(range)),
            Err(error) => match error.failure {
                // What is gone goes further than that; how far is not told.
                Failure::Compacted => Err(WatchError::Compacted {
                    compacted: after + 1,
                }),
                Failure::FutureRevision => {
                    let now = self.read(revision_at(0)).await;
                    let now = now.map_err(|error| error.unavailable("watch"))?;
                    Err(WatchError::Ahead {
                        asked: after,
                        current: current(now),
                    })
                }
                _ => Err(error.unavailable("watch").into()),
            },
        }
    }
}

impl Store for EtcdStore {
    fn get(&self, key: Bytes) -> BoxFuture<'_, Result<Option<Entry>, StoreUnavailable>> {
        self.0.get(key).boxed()
    }

    fn range(&self, query: RangeQuery) -> BoxFuture<'_, Result<Range, StoreUnavailable>> {
        self.0.range(query).boxed()
    }

    fn range_at(
        &self,
        query: RangeQuery,
        revision: u64,
    ) -> BoxFuture<'_, Result<Range, PastError>> {
        async move { self.0.range_at(query, revision).await }.boxed()
    }

    fn commit(&self, txn: Txn) -> BoxFuture<'_, Result<u64, CommitError>> {
        self.0.commit(txn).boxed()
    }

    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId, StoreUnavailable>> {
        self.0.grant(ttl).boxed()
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), LeaseError>> {
        self.0.keep_alive(lease).boxed()
    }

    fn time_left(
        &self,
        lease: LeaseId,
    ) -> BoxFuture<'_, Result<Option<Duration>, StoreUnavailable>> {
        async move {
            let left = self.0.time_left(lease).await;
            left.map_err(|error| error.unavailable("read"))
        }
        .boxed()
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreUnavailable>> {
        self.0.revoke(lease).boxed()
    }

    fn watch(&self, prefix: Bytes, after: u64) -> BoxFuture<'_, Result<Watch, WatchError>> {
        async move {
            let current = self.0.check_history(after).await?;
            Ok(watch::start(self.0.clone(), prefix, after, current).boxed())
        }
        .boxed()
    }
}

#[cfg(test)]
pub(crate) mod tests;
