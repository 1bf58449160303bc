//! Restoring: a file that has arrived whole and is sound becomes the state.

use std::{io, sync::Arc};

use bytes::Bytes;
use tidegate_proto::{
    convert,
    v1::{BackupHeader, RestoreBackupResponse},
};
use tidegate_service::backup::BackupError;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    BackupParts, Backups,
    kept::{Kept, is_made_at_first_start, kept},
    marker::{self, Marker, MarkerError},
    merge::{Merge, Tally},
    spool::Spool,
};
use crate::{
    audit::event,
    keys,
    record::{RestoreRecord, encode},
    store::{CommitError, RangeQuery, StoreUnavailable, Txn},
};

/// Walks over the state until one finds nothing to change. A second one finds what was written by a request that had
/// begun before the first.
const WALKS_MAX: usize = 4;

/// Why nothing, or not all, was restored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    /// Another backup is made or restored here.
    #[error("another backup is being made or restored: wait for it")]
    Busy,
    /// The file is no sound backup: nothing was written.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// It is of another cluster: nothing was written.
    #[error("the backup is of cluster `{found}`, and this is `{ours}`")]
    Cluster {
        /// Whose it is.
        found: String,
        /// Who we are.
        ours: String,
    },
    /// The store did not take a change.
    #[error("could not write all of the backup: restore it again")]
    Commit(#[source] CommitError),
    /// Another restore goes on at another instance, or something kept changing the state.
    #[error("the state was changed by others while it was restored: restore it again")]
    Contended,
    /// The marker cannot be read.
    #[error(transparent)]
    Marker(#[from] MarkerError),
    /// The state is in use: nothing was written.
    #[error(
        "the state is not new, it holds `{sample}` for one: with `--force` all of it is replaced by the backup"
    )]
    NotNew {
        /// A key that first start does not make.
        sample: String,
    },
    /// The file cannot be taken in.
    #[error("cannot take the backup in")]
    Spool(#[source] io::Error),
    /// The store does not answer. Some of it may be written: restore it again.
    #[error(transparent)]
    Unavailable(#[from] StoreUnavailable),
}

impl From<CommitError> for RestoreError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict { .. } => Self::Contended,
            CommitError::Unavailable(unavailable) => unavailable.into(),
            other => Self::Commit(other),
        }
    }
}

/// A file that is on its way.
pub(crate) struct Incoming {
    parts: BackupParts,
    spool: Spool,
    _turn: OwnedSemaphorePermit,
}

impl Backups {
    /// Begins to take a file in.
    pub(crate) fn receive(&self) -> Result<Incoming, RestoreError> {
        let turn = Arc::clone(&self.turn).try_acquire_owned();
        Ok(Incoming {
            _turn: turn.map_err(|_| RestoreError::Busy)?,
            spool: Spool::new(&self.parts.folder).map_err(RestoreError::Spool)?,
            parts: self.parts.clone(),
        })
    }
}

impl Incoming {
    /// Takes in what comes next of the file.
    pub(crate) async fn push(mut self, chunk: Bytes) -> Result<Self, RestoreError> {
        self.spool = self.spool.push(chunk).await.map_err(RestoreError::Spool)?;
        Ok(self)
    }

    /// Restores the file, which is whole now; with `force` also where the state is in use.
    pub(crate) async fn restore(
        self,
        actor: &str,
        force: bool,
    ) -> Result<RestoreBackupResponse, RestoreError> {
        let Self {
            parts,
            spool,
            _turn,
        } = self;
        let (spool, checked) = spool.check().await?;
        let header = checked.header().clone();
        let sha256 = checked.sha256().unwrap_or_default().to_vec();
        if header.cluster != parts.cluster.as_str() {
            return Err(RestoreError::Cluster {
                found: header.cluster,
                ours: parts.cluster.to_string(),
            });
        }
        let before = marker::read(parts.store.as_ref()).await?;
        let was_cut_off = before
            .record
            .as_ref()
            .is_some_and(|record| record.finished_at.is_none());
        if !force && !was_cut_off {
            check_new(&parts).await?;
        }
        let record = RestoreRecord {
            sha256,
            backup_created_at: header.created_at,
            begun_at: Some(convert::timestamp(parts.clock.now())),
            finished_at: None,
        };
        let begun = mark(&parts, &before, record).await?;
        tell(&parts, event::BACKUP_RESTORE_BEGIN, actor, &header);
        let tally = walk(&parts, &begun, &spool).await?;
        let record = begun.record.clone().unwrap_or_default();
        let finished = RestoreRecord {
            finished_at: Some(convert::timestamp(parts.clock.now())),
            ..record
        };
        tell(&parts, event::BACKUP_RESTORE, actor, &header);
        mark(&parts, &begun, finished).await?;
        Ok(RestoreBackupResponse {
            header: Some(header),
            entries: tally.entries,
            written: tally.written,
            deleted: tally.deleted,
            expired: tally.expired,
        })
    }
}

/// Walks until nothing is left to change.
async fn walk(parts: &BackupParts, marker: &Marker, spool: &Spool) -> Result<Tally, RestoreError> {
    let mut total = Tally::default();
    for _ in 0..WALKS_MAX {
        let entries = spool.entries().map_err(RestoreError::Spool)??;
        let now = parts.clock.now();
        let walked = Merge::new(parts.store.as_ref(), marker.revision, entries, now)
            .run()
            .await?;
        total = Tally {
            written: total.written + walked.written,
            deleted: total.deleted + walked.deleted,
            ..walked
        };
        if walked.written == 0 && walked.deleted == 0 {
            return Ok(total);
        }
    }
    Err(RestoreError::Contended)
}

/// Refuses a state that anybody has used.
async fn check_new(parts: &BackupParts) -> Result<(), RestoreError> {
    let mut query = RangeQuery::prefix("");
    loop {
        let page = parts.store.range(query.clone()).await?;
        let used = page
            .entries
            .iter()
            .find(|entry| kept(entry) != Kept::Never && !is_made_at_first_start(&entry.key));
        if let Some(used) = used {
            return Err(RestoreError::NotNew {
                sample: used.key.escape_ascii().to_string(),
            });
        }
        if !page.more {
            return Ok(());
        }
        query.after = page.entries.last().map(|entry| entry.key.clone());
    }
}

/// Writes the marker, if it is still the one that was read.
async fn mark(
    parts: &BackupParts,
    before: &Marker,
    record: RestoreRecord,
) -> Result<Marker, RestoreError> {
    let txn = match before.record {
        Some(_) => Txn::new().at(keys::restore(), before.revision),
        None => Txn::new().absent(keys::restore()),
    };
    let txn = txn.put(keys::restore(), encode(&record));
    let marker = Marker {
        revision: parts.store.commit(txn).await?,
        record: Some(record),
    };
    parts.restores.note(marker.clone());
    Ok(marker)
}

fn tell(parts: &BackupParts, kind: event::Kind, actor: &str, header: &BackupHeader) {
    let mut told = event::new(kind);
    actor.clone_into(&mut told.user);
    let made = header
        .created_at
        .and_then(|at| convert::instant(&at).ok())
        .map_or_else(String::new, |at| at.to_string());
    told.fields.insert("backup_created".to_owned(), made);
    let revision = header.revision.to_string();
    told.fields.insert("backup_revision".to_owned(), revision);
    parts.audit.record(told);
}
