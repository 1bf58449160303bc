//! `RequestService`: asking for roles, deciding about that, and having what was approved.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt as _};
use tidegate_core::{
    access::{Verb, kinds},
    requests::{AccessRequest, RequestState, Verdict},
};
use tidegate_proto::{
    Invalid,
    v1::{self, request_service_server::RequestService},
};
use tidegate_service::telemetry::chain;
use tonic::{Code, Request, Response, Status};

use super::{Api, guard::Caller, status::refuse};
use crate::access::requests::{Listing, RequestEvent, RequestWatchEnd, Sees, Word};

type Watched = Pin<Box<dyn Stream<Item = Result<v1::WatchAccessRequestsResponse, Status>> + Send>>;

impl Api {
    /// What a caller may see: their own, what they may review, and all that a rule lets them. Administrators on this
    /// machine see everything.
    fn eyes(&self, caller: &Caller) -> Sees {
        let Ok((holder, _)) = caller.user() else {
            return Arc::new(|_: &AccessRequest| true);
        };
        let (subject, caller) = (holder.subject(), caller.clone());
        let policy = self.inventory.roles().policy.clone();
        Arc::new(move |request: &AccessRequest| {
            request.user == subject.user
                || caller.sees(kinds::ACCESS_REQUEST, &request.id)
                || policy.may_review(&subject, request).is_ok()
        })
    }

    /// Of what a caller may see, what waits for them.
    fn reviewable(&self, caller: &Caller) -> Result<Sees, Status> {
        let (holder, _) = caller.user()?;
        let subject = holder.subject();
        let policy = self.inventory.roles().policy.clone();
        Ok(Arc::new(move |request: &AccessRequest| {
            let mut reviews = request.reviews.iter();
            request.state == RequestState::Pending
                && !reviews.any(|review| review.reviewer == subject.user)
                && policy.may_review(&subject, request).is_ok()
        }))
    }

    fn listing(
        &self,
        caller: &Caller,
        asked: &v1::ListAccessRequestsRequest,
    ) -> Result<Listing, Status> {
        let states = asked.states().map(RequestState::try_from);
        let states: Vec<RequestState> = states
            .collect::<Result<_, Invalid>>()
            .map_err(|invalid| Invalid::new("states", invalid.problem))?;
        let mut listing = Listing {
            query: format!("access_request {:?} {:?}", asked.scope(), states),
            states,
            of: None,
            sees: self.eyes(caller),
        };
        match asked.scope() {
            v1::AccessRequestScope::Unspecified => {}
            v1::AccessRequestScope::Mine => listing.of = Some(caller.user()?.0.name.clone()),
            v1::AccessRequestScope::Reviewable => listing.sees = self.reviewable(caller)?,
        }
        Ok(listing)
    }

    /// A watch that ends with the roles by which it shows what it shows, with the certificate and with the service.
    fn ending(
        &self,
        caller: &Caller,
        events: impl Stream<Item = Result<v1::WatchAccessRequestsResponse, Status>> + Send + 'static,
    ) -> Watched {
        let mut roles = self.inventory.watch_roles();
        roles.mark_unchanged();
        let (clock, shutdown) = (self.clock.clone(), self.shutdown.clone());
        let expires_at = caller.user().ok().map(|(_, expires_at)| expires_at);
        let ended = async move {
            let expired = async {
                match expires_at {
                    Some(end) => clock.wait_until(end).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled_owned() => refuse(
                    Code::Unavailable,
                    "SHUTTING_DOWN",
                    "the auth service is shutting down",
                ),
                () = expired => refuse(
                    Code::Unauthenticated,
                    "CERTIFICATE_EXPIRED",
                    "your certificate has expired: log in again",
                ),
                _ = roles.changed() => refuse(
                    Code::OutOfRange,
                    "ROLES_CHANGED",
                    "roles have changed: start the watch again",
                ),
            }
        };
        let ended = futures::stream::once(ended).map(Err);
        // Whichever has something to say; after an end nobody asks for more.
        futures::stream::select(events, ended).boxed()
    }
}

fn word(verdict: v1::ReviewVerdict, reason: String) -> Result<Word, Status> {
    Ok(Word {
        verdict: Verdict::try_from(verdict)?,
        reason,
    })
}

fn told(event: RequestEvent) -> v1::WatchAccessRequestsResponse {
    use v1::watch_access_requests_response::Event;
    let event = match event {
        RequestEvent::Is(request) => Event::Request(*request),
        RequestEvent::Removed(id) => Event::Removed(id),
        RequestEvent::Synced => Event::Synced(true),
    };
    v1::WatchAccessRequestsResponse { event: Some(event) }
}

impl From<RequestWatchEnd> for Status {
    fn from(end: RequestWatchEnd) -> Self {
        let message = end.to_string();
        match end {
            RequestWatchEnd::Access(error) => error.into(),
            RequestWatchEnd::Missed(_) => refuse(Code::OutOfRange, "HISTORY_GONE", message),
            RequestWatchEnd::TooMany => {
                refuse(Code::ResourceExhausted, "TOO_MANY_WATCHERS", message)
            }
            RequestWatchEnd::Unavailable(_) => {
                tracing::error!(error = chain(&end), "the state store ended a watch");
                refuse(Code::Unavailable, "STORE_UNAVAILABLE", message)
            }
        }
    }
}

#[tonic::async_trait]
impl RequestService for Api {
    async fn create_access_request(
        &self,
        request: Request<v1::CreateAccessRequestRequest>,
    ) -> Result<Response<v1::AccessRequest>, Status> {
        let caller = Caller::of(&request);
        let asked = request.into_inner();
        let own = caller.user().ok().map(|(holder, _)| holder.name.clone());
        let user = match own {
            Some(own) if asked.user.is_empty() || asked.user == own => own,
            None if asked.user.is_empty() => return Err(Invalid::new("user", "is missing").into()),
            _ => {
                caller.may(kinds::ACCESS_REQUEST, "", &[Verb::Create])?;
                asked.user.clone()
            }
        };
        let actor = caller.actor();
        let made = self.access.create_request(&actor, &user, asked).await?;
        Ok(Response::new(made))
    }

    async fn get_access_request(
        &self,
        request: Request<v1::GetAccessRequestRequest>,
    ) -> Result<Response<v1::AccessRequest>, Status> {
        let sees = self.eyes(&Caller::of(&request));
        let found = self
            .access
            .get_request(&request.get_ref().id, &sees)
            .await?;
        Ok(Response::new(found))
    }

    async fn list_access_requests(
        &self,
        request: Request<v1::ListAccessRequestsRequest>,
    ) -> Result<Response<v1::ListAccessRequestsResponse>, Status> {
        let asked = request.get_ref();
        let listing = self.listing(&Caller::of(&request), asked)?;
        let page = self
            .access
            .list_requests(&listing, asked.page_size, &asked.page_token);
        Ok(Response::new(page.await?))
    }

    type WatchAccessRequestsStream = Watched;

    async fn watch_access_requests(
        &self,
        request: Request<v1::WatchAccessRequestsRequest>,
    ) -> Result<Response<Watched>, Status> {
        let caller = Caller::of(&request);
        let sees = self.eyes(&caller);
        let events = self.access.watch_requests(&request.get_ref().id, sees);
        let events = events
            .await?
            .map(|event| event.map(told).map_err(Status::from));
        Ok(Response::new(self.ending(&caller, events)))
    }

    async fn review_access_request(
        &self,
        request: Request<v1::ReviewAccessRequestRequest>,
    ) -> Result<Response<v1::AccessRequest>, Status> {
        let caller = Caller::of(&request);
        let (reviewer, _) = caller.user()?;
        let asked = request.into_inner();
        let word = word(asked.verdict(), asked.reason)?;
        let reviewer = reviewer.subject();
        let reviewed = self
            .access
            .review_request(&reviewer, &asked.id, word)
            .await?;
        Ok(Response::new(reviewed))
    }

    async fn decide_access_request(
        &self,
        request: Request<v1::DecideAccessRequestRequest>,
    ) -> Result<Response<v1::AccessRequest>, Status> {
        let caller = Caller::of(&request);
        let asked = request.into_inner();
        caller.may(kinds::ACCESS_REQUEST, &asked.id, &[Verb::Update])?;
        let word = word(asked.verdict(), asked.reason)?;
        let actor = caller.actor();
        let decided = self.access.decide_request(&actor, &asked.id, word).await?;
        Ok(Response::new(decided))
    }

    async fn delete_access_request(
        &self,
        request: Request<v1::DeleteAccessRequestRequest>,
    ) -> Result<Response<v1::DeleteAccessRequestResponse>, Status> {
        let caller = Caller::of(&request);
        let id = &request.get_ref().id;
        // What somebody may not see is not there for them.
        let found = self.access.get_request(id, &self.eyes(&caller)).await?;
        if caller.user().is_ok_and(|(own, _)| own.name != found.user) {
            caller.may(kinds::ACCESS_REQUEST, &found.id, &[Verb::Delete])?;
        }
        let lock = self
            .access
            .delete_request(&caller.actor(), &found.id)
            .await?;
        Ok(Response::new(v1::DeleteAccessRequestResponse {
            lock: lock.unwrap_or_default(),
        }))
    }

    async fn list_requestable_roles(
        &self,
        request: Request<v1::ListRequestableRolesRequest>,
    ) -> Result<Response<v1::ListRequestableRolesResponse>, Status> {
        let caller = Caller::of(&request);
        let (own, _) = caller.user()?;
        let roles = self.access.requestable(&own.name).await?;
        Ok(Response::new(v1::ListRequestableRolesResponse { roles }))
    }

    async fn assume_requests(
        &self,
        request: Request<v1::AssumeRequestsRequest>,
    ) -> Result<Response<v1::AssumeRequestsResponse>, Status> {
        let caller = Caller::of(&request);
        let (own, expires_at) = caller.user()?;
        let assumed = self
            .access
            .assume_requests(own, expires_at, request.into_inner());
        Ok(Response::new(assumed.await?))
    }
}
