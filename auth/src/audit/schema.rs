//! The tables of a log, and how an older file becomes a current one.
//!
//! Version 1 had events and no chains. Its events are put into chains when the file is first opened, in their old order,
//! each into its source's: from then on nobody can change them unseen, which is all that a chain could promise about
//! them. They are marked by having no time of arrival, and an event of the service's own says how many they were.
//! That is done in steps that a kill between two of them does not harm.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use prost::Message as _;
use rusqlite::{Connection, OptionalExtension as _};
use tidegate_proto::{audit::hex, v1::AuditEvent};

use super::{
    Origin,
    chains::Chains,
    event,
    shape::{shape, shape_own},
};
use crate::store::sqlite::{OpenError, open_writer};

/// Events of version 1 that one transaction puts into chains.
const MIGRATED_AT_ONCE: usize = 1000;

/// The steps from an empty file to the current one, in order.
const MIGRATIONS: [&str; 2] = [
    "
    CREATE TABLE events (
        place INTEGER PRIMARY KEY AUTOINCREMENT,
        uid   TEXT NOT NULL UNIQUE,
        event TEXT NOT NULL,
        user  TEXT NOT NULL,
        body  BLOB NOT NULL
    );
    CREATE INDEX events_by_event ON events (event, place);
    CREATE INDEX events_by_user ON events (user, place);
",
    "
    CREATE TABLE about (
        name  TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) WITHOUT ROWID;
    INSERT INTO about VALUES ('log', lower(hex(randomblob(16))));

    CREATE TABLE sources (
        id   INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE
    );

    CREATE TABLE records (
        place    INTEGER PRIMARY KEY,
        source   INTEGER NOT NULL,
        sequence INTEGER NOT NULL,
        at       INTEGER NOT NULL,
        uid      TEXT NOT NULL,
        event    TEXT NOT NULL,
        user     TEXT NOT NULL,
        db       TEXT NOT NULL,
        sid      TEXT NOT NULL,
        hash     BLOB NOT NULL,
        body     BLOB NOT NULL,
        UNIQUE (source, sequence),
        UNIQUE (source, uid)
    );
    CREATE INDEX records_by_time ON records (at);
    CREATE INDEX records_by_event ON records (event, at);
    CREATE INDEX records_by_user ON records (user, at) WHERE user <> '';
    CREATE INDEX records_by_db ON records (db, at) WHERE db <> '';
    CREATE INDEX records_by_sid ON records (sid, at) WHERE sid <> '';
    CREATE TRIGGER records_never_change BEFORE UPDATE ON records
        BEGIN SELECT RAISE(ABORT, 'the audit log is only appended to'); END;
    CREATE TRIGGER records_never_go BEFORE DELETE ON records
        BEGIN SELECT RAISE(ABORT, 'the audit log is only appended to'); END;

    CREATE TABLE exports (
        target TEXT PRIMARY KEY,
        place  INTEGER NOT NULL
    ) WITHOUT ROWID;

    DROP INDEX events_by_event;
    DROP INDEX events_by_user;
    ALTER TABLE events RENAME TO unchained;
",
];

/// Opens or makes a log, and brings it up to date.
pub(super) fn open(
    path: &Path,
    origin: &Origin,
    now: Timestamp,
) -> Result<(Connection, Chains), OpenError> {
    let mut connection = open_writer(path, &MIGRATIONS)?;
    let failed = |source| OpenError::Sqlite {
        path: PathBuf::from(path),
        source,
    };
    let log = connection
        .query_row("SELECT value FROM about WHERE name = 'log'", [], |row| {
            row.get(0)
        })
        .map_err(failed)?;
    let mut chains = Chains::new(log, origin.clone());
    chain_old_events(&mut connection, &mut chains, now).map_err(failed)?;
    Ok((connection, chains))
}

/// Puts events of version 1 into chains.
fn chain_old_events(
    connection: &mut Connection,
    chains: &mut Chains,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let is_old = connection
        .query_row(
            "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'unchained'",
            [],
            |_| Ok(()),
        )
        .optional()?
        .is_some();
    if !is_old {
        return Ok(());
    }
    loop {
        let transaction = connection.transaction()?;
        let rows: Vec<(i64, Vec<u8>)> = transaction
            .prepare_cached("SELECT place, body FROM unchained ORDER BY place LIMIT ?1")?
            .query_map([MIGRATED_AT_ONCE], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        let mut change = chains.change();
        let Some((last, _)) = rows.last() else {
            let count: u64 =
                transaction.query_row("SELECT count(*) FROM records", [], |row| row.get(0))?;
            if count > 0 {
                let mut told = event::new(event::AUDIT_LOG_MIGRATED);
                told.fields.insert("records".to_owned(), count.to_string());
                change.append(&transaction, "", shape_own(told, now))?;
            }
            transaction.execute_batch("DROP TABLE unchained")?;
            let moved = change.moved();
            transaction.commit()?;
            chains.moved(moved);
            return Ok(());
        };
        let last = *last;
        for (place, body) in &rows {
            match AuditEvent::decode(body.as_slice()) {
                Ok(found) => {
                    let source = found.server_id.clone();
                    change.append(&transaction, &source, shape(found))?;
                }
                Err(error) => {
                    tracing::error!(error = %error, place, "kept a damaged audit event as it is");
                    let mut kept = event::new(event::UNKNOWN);
                    kept.uid = format!("damaged-{place}");
                    kept.fields.insert("record".to_owned(), hex(body));
                    change.append(&transaction, "", shape(kept))?;
                }
            }
        }
        transaction.execute("DELETE FROM unchained WHERE place <= ?1", [last])?;
        let moved = change.moved();
        transaction.commit()?;
        chains.moved(moved);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A file as version 1 left it.
    pub(in crate::audit) fn old_file(path: &Path, events: &[AuditEvent]) {
        let connection = open_writer(path, &MIGRATIONS[..1]).unwrap();
        for event in events {
            connection
                .execute(
                    "INSERT INTO events (uid, event, user, body) VALUES (?1, ?2, ?3, ?4)",
                    rusqlite::params![event.uid, event.event, event.user, event.encode_to_vec()],
                )
                .unwrap();
        }
    }
}
