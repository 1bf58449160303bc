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

use crate::{
    fetch::Viewpoint,
    found::Databases,
    scan::{Observed, Scan},
};

/// Longest publication of one scan.
pub(crate) const PUBLISH_TIMEOUT: Duration = Duration::from_secs(60);

/// Frames made ahead of what the connection takes.
const FRAMES_AHEAD_MAX: usize = 4;
/// Size from which a frame takes no further item; far below what a message may have, since one item may be large.
const FRAME_BYTES: usize = 64 * 1024;
/// Most items of one frame.
const FRAME_ITEMS_MAX: usize = 256;

/// The client as the worker uses it.
pub(crate) type Client = DiscoveryServiceClient<Channel>;

/// Why a scan did not arrive.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishError {
    /// Somebody else holds the scope, or nobody: the lease has to be acquired again.
    #[error("the lease on the scope was lost: {}", rpc::describe(.0))]
    LeaseLost(Box<Status>),

    /// The auth service wants what was found, which was not read: it has to be read.
    #[error("the auth service wants the databases of a scan that found nothing new")]
    ItemsWanted,

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
    digest: [u8; 32],
    /// In identity order; `None` when they were not read, since AWS answered as it did.
    items: Option<Vec<v1::ScanItem>>,
}

impl Publication {
    /// Of the items.
    pub(crate) const fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// What `scan` saw of `scope`, by the holder of `epoch`.
    pub(crate) fn new(scope: &ScanScope, epoch: u64, scan: Scan) -> Self {
        let mut known_digest = None;
        let (completeness, failure, seen) = match scan.observed {
            Observed::Complete(seen) => (v1::Completeness::Complete, None, seen),
            Observed::Same(known) => {
                known_digest = Some(known.digest);
                (v1::Completeness::Complete, None, Databases::new())
            }
            Observed::Partial {
                seen,
                cause,
                further,
            } => (
                v1::Completeness::Partial,
                Some(cause.status(scope, Viewpoint::Worker, further)),
                seen,
            ),
        };
        let items: Vec<v1::ScanItem> = seen.into_values().map(Into::into).collect();
        let digest = known_digest.unwrap_or_else(|| digest_of(&items));
        let header = v1::ScanHeader {
            scope: Some(scope.into()),
            epoch,
            completeness: completeness.into(),
            digest: digest.to_vec(),
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
        Self {
            header,
            digest,
            items: known_digest.is_none().then_some(items),
        }
    }
}

/// SHA-256 over the items, each with its length before it. Their maps are sorted, so the encoding is
/// the same for the same item.
fn digest_of(items: &[v1::ScanItem]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut encoded = Vec::new();
    for item in items {
        encoded.clear();
        // A Vec grows as needed, so this cannot fail.
        let _ = item.encode_length_delimited(&mut encoded);
        context.update(&encoded);
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
            let items = publication.items.ok_or(PublishError::ItemsWanted)?;
            let (_, answer) = tokio::join!(send_items(frames, items), next(&mut answers));
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
    let mut items = items.into_iter().peekable();
    while items.peek().is_some() {
        let part = Request::Items(v1::ScanItems {
            items: take(&mut items),
        });
        if frames.send(frame(part)).await.is_err() {
            return;
        }
    }
    // Nobody listens any more when this fails.
    let _ = frames.send(frame(Request::Trailer(trailer))).await;
}

/// The next items, as many as one frame takes.
fn take(items: &mut impl Iterator<Item = v1::ScanItem>) -> Vec<v1::ScanItem> {
    let mut taken = Vec::new();
    let mut bytes = 0;
    for item in items.by_ref() {
        bytes += item.encoded_len();
        taken.push(item);
        if bytes >= FRAME_BYTES || taken.len() >= FRAME_ITEMS_MAX {
            break;
        }
    }
    taken
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
