//! What becomes of a request.

use jiff::Timestamp;

use super::{
    AccessRequest, REASON_BYTES_MAX, REVIEWS_MAX, RequestState, Review, ReviewRefused, Threshold,
    Verdict,
};
use crate::access::{Policy, Subject};

/// An administrator's decision, which needs no reviewers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// Who.
    pub by: String,
    /// What.
    pub verdict: Verdict,
    /// Why.
    pub reason: String,
}

/// Why a request stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransitionRefused {
    /// It is decided, or its time is over.
    #[error("the request is {} already", state_name(*.state))]
    Closed {
        /// What became of it.
        state: RequestState,
    },
    /// The reviewer may not decide about its roles.
    #[error("`{reviewer}` may not decide about this request: {why}")]
    NotAllowed {
        /// The reviewer.
        reviewer: String,
        /// What stands against it.
        why: ReviewRefused,
    },
    /// The reason is longer than [`REASON_BYTES_MAX`].
    #[error("the reason is longer than {REASON_BYTES_MAX} bytes")]
    ReasonTooLong,
    /// The reviewer has said something already.
    #[error("`{reviewer}` has reviewed this request already")]
    ReviewedAlready {
        /// The reviewer.
        reviewer: String,
    },
    /// A role of it was removed since, so that approving it would give something else than what was asked for, should a
    /// role of that name be made again.
    #[error("role `{role}` does not exist any more: the request can be denied, and not approved")]
    RoleGone {
        /// The role.
        role: String,
    },
    /// More reviews than [`REVIEWS_MAX`].
    #[error("the request has {REVIEWS_MAX} reviews already")]
    TooManyReviews,
}

impl AccessRequest {
    /// The request as it is now: one that nobody decided in time is expired.
    #[must_use]
    pub fn at(self, now: Timestamp) -> Self {
        if self.state == RequestState::Pending && now >= self.pending_until {
            return Self {
                state: RequestState::Expired,
                resolved: Some(self.pending_until),
                ..self
            };
        }
        self
    }

    /// The request after a review. The roles of the reviewer are asked, not only those of the request.
    ///
    /// # Errors
    ///
    /// When the request is closed, or the reviewer may not review it or did already.
    pub fn reviewed(
        self,
        policy: &Policy,
        reviewer: &Subject,
        review: Review,
        now: Timestamp,
    ) -> Result<Self, TransitionRefused> {
        let mut request = self.open(now)?;
        let name = || review.reviewer.clone();
        let refused = |why| TransitionRefused::NotAllowed {
            reviewer: name(),
            why,
        };
        if review.reviewer != reviewer.user {
            return Err(refused(ReviewRefused::NotThem));
        }
        policy.may_review(reviewer, &request).map_err(refused)?;
        request.refuse_gone(policy, review.verdict)?;
        if review.reason.len() > REASON_BYTES_MAX {
            return Err(TransitionRefused::ReasonTooLong);
        }
        if request.reviews.len() >= REVIEWS_MAX {
            return Err(TransitionRefused::TooManyReviews);
        }
        if request
            .reviews
            .iter()
            .any(|earlier| earlier.reviewer == review.reviewer)
        {
            return Err(TransitionRefused::ReviewedAlready { reviewer: name() });
        }
        request.reviews.push(review);
        request.state = request.outcome();
        request.resolved = (request.state != RequestState::Pending).then_some(now);
        Ok(request)
    }

    /// The request after an administrator decided, who may by a rule (`access_request`, `update`) and not by reviewing.
    ///
    /// # Errors
    ///
    /// When the request is closed or their own, or the reason too long.
    pub fn decided(
        self,
        policy: &Policy,
        decided: Decided,
        now: Timestamp,
    ) -> Result<Self, TransitionRefused> {
        let mut request = self.open(now)?;
        if decided.by == request.user {
            return Err(TransitionRefused::NotAllowed {
                reviewer: decided.by,
                why: ReviewRefused::Own,
            });
        }
        request.refuse_gone(policy, decided.verdict)?;
        if decided.reason.len() > REASON_BYTES_MAX {
            return Err(TransitionRefused::ReasonTooLong);
        }
        request.state = match decided.verdict {
            Verdict::Approve => RequestState::Approved,
            Verdict::Deny => RequestState::Denied,
        };
        request.reviews.push(Review {
            reviewer: decided.by,
            verdict: decided.verdict,
            reason: decided.reason,
            at: now,
        });
        request.resolved = Some(now);
        Ok(request)
    }

    fn open(self, now: Timestamp) -> Result<Self, TransitionRefused> {
        let request = self.at(now);
        match request.state {
            RequestState::Pending => Ok(request),
            state => Err(TransitionRefused::Closed { state }),
        }
    }

    /// Refuses to approve what cannot be given any more.
    fn refuse_gone(&self, policy: &Policy, verdict: Verdict) -> Result<(), TransitionRefused> {
        let gone = self.roles.iter().find(|role| policy.role(role).is_none());
        match (verdict, gone) {
            (Verdict::Approve, Some(role)) => {
                Err(TransitionRefused::RoleGone { role: role.clone() })
            }
            _ => Ok(()),
        }
    }

    /// What the reviews come to. A denial counts against the whole request, an approval has to reach every role.
    fn outcome(&self) -> RequestState {
        let said = |verdict: Verdict| {
            let reviews = self
                .reviews
                .iter()
                .filter(|review| review.verdict == verdict);
            u32::try_from(reviews.count()).unwrap_or(u32::MAX)
        };
        let (for_it, against) = (said(Verdict::Approve), said(Verdict::Deny));
        // A threshold of none would decide without anybody.
        let denied = |threshold: &Threshold| against >= threshold.deny.max(1);
        let approved = |threshold: &Threshold| for_it >= threshold.approve.max(1);
        if self
            .needs
            .iter()
            .any(|need| need.thresholds.iter().any(denied))
        {
            RequestState::Denied
        } else if !self.needs.is_empty()
            && self
                .needs
                .iter()
                .all(|need| need.thresholds.iter().any(approved))
        {
            RequestState::Approved
        } else {
            RequestState::Pending
        }
    }
}

pub(super) const fn state_name(state: RequestState) -> &'static str {
    match state {
        RequestState::Pending => "pending",
        RequestState::Approved => "approved",
        RequestState::Denied => "denied",
        RequestState::Expired => "expired",
    }
}
