//! Which of a person's roles say something about a requested role. Deny wins here too.

use super::{RequestConditions, ReviewConditions, Reviewing};
use crate::access::{Grants, ReviewFilter, RoleMatch};

/// What lets the person ask for a role.
pub(super) fn granting<'g>(
    grants: &'g Grants<'_>,
    role: &'g str,
) -> impl Iterator<Item = &'g RequestConditions> {
    grants
        .conditions()
        .map(|(allow, _)| &allow.request)
        .filter(move |request| grants.names(&request.roles, role) == RoleMatch::Yes)
}

/// Whether some role forbids to ask for it.
pub(super) fn denies_request(grants: &Grants<'_>, role: &str) -> bool {
    grants
        .conditions()
        .any(|(_, deny)| grants.names(&deny.request.roles, role) != RoleMatch::No)
}

/// Whether the reviewer may decide about this role of the request.
pub(super) fn may_review(grants: &Grants<'_>, reviewing: &Reviewing<'_>, role: &str) -> bool {
    let holds = |conditions: &ReviewConditions| -> Option<bool> {
        let filter: &ReviewFilter = conditions.filter.as_ref()?;
        filter.evaluate(reviewing).ok()
    };
    let denied = grants.conditions().any(|(_, deny)| {
        let review = &deny.review_requests;
        // A `where` that cannot be evaluated denies.
        grants.names(&review.roles, role) != RoleMatch::No && holds(review) != Some(false)
    });
    !denied
        && grants.conditions().any(|(allow, _)| {
            let review = &allow.review_requests;
            grants.names(&review.roles, role) == RoleMatch::Yes
                && (review.filter.is_none() || holds(review) == Some(true))
        })
}
