//! The far side of many databases: a process that listens on an address for each, speaks TLS as PostgreSQL does, lets
//! everybody in, and then only holds the session. Agents check their health there.

use std::{net::Ipv4Addr, process::Stdio, sync::Arc};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use rustls::ServerConfig;
use serde::{Deserialize, Serialize};
use tidegate_identity::{
    CaKind, CertificateAuthority, HOST_CERT_TTL, KeyPair,
    tls::{self, ClientAuth, ServerTls},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
};
use tokio_rustls::TlsAcceptor;

/// The first two numbers of its addresses.
const NETWORK: [u8; 2] = [127, 99];
/// Addresses of one third number.
const PER_NETWORK: usize = 250;
/// The name in the certificate that all of them show.
const SERVER_NAME: &str = "far.db.far.example.com";
const CLUSTER: &str = "far.example.com";
/// PostgreSQL's `SSLRequest` (manual, section 54.7), and the answer to it.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
const TLS_ACCEPTED: &[u8] = b"S";
/// `AuthenticationOk` and `ReadyForQuery` (section 54.7).
const WELCOME: &[u8] = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";

/// What it says once it listens.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Listening {
    /// `host:port` of each.
    pub(crate) addresses: Vec<String>,
    pub(crate) ca_pem: String,
    pub(crate) server_name: String,
}

/// The process.
pub(crate) struct Far {
    _child: Child,
    pub(crate) listening: Listening,
}

impl Far {
    /// Starts it; it ends when this is dropped.
    pub(crate) async fn start(databases: usize) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["far", "--served", &databases.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let output = child.stdout.take().context("the far side has no output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).await?;
        let listening: Listening =
            serde_json::from_str(&line).context("the far side does not listen")?;
        ensure!(listening.addresses.len() == databases);
        Ok(Self {
            _child: child,
            listening,
        })
    }
}

/// Listens until it is killed.
pub(crate) async fn run(databases: usize) -> Result<()> {
    let cluster = CLUSTER.parse()?;
    let now = Timestamp::now();
    let ca = CertificateAuthority::create(CaKind::Db, &cluster, now)?;
    let key = KeyPair::generate()?;
    let issued = ca.issue_database_server(&key.public_key_der(), &cluster, now, HOST_CERT_TTL)?;
    let config = tls::server_config(ServerTls {
        chain_pem: &issued.chain_pem,
        key: &key,
        clients: ClientAuth::None,
        alpn: &[],
    })?;
    let mut addresses = Vec::with_capacity(databases);
    for number in 0..databases {
        let third = u8::try_from(number / PER_NETWORK)?;
        let fourth = u8::try_from(number % PER_NETWORK + 1)?;
        let address = Ipv4Addr::new(NETWORK[0], NETWORK[1], third, fourth);
        let listener = TcpListener::bind((address, 0)).await?;
        addresses.push(listener.local_addr()?.to_string());
        tokio::spawn(accept(listener, Arc::clone(&config)));
    }
    let listening = Listening {
        addresses,
        ca_pem: ca.cert_pem().to_owned(),
        server_name: SERVER_NAME.to_owned(),
    };
    println!("{}", serde_json::to_string(&listening)?);
    std::future::pending().await
}

async fn accept(listener: TcpListener, config: Arc<ServerConfig>) {
    while let Ok((stream, _)) = listener.accept().await {
        let config = Arc::clone(&config);
        // A connection that breaks is the agent's to notice.
        tokio::spawn(async move { serve(stream, config).await.ok() });
    }
}

async fn serve(mut stream: TcpStream, config: Arc<ServerConfig>) -> Result<()> {
    let mut request = [0; SSL_REQUEST.len()];
    stream.read_exact(&mut request).await?;
    ensure!(request == SSL_REQUEST);
    stream.write_all(TLS_ACCEPTED).await?;
    // Large, and not needed for as long as the session.
    let mut client = Box::pin(TlsAcceptor::from(config).accept(stream)).await?;
    let mut length = [0; 4];
    // Who checks health goes now; who wants a session sends a start-up message, whose length counts itself.
    if client.read_exact(&mut length).await.is_ok() {
        let rest = u32::from_be_bytes(length).saturating_sub(4).into();
        tokio::io::copy(&mut (&mut client).take(rest), &mut tokio::io::sink()).await?;
        client.write_all(WELCOME).await?;
        while client.read(&mut [0; 64]).await? > 0 {}
    }
    Ok(())
}
