//! Making and removing locks.

use std::time::Duration;

use tidegate_core::{
    Lock,
    locks::{InvalidLock, LockFacts},
};
use tidegate_proto::{Invalid, convert, v1};

use super::{Stored, told};
use crate::{
    access::{Access, AccessError, check_name},
    audit::event,
    keys,
    record::encode,
    store::{LeaseId, Txn},
};

/// Most locks of a cluster.
const LOCKS_MAX: usize = 10_000;
/// How long a lock that has ended stays in the store: clocks differ, and none may go before its end.
const KEPT_AFTER_END: Duration = Duration::from_mins(10);

impl Access {
    /// The locks in memory.
    pub(crate) const fn locks(&self) -> &std::sync::Arc<super::Locks> {
        &self.locks
    }

    /// Refuses whom a lock strikes.
    pub(in crate::access) fn refuse_locked(&self, facts: LockFacts<'_>) -> Result<(), AccessError> {
        match self.locks.struck(facts) {
            None => Ok(()),
            Some(lock) => Err(AccessError::Denied {
                reason: "LOCKED",
                message: told(&lock),
            }),
        }
    }

    /// Makes or replaces a lock. When this returns, it is in force at this instance.
    pub(crate) async fn upsert_lock(
        &self,
        actor: &str,
        message: Option<v1::Lock>,
    ) -> Result<v1::Lock, AccessError> {
        let mut message = message.ok_or_else(|| Invalid::new("lock", "is missing"))?;
        if message.name.is_empty() {
            message.name = uuid::Uuid::new_v4().to_string();
        }
        check_name("lock.name", &message.name)?;
        let key = keys::lock(&message.name);
        let before = self.store().get(key.clone()).await?;
        let asked = message.revision;
        if asked != 0 && before.as_ref().map(|entry| entry.modified) != Some(asked) {
            return Err(AccessError::Conflict { what: "the lock" });
        }
        let lock = self.checked_lock(actor, message, before.as_ref())?;
        let known = self.locks.known();
        if before.is_none() && known.locks.len() - known.of_logins() >= LOCKS_MAX {
            let message = format!("there are {LOCKS_MAX} locks already: remove some first");
            return Err(AccessError::forbidden("TOO_MANY", message));
        }
        let lease = self.lease_of(&lock).await?;
        let guarded = match &before {
            Some(entry) => Txn::new().at(key.clone(), entry.modified),
            None => Txn::new().absent(key.clone()),
        };
        let stored = v1::Lock::from(lock.clone());
        let committed = self
            .store()
            .commit(guarded.put_with(key, encode(&stored), lease))
            .await;
        let revision = committed.map_err(|error| AccessError::commit("the lock", error))?;
        self.locks.read().await?;
        self.tell_lock(event::LOCK_CREATED, actor, &lock);
        Ok(v1::Lock { revision, ..stored })
    }

    /// As it is stored: who made it and when is never the caller's to say, and stays when it is replaced.
    fn checked_lock(
        &self,
        actor: &str,
        message: v1::Lock,
        before: Option<&crate::store::Entry>,
    ) -> Result<Lock, AccessError> {
        let now = self.now();
        let before = before.and_then(|entry| Stored::read(entry).ok());
        let before = before.map(|stored| (stored.lock.created, stored.lock.created_by));
        let (created, created_by) = before.unwrap_or_else(|| (now, actor.to_owned()));
        let wanted = v1::Lock {
            created_at: Some(convert::timestamp(created)),
            created_by,
            ..message
        };
        let lock = Lock::try_from(wanted).map_err(|invalid| invalid.within("lock"))?;
        if lock.target.is_of_logins() {
            let problem = "logins are ended by `tgctl users revoke`, not by a lock";
            return Err(Invalid::new("lock.target.login", problem).into());
        }
        if lock.expires.is_some_and(|end| end <= now) {
            return Err(Invalid::new("lock.expires_at", "is past").into());
        }
        lock.checked().map_err(|error| {
            let field = match error {
                InvalidLock::MessageTooLong => "lock.message",
                InvalidLock::EndsBeforeItBegins => "lock.expires_at",
                _ => "lock.target",
            };
            Invalid::new(field, error).into()
        })
    }

    /// A lease that removes a lock some time after its end, so that old ones do not pile up.
    pub(in crate::access) async fn lease_of(
        &self,
        lock: &Lock,
    ) -> Result<Option<LeaseId>, AccessError> {
        let Some(end) = lock.expires else {
            return Ok(None);
        };
        let left = Duration::try_from(end.duration_since(self.now())).unwrap_or_default();
        Ok(Some(self.store().grant(left + KEPT_AFTER_END).await?))
    }

    /// Removes a lock.
    pub(crate) async fn delete_lock(&self, actor: &str, name: &str) -> Result<(), AccessError> {
        let key = keys::lock(name);
        let missing = || AccessError::NotFound {
            what: "lock",
            name: name.chars().take(128).collect(),
        };
        // What ended a login is none of theirs, and its name is none that can be given.
        check_name("name", name).map_err(|_| missing())?;
        let entry = self.store().get(key.clone()).await?.ok_or_else(missing)?;
        let txn = Txn::new().at(key.clone(), entry.modified).delete(key);
        let committed = self.store().commit(txn).await;
        committed.map_err(|error| AccessError::commit("the lock", error))?;
        self.locks.read().await?;
        match Stored::read(&entry) {
            Ok(stored) => self.tell_lock(event::LOCK_DELETED, actor, &stored.lock),
            Err(error) => tracing::warn!(error = %error, "removed a lock that could not be read"),
        }
        Ok(())
    }

    pub(in crate::access) fn tell_lock(&self, kind: event::Kind, actor: &str, lock: &Lock) {
        let mut told = event::new(kind);
        actor.clone_into(&mut told.user);
        let target = &lock.target;
        for (key, value) in [
            ("name", Some(lock.name.clone())),
            ("target.user", target.user.clone()),
            ("target.role", target.role.clone()),
            ("target.agent", target.agent.clone()),
            ("target.db", target.database.clone()),
            ("target.access_request", target.access_request.clone()),
            ("lock_message", Some(lock.message.clone())),
            ("expires", lock.expires.map(|end| end.to_string())),
        ] {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                told.fields.insert(key.to_owned(), value);
            }
        }
        self.parts.audit.record(told);
    }
}
