//! Passwords: the rules for new ones ([`rules`]), and their hashes.
//!
//! Hashing is slow and takes memory on purpose, so it runs a few at a time off the runtime's threads, and callers
//! beyond a bound are turned away instead of queued.

pub(super) mod rules;

use std::sync::Arc;

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use tidegate_identity::secret;
use tokio::sync::Semaphore;

use crate::store::BoxError;

/// Memory of one hash. OWASP's password storage advice, first Argon2id choice of the small ones.
const ARGON2_MEMORY_KIB: u32 = 19_456;
/// Passes over it.
const ARGON2_PASSES: u32 = 2;
/// Lanes.
const ARGON2_LANES: u32 = 1;
/// Hashes computed at the same time.
const HASHES_AT_ONCE_MAX: usize = 4;
/// Callers that compute or wait.
const CALLERS_MAX: usize = 128;
/// Longest password that is looked at.
const PASSWORD_BYTES_MAX: usize = 1024;

/// Why a password was not hashed or compared.
#[derive(Debug, thiserror::Error)]
pub(super) enum PasswordError {
    /// Too many at once.
    #[error("too many passwords at once")]
    Busy,
    /// The hash failed.
    #[error("cannot hash a password")]
    Hash(#[source] BoxError),
}

/// Hashes passwords.
pub(super) struct Passwords {
    callers: Arc<Semaphore>,
    hashes: Arc<Semaphore>,
    /// The hash of a password that nobody knows: compared with when there is no such person, so that both take the
    /// same time.
    nobody: Arc<str>,
}

impl Passwords {
    pub(super) async fn new() -> Result<Self, PasswordError> {
        let mut passwords = Self {
            callers: Arc::new(Semaphore::new(CALLERS_MAX)),
            hashes: Arc::new(Semaphore::new(HASHES_AT_ONCE_MAX)),
            nobody: Arc::from(""),
        };
        let random =
            secret::random_bytes::<32>().map_err(|error| PasswordError::Hash(error.into()))?;
        passwords.nobody = passwords.hash(secret::hex(&random)).await?.into();
        Ok(passwords)
    }

    /// The hash of a password, in PHC form, with a salt of its own.
    pub(super) async fn hash(&self, password: String) -> Result<String, PasswordError> {
        self.off_runtime(move || {
            let hash = argon2()?.hash_password(password.as_bytes())?;
            Ok(hash.to_string())
        })
        .await
    }

    /// Whether a password has this hash; without a hash it takes the same time and is not.
    pub(super) async fn matches(
        &self,
        password: String,
        hash: Option<String>,
    ) -> Result<bool, PasswordError> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Ok(false);
        }
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.nobody.to_string());
        let same = self
            .off_runtime(move || {
                let hash = PasswordHash::new(&hash)?;
                Ok(argon2()?
                    .verify_password(password.as_bytes(), &hash)
                    .is_ok())
            })
            .await?;
        Ok(same && known)
    }

    async fn off_runtime<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, argon2::password_hash::Error> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let caller = self.callers.clone().try_acquire_owned();
        let _caller = caller.map_err(|_| PasswordError::Busy)?;
        let permit = self.hashes.clone().acquire_owned().await;
        let permit = permit.map_err(|_| PasswordError::Busy)?;
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        })
        .await
        .map_err(|error| PasswordError::Hash(error.into()))?
        .map_err(|error| PasswordError::Hash(error.to_string().into()))
    }
}

fn argon2() -> Result<Argon2<'static>, argon2::password_hash::Error> {
    let params = Params::new(ARGON2_MEMORY_KIB, ARGON2_PASSES, ARGON2_LANES, None)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_matches_its_own_hash_only() {
        let passwords = Passwords::new().await.unwrap();
        let hash = passwords.hash("correct horse".to_owned()).await.unwrap();
        assert!(
            hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{hash}"
        );
        let matches = |password: &str, hash: Option<&String>| {
            passwords.matches(password.to_owned(), hash.cloned())
        };
        assert!(matches("correct horse", Some(&hash)).await.unwrap());
        assert!(!matches("wrong horse", Some(&hash)).await.unwrap());
        assert!(!matches("correct horse", None).await.unwrap());
        let again = passwords.hash("correct horse".to_owned()).await.unwrap();
        assert_ne!(hash, again);
    }
}
