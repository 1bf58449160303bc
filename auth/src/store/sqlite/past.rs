//! Reads of keys as they were at an earlier revision.
//!
//! The index knows where keys are now. What has changed since the revision is in the log, and the first change of a key
//! after it tells where the key was: at the change before, or nowhere.
//!
//! Invariant: nothing that a page needs has been given up, since the log keeps what was there at every revision that is
//! not compacted; whether the revision is, is read in the same snapshot as the log.

use std::{collections::BTreeMap, ops::Bound};

use bytes::Bytes;
use rusqlite::Connection;

use super::{
    Entry, PastError, RANGE_ENTRIES_MAX, Range, RangeQuery, SqliteStore, log_id, reader, start,
};

/// Some keys in order, and where they are in the log.
type Places = BTreeMap<Bytes, u64>;

/// A part of the keys of a query.
struct Part {
    /// After which key it begins; the query's prefix and `after` hold as well.
    query: RangeQuery,
    /// The key that it ends with; `None` is the end of the prefix.
    last: Option<Bytes>,
}

impl Part {
    fn holds(&self, key: &Bytes) -> bool {
        let begins = match start(&self.query) {
            Bound::Excluded(after) => key > after,
            Bound::Included(first) => key >= first,
            Bound::Unbounded => true,
        };
        begins
            && key.starts_with(&self.query.prefix)
            && self.last.as_ref().is_none_or(|last| key <= last)
    }
}

/// What one look found.
enum Found {
    Compacted(u64),
    Entries(Vec<Entry>),
    Future,
}

/// Reads a page as it was at a revision.
pub(super) async fn range(
    store: &SqliteStore,
    mut query: RangeQuery,
    revision: u64,
) -> Result<Range, PastError> {
    let limit = query.limit.clamp(1, RANGE_ENTRIES_MAX);
    // A part whose keys are all newer is empty: the next one is looked at then.
    loop {
        let (places, last) = now(store, &query, limit);
        let part = Part {
            query: query.clone(),
            last: last.clone(),
        };
        let read = store
            .readers
            .run(move |connection| look(connection, &part, places, revision));
        let mut entries = match read.await? {
            Found::Compacted(compacted) => return Err(PastError::Compacted { compacted }),
            Found::Future => return Err(PastError::Future { asked: revision }),
            Found::Entries(entries) => entries,
        };
        let more = last.is_some() || entries.len() > limit;
        if entries.is_empty() && more {
            query.after = last;
            continue;
        }
        entries.truncate(limit);
        return Ok(Range {
            entries,
            revision,
            more,
        });
    }
}

/// Where the next keys are now, and the last of them if there are more.
fn now(store: &SqliteStore, query: &RangeQuery, limit: usize) -> (Places, Option<Bytes>) {
    let heads = store.index.look();
    let mut keys = heads.under(&query.prefix, start(query));
    let places: Places = keys
        .by_ref()
        .take(limit)
        .map(|(key, head)| (key.clone(), head.id))
        .collect();
    let last = keys.next().and(places.keys().next_back().cloned());
    (places, last)
}

/// Puts right what has changed since, and reads what is left.
fn look(
    connection: &Connection,
    part: &Part,
    mut places: Places,
    revision: u64,
) -> rusqlite::Result<Found> {
    let compacted = reader::meta(connection, "compacted")?;
    if revision < compacted {
        return Ok(Found::Compacted(compacted));
    }
    if revision > reader::meta(connection, "revision")? {
        return Ok(Found::Future);
    }
    for (key, before) in changed_since(connection, part, revision)? {
        match before {
            Some(id) => places.insert(key, id),
            None => places.remove(&key),
        };
    }
    let places: Vec<(Bytes, u64)> = places.into_iter().collect();
    // What is gone after all was given up in between: then so was the revision.
    Ok(match reader::entries(connection, &places)? {
        Some(entries) => Found::Entries(entries),
        None => Found::Compacted(compacted.max(revision)),
    })
}

/// The keys of a part that changed after a revision, each with where it was before.
fn changed_since(
    connection: &Connection,
    part: &Part,
    revision: u64,
) -> rusqlite::Result<BTreeMap<Bytes, Option<u64>>> {
    let mut changed = BTreeMap::new();
    let mut statement =
        connection.prepare_cached("SELECT key, previous FROM log WHERE id >= ?1 ORDER BY id")?;
    let mut rows = statement.query([log_id(revision + 1, 0)])?;
    while let Some(row) = rows.next()? {
        let key = reader::blob(row, 0)?.unwrap_or_default();
        if part.holds(&key) {
            let before = row.get(1)?;
            changed.entry(key).or_insert(before);
        }
    }
    Ok(changed)
}
