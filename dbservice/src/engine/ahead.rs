//! A connection to a database that is made while something else is waited for.
//!
//! It goes on in the task of its session, and only while that waits: there is no task of its own that could outlive it.

use std::task::{Context, Poll};

use futures::{FutureExt, future::BoxFuture};
use tidegate_core::{ErrorCode, Problem};
use tokio::sync::OwnedSemaphorePermit;

/// A connection that is made while something else is waited for. Dropping it drops the connection.
pub(crate) struct Ahead<T> {
    work: Option<BoxFuture<'static, Result<T, Problem>>>,
    outcome: Option<Result<T, Problem>>,
    _permit: OwnedSemaphorePermit,
}

impl<T> std::fmt::Debug for Ahead<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ahead")
            .field("is_done", &self.outcome.is_some())
            .finish_non_exhaustive()
    }
}

impl<T> Ahead<T> {
    /// Begins with what `work` does first; it goes on only in [`Self::alongside`] and [`Self::finish`].
    pub(crate) fn new(
        work: impl Future<Output = Result<T, Problem>> + Send + 'static,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            work: Some(work.boxed()),
            outcome: None,
            _permit: permit,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) {
        if let Some(work) = &mut self.work
            && let Poll::Ready(outcome) = work.poll_unpin(cx)
        {
            self.work = None;
            self.outcome = Some(outcome);
        }
    }

    /// Waits for `other`, and goes on with the connection meanwhile.
    pub(crate) async fn alongside<F: Future>(&mut self, other: F) -> F::Output {
        let mut other = std::pin::pin!(other);
        std::future::poll_fn(|cx| {
            self.poll(cx);
            other.as_mut().poll(cx)
        })
        .await
    }

    /// Waits for the connection.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub(crate) async fn finish(mut self) -> Result<T, Problem> {
        match (self.outcome.take(), self.work.take()) {
            (Some(outcome), _) => outcome,
            (None, Some(work)) => work.await,
            (None, None) => Err(Problem::new(
                ErrorCode::Internal,
                "the connection to the database was used twice",
            )),
        }
    }
}

/// Waits for `work`, and goes on meanwhile with a connection that was begun ahead.
pub(crate) async fn alongside<T, F: Future>(ahead: &mut Option<Ahead<T>>, work: F) -> F::Output {
    match ahead {
        Some(ahead) => ahead.alongside(work).await,
        None => work.await,
    }
}
