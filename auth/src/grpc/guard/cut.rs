//! Ends answers that are still under way when a lock strikes their caller.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::HeaderMap;
use hyper::body::{Frame, SizeHint};
use tidegate_service::clock::SharedClock;
use tokio::sync::watch as cell;
use tonic::{Status, body::Body};

use super::{caller::Caller, decide::Refusal};
use crate::access::locks::Known;

/// Frames that pass before locks are looked at while an answer has always more; an idle one is ended at once.
const FRAMES_UNLOOKED_MAX: u32 = 64;

/// An answer that ends with a status as soon as there is one.
pub(super) struct Cut {
    answer: Body,
    /// `None` after the end.
    cause: Option<BoxFuture<'static, Status>>,
    /// Frames since the cause was looked at.
    unlooked: u32,
}

impl Cut {
    /// An answer to a caller that a lock can strike.
    pub(super) fn new(
        answer: Body,
        caller: Caller,
        locks: cell::Receiver<Arc<Known>>,
        clock: SharedClock,
    ) -> Self {
        Self {
            answer,
            cause: Some(Box::pin(struck(caller, locks, clock))),
            unlooked: 0,
        }
    }
}

/// Waits until a lock strikes.
async fn struck(
    caller: Caller,
    mut locks: cell::Receiver<Arc<Known>>,
    clock: SharedClock,
) -> Status {
    loop {
        let known = locks.borrow_and_update().clone();
        if let Some(lock) = known.strikes(caller.facts(), clock.now()) {
            return Refusal::of_lock(lock).status();
        }
        if locks.changed().await.is_err() {
            // The service is going away, and with it this answer.
            return std::future::pending().await;
        }
    }
}

impl hyper::body::Body for Cut {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut is_idle = false;
        if self.cause.is_some() && self.unlooked < FRAMES_UNLOOKED_MAX {
            match Pin::new(&mut self.answer).poll_frame(cx) {
                Poll::Ready(frame) => {
                    self.unlooked += 1;
                    return Poll::Ready(frame);
                }
                Poll::Pending => is_idle = true,
            }
        }
        self.unlooked = 0;
        let Some(cause) = &mut self.cause else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(status) = cause.as_mut().poll(cx) {
            self.cause = None;
            self.answer = Body::empty();
            let mut trailers = HeaderMap::new();
            return Poll::Ready(Some(match status.add_header(&mut trailers) {
                Ok(()) => Ok(Frame::trailers(trailers)),
                Err(unwritable) => Err(unwritable),
            }));
        }
        if is_idle {
            return Poll::Pending;
        }
        Pin::new(&mut self.answer).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.cause.is_none() || self.answer.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Where it may be cut there is no telling.
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::StreamExt as _;
    use http_body_util::{BodyExt as _, StreamBody};
    use tidegate_core::{Lock, LockTarget};
    use tidegate_service::clock::SystemClock;

    use super::*;
    use crate::grpc::guard::tests::{at, caller};

    fn answer(frames: impl futures::Stream<Item = Bytes> + Send + 'static) -> Body {
        let frames = frames.map(|data| Ok::<_, Infallible>(Frame::data(data)));
        Body::new(StreamBody::new(frames))
    }

    fn lock() -> Known {
        Known::of([Lock {
            name: "l".to_owned(),
            target: LockTarget {
                user: Some("alice".to_owned()),
                ..LockTarget::default()
            },
            message: String::new(),
            created: at(0),
            expires: None,
            created_by: String::new(),
        }])
    }

    async fn trailers(cut: &mut Cut) -> Status {
        loop {
            // An endless answer leaves nobody else a turn.
            tokio::task::yield_now().await;
            let frame = cut.frame().await.unwrap().unwrap();
            if let Ok(trailers) = frame.into_trailers() {
                return Status::from_header_map(&trailers).unwrap();
            }
        }
    }

    #[tokio::test]
    async fn an_idle_answer_and_one_without_end_are_cut_by_a_lock_and_then_over() {
        let endless = futures::stream::repeat(Bytes::from_static(b"x"));
        for body in [answer(futures::stream::pending()), answer(endless)] {
            let locks = cell::Sender::new(Arc::new(Known::default()));
            let mut cut = Cut::new(body, caller(), locks.subscribe(), Arc::new(SystemClock));
            let (status, ()) = tokio::join!(trailers(&mut cut), async {
                locks.send_replace(Arc::new(lock()));
            });
            assert_eq!(status.code(), tonic::Code::PermissionDenied);
            assert!(cut.frame().await.is_none());
        }
    }

    #[tokio::test]
    async fn an_answer_that_no_lock_strikes_passes_whole() {
        let body = answer(futures::stream::iter(vec![Bytes::from_static(b"ab"); 100]));
        let locks = cell::Sender::new(Arc::new(Known::default()));
        let cut = Cut::new(body, caller(), locks.subscribe(), Arc::new(SystemClock));
        let whole = cut.collect().await.unwrap().to_bytes();
        assert_eq!(whole.len(), 200);
    }
}
