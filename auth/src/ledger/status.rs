//! What is known of each scope.

use std::collections::BTreeMap;

use prost::Message as _;
use tidegate_proto::{Invalid, convert::timestamp, v1};
use tidegate_service::rpc::MESSAGE_BYTES_MAX;

use super::{
    Ledger, Memory,
    scopes::{holder_of, named},
};
use crate::{
    inventory::page,
    keys,
    record::{HolderRecord, ScopeRecord, decode},
    store::{Entry, StoreUnavailable},
};

/// Most scopes in one page.
const PAGE_SCOPES_MAX: usize = 1_000;
/// Size from which a page takes no further scope: well within a message, also when selectors and failures are long.
const PAGE_BYTES_MAX: usize = MESSAGE_BYTES_MAX / 2;
/// What page tokens of this listing are bound to.
const PAGES_OF: &str = "scopes";
/// Shadowed databases in one listing, over all scopes.
const SHADOWED_TOLD_MAX: usize = 5000;

impl Ledger {
    /// What is known of each scope, in order of id: a page of it, and where the next one starts.
    pub(crate) async fn list_scopes(
        &self,
        request: &v1::ListScopesRequest,
    ) -> Result<v1::ListScopesResponse, ListScopesError> {
        let after = page::read(PAGES_OF, &request.page_token)?;
        let size = match request.page_size as usize {
            0 => PAGE_SCOPES_MAX,
            asked => asked.min(PAGE_SCOPES_MAX),
        };
        let mut scopes = self.statuses().await?;
        let start = after.map_or(0, |after| {
            scopes.partition_point(|status| id_of(status) <= after.as_str())
        });
        scopes.drain(..start);
        let end = page_end(&scopes, size);
        let next_page_token = if scopes.len() > end {
            scopes.truncate(end);
            scopes
                .last()
                .map(|last| page::token(PAGES_OF, id_of(last)))
                .unwrap_or_default()
        } else {
            String::new()
        };
        Ok(v1::ListScopesResponse {
            scopes,
            next_page_token,
        })
    }

    async fn statuses(&self) -> Result<Vec<v1::ScopeStatus>, StoreUnavailable> {
        let mut known = BTreeMap::new();
        for record in self.scope_records().await? {
            let id = record.scope.as_ref().map(|scope| scope.id.clone());
            known.insert(id.unwrap_or_default(), status(record));
        }
        for entry in self.read_all(keys::SCOPE_HOLDERS).await? {
            let holder = holder_of(&entry);
            let id = holder
                .scope
                .as_ref()
                .map(|scope| scope.id.clone())
                .unwrap_or_default();
            let status = known.entry(id).or_default();
            held(status, holder, entry.created);
        }
        let memory = self.memory();
        let mut room = SHADOWED_TOLD_MAX;
        for (id, status) in &mut known {
            memory.complete(id, status);
            status.shadowed.truncate(room);
            room -= status.shadowed.len();
        }
        Ok(known.into_values().collect())
    }

    /// Adds what this instance alone knows of a scope: its last scan, and when it retires.
    pub(crate) fn complete_status(&self, id: &str, status: &mut v1::ScopeStatus) {
        self.memory().complete(id, status);
    }

    /// The stored records of all scopes that can be read. What other instances wrote of shadows is taken in.
    pub(super) async fn scope_records(&self) -> Result<Vec<ScopeRecord>, StoreUnavailable> {
        let entries = self.read_all(keys::SCOPES).await?;
        let read = entries.iter().filter_map(|entry| {
            let record = decode::<ScopeRecord>(entry)
                .inspect_err(|error| {
                    tracing::error!(error = %error, "left out a stored scope that cannot be read");
                })
                .ok()?;
            Some((record, entry.modified))
        });
        let read: Vec<(ScopeRecord, u64)> = read.collect();
        let shadows = &mut self.memory().shadows;
        for (record, revision) in &read {
            shadows.read(record, *revision);
        }
        Ok(read.into_iter().map(|(record, _)| record).collect())
    }
}

impl Memory {
    fn complete(&self, id: &str, status: &mut v1::ScopeStatus) {
        if let Some(attempt) = self.attempts.get(id) {
            status.last_attempt = attempt.finished_at;
            status.aws_calls = attempt.aws_calls;
            status.left_out.clone_from(&attempt.left_out);
            status.failure.clone_from(&attempt.failure);
            if attempt.complete {
                status.last_success = attempt.finished_at;
            }
        }
        let shadowed = self.shadows.listed(id);
        if !shadowed.is_empty() {
            status.shadowed = shadowed;
        }
        status.retires_at = self.retiring.get(id).copied().map(timestamp);
    }
}

/// A scope as its record tells, and who holds it as its holder's record tells; whichever there is.
pub(crate) fn stored_status(scope: Option<&Entry>, holder: Option<&Entry>) -> v1::ScopeStatus {
    let record = scope.and_then(|entry| {
        decode::<ScopeRecord>(entry)
            .inspect_err(|error| {
                tracing::error!(error = %error, "left out a stored scope that cannot be read");
            })
            .ok()
    });
    let mut told = record.map(status).unwrap_or_default();
    if let Some(entry) = holder {
        held(&mut told, holder_of(entry), entry.created);
    }
    told
}

/// Adds who holds it.
fn held(status: &mut v1::ScopeStatus, holder: HolderRecord, epoch: u64) {
    status.held_by = named(&holder.hostname, &holder.host_id);
    status.epoch = epoch;
    status.scope = status.scope.take().or(holder.scope);
}

/// Why scopes were not listed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListScopesError {
    /// The page token is none of this listing.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The store does not answer.
    #[error(transparent)]
    Unavailable(#[from] StoreUnavailable),
}

/// How many of the scopes make a page; one at least, so that a listing always goes on.
fn page_end(scopes: &[v1::ScopeStatus], size: usize) -> usize {
    let mut bytes = 0;
    let fits = |status: &&v1::ScopeStatus| {
        bytes += status.encoded_len();
        bytes <= PAGE_BYTES_MAX
    };
    scopes.iter().take(size).take_while(fits).count().max(1)
}

fn id_of(status: &v1::ScopeStatus) -> &str {
    status.scope.as_ref().map_or("", |scope| &scope.id)
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
        shadowed: record.shadowed_databases,
        held_deletions: record.held,
        retires_at: None,
        left_out: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes(count: usize, message_chars: usize) -> Vec<v1::ScopeStatus> {
        let failure = v1::ScanFailure {
            message: "x".repeat(message_chars),
            ..v1::ScanFailure::default()
        };
        let status = v1::ScopeStatus {
            failure: Some(failure),
            ..v1::ScopeStatus::default()
        };
        vec![status; count]
    }

    #[test]
    fn a_page_ends_with_its_scopes_or_its_bytes_and_is_never_empty() {
        assert_eq!(page_end(&scopes(30, 10), 20), 20);
        assert_eq!(page_end(&scopes(5, 10), 20), 5);
        let long = scopes(1_000, 16 * 1024);
        let end = page_end(&long, 1_000);
        let bytes: usize = long[..end].iter().map(prost::Message::encoded_len).sum();
        assert!(
            (100..200).contains(&end) && bytes <= PAGE_BYTES_MAX,
            "{end}"
        );
        assert_eq!(page_end(&scopes(3, PAGE_BYTES_MAX), 20), 1);
    }
}
