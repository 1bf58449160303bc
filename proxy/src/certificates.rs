//! The certificates that the proxy shows, and the TLS configurations made of them.
//!
//! To web clients: the configured certificates, by the name asked for, the first when none fits; without any, the
//! proxy's own certificate of the cluster, which carries its public name. To agents: the cluster's, always, and theirs
//! is asked for. All are made anew when the cluster's certificate was renewed, which also reads the files again.

use std::{path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    client::verify_server_name,
    server::{ClientHello, ParsedCertificate, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tidegate_identity::{
    ALPN_H2, ALPN_HTTP11, ALPN_MYSQL, ALPN_POSTGRES, ALPN_TUNNEL, IdentityError,
    tls::{self, ClientAuth},
};
use tidegate_service::{host::HostHandle, settings::KeyPairFiles, tasks::ShutdownToken, telemetry};
use tracing::{error, info};

/// Why the certificates cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// The cluster's own certificate or its CAs.
    #[error("the proxy's own certificate cannot be used")]
    Identity(#[from] IdentityError),
    /// The key does not belong to the certificate, or is of a kind that TLS has no use for.
    #[error("the key in {} does not fit the certificate in {}", key_file.display(), cert_file.display())]
    Mismatch {
        /// The key's file.
        key_file: PathBuf,
        /// The certificate's file.
        cert_file: PathBuf,
        /// What rustls says.
        source: rustls::Error,
    },
    /// A file that cannot be read, or holds something else.
    #[error("cannot read {}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: rustls_pki_types::pem::Error,
    },
}

/// The TLS configurations in use.
#[derive(Debug)]
pub(crate) struct Certificates {
    files: Vec<KeyPairFiles>,
    current: ArcSwap<Configs>,
}

#[derive(Debug)]
struct Configs {
    databases: Arc<ServerConfig>,
    tunnel: Arc<ServerConfig>,
    web: Arc<ServerConfig>,
}

impl Certificates {
    pub(crate) fn load(
        files: Vec<KeyPairFiles>,
        host: &HostHandle,
    ) -> Result<Self, CertificateError> {
        let current = ArcSwap::from_pointee(configs(&files, host)?);
        Ok(Self { files, current })
    }

    /// For telling clients of databases why they are refused.
    pub(crate) fn databases(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().databases)
    }

    /// For agents' control connections.
    pub(crate) fn tunnel(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().tunnel)
    }

    /// For HTTP.
    pub(crate) fn web(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().web)
    }

    /// Follows renewals of the cluster's certificate until shutdown. What cannot be used is left, and said.
    pub(crate) async fn follow(self: Arc<Self>, host: HostHandle, shutdown: ShutdownToken) {
        let mut renewed = host.renewed();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = renewed.changed() => if changed.is_err() {
                    // The identity is gone, and with it the process; nothing will change any more.
                    return shutdown.cancelled().await;
                },
            }
            match configs(&self.files, &host) {
                Ok(configs) => {
                    self.current.store(Arc::new(configs));
                    info!("took up renewed certificates");
                }
                Err(problem) => error!(
                    error = telemetry::chain(&problem),
                    "kept the old certificates: the new ones cannot be used"
                ),
            }
        }
    }
}

fn configs(files: &[KeyPairFiles], host: &HostHandle) -> Result<Configs, CertificateError> {
    let agents = ClientAuth::Required {
        ca_pem: host.trust().host_ca_pem.clone(),
    };
    let database_alpn: &[&[u8]] = &[ALPN_POSTGRES, ALPN_MYSQL];
    let web_alpn: &[&[u8]] = &[ALPN_H2, ALPN_HTTP11];
    let tunnel = host.server_config(agents, &[ALPN_TUNNEL])?;
    if files.is_empty() {
        return Ok(Configs {
            databases: host.server_config(ClientAuth::None, database_alpn)?,
            tunnel,
            web: host.server_config(ClientAuth::None, web_alpn)?,
        });
    }
    let keys: Result<Vec<_>, _> = files.iter().map(read).collect();
    let chosen = Arc::new(ByName(keys?));
    Ok(Configs {
        databases: configured(&chosen, database_alpn)?,
        tunnel,
        web: configured(&chosen, web_alpn)?,
    })
}

fn configured(chosen: &Arc<ByName>, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, IdentityError> {
    let mut config = ServerConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(chosen) as Arc<dyn ResolvesServerCert>);
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn read(files: &KeyPairFiles) -> Result<Arc<CertifiedKey>, CertificateError> {
    let unreadable = |file: &PathBuf| {
        let file = file.clone();
        move |source| CertificateError::Unreadable { file, source }
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&files.cert_file)
        .map_err(unreadable(&files.cert_file))?
        .collect();
    let chain = chain.map_err(unreadable(&files.cert_file))?;
    let key = PrivateKeyDer::from_pem_file(&files.key_file).map_err(unreadable(&files.key_file))?;
    CertifiedKey::from_der(chain, key, &tls::provider())
        .map(Arc::new)
        .map_err(|source| CertificateError::Mismatch {
            key_file: files.key_file.clone(),
            cert_file: files.cert_file.clone(),
            source,
        })
}

/// Chooses by the name that the client asks for; never empty.
#[derive(Debug)]
struct ByName(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fitting = hello.server_name().and_then(|name| {
            let name = ServerName::try_from(name).ok()?;
            self.0.iter().find(|key| fits(key, &name))
        });
        fitting.or(self.0.first()).cloned()
    }
}

fn fits(key: &CertifiedKey, name: &ServerName<'_>) -> bool {
    key.end_entity_cert()
        .and_then(ParsedCertificate::try_from)
        .is_ok_and(|certificate| verify_server_name(&certificate, name).is_ok())
}
