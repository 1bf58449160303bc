//! `tgctl audit`: what happened, and whether the record of it is whole.

mod export;
mod heads;
mod search;
mod verify;

use std::time::Duration;

use tidegate_console::{Failure, client::Client, output, rpc};
use tidegate_proto::v1::{AuditLogId, ReadRecordsRequest, ReadRecordsResponse};
use tonic::{Status, Streaming};

pub(crate) use export::export;
pub(crate) use search::search;
pub(crate) use verify::{verify, verify_files};

/// How long the service may take to send a part of its log.
const PART_TIMEOUT: Duration = Duration::from_secs(30);

/// Says whose log was read: over etcd each instance has its own.
fn say_who_answered(log: &AuditLogId) {
    output::remark(&format!(
        "Instance {} answered; its log is {}.",
        log.instance, log.log
    ));
}

/// The log of the instance that answers, part by part.
struct Records {
    parts: Streaming<ReadRecordsResponse>,
}

impl Records {
    const DOING: &str = "read the audit log";

    /// Begins to read; the first part says whose log it is.
    async fn open(
        client: &Client,
        source: Option<String>,
    ) -> Result<(Self, AuditLogId, ReadRecordsResponse), Failure> {
        let request = ReadRecordsRequest {
            source: source.unwrap_or_default(),
        };
        let mut audit = client.audit();
        let mut records = Self {
            parts: rpc::call(Self::DOING, audit.read_records(request)).await?,
        };
        let mut first = records.next().await?.unwrap_or_default();
        let Some(log) = first.log.take() else {
            return Err(
                Failure::new("the auth service does not say whose log it is").within(Self::DOING),
            );
        };
        Ok((records, log, first))
    }

    /// The next part; `None` at the end.
    async fn next(&mut self) -> Result<Option<ReadRecordsResponse>, Failure> {
        tokio::time::timeout(PART_TIMEOUT, self.parts.message())
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))
            .map_err(|status| rpc::failure(Self::DOING, &status))
    }
}
