//! Where the last change of every key is in the log: in memory, as etcd keeps its own.
//!
//! The log is only ever appended to, so a transaction writes at one place of the file however far apart its keys are. The
//! index is made from the log when the store opens ([`load`]). The writer changes it after its transaction is on disk;
//! until then what it is about to change is in a [`Draft`], which nobody else sees.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    ops::Bound,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use bytes::Bytes;
use rusqlite::Connection;

use super::{LeaseId, reader};

/// A key's last change, when that was no deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Where it is in the log.
    pub(super) id: u64,
    /// Revision that made the key.
    pub(super) created: u64,
    /// The lease that the key lives with.
    pub(super) lease: Option<LeaseId>,
}

/// The keys that are there.
#[derive(Debug, Default)]
pub(super) struct Heads {
    /// Revision that they are of.
    pub(super) revision: u64,
    by_key: BTreeMap<Bytes, Head>,
    by_lease: HashMap<LeaseId, BTreeSet<Bytes>>,
}

impl Heads {
    /// Where a key is.
    pub(super) fn get(&self, key: &Bytes) -> Option<Head> {
        self.by_key.get(key).copied()
    }

    /// Keys from `start` on that begin with `prefix`, in order.
    pub(super) fn under<'h>(
        &'h self,
        prefix: &'h [u8],
        start: Bound<&'h Bytes>,
    ) -> impl Iterator<Item = (&'h Bytes, Head)> {
        self.by_key
            .range::<Bytes, _>((start, Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(key, head)| (key, *head))
    }

    fn set(&mut self, key: Bytes, head: Option<Head>) {
        let before = match head {
            Some(head) => self.by_key.insert(key.clone(), head),
            None => self.by_key.remove(&key),
        };
        if let Some(lease) = before.and_then(|before| before.lease)
            && let Some(keys) = self.by_lease.get_mut(&lease)
        {
            keys.remove(&key);
            if keys.is_empty() {
                self.by_lease.remove(&lease);
            }
        }
        if let Some(lease) = head.and_then(|head| head.lease) {
            self.by_lease.entry(lease).or_default().insert(key);
        }
    }
}

/// The index. Clones are the same index.
#[derive(Clone, Debug, Default)]
pub(super) struct Index(Arc<RwLock<Heads>>);

impl Index {
    /// A short look; the writer waits while it lasts.
    pub(super) fn look(&self) -> RwLockReadGuard<'_, Heads> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what is on disk now.
    pub(super) fn settle(&self, draft: Draft, revision: u64) {
        let mut heads = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for (key, head) in draft.changed {
            heads.set(key, head);
        }
        heads.revision = revision;
    }
}

/// What the writer's open transaction changes.
#[derive(Debug, Default)]
pub(super) struct Draft {
    changed: HashMap<Bytes, Option<Head>>,
}

impl Draft {
    /// Where a key is, after what was changed so far.
    pub(super) fn get(&self, index: &Index, key: &Bytes) -> Option<Head> {
        match self.changed.get(key) {
            Some(head) => *head,
            None => index.look().get(key),
        }
    }

    /// Changes a key.
    pub(super) fn set(&mut self, key: Bytes, head: Option<Head>) {
        self.changed.insert(key, head);
    }

    /// The keys that live with a lease, in order.
    pub(super) fn of_lease(&self, index: &Index, lease: LeaseId) -> BTreeSet<Bytes> {
        let mut keys = index
            .look()
            .by_lease
            .get(&lease)
            .cloned()
            .unwrap_or_default();
        for (key, head) in &self.changed {
            if head.is_some_and(|head| head.lease == Some(lease)) {
                keys.insert(key.clone());
            } else {
                keys.remove(key);
            }
        }
        keys
    }
}

/// A change that nobody needs once the history before the change `by` is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Superseded {
    /// The change that came after it, or the deletion itself.
    pub(super) by: u64,
    /// The change.
    pub(super) id: u64,
}

/// Reads the log: the index, and what is superseded in order of `by`.
pub(super) fn load(
    connection: &Connection,
    revision: u64,
) -> rusqlite::Result<(Index, VecDeque<Superseded>)> {
    let mut heads = Heads {
        revision,
        ..Heads::default()
    };
    let mut superseded = VecDeque::new();
    let mut statement =
        connection.prepare("SELECT id, key, created, lease, value IS NULL FROM log ORDER BY id")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let id = row.get(0)?;
        let key = reader::blob(row, 1)?.unwrap_or_default();
        if let Some(before) = heads.get(&key) {
            superseded.push_back(Superseded {
                by: id,
                id: before.id,
            });
        }
        if row.get(4)? {
            superseded.push_back(Superseded { by: id, id });
            heads.set(key, None);
        } else {
            let head = Head {
                id,
                created: row.get(2)?,
                lease: row.get::<_, Option<u64>>(3)?.map(LeaseId),
            };
            heads.set(key, Some(head));
        }
    }
    Ok((Index(Arc::new(RwLock::new(heads))), superseded))
}
