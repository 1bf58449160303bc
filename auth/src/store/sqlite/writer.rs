//! The one thread that writes.
//!
//! It takes what waits in the queue, carries all of it out in one SQLite transaction, and answers when that is on
//! disk. Each of our transactions still has its own revision and its own guards; one whose guard fails leaves no
//! trace and does not disturb the others of its batch.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use tokio::sync::{broadcast, mpsc, oneshot};

use super::{
    Batch, CommitError, Entry, LeaseId, StoreUnavailable, Txn,
    index::{self, Draft, Head, Index, Superseded},
    leases::Leases,
    log_id,
    reader::{logged, meta},
    revision_of,
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
    index: Index,
    superseded: VecDeque<Superseded>,
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
        let (index, superseded) = index::load(&connection, revision)?;
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
            index,
            superseded,
            committed,
            leases,
        })
    }

    /// Where every key is, for readers.
    pub(super) fn index(&self) -> Index {
        self.index.clone()
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
        self.superseded.extend(step.superseded);
        self.index.settle(step.draft, step.revision);
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
            index: self.index.clone(),
            revision: self.revision,
            draft: Draft::default(),
            superseded: Vec::new(),
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
        let until = compact_until(step.revision, self.compacted, self.history_revisions_min);
        let mut given_up = 0;
        if let Some(until) = until {
            given_up = compact(&transaction, until, &self.superseded)?;
        }
        transaction.commit()?;
        self.superseded.drain(..given_up);
        self.compacted = until.unwrap_or(self.compacted);
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

/// Until which revision history is given up now, if it is: now and then, and never what must be kept.
fn compact_until(revision: u64, compacted: u64, keep_min: u64) -> Option<u64> {
    let keep_max = keep_min + COMPACT_EVERY_REVISIONS.min(keep_min.max(1));
    (revision - compacted > keep_max).then(|| revision - keep_min)
}

/// Gives up history until a revision, that included; how many of the superseded changes went with it.
fn compact(
    transaction: &Transaction<'_>,
    until: u64,
    superseded: &VecDeque<Superseded>,
) -> rusqlite::Result<usize> {
    let bound = log_id(until + 1, 0);
    let given_up = superseded.partition_point(|change| change.by < bound);
    let mut delete = transaction.prepare_cached("DELETE FROM log WHERE id = ?1")?;
    for change in superseded.range(..given_up) {
        delete.execute([change.id])?;
    }
    transaction
        .prepare_cached("UPDATE meta SET value = ?1 WHERE name = 'compacted'")?
        .execute([until])?;
    Ok(given_up)
}

/// What one SQLite transaction has done so far.
struct Step {
    index: Index,
    revision: u64,
    draft: Draft,
    superseded: Vec<Superseded>,
    answers: Vec<Answer>,
    batches: Vec<Batch>,
}

impl Step {
    fn command(&mut self, transaction: &Transaction<'_>, command: Command) -> rusqlite::Result<()> {
        let answer = match command {
            Command::Commit { txn, reply } => {
                let outcome = match self.check(transaction, &txn)? {
                    Ok(heads) => Ok(self.apply(transaction, txn.ops, heads)?),
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
            let keys = self.draft.of_lease(&self.index, *lease);
            ops.extend(keys.into_iter().map(Op::Delete));
            transaction
                .prepare_cached("DELETE FROM leases WHERE id = ?1")?
                .execute([lease.0])?;
        }
        let heads = ops.iter().map(|op| self.head(op.key())).collect();
        self.apply(transaction, ops, heads)?;
        Ok(())
    }

    fn head(&self, key: &Bytes) -> Option<Head> {
        self.draft.get(&self.index, key)
    }

    /// Carries out changes, each of a key that is where `heads` says; the revision goes up by one when any had an
    /// effect.
    fn apply(
        &mut self,
        transaction: &Transaction<'_>,
        ops: Vec<Op>,
        heads: Vec<Option<Head>>,
    ) -> rusqlite::Result<u64> {
        let revision = self.revision + 1;
        let mut changes = Vec::with_capacity(ops.len());
        for (op, head) in ops.into_iter().zip(heads) {
            let previous = match head {
                Some(head) => logged(transaction, op.key(), head.id)?,
                None => None,
            };
            let current = match &op {
                Op::Put { key, value, lease } => Some(Entry {
                    key: key.clone(),
                    value: value.clone(),
                    created: head.map_or(revision, |head| head.created),
                    modified: revision,
                    lease: *lease,
                }),
                Op::Delete(_) if head.is_none() => continue,
                Op::Delete(_) => None,
            };
            let change = Change {
                key: op.key().clone(),
                current,
                previous,
            };
            let id = log_id(revision, changes.len() as u64);
            self.record(transaction, id, head, &change)?;
            changes.push(change);
        }
        if !changes.is_empty() {
            self.revision = revision;
            self.batches.push(Batch { revision, changes });
        }
        Ok(self.revision)
    }

    /// Appends a change to the log.
    fn record(
        &mut self,
        transaction: &Transaction<'_>,
        id: u64,
        before: Option<Head>,
        change: &Change,
    ) -> rusqlite::Result<()> {
        let current = change.current.as_ref();
        transaction
            .prepare_cached(
                "INSERT INTO log (id, key, created, lease, previous, value) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                id,
                change.key.as_ref(),
                current.map(|entry| entry.created),
                current.and_then(|entry| entry.lease).map(|lease| lease.0),
                before.map(|head| head.id),
                current.map(|entry| entry.value.as_ref()),
            ])?;
        if let Some(before) = before {
            self.superseded.push(Superseded {
                by: id,
                id: before.id,
            });
        }
        if current.is_none() {
            // The trace of a deletion goes with the history that tells of it.
            self.superseded.push(Superseded { by: id, id });
        }
        let head = current.map(|entry| Head {
            id,
            created: entry.created,
            lease: entry.lease,
        });
        self.draft.set(change.key.clone(), head);
        Ok(())
    }

    /// Whether a transaction may be carried out, and where the keys are that it changes: looked up once, since most
    /// guards are about the same keys. Outer errors are SQLite's.
    fn check(
        &self,
        transaction: &Transaction<'_>,
        txn: &Txn,
    ) -> rusqlite::Result<Result<Vec<Option<Head>>, CommitError>> {
        let mut places = HashMap::with_capacity(txn.ops.len());
        let mut heads = Vec::with_capacity(txn.ops.len());
        for op in &txn.ops {
            if places.insert(op.key(), heads.len()).is_some() {
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
            heads.push(self.head(op.key()));
        }
        for guard in &txn.guards {
            let found = match places.get(guard.key()) {
                Some(place) => heads[*place],
                None => self.head(guard.key()),
            };
            let wanted = match guard {
                Guard::Absent(_) => None,
                Guard::At(_, revision) => Some(*revision),
            };
            if found.map(|head| revision_of(head.id)) != wanted {
                return Ok(Err(CommitError::Conflict {
                    key: guard.key().clone(),
                }));
            }
        }
        Ok(Ok(heads))
    }
}
