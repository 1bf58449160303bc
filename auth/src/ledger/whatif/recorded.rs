//! Takes the inventory for AWS: what scopes would see if there were nothing but what is known.
//!
//! A scope that looks with the workers' own identity looks into the accounts of the databases that the group found in
//! that way. When there are none nobody knows where it looks, and it is told as not seen in full.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use tidegate_core::{
    AccountId, Database, DatabaseKind, Labels, Region, ScanScope,
    labels::{
        CLOUD, DISCOVERY_CONFIG, DISCOVERY_GROUP, DISCOVERY_TYPE, ENDPOINT_TYPE, ORIGIN,
        is_reserved,
    },
};

use super::{
    super::{
        plan::{Seen, Sighting},
        step::registered,
    },
    TooMuch,
    question::Asked,
    snapshot::Rows,
};
use crate::inventory::tables::DatabaseRow;

type Place = (DatabaseKind, Region, AccountId);

/// Where the databases are.
struct Map<'r> {
    rows: HashMap<Place, Vec<&'r Arc<DatabaseRow>>>,
    /// Accounts that the group's workers look into with their own identity.
    own_accounts: BTreeSet<AccountId>,
}

impl<'r> Map<'r> {
    fn of(rows: &'r Rows, group: &str) -> Self {
        let mut map = Self {
            rows: HashMap::new(),
            own_accounts: BTreeSet::new(),
        };
        let discovered = rows.iter().filter(|row| !row.scope_id().is_empty());
        for row in discovered {
            let Some(Database { kind, aws, .. }) = registered(row).map(|known| known.database)
            else {
                continue;
            };
            let (Some(kind), Some(region), Some(account)) = (kind, aws.region, aws.account_id)
            else {
                continue;
            };
            if row.group() == group && aws.assume_role.is_none() {
                map.own_accounts.insert(account.clone());
            }
            let there = map.rows.entry((kind, region, account)).or_default();
            there.push(row);
        }
        map
    }

    /// `None` when nobody knows.
    fn accounts(&self, scope: &ScanScope) -> Option<Vec<AccountId>> {
        match &scope.assume_role {
            Some(role) => Some(vec![role.role_arn.account()]),
            None if self.own_accounts.is_empty() => None,
            None => Some(self.own_accounts.iter().cloned().collect()),
        }
    }
}

/// What each scope would see.
///
/// # Errors
///
/// [`TooMuch`] when all scopes together see more than `sightings_max`.
pub(super) fn look(
    group: &str,
    scopes: Vec<ScanScope>,
    rows: &Rows,
    sightings_max: usize,
) -> Result<Vec<Asked>, TooMuch> {
    let map = Map::of(rows, group);
    let mut room = sightings_max;
    let asked = scopes.into_iter().map(|scope| {
        let Some(accounts) = map.accounts(&scope) else {
            let seen = Seen::Partial(BTreeMap::new());
            return Ok(Asked { scope, seen });
        };
        let mut sightings = BTreeMap::new();
        for account in accounts {
            let place = (scope.kind, scope.region.clone(), account);
            for row in map.rows.get(&place).into_iter().flatten() {
                if let Some(sighting) = see(&scope, row) {
                    room = room.checked_sub(1).ok_or(TooMuch)?;
                    sightings.insert(sighting.database.identity.clone(), sighting);
                }
            }
        }
        let seen = Seen::Complete(sightings);
        Ok(Asked { scope, seen })
    });
    asked.collect()
}

/// A database as a scope would see it; `None` when the scope does not ask for it.
fn see(scope: &ScanScope, row: &DatabaseRow) -> Option<Sighting> {
    let mut database = registered(row)?.database;
    database.labels = labels_for(scope, database.labels);
    let endpoint_type = database.labels.get(ENDPOINT_TYPE).unwrap_or_default();
    if !scope.endpoints.admits(endpoint_type) || !scope.tags.matches(&database.labels) {
        return None;
    }
    database.aws.assume_role.clone_from(&scope.assume_role);
    Some(Sighting {
        // It has a name, so it needs none; these parts would give the same.
        base: database.name.to_string(),
        tagged: true,
        endpoint: String::new(),
        suffix: Vec::new(),
        tags_unknown: false,
        database,
    })
}

/// The labels that a scan of `scope` puts on a database.
fn labels_for(scope: &ScanScope, known: Labels) -> Labels {
    let mut labels: Labels = known
        .into_iter()
        .filter(|(key, _)| !is_reserved(key))
        .collect();
    labels.insert(CLOUD, "AWS");
    labels.insert(ORIGIN, tidegate_core::Origin::Cloud.as_str());
    labels.insert(DISCOVERY_TYPE, scope.kind.as_str());
    if !scope.group.is_empty() {
        labels.insert(DISCOVERY_GROUP, scope.group.as_str());
    }
    if let Some(config) = &scope.config {
        labels.insert(DISCOVERY_CONFIG, config.as_str());
    }
    labels
}
