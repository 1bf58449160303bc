//! Carries out what a scan changes.
//!
//! Invariant: every write is guarded by the holder's epoch, so a worker that lost its scope changes nothing, however
//! late its stream arrives; and by the revision of each database that planning saw. A guard that fails means that
//! somebody was first: the plan is made again from what is there now.

use tidegate_core::{Database, DatabaseName};
use tidegate_proto::{Invalid, v1};

use super::{
    Header, Ledger,
    plan::{self, Plan, Registered, Seen},
};
use crate::{
    audit::event,
    inventory::tables::{DatabaseRow, Row as _, Tables},
    keys,
    record::{DatabaseRecord, HolderRecord, OwnerRecord, RecordError, ScopeRecord, decode, encode},
    store::{CommitError, RangeQuery, StoreUnavailable, Txn},
};

/// How databases are derived from items; raised when the same items would give other databases.
const LEDGER_FORMAT: u32 = 1;
/// Databases changed in one transaction; each takes two keys.
const CHANGES_PER_TXN_MAX: usize = 400;
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

/// The tables as planning looks at them.
struct View<'v>(&'v Tables);

impl plan::Inventory for View<'_> {
    fn owned_by(&self, scope_id: &str) -> Vec<Registered> {
        let names = self.0.by_scope.get(scope_id).into_iter().flatten();
        names
            .filter_map(|name| self.0.databases.get(name))
            .filter_map(|row| registered(row))
            .collect()
    }

    fn with_identity(&self, identity: &str) -> Option<Registered> {
        let name = self.0.by_identity.get(identity)?;
        self.0.databases.get(name).and_then(|row| registered(row))
    }

    fn has_name(&self, name: &DatabaseName) -> bool {
        self.0.databases.contains_key(name.as_str())
    }
}

fn registered(row: &DatabaseRow) -> Option<Registered> {
    match Database::try_from(row.message()) {
        Ok(database) => Some(Registered {
            database,
            revision: row.revision(),
            scope_id: row.scope_id().to_owned(),
            group: row.group.clone(),
            order: row.order,
        }),
        Err(error) => {
            tracing::error!(database = row.name(), error = %error, "left out a stored database that cannot be used");
            None
        }
    }
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
        let record = self.scope_record(scope_id).await?;
        let owned = self
            .inventory
            .tables()
            .by_scope
            .get(scope_id)
            .map_or(0, |names| names.len());
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
        for _ in 0..ATTEMPTS_MAX {
            let record = self.scope_record(&header.message.id).await?;
            let held_before = record.held_digest.as_slice().try_into().ok();
            let (plan, owned) = {
                let look = self.inventory.tables();
                let owned = look
                    .by_scope
                    .get(&header.message.id)
                    .map_or(0, |names| names.len());
                let plan = plan::plan(&header.scope, &View(&look), seen, held_before);
                (plan, owned)
            };
            match self
                .carry_out(header, &plan, owned, record, &mut total)
                .await
            {
                Ok(()) => {
                    total.held = count(plan.held.as_ref().map_or(0, |held| held.count));
                    total.shadowed = count(plan.shadowed.len());
                    self.remember(header);
                    self.report(header, &plan, &total);
                    return Ok(total);
                }
                Err(CommitError::Unavailable(unavailable)) => return Err(unavailable.into()),
                Err(error) => {
                    tracing::debug!(scope = header.message.id, error = %error, "planning a scan again");
                    self.check_holder(host_id, header).await?;
                    let newest = self.store.range(RangeQuery {
                        limit: 1,
                        ..RangeQuery::prefix(keys::CLUSTER)
                    });
                    self.inventory.reached(newest.await?.revision).await;
                }
            }
        }
        Err(PublishError::Contended {
            scope: header.message.id.clone(),
        })
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

    async fn scope_record(&self, scope: &str) -> Result<ScopeRecord, PublishError> {
        match self.store.get(keys::scope(scope)).await? {
            None => Ok(ScopeRecord::default()),
            Some(entry) => decode(&entry).map_err(|source| PublishError::Record {
                scope: scope.to_owned(),
                source,
            }),
        }
    }

    /// Writes a plan, a bounded number of databases at a time, and in the end what is remembered of the scope.
    async fn carry_out(
        &self,
        header: &Header,
        plan: &Plan,
        owned: usize,
        before: ScopeRecord,
        total: &mut v1::PublishResult,
    ) -> Result<(), CommitError> {
        let mut revision = 0;
        let steps = steps(header, plan);
        for chunk in steps.chunks(CHANGES_PER_TXN_MAX) {
            let txn = chunk
                .iter()
                .fold(self.fenced(header), |txn, step| step.add_to(txn));
            revision = self.store.commit(txn).await?;
            for step in chunk {
                step.count_in(total);
            }
            let events = chunk.iter().map(|step| step.event(header)).collect();
            self.audit.record_all(events).await;
        }
        let record = remembered(header, plan, owned, &before);
        if record_differs(&before, &record) {
            let key = keys::scope(&header.message.id);
            let txn = self.fenced(header).put(key, encode(&record));
            revision = self.store.commit(txn).await?;
        }
        self.inventory.reached(revision).await;
        Ok(())
    }

    /// A transaction that only the scope's holder can carry out.
    fn fenced(&self, header: &Header) -> Txn {
        Txn::new().at(keys::scope_holder(&header.message.id), header.epoch)
    }

    fn report(&self, header: &Header, plan: &Plan, total: &v1::PublishResult) {
        let scope = header.message.id.as_str();
        if let Some(held) = &plan.held {
            tracing::warn!(
                scope,
                held = held.count,
                "a scan would delete many databases: holding until the next complete scan agrees"
            );
        }
        if total.created + total.updated + total.deleted > 0 {
            tracing::info!(
                scope,
                created = total.created,
                updated = total.updated,
                deleted = total.deleted,
                shadowed = total.shadowed,
                "applied a scan"
            );
        }
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// One database's change.
enum Step {
    Create(DatabaseRecord),
    Update(DatabaseRecord, u64, bool),
    Delete(plan::Delete),
}

fn steps(header: &Header, plan: &Plan) -> Vec<Step> {
    let record = |database: &Database| {
        let mut message = v1::Database::from(database.clone());
        message.scope_id.clone_from(&header.message.id);
        DatabaseRecord {
            database: Some(message),
            group: header.scope.group.clone(),
            order: header.scope.order,
        }
    };
    let creates = plan
        .creates
        .iter()
        .map(|database| Step::Create(record(database)));
    let updates = plan
        .updates
        .iter()
        .map(|update| Step::Update(record(&update.database), update.revision, update.takes_over));
    let deletes = plan.deletes.iter().cloned().map(Step::Delete);
    deletes.chain(creates).chain(updates).collect()
}

impl Step {
    fn add_to(&self, txn: Txn) -> Txn {
        match self {
            Self::Create(record) => {
                let (name, identity) = names(record);
                txn.absent(keys::database(name))
                    .absent(keys::owner(identity))
                    .put(keys::database(name), encode(record))
                    .put(keys::owner(identity), encode(&owner(record)))
            }
            Self::Update(record, revision, takes_over) => {
                let (name, identity) = names(record);
                let txn = txn
                    .at(keys::database(name), *revision)
                    .put(keys::database(name), encode(record));
                if *takes_over {
                    txn.put(keys::owner(identity), encode(&owner(record)))
                } else {
                    txn
                }
            }
            Self::Delete(gone) => txn
                .at(keys::database(gone.name.as_str()), gone.revision)
                .delete(keys::database(gone.name.as_str()))
                .delete(keys::owner(&gone.identity)),
        }
    }

    const fn count_in(&self, total: &mut v1::PublishResult) {
        match self {
            Self::Create(_) => total.created += 1,
            Self::Update(..) => total.updated += 1,
            Self::Delete(_) => total.deleted += 1,
        }
    }

    fn event(&self, header: &Header) -> v1::AuditEvent {
        let (kind, name, identity) = match self {
            Self::Create(record) => (event::DB_CREATE, names(record).0, names(record).1),
            Self::Update(record, ..) => (event::DB_UPDATE, names(record).0, names(record).1),
            Self::Delete(gone) => (event::DB_DELETE, gone.name.as_str(), gone.identity.as_str()),
        };
        let mut made = event::new(kind);
        name.clone_into(&mut made.db_service);
        made.fields
            .insert("identity".to_owned(), identity.to_owned());
        made.fields
            .insert("scope".to_owned(), header.message.id.clone());
        made
    }
}

fn names(record: &DatabaseRecord) -> (&str, &str) {
    record
        .database
        .as_ref()
        .map_or(("", ""), |database| (&database.name, &database.identity))
}

fn owner(record: &DatabaseRecord) -> OwnerRecord {
    let database = record.database.clone().unwrap_or_default();
    OwnerRecord {
        scope_id: database.scope_id,
        name: database.name,
    }
}

/// What is remembered of a scope after a scan.
fn remembered(header: &Header, plan: &Plan, owned: usize, before: &ScopeRecord) -> ScopeRecord {
    let taken_over = plan
        .updates
        .iter()
        .filter(|update| update.takes_over)
        .count();
    let owned = (owned + plan.creates.len() + taken_over).saturating_sub(plan.deletes.len());
    let settled = header.complete && plan.held.is_none() && plan.shadowed.is_empty();
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
    }
}

/// Whether more than times and counts of calls changed, which are not worth a write.
fn record_differs(before: &ScopeRecord, after: &ScopeRecord) -> bool {
    let timeless = |record: &ScopeRecord| ScopeRecord {
        last_attempt: None,
        last_success: None,
        aws_calls: 0,
        ..record.clone()
    };
    timeless(before) != timeless(after)
}
