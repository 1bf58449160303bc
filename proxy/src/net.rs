//! Small things about sockets that several parts need.
//!
//! Not here: what is said over them.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
};

const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_RETRIES: u32 = 4;
/// How long a peer that was turned away may take to read why.
const LINGER_MAX: Duration = Duration::from_secs(2);
/// What it may still send meanwhile.
const LINGER_BYTES_MAX: usize = 64 << 10;

/// Sends small writes at once and finds out about peers that are gone: two minutes after they went silent.
pub(crate) fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// Says the last word and closes such that it arrives: a socket closed with unread bytes in it resets the
/// connection, and the peer loses what it was told.
pub(crate) async fn close_with<S>(stream: &mut S, last_words: &[u8])
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let farewell = async {
        stream.write_all(last_words).await?;
        stream.shutdown().await?;
        let mut scratch = [0; 1024];
        let mut left = LINGER_BYTES_MAX;
        while left > 0 {
            match stream.read(&mut scratch).await? {
                0 => break,
                len => left = left.saturating_sub(len),
            }
        }
        Ok::<_, io::Error>(())
    };
    // Whoever does not listen has had its chance.
    let _ = tokio::time::timeout(LINGER_MAX, Box::pin(farewell)).await;
}

/// A socket, and what was read from it before it was clear who should read it.
#[derive(Debug)]
pub(crate) struct Replayed {
    received: Bytes,
    stream: TcpStream,
}

impl Replayed {
    pub(crate) fn new(received: Bytes, stream: TcpStream) -> Self {
        Self { received, stream }
    }
}

impl AsyncRead for Replayed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.received.has_remaining() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let len = self.received.len().min(buf.remaining());
        buf.put_slice(&self.received[..len]);
        self.received.advance(len);
        if self.received.is_empty() {
            self.received = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Replayed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
