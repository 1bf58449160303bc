//! Hands the databases of a group that is no more to another group, as after a rename: nothing is deleted and made
//! again.
//!
//! A database goes to a scope of the new group that saw it already, or else to the one that looks for the same things
//! in the same place. What no scope of the new group would find stays as it is.

use std::collections::{BTreeSet, HashMap};

use tidegate_core::ScanScope;
use tidegate_proto::Invalid;

use super::{
    Ledger,
    plan::{HandOver, Owner, Plan, Registered, under_owner},
    scopes::named,
    step::{Fence, registered, steps},
    workers::Live,
};
use crate::{
    keys,
    store::{CommitError, StoreUnavailable, Txn},
};

/// Plans made for one adoption while others write.
const ATTEMPTS_MAX: usize = 8;

/// Why databases were not adopted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdoptError {
    /// The group that would lose them has a live worker.
    #[error("group `{group}` has a live worker, {worker}: stop it first, or change its group")]
    Alive {
        /// The group.
        group: String,
        /// The worker, for people.
        worker: String,
    },
    /// Others kept writing to the same databases.
    #[error("the databases of group `{group}` changed meanwhile: try again")]
    Contended {
        /// The group.
        group: String,
    },
    /// The groups are the same.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Nobody scans for the group that would get them.
    #[error("no live worker names a scope of group `{group}`: start one first")]
    NoScopes {
        /// The group.
        group: String,
    },
    /// The store does not answer.
    #[error(transparent)]
    Unavailable(#[from] StoreUnavailable),
}

/// The scope of another group that looks for the same in the same place; `None` when there is none.
fn counterpart<'s>(of: &ScanScope, scopes: &'s [ScanScope]) -> Option<&'s ScanScope> {
    let same = |scope: &&ScanScope| {
        scope.kind == of.kind
            && scope.region == of.region
            && scope.assume_role == of.assume_role
            && scope.tags.written() == of.tags.written()
            && scope.endpoints == of.endpoints
    };
    scopes
        .iter()
        .filter(same)
        .min_by_key(|scope| (scope.config.is_some(), scope.order, scope.id()))
}

impl Ledger {
    /// Hands over the databases of `from_group` that `to_group` would find; gives how many.
    pub(crate) async fn adopt(&self, from_group: &str, to_group: &str) -> Result<u32, AdoptError> {
        if from_group == to_group {
            return Err(Invalid::new("to_group", "is the group that has them").into());
        }
        let mut adopted = 0;
        for _ in 0..ATTEMPTS_MAX {
            match self.try_adopt(from_group, to_group, &mut adopted).await? {
                Ok(revision) => {
                    self.inventory.reached(revision).await;
                    tracing::info!(from_group, to_group, adopted, "adopted databases");
                    return Ok(adopted);
                }
                Err(CommitError::Unavailable(unavailable)) => return Err(unavailable.into()),
                Err(error) => {
                    tracing::debug!(from_group, error = %error, "planning an adoption again");
                    self.catch_up().await?;
                }
            }
        }
        Err(AdoptError::Contended {
            group: from_group.to_owned(),
        })
    }

    async fn try_adopt(
        &self,
        from_group: &str,
        to_group: &str,
        adopted: &mut u32,
    ) -> Result<Result<u64, CommitError>, AdoptError> {
        let live = self.live().await?;
        refuse_alive(&live, from_group)?;
        let scopes = self.scopes_of(&live, to_group).await?;
        if scopes.is_empty() {
            return Err(AdoptError::NoScopes {
                group: to_group.to_owned(),
            });
        }
        let before = self.scopes_by_id(from_group).await?;
        let rows: Vec<Registered> = {
            let look = self.inventory.tables();
            look.databases
                .values()
                .filter(|row| !row.scope_id().is_empty() && row.group() == from_group)
                .filter_map(|row| registered(row))
                .collect()
        };
        let mut plan = Plan::default();
        let mut left = BTreeSet::new();
        for row in rows {
            match self.adopter(&row, &before, &scopes) {
                Some(to) => plan.hand_overs.push(HandOver {
                    database: under_owner(row.database, &to),
                    revision: row.revision,
                    to,
                }),
                None => drop(left.insert(row.owner.scope_id)),
            }
        }
        let mut total = tidegate_proto::v1::PublishResult::default();
        // Hand-overs name their new owner themselves.
        let nobody = Owner {
            scope_id: String::new(),
            group: from_group.to_owned(),
            order: 0,
            config: None,
        };
        let taken = self
            .take(
                &steps(&nobody, &mut plan),
                "",
                Fence::new(Txn::new()),
                &mut total,
            )
            .await;
        *adopted += total.updated;
        let revision = match taken {
            Ok(revision) => revision,
            Err(error) => return Ok(Err(error)),
        };
        let emptied: Vec<&String> = before.keys().filter(|id| !left.contains(*id)).collect();
        self.commit_each(&emptied, |txn, id| {
            txn.delete(keys::scope(id)).delete(keys::rescan(id))
        })
        .await?;
        for scope_id in emptied {
            self.forget(scope_id);
        }
        Ok(Ok(revision))
    }

    /// Who adopts a database.
    fn adopter(
        &self,
        row: &Registered,
        before: &HashMap<String, ScanScope>,
        scopes: &[ScanScope],
    ) -> Option<Owner> {
        let ids: BTreeSet<String> = scopes.iter().map(|scope| scope.id().0).collect();
        let group = &scopes.first()?.group;
        let saw_it = self
            .memory()
            .shadows
            .heir(&row.database.identity, group, |owner| {
                ids.contains(&owner.scope_id)
            });
        saw_it.or_else(|| {
            let of = before.get(&row.owner.scope_id)?;
            counterpart(of, scopes).map(Owner::of)
        })
    }

    /// The scopes of a group that live workers name, as far as they were ever held or scanned.
    async fn scopes_of(
        &self,
        live: &Live,
        group: &str,
    ) -> Result<Vec<ScanScope>, StoreUnavailable> {
        let mut scopes = self.scopes_by_id(group).await?;
        for (id, held) in self.holders(group).await? {
            if let Some(Ok(scope)) = held.record.scope.map(ScanScope::try_from) {
                scopes.insert(id, scope);
            }
        }
        let named = scopes.into_iter().filter(|(id, _)| live.names(group, id));
        Ok(named.map(|(_, scope)| scope).collect())
    }

    /// What is remembered of a group's scopes.
    async fn scopes_by_id(
        &self,
        group: &str,
    ) -> Result<HashMap<String, ScanScope>, StoreUnavailable> {
        let records = self.scope_records().await?;
        let scopes = records
            .into_iter()
            .filter_map(|record| ScanScope::try_from(record.scope?).ok())
            .filter(|scope| scope.group == group)
            .map(|scope| (scope.id().0, scope));
        Ok(scopes.collect())
    }
}

fn refuse_alive(live: &Live, group: &str) -> Result<(), AdoptError> {
    match live.of(group).first() {
        None => Ok(()),
        Some(worker) => Err(AdoptError::Alive {
            group: group.to_owned(),
            worker: named(&worker.hostname, &worker.host_id),
        }),
    }
}
