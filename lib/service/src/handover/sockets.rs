//! The listening sockets of a process: bound by itself, passed by the process before it, or by a supervisor such as
//! systemd.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::{Predecessor, TOKEN_BYTES, wire::SOCKETS_MAX};

/// Connections that the kernel accepts ahead of us.
const BACKLOG: i32 = 4_096;

/// Connections that were given back and wait to be taken; one more is closed.
const RETURNED_MAX: usize = 1_024;

/// A connection that another process accepted, and the token that it was introduced by.
pub type Returned = ([u8; TOKEN_BYTES], TcpStream);

/// The listening sockets of one process. Clones share them.
#[derive(Clone, Debug)]
pub struct Sockets {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    predecessor: Option<Predecessor>,
    /// Passed on to this process, and not asked for yet.
    passed: Mutex<Vec<TcpListener>>,
    /// Copies of those that are listened on, to pass on.
    kept: Mutex<Vec<OwnedFd>>,
    /// Whether this process may accept.
    open: watch::Sender<bool>,
    accepting: TaskTracker,
    returned: mpsc::Sender<Returned>,
    returned_to: Mutex<Option<mpsc::Receiver<Returned>>>,
}

/// A loop that accepts, for as long as it lives.
#[derive(Debug)]
pub struct Accepting {
    _token: tokio_util::task::task_tracker::TaskTrackerToken,
}

impl Default for Sockets {
    fn default() -> Self {
        Self::of(None, Vec::new())
    }
}

impl Sockets {
    /// Those that a process before this one passes, if there is one, and those that a supervisor passed.
    ///
    /// # Errors
    ///
    /// When there is a process before this one, and it cannot be understood.
    pub fn inherit(supervised: Vec<TcpListener>) -> io::Result<Self> {
        let mut passed = supervised;
        let predecessor = match Predecessor::find()? {
            Some((predecessor, sockets)) => {
                passed.extend(sockets.into_iter().map(TcpListener::from));
                Some(predecessor)
            }
            None => None,
        };
        Ok(Self::of(predecessor, passed))
    }

    fn of(predecessor: Option<Predecessor>, passed: Vec<TcpListener>) -> Self {
        let (returned, returned_to) = mpsc::channel(RETURNED_MAX);
        let inner = Inner {
            open: watch::Sender::new(predecessor.is_none()),
            predecessor,
            passed: Mutex::new(passed),
            kept: Mutex::default(),
            accepting: TaskTracker::new(),
            returned,
            returned_to: Mutex::new(Some(returned_to)),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The socket for this address: the one that was passed, else a new one. It is passed on to whoever succeeds this
    /// process.
    ///
    /// # Errors
    ///
    /// What the system says: another process has the port, or we may not have it.
    pub fn listen(&self, addr: SocketAddr) -> io::Result<tokio::net::TcpListener> {
        let listener = match self.take_passed(addr) {
            Some(passed) => passed,
            None => bind(addr)?,
        };
        listener.set_nonblocking(true)?;
        let mut kept = lock(&self.inner.kept);
        if kept.len() < SOCKETS_MAX {
            kept.push(listener.as_fd().try_clone_to_owned()?);
        }
        drop(kept);
        tokio::net::TcpListener::from_std(listener)
    }

    fn take_passed(&self, addr: SocketAddr) -> Option<TcpListener> {
        let mut passed = lock(&self.inner.passed);
        let place = passed
            .iter()
            .position(|one| one.local_addr().is_ok_and(|local| local == addr))?;
        Some(passed.swap_remove(place))
    }

    /// Whether there is a process before this one that this one is to take over from.
    #[must_use]
    pub fn has_predecessor(&self) -> bool {
        self.inner.predecessor.is_some()
    }

    /// This process could serve: takes over from the one before it. Sockets that it passed and nobody asked for are closed.
    pub async fn take_over(&self) {
        let unused = std::mem::take(&mut *lock(&self.inner.passed));
        for listener in &unused {
            warn!(listen.address = ?listener.local_addr().ok(), "closed a socket that was passed on, and that no setting asks for");
        }
        if let Some(predecessor) = &self.inner.predecessor {
            predecessor.take_over().await;
            info!("took over from the process before");
        }
        self.inner.open.send_replace(true);
    }

    /// Waits until this process may accept; say so for as long as you do.
    pub async fn accepting(&self) -> Accepting {
        let mut open = self.inner.open.subscribe();
        // The sending end is in `self`, so this does not fail.
        let _ = open.wait_for(|open| *open).await;
        Accepting {
            _token: self.inner.accepting.token(),
        }
    }

    /// Waits until nobody here accepts any longer; loops that begin later are not waited for.
    pub async fn quiet(&self) {
        self.inner.accepting.close();
        self.inner.accepting.wait().await;
    }

    /// A connection that belongs to a process before this one goes there; `false` when there is none.
    #[must_use]
    pub fn give_back(&self, token: [u8; TOKEN_BYTES], stream: &impl AsFd) -> bool {
        let Some(predecessor) = &self.inner.predecessor else {
            return false;
        };
        let Ok(stream) = stream.as_fd().try_clone_to_owned() else {
            return false;
        };
        predecessor
            .give_back(token, &TcpStream::from(stream))
            .is_ok()
    }

    /// Connections that processes after this one give back. There is one reader; `None` for any other.
    #[must_use]
    pub fn returned(&self) -> Option<mpsc::Receiver<Returned>> {
        lock(&self.inner.returned_to).take()
    }

    /// Closes the copies.
    pub(super) fn let_go(&self) {
        lock(&self.inner.kept).clear();
    }

    pub(super) fn take_back(&self, token: [u8; TOKEN_BYTES], stream: TcpStream) {
        if self.inner.returned.try_send((token, stream)).is_err() {
            warn!("closed a connection that was given back: nobody takes it");
        }
    }

    /// Copies of the sockets that are listened on.
    pub(super) fn kept(&self) -> Vec<OwnedFd> {
        lock(&self.inner.kept)
            .iter()
            .filter_map(|socket| socket.try_clone().ok())
            .collect()
    }
}

fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let domain = match addr {
        SocketAddr::V4(_) => rustix::net::AddressFamily::INET,
        SocketAddr::V6(_) => rustix::net::AddressFamily::INET6,
    };
    let socket = rustix::net::socket_with(
        domain,
        rustix::net::SocketType::STREAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &addr)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Values are whole: a panic elsewhere leaves none half-made.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Borrows them all.
pub(super) fn borrowed(sockets: &[OwnedFd]) -> Vec<BorrowedFd<'_>> {
    sockets.iter().map(AsFd::as_fd).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_was_passed_is_used_instead_of_a_new_one() {
        let passed = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = passed.local_addr().unwrap();
        let waiting = TcpStream::connect(addr).unwrap();
        let sockets = Sockets::inherit(vec![passed]).unwrap();

        let listener = sockets.listen(addr).unwrap();
        let (_, client) = listener.accept().await.unwrap();

        assert_eq!(client, waiting.local_addr().unwrap());
        assert_eq!(sockets.kept().len(), 1);
    }

    #[tokio::test]
    async fn a_socket_of_another_address_is_not_taken() {
        let passed = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = passed.local_addr().unwrap();
        let sockets = Sockets::inherit(vec![passed]).unwrap();

        let own = sockets.listen("127.0.0.1:0".parse().unwrap()).unwrap();
        assert_ne!(own.local_addr().unwrap(), addr);
        sockets.take_over().await;
        assert!(TcpStream::connect(addr).is_err());
    }

    #[tokio::test]
    async fn it_is_quiet_once_nobody_accepts() {
        let sockets = Sockets::default();
        let accepting = sockets.accepting().await;
        let quiet = tokio::spawn({
            let sockets = sockets.clone();
            async move { sockets.quiet().await }
        });
        tokio::task::yield_now().await;
        assert!(!quiet.is_finished());
        drop(accepting);
        quiet.await.unwrap();
    }
}
