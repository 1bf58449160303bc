//! What is kept of a database server, and how predicates read it.

use std::{borrow::Cow, sync::Arc};

use tidegate_core::{Labels, predicate::Fields};
use tidegate_proto::v1;

use super::{
    Row,
    database::{self, ROLE_ARN, database_searched, database_text},
    holds, labels_hold, present,
};
use crate::{
    inventory::{
        conflict::Definition,
        index::Slot,
        packed::{Packed, Wire},
        tables::packed,
    },
    store::Entry,
};

/// The health of a database that no agent has tried yet.
const HEALTH_UNKNOWN: &str = "unknown";
/// Numbers of the fields of `tidegate.v1.DatabaseServer`.
mod field {
    pub(super) const HOST_ID: u32 = 1;
    pub(super) const HOSTNAME: u32 = 2;
    pub(super) const VERSION: u32 = 3;
    pub(super) const DATABASE: u32 = 4;
    pub(super) const EFFECTIVE_ROLE: u32 = 5;
    pub(super) const ROLE_SOURCE: u32 = 6;
    pub(super) const TARGET_HEALTH: u32 = 7;
    pub(super) const ROLE_REASON: u32 = 9;
}

/// Numbers of the fields of `tidegate.v1.TargetHealth`.
mod health {
    pub(super) const STATUS: u32 = 3;
    pub(super) const MESSAGE: u32 = 7;
    pub(super) const FAILED_LAYER: u32 = 8;
}
/// One agent serving one database.
#[derive(Debug, PartialEq)]
pub(crate) struct ServerRow {
    /// Without its database's labels.
    bare: Packed,
    labels: Arc<Labels>,
    revision: u64,
    slot: Slot,
}

impl ServerRow {
    fn of_database(&self) -> Wire<'_> {
        self.bare.fields().message(field::DATABASE)
    }

    /// The database's name.
    pub(crate) fn database(&self) -> &str {
        self.of_database().text(database::field::NAME)
    }

    /// How its database got here.
    pub(crate) fn origin(&self) -> v1::Origin {
        database::origin(self.of_database())
    }

    /// The agent.
    pub(crate) fn host_id(&self) -> &str {
        self.bare.fields().text(field::HOST_ID)
    }

    /// The same row. Its labels take no memory of their own when they are those of a row that is kept already, which
    /// they mostly are: agents announce databases as the inventory has them.
    pub(crate) fn sharing(mut self, kept: Option<&Arc<Labels>>) -> Self {
        if let Some(kept) = kept.filter(|kept| **kept == self.labels) {
            self.labels = Arc::clone(kept);
        }
        self
    }

    /// The labels, to be shared.
    pub(crate) const fn shared_labels(&self) -> &Arc<Labels> {
        &self.labels
    }

    /// What other agents that serve a database of this name have to agree on.
    pub(crate) fn definition(&self) -> Definition<'_> {
        let database = self.of_database();
        Definition {
            hostname: self.hostname(),
            origin: self.origin(),
            protocol: database.text(database::field::PROTOCOL),
            uri: database.text(database::field::URI),
        }
    }

    fn hostname(&self) -> &str {
        self.bare.fields().text(field::HOSTNAME)
    }
}

impl Row for ServerRow {
    type Message = v1::DatabaseServer;

    fn fields(&self) -> &dyn Fields {
        self
    }

    fn key(&self) -> (&str, &str) {
        (self.database(), self.host_id())
    }

    fn slot(&self) -> Slot {
        self.slot
    }

    fn set_slot(&mut self, slot: Slot) {
        self.slot = slot;
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn revision(&self) -> u64 {
        self.revision
    }

    fn mentions(&self, word: &str) -> bool {
        holds(self.database(), word)
            || holds(self.hostname(), word)
            || holds(self.of_database().text(database::field::DESCRIPTION), word)
            || labels_hold(&self.labels, word)
    }

    fn message(&self) -> v1::DatabaseServer {
        let mut message: v1::DatabaseServer = self.bare.unpack();
        if let Some(database) = &mut message.database {
            database.labels = (&*self.labels).into();
        }
        message.revision = self.revision;
        message
    }
}
impl Fields for ServerRow {
    fn text(&self, path: &str) -> Option<Cow<'_, str>> {
        let fields = self.bare.fields();
        let health = fields.message(field::TARGET_HEALTH);
        let text = match path {
            "host_id" => self.host_id(),
            "hostname" => self.hostname(),
            "version" => fields.text(field::VERSION),
            "health.status" => match health.text(health::STATUS) {
                "" => HEALTH_UNKNOWN,
                known => known,
            },
            "health.message" => health.text(health::MESSAGE),
            "health.failed_layer" => health.text(health::FAILED_LAYER),
            "effective_role" => fields.message(field::EFFECTIVE_ROLE).text(ROLE_ARN),
            "role_source" => role_source(fields.number(field::ROLE_SOURCE)),
            "role_reason" => fields.text(field::ROLE_REASON),
            _ => return database_text(self.of_database(), path),
        };
        present(text)
    }

    fn labels(&self, path: &str) -> Option<&Labels> {
        (path == "labels").then_some(&self.labels)
    }

    fn any_searched(&self, found: &mut dyn FnMut(&str) -> bool) -> bool {
        found(self.hostname())
            || found(self.host_id())
            || database_searched(self.of_database(), &self.labels, found)
    }
}

fn role_source(number: u64) -> &'static str {
    let source = i32::try_from(number).ok();
    match source.and_then(|number| v1::RoleSource::try_from(number).ok()) {
        Some(v1::RoleSource::Override) => "override",
        Some(v1::RoleSource::Database) => "database",
        None | Some(v1::RoleSource::Unspecified | v1::RoleSource::Agent) => "agent",
    }
}
/// A stored database server as a row.
pub(crate) fn server_row(entry: &Entry) -> Option<ServerRow> {
    let (bare, labels) = packed(entry, field::DATABASE)?;
    let row = ServerRow {
        bare,
        labels: Arc::new(labels),
        revision: entry.modified,
        slot: Slot::default(),
    };
    (!row.database().is_empty()).then_some(row)
}
