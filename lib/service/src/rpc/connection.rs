//! A connection that a gRPC server can serve, together with what is known of its other end.
//!
//! Invariant: a connection does not outlive the certificate that opened it, so a peer that no longer gets
//! certificates is out after the last one has run out; others come back with their renewed one.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use super::{ConnectInfo, Peer};

/// An established stream and who is at its other end.
#[derive(Debug)]
pub struct Connection<S> {
    stream: S,
    info: ConnectInfo,
    expiry: Option<Pin<Box<Sleep>>>,
    severed: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl<S> Connection<S> {
    /// Wraps a stream whose handshake, if any, is done.
    #[must_use]
    pub fn new(stream: S, info: ConnectInfo) -> Self {
        let expiry = match &info.peer {
            // TLS itself goes by the system's clock, so this does too.
            Peer::Certified(identity) => {
                let left = identity.expires_at.duration_since(Timestamp::now());
                Some(Box::pin(sleep(
                    Duration::try_from(left).unwrap_or_default(),
                )))
            }
            Peer::Anonymous | Peer::Local => None,
        };
        Self {
            stream,
            info,
            expiry,
            severed: None,
        }
    }

    /// What is known of the other end.
    #[must_use]
    pub const fn info(&self) -> &ConnectInfo {
        &self.info
    }

    /// Makes reads fail once `token` is cancelled, so that a server that was told to stop does stop.
    #[must_use]
    pub(crate) fn severed_by(mut self, token: CancellationToken) -> Self {
        self.severed = Some(Box::pin(token.cancelled_owned()));
        self
    }
}

impl<S> Connected for Connection<S> {
    type ConnectInfo = ConnectInfo;

    fn connect_info(&self) -> ConnectInfo {
        self.info.clone()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let severed = this
            .severed
            .as_mut()
            .is_some_and(|severed| severed.as_mut().poll(cx).is_ready());
        let expired = this
            .expiry
            .as_mut()
            .is_some_and(|expiry| expiry.as_mut().poll(cx).is_ready());
        if severed || expired {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut this.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
