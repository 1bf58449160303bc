//! What is kept of a database, and how predicates read it.

use std::{borrow::Cow, sync::Arc};

use tidegate_core::{Labels, Origin, predicate::Fields};
use tidegate_proto::v1;

use super::{Row, holds, labels_hold, present};
use crate::{
    inventory::{
        index::Slot,
        packed::{Packed, Wire},
        tables::packed,
    },
    record::DatabaseRecord,
    store::Entry,
};

/// Numbers of the fields of [`DatabaseRecord`].
mod record {
    pub(super) const DATABASE: u32 = 1;
    pub(super) const GROUP: u32 = 2;
    pub(super) const ORDER: u32 = 3;
    pub(super) const CONFIG: u32 = 4;
}

/// Numbers of the fields of `tidegate.v1.Database`.
pub(super) mod field {
    pub(in super::super) const NAME: u32 = 1;
    pub(in super::super) const DESCRIPTION: u32 = 2;
    pub(in super::super) const ORIGIN: u32 = 4;
    pub(in super::super) const PROTOCOL: u32 = 5;
    pub(in super::super) const URI: u32 = 6;
    pub(in super::super) const AWS: u32 = 8;
    pub(in super::super) const KIND: u32 = 9;
    pub(in super::super) const IDENTITY: u32 = 10;
    pub(in super::super) const DISCOVERED_NAME: u32 = 11;
    pub(in super::super) const UNAVAILABLE: u32 = 12;
    pub(in super::super) const SCOPE_ID: u32 = 14;
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
pub(super) const ROLE_ARN: u32 = 1;

/// A database.
#[derive(Debug, PartialEq)]
pub(crate) struct DatabaseRow {
    /// The [`DatabaseRecord`] without labels.
    record: Packed,
    /// Shared with the rows of those who serve it.
    labels: Arc<Labels>,
    revision: u64,
    slot: Slot,
}

impl DatabaseRow {
    fn database(&self) -> Wire<'_> {
        self.record.fields().message(record::DATABASE)
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        self.database().text(field::NAME)
    }

    /// The labels, to be shared.
    pub(crate) const fn shared_labels(&self) -> &Arc<Labels> {
        &self.labels
    }

    /// Its identity in the cloud; empty when it was not discovered.
    pub(crate) fn identity(&self) -> &str {
        self.database().text(field::IDENTITY)
    }

    /// How it got here.
    pub(crate) fn origin(&self) -> v1::Origin {
        origin(self.database())
    }

    /// The scope that owns it; empty when it was not discovered.
    pub(crate) fn scope_id(&self) -> &str {
        self.database().text(field::SCOPE_ID)
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

pub(super) fn origin(database: Wire<'_>) -> v1::Origin {
    let number = i32::try_from(database.number(field::ORIGIN));
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
            || holds(self.database().text(field::DESCRIPTION), word)
            || labels_hold(&self.labels, word)
    }

    fn message(&self) -> v1::Database {
        let record: DatabaseRecord = self.record.unpack();
        v1::Database {
            labels: (&*self.labels).into(),
            revision: self.revision,
            ..record.database.unwrap_or_default()
        }
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
/// What predicates and orders read of a database, by the paths of [`tidegate_core::predicate::Schema`].
pub(super) fn database_text<'m>(fields: Wire<'m>, path: &str) -> Option<Cow<'m, str>> {
    present(fields.text(match path {
        "name" => field::NAME,
        "description" => field::DESCRIPTION,
        "protocol" => field::PROTOCOL,
        "uri" => field::URI,
        "type" => field::KIND,
        "identity" => field::IDENTITY,
        "discovered_name" => field::DISCOVERED_NAME,
        "unavailable" => field::UNAVAILABLE,
        "origin" => {
            return present(match origin(fields) {
                v1::Origin::Unspecified => return None,
                v1::Origin::Cloud => Origin::Cloud.as_str(),
                v1::Origin::Config => Origin::Config.as_str(),
                v1::Origin::Dynamic => Origin::Dynamic.as_str(),
            });
        }
        _ => return aws_text(fields.message(field::AWS), path),
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

pub(super) fn database_searched(
    fields: Wire<'_>,
    labels: &Labels,
    found: &mut dyn FnMut(&str) -> bool,
) -> bool {
    let uri = fields.text(field::URI);
    let host = uri.rsplit_once(':').map_or("", |(host, _)| host);
    let kind = fields.text(field::KIND);
    found(fields.text(field::NAME))
        || found(fields.text(field::DESCRIPTION))
        || found(fields.text(field::PROTOCOL))
        || found(host.trim_matches(['[', ']']))
        || (!kind.is_empty() && found(kind))
        || labels.iter().any(|(key, value)| found(key) || found(value))
}
/// A stored database as a row.
pub(crate) fn database_row(entry: &Entry) -> Option<DatabaseRow> {
    let (record, labels) = packed(entry, record::DATABASE)?;
    let row = DatabaseRow {
        record,
        labels: Arc::new(labels),
        revision: entry.modified,
        slot: Slot::default(),
    };
    (!row.name().is_empty()).then_some(row)
}
