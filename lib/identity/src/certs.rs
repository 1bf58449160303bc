//! What a certificate that others issued says of itself: its subject, its time, and whether it is a root.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey,
    VerificationAlgorithm,
};
use jiff::Timestamp;
use rustls::ClientConnection;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::IdentityError;

/// Signature algorithms by their object identifiers (RFC 4055, RFC 5758).
const ALGORITHMS: [(&str, &dyn VerificationAlgorithm); 5] = [
    ("1.2.840.10045.4.3.2", &ECDSA_P256_SHA256_ASN1),
    ("1.2.840.10045.4.3.3", &ECDSA_P384_SHA384_ASN1),
    ("1.2.840.113549.1.1.11", &RSA_PKCS1_2048_8192_SHA256),
    ("1.2.840.113549.1.1.12", &RSA_PKCS1_2048_8192_SHA384),
    ("1.2.840.113549.1.1.13", &RSA_PKCS1_2048_8192_SHA512),
];

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Whom it is about, as `CN=…, O=…`.
    pub subject: String,
    /// The first instant at which it counts.
    pub not_before: Timestamp,
    /// The last instant at which it counts.
    pub not_after: Timestamp,
    /// Whether it may sign others (basic constraints, RFC 5280 section 4.2.1.9).
    pub is_ca: bool,
    /// Whether it was signed with its own key, as roots are; the signature was verified.
    pub is_self_signed: bool,
}

impl CertificateFacts {
    /// Of the certificate that the server showed; `None` before the handshake is done, or for one that cannot be read.
    #[must_use]
    pub fn of_peer(connection: &ClientConnection) -> Option<Self> {
        let leaf = connection.peer_certificates()?.first()?;
        Self::read(leaf).ok()
    }

    /// Reads one certificate in DER.
    ///
    /// # Errors
    ///
    /// [`IdentityError::Malformed`] for bytes that are no certificate, or that go on behind one.
    pub fn read(der: &[u8]) -> Result<Self, IdentityError> {
        let (rest, parsed) = X509Certificate::from_der(der)
            .map_err(|error| IdentityError::Malformed(error.to_string()))?;
        if !rest.is_empty() {
            return Err(IdentityError::Malformed(
                "bytes behind a certificate".to_owned(),
            ));
        }
        let at = |seconds| {
            Timestamp::from_second(seconds)
                .map_err(|error| IdentityError::Malformed(error.to_string()))
        };
        let validity = parsed.validity();
        Ok(Self {
            subject: parsed.subject().to_string(),
            not_before: at(validity.not_before.timestamp())?,
            not_after: at(validity.not_after.timestamp())?,
            is_ca: parsed.is_ca(),
            is_self_signed: parsed.subject().as_raw() == parsed.issuer().as_raw()
                && signed_itself(&parsed),
        })
    }
}

/// Whether a certificate's own key signed it; `false` as well for an algorithm that no root of ours has.
fn signed_itself(certificate: &X509Certificate<'_>) -> bool {
    let oid = certificate.signature_algorithm.algorithm.to_id_string();
    let Some((_, algorithm)) = ALGORITHMS.iter().find(|(known, _)| *known == oid) else {
        return false;
    };
    let key = &certificate.public_key().subject_public_key.data;
    UnparsedPublicKey::new(*algorithm, key)
        .verify(
            certificate.tbs_certificate.as_ref(),
            &certificate.signature_value.data,
        )
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CA_TTL, CaKind, CertificateAuthority, tls};

    fn root() -> Vec<u8> {
        let cluster = "tide.test".parse().unwrap();
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let ca = CertificateAuthority::create(CaKind::Db, &cluster, now).unwrap();
        tls::first_certificate_der(ca.cert_pem()).unwrap()
    }

    #[test]
    fn a_root_is_told_by_its_own_signature() {
        let facts = CertificateFacts::read(&root()).unwrap();
        assert!(facts.is_ca && facts.is_self_signed, "{facts:?}");
        let life = facts.not_after.duration_since(facts.not_before);
        assert!(life.as_secs() >= i64::try_from(CA_TTL.as_secs()).unwrap());
    }

    #[test]
    fn a_certificate_that_was_changed_is_no_root_any_more() {
        let mut der = root();
        let last = der.len() - 1;
        der[last] ^= 1;
        assert!(CertificateFacts::read(&der).is_ok_and(|facts| !facts.is_self_signed));
    }

    #[test]
    fn bytes_behind_a_certificate_and_bytes_that_are_none_are_refused() {
        let mut der = root();
        der.push(0);
        assert!(CertificateFacts::read(&der).is_err());
        der.truncate(der.len() / 2);
        assert!(CertificateFacts::read(&der).is_err());
        assert!(CertificateFacts::read(b"<html>").is_err());
    }
}
