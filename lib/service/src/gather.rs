//! TCP connections that are not woken for every few kilobytes of a long stream.
//!
//! A database sends a large result in pieces of 8 KiB, and a relay that wakes for each of them spends more on waking than on
//! moving bytes. After [`RUN_BYTES`] in a row that came in large reads, a [`GatherStream`] asks the kernel to wake it
//! when [`GATHERED_BYTES`] are there (`SO_RCVLOWAT`), and takes that back once nothing was read for [`WAIT_MAX`]. The kernel
//! wakes at once, all the same, when the stream ends, breaks, or its window is full.
//!
//! Invariant: statements and their answers never wait. A stream waits at its end alone, for at most [`WAIT_MAX`] and a
//! tick of the runtime's clock.
//!
//! Source: socket(7), `SO_RCVLOWAT`; Linux honours it in poll(2) for TCP.

use std::{
    io::{self, IoSlice},
    ops::Deref,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use nix::{libc, sys::socket::setsockopt};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep},
};

/// A stream is long after this much without a small read; before that it is not touched.
const RUN_BYTES: usize = 16 << 20;

/// A read of less than this is a message and no part of a long stream.
const SMALL_BYTES: usize = 4 << 10;

/// What a long stream gathers before it is read: what relays read at once.
const GATHERED_BYTES: usize = 64 << 10;

/// How long a long stream may be silent before what it has gathered is read.
const WAIT_MAX: Duration = Duration::from_millis(1);

/// The option is not among those that the crate names, so its macro, which checks the types, defines it.
#[derive(Clone, Copy, Debug)]
struct ReceiveLowWater;

nix::setsockopt_impl!(
    ReceiveLowWater,
    libc::SOL_SOCKET,
    libc::SO_RCVLOWAT,
    usize,
    nix::sys::socket::sockopt::SetUsize
);

/// How much came in large reads, one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Run(usize);

impl Run {
    /// Counts a read; whether the stream became long with it.
    fn read(&mut self, bytes: usize) -> bool {
        if bytes < SMALL_BYTES {
            self.0 = 0;
            return false;
        }
        let was_long = self.0 >= RUN_BYTES;
        self.0 = self.0.saturating_add(bytes);
        !was_long && self.0 >= RUN_BYTES
    }
}

/// A TCP connection whose long streams gather before they wake their reader.
#[derive(Debug)]
pub struct GatherStream {
    stream: TcpStream,
    run: Run,
    /// Until when a long stream may be silent; without it, the kernel wakes for every byte.
    gathering: Option<Pin<Box<Sleep>>>,
}

impl GatherStream {
    /// Takes over a connection.
    #[must_use]
    pub fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            run: Run::default(),
            gathering: None,
        }
    }

    fn was_read(&mut self, bytes: usize) {
        let became_long = self.run.read(bytes);
        let until = || Instant::now() + WAIT_MAX;
        if let Some(gathering) = &mut self.gathering {
            gathering.as_mut().reset(until());
        } else if became_long && self.gather(GATHERED_BYTES) {
            self.gathering = Some(Box::pin(tokio::time::sleep_until(until())));
        }
    }

    /// Nothing is there to be read, or not enough of it.
    fn is_silent(&mut self, cx: &mut Context<'_>) {
        if let Some(gathering) = &mut self.gathering
            && gathering.as_mut().poll(cx).is_ready()
        {
            self.gathering = None;
            self.run = Run::default();
            // The kernel wakes at once for what is there already.
            self.gather(1);
        }
    }

    /// Whether the kernel agreed. Without it everything works as well, with more waking.
    fn gather(&self, bytes: usize) -> bool {
        setsockopt(&self.stream, ReceiveLowWater, &bytes).is_ok()
    }
}

impl Deref for GatherStream {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.stream
    }
}

impl AsyncRead for GatherStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = out.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, out);
        match polled {
            Poll::Ready(Ok(())) => this.was_read(out.filled().len() - before),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => this.is_silent(cx),
        }
        polled
    }
}

impl AsyncWrite for GatherStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    async fn pair() -> (TcpStream, GatherStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (near, far) = tokio::join!(
            TcpStream::connect(listener.local_addr().unwrap()),
            listener.accept()
        );
        (near.unwrap(), GatherStream::new(far.unwrap().0))
    }

    /// Sends so much and reads it with room for more, so that the runtime knows that nothing is left.
    async fn pass(far: &mut TcpStream, near: &mut GatherStream, bytes: usize) {
        let sent = vec![0x5a; bytes];
        let mut got = Vec::with_capacity(4 * bytes);
        let (sending, ()) = tokio::join!(far.write_all(&sent), async {
            while got.len() < bytes {
                near.read_buf(&mut got).await.unwrap();
            }
        });
        sending.unwrap();
        assert!(got == sent);
    }

    #[test]
    fn a_small_read_ends_a_run_and_a_run_becomes_long_once() {
        let mut run = Run::default();
        assert!(!run.read(RUN_BYTES - 1));
        assert!(!run.read(SMALL_BYTES - 1));
        assert!(!run.read(RUN_BYTES - 1));
        assert!(run.read(SMALL_BYTES));
        assert!(!run.read(RUN_BYTES));
    }

    #[tokio::test]
    async fn what_is_left_of_a_long_stream_arrives_and_messages_after_it_do_not_wait() {
        let (mut far, mut near) = pair().await;
        pass(&mut far, &mut near, 3 * GATHERED_BYTES).await;
        near.was_read(RUN_BYTES);
        assert!(near.gathering.is_some());
        // Bytes that are there before anybody waits for them are read as they are; it is a wait that ends gathering.
        let messages = async {
            while near.gathering.is_some() {
                pass(&mut far, &mut near, 5).await;
            }
            pass(&mut far, &mut near, 5).await;
        };
        tokio::time::timeout(Duration::from_secs(10), messages)
            .await
            .expect("no message waits for others");
        assert!(near.gathering.is_none());
    }

    #[tokio::test]
    async fn statements_and_answers_are_never_gathered() {
        let (mut far, mut near) = pair().await;
        near.run = Run(RUN_BYTES - 1);
        for _ in 0..3 {
            pass(&mut far, &mut near, 64).await;
            assert!(near.gathering.is_none());
        }
    }

    #[tokio::test]
    async fn an_end_of_stream_is_told_at_once_also_while_gathering() {
        let (far, mut near) = pair().await;
        near.was_read(RUN_BYTES);
        assert!(near.gathering.is_some());
        drop(far);
        assert_eq!(near.read(&mut [0; 16]).await.unwrap(), 0);
    }
}
