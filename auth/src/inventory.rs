//! The inventory in memory: what every listing and every watch is served from.
//!
//! One task ([`Inventory::follow`]) reads the store's watch, and for each transaction changes the tables and tells the
//! watchers. The order is: tables, watchers, then [`Inventory::reached`]; so whoever waited for a revision finds it
//! in a listing.
//!
//! Not here: writing (the ledger, presence and the access records write to the store), gRPC.

mod conflict;
mod feed;
mod index;
mod list;
pub(crate) mod mask;
mod order;
mod owned;
mod packed;
pub(crate) mod page;
mod query;
mod rows;
mod slots;
pub(crate) mod tables;
mod view;
mod watch;

use std::{
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use futures::StreamExt as _;
use tidegate_proto::v1;
use tidegate_service::{rpc::Backoff, tasks::ShutdownToken};
use tokio::{sync::watch as cell, task::JoinHandle};

use crate::{
    resources::{self, Resources},
    store::{Batch, Range, RangeQuery, Store, StoreUnavailable, Watch, WatchError, Watched},
};
use feed::Feed;
pub(crate) use index::Counts;
pub(crate) use list::{ListRows, VALUES_MAX};
pub(crate) use order::{Ordered, nearest};
pub(crate) use query::{Budget, Conditions, ListQuery, ListRequest, QueryError};
use tables::{DatabaseRow, Effects, Roles, RowChanges, ServerRow, Tables};
pub(crate) use view::Viewer;
pub(crate) use watch::{BOOKMARK_INTERVAL, Filter, RowEvent, WatchEnd, WatchRows};

/// How long to wait for the tables to show what was just written.
const REACH_TIMEOUT: Duration = Duration::from_secs(5);

/// The inventory in memory.
pub(crate) struct Inventory {
    store: Arc<dyn Store>,
    state: RwLock<State>,
    /// What else is kept in memory, fed before anybody is told that a revision is reached.
    resources: Resources,
    reached: cell::Sender<u64>,
    roles: cell::Sender<Arc<Roles>>,
    configs: cell::Sender<Arc<Configs>>,
}

/// Every `discovery_config`, in name order.
pub(crate) type Configs = Vec<v1::DiscoveryConfig>;

fn configs(tables: &Tables) -> Arc<Configs> {
    Arc::new(tables.configs.values().cloned().collect())
}

struct State {
    tables: Tables,
    databases: Feed<DatabaseRow>,
    servers: Feed<ServerRow>,
}

impl State {
    fn new(tables: Tables) -> Self {
        Self {
            tables,
            databases: Feed::default(),
            servers: Feed::default(),
        }
    }
}

impl Inventory {
    /// Reads everything, and gives the watch that [`Self::follow`] goes on with.
    ///
    /// # Errors
    ///
    /// [`WatchError`] when the store cannot be read.
    pub(crate) async fn load(store: Arc<dyn Store>) -> Result<(Arc<Self>, Watch), WatchError> {
        let (read, watch) = read_all(&store).await?;
        Ok((Arc::new(Self::new(store, read)), watch))
    }

    fn new(store: Arc<dyn Store>, Read { tables, resources }: Read) -> Self {
        Self {
            store,
            reached: cell::Sender::new(tables.revision),
            roles: cell::Sender::new(Arc::new(tables.roles())),
            configs: cell::Sender::new(configs(&tables)),
            state: RwLock::new(State::new(tables)),
            resources: Resources::new(resources),
        }
    }

    /// Where all of it is kept.
    pub(crate) fn store(&self) -> &dyn Store {
        self.store.as_ref()
    }

    /// What else is kept in memory.
    pub(crate) const fn resources(&self) -> &Resources {
        &self.resources
    }

    /// Keeps the tables up to date until shutdown.
    pub(crate) async fn follow(self: Arc<Self>, watch: Watch, shutdown: ShutdownToken) {
        let mut watch = watch;
        let mut backoff = Backoff::new();
        loop {
            let next = tokio::select! {
                () = shutdown.cancelled() => return,
                next = watch.next() => next.unwrap_or(Err(WatchError::Closed)),
            };
            match next {
                Ok(Watched::Batch(batch)) => self.take_in(&batch),
                Ok(Watched::CaughtUp(revision)) => {
                    backoff.reset();
                    self.reach(revision);
                }
                Err(WatchError::Closed) if shutdown.is_cancelled() => return,
                Err(error) => {
                    tracing::warn!(error = %error, "the inventory's watch ended, starting it again");
                    tokio::select! {
                        () = shutdown.cancelled() => return,
                        () = tokio::time::sleep(backoff.next()) => {}
                    }
                    if let Some(again) = self.restart(&error).await {
                        watch = again;
                    }
                }
            }
        }
    }

    async fn restart(&self, cause: &WatchError) -> Option<Watch> {
        let outcome = match cause {
            WatchError::Compacted { .. } | WatchError::Ahead { .. } => self.reload().await,
            _ => {
                let revision = self.revision();
                self.store.watch(bytes::Bytes::new(), revision).await
            }
        };
        match outcome {
            Ok(watch) => Some(watch),
            Err(error) => {
                tracing::warn!(error = %error, "cannot watch the state store");
                // An ended watch, so that the loop comes back with this error's own remedy.
                Some(futures::stream::once(std::future::ready(Err(error))).boxed())
            }
        }
    }

    /// Reads everything again. Watchers are ended: what they missed is not known.
    async fn reload(&self) -> Result<Watch, WatchError> {
        let (Read { tables, resources }, watch) = read_all(&self.store).await?;
        let (revision, roles) = (tables.revision, Arc::new(tables.roles()));
        let configs = configs(&tables);
        {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            state.databases.close();
            state.servers.close();
            *state = State::new(tables);
        }
        self.resources.replace(resources);
        self.roles.send_replace(roles);
        self.configs.send_replace(configs);
        self.reached.send_replace(revision);
        Ok(watch)
    }

    fn take_in(&self, batch: &Batch) {
        self.resources.take_in(batch);
        let (roles, configs) = {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            let Effects {
                databases,
                servers,
                roles,
                configs: changed,
            } = state.tables.apply(batch);
            let revision = batch.revision;
            state.databases.tell(RowChanges {
                revision,
                changes: databases,
            });
            state.servers.tell(RowChanges {
                revision,
                changes: servers,
            });
            (
                roles.then(|| Arc::new(state.tables.roles())),
                changed.then(|| configs(&state.tables)),
            )
        };
        if let Some(configs) = configs {
            self.configs.send_replace(configs);
        }
        if let Some(roles) = roles {
            self.roles.send_replace(roles);
        }
        self.reached.send_replace(batch.revision);
    }

    fn reach(&self, revision: u64) {
        self.resources.reach(revision);
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.tables.revision = state.tables.revision.max(revision);
        self.reached.send_replace(state.tables.revision);
    }

    /// The tables, for a short look.
    pub(crate) fn tables(&self) -> Look<'_> {
        Look(self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The store's revision that is shown.
    pub(crate) fn revision(&self) -> u64 {
        *self.reached.borrow()
    }

    /// The roles now.
    pub(crate) fn roles(&self) -> Arc<Roles> {
        self.roles.borrow().clone()
    }

    /// The roles now, and each time they change.
    pub(crate) fn watch_roles(&self) -> cell::Receiver<Arc<Roles>> {
        self.roles.subscribe()
    }

    /// Every `discovery_config` now, and each time any changes.
    pub(crate) fn watch_configs(&self) -> cell::Receiver<Arc<Configs>> {
        self.configs.subscribe()
    }

    /// Waits until a revision is shown, so that who wrote reads what it wrote; gives up after a while.
    pub(crate) async fn reached(&self, revision: u64) {
        let waited = tokio::time::timeout(REACH_TIMEOUT, self.shows(revision)).await;
        if waited.is_err() {
            tracing::warn!(
                revision,
                "the inventory in memory is behind the state store"
            );
        }
    }

    /// Waits until everything is shown that is stored now.
    ///
    /// # Errors
    ///
    /// The store cannot be asked what that is.
    pub(crate) async fn catch_up(&self) -> Result<(), StoreUnavailable> {
        let newest = self.store.range(RangeQuery {
            limit: 1,
            ..RangeQuery::prefix(crate::keys::CLUSTER)
        });
        self.reached(newest.await?.revision).await;
        Ok(())
    }

    /// Waits until a revision is shown, however long that takes.
    pub(crate) async fn shows(&self, revision: u64) {
        let mut reached = self.reached.subscribe();
        // The sender is ours, so it cannot be gone.
        let _ = reached.wait_for(|now| *now >= revision).await;
    }

    /// What each process announced, in order of host and service.
    pub(crate) fn hosts(&self) -> Vec<((String, String), Arc<v1::Hello>)> {
        let look = self.tables();
        look.hosts
            .iter()
            .map(|(key, hello)| (key.clone(), hello.clone()))
            .collect()
    }
}

/// A short look at the tables; writers wait while it lasts.
pub(crate) struct Look<'l>(RwLockReadGuard<'l, State>);

impl std::ops::Deref for Look<'_> {
    type Target = Tables;

    fn deref(&self) -> &Tables {
        &self.0.tables
    }
}

/// All that was read of the store.
struct Read {
    tables: Tables,
    resources: resources::Tables,
}

impl Read {
    /// Where it is: what every table keeps, each once.
    fn prefixes() -> Vec<&'static str> {
        let mut prefixes = resources::Tables::prefixes();
        prefixes.extend(Tables::PREFIXES);
        prefixes.sort_unstable();
        prefixes.dedup();
        prefixes
    }

    fn apply(&mut self, batch: &Batch) {
        self.resources.apply(batch);
        self.tables.apply(batch);
    }
}

/// Reads all tables and starts the watch that goes on from there.
async fn read_all(store: &Arc<dyn Store>) -> Result<(Read, Watch), WatchError> {
    let mut read = Read {
        tables: Tables::default(),
        resources: resources::Tables::new(),
    };
    let mut start = None;
    for prefix in Read::prefixes() {
        read_prefix(store, prefix, &mut read, &mut start).await?;
    }
    let start = start.unwrap_or_default();
    read.tables.loaded(start);
    read.resources.began(start);
    let mut watch = store.watch(bytes::Bytes::new(), start).await?;
    // What was written while the pages were read.
    while let Some(watched) = watch.next().await {
        match watched? {
            Watched::Batch(batch) => read.apply(&batch),
            Watched::CaughtUp(revision) => {
                let Read { tables, resources } = &mut read;
                tables.revision = tables.revision.max(revision);
                let serving = tables.servers.values().map(|row| row.host_id());
                resources.loaded(tables.revision, serving);
                return Ok((read, watch));
            }
        }
    }
    Err(WatchError::Closed)
}

/// Reads what is under a prefix, one page ahead of the one that is taken in: half of a start is spent on each.
async fn read_prefix(
    store: &Arc<dyn Store>,
    prefix: &'static str,
    read: &mut Read,
    start: &mut Option<u64>,
) -> Result<(), StoreUnavailable> {
    let mut ahead = Some(read_ahead(store, RangeQuery::prefix(prefix)));
    while let Some(page) = ahead.take() {
        let page = page.await.map_err(|error| StoreUnavailable {
            action: "read",
            source: error.into(),
        })??;
        start.get_or_insert(page.revision);
        if page.more {
            let after = page.entries.last().map(|entry| entry.key.clone());
            let query = RangeQuery {
                after,
                ..RangeQuery::prefix(prefix)
            };
            ahead = Some(read_ahead(store, query));
        }
        for entry in page.entries {
            read.resources.load(&entry);
            read.tables.load(entry);
        }
    }
    Ok(())
}

fn read_ahead(
    store: &Arc<dyn Store>,
    query: RangeQuery,
) -> JoinHandle<Result<Range, StoreUnavailable>> {
    let store = store.clone();
    tokio::spawn(async move { store.range(query).await })
}

#[cfg(test)]
mod tests;
