//! A watch that outlives its connection.
//!
//! Each watch is one stream over all keys of ours, beside everything else on the one connection; it is read as fast
//! as its reader asks, and what waits, waits at etcd. When the stream is lost, another is opened at any member, from
//! the revision after the last one that was given. Only after [`OUTAGE_MAX`] without any does the watch end.
//!
//! How a reader is told that it has everything up to a revision: etcd says so by itself only every ten minutes, and
//! when asked (before 3.4.25 and 3.5.8) too early. So a key of ours, the bookmark, is written when somebody waits:
//! its change comes in order after all others.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt as _, Stream, stream};
use tidegate_service::rpc::Backoff;
use tokio::{
    sync::watch as cell,
    time::{Instant, sleep, sleep_until},
};

use super::{
    Inner,
    client::{CallError, Kind, Opened},
    convert::signed,
    events::{Assembler, Cancelled},
    failure::{self, Failure},
    kv,
    namespace::prefix_end,
    pb::etcdserverpb::{
        PutRequest, WatchCreateRequest, WatchRequest, WatchResponse, watch_client::WatchClient,
        watch_request::RequestUnion,
    },
};
use crate::store::{WatchError, Watched};

/// How long a watch goes without a stream before it gives up.
const OUTAGE_MAX: Duration = Duration::from_secs(30);
/// Waits between attempts to open a stream.
const REOPEN_WAIT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How long a change that would tell the revision anyway is waited for.
const BOOKMARK_DELAY: Duration = Duration::from_millis(20);
/// Between two bookmarks while none has come back.
const BOOKMARK_REPEAT: Duration = Duration::from_secs(1);
/// Largest answer: fragments are about as large as a request may be, and one change comes with its past.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

type Open = Opened<WatchRequest, WatchResponse>;

struct Watcher {
    store: Arc<Inner>,
    assembler: Assembler,
    stream: Option<Open>,
    /// The revision that somebody wants told.
    wanted: cell::Receiver<u64>,
    bookmark_at: Option<Instant>,
    backoff: Backoff,
    lost_at: Option<Instant>,
    /// Why there is no stream.
    cause: String,
    is_first: bool,
    is_ended: bool,
}

/// Starts a watch of what comes after a revision that was found to be there, in a store that was at `current` then.
pub(super) fn start(
    store: Arc<Inner>,
    prefix: Bytes,
    after: u64,
    current: u64,
) -> impl Stream<Item = Result<Watched, WatchError>> + Send {
    let assembler = Assembler::new(store.names.clone(), prefix, after, current);
    let watcher = Watcher {
        wanted: store.wanted.subscribe(),
        bookmark_at: assembler.is_waiting().then(Instant::now),
        store,
        assembler,
        stream: None,
        backoff: Backoff::between(REOPEN_WAIT.0, REOPEN_WAIT.1),
        lost_at: None,
        cause: String::new(),
        is_first: true,
        is_ended: false,
    };
    stream::unfold(watcher, |mut watcher| async move {
        if watcher.is_ended {
            return None;
        }
        let next = watcher.next().boxed().await;
        watcher.is_ended = next.is_err();
        Some((next, watcher))
    })
}

/// What happens to a watch.
enum Happened {
    Answered(Result<Option<WatchResponse>, tonic::Status>),
    BookmarkDue,
    Closed,
    Wanted(u64),
}

impl Watcher {
    async fn next(&mut self) -> Result<Watched, WatchError> {
        loop {
            if let Some(watched) = self.assembler.pop() {
                return Ok(watched);
            }
            let Some(stream) = &mut self.stream else {
                self.reopen().await?;
                continue;
            };
            let bookmark_at = self.bookmark_at.unwrap_or_else(Instant::now);
            let happened = tokio::select! {
                answered = stream.answers.message() => Happened::Answered(answered),
                // The sender lives in the store, which is ours too.
                _ = self.wanted.changed() => Happened::Wanted(*self.wanted.borrow_and_update()),
                () = sleep_until(bookmark_at), if self.bookmark_at.is_some() => Happened::BookmarkDue,
                () = self.store.client.closed() => Happened::Closed,
            };
            match happened {
                Happened::Answered(answered) => self.answered(answered)?,
                Happened::BookmarkDue => self.bookmark().await,
                Happened::Closed => return Err(WatchError::Closed),
                Happened::Wanted(revision) => {
                    self.assembler.expect(revision);
                    if self.assembler.is_waiting() && self.bookmark_at.is_none() {
                        self.bookmark_at = Some(Instant::now() + BOOKMARK_DELAY);
                    }
                }
            }
        }
    }

    fn answered(
        &mut self,
        answered: Result<Option<WatchResponse>, tonic::Status>,
    ) -> Result<(), WatchError> {
        match answered {
            Ok(Some(answer)) => {
                // A stream that only says no is no sign of health.
                if !answer.canceled {
                    self.lost_at = None;
                    self.backoff.reset();
                }
                let taken = self.assembler.take(answer);
                if !self.assembler.is_waiting() {
                    self.bookmark_at = None;
                }
                match taken {
                    Ok(()) => Ok(()),
                    Err(Cancelled::Ended(error)) => Err(error),
                    Err(Cancelled::Lost(reason)) => {
                        self.given_up(&reason);
                        Ok(())
                    }
                }
            }
            Ok(None) => {
                self.lost(Failure::Unknown, "etcd ended the stream");
                Ok(())
            }
            Err(status) => {
                self.lost(failure::of(&status), &failure::describe(&status));
                Ok(())
            }
        }
    }

    /// etcd took no offence at the stream, yet cancelled the watch in it.
    fn given_up(&mut self, reason: &str) {
        // To a stale token a watch is merely not permitted.
        let is_token = reason.contains("permission denied") || reason.contains("auth");
        let failure = if is_token {
            Failure::TokenStale
        } else {
            Failure::Unknown
        };
        self.lost(failure, reason);
    }

    fn lost(&mut self, failure: Failure, reason: &str) {
        tracing::debug!(
            reason,
            revision = self.assembler.seen(),
            "a watch lost its stream to etcd"
        );
        if let Some(stream) = self.stream.take() {
            self.store.client.failed(failure, &stream.used);
        }
        self.assembler.interrupted();
        reason.clone_into(&mut self.cause);
    }

    /// Tries to open a stream; gives up when there was none for too long.
    async fn reopen(&mut self) -> Result<(), WatchError> {
        let lost_at = *self.lost_at.get_or_insert_with(Instant::now);
        if lost_at.elapsed() > OUTAGE_MAX {
            let cause = CallError::new(Failure::Unknown, self.cause.clone());
            return Err(cause.unavailable("watch").into());
        }
        if !self.is_first {
            self.pause().await?;
        }
        let opened = self.open().await;
        let is_first = std::mem::take(&mut self.is_first);
        match opened {
            Ok(stream) => {
                if !is_first {
                    let revision = self.assembler.seen();
                    tracing::info!(revision, "a watch of etcd goes on from where it was");
                }
                self.stream = Some(stream);
                if self.assembler.is_waiting() {
                    self.bookmark_at = Some(Instant::now());
                }
                Ok(())
            }
            Err(WatchError::Unavailable(error)) => {
                self.cause = tidegate_service::telemetry::chain(&error);
                tracing::debug!(error = self.cause, "cannot watch etcd now");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn pause(&mut self) -> Result<(), WatchError> {
        let wait = self.backoff.next();
        tokio::select! {
            () = sleep(wait) => Ok(()),
            () = self.store.client.closed() => Err(WatchError::Closed),
        }
    }

    async fn open(&self) -> Result<Open, WatchError> {
        let seen = self.assembler.seen();
        if !self.is_first {
            // etcd would wait in silence for a revision that it has not: after a restore from a backup.
            self.store.check_history(seen).await?;
        }
        let create = WatchCreateRequest {
            key: self.store.names.whole().clone(),
            range_end: prefix_end(self.store.names.whole()),
            start_revision: signed(seen + 1),
            progress_notify: true,
            prev_kv: true,
            fragment: true,
        };
        let create = WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(create)),
        };
        self.store
            .client
            .open(create, |channel, request| async move {
                WatchClient::new(channel)
                    .max_decoding_message_size(ANSWER_BYTES_MAX)
                    .watch(request)
                    .await
            })
            .await
            .map_err(|error| error.unavailable("watch").into())
    }

    async fn bookmark(&mut self) {
        self.bookmark_at = Some(Instant::now() + BOOKMARK_REPEAT);
        let put = PutRequest {
            key: self.store.names.bookmark().clone(),
            ..PutRequest::default()
        };
        // Written twice it does no harm.
        let written: Result<_, CallError> = self
            .store
            .client
            .call(Kind::Read, put, |channel, request| async move {
                kv(channel).put(request).await
            })
            .await;
        if let Err(error) = written {
            tracing::warn!(error = %error, "cannot write the bookmark that watches are told their revision by");
        }
    }
}
