//! The inventory in memory: what every listing and every watch is served from.
//!
//! One task ([`Inventory::follow`]) reads the store's watch, and for each transaction changes the tables and tells the
//! watchers. The order is: tables, watchers, then [`Inventory::reached`]; so whoever waited for a revision finds it
//! in a listing.
//!
//! Not here: writing (the ledger, presence and the access records write to the store), gRPC.

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
use tokio::sync::{broadcast, watch as cell};

use crate::store::{Batch, RangeQuery, Store, StoreUnavailable, Watch, WatchError, Watched};
pub(crate) use list::ListRows;
pub(crate) use query::{Conditions, ListQuery, ListRequest, QueryError};
use tables::{DatabaseRow, Effects, Roles, RowChanges, ServerRow, Tables};
pub(crate) use view::Viewer;
pub(crate) use watch::{Filter, RowEvent, WatchEnd, WatchRows};

/// Transactions that a watcher may be behind before it is told to start again from where it is.
const WATCHER_LAG_MAX: usize = 1024;
/// How long to wait for the tables to show what was just written.
const REACH_TIMEOUT: Duration = Duration::from_secs(5);

/// The inventory in memory.
pub(crate) struct Inventory {
    store: Arc<dyn Store>,
    state: RwLock<State>,
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
    databases: broadcast::Sender<Arc<RowChanges<DatabaseRow>>>,
    servers: broadcast::Sender<Arc<RowChanges<ServerRow>>>,
}

impl State {
    fn new(tables: Tables) -> Self {
        Self {
            tables,
            databases: broadcast::channel(WATCHER_LAG_MAX).0,
            servers: broadcast::channel(WATCHER_LAG_MAX).0,
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
        let (tables, watch) = read_all(store.as_ref()).await?;
        Ok((Arc::new(Self::new(store, tables)), watch))
    }

    fn new(store: Arc<dyn Store>, tables: Tables) -> Self {
        Self {
            store,
            reached: cell::Sender::new(tables.revision),
            roles: cell::Sender::new(Arc::new(tables.roles())),
            configs: cell::Sender::new(configs(&tables)),
            state: RwLock::new(State::new(tables)),
        }
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
        let (tables, watch) = read_all(self.store.as_ref()).await?;
        let (revision, roles) = (tables.revision, Arc::new(tables.roles()));
        let configs = configs(&tables);
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = State::new(tables);
        self.roles.send_replace(roles);
        self.configs.send_replace(configs);
        self.reached.send_replace(revision);
        Ok(watch)
    }

    fn take_in(&self, batch: &Batch) {
        let (roles, configs) = {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            let Effects {
                databases,
                servers,
                roles,
                configs: changed,
            } = state.tables.apply(batch);
            // Nobody watches when sending fails.
            if !databases.is_empty() {
                let _ = state.databases.send(Arc::new(RowChanges {
                    revision: batch.revision,
                    changes: databases,
                }));
            }
            if !servers.is_empty() {
                let _ = state.servers.send(Arc::new(RowChanges {
                    revision: batch.revision,
                    changes: servers,
                }));
            }
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
        let mut reached = self.reached.subscribe();
        let waited =
            tokio::time::timeout(REACH_TIMEOUT, reached.wait_for(|now| *now >= revision)).await;
        if waited.is_err() {
            tracing::warn!(
                revision,
                "the inventory in memory is behind the state store"
            );
        }
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

/// Reads all tables and starts the watch that goes on from there.
async fn read_all(store: &dyn Store) -> Result<(Tables, Watch), WatchError> {
    let mut tables = Tables::default();
    let mut start = None;
    for prefix in Tables::PREFIXES {
        read_prefix(store, prefix, &mut tables, &mut start).await?;
    }
    let start = start.unwrap_or_default();
    tables.loaded(start);
    let mut watch = store.watch(bytes::Bytes::new(), start).await?;
    // What was written while the pages were read.
    while let Some(watched) = watch.next().await {
        match watched? {
            Watched::Batch(batch) => drop(tables.apply(&batch)),
            Watched::CaughtUp(revision) => {
                tables.revision = tables.revision.max(revision);
                return Ok((tables, watch));
            }
        }
    }
    Err(WatchError::Closed)
}

async fn read_prefix(
    store: &dyn Store,
    prefix: &'static str,
    tables: &mut Tables,
    start: &mut Option<u64>,
) -> Result<(), StoreUnavailable> {
    let mut query = RangeQuery::prefix(prefix);
    loop {
        let page = store.range(query.clone()).await?;
        start.get_or_insert(page.revision);
        query.after = page.entries.last().map(|entry| entry.key.clone());
        for entry in page.entries {
            tables.load(entry);
        }
        if !page.more {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests;
