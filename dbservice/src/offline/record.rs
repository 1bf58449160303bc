//! What is kept of the control plane, as it is written, and whether it may still be used. Pure.

use std::{fmt, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tidegate_identity::IdentityError;
use tidegate_proto::v1;
use zeroize::Zeroize as _;

use super::file::FileError;

/// How far a host's clock may have been set back since the record was confirmed.
const CLOCK_BACK_MAX: SignedDuration = SignedDuration::from_mins(5);

/// What an agent needs to let people in, as the control plane told it.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(super) struct Record {
    /// All roles, as they were sent: what they mean is decided when they are read, as it is for new ones.
    #[prost(message, repeated, tag = "1")]
    pub(super) roles: Vec<v1::Role>,
    /// All locks, as they were sent.
    #[prost(message, repeated, tag = "2")]
    pub(super) locks: Vec<v1::Lock>,
    /// Addresses of proxies that the inventory lists.
    #[prost(string, repeated, tag = "3")]
    pub(super) proxies: Vec<String>,
    /// What is shown to clients.
    #[prost(string, tag = "4")]
    pub(super) certificate_pem: String,
    /// The key of that. Secret.
    #[prost(string, tag = "5")]
    pub(super) key_pem: String,
    /// When the certificate ends, in milliseconds since 1970 UTC.
    #[prost(int64, tag = "6")]
    pub(super) certificate_ends_ms: i64,
    /// When the control plane last said that this is how things are, in milliseconds since 1970 UTC.
    #[prost(int64, tag = "7")]
    pub(super) confirmed_at_ms: i64,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("roles", &self.roles.len())
            .field("locks", &self.locks.len())
            .field("proxies", &self.proxies)
            .field("confirmed_at_ms", &self.confirmed_at_ms)
            .finish_non_exhaustive()
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.key_pem.zeroize();
    }
}

/// Why nobody is let in by what was kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("what was kept of the control plane has a certificate that cannot be used")]
    Certificate(#[source] IdentityError),
    #[error("the certificate for clients that was kept ended at {0:.0}")]
    CertificateEnded(Timestamp),
    #[error(
        "what was kept of the control plane is from {0:.0}, which is to come: check this host's clock"
    )]
    FromTheFuture(Timestamp),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("this host's certificate ended at {0:.0}")]
    HostEnded(Timestamp),
    #[error("what was kept of the control plane does not say when it was so")]
    NoTime,
    #[error(
        "what was kept of the control plane was confirmed at {at:.0}, longer ago than `offline_start` allows ({bound:#})"
    )]
    TooOld {
        at: Timestamp,
        bound: SignedDuration,
    },
}

/// Until when something kept may be used.
///
/// # Errors
///
/// [`Unusable`], when that is over.
pub(super) fn usable_until(
    confirmed_at: Timestamp,
    certificate_ends: Timestamp,
    host_ends: Timestamp,
    bound: Duration,
    now: Timestamp,
) -> Result<Timestamp, Unusable> {
    let bound = SignedDuration::try_from(bound).unwrap_or(SignedDuration::MAX);
    if confirmed_at.duration_since(now) > CLOCK_BACK_MAX {
        return Err(Unusable::FromTheFuture(confirmed_at));
    }
    let too_old_at = confirmed_at.saturating_add(bound).unwrap_or(confirmed_at);
    if too_old_at <= now {
        return Err(Unusable::TooOld {
            at: confirmed_at,
            bound,
        });
    }
    if certificate_ends <= now {
        return Err(Unusable::CertificateEnded(certificate_ends));
    }
    if host_ends <= now {
        return Err(Unusable::HostEnded(host_ends));
    }
    Ok(too_old_at.min(certificate_ends).min(host_ends))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_secs(3600);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn until(confirmed: i64, certificate: i64, host: i64, now: i64) -> Result<Timestamp, Unusable> {
        usable_until(at(confirmed), at(certificate), at(host), BOUND, at(now))
    }

    #[test]
    fn what_was_kept_is_used_for_so_long_after_it_was_confirmed_and_not_beyond_any_certificate() {
        assert_eq!(until(10_000, 90_000, 90_000, 13_599).unwrap(), at(13_600));
        assert_eq!(until(10_000, 12_000, 90_000, 11_000).unwrap(), at(12_000));
        assert_eq!(until(10_000, 90_000, 11_500, 11_000).unwrap(), at(11_500));
        assert!(matches!(
            until(10_000, 90_000, 90_000, 13_600),
            Err(Unusable::TooOld { .. })
        ));
        assert!(matches!(
            until(10_000, 11_000, 90_000, 11_000),
            Err(Unusable::CertificateEnded(_))
        ));
        assert!(matches!(
            until(10_000, 90_000, 11_000, 11_000),
            Err(Unusable::HostEnded(_))
        ));
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_make_what_was_kept_last_longer() {
        assert_eq!(until(10_300, 90_000, 90_000, 10_000).unwrap(), at(13_900));
        assert!(matches!(
            until(10_301, 90_000, 90_000, 10_000),
            Err(Unusable::FromTheFuture(_))
        ));
    }

    #[test]
    fn a_key_does_not_print() {
        let mut record = Record::default();
        record.key_pem.push_str("hush");
        assert!(!format!("{record:?}").contains("hush"));
    }
}
