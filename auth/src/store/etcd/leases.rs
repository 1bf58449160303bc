//! Leases: granting, ending, and keeping them over one stream for all.
//!
//! etcd answers in the order of the requests, so the ones that wait are a queue. Invariant: whoever asked gets an
//! answer within the request timeout; a stream that fails or falls silent fails all that wait on it.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tidegate_service::rpc::Backoff;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, sleep_until, timeout_at},
};

use super::{
    Inner,
    client::{CallError, Client, Kind, Opened, STREAM_REQUESTS_MAX},
    convert::{signed, unsigned},
    failure::Failure,
    pb::etcdserverpb::{
        LeaseGrantRequest, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseRevokeRequest,
        LeaseTimeToLiveRequest, lease_client::LeaseClient,
    },
    txn,
};
use crate::store::{LeaseError, LeaseId, StoreUnavailable, Txn};

/// Requests that wait for the stream before callers do.
const QUEUE_MAX: usize = 1024;
/// Requests that wait for their answer; the stream has room for as many.
const UNANSWERED_MAX: usize = STREAM_REQUESTS_MAX;
/// Waits between two attempts to keep a lease.
const KEEP_WAIT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

impl Inner {
    /// Makes a lease of whole seconds.
    pub(super) async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreUnavailable> {
        let whole = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let request = LeaseGrantRequest {
            ttl: signed(whole.max(1)),
            id: 0,
        };
        // One that was granted without our knowing ends by itself.
        let granted = self
            .client
            .call(Kind::Read, request, |channel, request| async move {
                LeaseClient::new(channel).lease_grant(request).await
            })
            .await
            .map_err(|error| error.unavailable("write"))?;
        Ok(LeaseId(unsigned(granted.id)))
    }

    /// Gives a lease its full time again.
    pub(super) async fn keep_alive(&self, lease: LeaseId) -> Result<(), LeaseError> {
        let deadline = Instant::now() + self.client.timeout();
        let mut backoff = Backoff::between(KEEP_WAIT.0, KEEP_WAIT.1);
        loop {
            let silent =
                || CallError::new(Failure::Unknown, "etcd did not say whether it kept a lease");
            let kept = timeout_at(deadline, self.keeper.keep(lease)).await;
            let error = match kept.unwrap_or_else(|_| Err(silent())) {
                Ok(true) => return Ok(()),
                Ok(false) => return Err(LeaseError::Gone(lease)),
                Err(error) => error,
            };
            let wait = backoff.next();
            if error.failure == Failure::Refused || Instant::now() + wait >= deadline {
                return Err(error.unavailable("write").into());
            }
            sleep(wait).await;
        }
    }

    /// Ends a lease now.
    pub(super) async fn revoke(&self, lease: LeaseId) -> Result<(), StoreUnavailable> {
        let request = LeaseRevokeRequest {
            id: signed(lease.0),
        };
        let revoked = self
            .client
            .call(Kind::Read, request, |channel, request| async move {
                LeaseClient::new(channel).lease_revoke(request).await
            })
            .await;
        match revoked {
            Ok(_) => Ok(()),
            Err(error) if error.failure == Failure::LeaseNotFound => Ok(()),
            Err(error) => Err(error.unavailable("write")),
        }
    }

    /// The lease of a transaction that etcd does not know.
    pub(super) async fn gone_lease(&self, txn: &Txn) -> Option<LeaseId> {
        let leases = txn::leases(txn);
        if let [lease] = leases.as_slice() {
            return Some(*lease);
        }
        for lease in &leases {
            if let Ok(None) = self.time_left(*lease).await {
                return Some(*lease);
            }
        }
        leases.first().copied()
    }

    /// How long a lease still lives, in whole seconds; `None` when it is gone.
    pub(super) async fn time_left(&self, lease: LeaseId) -> Result<Option<Duration>, CallError> {
        let request = LeaseTimeToLiveRequest {
            id: signed(lease.0),
        };
        let left = self
            .client
            .call(Kind::Read, request, |channel, request| async move {
                LeaseClient::new(channel).lease_time_to_live(request).await
            })
            .await;
        match left {
            Ok(left) if left.ttl > 0 => Ok(Some(Duration::from_secs(unsigned(left.ttl)))),
            Ok(_) => Ok(None),
            Err(error) if error.failure == Failure::LeaseNotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// `true` when the lease lives.
type Reply = oneshot::Sender<Result<bool, CallError>>;
type Open = Opened<LeaseKeepAliveRequest, LeaseKeepAliveResponse>;

/// Asks for leases to be kept.
pub(super) struct Keeper(mpsc::Sender<(LeaseId, Reply)>);

impl Keeper {
    /// Starts the task that has the stream; it ends when this is dropped.
    pub(super) fn start(client: Arc<Client>) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(keep(client, receiver));
        Self(sender)
    }

    /// Gives a lease its full time again; `false` when it is gone.
    pub(super) async fn keep(&self, lease: LeaseId) -> Result<bool, CallError> {
        let gone = || CallError::new(Failure::Unknown, "the stream that keeps leases ended");
        let (reply, answer) = oneshot::channel();
        self.0.send((lease, reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

async fn keep(client: Arc<Client>, mut asked: mpsc::Receiver<(LeaseId, Reply)>) {
    while let Some((lease, reply)) = asked.recv().await {
        if reply.is_closed() {
            continue; // nobody waits for it any more
        }
        let opened = client
            .open(request(lease), |channel, request| async move {
                LeaseClient::new(channel).lease_keep_alive(request).await
            })
            .await;
        match opened {
            Ok(stream) => {
                let mut waiting = Waiting::new(&client);
                waiting.push(lease, reply);
                serve(&client, stream, waiting, &mut asked).await;
            }
            Err(error) => {
                // Those who asked meanwhile would fare no better; they decide whether to try again.
                let mut failed = vec![reply];
                while let Ok((_, reply)) = asked.try_recv() {
                    failed.push(reply);
                }
                for reply in failed {
                    // A caller that went away does not want its answer.
                    let _ = reply.send(Err(error.clone()));
                }
            }
        }
    }
}

fn request(lease: LeaseId) -> LeaseKeepAliveRequest {
    LeaseKeepAliveRequest {
        id: signed(lease.0),
    }
}

/// Uses one stream until it fails, or nobody can ask any more.
async fn serve(
    client: &Client,
    mut stream: Open,
    mut waiting: Waiting,
    asked: &mut mpsc::Receiver<(LeaseId, Reply)>,
) {
    let failed = loop {
        let overdue = waiting.overdue_at();
        tokio::select! {
            answer = stream.answers.message() => match answer {
                Ok(Some(answer)) => {
                    if let Err(error) = waiting.answer(&answer) {
                        break error;
                    }
                }
                Ok(None) => break CallError::new(Failure::Unknown, "etcd ended the stream that keeps leases"),
                Err(status) => break CallError::from(status),
            },
            () = sleep_until(overdue), if !waiting.is_empty() => {
                break CallError::new(Failure::Unknown, "etcd did not say whether it kept a lease");
            }
            next = asked.recv(), if !waiting.is_full() => {
                let Some((lease, reply)) = next else { return };
                waiting.push(lease, reply);
                // There is room for all that may wait: only an ended stream takes no more.
                if stream.requests.try_send(request(lease)).is_err() {
                    break CallError::new(Failure::Unknown, "the stream that keeps leases ended");
                }
            }
        }
    };
    client.failed(failed.failure, &stream.used);
    waiting.fail(&failed);
}

/// Who waits for an answer, in the order of the requests.
struct Waiting {
    queue: VecDeque<(LeaseId, Instant, Reply)>,
    patience: Duration,
}

impl Waiting {
    const fn new(client: &Client) -> Self {
        Self {
            queue: VecDeque::new(),
            patience: client.timeout(),
        }
    }

    fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    fn is_full(&self) -> bool {
        self.queue.len() >= UNANSWERED_MAX
    }

    fn push(&mut self, lease: LeaseId, reply: Reply) {
        self.queue
            .push_back((lease, Instant::now() + self.patience, reply));
    }

    fn overdue_at(&self) -> Instant {
        self.queue
            .front()
            .map_or_else(Instant::now, |(_, overdue, _)| *overdue)
    }

    fn answer(&mut self, answer: &LeaseKeepAliveResponse) -> Result<(), CallError> {
        match self.queue.pop_front() {
            Some((lease, _, reply)) if signed(lease.0) == answer.id => {
                // A caller that went away does not want its answer.
                let _ = reply.send(Ok(answer.ttl > 0));
                Ok(())
            }
            unexpected => {
                self.queue.extend(unexpected);
                let text = "etcd answered for a lease that was not asked for";
                Err(CallError::new(Failure::Unknown, text))
            }
        }
    }

    fn fail(self, error: &CallError) {
        for (_, _, reply) in self.queue {
            // As above.
            let _ = reply.send(Err(error.clone()));
        }
    }
}
