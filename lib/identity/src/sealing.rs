//! Keys that encrypt other keys: AES-256-GCM, and the files that hold them.
//!
//! A key file is one line: 32 random bytes as 64 hex digits, or in base64. Its id is derived from the bytes, so that
//! what was encrypted can say which file opens it, and a renamed file is still found.
//!
//! Invariant: a file that somebody else than its owner may read is refused; neither key bytes nor plain text print.

use std::{
    fmt,
    fs::{self, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    digest,
    hkdf::{HKDF_SHA256, Salt},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::{Zeroize as _, Zeroizing};

use crate::{IdentityError, KeyPair, secret};

/// Bytes of a key.
pub const SEALING_KEY_BYTES: usize = 32;
/// Largest key file: a line is at most 64 digits, white space may surround it.
const FILE_BYTES_MAX: u64 = 256;
/// What a key's id is a digest of, beside the key.
const ID_PREFIX: &[u8] = b"tidegate sealing key id v1";
/// What keys that come from private keys are told apart by from anything else that is made of those.
const DERIVED_SALT: &[u8] = b"tidegate sealing key from a private key v1";
/// Permissions that a key file may not have: anything for group and others.
const FORBIDDEN_MODE: u32 = 0o077;

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The file cannot be read or written.
    #[error("cannot {doing} the key file {}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It does not hold a key.
    #[error(
        "the key file {} does not hold 32 bytes as 64 hex digits or in base64",
        path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// Others may read it.
    #[error(
        "the key file {} may be used by others than its owner (mode {mode:03o}): chmod 600 it",
        path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The system has no random bytes to give.
    #[error(transparent)]
    Random(#[from] IdentityError),
}

/// A key that encrypts keys. Printing shows its id alone; it is wiped when dropped.
pub struct SealingKey {
    bytes: Zeroizing<[u8; SEALING_KEY_BYTES]>,
    id: String,
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealingKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl SealingKey {
    /// A new key.
    ///
    /// # Errors
    ///
    /// [`IdentityError::Random`].
    pub fn generate() -> Result<Self, IdentityError> {
        Ok(Self::from_bytes(Zeroizing::new(secret::random_bytes()?)))
    }

    /// A key that was made elsewhere.
    #[must_use]
    pub fn from_bytes(bytes: Zeroizing<[u8; SEALING_KEY_BYTES]>) -> Self {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(ID_PREFIX);
        hash.update(bytes.as_ref());
        let id = secret::hex(&hash.finish().as_ref()[..8]);
        Self { bytes, id }
    }

    /// The key that a private key gives for this purpose: always the same one, which only who has that private key can
    /// make, and which tells nothing of it (HKDF with SHA-256, RFC 5869).
    ///
    /// # Errors
    ///
    /// [`IdentityError::Sealing`], which the lengths here rule out.
    pub fn derived_from(key: &KeyPair, purpose: &[u8]) -> Result<Self, IdentityError> {
        let refused = |_| IdentityError::Sealing("derived");
        let mut bytes = Zeroizing::new([0; SEALING_KEY_BYTES]);
        Salt::new(HKDF_SHA256, DERIVED_SALT)
            .extract(key.to_pem().expose_secret().as_bytes())
            .expand(&[purpose], HKDF_SHA256)
            .map_err(refused)?
            .fill(bytes.as_mut())
            .map_err(refused)?;
        Ok(Self::from_bytes(bytes))
    }

    /// Reads a key file.
    ///
    /// # Errors
    ///
    /// [`KeyFileError`]; [`KeyFileError::File`] with `NotFound` when there is none.
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        let failed = |source| KeyFileError::File {
            doing: "read",
            path: path.to_owned(),
            source,
        };
        let file = fs::File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.mode() & 0o777;
        if mode & FORBIDDEN_MODE != 0 {
            return Err(KeyFileError::Open {
                path: path.to_owned(),
                mode,
            });
        }
        let mut text = Zeroizing::new(String::new());
        file.take(FILE_BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(failed)?;
        let bytes = parse(text.trim()).ok_or_else(|| KeyFileError::Malformed {
            path: path.to_owned(),
        })?;
        Ok(Self::from_bytes(bytes))
    }

    /// Makes a key and its file, which must not be there yet; only its owner may read it.
    ///
    /// # Errors
    ///
    /// [`KeyFileError`].
    pub fn create(path: &Path) -> Result<Self, KeyFileError> {
        let failed = |source| KeyFileError::File {
            doing: "write",
            path: path.to_owned(),
            source,
        };
        let made = Self::generate()?;
        let mut line = Zeroizing::new(secret::hex(made.bytes.as_ref()));
        line.push('\n');
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        file.write_all(line.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(failed)?;
        // The name has to last as well, before anything is encrypted with the key.
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            fs::File::open(dir)
                .and_then(|dir| dir.sync_all())
                .map_err(failed)?;
        }
        Ok(made)
    }

    /// Says which key it is, and nothing about it.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Encrypts a text for this context: a random nonce, the ciphertext, and its tag.
    ///
    /// # Errors
    ///
    /// [`IdentityError::Sealing`]: the system has no random bytes to give.
    pub fn seal(&self, plain: &str, context: &[u8]) -> Result<Vec<u8>, IdentityError> {
        self.seal_bytes(plain.as_bytes(), context)
    }

    /// The same for what is no text.
    ///
    /// # Errors
    ///
    /// [`IdentityError::Sealing`]: the system has no random bytes to give.
    pub fn seal_bytes(&self, plain: &[u8], context: &[u8]) -> Result<Vec<u8>, IdentityError> {
        let mut sealed = plain.to_vec();
        let nonce = self
            .cipher()?
            .seal_in_place_append_tag(Aad::from(context), &mut sealed)
            .map_err(|_| IdentityError::Sealing("encrypted"));
        match nonce {
            Ok(nonce) => Ok([nonce.as_ref().as_slice(), &sealed].concat()),
            Err(error) => {
                sealed.zeroize();
                Err(error)
            }
        }
    }

    /// Decrypts what [`Self::seal`] encrypted for the same context.
    ///
    /// # Errors
    ///
    /// [`IdentityError::Sealing`]: it was encrypted with another key, for another context, or was changed.
    pub fn open(&self, sealed: &[u8], context: &[u8]) -> Result<SecretString, IdentityError> {
        let plain = self.open_bytes(sealed, context)?;
        std::str::from_utf8(&plain)
            .map(SecretString::from)
            .map_err(|_| IdentityError::Sealing("decrypted"))
    }

    /// Decrypts what [`Self::seal_bytes`] encrypted for the same context.
    ///
    /// # Errors
    ///
    /// [`IdentityError::Sealing`]: it was encrypted with another key, for another context, or was changed.
    pub fn open_bytes(
        &self,
        sealed: &[u8],
        context: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
        let refused = || IdentityError::Sealing("decrypted");
        let (nonce, ciphertext) = sealed.split_at_checked(NONCE_LEN).ok_or_else(refused)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| refused())?;
        let mut buffer = Zeroizing::new(ciphertext.to_vec());
        let length = self
            .cipher()?
            .open_in_place(nonce, Aad::from(context), &mut buffer)
            .map_err(|_| refused())?
            .len();
        buffer.truncate(length);
        Ok(buffer)
    }

    fn cipher(&self) -> Result<RandomizedNonceKey, IdentityError> {
        RandomizedNonceKey::new(&AES_256_GCM, self.bytes.as_ref())
            .map_err(|_| IdentityError::Sealing("used"))
    }
}

/// 64 hex digits, or base64 of 32 bytes.
fn parse(line: &str) -> Option<Zeroizing<[u8; SEALING_KEY_BYTES]>> {
    let mut key = Zeroizing::new([0; SEALING_KEY_BYTES]);
    if line.len() == 2 * SEALING_KEY_BYTES && line.is_ascii() {
        for (at, byte) in key.iter_mut().enumerate() {
            *byte = u8::from_str_radix(line.get(2 * at..2 * at + 2)?, 16).ok()?;
        }
        return Some(key);
    }
    let decoded = Zeroizing::new(STANDARD.decode(line).ok()?);
    if decoded.len() != SEALING_KEY_BYTES {
        return None;
    }
    key.copy_from_slice(&decoded);
    Some(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn folder() -> PathBuf {
        let name = secret::hex(&secret::random_bytes::<8>().unwrap());
        let folder = std::env::temp_dir().join(format!("tidegate-sealing-{name}"));
        fs::create_dir(&folder).unwrap();
        folder
    }

    #[test]
    fn what_was_sealed_opens_with_the_same_key_and_context_alone() {
        let (key, other) = (
            SealingKey::generate().unwrap(),
            SealingKey::generate().unwrap(),
        );
        let sealed = key.seal("hush", b"host").unwrap();
        assert_eq!(key.open(&sealed, b"host").unwrap().expose_secret(), "hush");
        assert!(key.open(&sealed, b"user").is_err());
        assert!(other.open(&sealed, b"host").is_err());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(key.open(&changed, b"host").is_err(), "byte {at}");
            assert!(key.open(&sealed[..at], b"host").is_err(), "length {at}");
        }
        assert_ne!(sealed, key.seal("hush", b"host").unwrap());
    }

    #[test]
    fn a_private_key_gives_one_sealing_key_for_each_purpose() {
        let key = KeyPair::generate().unwrap();
        let derived = |key: &KeyPair, purpose: &[u8]| {
            SealingKey::derived_from(key, purpose)
                .unwrap()
                .id()
                .to_owned()
        };
        let read_back = KeyPair::from_pem(key.to_pem().expose_secret()).unwrap();
        assert_eq!(derived(&key, b"a"), derived(&read_back, b"a"));
        assert_ne!(derived(&key, b"a"), derived(&key, b"b"));
        assert_ne!(
            derived(&key, b"a"),
            derived(&KeyPair::generate().unwrap(), b"a")
        );
    }

    #[test]
    fn a_key_file_reads_back_with_the_same_id_and_does_not_print() {
        let folder = folder();
        let path = folder.join("ca.key");
        let made = SealingKey::create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(SealingKey::read(&path).unwrap().id(), made.id());
        let line = fs::read_to_string(&path).unwrap();
        assert!(!format!("{made:?}").contains(line.trim()));
        assert!(matches!(
            SealingKey::create(&path),
            Err(KeyFileError::File { .. })
        ));

        let base64 = STANDARD.encode(made.bytes.as_ref());
        fs::write(&path, base64).unwrap();
        assert_eq!(SealingKey::read(&path).unwrap().id(), made.id());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_file_that_others_may_read_or_that_holds_no_key_is_refused() {
        let folder = folder();
        let path = folder.join("ca.key");
        SealingKey::create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let refused = SealingKey::read(&path).unwrap_err();
        assert!(
            matches!(refused, KeyFileError::Open { mode: 0o640, .. }),
            "{refused}"
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        for bad in ["", "ab", &"zz".repeat(32), "AAAA"] {
            fs::write(&path, bad).unwrap();
            assert!(matches!(
                SealingKey::read(&path),
                Err(KeyFileError::Malformed { .. })
            ));
        }
        fs::remove_dir_all(folder).unwrap();
    }
}
