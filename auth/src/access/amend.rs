//! Changes of people: other roles and traits, and a new start when a password is lost.
//!
//! Certificates carry the roles and traits of their login, so a change counts from the next login on; what must end
//! at once is locked.

use tidegate_proto::{Invalid, v1};

use super::{Access, AccessError, new_secret, people::shown, sessions::Cause, ttl};
use crate::{
    audit::event,
    keys,
    record::{SignupRecord, UserRecord, encode},
    store::{Entry, Txn},
};

impl Access {
    /// Gives a person other roles and traits.
    pub(crate) async fn update_user(
        &self,
        actor: &str,
        wanted: Option<v1::User>,
    ) -> Result<v1::User, AccessError> {
        let wanted = wanted.ok_or_else(|| Invalid::new("user", "is missing"))?;
        self.check_user(&wanted)?;
        let (entry, mut record) = self.existing(&wanted.name).await?;
        if wanted.revision != 0 && wanted.revision != entry.modified {
            return Err(AccessError::Conflict { what: "the user" });
        }
        let user = record.user.get_or_insert_default();
        user.roles = wanted.roles;
        user.traits = wanted.traits;
        let updated = self.replace(&entry, record, Txn::new()).await?;
        let mut told = event::new(event::USER_UPDATE);
        actor.clone_into(&mut told.user);
        told.fields.insert("name".to_owned(), updated.name.clone());
        told.fields
            .insert("roles".to_owned(), updated.roles.join(","));
        self.parts.audit.record(told);
        Ok(updated)
    }

    /// Voids a person's password, second factors and sign-up token, ends all logins, and makes a new token.
    pub(crate) async fn reset_user(
        &self,
        actor: &str,
        request: v1::ResetUserRequest,
    ) -> Result<v1::ResetUserResponse, AccessError> {
        let ttl = ttl(request.ttl.as_ref())?;
        let (entry, mut record) = self.existing(&request.name).await?;
        let (secret, digest) = new_secret()?;
        let expires_at = self.end_of(ttl);
        let signup = SignupRecord {
            user: request.name.clone(),
            expires_at: Some(expires_at),
        };
        let lease = self.store().grant(ttl).await?;
        let mut txn = Txn::new().put_with(keys::signup(&digest), encode(&signup), Some(lease));
        if !record.signup_digest.is_empty() {
            txn = txn.delete(keys::signup(&record.signup_digest));
        }
        record.password_hash = String::new();
        record.signup_digest = digest;
        let user = record.user.get_or_insert_default();
        user.signed_up = false;
        user.second_factors = 0;
        let txn = txn.delete(keys::factors(&request.name));
        let (txn, ending) = self
            .ending_all(txn, actor, &request.name, Cause::Reset)
            .await?;
        let reset = match self.replace(&entry, record, txn).await {
            Ok(reset) => reset,
            Err(error) => {
                self.store().revoke(lease).await?;
                return Err(error);
            }
        };
        self.forget_failures(&request.name).await?;
        self.ended(actor, &request.name, ending).await?;
        let mut told = event::new(event::USER_RESET);
        actor.clone_into(&mut told.user);
        told.fields.insert("name".to_owned(), request.name);
        self.parts.audit.record(told);
        Ok(v1::ResetUserResponse {
            user: Some(reset),
            signup_token: secret,
            expires_at: Some(expires_at),
        })
    }

    pub(super) async fn existing(&self, name: &str) -> Result<(Entry, UserRecord), AccessError> {
        self.user(name).await?.ok_or_else(|| AccessError::NotFound {
            what: "user",
            name: name.chars().take(128).collect(),
        })
    }

    /// Writes a person's record in the place of the one that was read, together with what else is in `txn`.
    async fn replace(
        &self,
        entry: &Entry,
        record: UserRecord,
        txn: Txn,
    ) -> Result<v1::User, AccessError> {
        let txn = txn
            .at(entry.key.clone(), entry.modified)
            .put(entry.key.clone(), encode(&record));
        let committed = self.store().commit(txn).await;
        let revision = committed.map_err(|error| AccessError::commit("the user", error))?;
        self.parts.inventory.reached(revision).await;
        Ok(shown(record, revision).unwrap_or_default())
    }
}
