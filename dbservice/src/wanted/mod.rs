//! Decides which databases this agent serves, and as which IAM role.
//!
//! Two sources meet here: databases written in the agent's own file, and databases of the inventory that its
//! `resources` selectors match. [`plan`] takes both and returns what to serve and what not, with the reason;
//! [`diff`] says what that changes. Both are pure.
//!
//! A name written in the file wins over the same name in the inventory, and a database from the file keeps the role
//! that the file gives it: `resources` is about what is picked up.
//!
//! Not here: watching the inventory ([`watch`]), and holding what is served now ([`crate::served`]).

mod endpoint;
pub(crate) mod mirror;
pub(crate) mod watch;

use std::{collections::BTreeMap, sync::Arc};

use tidegate_core::{
    Database, DatabaseKind, DatabaseName, EffectiveRole, Origin, Protocol, ResourceMatcher,
    overrides,
};
use tidegate_wire::route::route_label;

pub(crate) use endpoint::EndpointError;

/// One database that this agent serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The database as the inventory or the file has it.
    pub(crate) database: Database,
    /// The role to assume for it, and why.
    pub(crate) effective: EffectiveRole,
    /// How clients name it: the first label of the host that they ask for.
    pub(crate) route: String,
}

/// Why a database that was picked up is not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Refusal {
    /// Its address is not one that AWS gives to such a database.
    #[error("{0}")]
    Endpoint(EndpointError),

    /// A kind of database that this version cannot log in to.
    #[error("databases of kind `{}` are not served by this version", .0.as_str())]
    Kind(DatabaseKind),

    /// A protocol that this version does not speak.
    #[error("protocol `{}` is not served by this version", .0.as_str())]
    Protocol(Protocol),

    /// The agent's file has a database of the same name.
    #[error("a database of the same name is written in this agent's configuration")]
    Shadowed,
}

/// What to serve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// By name.
    pub(crate) served: BTreeMap<DatabaseName, Arc<Wanted>>,
    /// What was picked up and is not served.
    pub(crate) refused: BTreeMap<DatabaseName, Refusal>,
}

/// Decides what to serve.
///
/// `inventory` may hold more than the selectors match: they are applied here again, so that an auth service which
/// sends too much gives nothing away.
pub(crate) fn plan<'d>(
    statics: &[Database],
    entries: &[ResourceMatcher],
    inventory: impl IntoIterator<Item = &'d Database>,
) -> Plan {
    let mut plan = Plan::default();
    for database in statics {
        let wanted = Wanted {
            effective: overrides::effective_role(&[], database),
            route: route_label(database.name.as_str()),
            database: database.clone(),
        };
        plan.admit(wanted, servable(database));
    }
    for database in inventory {
        if !overrides::is_wanted(entries, &database.labels) {
            continue;
        }
        if statics.iter().any(|own| own.name == database.name) {
            plan.refused
                .insert(database.name.clone(), Refusal::Shadowed);
            continue;
        }
        let wanted = Wanted {
            effective: overrides::effective_role(entries, database),
            route: route_label(database.name.as_str()),
            database: database.clone(),
        };
        plan.admit(
            wanted,
            servable(database).and_then(|()| believable(database)),
        );
    }
    plan
}

impl Plan {
    fn admit(&mut self, wanted: Wanted, verdict: Result<(), Refusal>) {
        let name = wanted.database.name.clone();
        match verdict {
            Ok(()) => {
                self.served.insert(name, Arc::new(wanted));
            }
            Err(refusal) => {
                self.refused.insert(name, refusal);
            }
        }
    }
}

fn servable(database: &Database) -> Result<(), Refusal> {
    match (database.protocol, database.kind) {
        (Protocol::Postgres, None | Some(DatabaseKind::Redshift)) => Ok(()),
        (Protocol::Postgres, Some(kind)) => Err(Refusal::Kind(kind)),
        (protocol, _) => Err(Refusal::Protocol(protocol)),
    }
}

/// A database that an administrator made over the API may have any address; one that discovery found may not.
fn believable(database: &Database) -> Result<(), Refusal> {
    match (database.kind, database.origin) {
        (Some(kind), Origin::Cloud | Origin::Config) => {
            endpoint::check(database, kind).map_err(Refusal::Endpoint)
        }
        // Credentials may be asked for by what it is called, so nothing goes by without a kind to hold it to.
        (None, Origin::Cloud | Origin::Config) => Err(Refusal::Endpoint(
            EndpointError::Incomplete { missing: "kind" },
        )),
        (_, Origin::Dynamic) => Ok(()),
    }
}

/// One difference between what is served and what should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Newly served.
    Add(DatabaseName),
    /// Served no longer.
    Remove(DatabaseName),
    /// The endpoint changed: running sessions talk to something else.
    Restart(DatabaseName),
    /// Anything else changed (labels, role, status): running sessions go on.
    Update(DatabaseName),
}

/// What leads from one set to the other, in name order.
pub(crate) fn diff(
    before: &BTreeMap<DatabaseName, Arc<Wanted>>,
    after: &BTreeMap<DatabaseName, Arc<Wanted>>,
) -> Vec<Change> {
    let gone = before
        .keys()
        .filter(|name| !after.contains_key(*name))
        .map(|name| Change::Remove(name.clone()));
    let here = after
        .iter()
        .filter_map(|(name, now)| match before.get(name) {
            None => Some(Change::Add(name.clone())),
            Some(then) if then == now => None,
            Some(then) if same_endpoint(&then.database, &now.database) => {
                Some(Change::Update(name.clone()))
            }
            Some(_) => Some(Change::Restart(name.clone())),
        });
    gone.chain(here).collect()
}

fn same_endpoint(one: &Database, other: &Database) -> bool {
    one.uri == other.uri
        && one.protocol == other.protocol
        && one.tls == other.tls
        && one.kind == other.kind
        && one.aws.redshift_cluster_id == other.aws.redshift_cluster_id
}

#[cfg(test)]
mod tests {
    use tidegate_core::{RoleSource, Selector};

    use super::*;
    use crate::testing::{redshift, role};

    fn entry(env: &str, assume: Option<&str>) -> ResourceMatcher {
        ResourceMatcher {
            labels: Selector::new([("env", [env])]).unwrap(),
            assume_role: assume.map(role),
        }
    }

    fn name(name: &str) -> DatabaseName {
        name.parse().unwrap()
    }

    #[test]
    fn only_what_a_selector_matches_is_served() {
        let (prod, dev) = (
            redshift("orders", &[("env", "prod")]),
            redshift("users", &[("env", "dev")]),
        );
        let plan = plan(&[], &[entry("prod", None)], [&prod, &dev]);
        assert_eq!(plan.served.keys().collect::<Vec<_>>(), [&name("orders")]);
        assert!(plan.refused.is_empty());
    }

    #[test]
    fn an_override_replaces_the_role_of_discovery() {
        let mut orders = redshift("orders", &[("env", "prod")]);
        orders.aws.assume_role = Some(role("discovery"));
        let plan = plan(&[], &[entry("prod", Some("agent"))], [&orders]);
        let effective = &plan.served[&name("orders")].effective;
        assert_eq!(
            (effective.role.clone(), effective.source),
            (Some(role("agent")), RoleSource::Override)
        );
    }

    #[test]
    fn a_database_of_the_file_wins_over_the_inventory_and_that_is_told() {
        let mut own = redshift("orders", &[("env", "prod")]);
        own.origin = Origin::Config;
        own.uri = "localhost:5439".parse().unwrap();
        let found = redshift("orders", &[("env", "prod")]);
        let plan = plan(
            std::slice::from_ref(&own),
            &[entry("prod", Some("agent"))],
            [&found],
        );
        assert_eq!(plan.served[&name("orders")].database, own);
        assert_eq!(
            plan.served[&name("orders")].effective.source,
            RoleSource::Agent
        );
        assert_eq!(plan.refused[&name("orders")], Refusal::Shadowed);
    }

    #[test]
    fn a_discovered_database_at_a_strangers_host_is_not_served() {
        let mut orders = redshift("orders", &[("env", "prod")]);
        orders.uri = "orders.evil.example.com:5439".parse().unwrap();
        let plan = plan(&[], &[entry("prod", None)], [&orders]);
        assert!(plan.served.is_empty());
        assert!(matches!(
            plan.refused[&name("orders")],
            Refusal::Endpoint(_)
        ));
    }

    #[test]
    fn kinds_and_protocols_without_an_engine_are_refused_and_named() {
        let mut rds = redshift("rds", &[("env", "prod")]);
        rds.kind = Some(DatabaseKind::Rds);
        let mut mysql = redshift("mysql", &[("env", "prod")]);
        mysql.protocol = Protocol::Mysql;
        let plan = plan(&[], &[entry("prod", None)], [&rds, &mysql]);
        assert_eq!(plan.refused[&name("rds")], Refusal::Kind(DatabaseKind::Rds));
        assert_eq!(
            plan.refused[&name("mysql")],
            Refusal::Protocol(Protocol::Mysql)
        );
    }

    fn served(databases: &[Database]) -> BTreeMap<DatabaseName, Arc<Wanted>> {
        let all = [ResourceMatcher {
            labels: Selector::everything(),
            assume_role: None,
        }];
        plan(&[], &all, databases).served
    }

    #[test]
    fn a_label_change_is_an_update_and_no_restart() {
        let before = served(&[redshift("orders", &[("env", "prod")])]);
        let after = served(&[redshift("orders", &[("env", "dev")])]);
        assert_eq!(diff(&before, &after), [Change::Update(name("orders"))]);
        assert_eq!(diff(&before, &before.clone()), []);
    }

    #[test]
    fn another_address_is_a_restart() {
        let before = served(&[redshift("orders", &[])]);
        let mut moved = redshift("orders", &[]);
        moved.uri = "orders.zzz.us-east-1.redshift.amazonaws.com:5439"
            .parse()
            .unwrap();
        assert_eq!(
            diff(&before, &served(&[moved])),
            [Change::Restart(name("orders"))]
        );
    }

    #[test]
    fn arrivals_and_departures_are_told() {
        let before = served(&[redshift("orders", &[])]);
        let after = served(&[redshift("users", &[])]);
        assert_eq!(
            diff(&before, &after),
            [Change::Remove(name("orders")), Change::Add(name("users"))]
        );
    }
}
