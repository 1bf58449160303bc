//! What is asked: scopes with what they see, in place of those that are stored.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tidegate_core::ScanScope;

use super::super::plan::{Owner, Registered, Seen};

/// A scope of the configuration, and what it sees.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) scope: ScanScope,
    pub(super) seen: Seen,
}

/// A scope that is stored or owns databases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) group: String,
    pub(super) config: Option<String>,
    pub(super) order: u32,
    /// Digest of the deletions that its last complete scan was not trusted with.
    pub(super) held: Option<[u8; 32]>,
}

/// What is asked, with what of the ledger decides it.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) group: String,
    pub(super) config: Option<String>,
    /// In rank order.
    pub(super) scopes: Vec<Asked>,
    /// The places of the scopes.
    orders: HashMap<String, u32>,
    /// Scopes that the configuration no longer names.
    pub(super) retired: BTreeSet<String>,
    /// Deletions that scopes were not trusted with, by scope.
    pub(super) held: HashMap<String, [u8; 32]>,
    /// By identity, who else would go on with a database.
    pub(super) other_heirs: HashMap<String, Owner>,
}

impl Question {
    /// Puts `scopes` in the place of those of `stored` that are of the same group and configuration.
    pub(super) fn new(
        group: String,
        config: Option<String>,
        mut scopes: Vec<Asked>,
        stored: &BTreeMap<String, Stored>,
    ) -> Self {
        scopes.sort_by_cached_key(|asked| (asked.scope.order, asked.scope.id()));
        let in_group = || stored.iter().filter(|(_, scope)| scope.group == group);
        if config.is_some() {
            // Workers count on from resource to resource, in the order of their names.
            let before = in_group().filter(|(_, scope)| {
                scope.config.is_some() && scope.config.as_deref() < config.as_deref()
            });
            let first = before
                .map(|(_, scope)| scope.order.saturating_add(1))
                .max()
                .unwrap_or(0);
            for (order, asked) in (first..).zip(&mut scopes) {
                asked.scope.order = order;
            }
        }
        let orders: HashMap<String, u32> = scopes
            .iter()
            .map(|asked| (asked.scope.id().0, asked.scope.order))
            .collect();
        let retired = in_group()
            .filter(|(id, scope)| scope.config == config && !orders.contains_key(*id))
            .map(|(id, _)| id.clone())
            .collect();
        let held = orders.keys().filter_map(|id| {
            let held = stored.get(id)?.held?;
            Some((id.clone(), held))
        });
        Self {
            held: held.collect(),
            orders,
            group,
            config,
            scopes,
            retired,
            other_heirs: HashMap::new(),
        }
    }

    /// A database with its owner's place as it would be.
    pub(super) fn placed(&self, registered: Registered) -> Registered {
        Registered {
            owner: self.placed_owner(registered.owner),
            ..registered
        }
    }

    /// An owner with its place as it would be: scopes of later resources move behind those of this one.
    pub(super) fn placed_owner(&self, owner: Owner) -> Owner {
        let is_later =
            self.config.is_some() && owner.group == self.group && owner.config > self.config;
        let last = self.scopes.last().map(|asked| asked.scope.order);
        let order = match (self.orders.get(&owner.scope_id), last) {
            (Some(order), _) => *order,
            (None, Some(last)) if is_later => owner.order.saturating_add(last).saturating_add(1),
            _ => owner.order,
        };
        Owner { order, ..owner }
    }
}
