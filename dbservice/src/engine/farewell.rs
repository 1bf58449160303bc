//! What a client is told at the end of a session that we end.
//!
//! The client gets an error that its tools understand, with SQLSTATE, reason and hint; the operator's text stays in
//! the log. Each protocol has one place that turns a [`Problem`] into its words.

use std::time::Duration;

use bytes::Bytes;
use tidegate_core::{ErrorCode, Problem};
use tidegate_wire::SqlState;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// How long a client may take to take our last words.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long we listen on for the client to close, so that our last words are not lost to a reset.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes that are read and thrown away while lingering.
const LINGER_BYTES_MAX: u64 = 64 << 10;

/// The last words to a client.
#[derive(Clone, Debug)]
pub(crate) enum Farewell {
    /// A message of the database, as it came.
    AsSent(Bytes),
    /// Nothing: the client left, or cannot be told.
    Nothing,
    /// An error of ours.
    Said(Box<Problem>),
    /// An error of ours with another SQLSTATE than its code has.
    SaidAs(SqlState, Box<Problem>),
}

impl Farewell {
    /// The same with another text, where the text is ours.
    pub(crate) fn map(self, text: impl FnOnce(Problem) -> Problem) -> Self {
        match self {
            Self::Said(problem) => Self::Said(Box::new(text(*problem))),
            Self::SaidAs(state, problem) => Self::SaidAs(state, Box::new(text(*problem))),
            other => other,
        }
    }

    fn bytes(&self, words: impl Fn(SqlState, &Problem) -> Bytes) -> Option<Bytes> {
        match self {
            Self::AsSent(bytes) => Some(bytes.clone()),
            Self::Nothing => None,
            Self::Said(problem) => Some(words(sqlstate(problem.code), problem)),
            Self::SaidAs(state, problem) => Some(words(*state, problem)),
        }
    }

    /// Says it in the protocol's `words` and closes the stream. Gives up on a client that does not listen.
    pub(crate) async fn say<S>(&self, client: &mut S, words: impl Fn(SqlState, &Problem) -> Bytes)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let words = self.bytes(words);
        let said = tokio::time::timeout(FAREWELL_TIMEOUT, async {
            if let Some(words) = &words {
                client.write_all(words).await?;
                client.flush().await?;
            }
            client.shutdown().await
        })
        .await;
        if matches!(said, Ok(Ok(()))) && words.is_some() {
            let mut rest = client.take(LINGER_BYTES_MAX);
            let mut nowhere = tokio::io::sink();
            let drained = tokio::io::copy(&mut rest, &mut nowhere);
            // Only politeness: whatever comes of it, the session is over.
            let _ = tokio::time::timeout(LINGER_TIMEOUT, drained).await;
        }
    }
}

/// What clients read of a code.
pub(super) fn sqlstate(code: ErrorCode) -> SqlState {
    SqlState::from_bytes(code.sqlstate().as_bytes()).unwrap_or(SqlState::INTERNAL_ERROR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_well_formed_state() {
        for code in ErrorCode::ALL {
            assert_eq!(sqlstate(code).as_str(), code.sqlstate());
        }
    }
}
