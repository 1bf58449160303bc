//! Answers what a database asks for at login. Pure: a challenge in, a proof out.
//!
//! Invariant: a password is sent in clear only when the database asks for it so, and only over the TLS session that was
//! set up before; neither it nor a proof made from it prints.
//!
//! Source: MySQL documentation, "Native Authentication", "Caching SHA-2", "Clear Text Authentication".

use aws_lc_rs::digest::{self, Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use secrecy::{ExposeSecret, SecretString};
use tidegate_wire::mysql::handshake::{CACHING_SHA2, CLEAR_PASSWORD, NATIVE_PASSWORD};
use zeroize::Zeroizing;

/// What `caching_sha2_password` says when a hash was enough.
const FAST_DONE: &[u8] = &[3];
/// What it says when it wants the password itself.
const FULL_WANTED: &[u8] = &[4];

/// Why a login cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum AnswerError {
    /// Nothing to answer with.
    #[error("database asks for a password, and there is none for it")]
    NoPassword,
    /// A step that the plugin does not have.
    #[error("database sent a step that login plugin `{0}` does not have")]
    Step(String),
    /// None that is known.
    #[error("database asks for login plugin `{0}`, which is not known here")]
    Unknown(String),
}

/// A proof, or a password as it is.
pub(crate) type Proof = Zeroizing<Vec<u8>>;

/// One login, from the greeting to consent.
pub(crate) struct Answers<'a> {
    password: Option<&'a SecretString>,
    plugin: String,
}

impl<'a> Answers<'a> {
    /// A login with this password; without one only a database that asks for none lets us in.
    pub(crate) fn new(password: Option<&'a SecretString>) -> Self {
        Self {
            password,
            plugin: String::new(),
        }
    }

    /// The first proof, for the plugin that the greeting names. A plugin that wants more than a hash is answered with
    /// nothing, and asks again by itself.
    pub(crate) fn first(&mut self, plugin: &str, scramble: &[u8]) -> Proof {
        plugin.clone_into(&mut self.plugin);
        match plugin {
            NATIVE_PASSWORD | CACHING_SHA2 => self.hashed(scramble),
            _ => Proof::default(),
        }
    }

    /// The answer to a switch of plugins.
    ///
    /// # Errors
    ///
    /// [`AnswerError`] when there is none.
    pub(crate) fn switched(&mut self, plugin: &str, scramble: &[u8]) -> Result<Proof, AnswerError> {
        plugin.clone_into(&mut self.plugin);
        match plugin {
            NATIVE_PASSWORD | CACHING_SHA2 => Ok(self.hashed(scramble)),
            CLEAR_PASSWORD => self.clear(),
            _ => Err(AnswerError::Unknown(plugin.to_owned())),
        }
    }

    /// The answer to more data of the present plugin; `None` to read on.
    ///
    /// # Errors
    ///
    /// [`AnswerError`] when there is none.
    pub(crate) fn more(&self, data: &[u8]) -> Result<Option<Proof>, AnswerError> {
        match (self.plugin.as_str(), data) {
            (CACHING_SHA2, FAST_DONE) => Ok(None),
            (CACHING_SHA2, FULL_WANTED) => self.clear().map(Some),
            _ => Err(AnswerError::Step(self.plugin.clone())),
        }
    }

    fn hashed(&self, scramble: &[u8]) -> Proof {
        let Some(password) = self.password else {
            return Proof::default();
        };
        let password = password.expose_secret().as_bytes();
        match self.plugin.as_str() {
            NATIVE_PASSWORD => native(password, scramble),
            _ => caching_sha2(password, scramble),
        }
    }

    fn clear(&self) -> Result<Proof, AnswerError> {
        let password = self.password.ok_or(AnswerError::NoPassword)?;
        let password = password.expose_secret().as_bytes();
        // The room is taken at once, so that no copy is left behind by growing.
        let mut proof = Vec::with_capacity(password.len() + 1);
        proof.extend_from_slice(password);
        proof.push(0);
        Ok(Proof::new(proof))
    }
}

/// `SHA1(password) XOR SHA1(scramble, SHA1(SHA1(password)))`.
fn native(password: &[u8], scramble: &[u8]) -> Proof {
    let hash = |parts: &[&[u8]]| hash(&SHA1_FOR_LEGACY_USE_ONLY, parts);
    let once = hash(&[password]);
    let twice = hash(&[&once]);
    xor(&once, &hash(&[scramble, &twice]))
}

/// `SHA256(password) XOR SHA256(SHA256(SHA256(password)), scramble)`.
fn caching_sha2(password: &[u8], scramble: &[u8]) -> Proof {
    let hash = |parts: &[&[u8]]| hash(&SHA256, parts);
    let once = hash(&[password]);
    let twice = hash(&[&once]);
    xor(&once, &hash(&[&twice, scramble]))
}

fn hash(algorithm: &'static Algorithm, parts: &[&[u8]]) -> Proof {
    let mut context = digest::Context::new(algorithm);
    for part in parts {
        context.update(part);
    }
    Proof::new(context.finish().as_ref().to_vec())
}

fn xor(one: &[u8], other: &[u8]) -> Proof {
    Proof::new(one.iter().zip(other).map(|(a, b)| a ^ b).collect())
}

#[cfg(test)]
mod tests {
    use tidegate_identity::secret::hex;

    use super::*;

    const SCRAMBLE: &[u8] = b"01234567890123456789";

    #[test]
    fn hashes_are_those_that_servers_know() {
        // Computed with Python's hashlib by the formulas of the documentation.
        assert_eq!(
            hex(&native(b"secret", SCRAMBLE)),
            "7abe1a8776b59e931059451f81e596a60dbbf7a8"
        );
        assert_eq!(
            hex(&caching_sha2(b"secret", SCRAMBLE)),
            "1a2da2573c2faa367e2afddb54cdfd11a95ed22eef0167151196a6fc8e3d3813"
        );
    }

    #[test]
    fn a_password_goes_in_clear_only_where_it_is_asked_for_so() {
        let password = SecretString::from("token");
        let mut answers = Answers::new(Some(&password));
        assert_eq!(answers.first("AWSAuthenticationPlugin", SCRAMBLE).len(), 0);
        assert_eq!(answers.first(CLEAR_PASSWORD, SCRAMBLE).len(), 0);
        assert_eq!(*answers.switched(CLEAR_PASSWORD, b"").unwrap(), b"token\0");
    }

    #[test]
    fn the_full_exchange_of_caching_sha2_sends_the_password_and_the_fast_one_does_not() {
        let password = SecretString::from("token");
        let mut answers = Answers::new(Some(&password));
        assert_eq!(answers.first(CACHING_SHA2, SCRAMBLE).len(), 32);
        assert!(answers.more(FAST_DONE).unwrap().is_none());
        assert_eq!(*answers.more(FULL_WANTED).unwrap().unwrap(), b"token\0");
        assert!(answers.more(b"other").is_err());
    }

    #[test]
    fn without_a_password_proofs_are_empty_and_clear_text_is_refused() {
        let mut answers = Answers::new(None);
        assert_eq!(answers.first(NATIVE_PASSWORD, SCRAMBLE).len(), 0);
        assert!(matches!(
            answers.switched(CLEAR_PASSWORD, b""),
            Err(AnswerError::NoPassword)
        ));
        assert!(matches!(
            answers.switched("dialog", b""),
            Err(AnswerError::Unknown(_))
        ));
    }
}
