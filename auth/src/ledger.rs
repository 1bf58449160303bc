//! The discovery ledger: who scans what, and what scans change.
//!
//! [`plan`] decides; [`publish`] reads the inventory, carries plans out, and remembers what it did; [`scopes`] hands out
//! the right to scan, and tells what is known of each scope.

mod frames;
pub(crate) mod plan;
mod publish;
mod scopes;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tidegate_proto::v1;

pub(crate) use frames::{Header, Items};
pub(crate) use publish::{Begun, PublishError};
pub(crate) use scopes::{AcquireError, Worker};

use crate::{audit::AuditLog, inventory::Inventory, store::Store};

/// Scopes whose last attempt is remembered beyond what is stored.
const ATTEMPTS_MAX: usize = 100_000;

/// A scan as its header told it.
#[derive(Clone, Debug)]
struct Attempt {
    complete: bool,
    finished_at: Option<prost_types::Timestamp>,
    failure: Option<v1::ScanFailure>,
    aws_calls: u32,
}

/// The ledger.
pub(crate) struct Ledger {
    store: Arc<dyn Store>,
    inventory: Arc<Inventory>,
    audit: AuditLog,
    scope_lease: Duration,
    /// Last scans, so that a scan that changed nothing costs no write. Lost in a restart, as is no more than a time.
    attempts: Mutex<HashMap<String, Attempt>>,
}

impl Ledger {
    /// A ledger over a store and the inventory that follows it.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        inventory: Arc<Inventory>,
        audit: AuditLog,
        scope_lease: Duration,
    ) -> Self {
        Self {
            store,
            inventory,
            audit,
            scope_lease,
            attempts: Mutex::default(),
        }
    }

    fn attempts(&self) -> MutexGuard<'_, HashMap<String, Attempt>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a scan that was taken.
    fn remember(&self, header: &Header) {
        let mut attempts = self.attempts();
        if attempts.len() < ATTEMPTS_MAX || attempts.contains_key(&header.message.id) {
            let attempt = Attempt {
                complete: header.complete,
                finished_at: header.finished_at,
                failure: header.failure.clone(),
                aws_calls: header.aws_calls,
            };
            attempts.insert(header.message.id.clone(), attempt);
        }
    }
}
