//! One database's change, as it is written and told.

use std::{
    collections::{BTreeSet, HashMap},
    mem::take,
};

use tidegate_core::{Database, DatabaseName};
use tidegate_proto::v1;

use super::{
    Ledger,
    plan::{self, Owner, Plan, Registered, Shadowed, Taken},
    stored::Stored,
};
use crate::{
    audit::event,
    inventory::tables::{DatabaseRow, Row as _, Tables},
    keys,
    record::{ScopeRecord, decode, encode},
    store::{CommitError, StoreUnavailable, Txn, chunks::Chunks},
};

/// Most databases changed in one transaction; each takes two keys.
const CHANGES_PER_TXN_MAX: usize = 400;

/// The tables as planning looks at them, and who goes on with what.
pub(super) struct View<'v> {
    pub(super) tables: &'v Tables,
    pub(super) heirs: &'v HashMap<String, Owner>,
}

impl plan::Inventory for View<'_> {
    fn owned_by(&self, scope_id: &str) -> Vec<Registered> {
        let rows = self.tables.owned.of_scope(scope_id);
        rows.filter_map(|row| registered(row)).collect()
    }

    fn with_identity(&self, identity: &str) -> Option<Registered> {
        registered(self.tables.owned.with_identity(identity)?)
    }

    fn has_name(&self, name: &DatabaseName) -> bool {
        self.tables.databases.contains_key(name.as_str())
    }

    fn heir(&self, identity: &str) -> Option<Owner> {
        self.heirs.get(identity).cloned()
    }
}

/// A row as planning looks at it.
pub(super) fn registered(row: &DatabaseRow) -> Option<Registered> {
    match Database::try_from(row.message()) {
        Ok(database) => Some(Registered {
            database,
            revision: row.revision(),
            owner: Owner {
                scope_id: row.scope_id().to_owned(),
                group: row.group().to_owned(),
                order: row.order(),
                config: (!row.config().is_empty()).then(|| row.config().to_owned()),
            },
        }),
        Err(error) => {
            tracing::error!(database = row.name(), error = %error, "left out a stored database that cannot be used");
            None
        }
    }
}

/// What each transaction of a plan is behind.
pub(super) struct Fence {
    guards: Txn,
    record: Option<FencedRecord>,
}

/// The scope's record: written with each transaction, and by nobody else between them.
#[derive(Clone)]
pub(super) struct FencedRecord {
    pub(super) scope_id: String,
    /// The revision that it was read at; 0 when there was none.
    pub(super) revision: u64,
    pub(super) record: ScopeRecord,
}

impl Fence {
    /// Guards alone.
    pub(super) const fn new(guards: Txn) -> Self {
        Self {
            guards,
            record: None,
        }
    }

    /// Guards, and the record of the scope that is planned for.
    pub(super) const fn with_record(guards: Txn, record: FencedRecord) -> Self {
        Self {
            guards,
            record: Some(record),
        }
    }

    fn txn(&self) -> Txn {
        let txn = self.guards.clone();
        match &self.record {
            None => txn,
            Some(fenced) => fenced
                .guard(txn)
                .put(keys::scope(&fenced.scope_id), encode(&fenced.record)),
        }
    }
}

impl FencedRecord {
    /// Only while the record is as it was read, or as it was last written here.
    pub(super) fn guard(&self, txn: Txn) -> Txn {
        let key = keys::scope(&self.scope_id);
        match self.revision {
            0 => txn.absent(key),
            revision => txn.at(key, revision),
        }
    }
}

/// One database's change.
pub(super) enum Step {
    /// It is new.
    Create(Stored),
    /// It goes.
    Delete(plan::Delete),
    /// It goes to the next scope that sees it.
    HandOver(Stored, u64, Owner),
    /// It changes, and its owner may.
    Update(Stored, u64, Option<Taken>),
}

/// The steps of a plan of `owner`, taken out of it: first what it lets go of, so that names are free.
pub(super) fn steps(owner: &Owner, plan: &mut Plan) -> Vec<Step> {
    let creates = take(&mut plan.creates)
        .into_iter()
        .map(|database| Step::Create(Stored::new(database, owner)));
    let updates = take(&mut plan.updates).into_iter().map(|update| {
        let stored = Stored::new(update.database, owner);
        Step::Update(stored, update.revision, update.taken_from)
    });
    let hand_overs = take(&mut plan.hand_overs).into_iter().map(|given| {
        let stored = Stored::new(given.database, &given.to);
        Step::HandOver(stored, given.revision, given.to)
    });
    let deletes = take(&mut plan.deletes).into_iter().map(Step::Delete);
    deletes
        .chain(hand_overs)
        .chain(creates)
        .chain(updates)
        .collect()
}

impl Step {
    fn add_to(&self, txn: Txn) -> Txn {
        match self {
            Self::Create(new) => {
                let txn = txn
                    .absent(keys::database(&new.name))
                    .absent(keys::owner(&new.identity));
                new.put_owner(new.put(txn))
            }
            Self::Update(changed, revision, None) => {
                changed.put(txn.at(keys::database(&changed.name), *revision))
            }
            Self::Update(changed, revision, Some(_)) | Self::HandOver(changed, revision, _) => {
                let txn = txn.at(keys::database(&changed.name), *revision);
                changed.put_owner(changed.put(txn))
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
            Self::Update(..) | Self::HandOver(..) => total.updated += 1,
            Self::Delete(_) => total.deleted += 1,
        }
    }

    fn event(&self, scope_id: &str) -> v1::AuditEvent {
        let (kind, name, identity, scope_id) = match self {
            Self::Create(new) => (event::DB_CREATE, new.name.as_str(), &new.identity, scope_id),
            Self::Update(changed, ..) => (
                event::DB_UPDATE,
                changed.name.as_str(),
                &changed.identity,
                scope_id,
            ),
            Self::HandOver(given, _, to) => (
                event::DB_UPDATE,
                given.name.as_str(),
                &given.identity,
                to.scope_id.as_str(),
            ),
            Self::Delete(gone) => (
                event::DB_DELETE,
                gone.name.as_str(),
                &gone.identity,
                scope_id,
            ),
        };
        let mut made = event::new(kind);
        name.clone_into(&mut made.db_service);
        made.fields.insert("identity".to_owned(), identity.clone());
        made.fields.insert("scope".to_owned(), scope_id.to_owned());
        made
    }
}

impl Ledger {
    /// Writes steps, a bounded number of databases at a time, each behind `fence`, and tells of them. Gives the last
    /// revision.
    pub(super) async fn take(
        &self,
        steps: &[Step],
        scope_id: &str,
        mut fence: Fence,
        total: &mut v1::PublishResult,
    ) -> Result<u64, CommitError> {
        let heirs: BTreeSet<&str> = steps
            .iter()
            .filter_map(|step| match step {
                Step::HandOver(_, _, to) => Some(to.scope_id.as_str()),
                _ => None,
            })
            .collect();
        for heir in &heirs {
            self.unsettle(heir).await?;
        }
        let mut revision = 0;
        let mut chunks = Chunks::new(steps, CHANGES_PER_TXN_MAX);
        while let Some(chunk) = chunks.next() {
            let txn = chunk.iter().fold(fence.txn(), |txn, step| step.add_to(txn));
            revision = match self.store.commit(txn).await {
                Ok(written) => written,
                Err(error) => {
                    chunks.give_back(chunk, error)?;
                    continue;
                }
            };
            if let Some(fenced) = &mut fence.record {
                let shadows = &mut self.memory().shadows;
                shadows.wrote(&fenced.scope_id, fenced.revision, revision);
                fenced.revision = revision;
            }
            for step in chunk {
                step.count_in(total);
            }
            self.note_owners(chunk, scope_id);
            let events = chunk.iter().map(|step| step.event(scope_id)).collect();
            self.audit.record_all(events).await;
        }
        // A new owner knows best what its databases are like.
        let heirs: Vec<String> = heirs.into_iter().map(str::to_owned).collect();
        self.ask_for(&heirs).await?;
        Ok(revision)
    }

    /// Makes sure that the next scan of a scope is looked at: what it gets may have changed since it was last its own,
    /// and its databases may be as many as before.
    async fn unsettle(&self, scope_id: &str) -> Result<(), CommitError> {
        let Some(entry) = self.store.get(keys::scope(scope_id)).await? else {
            return Ok(());
        };
        // A record that cannot be read settles nothing, and is told of where it is needed.
        let Ok(record) = decode::<ScopeRecord>(&entry) else {
            return Ok(());
        };
        if record.settled_digest.is_empty() {
            return Ok(());
        }
        let record = ScopeRecord {
            settled_digest: Vec::new(),
            ..record
        };
        let key = entry.key.clone();
        let txn = Txn::new()
            .at(key.clone(), entry.modified)
            .put(key, encode(&record));
        let revision = self.store.commit(txn).await?;
        let shadows = &mut self.memory().shadows;
        shadows.wrote(scope_id, entry.modified, revision);
        Ok(())
    }

    fn note_owners(&self, steps: &[Step], scope_id: &str) {
        let mut memory = self.memory();
        for step in steps {
            match step {
                Step::HandOver(given, _, to) => {
                    memory.shadows.no_longer(&to.scope_id, &given.identity);
                }
                Step::Update(changed, _, Some(taken)) => {
                    let identity = &changed.identity;
                    memory.shadows.no_longer(scope_id, identity);
                    if taken.claims {
                        let shadowed = Shadowed {
                            identity: identity.clone(),
                            owned_by: scope_id.to_owned(),
                        };
                        memory.shadows.add(taken.from.clone(), shadowed);
                    }
                }
                _ => {}
            }
        }
    }

    /// Who goes on with the databases of a scope that `is_gone` says it lets go of.
    pub(super) async fn heirs(
        &self,
        scope_id: &str,
        group: &str,
        is_gone: impl Fn(&str) -> bool + Send,
    ) -> Result<HashMap<String, Owner>, StoreUnavailable> {
        if self.memory().shadows.is_empty() {
            return Ok(HashMap::new());
        }
        let gone = self.gone(scope_id, is_gone);
        if gone.is_empty() {
            return Ok(HashMap::new());
        }
        let live = self.live().await?;
        let memory = self.memory();
        let may =
            |owner: &Owner| owner.scope_id != scope_id && live.names(&owner.group, &owner.scope_id);
        let heirs = gone.into_iter().filter_map(|identity| {
            let heir = memory.shadows.heir(&identity, group, may)?;
            Some((identity, heir))
        });
        Ok(heirs.collect())
    }

    /// The identities of a scope's databases that `is_gone` says it lets go of.
    pub(super) fn gone(&self, scope_id: &str, is_gone: impl Fn(&str) -> bool) -> Vec<String> {
        let look = self.inventory.tables();
        look.owned
            .of_scope(scope_id)
            .map(|row| row.identity().to_owned())
            .filter(|identity| is_gone(identity))
            .collect()
    }

    /// Waits until the inventory shows everything that is written now.
    pub(super) async fn catch_up(&self) -> Result<(), StoreUnavailable> {
        self.inventory.catch_up().await
    }
}
