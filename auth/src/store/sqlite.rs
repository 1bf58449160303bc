//! The embedded store: one SQLite file, one writer thread, readers beside it.
//!
//! All writes go through a bounded queue to one thread ([`writer`]), which carries out everything that waits in one
//! SQLite transaction and so pays for the disk once. Where keys are is known in memory ([`index`]); what they hold is
//! read on the runtime's blocking threads, a few at a time.
//! Watches read history from the file and what is new from a broadcast that the writer feeds after each commit.
//!
//! Leases are rows, their deadlines are in memory only: after a restart every lease has its full time again, so that
//! a control plane that was down for long does not declare everybody dead.

mod index;
mod leases;
mod past;
mod reader;
mod schema;
mod writer;

use std::{ops::Bound, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream};
use tokio::sync::{broadcast, mpsc, oneshot};

pub(crate) use leases::{Monotonic, SystemMonotonic};
pub(crate) use schema::{OpenError, open_reader, open_writer};

use super::{
    Batch, CommitError, Entry, LeaseError, LeaseId, PastError, RANGE_ENTRIES_MAX, Range,
    RangeQuery, Store, StoreUnavailable, TXN_OPS_MAX, Txn, Watch, WatchError, Watched,
};
use index::{Heads, Index};
use leases::Leases;
use reader::Readers;
use writer::{Command, Writer};

/// Changes that one revision can have in the file.
const PLACES: u64 = 1 << 20;

/// Where a change is in the file's log: changes of a later revision have larger ids, those of one are in order.
const fn log_id(revision: u64, place: u64) -> u64 {
    revision * PLACES + place
}

/// The revision of a change.
const fn revision_of(log_id: u64) -> u64 {
    log_id / PLACES
}

/// Times that a read is tried when the history that it looks at is given up before it is read.
const READ_ATTEMPTS_MAX: usize = 8;
/// Transactions that wait for the writer before callers do.
const WRITE_QUEUE_MAX: usize = 1024;
/// Committed transactions that a watcher may be behind.
const WATCH_LAG_MAX: usize = 4096;
/// Between two looks for expired leases.
const SWEEP_INTERVAL: Duration = Duration::from_millis(500);

/// How the embedded store is run.
#[derive(Clone)]
pub(crate) struct SqliteOptions {
    /// Revisions of history kept at least, for watches that resume.
    pub(crate) history_revisions_min: u64,
    /// Most pages that the file may have; `None` is as many as the disk holds.
    pub(crate) pages_max: Option<u32>,
    /// What lease deadlines are measured with.
    pub(crate) time: Arc<dyn Monotonic>,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            history_revisions_min: 10_000,
            pages_max: None,
            time: Arc::new(SystemMonotonic::default()),
        }
    }
}

/// The embedded store. Closes when dropped; [`SqliteStore::close`] waits for it.
pub(crate) struct SqliteStore {
    writer: mpsc::Sender<Command>,
    readers: Readers,
    index: Index,
    committed: broadcast::Sender<Arc<Batch>>,
    leases: Arc<Leases>,
}

impl SqliteStore {
    /// Opens the store in a directory, making both when they are missing. Must run inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: the file cannot be used, another process has it, or a newer program wrote it.
    pub(crate) fn open(directory: &Path, options: SqliteOptions) -> Result<Arc<Self>, OpenError> {
        let lock = schema::lock(directory)?;
        let path = directory.join("state.db");
        let connection = schema::open_store(&path)?;
        if let Some(pages) = options.pages_max {
            schema::limit(&connection, pages).map_err(|source| OpenError::Sqlite {
                path: path.clone(),
                source,
            })?;
        }
        let (committed, _) = broadcast::channel(WATCH_LAG_MAX);
        let leases = Arc::new(Leases::new(options.time));
        let writer = Writer::new(
            connection,
            lock,
            options.history_revisions_min,
            committed.clone(),
            leases.clone(),
        )
        .map_err(|source| OpenError::Sqlite {
            path: path.clone(),
            source,
        })?;
        let index = writer.index();
        let (queue, commands) = mpsc::channel(WRITE_QUEUE_MAX);
        std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run(commands))
            .map_err(OpenError::Thread)?;
        let store = Arc::new(Self {
            writer: queue,
            readers: Readers::new(path),
            index,
            committed,
            leases,
        });
        tokio::spawn(sweep(Arc::downgrade(&store)));
        Ok(store)
    }

    /// Finishes what is queued and gives the files back. Later calls fail.
    pub(crate) async fn close(&self) {
        // An error means that it is closed already.
        let _ = self.ask(Command::Close).await;
    }

    /// Ends the leases whose time is over.
    pub(crate) async fn expire_leases(&self) {
        let expired = self.leases.take_expired();
        if expired.is_empty() {
            return;
        }
        if let Err(error) = self.revoke_all(expired.clone()).await {
            tracing::warn!(error = %error, "cannot end expired leases, trying again");
            self.leases.put_back(expired);
        }
    }

    async fn revoke_all(&self, leases: Vec<LeaseId>) -> Result<(), StoreUnavailable> {
        self.ask(|reply| Command::Revoke { leases, reply }).await?
    }

    /// Reads the entries that `look` chooses, and gives what it noted with them.
    async fn read<T>(
        &self,
        look: impl Fn(&Heads) -> (Vec<(Bytes, u64)>, T) + Send,
    ) -> Result<(Vec<Entry>, T), StoreUnavailable> {
        for _ in 0..READ_ATTEMPTS_MAX {
            let (places, noted) = look(&self.index.look());
            if places.is_empty() {
                return Ok((Vec::new(), noted));
            }
            let read = self
                .readers
                .run(move |connection| reader::entries(connection, &places));
            if let Some(entries) = read.await? {
                return Ok((entries, noted));
            }
        }
        Err(StoreUnavailable {
            action: "read",
            source: "what was to be read was given up again and again meanwhile".into(),
        })
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, StoreUnavailable> {
        let (reply, answer) = oneshot::channel();
        let gone = || StoreUnavailable {
            action: "write",
            source: "the writer is closed, or failed and logged why".into(),
        };
        self.writer.send(command(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }
}

/// Where the keys begin that a query is about.
fn start(query: &RangeQuery) -> Bound<&Bytes> {
    match &query.after {
        Some(after) if *after >= query.prefix => Bound::Excluded(after),
        _ => Bound::Included(&query.prefix),
    }
}

async fn sweep(store: std::sync::Weak<SqliteStore>) {
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(store) = store.upgrade() else { return };
        if store.writer.is_closed() {
            return;
        }
        store.expire_leases().await;
    }
}

impl Store for SqliteStore {
    fn get(&self, key: Bytes) -> BoxFuture<'_, Result<Option<Entry>, StoreUnavailable>> {
        async move {
            let read = self.read(|heads| {
                let head = heads.get(&key);
                (
                    head.map(|head| (key.clone(), head.id))
                        .into_iter()
                        .collect(),
                    (),
                )
            });
            let (entries, ()) = read.await?;
            Ok(entries.into_iter().next())
        }
        .boxed()
    }

    fn range(&self, query: RangeQuery) -> BoxFuture<'_, Result<Range, StoreUnavailable>> {
        async move {
            let limit = query.limit.clamp(1, RANGE_ENTRIES_MAX);
            let start = start(&query);
            let read = self.read(|heads| {
                let mut places: Vec<(Bytes, u64)> = heads
                    .under(&query.prefix, start)
                    .take(limit + 1)
                    .map(|(key, head)| (key.clone(), head.id))
                    .collect();
                let more = places.len() > limit;
                places.truncate(limit);
                (places, (heads.revision, more))
            });
            let (entries, (revision, more)) = read.await?;
            Ok(Range {
                entries,
                revision,
                more,
            })
        }
        .boxed()
    }

    fn range_at(
        &self,
        query: RangeQuery,
        revision: u64,
    ) -> BoxFuture<'_, Result<Range, PastError>> {
        past::range(self, query, revision).boxed()
    }

    fn commit(&self, txn: Txn) -> BoxFuture<'_, Result<u64, CommitError>> {
        async move {
            if txn.ops.len() > TXN_OPS_MAX {
                return Err(CommitError::TooLarge { ops: txn.ops.len() });
            }
            self.ask(|reply| Command::Commit { txn, reply }).await?
        }
        .boxed()
    }

    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId, StoreUnavailable>> {
        async move { self.ask(|reply| Command::Grant { ttl, reply }).await? }.boxed()
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), LeaseError>> {
        let kept = if self.leases.keep_alive(lease) {
            Ok(())
        } else {
            Err(LeaseError::Gone(lease))
        };
        std::future::ready(kept).boxed()
    }

    fn time_left(
        &self,
        lease: LeaseId,
    ) -> BoxFuture<'_, Result<Option<Duration>, StoreUnavailable>> {
        std::future::ready(Ok(self.leases.left(lease))).boxed()
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreUnavailable>> {
        self.leases.forget(lease);
        self.revoke_all(vec![lease]).boxed()
    }

    fn watch(&self, prefix: Bytes, after: u64) -> BoxFuture<'_, Result<Watch, WatchError>> {
        async move {
            // Subscribed before history is read: what is committed meanwhile waits in the channel.
            let live = self.committed.subscribe();
            let readers = self.readers.clone();
            let page = {
                let prefix = prefix.clone();
                readers
                    .run(move |connection| reader::history(connection, &prefix, after))
                    .await?
            };
            if after > page.revision {
                return Err(WatchError::Ahead {
                    asked: after,
                    current: page.revision,
                });
            }
            if after < page.compacted {
                return Err(WatchError::Compacted {
                    compacted: page.compacted,
                });
            }
            let state = WatchState {
                readers,
                prefix,
                live,
                seen: after,
                ready: page.batches.into(),
                phase: if page.more {
                    Phase::History
                } else {
                    Phase::CatchingUp(page.revision)
                },
            };
            Ok(watch_stream(state).boxed())
        }
        .boxed()
    }
}

enum Phase {
    /// More history is to be read.
    History,
    /// All history up to the revision is in `ready`.
    CatchingUp(u64),
    Live,
    Ended,
}

struct WatchState {
    readers: Readers,
    prefix: Bytes,
    live: broadcast::Receiver<Arc<Batch>>,
    seen: u64,
    ready: std::collections::VecDeque<Batch>,
    phase: Phase,
}

fn watch_stream(
    state: WatchState,
) -> impl stream::Stream<Item = Result<Watched, WatchError>> + Send {
    stream::unfold(state, |mut state| async move {
        if matches!(state.phase, Phase::Ended) {
            return None;
        }
        let next = state.next().await;
        if next.is_err() {
            state.phase = Phase::Ended;
        }
        Some((next, state))
    })
}

impl WatchState {
    async fn next(&mut self) -> Result<Watched, WatchError> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                self.seen = batch.revision;
                return Ok(Watched::Batch(batch));
            }
            match self.phase {
                Phase::History => self.read_history().await?,
                Phase::CatchingUp(revision) => {
                    self.seen = self.seen.max(revision);
                    self.phase = Phase::Live;
                    return Ok(Watched::CaughtUp(revision));
                }
                Phase::Live => {
                    if let Some(batch) = self.receive().await? {
                        return Ok(Watched::Batch(batch));
                    }
                }
                Phase::Ended => return Err(WatchError::Closed),
            }
        }
    }

    async fn read_history(&mut self) -> Result<(), WatchError> {
        let (prefix, after) = (self.prefix.clone(), self.seen);
        let page = self
            .readers
            .run(move |connection| reader::history(connection, &prefix, after))
            .await?;
        if after < page.compacted {
            return Err(WatchError::Compacted {
                compacted: page.compacted,
            });
        }
        self.ready = page.batches.into();
        if !page.more {
            self.phase = Phase::CatchingUp(page.revision);
        }
        Ok(())
    }

    async fn receive(&mut self) -> Result<Option<Batch>, WatchError> {
        let batch = match self.live.recv().await {
            Ok(batch) => batch,
            Err(broadcast::error::RecvError::Closed) => return Err(WatchError::Closed),
            Err(broadcast::error::RecvError::Lagged(_)) => return Err(WatchError::Lagged),
        };
        if batch.revision <= self.seen {
            return Ok(None);
        }
        self.seen = batch.revision;
        let changes: Vec<_> = batch
            .changes
            .iter()
            .filter(|change| change.key.starts_with(&self.prefix))
            .cloned()
            .collect();
        Ok((!changes.is_empty()).then_some(Batch {
            revision: batch.revision,
            changes,
        }))
    }
}

#[cfg(test)]
pub(crate) mod tests;
