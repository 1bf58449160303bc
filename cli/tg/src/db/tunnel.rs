//! A door to one database on this machine, for clients that cannot show a certificate themselves, or cannot find the way.
//!
//! It is a socket file in a folder of the user's own, or a port. On a port everybody on the machine could walk in, so on
//! loopback it is looked up whose program connects, where the system tells. Each connection becomes one of its own to the
//! agent, by way of the proxy; the client never waits for another's.
//!
//! Not here: TLS and certificates ([`way`], [`passport`]).

mod folder;
mod passport;
mod peer;
mod postgres;
mod way;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tidegate_console::Failure;
use tidegate_wire::{SqlState, mysql::reply};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional_with_sizes},
    net::{TcpListener, TcpStream, UnixListener},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};

use super::Speaks;
use folder::Folder;
pub(super) use passport::Passport;
use peer::{Peer, peer};
use postgres::{OpenError, Opened};
pub(super) use way::Way;
use way::WayError;

/// Connections at a time; a program that wants more has lost count.
const CONNECTIONS_MAX: usize = 128;
/// Connections looked at at a time, those that are being turned away included; more are closed without a word.
const LOOKED_AT_MAX: usize = 2 * CONNECTIONS_MAX;
/// How long a client may take to say what it wants.
const OPENING_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a request to cancel may take to be taken.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to read why it is turned away.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait after a connection could not be taken, as when file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Bytes under way in each direction of a connection.
const COPY_BYTES: usize = 64 * 1024;

/// The socket's name where clients take any.
const SOCKET: &str = "s";
/// The socket's name where libpq expects it, for its usual port.
///
/// Source: PostgreSQL manual, `unix_socket_directories`.
const SOCKET_POSTGRES: &str = ".s.PGSQL.5432";

/// What is done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrying {
    /// It is passed on as it is: the client brings TLS and certificate.
    AsIs,
    /// It is put into TLS with the person's certificate.
    Secured(Speaks),
}

/// A door that is open as long as this value lives.
#[derive(Debug)]
pub(super) struct Tunnel {
    place: Place,
    /// Whether only this user's programs are let in.
    is_private: bool,
    accepting: tokio::task::JoinHandle<()>,
    _folder: Option<Folder>,
}

/// Where clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A port.
    Port(SocketAddr),
    /// A socket file.
    Socket(PathBuf),
}

impl Tunnel {
    /// Opens a door with a socket file in a folder of its own.
    pub(super) fn on_socket(way: Arc<Way>, speaks: Speaks) -> Result<Self, Failure> {
        let name = match speaks {
            Speaks::Mysql => SOCKET,
            Speaks::Postgres => SOCKET_POSTGRES,
        };
        let folder = Folder::create(name)?;
        let socket = folder.path().join(name);
        let listener = UnixListener::bind(&socket).map_err(|error| {
            Failure::new(format!("cannot listen on {}: {error}", socket.display()))
        })?;
        let carrier = Carrier::new(way, Carrying::Secured(speaks));
        Ok(Self {
            place: Place::Socket(socket),
            is_private: true,
            accepting: tokio::spawn(accept_local(listener, carrier)),
            _folder: Some(folder),
        })
    }

    /// Opens a door on a port; port 0 is one that is free.
    pub(super) async fn on_port(
        way: Arc<Way>,
        carrying: Carrying,
        addr: SocketAddr,
    ) -> Result<Self, Failure> {
        let failed = |error: io::Error| {
            let failure = Failure::new(format!("cannot listen on {addr}: {error}"));
            match error.kind() {
                io::ErrorKind::AddrInUse => {
                    failure.hint("choose another port with --port, or leave it out for a free one")
                }
                _ => failure,
            }
        };
        let listener = TcpListener::bind(addr).await.map_err(failed)?;
        let here = listener.local_addr().map_err(failed)?;
        let asks = carrying != Carrying::AsIs
            && here.ip().is_loopback()
            && tells_whose(&listener, here).await;
        let carrier = Carrier::new(way, carrying);
        Ok(Self {
            place: Place::Port(here),
            is_private: asks,
            accepting: tokio::spawn(accept_port(listener, here, asks, carrier)),
            _folder: None,
        })
    }

    /// Where clients connect to.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Whether other users of the machine are kept out.
    pub(super) fn is_private(&self) -> bool {
        self.is_private
    }

    /// The socket file; `None` on a port.
    pub(super) fn socket(&self) -> Option<&Path> {
        match &self.place {
            Place::Socket(path) => Some(path),
            Place::Port(_) => None,
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Whether the system tells whose a connection is: tried with one of our own.
async fn tells_whose(listener: &TcpListener, here: SocketAddr) -> bool {
    let trying = async {
        let (ours, accepted) = tokio::join!(TcpStream::connect(here), listener.accept());
        let (ours, _accepted) = (ours?, accepted?);
        whose(ours.local_addr()?, here).await
    };
    matches!(timeout(FAREWELL_TIMEOUT, trying).await, Ok(Ok(Peer::Ours)))
}

async fn whose(client: SocketAddr, here: SocketAddr) -> io::Result<Peer> {
    // The table is a file that can be long.
    let told = tokio::task::spawn_blocking(move || peer(client, here)).await;
    told.map_err(io::Error::other)
}

/// What carries connections.
#[derive(Clone)]
struct Carrier {
    way: Arc<Way>,
    carrying: Carrying,
    places: Arc<Semaphore>,
}

impl Carrier {
    fn new(way: Arc<Way>, carrying: Carrying) -> Self {
        Self {
            way,
            carrying,
            places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        }
    }

    /// One connection, to its end. One that `is_barred` is another user's.
    async fn carry<S>(self, mut client: S, is_barred: bool)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        // libpq shows what it is told only after its request for TLS was answered.
        let Some(first) = self.opening(&mut client, is_barred).await else {
            return;
        };
        if is_barred {
            let words = "this tunnel is for programs of the user who opened it";
            let hint = "open one of your own with `tg proxy db --tunnel`";
            let code = SqlState::INVALID_AUTHORIZATION;
            return self.turn_away(&mut client, code, words, Some(hint)).await;
        }
        let Ok(_place) = self.places.try_acquire() else {
            let words = format!("this tunnel carries {CONNECTIONS_MAX} connections already");
            let code = SqlState::TOO_MANY_CONNECTIONS;
            return self.turn_away(&mut client, code, &words, None).await;
        };
        match self.carrying {
            Carrying::AsIs => self.pass_on(client).await,
            Carrying::Secured(_) => self.secure(client, first).await,
        }
    }

    /// What the client says before anybody answers; `None` when that was all.
    async fn opening<S>(&self, client: &mut S, is_barred: bool) -> Option<Bytes>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if self.carrying != Carrying::Secured(Speaks::Postgres) {
            return Some(Bytes::new());
        }
        match timeout(OPENING_TIMEOUT, postgres::open(client)).await {
            Ok(Ok(Opened::Session(first))) => Some(first),
            Ok(Ok(Opened::Cancel(request))) => {
                if !is_barred {
                    self.cancel(&request).await;
                }
                None
            }
            // It is gone, or was told.
            Ok(Err(OpenError::Closed | OpenError::Io(_) | OpenError::Refused(_))) | Err(_) => None,
        }
    }

    /// Carries a session inside TLS. What the client said so far goes first.
    async fn secure<S>(&self, mut client: S, first: Bytes)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match self.way.connect().await {
            Ok(mut agent) => {
                // However it ends, it is over for both sides, and they know why.
                if agent.write_all(&first).await.is_ok() && agent.flush().await.is_ok() {
                    let _ = copy_bidirectional_with_sizes(
                        &mut client,
                        &mut agent,
                        COPY_BYTES,
                        COPY_BYTES,
                    )
                    .await;
                }
            }
            Err(error) => self.no_way(&mut client, &error).await,
        }
    }

    /// Carries a connection as it is; who has no way to the proxy finds the connection closed.
    async fn pass_on<S>(&self, mut client: S)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if let Ok(mut proxy) = self.way.dial().await {
            let _ = copy_bidirectional_with_sizes(&mut client, &mut proxy, COPY_BYTES, COPY_BYTES)
                .await;
        }
    }

    /// Passes a request to cancel on to the proxy, which asks all agents; nobody answers it. It goes as a stock client
    /// would send it: inside TLS it would reach one agent, and maybe not the one whose session is meant.
    async fn cancel(&self, request: &[u8]) {
        let asking = async {
            let mut proxy = self.way.dial().await?;
            proxy.write_all(request).await?;
            proxy.shutdown().await?;
            // The other end closes once it has taken the request.
            proxy.read(&mut [0; 1]).await
        };
        let _ = timeout(CANCEL_TIMEOUT, asking).await;
    }

    async fn no_way<S>(&self, client: &mut S, error: &WayError)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let code = match error {
            WayError::Person(_) => SqlState::INVALID_AUTHORIZATION,
            WayError::Unreachable(_) => SqlState::CONNECTION_FAILURE,
        };
        self.turn_away(client, code, &error.to_string(), Some(&error.hint()))
            .await;
    }

    /// Tells a client why it gets no session, in the words of its protocol.
    async fn turn_away<S>(&self, client: &mut S, code: SqlState, words: &str, hint: Option<&str>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let hint = hint.filter(|hint| !hint.is_empty());
        let said = match self.carrying {
            Carrying::AsIs => return,
            Carrying::Secured(Speaks::Postgres) => postgres::refusal(code, words, hint),
            Carrying::Secured(Speaks::Mysql) => {
                let words = [Some(words), hint].into_iter().flatten();
                let words: Vec<&str> = words.collect();
                reply::error_like(0, code, &words.join("; "))
            }
        };
        let told = async {
            client.write_all(&said).await?;
            client.shutdown().await
        };
        let _ = timeout(FAREWELL_TIMEOUT, told).await;
    }
}

async fn accept_local(listener: UnixListener, carrier: Carrier) {
    let mut carried = JoinSet::new();
    loop {
        while carried.try_join_next().is_some() {}
        match listener.accept().await {
            Ok(_) if carried.len() >= LOOKED_AT_MAX => {}
            Ok((client, _)) => {
                carried.spawn(carrier.clone().carry(client, false));
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn accept_port(listener: TcpListener, here: SocketAddr, asks: bool, carrier: Carrier) {
    let mut carried = JoinSet::new();
    loop {
        while carried.try_join_next().is_some() {}
        match listener.accept().await {
            Ok(_) if carried.len() >= LOOKED_AT_MAX => {}
            Ok((client, from)) => {
                let carrier = carrier.clone();
                carried.spawn(async move { admit(client, from, here, asks, carrier).await });
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Lets a connection on a port in, if it is this user's where that can be told.
async fn admit(
    client: TcpStream,
    from: SocketAddr,
    here: SocketAddr,
    asks: bool,
    carrier: Carrier,
) {
    let _ = client.set_nodelay(true);
    let is_barred = asks && !matches!(whose(from, here).await, Ok(Peer::Ours));
    carrier.carry(client, is_barred).await;
}
