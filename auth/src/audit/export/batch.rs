//! The lines that a target gets at once.

use bytes::Bytes;
use jiff::Timestamp;
use prost::Message as _;
use tidegate_proto::{
    audit::{Line, happened_at},
    convert,
    v1::AuditEvent,
};

use crate::audit::{AuditLog, AuditUnavailable};

/// Bytes of lines after which a batch ends; a page of the log may go over.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Records in order, as lines.
#[derive(Debug)]
pub(super) struct Batch {
    /// The log's id.
    pub(super) log: String,
    /// The position before the first one, which with the log's id names the batch.
    pub(super) after: i64,
    /// The last one's place.
    pub(super) through: i64,
    /// How many.
    pub(super) events: usize,
    /// When the first one arrived.
    pub(super) begins: Timestamp,
    /// Lines.
    pub(super) text: Bytes,
}

impl Batch {
    /// Reads what is after a place.
    pub(super) async fn read(log: &AuditLog, after: i64) -> Result<Self, AuditUnavailable> {
        let id = log.id().log.clone();
        let upto = *log.newest().borrow();
        let mut batch = Self {
            log: id.clone(),
            after,
            through: after,
            events: 0,
            begins: Timestamp::UNIX_EPOCH,
            text: Bytes::new(),
        };
        let mut text = Vec::new();
        while batch.through < upto && text.len() < BATCH_BYTES_MAX {
            let page = log.page("", batch.through, upto).await?;
            batch.through = page.through;
            for record in &page.records {
                // A record that somebody damaged is exported as it is: verifying the lines says so.
                let event = AuditEvent::decode(record.event.as_slice()).unwrap_or_default();
                if batch.events == 0 {
                    let received = event.received.as_ref();
                    let received = received.and_then(|at| convert::instant(at).ok());
                    batch.begins = received.unwrap_or_else(|| happened_at(&event));
                }
                batch.events += 1;
                let line = Line {
                    log: &id,
                    hash: &record.hash,
                    record: &record.event,
                    event: &event,
                };
                if let Err(error) = line.append_to(&mut text) {
                    tracing::error!(error = %error, "cannot write an audit event as JSON");
                }
            }
        }
        batch.text = text.into();
        Ok(batch)
    }
}
