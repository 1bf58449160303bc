//! Reads of a log, on connections of their own beside the writer's, each a bounded page: a long read does not hold
//! anybody up.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use prost::Message as _;
use rusqlite::{Connection, OptionalExtension as _, Row, params, params_from_iter, types::Value};
use tidegate_proto::{
    audit,
    v1::{AuditEvent, AuditRecord},
};
use tokio::sync::Semaphore;

use super::AuditUnavailable;
use crate::store::sqlite::open_reader;

/// Reads at a time, and connections kept.
const READERS_MAX: usize = 4;
/// Records of one page of a read of everything.
const PAGE_RECORDS_MAX: usize = 1000;
/// Bytes of records after which such a page ends; a record may go over.
const PAGE_BYTES_MAX: usize = 1024 * 1024;

/// Which events to search for. Empty texts and missing times are any.
#[derive(Clone, Debug, Default)]
pub(crate) struct EventQuery {
    /// Only this event.
    pub(crate) event: String,
    /// Only of this person.
    pub(crate) user: String,
    /// Only of this database.
    pub(crate) db: String,
    /// Only of this session.
    pub(crate) sid: String,
    /// Not before.
    pub(crate) from: Option<Timestamp>,
    /// Before.
    pub(crate) to: Option<Timestamp>,
    /// At most this many, the newest.
    pub(crate) limit: usize,
    /// Only what is older than this.
    pub(crate) before: Option<Spot>,
}

/// A record's place in the order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    /// In microseconds.
    pub(crate) at: i64,
    /// Place in the order of arrival, which decides between two of one time.
    pub(crate) place: i64,
}

/// What a search found.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Found {
    /// The oldest first.
    pub(crate) events: Vec<AuditEvent>,
    /// The oldest one's spot, when there are older ones.
    pub(crate) older_than: Option<Spot>,
}

/// A part of the log in order of arrival.
#[derive(Clone, Debug, Default)]
pub(crate) struct Page {
    /// The records.
    pub(crate) records: Vec<AuditRecord>,
    /// Place of the last one that was looked at.
    pub(crate) through: i64,
    /// Whether there is more.
    pub(crate) more: bool,
}

/// Connections for reading, opened when first needed.
#[derive(Clone)]
pub(super) struct Reader {
    path: Arc<PathBuf>,
    permits: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Reader {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: Arc::new(path.to_owned()),
            permits: Arc::new(Semaphore::new(READERS_MAX)),
            idle: Arc::default(),
        }
    }

    /// Searches for events.
    pub(super) async fn search(&self, query: EventQuery) -> Result<Found, AuditUnavailable> {
        self.run(move |connection| search(connection, &query)).await
    }

    /// Reads records after a place up to another, of one source or all.
    pub(super) async fn page(
        &self,
        source: String,
        after: i64,
        upto: i64,
    ) -> Result<Page, AuditUnavailable> {
        self.run(move |connection| page(connection, &source, after, upto))
            .await
    }

    /// How far a target has everything.
    pub(super) async fn exported(&self, target: String) -> Result<i64, AuditUnavailable> {
        self.run(move |connection| {
            connection
                .query_row(
                    "SELECT place FROM exports WHERE target = ?1",
                    [target],
                    |row| row.get(0),
                )
                .optional()
                .map(Option::unwrap_or_default)
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, AuditUnavailable> {
        let permit = self
            .permits
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| AuditUnavailable::Closed)?;
        let (path, idle) = (self.path.clone(), self.idle.clone());
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let kept = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = match kept {
                Some(connection) => connection,
                None => open_reader(&path).map_err(|error| failed(&error))?,
            };
            let value = read(&connection).map_err(|error| failed(&error))?;
            idle.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(connection);
            Ok(value)
        })
        .await
        .map_err(|error| failed(&error))?
    }
}

fn failed(error: &(dyn std::error::Error + 'static)) -> AuditUnavailable {
    tracing::error!(
        error = tidegate_service::telemetry::chain(error),
        "cannot read the audit log"
    );
    AuditUnavailable::Failed
}

fn search(connection: &Connection, query: &EventQuery) -> rusqlite::Result<Found> {
    let (sql, values) = statement(query);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut found = Found::default();
    let mut last = None;
    while let Some(row) = rows.next()? {
        if found.events.len() == query.limit {
            found.older_than = last;
            break;
        }
        last = Some(Spot {
            at: row.get(0)?,
            place: row.get(1)?,
        });
        match AuditEvent::decode(row.get_ref(2)?.as_bytes().unwrap_or_default()) {
            Ok(event) => found.events.push(event),
            Err(error) => {
                tracing::error!(error = %error, "left out a damaged audit event");
            }
        }
    }
    found.events.reverse();
    Ok(found)
}

/// The search as SQL. What an index leaves out, the empty text, is said again, so that the index can be used.
fn statement(query: &EventQuery) -> (String, Vec<Value>) {
    let mut wanted = Vec::new();
    let mut values = Vec::new();
    for (column, text) in [
        ("sid", &query.sid),
        ("user", &query.user),
        ("db", &query.db),
        ("event", &query.event),
    ] {
        if !text.is_empty() {
            values.push(Value::from(text.clone()));
            wanted.push(format!("{column} = ?{} AND {column} <> ''", values.len()));
        }
    }
    for (compared, at) in [("at >=", query.from), ("at <", query.to)] {
        if let Some(at) = at {
            values.push(Value::from(at.as_microsecond()));
            wanted.push(format!("{compared} ?{}", values.len()));
        }
    }
    if let Some(Spot { at, place }) = query.before {
        values.extend([Value::from(at), Value::from(place)]);
        let last = values.len();
        wanted.push(format!(
            "at <= ?{0} AND (at, place) < (?{0}, ?{last})",
            last - 1
        ));
    }
    let filter = if wanted.is_empty() {
        String::new()
    } else {
        format!("WHERE {}", wanted.join(" AND "))
    };
    // One more tells whether there are older ones.
    let limit = query.limit.saturating_add(1);
    let sql = format!(
        "SELECT at, place, body FROM records {filter} ORDER BY at DESC, place DESC LIMIT {limit}"
    );
    (sql, values)
}

/// How SQLite means to search.
#[cfg(test)]
pub(super) fn explain(connection: &Connection, query: &EventQuery) -> String {
    let (sql, values) = statement(query);
    let mut plan = connection
        .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
        .unwrap();
    let steps = plan.query_map(params_from_iter(values), |row| row.get::<_, String>(3));
    steps
        .unwrap()
        .map(Result::unwrap)
        .collect::<Vec<_>>()
        .join("; ")
}

fn page(connection: &Connection, source: &str, after: i64, upto: i64) -> rusqlite::Result<Page> {
    let of = if source.is_empty() {
        ""
    } else {
        "AND sources.name = ?3"
    };
    let mut statement = connection.prepare_cached(&format!(
        "SELECT place, name, sequence, hash, body, at, uid, event, user, db, sid
         FROM records CROSS JOIN sources ON sources.id = records.source
         WHERE place > ?1 AND place <= ?2 {of} ORDER BY place LIMIT {}",
        PAGE_RECORDS_MAX + 1
    ))?;
    let mut rows = if source.is_empty() {
        statement.query(params![after, upto])?
    } else {
        statement.query(params![after, upto, source])?
    };
    let mut page = Page {
        through: upto.max(after),
        ..Page::default()
    };
    let mut bytes = 0;
    let mut through = after;
    while let Some(row) = rows.next()? {
        if page.records.len() == PAGE_RECORDS_MAX || bytes >= PAGE_BYTES_MAX {
            page.through = through;
            page.more = true;
            break;
        }
        through = row.get(0)?;
        let record = record(row)?;
        bytes += record.event.len() + record.hash.len() + record.source.len();
        page.records.push(record);
    }
    Ok(page)
}

fn record(row: &Row<'_>) -> rusqlite::Result<AuditRecord> {
    // A column of another type is what somebody made of it: it is read as it is, and does not verify.
    let body = row.get_ref(4)?.as_bytes().unwrap_or_default();
    let index_differs = match AuditEvent::decode(body) {
        Ok(event) => {
            let at = row.get::<_, i64>(5).ok();
            let mut differs = at != Some(audit::happened_at(&event).as_microsecond());
            let said = [
                &event.uid,
                &event.event,
                &event.user,
                &event.db_service,
                &event.sid,
            ];
            for (column, said) in (6..).zip(said) {
                differs |= row.get_ref(column)?.as_bytes().ok() != Some(said.as_bytes());
            }
            differs
        }
        Err(_) => true,
    };
    Ok(AuditRecord {
        source: row.get(1)?,
        sequence: row.get(2).unwrap_or_default(),
        hash: row.get_ref(3)?.as_bytes().unwrap_or_default().to_vec(),
        event: body.to_vec(),
        index_differs,
    })
}
