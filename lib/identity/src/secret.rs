//! Secrets that people and services hand around: made at random, stored as digests, compared in constant time.

use aws_lc_rs::{digest, rand};
use secrecy::SecretString;
use subtle::ConstantTimeEq;

use crate::IdentityError;

/// Random bytes from the system.
///
/// # Errors
///
/// [`IdentityError::Random`] when the system has none to give.
pub fn random_bytes<const N: usize>() -> Result<[u8; N], IdentityError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| IdentityError::Random)?;
    Ok(bytes)
}

/// A new secret of 128 bits, written as 32 hex digits.
///
/// # Errors
///
/// [`IdentityError::Random`].
pub fn new_secret() -> Result<SecretString, IdentityError> {
    Ok(SecretString::from(hex(&random_bytes::<16>()?)))
}

/// SHA-256 of a secret, which is what is stored of it. Enough for secrets of 128 random bits; passwords need Argon2.
#[must_use]
pub fn digest(secret: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, secret.as_bytes()).as_ref());
    bytes
}

/// Whether two byte strings are equal, in time that depends on their lengths alone.
#[must_use]
pub fn same(left: &[u8], right: &[u8]) -> bool {
    left.ct_eq(right).into()
}

/// Lower-case hex digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn secrets_differ_and_do_not_print() {
        let (one, two) = (new_secret().unwrap(), new_secret().unwrap());
        assert_ne!(one.expose_secret(), two.expose_secret());
        assert_eq!(one.expose_secret().len(), 32);
        assert!(!format!("{one:?}").contains(one.expose_secret()));
    }

    #[test]
    fn digests_compare_by_content() {
        assert!(same(&digest("a"), &digest("a")));
        assert!(!same(&digest("a"), &digest("b")));
    }
}
