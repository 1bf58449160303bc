//! Requests for roles: who may ask for which, who decides, and what becomes of a request.
//!
//! Pure: time comes in as a value, and a transition gives a new request instead of changing one. A request is
//! `Pending` until enough reviewers agree; then it is `Approved` or `Denied` for good. One that nobody decided in time
//! is `Expired`.
//!
//! Invariant: what a request needs is fixed when it is made. A role that changes later makes it neither easier nor
//! harder to approve; who may review is asked anew at every review. Nobody decides about their own request.
//!
//! Not here: storing requests, telling reviewers, and putting approved roles into certificates.

use std::{borrow::Cow, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    access::{Policy, ReviewFilter, Subject, Traits},
    predicate::Fields,
};

mod assume;
mod plan;
mod rights;
mod state;

#[cfg(test)]
mod tests;

pub use assume::{AssumeRefused, Assumed};
pub use plan::{RequestRefused, Wanted};
pub use rights::{NotRequestable, ReviewRefused};
pub use state::{Decided, TransitionRefused};

/// Most roles in one request.
pub const REQUEST_ROLES_MAX: usize = 50;
/// Longest reason of a request or review.
pub const REASON_BYTES_MAX: usize = 4096;
/// Most reviews of one request.
pub const REVIEWS_MAX: usize = 100;
/// How long a request waits for reviewers.
pub const PENDING_MAX: Duration = Duration::from_hours(7 * 24);
/// How long approved roles last when neither the request nor a role says so.
pub const ACCESS_DEFAULT: Duration = Duration::from_hours(12);
/// How long approved roles last at most.
pub const ACCESS_MAX: Duration = Duration::from_hours(14 * 24);
/// Most requests whose roles one certificate carries.
pub const ASSUMED_MAX: usize = 16;

/// Which roles the holder of a role may ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RequestConditions {
    /// Names, globs or `^…$` expressions; values may be templates.
    pub roles: Vec<String>,
    /// How many reviews decide; reaching any of them is enough. None is one of one approval or one denial.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub thresholds: Vec<Threshold>,
    /// How long these roles may be had at most.
    #[serde(
        with = "crate::access::duration",
        skip_serializing_if = "Option::is_none"
    )]
    pub max_duration: Option<Duration>,
}

/// About requests for which roles the holder of a role may decide.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReviewConditions {
    /// Names, globs or `^…$` expressions; values may be templates.
    pub roles: Vec<String>,
    /// Only requests for which this holds.
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    pub filter: Option<ReviewFilter>,
}

/// How many reviews decide.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Threshold {
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Approvals that approve.
    pub approve: u32,
    /// Denials that deny.
    pub deny: u32,
}

impl Default for Threshold {
    fn default() -> Self {
        Self {
            name: String::new(),
            approve: 1,
            deny: 1,
        }
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RequestState {
    /// It waits for reviewers.
    #[default]
    Pending,
    /// Its roles may be had until [`AccessRequest::access_until`].
    Approved,
    /// It was refused.
    Denied,
    /// Nobody decided in time.
    Expired,
}

/// What a reviewer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// For it.
    Approve,
    /// Against it.
    Deny,
}

/// What one reviewer said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Review {
    /// Who.
    pub reviewer: String,
    /// What.
    pub verdict: Verdict,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

/// What one requested role needs: to reach any threshold of any of these grants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    /// The requested role.
    pub role: String,
    /// The thresholds of all roles that let the person ask for it.
    pub thresholds: Vec<Threshold>,
}

/// A request for roles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessRequest {
    /// Names the request.
    pub id: String,
    /// Who asks.
    pub user: String,
    /// For which roles, in name order.
    pub roles: Vec<String>,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// When it was made.
    pub created: Timestamp,
    /// Until when it waits for reviewers.
    pub pending_until: Timestamp,
    /// Until when approved roles may be had.
    pub access_until: Timestamp,
    /// What it takes to approve it.
    pub needs: Vec<Need>,
    /// What became of it.
    #[serde(default)]
    pub state: RequestState,
    /// What reviewers said, in order.
    #[serde(default)]
    pub reviews: Vec<Review>,
    /// When it stopped to be pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<Timestamp>,
}

impl AccessRequest {
    /// Whether its roles may be had now.
    #[must_use]
    pub fn grants_now(&self, now: Timestamp) -> bool {
        self.state == RequestState::Approved && now < self.access_until
    }
}

/// A request and who would review it, as a `where` sees them.
struct Reviewing<'r> {
    request: &'r AccessRequest,
    reviewer: &'r Subject,
}

impl Fields for Reviewing<'_> {
    fn text(&self, path: &str) -> Option<Cow<'_, str>> {
        match path {
            "request.user" => Some(self.request.user.as_str().into()),
            "request.reason" => {
                (!self.request.reason.is_empty()).then(|| self.request.reason.as_str().into())
            }
            "reviewer.name" => Some(self.reviewer.user.as_str().into()),
            _ => None,
        }
    }

    fn list(&self, path: &str) -> Vec<Cow<'_, str>> {
        let roles = match path {
            "request.roles" => &self.request.roles,
            "reviewer.roles" => &self.reviewer.roles,
            _ => return Vec::new(),
        };
        roles.iter().map(|role| role.as_str().into()).collect()
    }

    fn traits(&self, path: &str) -> Option<&Traits> {
        (path == "reviewer.traits").then_some(&self.reviewer.traits)
    }
}

/// Asks the policy about requests.
impl Policy {
    /// Makes a request, if the person may ask for all of it.
    ///
    /// # Errors
    ///
    /// [`RequestRefused`] names the first thing that stands against it.
    pub fn request(
        &self,
        subject: &Subject,
        wanted: Wanted,
        now: Timestamp,
    ) -> Result<AccessRequest, RequestRefused> {
        plan::request(self, &self.grants(subject), wanted, now)
    }

    /// The roles that a person may ask for and does not have, in name order.
    #[must_use]
    pub fn requestable(&self, subject: &Subject) -> Vec<String> {
        let grants = self.grants(subject);
        self.role_names()
            .filter(|role| !subject.roles.iter().any(|held| held == role))
            .filter(|role| rights::may_request(&grants, role).is_ok())
            .map(str::to_owned)
            .collect()
    }

    /// Whether a person may review a request: not their own, and every role in it has to be one that they decide about.
    ///
    /// # Errors
    ///
    /// [`ReviewRefused`]: the first thing that stands against it.
    pub fn may_review(
        &self,
        reviewer: &Subject,
        request: &AccessRequest,
    ) -> Result<(), ReviewRefused> {
        rights::may_review(&self.grants(reviewer), request)
    }

    /// What several approved requests of a person give together.
    ///
    /// # Errors
    ///
    /// [`AssumeRefused`] names the first request that gives nothing now.
    pub fn assume(
        &self,
        user: &str,
        requests: &[AccessRequest],
        now: Timestamp,
    ) -> Result<Assumed, AssumeRefused> {
        assume::assume(self, user, requests, now)
    }
}
