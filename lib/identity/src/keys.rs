//! Private keys: ECDSA P-256, made here, kept out of logs.

use std::{fmt, sync::Arc};

use rcgen::PublicKeyData;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use secrecy::SecretString;

use crate::IdentityError;

/// A private key and its public half. Cloning shares the key; printing shows nothing of it.
#[derive(Clone)]
pub struct KeyPair(Arc<rcgen::KeyPair>);

impl KeyPair {
    /// A new ECDSA P-256 key.
    ///
    /// # Errors
    ///
    /// When the system has no random bytes to give.
    pub fn generate() -> Result<Self, IdentityError> {
        Ok(Self(Arc::new(rcgen::KeyPair::generate_for(
            &rcgen::PKCS_ECDSA_P256_SHA256,
        )?)))
    }

    /// Reads a PKCS #8 key in PEM.
    ///
    /// # Errors
    ///
    /// When the text holds no such key.
    pub fn from_pem(pem: &str) -> Result<Self, IdentityError> {
        rcgen::KeyPair::from_pem(pem)
            .map(|key| Self(Arc::new(key)))
            .map_err(|_| IdentityError::Pem {
                what: "private key",
            })
    }

    /// The key as PKCS #8 in PEM, to be written to a file that only its owner may read.
    #[must_use]
    pub fn to_pem(&self) -> SecretString {
        SecretString::from(self.0.serialize_pem())
    }

    /// The public half: SubjectPublicKeyInfo in DER.
    #[must_use]
    pub fn public_key_der(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }

    pub(crate) fn inner(&self) -> &rcgen::KeyPair {
        &self.0
    }

    pub(crate) fn private_key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.0.serialize_der()))
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyPair(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_key_reads_back_from_its_pem() {
        let key = KeyPair::generate().unwrap();
        let again = KeyPair::from_pem(key.to_pem().expose_secret()).unwrap();
        assert_eq!(key.public_key_der(), again.public_key_der());
        assert!(KeyPair::from_pem("nothing").is_err());
    }
}
