//! What the audit log is told of requests. Names and codes are those that SIEM rules know.

use tidegate_core::requests::{AccessRequest, RequestState};

use crate::{
    access::Access,
    audit::event::{self, Kind},
};

/// Roles were asked for.
pub(super) const CREATE: Kind = ("access_request.create", "T5000I", true);
/// An administrator decided.
pub(super) const UPDATE: Kind = ("access_request.update", "T5001I", true);
/// A reviewer said something.
pub(super) const REVIEW: Kind = ("access_request.review", "T5002I", true);
/// A request was removed.
pub(super) const DELETE: Kind = ("access_request.delete", "T5003I", true);
/// Nobody decided in time.
pub(super) const EXPIRE: Kind = ("access_request.expire", "T5005I", true);
/// A certificate with the roles of requests was given.
pub(super) const ASSUME: Kind = ("cert.create", "TC000I", true);

/// The name of a state in events and in output.
pub(super) const fn state_name(state: RequestState) -> &'static str {
    match state {
        RequestState::Pending => "PENDING",
        RequestState::Approved => "APPROVED",
        RequestState::Denied => "DENIED",
        RequestState::Expired => "EXPIRED",
    }
}

impl Access {
    /// Tells what became of a request, and who did it; nobody did when its time was over.
    pub(super) fn tell_request<const N: usize>(
        &self,
        kind: Kind,
        actor: &str,
        request: &AccessRequest,
        more: [(&str, String); N],
    ) {
        let mut told = event::new(kind);
        actor.clone_into(&mut told.user);
        let facts = [
            ("id", request.id.clone()),
            ("requester", request.user.clone()),
            ("roles", request.roles.join(",")),
            ("state", state_name(request.state).to_owned()),
            ("request_reason", request.reason.clone()),
            ("expires", request.access_until.to_string()),
        ];
        for (key, value) in facts.into_iter().chain(more) {
            if !value.is_empty() {
                told.fields.insert(key.to_owned(), value);
            }
        }
        self.parts.audit.record(told);
    }
}
