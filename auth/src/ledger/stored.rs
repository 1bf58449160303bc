//! A discovered database as the store gets it.
//!
//! A first scan stores every database there is, so one is encoded once, from labels as they lie.

use std::mem::take;

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint},
};
use tidegate_core::{Database, Labels};
use tidegate_proto::v1;

use super::plan::Owner;
use crate::{
    keys,
    record::{DatabaseRecord, FORMAT, OwnerRecord, encode},
    store::Txn,
};

/// A database as it is stored under its owner: encoded once, however often its transaction is tried.
pub(super) struct Stored {
    pub(super) name: String,
    pub(super) identity: String,
    scope_id: String,
    record: Bytes,
}

impl Stored {
    /// A database under its owner.
    pub(super) fn new(mut database: Database, owner: &Owner) -> Self {
        let labels = take(&mut database.labels);
        let mut message = v1::Database::from(database);
        message.scope_id.clone_from(&owner.scope_id);
        let beside = DatabaseRecord {
            database: None,
            group: owner.group.clone(),
            order: owner.order,
            config: owner.config.clone().unwrap_or_default(),
        };
        Self {
            record: encode_labelled(&message, &labels, &beside),
            name: message.name,
            identity: message.identity,
            scope_id: message.scope_id,
        }
    }

    /// Writes it.
    pub(super) fn put(&self, txn: Txn) -> Txn {
        txn.put(keys::database(&self.name), self.record.clone())
    }

    /// Writes who owns it.
    pub(super) fn put_owner(&self, txn: Txn) -> Txn {
        let owner = OwnerRecord {
            scope_id: self.scope_id.clone(),
            name: self.name.clone(),
        };
        txn.put(keys::owner(&self.identity), encode(&owner))
    }
}

/// Number of the database in [`DatabaseRecord`], of the labels in it, and of the parts of a label.
const DATABASE: u32 = 1;
const LABELS: u32 = 3;
const KEY: u32 = 1;
const VALUE: u32 = 2;

/// A [`DatabaseRecord`] as it is stored, of a database whose labels lie beside it. It reads as what [`encode`] writes, and
/// takes no two strings for each label. `record` has no database, and the database no labels.
fn encode_labelled(database: &v1::Database, labels: &Labels, record: &DatabaseRecord) -> Bytes {
    let labels_len: usize = labels
        .iter()
        .map(|label| delimited_len(label_len(label)))
        .sum();
    let database_len = database.encoded_len() + labels_len;
    let mut bytes = BytesMut::with_capacity(1 + delimited_len(database_len) + record.encoded_len());
    bytes.put_u8(FORMAT);
    begin(DATABASE, database_len, &mut bytes);
    // The buffer has room for it and grows otherwise, so this cannot fail, here or below.
    let _ = database.encode(&mut bytes);
    for label in labels.iter() {
        begin(LABELS, label_len(label), &mut bytes);
        for (tag, text) in [(KEY, label.0), (VALUE, label.1)] {
            begin(tag, text.len(), &mut bytes);
            bytes.put_slice(text.as_bytes());
        }
    }
    let _ = record.encode(&mut bytes);
    bytes.freeze()
}

fn label_len((key, value): (&str, &str)) -> usize {
    delimited_len(key.len()) + delimited_len(value.len())
}

/// Length of a field that has one, whose number is at most 15.
const fn delimited_len(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}

fn begin(tag: u32, len: usize, bytes: &mut BytesMut) {
    encode_key(tag, WireType::LengthDelimited, bytes);
    encode_varint(len as u64, bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{record::decode, store::Entry};

    #[test]
    fn a_database_stored_with_its_labels_beside_it_is_the_database_with_them() {
        let labels = [("a", "1"), ("empty", ""), ("long", &"x".repeat(300))];
        let record = |labels: &Labels| DatabaseRecord {
            database: Some(v1::Database {
                name: "dw".to_owned(),
                labels: labels.into(),
                uri: "h:1".to_owned(),
                scope_id: "s".to_owned(),
                ..v1::Database::default()
            }),
            group: "prod".to_owned(),
            order: 3,
            config: "team".to_owned(),
        };
        let entry = |value| Entry {
            key: Bytes::from_static(b"/x"),
            value,
            created: 1,
            modified: 1,
            lease: None,
        };
        for labels in [Labels::new(), labels.into_iter().collect()] {
            let mut bare = record(&Labels::new());
            let database = bare.database.take().unwrap();
            let stored = encode_labelled(&database, &labels, &bare);
            let read: DatabaseRecord = decode(&entry(stored)).unwrap();
            assert_eq!(read, record(&labels));
        }
    }
}
