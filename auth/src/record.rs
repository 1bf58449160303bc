//! The values of the state store: protobuf messages behind one byte that says which format they have.
//!
//! Messages of the public contract are stored where they fit; what the store alone needs is here. Fields are added,
//! never given another meaning; a change that old programs would misread raises [`FORMAT`].

use std::fmt;

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message;
use tidegate_proto::v1;

use crate::{seal::SealedRecord, store::Entry};

/// The format that this program writes.
pub(crate) const FORMAT: u8 = 1;

/// A stored value that cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    /// Another format than ours: a newer program wrote it.
    #[error("key `{key}` holds a record of format {found}; this program reads {FORMAT}")]
    Format {
        /// The key.
        key: String,
        /// The first byte, if any.
        found: u8,
    },
    /// The bytes are no such message.
    #[error("key `{key}` holds a damaged record")]
    Damaged {
        /// The key.
        key: String,
        /// What the decoder said.
        source: prost::DecodeError,
    },
    /// The message is sound and what it says is not.
    #[error("key `{key}` holds a record that cannot be used")]
    Unusable {
        /// The key.
        key: String,
        /// What is wrong.
        #[source]
        invalid: tidegate_proto::Invalid,
    },
}

/// A record as it is stored.
pub(crate) fn encode(record: &impl Message) -> Bytes {
    let mut bytes = BytesMut::with_capacity(1 + record.encoded_len());
    bytes.put_u8(FORMAT);
    // The buffer has room for it and grows otherwise, so this cannot fail.
    let _ = record.encode(&mut bytes);
    bytes.freeze()
}

/// A record as it was stored.
///
/// # Errors
///
/// [`RecordError`]: another format, or damaged.
pub(crate) fn decode<R: Message + Default>(entry: &Entry) -> Result<R, RecordError> {
    read(entry, |body| R::decode(body))
}

/// What a reader makes of the encoded message of a stored value.
///
/// # Errors
///
/// [`RecordError`]: another format, or damaged.
pub(crate) fn read<'e, R>(
    entry: &'e Entry,
    read: impl FnOnce(&'e [u8]) -> Result<R, prost::DecodeError>,
) -> Result<R, RecordError> {
    let key = || String::from_utf8_lossy(&entry.key).into_owned();
    match entry.value.split_first() {
        Some((&FORMAT, body)) => {
            read(body).map_err(|source| RecordError::Damaged { key: key(), source })
        }
        other => Err(RecordError::Format {
            key: key(),
            found: other.map_or(0, |(format, _)| *format),
        }),
    }
}

/// The cluster.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ClusterRecord {
    /// Its name, which certificates carry and which therefore cannot change.
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    /// When it was made.
    #[prost(message, optional, tag = "2")]
    pub(crate) created_at: Option<prost_types::Timestamp>,
}

/// The certificate authorities of a kind. What an earlier program stored has the first two fields alone.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct CaRecord {
    /// The certificate of the only one; empty when there are `keys`.
    #[prost(string, tag = "1")]
    pub(crate) cert_pem: String,
    /// Its private key.
    #[prost(string, tag = "2")]
    pub(crate) key_pem: String,
    /// The one that there is, or the old and the new one.
    #[prost(message, repeated, tag = "3")]
    pub(crate) keys: Vec<CaKeyRecord>,
    /// Where their rotation is; absent for one that was never rotated.
    #[prost(message, optional, tag = "4")]
    pub(crate) rotation: Option<RotationRecord>,
}

/// One certificate authority.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct CaKeyRecord {
    /// Its certificate.
    #[prost(string, tag = "1")]
    pub(crate) cert_pem: String,
    /// Its private key; empty when that is encrypted.
    #[prost(string, tag = "2")]
    pub(crate) key_pem: String,
    /// Its private key, encrypted.
    #[prost(message, optional, tag = "3")]
    pub(crate) sealed: Option<SealedRecord>,
    /// Its certificate by the other one, while there are two.
    #[prost(string, tag = "4")]
    pub(crate) cross_pem: String,
}

impl fmt::Debug for CaKeyRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CaKeyRecord(redacted)")
    }
}

/// Where a rotation is.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RotationRecord {
    /// The phase's name.
    #[prost(string, tag = "1")]
    pub(crate) phase: String,
    /// Grace of an automatic rotation; 0 is a manual one.
    #[prost(uint64, tag = "2")]
    pub(crate) grace_seconds: u64,
    /// When the rotation began.
    #[prost(message, optional, tag = "3")]
    pub(crate) started_at: Option<prost_types::Timestamp>,
    /// When the phase began.
    #[prost(message, optional, tag = "4")]
    pub(crate) since: Option<prost_types::Timestamp>,
}

impl fmt::Debug for CaRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CaRecord(redacted)")
    }
}

/// A person.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct UserRecord {
    /// As listings show it.
    #[prost(message, optional, tag = "1")]
    pub(crate) user: Option<v1::User>,
    /// Argon2id hash in PHC form; empty until sign-up.
    #[prost(string, tag = "2")]
    pub(crate) password_hash: String,
    /// Digest of the sign-up token that is open; empty for none.
    #[prost(string, tag = "3")]
    pub(crate) signup_digest: String,
}

impl fmt::Debug for UserRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserRecord")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// A one-time sign-up token; its key is the digest of the secret.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SignupRecord {
    /// Who may set a password with it.
    #[prost(string, tag = "1")]
    pub(crate) user: String,
    /// Until when.
    #[prost(message, optional, tag = "2")]
    pub(crate) expires_at: Option<prost_types::Timestamp>,
}

/// A join token; its key is the digest of its name.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TokenRecord {
    /// What may join with it.
    #[prost(string, repeated, tag = "1")]
    pub(crate) types: Vec<String>,
    /// Until when; absent is for ever.
    #[prost(message, optional, tag = "2")]
    pub(crate) expires_at: Option<prost_types::Timestamp>,
    /// Its name, unless that is a secret.
    #[prost(string, tag = "3")]
    pub(crate) name: String,
    /// How it is joined with; empty is `token`.
    #[prost(string, tag = "4")]
    pub(crate) join_method: String,
    /// Who may join by `iam`.
    #[prost(message, repeated, tag = "5")]
    pub(crate) allow: Vec<v1::TokenAllow>,
    /// How many hosts may join; 0 is any number.
    #[prost(uint32, tag = "6")]
    pub(crate) max_uses: u32,
    /// How many joined.
    #[prost(uint64, tag = "7")]
    pub(crate) uses: u64,
    /// Who joined, when the number is limited.
    #[prost(message, repeated, tag = "8")]
    pub(crate) joined: Vec<JoinedRecord>,
    /// Who made it.
    #[prost(string, tag = "9")]
    pub(crate) created_by: String,
    /// When.
    #[prost(message, optional, tag = "10")]
    pub(crate) created_at: Option<prost_types::Timestamp>,
}

/// A host that joined with a token for few hosts.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct JoinedRecord {
    /// SHA-256 of the public key that its certificate is for.
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key_digest: Vec<u8>,
    /// The host.
    #[prost(string, tag = "2")]
    pub(crate) host_id: String,
    /// When it joined.
    #[prost(message, optional, tag = "3")]
    pub(crate) joined_at: Option<prost_types::Timestamp>,
}

/// The AWS identity that a host joined with, for when it joins again under the same id.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct HostOriginRecord {
    /// The account.
    #[prost(string, tag = "1")]
    pub(crate) account: String,
    /// The ARN, session included.
    #[prost(string, tag = "2")]
    pub(crate) arn: String,
}

/// A database, with what decides who owns it.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct DatabaseRecord {
    /// As listings show it, but for the revision.
    #[prost(message, optional, tag = "1")]
    pub(crate) database: Option<v1::Database>,
    /// Discovery group of the owning scope.
    #[prost(string, tag = "2")]
    pub(crate) group: String,
    /// Place of the owning scope in its configuration.
    #[prost(uint32, tag = "3")]
    pub(crate) order: u32,
    /// The `discovery_config` that asks for the owning scope; empty is a configuration file.
    #[prost(string, tag = "4")]
    pub(crate) config: String,
}

/// Which scope owns a discovered identity, and under which name it is listed.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct OwnerRecord {
    /// The scope.
    #[prost(string, tag = "1")]
    pub(crate) scope_id: String,
    /// The database's name.
    #[prost(string, tag = "2")]
    pub(crate) name: String,
}

/// Who may scan a scope; lives with the holder's lease.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct HolderRecord {
    /// The worker.
    #[prost(string, tag = "1")]
    pub(crate) host_id: String,
    /// Its name for people.
    #[prost(string, tag = "2")]
    pub(crate) hostname: String,
    /// What is scanned.
    #[prost(message, optional, tag = "3")]
    pub(crate) scope: Option<v1::ScanScope>,
}

/// A live worker of a group and what it names; lives with the worker's lease, and the scopes that it holds with it.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct WorkerRecord {
    /// The worker.
    #[prost(string, tag = "1")]
    pub(crate) host_id: String,
    /// Its name for people.
    #[prost(string, tag = "2")]
    pub(crate) hostname: String,
    /// The group.
    #[prost(string, tag = "3")]
    pub(crate) group: String,
    /// Short digests of the ids of all scopes that it names, in order, one after the other.
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) scopes: Vec<u8>,
}

/// Nothing: the key's revision says it all.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MarkRecord {}

/// That the state was, or is being, restored from a backup.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RestoreRecord {
    /// Digest of the backup.
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) sha256: Vec<u8>,
    /// When the backup was made.
    #[prost(message, optional, tag = "2")]
    pub(crate) backup_created_at: Option<prost_types::Timestamp>,
    /// When it was begun.
    #[prost(message, optional, tag = "3")]
    pub(crate) begun_at: Option<prost_types::Timestamp>,
    /// When it was done; absent when it was not, and then the state is neither the old nor the backup's.
    #[prost(message, optional, tag = "4")]
    pub(crate) finished_at: Option<prost_types::Timestamp>,
}

/// What the ledger remembers of a scope.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ScopeRecord {
    /// What is scanned.
    #[prost(message, optional, tag = "1")]
    pub(crate) scope: Option<v1::ScanScope>,
    /// Digest of the last scan that was applied in full; empty when it must be sent again.
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) settled_digest: Vec<u8>,
    /// How the ledger derived the databases from it; another number means that they must be derived again.
    #[prost(uint32, tag = "3")]
    pub(crate) ledger_format: u32,
    /// Digest of the deletions that are held back; empty for none.
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) held_digest: Vec<u8>,
    /// How many deletions are held back.
    #[prost(uint32, tag = "5")]
    pub(crate) held: u32,
    /// How many databases were found that another scope owns.
    #[prost(uint32, tag = "6")]
    pub(crate) shadowed: u32,
    /// How many databases it owned after the last change.
    #[prost(uint32, tag = "7")]
    pub(crate) databases: u32,
    /// Why the last scan was partial.
    #[prost(message, optional, tag = "8")]
    pub(crate) failure: Option<v1::ScanFailure>,
    /// End of the last scan, as of the last change of this record.
    #[prost(message, optional, tag = "9")]
    pub(crate) last_attempt: Option<prost_types::Timestamp>,
    /// End of the last complete scan, as of the last change of this record.
    #[prost(message, optional, tag = "10")]
    pub(crate) last_success: Option<prost_types::Timestamp>,
    /// AWS calls of the last scan, as of the last change of this record.
    #[prost(uint32, tag = "11")]
    pub(crate) aws_calls: u32,
    /// Databases that were found and that another scope owns: the first ones.
    #[prost(message, repeated, tag = "12")]
    pub(crate) shadowed_databases: Vec<v1::ShadowedDatabase>,
    /// Time from scan to scan, as of the last change of this record; 0 when unknown.
    #[prost(uint32, tag = "13")]
    pub(crate) period_seconds: u32,
    /// The scan that wrote this record last: the epoch that it was made with. 0 when no scan did.
    #[prost(uint64, tag = "14")]
    pub(crate) scan_epoch: u64,
    /// The scan that wrote this record last: when it started, as its worker tells.
    #[prost(message, optional, tag = "15")]
    pub(crate) scan_started_at: Option<prost_types::Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(value: Bytes) -> Entry {
        Entry {
            key: Bytes::from_static(b"/x"),
            value,
            created: 1,
            modified: 1,
            lease: None,
        }
    }

    #[test]
    fn a_record_reads_back_and_another_format_is_refused() {
        let record = OwnerRecord {
            scope_id: "s".to_owned(),
            name: "orders".to_owned(),
        };
        let stored = encode(&record);
        assert_eq!(
            decode::<OwnerRecord>(&entry(stored.clone())).unwrap(),
            record
        );

        let mut newer = stored.to_vec();
        newer[0] = 9;
        let refused = decode::<OwnerRecord>(&entry(newer.into())).unwrap_err();
        assert!(matches!(refused, RecordError::Format { found: 9, .. }));
        assert!(decode::<OwnerRecord>(&entry(Bytes::new())).is_err());
    }

    #[test]
    fn secrets_of_records_do_not_print() {
        let ca = CaRecord {
            cert_pem: "cert".to_owned(),
            key_pem: "hush".to_owned(),
            keys: vec![CaKeyRecord {
                key_pem: "hush".to_owned(),
                ..CaKeyRecord::default()
            }],
            rotation: None,
        };
        let user = UserRecord {
            user: None,
            password_hash: "hush".to_owned(),
            signup_digest: "hush".to_owned(),
        };
        assert!(!format!("{ca:?} {user:?}").contains("hush"));
        assert!(!format!("{:?}", entry(encode(&ca))).contains("hush"));
    }
}
