//! Makes a store the same as a backup, in one walk over the keys of both.
//!
//! [`step`] is pure; [`Merge`] reads and writes.

use std::{cmp::Ordering, collections::VecDeque, time::Duration};

use bytes::Bytes;
use jiff::Timestamp;
use tidegate_proto::{convert, v1::BackupEntry};

use super::{
    kept::{Kept, carried_over, kept},
    spool::{self, Entries},
};
use crate::{
    backup::restore::RestoreError,
    keys,
    store::{Entry, Op, RangeQuery, Store, StoreUnavailable, TXN_OPS_MAX, Txn, chunks::Chunks},
};

/// Bytes of changes that are collected before they are written.
const WRITE_BYTES: usize = 512 * 1024;
/// Shortest life of what is about to end.
const LIFE_MIN: Duration = Duration::from_secs(1);

/// What a walk did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) entries: u64,
    pub(super) written: u64,
    pub(super) deleted: u64,
    pub(super) expired: u64,
}

/// A key as it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    key: Bytes,
    value: Bytes,
    expires_at: Option<Timestamp>,
}

/// What to do about the next key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It is there and not wanted.
    Delete,
    /// There is nothing more.
    Done,
    /// It is there, and no business of a backup.
    Leave,
    /// It is wanted, and not there at all.
    New,
    /// It is wanted, and something else is there.
    Replace,
    /// It is there as it is wanted.
    Same,
}

fn step(there: Option<&Entry>, wanted: Option<&Wanted>) -> Step {
    let (there, wanted) = match (there, wanted) {
        (None, None) => return Step::Done,
        (None, Some(_)) => return Step::New,
        (Some(there), None) => return not_wanted(there),
        (Some(there), Some(wanted)) => (there, wanted),
    };
    match there.key.cmp(&wanted.key) {
        Ordering::Less => not_wanted(there),
        Ordering::Greater => Step::New,
        Ordering::Equal
            if there.value == wanted.value
                && there.lease.is_some() == wanted.expires_at.is_some() =>
        {
            Step::Same
        }
        Ordering::Equal => Step::Replace,
    }
}

fn not_wanted(there: &Entry) -> Step {
    match kept(there) {
        Kept::Never => Step::Leave,
        Kept::Always | Kept::Lease(_) => Step::Delete,
    }
}

/// The store's keys, a page at a time.
struct There {
    ready: VecDeque<Entry>,
    query: Option<RangeQuery>,
}

impl There {
    async fn peek(&mut self, store: &dyn Store) -> Result<Option<&Entry>, StoreUnavailable> {
        while self.ready.is_empty() {
            let Some(mut query) = self.query.take() else {
                return Ok(None);
            };
            let page = store.range(query.clone()).await?;
            query.after = page.entries.last().map(|entry| entry.key.clone());
            self.query = page.more.then_some(query);
            self.ready = page.entries.into();
        }
        Ok(self.ready.front())
    }
}

/// The backup's keys that have not ended.
struct Backup {
    ready: VecDeque<Wanted>,
    /// `None` when all was read.
    entries: Option<Entries>,
    now: Timestamp,
}

impl Backup {
    async fn peek(&mut self, tally: &mut Tally) -> Result<Option<&Wanted>, RestoreError> {
        while self.ready.is_empty() {
            let Some(entries) = self.entries.take() else {
                return Ok(None);
            };
            let (entries, batch) = spool::batch(entries).await?;
            self.entries = (!batch.is_empty()).then_some(entries);
            for entry in batch {
                tally.entries += 1;
                let wanted = wanted(entry);
                if wanted.expires_at.is_some_and(|end| end <= self.now) {
                    tally.expired += 1;
                } else {
                    self.ready.push_back(wanted);
                }
            }
        }
        Ok(self.ready.front())
    }
}

fn wanted(entry: BackupEntry) -> Wanted {
    let key = Bytes::from(entry.key);
    Wanted {
        value: carried_over(&key, entry.value.into()),
        // The reader refuses an end that is no time.
        expires_at: entry.expires_at.and_then(|at| convert::instant(&at).ok()),
        key,
    }
}

/// One walk.
pub(super) struct Merge<'m> {
    store: &'m dyn Store,
    /// The marker's revision: nothing is written any more once it is another.
    marker: u64,
    there: There,
    backup: Backup,
    tally: Tally,
    ops: Vec<Op>,
    bytes: usize,
}

impl<'m> Merge<'m> {
    /// Not begun.
    pub(super) fn new(store: &'m dyn Store, marker: u64, entries: Entries, now: Timestamp) -> Self {
        Self {
            store,
            marker,
            there: There {
                ready: VecDeque::new(),
                query: Some(RangeQuery::prefix("")),
            },
            backup: Backup {
                ready: VecDeque::new(),
                entries: Some(entries),
                now,
            },
            tally: Tally::default(),
            ops: Vec::new(),
            bytes: 0,
        }
    }

    /// Walks to the end; what is the same already is not written.
    pub(super) async fn run(mut self) -> Result<Tally, RestoreError> {
        loop {
            let wanted = self.backup.peek(&mut self.tally).await?;
            let there = self.there.peek(self.store).await?;
            let step = step(there, wanted);
            let there = match step {
                Step::New | Step::Done => None,
                Step::Delete | Step::Leave | Step::Replace | Step::Same => {
                    self.there.ready.pop_front()
                }
            };
            let wanted = match step {
                Step::Delete | Step::Leave | Step::Done => None,
                Step::New | Step::Replace | Step::Same => self.backup.ready.pop_front(),
            };
            match (step, there, wanted) {
                (Step::Done, ..) => break,
                (Step::New | Step::Replace, _, Some(wanted)) => self.put(wanted).await?,
                (Step::Delete, Some(there), _) => {
                    self.tally.deleted += 1;
                    self.change(Op::Delete(there.key)).await?;
                }
                _ => {}
            }
        }
        self.write().await?;
        Ok(self.tally)
    }

    async fn put(&mut self, wanted: Wanted) -> Result<(), RestoreError> {
        let lease = match wanted.expires_at {
            None => None,
            Some(end) => {
                let left = Duration::try_from(end.duration_since(self.backup.now));
                let left = left.unwrap_or(LIFE_MIN).max(LIFE_MIN);
                Some(self.store.grant(left).await?)
            }
        };
        self.tally.written += 1;
        let Wanted { key, value, .. } = wanted;
        self.change(Op::Put { key, value, lease }).await
    }

    async fn change(&mut self, op: Op) -> Result<(), RestoreError> {
        self.bytes += match &op {
            Op::Put { key, value, .. } => key.len() + value.len(),
            Op::Delete(key) => key.len(),
        };
        self.ops.push(op);
        if self.ops.len() >= TXN_OPS_MAX || self.bytes >= WRITE_BYTES {
            self.write().await?;
        }
        Ok(())
    }

    async fn write(&mut self) -> Result<(), RestoreError> {
        self.bytes = 0;
        let ops = std::mem::take(&mut self.ops);
        let mut chunks = Chunks::new(&ops, TXN_OPS_MAX);
        while let Some(chunk) = chunks.next() {
            let mut txn = Txn::new().at(keys::restore(), self.marker);
            txn.ops = chunk.to_vec();
            if let Err(error) = self.store.commit(txn).await {
                chunks.give_back(chunk, error)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::LeaseId;

    fn there(key: &'static str, value: &'static str) -> Entry {
        Entry {
            key: Bytes::from(key),
            value: Bytes::from(value),
            created: 1,
            modified: 1,
            lease: None,
        }
    }

    fn wanted(key: &'static str, value: &'static str) -> Wanted {
        Wanted {
            key: Bytes::from(key),
            value: Bytes::from(value),
            expires_at: None,
        }
    }

    #[test]
    fn the_lower_key_comes_first_and_what_is_the_same_is_left() {
        let (b1, b2) = (there("/b", "1"), wanted("/b", "2"));
        assert_eq!(step(None, None), Step::Done);
        assert_eq!(step(None, Some(&b2)), Step::New);
        assert_eq!(step(Some(&there("/c", "")), Some(&b2)), Step::New);
        assert_eq!(step(Some(&b1), None), Step::Delete);
        assert_eq!(step(Some(&b1), Some(&wanted("/c", ""))), Step::Delete);
        assert_eq!(step(Some(&b1), Some(&b2)), Step::Replace);
        assert_eq!(step(Some(&b1), Some(&wanted("/b", "1"))), Step::Same);
    }

    #[test]
    fn what_lives_with_a_process_is_left_alone() {
        let presence = Entry {
            lease: Some(LeaseId(1)),
            ..there("/presence/h/a", "1")
        };
        assert_eq!(step(Some(&presence), None), Step::Leave);
        assert_eq!(step(Some(&there("/restore", "1")), None), Step::Leave);
    }

    #[test]
    fn what_should_end_and_would_not_is_written_again() {
        let ending = Wanted {
            expires_at: Some(Timestamp::UNIX_EPOCH),
            ..wanted("/tokens/a", "1")
        };
        assert_eq!(
            step(Some(&there("/tokens/a", "1")), Some(&ending)),
            Step::Replace
        );
    }
}
