//! Cancel keys: what a client was told, and what it means to the database.
//!
//! A client gets a number and a secret of ours, never the database's own. Whoever shows both again may ask to stop the
//! statement of that session; the agent then asks the database, with the database's key, over a connection of its own,
//! and only while a statement runs: a late request must not hit the next one.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use tidegate_identity::{IdentityError, secret};
use tidegate_wire::{
    SecretFrame,
    backend::{BackendKeyData, backend_key_data},
    startup::CancelRequest,
};

use crate::wanted::Wanted;

/// Bytes of our secrets: what protocol 3.0 has room for.
const SECRET_BYTES: usize = 4;

/// Numbers are positive as drivers read them: signed, in 32 bits.
const NUMBER_MASK: u32 = 0x7fff_ffff;

/// Tries to find a number that no session has: with 10,000 sessions each misses once in 200,000.
const NUMBER_TRIES_MAX: usize = 8;

/// Why a session gets no cancel key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    /// No random bytes.
    #[error("could not make a cancel key")]
    Random(#[from] IdentityError),
    /// Every number that was tried is taken.
    #[error("could not find a free cancel number in {NUMBER_TRIES_MAX} tries")]
    Taken,
}

/// Where a cancel request goes, and with which key.
#[derive(Clone, Debug)]
pub(crate) struct CancelTarget {
    /// The database.
    pub(crate) wanted: Arc<Wanted>,
    /// The very address that the session is connected to.
    pub(crate) address: SocketAddr,
    /// The database's key.
    pub(crate) key: BackendKeyData,
    /// Whether a statement runs.
    pub(crate) running: Arc<AtomicBool>,
}

impl CancelTarget {
    /// The request that the database understands.
    pub(crate) fn request(&self) -> SecretFrame {
        CancelRequest {
            process_id: self.key.process_id,
            secret: self.key.secret.clone(),
        }
        .encode()
    }
}

#[derive(Debug)]
struct Entry {
    secret: Bytes,
    target: CancelTarget,
}

/// What a cancel request comes to.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Ask the database.
    Cancel(Box<CancelTarget>),
    /// The key is right, and nothing runs.
    NothingRuns,
    /// No session of this agent has that key.
    Unknown,
}

/// The cancel keys of running sessions.
#[derive(Clone, Debug, Default)]
pub(crate) struct CancelRegistry {
    entries: Arc<Mutex<HashMap<u32, Entry>>>,
}

/// A session's cancel key; dropping it makes it worthless.
#[derive(Debug)]
pub(crate) struct CancelKey {
    registry: CancelRegistry,
    number: u32,
    secret: Bytes,
}

impl CancelRegistry {
    /// Makes a key for a session.
    ///
    /// # Errors
    ///
    /// [`KeyError`].
    pub(crate) fn register(&self, target: CancelTarget) -> Result<CancelKey, KeyError> {
        let secret = Bytes::copy_from_slice(&secret::random_bytes::<SECRET_BYTES>()?);
        for _ in 0..NUMBER_TRIES_MAX {
            let number = u32::from_be_bytes(secret::random_bytes()?) & NUMBER_MASK;
            let mut entries = self.lock();
            // Some drivers take 0 for "none".
            if number == 0 || entries.contains_key(&number) {
                continue;
            }
            entries.insert(
                number,
                Entry {
                    secret: secret.clone(),
                    target,
                },
            );
            drop(entries);
            return Ok(CancelKey {
                registry: self.clone(),
                number,
                secret,
            });
        }
        Err(KeyError::Taken)
    }

    /// Judges a request. The secret is compared in constant time.
    pub(crate) fn judge(&self, number: u32, shown: &[u8]) -> Verdict {
        let entries = self.lock();
        match entries.get(&number) {
            Some(entry) if secret::same(&entry.secret, shown) => {
                if entry.target.running.load(Ordering::Acquire) {
                    Verdict::Cancel(Box::new(entry.target.clone()))
                } else {
                    Verdict::NothingRuns
                }
            }
            _ => Verdict::Unknown,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Entry>> {
        // Entries are whole values: a panic elsewhere leaves none half-made.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CancelKey {
    /// The message that tells the client.
    pub(crate) fn frame(&self) -> SecretFrame {
        backend_key_data(self.number, &self.secret)
    }

    /// Number and secret, as a client shows them.
    pub(crate) fn shown(&self) -> (u32, &[u8]) {
        (self.number, &self.secret)
    }
}

impl Drop for CancelKey {
    fn drop(&mut self) {
        self.registry.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::wanted;

    fn target(running: bool) -> CancelTarget {
        CancelTarget {
            wanted: wanted("orders"),
            address: "127.0.0.1:1".parse().unwrap(),
            key: BackendKeyData {
                process_id: 77,
                secret: Bytes::from_static(b"real"),
            },
            running: Arc::new(AtomicBool::new(running)),
        }
    }

    #[test]
    fn the_right_key_cancels_only_while_a_statement_runs() {
        let registry = CancelRegistry::default();
        let running = registry.register(target(true)).unwrap();
        let idle = registry.register(target(false)).unwrap();
        assert!(matches!(
            registry.judge(running.number, &running.secret),
            Verdict::Cancel(_)
        ));
        assert!(matches!(
            registry.judge(idle.number, &idle.secret),
            Verdict::NothingRuns
        ));
    }

    #[test]
    fn a_wrong_secret_is_an_unknown_key() {
        let registry = CancelRegistry::default();
        let key = registry.register(target(true)).unwrap();
        assert!(matches!(
            registry.judge(key.number, b"nope"),
            Verdict::Unknown
        ));
        assert!(matches!(registry.judge(key.number, b""), Verdict::Unknown));
        assert!(matches!(
            registry.judge(key.number.wrapping_add(1), &key.secret),
            Verdict::Unknown
        ));
    }

    #[test]
    fn a_key_is_worthless_after_its_session() {
        let registry = CancelRegistry::default();
        let key = registry.register(target(true)).unwrap();
        let (number, secret) = (key.number, key.secret.clone());
        drop(key);
        assert!(matches!(registry.judge(number, &secret), Verdict::Unknown));
    }

    #[test]
    fn the_client_never_learns_the_databases_key() {
        let registry = CancelRegistry::default();
        let key = registry.register(target(true)).unwrap();
        assert!(!key.frame().windows(4).any(|bytes| bytes == b"real"));
        assert_eq!(key.frame().len(), 13);
    }
}
