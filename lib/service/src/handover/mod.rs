//! Hands listening sockets over to a new process of the same program, so that no connection is refused meanwhile.
//!
//! The old process starts the new one and gives it the sockets themselves: whoever waits to be accepted waits in the same
//! queue before and after. (With `SO_REUSEPORT` each process has a queue of its own, and what waits in the old one's is
//! lost with it.) The new one says when it could serve; then the old one stops accepting, and only then the new one begins.
//! Sessions that run go on in the old one.
//!
//! - [`sockets`]: the listening sockets of a process, wherever it has them from.
//! - [`wire`]: what the two processes say to each other, over the new one's standard input.
//!
//! Invariant: no two processes accept from one socket at the same time. What one of them asked for and the other one
//! accepted is given back ([`Sockets::give_back`]).

mod sockets;
mod wire;

use std::{
    io,
    net::TcpStream,
    os::fd::{AsFd as _, OwnedFd},
    process::{Child, Command, Stdio},
    time::Duration,
};

pub use sockets::{Accepting, Returned, Sockets};
use wire::{Channel, Message};

/// Tells a process that its standard input leads to the one that it is to take over from.
pub const PREDECESSOR_VARIABLE: &str = "TIDEGATE_PREDECESSOR";

/// How long a new process may take until it could serve.
pub const READY_MAX: Duration = Duration::from_secs(60);

/// Bytes that tell whose connection one is that was accepted by the wrong process.
pub const TOKEN_BYTES: usize = 16;

/// Why nothing was handed over; the old process goes on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandOverError {
    /// The new process ended, or closed its standard input.
    #[error("the new process ended before it could serve")]
    Ended,
    /// The sockets could not be passed.
    #[error("could not talk to the new process")]
    Channel(#[from] io::Error),
    /// The new process takes too long.
    #[error("the new process could not serve within {} s", READY_MAX.as_secs())]
    Slow,
    /// The new process cannot be started.
    #[error("could not start the new process")]
    Start(#[source] io::Error),
}

/// The new process, in the eyes of the old one. Dropping it before [`Self::go`] ends it.
#[derive(Debug)]
pub struct Successor {
    child: Running,
    channel: Channel,
}

/// A process that ends with this, unless it was let go.
#[derive(Debug)]
struct Running(Option<Child>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // It may be gone already; a process that was killed is waited for only as long as the kernel takes.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Successor {
    /// Starts the program of this process again, with the same arguments, and gives it the sockets. The program is looked
    /// up anew, so that a file that was replaced meanwhile runs.
    ///
    /// # Errors
    ///
    /// [`HandOverError::Start`] and [`HandOverError::Channel`].
    pub fn start(sockets: &Sockets) -> Result<Self, HandOverError> {
        let (ours, theirs) = wire::pair()?;
        let channel = Channel::new(ours)?;
        let mut arguments = std::env::args_os();
        let program = arguments
            .next()
            .ok_or_else(|| HandOverError::Start(io::ErrorKind::NotFound.into()))?;
        let child = Command::new(program)
            .args(arguments)
            .env(PREDECESSOR_VARIABLE, "1")
            .stdin(Stdio::from(theirs))
            .spawn()
            .map_err(HandOverError::Start)?;
        let child = Running(Some(child));
        channel.send(&Message::Sockets, &sockets::borrowed(&sockets.kept()))?;
        Ok(Self { child, channel })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.0.as_ref().map(Child::id)
    }

    /// Waits until the new process could serve.
    ///
    /// # Errors
    ///
    /// [`HandOverError`]: it cannot, and is to be dropped.
    pub async fn ready(&mut self) -> Result<(), HandOverError> {
        let hears = async {
            match self.channel.receive().await? {
                Some((Message::Ready, _)) => Ok(()),
                _ => Err(HandOverError::Ended),
            }
        };
        tokio::time::timeout(READY_MAX, hears)
            .await
            .unwrap_or(Err(HandOverError::Slow))
    }

    /// Lets the new process accept, and from now on outlive this one. What it gives back goes to whoever took
    /// [`Sockets::returned`], for as long as the answer is polled. This process keeps no copy of the sockets: when the new
    /// one ends, nobody must wait in vain.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub fn go(
        mut self,
        sockets: &Sockets,
    ) -> Result<impl Future<Output = ()> + Send + use<>, HandOverError> {
        self.channel.send(&Message::Go, &[])?;
        drop(self.child.0.take());
        sockets.let_go();
        let (to, channel) = (sockets.clone(), self.channel);
        Ok(async move {
            while let Ok(Some((message, socket))) = channel.receive().await {
                if let (Message::DialledBack(token), Some(socket)) = (message, socket) {
                    to.take_back(token, TcpStream::from(socket));
                }
            }
        })
    }
}

/// The old process, in the eyes of the new one.
#[derive(Debug)]
pub(crate) struct Predecessor {
    channel: Channel,
}

impl Predecessor {
    /// The process that started this one to be succeeded, and the sockets that it passes; `None` when this one was
    /// started by anybody else.
    fn find() -> io::Result<Option<(Self, Vec<OwnedFd>)>> {
        if std::env::var_os(PREDECESSOR_VARIABLE).is_none() {
            return Ok(None);
        }
        let socket = io::stdin().as_fd().try_clone_to_owned()?;
        let sockets = wire::receive_sockets(&socket)?;
        let channel = Channel::new(socket)?;
        Ok(Some((Self { channel }, sockets)))
    }

    /// Says that this process could serve, and waits until it may. A predecessor that is gone has nothing against it.
    async fn take_over(&self) {
        if self.channel.send(&Message::Ready, &[]).is_err() {
            return;
        }
        while let Ok(Some((message, _))) = self.channel.receive().await {
            if message == Message::Go {
                return;
            }
        }
    }

    fn give_back(&self, token: [u8; TOKEN_BYTES], stream: &TcpStream) -> io::Result<()> {
        self.channel
            .send(&Message::DialledBack(token), &[stream.as_fd()])
    }
}
