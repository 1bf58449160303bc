//! What was found, and how it travels.

use std::collections::BTreeMap;

use tidegate_core::{
    Database,
    naming::{self, NameParts},
};
use tidegate_proto::v1;

/// What a database's name is made of; the ledger makes the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NameBase {
    /// The identifier in AWS, or the value of a name tag.
    pub(crate) base: String,
    /// Whether `base` came from a name tag.
    pub(crate) tagged: bool,
    /// Endpoint part; empty for the main endpoint.
    pub(crate) endpoint: String,
    /// Suffix parts: type, subtype, region, account.
    pub(crate) suffix: Vec<String>,
}

impl NameBase {
    /// Calls `read` with the parts as the naming rules take them.
    pub(crate) fn with_parts<T>(&self, read: impl FnOnce(&NameParts<'_>) -> T) -> T {
        let suffix: Vec<&str> = self.suffix.iter().map(String::as_str).collect();
        read(&NameParts {
            base: &self.base,
            tagged: self.tagged,
            endpoint: &self.endpoint,
            suffix: &suffix,
        })
    }

    /// The name that the database gets when nobody else holds it.
    pub(crate) fn likely(&self, identity: &str) -> tidegate_core::DatabaseName {
        self.with_parts(|parts| naming::choose(parts, identity, |_| false))
    }

    /// What people call it.
    pub(crate) fn undecorated(&self) -> String {
        self.with_parts(naming::undecorated)
    }
}

/// One database as a scan saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// With the name that it likely gets.
    pub(crate) database: Database,
    /// What its name is made of.
    pub(crate) name: NameBase,
    /// Some of its labels could not be read: those that are known from before and missing here stay.
    pub(crate) tags_unknown: bool,
}

/// Databases by identity, and so in identity order.
pub(crate) type Databases = BTreeMap<String, Found>;

impl From<Found> for v1::ScanItem {
    /// Without the name, which the ledger gives.
    fn from(found: Found) -> Self {
        let database = v1::Database {
            name: String::new(),
            ..found.database.into()
        };
        Self {
            database: Some(database),
            name_base: found.name.base,
            name_tagged: found.name.tagged,
            name_endpoint: found.name.endpoint,
            name_suffix: found.name.suffix,
            tags_unknown: found.tags_unknown,
        }
    }
}
