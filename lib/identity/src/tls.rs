//! TLS configurations, all from one place: rustls on aws-lc-rs, TLS 1.2 and 1.3, ALPN always explicit.
//!
//! No session tickets are sent: PostgreSQL clients never resume, and a fleet would have to share ticket keys.

use std::sync::Arc;

use jiff::Timestamp;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    },
    server::WebPkiClientVerifier,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};

use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{CaPin, IdentityError, KeyPair};

/// The crypto provider of every configuration.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// What a server asks of its clients.
#[derive(Clone, Debug)]
pub enum ClientAuth {
    /// No certificate.
    None,
    /// A certificate of one of these CAs, or none.
    Optional {
        /// The CAs in PEM.
        ca_pem: String,
    },
    /// A certificate of one of these CAs.
    Required {
        /// The CAs in PEM.
        ca_pem: String,
    },
}

/// What a TLS server needs.
#[derive(Debug)]
pub struct ServerTls<'s> {
    /// Its certificate, then the CAs above it, in PEM.
    pub chain_pem: &'s str,
    /// Its key.
    pub key: &'s KeyPair,
    /// What it asks of clients.
    pub clients: ClientAuth,
    /// Protocols it speaks, in order of preference; empty is none announced.
    pub alpn: &'s [&'s [u8]],
}

/// Whom a client trusts.
#[derive(Clone, Copy, Debug)]
pub enum Roots<'r> {
    /// These CAs alone, in PEM.
    Pem(&'r str),
    /// A chain that ends in a CA with one of these pins, which the server sends along.
    Pinned(&'r [CaPin]),
    /// The system's.
    System,
    /// The system's, and these in PEM.
    SystemAnd(&'r str),
    /// Anybody: only to reach what will be verified by other means.
    Unverified,
}

/// What a TLS client needs.
#[derive(Debug)]
pub struct ClientTls<'c> {
    /// Whom it trusts.
    pub roots: Roots<'c>,
    /// Its own certificate chain in PEM and key, if it shows one.
    pub identity: Option<(&'c str, &'c KeyPair)>,
    /// Protocols it offers.
    pub alpn: &'c [&'c [u8]],
}

/// Builds a server's configuration.
///
/// # Errors
///
/// When a PEM text does not hold certificates, or the key does not fit them.
pub fn server_config(tls: ServerTls<'_>) -> Result<Arc<ServerConfig>, IdentityError> {
    let builder =
        ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let verifier = |ca_pem: &str, optional: bool| {
        let builder =
            WebPkiClientVerifier::builder_with_provider(Arc::new(root_store(ca_pem)?), provider());
        let builder = if optional {
            builder.allow_unauthenticated()
        } else {
            builder
        };
        builder
            .build()
            .map_err(|error| IdentityError::Malformed(error.to_string()))
    };
    let builder = match &tls.clients {
        ClientAuth::None => builder.with_no_client_auth(),
        ClientAuth::Optional { ca_pem } => {
            builder.with_client_cert_verifier(verifier(ca_pem, true)?)
        }
        ClientAuth::Required { ca_pem } => {
            builder.with_client_cert_verifier(verifier(ca_pem, false)?)
        }
    };
    let mut config =
        builder.with_single_cert(certificates(tls.chain_pem)?, tls.key.private_key_der())?;
    config.alpn_protocols = tls.alpn.iter().map(|name| name.to_vec()).collect();
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Builds a client's configuration.
///
/// # Errors
///
/// When a PEM text does not hold certificates, the key does not fit them, or the system's roots cannot be read.
pub fn client_config(tls: ClientTls<'_>) -> Result<Arc<ClientConfig>, IdentityError> {
    let builder =
        ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match tls.roots {
        Roots::Pem(pem) => builder.with_root_certificates(root_store(pem)?),
        Roots::System => builder.with_root_certificates(system_roots()?),
        Roots::SystemAnd(pem) => {
            let mut roots = system_roots()?;
            roots.add_parsable_certificates(certificates(pem)?);
            builder.with_root_certificates(roots)
        }
        Roots::Pinned(pins) => {
            let verifier = PinVerifier {
                pins: pins.to_vec(),
                algorithms: provider().signature_verification_algorithms,
            };
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier))
        }
        Roots::Unverified => {
            let verifier = NoVerifier {
                algorithms: provider().signature_verification_algorithms,
            };
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier))
        }
    };
    let mut config = match tls.identity {
        Some((chain_pem, key)) => {
            builder.with_client_auth_cert(certificates(chain_pem)?, key.private_key_der())?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = tls.alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// The first certificate of a PEM text, in DER.
///
/// # Errors
///
/// When there is none.
pub fn first_certificate_der(pem: &str) -> Result<Vec<u8>, IdentityError> {
    certificates(pem)?
        .first()
        .map(|certificate| certificate.to_vec())
        .ok_or(IdentityError::Pem {
            what: "certificate",
        })
}

/// The last instant at which a certificate in DER counts (RFC 5280, section 4.1.2.5).
///
/// # Errors
///
/// When it cannot be read.
pub fn expires_at(certificate: &[u8]) -> Result<Timestamp, IdentityError> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|error| IdentityError::Malformed(error.to_string()))?;
    Timestamp::from_second(parsed.validity().not_after.timestamp())
        .map_err(|error| IdentityError::Malformed(error.to_string()))
}

/// Whether the first certificate of a chain is for a key.
///
/// # Errors
///
/// When there is no certificate in the text.
pub fn certifies(chain_pem: &str, key: &KeyPair) -> Result<bool, IdentityError> {
    let leaf = first_certificate_der(chain_pem)?;
    let (_, parsed) = X509Certificate::from_der(&leaf)
        .map_err(|error| IdentityError::Malformed(error.to_string()))?;
    Ok(parsed.public_key().raw == key.public_key_der())
}

/// All certificates of a PEM text.
///
/// # Errors
///
/// When there is none, or one is cut short.
pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    found
        .ok()
        .filter(|certificates| !certificates.is_empty())
        .ok_or(IdentityError::Pem {
            what: "certificate",
        })
}

/// A store of the CAs in a PEM text.
///
/// # Errors
///
/// When there is none, or one cannot be a root.
pub fn root_store(pem: &str) -> Result<RootCertStore, IdentityError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

/// The system's trusted roots; `SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured. Reads files: build once and keep.
///
/// # Errors
///
/// When none can be read.
pub fn system_roots() -> Result<RootCertStore, IdentityError> {
    let loaded = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(loaded.certs);
    if added == 0 {
        let causes: Vec<String> = loaded.errors.iter().map(ToString::to_string).collect();
        let causes = if causes.is_empty() {
            "there are none".to_owned()
        } else {
            causes.join("; ")
        };
        return Err(IdentityError::SystemRoots(causes));
    }
    Ok(roots)
}

/// Accepts a chain whose last certificate is a pinned CA that really signed the first.
#[derive(Debug)]
struct PinVerifier {
    pins: Vec<CaPin>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let pinned = intermediates
            .iter()
            .find(|certificate| {
                CaPin::of_der(certificate).is_ok_and(|pin| self.pins.contains(&pin))
            })
            .ok_or(Error::InvalidCertificate(
                rustls::CertificateError::UnknownIssuer,
            ))?;
        let mut roots = RootCertStore::empty();
        roots.add(pinned.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| Error::General(error.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Accepts any certificate, but still checks that the server holds its key.
#[derive(Debug)]
struct NoVerifier {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for NoVerifier {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;
    use rustls::{ClientConnection, ServerConnection};

    use super::*;
    use crate::{CaKind, CertificateAuthority, HostLeaf, SERVER_NAME_AUTH};

    struct Server {
        ca: CertificateAuthority,
        config: Arc<ServerConfig>,
    }

    fn server() -> Server {
        let cluster = "tidegate.example.com".parse().unwrap();
        let now = Timestamp::now();
        let ca = CertificateAuthority::create(CaKind::Host, &cluster, now).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = HostLeaf {
            public_key: &key.public_key_der(),
            cluster: &cluster,
            host_id: &"h1".parse().unwrap(),
            hostname: "h1",
            services: &["auth".to_owned()],
            names: &[],
        };
        let issued = ca.issue_host(leaf, now, Duration::from_secs(60)).unwrap();
        let tls = ServerTls {
            chain_pem: &issued.chain_pem,
            key: &key,
            clients: ClientAuth::None,
            alpn: &[crate::ALPN_AUTH],
        };
        Server {
            ca,
            config: server_config(tls).unwrap(),
        }
    }

    /// A handshake in memory.
    fn shake(server: &Server, roots: Roots<'_>) -> Result<(), Error> {
        let config = client_config(ClientTls {
            roots,
            identity: None,
            alpn: &[crate::ALPN_AUTH],
        })
        .unwrap();
        let mut client = ClientConnection::new(config, SERVER_NAME_AUTH.try_into().unwrap())?;
        let mut server = ServerConnection::new(Arc::clone(&server.config))?;
        while client.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets()?;
            wire.clear();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        Ok(())
    }

    #[test]
    fn a_pinned_ca_is_trusted_and_another_is_not() {
        let (ours, other) = (server(), server());
        assert!(shake(&ours, Roots::Pinned(&[ours.ca.pin()])).is_ok());
        assert!(shake(&ours, Roots::Pinned(&[other.ca.pin()])).is_err());
        assert!(shake(&ours, Roots::Pem(ours.ca.cert_pem())).is_ok());
        assert!(shake(&ours, Roots::Pem(other.ca.cert_pem())).is_err());
        assert!(shake(&ours, Roots::Unverified).is_ok());
    }
}
