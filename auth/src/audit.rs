//! The audit log: append-only, in a file of its own, one hash chain a source.
//!
//! An event of a source is stored once, whatever number of times it arrives: its uid says who it is.
//! [`AuditLog::append`] answers when events are on disk, so that an emitter may forget them; [`AuditLog::record`] is for
//! the service's own events, which are queued, and kept while the file cannot be written.
//!
//! Invariant: no event, whatever it is made of, keeps others from being stored ([`shape`]), and what is stored is in its
//! source's chain ([`chains`]). What a chain is, and what verifies it, is in `proto/src/audit`.

mod chains;
pub(crate) mod event;
pub(crate) mod export;
mod reader;
mod schema;
mod shape;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;
use tidegate_proto::{convert, v1};
use tidegate_service::{clock::SharedClock, metrics::Metrics};
use tokio::sync::{mpsc, oneshot, watch};

use crate::store::sqlite::OpenError;
use reader::Reader;
pub(crate) use reader::{EventQuery, Found, Page, Spot};
use writer::{Batch, Command, Writer};

/// Commands that wait for the log's thread.
const QUEUE_MAX: usize = 4096;
/// How long a reader waits for events that are being stored.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(2);
/// The file's name in its directory.
const FILE_NAME: &str = "audit.db";

/// Why the audit log did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AuditUnavailable {
    /// The service is shutting down.
    #[error("the audit log is closed")]
    Closed,
    /// The file cannot be read or written.
    #[error("the audit log cannot be used now")]
    Failed,
    /// There is no room for more.
    #[error("the disk that the audit log is on is full")]
    Full,
}

/// Whose log it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The cluster's name.
    pub(crate) cluster: String,
    /// The host id of this instance, which is the source of its own events.
    pub(crate) instance: String,
}

/// What is counted.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    stored: Counter,
    failures: Counter,
    lost: Counter,
}

impl Figures {
    fn register(metrics: &Metrics) -> Self {
        Self {
            stored: metrics.register(
                "tidegate_auth_audit_events_total",
                "Audit events that were stored",
                Counter::default(),
            ),
            failures: metrics.register(
                "tidegate_auth_audit_write_failures_total",
                "Times that the audit log could not be written",
                Counter::default(),
            ),
            lost: metrics.register(
                "tidegate_auth_audit_events_lost_total",
                "Audit events of the auth service itself that could neither be stored nor kept",
                Counter::default(),
            ),
        }
    }
}

/// The audit log. Clones are the same log.
#[derive(Clone)]
pub(crate) struct AuditLog {
    queue: mpsc::Sender<Command>,
    reader: Reader,
    newest: watch::Receiver<i64>,
    id: v1::AuditLogId,
    clock: SharedClock,
    lost: Counter,
    overflow: Arc<AtomicU64>,
}

impl AuditLog {
    /// Opens the log in a directory that exists.
    ///
    /// # Errors
    ///
    /// [`OpenError`] when the file cannot be used.
    pub(crate) fn open_as(
        directory: &Path,
        origin: Origin,
        clock: SharedClock,
        metrics: &Metrics,
    ) -> Result<Self, OpenError> {
        let path = directory.join(FILE_NAME);
        let (connection, chains) = schema::open(&path, &origin, clock.now())?;
        let figures = Figures::register(metrics);
        let lost = figures.lost.clone();
        let writer =
            Writer::new(connection, chains, figures).map_err(|source| OpenError::Sqlite {
                path: path.clone(),
                source,
            })?;
        let (newest, overflow) = (writer.newest(), writer.overflow());
        let id = v1::AuditLogId {
            instance: origin.instance,
            log: writer.log().to_owned(),
        };
        let (queue, commands) = mpsc::channel(QUEUE_MAX);
        std::thread::Builder::new()
            .name("audit-log".to_owned())
            .spawn(move || writer.run(commands))
            .map_err(OpenError::Thread)?;
        Ok(Self {
            queue,
            reader: Reader::new(&path),
            newest,
            id,
            clock,
            lost,
            overflow,
        })
    }

    /// As [`Self::open_as`], of an instance that no test asks about.
    #[cfg(test)]
    pub(crate) fn open(directory: &Path, clock: SharedClock) -> Result<Self, OpenError> {
        let origin = Origin {
            cluster: "tidegate.test".to_owned(),
            instance: "auth-1".to_owned(),
        };
        Self::open_as(directory, origin, clock, &Metrics::new())
    }

    /// Which log it is.
    pub(crate) const fn id(&self) -> &v1::AuditLogId {
        &self.id
    }

    /// The place of the newest record, as it changes.
    pub(crate) fn newest(&self) -> watch::Receiver<i64> {
        self.newest.clone()
    }

    /// Stores events of a source; those that it sent before are left out.
    pub(crate) async fn append(
        &self,
        source: &str,
        events: Vec<v1::AuditEvent>,
    ) -> Result<(), AuditUnavailable> {
        let received = Some(convert::timestamp(self.clock.now()));
        let shaped = events.into_iter().map(|event| v1::AuditEvent {
            received,
            ..shape::shape(event)
        });
        let batch = Batch {
            source: source.to_owned(),
            events: shaped.collect(),
        };
        self.ask(|reply| Command::Append {
            batch,
            reply: Some(reply),
        })
        .await
    }

    /// Stores one of the service's own events, with the present time, without waiting.
    pub(crate) fn record(&self, event: v1::AuditEvent) {
        let command = self.own(vec![event]);
        if let Err(error) = self.queue.try_send(command) {
            self.lost.inc();
            self.overflow.fetch_add(1, Ordering::Relaxed);
            tracing::error!(error = %error, "lost an audit event");
        }
    }

    /// As [`Self::record`], for many at once: waits for room in the queue.
    pub(crate) async fn record_all(&self, events: Vec<v1::AuditEvent>) {
        let lost = u64::try_from(events.len()).unwrap_or(u64::MAX);
        if self.queue.send(self.own(events)).await.is_err() {
            self.lost.inc_by(lost);
            tracing::error!(events = lost, "lost audit events: the log is closed");
        }
    }

    fn own(&self, events: Vec<v1::AuditEvent>) -> Command {
        let now = self.clock.now();
        let shaped = events.into_iter();
        Command::Append {
            batch: Batch {
                source: String::new(),
                events: shaped.map(|event| shape::shape_own(event, now)).collect(),
            },
            reply: None,
        }
    }

    /// Waits until what was recorded before now is stored, or cannot be, or is taking long: whoever reads then finds
    /// what was done before.
    pub(crate) async fn settle(&self) {
        let nothing = |reply| Command::Append {
            batch: Batch {
                source: String::new(),
                events: Vec::new(),
            },
            reply: Some(reply),
        };
        // A log that cannot be written can still be read.
        let _ = tokio::time::timeout(SETTLE_TIMEOUT, self.ask(nothing)).await;
    }

    /// Searches for events.
    pub(crate) async fn search(&self, query: EventQuery) -> Result<Found, AuditUnavailable> {
        self.settle().await;
        self.reader.search(query).await
    }

    /// Reads records after a place up to another, of one source or (empty) all.
    pub(crate) async fn page(
        &self,
        source: &str,
        after: i64,
        upto: i64,
    ) -> Result<Page, AuditUnavailable> {
        self.reader.page(source.to_owned(), after, upto).await
    }

    /// How far a target of the export has everything.
    pub(crate) async fn exported(&self, target: &str) -> Result<i64, AuditUnavailable> {
        self.reader.exported(target.to_owned()).await
    }

    /// Remembers how far a target of the export has everything.
    pub(crate) async fn set_exported(
        &self,
        target: &str,
        place: i64,
    ) -> Result<(), AuditUnavailable> {
        let target = target.to_owned();
        self.ask(|reply| Command::Exported {
            target,
            place,
            reply,
        })
        .await
    }

    async fn ask(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<(), AuditUnavailable>>) -> Command,
    ) -> Result<(), AuditUnavailable> {
        let (reply, answer) = oneshot::channel();
        self.queue
            .send(command(reply))
            .await
            .map_err(|_| AuditUnavailable::Closed)?;
        answer.await.map_err(|_| AuditUnavailable::Closed)?
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
