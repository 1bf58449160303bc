//! A client that shows its cancel key: what stock clients keep to themselves.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context, Result, bail, ensure};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tidegate_e2e::wait;
use tidegate_wire::{
    backend::{BackendKeyData, ErrorResponse},
    frontend,
    startup::{CancelRequest, ProtocolVersion, SSL_REQUEST, StartupMessage},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

type Environment = BTreeMap<String, String>;

/// A session of a person whom `environment` describes to libpq.
pub(super) struct Session {
    stream: TlsStream<TcpStream>,
    key: BackendKeyData,
}

impl Session {
    /// Opens one through this proxy.
    pub(super) async fn open(environment: &Environment, proxy: &str) -> Result<Self> {
        let mut stream = tls(environment, proxy).await?;
        let get = |name: &str| environment.get(name).with_context(|| format!("no {name}"));
        let startup = StartupMessage::new(ProtocolVersion::V3_0)
            .with_param("user", get("PGUSER")?)
            .with_param("database", get("PGDATABASE")?);
        stream.write_all(&startup.encode()).await?;
        let mut key = None;
        loop {
            match message(&mut stream).await? {
                (b'K', body) => key = Some(BackendKeyData::parse(&body)?),
                (b'Z', _) => break,
                (b'E', body) => bail!("{}", ErrorResponse::parse(&body).message),
                _ => {}
            }
        }
        let key = key.context("no cancel key was told")?;
        Ok(Self { stream, key })
    }

    /// Asks, and does not wait for the answer.
    pub(super) async fn ask(&mut self, statement: &str) -> Result<()> {
        self.stream.write_all(&frontend::query(statement)).await?;
        self.stream.flush().await?;
        // A cancel request for a statement that has not begun would be for nobody.
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        Ok(())
    }

    fn request(&self) -> Vec<u8> {
        let request = CancelRequest {
            process_id: self.key.process_id,
            secret: self.key.secret.clone(),
        };
        request.encode().to_vec()
    }

    /// Sends the cancel request in the clear, to this proxy.
    pub(super) async fn cancel_through(&self, proxy: &str) -> Result<()> {
        let mut stream = TcpStream::connect(proxy).await?;
        stream.write_all(&self.request()).await?;
        Ok(())
    }

    /// Sends it inside TLS, as libpq does from version 17 on: the proxy cannot see for whom it is.
    pub(super) async fn cancel_inside_tls(
        &self,
        environment: &Environment,
        proxy: &str,
    ) -> Result<()> {
        let mut stream = tls(environment, proxy).await?;
        stream.write_all(&self.request()).await?;
        stream.flush().await?;
        let _ = stream.read(&mut [0]).await; // closed either way
        Ok(())
    }

    /// The SQLSTATE that the statement fails with; the session goes on.
    pub(super) async fn failed_with(&mut self) -> Result<String> {
        let mut state = None;
        loop {
            match message(&mut self.stream).await? {
                (b'E', body) => state = Some(ErrorResponse::parse(&body).code.as_str().to_owned()),
                (b'Z', _) => return state.context("the statement did not fail"),
                _ => {}
            }
        }
    }

    /// The SQLSTATE that the session ends with.
    pub(super) async fn ended_with(&mut self) -> Result<String> {
        let (tag, body) = message(&mut self.stream).await?;
        ensure!(tag == b'E', "it goes on with {tag}");
        Ok(ErrorResponse::parse(&body).code.as_str().to_owned())
    }
}

async fn message(stream: &mut TlsStream<TcpStream>) -> Result<(u8, Vec<u8>)> {
    let reading = async {
        let tag = stream.read_u8().await?;
        let len = stream.read_u32().await?;
        let mut body = vec![0; usize::try_from(len)? - 4];
        stream.read_exact(&mut body).await?;
        anyhow::Ok((tag, body))
    };
    timeout(wait::PATIENCE, reading).await?
}

async fn tls(environment: &Environment, proxy: &str) -> Result<TlsStream<TcpStream>> {
    let get = |name: &str| environment.get(name).with_context(|| format!("no {name}"));
    let mut roots = RootCertStore::empty();
    for ca in CertificateDer::pem_file_iter(get("PGSSLROOTCERT")?)? {
        roots.add(ca?)?;
    }
    let chain = CertificateDer::pem_file_iter(get("PGSSLCERT")?)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(get("PGSSLKEY")?)?;
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    let mut stream = TcpStream::connect(proxy).await?;
    stream.write_all(&SSL_REQUEST).await?;
    ensure!(stream.read_u8().await? == b'S', "TLS was not granted");
    let name = get("PGHOST")?.split(',').next().context("no host")?;
    let name = ServerName::try_from(name.to_owned())?;
    Ok(TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await?)
}
