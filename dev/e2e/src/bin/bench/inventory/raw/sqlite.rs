//! A file of the embedded store's schema, written by `rusqlite` alone.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result};
use rusqlite::{Connection, OpenFlags, params_from_iter, types::Value};

use crate::inventory::load::PUBLISHERS;

/// Ids of the log that one revision has room for: `revision * PLACES + place`.
const PLACES: i64 = 1 << 20;
/// The settings that the store opens its file with.
const SETTINGS: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA wal_autocheckpoint = 8000;
    PRAGMA cache_size = -16384;
";

type Row = Vec<Value>;

/// The file, and the service's, which is only read.
pub(in crate::inventory) struct RawSqlite {
    service: Connection,
    raw: Connection,
    files: [PathBuf; 3],
    insert: String,
    /// The last id that was copied.
    seen: i64,
}

impl RawSqlite {
    pub(super) fn open(state: &Path, dir: &Path) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let service = Connection::open_with_flags(state, flags)?;
        let schema: String = service
            .query_row(
                "SELECT sql FROM sqlite_master WHERE name = 'log'",
                [],
                |row| row.get(0),
            )
            .context("the embedded store has no table `log`")?;
        let columns = service.prepare("SELECT * FROM log")?.column_count();
        let places = vec!["?"; columns].join(", ");
        let files = ["raw.db", "raw.db-wal", "raw.db-shm"].map(|name| dir.join(name));
        let raw = Connection::open(&files[0])?;
        raw.execute_batch(SETTINGS)?;
        raw.execute_batch(&schema)?;
        Ok(Self {
            service,
            raw,
            files,
            insert: format!("INSERT INTO log VALUES ({places})"),
            seen: -1,
        })
    }

    pub(super) fn catch_up(&mut self) -> Result<f64> {
        let rows = self.news()?;
        let started = Instant::now();
        for batch in batches(&rows) {
            let transaction = self.raw.transaction()?;
            let mut insert = transaction.prepare_cached(&self.insert)?;
            for row in batch {
                insert.execute(params_from_iter(row))?;
            }
            drop(insert);
            transaction.commit()?;
        }
        let seconds = started.elapsed().as_secs_f64();
        self.seen = rows.last().map_or(self.seen, id);
        Ok(seconds)
    }

    fn news(&self) -> Result<Vec<Row>> {
        let mut statement = self
            .service
            .prepare_cached("SELECT * FROM log WHERE id > ? ORDER BY id")?;
        let columns = statement.column_count();
        let rows = statement.query_map([self.seen], |row| {
            (0..columns).map(|at| row.get(at)).collect()
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

impl Drop for RawSqlite {
    fn drop(&mut self) {
        // The disk is needed for what is measured next; what stays goes with the laboratory's folder.
        for file in &self.files {
            let _ = fs::remove_file(file);
        }
    }
}

fn id(row: &Row) -> i64 {
    match row.first() {
        Some(Value::Integer(id)) => *id,
        _ => 0,
    }
}

/// Rows as the store writes them: one SQLite transaction for what waits, which is a revision of each publisher.
fn batches(rows: &[Row]) -> impl Iterator<Item = &[Row]> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        let mut revisions = 0;
        let mut last = None;
        let end = rest.iter().position(|row| {
            let revision = id(row) / PLACES;
            revisions += usize::from(last != Some(revision));
            last = Some(revision);
            revisions > PUBLISHERS
        });
        let (batch, after) = rest.split_at(end.unwrap_or(rest.len()));
        rest = after;
        (!batch.is_empty()).then_some(batch)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_holds_whole_revisions_and_one_of_each_publisher() {
        let rows: Vec<Row> = (1..=12)
            .flat_map(|revision| [revision * PLACES, revision * PLACES + 1])
            .map(|id| vec![Value::Integer(id)])
            .collect();
        let sizes: Vec<usize> = batches(&rows).map(<[Row]>::len).collect();
        assert_eq!(sizes, [10, 10, 4]);
    }
}
