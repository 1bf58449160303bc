//! Reads, on connections of their own beside the writer's.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use tokio::sync::Semaphore;

use super::{Batch, Entry, LeaseId, Range, RangeQuery, StoreUnavailable, schema};
use crate::store::{Change, RANGE_ENTRIES_MAX};

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

fn lease(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<LeaseId>> {
    Ok(row.get::<_, Option<u64>>(index)?.map(LeaseId))
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        key: row.get::<_, Vec<u8>>(0)?.into(),
        value: row.get::<_, Vec<u8>>(1)?.into(),
        created: number(row, 2)?,
        modified: number(row, 3)?,
        lease: lease(row, 4)?,
    })
}

/// A number in `meta`.
pub(super) fn meta(connection: &Connection, name: &str) -> rusqlite::Result<u64> {
    connection
        .prepare_cached("SELECT value FROM meta WHERE name = ?1")?
        .query_row([name], |row| number(row, 0))
}

pub(super) fn get(connection: &Connection, key: &[u8]) -> rusqlite::Result<Option<Entry>> {
    connection
        .prepare_cached("SELECT key, value, created, modified, lease FROM kv WHERE key = ?1")?
        .query_row([key], entry)
        .optional()
}

pub(super) fn range(connection: &Connection, query: &RangeQuery) -> rusqlite::Result<Range> {
    let limit = query.limit.clamp(1, RANGE_ENTRIES_MAX);
    let revision = meta(connection, "revision")?;
    let start: Vec<u8> = match &query.after {
        // The key's successor, so that one comparison serves both cases.
        Some(after) => [after.as_ref(), b"\0"].concat().max(query.prefix.to_vec()),
        None => query.prefix.to_vec(),
    };
    let mut statement = connection.prepare_cached(
        "SELECT key, value, created, modified, lease FROM kv
         WHERE key >= ?1 AND key < ?2 ORDER BY key LIMIT ?3",
    )?;
    let mut entries = statement
        .query_map(params![start, prefix_end(&query.prefix), limit + 1], entry)?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let more = entries.len() > limit;
    entries.truncate(limit);
    Ok(Range {
        entries,
        revision,
        more,
    })
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
        "SELECT revision, key, value, created, lease, prev_value, prev_created, prev_modified, prev_lease
         FROM history WHERE revision > ?1 AND key >= ?2 AND key < ?3 ORDER BY revision, place",
    )?;
    let mut rows = statement.query(params![after, prefix, prefix_end(prefix)])?;
    let mut batches: Vec<Batch> = Vec::new();
    let mut count = 0;
    let mut more = false;
    while let Some(row) = rows.next()? {
        let at = number(row, 0)?;
        let change = change(row, at)?;
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

fn change(row: &Row<'_>, revision: u64) -> rusqlite::Result<Change> {
    let key: Bytes = row.get::<_, Vec<u8>>(1)?.into();
    let current = match row.get::<_, Option<Vec<u8>>>(2)? {
        Some(value) => Some(Entry {
            key: key.clone(),
            value: value.into(),
            created: number(row, 3)?,
            modified: revision,
            lease: lease(row, 4)?,
        }),
        None => None,
    };
    let previous = match row.get::<_, Option<Vec<u8>>>(5)? {
        Some(value) => Some(Entry {
            key: key.clone(),
            value: value.into(),
            created: number(row, 6)?,
            modified: number(row, 7)?,
            lease: lease(row, 8)?,
        }),
        None => None,
    };
    Ok(Change {
        key,
        current,
        previous,
    })
}
