//! One connection to etcd for everything, further attempts, and logging in.
//!
//! All calls and streams share one HTTP/2 connection to one member. When that member is of no use (lost, without a
//! leader, silent), the next call goes to another. Invariants: a call ends within the request timeout; a write is
//! tried again only when it surely was not carried out.
//!
//! Not here: what the calls are for, and which errors matter to whom ([`super::failure`]).

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use secrecy::ExposeSecret as _;
use tidegate_service::rpc::Backoff;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Response, Status, Streaming,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};
use tower::service_fn;

use super::{
    dial::Dialer,
    failure::{self, Failure},
    options::{EtcdLogin, EtcdOptions},
    pb::etcdserverpb::{AuthenticateRequest, auth_client::AuthClient},
};
use crate::store::StoreUnavailable;

/// The authority that requests name; etcd does not look at it.
const AUTHORITY: &str = "http://etcd.internal";
/// How often a connection with requests on it is asked for a sign of life; etcd refuses less than 5 s.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How long it may take to give one before it counts as lost.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Unread bytes that one stream may hold back.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// Unread bytes that all streams together may hold back, so that a few that nobody reads do not stop the others.
const CONNECTION_WINDOW_BYTES: u32 = 16 * STREAM_WINDOW_BYTES;
/// Attempts of one call; the request timeout usually ends them earlier.
const ATTEMPTS_MAX: usize = 64;
/// Waits between attempts.
const ATTEMPT_WAIT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// Different failures that a call tells of, when its attempts failed in different ways.
const FAILURES_TOLD_MAX: usize = 3;
/// Requests of a stream that wait to be sent.
pub(super) const STREAM_REQUESTS_MAX: usize = 64;

/// What a call does, which decides whether it may be carried out twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It must not be carried out twice, and cannot be: its caller sends it again.
    FencedWrite,
    /// It changes nothing that matters twice.
    Read,
    /// It must not be carried out twice.
    Write,
}

/// A call that failed for good.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub(super) struct CallError {
    /// What it means.
    pub(super) failure: Failure,
    text: String,
}

impl CallError {
    pub(super) fn new(failure: Failure, text: impl Into<String>) -> Self {
        Self {
            failure,
            text: text.into(),
        }
    }

    /// Tells of earlier attempts too: often only one of them was told the cause.
    fn after(mut self, earlier: Vec<String>) -> Self {
        for text in earlier {
            if !self.text.contains(&text) {
                self.text.push_str("; earlier: ");
                self.text.push_str(&text);
            }
        }
        self
    }

    /// As the trait tells it.
    pub(super) fn unavailable(self, action: &'static str) -> StoreUnavailable {
        StoreUnavailable {
            action,
            source: self.into(),
        }
    }
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        let told = failure::describe(&status);
        let text = match failure::hint(&status) {
            Some(hint) => format!("{told} ({hint})"),
            None => told,
        };
        Self::new(failure::of(&status), text)
    }
}

/// What a call was made with, so that what failed is replaced once and not by everybody who failed with it.
#[derive(Clone)]
pub(super) struct Used {
    number: u64,
    channel: Channel,
    token: Option<Arc<Token>>,
}

struct Attached {
    number: u64,
    channel: Channel,
}

type Token = MetadataValue<Ascii>;

/// An open stream both ways. Dropping it ends it.
pub(super) struct Opened<Q, R> {
    pub(super) requests: mpsc::Sender<Q>,
    pub(super) answers: Streaming<R>,
    pub(super) used: Used,
}

/// The way to etcd.
pub(super) struct Client {
    dialer: Arc<Dialer>,
    attached: ArcSwap<Attached>,
    moves: AtomicU64,
    login: Option<EtcdLogin>,
    token: ArcSwapOption<Token>,
    logging_in: tokio::sync::Mutex<()>,
    timeout: Duration,
    closed: watch::Sender<bool>,
}

impl Client {
    /// Connects with the first call.
    pub(super) fn new(options: &EtcdOptions) -> Self {
        let dialer = Arc::new(Dialer::new(
            options.endpoints.clone(),
            options.tls.clone(),
            options.dial_timeout,
        ));
        let first = Attached {
            number: 0,
            channel: channel(dialer.clone()),
        };
        Self {
            dialer,
            attached: ArcSwap::from_pointee(first),
            moves: AtomicU64::new(0),
            login: options.login.clone(),
            token: ArcSwapOption::empty(),
            logging_in: tokio::sync::Mutex::default(),
            timeout: options.request_timeout,
            closed: watch::Sender::new(false),
        }
    }

    /// How long one call may take.
    pub(super) const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Makes every later call fail, and tells whoever waits in [`Self::closed`].
    pub(super) fn close(&self) {
        self.closed.send_replace(true);
    }

    /// Waits until it is closed.
    pub(super) async fn closed(&self) {
        // The sender is ours: it does not go away while we wait.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    fn check_open(&self) -> Result<(), CallError> {
        if *self.closed.borrow() {
            Err(CallError::new(Failure::Refused, "the store was closed"))
        } else {
            Ok(())
        }
    }

    /// Makes one call within the request timeout.
    pub(super) async fn call<Q, R, F, T>(
        &self,
        kind: Kind,
        request: Q,
        send: F,
    ) -> Result<R, CallError>
    where
        Q: Clone,
        F: Fn(Channel, Request<Q>) -> T,
        T: Future<Output = Result<Response<R>, Status>>,
    {
        let deadline = Instant::now() + self.timeout;
        self.call_until(deadline, kind, request, send).await
    }

    /// Makes one call, again and elsewhere while that is safe, helps and there is time.
    pub(super) async fn call_until<Q, R, F, T>(
        &self,
        deadline: Instant,
        kind: Kind,
        request: Q,
        send: F,
    ) -> Result<R, CallError>
    where
        Q: Clone,
        F: Fn(Channel, Request<Q>) -> T,
        T: Future<Output = Result<Response<R>, Status>>,
    {
        let mut backoff = Backoff::between(ATTEMPT_WAIT.0, ATTEMPT_WAIT.1);
        let mut attempt = 0;
        let mut earlier = Vec::new();
        loop {
            self.check_open()?;
            let left = deadline.saturating_duration_since(Instant::now());
            let limit = match kind {
                // Time is left for another member when this one says nothing.
                Kind::Read | Kind::FencedWrite => left.min(self.timeout / 2),
                Kind::Write => left,
            };
            let failed = match self.attempt(limit, request.clone(), &send).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            attempt += 1;
            let wait = backoff.next();
            let is_over = attempt >= ATTEMPTS_MAX || Instant::now() + wait >= deadline;
            if is_over || !self.may_repeat(kind, failed.failure) {
                return Err(failed.after(earlier));
            }
            if earlier.len() < FAILURES_TOLD_MAX && !earlier.contains(&failed.text) {
                earlier.push(failed.text);
            }
            sleep(wait).await;
        }
    }

    const fn may_repeat(&self, kind: Kind, failure: Failure) -> bool {
        match failure {
            Failure::Busy | Failure::NotDone => true,
            Failure::TokenStale => self.login.is_some(),
            Failure::Unknown => matches!(kind, Kind::Read),
            Failure::AnswerTooLong
            | Failure::Compacted
            | Failure::FutureRevision
            | Failure::LeaseNotFound
            | Failure::Refused
            | Failure::TooLong => false,
        }
    }

    async fn attempt<Q, R, F, T>(
        &self,
        limit: Duration,
        request: Q,
        send: &F,
    ) -> Result<R, CallError>
    where
        F: Fn(Channel, Request<Q>) -> T,
        T: Future<Output = Result<Response<R>, Status>>,
    {
        let mut used = self.current();
        let outcome = timeout(limit, async {
            used.token = self.token(&used.channel).await?;
            let sent = send(used.channel.clone(), with_metadata(request, &used));
            sent.await
                .map(Response::into_inner)
                .map_err(CallError::from)
        })
        .await
        .unwrap_or_else(|_| Err(silent(limit)));
        outcome.inspect_err(|error| self.failed(error.failure, &used))
    }

    /// Opens a stream whose first request is known, and waits until etcd takes it. One attempt.
    pub(super) async fn open<Q, R, F, T>(
        &self,
        first: Q,
        send: F,
    ) -> Result<Opened<Q, R>, CallError>
    where
        Q: Send + 'static,
        F: FnOnce(Channel, Request<ReceiverStream<Q>>) -> T,
        T: Future<Output = Result<Response<Streaming<R>>, Status>>,
    {
        self.check_open()?;
        let (requests, outgoing) = mpsc::channel(STREAM_REQUESTS_MAX);
        // Its receiver is here, and it is empty.
        let _ = requests.try_send(first);
        let mut used = self.current();
        let outcome = timeout(self.timeout, async {
            used.token = self.token(&used.channel).await?;
            let request = with_metadata(ReceiverStream::new(outgoing), &used);
            let sent = send(used.channel.clone(), request);
            sent.await
                .map(Response::into_inner)
                .map_err(CallError::from)
        })
        .await
        .unwrap_or_else(|_| Err(silent(self.timeout)));
        match outcome {
            Ok(answers) => Ok(Opened {
                requests,
                answers,
                used,
            }),
            Err(error) => {
                self.failed(error.failure, &used);
                Err(error)
            }
        }
    }

    /// Replaces what a call failed with: the member, or the token.
    pub(super) fn failed(&self, failure: Failure, used: &Used) {
        match failure {
            Failure::NotDone | Failure::Unknown => self.move_on(used.number),
            Failure::TokenStale => self.forget_token(used),
            Failure::AnswerTooLong
            | Failure::Busy
            | Failure::Compacted
            | Failure::FutureRevision
            | Failure::LeaseNotFound
            | Failure::Refused
            | Failure::TooLong => {}
        }
    }

    /// Logs in again with the next call.
    pub(super) fn forget_token(&self, used: &Used) {
        if let Some(stale) = &used.token {
            self.token.compare_and_swap(stale, None);
        }
    }

    fn current(&self) -> Used {
        let attached = self.attached.load();
        Used {
            number: attached.number,
            channel: attached.channel.clone(),
            token: None,
        }
    }

    fn move_on(&self, from: u64) {
        let moved =
            self.moves
                .compare_exchange(from, from + 1, Ordering::AcqRel, Ordering::Relaxed);
        if moved.is_ok() {
            self.dialer.move_on();
            self.attached.store(Arc::new(Attached {
                number: from + 1,
                channel: channel(self.dialer.clone()),
            }));
        }
    }

    /// The token to show, if we have to show one; logs in when there is none.
    async fn token(&self, channel: &Channel) -> Result<Option<Arc<Token>>, CallError> {
        let Some(login) = &self.login else {
            return Ok(None);
        };
        let known = self.token.load_full();
        if known.is_some() {
            return Ok(known);
        }
        let _one_at_a_time = self.logging_in.lock().await;
        let known = self.token.load_full();
        if known.is_some() {
            return Ok(known);
        }
        let request = AuthenticateRequest {
            name: login.username.clone(),
            password: login.password.expose_secret().to_owned(),
        };
        let answer = AuthClient::new(channel.clone())
            .authenticate(request)
            .await?
            .into_inner();
        let mut token = Token::try_from(answer.token).map_err(|_| {
            CallError::new(Failure::Refused, "etcd gave a token that cannot be sent")
        })?;
        token.set_sensitive(true);
        let token = Arc::new(token);
        self.token.store(Some(token.clone()));
        Ok(Some(token))
    }
}

fn silent(limit: Duration) -> CallError {
    let text = format!("no answer from etcd within {} ms", limit.as_millis());
    CallError::new(Failure::Unknown, text)
}

fn with_metadata<Q>(message: Q, used: &Used) -> Request<Q> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    // A member that has lost its leader is to say so, instead of keeping us waiting.
    metadata.insert("hasleader", MetadataValue::from_static("true"));
    if let Some(token) = &used.token {
        metadata.insert("token", token.as_ref().clone());
    }
    request
}

fn channel(dialer: Arc<Dialer>) -> Channel {
    Endpoint::from_static(AUTHORITY)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        // etcd hangs up on clients that ping without a request.
        .keep_alive_while_idle(false)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .connect_with_connector_lazy(service_fn(move |_| dialer.clone().dial()))
}
