//! The tables in memory: databases, database servers, hosts, roles, and the names of people.
//!
//! Pure: [`Tables::apply`] takes one transaction of the store and says what changed. Applying a transaction twice, or
//! one that a row is already past, changes nothing.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use prost::Message;
use tidegate_core::{Labels, Policy, Role};
use tidegate_proto::v1;

pub(crate) use super::rows::{
    DatabaseRow, Row, RowChange, RowChanges, ServerRow, database_row, server_row,
};
use super::{index::LabelIndex, owned::Owned, packed::Packed};
use crate::{
    keys,
    record::{self, RecordError},
    store::{Batch, Change, Entry},
};

/// The roles of the cluster.
#[derive(Clone, Debug)]
pub(crate) struct Roles {
    /// All of them, the built-in ones included, in name order.
    pub(crate) messages: Vec<v1::Role>,
    /// Decides with them.
    pub(crate) policy: Arc<Policy>,
    /// Revision since which they are so.
    pub(crate) revision: u64,
}

/// What one transaction changed.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// Databases.
    pub(crate) databases: Vec<RowChange<DatabaseRow>>,
    /// Database servers.
    pub(crate) servers: Vec<RowChange<ServerRow>>,
    /// Whether any role changed.
    pub(crate) roles: bool,
    /// Whether any `discovery_config` changed.
    pub(crate) configs: bool,
}

/// The tables.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    /// The store's revision that they show.
    pub(crate) revision: u64,
    /// Databases by name.
    pub(crate) databases: BTreeMap<String, Arc<DatabaseRow>>,
    /// Database servers by database and host.
    pub(crate) servers: BTreeMap<(String, String), Arc<ServerRow>>,
    /// What processes announced of themselves, by host and service.
    pub(crate) hosts: BTreeMap<(String, String), Arc<v1::Hello>>,
    /// Databases by owning scope and by identity.
    pub(crate) owned: Owned,
    /// Databases by label.
    pub(crate) database_labels: LabelIndex<DatabaseRow>,
    /// Database servers by label.
    pub(crate) server_labels: LabelIndex<ServerRow>,
    /// People.
    pub(crate) users: HashSet<String>,
    /// Matchers of groups, by name.
    pub(crate) configs: BTreeMap<String, v1::DiscoveryConfig>,
    /// A role whose record cannot be read has no message, and counts all the same: it may have denied something.
    roles: BTreeMap<String, Option<v1::Role>>,
    role_revision: u64,
}

impl Tables {
    /// The prefixes of what is kept here.
    pub(crate) const PREFIXES: [&str; 6] = [
        keys::DATABASES,
        keys::DISCOVERY_CONFIGS,
        keys::HOSTS,
        keys::PRESENCE,
        keys::ROLES,
        keys::USERS,
    ];

    /// Takes in one entry of the first reading.
    pub(crate) fn load(&mut self, entry: Entry) {
        let change = Change {
            key: entry.key.clone(),
            current: Some(entry),
            previous: None,
        };
        self.change(&change, &mut Effects::default());
    }

    /// Takes in one transaction. One that is already in is left out.
    pub(crate) fn apply(&mut self, batch: &Batch) -> Effects {
        let mut effects = Effects::default();
        if batch.revision <= self.revision {
            return effects;
        }
        for change in &batch.changes {
            self.change(change, &mut effects);
        }
        self.revision = batch.revision;
        if effects.roles {
            self.role_revision = batch.revision;
        }
        effects
    }

    /// The roles as they are now.
    pub(crate) fn roles(&self) -> Roles {
        let mut roles: BTreeMap<String, Role> = Role::builtin()
            .into_iter()
            .map(|role| (role.name.clone(), role))
            .collect();
        let mut messages: BTreeMap<String, v1::Role> = roles
            .iter()
            .map(|(name, role)| (name.clone(), role.clone().into()))
            .collect();
        for (name, message) in &self.roles {
            let (role, message) = usable(name, message.as_ref());
            roles.insert(name.clone(), role);
            messages.insert(name.clone(), message);
        }
        Roles {
            messages: messages.into_values().collect(),
            policy: Arc::new(Policy::new(roles.into_values())),
            revision: self.role_revision,
        }
    }

    /// After the first reading: roles count as changed then, since a deletion before it left no trace.
    pub(crate) const fn loaded(&mut self, revision: u64) {
        self.revision = revision;
        self.role_revision = revision;
    }

    fn change(&mut self, change: &Change, effects: &mut Effects) {
        if let Some(name) = keys::name_under(keys::DATABASES, &change.key) {
            self.change_database(name, change.current.as_ref(), effects);
        } else if let Some(pair) = keys::name_under(keys::PRESENCE, &change.key) {
            if let Some((host, database)) = pair.split_once('/') {
                let key = (database.to_owned(), host.to_owned());
                self.change_server(key, change.current.as_ref(), effects);
            }
        } else if let Some(pair) = keys::name_under(keys::HOSTS, &change.key) {
            if let Some((host, service)) = pair.split_once('/') {
                let key = (host.to_owned(), service.to_owned());
                match change.current.as_ref().and_then(read::<v1::Hello>) {
                    Some(hello) => drop(self.hosts.insert(key, Arc::new(hello))),
                    None => drop(self.hosts.remove(&key)),
                }
            }
        } else if let Some(name) = keys::name_under(keys::ROLES, &change.key) {
            effects.roles = true;
            match &change.current {
                Some(entry) => {
                    let role = read::<v1::Role>(entry).map(|role| v1::Role {
                        name: name.to_owned(),
                        revision: entry.modified,
                        ..role
                    });
                    self.roles.insert(name.to_owned(), role);
                }
                None => drop(self.roles.remove(name)),
            }
        } else if let Some(name) = keys::name_under(keys::DISCOVERY_CONFIGS, &change.key) {
            effects.configs = true;
            self.change_config(name, change.current.as_ref());
        } else if let Some(name) = keys::name_under(keys::USERS, &change.key) {
            if change.current.is_some() {
                self.users.insert(name.to_owned());
            } else {
                self.users.remove(name);
            }
        }
    }

    fn change_config(&mut self, name: &str, entry: Option<&Entry>) {
        let config = entry.and_then(|entry| {
            read::<v1::DiscoveryConfig>(entry).map(|config| v1::DiscoveryConfig {
                revision: entry.modified,
                ..config
            })
        });
        match config {
            Some(config) => drop(self.configs.insert(name.to_owned(), config)),
            None => drop(self.configs.remove(name)),
        }
    }

    fn change_database(&mut self, name: &str, entry: Option<&Entry>, effects: &mut Effects) {
        let previous = self.databases.get(name).cloned();
        let current = self
            .database_labels
            .replace(previous.as_deref(), entry.and_then(database_row));
        self.owned.replace(previous.as_ref(), current.as_ref());
        match &current {
            Some(row) => drop(self.databases.insert(name.to_owned(), row.clone())),
            None => drop(self.databases.remove(name)),
        }
        if previous.is_some() || current.is_some() {
            effects.databases.push(RowChange { previous, current });
        }
    }

    fn change_server(
        &mut self,
        key: (String, String),
        entry: Option<&Entry>,
        effects: &mut Effects,
    ) {
        let previous = self.servers.get(&key).cloned();
        let row = entry.and_then(server_row).map(|row| {
            let kept = self.labels_of(&key.0);
            row.sharing(kept)
        });
        let current = self.server_labels.replace(previous.as_deref(), row);
        match &current {
            Some(row) => drop(self.servers.insert(key, row.clone())),
            None => drop(self.servers.remove(&key)),
        }
        if previous.is_some() || current.is_some() {
            effects.servers.push(RowChange { previous, current });
        }
    }
}

impl Tables {
    /// The labels of a database as some row of it has them: its own, or that of the first who serves it.
    fn labels_of(&self, database: &str) -> Option<&Arc<Labels>> {
        if let Some(row) = self.databases.get(database) {
            return Some(row.shared_labels());
        }
        let from = (database.to_owned(), String::new());
        let (key, row) = self.servers.range(from..).next()?;
        (key.0 == database).then(|| row.shared_labels())
    }
}

/// A role as it decides, and as it is sent. Agents judge what is sent by the same rule.
fn usable(name: &str, stored: Option<&v1::Role>) -> (Role, v1::Role) {
    let Some(message) = stored else {
        let role = Role::unreadable(name);
        return (role.clone(), role.into());
    };
    let role = Role::try_from(message.clone()).unwrap_or_else(|error| {
        tracing::error!(
            role = name,
            error = %error,
            "a stored role cannot be used: it denies everything to who has it"
        );
        Role::unreadable(name)
    });
    (role, message.clone())
}

/// A record, or a line in the log: one damaged record must not take the others away.
pub(super) fn read<R: Message + Default>(entry: &Entry) -> Option<R> {
    usable_record(record::decode(entry))
}

/// A database, or what holds one in a field, packed without its labels; and those labels. As [`read`] else.
pub(super) fn packed(entry: &Entry, database: u32) -> Option<(Packed, Labels)> {
    let pack = |body| Packed::without_labels(body, database);
    usable_record(record::read(entry, pack))
}

fn usable_record<R>(record: Result<R, RecordError>) -> Option<R> {
    match record {
        Ok(record) => Some(record),
        Err(error) => {
            report(&error);
            None
        }
    }
}

fn report(error: &RecordError) {
    tracing::error!(error = %error, "left out a stored record that cannot be read");
}

#[cfg(test)]
mod tests {
    use tidegate_core::Subject;

    use super::*;
    use crate::record::DatabaseRecord;

    #[test]
    fn built_in_roles_are_always_there() {
        let roles = Tables::default().roles();
        let names: Vec<&str> = roles
            .messages
            .iter()
            .map(|role| role.name.as_str())
            .collect();
        assert_eq!(
            names,
            ["access", "auditor", "editor", "requester", "reviewer"]
        );
    }

    fn entry(key: bytes::Bytes, value: bytes::Bytes) -> Entry {
        Entry {
            key,
            value,
            created: 1,
            modified: 1,
            lease: None,
        }
    }

    #[test]
    fn labels_of_one_database_are_kept_once_whoever_serves_it() {
        let database = |env: &str| v1::Database {
            name: "dw".to_owned(),
            labels: [("env".to_owned(), env.to_owned())].into(),
            ..v1::Database::default()
        };
        let server = |host: &str, env: &str| {
            let server = v1::DatabaseServer {
                host_id: host.to_owned(),
                database: Some(database(env)),
                ..v1::DatabaseServer::default()
            };
            entry(keys::presence(host, "dw"), record::encode(&server))
        };
        let labels = |tables: &Tables, host: &str| {
            let key = ("dw".to_owned(), host.to_owned());
            Arc::clone(tables.servers[&key].shared_labels())
        };
        let mut tables = Tables::default();
        for (host, env) in [("a", "prod"), ("b", "prod"), ("c", "dev")] {
            tables.load(server(host, env));
        }
        assert!(Arc::ptr_eq(&labels(&tables, "a"), &labels(&tables, "b")));
        assert_eq!(labels(&tables, "c").get("env"), Some("dev"));

        let record = DatabaseRecord {
            database: Some(database("dev")),
            ..DatabaseRecord::default()
        };
        tables.load(entry(keys::database("dw"), record::encode(&record)));
        tables.load(server("c", "dev"));
        let of_database = tables.databases["dw"].shared_labels();
        assert!(Arc::ptr_eq(of_database, &labels(&tables, "c")));
        assert_eq!(labels(&tables, "a").get("env"), Some("prod"));
    }

    fn stored(name: &str, value: bytes::Bytes) -> Entry {
        entry(keys::role(name), value)
    }

    #[test]
    fn a_stored_role_that_cannot_be_used_denies_everything_to_who_has_it() {
        let selector = |value: &str| v1::Selector {
            labels: [(
                "env".to_owned(),
                v1::LabelValues {
                    values: vec![value.to_owned()],
                },
            )]
            .into(),
        };
        let damaged = v1::Role {
            name: "damaged".to_owned(),
            deny: Some(v1::RoleConditions {
                db_labels: Some(selector("^($")),
                ..v1::RoleConditions::default()
            }),
            ..v1::Role::default()
        };
        let mut tables = Tables::default();
        tables.load(stored("damaged", record::encode(&damaged)));
        tables.load(stored("garbled", bytes::Bytes::from_static(b"\xffgarbled")));
        let roles = tables.roles();
        let sees = |names: &[&str]| {
            let subject = Subject {
                user: "alice".to_owned(),
                roles: names.iter().map(|name| (*name).to_owned()).collect(),
                traits: [].into(),
            };
            roles.policy.may_see(&subject, &Labels::new())
        };
        assert!(sees(&["access"]));
        assert!(!sees(&["access", "damaged"]));
        assert!(!sees(&["access", "garbled"]));
        let sent = |name: &str| roles.messages.iter().find(|role| role.name == name);
        assert!(Role::try_from(sent("damaged").unwrap().clone()).is_err());
        assert_eq!(
            Role::try_from(sent("garbled").unwrap().clone()),
            Ok(Role::unreadable("garbled"))
        );
    }
}
