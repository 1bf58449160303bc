//! `kind: access_request`: roles that somebody asked for, and what others said.
//!
//! Names of fields are the known ones. `metadata.expires` is until when the request waits, `spec.expires` until when its
//! roles may be had.

use jiff::Timestamp;
use serde::Serialize;
use tidegate_proto::v1;

use super::{Metadata, Resource, instant};

/// What was asked for, and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AccessRequestSpec {
    /// Who asks.
    pub user: String,
    /// For which roles.
    pub roles: Vec<String>,
    /// `PENDING`, `APPROVED`, `DENIED` or `EXPIRED`.
    pub state: &'static str,
    /// When it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// Until when the roles may be had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// Why.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub request_reason: String,
    /// What the review that decided it gave as its reason.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resolve_reason: String,
    /// How many reviews decide. Each role has to reach one of those that name it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub thresholds: Vec<ThresholdSpec>,
    /// What reviewers said.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reviews: Vec<ReviewSpec>,
}

/// How many reviews decide.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ThresholdSpec {
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The requested roles that it is for.
    pub roles: Vec<String>,
    /// Approvals that approve.
    pub approve: u32,
    /// Denials that deny.
    pub deny: u32,
}

/// What one reviewer said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReviewSpec {
    /// Who.
    pub author: String,
    /// `APPROVED` or `DENIED`.
    pub proposed_state: &'static str,
    /// Why.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
}

const fn state_name(state: v1::AccessRequestState) -> &'static str {
    match state {
        v1::AccessRequestState::Unspecified => "UNKNOWN",
        v1::AccessRequestState::Pending => "PENDING",
        v1::AccessRequestState::Approved => "APPROVED",
        v1::AccessRequestState::Denied => "DENIED",
        v1::AccessRequestState::Expired => "EXPIRED",
    }
}

const fn verdict_name(verdict: v1::ReviewVerdict) -> &'static str {
    match verdict {
        v1::ReviewVerdict::Unspecified => "UNKNOWN",
        v1::ReviewVerdict::Approve => "APPROVED",
        v1::ReviewVerdict::Deny => "DENIED",
    }
}

/// The thresholds of all roles, each with the roles that it is for.
fn thresholds(needs: &[v1::RoleNeed]) -> Vec<ThresholdSpec> {
    let mut specs: Vec<ThresholdSpec> = Vec::new();
    for need in needs {
        for threshold in &need.thresholds {
            let known = specs.iter_mut().find(|spec| {
                (spec.name.as_str(), spec.approve, spec.deny)
                    == (threshold.name.as_str(), threshold.approve, threshold.deny)
            });
            match known {
                Some(spec) if spec.roles.contains(&need.role) => {}
                Some(spec) => spec.roles.push(need.role.clone()),
                None => specs.push(ThresholdSpec {
                    name: threshold.name.clone(),
                    roles: vec![need.role.clone()],
                    approve: threshold.approve,
                    deny: threshold.deny,
                }),
            }
        }
    }
    specs
}

impl From<&v1::AccessRequest> for super::AccessRequest {
    fn from(request: &v1::AccessRequest) -> Self {
        let is_pending = request.state() == v1::AccessRequestState::Pending;
        let reviews = request.reviews.iter().map(|review| ReviewSpec {
            author: review.reviewer.clone(),
            proposed_state: verdict_name(review.verdict()),
            reason: review.reason.clone(),
            created: instant(review.at.as_ref()),
        });
        let deciding = request.reviews.last().filter(|_| !is_pending);
        Resource {
            kind: "access_request",
            version: "v3",
            metadata: Metadata {
                expires: instant(request.pending_until.as_ref()).filter(|_| is_pending),
                ..Metadata::named(&request.id, request.revision)
            },
            spec: AccessRequestSpec {
                user: request.user.clone(),
                roles: request.roles.clone(),
                state: state_name(request.state()),
                created: instant(request.created_at.as_ref()),
                expires: instant(request.access_until.as_ref()),
                request_reason: request.reason.clone(),
                resolve_reason: deciding
                    .map(|review| review.reason.clone())
                    .unwrap_or_default(),
                thresholds: thresholds(&request.needs),
                reviews: reviews.collect(),
            },
            status: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{output, resource};

    #[test]
    fn a_request_is_printed_with_the_known_names() {
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let two = v1::ReviewThreshold {
            name: "two".to_owned(),
            approve: 2,
            deny: 1,
        };
        let need = |role: &str| v1::RoleNeed {
            role: role.to_owned(),
            thresholds: vec![two.clone()],
        };
        let request = v1::AccessRequest {
            id: "0190".to_owned(),
            user: "alice".to_owned(),
            roles: vec!["access".to_owned(), "dba".to_owned()],
            reason: "deploy".to_owned(),
            state: v1::AccessRequestState::Denied.into(),
            created_at: at(0),
            pending_until: at(3600),
            access_until: at(7200),
            needs: vec![need("access"), need("dba")],
            reviews: vec![v1::AccessReview {
                reviewer: "bob".to_owned(),
                verdict: v1::ReviewVerdict::Deny.into(),
                reason: "not today".to_owned(),
                at: at(60),
            }],
            resolved_at: at(60),
            revision: 7,
        };
        let text = output::yaml(&resource::AccessRequest::from(&request)).unwrap();
        assert_eq!(
            text,
            "\
kind: access_request
version: v3
metadata:
  name: \"0190\"
  revision: \"7\"
spec:
  user: alice
  roles:
  - access
  - dba
  state: DENIED
  created: \"1970-01-01T00:00:00Z\"
  expires: \"1970-01-01T02:00:00Z\"
  request_reason: deploy
  resolve_reason: not today
  thresholds:
  - name: two
    roles:
    - access
    - dba
    approve: 2
    deny: 1
  reviews:
  - author: bob
    proposed_state: DENIED
    reason: not today
    created: \"1970-01-01T00:01:00Z\"
"
        );
    }
}
