//! Requests for roles, as they are kept and changed.
//!
//! Every change is one step of the store, guarded by the revision that was read, so two reviewers at two instances never
//! lose each other's word; who was second reads again and decides again. Beside each request its author's list
//! ([`author`]) is kept, in the same step whenever a request begins or stops to wait: it bounds what one person has
//! open, and says what is due without reading every request.
//!
//! Invariants: what is told of a request is what it is *now* ([`AccessRequest::at`]), whether or not the sweep has
//! written it down yet. A request belongs to the account that made it: another one of the same name, made after the
//! first was deleted, has nothing of it. The roles of a request that was removed cannot be used: what carries it is
//! locked out in the step that removes it.
//!
//! Not here: who may ask for and decide about what ([`tidegate_core::requests`]); who may call
//! (`crate::grpc::guard`).

mod assume;
mod author;
mod decide;
mod make;
mod read;
mod record;
mod remove;
mod sweep;
mod tell;
mod watch;

use std::sync::Arc;

use jiff::Timestamp;
use tidegate_core::requests::{
    AccessRequest, AssumeRefused, RequestRefused, RequestState, TransitionRefused,
};
use tidegate_proto::{Invalid, v1};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::{Access, AccessError};
use crate::{
    keys,
    record::{RecordError, decode, encode},
    store::{CommitError, Entry, Txn},
};
use author::Author;
pub(crate) use decide::Word;
pub(crate) use read::Listing;
use record::AccessRequestRecord;
pub(crate) use watch::{RequestEvent, RequestWatchEnd};

/// Most requests of one person that wait for reviewers.
const OPEN_MAX: usize = 20;
/// Most requests of one person that are kept, those that are over included.
const KEPT_MAX: usize = 200;
/// How often a change is tried again when others change the same request.
const ATTEMPTS_MAX: u32 = 16;
/// Most watches of requests at once, of one instance.
const WATCHES_MAX: usize = 1000;

/// Whether somebody may see a request.
pub(crate) type Sees = Arc<dyn Fn(&AccessRequest) -> bool + Send + Sync>;

/// What requests need beside the store.
pub(super) struct RequestParts {
    watches: Arc<Semaphore>,
}

impl Default for RequestParts {
    fn default() -> Self {
        Self {
            watches: Arc::new(Semaphore::new(WATCHES_MAX)),
        }
    }
}

/// A request as the store has it.
#[derive(Clone, Debug, PartialEq)]
struct Stored {
    request: AccessRequest,
    /// When the account that asks was made.
    account_created_at: Option<prost_types::Timestamp>,
    revision: u64,
}

impl Stored {
    fn read(entry: &Entry) -> Result<Self, RecordError> {
        let record: AccessRequestRecord = decode(entry)?;
        let request = AccessRequest::try_from(record.request.unwrap_or_default());
        Ok(Self {
            request: request.map_err(|invalid| RecordError::Unusable {
                key: String::from_utf8_lossy(&entry.key).into_owned(),
                invalid,
            })?,
            account_created_at: record.account_created_at,
            revision: entry.modified,
        })
    }

    /// As it is at an instant.
    fn at(self, now: Timestamp) -> Self {
        Self {
            request: self.request.at(now),
            ..self
        }
    }

    fn record(&self) -> AccessRequestRecord {
        AccessRequestRecord {
            request: Some(self.request.clone().into()),
            account_created_at: self.account_created_at,
        }
    }

    fn message(self) -> v1::AccessRequest {
        v1::AccessRequest {
            revision: self.revision,
            ..self.request.into()
        }
    }
}

impl Access {
    /// A request, as it was written.
    async fn written_request(&self, id: &str) -> Result<Stored, AccessError> {
        // What is no id is not looked for: it would be part of a key.
        let id = Uuid::try_parse(id).map_err(|_| missing(id))?.to_string();
        let entry = self.store().get(keys::access_request(&id)).await?;
        Ok(Stored::read(&entry.ok_or_else(|| missing(&id))?)?)
    }

    /// A request, as it is now.
    async fn request(&self, id: &str) -> Result<Stored, AccessError> {
        Ok(self.written_request(id).await?.at(self.now()))
    }

    /// Changes a request by `decide`, and gives it as it is then. `decide` is asked again with what is there when somebody else was first.
    async fn change_request(
        &self,
        id: &str,
        decide: impl Fn(AccessRequest) -> Result<AccessRequest, AccessError> + Send,
    ) -> Result<Stored, AccessError> {
        for _ in 0..ATTEMPTS_MAX {
            let stored = self.request(id).await?;
            let changed = Stored {
                request: decide(stored.request)?,
                ..stored
            };
            match self.write_change(&changed).await {
                Ok(revision) => {
                    return Ok(Stored {
                        revision,
                        ..changed
                    });
                }
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(AccessError::commit("the access request", error)),
            }
        }
        Err(AccessError::Conflict {
            what: "the access request",
        })
    }

    /// Writes a request over the one that was read, and its author's list when it does not wait any more.
    async fn write_change(&self, changed: &Stored) -> Result<u64, CommitError> {
        let request = &changed.request;
        let key = keys::access_request(&request.id);
        let mut txn = Txn::new()
            .at(key.clone(), changed.revision)
            .put(key, encode(&changed.record()));
        if request.state != RequestState::Pending {
            let mut author = Author::of(self.store(), &request.user).await?;
            author.put(request);
            txn = author.write(txn);
        }
        self.store().commit(txn).await
    }
}

fn missing(id: &str) -> AccessError {
    AccessError::NotFound {
        what: "access request",
        name: id.chars().take(64).collect(),
    }
}

impl From<RequestRefused> for AccessError {
    fn from(refused: RequestRefused) -> Self {
        let message = refused.to_string();
        match refused {
            RequestRefused::AlreadyHeld { .. } => Self::forbidden("ROLE_HELD", message),
            RequestRefused::NotAllowed { .. } => Self::Denied {
                reason: "ROLE_NOT_REQUESTABLE",
                message,
            },
            RequestRefused::ReasonTooLong => Invalid::new("reason", message).into(),
            RequestRefused::TooLong { .. } => Invalid::new("max_duration", message).into(),
            _ => Invalid::new("roles", message).into(),
        }
    }
}

impl From<TransitionRefused> for AccessError {
    fn from(refused: TransitionRefused) -> Self {
        let message = refused.to_string();
        match refused {
            TransitionRefused::NotAllowed { .. } => Self::Denied {
                reason: "NOT_REVIEWER",
                message,
            },
            TransitionRefused::ReasonTooLong => Invalid::new("reason", message).into(),
            TransitionRefused::ReviewedAlready { .. } => {
                Self::forbidden("REVIEWED_ALREADY", message)
            }
            TransitionRefused::RoleGone { .. } => Self::forbidden("ROLE_GONE", message),
            TransitionRefused::TooManyReviews => Self::forbidden("TOO_MANY", message),
            _ => Self::forbidden("CLOSED", message),
        }
    }
}

impl From<AssumeRefused> for AccessError {
    fn from(refused: AssumeRefused) -> Self {
        let message = refused.to_string();
        match refused {
            AssumeRefused::NotYours { id } => missing(&id),
            AssumeRefused::Over { .. } => Self::forbidden("ACCESS_ENDED", message),
            AssumeRefused::RoleGone { .. } => Self::forbidden("ROLE_GONE", message),
            AssumeRefused::TooMany => Invalid::new("ids", message).into(),
            _ => Self::forbidden("NOT_APPROVED", message),
        }
    }
}
