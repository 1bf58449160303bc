//! Which of a person's roles say something about a requested role. Deny wins here too.

use super::{AccessRequest, RequestConditions, ReviewConditions, Reviewing};
use crate::access::{Grants, ReviewFilter, RoleMatch};

/// Why a role may not be asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotRequestable {
    /// A role of the person forbids it.
    #[error("role `{by}` forbids it (`deny.request.roles`)")]
    Denied {
        /// The role that forbids.
        by: String,
    },
    /// No role of the person lets them ask, or there is no such role: the two look alike, so that asking tells nobody
    /// which roles exist.
    #[error("none of your roles lets you (`allow.request.roles`)")]
    NotAllowed,
}

/// Why somebody may not review a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReviewRefused {
    /// A role of the reviewer forbids it.
    #[error("role `{by}` forbids to review requests for `{role}` (`deny.review_requests`)")]
    Denied {
        /// The requested role.
        role: String,
        /// The role that forbids.
        by: String,
    },
    /// A role of the reviewer would let them, were it not for its `where`.
    #[error("the `where` of role `{by}` does not hold for this request for `{role}`")]
    Filtered {
        /// The requested role.
        role: String,
        /// The role with the filter.
        by: String,
    },
    /// The request asks for nothing.
    #[error("it asks for no role")]
    NoRoles,
    /// No role of the reviewer lets them decide about a requested role.
    #[error("no role of the reviewer is for requests for `{role}` (`allow.review_requests.roles`)")]
    NotAllowed {
        /// The requested role.
        role: String,
    },
    /// The review names somebody else than who gives it.
    #[error("nobody reviews in another's name")]
    NotThem,
    /// Nobody decides about their own request.
    #[error("nobody decides about their own request")]
    Own,
}

/// What lets the person ask for a role.
pub(super) fn granting<'g>(
    grants: &'g Grants<'_>,
    role: &'g str,
) -> impl Iterator<Item = &'g RequestConditions> {
    grants
        .conditions()
        .map(|(_, allow, _)| &allow.request)
        .filter(move |request| grants.names(&request.roles, role) == RoleMatch::Yes)
}

/// Whether the person may ask for a role, were there one of that name.
pub(super) fn may_request(grants: &Grants<'_>, role: &str) -> Result<(), NotRequestable> {
    let mut conditions = grants.conditions();
    let denying =
        conditions.find(|(_, _, deny)| grants.names(&deny.request.roles, role) != RoleMatch::No);
    if let Some((by, ..)) = denying {
        return Err(NotRequestable::Denied { by: by.to_owned() });
    }
    match granting(grants, role).next() {
        Some(_) => Ok(()),
        None => Err(NotRequestable::NotAllowed),
    }
}

/// Whether the reviewer may decide about the whole request.
pub(super) fn may_review(
    grants: &Grants<'_>,
    request: &AccessRequest,
) -> Result<(), ReviewRefused> {
    let reviewer = grants.subject();
    if reviewer.user == request.user {
        return Err(ReviewRefused::Own);
    }
    if request.roles.is_empty() {
        return Err(ReviewRefused::NoRoles);
    }
    let reviewing = Reviewing { request, reviewer };
    let mut roles = request.roles.iter();
    roles.try_for_each(|role| may_review_role(grants, &reviewing, role))
}

/// Whether the reviewer may decide about this role of the request.
fn may_review_role(
    grants: &Grants<'_>,
    reviewing: &Reviewing<'_>,
    role: &str,
) -> Result<(), ReviewRefused> {
    // `None` is that it cannot be told.
    let holds = |conditions: &ReviewConditions| -> Option<bool> {
        let filter: Option<&ReviewFilter> = conditions.filter.as_ref();
        filter.map_or(Some(true), |filter| filter.evaluate(reviewing).ok())
    };
    let mut filtered = None;
    let mut allowed = false;
    for (by, allow, deny) in grants.conditions() {
        let denies = &deny.review_requests;
        // A `where` that cannot be evaluated denies.
        if grants.names(&denies.roles, role) != RoleMatch::No && holds(denies) != Some(false) {
            let (role, by) = (role.to_owned(), by.to_owned());
            return Err(ReviewRefused::Denied { role, by });
        }
        let allows = &allow.review_requests;
        if grants.names(&allows.roles, role) == RoleMatch::Yes {
            if holds(allows) == Some(true) {
                allowed = true;
            } else {
                filtered.get_or_insert(by);
            }
        }
    }
    let role = || role.to_owned();
    match filtered {
        _ if allowed => Ok(()),
        Some(by) => Err(ReviewRefused::Filtered {
            role: role(),
            by: by.to_owned(),
        }),
        None => Err(ReviewRefused::NotAllowed { role: role() }),
    }
}
