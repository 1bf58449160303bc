//! Waits until a request is decided.
//!
//! A watch that ends is started again, at whichever instance answers; each begins with the request as it is, so nothing
//! is missed between two. After the time to decide is over nobody has to be asked any more.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tidegate_console::{Failure, client::Client, request, rpc};
use tidegate_proto::{
    convert,
    v1::{
        self, AccessRequestState, WatchAccessRequestsRequest, WatchAccessRequestsResponse,
        watch_access_requests_response::Event,
    },
};
use tokio::time::{sleep, timeout};
use tonic::{Code, Status, Streaming};

/// A watch that says nothing for so long is started again: the connection may be dead.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Waits between two attempts to watch.
const RETRY_WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));
/// How long after its end a request is still asked about: clocks differ.
const GRACE: SignedDuration = SignedDuration::from_secs(120);

/// The request as it was decided, or as it expired.
pub(super) async fn decided(
    client: &Client,
    asked: v1::AccessRequest,
) -> Result<v1::AccessRequest, Failure> {
    let end = asked.pending_until.as_ref();
    let end = end.and_then(|end| convert::instant(end).ok());
    let end = end.unwrap_or_else(Timestamp::now).saturating_add(GRACE);
    let end = end.unwrap_or(Timestamp::MAX);
    let mut wait = RETRY_WAIT.0;
    while Timestamp::now() < end {
        match watch(client, &asked.id, &mut wait).await {
            Ok(Some(request)) => return Ok(request),
            Ok(None) => {}
            Err(status) if is_final(&status) => {
                return Err(rpc::failure("wait for the request", &status));
            }
            Err(_) => {
                sleep(wait).await;
                wait = (wait * 2).min(RETRY_WAIT.1);
            }
        }
    }
    request::get(client, &asked.id).await
}

/// Watches once; nothing when the watch fell silent.
async fn watch(
    client: &Client,
    id: &str,
    wait: &mut Duration,
) -> Result<Option<v1::AccessRequest>, Status> {
    let request = WatchAccessRequestsRequest { id: id.to_owned() };
    let mut requests = client.requests();
    let started = timeout(rpc::CALL_TIMEOUT, requests.watch_access_requests(request));
    let started = started
        .await
        .map_err(|_| Status::deadline_exceeded("no answer in time"))??;
    let mut events: Streaming<WatchAccessRequestsResponse> = started.into_inner();
    let mut is_there = false;
    loop {
        let Ok(event) = timeout(SILENCE_MAX, events.message()).await else {
            return Ok(None);
        };
        let Some(event) = event?.and_then(|answer| answer.event) else {
            return Err(Status::unavailable("the watch ended"));
        };
        *wait = RETRY_WAIT.0;
        match event {
            Event::Request(request) if request.state() == AccessRequestState::Pending => {
                is_there = true;
            }
            Event::Request(request) => return Ok(Some(request)),
            Event::Synced(_) if is_there => {}
            Event::Synced(_) | Event::Removed(_) => {
                return Err(Status::not_found(format!(
                    "access request {id} was removed"
                )));
            }
        }
    }
}

/// Whether another attempt cannot come out better.
fn is_final(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::NotFound
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
            | Code::InvalidArgument
    )
}
