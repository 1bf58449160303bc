//! Makes requests.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    ACCESS_DEFAULT, ACCESS_MAX, AccessRequest, Need, NotRequestable, PENDING_MAX, REASON_BYTES_MAX,
    REQUEST_ROLES_MAX, RequestState, Threshold, rights,
};
use crate::access::{Grants, Policy};

/// What somebody asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Names the request that is made; the caller picks it.
    pub id: String,
    /// The roles.
    pub roles: Vec<String>,
    /// Why.
    pub reason: String,
    /// For how long; `None` is as long as the roles allow, up to [`ACCESS_DEFAULT`].
    pub duration: Option<Duration>,
}

/// Why a request is not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestRefused {
    /// The person has the role already.
    #[error("you have role `{role}` already")]
    AlreadyHeld {
        /// The role.
        role: String,
    },
    /// No role is asked for.
    #[error("no role is asked for")]
    NoRoles,
    /// The person may not ask for the role.
    #[error("you may not ask for role `{role}`: {why}")]
    NotAllowed {
        /// The role.
        role: String,
        /// What stands against it.
        why: NotRequestable,
    },
    /// The reason is longer than [`REASON_BYTES_MAX`].
    #[error("the reason is longer than {REASON_BYTES_MAX} bytes")]
    ReasonTooLong,
    /// The roles cannot be had for so long, or for no time at all.
    #[error("these roles can be had for {most:?} at most, and not for no time at all")]
    TooLong {
        /// How long they can be had.
        most: Duration,
    },
    /// More roles than [`REQUEST_ROLES_MAX`].
    #[error("more than {REQUEST_ROLES_MAX} roles are asked for")]
    TooManyRoles,
}

pub(super) fn request(
    policy: &Policy,
    grants: &Grants<'_>,
    wanted: Wanted,
    now: Timestamp,
) -> Result<AccessRequest, RequestRefused> {
    let mut roles = wanted.roles;
    roles.sort();
    roles.dedup();
    if roles.is_empty() {
        return Err(RequestRefused::NoRoles);
    }
    if roles.len() > REQUEST_ROLES_MAX {
        return Err(RequestRefused::TooManyRoles);
    }
    if wanted.reason.len() > REASON_BYTES_MAX {
        return Err(RequestRefused::ReasonTooLong);
    }
    let mut needs = Vec::with_capacity(roles.len());
    let mut most = ACCESS_MAX;
    for role in &roles {
        let (need, lasts) = need(policy, grants, role)?;
        needs.push(need);
        most = most.min(lasts);
    }
    let lasts = wanted.duration.unwrap_or(ACCESS_DEFAULT.min(most));
    if lasts > most || lasts.is_zero() {
        return Err(RequestRefused::TooLong { most });
    }
    Ok(AccessRequest {
        id: wanted.id,
        user: grants.subject().user.clone(),
        roles,
        reason: wanted.reason,
        created: now,
        pending_until: later(now, PENDING_MAX.min(lasts)),
        access_until: later(now, lasts),
        needs,
        state: RequestState::Pending,
        reviews: Vec::new(),
        resolved: None,
    })
}

/// What a role needs, and how long it may be had.
fn need(
    policy: &Policy,
    grants: &Grants<'_>,
    role: &str,
) -> Result<(Need, Duration), RequestRefused> {
    if grants.subject().roles.iter().any(|held| held == role) {
        let role = role.to_owned();
        return Err(RequestRefused::AlreadyHeld { role });
    }
    let refused = |why| RequestRefused::NotAllowed {
        role: role.to_owned(),
        why,
    };
    rights::may_request(grants, role).map_err(refused)?;
    let defined = policy
        .role(role)
        .ok_or_else(|| refused(NotRequestable::NotAllowed))?;
    let mut thresholds: Vec<Threshold> = Vec::new();
    let mut lasts = Duration::ZERO;
    for granting in rights::granting(grants, role) {
        // The most generous grant counts, as with every allow.
        lasts = lasts.max(granting.max_duration.unwrap_or(ACCESS_MAX));
        if granting.thresholds.is_empty() {
            thresholds.push(Threshold::default());
        }
        thresholds.extend(granting.thresholds.iter().cloned());
    }
    // A login with the role lasts no longer, so neither does the role without one.
    let lasts = lasts.min(defined.options.max_session_ttl.unwrap_or(ACCESS_MAX));
    let need = Need {
        role: role.to_owned(),
        thresholds,
    };
    Ok((need, lasts))
}

/// A later instant; the last one there is when the sum would pass it.
fn later(now: Timestamp, by: Duration) -> Timestamp {
    now.checked_add(by).unwrap_or(Timestamp::MAX)
}
