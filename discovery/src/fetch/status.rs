//! Whether what is listed can be connected to.
//!
//! Each kind has its own table of statuses. A status that no table knows counts as available, because AWS adds new
//! ones and a database that is up must not be hidden; it is logged once.

use std::sync::{Mutex, PoisonError};

use tidegate_core::DatabaseKind;
use tidegate_service::telemetry::SaidOnce;

/// The status of something that has not been there before; every kind spells it so.
pub(super) const CREATING: &str = "creating";

/// Whether a database in some status can be connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Availability {
    Available,
    Unavailable,
    /// A status that AWS added later: taken for available.
    Unknown,
}

/// A status as AWS gave it, and what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Status {
    /// In lower case; empty when AWS sent none.
    pub(super) word: String,
    pub(super) availability: Availability,
}

impl Status {
    /// Judges `word` by the table of its kind, which knows lower case only.
    pub(super) fn read(word: Option<&str>, table: fn(&str) -> Availability) -> Self {
        let word = word.unwrap_or_default().to_ascii_lowercase();
        // AWS does not have to send one.
        let availability = if word.is_empty() {
            Availability::Available
        } else {
            table(&word)
        };
        Self { word, availability }
    }

    /// Why it cannot be connected to; empty when it can.
    pub(super) fn unavailable(&self) -> &str {
        match self.availability {
            Availability::Available | Availability::Unknown => "",
            Availability::Unavailable => &self.word,
        }
    }
}

/// Managed VPC endpoints, of provisioned and serverless Redshift alike.
pub(super) fn of_vpc_endpoint(status: &str) -> Availability {
    match status {
        "active" | "available" | "modifying" | "snapshotting" => Availability::Available,
        CREATING | "create-failed" | "deleting" => Availability::Unavailable,
        _ => Availability::Unknown,
    }
}

/// Warns of each status that this version does not know, once.
#[derive(Debug, Default)]
pub(super) struct StrangeStatuses {
    said: Mutex<SaidOnce>,
}

impl StrangeStatuses {
    pub(super) fn look(&self, kind: DatabaseKind, status: &Status) {
        if status.availability != Availability::Unknown {
            return;
        }
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_new(&format!("{} {}", kind.as_str(), status.word)) {
            tracing::warn!(
                scope.kind = kind.as_str(),
                status = status.word,
                "unknown database status; taken for available"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_judged_in_lower_case_and_its_absence_is_no_reason_to_hide() {
        let read = |word| Status::read(word, of_vpc_endpoint);
        assert_eq!(read(Some("ACTIVE")).unavailable(), "");
        assert_eq!(read(Some("Deleting")).unavailable(), "deleting");
        assert_eq!(read(None).availability, Availability::Available);
        assert_eq!(read(Some("moving")).availability, Availability::Unknown);
        assert_eq!(read(Some("moving")).unavailable(), "");
    }
}
