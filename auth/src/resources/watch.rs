//! Watches over one or more kinds: a full listing, `synced`, then changes; or what changed after a revision, `synced`,
//! then changes.
//!
//! A watcher is pulled, not pushed: it holds its place in a ring of changes that all watchers share, so a slow one
//! costs no memory, and one that falls out of the ring is told where to resume.
//!
//! Invariants:
//! - each change is judged by what the watcher was shown before it: a resource that stops matching is sent as deleted,
//!   one that never matched is not mentioned;
//! - resuming after the revision of any event loses nothing: rows of the listing carry 0, and of several events of one
//!   revision only the last carries it;
//! - only what the store holds is looked at and sent: what is known beside it changes without an event.
//!
//! A resumed watch is shown of each resource what became of it, not each step.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt as _;
use tidegate_service::tasks::ShutdownToken;
use tokio::{sync::broadcast, time::Interval};

use super::{
    kind::Kind,
    list::meets,
    table::{Changes, Row, RowChange, id_in},
};
use crate::{
    inventory::{BOOKMARK_INTERVAL, Budget, Conditions, Inventory, RowEvent, WatchEnd},
    store::{Batch, Entry, WatchError, Watched},
};

/// Rows of the listing that are looked at in one go.
const LISTED_AT_ONCE: usize = 256;
/// How long a resuming watcher may be ahead of this instance's tables.
const AHEAD_TIMEOUT: Duration = Duration::from_secs(2);
/// Most changes that are read to resume: beyond them a listing is cheaper.
const REPLAYED_MAX: usize = 100_000;

/// Whether a row may be seen.
pub(crate) type Sees = Box<dyn Fn(&Row) -> bool + Send + Sync>;

/// What of one kind is watched.
pub(crate) struct KindFilter {
    /// The kind.
    pub(crate) kind: &'static dyn Kind,
    /// Which.
    pub(crate) conditions: Conditions,
    /// Which may be seen.
    pub(crate) sees: Sees,
}

impl KindFilter {
    fn meets(&self, row: &Row) -> bool {
        (self.sees)(row) && meets(&self.conditions, row, &mut Budget::new()).unwrap_or(false)
    }
}

/// What a watch stands on.
pub(crate) struct WatchParts {
    /// The tables, and what feeds them.
    pub(crate) inventory: Arc<Inventory>,
    /// What is watched; each kind once.
    pub(crate) filters: Vec<KindFilter>,
    /// Whether roles decide what is seen: the watch ends when they change.
    pub(crate) by_roles: bool,
    /// Ends it.
    pub(crate) shutdown: ShutdownToken,
}

/// A watcher's place.
struct Watcher {
    parts: WatchParts,
    /// Revision of the roles that decide what is sent.
    roles: u64,
    changes: broadcast::Receiver<Arc<Changes>>,
    /// What is left of the listing; `None` when it is done or was not asked for.
    listing: Option<std::vec::IntoIter<Arc<Row>>>,
    ready: VecDeque<RowEvent<Row>>,
    /// The last revision that was looked at.
    seen: u64,
    /// The last revision that an event may carry before the next transaction is sent in full.
    resumable: u64,
    bookmarks: Interval,
}

/// Starts a watch; `after_revision` 0 is a full listing.
///
/// # Errors
///
/// [`WatchEnd`] when it cannot resume there.
pub(crate) async fn watch(
    parts: WatchParts,
    after_revision: u64,
) -> Result<impl futures::Stream<Item = Result<RowEvent<Row>, WatchEnd>> + Send, WatchEnd> {
    let roles = parts.inventory.roles().revision;
    let mut bookmarks = tokio::time::interval(BOOKMARK_INTERVAL);
    bookmarks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    bookmarks.reset();
    let (changes, rows, seen) = place(&parts);
    let mut watcher = Watcher {
        parts,
        roles,
        changes,
        listing: None,
        ready: VecDeque::new(),
        seen,
        resumable: seen,
        bookmarks,
    };
    if after_revision > 0 {
        watcher.resume(after_revision, &rows).await?;
    } else {
        watcher.listing = Some(rows.into_iter());
    }
    Ok(futures::stream::unfold(Some(watcher), |watcher| async {
        let mut watcher = watcher?;
        match watcher.next().await {
            Ok(event) => Some((Ok(event), Some(watcher))),
            Err(end) => Some((Err(end), None)),
        }
    }))
}

/// One consistent look: the place in the changes, the rows, and the revision of both.
fn place(parts: &WatchParts) -> (broadcast::Receiver<Arc<Changes>>, Vec<Arc<Row>>, u64) {
    let look = parts.inventory.resources().look();
    let rows = parts
        .filters
        .iter()
        .filter_map(|filter| look.tables.rows(filter.kind));
    let rows = rows.flat_map(|rows| rows.values().cloned()).collect();
    (look.changes.subscribe(), rows, look.tables.revision)
}

impl Watcher {
    /// Tells what changed between `after` and this watcher's place, by the store's history.
    async fn resume(&mut self, after: u64, rows: &[Arc<Row>]) -> Result<(), WatchEnd> {
        if self.parts.by_roles && after < self.roles {
            return Err(WatchEnd::RolesChanged);
        }
        if after > self.seen {
            let reached = self.parts.inventory.shows(after);
            if tokio::time::timeout(AHEAD_TIMEOUT, reached).await.is_err() {
                return Err(WatchEnd::HistoryGone(after));
            }
        } else if after < self.seen {
            self.resumable = after;
            let changes = self.replayed(after, rows).await?;
            for (revision, changes) in changes {
                self.judge(revision, changes.iter());
            }
        }
        self.seen = self.seen.max(after);
        self.resumable = self.seen;
        self.ready.push_back(RowEvent::Synced(self.seen));
        Ok(())
    }

    /// What became of each resource after a revision, by the revision of its last change.
    async fn replayed(
        &self,
        after: u64,
        rows: &[Arc<Row>],
    ) -> Result<BTreeMap<u64, Vec<RowChange>>, WatchEnd> {
        let mut touched: BTreeMap<(usize, String), Touched> = BTreeMap::new();
        let mut prefixes: Vec<&str> = self
            .parts
            .filters
            .iter()
            .flat_map(|filter| filter.kind.prefixes())
            .copied()
            .collect();
        prefixes.sort_unstable();
        prefixes.dedup();
        let mut read = 0;
        for prefix in prefixes {
            for batch in self.history(prefix, after).await? {
                read += batch.changes.len();
                if read > REPLAYED_MAX {
                    return Err(WatchEnd::HistoryGone(after));
                }
                self.touch(&batch, &mut touched);
            }
        }
        let now: BTreeMap<(&str, &str), &Arc<Row>> = rows
            .iter()
            .map(|row| ((row.kind.name(), row.id.as_str()), row))
            .collect();
        let mut changes: BTreeMap<u64, Vec<RowChange>> = BTreeMap::new();
        let look = self.parts.inventory.resources().look();
        for ((filter, id), Touched { before, revision }) in touched {
            let kind = self.parts.filters[filter].kind;
            let current = now.get(&(kind.name(), id.as_str())).copied().cloned();
            let rewound = Row::rewound(kind, &id, current.as_deref(), &before);
            let previous = rewound.or_else(|| look.tables.fixed(kind, &id));
            changes
                .entry(revision)
                .or_default()
                .push(RowChange { previous, current });
        }
        Ok(changes)
    }

    /// What the store's history has under a prefix, up to this watcher's place.
    async fn history(&self, prefix: &'static str, after: u64) -> Result<Vec<Batch>, WatchEnd> {
        let failed = |error| match error {
            WatchError::Compacted { .. } | WatchError::Ahead { .. } => WatchEnd::HistoryGone(after),
            other => WatchEnd::Unavailable(other),
        };
        let prefix = Bytes::from_static(prefix.as_bytes());
        let watch = self.parts.inventory.store().watch(prefix, after).await;
        let mut history = watch.map_err(failed)?;
        let mut batches = Vec::new();
        let mut read = 0;
        loop {
            let next = history.next().await.unwrap_or(Err(WatchError::Closed));
            match next.map_err(failed)? {
                Watched::Batch(batch) if batch.revision <= self.seen => {
                    read += batch.changes.len();
                    if read > REPLAYED_MAX {
                        return Err(WatchEnd::HistoryGone(after));
                    }
                    batches.push(batch);
                }
                // What is newer comes from the ring.
                Watched::Batch(_) | Watched::CaughtUp(_) => return Ok(batches),
            }
        }
    }

    /// Notes whose entries a transaction changed, and what they were before the first of its changes.
    fn touch(&self, batch: &Batch, touched: &mut BTreeMap<(usize, String), Touched>) {
        for change in &batch.changes {
            for (place, filter) in self.parts.filters.iter().enumerate() {
                let Some(id) = id_in(filter.kind, &change.key) else {
                    continue;
                };
                let touched = touched.entry((place, id.to_owned())).or_default();
                touched.revision = touched.revision.max(batch.revision);
                touched
                    .before
                    .entry(change.key.clone())
                    .or_insert_with(|| change.previous.clone());
            }
        }
    }

    async fn next(&mut self) -> Result<RowEvent<Row>, WatchEnd> {
        loop {
            if self.parts.by_roles && self.parts.inventory.roles().revision != self.roles {
                return Err(WatchEnd::RolesChanged);
            }
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            if self.listing.is_some() {
                self.list();
                // Others get their turn.
                tokio::task::yield_now().await;
                continue;
            }
            if let Some(event) = self.wait().await? {
                return Ok(event);
            }
        }
    }

    /// The next rows of the listing that match; `synced` after the last.
    fn list(&mut self) {
        let Some(mut listing) = self.listing.take() else {
            return;
        };
        for row in listing.by_ref().take(LISTED_AT_ONCE) {
            if self.meets(&row) {
                self.ready.push_back(RowEvent::Upserted(0, row));
            }
        }
        if listing.len() == 0 {
            self.ready.push_back(RowEvent::Synced(self.seen));
        } else {
            self.listing = Some(listing);
        }
    }

    async fn wait(&mut self) -> Result<Option<RowEvent<Row>>, WatchEnd> {
        let changes = tokio::select! {
            biased;
            () = self.parts.shutdown.cancelled() => return Err(WatchEnd::ShuttingDown(self.seen)),
            changes = self.changes.recv() => changes,
            _ = self.bookmarks.tick() => return Ok(self.bookmark()),
        };
        match changes {
            Ok(changes) => {
                if changes.revision > self.seen {
                    self.judge(changes.revision, changes.changes.iter());
                    self.seen = changes.revision;
                }
                Ok(None)
            }
            Err(broadcast::error::RecvError::Lagged(_)) => Err(WatchEnd::TooSlow(self.seen)),
            Err(broadcast::error::RecvError::Closed) => Err(WatchEnd::HistoryGone(self.seen)),
        }
    }

    /// The tables' revision, when nothing of it is still in the ring and the watcher was not told of it.
    fn bookmark(&mut self) -> Option<RowEvent<Row>> {
        let revision = self.parts.inventory.resources().look().tables.revision;
        if !self.changes.is_empty() || revision <= self.resumable {
            return None;
        }
        self.seen = revision;
        self.resumable = revision;
        Some(RowEvent::Bookmark(revision))
    }

    /// Queues what one transaction means to this watcher.
    fn judge<'c>(&mut self, revision: u64, changes: impl Iterator<Item = &'c RowChange>) {
        let before = self.resumable;
        let meets = |row: &Option<Arc<Row>>| row.clone().filter(|row| self.meets(row));
        let events: Vec<(bool, Arc<Row>)> = changes
            .filter_map(|change| match meets(&change.current) {
                Some(row) => Some((true, row)),
                None => meets(&change.previous).map(|row| (false, row)),
            })
            .collect();
        let last = events.len().saturating_sub(1);
        for (index, (shown, row)) in events.into_iter().enumerate() {
            let carried = if index == last { revision } else { before };
            self.resumable = carried;
            self.ready.push_back(if shown {
                RowEvent::Upserted(carried, row)
            } else {
                RowEvent::Deleted(carried, row)
            });
        }
    }

    fn meets(&self, row: &Row) -> bool {
        let of_kind = |filter: &&KindFilter| filter.kind.name() == row.kind.name();
        let filter = self.parts.filters.iter().find(of_kind);
        filter.is_some_and(|filter| filter.meets(row))
    }
}

/// Entries of one resource that changed.
#[derive(Default)]
struct Touched {
    /// What each was before.
    before: BTreeMap<Bytes, Option<Entry>>,
    /// Revision of the last change.
    revision: u64,
}
