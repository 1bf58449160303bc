//! What is stored of people beside their accounts: second factors, logins, and failed tries.
//!
//! Second factors are secrets that cannot be digests, since codes are computed from them. They do not print, and memory
//! that held them is cleared; in the store they are as readable as the store is.

use std::fmt;

use prost::Message;
use zeroize::Zeroize as _;

/// The second factors of one person.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct FactorsRecord {
    /// Those that count.
    #[prost(message, repeated, tag = "1")]
    pub(crate) factors: Vec<FactorRecord>,
    /// The one that waits to be confirmed.
    #[prost(message, optional, tag = "2")]
    pub(crate) pending: Option<PendingRecord>,
}

impl fmt::Debug for FactorsRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FactorsRecord")
            .field("factors", &self.factors)
            .finish_non_exhaustive()
    }
}

/// A second factor.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct FactorRecord {
    /// By which its owner knows it.
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    /// The shared secret.
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) secret: Vec<u8>,
    /// The step whose code was used last: codes up to it are used up.
    #[prost(uint64, tag = "3")]
    pub(crate) last_step: u64,
    /// When it was confirmed.
    #[prost(message, optional, tag = "4")]
    pub(crate) created_at: Option<prost_types::Timestamp>,
    /// When it was used last.
    #[prost(message, optional, tag = "5")]
    pub(crate) last_used_at: Option<prost_types::Timestamp>,
}

impl Drop for FactorRecord {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl fmt::Debug for FactorRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FactorRecord")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A second factor that counts for nothing yet.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct PendingRecord {
    /// Digest of the secret that confirms it.
    #[prost(string, tag = "1")]
    pub(crate) enrolment_digest: String,
    /// What it will be.
    #[prost(message, optional, tag = "2")]
    pub(crate) factor: Option<FactorRecord>,
    /// Until when it can be confirmed.
    #[prost(message, optional, tag = "3")]
    pub(crate) expires_at: Option<prost_types::Timestamp>,
}

impl fmt::Debug for PendingRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PendingRecord(redacted)")
    }
}

/// One login; lives with a lease as long as its certificate.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct LoginRecord {
    /// Its id, which certificates carry.
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    /// When it was.
    #[prost(message, optional, tag = "2")]
    pub(crate) created_at: Option<prost_types::Timestamp>,
    /// When its certificate ends.
    #[prost(message, optional, tag = "3")]
    pub(crate) expires_at: Option<prost_types::Timestamp>,
    /// Where the connection came from.
    #[prost(string, tag = "4")]
    pub(crate) remote_addr: String,
    /// The program, as it called itself.
    #[prost(string, tag = "5")]
    pub(crate) client: String,
    /// Whether a second factor was given.
    #[prost(bool, tag = "6")]
    pub(crate) second_factor: bool,
}

/// Failed logins in a row of one name; lives with a lease until it tells nothing any more.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct FailuresRecord {
    /// How many; 0 says that those before `last` are forgiven.
    #[prost(uint32, tag = "1")]
    pub(crate) failures: u32,
    /// When the last one was.
    #[prost(message, optional, tag = "2")]
    pub(crate) last: Option<prost_types::Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_second_factors_do_not_print() {
        let factor = FactorRecord {
            name: "phone".to_owned(),
            secret: b"hush".to_vec(),
            last_step: 0,
            created_at: None,
            last_used_at: None,
        };
        let record = FactorsRecord {
            factors: vec![factor.clone()],
            pending: Some(PendingRecord {
                enrolment_digest: "hush".to_owned(),
                factor: Some(factor),
                expires_at: None,
            }),
        };
        let printed = format!("{record:?} {:?}", record.pending);
        assert!(!printed.contains("hush"), "{printed}");
        assert!(!printed.contains("104, 117"), "{printed}");
        assert!(printed.contains("phone"), "{printed}");
    }
}
