//! Between the trait's values and etcd's: revisions, leases, entries.
//!
//! etcd's numbers are signed and never negative; ours are unsigned.

use bytes::Bytes;

use super::{namespace::Namespace, pb::mvccpb::KeyValue};
use crate::store::{Entry, LeaseId};

/// One of etcd's numbers.
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// One of ours; what etcd cannot have is the largest that it can, which no revision or lease is.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A lease's number, 0 for none.
pub(super) fn lease_number(lease: Option<LeaseId>) -> i64 {
    lease.map_or(0, |lease| signed(lease.0))
}

/// An entry under the caller's key.
pub(super) fn entry_under(key: Bytes, found: KeyValue) -> Entry {
    Entry {
        key,
        value: found.value,
        created: unsigned(found.create_revision),
        modified: unsigned(found.mod_revision),
        lease: (found.lease > 0).then(|| LeaseId(unsigned(found.lease))),
    }
}

/// An entry, if it is a caller's.
pub(super) fn entry(names: &Namespace, found: KeyValue) -> Option<Entry> {
    let key = names.strip(&found.key)?;
    Some(entry_under(key, found))
}
