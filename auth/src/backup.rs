//! The whole state in one file, and back: from one store into another, of the same or another sort.
//!
//! Making one ([`create`]) reads every key at one revision, a page at a time. Restoring ([`restore`]) takes the whole
//! file in before it writes anything, then makes the store the same, key by key in order; what is the same already is not
//! written. A [`marker`] in the store says that it is going on: from then on no instance serves anything but another try,
//! and when it is done every instance ends, to be started again with what it finds.
//!
//! Invariants:
//! - what lives with a process (presence, workers, who scans) is in no backup, and no restore touches it; what has an end
//!   of its own keeps it ([`kept`]);
//! - values are copied as they are stored, so sealed keys stay sealed, for whoever has the key that opens them;
//! - a store whose restore was cut off says so for as long as it lasts, and repeating the restore puts it right.
//!
//! Not here: the shape of the file ([`tidegate_service::backup`]); the audit log, which is each instance's own and stays.

mod create;
mod kept;
mod marker;
mod merge;
mod restore;
mod spool;

use std::{path::PathBuf, sync::Arc};

use tidegate_core::ClusterName;
use tidegate_service::clock::SharedClock;
use tokio::sync::Semaphore;

use crate::{audit::AuditLog, store::Store};
pub(crate) use create::CreateError;
pub(crate) use marker::{MarkerError, Restores};
pub(crate) use restore::{Incoming, RestoreError};

/// Largest piece of a file in one message.
pub(crate) const CHUNK_BYTES_MAX: usize = 1024 * 1024;

/// Makes and restores backups.
pub(crate) struct Backups {
    parts: BackupParts,
    /// One backup at a time is made or restored: each holds a page of the state, or a file.
    turn: Arc<Semaphore>,
}

/// What backups are made of, and restored to.
#[derive(Clone)]
pub(crate) struct BackupParts {
    /// The state.
    pub(crate) store: Arc<dyn Store>,
    /// The cluster that it is of.
    pub(crate) cluster: ClusterName,
    /// Whether a restore is going on.
    pub(crate) restores: Arc<Restores>,
    /// Tells what happened.
    pub(crate) audit: AuditLog,
    /// The time.
    pub(crate) clock: SharedClock,
    /// Where files that arrive wait until they are whole.
    pub(crate) folder: PathBuf,
}

impl Backups {
    /// Over a store.
    pub(crate) fn new(parts: BackupParts) -> Self {
        Self {
            parts,
            turn: Arc::new(Semaphore::new(1)),
        }
    }
}

#[cfg(test)]
mod tests;
