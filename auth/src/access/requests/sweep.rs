//! Writes down what time did to requests: those that nobody decided expire, those that were over for long go.
//!
//! Every instance sweeps. Of several that find the same request due, the one whose write is first tells the audit log;
//! the others find it done. Nothing depends on the sweep being on time: what is told of a request is what it is now.

use jiff::{SignedDuration, Timestamp};
use tidegate_core::requests::RequestState;
use tidegate_service::{tasks::ShutdownToken, telemetry::chain};

use super::{Author, tell};
use crate::{
    access::{Access, AccessError},
    keys,
    store::{CommitError, Txn},
};

/// From one sweep to the next. Watchers are promised one a minute.
const SWEEP_INTERVAL: SignedDuration = SignedDuration::from_secs(20);

impl Access {
    /// Sweeps until shutdown.
    pub(crate) async fn tend_requests(&self, shutdown: ShutdownToken) {
        loop {
            let Some(swept) = shutdown.run_until_cancelled(self.sweep_requests()).await else {
                return;
            };
            if let Err(error) = swept {
                tracing::warn!(
                    error = chain(&error),
                    "could not look for access requests whose time is over; trying again later"
                );
            }
            let next = self.now().saturating_add(SWEEP_INTERVAL);
            let next = self.parts.clock.wait_until(next.unwrap_or(Timestamp::MAX));
            if shutdown.run_until_cancelled(next).await.is_none() {
                return;
            }
        }
    }

    /// One sweep over everybody's requests.
    async fn sweep_requests(&self) -> Result<(), AccessError> {
        for entry in self.read_all(keys::REQUEST_AUTHORS).await? {
            let author = match Author::read(&entry) {
                Ok(author) => author,
                Err(error) => {
                    tracing::error!(error = %error, "left out a stored list of access requests that cannot be read");
                    continue;
                }
            };
            let due = author.due(self.now());
            let mut forgotten = due.forgotten;
            for id in due.expired {
                match self.expire_request(&id).await {
                    // The list outlived its request.
                    Err(AccessError::NotFound { .. }) => forgotten.push(id),
                    Err(error @ AccessError::Internal { .. }) => {
                        tracing::error!(
                            error = chain(&error),
                            request = id,
                            "cannot expire an access request"
                        );
                    }
                    other => other?,
                }
            }
            if !forgotten.is_empty() {
                let user = keys::name_under(keys::REQUEST_AUTHORS, &entry.key).unwrap_or_default();
                self.forget_requests(user, &forgotten).await?;
            }
        }
        Ok(())
    }

    async fn expire_request(&self, id: &str) -> Result<(), AccessError> {
        let written = self.written_request(id).await?;
        if written.request.state != RequestState::Pending {
            return Ok(());
        }
        let expired = written.at(self.now());
        if expired.request.state != RequestState::Expired {
            return Ok(());
        }
        match self.write_change(&expired).await {
            Ok(_) => self.tell_request(tell::EXPIRE, "", &expired.request, []),
            // Another instance was first, and tells.
            Err(CommitError::Conflict { .. }) => {}
            Err(error) => return Err(AccessError::commit("the access request", error)),
        }
        Ok(())
    }

    async fn forget_requests(&self, user: &str, ids: &[String]) -> Result<(), AccessError> {
        let mut author = Author::of(self.store(), user).await?;
        author.remove(ids);
        let txn = ids
            .iter()
            .fold(Txn::new(), |txn, id| txn.delete(keys::access_request(id)));
        match self.store().commit(author.write(txn)).await {
            // Somebody else writes the list; the next sweep looks again.
            Ok(_) | Err(CommitError::Conflict { .. }) => Ok(()),
            Err(error) => Err(AccessError::commit("access requests", error)),
        }
    }
}
