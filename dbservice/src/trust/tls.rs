//! TLS configurations towards databases, each made once for a way in which certificates are verified.
//!
//! `verify-full` checks chain and name, `verify-ca` the chain alone, `insecure` neither. What is trusted for a database
//! is all that is, unless the system's CAs are wanted beside it.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        Resumption, Tls12Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tidegate_core::{Database, TlsMode};
use tidegate_identity::{IdentityError, tls};
use tidegate_service::{clock::SharedClock, settings::DatabaseSettings};
use tokio::sync::{OnceCell, watch};

use super::{
    anchors,
    bundles::{Anchors, Bundles, Provenance},
    exchange::LastExchange,
    source::TrustSource,
};

/// TLS configurations that are kept; one for each way in which databases are verified.
const CONFIGS_MAX: usize = 1024;

/// What a TLS configuration depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ConfigKey {
    mode: TlsMode,
    source: TrustSource,
    and_system: bool,
}

/// How one database's certificate is verified.
#[derive(Clone)]
pub(crate) struct Trusted {
    /// For the handshake.
    pub(crate) config: Arc<ClientConfig>,
    pub(super) source: TrustSource,
    /// Whether the system's CAs are wanted beside it.
    pub(super) and_system: bool,
    /// Of the bundle, where one is part of it.
    pub(super) bundle: Option<(Provenance, u64)>,
}

impl std::fmt::Debug for Trusted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Trusted").field(&self.told()).finish()
    }
}

/// Whom this agent believes that a database is.
#[derive(Debug)]
pub(crate) struct Trust {
    bundles: Arc<Bundles>,
    system_roots: OnceCell<Arc<RootCertStore>>,
    configs: Mutex<HashMap<ConfigKey, (u64, Trusted)>>,
}

impl Trust {
    /// Keeps bundles in `folder`; fetches them from AWS, or from where the settings say at that time.
    pub(crate) fn new(
        folder: PathBuf,
        settings: watch::Receiver<DatabaseSettings>,
        clock: SharedClock,
    ) -> Self {
        Self {
            bundles: Arc::new(Bundles::new(folder, settings, clock)),
            system_roots: OnceCell::new(),
            configs: Mutex::default(),
        }
    }

    /// The bundles of CA certificates, to be kept fresh.
    pub(crate) fn bundles(&self) -> Arc<Bundles> {
        Arc::clone(&self.bundles)
    }

    /// How a database's certificate is verified. Where a bundle is needed and none is at hand this waits for its
    /// download, a few seconds at most; without it the system's roots are trusted, and [`super::handshake_problem`]
    /// says so.
    ///
    /// # Errors
    ///
    /// When certificates cannot be read: those of the settings, or the system's.
    pub(crate) async fn of(&self, database: &Database) -> Result<Trusted, IdentityError> {
        let key = ConfigKey {
            mode: database.tls.mode,
            source: TrustSource::of(database),
            and_system: database.tls.trust_system_pool,
        };
        let anchors = match key.source.bundle() {
            Some(name) => Some(self.bundles.get(name).await),
            None => None,
        };
        let generation = anchors.as_ref().map_or(0, |anchors| anchors.generation);
        if let Some((made_of, trusted)) = self.configs().get(&key)
            && *made_of == generation
        {
            return Ok(trusted.clone());
        }
        let mut roots = self.roots(&key.source, anchors.as_ref()).await?;
        if let Some(roots) = roots.as_mut().filter(|_| key.and_system) {
            let system = self.system_roots().await?;
            Arc::make_mut(roots).extend(system.roots.iter().cloned());
        }
        let trusted = Trusted {
            config: Arc::new(build_config(key.mode, roots)?),
            source: key.source.clone(),
            and_system: key.and_system,
            bundle: anchors.map(|anchors| (anchors.provenance, anchors.generation)),
        };
        let mut configs = self.configs();
        if configs.len() >= CONFIGS_MAX && !configs.contains_key(&key) {
            configs.clear();
        }
        configs.insert(key, (generation, trusted.clone()));
        Ok(trusted)
    }

    /// A handshake failed because nobody trusted signed the certificate: whether its bundle, which is asked for at
    /// once, has changed since, so that another try makes sense.
    pub(crate) async fn changed_since(&self, trusted: &Trusted) -> bool {
        match (trusted.source.bundle(), trusted.bundle) {
            (Some(name), Some((_, generation))) => self.bundles.newer_than(name, generation).await,
            _ => false,
        }
    }

    /// The roots of a source; `None` when anything is trusted.
    async fn roots(
        &self,
        source: &TrustSource,
        bundle: Option<&Anchors>,
    ) -> Result<Option<Arc<RootCertStore>>, IdentityError> {
        let bundle = bundle
            .map(|bundle| &bundle.certificates[..])
            .unwrap_or_default();
        let roots = match source {
            TrustSource::Nobody => return Ok(None),
            TrustSource::Given(pem) => Arc::new(tls::root_store(pem)?),
            TrustSource::Amazon(_) => {
                let mut roots = RootCertStore::clone(&*self.system_roots().await?);
                roots.add_parsable_certificates(anchors::amazon_trust());
                roots.add_parsable_certificates(bundle.iter().cloned());
                Arc::new(roots)
            }
            TrustSource::Rds(_) if !bundle.is_empty() => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(bundle.iter().cloned());
                Arc::new(roots)
            }
            TrustSource::Rds(_) | TrustSource::System => self.system_roots().await?,
        };
        Ok(Some(roots))
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

    fn configs(&self) -> MutexGuard<'_, HashMap<ConfigKey, (u64, Trusted)>> {
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

/// PostgreSQL gives no tickets. All that is remembered of a handshake is its key exchange.
fn without_resumption(mut config: ClientConfig) -> ClientConfig {
    config.resumption = Resumption::store(Arc::new(LastExchange::default()))
        .tls12_resumption(Tls12Resumption::Disabled);
    config
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
