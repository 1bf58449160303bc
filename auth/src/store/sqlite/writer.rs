//! The one thread that writes.
//!
//! It takes what waits in the queue, carries all of it out in one SQLite transaction, and answers when that is on
//! disk. Each of our transactions still has its own revision and its own guards; one whose guard fails leaves no
//! trace and does not disturb the others of its batch.

use std::{collections::HashSet, sync::Arc, time::Duration};

use bytes::Bytes;
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use tokio::sync::{broadcast, mpsc, oneshot};

use super::{
    Batch, CommitError, Entry, LeaseId, StoreUnavailable, Txn,
    leases::Leases,
    reader::{get, meta},
    schema::StoreLock,
};
use crate::store::{Change, Guard, Op};

/// Commands that one SQLite transaction carries out at most.
const BATCH_COMMANDS_MAX: usize = 256;
/// Revisions between two compactions of history.
const COMPACT_EVERY_REVISIONS: u64 = 1000;

/// What the writer is asked to do.
pub(super) enum Command {
    Commit {
        txn: Txn,
        reply: oneshot::Sender<Result<u64, CommitError>>,
    },
    Grant {
        ttl: Duration,
        reply: oneshot::Sender<Result<LeaseId, StoreUnavailable>>,
    },
    Revoke {
        leases: Vec<LeaseId>,
        reply: oneshot::Sender<Result<(), StoreUnavailable>>,
    },
    Close(oneshot::Sender<()>),
}

/// An answer that is given once the batch is on disk.
enum Answer {
    Commit(
        oneshot::Sender<Result<u64, CommitError>>,
        Result<u64, CommitError>,
    ),
    Grant(
        oneshot::Sender<Result<LeaseId, StoreUnavailable>>,
        LeaseId,
        Duration,
    ),
    Revoke(oneshot::Sender<Result<(), StoreUnavailable>>),
}

pub(super) struct Writer {
    connection: Connection,
    _lock: StoreLock,
    revision: u64,
    compacted: u64,
    history_revisions_min: u64,
    committed: broadcast::Sender<Arc<Batch>>,
    leases: Arc<Leases>,
}

impl Writer {
    /// Reads where the store stands, and starts the time of every lease anew.
    pub(super) fn new(
        connection: Connection,
        lock: StoreLock,
        history_revisions_min: u64,
        committed: broadcast::Sender<Arc<Batch>>,
        leases: Arc<Leases>,
    ) -> rusqlite::Result<Self> {
        let revision = meta(&connection, "revision")?;
        let compacted = meta(&connection, "compacted")?;
        {
            let mut statement = connection.prepare("SELECT id, ttl_ms FROM leases")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                leases.start(LeaseId(row.get(0)?), Duration::from_millis(row.get(1)?));
            }
        }
        Ok(Self {
            connection,
            _lock: lock,
            revision,
            compacted,
            history_revisions_min,
            committed,
            leases,
        })
    }

    /// Serves commands until it is told to close or nobody can send any more.
    pub(super) fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        while let Some(first) = commands.blocking_recv() {
            let mut batch = Vec::new();
            let mut closing = None;
            let mut next = Some(first);
            while let Some(command) = next {
                match command {
                    Command::Close(reply) => {
                        closing = Some(reply);
                        break;
                    }
                    command => batch.push(command),
                }
                next = (batch.len() < BATCH_COMMANDS_MAX)
                    .then(|| commands.try_recv().ok())
                    .flatten();
            }
            self.carry_out(batch);
            if let Some(reply) = closing {
                commands.close();
                drop(self);
                // Nobody waits any more when this fails.
                let _ = reply.send(());
                return;
            }
        }
    }

    /// Carries out a batch. When SQLite fails, all of it is undone, and the callers see that nobody answers.
    fn carry_out(&mut self, commands: Vec<Command>) {
        if commands.is_empty() {
            return;
        }
        let step = match self.write(commands) {
            Ok(step) => step,
            Err(error) => {
                tracing::error!(error = %error, "cannot write the state store");
                return;
            }
        };
        self.revision = step.revision;
        // Watchers first: whoever gets its answer may already be seen by them.
        for batch in step.batches {
            // Nobody watches when this fails.
            let _ = self.committed.send(Arc::new(batch));
        }
        for answer in step.answers {
            self.answer(answer);
        }
    }

    fn write(&mut self, commands: Vec<Command>) -> rusqlite::Result<Step> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut step = Step {
            revision: self.revision,
            answers: Vec::with_capacity(commands.len()),
            batches: Vec::new(),
        };
        for command in commands {
            step.command(&transaction, command)?;
        }
        if step.revision > self.revision {
            transaction
                .prepare_cached("UPDATE meta SET value = ?1 WHERE name = 'revision'")?
                .execute([step.revision])?;
        }
        let compacted = compact(
            &transaction,
            step.revision,
            self.compacted,
            self.history_revisions_min,
        )?;
        transaction.commit()?;
        self.compacted = compacted;
        Ok(step)
    }

    fn answer(&self, answer: Answer) {
        // A caller that went away does not want its answer.
        match answer {
            Answer::Commit(reply, outcome) => drop(reply.send(outcome)),
            Answer::Grant(reply, lease, ttl) => {
                self.leases.start(lease, ttl);
                drop(reply.send(Ok(lease)));
            }
            Answer::Revoke(reply) => drop(reply.send(Ok(()))),
        }
    }
}

/// Deletes history that is older than what must be kept, now and then; gives the last revision that is gone.
fn compact(
    transaction: &Transaction<'_>,
    revision: u64,
    compacted: u64,
    keep_min: u64,
) -> rusqlite::Result<u64> {
    let keep_max = keep_min + COMPACT_EVERY_REVISIONS.min(keep_min.max(1));
    if revision - compacted <= keep_max {
        return Ok(compacted);
    }
    let until = revision - keep_min;
    transaction
        .prepare_cached("DELETE FROM history WHERE revision <= ?1")?
        .execute([until])?;
    transaction
        .prepare_cached("UPDATE meta SET value = ?1 WHERE name = 'compacted'")?
        .execute([until])?;
    Ok(until)
}

/// What one SQLite transaction has done so far.
struct Step {
    revision: u64,
    answers: Vec<Answer>,
    batches: Vec<Batch>,
}

impl Step {
    fn command(&mut self, transaction: &Transaction<'_>, command: Command) -> rusqlite::Result<()> {
        let answer = match command {
            Command::Commit { txn, reply } => {
                let outcome = match check(transaction, &txn)? {
                    Ok(()) => Ok(self.apply(transaction, txn.ops)?),
                    Err(refused) => Err(refused),
                };
                Answer::Commit(reply, outcome)
            }
            Command::Grant { ttl, reply } => {
                let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
                let id = transaction
                    .prepare_cached("INSERT INTO leases (ttl_ms) VALUES (?1)")?
                    .insert([ttl_ms])?;
                Answer::Grant(reply, LeaseId(id.unsigned_abs()), ttl)
            }
            Command::Revoke { leases, reply } => {
                self.revoke(transaction, &leases)?;
                Answer::Revoke(reply)
            }
            // The loop keeps it to itself.
            Command::Close(_) => return Ok(()),
        };
        self.answers.push(answer);
        Ok(())
    }

    fn revoke(
        &mut self,
        transaction: &Transaction<'_>,
        leases: &[LeaseId],
    ) -> rusqlite::Result<()> {
        let mut ops = Vec::new();
        for lease in leases {
            let mut statement =
                transaction.prepare_cached("SELECT key FROM kv WHERE lease = ?1 ORDER BY key")?;
            let mut rows = statement.query([lease.0])?;
            while let Some(row) = rows.next()? {
                ops.push(Op::Delete(row.get::<_, Vec<u8>>(0)?.into()));
            }
            transaction
                .prepare_cached("DELETE FROM leases WHERE id = ?1")?
                .execute([lease.0])?;
        }
        self.apply(transaction, ops)?;
        Ok(())
    }

    /// Carries out changes; the revision goes up by one when any had an effect.
    fn apply(&mut self, transaction: &Transaction<'_>, ops: Vec<Op>) -> rusqlite::Result<u64> {
        let revision = self.revision + 1;
        let mut changes = Vec::with_capacity(ops.len());
        for op in ops {
            let previous = get(transaction, op.key())?;
            let change = match op {
                Op::Put { key, value, lease } => {
                    put(transaction, revision, key, value, lease, previous)?
                }
                Op::Delete(key) => {
                    if previous.is_none() {
                        continue;
                    }
                    transaction
                        .prepare_cached("DELETE FROM kv WHERE key = ?1")?
                        .execute([key.as_ref()])?;
                    Change {
                        key,
                        current: None,
                        previous,
                    }
                }
            };
            remember(transaction, revision, changes.len(), &change)?;
            changes.push(change);
        }
        if !changes.is_empty() {
            self.revision = revision;
            self.batches.push(Batch { revision, changes });
        }
        Ok(self.revision)
    }
}

fn put(
    transaction: &Transaction<'_>,
    revision: u64,
    key: Bytes,
    value: Bytes,
    lease: Option<LeaseId>,
    previous: Option<Entry>,
) -> rusqlite::Result<Change> {
    let created = previous.as_ref().map_or(revision, |entry| entry.created);
    transaction
        .prepare_cached(
            "INSERT INTO kv (key, value, created, modified, lease) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (key) DO UPDATE SET value = ?2, modified = ?4, lease = ?5",
        )?
        .execute(params![
            key.as_ref(),
            value.as_ref(),
            created,
            revision,
            lease.map(|lease| lease.0)
        ])?;
    Ok(Change {
        key: key.clone(),
        current: Some(Entry {
            key,
            value,
            created,
            modified: revision,
            lease,
        }),
        previous,
    })
}

fn remember(
    transaction: &Transaction<'_>,
    revision: u64,
    place: usize,
    change: &Change,
) -> rusqlite::Result<()> {
    let current = change.current.as_ref();
    let previous = change.previous.as_ref();
    let lease = |entry: Option<&Entry>| entry.and_then(|entry| entry.lease).map(|lease| lease.0);
    transaction
        .prepare_cached(
            "INSERT INTO history (revision, place, key, value, created, lease,
                                  prev_value, prev_created, prev_modified, prev_lease)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            revision,
            place,
            change.key.as_ref(),
            current.map(|entry| entry.value.as_ref()),
            current.map(|entry| entry.created),
            lease(current),
            previous.map(|entry| entry.value.as_ref()),
            previous.map(|entry| entry.created),
            previous.map(|entry| entry.modified),
            lease(previous),
        ])?;
    Ok(())
}

/// Whether a transaction may be carried out; outer errors are SQLite's.
fn check(transaction: &Transaction<'_>, txn: &Txn) -> rusqlite::Result<Result<(), CommitError>> {
    let mut seen = HashSet::new();
    for op in &txn.ops {
        if !seen.insert(op.key()) {
            return Ok(Err(CommitError::Duplicate {
                key: op.key().clone(),
            }));
        }
        if let Op::Put {
            lease: Some(lease), ..
        } = op
        {
            let known = transaction
                .prepare_cached("SELECT 1 FROM leases WHERE id = ?1")?
                .exists([lease.0])?;
            if !known {
                return Ok(Err(CommitError::LeaseGone { lease: *lease }));
            }
        }
    }
    for guard in &txn.guards {
        let found = get(transaction, guard.key())?.map(|entry| entry.modified);
        let wanted = match guard {
            Guard::Absent(_) => None,
            Guard::At(_, revision) => Some(*revision),
        };
        if found != wanted {
            return Ok(Err(CommitError::Conflict {
                key: guard.key().clone(),
            }));
        }
    }
    Ok(Ok(()))
}
