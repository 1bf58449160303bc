//! Locks in memory: who and what is shut out now.
//!
//! The store's locks are read anew after each change, when one of them ends, and every [`REREAD_INTERVAL`]; each reading
//! is told to whoever watches. So several instances over one store know each other's locks at once, and a watcher that
//! hears nothing knows that the store was not read either.
//!
//! Invariant: what is kept is a whole reading of the store, and never an older one than before.
//!
//! Not here: what a lock strikes ([`tidegate_core::locks`]); making and removing locks ([`admin`]).

mod admin;

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt as _;
use jiff::Timestamp;
use tidegate_core::{
    Lock,
    locks::{LockFacts, strikes},
};
use tidegate_proto::v1;
use tidegate_service::{clock::SharedClock, rpc::Backoff, tasks::ShutdownToken};
use tokio::{
    sync::watch as cell,
    time::{MissedTickBehavior, interval},
};

use crate::{
    keys,
    record::{RecordError, decode},
    store::{Entry, RangeQuery, Store, StoreUnavailable, Watch, WatchError, Watched},
};

/// Longest time from one reading of the store to the next. Watchers are promised one a minute.
const REREAD_INTERVAL: Duration = Duration::from_secs(30);

/// A lock as the store has it.
#[derive(Clone, Debug, PartialEq)]
struct Stored {
    lock: Lock,
    revision: u64,
}

impl Stored {
    fn read(entry: &Entry) -> Result<Self, RecordError> {
        let message: v1::Lock = decode(entry)?;
        let lock = Lock::try_from(message).map_err(|invalid| RecordError::Unusable {
            key: String::from_utf8_lossy(&entry.key).into_owned(),
            invalid,
        })?;
        Ok(Self {
            lock,
            revision: entry.modified,
        })
    }

    fn message(&self) -> v1::Lock {
        v1::Lock {
            revision: self.revision,
            ..self.lock.clone().into()
        }
    }
}

/// One reading of the locks.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// The store's revision that was read.
    revision: u64,
    /// In name order, those that have ended included.
    locks: Vec<Stored>,
}

impl Known {
    /// A reading of these.
    #[cfg(test)]
    pub(crate) fn of(locks: impl IntoIterator<Item = Lock>) -> Self {
        let stored = |lock| Stored { lock, revision: 1 };
        Self {
            revision: 1,
            locks: locks.into_iter().map(stored).collect(),
        }
    }

    /// The first lock in force that strikes.
    pub(crate) fn strikes(&self, facts: LockFacts<'_>, now: Timestamp) -> Option<&Lock> {
        strikes(self.locks.iter().map(|stored| &stored.lock), facts, now)
    }

    /// All that were read.
    pub(crate) fn locks(&self) -> impl Iterator<Item = &Lock> {
        self.locks.iter().map(|stored| &stored.lock)
    }

    /// How many are of logins that were ended.
    pub(crate) fn of_logins(&self) -> usize {
        self.locks()
            .filter(|lock| lock.target.is_of_logins())
            .count()
    }

    /// Up to when logins of a person were ended, all or one by one.
    pub(crate) fn logins_ended_until(&self, user: &str) -> Option<Timestamp> {
        self.locks()
            .filter(|lock| lock.target.user.as_deref() == Some(user))
            .filter_map(|lock| lock.target.logins_until)
            .max()
    }

    /// Names of those on one login of a person each.
    pub(crate) fn of_one_login(&self, user: &str, most: usize) -> Vec<String> {
        self.locks()
            .filter(|lock| lock.target.user.as_deref() == Some(user) && lock.target.login.is_some())
            .take(most)
            .map(|lock| lock.name.clone())
            .collect()
    }

    /// Those in force that administrators made, as they are listed.
    pub(crate) fn listed(&self, now: Timestamp) -> Vec<v1::Lock> {
        let is_listed =
            |stored: &&Stored| stored.lock.is_in_force(now) && !stored.lock.target.is_of_logins();
        self.locks
            .iter()
            .filter(is_listed)
            .map(Stored::message)
            .collect()
    }

    /// Those in force, as they are sent to who enforces them.
    pub(crate) fn messages(&self, now: Timestamp) -> Vec<v1::Lock> {
        self.locks
            .iter()
            .filter(|stored| stored.lock.is_in_force(now))
            .map(Stored::message)
            .collect()
    }

    /// When the next of them ends.
    fn next_end(&self, now: Timestamp) -> Option<Timestamp> {
        self.locks
            .iter()
            .filter_map(|stored| stored.lock.expires)
            .filter(|end| *end > now)
            .min()
    }
}

/// The locks of the cluster.
pub(crate) struct Locks {
    store: Arc<dyn Store>,
    clock: SharedClock,
    known: cell::Sender<Arc<Known>>,
}

impl Locks {
    /// Reads them for the first time: nobody who is locked gets in while the rest starts.
    ///
    /// # Errors
    ///
    /// [`StoreUnavailable`] when they cannot be read.
    pub(super) async fn open(
        store: Arc<dyn Store>,
        clock: SharedClock,
    ) -> Result<Self, StoreUnavailable> {
        let locks = Self {
            store,
            clock,
            known: cell::Sender::default(),
        };
        locks.read().await?;
        Ok(locks)
    }

    /// The locks as they were read last.
    pub(crate) fn known(&self) -> Arc<Known> {
        self.known.borrow().clone()
    }

    /// The locks now, and after each reading.
    pub(crate) fn watch(&self) -> cell::Receiver<Arc<Known>> {
        self.known.subscribe()
    }

    /// The lock that strikes now, if one does.
    pub(crate) fn struck(&self, facts: LockFacts<'_>) -> Option<Lock> {
        let known = self.known();
        known.strikes(facts, self.clock.now()).cloned()
    }

    /// Keeps them known until shutdown.
    pub(crate) async fn follow(self: Arc<Self>, shutdown: ShutdownToken) {
        let mut backoff = Backoff::new();
        loop {
            let ended = tokio::select! {
                () = shutdown.cancelled() => return,
                ended = self.follow_watch(&mut backoff) => ended,
            };
            let Err(error) = ended;
            tracing::warn!(error = %error, "cannot follow the locks of the state store, starting again");
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(backoff.next()) => {}
            }
        }
    }

    /// Reads the locks whenever there may be something new, until the store fails.
    async fn follow_watch(&self, backoff: &mut Backoff) -> Result<Infallible, WatchError> {
        // From a fresh reading: history before it may be gone.
        self.read().await?;
        let mut watch = self.start_watch().await?;
        backoff.reset();
        let mut reread = interval(REREAD_INTERVAL);
        reread.set_missed_tick_behavior(MissedTickBehavior::Delay);
        reread.reset();
        loop {
            let changed = tokio::select! {
                next = watch.next() => {
                    let next = next.unwrap_or(Err(WatchError::Closed))?;
                    matches!(next, Watched::Batch(_))
                }
                () = self.next_end() => true,
                _ = reread.tick() => true,
            };
            if changed {
                self.read().await?;
            }
        }
    }

    async fn start_watch(&self) -> Result<Watch, WatchError> {
        let after = self.known().revision;
        let prefix = Bytes::from_static(keys::LOCKS.as_bytes());
        self.store.watch(prefix, after).await
    }

    /// Waits until some lock ends; for ever when none does.
    async fn next_end(&self) {
        match self.known().next_end(self.clock.now()) {
            Some(end) => self.clock.wait_until(end).await,
            None => std::future::pending().await,
        }
    }

    /// Reads them all, and tells whoever watches.
    pub(super) async fn read(&self) -> Result<(), StoreUnavailable> {
        let mut query = RangeQuery::prefix(keys::LOCKS);
        let mut known = Known::default();
        loop {
            let page = self.store.range(query.clone()).await?;
            if query.after.is_none() {
                known.revision = page.revision;
            }
            for entry in &page.entries {
                match Stored::read(entry) {
                    Ok(stored) => known.locks.push(stored),
                    Err(error) => {
                        tracing::error!(error = %error, "left out a stored lock that cannot be read");
                    }
                }
            }
            if !page.more {
                break;
            }
            query.after = page.entries.last().map(|entry| entry.key.clone());
        }
        self.known.send_if_modified(|now| {
            let is_newer = known.revision >= now.revision;
            if is_newer {
                *now = Arc::new(known);
            }
            is_newer
        });
        Ok(())
    }
}

/// What those who are struck are told.
pub(crate) fn told(lock: &Lock) -> String {
    let mut text = if lock.message.is_empty() {
        "locked by an administrator".to_owned()
    } else {
        format!("locked: {}", lock.message)
    };
    if let Some(end) = lock.expires {
        text.push_str(&format!(" (until {end:.0})"));
    }
    text
}

#[cfg(test)]
mod tests;
