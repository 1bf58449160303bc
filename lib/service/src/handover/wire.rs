//! What the two processes of a hand-over say to each other: short messages over a pair of sockets, some with sockets.
//!
//! The sockets of the pair keep messages apart (`SOCK_SEQPACKET`), so there is no framing: a first byte says which
//! message it is.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
    },
};
use tokio::{io::Interest, net::UnixDatagram};

use super::TOKEN_BYTES;

/// Listening sockets that one process passes on: its ports, with room for those to come.
pub(super) const SOCKETS_MAX: usize = 16;

/// How long a new process waits for its sockets, which were sent as soon as it was started.
const SOCKETS_WAIT_SECONDS: i64 = 5;

/// Something that one process says to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// From the new one: an agent's connection that the old one asked for, introduced by this token.
    DialledBack([u8; TOKEN_BYTES]),
    /// From the old one: accept from now on.
    Go,
    /// From the new one: it could serve.
    Ready,
    /// From the old one: the listening sockets.
    Sockets,
}

impl Message {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::DialledBack(token) => [&b"D"[..], token].concat(),
            Self::Go => b"G".to_vec(),
            Self::Ready => b"R".to_vec(),
            Self::Sockets => b"L".to_vec(),
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [b'D', token @ ..] => Some(Self::DialledBack(token.try_into().ok()?)),
            b"G" => Some(Self::Go),
            b"R" => Some(Self::Ready),
            b"L" => Some(Self::Sockets),
            _ => None,
        }
    }
}

/// Two ends of a way between processes: the first never blocks.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// One end.
#[derive(Debug)]
pub(super) struct Channel {
    /// Only waits for what there is to read: messages are read and written by the calls that pass sockets.
    socket: UnixDatagram,
}

impl Channel {
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        let socket = std::os::unix::net::UnixDatagram::from(socket);
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: UnixDatagram::from_std(socket)?,
        })
    }

    /// Sends a message. The kernel has room for hundreds; where it has none that is an error.
    pub(super) fn send(&self, message: &Message, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        if !sockets.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(sockets)) {
            return Err(io::Error::other("too many sockets to pass on"));
        }
        let bytes = message.encode();
        sendmsg(
            &self.socket,
            &[IoSlice::new(&bytes)],
            &mut beside,
            SendFlags::NOSIGNAL,
        )?;
        Ok(())
    }

    /// The next message, and the socket that came with it; `None` when the other process is gone. A message that nobody
    /// knows, of a newer program, is passed over.
    pub(super) async fn receive(&self) -> io::Result<Option<(Message, Option<OwnedFd>)>> {
        loop {
            let received = self
                .socket
                .async_io(Interest::READABLE, || receive(self.socket.as_fd()))
                .await?;
            match received {
                None => return Ok(None),
                Some((Some(message), sockets)) => {
                    return Ok(Some((message, sockets.into_iter().next())));
                }
                Some((None, _)) => {}
            }
        }
    }
}

/// Waits for the message with the listening sockets, which comes first.
pub(super) fn receive_sockets(socket: &OwnedFd) -> io::Result<Vec<OwnedFd>> {
    let patience = Timespec {
        tv_sec: SOCKETS_WAIT_SECONDS,
        tv_nsec: 0,
    };
    let mut waiting = [PollFd::new(socket, PollFlags::IN)];
    if poll(&mut waiting, Some(&patience))? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    match receive(socket.as_fd())? {
        Some((Some(Message::Sockets), sockets)) => Ok(sockets),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

type Received = Option<(Option<Message>, Vec<OwnedFd>)>;

fn receive(socket: BorrowedFd<'_>) -> io::Result<Received> {
    let mut bytes = [0; 1 + TOKEN_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut beside,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let sockets = beside
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
            _ => None,
        })
        .flatten()
        .collect();
    Ok(Some((Message::decode(&bytes[..received.bytes]), sockets)))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[test]
    fn messages_survive_the_way() {
        for message in [
            Message::DialledBack([7; TOKEN_BYTES]),
            Message::Go,
            Message::Ready,
            Message::Sockets,
        ] {
            assert_eq!(Message::decode(&message.encode()), Some(message));
        }
        assert_eq!(Message::decode(b"Dshort"), None);
        assert_eq!(Message::decode(b"Z"), None);
    }

    #[tokio::test]
    async fn sockets_arrive_whole_and_in_order() {
        let (ours, theirs) = pair().unwrap();
        let (ours, listeners) = (
            Channel::new(ours).unwrap(),
            [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap()),
        );
        let sockets = listeners.each_ref().map(AsFd::as_fd);
        ours.send(&Message::Sockets, &sockets).unwrap();

        let passed = receive_sockets(&theirs).unwrap();
        let passed: Vec<_> = passed.into_iter().map(TcpListener::from).collect();
        let addresses = |all: &[TcpListener]| -> Vec<_> {
            all.iter().map(|one| one.local_addr().unwrap()).collect()
        };
        assert_eq!(addresses(&passed), addresses(&listeners));
    }

    #[tokio::test]
    async fn a_connection_is_given_back_with_its_token() {
        let (ours, theirs) = pair().unwrap();
        let (ours, theirs) = (Channel::new(ours).unwrap(), Channel::new(theirs).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let message = Message::DialledBack([3; TOKEN_BYTES]);
        theirs.send(&message, &[accepted.as_fd()]).unwrap();
        drop((accepted, theirs));

        let (received, socket) = ours.receive().await.unwrap().unwrap();
        assert_eq!(received, message);
        TcpStream::from(socket.unwrap()).write_all(b"x").unwrap();
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
        assert!(ours.receive().await.unwrap().is_none());
    }
}
