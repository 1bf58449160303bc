//! Requests for roles.

use tidegate_core::requests::{AccessRequest, Need, RequestState, Review, Threshold, Verdict};

use super::{Invalid, instant, timestamp};
use crate::v1;

impl From<RequestState> for v1::AccessRequestState {
    fn from(state: RequestState) -> Self {
        match state {
            RequestState::Pending => Self::Pending,
            RequestState::Approved => Self::Approved,
            RequestState::Denied => Self::Denied,
            RequestState::Expired => Self::Expired,
        }
    }
}

impl TryFrom<v1::AccessRequestState> for RequestState {
    type Error = Invalid;

    fn try_from(state: v1::AccessRequestState) -> Result<Self, Invalid> {
        match state {
            v1::AccessRequestState::Unspecified => Err(Invalid::new("state", "is missing")),
            v1::AccessRequestState::Pending => Ok(Self::Pending),
            v1::AccessRequestState::Approved => Ok(Self::Approved),
            v1::AccessRequestState::Denied => Ok(Self::Denied),
            v1::AccessRequestState::Expired => Ok(Self::Expired),
        }
    }
}

impl From<Verdict> for v1::ReviewVerdict {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Approve => Self::Approve,
            Verdict::Deny => Self::Deny,
        }
    }
}

impl TryFrom<v1::ReviewVerdict> for Verdict {
    type Error = Invalid;

    fn try_from(verdict: v1::ReviewVerdict) -> Result<Self, Invalid> {
        match verdict {
            v1::ReviewVerdict::Unspecified => Err(Invalid::new("verdict", "is missing")),
            v1::ReviewVerdict::Approve => Ok(Self::Approve),
            v1::ReviewVerdict::Deny => Ok(Self::Deny),
        }
    }
}

impl From<AccessRequest> for v1::AccessRequest {
    fn from(request: AccessRequest) -> Self {
        Self {
            id: request.id,
            user: request.user,
            roles: request.roles,
            reason: request.reason,
            state: v1::AccessRequestState::from(request.state).into(),
            created_at: Some(timestamp(request.created)),
            pending_until: Some(timestamp(request.pending_until)),
            access_until: Some(timestamp(request.access_until)),
            needs: request.needs.into_iter().map(Into::into).collect(),
            reviews: request.reviews.into_iter().map(Into::into).collect(),
            resolved_at: request.resolved.map(timestamp),
            revision: 0,
        }
    }
}

impl TryFrom<v1::AccessRequest> for AccessRequest {
    type Error = Invalid;

    fn try_from(request: v1::AccessRequest) -> Result<Self, Invalid> {
        let state = request.state();
        Ok(Self {
            id: request.id,
            user: request.user,
            roles: request.roles,
            reason: request.reason,
            created: at("created_at", request.created_at)?,
            pending_until: at("pending_until", request.pending_until)?,
            access_until: at("access_until", request.access_until)?,
            needs: request.needs.into_iter().map(Into::into).collect(),
            state: state.try_into()?,
            reviews: request
                .reviews
                .into_iter()
                .enumerate()
                .map(|(place, review)| {
                    Review::try_from(review)
                        .map_err(|invalid| invalid.within(&format!("reviews[{place}]")))
                })
                .collect::<Result<_, _>>()?,
            resolved: request
                .resolved_at
                .map(|resolved| at("resolved_at", Some(resolved)))
                .transpose()?,
        })
    }
}

fn at(field: &str, at: Option<prost_types::Timestamp>) -> Result<jiff::Timestamp, Invalid> {
    let at = at.ok_or_else(|| Invalid::new(field, "is missing"))?;
    instant(&at).map_err(|invalid| invalid.within(field))
}

impl From<Need> for v1::RoleNeed {
    fn from(need: Need) -> Self {
        Self {
            role: need.role,
            thresholds: need
                .thresholds
                .into_iter()
                .map(|threshold| v1::ReviewThreshold {
                    name: threshold.name,
                    approve: threshold.approve,
                    deny: threshold.deny,
                })
                .collect(),
        }
    }
}

impl From<v1::RoleNeed> for Need {
    fn from(need: v1::RoleNeed) -> Self {
        Self {
            role: need.role,
            thresholds: need
                .thresholds
                .into_iter()
                .map(|threshold| Threshold {
                    name: threshold.name,
                    approve: threshold.approve,
                    deny: threshold.deny,
                })
                .collect(),
        }
    }
}

impl From<Review> for v1::AccessReview {
    fn from(review: Review) -> Self {
        Self {
            reviewer: review.reviewer,
            verdict: v1::ReviewVerdict::from(review.verdict).into(),
            reason: review.reason,
            at: Some(timestamp(review.at)),
        }
    }
}

impl TryFrom<v1::AccessReview> for Review {
    type Error = Invalid;

    fn try_from(review: v1::AccessReview) -> Result<Self, Invalid> {
        let verdict = review.verdict();
        Ok(Self {
            reviewer: review.reviewer,
            verdict: verdict.try_into()?,
            reason: review.reason,
            at: at("at", review.at)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn request() -> AccessRequest {
        AccessRequest {
            id: "q1".to_owned(),
            user: "alice".to_owned(),
            roles: vec!["access".to_owned()],
            reason: "outage".to_owned(),
            created: Timestamp::UNIX_EPOCH,
            pending_until: Timestamp::UNIX_EPOCH,
            access_until: Timestamp::UNIX_EPOCH,
            needs: vec![Need {
                role: "access".to_owned(),
                thresholds: vec![Threshold {
                    name: "two".to_owned(),
                    approve: 2,
                    deny: 1,
                }],
            }],
            state: RequestState::Denied,
            reviews: vec![Review {
                reviewer: "bob".to_owned(),
                verdict: Verdict::Deny,
                reason: "ask again".to_owned(),
                at: Timestamp::UNIX_EPOCH,
            }],
            resolved: Some(Timestamp::UNIX_EPOCH),
        }
    }

    #[test]
    fn a_request_travels_there_and_back() {
        let sent = v1::AccessRequest::from(request());
        assert_eq!(AccessRequest::try_from(sent).unwrap(), request());
    }

    #[test]
    fn a_request_without_a_state_or_verdict_is_refused_by_field() {
        let mut sent = v1::AccessRequest::from(request());
        sent.state = 77;
        let refused = AccessRequest::try_from(sent.clone()).unwrap_err();
        assert_eq!(refused.field, "state");
        sent.state = v1::AccessRequestState::Pending.into();
        sent.reviews[0].verdict = 0;
        let refused = AccessRequest::try_from(sent).unwrap_err();
        assert_eq!(refused.field, "reviews[0].verdict");
    }
}
