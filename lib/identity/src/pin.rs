//! Pins of certificate authorities: how a newcomer knows the cluster before it trusts anything.

use std::{fmt, str::FromStr};

use aws_lc_rs::digest;
use tidegate_core::InvalidId;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{IdentityError, secret::hex, tls};

/// SHA-256 of a CA's public key (SubjectPublicKeyInfo), written `sha256:<64 hex digits>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CaPin([u8; 32]);

impl CaPin {
    /// The pin of the first certificate in a PEM text.
    ///
    /// # Errors
    ///
    /// When the text holds no certificate.
    pub fn of_pem(ca_pem: &str) -> Result<Self, IdentityError> {
        Self::of_der(&tls::first_certificate_der(ca_pem)?)
    }

    /// The pin of the CA that signed a chain's first certificate: the second one, as our chains have it.
    ///
    /// # Errors
    ///
    /// When the text holds fewer than two certificates.
    pub fn of_signer(chain_pem: &str) -> Result<Self, IdentityError> {
        let certificates = tls::certificates(chain_pem)?;
        let signer = certificates.get(1).ok_or(IdentityError::Pem {
            what: "certificate of a CA",
        })?;
        Self::of_der(signer)
    }

    /// The pins of all certificates in a PEM text, in its order.
    ///
    /// # Errors
    ///
    /// When the text holds no certificate.
    pub fn all_of_pem(ca_pem: &str) -> Result<Vec<Self>, IdentityError> {
        let certificates = tls::certificates(ca_pem)?;
        certificates
            .iter()
            .map(|certificate| Self::of_der(certificate))
            .collect()
    }

    /// The pin of a certificate in DER.
    ///
    /// # Errors
    ///
    /// When the bytes are no certificate.
    pub fn of_der(certificate: &[u8]) -> Result<Self, IdentityError> {
        let (_, parsed) = X509Certificate::from_der(certificate)
            .map_err(|error| IdentityError::Malformed(error.to_string()))?;
        let mut pin = [0; 32];
        pin.copy_from_slice(digest::digest(&digest::SHA256, parsed.public_key().raw).as_ref());
        Ok(Self(pin))
    }
}

impl FromStr for CaPin {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = || InvalidId {
            what: "CA pin",
            value: text.to_owned(),
            expected: "`sha256:` and 64 hex digits",
        };
        let digits = text
            .strip_prefix("sha256:")
            .filter(|digits| digits.len() == 64 && digits.is_ascii())
            .ok_or_else(invalid)?;
        let mut pin = [0; 32];
        for (index, byte) in pin.iter_mut().enumerate() {
            *byte =
                u8::from_str_radix(&digits[2 * index..2 * index + 2], 16).map_err(|_| invalid())?;
        }
        Ok(Self(pin))
    }
}

impl fmt::Display for CaPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_prints_back_as_it_was_read() {
        let text = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(text.parse::<CaPin>().unwrap().to_string(), text);
        for bad in ["", "sha256:", "sha256:zz", "md5:00", &"sha256:é".repeat(9)] {
            assert!(bad.parse::<CaPin>().is_err(), "{bad}");
        }
    }
}
