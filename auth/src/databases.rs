//! Databases that administrators write: created and deleted over the API.
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
    inventory::{
        Inventory,
        tables::{Row as _, database_row},
    },
    keys,
    record::{DatabaseRecord, encode},
    store::{CommitError, Store, StoreUnavailable, Txn},
};

/// Longest description.
const DESCRIPTION_CHARS_MAX: usize = 1024;

/// Why a database was not created or deleted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DatabaseError {
    /// Somebody else changed it.
    #[error("database `{0}` was changed at the same time: try again")]
    Conflict(String),
    /// The name is taken.
    #[error("database `{0}` exists already")]
    Exists(String),
    /// A field is wrong.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// There is none.
    #[error("no database `{0}`")]
    NotFound(String),
    /// It is not one that the API may delete.
    #[error(
        "database `{name}` was discovered and would come back: change its tags, or what discovery looks for"
    )]
    NotOurs {
        /// Its name.
        name: String,
    },
    /// The store does not answer.
    #[error(transparent)]
    Unavailable(#[from] StoreUnavailable),
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

    /// Deletes a database that was added over the API.
    pub(crate) async fn delete(&self, actor: &str, name: &str) -> Result<(), DatabaseError> {
        let missing = || DatabaseError::NotFound(name.to_owned());
        let entry = self
            .store
            .get(keys::database(name))
            .await?
            .ok_or_else(missing)?;
        let row = database_row(&entry).ok_or_else(missing)?;
        if row.message().origin() != v1::Origin::Dynamic {
            return Err(DatabaseError::NotOurs {
                name: name.to_owned(),
            });
        }
        let txn = Txn::new()
            .at(entry.key.clone(), entry.modified)
            .delete(entry.key);
        let revision = match self.store.commit(txn).await {
            Ok(revision) => revision,
            Err(CommitError::Unavailable(unavailable)) => return Err(unavailable.into()),
            Err(_) => return Err(DatabaseError::Conflict(name.to_owned())),
        };
        self.tell(event::DB_DELETE, actor, name);
        self.inventory.reached(revision).await;
        Ok(())
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
