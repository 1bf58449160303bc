//! Moves bytes both ways between client and database, as they came.
//!
//! Two directions ([`super::flow`]) in one task, each looked at by the session's view.
//!
//! Invariant: bytes are looked at before any of them is sent, and never changed.

use std::{
    io,
    ops::ControlFlow,
    task::{Context, Poll},
};

use bytes::Bytes;
use tidegate_core::Problem;

use super::{
    flow::{Direction, End, Halt, Stop},
    view::{Malformed, Statement, View},
};

/// How a relay came to its end.
#[derive(Debug)]
pub(crate) enum RelayEnd {
    /// The client closed its side, or broke off.
    Client(Option<io::Error>),
    /// The client's bytes are no sequence of messages.
    ClientFrame(Malformed),
    /// The database closed its side, or broke off.
    Database(Option<io::Error>),
    /// The database's bytes are no sequence of messages.
    DatabaseFrame(Malformed),
    /// A statement of the client was held back: neither it nor anything behind it was sent.
    Held,
    /// The client asked for what is not done here: neither that nor anything behind it was sent.
    Refused(Box<Problem>),
    /// It was asked to stop, and this is a good moment.
    Stopped,
}

/// When to stop by ourselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// Not at all.
    Ended,
    /// As soon as no statement runs and no transaction is open.
    Idle,
    /// As soon as a message may be put in. Nothing of the client is taken any more.
    Boundary,
}

/// A running session's two ends.
#[derive(Debug)]
pub(crate) struct Relay<C, D, V> {
    pub(crate) client: C,
    pub(crate) database: D,
    pub(crate) view: V,
    to_database: Direction,
    to_client: Direction,
    /// Why nothing can be sent to the database any more; its own last words may still be under way.
    database_deaf: Option<io::Error>,
}

impl<C: End, D: End, V: View> Relay<C, D, V> {
    /// A relay between two ends, of which some bytes were read already.
    pub(crate) fn new(
        (client, client_head): (C, Bytes),
        (database, database_head): (D, Bytes),
        view: V,
    ) -> Self {
        Self {
            client,
            database,
            view,
            to_database: Direction::new(client_head),
            to_client: Direction::new(database_head),
            database_deaf: None,
        }
    }

    /// Moves bytes until one side ends, or until `until`. May be called again after `Stopped`, and with
    /// [`Until::Boundary`] after `Held`.
    ///
    /// A statement for which `on_statement` breaks off is held back.
    pub(crate) async fn run(
        &mut self,
        until: Until,
        mut on_statement: impl FnMut(Statement<'_>) -> ControlFlow<()>,
    ) -> RelayEnd {
        std::future::poll_fn(|cx| self.poll(cx, until, &mut on_statement)).await
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        until: Until,
        on_statement: &mut impl FnMut(Statement<'_>) -> ControlFlow<()>,
    ) -> Poll<RelayEnd> {
        let Self {
            client,
            database,
            view,
            to_database,
            to_client,
            database_deaf,
        } = self;
        let looking = |bytes: &[u8]| {
            let mut is_held = false;
            view.sent_by_client(bytes, |statement| {
                is_held |= on_statement(statement).is_break()
            })?;
            if is_held { Err(Halt::Held) } else { Ok(()) }
        };
        if until != Until::Boundary
            && database_deaf.is_none()
            && let Poll::Ready(stop) = to_database.poll(cx, client, database, looking)
        {
            match stop {
                Stop::Halt(Halt::Frame(error)) => {
                    return Poll::Ready(RelayEnd::ClientFrame(error));
                }
                Stop::Halt(Halt::Held) => return Poll::Ready(RelayEnd::Held),
                Stop::Halt(Halt::Refused(problem)) => {
                    return Poll::Ready(RelayEnd::Refused(problem));
                }
                Stop::Read(error) => return Poll::Ready(RelayEnd::Client(error)),
                Stop::Write(error) => *database_deaf = Some(error),
            }
        }
        let looking = |bytes: &[u8]| view.sent_by_database(bytes).map_err(Halt::Frame);
        if let Poll::Ready(stop) = to_client.poll(cx, database, client, looking) {
            return Poll::Ready(match stop {
                Stop::Halt(Halt::Frame(error)) => RelayEnd::DatabaseFrame(error),
                Stop::Halt(Halt::Held) => RelayEnd::Held,
                Stop::Halt(Halt::Refused(problem)) => RelayEnd::Refused(problem),
                Stop::Read(error) => RelayEnd::Database(database_deaf.take().or(error)),
                Stop::Write(error) => RelayEnd::Client(Some(error)),
            });
        }
        let settled = to_client.is_sent() && view.may_speak_to_client();
        match until {
            Until::Idle if settled && view.is_idle() => Poll::Ready(RelayEnd::Stopped),
            Until::Boundary if settled => Poll::Ready(RelayEnd::Stopped),
            _ => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        pin::Pin,
        sync::{Arc, atomic::AtomicBool},
    };

    use futures::FutureExt;
    use proptest::prelude::*;
    use tidegate_wire::{
        backend::{TxStatus, ready_for_query},
        frontend,
    };
    use tokio::io::{AsyncBufRead, AsyncRead};

    use super::*;
    use crate::engine::postgres::PostgresView;

    /// An end that gives its bytes in set pieces and takes at most `room` between two sends.
    #[derive(Debug, Default)]
    struct Pieces {
        incoming: VecDeque<Vec<u8>>,
        at_end: bool,
        room: usize,
        queued: Vec<u8>,
        sent: Vec<u8>,
        sends: usize,
    }

    impl AsyncRead for Pieces {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut tokio::io::ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            unreachable!("the relay reads without copying")
        }
    }

    impl AsyncBufRead for Pieces {
        fn poll_fill_buf(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
            let this = self.get_mut();
            match this.incoming.front() {
                Some(piece) => Poll::Ready(Ok(piece)),
                None if this.at_end => Poll::Ready(Ok(&[])),
                None => Poll::Pending,
            }
        }

        fn consume(mut self: Pin<&mut Self>, taken: usize) {
            let piece = self.incoming.front_mut().unwrap();
            piece.drain(..taken);
            if piece.is_empty() {
                self.incoming.pop_front();
            }
        }
    }

    impl End for Pieces {
        fn queue(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.room - self.queued.len());
            self.queued.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn poll_send(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.sends += 1;
            self.sent.append(&mut self.queued);
            Poll::Ready(Ok(()))
        }
    }

    fn pieces(bytes: &[u8], sizes: &[usize]) -> Pieces {
        let mut rest = bytes;
        let mut incoming = VecDeque::new();
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, left) = rest.split_at((*size).min(rest.len()));
            incoming.push_back(piece.to_vec());
            rest = left;
        }
        Pieces {
            incoming,
            room: 64 << 10,
            ..Pieces::default()
        }
    }

    fn relay(client: Pieces, database: Pieces) -> Relay<Pieces, Pieces, PostgresView> {
        let view = PostgresView::new(Arc::new(AtomicBool::new(false)));
        Relay::new((client, Bytes::new()), (database, Bytes::new()), view)
    }

    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(future)
    }

    fn row(len: usize) -> Vec<u8> {
        let mut message = vec![b'D'];
        message.extend_from_slice(&u32::try_from(len + 4).unwrap().to_be_bytes());
        message.resize(len + 5, 0x5a);
        message
    }

    proptest! {
        #[test]
        fn bytes_arrive_as_they_were_sent_however_they_are_cut(
            rows in proptest::collection::vec(0usize..5_000, 1..20),
            sizes in proptest::collection::vec(1usize..40_000, 1..8),
            room in 1usize..70_000,
        ) {
            let answer: Vec<u8> = rows.iter().flat_map(|len| row(*len)).collect();
            let asked = frontend::query("select * from t");
            let mut client = pieces(&asked, &sizes);
            client.room = room;
            let mut database = pieces(&answer, &sizes);
            database.at_end = true;
            database.room = room;
            let mut relay = relay(client, database);
            let end = block_on(relay.run(Until::Ended, |_| ControlFlow::Continue(())));
            prop_assert!(matches!(end, RelayEnd::Database(None)));
            prop_assert_eq!(&relay.client.sent, &answer);
            prop_assert_eq!(&relay.database.sent, &asked.to_vec());
            prop_assert_eq!(relay.view.counts().rows, rows.len() as u64);
            prop_assert_eq!(relay.view.counts().statements, 1);
        }
    }

    #[test]
    fn bulk_goes_out_in_few_large_sends() {
        let records = 64;
        let mut database = pieces(b"", &[1]);
        for _ in 0..records {
            database.incoming.push_back(row((16 << 10) - 5));
        }
        database.at_end = true;
        let mut relay = relay(pieces(b"", &[1]), database);
        block_on(relay.run(Until::Ended, |_| ControlFlow::Continue(())));
        assert_eq!(relay.client.sent.len(), records * (16 << 10));
        assert!(
            relay.client.sends <= records / 4 + 1,
            "{}",
            relay.client.sends
        );
    }

    #[test]
    fn a_stop_waits_for_the_statement_and_then_for_nothing() {
        let mut relay = relay(
            pieces(&frontend::query("select 1"), &[9]),
            pieces(b"", &[1]),
        );
        let running = relay
            .run(Until::Idle, |_| ControlFlow::Continue(()))
            .now_or_never();
        assert!(running.is_none(), "the statement runs");
        relay
            .database
            .incoming
            .push_back(ready_for_query(TxStatus::Idle).to_vec());
        let end = block_on(relay.run(Until::Idle, |_| ControlFlow::Continue(())));
        assert!(matches!(end, RelayEnd::Stopped));
    }

    #[test]
    fn a_statement_that_is_held_back_is_not_sent_and_nothing_of_the_client_is_taken_after_it() {
        let words = [frontend::query("select 1"), frontend::query("select 2")].concat();
        let mut relay = relay(pieces(&words, &[14, 99]), pieces(b"", &[1]));
        let second = |statement: Statement<'_>| match statement.text {
            "select 1" => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        };
        let end = block_on(relay.run(Until::Ended, second));
        assert!(matches!(end, RelayEnd::Held));
        assert!(!relay.database.sent.ends_with(b"select 2\0"));
        relay.client.incoming.push_back(b"never".to_vec());
        let end = block_on(relay.run(Until::Boundary, second));
        assert!(matches!(end, RelayEnd::Stopped));
        assert!(relay.client.incoming.iter().any(|left| left == b"never"));
    }

    #[test]
    fn a_stream_that_is_no_protocol_ends_the_session_before_it_reaches_the_database() {
        let mut relay = relay(pieces(b"Q\0\0\0\x01garbage", &[64]), pieces(b"", &[1]));
        let end = block_on(relay.run(Until::Ended, |_| ControlFlow::Continue(())));
        assert!(matches!(end, RelayEnd::ClientFrame(_)));
        assert!(relay.database.sent.is_empty());
    }
}
