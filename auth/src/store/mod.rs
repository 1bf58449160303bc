//! Where the cluster's state is kept: ordered keys, one revision, compare-and-swap, leases, watch.
//!
//! The trait has etcd's semantics, so that the embedded store ([`sqlite`]) and etcd itself ([`etcd`]) can stand in for
//! each other; what both must do is written down as tests in `conformance`.
//!
//! Rules that every implementation keeps:
//! - one revision for the whole store, raised by each transaction that changes something (by one, or by more where
//!   others share the store), and never lowered;
//! - a transaction's guards and changes are one step: nobody sees half of it, and nothing comes between;
//! - a watch gives every change after its revision, in order, once, or ends with an error that says why not;
//! - a lease that is not kept alive takes its keys with it, all in one transaction, and never earlier than its time.
//!
//! Not here: what the keys and values mean ([`crate::keys`], [`crate::record`]).

pub(crate) mod chunks;
#[cfg(test)]
pub(crate) mod conformance;
pub(crate) mod etcd;
pub(crate) mod patience;
pub(crate) mod sqlite;

use std::{fmt, time::Duration};

use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};

/// Most changes in one transaction.
pub(crate) const TXN_OPS_MAX: usize = 1024;
/// Most entries that one range gives.
pub(crate) const RANGE_ENTRIES_MAX: usize = 1000;

/// A boxed source of an error, from whatever keeps the state.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Names a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LeaseId(pub(crate) u64);

/// One key with its value. `Debug` leaves the value out: it may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The key.
    pub(crate) key: Bytes,
    /// The value.
    pub(crate) value: Bytes,
    /// Revision of the transaction that made the key.
    pub(crate) created: u64,
    /// Revision of the last transaction that wrote it.
    pub(crate) modified: u64,
    /// The lease that it lives with.
    pub(crate) lease: Option<LeaseId>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("key", &self.key)
            .field("value_bytes", &self.value.len())
            .field("created", &self.created)
            .field("modified", &self.modified)
            .field("lease", &self.lease)
            .finish()
    }
}

/// What must hold for a transaction to be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Guard {
    /// There is no such key.
    Absent(Bytes),
    /// The key was last written at this revision.
    At(Bytes, u64),
}

impl Guard {
    /// The key that it looks at.
    pub(crate) const fn key(&self) -> &Bytes {
        match self {
            Self::Absent(key) | Self::At(key, _) => key,
        }
    }
}

/// One change of a transaction. `Debug` leaves the value out: it may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Op {
    /// Writes a key; without a lease it lives until deleted.
    Put {
        /// The key.
        key: Bytes,
        /// Its value.
        value: Bytes,
        /// The lease it lives with.
        lease: Option<LeaseId>,
    },
    /// Deletes a key; nothing happens when there is none.
    Delete(Bytes),
}

impl Op {
    /// The key that it changes.
    pub(crate) const fn key(&self) -> &Bytes {
        match self {
            Self::Put { key, .. } | Self::Delete(key) => key,
        }
    }
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { key, value, .. } => write!(f, "Put({key:?}, {} bytes)", value.len()),
            Self::Delete(key) => write!(f, "Delete({key:?})"),
        }
    }
}

/// Guards and changes that are carried out together, or not at all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Txn {
    /// All must hold.
    pub(crate) guards: Vec<Guard>,
    /// Carried out in order; no key twice.
    pub(crate) ops: Vec<Op>,
}

impl Txn {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Only if there is no such key.
    pub(crate) fn absent(mut self, key: Bytes) -> Self {
        self.guards.push(Guard::Absent(key));
        self
    }

    /// Only if the key was last written at this revision.
    pub(crate) fn at(mut self, key: Bytes, revision: u64) -> Self {
        self.guards.push(Guard::At(key, revision));
        self
    }

    /// Writes a key.
    pub(crate) fn put(self, key: Bytes, value: Bytes) -> Self {
        self.put_with(key, value, None)
    }

    /// Writes a key that lives with a lease, if one is given.
    pub(crate) fn put_with(mut self, key: Bytes, value: Bytes, lease: Option<LeaseId>) -> Self {
        self.ops.push(Op::Put { key, value, lease });
        self
    }

    /// Deletes a key.
    pub(crate) fn delete(mut self, key: Bytes) -> Self {
        self.ops.push(Op::Delete(key));
        self
    }

    /// Bytes of all keys and values in it.
    pub(crate) fn bytes(&self) -> usize {
        let guards = self.guards.iter().map(|guard| guard.key().len());
        let ops = self.ops.iter().map(|op| match op {
            Op::Put { key, value, .. } => key.len() + value.len(),
            Op::Delete(key) => key.len(),
        });
        guards.chain(ops).sum()
    }
}

/// A contiguous part of the keys under a prefix.
#[derive(Clone, Debug)]
pub(crate) struct RangeQuery {
    /// Only keys that start with this.
    pub(crate) prefix: Bytes,
    /// Only keys after this one.
    pub(crate) after: Option<Bytes>,
    /// At most this many, and never more than [`RANGE_ENTRIES_MAX`].
    pub(crate) limit: usize,
}

impl RangeQuery {
    /// The first keys under a prefix.
    pub(crate) fn prefix(prefix: impl Into<Bytes>) -> Self {
        Self {
            prefix: prefix.into(),
            after: None,
            limit: RANGE_ENTRIES_MAX,
        }
    }
}

/// What a range read.
#[derive(Clone, Debug)]
pub(crate) struct Range {
    /// In key order.
    pub(crate) entries: Vec<Entry>,
    /// The store's revision that was read.
    pub(crate) revision: u64,
    /// Whether there are more keys after the last.
    pub(crate) more: bool,
}

/// One key's change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// The key.
    pub(crate) key: Bytes,
    /// What it is now; `None` when deleted.
    pub(crate) current: Option<Entry>,
    /// What it was; `None` when it is new.
    pub(crate) previous: Option<Entry>,
}

/// The changes of one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    /// The transaction's revision.
    pub(crate) revision: u64,
    /// In the order they were made; those that the watch asked for, never none.
    pub(crate) changes: Vec<Change>,
}

/// What a watch gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Watched {
    /// A transaction's changes.
    Batch(Batch),
    /// Everything up to this revision has been given; what follows is new. Comes once when history has been given in
    /// full, and again when a range, or a commit that changed nothing, told a revision that no change of ours has:
    /// whoever is told a revision can wait for a watch to reach it.
    CaughtUp(u64),
}

/// A running watch; ends after its first error.
pub(crate) type Watch = BoxStream<'static, Result<Watched, WatchError>>;

/// The store cannot be read or written now.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} the state store")]
pub(crate) struct StoreUnavailable {
    /// What was tried: `read`, `write`.
    pub(crate) action: &'static str,
    /// Why it failed.
    pub(crate) source: BoxError,
}

/// Why a transaction was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommitError {
    /// A guard did not hold: somebody else was first. Read again and decide again.
    #[error("key `{}` was changed by someone else", .key.escape_ascii())]
    Conflict {
        /// The guard's key.
        key: Bytes,
    },
    /// A key is written to twice in one transaction, which is a fault of ours.
    #[error("key `{}` is changed twice in one transaction", .key.escape_ascii())]
    Duplicate {
        /// The key.
        key: Bytes,
    },
    /// The lease has expired.
    #[error("lease {} is gone", .lease.0)]
    LeaseGone {
        /// The lease.
        lease: LeaseId,
    },
    /// More than [`TXN_OPS_MAX`] changes, which is a fault of ours.
    #[error("a transaction may have at most {TXN_OPS_MAX} changes, not {ops}")]
    TooLarge {
        /// How many there were.
        ops: usize,
    },
    /// More bytes than the store takes in one transaction: nothing was changed, and fewer changes at a time help.
    #[error("a transaction of {bytes} bytes is more than the state store takes at once")]
    TooLong {
        /// Bytes of its keys and values.
        bytes: usize,
        /// What the store said.
        source: BoxError,
    },
    /// The store does not answer. It may have carried the transaction out all the same: read before trying again.
    #[error(transparent)]
    Unavailable(#[from] StoreUnavailable),
}

/// Why a lease could not be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LeaseError {
    /// It has expired or was revoked.
    #[error("lease {} is gone", .0.0)]
    Gone(LeaseId),
    /// The store does not answer.
    #[error(transparent)]
    Unavailable(#[from] StoreUnavailable),
}

/// Why keys cannot be read as they were.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PastError {
    /// History up to this revision is gone.
    #[error("history up to revision {compacted} is gone")]
    Compacted {
        /// The last revision that is gone.
        compacted: u64,
    },
    /// The store has not reached the revision.
    #[error("the store has not reached revision {asked}")]
    Future {
        /// What was asked for.
        asked: u64,
    },
    /// The store does not answer.
    #[error(transparent)]
    Unavailable(#[from] StoreUnavailable),
}

/// Why a watch ended, or did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WatchError {
    /// The revision is one that the store has not reached: it is of another store, or of a later backup.
    #[error("revision {asked} is after the store's own, {current}")]
    Ahead {
        /// What was asked for.
        asked: u64,
        /// What the store has.
        current: u64,
    },
    /// The store was closed.
    #[error("the state store was closed")]
    Closed,
    /// History before this revision is gone: list again.
    #[error("history up to revision {compacted} is gone")]
    Compacted {
        /// The last revision that is gone.
        compacted: u64,
    },
    /// The watcher did not read fast enough: resume after the last revision it saw.
    #[error("the watcher was too slow and missed changes")]
    Lagged,
    /// The store does not answer.
    #[error(transparent)]
    Unavailable(#[from] StoreUnavailable),
}

/// The cluster's state.
pub(crate) trait Store: Send + Sync + 'static {
    /// Reads one key.
    fn get(&self, key: Bytes) -> BoxFuture<'_, Result<Option<Entry>, StoreUnavailable>>;

    /// Reads keys in order.
    fn range(&self, query: RangeQuery) -> BoxFuture<'_, Result<Range, StoreUnavailable>>;

    /// Reads keys in order, as they were at a revision; [`Range::revision`] is that one. So many pages show one state.
    fn range_at(&self, query: RangeQuery, revision: u64)
    -> BoxFuture<'_, Result<Range, PastError>>;

    /// Carries out a transaction and gives its revision; the store's own when nothing changed.
    fn commit(&self, txn: Txn) -> BoxFuture<'_, Result<u64, CommitError>>;

    /// Makes a lease that lives this long from now and from each time that it is kept alive.
    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId, StoreUnavailable>>;

    /// Gives a lease its full time again.
    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), LeaseError>>;

    /// How long a lease still lives if nobody keeps it alive; `None` when it is gone.
    fn time_left(
        &self,
        lease: LeaseId,
    ) -> BoxFuture<'_, Result<Option<Duration>, StoreUnavailable>>;

    /// Ends a lease now and deletes its keys, in one transaction. Nothing happens when it is gone already.
    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreUnavailable>>;

    /// Gives every change of keys under a prefix after a revision: history first, then what is new.
    fn watch(&self, prefix: Bytes, after: u64) -> BoxFuture<'_, Result<Watch, WatchError>>;
}
