//! What each scope saw and another owns, in memory: who may go on with a database when its owner lets go.
//!
//! The first ones of each scope are stored with it, and read again at the start and when another instance wrote them;
//! the rest is known again after the scope's next scan, which is always sent in full while the scope is shadowed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tidegate_core::ScanScope;
use tidegate_proto::v1;

use super::plan::{Owner, Shadowed};
use crate::record::ScopeRecord;

/// Shadowed databases that are stored of one scope, and listed.
pub(super) const SHADOWED_LISTED_MAX: usize = 200;

#[derive(Debug)]
struct Shadow {
    scope: Owner,
    /// The owner of each identity.
    owners: BTreeMap<String, String>,
}

/// What scopes saw and do not own.
#[derive(Debug, Default)]
pub(super) struct Shadows {
    by_scope: HashMap<String, Shadow>,
    by_identity: HashMap<String, BTreeSet<String>>,
    /// The revision of each scope's record that this is as new as.
    revisions: HashMap<String, u64>,
}

impl Shadows {
    /// Takes in what is stored of a scope, when it is newer than what is known.
    pub(super) fn read(&mut self, record: &ScopeRecord, revision: u64) {
        let Some(scope) = &record.scope else { return };
        let known = self.revisions.get(&scope.id);
        if known.is_some_and(|known| *known >= revision) {
            return;
        }
        let Ok(scope) = ScanScope::try_from(scope.clone()) else {
            return;
        };
        let seen: Vec<Shadowed> = record
            .shadowed_databases
            .iter()
            .map(|shadowed| Shadowed {
                identity: shadowed.identity.clone(),
                owned_by: shadowed.owned_by.clone(),
            })
            .collect();
        let is_whole = usize::try_from(record.shadowed).is_ok_and(|all| all <= seen.len());
        let owner = Owner::of(&scope);
        self.revisions.insert(owner.scope_id.clone(), revision);
        self.set(owner, &seen, is_whole);
    }

    /// This instance has written a scope's record, over the one of revision `before`: what was known stays as new.
    pub(super) fn wrote(&mut self, scope_id: &str, before: u64, revision: u64) {
        let known = self.revisions.entry(scope_id.to_owned()).or_default();
        if *known >= before {
            *known = revision.max(*known);
        }
    }

    /// Takes in what a scan saw, and gives what is new. A scan that did not see everything takes nothing away.
    pub(super) fn set(&mut self, scope: Owner, seen: &[Shadowed], whole: bool) -> Vec<Shadowed> {
        let scope_id = scope.scope_id.clone();
        let before = self.by_scope.remove(&scope_id);
        let before = before.map(|shadow| shadow.owners).unwrap_or_default();
        let new = seen
            .iter()
            .filter(|shadowed| before.get(&shadowed.identity) != Some(&shadowed.owned_by))
            .cloned()
            .collect();
        let mut owners: BTreeMap<String, String> = seen
            .iter()
            .map(|shadowed| (shadowed.identity.clone(), shadowed.owned_by.clone()))
            .collect();
        for (identity, owned_by) in before {
            if whole && !owners.contains_key(&identity) {
                self.unlink(&identity, &scope_id);
            } else {
                owners.entry(identity).or_insert(owned_by);
            }
        }
        for identity in owners.keys() {
            let scopes = self.by_identity.entry(identity.clone()).or_default();
            scopes.insert(scope_id.clone());
        }
        if !owners.is_empty() {
            self.by_scope.insert(scope_id, Shadow { scope, owners });
        }
        new
    }

    /// Another scope took an identity from this one, which saw it too.
    pub(super) fn add(&mut self, scope: Owner, shadowed: Shadowed) {
        self.set(scope, &[shadowed], false);
    }

    /// A scope is no more.
    pub(super) fn forget(&mut self, scope_id: &str) {
        self.revisions.remove(scope_id);
        if let Some(shadow) = self.by_scope.remove(scope_id) {
            for identity in shadow.owners.keys() {
                self.unlink(identity, scope_id);
            }
        }
    }

    /// A scope owns an identity now.
    pub(super) fn no_longer(&mut self, scope_id: &str, identity: &str) {
        if let Some(shadow) = self.by_scope.get_mut(scope_id) {
            shadow.owners.remove(identity);
        }
        self.unlink(identity, scope_id);
    }

    fn unlink(&mut self, identity: &str, scope_id: &str) {
        if let Some(scopes) = self.by_identity.get_mut(identity) {
            scopes.remove(scope_id);
            if scopes.is_empty() {
                self.by_identity.remove(identity);
            }
        }
    }

    /// Whether nothing is shadowed.
    pub(super) fn is_empty(&self) -> bool {
        self.by_identity.is_empty()
    }

    /// Who goes on with an identity when its owner, of `group`, lets go: of the scopes that may, one of the same group
    /// first, then by rank.
    pub(super) fn heir(
        &self,
        identity: &str,
        group: &str,
        may: impl Fn(&Owner) -> bool,
    ) -> Option<Owner> {
        let scopes = self.by_identity.get(identity)?.iter();
        scopes
            .filter_map(|scope_id| self.by_scope.get(scope_id))
            .map(|shadow| &shadow.scope)
            .filter(|scope| may(scope))
            .min_by_key(|scope| (scope.group != group, scope.rank()))
            .cloned()
    }

    /// What a scope saw and does not own: the first ones.
    pub(super) fn listed(&self, scope_id: &str) -> Vec<v1::ShadowedDatabase> {
        let owners = self.by_scope.get(scope_id).map(|shadow| &shadow.owners);
        owners
            .into_iter()
            .flatten()
            .take(SHADOWED_LISTED_MAX)
            .map(|(identity, owned_by)| v1::ShadowedDatabase {
                identity: identity.clone(),
                owned_by: owned_by.clone(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(scope_id: &str, group: &str, config: Option<&str>, order: u32) -> Owner {
        Owner {
            scope_id: scope_id.to_owned(),
            group: group.to_owned(),
            order,
            config: config.map(str::to_owned),
        }
    }

    fn seen(identities: &[&str]) -> Vec<Shadowed> {
        identities
            .iter()
            .map(|identity| Shadowed {
                identity: (*identity).to_owned(),
                owned_by: "owner".to_owned(),
            })
            .collect()
    }

    #[test]
    fn files_come_before_resources_then_order_then_id_and_the_own_group_before_others() {
        let mut shadows = Shadows::default();
        for scope in [
            owner("elsewhere", "lab", None, 0),
            owner("resource", "prod", Some("team"), 0),
            owner("b", "prod", None, 3),
            owner("a", "prod", None, 3),
        ] {
            shadows.set(scope, &seen(&["db"]), true);
        }
        let mut order = Vec::new();
        while let Some(heir) = shadows.heir("db", "prod", |_| true) {
            shadows.forget(&heir.scope_id);
            order.push(heir.scope_id);
        }
        assert_eq!(order, ["a", "b", "resource", "elsewhere"]);
        assert!(shadows.is_empty());
    }

    #[test]
    fn a_scan_of_a_part_takes_no_shadow_away_and_tells_only_what_is_new() {
        let mut shadows = Shadows::default();
        let scope = || owner("s", "prod", None, 0);
        assert_eq!(shadows.set(scope(), &seen(&["a", "b"]), true).len(), 2);
        assert_eq!(shadows.set(scope(), &seen(&["b", "c"]), false).len(), 1);
        assert_eq!(shadows.listed("s").len(), 3);
        assert!(shadows.set(scope(), &seen(&["c"]), true).is_empty());
        assert_eq!(shadows.listed("s").len(), 1);
        assert_eq!(shadows.heir("a", "prod", |_| true), None);
        shadows.no_longer("s", "c");
        assert!(shadows.is_empty());
    }
}
