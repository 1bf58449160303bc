//! The databases of one moment, to plan over at leisure: the tables themselves are only for a short look.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use tidegate_core::DatabaseName;

use super::{
    super::{
        plan::{Inventory, Owner, Registered},
        step::registered,
    },
    question::Stored,
};
use crate::inventory::tables::{DatabaseRow, Tables};

/// Every database, in name order.
pub(super) type Rows = Vec<Arc<DatabaseRow>>;

/// Takes down what the tables show.
pub(super) fn rows(tables: &Tables) -> Rows {
    tables.databases.values().cloned().collect()
}

/// Rows by what planning asks for.
pub(super) struct Snapshot<'r> {
    by_identity: HashMap<&'r str, &'r Arc<DatabaseRow>>,
    by_scope: HashMap<&'r str, Vec<&'r Arc<DatabaseRow>>>,
    names: HashSet<&'r str>,
}

impl<'r> Snapshot<'r> {
    pub(super) fn new(rows: &'r Rows) -> Self {
        let mut snapshot = Self {
            by_identity: HashMap::new(),
            by_scope: HashMap::new(),
            names: rows.iter().map(|row| row.name()).collect(),
        };
        for row in rows {
            if !row.identity().is_empty() {
                snapshot.by_identity.insert(row.identity(), row);
            }
            if !row.scope_id().is_empty() {
                let owned = snapshot.by_scope.entry(row.scope_id()).or_default();
                owned.push(row);
            }
        }
        snapshot
    }

    /// The row of an identity.
    pub(super) fn row(&self, identity: &str) -> Option<&'r Arc<DatabaseRow>> {
        self.by_identity.get(identity).copied()
    }
}

impl Inventory for Snapshot<'_> {
    fn owned_by(&self, scope_id: &str) -> Vec<Registered> {
        let owned = self.by_scope.get(scope_id).into_iter().flatten();
        owned.filter_map(|row| registered(row)).collect()
    }

    fn with_identity(&self, identity: &str) -> Option<Registered> {
        self.row(identity).and_then(|row| registered(row))
    }

    fn has_name(&self, name: &DatabaseName) -> bool {
        self.names.contains(name.as_str())
    }

    /// Who inherits is known beside it ([`super::question::Question::other_heirs`]).
    fn heir(&self, _identity: &str) -> Option<Owner> {
        None
    }
}

/// Adds the scopes that own databases and of which nothing else is stored.
pub(super) fn add_owners(stored: &mut BTreeMap<String, Stored>, rows: &Rows) {
    for row in rows.iter().filter(|row| !row.scope_id().is_empty()) {
        if !stored.contains_key(row.scope_id()) {
            let scope = Stored {
                group: row.group().to_owned(),
                config: (!row.config().is_empty()).then(|| row.config().to_owned()),
                order: row.order(),
                held: None,
            };
            stored.insert(row.scope_id().to_owned(), scope);
        }
    }
}
