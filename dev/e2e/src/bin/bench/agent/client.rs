//! A PostgreSQL client that connects, sends `SELECT 1`, and goes, as libpq would over TLS. One implementation for both
//! ways, so that what is compared is the way.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use bytes::BytesMut;
use postgres_protocol::{
    authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256},
    message::{backend::Message, frontend},
};
use rustls::{ClientConfig, pki_types::ServerName};
use tidegate_e2e::{lab::CLUSTER, wait};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// What is read at once: a record of TLS.
const READ_BYTES: usize = 16 * 1024;

/// A way to a database.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Arc<ClientConfig>,
    /// The name that is asked for, and that the certificate has to carry.
    pub(crate) host: String,
    pub(crate) user: String,
    pub(crate) password: Option<String>,
}

/// The logical database.
const DATABASE: &str = "dev";

/// The name under which a proxy knows a database.
pub(crate) fn host(database: &str) -> String {
    format!("{database}.db.{CLUSTER}")
}

impl Way {
    /// The same way to another database of the cluster.
    pub(crate) fn to_database(&self, name: &str) -> Self {
        Self {
            host: host(name),
            ..self.clone()
        }
    }

    /// The same way as another user.
    pub(crate) fn as_user(&self, user: &str) -> Self {
        Self {
            user: user.to_owned(),
            ..self.clone()
        }
    }

    /// Connects, sends `SELECT 1`, reads the answer, and says goodbye.
    ///
    /// # Errors
    ///
    /// With what the server said, when it refuses.
    pub(crate) async fn select_one(&self) -> Result<()> {
        let mut connection = self.connect().await?;
        let mut out = BytesMut::new();
        frontend::query("SELECT 1", &mut out)?;
        connection.say(&out).await?;
        let mut rows = 0;
        loop {
            match connection.next().await? {
                Message::DataRow(_) => rows += 1,
                Message::ReadyForQuery(_) => break,
                _ => {}
            }
        }
        ensure!(rows == 1, "{rows} rows");
        let mut out = BytesMut::new();
        frontend::terminate(&mut out);
        connection.say(&out).await?;
        connection.stream.shutdown().await.ok(); // the server may be gone first
        Ok(())
    }

    /// Waits for a session, for the proxy may hear of a database a little later than others do.
    ///
    /// # Errors
    ///
    /// With the last error, after that long.
    pub(crate) async fn soon(&self, patience: Duration) -> Result<()> {
        wait::until_within(patience, "a session", || async {
            self.connect().await.map_err(|error| format!("{error:#}"))
        })
        .await?;
        Ok(())
    }

    /// Connects and logs in.
    ///
    /// # Errors
    ///
    /// With what the server said, when it refuses.
    pub(crate) async fn connect(&self) -> Result<Connection> {
        let mut stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let mut out = BytesMut::new();
        frontend::ssl_request(&mut out);
        stream.write_all(&out).await?;
        ensure!(stream.read_u8().await? == b'S', "no TLS");
        let name = ServerName::try_from(self.host.clone())?;
        let stream = TlsConnector::from(Arc::clone(&self.tls))
            .connect(name, stream)
            .await?;
        let mut connection = Connection {
            stream,
            read: BytesMut::new(),
        };
        self.log_in(&mut connection).await?;
        Ok(connection)
    }

    async fn log_in(&self, connection: &mut Connection) -> Result<()> {
        let mut out = BytesMut::new();
        let parameters = [("user", self.user.as_str()), ("database", DATABASE)];
        frontend::startup_message(parameters, &mut out)?;
        connection.say(&out).await?;
        let mut scram: Option<ScramSha256> = None;
        loop {
            let mut out = BytesMut::new();
            match connection.next().await? {
                Message::AuthenticationSasl(_) => {
                    let password = self.password.as_ref().context("a password is asked for")?;
                    let begun =
                        ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
                    frontend::sasl_initial_response(SCRAM_SHA_256, begun.message(), &mut out)?;
                    scram = Some(begun);
                }
                Message::AuthenticationSaslContinue(body) => {
                    let scram = scram.as_mut().context("SASL goes on before it began")?;
                    scram.update(body.data())?;
                    frontend::sasl_response(scram.message(), &mut out)?;
                }
                Message::AuthenticationSaslFinal(body) => {
                    let scram = scram.as_mut().context("SASL ends before it began")?;
                    scram.finish(body.data())?;
                }
                Message::ReadyForQuery(_) => return Ok(()),
                _ => {}
            }
            connection.say(&out).await?;
        }
    }
}

/// A session that is logged in.
pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    read: BytesMut,
}

impl Connection {
    /// Runs a `COPY … TO STDOUT` to its end; the bytes of its data. Before each read `pause` is told how many there were
    /// so far, and waited for.
    ///
    /// # Errors
    ///
    /// With what the server said, when it refuses.
    pub(crate) async fn copied<P: Future<Output = ()>>(
        &mut self,
        copy: &str,
        pause: impl Fn(u64) -> P,
    ) -> Result<u64> {
        let mut out = BytesMut::new();
        frontend::query(copy, &mut out)?;
        self.say(&out).await?;
        let mut bytes = 0;
        loop {
            match self.taken()? {
                Some(Message::CopyData(data)) => bytes += data.data().len() as u64,
                Some(Message::ReadyForQuery(_)) => return Ok(bytes),
                Some(_) => {}
                None => {
                    pause(bytes).await;
                    self.fill().await?;
                }
            }
        }
    }

    /// Sends it to the last byte: TLS keeps what the socket, or the runtime's budget for one task, does not take at once.
    async fn say(&mut self, out: &[u8]) -> Result<()> {
        self.stream.write_all(out).await?;
        Ok(self.stream.flush().await?)
    }

    async fn next(&mut self) -> Result<Message> {
        loop {
            match self.taken()? {
                Some(message) => return Ok(message),
                None => self.fill().await?,
            }
        }
    }

    /// The next message of those that were read.
    fn taken(&mut self) -> Result<Option<Message>> {
        // The fields of an error, each behind one byte of its kind and ended by a zero.
        let text = self
            .read
            .starts_with(b"E")
            .then(|| String::from_utf8_lossy(&self.read).replace('\0', " "));
        match Message::parse(&mut self.read)? {
            Some(Message::ErrorResponse(_)) => bail!("{}", text.unwrap_or_default()),
            message => Ok(message),
        }
    }

    async fn fill(&mut self) -> Result<()> {
        self.read.reserve(READ_BYTES);
        let read = self.stream.read_buf(&mut self.read).await?;
        ensure!(read > 0, "the server closed the connection");
        Ok(())
    }
}
