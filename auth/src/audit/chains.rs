//! Where the chains of a log stand, and how a record is put at the end of one.
//!
//! Invariant: what [`Chains`] remembers is what is committed. A [`Change`] works on copies, which become what is
//! remembered only after its transaction is on disk; when it is not, nothing has moved.

use std::collections::HashMap;

use prost::Message as _;
use rusqlite::{Connection, OptionalExtension as _, params};
use tidegate_proto::{
    audit::{self, Hash},
    v1::AuditEvent,
};

use super::{Origin, shape::digest_hex};

/// Sources whose ends are remembered; when there are more, all are looked up again as they come.
const SOURCES_KEPT_MAX: usize = 20_000;

/// The end of one source's chain.
#[derive(Clone, Copy, Debug)]
struct End {
    source: i64,
    sequence: u64,
    hash: Hash,
}

/// The chains of one log.
#[derive(Debug)]
pub(super) struct Chains {
    log: String,
    origin: Origin,
    ends: HashMap<String, End>,
}

/// Ends that a transaction moved.
pub(super) struct Moved(HashMap<String, End>);

/// Records that are put at the ends of chains in one transaction.
pub(super) struct Change<'c> {
    chains: &'c Chains,
    moved: HashMap<String, End>,
}

impl Chains {
    pub(super) fn new(log: String, origin: Origin) -> Self {
        Self {
            log,
            origin,
            ends: HashMap::new(),
        }
    }

    /// The log's id.
    pub(super) fn log(&self) -> &str {
        &self.log
    }

    pub(super) fn change(&self) -> Change<'_> {
        Change {
            chains: self,
            moved: HashMap::new(),
        }
    }

    /// The transaction that moved them is on disk.
    pub(super) fn moved(&mut self, moved: Moved) {
        if self.ends.len() + moved.0.len() > SOURCES_KEPT_MAX {
            self.ends.clear();
        }
        self.ends.extend(moved.0);
    }
}

impl Change<'_> {
    /// Puts an event, shaped already, at the end of its source's chain; an empty source is the instance itself.
    /// `false`: it is there already.
    ///
    /// An uid that the source has used for another event is kept apart with a digest: nothing that a source says is
    /// lost, and nothing that is stored is replaced.
    pub(super) fn append(
        &mut self,
        transaction: &Connection,
        source: &str,
        mut event: AuditEvent,
    ) -> rusqlite::Result<bool> {
        let origin = &self.chains.origin;
        let source = if source.is_empty() {
            &origin.instance
        } else {
            source
        };
        event.server_id.clear();
        event.server_id.push_str(source);
        event.cluster_name.clone_from(&origin.cluster);
        if self.insert(transaction, source, &mut event)? {
            return Ok(true);
        }
        if is_same(transaction, &event)? {
            return Ok(false);
        }
        let said = AuditEvent {
            received: None,
            ..event.clone()
        };
        let digits = digest_hex(&said.encode_to_vec());
        event.notes.push(format!("uid_used_before:{}", event.uid));
        event.uid = format!("{}~{}", event.uid, &digits[..16]);
        self.insert(transaction, source, &mut event)
    }

    /// What moved, once everything is appended.
    pub(super) fn moved(self) -> Moved {
        Moved(self.moved)
    }

    fn insert(
        &mut self,
        transaction: &Connection,
        source: &str,
        event: &mut AuditEvent,
    ) -> rusqlite::Result<bool> {
        let end = match self
            .moved
            .get(source)
            .or_else(|| self.chains.ends.get(source))
        {
            Some(end) => *end,
            None => self.look_up(transaction, source)?,
        };
        event.sequence = end.sequence + 1;
        let body = event.encode_to_vec();
        let hash = audit::follow(&end.hash, &body);
        let inserted = transaction
            .prepare_cached(
                "INSERT INTO records (source, sequence, at, uid, event, user, db, sid, hash, body)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT (source, uid) DO NOTHING",
            )?
            .execute(params![
                end.source,
                event.sequence,
                audit::happened_at(event).as_microsecond(),
                event.uid,
                event.event,
                event.user,
                event.db_service,
                event.sid,
                hash,
                body,
            ])?;
        if inserted == 1 {
            let end = End {
                sequence: event.sequence,
                hash,
                ..end
            };
            match self.moved.get_mut(source) {
                Some(moved) => *moved = end,
                None => {
                    self.moved.insert(source.to_owned(), end);
                }
            }
            return Ok(true);
        }
        event.sequence = 0;
        Ok(false)
    }

    /// The end of a chain as the file has it; a source that is new gets its number.
    fn look_up(&mut self, transaction: &Connection, source: &str) -> rusqlite::Result<End> {
        let known: Option<i64> = transaction
            .prepare_cached("SELECT id FROM sources WHERE name = ?1")?
            .query_row([source], |row| row.get(0))
            .optional()?;
        let id = match known {
            Some(id) => id,
            None => transaction
                .prepare_cached("INSERT INTO sources (name) VALUES (?1)")?
                .insert([source])?,
        };
        let last: Option<(u64, Hash)> = transaction
            .prepare_cached(
                "SELECT sequence, hash FROM records WHERE source = ?1 ORDER BY sequence DESC LIMIT 1",
            )?
            .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let (sequence, hash) =
            last.unwrap_or_else(|| (0, audit::genesis(&self.chains.log, source)));
        let end = End {
            source: id,
            sequence,
            hash,
        };
        self.moved.insert(source.to_owned(), end);
        Ok(end)
    }
}

/// Whether what is stored under this event's uid is this event.
fn is_same(transaction: &Connection, event: &AuditEvent) -> rusqlite::Result<bool> {
    let body: Option<Vec<u8>> = transaction
        .prepare_cached(
            "SELECT body FROM records JOIN sources ON sources.id = records.source
             WHERE sources.name = ?1 AND records.uid = ?2",
        )?
        .query_row([&event.server_id, &event.uid], |row| row.get(0))
        .optional()?;
    let stored = body.and_then(|body| AuditEvent::decode(body.as_slice()).ok());
    let told = |event: &AuditEvent| AuditEvent {
        received: None,
        sequence: 0,
        ..event.clone()
    };
    Ok(stored.is_some_and(|stored| told(&stored) == told(event)))
}
