//! Reads, on connections of their own beside the writer's.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use tokio::sync::Semaphore;

use super::{Batch, Entry, LeaseId, StoreUnavailable, log_id, revision_of, schema};
use crate::store::Change;

/// Reads at a time, and connections kept.
const READERS_MAX: usize = 4;
/// Rows of history that one page reads; a page ends with a whole transaction.
const HISTORY_ROWS_MAX: usize = 2000;

/// Connections for reading, opened when first needed.
#[derive(Clone)]
pub(super) struct Readers {
    path: Arc<PathBuf>,
    permits: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Readers {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path: Arc::new(path),
            permits: Arc::new(Semaphore::new(READERS_MAX)),
            idle: Arc::default(),
        }
    }

    /// Runs a read in one snapshot on a blocking thread.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreUnavailable> {
        let failed = |source: crate::store::BoxError| StoreUnavailable {
            action: "read",
            source,
        };
        let permit = self
            .permits
            .clone()
            .acquire_owned()
            .await
            .map_err(|error| failed(error.into()))?;
        let (path, idle) = (self.path.clone(), self.idle.clone());
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let kept = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = match kept {
                Some(connection) => connection,
                None => schema::open_reader(&path)?,
            };
            let value = {
                let snapshot = connection.unchecked_transaction()?;
                read(&snapshot)?
            };
            idle.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(connection);
            Ok(value)
        })
        .await
        .map_err(|error| failed(error.into()))?
        .map_err(failed)
    }
}

/// The first key after all keys with this prefix. Keys are text, so none starts with the byte 0xff.
fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    match end.last_mut() {
        Some(last) => *last = last.saturating_add(1),
        None => end.push(0xff),
    }
    end
}

fn number(row: &Row<'_>, index: usize) -> rusqlite::Result<u64> {
    row.get(index)
}

pub(super) fn blob(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<Bytes>> {
    let bytes = row.get_ref(index)?.as_blob_or_null()?;
    Ok(bytes.map(Bytes::copy_from_slice))
}

/// The entry whose log id, value, creation and lease are at `first` and after; `None` for a deletion or no row.
fn entry(row: &Row<'_>, key: Bytes, first: usize) -> rusqlite::Result<Option<Entry>> {
    let Some(value) = blob(row, first + 1)? else {
        return Ok(None);
    };
    Ok(Some(Entry {
        key,
        value,
        created: number(row, first + 2)?,
        modified: revision_of(number(row, first)?),
        lease: row.get::<_, Option<u64>>(first + 3)?.map(LeaseId),
    }))
}

/// A number in `meta`.
pub(super) fn meta(connection: &Connection, name: &str) -> rusqlite::Result<u64> {
    connection
        .prepare_cached("SELECT value FROM meta WHERE name = ?1")?
        .query_row([name], |row| number(row, 0))
}

/// A key as a change left it; `None` when the log no longer has the change.
pub(super) fn logged(
    connection: &Connection,
    key: &Bytes,
    id: u64,
) -> rusqlite::Result<Option<Entry>> {
    connection
        .prepare_cached("SELECT id, value, created, lease FROM log WHERE id = ?1")?
        .query_row([id], |row| entry(row, key.clone(), 0))
        .optional()
        .map(Option::flatten)
}

/// Reads entries where the index says that they are; `None` when one of them has been given up since.
pub(super) fn entries(
    connection: &Connection,
    places: &[(Bytes, u64)],
) -> rusqlite::Result<Option<Vec<Entry>>> {
    places
        .iter()
        .map(|(key, id)| logged(connection, key, *id))
        .collect()
}

/// A part of history.
pub(super) struct History {
    /// Whole transactions, in order.
    pub(super) batches: Vec<Batch>,
    /// The store's revision that was read.
    pub(super) revision: u64,
    /// The last revision that is gone.
    pub(super) compacted: u64,
    /// Whether there is more after the last batch.
    pub(super) more: bool,
}

/// Reads transactions after a revision, about [`HISTORY_ROWS_MAX`] changes at a time.
pub(super) fn history(
    connection: &Connection,
    prefix: &[u8],
    after: u64,
) -> rusqlite::Result<History> {
    let revision = meta(connection, "revision")?;
    let compacted = meta(connection, "compacted")?;
    let mut statement = connection.prepare_cached(
        "SELECT now.key, now.id, now.value, now.created, now.lease,
                before.id, before.value, before.created, before.lease
         FROM log AS now LEFT JOIN log AS before ON before.id = now.previous
         WHERE now.id >= ?1 AND now.key >= ?2 AND now.key < ?3 ORDER BY now.id",
    )?;
    let first = log_id(after + 1, 0);
    let mut rows = statement.query(params![first, prefix, prefix_end(prefix)])?;
    let mut batches: Vec<Batch> = Vec::new();
    let mut count = 0;
    let mut more = false;
    while let Some(row) = rows.next()? {
        let at = revision_of(number(row, 1)?);
        let key = blob(row, 0)?.unwrap_or_default();
        let change = Change {
            current: entry(row, key.clone(), 1)?,
            previous: entry(row, key.clone(), 5)?,
            key,
        };
        match batches.last_mut().filter(|batch| batch.revision == at) {
            Some(batch) => batch.changes.push(change),
            None if count >= HISTORY_ROWS_MAX => {
                more = true;
                break;
            }
            None => batches.push(Batch {
                revision: at,
                changes: vec![change],
            }),
        }
        count += 1;
    }
    Ok(History {
        batches,
        revision,
        compacted,
        more,
    })
}
