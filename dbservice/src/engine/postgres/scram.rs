//! SCRAM-SHA-256 as a client, without channel binding.
//!
//! What the database knows of a password is reached by thousands of hash rounds over it, salt by salt. The keys that come
//! of them are kept ([`ScramKeys`]), so that of all logins with one temporary password the first alone pays for them.
//!
//! Invariants: a database that does not prove that it knows the password is no success; neither password nor keys print,
//! and keys are wiped when they are let go.
//!
//! Source: RFC 5802, sections 3 and 5; RFC 7677; PostgreSQL's manual, section 55.3 (the user's name stays empty). Passwords
//! are taken as they are: those that AWS makes are ASCII, which RFC 4013 leaves alone.

use std::{
    collections::HashMap,
    fmt,
    num::NonZeroU32,
    sync::{Mutex, MutexGuard, PoisonError},
};

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{self, SHA256, SHA256_OUTPUT_LEN},
    hmac::{self, HMAC_SHA256},
    pbkdf2::{self, PBKDF2_HMAC_SHA256},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use zeroize::{Zeroize, Zeroizing};

/// The mechanism's name.
pub(super) const SCRAM_SHA_256: &str = "SCRAM-SHA-256";

/// The most hash rounds that a database may ask of us; PostgreSQL asks for 4,096 unless told otherwise.
pub(super) const ROUNDS_MAX: u32 = 200_000;

/// Passwords and salts whose keys are kept. Beyond that all are forgotten and made anew.
const KEPT_MAX: usize = 1024;

/// No channel binding, in base64 (`n,,`) and as it begins the first message.
const BINDING: &str = "biws";
const BINDING_FLAG: &str = "n,,";

type Hash = [u8; SHA256_OUTPUT_LEN];

/// Why an exchange failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ScramError {
    /// The database says no, in the mechanism's words.
    #[error("database ended the exchange: {0}")]
    Ended(String),
    /// An attribute is missing or no such thing.
    #[error("database's message has no valid `{0}`")]
    Malformed(char),
    /// The nonce is not ours with something behind it.
    #[error("database answered another exchange")]
    Nonce,
    /// The signature is not the password's.
    #[error("database did not prove that it knows the password")]
    NotProven,
    /// A database that wants to keep us busy.
    #[error("database asks for {rounds} hash rounds; at most {ROUNDS_MAX} are done")]
    Rounds { rounds: u32 },
}

/// What of a password the exchange needs.
#[derive(Clone)]
struct Keys {
    client: Zeroizing<Hash>,
    server: Zeroizing<Hash>,
}

impl Keys {
    fn of(password: &[u8], salt: &[u8], rounds: NonZeroU32) -> Self {
        let mut salted = Zeroizing::new([0; SHA256_OUTPUT_LEN]);
        pbkdf2::derive(PBKDF2_HMAC_SHA256, rounds, salt, password, &mut *salted);
        Self {
            client: Zeroizing::new(sign(&*salted, b"Client Key")),
            server: Zeroizing::new(sign(&*salted, b"Server Key")),
        }
    }
}

/// Keys of passwords that were logged in with.
#[derive(Default)]
pub(crate) struct ScramKeys {
    /// By a digest over password, salt and rounds.
    kept: Mutex<HashMap<Hash, Keys>>,
}

impl fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramKeys").finish_non_exhaustive()
    }
}

impl ScramKeys {
    fn get(&self, password: &[u8], salt: &[u8], rounds: NonZeroU32) -> Keys {
        let mut context = digest::Context::new(&SHA256);
        context.update(&rounds.get().to_be_bytes());
        // One digest of each, so that none can run into the other.
        context.update(digest::digest(&SHA256, salt).as_ref());
        context.update(digest::digest(&SHA256, password).as_ref());
        let name = hash(&context.finish());
        if let Some(keys) = self.kept().get(&name) {
            return keys.clone();
        }
        let keys = Keys::of(password, salt, rounds);
        let mut kept = self.kept();
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(name, keys.clone());
        keys
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<Hash, Keys>> {
        // Entries are whole values: a panic elsewhere leaves none half-made.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One exchange.
pub(super) struct Scram<'s> {
    password: &'s [u8],
    keys: &'s ScramKeys,
    nonce: String,
    /// What the database has to sign with, once it was answered.
    expected: Option<Hash>,
}

impl<'s> Scram<'s> {
    /// Begins one; `nonce` is printable, without commas, and used once.
    pub(super) fn new(password: &'s [u8], keys: &'s ScramKeys, nonce: String) -> Self {
        Self {
            password,
            keys,
            nonce,
            expected: None,
        }
    }

    /// What the client says first.
    pub(super) fn first(&self) -> String {
        format!("{BINDING_FLAG}{}", self.first_bare())
    }

    fn first_bare(&self) -> String {
        format!("n=,r={}", self.nonce)
    }

    /// The proof for the database's challenge.
    ///
    /// # Errors
    ///
    /// [`ScramError`]; the exchange is over then.
    pub(super) fn answer(&mut self, challenge: &[u8]) -> Result<String, ScramError> {
        let challenge = text(challenge)?;
        let attribute = |name| attribute(challenge, name).ok_or(ScramError::Malformed(name));
        let nonce = attribute('r')?;
        match nonce.strip_prefix(&self.nonce) {
            Some(added) if !added.is_empty() => {}
            _ => return Err(ScramError::Nonce),
        }
        let salt = STANDARD
            .decode(attribute('s')?)
            .map_err(|_| ScramError::Malformed('s'))?;
        let rounds: NonZeroU32 = attribute('i')?
            .parse()
            .map_err(|_| ScramError::Malformed('i'))?;
        if rounds.get() > ROUNDS_MAX {
            let rounds = rounds.get();
            return Err(ScramError::Rounds { rounds });
        }
        let keys = self.keys.get(self.password, &salt, rounds);
        let without_proof = format!("c={BINDING},r={nonce}");
        let message = format!("{},{challenge},{without_proof}", self.first_bare());
        let stored = hash(&digest::digest(&SHA256, &*keys.client));
        let mut proof = sign(&stored, message.as_bytes());
        proof
            .iter_mut()
            .zip(&*keys.client)
            .for_each(|(byte, key)| *byte ^= key);
        self.expected = Some(sign(&*keys.server, message.as_bytes()));
        let answer = format!("{without_proof},p={}", STANDARD.encode(proof));
        proof.zeroize();
        Ok(answer)
    }

    /// Whether the database proved that it knows the password too.
    ///
    /// # Errors
    ///
    /// [`ScramError`] when it did not.
    pub(super) fn finish(self, last: &[u8]) -> Result<(), ScramError> {
        let last = text(last)?;
        if let Some(error) = attribute(last, 'e') {
            return Err(ScramError::Ended(error.chars().take(64).collect()));
        }
        let signature = attribute(last, 'v').and_then(|value| STANDARD.decode(value).ok());
        let signature = signature.ok_or(ScramError::Malformed('v'))?;
        let expected = self.expected.ok_or(ScramError::NotProven)?;
        verify_slices_are_equal(&expected, &signature).map_err(|_| ScramError::NotProven)
    }
}

fn text(message: &[u8]) -> Result<&str, ScramError> {
    std::str::from_utf8(message).map_err(|_| ScramError::Malformed('r'))
}

fn attribute(message: &str, name: char) -> Option<&str> {
    message
        .split(',')
        .find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
}

fn sign(key: &[u8], message: &[u8]) -> Hash {
    let tag = hmac::sign(&hmac::Key::new(HMAC_SHA256, key), message);
    let mut bytes = [0; SHA256_OUTPUT_LEN];
    bytes.copy_from_slice(tag.as_ref());
    bytes
}

fn hash(digest: &digest::Digest) -> Hash {
    let mut bytes = [0; SHA256_OUTPUT_LEN];
    bytes.copy_from_slice(digest.as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7677, section 3, but for the user's name, which PostgreSQL leaves empty; made with Python's hashlib and hmac.
    const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const CHALLENGE: &[u8] =
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const ANSWER: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=qvT2SWdEH5Q06albL+hjSYuUhCG7VndFyzIb7CK4n9k=";
    const SIGNATURE: &[u8] = b"v=3HO6Qt1M4MKJrmlKaoOqLAI0/0TV0HZe7J9H3MBtSOg=";

    fn exchange(keys: &ScramKeys) -> Scram<'_> {
        Scram::new(b"pencil", keys, NONCE.to_owned())
    }

    #[test]
    fn an_exchange_is_the_one_of_the_rfc_the_first_time_and_from_kept_keys() {
        let keys = ScramKeys::default();
        for kept in [0, 1] {
            assert_eq!(keys.kept().len(), kept);
            let mut scram = exchange(&keys);
            assert_eq!(scram.first(), format!("n,,n=,r={NONCE}"));
            assert_eq!(scram.answer(CHALLENGE).unwrap(), ANSWER);
            scram.finish(SIGNATURE).unwrap();
        }
    }

    #[test]
    fn another_salt_or_password_has_keys_of_its_own() {
        let keys = ScramKeys::default();
        let rounds = NonZeroU32::new(2).unwrap();
        let one = keys.get(b"pencil", b"salt", rounds);
        assert_ne!(*one.client, *keys.get(b"pencil", b"tlas", rounds).client);
        assert_ne!(*one.client, *keys.get(b"pencils", b"alt", rounds).client);
        assert_eq!(*one.client, *keys.get(b"pencil", b"salt", rounds).client);
        assert_eq!(keys.kept().len(), 3);
    }

    #[test]
    fn a_database_that_does_not_know_the_password_is_not_believed() {
        let keys = ScramKeys::default();
        let mut scram = exchange(&keys);
        scram.answer(CHALLENGE).unwrap();
        let forged = format!("v={}", STANDARD.encode([7; SHA256_OUTPUT_LEN]));
        assert!(matches!(
            scram.finish(forged.as_bytes()),
            Err(ScramError::NotProven)
        ));
        assert!(matches!(
            exchange(&keys).finish(SIGNATURE),
            Err(ScramError::NotProven)
        ));
        assert!(matches!(
            exchange(&keys).finish(b"e=other-error"),
            Err(ScramError::Ended(_))
        ));
    }

    #[test]
    fn challenges_that_are_none_are_refused_by_what_is_wrong_with_them() {
        let keys = ScramKeys::default();
        let refused = |challenge: &[u8]| exchange(&keys).answer(challenge).unwrap_err();
        assert!(matches!(refused(b"\xff"), ScramError::Malformed('r')));
        assert!(matches!(
            refused(b"r=other,s=c2FsdA==,i=4096"),
            ScramError::Nonce
        ));
        let with = |rest: &str| refused(format!("r={NONCE}x,{rest}").as_bytes());
        assert!(matches!(with("i=4096"), ScramError::Malformed('s')));
        assert!(matches!(with("s=!,i=4096"), ScramError::Malformed('s')));
        assert!(matches!(with("s=c2FsdA==,i=0"), ScramError::Malformed('i')));
        let own = format!("r={NONCE},s=c2FsdA==,i=4096");
        assert!(matches!(refused(own.as_bytes()), ScramError::Nonce));
        assert!(matches!(
            with("s=c2FsdA==,i=4000000000"),
            ScramError::Rounds { .. }
        ));
        assert!(keys.kept().is_empty());
    }

    #[test]
    fn kept_keys_are_bounded() {
        let keys = ScramKeys::default();
        let rounds = NonZeroU32::MIN;
        for salt in 0..=KEPT_MAX {
            keys.get(b"pencil", &salt.to_be_bytes(), rounds);
        }
        assert_eq!(keys.kept().len(), 1);
    }
}
