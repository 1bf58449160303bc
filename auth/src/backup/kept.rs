//! Which keys a backup has, and what becomes of them in another store. Pure.

use bytes::Bytes;

use crate::{
    keys,
    record::{ScopeRecord, decode, encode},
    store::{Entry, LeaseId},
};

/// Whether a key is in backups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// It is, for good.
    Always,
    /// It is, with what is left of its lease.
    Lease(LeaseId),
    /// It is not: it lives with a process, or is about this store.
    Never,
}

/// Where keys live with a process's lease, or count by this store's revisions.
const LEFT_OUT: [&str; 8] = [
    keys::DIAGNOSES,
    keys::HOSTS,
    keys::PRESENCE,
    keys::RESCAN_ALL,
    keys::RESCANS,
    keys::RESTORE,
    keys::SCOPE_HOLDERS,
    keys::WORKERS,
];

/// What a key is to a backup.
pub(super) fn kept(entry: &Entry) -> Kept {
    if LEFT_OUT
        .iter()
        .any(|prefix| entry.key.starts_with(prefix.as_bytes()))
    {
        return Kept::Never;
    }
    entry.lease.map_or(Kept::Always, Kept::Lease)
}

/// Whether a new store has the key before anybody used it.
pub(super) fn is_made_at_first_start(key: &[u8]) -> bool {
    key == keys::CLUSTER.as_bytes() || key.starts_with(keys::CAS.as_bytes())
}

/// Whether a value shows a private key to whoever reads it.
pub(super) fn shows_private_key(value: &[u8]) -> bool {
    const MARK: &[u8] = b"PRIVATE KEY-----";
    value.windows(MARK.len()).any(|window| window == MARK)
}

/// A value as it is written into another store, where revisions count anew: what a scope's record says of the epoch that
/// wrote it would fence out every scan until the new store had counted as far.
pub(super) fn carried_over(key: &[u8], value: Bytes) -> Bytes {
    if !key.starts_with(keys::SCOPES.as_bytes()) {
        return value;
    }
    let entry = Entry {
        key: Bytes::copy_from_slice(key),
        value,
        created: 0,
        modified: 0,
        lease: None,
    };
    match decode::<ScopeRecord>(&entry) {
        Ok(record) => encode(&ScopeRecord {
            scan_epoch: 0,
            scan_started_at: None,
            ..record
        }),
        // As it was; who reads it will say what is wrong with it.
        Err(_) => entry.value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::CaRecord;

    fn entry(key: Bytes, value: Bytes, has_lease: bool) -> Entry {
        Entry {
            key,
            value,
            created: 1,
            modified: 1,
            lease: has_lease.then_some(LeaseId(1)),
        }
    }

    #[test]
    fn what_lives_with_a_process_is_left_out_and_what_ends_by_itself_is_not() {
        let value = Bytes::from_static(b"\x01");
        for (key, has_lease, expected) in [
            (keys::token("d"), true, Kept::Lease(LeaseId(1))),
            (keys::lock("l"), true, Kept::Lease(LeaseId(1))),
            (keys::database("a"), false, Kept::Always),
            (keys::presence("h", "a"), true, Kept::Never),
            (keys::host("h", "db"), true, Kept::Never),
            (keys::scope_holder("s"), true, Kept::Never),
            (keys::worker("g", "h"), true, Kept::Never),
            (keys::rescan("s"), false, Kept::Never),
            (keys::rescan_all(), false, Kept::Never),
            (keys::restore(), false, Kept::Never),
            (keys::question("h"), true, Kept::Never),
            (keys::diagnosis("h"), true, Kept::Never),
        ] {
            let entry = entry(key, value.clone(), has_lease);
            assert_eq!(kept(&entry), expected, "{entry:?}");
        }
    }

    #[test]
    fn a_scope_is_carried_over_without_the_epoch_that_wrote_it() {
        let record = ScopeRecord {
            scan_epoch: 5000,
            settled_digest: vec![1; 32],
            ..ScopeRecord::default()
        };
        let key = keys::scope("g|t|r");
        let carried = carried_over(&key, encode(&record));
        let read: ScopeRecord = decode(&entry(key, carried, false)).unwrap();
        assert_eq!((read.scan_epoch, read.settled_digest), (0, vec![1; 32]));
        let other = Bytes::from_static(b"\x01other");
        assert_eq!(carried_over(b"/databases/a", other.clone()), other);
    }

    #[test]
    fn an_unsealed_key_is_seen() {
        let record = CaRecord {
            key_pem: "-----BEGIN PRIVATE KEY-----\nMA==\n-----END PRIVATE KEY-----\n".to_owned(),
            ..CaRecord::default()
        };
        assert!(shows_private_key(&encode(&record)));
        assert!(!shows_private_key(&encode(&CaRecord::default())));
    }
}
