//! Removing requests, and with them what they gave.

use tidegate_core::{Lock, LockTarget, requests::AccessRequest};
use tidegate_proto::v1;

use super::{ATTEMPTS_MAX, Author, tell};
use crate::{
    access::{Access, AccessError},
    audit::event,
    keys,
    record::encode,
    store::{CommitError, Txn},
};

impl Access {
    /// Removes a request. Certificates that carry its roles are locked out in the same step, until they would have ended;
    /// when this returns, the lock is in force at this instance. Gives the name of the lock, if one was needed.
    pub(crate) async fn delete_request(
        &self,
        actor: &str,
        id: &str,
    ) -> Result<Option<String>, AccessError> {
        for _ in 0..ATTEMPTS_MAX {
            let stored = self.request(id).await?;
            let request = stored.request;
            let lock = self.lock_after(actor, &request);
            let key = keys::access_request(&request.id);
            let mut author = Author::of(self.store(), &request.user).await?;
            author.remove(std::slice::from_ref(&request.id));
            let txn = Txn::new().at(key.clone(), stored.revision).delete(key);
            let mut txn = author.write(txn);
            if let Some(lock) = &lock {
                let lease = self.lease_of(lock).await?;
                let message = encode(&v1::Lock::from(lock.clone()));
                txn = txn.put_with(keys::lock(&lock.name), message, lease);
            }
            match self.store().commit(txn).await {
                Ok(_) => return self.removed(actor, &request, lock).await,
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(AccessError::commit("the access request", error)),
            }
        }
        Err(AccessError::Conflict {
            what: "the access request",
        })
    }

    async fn removed(
        &self,
        actor: &str,
        request: &AccessRequest,
        lock: Option<Lock>,
    ) -> Result<Option<String>, AccessError> {
        self.tell_request(tell::DELETE, actor, request, []);
        let Some(lock) = lock else {
            return Ok(None);
        };
        self.tell_lock(event::LOCK_CREATED, actor, &lock);
        self.locks().read().await?;
        Ok(Some(lock.name))
    }

    /// What keeps the roles of a request from being used once it is gone; nothing when nobody can have them.
    fn lock_after(&self, actor: &str, request: &AccessRequest) -> Option<Lock> {
        let now = self.now();
        request.grants_now(now).then(|| Lock {
            name: format!("access-request-{}", request.id),
            target: LockTarget {
                access_request: Some(request.id.clone()),
                ..LockTarget::default()
            },
            message: format!(
                "access request {} was removed; `tg request drop` goes back to your own roles",
                request.id
            ),
            created: now,
            expires: Some(request.access_until),
            created_by: actor.to_owned(),
        })
    }
}
