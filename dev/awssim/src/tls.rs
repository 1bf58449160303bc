//! The simulation's own certificate authority.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

/// How long the CA and its certificates are good, in days, by the system's clock.
const VALID_DAYS: i64 = 3_650;
/// Days that a certificate can be ordered for at most, either way.
pub(crate) const DAYS_MAX: i64 = 10_000;

/// Why no certificate could be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The certificate could not be built or signed.
    #[error("could not make a certificate for {name}")]
    Certificate {
        /// Host name, or what the CA is called.
        name: String,
        /// What the certificate library says.
        source: rcgen::Error,
    },
    /// The TLS library does not take the certificate.
    #[error("could not set up TLS for {name}")]
    Config {
        /// Host name.
        name: String,
        /// What the TLS library says.
        source: rustls::Error,
    },
}

/// What is wrong with a certificate that an endpoint shows; by default nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Certificate {
    /// Days until it expires, by the system's clock; 0 and less: it has expired.
    pub days: i64,
    /// The host that it names instead of the endpoint's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Signed by the other CA of the published bundles, as after AWS has rotated a certificate.
    pub other_ca: bool,
    /// Signed by a CA that nobody knows.
    pub unknown_ca: bool,
}

impl Default for Certificate {
    fn default() -> Self {
        Self {
            days: VALID_DAYS,
            host: None,
            other_ca: false,
            unknown_ca: false,
        }
    }
}

impl Certificate {
    /// Good, with so many days left.
    pub fn with_days(days: i64) -> Self {
        Self {
            days,
            ..Self::default()
        }
    }
}

/// Signs the certificates of endpoints. Its keys live as long as the simulation.
pub(crate) struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// What it is rotated to.
    other: CertifiedIssuer<'static, KeyPair>,
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ca")
    }
}

/// A certificate and its key, both PEM.
pub(crate) struct Leaf {
    pub(crate) cert_pem: String,
    pub(crate) key_pem: String,
    cert: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Ca {
    pub(crate) fn new() -> Result<Self, TlsError> {
        Self::named("awssim root CA")
    }

    fn named(name: &str) -> Result<Self, TlsError> {
        let make = |name: &str| {
            let mut params = params(Vec::new(), name)?;
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            CertifiedIssuer::self_signed(params, KeyPair::generate()?)
        };
        let made = |name: &str| make(name).map_err(|source| certificate_error(name, source));
        Ok(Self {
            issuer: made(name)?,
            other: made(&format!("{name} 2"))?,
        })
    }

    /// Both certificates, as bundles hold several.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem() + &self.other.pem()
    }

    /// A server certificate for exactly these host names, the first of them the endpoint's own.
    pub(crate) fn leaf(&self, hosts: &[&str], with: &Certificate) -> Result<Leaf, TlsError> {
        if with.unknown_ca {
            let known = Certificate {
                unknown_ca: false,
                ..with.clone()
            };
            return Self::named("awssim unknown CA")?.leaf(hosts, &known);
        }
        let make = || {
            let other = with.host.as_ref().map(|other| vec![other.clone()]);
            let own = || hosts.iter().map(|host| (*host).to_owned()).collect();
            // The common name holds 64 characters; the host names are in the SAN.
            let mut params = params(other.unwrap_or_else(own), "awssim cluster")?;
            params.not_after = OffsetDateTime::now_utc() + Duration::days(with.days);
            let begins = params.not_after - Duration::days(VALID_DAYS);
            params.not_before = params.not_before.min(begins);
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            let key = KeyPair::generate()?;
            let issuer = if with.other_ca {
                &self.other
            } else {
                &self.issuer
            };
            let cert = params.signed_by(&key, issuer)?;
            let der = PrivatePkcs8KeyDer::from(key.serialize_der());
            Ok(Leaf {
                cert_pem: cert.pem(),
                key_pem: key.serialize_pem(),
                cert: cert.der().clone(),
                key: PrivateKeyDer::Pkcs8(der),
            })
        };
        make().map_err(|source| certificate_error(hosts.first().unwrap_or(&""), source))
    }
}

impl Leaf {
    /// A server configuration that shows this certificate and asks for none.
    pub(crate) fn server_config(self, host: &str) -> Result<Arc<ServerConfig>, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map(|builder| builder.with_no_client_auth())
            .and_then(|builder| builder.with_single_cert(vec![self.cert], self.key))
            .map_err(|source| TlsError::Config {
                name: host.to_owned(),
                source,
            })?;
        Ok(Arc::new(config))
    }
}

fn params(names: Vec<String>, common_name: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::days(1);
    params.not_after = now + Duration::days(VALID_DAYS);
    Ok(params)
}

fn certificate_error(name: &str, source: rcgen::Error) -> TlsError {
    TlsError::Certificate {
        name: name.to_owned(),
        source,
    }
}
