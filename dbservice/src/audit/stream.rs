//! The stream that takes events to the auth service, and what is on its way.
//!
//! Invariant: a batch leaves the [`Outbox`] only when the auth service says that it is on disk, or that it can never be
//! taken. Whatever is in it when a stream breaks is sent again, in the same order.

use std::{collections::VecDeque, time::Duration};

use prost::Message as _;
use tidegate_proto::v1::{
    AuditEvent, EmitStreamRequest, EmitStreamResponse, audit_service_client::AuditServiceClient,
};
use tidegate_service::rpc;
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, transport::Channel};
use tracing::{error, info, warn};

use super::{AuditReceiver, count};
use crate::{metrics::ServiceMetrics, retry::Retry};

/// Events in one batch; the most that the service takes.
const BATCH_EVENTS_MAX: usize = 256;

/// Bytes of a batch, about; well below the longest message. One event may be longer.
const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// Batches sent ahead of what is acknowledged.
const WINDOW_BATCHES: usize = 8;

/// How long the service may take to acknowledge something while anything waits for it.
const ACK_TIMEOUT: Duration = Duration::from_secs(10);

/// Batches that are not known to be on disk, in order.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    batches: VecDeque<Vec<AuditEvent>>,
    /// The number of the first one on the present stream.
    first: u64,
}

impl Outbox {
    /// Events in it.
    pub(super) fn events(&self) -> usize {
        self.batches.iter().map(Vec::len).sum()
    }

    /// Puts events in, as batches that are small enough.
    fn put(&mut self, events: &mut Vec<AuditEvent>) {
        let mut batch = Vec::new();
        let mut bytes = 0;
        for event in events.drain(..) {
            let more = event.encoded_len();
            if bytes + more > BATCH_BYTES_MAX && !batch.is_empty() {
                self.batches.push_back(std::mem::take(&mut batch));
                bytes = 0;
            }
            bytes += more;
            batch.push(event);
        }
        if !batch.is_empty() {
            self.batches.push_back(batch);
        }
    }

    /// The batch in this place, numbered for the present stream.
    fn request(&self, place: usize) -> Option<EmitStreamRequest> {
        Some(EmitStreamRequest {
            batch: self.first + u64::try_from(place).ok()?,
            events: self.batches.get(place)?.clone(),
        })
    }

    /// Lets go of what is on disk; how many batches that were.
    fn acknowledge(&mut self, durable: u64) -> usize {
        let before = self.batches.len();
        while self.first <= durable && self.batches.pop_front().is_some() {
            self.first += 1;
        }
        before - self.batches.len()
    }

    /// The service will never take the first batch as it is: it is halved, so that one event does not take others with
    /// it, and a batch of one is dropped. Events that were dropped.
    fn refuse(&mut self) -> usize {
        let Some(mut batch) = self.batches.pop_front() else {
            return 0;
        };
        if batch.len() <= 1 {
            return batch.len();
        }
        let rest = batch.split_off(batch.len() / 2);
        self.batches.push_front(rest);
        self.batches.push_front(batch);
        0
    }
}

/// Sends until the queue is closed and everything that was in it is on disk.
pub(super) async fn send_until_closed(
    receiver: &mut AuditReceiver,
    outbox: &mut Outbox,
    channel: Channel,
    metrics: &ServiceMetrics,
) {
    let mut client = AuditServiceClient::new(channel);
    let mut retry = Retry::new();
    let mut is_late = false;
    loop {
        retry.begin();
        let acknowledged = |retry: &mut Retry, waiting: usize| {
            if std::mem::take(&mut is_late) {
                info!(waiting, "audit events are sent again");
            }
            retry.succeeded();
        };
        let Err(status) =
            send_on_one_stream(receiver, outbox, &mut client, &mut retry, acknowledged).await
        else {
            return;
        };
        let cause = rpc::describe(&status);
        if is_hopeless(&status) {
            let dropped = outbox.refuse();
            if dropped > 0 {
                metrics.audit_dropped.inc_by(count(dropped));
                error!(
                    error = cause,
                    "the auth service refuses an audit event; it is dropped"
                );
            }
        } else if outbox.events() > 0 || !receiver.is_empty() {
            is_late = true;
            if retry.failed(&cause) {
                warn!(
                    error = cause,
                    waiting = outbox.events() + receiver.len(),
                    "cannot send audit events; they wait"
                );
            }
        }
        retry.pause().await;
    }
}

/// Sends on one stream until it breaks, or there is nothing more to send.
async fn send_on_one_stream(
    receiver: &mut AuditReceiver,
    outbox: &mut Outbox,
    client: &mut AuditServiceClient<Channel>,
    retry: &mut Retry,
    mut acknowledged: impl FnMut(&mut Retry, usize),
) -> Result<(), Status> {
    // A stream is opened only for something to send.
    let mut events = Vec::with_capacity(BATCH_EVENTS_MAX);
    if outbox.batches.is_empty() {
        if receiver.recv_many(&mut events, BATCH_EVENTS_MAX).await == 0 {
            return Ok(());
        }
        outbox.put(&mut events);
    }
    outbox.first = 1;
    let (sender, requests) = mpsc::channel(WINDOW_BATCHES);
    let opening = client.emit_stream(ReceiverStream::new(requests));
    let mut answers = within_timeout(opening).await?.into_inner();
    let mut sent = 0;
    loop {
        while sent < outbox.batches.len().min(WINDOW_BATCHES)
            && let Some(request) = outbox.request(sent)
        {
            // The channel has room for the window. Its end shows in the answers.
            let _ = sender.try_send(request);
            sent += 1;
        }
        let deadline = Instant::now() + ACK_TIMEOUT;
        tokio::select! {
            answer = next_answer(&mut answers, (sent > 0).then_some(deadline)) => {
                let done = outbox.acknowledge(answer?.durable_batch);
                sent = sent.saturating_sub(done);
                acknowledged(retry, receiver.len());
            }
            taken = receiver.recv_many(&mut events, BATCH_EVENTS_MAX), if outbox.batches.len() < WINDOW_BATCHES && !receiver_done(receiver) => {
                if taken > 0 {
                    outbox.put(&mut events);
                }
            }
        }
        if outbox.batches.is_empty() && receiver_done(receiver) {
            return Ok(());
        }
    }
}

/// Whether nobody can put anything in any more, and nothing is left.
fn receiver_done(receiver: &AuditReceiver) -> bool {
    receiver.is_closed() && receiver.is_empty()
}

async fn next_answer(
    answers: &mut Streaming<EmitStreamResponse>,
    deadline: Option<Instant>,
) -> Result<EmitStreamResponse, Status> {
    let answer = match deadline {
        None => answers.message().await,
        Some(deadline) => tokio::time::timeout_at(deadline, answers.message())
            .await
            .unwrap_or_else(|_| Err(late())),
    };
    answer?.ok_or_else(|| Status::unavailable("the auth service ended the stream"))
}

async fn within_timeout<T>(answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    tokio::time::timeout(ACK_TIMEOUT, answer)
        .await
        .unwrap_or_else(|_| Err(late()))
}

fn late() -> Status {
    Status::deadline_exceeded("no answer in time")
}

/// Whether the same batch can never be taken.
fn is_hopeless(status: &Status) -> bool {
    matches!(status.code(), Code::InvalidArgument | Code::OutOfRange)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(count: usize, bytes: usize) -> Vec<AuditEvent> {
        let event = |at: usize| AuditEvent {
            uid: at.to_string(),
            error: "x".repeat(bytes),
            ..AuditEvent::default()
        };
        (0..count).map(event).collect()
    }

    fn sizes(outbox: &Outbox) -> Vec<usize> {
        outbox.batches.iter().map(Vec::len).collect()
    }

    #[test]
    fn batches_are_bounded_by_bytes_and_a_long_event_goes_alone() {
        let mut outbox = Outbox::default();
        outbox.put(&mut events(5, BATCH_BYTES_MAX / 2 - 100));
        assert_eq!(sizes(&outbox), [2, 2, 1]);
        outbox.put(&mut events(2, BATCH_BYTES_MAX));
        assert_eq!(sizes(&outbox), [2, 2, 1, 1, 1]);
    }

    #[test]
    fn only_what_is_acknowledged_leaves_and_the_rest_is_numbered_anew() {
        let mut outbox = Outbox {
            first: 1,
            ..Outbox::default()
        };
        for _ in 0..3 {
            outbox.put(&mut events(1, 1));
        }
        assert_eq!(outbox.acknowledge(2), 2);
        assert_eq!(outbox.request(0).unwrap().batch, 3);
        assert_eq!(outbox.acknowledge(2), 0);
        outbox.first = 1;
        assert_eq!(outbox.request(0).unwrap().batch, 1);
        assert!(outbox.request(1).is_none());
        assert_eq!(outbox.acknowledge(u64::MAX), 1);
    }

    #[test]
    fn an_event_that_is_refused_takes_no_other_with_it() {
        let mut outbox = Outbox::default();
        outbox.put(&mut events(8, 1));
        let poison = "5".to_owned();
        let mut taken = Vec::new();
        let mut dropped = 0;
        while let Some(batch) = outbox.batches.front() {
            if batch.iter().any(|event| event.uid == poison) {
                dropped += outbox.refuse();
            } else {
                taken.extend(batch.iter().map(|event| event.uid.clone()));
                outbox.batches.pop_front();
            }
        }
        assert_eq!(dropped, 1);
        assert_eq!(taken, ["0", "1", "2", "3", "4", "6", "7"]);
    }
}
