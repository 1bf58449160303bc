//! Asks for scans at once.
//!
//! A request is a key, and its count the revision that wrote it: it only grows, over restarts too. Holders learn it
//! with their grants.

use std::collections::{HashMap, HashSet};

use tidegate_proto::{Invalid, v1};

use super::{Ledger, scopes::holder_of};
use crate::{
    keys,
    record::{MarkRecord, encode},
    store::StoreUnavailable,
};

/// Scopes that one request may name.
const SCOPES_MAX: usize = 10_000;

/// Why no scan was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RescanError {
    /// Too many scopes are named.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The store does not answer.
    #[error(transparent)]
    Unavailable(#[from] StoreUnavailable),
}

/// The counts of one group's scopes.
#[derive(Debug, Default)]
pub(super) struct Rescans {
    all: u64,
    scopes: HashMap<String, u64>,
}

impl Rescans {
    /// The count of one scope.
    pub(super) fn of(&self, scope_id: &str) -> u64 {
        let own = self.scopes.get(scope_id).copied().unwrap_or_default();
        own.max(self.all)
    }
}

impl Ledger {
    /// Asks the holders of scopes, or of all when none is named, to scan them now; gives how many will.
    pub(crate) async fn rescan(
        &self,
        request: v1::RequestRescanRequest,
    ) -> Result<u32, RescanError> {
        if request.scope_ids.len() > SCOPES_MAX {
            let problem = format!("are more than {SCOPES_MAX}");
            return Err(Invalid::new("scope_ids", problem).into());
        }
        let mut held: Vec<String> = self
            .read_all(keys::SCOPE_HOLDERS)
            .await?
            .iter()
            .filter_map(|entry| holder_of(entry).scope)
            .map(|scope| scope.id)
            .collect();
        if request.scope_ids.is_empty() {
            self.commit_each(&[keys::rescan_all()], |txn, key| {
                txn.put(key.clone(), encode(&MarkRecord {}))
            })
            .await?;
        } else {
            let asked: HashSet<String> = request.scope_ids.into_iter().collect();
            held.retain(|id| asked.contains(id));
            self.ask_for(&held).await?;
        }
        Ok(u32::try_from(held.len()).unwrap_or(u32::MAX))
    }

    /// Asks for scans of these scopes, each named once.
    pub(super) async fn ask_for(&self, scope_ids: &[String]) -> Result<(), StoreUnavailable> {
        self.commit_each(scope_ids, |txn, id| {
            txn.put(keys::rescan(id), encode(&MarkRecord {}))
        })
        .await
        .map(drop)
    }

    /// The counts of a group's scopes.
    pub(super) async fn rescans(&self, group: &str) -> Result<Rescans, StoreUnavailable> {
        let all = self.store.get(keys::rescan_all()).await?;
        let entries = self.read_all(keys::of_group(keys::RESCANS, group)).await?;
        let scopes = entries.iter().filter_map(|entry| {
            let id = keys::name_under(keys::RESCANS, &entry.key)?;
            Some((id.to_owned(), entry.modified))
        });
        Ok(Rescans {
            all: all.map_or(0, |entry| entry.modified),
            scopes: scopes.collect(),
        })
    }
}
