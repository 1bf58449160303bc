//! Resources of every kind, as they are asked for: listings, counts and watches of what is small enough to be looked at
//! one by one. Databases and database servers are the inventory's, with an index of their own.
//!
//! The tables are fed by the inventory's watch of the store, transaction by transaction: whoever waited for a revision
//! there finds it here.
//!
//! A kind is one file and one line in [`kind::KINDS`]. Not here: who may ask ([`crate::grpc`] decides by
//! [`kind::Kind::rights`]), writing (each kind has its own).

mod discovery_config;
mod instance;
mod kind;
mod list;
mod lock;
pub(crate) mod mask;
mod proxy;
mod role;
mod scope;
mod table;
mod tally;
mod token;
mod user;
mod watch;

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use tidegate_proto::v1;
use tokio::sync::broadcast;

use crate::store::Batch;
pub(crate) use kind::{Hosts, KINDS, Kind, Rights, Scans, kind};
pub(crate) use list::Asking;
use table::Changes;
pub(crate) use table::{Row, Tables};
pub(crate) use tally::{By, Tally};
pub(crate) use watch::{KindFilter, WatchParts, watch};

/// Transactions that a watcher may be behind before it is told to start again from where it is.
const WATCHER_LAG_MAX: usize = 1024;

/// The resources in memory.
pub(crate) struct Resources(RwLock<State>);

struct State {
    tables: Tables,
    changes: broadcast::Sender<Arc<Changes>>,
}

impl State {
    fn new(tables: Tables) -> Self {
        Self {
            tables,
            changes: broadcast::channel(WATCHER_LAG_MAX).0,
        }
    }
}

impl Resources {
    /// With what the store had.
    pub(crate) fn new(tables: Tables) -> Self {
        Self(RwLock::new(State::new(tables)))
    }

    fn look(&self) -> RwLockReadGuard<'_, State> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in one transaction, and tells who watches.
    pub(crate) fn take_in(&self, batch: &Batch) {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let changes = state.tables.apply(batch);
        if !changes.is_empty() {
            // Nobody watches when sending fails.
            let _ = state.changes.send(Arc::new(Changes {
                revision: batch.revision,
                changes,
            }));
        }
    }

    /// Nothing changed up to a revision.
    pub(crate) fn reach(&self, revision: u64) {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        state.tables.revision = state.tables.revision.max(revision);
    }

    /// Everything was read again. Watchers are ended: what they missed is not known.
    pub(crate) fn replace(&self, tables: Tables) {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut tables = tables;
        tables.fixed_as(&state.tables);
        *state = State::new(tables);
    }

    /// Adds join tokens that are in no store.
    pub(crate) fn fix_tokens(&self, tokens: Vec<v1::Token>) {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for token in tokens {
            let id = format!("static/{}", token.id);
            state.tables.fix(&token::Tokens, id, token::fixed(token));
        }
    }

    /// A kind's rows, how many databases each host serves, and the revision of both.
    fn rows(&self, kind: &dyn Kind) -> (Vec<Arc<Row>>, Arc<HashMap<String, u32>>, u64) {
        let look = self.look();
        let rows = look.tables.rows(kind);
        let rows = rows.map(|rows| rows.values().cloned().collect());
        (
            rows.unwrap_or_default(),
            look.tables.serving.clone(),
            look.tables.revision,
        )
    }
}

#[cfg(test)]
mod tests;
