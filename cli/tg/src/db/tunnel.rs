//! A door to one database on this machine, for clients that cannot show a certificate themselves.
//!
//! It is a socket file in a folder that only this user may enter, never a port: on a port every user of the machine could
//! walk in. Each connection to it becomes a TLS connection of its own to the agent, by way of the proxy.
//!
//! Invariant: nothing is sent before the agent's certificate was verified for the database's host name.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tidegate_console::{Failure, client::tls_unusable, profile};
use tidegate_identity::{
    ALPN_MYSQL, KeyPair, secret,
    tls::{self, ClientTls, Roots},
};
use tidegate_wire::{SqlState, mysql::reply};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpStream, UnixListener, UnixStream},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{certificate::Certificate, target::Target};

/// How long one address of the proxy may take to connect to.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long TLS with the agent may take; the proxy may ask several agents meanwhile.
const TLS_TIMEOUT: Duration = Duration::from_secs(30);

/// The most of a socket's path that systems take (`sun_path` of macOS, with a NUL; Linux has 108).
const SOCKET_PATH_BYTES_MAX: usize = 103;

/// A folder of ours with the socket in it; both go with this value.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    /// Makes a folder that only this user may enter, where systems put such things.
    fn create() -> Result<Self, Failure> {
        let name = secret::random_bytes::<8>().map_err(tls_unusable)?;
        let name = format!("tg-{}", secret::hex(&name));
        let parents = [
            std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from),
            Some(std::env::temp_dir()),
            Some(PathBuf::from("/tmp")),
        ];
        let mut last = None;
        for parent in parents.into_iter().flatten() {
            let folder = parent.join(&name);
            if socket_file(&folder).as_os_str().len() > SOCKET_PATH_BYTES_MAX {
                continue;
            }
            match fs::DirBuilder::new().mode(0o700).create(&folder) {
                Ok(()) => return Ok(Self(folder)),
                Err(error) => last = Some((folder, error)),
            }
        }
        Err(match last {
            Some((folder, error)) => Failure::new(format!(
                "cannot make a folder for a socket, {}: {error}",
                folder.display()
            )),
            None => {
                Failure::new("there is no folder with a path that is short enough for a socket")
            }
        })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left of it holds nothing: a socket without a listener.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn socket_file(folder: &Path) -> PathBuf {
    folder.join("s")
}

/// A door that is open as long as this value lives.
#[derive(Debug)]
pub(super) struct Tunnel {
    socket: PathBuf,
    accepting: tokio::task::JoinHandle<()>,
    _folder: Folder,
}

impl Tunnel {
    /// Opens a door to the database that the certificate is for.
    pub(super) fn open(target: &Target, certificate: &Certificate) -> Result<Self, Failure> {
        let way = Arc::new(Way::new(target, certificate)?);
        let folder = Folder::create()?;
        let socket = socket_file(&folder.0);
        let listener = UnixListener::bind(&socket).map_err(|error| {
            Failure::new(format!("cannot listen on {}: {error}", socket.display()))
        })?;
        Ok(Self {
            socket,
            accepting: tokio::spawn(accept(listener, way)),
            _folder: folder,
        })
    }

    /// Where clients connect to.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// How a connection gets to the agent.
struct Way {
    addresses: Vec<IpAddr>,
    port: u16,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
}

impl Way {
    fn new(target: &Target, certificate: &Certificate) -> Result<Self, Failure> {
        let read = |path: &Path| {
            profile::read_private(path)?
                .ok_or_else(|| Failure::new(format!("{} is not there any more", path.display())))
        };
        let chain = read(&certificate.chain_file)?;
        let key = KeyPair::from_pem(&read(&certificate.key_file)?).map_err(tls_unusable)?;
        let roots = read(Path::new(target.ca_file()))?;
        let config = tls::client_config(ClientTls {
            roots: Roots::Pem(&roots),
            identity: Some((&chain, &key)),
            alpn: &[ALPN_MYSQL],
        })
        .map_err(tls_unusable)?;
        let name = ServerName::try_from(target.host().to_owned())
            .map_err(|_| Failure::new(format!("{} is no host name", target.host())))?;
        Ok(Self {
            addresses: target.addresses().to_vec(),
            port: target.port(),
            name,
            config,
        })
    }

    /// The first address that answers is the one.
    async fn connect(&self) -> io::Result<TlsStream<TcpStream>> {
        let mut last = io::ErrorKind::AddrNotAvailable.into();
        for address in &self.addresses {
            let connecting = TcpStream::connect(SocketAddr::new(*address, self.port));
            let stream = match timeout(CONNECT_TIMEOUT, connecting).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    last = error;
                    continue;
                }
                Err(_) => {
                    last = io::ErrorKind::TimedOut.into();
                    continue;
                }
            };
            stream.set_nodelay(true)?;
            let securing =
                TlsConnector::from(Arc::clone(&self.config)).connect(self.name.clone(), stream);
            return timeout(TLS_TIMEOUT, securing)
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        }
        Err(last)
    }
}

async fn accept(listener: UnixListener, way: Arc<Way>) {
    // Who connects is this user's own client, and that ends with us.
    while let Ok((client, _)) = listener.accept().await {
        let way = Arc::clone(&way);
        tokio::spawn(async move { carry(client, &way).await });
    }
}

/// One connection, to its end. Where there is no way, the client is told so in MySQL's words.
async fn carry(mut client: UnixStream, way: &Way) {
    match way.connect().await {
        Ok(mut agent) => {
            // However it ends, it is over for both sides, and they know why.
            let _ = tokio::io::copy_bidirectional(&mut client, &mut agent).await;
        }
        Err(error) => {
            let words = format!(
                "cannot reach the database through the proxy: {error}; \"tg db ls\" shows whether an agent serves it now"
            );
            let words = reply::error_like(0, SqlState::CONNECTION_FAILURE, &words);
            let told = async {
                client.write_all(&words).await?;
                client.shutdown().await
            };
            let _ = told.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_folder_is_this_users_alone_and_goes_with_its_value() {
        let folder = Folder::create().unwrap();
        let path = folder.0.clone();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        fs::write(socket_file(&path), b"").unwrap();
        drop(folder);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_client_for_whom_there_is_no_way_is_told_so() {
        use tidegate_wire::mysql::reply::ServerError;
        use tokio::io::AsyncReadExt;

        let config = tls::client_config(ClientTls {
            roots: Roots::Unverified,
            identity: None,
            alpn: &[ALPN_MYSQL],
        });
        let way = Way {
            addresses: Vec::new(),
            port: 1,
            name: ServerName::try_from("orders.db.example.com").unwrap(),
            config: config.unwrap(),
        };
        let (mut client, ours) = UnixStream::pair().unwrap();
        carry(ours, &way).await;
        let mut words = Vec::new();
        client.read_to_end(&mut words).await.unwrap();
        let error = ServerError::parse(&words[4..]).unwrap();
        assert!(
            error.message.contains("through the proxy"),
            "{}",
            error.message
        );
    }
}
