//! Who may scan a scope, and what is known of each.
//!
//! A scope has at most one holder, which keeps its lease by asking again. The epoch is the revision that made the
//! holder's key: it only grows, and guards everything that the holder writes.

use std::{collections::HashSet, time::Duration};

use futures::{StreamExt as _, stream};
use tidegate_core::ScanScope;
use tidegate_proto::{Invalid, v1};

use super::Ledger;
use crate::{
    keys,
    record::{HolderRecord, ScopeRecord, decode, encode},
    store::{CommitError, Entry, LeaseError, RangeQuery, StoreUnavailable, Txn},
};

/// Scopes that one worker may ask for.
const SCOPES_MAX: usize = 10_000;
/// Longest scope id.
const SCOPE_ID_CHARS_MAX: usize = 16 * 1024;
/// Scopes that are asked for at the same time; the store writes them together.
const CLAIMS_AT_ONCE: usize = 64;
/// How much longer a lease lives than workers are told, for a slow answer.
const LEASE_GRACE: Duration = Duration::from_secs(10);

/// Why scopes were not handed out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AcquireError {
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

impl Ledger {
    /// Hands out scopes: free ones to the caller, its own again, and of the others who holds them.
    pub(crate) async fn acquire(
        &self,
        worker: Worker<'_>,
        scopes: Vec<v1::ScanScope>,
    ) -> Result<v1::AcquireScopesResponse, AcquireError> {
        if scopes.len() > SCOPES_MAX {
            let problem = format!("are more than {SCOPES_MAX}");
            return Err(Invalid::new("scopes", problem).into());
        }
        for scope in &scopes {
            if scope.id.len() > SCOPE_ID_CHARS_MAX {
                return Err(Invalid::new("scopes.id", "is too long").into());
            }
            ScanScope::try_from(scope.clone())?;
        }
        let mut named = HashSet::new();
        let once = scopes
            .into_iter()
            .filter(|scope| named.insert(scope.id.clone()));
        let claims: Vec<_> = once.map(|scope| self.claim(worker, scope)).collect();
        let mut grants = Vec::new();
        let mut claims = stream::iter(claims).buffered(CLAIMS_AT_ONCE);
        while let Some(grant) = claims.next().await {
            grants.push(grant?);
        }
        Ok(v1::AcquireScopesResponse {
            grants,
            lease_seconds: u32::try_from(self.scope_lease.as_secs())
                .unwrap_or(u32::MAX)
                .max(1),
        })
    }

    async fn claim(
        &self,
        worker: Worker<'_>,
        scope: v1::ScanScope,
    ) -> Result<v1::ScopeGrant, StoreUnavailable> {
        let key = keys::scope_holder(&scope.id);
        if let Some(entry) = self.store.get(key.clone()).await? {
            let holder = holder_of(&entry);
            if holder.host_id != worker.host_id {
                return Ok(refused(scope.id, &holder));
            }
            if self.keep(&entry).await? {
                return Ok(granted(scope.id, entry.created));
            }
        }
        let lease = self.store.grant(self.scope_lease + LEASE_GRACE).await?;
        let record = HolderRecord {
            host_id: worker.host_id.to_owned(),
            hostname: worker.hostname.to_owned(),
            scope: Some(scope.clone()),
        };
        let claim =
            Txn::new()
                .absent(key.clone())
                .put_with(key.clone(), encode(&record), Some(lease));
        match self.store.commit(claim).await {
            Ok(epoch) => {
                tracing::info!(
                    scope = scope.id,
                    worker = worker.hostname,
                    epoch,
                    "handed out a scope"
                );
                Ok(granted(scope.id, epoch))
            }
            Err(CommitError::Unavailable(unavailable)) => Err(unavailable),
            Err(_) => {
                self.store.revoke(lease).await?;
                let entry = self.store.get(key).await?;
                Ok(refused(
                    scope.id,
                    &entry.as_ref().map(holder_of).unwrap_or_default(),
                ))
            }
        }
    }

    /// Keeps a holder's lease; `false` when it was over, and the key is gone now.
    async fn keep(&self, entry: &Entry) -> Result<bool, StoreUnavailable> {
        let Some(lease) = entry.lease else {
            return Ok(true);
        };
        match self.store.keep_alive(lease).await {
            Ok(()) => Ok(true),
            Err(LeaseError::Gone(lease)) => {
                self.store.revoke(lease).await?;
                Ok(false)
            }
            Err(LeaseError::Unavailable(unavailable)) => Err(unavailable),
        }
    }

    /// What is known of each scope, in order of id.
    pub(crate) async fn list_scopes(&self) -> Result<Vec<v1::ScopeStatus>, StoreUnavailable> {
        let mut known = std::collections::BTreeMap::new();
        for entry in self.read_all(keys::SCOPES).await? {
            match decode::<ScopeRecord>(&entry) {
                Ok(record) => {
                    let id = record.scope.as_ref().map(|scope| scope.id.clone());
                    known.insert(id.unwrap_or_default(), status(record));
                }
                Err(error) => {
                    tracing::error!(error = %error, "left out a stored scope that cannot be read")
                }
            }
        }
        for entry in self.read_all(keys::SCOPE_HOLDERS).await? {
            let holder = holder_of(&entry);
            let id = holder
                .scope
                .as_ref()
                .map(|scope| scope.id.clone())
                .unwrap_or_default();
            let status = known.entry(id).or_insert_with(|| v1::ScopeStatus {
                scope: holder.scope.clone(),
                ..v1::ScopeStatus::default()
            });
            status.held_by = named(&holder);
            status.epoch = entry.created;
        }
        let attempts = self.attempts();
        for (id, status) in &mut known {
            if let Some(attempt) = attempts.get(id) {
                status.last_attempt = attempt.finished_at;
                status.aws_calls = attempt.aws_calls;
                status.failure.clone_from(&attempt.failure);
                if attempt.complete {
                    status.last_success = attempt.finished_at;
                }
            }
        }
        Ok(known.into_values().collect())
    }

    async fn read_all(&self, prefix: &'static str) -> Result<Vec<Entry>, StoreUnavailable> {
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

fn holder_of(entry: &Entry) -> HolderRecord {
    decode(entry).unwrap_or_else(|error| {
        tracing::error!(error = %error, "cannot read who holds a scope");
        HolderRecord::default()
    })
}

fn named(holder: &HolderRecord) -> String {
    format!("{} ({})", holder.hostname, holder.host_id)
}

fn granted(scope_id: String, epoch: u64) -> v1::ScopeGrant {
    v1::ScopeGrant {
        scope_id,
        held: true,
        epoch,
        held_by: String::new(),
    }
}

fn refused(scope_id: String, holder: &HolderRecord) -> v1::ScopeGrant {
    v1::ScopeGrant {
        scope_id,
        held: false,
        epoch: 0,
        held_by: named(holder),
    }
}

fn status(record: ScopeRecord) -> v1::ScopeStatus {
    v1::ScopeStatus {
        scope: record.scope,
        held_by: String::new(),
        epoch: 0,
        last_attempt: record.last_attempt,
        last_success: record.last_success,
        failure: record.failure,
        databases: record.databases,
        aws_calls: record.aws_calls,
    }
}
