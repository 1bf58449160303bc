//! The discovery ledger: who scans what, and what scans change.
//!
//! [`plan`] and [`share`] decide; [`publish`] reads the inventory, carries plans out, and remembers what it did;
//! [`scopes`] hands out the right to scan; [`retire`] ends scopes that nobody asks for; [`status`] tells what is known
//! of each; [`whatif`] says what another configuration would change.

mod adopt;
mod frames;
#[cfg(test)]
mod lives;
pub(crate) mod plan;
mod publish;
mod rescan;
mod retire;
mod scopes;
mod shadows;
mod share;
mod status;
mod step;
mod stored;
mod tell;
mod whatif;
mod workers;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tidegate_proto::{convert::instant, v1};
use tidegate_service::{clock::SharedClock, metrics::Metrics};

pub(crate) use adopt::AdoptError;
pub(crate) use frames::{Header, Items};
pub(crate) use publish::{Begun, PublishError};
pub(crate) use rescan::RescanError;
pub(crate) use scopes::{AcquireError, Worker};
pub(crate) use status::{ListScopesError, stored_status};
pub(crate) use whatif::{Asking, Pushed, Request as PlanQuestion, Turn, WhatIfError};

use crate::{
    audit::AuditLog,
    inventory::Inventory,
    service::Timings,
    store::{Store, StoreUnavailable},
};
use shadows::Shadows;
use tell::Counters;
use workers::Watchers;

/// Scopes whose last attempt is remembered beyond what is stored.
const ATTEMPTS_MAX: usize = 100_000;
/// Times from scan to scan that are remembered of a scope: the longest is its period, so that a scan on request, which
/// comes early, does not count.
const INTERVALS: usize = 3;

/// A scan as its header told it.
#[derive(Clone, Debug)]
struct Attempt {
    complete: bool,
    started_at: Option<Timestamp>,
    finished_at: Option<prost_types::Timestamp>,
    failure: Option<v1::ScanFailure>,
    aws_calls: u32,
    left_out: Vec<v1::LeftOut>,
    /// The last times from start to start.
    intervals: [Duration; INTERVALS],
}

impl Attempt {
    /// The time from scan to scan; zero while it is not known.
    fn period(&self) -> Duration {
        self.intervals.iter().max().copied().unwrap_or_default()
    }
}

/// Names one scan of a scope: its epoch, and when it started.
type ScanMark = (u64, Option<prost_types::Timestamp>);

/// A scan that began.
#[derive(Debug)]
struct BegunScan {
    mark: ScanMark,
    /// The scan that had written the scope's record last by then.
    after: ScanMark,
}

/// What is known without the store, to one instance. Lost in a restart, as are only times.
#[derive(Debug, Default)]
struct Memory {
    /// Last scans, so that a scan that changed nothing costs no write.
    attempts: HashMap<String, Attempt>,
    /// The scans that began last. A restart breaks their streams.
    begun: HashMap<String, BegunScan>,
    /// What scopes saw and do not own; what others wrote of it is read again before it matters.
    shadows: Shadows,
    /// When scopes that nobody names are over.
    retiring: HashMap<String, Timestamp>,
}

/// What the ledger stands on.
pub(crate) struct LedgerParts {
    /// The state.
    pub(crate) store: Arc<dyn Store>,
    /// What is shown of it.
    pub(crate) inventory: Arc<Inventory>,
    /// Tells what happened.
    pub(crate) audit: AuditLog,
    /// The time.
    pub(crate) clock: SharedClock,
    /// Leases and times of grace.
    pub(crate) timings: Timings,
}

/// The ledger.
pub(crate) struct Ledger {
    store: Arc<dyn Store>,
    inventory: Arc<Inventory>,
    audit: AuditLog,
    clock: SharedClock,
    timings: Timings,
    counters: Counters,
    watchers: Watchers,
    memory: Mutex<Memory>,
}

impl Ledger {
    /// A ledger over a store and the inventory that follows it.
    ///
    /// # Errors
    ///
    /// [`StoreUnavailable`] when what is stored of scopes cannot be read.
    pub(crate) async fn open(
        parts: LedgerParts,
        metrics: &Metrics,
    ) -> Result<Self, StoreUnavailable> {
        let ledger = Self {
            store: parts.store,
            inventory: parts.inventory,
            audit: parts.audit,
            clock: parts.clock,
            timings: parts.timings,
            counters: Counters::new(metrics),
            watchers: Watchers::default(),
            memory: Mutex::default(),
        };
        // Reads the shadows in.
        ledger.scope_records().await?;
        Ok(ledger)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers that a scan began, and after which.
    fn begins(&self, header: &Header, after: ScanMark) {
        let mut memory = self.memory();
        let scope_id = &header.message.id;
        if memory.begun.contains_key(scope_id) || memory.begun.len() < ATTEMPTS_MAX {
            let mark = (header.epoch, header.started_at);
            let begun = BegunScan { mark, after };
            memory.begun.insert(scope_id.clone(), begun);
        }
    }

    /// Remembers a scan that was taken.
    fn remember(&self, header: &Header) {
        let mut memory = self.memory();
        let before = memory.attempts.get(&header.message.id);
        if before.is_none() && memory.attempts.len() >= ATTEMPTS_MAX {
            return;
        }
        let started_at = header.started_at.as_ref().and_then(|at| instant(at).ok());
        let mut intervals = before.map_or([Duration::ZERO; INTERVALS], |before| before.intervals);
        if let (Some(now), Some(last)) = (started_at, before.and_then(|before| before.started_at)) {
            intervals.rotate_left(1);
            intervals[INTERVALS - 1] =
                Duration::try_from(now.duration_since(last)).unwrap_or_default();
        }
        let attempt = Attempt {
            complete: header.complete,
            started_at,
            finished_at: header.finished_at,
            failure: header.failure.clone(),
            aws_calls: header.aws_calls,
            left_out: header.left_out.clone(),
            intervals,
        };
        memory.attempts.insert(header.message.id.clone(), attempt);
    }

    /// The time from one scan of a scope to the next, as seen since the start; zero while it is not known.
    fn period_of(&self, scope_id: &str) -> Duration {
        let memory = self.memory();
        memory
            .attempts
            .get(scope_id)
            .map(Attempt::period)
            .unwrap_or_default()
    }
}
