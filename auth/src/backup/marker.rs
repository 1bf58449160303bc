//! What the store says of its last restore, and what each instance makes of it.
//!
//! While a restore is unfinished nothing else is served. When one is done, every instance ends: what it made of the state
//! at its start, its CAs first of all, may be of another state.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use futures::StreamExt as _;
use tidegate_service::{rpc::Backoff, tasks::ShutdownToken};
use tokio::sync::watch as cell;

use crate::{
    keys,
    record::{RecordError, RestoreRecord, decode},
    store::{Store, StoreUnavailable, WatchError, Watched},
};

/// The marker as it was read last.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Marker {
    /// What it says; `None` when nothing was ever restored.
    pub(super) record: Option<RestoreRecord>,
    /// Revision of its last change; 0 when there is none.
    pub(super) revision: u64,
}

impl Marker {
    fn is_unfinished(&self) -> bool {
        let record = self.record.as_ref();
        record.is_some_and(|record| record.finished_at.is_none())
    }
}

/// Why the marker cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MarkerError {
    /// It makes no sense.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The store does not answer.
    #[error(transparent)]
    Unavailable(#[from] StoreUnavailable),
    /// The store cannot be watched.
    #[error(transparent)]
    Watch(#[from] WatchError),
}

/// Follows the marker.
pub(crate) struct Restores {
    store: Arc<dyn Store>,
    /// The marker at the start of this process.
    at_start: u64,
    now: cell::Sender<Marker>,
}

/// Reads the marker.
pub(super) async fn read(store: &dyn Store) -> Result<Marker, MarkerError> {
    let Some(entry) = store.get(keys::restore()).await? else {
        return Ok(Marker::default());
    };
    Ok(Marker {
        record: Some(decode(&entry)?),
        revision: entry.modified,
    })
}

impl Restores {
    /// Reads the marker for the first time.
    pub(crate) async fn open(store: Arc<dyn Store>) -> Result<Self, MarkerError> {
        let marker = read(store.as_ref()).await?;
        if marker.is_unfinished() {
            tracing::error!(
                "a restore of the state was cut off: nothing is served until `tgctl backup restore` was run again"
            );
        }
        Ok(Self {
            store,
            at_start: marker.revision,
            now: cell::Sender::new(marker),
        })
    }

    /// Whether a restore was begun and not finished.
    pub(crate) fn is_unfinished(&self) -> bool {
        self.now.borrow().is_unfinished()
    }

    /// Whether whoever knows the state at a revision can go on from there. One that was told before the last restore may
    /// be of another store, where the same number meant other changes.
    pub(crate) const fn is_of_this_state(&self, revision: u64) -> bool {
        revision >= self.at_start
    }

    /// Takes note of what the marker says now, without waiting for the watch.
    pub(super) fn note(&self, marker: Marker) {
        self.now.send_if_modified(|now| {
            let is_newer = marker.revision > now.revision;
            if is_newer {
                *now = marker;
            }
            is_newer
        });
    }

    /// Follows the marker until shutdown, or until a restore is done: then the process has to end.
    pub(crate) async fn follow(self: Arc<Self>, shutdown: ShutdownToken) {
        let mut backoff = Backoff::new();
        loop {
            let ended = tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.replaced() => {
                    tracing::warn!("the state was restored from a backup: this process ends, to be started again with it");
                    return;
                }
                ended = self.follow_watch(&mut backoff) => ended,
            };
            let Err(error) = ended;
            tracing::warn!(error = %error, "cannot follow whether the state is restored, starting again");
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(backoff.next()) => {}
            }
        }
    }

    /// Waits until a restore is done that was not when this process started.
    async fn replaced(&self) {
        let mut now = self.now.subscribe();
        let is_replaced = |marker: &Marker| {
            marker.revision > self.at_start && !marker.is_unfinished() && marker.record.is_some()
        };
        // The sender is ours, so waiting cannot fail.
        let _ = now.wait_for(is_replaced).await;
    }

    async fn follow_watch(&self, backoff: &mut Backoff) -> Result<Infallible, MarkerError> {
        let marker = read(self.store.as_ref()).await?;
        self.note(marker);
        let range = self
            .store
            .range(crate::store::RangeQuery::prefix(keys::RESTORE))
            .await?;
        let prefix = Bytes::from_static(keys::RESTORE.as_bytes());
        let mut watch = self.store.watch(prefix, range.revision).await?;
        let marker = read(self.store.as_ref()).await?;
        self.note(marker);
        backoff.reset();
        loop {
            let next = watch.next().await.unwrap_or(Err(WatchError::Closed))?;
            if matches!(next, Watched::Batch(_)) {
                let marker = read(self.store.as_ref()).await?;
                self.note(marker);
            }
        }
    }
}
