//! What approved requests give.

use jiff::Timestamp;

use super::{ASSUMED_MAX, AccessRequest, RequestState, state::state_name};
use crate::access::Policy;

/// What requests give together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assumed {
    /// The roles of all of them, in name order.
    pub roles: Vec<String>,
    /// When the first of them ends; the last instant there is for none.
    pub until: Timestamp,
}

/// Why a request's roles cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AssumeRefused {
    /// It is not approved.
    #[error("access request {id} is {}", state_name(*.state))]
    NotApproved {
        /// The request.
        id: String,
        /// What became of it.
        state: RequestState,
    },
    /// It was made by somebody else.
    #[error("access request {id} is not yours")]
    NotYours {
        /// The request.
        id: String,
    },
    /// Its time is over.
    #[error("the access of request {id} ended at {until:.0}")]
    Over {
        /// The request.
        id: String,
        /// When it ended.
        until: Timestamp,
    },
    /// A role of it was removed since.
    #[error("role `{role}` of access request {id} does not exist any more")]
    RoleGone {
        /// The request.
        id: String,
        /// The role.
        role: String,
    },
    /// More than [`ASSUMED_MAX`].
    #[error("at most {ASSUMED_MAX} access requests can be used at once")]
    TooMany,
}

pub(super) fn assume(
    policy: &Policy,
    user: &str,
    requests: &[AccessRequest],
    now: Timestamp,
) -> Result<Assumed, AssumeRefused> {
    if requests.len() > ASSUMED_MAX {
        return Err(AssumeRefused::TooMany);
    }
    let mut together = Assumed {
        roles: Vec::new(),
        until: Timestamp::MAX,
    };
    for request in requests {
        usable(policy, user, request, now)?;
        together.roles.extend(request.roles.iter().cloned());
        together.until = together.until.min(request.access_until);
    }
    together.roles.sort();
    together.roles.dedup();
    Ok(together)
}

fn usable(
    policy: &Policy,
    user: &str,
    request: &AccessRequest,
    now: Timestamp,
) -> Result<(), AssumeRefused> {
    let id = || request.id.clone();
    if request.user != user {
        return Err(AssumeRefused::NotYours { id: id() });
    }
    let state = request.clone().at(now).state;
    if state != RequestState::Approved {
        return Err(AssumeRefused::NotApproved { id: id(), state });
    }
    if !request.grants_now(now) {
        return Err(AssumeRefused::Over {
            id: id(),
            until: request.access_until,
        });
    }
    let mut roles = request.roles.iter();
    match roles.find(|role| policy.role(role).is_none()) {
        None => Ok(()),
        Some(role) => Err(AssumeRefused::RoleGone {
            id: id(),
            role: role.clone(),
        }),
    }
}
