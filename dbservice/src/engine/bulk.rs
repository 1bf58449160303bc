//! Large reads below TLS.
//!
//! rustls asks its socket for 4 KiB at a time, so a record of 16 KiB would cost five system calls. [`BulkReader`] reads
//! 64 KiB at once into a buffer of its thread's pool and serves rustls from there.
//!
//! Invariant: a reader holds a buffer only while bytes are left in it. An idle session holds none.

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of one read from the socket. More bought nothing measurable.
pub(crate) const READ_BYTES: usize = 64 << 10;

/// Buffers that a thread keeps for its next reads.
const POOL_BUFFERS_MAX: usize = 8;

thread_local! {
    static POOL: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

fn take_buffer() -> Box<[u8]> {
    POOL.with_borrow_mut(Vec::pop)
        .unwrap_or_else(|| vec![0; READ_BYTES].into_boxed_slice())
}

fn give_back(buffer: Box<[u8]>) {
    POOL.with_borrow_mut(|pool| {
        if pool.len() < POOL_BUFFERS_MAX {
            pool.push(buffer);
        }
    });
}

/// Bytes that were read and not yet asked for.
#[derive(Debug)]
struct Left {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

/// A stream whose small reads are served from large ones. Writes pass through.
#[derive(Debug)]
pub(crate) struct BulkReader<S> {
    stream: S,
    left: Option<Left>,
}

impl<S> BulkReader<S> {
    /// Wraps a stream of which nothing has been read.
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, left: None }
    }

    /// The stream below.
    pub(crate) fn get_ref(&self) -> &S {
        &self.stream
    }

    fn serve(&mut self, out: &mut ReadBuf<'_>) {
        let Some(left) = &mut self.left else { return };
        let count = out.remaining().min(left.end - left.start);
        out.put_slice(&left.buffer[left.start..left.start + count]);
        left.start += count;
        if left.start == left.end
            && let Some(Left { buffer, .. }) = self.left.take()
        {
            give_back(buffer);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for BulkReader<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.left.is_some() {
            this.serve(out);
            return Poll::Ready(Ok(()));
        }
        if out.remaining() >= READ_BYTES {
            return Pin::new(&mut this.stream).poll_read(cx, out);
        }
        let mut buffer = take_buffer();
        let mut reading = ReadBuf::new(&mut buffer);
        let polled = Pin::new(&mut this.stream).poll_read(cx, &mut reading);
        let end = reading.filled().len();
        match polled {
            Poll::Ready(Ok(())) if end > 0 => {
                this.left = Some(Left {
                    buffer,
                    start: 0,
                    end,
                });
                this.serve(out);
                Poll::Ready(Ok(()))
            }
            other => {
                give_back(buffer);
                ready!(other)?;
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for BulkReader<S> {
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn small_reads_get_every_byte_in_order_and_an_idle_reader_holds_nothing() {
        let (mut far, near) = tokio::io::duplex(1 << 20);
        let mut reader = BulkReader::new(near);
        let sent: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        far.write_all(&sent).await.unwrap();

        let mut got = vec![0; sent.len()];
        for chunk in got.chunks_mut(4096) {
            reader.read_exact(chunk).await.unwrap();
        }
        assert_eq!(got, sent);
        assert!(reader.left.is_none());
    }

    #[tokio::test]
    async fn an_end_of_stream_is_told_and_holds_nothing() {
        let (far, near) = tokio::io::duplex(64);
        drop(far);
        let mut reader = BulkReader::new(near);
        assert_eq!(reader.read(&mut [0; 16]).await.unwrap(), 0);
        assert!(reader.left.is_none());
    }
}
