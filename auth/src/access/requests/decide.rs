//! Deciding about requests.

use tidegate_core::{
    Subject,
    requests::{AccessRequest, Decided, Review, Verdict},
};
use tidegate_proto::v1;

use super::tell;
use crate::{
    access::{Access, AccessError},
    audit::event::Kind,
};

/// What somebody says of a request.
pub(crate) struct Word {
    /// For it or against it.
    pub(crate) verdict: Verdict,
    /// Why.
    pub(crate) reason: String,
}

impl Access {
    /// Reviews a request with the roles that the reviewer's certificate carries.
    pub(crate) async fn review_request(
        &self,
        reviewer: &Subject,
        id: &str,
        word: Word,
    ) -> Result<v1::AccessRequest, AccessError> {
        self.refuse_orphan(id).await?;
        let policy = self.parts.inventory.roles().policy.clone();
        let changed = self.change_request(id, |request| {
            let now = self.now();
            let review = Review {
                reviewer: reviewer.user.clone(),
                verdict: word.verdict,
                reason: word.reason.clone(),
                at: now,
            };
            Ok(request.reviewed(&policy, reviewer, review, now)?)
        });
        let changed = changed.await?;
        self.tell_decided(tell::REVIEW, &reviewer.user, &changed.request, &word);
        Ok(changed.message())
    }

    /// Decides a request alone.
    pub(crate) async fn decide_request(
        &self,
        actor: &str,
        id: &str,
        word: Word,
    ) -> Result<v1::AccessRequest, AccessError> {
        self.refuse_orphan(id).await?;
        let policy = self.parts.inventory.roles().policy.clone();
        let changed = self.change_request(id, |request| {
            let decided = Decided {
                by: actor.to_owned(),
                verdict: word.verdict,
                reason: word.reason.clone(),
            };
            Ok(request.decided(&policy, decided, self.now())?)
        });
        let changed = changed.await?;
        self.tell_decided(tell::UPDATE, actor, &changed.request, &word);
        Ok(changed.message())
    }

    /// Refuses to decide about the request of somebody who is gone.
    async fn refuse_orphan(&self, id: &str) -> Result<(), AccessError> {
        let stored = self.request(id).await?;
        let account = self.user(&stored.request.user).await?;
        let account = account.and_then(|(_, record)| record.user);
        if account.is_some_and(|user| user.created_at == stored.account_created_at) {
            return Ok(());
        }
        Err(AccessError::forbidden(
            "REQUESTER_GONE",
            format!(
                "the account of `{}` that made this request was deleted: it can only be removed (`tgctl requests rm`)",
                stored.request.user
            ),
        ))
    }

    fn tell_decided(&self, kind: Kind, by: &str, request: &AccessRequest, word: &Word) {
        let proposed = match word.verdict {
            Verdict::Approve => "APPROVED",
            Verdict::Deny => "DENIED",
        };
        let more = [
            ("reviewer", by.to_owned()),
            ("proposed_state", proposed.to_owned()),
            ("reason", word.reason.clone()),
        ];
        self.tell_request(kind, by, request, more);
    }
}
