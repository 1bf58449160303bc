//! The thread that alone writes a log.
//!
//! It carries out what waits in one transaction, so that many emitters pay for the disk once. A transaction that fails
//! leaves nothing behind: who waits for it is told, and the service's own events, which nobody sends again, are kept for
//! the next one.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rusqlite::{Connection, ErrorCode};
use tidegate_proto::v1::AuditEvent;
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    AuditUnavailable, Figures,
    chains::Chains,
    event::{self, AUDIT_EVENTS_LOST},
    shape::shape,
};

/// Events that one transaction stores, about: whole batches are taken.
const TRANSACTION_EVENTS_MAX: usize = 2048;
/// Own events that are kept while the log cannot be written; the oldest go first when there are more.
const KEPT_EVENTS_MAX: usize = 50_000;

type Reply = oneshot::Sender<Result<(), AuditUnavailable>>;

/// Events of one source; an empty one is the instance itself.
pub(super) struct Batch {
    pub(super) source: String,
    /// Shaped, and with their time of arrival.
    pub(super) events: Vec<AuditEvent>,
}

/// What the thread is asked to do.
pub(super) enum Command {
    /// Store events; without a reply they are the service's own.
    Append { batch: Batch, reply: Option<Reply> },
    /// Remember how far a target has everything.
    Exported {
        target: String,
        place: i64,
        reply: Reply,
    },
    /// Store what waits, and give the file back.
    Close(oneshot::Sender<()>),
}

pub(super) struct Writer {
    connection: Connection,
    chains: Chains,
    /// Own events whose transaction failed.
    kept: VecDeque<AuditEvent>,
    /// Own events that are gone and not told of yet.
    lost: u64,
    /// As `lost`, counted where there was no room in the queue.
    overflow: Arc<AtomicU64>,
    newest: watch::Sender<i64>,
    figures: Figures,
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
        chains: Chains,
        figures: Figures,
    ) -> rusqlite::Result<Self> {
        let newest =
            connection.query_row("SELECT ifnull(max(place), 0) FROM records", [], |row| {
                row.get(0)
            })?;
        Ok(Self {
            connection,
            chains,
            kept: VecDeque::new(),
            lost: 0,
            overflow: Arc::default(),
            newest: watch::Sender::new(newest),
            figures,
        })
    }

    /// The place of the newest record, as it changes.
    pub(super) fn newest(&self) -> watch::Receiver<i64> {
        self.newest.subscribe()
    }

    /// Counts own events that find no room in the queue; the log tells how many.
    pub(super) fn overflow(&self) -> Arc<AtomicU64> {
        self.overflow.clone()
    }

    /// The log's id.
    pub(super) fn log(&self) -> &str {
        self.chains.log()
    }

    #[cfg(test)]
    pub(super) const fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Serves commands until nobody can send any more, or it is told to close.
    pub(super) fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        while let Some(first) = commands.blocking_recv() {
            let mut batches = Vec::new();
            let mut replies = Vec::new();
            let mut events = 0;
            let mut next = Some(first);
            let mut other = None;
            while let Some(command) = next {
                match command {
                    Command::Append { batch, reply } => {
                        events += batch.events.len();
                        batches.push((batch, reply.is_none()));
                        replies.extend(reply);
                    }
                    command => {
                        other = Some(command);
                        break;
                    }
                }
                next = (events < TRANSACTION_EVENTS_MAX)
                    .then(|| commands.try_recv().ok())
                    .flatten();
            }
            let outcome = self.append(batches);
            for reply in replies {
                // An emitter that went away does not want its answer.
                let _ = reply.send(outcome);
            }
            match other {
                Some(Command::Exported {
                    target,
                    place,
                    reply,
                }) => drop(reply.send(self.exported(&target, place))),
                Some(Command::Close(reply)) => {
                    commands.close();
                    self.close();
                    let _ = reply.send(());
                    return;
                }
                Some(Command::Append { .. }) | None => {}
            }
        }
    }

    fn close(mut self) {
        let lost = self.lost + u64::try_from(self.kept.len()).unwrap_or(u64::MAX);
        if lost > 0 && self.append(Vec::new()).is_err() {
            tracing::error!(
                events = lost,
                "lost audit events: the log could not be written to the end"
            );
        }
    }

    /// Stores batches, and own events that were kept, in one transaction. The flag says which are the service's own.
    pub(super) fn append(&mut self, batches: Vec<(Batch, bool)>) -> Result<(), AuditUnavailable> {
        self.lost += self.overflow.swap(0, Ordering::Relaxed);
        if batches.iter().all(|(batch, _)| batch.events.is_empty()) && !self.owes() {
            return Ok(());
        }
        match self.try_append(&batches) {
            Ok(stored) => {
                self.kept.clear();
                self.lost = 0;
                self.figures.stored.inc_by(stored);
                Ok(())
            }
            Err(error) => {
                self.figures.failures.inc();
                let events: usize = batches.iter().map(|(batch, _)| batch.events.len()).sum();
                tracing::error!(error = %error, events, kept = self.kept.len(), "cannot write the audit log");
                let own = batches.into_iter().filter(|(_, is_own)| *is_own);
                self.keep(own.flat_map(|(batch, _)| batch.events));
                Err(unavailable(&error))
            }
        }
    }

    /// Whether events of the service's own wait for a log that can be written.
    fn owes(&self) -> bool {
        !self.kept.is_empty() || self.lost > 0
    }

    fn keep(&mut self, events: impl Iterator<Item = AuditEvent>) {
        for event in events {
            if self.kept.len() == KEPT_EVENTS_MAX {
                self.kept.pop_front();
                self.lost += 1;
                self.figures.lost.inc();
            }
            self.kept.push_back(event);
        }
    }

    fn try_append(&mut self, batches: &[(Batch, bool)]) -> rusqlite::Result<u64> {
        let transaction = self.connection.transaction()?;
        let mut change = self.chains.change();
        let mut stored = 0;
        for event in &self.kept {
            stored += u64::from(change.append(&transaction, "", event.clone())?);
        }
        for (batch, _) in batches {
            for event in &batch.events {
                stored += u64::from(change.append(&transaction, &batch.source, event.clone())?);
            }
        }
        if self.lost > 0 {
            let mut told = event::new(AUDIT_EVENTS_LOST);
            told.fields
                .insert("events".to_owned(), self.lost.to_string());
            let newest = batches.iter().filter_map(|(batch, _)| batch.events.last());
            let received = newest
                .chain(self.kept.back())
                .find_map(|event| event.received);
            let told = AuditEvent {
                time: received,
                received,
                ..shape(told)
            };
            stored += u64::from(change.append(&transaction, "", told)?);
        }
        let newest =
            transaction.query_row("SELECT ifnull(max(place), 0) FROM records", [], |row| {
                row.get(0)
            })?;
        let moved = change.moved();
        transaction.commit()?;
        self.chains.moved(moved);
        self.newest.send_replace(newest);
        Ok(stored)
    }

    fn exported(&mut self, target: &str, place: i64) -> Result<(), AuditUnavailable> {
        self.connection
            .prepare_cached(
                "INSERT INTO exports (target, place) VALUES (?1, ?2)
                 ON CONFLICT (target) DO UPDATE SET place = excluded.place",
            )
            .and_then(|mut statement| statement.execute((target, place)))
            .map(drop)
            .map_err(|error| {
                tracing::error!(error = %error, "cannot write how far the audit log is exported");
                unavailable(&error)
            })
    }
}

fn unavailable(error: &rusqlite::Error) -> AuditUnavailable {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => AuditUnavailable::Full,
        _ => AuditUnavailable::Failed,
    }
}
