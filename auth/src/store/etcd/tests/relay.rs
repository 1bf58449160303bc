//! A network between client and etcd that loses what it is told to lose.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
};

use http::Uri;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinSet,
};

/// What happens to the connections that there are.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(super) enum Loses {
    Nothing,
    Requests,
    Answers,
}

type Mode = Arc<AtomicU8>;

/// Between clients and one server.
pub(super) struct Relay {
    address: SocketAddr,
    modes: Arc<Mutex<Vec<Mode>>>,
    _running: JoinSet<()>,
}

impl Relay {
    pub(super) async fn start(server: &Uri) -> Self {
        let target = format!("{}:{}", server.host().unwrap(), server.port_u16().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let modes: Arc<Mutex<Vec<Mode>>> = Arc::default();
        let mut running = JoinSet::new();
        let known = modes.clone();
        running.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let mode = Mode::new(AtomicU8::new(Loses::Nothing as u8));
                known.lock().unwrap().push(mode.clone());
                let Ok(server) = TcpStream::connect(&target).await else {
                    continue;
                };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                connections.spawn(copy(from_client, to_server, mode.clone(), Loses::Requests));
                connections.spawn(copy(from_server, to_client, mode, Loses::Answers));
            }
        });
        Self {
            address,
            modes,
            _running: running,
        }
    }

    pub(super) fn endpoint(&self) -> Uri {
        format!("http://{}", self.address).parse().unwrap()
    }

    /// From now on, on the connections that there are; new ones lose nothing.
    pub(super) fn lose(&self, what: Loses) {
        for mode in self.modes.lock().unwrap().iter() {
            mode.store(what as u8, Ordering::SeqCst);
        }
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mode: Mode, losing: Loses) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let is_lost = mode.load(Ordering::SeqCst) == losing as u8;
        if !is_lost && to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
