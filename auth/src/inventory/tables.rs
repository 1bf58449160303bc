//! The tables in memory: databases, database servers, hosts, roles, and the names of people.
//!
//! Pure: [`Tables::apply`] takes one transaction of the store and says what changed. Applying a transaction twice, or
//! one that a row is already past, changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use prost::Message;
use tidegate_core::{Labels, Policy, Role, labels::is_reserved};
use tidegate_proto::v1;

use crate::{
    keys,
    record::{self, DatabaseRecord, RecordError},
    store::{Batch, Change, Entry},
};

/// A row that selectors and roles can look at.
pub(crate) trait Row: Send + Sync + 'static {
    /// What it is sent as.
    type Message;

    /// The labels of the database that it is about.
    fn labels(&self) -> &Labels;
    /// Revision of its last change.
    fn revision(&self) -> u64;
    /// Whether a word, in lower case, occurs in what people know it by.
    fn mentions(&self, word: &str) -> bool;
    /// The row as it is sent.
    fn message(&self) -> Self::Message;
}

/// A database.
#[derive(Debug, PartialEq)]
pub(crate) struct DatabaseRow {
    /// As it is sent, without labels and revision.
    bare: v1::Database,
    labels: Labels,
    revision: u64,
    /// Group of the owning scope.
    pub(crate) group: String,
    /// Place of the owning scope in its configuration.
    pub(crate) order: u32,
    /// The `discovery_config` that asks for the owning scope; empty is a configuration file.
    pub(crate) config: String,
}

impl DatabaseRow {
    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.bare.name
    }

    /// Its identity in the cloud; empty when it was not discovered.
    pub(crate) fn identity(&self) -> &str {
        &self.bare.identity
    }

    /// The scope that owns it; empty when it was not discovered.
    pub(crate) fn scope_id(&self) -> &str {
        &self.bare.scope_id
    }
}

impl Row for DatabaseRow {
    type Message = v1::Database;

    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn revision(&self) -> u64 {
        self.revision
    }

    fn mentions(&self, word: &str) -> bool {
        holds(&self.bare.name, word)
            || holds(&self.bare.description, word)
            || labels_hold(&self.labels, word)
    }

    fn message(&self) -> v1::Database {
        let mut message = self.bare.clone();
        message.labels = self.labels.clone().into();
        message.revision = self.revision;
        message
    }
}

/// One agent serving one database.
#[derive(Debug, PartialEq)]
pub(crate) struct ServerRow {
    bare: v1::DatabaseServer,
    labels: Labels,
    revision: u64,
}

impl ServerRow {
    /// The database's name.
    pub(crate) fn database(&self) -> &str {
        self.bare
            .database
            .as_ref()
            .map_or("", |database| database.name.as_str())
    }

    /// The agent.
    pub(crate) fn host_id(&self) -> &str {
        &self.bare.host_id
    }
}

impl Row for ServerRow {
    type Message = v1::DatabaseServer;

    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn revision(&self) -> u64 {
        self.revision
    }

    fn mentions(&self, word: &str) -> bool {
        holds(self.database(), word)
            || holds(&self.bare.hostname, word)
            || self
                .bare
                .database
                .as_ref()
                .is_some_and(|database| holds(&database.description, word))
            || labels_hold(&self.labels, word)
    }

    fn message(&self) -> v1::DatabaseServer {
        let mut message = self.bare.clone();
        if let Some(database) = &mut message.database {
            database.labels = self.labels.clone().into();
        }
        message.revision = self.revision;
        message
    }
}

/// Whether a word occurs in a label. Reserved keys are on every database, so finding them would find everything.
fn labels_hold(labels: &Labels, word: &str) -> bool {
    labels
        .iter()
        .any(|(key, value)| holds(value, word) || (!is_reserved(key) && holds(key, word)))
}

/// Whether a word in lower case occurs in a text, whatever the text's case.
fn holds(text: &str, word: &str) -> bool {
    if text.is_ascii() {
        word.is_empty()
            || text
                .as_bytes()
                .windows(word.len())
                .any(|window| window.eq_ignore_ascii_case(word.as_bytes()))
    } else {
        text.to_lowercase().contains(word)
    }
}

/// One row's change; at least one side is there.
#[derive(Debug)]
pub(crate) struct RowChange<R> {
    /// What it was.
    pub(crate) previous: Option<Arc<R>>,
    /// What it is.
    pub(crate) current: Option<Arc<R>>,
}

impl<R> Clone for RowChange<R> {
    fn clone(&self) -> Self {
        Self {
            previous: self.previous.clone(),
            current: self.current.clone(),
        }
    }
}

/// The changes of one transaction in one table; never none.
#[derive(Debug)]
pub(crate) struct RowChanges<R> {
    /// The transaction's revision.
    pub(crate) revision: u64,
    /// In order.
    pub(crate) changes: Vec<RowChange<R>>,
}

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
    /// Names of databases by owning scope.
    pub(crate) by_scope: HashMap<String, BTreeSet<String>>,
    /// Names of databases by identity.
    pub(crate) by_identity: HashMap<String, String>,
    /// People.
    pub(crate) users: HashSet<String>,
    /// Matchers of groups, by name.
    pub(crate) configs: BTreeMap<String, v1::DiscoveryConfig>,
    roles: BTreeMap<String, v1::Role>,
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
            match Role::try_from(message.clone()) {
                Ok(role) => {
                    roles.insert(name.clone(), role);
                    messages.insert(name.clone(), message.clone());
                }
                Err(error) => {
                    tracing::error!(role = name, error = %error, "left out a stored role that cannot be used");
                }
            }
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
            match change.current.as_ref().and_then(|entry| {
                read::<v1::Role>(entry).map(|role| v1::Role {
                    revision: entry.modified,
                    ..role
                })
            }) {
                Some(role) => drop(self.roles.insert(name.to_owned(), role)),
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
        let current = entry.and_then(database_row).map(Arc::new);
        let previous = self.databases.get(name).cloned();
        if let Some(previous) = &previous {
            if let Some(names) = self.by_scope.get_mut(previous.scope_id()) {
                names.remove(name);
                if names.is_empty() {
                    self.by_scope.remove(previous.scope_id());
                }
            }
            if self
                .by_identity
                .get(previous.identity())
                .is_some_and(|holder| holder == name)
            {
                self.by_identity.remove(previous.identity());
            }
        }
        match &current {
            Some(row) => {
                if !row.scope_id().is_empty() {
                    self.by_scope
                        .entry(row.scope_id().to_owned())
                        .or_default()
                        .insert(name.to_owned());
                }
                if !row.identity().is_empty() {
                    self.by_identity
                        .insert(row.identity().to_owned(), name.to_owned());
                }
                self.databases.insert(name.to_owned(), row.clone());
            }
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
        let current = entry.and_then(server_row).map(Arc::new);
        let previous = match &current {
            Some(row) => self.servers.insert(key, row.clone()),
            None => self.servers.remove(&key),
        };
        if previous.is_some() || current.is_some() {
            effects.servers.push(RowChange { previous, current });
        }
    }
}

/// A stored database as a row.
pub(crate) fn database_row(entry: &Entry) -> Option<DatabaseRow> {
    let record: DatabaseRecord = read(entry)?;
    let mut bare = record.database?;
    let labels = std::mem::take(&mut bare.labels).into();
    Some(DatabaseRow {
        bare,
        labels,
        revision: entry.modified,
        group: record.group,
        order: record.order,
        config: record.config,
    })
}

/// A stored database server as a row.
pub(crate) fn server_row(entry: &Entry) -> Option<ServerRow> {
    let mut bare: v1::DatabaseServer = read(entry)?;
    let database = bare.database.as_mut()?;
    let labels = std::mem::take(&mut database.labels).into();
    Some(ServerRow {
        bare,
        labels,
        revision: entry.modified,
    })
}

/// A record, or a line in the log: one damaged record must not take the others away.
fn read<R: Message + Default>(entry: &Entry) -> Option<R> {
    match record::decode(entry) {
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
    use super::*;

    #[test]
    fn words_are_found_whatever_their_case() {
        assert!(holds("Orders-PROD", "prod"));
        assert!(holds("Bestände", "bestände"));
        assert!(!holds("orders", "prod"));
        assert!(!holds("a", "longer than the text"));
    }

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
}
