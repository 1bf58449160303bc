//! Decides which databases this agent serves, and as which IAM role.
//!
//! Two sources meet here: databases written in the agent's own file, and databases of the inventory that its
//! `resources` selectors match. [`decide`] says of one name what to serve of it, or why not; [`change`] says what that
//! changes. Both are pure, and know one name at a time, so that a change among thousands costs one decision.
//!
//! A name written in the file wins over the same name in the inventory, and a database from the file keeps the role
//! that the file gives it: `resources` is about what is picked up.
//!
//! Not here: what else is known of a database ([`Facts`] is asked), following the inventory and the settings
//! ([`watch`]), and holding what is served now ([`crate::served`]).

mod endpoint;
pub(crate) mod mirror;
pub(crate) mod watch;

use std::{fmt, sync::Arc};

use tidegate_core::{
    Database, DatabaseKind, DatabaseName, EffectiveRole, Origin, ResourceMatcher, RoleSource,
    overrides,
};
use tidegate_wire::route::route_label;

pub(crate) use endpoint::EndpointError;

/// One database that this agent serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The database as the inventory or the file has it, with what else is known of it.
    pub(crate) database: Arc<Database>,
    /// The role to assume for it, and why.
    pub(crate) effective: EffectiveRole,
    /// The same in words.
    pub(crate) role_reason: Arc<str>,
    /// What people should know of how it is served: commands for labels that fail.
    pub(crate) remarks: Vec<String>,
    /// How clients name it: the first label of the host that they ask for.
    pub(crate) route: String,
}

impl Wanted {
    /// A database to be served with this role.
    pub(crate) fn new(
        database: Arc<Database>,
        effective: EffectiveRole,
        role_reason: Arc<str>,
        remarks: Vec<String>,
    ) -> Self {
        Self {
            route: route_label(database.name.as_str()),
            database,
            effective,
            role_reason,
            remarks,
        }
    }

    /// The database, for a test that is about something in it.
    #[cfg(test)]
    pub(crate) fn database_mut(&mut self) -> &mut Database {
        Arc::make_mut(&mut self.database)
    }
}

/// Why a database that was picked up is not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Refusal {
    /// AWS is being asked whether its address is right.
    #[error("AWS is being asked whether its address is right")]
    Awaited,

    /// Its address is not one that AWS gives to such a database.
    #[error("{0}")]
    Endpoint(EndpointError),

    /// The agent's file has a database of the same name.
    #[error("a database of the same name is written in this agent's configuration")]
    Shadowed,
}

/// What is known of databases beside what their authors and discovery wrote.
///
/// It is asked each time a database is decided on, and must answer from memory. Whoever learns something later has the
/// database decided on again (the names of [`watch::Reconciler::again`]).
pub(crate) trait Facts: fmt::Debug + Send + Sync {
    /// The database with what was missing filled in; the same one when there is nothing to add.
    ///
    /// # Errors
    ///
    /// Why it must not be served, though its own words say nothing against it.
    fn complete(
        &self,
        database: &Arc<Database>,
        effective: &EffectiveRole,
    ) -> Result<Arc<Database>, Refusal>;

    /// A database of that name is wanted no longer.
    fn forget(&self, name: &DatabaseName);
}

/// Databases are what was written of them: for who asks AWS about none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AsWritten;

impl Facts for AsWritten {
    fn complete(
        &self,
        database: &Arc<Database>,
        _: &EffectiveRole,
    ) -> Result<Arc<Database>, Refusal> {
        Ok(Arc::clone(database))
    }

    fn forget(&self, _: &DatabaseName) {}
}

/// Entries of `resources`, each with the words that explain a role by it.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    entries: Vec<ResourceMatcher>,
    /// One for each entry; all databases that it decides share it.
    by_entry: Vec<Arc<str>>,
    by_database: Arc<str>,
    by_agent: Arc<str>,
}

impl Rules {
    /// These entries, in the order of the file.
    pub(crate) fn new(entries: Vec<ResourceMatcher>) -> Self {
        let words = |source, entry| {
            let effective = EffectiveRole {
                role: None,
                source,
                entry,
            };
            Arc::from(overrides::reason(&entries, &effective))
        };
        Self {
            by_entry: (0..entries.len())
                .map(|index| words(RoleSource::Override, Some(index)))
                .collect(),
            by_database: words(RoleSource::Database, None),
            by_agent: words(RoleSource::Agent, None),
            entries,
        }
    }

    /// The entries.
    pub(crate) fn entries(&self) -> &[ResourceMatcher] {
        &self.entries
    }

    fn reason(&self, effective: &EffectiveRole) -> Arc<str> {
        let by_entry = effective.entry.and_then(|index| self.by_entry.get(index));
        Arc::clone(match effective.source {
            RoleSource::Override => by_entry.unwrap_or(&self.by_database),
            RoleSource::Database => &self.by_database,
            RoleSource::Agent => &self.by_agent,
        })
    }
}

/// A database of the agent's own file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// With the labels that commands gave it.
    pub(crate) database: Arc<Database>,
    /// What should be known of those commands.
    pub(crate) remarks: Vec<String>,
}

/// What to do about one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Decision {
    /// What is served.
    pub(crate) wanted: Option<Arc<Wanted>>,
    /// What was picked up and is not served; with a database of the file there may be both.
    pub(crate) refusal: Option<Refusal>,
}

/// Decides about one name, by what the file and what the inventory have under it.
///
/// `found` may be one that no selector matches: they are applied here again, so that an auth service which sends too
/// much gives nothing away.
pub(crate) fn decide(
    written: Option<&Written>,
    found: Option<&Arc<Database>>,
    rules: &Rules,
    facts: &dyn Facts,
) -> Decision {
    let found = found.filter(|found| overrides::is_wanted(&rules.entries, &found.labels));
    let (judged, shadowed) = match (written, found) {
        (Some(Written { database, remarks }), found) => (
            judge(database, &[], remarks, rules, facts),
            found.map(|_| Refusal::Shadowed),
        ),
        (None, Some(found)) => {
            let judged = judge(found, &rules.entries, &[], rules, facts);
            let believed = judged.and_then(|wanted| believable(&wanted.database).map(|()| wanted));
            (believed, None)
        }
        (None, None) => return Decision::default(),
    };
    match judged {
        Ok(wanted) => Decision {
            wanted: Some(Arc::new(wanted)),
            refusal: shadowed,
        },
        Err(refusal) => Decision {
            wanted: None,
            refusal: Some(refusal),
        },
    }
}

fn judge(
    database: &Arc<Database>,
    entries: &[ResourceMatcher],
    remarks: &[String],
    rules: &Rules,
    facts: &dyn Facts,
) -> Result<Wanted, Refusal> {
    let effective = overrides::effective_role(entries, database);
    let database = facts.complete(database, &effective)?;
    let reason = rules.reason(&effective);
    Ok(Wanted::new(database, effective, reason, remarks.to_vec()))
}

/// A database that an administrator made over the API may have any address; one that discovery found may not.
pub(crate) fn believable(database: &Database) -> Result<(), Refusal> {
    if database.origin == Origin::Dynamic {
        return Ok(());
    }
    let check = match database.kind {
        Some(DatabaseKind::Rds) => endpoint::check_rds,
        Some(DatabaseKind::Rdsproxy) => endpoint::check_rdsproxy,
        Some(DatabaseKind::Redshift) => endpoint::check_redshift,
        Some(DatabaseKind::RedshiftServerless) => endpoint::check_serverless,
        // Credentials may be asked for by what it is called, so nothing goes by without a kind to hold it to.
        None => {
            let missing = EndpointError::Incomplete { missing: "kind" };
            return Err(Refusal::Endpoint(missing));
        }
    };
    check(database).map_err(Refusal::Endpoint)
}

/// One difference between what is served and what should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Newly served.
    Add,
    /// Served no longer.
    Remove,
    /// The endpoint changed: running sessions talk to something else.
    Restart,
    /// Anything else changed (labels, role, facts, status): running sessions go on.
    Update,
}

/// What leads from one state of a name to another; `None` when they are the same.
pub(crate) fn change(before: Option<&Wanted>, after: Option<&Wanted>) -> Option<Change> {
    match (before, after) {
        (None, None) => None,
        (None, Some(_)) => Some(Change::Add),
        (Some(_), None) => Some(Change::Remove),
        (Some(then), Some(now)) if then == now => None,
        (Some(then), Some(now)) if same_endpoint(&then.database, &now.database) => {
            Some(Change::Update)
        }
        (Some(_), Some(_)) => Some(Change::Restart),
    }
}

/// Whether sessions with one are sessions with the other. Which CAs are trusted, and what AWS calls the database, say
/// nothing about where it is.
fn same_endpoint(one: &Database, other: &Database) -> bool {
    one.uri == other.uri
        && one.protocol == other.protocol
        && one.tls.mode == other.tls.mode
        && one.tls.server_name == other.tls.server_name
}

#[cfg(test)]
mod tests {
    use tidegate_core::{Protocol, Selector};

    use super::*;
    use crate::testing::{redshift, role};

    fn entry(env: &str, assume: Option<&str>) -> ResourceMatcher {
        ResourceMatcher {
            labels: Selector::new([("env", [env])]).unwrap(),
            assume_role: assume.map(role),
            line: 3,
        }
    }

    fn found(database: &Database, entries: &[ResourceMatcher]) -> Decision {
        let rules = Rules::new(entries.to_vec());
        decide(None, Some(&Arc::new(database.clone())), &rules, &AsWritten)
    }

    fn written(database: &Database) -> Written {
        Written {
            database: Arc::new(database.clone()),
            remarks: Vec::new(),
        }
    }

    #[test]
    fn only_what_a_selector_matches_is_served() {
        let entries = [entry("prod", None)];
        let served = found(&redshift("orders", &[("env", "prod")]), &entries);
        assert!(served.wanted.is_some() && served.refusal.is_none());
        let other = found(&redshift("users", &[("env", "dev")]), &entries);
        assert_eq!(other, Decision::default());
    }

    #[test]
    fn an_override_replaces_the_role_of_discovery_and_says_where_it_stands() {
        let mut orders = redshift("orders", &[("env", "prod")]);
        orders.aws.assume_role = Some(role("discovery"));
        let wanted = found(&orders, &[entry("prod", Some("agent"))])
            .wanted
            .unwrap();
        assert_eq!(
            (wanted.effective.role.clone(), wanted.effective.source),
            (Some(role("agent")), RoleSource::Override)
        );
        assert!(
            wanted.role_reason.contains("(line 3)"),
            "{}",
            wanted.role_reason
        );
    }

    #[test]
    fn a_database_of_the_file_wins_over_the_inventory_and_that_is_told() {
        let mut own = redshift("orders", &[("env", "prod")]);
        own.origin = Origin::Config;
        own.uri = "localhost:5439".parse().unwrap();
        let rules = Rules::new(vec![entry("prod", Some("agent"))]);
        let found = Arc::new(redshift("orders", &[("env", "prod")]));
        let decision = decide(Some(&written(&own)), Some(&found), &rules, &AsWritten);
        let wanted = decision.wanted.unwrap();
        assert_eq!(*wanted.database, own);
        assert_eq!(wanted.effective.source, RoleSource::Agent);
        assert_eq!(decision.refusal, Some(Refusal::Shadowed));
    }

    #[test]
    fn a_discovered_database_at_a_strangers_host_is_not_served() {
        let mut orders = redshift("orders", &[("env", "prod")]);
        orders.uri = "orders.evil.example.com:5439".parse().unwrap();
        let decision = found(&orders, &[entry("prod", None)]);
        assert!(decision.wanted.is_none());
        assert!(matches!(decision.refusal, Some(Refusal::Endpoint(_))));
    }

    #[test]
    fn every_kind_that_speaks_postgres_is_served_at_its_own_endpoint_only() {
        for (kind, host) in [
            (DatabaseKind::Rds, "a.abc.us-east-1.rds.amazonaws.com"),
            (
                DatabaseKind::Rdsproxy,
                "a.proxy-abc.us-east-1.rds.amazonaws.com",
            ),
            (
                DatabaseKind::Redshift,
                "a.abc.us-east-1.redshift.amazonaws.com",
            ),
            (
                DatabaseKind::RedshiftServerless,
                "a.123456789012.us-east-1.redshift-serverless.amazonaws.com",
            ),
        ] {
            let mut database = redshift("a", &[("env", "prod")]);
            database.kind = Some(kind);
            database.aws.rds_instance_id = Some("a".to_owned());
            database.aws.rdsproxy_name = Some("a".to_owned());
            database.aws.redshift_serverless_workgroup = Some("a".to_owned());
            database.uri = format!("{host}:5439").parse().unwrap();
            let entries = [entry("prod", None)];
            assert_eq!(found(&database, &entries).refusal, None, "{kind:?}");
            database.uri = format!("{host}.evil.com:5439").parse().unwrap();
            let refusal = found(&database, &entries).refusal;
            assert!(matches!(refusal, Some(Refusal::Endpoint(_))), "{kind:?}");
        }
    }

    #[test]
    fn both_protocols_are_served() {
        for protocol in [Protocol::Mysql, Protocol::Postgres] {
            let mut own = redshift("own", &[("env", "prod")]);
            own.protocol = protocol;
            own.origin = Origin::Dynamic;
            own.kind = None;
            own.origin = Origin::Dynamic;
            assert_eq!(found(&own, &[entry("prod", None)]).refusal, None);
        }
    }

    #[derive(Debug)]
    struct Account(Result<&'static str, Refusal>);

    impl Facts for Account {
        fn complete(
            &self,
            database: &Arc<Database>,
            _: &EffectiveRole,
        ) -> Result<Arc<Database>, Refusal> {
            let account = self.0.clone()?;
            let mut completed = Database::clone(database);
            completed.aws.account_id = Some(account.parse().unwrap());
            Ok(Arc::new(completed))
        }

        fn forget(&self, _: &DatabaseName) {}
    }

    #[test]
    fn what_is_known_of_a_database_completes_it_or_keeps_it_from_being_served() {
        let orders = written(&redshift("orders", &[]));
        let rules = Rules::new(Vec::new());
        let known = Account(Ok("999999999999"));
        let wanted = decide(Some(&orders), None, &rules, &known).wanted.unwrap();
        let account = wanted.database.aws.account_id.as_ref().unwrap();
        assert_eq!(account.as_str(), "999999999999");

        let against = Account(Err(Refusal::Shadowed));
        let decision = decide(Some(&orders), None, &rules, &against);
        assert_eq!(decision.wanted, None);
        assert_eq!(decision.refusal, Some(Refusal::Shadowed));
    }

    fn wanted(database: &Database) -> Wanted {
        let all = ResourceMatcher {
            labels: Selector::everything(),
            assume_role: None,
            line: 1,
        };
        Wanted::clone(&found(database, &[all]).wanted.unwrap())
    }

    #[test]
    fn a_label_change_is_an_update_and_no_restart() {
        let before = wanted(&redshift("orders", &[("env", "prod")]));
        let after = wanted(&redshift("orders", &[("env", "dev")]));
        assert_eq!(change(Some(&before), Some(&after)), Some(Change::Update));
        assert_eq!(change(Some(&before), Some(&before.clone())), None);
    }

    #[test]
    fn facts_that_are_filled_in_and_other_cas_end_no_session() {
        let before = wanted(&redshift("orders", &[]));
        let mut after = before.clone();
        after.database_mut().aws.redshift_cluster_id = None;
        after.database_mut().kind = None;
        after.database_mut().tls.ca_cert_pem = Some("renewed".to_owned());
        assert_eq!(change(Some(&before), Some(&after)), Some(Change::Update));
    }

    #[test]
    fn another_address_is_a_restart() {
        let before = wanted(&redshift("orders", &[]));
        let mut moved = before.clone();
        moved.database_mut().uri = "orders.zzz.us-east-1.redshift.amazonaws.com:5439"
            .parse()
            .unwrap();
        assert_eq!(change(Some(&before), Some(&moved)), Some(Change::Restart));
    }

    #[test]
    fn arrivals_and_departures_are_told() {
        let orders = wanted(&redshift("orders", &[]));
        assert_eq!(change(None, Some(&orders)), Some(Change::Add));
        assert_eq!(change(Some(&orders), None), Some(Change::Remove));
        assert_eq!(change(None, None), None);
    }
}
