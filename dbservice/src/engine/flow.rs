//! One direction of a session: from one side's TLS to the other's.
//!
//! There is no buffer of our own: plaintext is taken where rustls decrypted it, and handed to the other side's rustls,
//! which encrypts it into its send queue. The queue goes out when it is full (four records, one system call) or when
//! the reader has nothing more; so bulk goes out in large writes and a single answer at once. An idle session holds no
//! buffer, and a slow receiver stops the reading from its sender.
//!
//! Invariant: bytes are looked at before any of them is sent, and never changed.

use std::{
    io::{self, Write},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tidegate_core::Problem;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite};
use tokio_rustls::{client, server};

use super::view::{Malformed, Objection};

/// Bytes that one direction moves before the other, and other sessions, get their turn.
const TURN_BYTES_MAX: usize = 1 << 20;

/// Bytes that are queued before they are sent: four records of TLS, which leave in one system call.
const BATCH_BYTES_MAX: usize = 64 << 10;

/// Room for that in rustls' queue, with the records' own bytes; its default would cut the fourth record in two.
pub(crate) const QUEUE_BYTES_MAX: usize = 2 * BATCH_BYTES_MAX;

/// One end of a session: a TLS stream of which the parts are used directly.
pub(crate) trait End: AsyncBufRead + Unpin {
    /// Queues bytes to be sent, as far as there is room, without any I/O.
    fn queue(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Sends what is queued.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

impl<S: AsyncRead + AsyncWrite + Unpin> End for client::TlsStream<S> {
    fn queue(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.get_mut().1.writer().write(bytes)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self).poll_flush(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> End for server::TlsStream<S> {
    fn queue(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.get_mut().1.writer().write(bytes)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self).poll_flush(cx)
    }
}

/// Why bytes may not go on.
pub(super) enum Halt {
    Frame(Malformed),
    Held,
    Refused(Box<Problem>),
}

impl From<Objection> for Halt {
    fn from(objection: Objection) -> Self {
        match objection {
            Objection::Malformed(error) => Self::Frame(error),
            Objection::Refused(problem) => Self::Refused(problem),
        }
    }
}

/// How one direction came to its end.
pub(super) enum Stop {
    Halt(Halt),
    Read(Option<io::Error>),
    Write(io::Error),
}

/// One direction: bytes that were read before the relay began, and how many are queued.
#[derive(Debug)]
pub(super) struct Direction {
    head: Bytes,
    queued: usize,
}

impl Direction {
    /// A direction of which `head` was read already.
    pub(super) fn new(head: Bytes) -> Self {
        Self { head, queued: 0 }
    }

    /// Whether everything that was read has been sent.
    pub(super) fn is_sent(&self) -> bool {
        self.queued == 0
    }

    /// Moves what there is. `Ready` is the end of this direction.
    pub(super) fn poll<R: End, W: End>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        look: impl FnMut(&[u8]) -> Result<(), Halt>,
    ) -> Poll<Stop> {
        let moved = self.poll_moves(cx, reader, writer, look);
        let end = match moved {
            Poll::Ready(Err(end)) => Some(end),
            Poll::Ready(Ok(())) => {
                cx.waker().wake_by_ref();
                None
            }
            Poll::Pending => None,
        };
        // What came before the end still belongs to the other side, unless it is not worth sending.
        if !matches!(end, Some(Stop::Halt(_) | Stop::Write(_)))
            && let Err(error) = ready!(poll_send(&mut self.queued, cx, writer))
        {
            return Poll::Ready(Stop::Write(error));
        }
        match end {
            Some(end) => Poll::Ready(end),
            None => Poll::Pending,
        }
    }

    /// Reads and queues until the reader has nothing (`Pending`), ends (`Err`), or the turn is over (`Ok`).
    fn poll_moves<R: End, W: End>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        mut look: impl FnMut(&[u8]) -> Result<(), Halt>,
    ) -> Poll<Result<(), Stop>> {
        let mut moved = 0;
        while moved < TURN_BYTES_MAX {
            let from_head = !self.head.is_empty();
            let bytes = if from_head {
                &self.head[..]
            } else {
                ready!(Pin::new(&mut *reader).poll_fill_buf(cx))
                    .map_err(|error| Stop::Read(Some(error)))?
            };
            if bytes.is_empty() {
                return Poll::Ready(Err(Stop::Read(None)));
            }
            let has_room = self.queued == 0 || self.queued + bytes.len() <= BATCH_BYTES_MAX;
            let taken = if has_room {
                writer.queue(bytes).map_err(Stop::Write)?
            } else {
                0
            };
            if taken == 0 {
                self.queued = self.queued.max(1);
                ready!(poll_send(&mut self.queued, cx, writer)).map_err(Stop::Write)?;
                continue;
            }
            self.queued += taken;
            look(&bytes[..taken]).map_err(Stop::Halt)?;
            if from_head {
                self.head.advance(taken);
            } else {
                Pin::new(&mut *reader).consume(taken);
            }
            moved += taken;
        }
        Poll::Ready(Ok(()))
    }
}

fn poll_send<W: End>(
    queued: &mut usize,
    cx: &mut Context<'_>,
    writer: &mut W,
) -> Poll<io::Result<()>> {
    if *queued > 0 {
        ready!(writer.poll_send(cx))?;
        *queued = 0;
    }
    Poll::Ready(Ok(()))
}
