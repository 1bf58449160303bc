//! Making requests.

use tidegate_core::{
    Subject,
    requests::{RequestRefused, Wanted},
};
use tidegate_proto::{convert, v1};
use uuid::Uuid;

use super::{ATTEMPTS_MAX, Author, Stored, tell};
use crate::{
    access::{Access, AccessError},
    keys,
    record::{UserRecord, encode},
    store::{CommitError, Entry, Txn},
};

impl Access {
    /// Asks for roles for a person. What that person may ask for is by the roles and traits of the account now, and
    /// neither by an older certificate nor by roles that were had by asking.
    pub(crate) async fn create_request(
        &self,
        actor: &str,
        user: &str,
        asked: v1::CreateAccessRequestRequest,
    ) -> Result<v1::AccessRequest, AccessError> {
        let duration = convert::span("max_duration", asked.max_duration)?;
        let wanted = Wanted {
            id: Uuid::now_v7().to_string(),
            roles: asked.roles,
            reason: asked.reason,
            duration,
        };
        for _ in 0..ATTEMPTS_MAX {
            let (account, record) = self.account(user).await?;
            let stored = self.planned(record, wanted.clone())?;
            match self.write_new(&account, &stored).await {
                Ok(Ok(revision)) => {
                    self.tell_request(tell::CREATE, actor, &stored.request, []);
                    let stored = Stored { revision, ..stored };
                    return Ok(stored.message());
                }
                Ok(Err(refused)) => return Err(refused),
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(AccessError::commit("the access request", error)),
            }
        }
        Err(AccessError::Conflict {
            what: "the access request",
        })
    }

    /// The roles that a person may ask for now.
    pub(crate) async fn requestable(&self, user: &str) -> Result<Vec<String>, AccessError> {
        let (_, record) = self.account(user).await?;
        let policy = self.parts.inventory.roles().policy.clone();
        Ok(policy.requestable(&subject(record)))
    }

    /// The account of a person.
    pub(super) async fn account(&self, name: &str) -> Result<(Entry, UserRecord), AccessError> {
        let found = self.user(name).await?;
        found.ok_or_else(|| AccessError::NotFound {
            what: "user",
            name: name.chars().take(128).collect(),
        })
    }

    fn planned(&self, record: UserRecord, wanted: Wanted) -> Result<Stored, AccessError> {
        let policy = self.parts.inventory.roles().policy.clone();
        let account_created_at = record.user.as_ref().and_then(|user| user.created_at);
        let subject = subject(record);
        match policy.request(&subject, wanted, self.now()) {
            Ok(request) => Ok(Stored {
                request,
                account_created_at,
                revision: 0,
            }),
            Err(refused @ RequestRefused::NotAllowed { .. }) => {
                let error = AccessError::from(refused);
                Err(with_alternatives(error, &policy.requestable(&subject)))
            }
            Err(refused) => Err(refused.into()),
        }
    }

    /// Writes a request and its author's list, if the account is still as it was read.
    async fn write_new(
        &self,
        account: &Entry,
        stored: &Stored,
    ) -> Result<Result<u64, AccessError>, CommitError> {
        let request = &stored.request;
        let mut author = Author::of(self.store(), &request.user).await?;
        let goes = match author.make_room(self.now()) {
            Ok(goes) => goes,
            Err(full) => {
                let refused = AccessError::forbidden("TOO_MANY", full.to_string());
                return Ok(Err(refused));
            }
        };
        author.put(request);
        let key = keys::access_request(&request.id);
        let mut txn = Txn::new()
            .at(account.key.clone(), account.modified)
            .absent(key.clone())
            .put(key, encode(&stored.record()));
        if let Some(id) = goes {
            txn = txn.delete(keys::access_request(&id));
        }
        self.store().commit(author.write(txn)).await.map(Ok)
    }
}

pub(super) fn subject(record: UserRecord) -> Subject {
    let user = record.user.unwrap_or_default();
    Subject {
        user: user.name,
        roles: user.roles,
        traits: convert::traits(user.traits),
    }
}

/// Says what may be asked for instead.
fn with_alternatives(error: AccessError, requestable: &[String]) -> AccessError {
    let AccessError::Denied { reason, message } = error else {
        return error;
    };
    let instead = if requestable.is_empty() {
        "there is no role that you may ask for".to_owned()
    } else {
        format!("you may ask for `{}`", requestable.join("`, `"))
    };
    AccessError::Denied {
        reason,
        message: format!("{message}; {instead}"),
    }
}
