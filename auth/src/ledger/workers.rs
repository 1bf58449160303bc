//! Which discovery workers are alive, and what they name.
//!
//! A worker has one record a group, and one lease for it and for every scope that it holds there: losing it gives up
//! all at once. A worker that names nothing is alive too, as long as it asks: its group is then the one whose
//! configurations it watches.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tidegate_proto::v1;

use super::{
    Ledger,
    scopes::{AcquireError, Worker},
    share::{LiveWorker, MARK_BYTES, ScopeMark, mark},
};
use crate::{
    keys,
    record::{WorkerRecord, decode, encode},
    store::{CommitError, LeaseError, LeaseId, StoreUnavailable, Txn},
};

/// Times that a worker's record is tried to be written while its lease ends.
const ANNOUNCE_ATTEMPTS_MAX: usize = 3;

/// The live workers of each group.
#[derive(Debug, Default)]
pub(super) struct Live {
    groups: BTreeMap<String, Vec<LiveWorker>>,
}

impl Live {
    /// Whether a live worker names the scope.
    pub(super) fn names(&self, group: &str, scope_id: &str) -> bool {
        let mark = mark(scope_id);
        self.of(group)
            .iter()
            .any(|worker| worker.named.contains(&mark))
    }

    /// Whether the group has a live worker.
    pub(super) fn is_alive(&self, group: &str) -> bool {
        !self.of(group).is_empty()
    }

    /// One live worker of a group, for tests.
    #[cfg(test)]
    pub(super) fn with(group: &str, scope_ids: &[&str]) -> Self {
        let worker = LiveWorker {
            named: scope_ids.iter().map(|id| mark(id)).collect(),
            ..LiveWorker::default()
        };
        Self {
            groups: [(group.to_owned(), vec![worker])].into(),
        }
    }

    /// The workers of a group.
    pub(super) fn of(&self, group: &str) -> &[LiveWorker] {
        self.groups.get(group).map_or(&[], Vec::as_slice)
    }
}

/// Which hosts watch the configurations of which groups, by host and group.
#[derive(Clone, Debug, Default)]
pub(super) struct Watchers(Arc<Mutex<HashMap<(String, String), usize>>>);

impl Watchers {
    fn locked(&self) -> MutexGuard<'_, HashMap<(String, String), usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The groups that a host watches.
    fn of(&self, host_id: &str) -> BTreeSet<String> {
        let watched = self.locked();
        let own = watched.keys().filter(|(host, _)| host == host_id);
        own.map(|(_, group)| group.clone()).collect()
    }
}

/// A worker's watch, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Watching {
    watchers: Watchers,
    key: (String, String),
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut watched = self.watchers.locked();
        if let Some(count) = watched.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                watched.remove(&self.key);
            }
        }
    }
}

/// The group that a request without scopes speaks for. Two workers of one process share a host id: then it is the
/// group that is watched and has no record, or nobody can say.
fn group_of_silent(recorded: &BTreeSet<String>, watched: &BTreeSet<String>) -> Option<String> {
    let only = |groups: Vec<&String>| match groups.as_slice() {
        [group] => Some((*group).clone()),
        _ => None,
    };
    only(recorded.union(watched).collect()).or_else(|| only(watched.difference(recorded).collect()))
}

impl Ledger {
    /// Remembers that a host watches the configurations of a group, until the answer is dropped.
    pub(crate) fn watching(&self, host_id: &str, group: &str) -> Watching {
        let key = (host_id.to_owned(), group.to_owned());
        *self.watchers.locked().entry(key.clone()).or_default() += 1;
        Watching {
            watchers: self.watchers.clone(),
            key,
        }
    }

    /// Writes down what a worker names in a group, and keeps its lease; the lease is what its scopes live with.
    pub(super) async fn announce(
        &self,
        worker: Worker<'_>,
        group: &str,
        scopes: &[v1::ScanScope],
    ) -> Result<LeaseId, AcquireError> {
        let key = keys::worker(group, worker.host_id);
        let mut marks: Vec<ScopeMark> = scopes.iter().map(|scope| mark(&scope.id)).collect();
        marks.sort_unstable();
        let value = encode(&WorkerRecord {
            host_id: worker.host_id.to_owned(),
            hostname: worker.hostname.to_owned(),
            group: group.to_owned(),
            scopes: marks.concat(),
        });
        for _ in 0..ANNOUNCE_ATTEMPTS_MAX {
            if let Some(lease) = self.try_announce(&key, &value).await? {
                return Ok(lease);
            }
        }
        Err(AcquireError::Contended)
    }

    /// `None` when the lease ended meanwhile, or another request of the same worker was first.
    async fn try_announce(
        &self,
        key: &Bytes,
        value: &Bytes,
    ) -> Result<Option<LeaseId>, StoreUnavailable> {
        let entry = self.store.get(key.clone()).await?;
        let (lease, is_new, txn) = match entry {
            Some(entry) if let Some(lease) = entry.lease => {
                match self.store.keep_alive(lease).await {
                    Ok(()) if entry.value == *value => return Ok(Some(lease)),
                    Ok(()) => (lease, false, Txn::new().at(key.clone(), entry.modified)),
                    Err(LeaseError::Gone(lease)) => {
                        self.store.revoke(lease).await?;
                        return Ok(None);
                    }
                    Err(LeaseError::Unavailable(unavailable)) => return Err(unavailable),
                }
            }
            _ => {
                let lease = self.store.grant(self.timings.scope_lease).await?;
                (lease, true, Txn::new().absent(key.clone()))
            }
        };
        let txn = txn.put_with(key.clone(), value.clone(), Some(lease));
        match self.store.commit(txn).await {
            Ok(_) => Ok(Some(lease)),
            Err(CommitError::Unavailable(unavailable)) => Err(unavailable),
            Err(_) => {
                if is_new {
                    self.store.revoke(lease).await?;
                }
                Ok(None)
            }
        }
    }

    /// The live workers of one group.
    pub(super) async fn live_in(&self, group: &str) -> Result<Vec<LiveWorker>, StoreUnavailable> {
        let prefix = keys::of_group(keys::WORKERS, group);
        let mut live = self.read_live(prefix).await?;
        Ok(live.groups.remove(group).unwrap_or_default())
    }

    /// The live workers of all groups.
    pub(super) async fn live(&self) -> Result<Live, StoreUnavailable> {
        self.read_live(Bytes::from_static(keys::WORKERS.as_bytes()))
            .await
    }

    async fn read_live(&self, prefix: Bytes) -> Result<Live, StoreUnavailable> {
        let mut live = Live::default();
        for entry in self.read_all(prefix).await? {
            match decode::<WorkerRecord>(&entry) {
                Ok(record) => {
                    let named = record.scopes.as_chunks::<MARK_BYTES>().0;
                    let worker = LiveWorker {
                        host_id: record.host_id,
                        hostname: record.hostname,
                        named: named.iter().copied().collect(),
                    };
                    live.groups.entry(record.group).or_default().push(worker);
                }
                Err(error) => {
                    tracing::error!(error = %error, "left out a stored worker that cannot be read");
                }
            }
        }
        Ok(live)
    }

    /// The group that a request without scopes speaks for, if anybody can say.
    pub(super) async fn silent_in(
        &self,
        host_id: &str,
    ) -> Result<Option<String>, StoreUnavailable> {
        let live = self.live().await?;
        let recorded = live
            .groups
            .into_iter()
            .filter(|(_, workers)| workers.iter().any(|worker| worker.host_id == host_id))
            .map(|(group, _)| group)
            .collect();
        Ok(group_of_silent(&recorded, &self.watchers.of(host_id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_without_scopes_speaks_for_the_one_group_that_it_can_be_of() {
        let groups = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        for (recorded, watched, speaks_for) in [
            (groups(&["a"]), groups(&[]), Some("a")),
            (groups(&[]), groups(&["a"]), Some("a")),
            (groups(&["a"]), groups(&["a"]), Some("a")),
            (groups(&["a"]), groups(&["a", "b"]), Some("b")),
            (groups(&["a", "b"]), groups(&["a", "b"]), None),
            (groups(&[]), groups(&[]), None),
        ] {
            assert_eq!(group_of_silent(&recorded, &watched).as_deref(), speaks_for);
        }
    }
}
