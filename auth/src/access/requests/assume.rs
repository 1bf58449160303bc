//! Certificates with the roles of approved requests.

use std::time::Duration;

use jiff::Timestamp;
use tidegate_core::{locks::LockFacts, requests::AccessRequest};
use tidegate_identity::{USER_CERT_TTL_MAX, UserHolder};
use tidegate_proto::v1;

use super::{Stored, make, missing, tell};
use crate::{
    access::{Access, AccessError},
    audit::event,
};

impl Access {
    /// A certificate with the roles of the person's account now, and those of these requests.
    ///
    /// It ends with the first of them, and no later than the certificate that was shown. All else of that certificate
    /// stays: it comes of the same login.
    pub(crate) async fn assume_requests(
        &self,
        caller: &UserHolder,
        expires_at: Timestamp,
        asked: v1::AssumeRequestsRequest,
    ) -> Result<v1::AssumeRequestsResponse, AccessError> {
        let (_, record) = self.account(&caller.name).await?;
        let account_created_at = record.user.as_ref().and_then(|user| user.created_at);
        let subject = make::subject(record);
        let stored = self.requests_of(asked.ids).await?;
        if let Some(other) = stored
            .iter()
            .find(|stored| stored.account_created_at != account_created_at)
        {
            return Err(missing(&other.request.id));
        }
        let requests: Vec<AccessRequest> =
            stored.iter().map(|stored| stored.request.clone()).collect();
        let (policy, now) = (self.parts.inventory.roles().policy.clone(), self.now());
        let together = policy.assume(&caller.name, &requests, now)?;
        let mut roles = subject.roles;
        for role in together.roles {
            if !roles.contains(&role) {
                roles.push(role);
            }
        }
        let holder = UserHolder {
            roles,
            traits: subject.traits,
            access_requests: requests.into_iter().map(|request| request.id).collect(),
            ..caller.clone()
        };
        self.refuse_locked(LockFacts {
            user: Some(&holder.name),
            roles: &holder.roles,
            access_requests: &holder.access_requests,
            login: holder.login.as_ref().into(),
            ..LockFacts::default()
        })?;
        let left = |end: Timestamp| Duration::try_from(end.duration_since(now)).unwrap_or_default();
        let ttl = left(expires_at)
            .min(left(together.until))
            .min(self.longest_login(&holder))
            .min(USER_CERT_TTL_MAX);
        let certificate = self.certificate(&asked.public_key, &holder, ttl)?;
        self.tell_assumed(&holder);
        Ok(v1::AssumeRequestsResponse {
            certificate: Some(certificate),
            requests: stored.into_iter().map(Stored::message).collect(),
        })
    }

    /// The requests of these ids, each once.
    async fn requests_of(&self, ids: Vec<String>) -> Result<Vec<Stored>, AccessError> {
        let mut found: Vec<Stored> = Vec::new();
        // One more than may be: the refusal of too many is the decision's.
        for id in ids
            .into_iter()
            .take(tidegate_core::requests::ASSUMED_MAX + 1)
        {
            let stored = self.request(&id).await?;
            if !found.iter().any(|one| one.request.id == stored.request.id) {
                found.push(stored);
            }
        }
        Ok(found)
    }

    fn tell_assumed(&self, holder: &UserHolder) {
        let mut told = event::new(tell::ASSUME);
        told.user.clone_from(&holder.name);
        for (key, value) in [
            ("cert_type", "user".to_owned()),
            ("roles", holder.roles.join(",")),
            ("access_requests", holder.access_requests.join(",")),
        ] {
            told.fields.insert(key.to_owned(), value);
        }
        self.parts.audit.record(told);
    }
}
