//! Carries out what a scan changes.
//!
//! Invariant: every write is guarded by the holder's epoch, so a worker that lost its scope changes nothing, however
//! late its stream arrives; by the scope's record, so that no other scan of the same epoch comes between, whichever
//! instance took it; and by the revision of each database that planning saw. A guard that fails means that somebody was
//! first: the plan is made again from what is there now.

use std::collections::HashMap;

use tidegate_proto::{Invalid, v1};

use super::{
    Header, Ledger, ScanMark,
    plan::{self, Owner, Plan, Seen, Shadowed},
    step::{Fence, FencedRecord, View, steps},
};
use crate::{
    keys,
    record::{HolderRecord, RecordError, ScopeRecord, decode, encode},
    store::{CommitError, StoreUnavailable, Txn},
};

/// How databases are derived from items; raised when the same items would give other databases.
const LEDGER_FORMAT: u32 = 1;
/// Plans made for one scan while others write.
const ATTEMPTS_MAX: usize = 8;

/// Why a scan was not published.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishError {
    /// Others kept writing to the same databases.
    #[error("scope `{scope}` met other writers {ATTEMPTS_MAX} times: publish again")]
    Contended {
        /// The scope.
        scope: String,
    },
    /// What was sent is not a scan.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Another worker holds the scope, or nobody does.
    #[error("scope `{scope}` is not held by epoch {epoch}: {held_by}")]
    NotHolder {
        /// The scope.
        scope: String,
        /// The epoch that was claimed.
        epoch: u64,
        /// Who holds it, for people.
        held_by: String,
    },
    /// What is stored cannot be read.
    #[error("cannot read what is stored of scope `{scope}`")]
    Record {
        /// The scope.
        scope: String,
        /// Why.
        source: RecordError,
    },
    /// A later scan by the same worker, of this life or its next, came first.
    #[error("a later scan of scope `{scope}` has begun")]
    Superseded {
        /// The scope.
        scope: String,
    },
    /// The store does not answer.
    #[error(transparent)]
    Unavailable(#[from] StoreUnavailable),
}

/// What a header led to.
#[derive(Debug)]
pub(crate) enum Begun {
    /// Nothing to do.
    Unchanged(v1::PublishResult),
    /// The items are needed.
    SendItems,
}

impl Ledger {
    /// Looks at a header: whether its sender may publish, and whether the items are needed. Writes nothing.
    pub(crate) async fn begin(
        &self,
        host_id: &str,
        header: &Header,
    ) -> Result<Begun, PublishError> {
        let scope_id = &header.message.id;
        self.check_holder(host_id, header).await?;
        let (record, _) = self.scope_record(scope_id).await?;
        self.begins(header, mark_of(&record));
        let owned = self.inventory.tables().owned.count(scope_id);
        let unchanged = header.complete
            && record.settled_digest == header.digest
            && record.ledger_format == LEDGER_FORMAT
            && record.scope.as_ref() == Some(&header.message)
            && record.failure.is_none()
            && usize::try_from(record.databases).is_ok_and(|databases| databases == owned);
        if !unchanged {
            return Ok(Begun::SendItems);
        }
        self.remember(header);
        self.counters.scan(header.scope.kind, "unchanged");
        Ok(Begun::Unchanged(v1::PublishResult {
            unchanged: true,
            ..v1::PublishResult::default()
        }))
    }

    /// Applies a scan.
    pub(crate) async fn apply(
        &self,
        host_id: &str,
        header: &Header,
        seen: &Seen,
    ) -> Result<v1::PublishResult, PublishError> {
        let mut total = v1::PublishResult::default();
        let mut conflicts = Vec::new();
        for _ in 0..ATTEMPTS_MAX {
            let before = self.scope_record(&header.message.id).await?;
            self.check_latest(header, &before.0)?;
            let (mut plan, owned) = self.plan(header, seen, &before.0).await?;
            let carried_out = self
                .carry_out(
                    header,
                    &mut plan,
                    owned,
                    &before,
                    &mut total,
                    &mut conflicts,
                )
                .await;
            match carried_out {
                Ok(()) => {
                    total.held = count(plan.held.as_ref().map_or(0, |held| held.count));
                    total.shadowed = count(plan.shadowed.len());
                    self.remember(header);
                    self.report(header, &before.0, &plan, &total, &conflicts)
                        .await;
                    return Ok(total);
                }
                Err(CommitError::Unavailable(unavailable)) => return Err(unavailable.into()),
                Err(error) => {
                    tracing::debug!(scope = header.message.id, error = %error, "planning a scan again");
                    self.check_holder(host_id, header).await?;
                    self.catch_up().await?;
                }
            }
        }
        Err(PublishError::Contended {
            scope: header.message.id.clone(),
        })
    }

    /// Of scans of one epoch the one that began last counts: a worker that died and came back keeps its epoch, and what
    /// it sent before may still wait to be looked at.
    ///
    /// Two scans that came to different instances know of each other by the scope's record: whichever writes first is
    /// the only one, and the next scan sees what is there by then.
    fn check_latest(&self, header: &Header, record: &ScopeRecord) -> Result<(), PublishError> {
        let scope = &header.message.id;
        let mark = (header.epoch, header.started_at);
        let written = mark_of(record);
        let memory = self.memory();
        match memory.begun.get(scope) {
            Some(latest) if latest.mark != mark || (written != mark && written != latest.after) => {
                let scope = scope.clone();
                Err(PublishError::Superseded { scope })
            }
            _ => Ok(()),
        }
    }

    /// Plans over what is there now, and counts what the scope owns.
    async fn plan(
        &self,
        header: &Header,
        seen: &Seen,
        before: &ScopeRecord,
    ) -> Result<(Plan, usize), StoreUnavailable> {
        let scope_id = &header.message.id;
        let heirs = match seen {
            Seen::Complete(sightings) => {
                let is_gone = |identity: &str| !sightings.contains_key(identity);
                if !self.gone(scope_id, is_gone).is_empty() {
                    // Other instances may know of scopes that see them.
                    self.scope_records().await?;
                }
                self.heirs(scope_id, &header.scope.group, is_gone).await?
            }
            Seen::Partial(_) => HashMap::new(),
        };
        let held_before = before.held_digest.as_slice().try_into().ok();
        let look = self.inventory.tables();
        let owned = look.owned.count(scope_id);
        let view = View {
            tables: &look,
            heirs: &heirs,
        };
        Ok((plan::plan(&header.scope, &view, seen, held_before), owned))
    }

    async fn check_holder(&self, host_id: &str, header: &Header) -> Result<(), PublishError> {
        let scope = &header.message.id;
        let entry = self.store.get(keys::scope_holder(scope)).await?;
        let held_by = match entry {
            None => "nobody holds it".to_owned(),
            Some(entry) => {
                let holder: HolderRecord =
                    decode(&entry).map_err(|source| PublishError::Record {
                        scope: scope.clone(),
                        source,
                    })?;
                if holder.host_id == host_id && entry.created == header.epoch {
                    return Ok(());
                }
                format!(
                    "{} ({}) holds it with epoch {}",
                    holder.hostname, holder.host_id, entry.created
                )
            }
        };
        Err(PublishError::NotHolder {
            scope: scope.clone(),
            epoch: header.epoch,
            held_by,
        })
    }

    /// What is remembered of a scope, and the revision that wrote it; 0 when nothing is.
    async fn scope_record(&self, scope: &str) -> Result<(ScopeRecord, u64), PublishError> {
        let Some(entry) = self.store.get(keys::scope(scope)).await? else {
            return Ok((ScopeRecord::default(), 0));
        };
        let record = decode(&entry).map_err(|source| PublishError::Record {
            scope: scope.to_owned(),
            source,
        })?;
        Ok((record, entry.modified))
    }

    /// Writes a plan, whose changes it takes out, and in the end what is remembered of the scope.
    async fn carry_out(
        &self,
        header: &Header,
        plan: &mut Plan,
        owned: usize,
        (before, before_revision): &(ScopeRecord, u64),
        total: &mut v1::PublishResult,
        conflicts: &mut Vec<Shadowed>,
    ) -> Result<(), CommitError> {
        let scope_id = &header.message.id;
        let owner = Owner::of(&header.scope);
        let holder = Txn::new().at(keys::scope_holder(scope_id), header.epoch);
        self.memory().shadows.read(before, *before_revision);
        let after = remembered(header, plan, owned, before);
        let steps = steps(&owner, plan);
        // Until all is written nothing is settled: a scan that ends half-way must not leave the digest of an older one.
        let unsettled = ScopeRecord {
            scope: Some(header.message.clone()),
            settled_digest: Vec::new(),
            scan_epoch: header.epoch,
            scan_started_at: header.started_at,
            ..before.clone()
        };
        let mut fenced = FencedRecord {
            scope_id: scope_id.clone(),
            revision: *before_revision,
            record: unsettled.clone(),
        };
        let mut revision = if steps.is_empty() {
            // A scan that changes no database is remembered: it too must be the holder's.
            self.store.commit(fenced.guard(holder.clone())).await?
        } else {
            let fence = Fence::with_record(holder.clone(), fenced.clone());
            let written = self.take(&steps, scope_id, fence, total).await?;
            fenced.revision = written;
            written
        };
        let before = if steps.is_empty() { before } else { &unsettled };
        let shadowed_databases = {
            let mut memory = self.memory();
            let whole = header.complete;
            conflicts.extend(memory.shadows.set(owner, &plan.shadowed, whole));
            memory.shadows.listed(scope_id)
        };
        let record = ScopeRecord {
            shadowed_databases,
            // An instance that takes its first scan of a scope knows no time between two.
            period_seconds: match self.period_of(scope_id).as_secs() {
                0 => before.period_seconds,
                known => u32::try_from(known).unwrap_or(u32::MAX),
            },
            ..after
        };
        if record_differs(before, &record) {
            let txn = fenced.guard(holder);
            let txn = txn.put(keys::scope(scope_id), encode(&record));
            revision = self.store.commit(txn).await?;
            let shadows = &mut self.memory().shadows;
            shadows.wrote(scope_id, fenced.revision, revision);
        }
        self.inventory.reached(revision).await;
        Ok(())
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// What is remembered of a scope after a scan.
fn remembered(header: &Header, plan: &Plan, owned: usize, before: &ScopeRecord) -> ScopeRecord {
    let taken_over = plan
        .updates
        .iter()
        .filter(|update| update.taken_from.is_some())
        .count();
    let given_up = plan.deletes.len() + plan.hand_overs.len();
    let owned = (owned + plan.creates.len() + taken_over).saturating_sub(given_up);
    let settled =
        header.complete && plan.held.is_none() && plan.shadowed.is_empty() && plan.unjudged == 0;
    let (held_digest, held) = match &plan.held {
        Some(held) => (held.digest.to_vec(), count(held.count)),
        None if header.complete => (Vec::new(), 0),
        // A partial scan neither agrees nor disagrees.
        None => (before.held_digest.clone(), before.held),
    };
    ScopeRecord {
        scope: Some(header.message.clone()),
        settled_digest: if settled {
            header.digest.to_vec()
        } else {
            Vec::new()
        },
        ledger_format: LEDGER_FORMAT,
        held_digest,
        held,
        shadowed: count(plan.shadowed.len()),
        databases: count(owned),
        failure: header.failure.clone(),
        last_attempt: header.finished_at,
        last_success: if header.complete {
            header.finished_at
        } else {
            before.last_success
        },
        aws_calls: header.aws_calls,
        scan_epoch: header.epoch,
        scan_started_at: header.started_at,
        ..ScopeRecord::default()
    }
}

/// The scan that wrote a scope's record last.
const fn mark_of(record: &ScopeRecord) -> ScanMark {
    (record.scan_epoch, record.scan_started_at)
}

/// Whether more than the scan, its times and its count of calls changed, which are not worth a write.
fn record_differs(before: &ScopeRecord, after: &ScopeRecord) -> bool {
    let timeless = |record: &ScopeRecord| ScopeRecord {
        last_attempt: None,
        last_success: None,
        aws_calls: 0,
        period_seconds: 0,
        scan_epoch: 0,
        scan_started_at: None,
        ..record.clone()
    };
    timeless(before) != timeless(after)
}
