//! The audit log: append-only, in a file of its own.
//!
//! An event is stored once, whatever number of times it arrives: its uid says who it is. [`AuditLog::append`] answers
//! when events are on disk, so that an emitter may forget them; [`AuditLog::record`] is for the service's own events,
//! which are queued, and logged instead when the queue is full.

pub(crate) mod event;
mod log;

use std::path::Path;

use tidegate_proto::v1;
use tokio::sync::{mpsc, oneshot};

use crate::store::sqlite::OpenError;
use log::{Command, LogThread};

/// Commands that wait for the log's thread.
const QUEUE_MAX: usize = 4096;

/// The audit log cannot be read or written.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the audit log cannot be used now")]
pub(crate) struct AuditUnavailable;

/// The audit log. Clones are the same log.
#[derive(Clone)]
pub(crate) struct AuditLog {
    queue: mpsc::Sender<Command>,
    clock: tidegate_service::clock::SharedClock,
}

/// Which events to list.
#[derive(Clone, Debug, Default)]
pub(crate) struct EventQuery {
    /// Only this event; empty is all.
    pub(crate) event: String,
    /// Only of this user; empty is all.
    pub(crate) user: String,
    /// At most this many, the newest.
    pub(crate) limit: usize,
}

impl AuditLog {
    /// Opens the log in a directory that exists.
    ///
    /// # Errors
    ///
    /// [`OpenError`] when the file cannot be used.
    pub(crate) fn open(
        directory: &Path,
        clock: tidegate_service::clock::SharedClock,
    ) -> Result<Self, OpenError> {
        let thread = LogThread::open(&directory.join("audit.db"))?;
        let (queue, commands) = mpsc::channel(QUEUE_MAX);
        std::thread::Builder::new()
            .name("audit-log".to_owned())
            .spawn(move || thread.run(commands))
            .map_err(OpenError::Thread)?;
        Ok(Self { queue, clock })
    }

    /// Appends events; those whose uid is known already are left out.
    pub(crate) async fn append(&self, events: Vec<v1::AuditEvent>) -> Result<(), AuditUnavailable> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Append {
            events,
            reply: Some(reply),
        };
        self.queue
            .send(command)
            .await
            .map_err(|_| AuditUnavailable)?;
        answer.await.map_err(|_| AuditUnavailable)?
    }

    /// Appends one of the service's own events, with the present time, without waiting.
    pub(crate) fn record(&self, event: v1::AuditEvent) {
        let command = self.own(vec![event]);
        if let Err(error) = self.queue.try_send(command) {
            tracing::error!(error = %error, "lost an audit event");
        }
    }

    /// As [`Self::record`], for many at once: waits for room in the queue.
    pub(crate) async fn record_all(&self, events: Vec<v1::AuditEvent>) {
        let lost = events.len();
        if self.queue.send(self.own(events)).await.is_err() {
            tracing::error!(events = lost, "lost audit events: the log is closed");
        }
    }

    fn own(&self, mut events: Vec<v1::AuditEvent>) -> Command {
        let now = tidegate_proto::convert::timestamp(self.clock.now());
        for event in &mut events {
            event.time = Some(now);
        }
        Command::Append {
            events,
            reply: None,
        }
    }

    /// The newest events, in order of arrival.
    pub(crate) async fn list(
        &self,
        query: EventQuery,
    ) -> Result<Vec<v1::AuditEvent>, AuditUnavailable> {
        let (reply, answer) = oneshot::channel();
        let command = Command::List { query, reply };
        self.queue
            .send(command)
            .await
            .map_err(|_| AuditUnavailable)?;
        answer.await.map_err(|_| AuditUnavailable)?
    }

    /// Waits until everything that was queued is on disk, and closes the file.
    pub(crate) async fn close(&self) {
        let (reply, answer) = oneshot::channel();
        if self.queue.send(Command::Close(reply)).await.is_ok() {
            // An error means that it is closed already.
            let _ = answer.await;
        }
    }
}
