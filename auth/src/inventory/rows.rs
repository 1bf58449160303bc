//! Rows: what is kept of a database and of a database server, and how selectors, roles, predicates and words look at it.

use std::{borrow::Cow, sync::Arc};

use tidegate_core::{Labels, Origin, labels::is_reserved, predicate::Fields};
use tidegate_proto::v1;

use super::{index::Slot, tables::read};
use crate::{record::DatabaseRecord, store::Entry};

/// The health of a database that no agent has tried yet.
const HEALTH_UNKNOWN: &str = "unknown";

/// A row that selectors, roles and predicates can look at.
pub(crate) trait Row: Send + Sync + 'static {
    /// What it is sent as.
    type Message;

    /// The row as predicates look at it.
    fn fields(&self) -> &dyn Fields;
    /// Its place in the table: the database's name, and the host of a database server.
    fn key(&self) -> (&str, &str);
    /// Its number in the index by label.
    fn slot(&self) -> Slot;
    /// Sets its number.
    fn set_slot(&mut self, slot: Slot);
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
    slot: Slot,
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

    /// How it got here.
    pub(crate) fn origin(&self) -> v1::Origin {
        self.bare.origin()
    }

    /// The scope that owns it; empty when it was not discovered.
    pub(crate) fn scope_id(&self) -> &str {
        &self.bare.scope_id
    }
}

impl Row for DatabaseRow {
    type Message = v1::Database;

    fn fields(&self) -> &dyn Fields {
        self
    }

    fn key(&self) -> (&str, &str) {
        (self.name(), "")
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
    slot: Slot,
}

impl ServerRow {
    /// The database's name.
    pub(crate) fn database(&self) -> &str {
        self.bare
            .database
            .as_ref()
            .map_or("", |database| database.name.as_str())
    }

    /// How its database got here.
    pub(crate) fn origin(&self) -> v1::Origin {
        let database = self.bare.database.as_ref();
        database.map_or(v1::Origin::Unspecified, v1::Database::origin)
    }

    /// The agent.
    pub(crate) fn host_id(&self) -> &str {
        &self.bare.host_id
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

impl Fields for DatabaseRow {
    fn text(&self, path: &str) -> Option<Cow<'_, str>> {
        database_text(&self.bare, path)
    }

    fn labels(&self, path: &str) -> Option<&Labels> {
        (path == "labels").then_some(&self.labels)
    }

    fn any_searched(&self, found: &mut dyn FnMut(&str) -> bool) -> bool {
        database_searched(&self.bare, &self.labels, found)
    }
}

impl Fields for ServerRow {
    fn text(&self, path: &str) -> Option<Cow<'_, str>> {
        let health = self.bare.target_health.as_ref();
        let text = match path {
            "host_id" => &self.bare.host_id,
            "hostname" => &self.bare.hostname,
            "version" => &self.bare.version,
            "health.status" => health
                .map(|health| health.status.as_str())
                .filter(|status| !status.is_empty())
                .unwrap_or(HEALTH_UNKNOWN),
            "health.message" => &health?.message,
            "effective_role" => &self.bare.effective_role.as_ref()?.role_arn,
            "role_source" => match self.bare.role_source() {
                v1::RoleSource::Override => "override",
                v1::RoleSource::Database => "database",
                v1::RoleSource::Unspecified | v1::RoleSource::Agent => "agent",
            },
            _ => return database_text(self.bare.database.as_ref()?, path),
        };
        present(text)
    }

    fn labels(&self, path: &str) -> Option<&Labels> {
        (path == "labels").then_some(&self.labels)
    }

    fn any_searched(&self, found: &mut dyn FnMut(&str) -> bool) -> bool {
        found(&self.bare.hostname)
            || found(&self.bare.host_id)
            || self
                .bare
                .database
                .as_ref()
                .is_some_and(|database| database_searched(database, &self.labels, found))
    }
}

/// What predicates and orders read of a database, by the paths of [`tidegate_core::predicate::Schema`].
fn database_text<'m>(database: &'m v1::Database, path: &str) -> Option<Cow<'m, str>> {
    let text = match path {
        "name" => &database.name,
        "description" => &database.description,
        "protocol" => &database.protocol,
        "uri" => &database.uri,
        "type" => &database.kind,
        "origin" => match database.origin() {
            v1::Origin::Unspecified => return None,
            v1::Origin::Cloud => Origin::Cloud.as_str(),
            v1::Origin::Config => Origin::Config.as_str(),
            v1::Origin::Dynamic => Origin::Dynamic.as_str(),
        },
        "identity" => &database.identity,
        "discovered_name" => &database.discovered_name,
        "unavailable" => &database.unavailable,
        _ => return aws_text(database.aws.as_ref()?, path),
    };
    present(text)
}

fn aws_text<'m>(aws: &'m v1::AwsMetadata, path: &str) -> Option<Cow<'m, str>> {
    present(match path {
        "region" => &aws.region,
        "account_id" => &aws.account_id,
        "assume_role_arn" => &aws.assume_role.as_ref()?.role_arn,
        "redshift.cluster_id" => &aws.redshift_cluster_id,
        "redshift_serverless.workgroup_name" => &aws.redshift_serverless_workgroup,
        "rds.instance_id" => &aws.rds_instance_id,
        "rds.cluster_id" => &aws.rds_cluster_id,
        _ => return None,
    })
}

fn database_searched(
    database: &v1::Database,
    labels: &Labels,
    found: &mut dyn FnMut(&str) -> bool,
) -> bool {
    let host = database.uri.rsplit_once(':').map_or("", |(host, _)| host);
    found(&database.name)
        || found(&database.description)
        || found(&database.protocol)
        || found(host.trim_matches(['[', ']']))
        || (!database.kind.is_empty() && found(&database.kind))
        || labels.iter().any(|(key, value)| found(key) || found(value))
}

fn present(text: &str) -> Option<Cow<'_, str>> {
    (!text.is_empty()).then_some(Cow::Borrowed(text))
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

/// A stored database as a row.
pub(crate) fn database_row(entry: &Entry) -> Option<DatabaseRow> {
    let record: DatabaseRecord = read(entry)?;
    let mut bare = record.database?;
    let labels = std::mem::take(&mut bare.labels).into();
    Some(DatabaseRow {
        bare,
        labels,
        revision: entry.modified,
        slot: Slot::default(),
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
        slot: Slot::default(),
    })
}

#[cfg(test)]
mod tests {
    use tidegate_core::{Database, DatabaseServer, Predicate, predicate::Schema};

    use super::*;
    use crate::{keys, record::encode};

    fn database() -> v1::Database {
        let role = v1::AssumeRole {
            role_arn: "arn:aws:iam::111122223333:role/reader".to_owned(),
            external_id: String::new(),
        };
        v1::Database {
            name: "dw-orders".to_owned(),
            description: "Orders".to_owned(),
            labels: [("env".to_owned(), "prod".to_owned())].into(),
            origin: v1::Origin::Cloud.into(),
            protocol: "postgres".to_owned(),
            uri: "[::1]:5439".to_owned(),
            aws: Some(v1::AwsMetadata {
                region: "eu-west-1".to_owned(),
                account_id: "111122223333".to_owned(),
                assume_role: Some(role),
                redshift_cluster_id: "dw".to_owned(),
                redshift_serverless_workgroup: "wg".to_owned(),
                rds_instance_id: "i".to_owned(),
                rds_cluster_id: "c".to_owned(),
                ..v1::AwsMetadata::default()
            }),
            kind: "redshift".to_owned(),
            identity: "arn:aws:redshift:…".to_owned(),
            discovered_name: "dw".to_owned(),
            unavailable: "paused".to_owned(),
            ..v1::Database::default()
        }
    }

    fn server() -> v1::DatabaseServer {
        v1::DatabaseServer {
            host_id: "h-1".to_owned(),
            hostname: "agent-1".to_owned(),
            version: "0.1.0".to_owned(),
            database: Some(database()),
            effective_role: database().aws.unwrap().assume_role,
            role_source: v1::RoleSource::Override.into(),
            target_health: Some(v1::TargetHealth {
                status: "healthy".to_owned(),
                message: "reached".to_owned(),
                ..v1::TargetHealth::default()
            }),
            ..v1::DatabaseServer::default()
        }
    }

    fn entry(message: &impl prost::Message) -> Entry {
        Entry {
            key: keys::database("x"),
            value: encode(message),
            created: 1,
            modified: 1,
            lease: None,
        }
    }

    fn same(schema: &'static Schema, row: &dyn Fields, noun: &dyn Fields) {
        for field in schema.iter() {
            assert_eq!(
                row.text(field.path),
                noun.text(field.path),
                "{}",
                field.path
            );
            assert_eq!(row.labels(field.path), noun.labels(field.path));
        }
        for word in [
            "orders", "::1", "5439", "redshift", "prod", "agent-1", "h-1",
        ] {
            let text = format!("search(\"{word}\")");
            let search = Predicate::parse_for(schema, &text).unwrap();
            assert_eq!(search.matches(row), search.matches(noun), "{word}");
        }
    }

    #[test]
    fn a_row_reads_to_predicates_as_what_it_is_a_row_of() {
        let record = DatabaseRecord {
            database: Some(database()),
            ..DatabaseRecord::default()
        };
        let row = database_row(&entry(&record)).unwrap();
        same(
            &Schema::DATABASE,
            &row,
            &Database::try_from(database()).unwrap(),
        );
        let row = server_row(&entry(&server())).unwrap();
        let noun = DatabaseServer::try_from(server()).unwrap();
        same(&Schema::DATABASE_SERVER, &row, &noun);
        let bare = v1::DatabaseServer {
            role_source: 0,
            target_health: None,
            ..server()
        };
        let row = server_row(&entry(&bare)).unwrap();
        let noun = DatabaseServer::try_from(bare).unwrap();
        same(&Schema::DATABASE_SERVER, &row, &noun);
    }

    #[test]
    fn words_are_found_whatever_their_case() {
        assert!(holds("Orders-PROD", "prod"));
        assert!(holds("Bestände", "bestände"));
        assert!(!holds("orders", "prod"));
        assert!(!holds("a", "longer than the text"));
    }
}
