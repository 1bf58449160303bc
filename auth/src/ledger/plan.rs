//! Decides what a scan changes in the inventory.
//!
//! Planning compares what a scope owns with what it saw. It is pure: no clock, no I/O; names come from
//! [`tidegate_core::naming`].
//!
//! Rules:
//! - a database is deleted only by the scope that owns it, and only when that scope was seen in full;
//! - more deletions than [`deletions_max`] are held until the next complete scan wants the very same ones;
//! - an identity has one owner; of two scopes in one group the one that stands first in the configuration, across
//!   groups whoever came first; who does not own it neither changes nor deletes it;
//! - a name that was given stays.
//!
//! Not here: reading the inventory and writing it ([`super::publish`]).

use std::collections::{BTreeMap, BTreeSet};

use tidegate_core::{
    Database, DatabaseName, Origin, ScanScope,
    labels::{CLOUD, DISCOVERY_GROUP, DISCOVERY_TYPE, ORIGIN},
    naming::{self, NameParts},
};
use tidegate_identity::secret;

/// Deletions that are never held back.
const DELETIONS_FREE: usize = 5;
/// Share of a scope's databases that may go at once, in percent.
const DELETIONS_PERCENT: usize = 30;
/// Names tried for one newcomer beyond the usual three.
const NAME_ATTEMPTS_MAX: u32 = 16;

/// One database that a scan saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sighting {
    /// What was seen; its name means nothing yet.
    pub(crate) database: Database,
    /// The identifier in AWS, or the value of a name tag.
    pub(crate) base: String,
    /// Whether `base` came from a name tag.
    pub(crate) tagged: bool,
    /// Endpoint part of the name.
    pub(crate) endpoint: String,
    /// Suffix parts of the name.
    pub(crate) suffix: Vec<String>,
}

/// What a scan saw, by identity.
#[derive(Clone, Debug)]
pub(crate) enum Seen {
    /// All there is: what is absent is gone.
    Complete(BTreeMap<String, Sighting>),
    /// Something failed: what is absent is unknown.
    Partial(BTreeMap<String, Sighting>),
}

impl Seen {
    /// What was seen, whole or not.
    pub(crate) const fn sightings(&self) -> &BTreeMap<String, Sighting> {
        match self {
            Self::Complete(sightings) | Self::Partial(sightings) => sightings,
        }
    }
}

/// A discovered database that is in the inventory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Registered {
    /// As it is listed.
    pub(crate) database: Database,
    /// Revision of its last change.
    pub(crate) revision: u64,
    /// The scope that owns it.
    pub(crate) scope_id: String,
    /// That scope's group.
    pub(crate) group: String,
    /// That scope's place in its configuration.
    pub(crate) order: u32,
}

/// The inventory, as far as planning looks at it.
pub(crate) trait Inventory {
    /// What this scope owns.
    fn owned_by(&self, scope_id: &str) -> Vec<Registered>;
    /// Who is listed with this identity.
    fn with_identity(&self, identity: &str) -> Option<Registered>;
    /// Whether a name is in use.
    fn has_name(&self, name: &DatabaseName) -> bool;
}

/// A database that changes, and the revision that it was at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Update {
    /// As it will be listed.
    pub(crate) database: Database,
    /// The revision that planning saw.
    pub(crate) revision: u64,
    /// Whether another scope owned it.
    pub(crate) takes_over: bool,
}

/// A database that goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delete {
    /// Its name.
    pub(crate) name: DatabaseName,
    /// Its identity.
    pub(crate) identity: String,
    /// The revision that planning saw.
    pub(crate) revision: u64,
}

/// Deletions that wait for the next complete scan to agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// How many.
    pub(crate) count: usize,
    /// Digest of their identities.
    pub(crate) digest: [u8; 32],
}

/// What a scan changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// New databases, in identity order.
    pub(crate) creates: Vec<Database>,
    /// Changed ones, in identity order.
    pub(crate) updates: Vec<Update>,
    /// Gone ones, in identity order.
    pub(crate) deletes: Vec<Delete>,
    /// Deletions that are held back.
    pub(crate) held: Option<Held>,
    /// Identities that were seen and that another scope owns.
    pub(crate) shadowed: Vec<String>,
}

/// Most databases that a scope of this many may lose at once without a second scan that agrees.
pub(crate) fn deletions_max(owned: usize) -> usize {
    DELETIONS_FREE.max(owned * DELETIONS_PERCENT / 100)
}

/// Plans. `held_before` is the digest of the deletions that the last complete scan was not trusted with.
pub(crate) fn plan(
    scope: &ScanScope,
    inventory: &impl Inventory,
    seen: &Seen,
    held_before: Option<[u8; 32]>,
) -> Plan {
    let scope_id = scope.id().0;
    let mut plan = Plan::default();
    let mut given = BTreeSet::new();
    for (identity, sighting) in seen.sightings() {
        match inventory.with_identity(identity) {
            None => {
                let name = name_newcomer(inventory, &given, identity, sighting);
                given.insert(name.clone());
                plan.creates.push(listed(scope, identity, sighting, name));
            }
            Some(registered) => {
                update(scope, &scope_id, identity, sighting, registered, &mut plan);
            }
        }
    }
    if let Seen::Complete(sightings) = seen {
        delete(
            inventory.owned_by(&scope_id),
            sightings,
            held_before,
            &mut plan,
        );
    }
    plan
}

fn update(
    scope: &ScanScope,
    scope_id: &str,
    identity: &str,
    sighting: &Sighting,
    registered: Registered,
    plan: &mut Plan,
) {
    let owned = registered.scope_id == scope_id;
    let takes_over = !owned && registered.group == scope.group && scope.order < registered.order;
    if !owned && !takes_over {
        plan.shadowed.push(identity.to_owned());
        return;
    }
    let database = listed(scope, identity, sighting, registered.database.name.clone());
    let same = owned
        && database == registered.database
        && registered.order == scope.order
        && registered.group == scope.group;
    if !same {
        plan.updates.push(Update {
            database,
            revision: registered.revision,
            takes_over,
        });
    }
}

fn delete(
    owned: Vec<Registered>,
    sightings: &BTreeMap<String, Sighting>,
    held_before: Option<[u8; 32]>,
    plan: &mut Plan,
) {
    let count = owned.len();
    let mut gone: Vec<Delete> = owned
        .into_iter()
        .filter(|registered| !sightings.contains_key(&registered.database.identity))
        .map(|registered| Delete {
            name: registered.database.name,
            identity: registered.database.identity,
            revision: registered.revision,
        })
        .collect();
    gone.sort_by(|left, right| left.identity.cmp(&right.identity));
    if gone.len() > deletions_max(count) {
        let identities: Vec<&str> = gone.iter().map(|gone| gone.identity.as_str()).collect();
        let digest = secret::digest(&identities.join("\n"));
        if held_before != Some(digest) {
            plan.held = Some(Held {
                count: gone.len(),
                digest,
            });
            return;
        }
    }
    plan.deletes = gone;
}

/// The database as it is listed: what was seen, its name, and the labels that only the ledger sets.
fn listed(scope: &ScanScope, identity: &str, sighting: &Sighting, name: DatabaseName) -> Database {
    let mut database = sighting.database.clone();
    database.name = name;
    identity.clone_into(&mut database.identity);
    database.origin = Origin::Cloud;
    database.kind = Some(scope.kind);
    if database.discovered_name.is_empty() {
        database.discovered_name = naming::undecorated(&NameParts {
            base: &sighting.base,
            tagged: sighting.tagged,
            endpoint: &sighting.endpoint,
            suffix: &[],
        });
    }
    database.labels.insert(ORIGIN, Origin::Cloud.as_str());
    database.labels.insert(CLOUD, "AWS");
    database.labels.insert(DISCOVERY_TYPE, scope.kind.as_str());
    if !scope.group.is_empty() {
        database
            .labels
            .insert(DISCOVERY_GROUP, scope.group.as_str());
    }
    database
}

fn name_newcomer(
    inventory: &impl Inventory,
    given: &BTreeSet<DatabaseName>,
    identity: &str,
    sighting: &Sighting,
) -> DatabaseName {
    let suffix: Vec<&str> = sighting.suffix.iter().map(String::as_str).collect();
    let parts = NameParts {
        base: &sighting.base,
        tagged: sighting.tagged,
        endpoint: &sighting.endpoint,
        suffix: &suffix,
    };
    let taken = |name: &DatabaseName| given.contains(name) || inventory.has_name(name);
    let first = naming::choose(&parts, identity, taken);
    // Two identities with one hash: other hashes are tried. When all are taken the transaction's guard says so.
    std::iter::once(first.clone())
        .chain((1..NAME_ATTEMPTS_MAX).map(|n| naming::hashed(&parts, &format!("{identity}#{n}"))))
        .find(|name| !taken(name))
        .unwrap_or(first)
}

#[cfg(test)]
mod tests;
