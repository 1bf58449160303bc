//! An inventory in which plans are carried out in memory, over one that stays as it is.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use tidegate_core::DatabaseName;

use super::{
    super::plan::{Inventory, Owner, Plan, Registered},
    question::Question,
};

/// What became of databases: as each is now, `None` when it is gone. What is not here is as it was.
pub(super) type Changed = BTreeMap<String, Option<Registered>>;

/// The inventory as it would be.
pub(super) struct Overlay<'q, I> {
    base: &'q I,
    question: &'q Question,
    /// The scopes of the question that claim an identity, in rank order.
    claims: HashMap<&'q str, Vec<usize>>,
    owners: Vec<Owner>,
    changed: Changed,
    /// The identities of `changed` by owner.
    owned: HashMap<String, BTreeSet<String>>,
    given: HashSet<DatabaseName>,
    freed: HashSet<DatabaseName>,
    /// Who is planned for now, and so is no heir of its own.
    planning: String,
}

impl<'q, I: Inventory> Overlay<'q, I> {
    /// Nothing changed yet.
    pub(super) fn new(base: &'q I, question: &'q Question) -> Self {
        let mut claims: HashMap<&str, Vec<usize>> = HashMap::new();
        for (place, asked) in question.scopes.iter().enumerate() {
            for (identity, sighting) in asked.seen.sightings() {
                // A guess is no claim, as in the ledger itself.
                if !sighting.tags_unknown || asked.scope.tags.is_everything() {
                    claims.entry(identity).or_default().push(place);
                }
            }
        }
        Self {
            base,
            question,
            claims,
            owners: question
                .scopes
                .iter()
                .map(|asked| Owner::of(&asked.scope))
                .collect(),
            changed: Changed::new(),
            owned: HashMap::new(),
            given: HashSet::new(),
            freed: HashSet::new(),
            planning: String::new(),
        }
    }

    /// Plans of this scope come next.
    pub(super) fn turn_of(&mut self, scope_id: &str) {
        scope_id.clone_into(&mut self.planning);
    }

    /// Carries out a plan of `owner`.
    pub(super) fn carry_out(&mut self, owner: &Owner, plan: Plan) {
        for gone in plan.deletes {
            if !self.given.remove(&gone.name) {
                self.freed.insert(gone.name);
            }
            self.put(gone.identity, None);
        }
        let created = plan.creates.into_iter().map(|database| {
            self.given.insert(database.name.clone());
            (database, 0, owner.clone())
        });
        let created: Vec<_> = created.collect();
        let given = plan.hand_overs.into_iter();
        let given = given.map(|given| (given.database, given.revision, given.to));
        let updated = plan.updates.into_iter();
        let updated = updated.map(|update| (update.database, update.revision, owner.clone()));
        for (database, revision, owner) in given.chain(created).chain(updated) {
            let identity = database.identity.clone();
            let registered = Registered {
                database,
                revision,
                owner,
            };
            self.put(identity, Some(registered));
        }
    }

    fn put(&mut self, identity: String, registered: Option<Registered>) {
        if let Some(Some(before)) = self.changed.get(&identity)
            && let Some(owned) = self.owned.get_mut(&before.owner.scope_id)
        {
            owned.remove(&identity);
        }
        if let Some(now) = &registered {
            let owned = self.owned.entry(now.owner.scope_id.clone()).or_default();
            owned.insert(identity.clone());
        }
        self.changed.insert(identity, registered);
    }

    /// What became of databases.
    pub(super) fn into_changed(self) -> Changed {
        self.changed
    }
}

impl<I: Inventory> Inventory for Overlay<'_, I> {
    fn owned_by(&self, scope_id: &str) -> Vec<Registered> {
        let before = self.base.owned_by(scope_id).into_iter();
        let as_before = before
            .filter(|registered| !self.changed.contains_key(&registered.database.identity))
            .map(|registered| self.question.placed(registered));
        let now = self.owned.get(scope_id).into_iter().flatten();
        let now = now.filter_map(|identity| self.changed.get(identity).cloned().flatten());
        as_before.chain(now).collect()
    }

    fn with_identity(&self, identity: &str) -> Option<Registered> {
        match self.changed.get(identity) {
            Some(now) => now.clone(),
            None => {
                let before = self.base.with_identity(identity)?;
                Some(self.question.placed(before))
            }
        }
    }

    fn has_name(&self, name: &DatabaseName) -> bool {
        self.given.contains(name) || (!self.freed.contains(name) && self.base.has_name(name))
    }

    fn heir(&self, identity: &str) -> Option<Owner> {
        let places = self.claims.get(identity).into_iter().flatten();
        let asked = places
            .filter_map(|place| self.owners.get(*place))
            .find(|owner| owner.scope_id != self.planning);
        let other = self.question.other_heirs.get(identity);
        let group = &self.question.group;
        asked
            .into_iter()
            .chain(other)
            .min_by_key(|owner| (owner.group != *group, owner.rank()))
            .cloned()
    }
}
