//! Publishes one scan: header, then items when they are asked for, then trailer.
//!
//! Invariant: equal items have equal digests, in whatever order AWS gave them; so a quiet poll is
//! answered after the header.

use std::time::Duration;

use aws_lc_rs::digest;
use prost::Message;
use tidegate_core::ScanScope;
use tidegate_proto::{
    convert,
    v1::{
        self, discovery_service_client::DiscoveryServiceClient,
        publish_scan_request::Frame as Request, publish_scan_response::Frame as Answer,
    },
};
use tidegate_service::rpc;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, transport::Channel};

use crate::scan::{Observed, Scan};

/// Longest publication of one scan.
pub(crate) const PUBLISH_TIMEOUT: Duration = Duration::from_secs(60);

/// Frames made ahead of what the connection takes.
const FRAMES_AHEAD_MAX: usize = 64;

/// The client as the worker uses it.
pub(crate) type Client = DiscoveryServiceClient<Channel>;

/// Why a scan did not arrive.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishError {
    /// Somebody else holds the scope, or nobody: the lease has to be acquired again.
    #[error("the lease on the scope was lost: {}", rpc::describe(.0))]
    LeaseLost(Box<Status>),

    /// The auth service ended the stream without saying what it did.
    #[error("the auth service ended the publication without a result")]
    NoResult,

    /// The auth service could not be reached, or refused.
    #[error("the auth service did not take the scan: {}", rpc::describe(.0))]
    Rpc(Box<Status>),

    /// It took too long.
    #[error("the auth service did not take the scan within {} s", PUBLISH_TIMEOUT.as_secs())]
    TimedOut,
}

impl From<Status> for PublishError {
    fn from(status: Status) -> Self {
        if status.code() == Code::FailedPrecondition {
            Self::LeaseLost(Box::new(status))
        } else {
            Self::Rpc(Box::new(status))
        }
    }
}

/// A scan as it travels.
#[derive(Debug, PartialEq)]
pub(crate) struct Publication {
    header: v1::ScanHeader,
    /// In identity order.
    items: Vec<v1::ScanItem>,
}

impl Publication {
    /// What `scan` saw of `scope`, by the holder of `epoch`.
    pub(crate) fn new(scope: &ScanScope, epoch: u64, scan: Scan) -> Self {
        let (completeness, failure, seen) = match scan.observed {
            Observed::Complete(seen) => (v1::Completeness::Complete, None, seen),
            Observed::Partial {
                seen,
                cause,
                further,
            } => (
                v1::Completeness::Partial,
                Some(cause.status(scope, further)),
                seen,
            ),
        };
        let items: Vec<v1::ScanItem> = seen.into_values().map(Into::into).collect();
        let header = v1::ScanHeader {
            scope: Some(scope.into()),
            epoch,
            completeness: completeness.into(),
            digest: digest_of(&items).to_vec(),
            failure,
            started_at: Some(convert::timestamp(scan.started_at)),
            finished_at: Some(convert::timestamp(scan.finished_at)),
            aws_calls: scan.aws_calls,
            left_out: scan
                .left_out
                .into_iter()
                .map(|(reason, count)| v1::LeftOut {
                    reason: reason.to_owned(),
                    count: u32::try_from(count).unwrap_or(u32::MAX),
                })
                .collect(),
        };
        Self { header, items }
    }
}

/// SHA-256 over the items, each with its length before it. Their maps are sorted, so the encoding is
/// the same for the same item.
fn digest_of(items: &[v1::ScanItem]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for item in items {
        context.update(&item.encode_length_delimited_to_vec());
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.finish().as_ref());
    bytes
}

/// Publishes; takes [`PUBLISH_TIMEOUT`] at most. A repeat does no harm.
pub(crate) async fn publish(
    client: Client,
    publication: Publication,
) -> Result<v1::PublishResult, PublishError> {
    timeout(PUBLISH_TIMEOUT, exchange(client, publication))
        .await
        .unwrap_or(Err(PublishError::TimedOut))
}

async fn exchange(
    mut client: Client,
    publication: Publication,
) -> Result<v1::PublishResult, PublishError> {
    let (frames, stream) = mpsc::channel(FRAMES_AHEAD_MAX);
    // The channel is new, so there is room.
    let _ = frames
        .send(frame(Request::Header(publication.header)))
        .await;
    let mut answers = client
        .publish_scan(ReceiverStream::new(stream))
        .await?
        .into_inner();
    match next(&mut answers).await? {
        Answer::Result(result) => Ok(result),
        Answer::SendItems(_) => {
            let (_, answer) =
                tokio::join!(send_items(frames, publication.items), next(&mut answers));
            match answer? {
                Answer::Result(result) => Ok(result),
                Answer::SendItems(_) => Err(PublishError::NoResult),
            }
        }
    }
}

/// Sends until all is sent or nobody listens any more; then the answer says why.
async fn send_items(frames: mpsc::Sender<v1::PublishScanRequest>, items: Vec<v1::ScanItem>) {
    let trailer = v1::ScanTrailer {
        items: u32::try_from(items.len()).unwrap_or(u32::MAX),
    };
    let all = items
        .into_iter()
        .map(Request::Item)
        .chain([Request::Trailer(trailer)]);
    for part in all {
        if frames.send(frame(part)).await.is_err() {
            return;
        }
    }
}

async fn next(answers: &mut Streaming<v1::PublishScanResponse>) -> Result<Answer, PublishError> {
    let answer = answers.message().await?;
    answer
        .and_then(|answer| answer.frame)
        .ok_or(PublishError::NoResult)
}

const fn frame(frame: Request) -> v1::PublishScanRequest {
    v1::PublishScanRequest { frame: Some(frame) }
}

#[cfg(test)]
mod tests;
