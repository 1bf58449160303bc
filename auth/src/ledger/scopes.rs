//! Who may scan a scope.
//!
//! A scope has at most one holder, which keeps it by asking again; [`share`] says whose turn it is. The epoch is the
//! revision that made the holder's key: it only grows, and guards everything that the holder writes.
//!
//! A worker's request says everything that it names in each group of which it names anything: what it held there and
//! leaves out is free at once. A request without scopes speaks for the group that the worker is known to be of, if that
//! is one.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use bytes::Bytes;
use tidegate_core::ScanScope;
use tidegate_proto::{Invalid, v1};

use super::{
    Ledger,
    share::{self, Holding, LiveWorker, Turn},
};
use crate::{
    keys,
    record::{HolderRecord, decode, encode},
    store::{CommitError, Entry, LeaseId, RangeQuery, StoreUnavailable, Txn},
};

/// Scopes that one worker may ask for.
pub(super) const SCOPES_MAX: usize = 10_000;
/// Groups in one request.
const GROUPS_MAX: usize = 16;
/// Longest scope id.
pub(super) const SCOPE_ID_CHARS_MAX: usize = 16 * 1024;
/// Scopes that are handed out or taken back in one transaction.
const SCOPES_PER_TXN_MAX: usize = 400;
/// The part of a lease that workers are not told of, so that one stops before another starts: one in this many.
const LEASE_PARTS: u32 = 6;

/// Why scopes were not handed out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AcquireError {
    /// The worker's lease kept ending, or it asks several times at once.
    #[error("could not keep the worker's lease: ask again, one request at a time")]
    Contended,
    /// What was asked for is not a set of scopes.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A lease could not be kept or a key not written.
    #[error(transparent)]
    Unavailable(#[from] StoreUnavailable),
}

/// The worker that asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Worker<'w> {
    /// Its id.
    pub(crate) host_id: &'w str,
    /// Its name for people.
    pub(crate) hostname: &'w str,
}

/// A scope's holder as it is stored.
pub(super) struct Held {
    /// Who, and what is scanned.
    pub(super) record: HolderRecord,
    /// Since when.
    pub(super) epoch: u64,
}

impl Ledger {
    /// Hands out scopes: those whose turn it is to the caller, its own again, and of the others who holds them.
    pub(crate) async fn acquire(
        &self,
        worker: Worker<'_>,
        scopes: Vec<v1::ScanScope>,
    ) -> Result<v1::AcquireScopesResponse, AcquireError> {
        check(&scopes)?;
        let mut places = HashMap::new();
        let mut groups: BTreeMap<String, Vec<v1::ScanScope>> = BTreeMap::new();
        for scope in scopes {
            let place = places.len();
            if places.insert(scope.id.clone(), place).is_none() {
                groups.entry(scope.group.clone()).or_default().push(scope);
            }
        }
        if groups.len() > GROUPS_MAX {
            let problem = format!("are of more than {GROUPS_MAX} groups");
            return Err(Invalid::new("scopes", problem).into());
        }
        if groups.is_empty()
            && let Some(group) = self.silent_in(worker.host_id).await?
        {
            groups.insert(group, Vec::new());
        }
        let mut grants = Vec::with_capacity(places.len());
        for (group, scopes) in groups {
            grants.extend(self.share(worker, &group, scopes).await?);
        }
        grants.sort_by_key(|grant| places.get(&grant.scope_id).copied());
        Ok(v1::AcquireScopesResponse {
            grants,
            lease_seconds: lease_seconds(self.timings.scope_lease),
        })
    }

    /// Hands out the scopes of one group.
    async fn share(
        &self,
        worker: Worker<'_>,
        group: &str,
        scopes: Vec<v1::ScanScope>,
    ) -> Result<Vec<v1::ScopeGrant>, AcquireError> {
        let lease = self.announce(worker, group, &scopes).await?;
        let live = self.live_in(group).await?;
        let holders = self.holders(group).await?;
        let rescans = self.rescans(group).await?;
        let ids: Vec<String> = scopes.iter().map(|scope| scope.id.clone()).collect();
        let holdings = holders
            .iter()
            .map(|(id, held)| {
                let holding = Holding {
                    host_id: held.record.host_id.clone(),
                    epoch: held.epoch,
                };
                (id.clone(), holding)
            })
            .collect();
        let turns = share::turns(worker.host_id, &ids, &live, &holdings);
        self.take_back(worker, &ids, &turns, &holdings).await?;
        let claimed = self.claim(worker, lease, &scopes, &turns).await?;
        let grants = ids.into_iter().zip(turns).map(|(id, turn)| {
            let rescan = rescans.of(&id);
            let epoch = match turn {
                Turn::Keep { epoch } => Some(epoch),
                _ => claimed.get(&id).copied(),
            };
            let held_by = match (&turn, epoch) {
                (_, Some(_)) => String::new(),
                (Turn::MoveOn { to: host } | Turn::Wait { on: host }, None) => {
                    let hostname = holders
                        .get(&id)
                        .filter(|held| held.record.host_id == *host)
                        .map(|held| held.record.hostname.as_str());
                    name_of(host, hostname, &live)
                }
                (Turn::Claim | Turn::Keep { .. }, None) => {
                    "another worker, since a moment".to_owned()
                }
            };
            v1::ScopeGrant {
                scope_id: id,
                held: epoch.is_some(),
                epoch: epoch.unwrap_or_default(),
                held_by,
                rescan,
            }
        });
        Ok(grants.collect())
    }

    /// Ends the caller's hold on what it no longer names and on what moves to another worker.
    async fn take_back(
        &self,
        worker: Worker<'_>,
        named: &[String],
        turns: &[Turn],
        holders: &HashMap<String, Holding>,
    ) -> Result<(), StoreUnavailable> {
        let stays: HashSet<&String> = named
            .iter()
            .zip(turns)
            .filter(|(_, turn)| !matches!(turn, Turn::MoveOn { .. }))
            .map(|(id, _)| id)
            .collect();
        let ends: Vec<(&String, u64)> = holders
            .iter()
            .filter(|(id, held)| held.host_id == worker.host_id && !stays.contains(id))
            .map(|(id, held)| (id, held.epoch))
            .collect();
        let ended = self
            .commit_each(&ends, |txn, (id, epoch)| {
                let key = keys::scope_holder(id);
                txn.at(key.clone(), *epoch).delete(key)
            })
            .await?;
        for ((id, _), ended) in ends.iter().zip(ended) {
            if ended.is_some() {
                tracing::info!(
                    scope = id.as_str(),
                    worker = worker.hostname,
                    "a scope was let go"
                );
            }
        }
        Ok(())
    }

    /// Takes the free scopes whose turn is the caller's, and gives their epochs.
    async fn claim(
        &self,
        worker: Worker<'_>,
        lease: LeaseId,
        scopes: &[v1::ScanScope],
        turns: &[Turn],
    ) -> Result<HashMap<String, u64>, StoreUnavailable> {
        let free: Vec<&v1::ScanScope> = scopes
            .iter()
            .zip(turns)
            .filter(|(_, turn)| **turn == Turn::Claim)
            .map(|(scope, _)| scope)
            .collect();
        let epochs = self
            .commit_each(&free, |txn, scope| {
                let key = keys::scope_holder(&scope.id);
                let record = HolderRecord {
                    host_id: worker.host_id.to_owned(),
                    hostname: worker.hostname.to_owned(),
                    scope: Some((*scope).clone()),
                };
                txn.absent(key.clone())
                    .put_with(key, encode(&record), Some(lease))
            })
            .await?;
        let claimed = free.iter().zip(epochs);
        Ok(claimed
            .filter_map(|(scope, epoch)| Some((scope.id.clone(), epoch?)))
            .inspect(|(id, epoch)| {
                tracing::info!(
                    scope = id.as_str(),
                    worker = worker.hostname,
                    epoch,
                    "handed out a scope"
                );
            })
            .collect())
    }

    /// Carries out one guarded change an item, many in a transaction; when one is refused each goes alone. Gives the
    /// revision of each, `None` for what was refused.
    pub(super) async fn commit_each<T: Sync>(
        &self,
        items: &[T],
        add: impl Fn(Txn, &T) -> Txn + Send + Sync,
    ) -> Result<Vec<Option<u64>>, StoreUnavailable> {
        let mut done = Vec::with_capacity(items.len());
        for chunk in items.chunks(SCOPES_PER_TXN_MAX) {
            let together = chunk.iter().fold(Txn::new(), &add);
            match self.store.commit(together).await {
                Ok(revision) => done.extend(chunk.iter().map(|_| Some(revision))),
                Err(CommitError::Unavailable(unavailable)) => return Err(unavailable),
                Err(_) => {
                    for item in chunk {
                        match self.store.commit(add(Txn::new(), item)).await {
                            Ok(revision) => done.push(Some(revision)),
                            Err(CommitError::Unavailable(unavailable)) => return Err(unavailable),
                            Err(_) => done.push(None),
                        }
                    }
                }
            }
        }
        Ok(done)
    }

    /// Who holds the scopes of a group, by scope.
    pub(super) async fn holders(
        &self,
        group: &str,
    ) -> Result<HashMap<String, Held>, StoreUnavailable> {
        let entries = self
            .read_all(keys::of_group(keys::SCOPE_HOLDERS, group))
            .await?;
        let mut holders = HashMap::with_capacity(entries.len());
        for entry in entries {
            let epoch = entry.created;
            let record = holder_of(&entry);
            if let Some(scope) = record.scope.as_ref().filter(|scope| scope.group == group) {
                holders.insert(scope.id.clone(), Held { epoch, record });
            }
        }
        Ok(holders)
    }

    pub(super) async fn read_all(
        &self,
        prefix: impl Into<Bytes>,
    ) -> Result<Vec<Entry>, StoreUnavailable> {
        let mut query = RangeQuery::prefix(prefix);
        let mut entries = Vec::new();
        loop {
            let page = self.store.range(query.clone()).await?;
            query.after = page.entries.last().map(|entry| entry.key.clone());
            entries.extend(page.entries);
            if !page.more {
                return Ok(entries);
            }
        }
    }
}

fn check(scopes: &[v1::ScanScope]) -> Result<(), Invalid> {
    if scopes.len() > SCOPES_MAX {
        let problem = format!("are more than {SCOPES_MAX}");
        return Err(Invalid::new("scopes", problem));
    }
    for scope in scopes {
        if scope.id.len() > SCOPE_ID_CHARS_MAX {
            return Err(Invalid::new("scopes.id", "is too long"));
        }
        ScanScope::try_from(scope.clone())?;
    }
    Ok(())
}

/// The lease as workers are told it: a part shorter than it is, for a slow answer and for clocks that differ.
fn lease_seconds(lease: Duration) -> u32 {
    let told = lease.saturating_sub(lease / LEASE_PARTS);
    u32::try_from(told.as_secs()).unwrap_or(u32::MAX).max(1)
}

/// Who a stored holder is.
pub(super) fn holder_of(entry: &Entry) -> HolderRecord {
    decode(entry).unwrap_or_else(|error| {
        tracing::error!(error = %error, "cannot read who holds a scope");
        HolderRecord::default()
    })
}

/// A worker's name for people.
pub(super) fn named(hostname: &str, host_id: &str) -> String {
    format!("{hostname} ({host_id})")
}

fn name_of(host_id: &str, hostname: Option<&str>, live: &[LiveWorker]) -> String {
    let of_live = || {
        live.iter()
            .find(|worker| worker.host_id == host_id)
            .map(|worker| worker.hostname.as_str())
    };
    named(hostname.or_else(of_live).unwrap_or_default(), host_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_stop_before_their_lease_ends() {
        assert_eq!(lease_seconds(Duration::from_secs(30)), 25);
        assert_eq!(lease_seconds(Duration::from_millis(500)), 1);
    }
}
