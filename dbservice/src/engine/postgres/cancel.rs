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
use tidegate_proto::v1::CancelElsewhere;
use tidegate_wire::{
    SecretFrame,
    backend::{BackendKeyData, backend_key_data},
    startup::CancelRequest,
};
use tokio::sync::mpsc;

use crate::wanted::Wanted;

/// Bytes of our secrets: what protocol 3.0 has room for.
const SECRET_BYTES: usize = 4;

/// Bits of a number that count an agent's own sessions; the upper 13 of 31 name the agent, so that a proxy asks only that
/// one. Numbers are positive as drivers read them: signed, in 32 bits.
const SESSION_BITS: u32 = 18;
const SESSION_MASK: u32 = (1 << SESSION_BITS) - 1;
const PREFIX_MASK: u32 = (1 << 13) - 1;

/// Cancel requests for other agents that wait for a proxy; one more is dropped, and its client may ask again.
const ELSEWHERE_MAX: usize = 64;

/// Tries to find a number that no session has: with 10,000 sessions each misses once in 26.
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
    /// What all numbers of this agent begin with.
    prefix: u32,
    elsewhere: Option<mpsc::Sender<CancelElsewhere>>,
}

/// A session's cancel key; dropping it makes it worthless.
#[derive(Debug)]
pub(crate) struct CancelKey {
    registry: CancelRegistry,
    number: u32,
    secret: Bytes,
}

impl CancelRegistry {
    /// Of a new agent, named at random: other agents hardly ever have the same name, and if they do both are asked.
    ///
    /// What clients of this agent want to cancel at others comes out of the receiver.
    ///
    /// # Errors
    ///
    /// When there are no random bytes.
    pub(crate) fn of_agent() -> Result<(Self, mpsc::Receiver<CancelElsewhere>), IdentityError> {
        let (elsewhere, receiver) = mpsc::channel(ELSEWHERE_MAX);
        let registry = Self {
            entries: Arc::default(),
            prefix: u32::from_be_bytes(secret::random_bytes()?) & PREFIX_MASK,
            elsewhere: Some(elsewhere),
        };
        Ok((registry, receiver))
    }

    /// What all numbers of this agent begin with.
    pub(crate) const fn prefix(&self) -> u32 {
        self.prefix
    }

    /// A client asked here, inside TLS, for what is another agent's: whoever has it is found through a proxy. `false` for
    /// a number that is this agent's.
    pub(crate) fn pass_on(&self, request: &CancelRequest, client_addr: &str) -> bool {
        let is_own = request.process_id >> SESSION_BITS == self.prefix;
        let asked = CancelElsewhere {
            process_id: request.process_id,
            secret: request.secret.to_vec(),
            client_addr: client_addr.to_owned(),
        };
        !is_own
            && self
                .elsewhere
                .as_ref()
                .is_some_and(|elsewhere| elsewhere.try_send(asked).is_ok())
    }

    /// Makes a key for a session.
    ///
    /// # Errors
    ///
    /// [`KeyError`].
    pub(crate) fn register(&self, target: CancelTarget) -> Result<CancelKey, KeyError> {
        let secret = Bytes::copy_from_slice(&secret::random_bytes::<SECRET_BYTES>()?);
        for _ in 0..NUMBER_TRIES_MAX {
            let session = u32::from_be_bytes(secret::random_bytes()?) & SESSION_MASK;
            let number = self.prefix << SESSION_BITS | session;
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
    fn numbers_name_their_agent_and_others_are_passed_on() {
        let (registry, mut elsewhere) = CancelRegistry::of_agent().unwrap();
        let key = registry.register(target(true)).unwrap();
        let (number, _) = key.shown();
        let request = |process_id| CancelRequest {
            process_id,
            secret: Bytes::from_static(b"abcd"),
        };
        assert_eq!(number >> SESSION_BITS, registry.prefix());
        assert!(!registry.pass_on(&request(number), "192.0.2.1:5"));
        assert!(registry.pass_on(&request(number ^ 1 << SESSION_BITS), "192.0.2.1:5"));
        assert_eq!(elsewhere.try_recv().unwrap().client_addr, "192.0.2.1:5");
        assert!(elsewhere.try_recv().is_err());
    }

    #[test]
    fn the_client_never_learns_the_databases_key() {
        let registry = CancelRegistry::default();
        let key = registry.register(target(true)).unwrap();
        assert!(!key.frame().windows(4).any(|bytes| bytes == b"real"));
        assert_eq!(key.frame().len(), 13);
    }
}
