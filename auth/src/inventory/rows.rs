//! Rows: what is kept of a database and of a database server, and how selectors, roles, predicates and words look at it.
//!
//! What is read of every row at every look, its labels, is kept ready; the rest is packed ([`Packed`]).

use std::{borrow::Cow, sync::Arc};

use tidegate_core::{Labels, Origin, labels::is_reserved, predicate::Fields};
use tidegate_proto::v1;

use super::{
    index::Slot,
    packed::{Packed, Wire},
    tables::read,
};
use crate::{record::DatabaseRecord, store::Entry};

/// The health of a database that no agent has tried yet.
const HEALTH_UNKNOWN: &str = "unknown";

/// Numbers of the fields of [`DatabaseRecord`].
mod record {
    pub(super) const DATABASE: u32 = 1;
    pub(super) const GROUP: u32 = 2;
    pub(super) const ORDER: u32 = 3;
    pub(super) const CONFIG: u32 = 4;
}

/// Numbers of the fields of `tidegate.v1.Database`.
mod database {
    pub(super) const NAME: u32 = 1;
    pub(super) const DESCRIPTION: u32 = 2;
    pub(super) const ORIGIN: u32 = 4;
    pub(super) const PROTOCOL: u32 = 5;
    pub(super) const URI: u32 = 6;
    pub(super) const AWS: u32 = 8;
    pub(super) const KIND: u32 = 9;
    pub(super) const IDENTITY: u32 = 10;
    pub(super) const DISCOVERED_NAME: u32 = 11;
    pub(super) const UNAVAILABLE: u32 = 12;
    pub(super) const SCOPE_ID: u32 = 14;
}

/// Numbers of the fields of `tidegate.v1.AwsMetadata`.
mod aws {
    pub(super) const REGION: u32 = 1;
    pub(super) const ACCOUNT_ID: u32 = 2;
    pub(super) const ASSUME_ROLE: u32 = 3;
    pub(super) const REDSHIFT_CLUSTER_ID: u32 = 4;
    pub(super) const REDSHIFT_SERVERLESS_WORKGROUP: u32 = 5;
    pub(super) const RDS_INSTANCE_ID: u32 = 7;
    pub(super) const RDS_CLUSTER_ID: u32 = 8;
}

/// Number of the role's ARN in `tidegate.v1.AssumeRole`.
const ROLE_ARN: u32 = 1;

/// Numbers of the fields of `tidegate.v1.DatabaseServer`.
mod server {
    pub(super) const HOST_ID: u32 = 1;
    pub(super) const HOSTNAME: u32 = 2;
    pub(super) const VERSION: u32 = 3;
    pub(super) const DATABASE: u32 = 4;
    pub(super) const EFFECTIVE_ROLE: u32 = 5;
    pub(super) const ROLE_SOURCE: u32 = 6;
    pub(super) const TARGET_HEALTH: u32 = 7;
}

/// Numbers of the fields of `tidegate.v1.TargetHealth`.
mod health {
    pub(super) const STATUS: u32 = 3;
    pub(super) const MESSAGE: u32 = 7;
}

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
    /// The [`DatabaseRecord`] without labels.
    record: Packed,
    labels: Labels,
    revision: u64,
    slot: Slot,
}

impl DatabaseRow {
    fn database(&self) -> Wire<'_> {
        self.record.fields().message(record::DATABASE)
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        self.database().text(database::NAME)
    }

    /// Its identity in the cloud; empty when it was not discovered.
    pub(crate) fn identity(&self) -> &str {
        self.database().text(database::IDENTITY)
    }

    /// How it got here.
    pub(crate) fn origin(&self) -> v1::Origin {
        origin(self.database())
    }

    /// The scope that owns it; empty when it was not discovered.
    pub(crate) fn scope_id(&self) -> &str {
        self.database().text(database::SCOPE_ID)
    }

    /// Group of the owning scope.
    pub(crate) fn group(&self) -> &str {
        self.record.fields().text(record::GROUP)
    }

    /// Place of the owning scope in its configuration.
    pub(crate) fn order(&self) -> u32 {
        // A larger one was never packed.
        u32::try_from(self.record.fields().number(record::ORDER)).unwrap_or(u32::MAX)
    }

    /// The `discovery_config` that asks for the owning scope; empty is a configuration file.
    pub(crate) fn config(&self) -> &str {
        self.record.fields().text(record::CONFIG)
    }
}

fn origin(database: Wire<'_>) -> v1::Origin {
    let number = i32::try_from(database.number(database::ORIGIN));
    number
        .ok()
        .and_then(|number| v1::Origin::try_from(number).ok())
        .unwrap_or(v1::Origin::Unspecified)
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
        holds(self.name(), word)
            || holds(self.database().text(database::DESCRIPTION), word)
            || labels_hold(&self.labels, word)
    }

    fn message(&self) -> v1::Database {
        let record: DatabaseRecord = self.record.unpack();
        v1::Database {
            labels: (&self.labels).into(),
            revision: self.revision,
            ..record.database.unwrap_or_default()
        }
    }
}

/// One agent serving one database.
#[derive(Debug, PartialEq)]
pub(crate) struct ServerRow {
    /// Without its database's labels.
    bare: Packed,
    labels: Labels,
    revision: u64,
    slot: Slot,
}

impl ServerRow {
    fn of_database(&self) -> Wire<'_> {
        self.bare.fields().message(server::DATABASE)
    }

    /// The database's name.
    pub(crate) fn database(&self) -> &str {
        self.of_database().text(database::NAME)
    }

    /// How its database got here.
    pub(crate) fn origin(&self) -> v1::Origin {
        origin(self.of_database())
    }

    /// The agent.
    pub(crate) fn host_id(&self) -> &str {
        self.bare.fields().text(server::HOST_ID)
    }

    fn hostname(&self) -> &str {
        self.bare.fields().text(server::HOSTNAME)
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
            || holds(self.of_database().text(database::DESCRIPTION), word)
            || labels_hold(&self.labels, word)
    }

    fn message(&self) -> v1::DatabaseServer {
        let mut message: v1::DatabaseServer = self.bare.unpack();
        if let Some(database) = &mut message.database {
            database.labels = (&self.labels).into();
        }
        message.revision = self.revision;
        message
    }
}

impl Fields for DatabaseRow {
    fn text(&self, path: &str) -> Option<Cow<'_, str>> {
        database_text(self.database(), path)
    }

    fn labels(&self, path: &str) -> Option<&Labels> {
        (path == "labels").then_some(&self.labels)
    }

    fn any_searched(&self, found: &mut dyn FnMut(&str) -> bool) -> bool {
        database_searched(self.database(), &self.labels, found)
    }
}

impl Fields for ServerRow {
    fn text(&self, path: &str) -> Option<Cow<'_, str>> {
        let fields = self.bare.fields();
        let health = fields.message(server::TARGET_HEALTH);
        let text = match path {
            "host_id" => self.host_id(),
            "hostname" => self.hostname(),
            "version" => fields.text(server::VERSION),
            "health.status" => match health.text(health::STATUS) {
                "" => HEALTH_UNKNOWN,
                known => known,
            },
            "health.message" => health.text(health::MESSAGE),
            "effective_role" => fields.message(server::EFFECTIVE_ROLE).text(ROLE_ARN),
            "role_source" => role_source(fields.number(server::ROLE_SOURCE)),
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

/// What predicates and orders read of a database, by the paths of [`tidegate_core::predicate::Schema`].
fn database_text<'m>(fields: Wire<'m>, path: &str) -> Option<Cow<'m, str>> {
    present(fields.text(match path {
        "name" => database::NAME,
        "description" => database::DESCRIPTION,
        "protocol" => database::PROTOCOL,
        "uri" => database::URI,
        "type" => database::KIND,
        "identity" => database::IDENTITY,
        "discovered_name" => database::DISCOVERED_NAME,
        "unavailable" => database::UNAVAILABLE,
        "origin" => {
            return present(match origin(fields) {
                v1::Origin::Unspecified => return None,
                v1::Origin::Cloud => Origin::Cloud.as_str(),
                v1::Origin::Config => Origin::Config.as_str(),
                v1::Origin::Dynamic => Origin::Dynamic.as_str(),
            });
        }
        _ => return aws_text(fields.message(database::AWS), path),
    }))
}

fn aws_text<'m>(fields: Wire<'m>, path: &str) -> Option<Cow<'m, str>> {
    present(fields.text(match path {
        "region" => aws::REGION,
        "account_id" => aws::ACCOUNT_ID,
        "assume_role_arn" => {
            return present(fields.message(aws::ASSUME_ROLE).text(ROLE_ARN));
        }
        "redshift.cluster_id" => aws::REDSHIFT_CLUSTER_ID,
        "redshift_serverless.workgroup_name" => aws::REDSHIFT_SERVERLESS_WORKGROUP,
        "rds.instance_id" => aws::RDS_INSTANCE_ID,
        "rds.cluster_id" => aws::RDS_CLUSTER_ID,
        _ => return None,
    }))
}

fn database_searched(
    fields: Wire<'_>,
    labels: &Labels,
    found: &mut dyn FnMut(&str) -> bool,
) -> bool {
    let uri = fields.text(database::URI);
    let host = uri.rsplit_once(':').map_or("", |(host, _)| host);
    let kind = fields.text(database::KIND);
    found(fields.text(database::NAME))
        || found(fields.text(database::DESCRIPTION))
        || found(fields.text(database::PROTOCOL))
        || found(host.trim_matches(['[', ']']))
        || (!kind.is_empty() && found(kind))
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
    let mut record: DatabaseRecord = read(entry)?;
    let labels = std::mem::take(&mut record.database.as_mut()?.labels);
    Some(DatabaseRow {
        record: Packed::new(&record),
        labels: (&labels).into(),
        revision: entry.modified,
        slot: Slot::default(),
    })
}

/// A stored database server as a row.
pub(crate) fn server_row(entry: &Entry) -> Option<ServerRow> {
    let mut bare: v1::DatabaseServer = read(entry)?;
    let labels = std::mem::take(&mut bare.database.as_mut()?.labels);
    Some(ServerRow {
        bare: Packed::new(&bare),
        labels: (&labels).into(),
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
