//! Databases that administrators write: created, replaced and deleted over the API.
//!
//! Not here: discovered ones (the ledger's), and those of an agent's configuration file (presence's).

use std::sync::Arc;

use tidegate_core::{
    Database, Origin,
    labels::{LABELS_MAX, ORIGIN, is_label_key, is_reserved},
};
use tidegate_proto::{Invalid, v1};

use crate::{
    audit::{AuditLog, event},
    inventory::{Inventory, tables::database_row},
    keys,
    record::{DatabaseRecord, encode},
    store::{CommitError, Entry, Store, StoreUnavailable, Txn},
};

/// Longest description.
const DESCRIPTION_CHARS_MAX: usize = 1024;

/// Most agents that are named as owners of one database.
const AGENTS_SHOWN: usize = 3;

/// Why a database was not created, replaced or deleted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DatabaseError {
    /// Somebody else changed it.
    #[error("database {0}")]
    Conflict(Conflict),
    /// The name is taken.
    #[error("database `{0}` exists already")]
    Exists(String),
    /// A field is wrong.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// There is none.
    #[error("no database `{0}`")]
    NotFound(String),
    /// It is not one that the API may change.
    #[error("database `{name}` {owner}")]
    NotOurs {
        /// Its name.
        name: String,
        /// Whose it is, and what to do there.
        owner: Owner,
    },
    /// The store does not answer.
    #[error(transparent)]
    Unavailable(#[from] StoreUnavailable),
}

/// How a change of somebody else got in between.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Conflict {
    /// While the change was being made.
    #[error("`{0}` was changed at the same time: try again")]
    Meanwhile(String),
    /// Since the caller read it.
    #[error("`{name}` has changed since revision {read}, it is at {stored}: read it again")]
    Since {
        /// Its name.
        name: String,
        /// What the caller read.
        read: u64,
        /// What is there.
        stored: u64,
    },
}

/// Whose a database is that the API may not change.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Owner {
    /// Agents have it in their configuration.
    #[error("is written in the configuration file of agent {0}: change it there")]
    Agent(String),
    /// A scan found it.
    #[error(
        "was discovered by scan scope `{0}` and would come back as it was: change its tags, or what discovery looks for"
    )]
    Scope(String),
}

/// Writes databases.
pub(crate) struct Databases {
    /// The state.
    pub(crate) store: Arc<dyn Store>,
    /// What is shown of it.
    pub(crate) inventory: Arc<Inventory>,
    /// Tells what happened.
    pub(crate) audit: AuditLog,
}

impl Databases {
    /// Adds a database.
    pub(crate) async fn create(
        &self,
        actor: &str,
        message: Option<v1::Database>,
    ) -> Result<v1::Database, DatabaseError> {
        let database = checked(message.ok_or_else(|| Invalid::new("database", "is missing"))?)?;
        let name = database.name.to_string();
        let message = v1::Database::from(database);
        let record = DatabaseRecord {
            database: Some(message.clone()),
            ..DatabaseRecord::default()
        };
        let key = keys::database(&name);
        let txn = Txn::new().absent(key.clone()).put(key, encode(&record));
        let revision = match self.store.commit(txn).await {
            Ok(revision) => revision,
            Err(CommitError::Unavailable(unavailable)) => return Err(unavailable.into()),
            Err(_) => return Err(DatabaseError::Exists(name)),
        };
        self.tell(event::DB_CREATE, actor, &name);
        self.inventory.reached(revision).await;
        Ok(v1::Database {
            revision,
            ..message
        })
    }

    /// Replaces a database that was added over the API. With a `revision` only the database of that revision.
    pub(crate) async fn update(
        &self,
        actor: &str,
        message: Option<v1::Database>,
    ) -> Result<v1::Database, DatabaseError> {
        let message = message.ok_or_else(|| Invalid::new("database", "is missing"))?;
        let read = message.revision;
        let database = checked(message)?;
        let name = database.name.to_string();
        let stored = self.ours(&name).await?;
        if read != 0 && read != stored.modified {
            return Err(DatabaseError::Conflict(Conflict::Since {
                name,
                read,
                stored: stored.modified,
            }));
        }
        let message = v1::Database::from(database);
        let record = DatabaseRecord {
            database: Some(message.clone()),
            ..DatabaseRecord::default()
        };
        let txn = Txn::new()
            .at(stored.key.clone(), stored.modified)
            .put(stored.key, encode(&record));
        let revision = self.commit(txn, &name).await?;
        self.tell(event::DB_UPDATE, actor, &name);
        self.inventory.reached(revision).await;
        Ok(v1::Database {
            revision,
            ..message
        })
    }

    /// Deletes a database that was added over the API.
    pub(crate) async fn delete(&self, actor: &str, name: &str) -> Result<(), DatabaseError> {
        let stored = self.ours(name).await?;
        let txn = Txn::new()
            .at(stored.key.clone(), stored.modified)
            .delete(stored.key);
        let revision = self.commit(txn, name).await?;
        self.tell(event::DB_DELETE, actor, name);
        self.inventory.reached(revision).await;
        Ok(())
    }

    /// What is stored of a database that was added over the API.
    async fn ours(&self, name: &str) -> Result<Entry, DatabaseError> {
        let Some(entry) = self.store.get(keys::database(name)).await? else {
            return Err(self.missing(name));
        };
        let row = database_row(&entry).ok_or_else(|| self.missing(name))?;
        if row.origin() != v1::Origin::Dynamic {
            return Err(DatabaseError::NotOurs {
                name: name.to_owned(),
                owner: Owner::Scope(row.scope_id().to_owned()),
            });
        }
        Ok(entry)
    }

    /// Why a database is not stored: agents' own live with their presence alone.
    fn missing(&self, name: &str) -> DatabaseError {
        let look = self.inventory.tables();
        let first = (name.to_owned(), String::new());
        let agents: Vec<&str> = look
            .servers
            .range(first..)
            .take_while(|((served, _), _)| served == name)
            .filter(|(_, row)| row.origin() == v1::Origin::Config)
            .map(|((_, host), _)| host.as_str())
            .take(AGENTS_SHOWN)
            .collect();
        let name = name.to_owned();
        if agents.is_empty() {
            return DatabaseError::NotFound(name);
        }
        let owner = Owner::Agent(agents.join(", "));
        DatabaseError::NotOurs { name, owner }
    }

    async fn commit(&self, txn: Txn, name: &str) -> Result<u64, DatabaseError> {
        match self.store.commit(txn).await {
            Ok(revision) => Ok(revision),
            Err(CommitError::Unavailable(unavailable)) => Err(unavailable.into()),
            Err(_) => Err(DatabaseError::Conflict(Conflict::Meanwhile(
                name.to_owned(),
            ))),
        }
    }

    fn tell(&self, kind: event::Kind, actor: &str, name: &str) {
        let mut made = event::new(kind);
        actor.clone_into(&mut made.user);
        name.clone_into(&mut made.db_service);
        self.audit.record(made);
    }
}

/// A database as its author may write it, with the labels that only we set.
fn checked(mut message: v1::Database) -> Result<Database, Invalid> {
    message.set_origin(v1::Origin::Dynamic);
    message.identity = String::new();
    message.unavailable = String::new();
    let mut database = Database::try_from(message)?;
    if database.description.chars().count() > DESCRIPTION_CHARS_MAX {
        let problem = format!("is longer than {DESCRIPTION_CHARS_MAX} characters");
        return Err(Invalid::new("description", problem));
    }
    if database.labels.len() > LABELS_MAX {
        return Err(Invalid::new(
            "labels",
            format!("are more than {LABELS_MAX}"),
        ));
    }
    let written = database.labels.iter().map(|(key, _)| key);
    for key in written.filter(|key| *key != ORIGIN) {
        if !is_label_key(key) || is_reserved(key) {
            let problem = format!(
                "`{key}` cannot be set: use letters, digits and `/.-_:*`, and no reserved prefix"
            );
            return Err(Invalid::new("labels", problem));
        }
    }
    database.labels.insert(ORIGIN, Origin::Dynamic.as_str());
    if database.discovered_name.is_empty() {
        database.discovered_name = database.name.to_string();
    }
    Ok(database)
}
