//! Watches: a full listing, `synced`, then changes; or what changed after a revision, `synced`, then changes.
//!
//! A watcher takes what the feed queues for it ([`super::feed`]), and is never waited for: one whose queue is full is told
//! where to resume.
//!
//! Invariants:
//! - each change is judged by what the watcher was shown before it: a row that stops matching is sent as deleted, one
//!   that never matched is not mentioned; the change itself carries both sides;
//! - resuming after the revision of any event loses nothing: rows of the listing carry 0, and of several events of one
//!   transaction only the last carries its revision.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures::StreamExt as _;
use tidegate_core::Selector;
use tidegate_service::tasks::ShutdownToken;
use tokio::{sync::watch as cell, time::Interval};

use super::{
    Inventory, State, Viewer,
    feed::{Ended, Feed, Interest, Subscription},
    index::{LabelIndex, Term},
    query::{Budget, Conditions, terms_of},
    tables::{DatabaseRow, Roles, Row, RowChange, ServerRow, Tables, database_row, server_row},
    view::View,
};
use crate::{
    keys,
    store::{Change, Entry, WatchError, Watched},
};

/// Between two bookmarks.
pub(crate) const BOOKMARK_INTERVAL: Duration = Duration::from_secs(15);
/// Rows of the listing that are looked at in one go.
const LISTED_AT_ONCE: usize = 1024;
/// How long a resuming watcher may be ahead of this instance's tables.
const AHEAD_TIMEOUT: Duration = Duration::from_secs(2);

/// Which rows a watcher is sent.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    /// Any of these; none is all.
    pub(crate) selectors: Vec<Selector>,
    /// All of this.
    pub(crate) conditions: Conditions,
    /// Who watches.
    pub(crate) viewer: Viewer,
}

/// What a watcher is sent.
#[derive(Debug)]
pub(crate) enum RowEvent<R> {
    /// Listed, created or changed.
    Upserted(u64, Arc<R>),
    /// Gone, or no longer matched; the row as it was.
    Deleted(u64, Arc<R>),
    /// The listing is complete.
    Synced(u64),
    /// Nothing more up to the revision.
    Bookmark(u64),
}

/// Why a watch ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WatchEnd {
    /// What changed after the revision is not known any more.
    #[error("changes after revision {0} are gone: start again with a full listing")]
    HistoryGone(u64),
    /// The roles that decide what this watcher sees have changed.
    #[error("roles have changed: start again with a full listing")]
    RolesChanged,
    /// The service stops.
    #[error("the auth service is shutting down: resume after revision {0} at another")]
    ShuttingDown(u64),
    /// The watcher was too slow.
    #[error("the watcher was too slow: resume after revision {0}")]
    TooSlow(u64),
    /// The store cannot be read.
    #[error("history cannot be read now: try again")]
    Unavailable(#[source] WatchError),
}

/// A table that can be watched.
pub(crate) trait WatchRows: Row + Sized {
    /// Where its rows are in the store.
    const PREFIX: &'static str;

    /// All rows, in key order.
    fn all(tables: &Tables) -> Vec<Arc<Self>>;
    /// A stored entry as a row.
    fn read(entry: &Entry) -> Option<Self>;
    /// Its rows by label.
    fn index(tables: &Tables) -> &LabelIndex<Self>;
    #[doc(hidden)]
    fn feed<'s>(state: &StateRef<'s>) -> &'s Feed<Self>;
}

/// Keeps [`State`] out of the trait's public face.
pub(crate) struct StateRef<'s>(&'s State);

impl WatchRows for DatabaseRow {
    const PREFIX: &'static str = keys::DATABASES;

    fn all(tables: &Tables) -> Vec<Arc<Self>> {
        tables.databases.values().cloned().collect()
    }

    fn read(entry: &Entry) -> Option<Self> {
        database_row(entry)
    }

    fn index(tables: &Tables) -> &LabelIndex<Self> {
        &tables.database_labels
    }

    fn feed<'s>(state: &StateRef<'s>) -> &'s Feed<Self> {
        &state.0.databases
    }
}

impl WatchRows for ServerRow {
    const PREFIX: &'static str = keys::PRESENCE;

    fn all(tables: &Tables) -> Vec<Arc<Self>> {
        tables.servers.values().cloned().collect()
    }

    fn read(entry: &Entry) -> Option<Self> {
        server_row(entry)
    }

    fn index(tables: &Tables) -> &LabelIndex<Self> {
        &tables.server_labels
    }

    fn feed<'s>(state: &StateRef<'s>) -> &'s Feed<Self> {
        &state.0.servers
    }
}

/// A watcher's place.
struct Watcher<R> {
    inventory: Arc<Inventory>,
    filter: Filter,
    /// The roles that decide what is sent; the watch ends when they change.
    roles: Arc<Roles>,
    new_roles: cell::Receiver<Arc<Roles>>,
    changes: Subscription<R>,
    /// What is left of the listing; `None` when it is done or was not asked for.
    listing: Option<std::vec::IntoIter<Arc<R>>>,
    ready: VecDeque<RowEvent<R>>,
    /// The last revision that was looked at.
    seen: u64,
    /// The last revision that an event may carry before the next transaction is sent in full.
    resumable: u64,
    bookmarks: Interval,
    shutdown: ShutdownToken,
}

impl Inventory {
    /// Starts a watch; `after_revision` 0 is a full listing.
    ///
    /// # Errors
    ///
    /// [`WatchEnd`] when it cannot resume there.
    pub(crate) async fn watch<R: WatchRows>(
        self: &Arc<Self>,
        filter: Filter,
        after_revision: u64,
        shutdown: ShutdownToken,
    ) -> Result<impl futures::Stream<Item = Result<RowEvent<R>, WatchEnd>> + Send + use<R>, WatchEnd>
    {
        let mut new_roles = self.watch_roles();
        let roles = new_roles.borrow_and_update().clone();
        let mut bookmarks = tokio::time::interval(BOOKMARK_INTERVAL);
        bookmarks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        bookmarks.reset();
        let (changes, rows, seen) = self.place::<R>(&filter, after_revision == 0);
        let mut watcher = Watcher {
            inventory: self.clone(),
            filter,
            roles,
            new_roles,
            changes,
            listing: rows.map(Vec::into_iter),
            ready: VecDeque::new(),
            seen,
            resumable: seen,
            bookmarks,
            shutdown,
        };
        if after_revision > 0 {
            watcher.resume(after_revision).await?;
        }
        Ok(futures::stream::unfold(Some(watcher), |watcher| async {
            let mut watcher = watcher?;
            match watcher.next().await {
                Ok(event) => Some((Ok(event), Some(watcher))),
                Err(end) => Some((Err(end), None)),
            }
        }))
    }

    /// One consistent look: the place in the changes, the rows if asked for, and the revision of both.
    fn place<R: WatchRows>(
        &self,
        filter: &Filter,
        listing: bool,
    ) -> (Subscription<R>, Option<Vec<Arc<R>>>, u64) {
        let look = self.tables();
        let interest = Interest::new(&filter.terms(), R::index(&look));
        let changes = R::feed(&StateRef(&look.0)).subscribe(interest);
        let rows = listing.then(|| R::all(&look));
        (changes, rows, look.revision)
    }
}

impl<R: WatchRows> Watcher<R> {
    /// Reads what changed between `after` and this watcher's place from the store.
    async fn resume(&mut self, after: u64) -> Result<(), WatchEnd> {
        if self.filter.viewer.depends_on_roles() && after < self.roles.revision {
            return Err(WatchEnd::RolesChanged);
        }
        if after > self.seen {
            let mut reached = self.inventory.reached.subscribe();
            let ahead = reached.wait_for(|now| *now >= after);
            if tokio::time::timeout(AHEAD_TIMEOUT, ahead).await.is_err() {
                return Err(WatchEnd::HistoryGone(after));
            }
        } else if after < self.seen {
            self.replay(after).await?;
        }
        self.seen = self.seen.max(after);
        self.resumable = self.seen;
        self.ready.push_back(RowEvent::Synced(self.seen));
        Ok(())
    }

    async fn replay(&mut self, after: u64) -> Result<(), WatchEnd> {
        let prefix = bytes::Bytes::from_static(R::PREFIX.as_bytes());
        let failed = |error| match error {
            WatchError::Compacted { .. } | WatchError::Ahead { .. } => WatchEnd::HistoryGone(after),
            other => WatchEnd::Unavailable(other),
        };
        let mut history = self
            .inventory
            .store
            .watch(prefix, after)
            .await
            .map_err(failed)?;
        self.resumable = after;
        loop {
            match history
                .next()
                .await
                .unwrap_or(Err(WatchError::Closed))
                .map_err(failed)?
            {
                Watched::Batch(batch) if batch.revision <= self.seen => {
                    self.judge(batch.revision, batch.changes.iter().map(row_change));
                }
                // What is newer comes from the ring.
                Watched::Batch(_) | Watched::CaughtUp(_) => return Ok(()),
            }
        }
    }

    async fn next(&mut self) -> Result<RowEvent<R>, WatchEnd> {
        loop {
            if self.filter.viewer.depends_on_roles()
                && self.inventory.roles().revision != self.roles.revision
            {
                return Err(WatchEnd::RolesChanged);
            }
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            if self.listing.is_some() {
                match self.list() {
                    Some(event) => return Ok(event),
                    // A narrow watch of a large table: others get their turn.
                    None => tokio::task::yield_now().await,
                }
                continue;
            }
            if let Some(event) = self.wait().await? {
                return Ok(event);
            }
        }
    }

    /// The next row of the listing that matches; `synced` after the last.
    fn list(&mut self) -> Option<RowEvent<R>> {
        let mut listing = self.listing.take()?;
        let view = self.filter.viewer.view(&self.roles.policy);
        let mut looked_at = listing.by_ref().take(LISTED_AT_ONCE);
        let found = looked_at
            .by_ref()
            .filter(|row| self.filter.meets(row.as_ref(), &view));
        self.ready
            .extend(found.map(|row| RowEvent::Upserted(0, row)));
        if listing.len() == 0 {
            self.ready.push_back(RowEvent::Synced(self.seen));
        } else {
            self.listing = Some(listing);
        }
        self.ready.pop_front()
    }

    async fn wait(&mut self) -> Result<Option<RowEvent<R>>, WatchEnd> {
        let changes = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => return Err(WatchEnd::ShuttingDown(self.seen)),
            // Whether that ends this watch is looked at before anything more is sent.
            Ok(()) = self.new_roles.changed() => return Ok(None),
            changes = self.changes.next() => changes,
            _ = self.bookmarks.tick() => return Ok(self.bookmark()),
        };
        match changes {
            Ok(changes) => {
                if changes.revision() > self.seen {
                    self.judge(changes.revision(), changes.changes());
                    self.seen = changes.revision();
                }
                Ok(None)
            }
            Err(Ended::TooSlow) => Err(WatchEnd::TooSlow(self.seen)),
            Err(Ended::Closed) => Err(WatchEnd::HistoryGone(self.seen)),
        }
    }

    /// The tables' revision, when nothing of it waits in the queue and the watcher was not told of it: many changes may
    /// not have concerned it.
    fn bookmark(&mut self) -> Option<RowEvent<R>> {
        let revision = self.inventory.revision();
        if !self.changes.is_empty() || revision <= self.resumable {
            return None;
        }
        self.seen = revision;
        self.resumable = revision;
        Some(RowEvent::Bookmark(revision))
    }

    /// Queues what one transaction means to this watcher.
    fn judge(&mut self, revision: u64, changes: impl Iterator<Item = RowChange<R>>) {
        let before = self.resumable;
        let view = self.filter.viewer.view(&self.roles.policy);
        let meets = |row: &Arc<R>| self.filter.meets(row.as_ref(), &view);
        let events: Vec<_> = changes
            .filter_map(|change| match change.current {
                Some(row) if meets(&row) => Some((true, row)),
                _ => {
                    let was = change.previous.filter(|row| meets(row))?;
                    Some((false, was))
                }
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
}

impl Filter {
    /// Lists of labels: a row that is meant has all of at least one list.
    fn terms(&self) -> Vec<Vec<Term>> {
        let always = self.conditions.terms();
        if self.selectors.is_empty() {
            return vec![always.to_vec()];
        }
        // An empty selector is met by nothing.
        let selectors = self
            .selectors
            .iter()
            .filter(|selector| !selector.is_empty());
        selectors
            .map(|selector| terms_of(selector).chain(always.iter().cloned()).collect())
            .collect()
    }

    fn meets<R: Row>(&self, row: &R, view: &View<'_>) -> bool {
        let labels = row.labels();
        let selected = |selector: &Selector| selector.matches(labels);
        (self.selectors.is_empty() || self.selectors.iter().any(selected))
            && self
                .conditions
                .meet(row, view, &mut Budget::new())
                .unwrap_or(false)
    }
}

fn row_change<R: WatchRows>(change: &Change) -> RowChange<R> {
    let row = |entry: &Option<Entry>| entry.as_ref().and_then(R::read).map(Arc::new);
    RowChange {
        previous: row(&change.previous),
        current: row(&change.current),
    }
}
