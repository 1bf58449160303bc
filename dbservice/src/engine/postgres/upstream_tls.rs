//! How a database's certificate is verified, and what it means when it cannot be.
//!
//! `verify-full` checks chain and name, `verify-ca` the chain alone, `insecure` neither. CAs given for a database are
//! the only ones trusted for it unless the system's are wanted beside them; without any the system's are.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tidegate_core::{Database, ErrorCode, Problem, TlsMode, TlsSettings};
use tidegate_identity::{IdentityError, tls};
use tokio::sync::OnceCell;

/// TLS configurations that are kept; one for each way in which databases are verified.
const CONFIGS_MAX: usize = 1024;

/// What a TLS configuration depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ConfigKey {
    mode: TlsMode,
    ca_cert_pem: Option<String>,
    trust_system_pool: bool,
}

/// TLS configurations towards databases, each made once.
#[derive(Default)]
pub(crate) struct TlsConfigs {
    system_roots: OnceCell<Arc<RootCertStore>>,
    configs: Mutex<HashMap<ConfigKey, Arc<ClientConfig>>>,
}

impl TlsConfigs {
    /// The configuration for these settings.
    ///
    /// # Errors
    ///
    /// When certificates cannot be read: those of the settings, or the system's.
    pub(crate) async fn get(
        &self,
        settings: &TlsSettings,
    ) -> Result<Arc<ClientConfig>, IdentityError> {
        let key = ConfigKey {
            mode: settings.mode,
            ca_cert_pem: settings.ca_cert_pem.clone(),
            trust_system_pool: settings.trust_system_pool,
        };
        if let Some(config) = self.configs().get(&key) {
            return Ok(Arc::clone(config));
        }
        let roots = match (settings.mode, &settings.ca_cert_pem) {
            (TlsMode::Insecure, _) => None,
            (_, Some(pem)) => {
                let mut roots = tls::root_store(pem)?;
                if settings.trust_system_pool {
                    roots.extend(self.system_roots().await?.roots.iter().cloned());
                }
                Some(Arc::new(roots))
            }
            (_, None) => Some(self.system_roots().await?),
        };
        let config = Arc::new(build_config(settings.mode, roots)?);
        let mut configs = self.configs();
        if configs.len() >= CONFIGS_MAX {
            configs.clear();
        }
        configs.insert(key, Arc::clone(&config));
        Ok(config)
    }

    /// Read once, off the runtime's threads: there may be hundreds of files.
    async fn system_roots(&self) -> Result<Arc<RootCertStore>, IdentityError> {
        let roots = self
            .system_roots
            .get_or_try_init(|| async {
                tokio::task::spawn_blocking(tls::system_roots)
                    .await
                    .map_err(|error| IdentityError::SystemRoots(error.to_string()))?
                    .map(Arc::new)
            })
            .await?;
        Ok(Arc::clone(roots))
    }

    fn configs(&self) -> MutexGuard<'_, HashMap<ConfigKey, Arc<ClientConfig>>> {
        // Entries are whole values: a panic elsewhere leaves none half-made.
        self.configs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn build_config(
    mode: TlsMode,
    roots: Option<Arc<RootCertStore>>,
) -> Result<ClientConfig, IdentityError> {
    let Some(roots) = roots else {
        let config = tls::client_config(tls::ClientTls {
            roots: tls::Roots::Unverified,
            identity: None,
            alpn: &[],
        })?;
        return Ok(without_resumption(ClientConfig::clone(&config)));
    };
    let builder = ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()?;
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, tls::provider())
        .build()
        .map_err(|error| IdentityError::Malformed(error.to_string()))?;
    let config = match mode {
        TlsMode::VerifyCa => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyName(verifier)))
            .with_no_client_auth(),
        TlsMode::VerifyFull | TlsMode::Insecure => {
            builder.with_webpki_verifier(verifier).with_no_client_auth()
        }
    };
    Ok(without_resumption(config))
}

/// PostgreSQL gives no tickets.
fn without_resumption(mut config: ClientConfig) -> ClientConfig {
    config.resumption = Resumption::disabled();
    config
}

/// What a failed handshake means, and who has to act.
pub(crate) fn handshake_problem(database: &Database, error: &io::Error) -> Problem {
    let broken = Problem::new(
        ErrorCode::DatabaseUnreachable,
        format!("the connection to database `{}` broke", database.name),
    )
    .because(format_args!("{}: {error}", database.uri));
    let Some(tls) = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>())
    else {
        return broken;
    };
    let hint = match tls {
        Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => {
            "an operator has to give the database service the CA of the database (`tls.ca_cert_file`)"
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => {
            "an operator has to set `tls.server_name` to the name that the database's certificate carries"
        }
        Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => "an operator has to renew the database's certificate",
        _ => "an operator finds the cause in the log of the database service",
    };
    Problem::new(
        ErrorCode::DatabaseTls,
        format!("no trusted TLS connection to database `{}`", database.name),
    )
    .because(format_args!("{}: {tls}", database.uri))
    .hint(hint)
}

/// Verifies the chain, and lets any name pass.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // The verifier looks at the chain first and at the name last, so a wrong name means a good chain.
        match self
            .0
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
