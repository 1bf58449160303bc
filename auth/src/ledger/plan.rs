//! Decides what a scan changes in the inventory.
//!
//! Planning compares what a scope owns with what it saw. It is pure: no clock, no I/O; names come from
//! [`tidegate_core::naming`].
//!
//! Rules:
//! - a database is deleted only by the scope that owns it, and only when that scope was seen in full;
//! - more deletions than [`deletions_max`] are held until the next complete scan wants the very same ones;
//! - an identity has one owner; of two scopes in one group the one with the lower [`Owner::rank`], across groups whoever
//!   came first; who does not own it neither changes nor deletes it;
//! - what an owner lets go of is handed to the next scope that sees it, as it stands, and is never absent in between;
//! - a database whose tags could not be read keeps the labels that are known of it; one that was never known cannot be
//!   judged by a selector over tags and is left out, unless the selector takes everything;
//! - a name that was given stays.
//!
//! Not here: reading the inventory and writing it ([`super::publish`]).

use std::collections::{BTreeMap, BTreeSet};

use tidegate_core::{
    Database, DatabaseName, Labels, Origin, ScanScope,
    labels::{
        CLOUD, DISCOVERY_CONFIG, DISCOVERY_GROUP, DISCOVERY_TYPE, LABELS_MAX, ORIGIN, is_reserved,
    },
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
    /// Whether its tags could not be read, so that labels are missing here that it may well have.
    pub(crate) tags_unknown: bool,
}

/// A scope as the owner of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// The scope.
    pub(crate) scope_id: String,
    /// Its group.
    pub(crate) group: String,
    /// Its place in its configuration.
    pub(crate) order: u32,
    /// The `discovery_config` that asks for it; `None` is a configuration file.
    pub(crate) config: Option<String>,
}

impl Owner {
    /// A scope as an owner.
    pub(crate) fn of(scope: &ScanScope) -> Self {
        Self {
            scope_id: scope.id().0,
            group: scope.group.clone(),
            order: scope.order,
            config: scope.config.clone(),
        }
    }

    /// Of the scopes of one group that find a database the lowest owns it: files before resources, then the order in
    /// the configuration, then the id, so that it is the same whoever came first.
    pub(crate) fn rank(&self) -> (bool, u32, &str) {
        (self.config.is_some(), self.order, &self.scope_id)
    }
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
    pub(crate) owner: Owner,
}

/// The inventory, as far as planning looks at it.
pub(crate) trait Inventory {
    /// What this scope owns.
    fn owned_by(&self, scope_id: &str) -> Vec<Registered>;
    /// Who is listed with this identity.
    fn with_identity(&self, identity: &str) -> Option<Registered>;
    /// Whether a name is in use.
    fn has_name(&self, name: &DatabaseName) -> bool;
    /// The next owner: a scope that some live worker names and that saw this identity without owning it.
    fn heir(&self, identity: &str) -> Option<Owner>;
}

/// A database that changes, and the revision that it was at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Update {
    /// As it will be listed.
    pub(crate) database: Database,
    /// The revision that planning saw.
    pub(crate) revision: u64,
    /// The scope that owned it, when that is another.
    pub(crate) taken_from: Option<Taken>,
}

/// Whom a database was taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// The owner before.
    pub(crate) from: Owner,
    /// Whether that scope goes on claiming it. Not when the labels have changed since it looked: it would inherit what
    /// it may not want. Its own next scan says.
    pub(crate) claims: bool,
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

/// A database that goes to the next scope that sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HandOver {
    /// As it will be listed until its new owner's next scan.
    pub(crate) database: Database,
    /// The revision that planning saw.
    pub(crate) revision: u64,
    /// The new owner.
    pub(crate) to: Owner,
}

/// A database that was seen and that another scope owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shadowed {
    /// Its identity.
    pub(crate) identity: String,
    /// The scope that owns it.
    pub(crate) owned_by: String,
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
    /// Those that another scope goes on with, in identity order.
    pub(crate) hand_overs: Vec<HandOver>,
    /// Deletions that are held back.
    pub(crate) held: Option<Held>,
    /// What was seen and another scope owns.
    pub(crate) shadowed: Vec<Shadowed>,
    /// How many were left alone, since their tags are unknown and they are not this scope's.
    pub(crate) unjudged: usize,
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
    let scanner = Scanner {
        scope,
        owner: Owner::of(scope),
    };
    let mut plan = Plan::default();
    let mut given = BTreeSet::new();
    for (identity, sighting) in seen.sightings() {
        match inventory.with_identity(identity) {
            None if !scanner.can_judge(sighting) => plan.unjudged += 1,
            None => {
                let name = name_newcomer(inventory, &given, identity, sighting);
                given.insert(name.clone());
                plan.creates
                    .push(scanner.listed(identity, sighting, name, None));
            }
            Some(registered) => scanner.update(identity, sighting, registered, &mut plan),
        }
    }
    if let Seen::Complete(sightings) = seen {
        let owned = inventory.owned_by(&scanner.owner.scope_id);
        let count = owned.len();
        let gone = owned
            .into_iter()
            .filter(|registered| !sightings.contains_key(&registered.database.identity));
        let_go(inventory, gone, &mut plan);
        hold(count, held_before, &mut plan);
    }
    plan
}

/// Plans the end of a scope that nobody asks for any more: nothing is held back, since nobody is left to agree.
pub(crate) fn retire(scope_id: &str, inventory: &impl Inventory) -> Plan {
    let mut plan = Plan::default();
    let_go(inventory, inventory.owned_by(scope_id), &mut plan);
    plan
}

/// A database as it is listed under another owner, until that owner scans.
pub(crate) fn under_owner(mut database: Database, owner: &Owner) -> Database {
    database.labels.change(&owner_labels(owner));
    database
}

/// The labels that tell the owner, or are not there.
fn owner_labels(owner: &Owner) -> [(&str, Option<&str>); 2] {
    let group = owner.group.as_str();
    [
        (DISCOVERY_GROUP, (!group.is_empty()).then_some(group)),
        (DISCOVERY_CONFIG, owner.config.as_deref()),
    ]
}

/// Hands over what another scope sees, and deletes the rest.
fn let_go(inventory: &impl Inventory, gone: impl IntoIterator<Item = Registered>, plan: &mut Plan) {
    let mut gone: Vec<Registered> = gone.into_iter().collect();
    gone.sort_by(|left, right| left.database.identity.cmp(&right.database.identity));
    for registered in gone {
        let Registered {
            database, revision, ..
        } = registered;
        match inventory.heir(&database.identity) {
            Some(to) => plan.hand_overs.push(HandOver {
                database: under_owner(database, &to),
                revision,
                to,
            }),
            None => plan.deletes.push(Delete {
                name: database.name,
                identity: database.identity,
                revision,
            }),
        }
    }
}

/// Takes the deletions back when they are too many of `owned` and no earlier scan wanted the very same.
fn hold(owned: usize, held_before: Option<[u8; 32]>, plan: &mut Plan) {
    if plan.deletes.len() <= deletions_max(owned) {
        return;
    }
    let identities: Vec<&str> = plan
        .deletes
        .iter()
        .map(|gone| gone.identity.as_str())
        .collect();
    let digest = secret::digest(&identities.join("\n"));
    if held_before != Some(digest) {
        plan.held = Some(Held {
            count: plan.deletes.len(),
            digest,
        });
        plan.deletes.clear();
    }
}

/// Who scans.
struct Scanner<'s> {
    scope: &'s ScanScope,
    owner: Owner,
}

impl Scanner<'_> {
    /// Whether the scope's selector can say that it wants this database, when nothing is known of it from before.
    fn can_judge(&self, sighting: &Sighting) -> bool {
        !sighting.tags_unknown || self.scope.tags.is_everything()
    }

    fn update(&self, identity: &str, sighting: &Sighting, registered: Registered, plan: &mut Plan) {
        let owned = registered.owner.scope_id == self.owner.scope_id;
        let takes_over = !owned
            && registered.owner.group == self.owner.group
            && self.owner.rank() < registered.owner.rank()
            && self.can_judge(sighting);
        if !owned && !takes_over {
            // A guess is no claim: an heir that cannot tell whether it wants a database would let it go again.
            if self.can_judge(sighting) {
                plan.shadowed.push(Shadowed {
                    identity: identity.to_owned(),
                    owned_by: registered.owner.scope_id,
                });
            } else {
                plan.unjudged += 1;
            }
            return;
        }
        let name = registered.database.name.clone();
        let database = self.listed(identity, sighting, name, Some(&registered.database));
        if database != registered.database || registered.owner != self.owner {
            let database_labels = database.labels.clone();
            plan.updates.push(Update {
                database,
                revision: registered.revision,
                taken_from: takes_over.then(|| Taken {
                    claims: under_owner(registered.database, &self.owner).labels == database_labels,
                    from: registered.owner,
                }),
            });
        }
    }

    /// The database as it is listed: what was seen, its name, and the labels that only the ledger sets.
    fn listed(
        &self,
        identity: &str,
        sighting: &Sighting,
        name: DatabaseName,
        known: Option<&Database>,
    ) -> Database {
        let seen = &sighting.database;
        let [group, config] = owner_labels(&self.owner);
        let set = [
            (ORIGIN, Some(Origin::Cloud.as_str())),
            (CLOUD, Some("AWS")),
            (DISCOVERY_TYPE, Some(self.scope.kind.as_str())),
            group,
            config,
        ];
        let known = known.filter(|_| sighting.tags_unknown);
        let labels = match known {
            Some(known) => with_known(&seen.labels, &known.labels).changed(&set),
            None => seen.labels.changed(&set),
        };
        let discovered_name = known.map_or(&seen.discovered_name, |known| &known.discovered_name);
        let mut database = Database {
            name,
            description: seen.description.clone(),
            labels,
            origin: Origin::Cloud,
            protocol: seen.protocol,
            uri: seen.uri.clone(),
            tls: seen.tls.clone(),
            aws: seen.aws.clone(),
            kind: Some(self.scope.kind),
            identity: identity.to_owned(),
            discovered_name: discovered_name.clone(),
            unavailable: seen.unavailable.clone(),
        };
        if database.discovered_name.is_empty() {
            database.discovered_name = naming::undecorated(&NameParts {
                base: &sighting.base,
                tagged: sighting.tagged,
                endpoint: &sighting.endpoint,
                suffix: &[],
            });
        }
        database
    }
}

/// Labels that came from tags which cannot be read now stay as they are known.
fn with_known(seen: &Labels, known: &Labels) -> Labels {
    let room = LABELS_MAX.saturating_sub(seen.len());
    let missing = known
        .iter()
        .filter(|(key, _)| seen.get(key).is_none() && !is_reserved(key))
        .take(room);
    seen.iter().chain(missing).collect()
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
pub(super) mod tests;
