//! Faults to order: what is to go wrong, where, and how often.
//!
//! Faults strike requests whose signature was accepted, so the account is known. The first
//! ordered fault that fits a request strikes it, alone.

use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// Faults that can be ordered at once.
pub(crate) const FAULTS_MAX: usize = 1_000;
/// The slowest answer that can be ordered, in milliseconds (ten minutes).
pub(crate) const DELAY_MS_MAX: u64 = 600_000;

/// A fault and the requests that it strikes; a filter that is absent fits everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// As signatures name it: `account`, `iam`, `kms`, `rds`, `redshift`, `redshift-serverless`, `sts` or `tagging`. What is
    /// not signed: `metadata` (instances), `container` (ECS, EKS) and `trust` (CA bundles), whose actions are
    /// `METHOD PATH` and whose account is the role's, for bundles none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Operation, for instance `DescribeClusters`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Account that owns the calling credentials (for AssumeRole: not the target's).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Region that the request is signed for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Page of a listing, from 1; other operations are page 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<u32>,
    /// How many requests to strike. Default: until the faults are cleared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// What goes wrong.
    pub kind: FaultKind,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum FaultKind {
    /// `AccessDenied`, 403, in the words of a missing identity policy. This and the other errors
    /// are spelled as the service's protocol does (`AccessDeniedException`, 400).
    AccessDenied,
    /// The right status and headers with another body: garbage, a page of a captive portal.
    Body {
        /// What is sent.
        text: String,
    },
    /// AWS's clock is so many seconds ahead of the simulation's (behind it, if negative): a request
    /// dated more than five minutes off is refused in the words of its protocol.
    ClockSkew {
        /// By how many seconds.
        seconds: i64,
        /// Whether the `Date` header tells that clock's time, as AWS's does: a client that goes by it
        /// makes up for the skew. One behind an intermediary that sets its own cannot.
        #[serde(default)]
        told: bool,
    },
    /// The right answer, late.
    Delay {
        /// By how many milliseconds, at most 600000.
        ms: u64,
    },
    /// The right page but without its records; its marker or token goes on where it was.
    EmptyPage,
    /// Any error, with the code word for word.
    Error {
        /// HTTP status.
        status: u16,
        /// Error code.
        code: String,
        /// Message.
        message: String,
    },
    /// `ExpiredToken`, 403: the credentials were good once. `ExpiredTokenException` where the protocol
    /// says so.
    ExpiredToken,
    /// `InternalFailure`, 500.
    InternalFailure,
    /// The right answer with the text of every `element` replaced, or the element left out.
    MalformedField {
        /// Name of an XML element that holds text only, or of such a member of JSON.
        element: String,
        /// New text; absent leaves the element out.
        text: Option<String>,
    },
    /// The right page, but with a marker or token that leads to this page once more, on the last
    /// page too: who follows it goes round in circles.
    RepeatedToken,
    /// The connection is reset instead of an answer.
    Reset,
    /// `Throttling`, 400, "Rate exceeded".
    Throttling,
    /// The right headers and the first half of the body, then the connection closes.
    TruncatedBody,
}

impl Fault {
    /// A fault of any request, until cleared.
    pub fn new(kind: FaultKind) -> Self {
        Self {
            service: None,
            action: None,
            account: None,
            region: None,
            page: None,
            times: None,
            kind,
        }
    }

    /// Only this operation, `service` and `action`.
    #[must_use]
    pub fn on(mut self, service: &str, action: &str) -> Self {
        self.service = Some(service.to_owned());
        self.action = Some(action.to_owned());
        self
    }

    /// Only callers of this account.
    #[must_use]
    pub fn in_account(mut self, account: &str) -> Self {
        self.account = Some(account.to_owned());
        self
    }

    /// Only requests for this region.
    #[must_use]
    pub fn in_region(mut self, region: &str) -> Self {
        self.region = Some(region.to_owned());
        self
    }

    /// Only this page of a listing, from 1.
    #[must_use]
    pub fn at_page(mut self, page: u32) -> Self {
        self.page = Some(page);
        self
    }

    /// Only so many requests.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }
}

/// A request, as far as faults look at it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site<'a> {
    pub(crate) service: &'a str,
    pub(crate) action: &'a str,
    pub(crate) account: &'a str,
    pub(crate) region: &'a str,
    pub(crate) page: u32,
}

impl Site<'_> {
    fn fits(&self, fault: &Fault) -> bool {
        let fits = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|w| w == is);
        fits(&fault.service, self.service)
            && fits(&fault.action, self.action)
            && fits(&fault.account, self.account)
            && fits(&fault.region, self.region)
            && fault.page.is_none_or(|page| page == self.page)
            && fault.times != Some(0)
    }
}

/// The faults that are ordered.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    ordered: Mutex<Vec<Fault>>,
}

impl Faults {
    /// Orders a fault; false if there are too many.
    pub(crate) fn order(&self, fault: Fault) -> bool {
        let mut ordered = self.ordered.lock().unwrap_or_else(PoisonError::into_inner);
        ordered.retain(|f| f.times != Some(0));
        let room = ordered.len() < FAULTS_MAX;
        if room {
            ordered.push(fault);
        }
        room
    }

    pub(crate) fn clear(&self) {
        self.ordered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// By how many seconds AWS's clock is ahead for a request, as far as a fault says so.
    pub(crate) fn clock_skew(&self, site: &Site<'_>) -> Option<i64> {
        let ordered = self.ordered.lock().unwrap_or_else(PoisonError::into_inner);
        match ordered.iter().find(|fault| site.fits(fault))?.kind {
            FaultKind::ClockSkew { seconds, .. } => Some(seconds),
            _ => None,
        }
    }

    /// The fault that strikes a request, counted.
    pub(crate) fn strike(&self, site: &Site<'_>) -> Option<FaultKind> {
        let mut ordered = self.ordered.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = ordered.iter_mut().find(|fault| site.fits(fault))?;
        if let Some(times) = &mut fault.times {
            *times -= 1;
        }
        Some(fault.kind.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(action: &str, page: u32) -> Site<'_> {
        Site {
            service: "redshift",
            action,
            account: "1",
            region: "us-east-1",
            page,
        }
    }

    #[test]
    fn a_fault_strikes_only_what_fits_and_only_so_often() {
        let faults = Faults::default();
        let fault = Fault::new(FaultKind::Throttling).on("redshift", "DescribeClusters");
        faults.order(fault.at_page(2).times(1));
        assert_eq!(faults.strike(&site("DescribeClusters", 1)), None);
        assert_eq!(faults.strike(&site("DescribeTags", 2)), None);
        assert_eq!(
            faults.strike(&site("DescribeClusters", 2)),
            Some(FaultKind::Throttling)
        );
        assert_eq!(faults.strike(&site("DescribeClusters", 2)), None);
    }
}
