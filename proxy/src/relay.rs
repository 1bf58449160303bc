//! The hot path: copies bytes between two sockets, both ways, in one task.
//!
//! Bytes are read into a scratch buffer that belongs to the thread, and written at once; only what the other socket
//! does not take is kept, so a session that idles holds no buffer and a slow reader holds back a fast writer. A long stream
//! gathers in its socket before it is read. An end
//! of stream is passed on as a half-close once everything before it was written.
//!
//! Invariants: bytes are neither changed nor reordered; a direction reads nothing while it still has bytes to write;
//! the scratch buffer is never held over an await.
//!
//! Not here: who is copied to ([`crate::session`]).

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tidegate_service::gather::GatherStream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep},
};

/// Bytes moved by one read; more was measured to buy nothing.
const SCRATCH_BYTES: usize = 64 << 10;
/// Reads of one direction before other tasks get their turn.
const READS_PER_TURN_MAX: usize = 8;
/// How long one direction may be silent after the other has ended.
const HALF_CLOSED_IDLE_MAX: Duration = Duration::from_secs(300);

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice());
}

/// One of the two ends of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Whoever connected to the proxy.
    Client,
    /// Where the proxy sent it: an agent or an auth server.
    Server,
}

impl Side {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// What a relay has done so far; final once it has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// Bytes written to the server.
    pub(crate) client_to_server: u64,
    /// Bytes written to the client.
    pub(crate) server_to_client: u64,
    /// The side whose stream ended or broke first.
    pub(crate) ended_by: Option<Side>,
    /// What broke, if something did.
    pub(crate) error: Option<io::ErrorKind>,
}

/// Copies until both directions have ended. A future that can be dropped and asked at any time.
#[derive(Debug)]
pub(crate) struct Relay {
    client: GatherStream,
    server: GatherStream,
    upward: Direction,
    downward: Direction,
    ended_by: Option<Side>,
    half_closed: Option<Pin<Box<Sleep>>>,
}

impl Relay {
    pub(crate) fn new(client: TcpStream, server: TcpStream) -> Self {
        Self {
            client: GatherStream::new(client),
            server: GatherStream::new(server),
            upward: Direction::default(),
            downward: Direction::default(),
            ended_by: None,
            half_closed: None,
        }
    }

    /// What has been done so far.
    pub(crate) fn report(&self) -> Report {
        Report {
            client_to_server: self.upward.written,
            server_to_client: self.downward.written,
            ended_by: self.ended_by,
            error: self.upward.error.or(self.downward.error),
        }
    }

    fn poll_both(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (client, server) = (&mut self.client, &mut self.server);
        SCRATCH.with_borrow_mut(|scratch| {
            let upward = self.upward.poll(cx, client, server, scratch);
            let downward = self.downward.poll(cx, server, client, scratch);
            if self.ended_by.is_none() {
                self.ended_by = match (upward, downward) {
                    (Poll::Ready(()), _) if self.upward.broke_writing => Some(Side::Server),
                    (_, Poll::Ready(())) if self.downward.broke_writing => Some(Side::Client),
                    (Poll::Ready(()), _) => Some(Side::Client),
                    (_, Poll::Ready(())) => Some(Side::Server),
                    _ => None,
                };
            }
            match (upward, downward) {
                (Poll::Ready(()), Poll::Ready(())) => Poll::Ready(()),
                _ => Poll::Pending,
            }
        })
    }

    /// With one direction gone, the other may not be silent for ever.
    fn poll_half_closed(&mut self, cx: &mut Context<'_>, progress: bool) -> Poll<()> {
        let deadline = Instant::now() + HALF_CLOSED_IDLE_MAX;
        let sleep = self
            .half_closed
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if progress {
            sleep.as_mut().reset(deadline);
        }
        ready!(sleep.as_mut().poll(cx));
        self.upward.error.get_or_insert(io::ErrorKind::TimedOut);
        Poll::Ready(())
    }
}

impl Future for Relay {
    type Output = Report;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Report> {
        let before = self.upward.written + self.downward.written;
        if self.poll_both(cx).is_ready() {
            return Poll::Ready(self.report());
        }
        if self.ended_by.is_some() {
            let progress = self.upward.written + self.downward.written > before;
            ready!(self.poll_half_closed(cx, progress));
            return Poll::Ready(self.report());
        }
        Poll::Pending
    }
}

/// How far one direction is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Flow {
    #[default]
    Open,
    /// Nothing more to read; what is held has still to be written.
    Ending,
    Ended,
}

#[derive(Debug, Default)]
struct Direction {
    /// Read, and not taken by the other socket yet: `held[start..]`. Given back whenever the direction idles.
    held: Vec<u8>,
    start: usize,
    flow: Flow,
    written: u64,
    error: Option<io::ErrorKind>,
    broke_writing: bool,
}

impl Direction {
    /// Moves what can be moved; ready once this direction has ended, and for ever after.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut GatherStream,
        to: &mut GatherStream,
        scratch: &mut [u8],
    ) -> Poll<()> {
        for _ in 0..READS_PER_TURN_MAX {
            if self.flow != Flow::Ended {
                ready!(self.poll_held(cx, to));
            }
            match self.flow {
                Flow::Open => {}
                Flow::Ending => {
                    // The peer may be gone already, and then there is nobody to tell.
                    let _ = Pin::new(&mut *to).poll_shutdown(cx);
                    self.flow = Flow::Ended;
                    return Poll::Ready(());
                }
                Flow::Ended => return Poll::Ready(()),
            }
            let mut chunk = ReadBuf::new(scratch);
            match Pin::new(&mut *from).poll_read(cx, &mut chunk) {
                Poll::Pending => {
                    self.held = Vec::new();
                    return Poll::Pending;
                }
                Poll::Ready(Ok(())) if chunk.filled().is_empty() => self.flow = Flow::Ending,
                Poll::Ready(Ok(())) => self.pass(cx, to, chunk.filled()),
                Poll::Ready(Err(error)) => {
                    self.error = Some(error.kind());
                    self.flow = Flow::Ending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes a chunk, and holds what is not taken now.
    fn pass(&mut self, cx: &mut Context<'_>, to: &mut GatherStream, mut chunk: &[u8]) {
        while !chunk.is_empty() {
            match Pin::new(&mut *to).poll_write(cx, chunk) {
                Poll::Ready(Ok(len)) if len > 0 => {
                    self.written += len as u64;
                    chunk = &chunk[len..];
                }
                Poll::Ready(result) => return self.break_writing(&result),
                Poll::Pending => {
                    self.held.extend_from_slice(chunk);
                    return;
                }
            }
        }
    }

    /// Writes what is held; ready once nothing is.
    fn poll_held(&mut self, cx: &mut Context<'_>, to: &mut GatherStream) -> Poll<()> {
        while self.start < self.held.len() {
            match ready!(Pin::new(&mut *to).poll_write(cx, &self.held[self.start..])) {
                Ok(len) if len > 0 => {
                    self.written += len as u64;
                    self.start += len;
                }
                result => {
                    self.break_writing(&result);
                    return Poll::Ready(());
                }
            }
        }
        self.held.clear();
        self.start = 0;
        Poll::Ready(())
    }

    /// The receiver is gone: this direction is over, while the other may still have bytes to deliver.
    fn break_writing(&mut self, result: &io::Result<usize>) {
        let kind = result
            .as_ref()
            .map_or_else(io::Error::kind, |_| io::ErrorKind::WriteZero);
        self.error = Some(kind);
        self.broke_writing = true;
        self.held = Vec::new();
        self.start = 0;
        self.flow = Flow::Ended;
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        task::JoinHandle,
    };

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (near, far) = tokio::join!(
            TcpStream::connect(listener.local_addr().unwrap()),
            listener.accept()
        );
        (near.unwrap(), far.unwrap().0)
    }

    async fn relayed() -> (TcpStream, TcpStream, JoinHandle<Report>) {
        let (client, proxy_client) = pair().await;
        let (proxy_server, server) = pair().await;
        (
            client,
            server,
            tokio::spawn(Relay::new(proxy_client, proxy_server)),
        )
    }

    fn noise(len: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        (0..len)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                state.to_be_bytes()[0]
            })
            .collect()
    }

    #[tokio::test]
    async fn bytes_pass_unchanged_both_ways_whatever_the_chunks() {
        let (client, server, relay) = relayed().await;
        let (mut client_read, mut client_write) = client.into_split();
        let (mut server_read, mut server_write) = server.into_split();
        let (up, down) = (noise(3 << 20, 1), noise(5 << 20, 2));

        let send_up = async {
            let mut rest = &up[..];
            let mut chunk = 1;
            while !rest.is_empty() {
                let (now, later) = rest.split_at(chunk.min(rest.len()));
                client_write.write_all(now).await.unwrap();
                (rest, chunk) = (later, chunk * 3 % 100_003 + 1);
            }
            client_write.shutdown().await.unwrap();
        };
        let send_down = async {
            server_write.write_all(&down).await.unwrap();
            server_write.shutdown().await.unwrap();
        };
        let (mut got_up, mut got_down) = (Vec::new(), Vec::new());
        let ((), (), up_len, down_len) = tokio::join!(
            send_up,
            send_down,
            server_read.read_to_end(&mut got_up),
            client_read.read_to_end(&mut got_down)
        );

        assert_eq!((up_len.unwrap(), down_len.unwrap()), (up.len(), down.len()));
        assert!(got_up == up && got_down == down);
        let report = relay.await.unwrap();
        assert_eq!(report.client_to_server, up.len() as u64);
        assert_eq!(report.server_to_client, down.len() as u64);
        assert_eq!(report.error, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stops_holds_the_writer_back_and_loses_nothing() {
        let (mut client, mut server, relay) = relayed().await;
        let data = noise(32 << 20, 3);

        // Fill every buffer on the way: the writer has to stall long before all is sent.
        let mut sent = 0;
        while let Ok(result) =
            tokio::time::timeout(Duration::from_millis(200), server.write(&data[sent..])).await
        {
            sent += result.unwrap();
        }
        assert!(sent < data.len(), "32 MiB vanished into buffers");

        let rest = async {
            server.write_all(&data[sent..]).await.unwrap();
            server.shutdown().await.unwrap();
        };
        let mut got = Vec::new();
        let ((), read) = tokio::join!(rest, client.read_to_end(&mut got));
        read.unwrap();

        assert!(got == data);
        drop(client);
        assert_eq!(relay.await.unwrap().ended_by, Some(Side::Server));
    }

    #[tokio::test]
    async fn an_end_of_stream_passes_as_a_half_close() {
        let (mut client, mut server, relay) = relayed().await;
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();

        let mut got = Vec::new();
        server.read_to_end(&mut got).await.unwrap();
        server.write_all(b"answer").await.unwrap();
        drop(server);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();

        assert_eq!((&got[..], &answer[..]), (&b"question"[..], &b"answer"[..]));
        assert_eq!(relay.await.unwrap().ended_by, Some(Side::Client));
    }

    #[tokio::test]
    async fn last_words_arrive_although_the_speaker_is_gone() {
        let (mut client, mut server, relay) = relayed().await;
        server.write_all(b"FATAL").await.unwrap();
        drop(server);
        client.write_all(b"still talking").await.unwrap();

        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        drop(client);

        assert_eq!(got, b"FATAL");
        assert_eq!(relay.await.unwrap().ended_by, Some(Side::Server));
    }

    #[tokio::test]
    async fn a_session_that_idles_after_traffic_holds_no_buffer() {
        let (mut client, proxy_client) = pair().await;
        let (proxy_server, mut server) = pair().await;
        let mut relay = Relay::new(proxy_client, proxy_server);
        let data = noise(24 << 20, 4);

        let traffic = async {
            let mut got = vec![0; data.len()];
            let (sent, read) = tokio::join!(server.write_all(&data), client.read_exact(&mut got));
            sent.unwrap();
            read.unwrap();
        };
        tokio::select! {
            _ = &mut relay => panic!("ended"),
            () = traffic => {}
        }
        let settled = std::future::poll_fn(|cx| {
            let polled = Pin::new(&mut relay).poll(cx);
            assert!(polled.is_pending());
            Poll::Ready(relay.downward.held.capacity() + relay.upward.held.capacity())
        });

        assert_eq!(settled.await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_half_closed_session_does_not_wait_for_ever() {
        let (mut client, _server, relay) = relayed().await;
        client.shutdown().await.unwrap();

        let report = relay.await.unwrap();

        assert_eq!(report.error, Some(io::ErrorKind::TimedOut));
    }
}
