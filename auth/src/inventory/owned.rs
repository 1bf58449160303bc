//! Databases by the scope that owns them and by their identity in the cloud.
//!
//! Both hold the rows themselves and compare them by what the rows say, so a database costs a pointer in each.

use std::{
    borrow::Borrow,
    cmp::Ordering,
    collections::{BTreeSet, HashMap, HashSet},
    hash::{Hash, Hasher},
    sync::Arc,
};

use super::rows::DatabaseRow;

/// The rows that were discovered.
#[derive(Debug, Default)]
pub(crate) struct Owned {
    by_scope: HashMap<Box<str>, BTreeSet<Named>>,
    by_identity: HashSet<Identified>,
}

impl Owned {
    /// Takes in what a row of one name was and what it is.
    pub(super) fn replace(
        &mut self,
        previous: Option<&Arc<DatabaseRow>>,
        current: Option<&Arc<DatabaseRow>>,
    ) {
        if let Some(previous) = previous {
            self.forget(previous);
        }
        let Some(row) = current else {
            return;
        };
        if !row.scope_id().is_empty() {
            let rows = match self.by_scope.get_mut(row.scope_id()) {
                Some(rows) => rows,
                None => self.by_scope.entry(row.scope_id().into()).or_default(),
            };
            rows.insert(Named(row.clone()));
        }
        if !row.identity().is_empty() {
            // The last one counts, should two say that they are the same.
            self.by_identity.replace(Identified(row.clone()));
        }
    }

    fn forget(&mut self, row: &DatabaseRow) {
        if let Some(rows) = self.by_scope.get_mut(row.scope_id()) {
            rows.remove(row.name());
            if rows.is_empty() {
                self.by_scope.remove(row.scope_id());
            }
        }
        if self
            .with_identity(row.identity())
            .is_some_and(|holder| holder.name() == row.name())
        {
            self.by_identity.remove(row.identity());
        }
    }

    /// The databases of a scope, in name order.
    pub(crate) fn of_scope(&self, scope_id: &str) -> impl Iterator<Item = &Arc<DatabaseRow>> {
        let rows = self.by_scope.get(scope_id);
        rows.into_iter().flatten().map(|named| &named.0)
    }

    /// How many databases a scope has.
    pub(crate) fn count(&self, scope_id: &str) -> usize {
        self.by_scope.get(scope_id).map_or(0, BTreeSet::len)
    }

    /// The scopes that have databases, and the first one of each.
    pub(crate) fn scopes(&self) -> impl Iterator<Item = (&str, &Arc<DatabaseRow>)> {
        self.by_scope
            .iter()
            .filter_map(|(scope_id, rows)| Some((scope_id.as_ref(), &rows.first()?.0)))
    }

    /// The database that has an identity in the cloud.
    pub(crate) fn with_identity(&self, identity: &str) -> Option<&Arc<DatabaseRow>> {
        self.by_identity.get(identity).map(|row| &row.0)
    }
}

/// A row, compared by name.
#[derive(Debug)]
struct Named(Arc<DatabaseRow>);

impl Borrow<str> for Named {
    fn borrow(&self) -> &str {
        self.0.name()
    }
}

impl PartialEq for Named {
    fn eq(&self, other: &Self) -> bool {
        self.0.name() == other.0.name()
    }
}

impl Eq for Named {}

impl PartialOrd for Named {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Named {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.name().cmp(other.0.name())
    }
}

/// A row, compared by identity.
#[derive(Debug)]
struct Identified(Arc<DatabaseRow>);

impl Borrow<str> for Identified {
    fn borrow(&self) -> &str {
        self.0.identity()
    }
}

impl PartialEq for Identified {
    fn eq(&self, other: &Self) -> bool {
        self.0.identity() == other.0.identity()
    }
}

impl Eq for Identified {}

impl Hash for Identified {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.identity().hash(state);
    }
}
