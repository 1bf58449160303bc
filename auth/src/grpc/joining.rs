//! `JoinService`: joining by an AWS identity, and join tokens as resources.

use std::{net::SocketAddr, pin::Pin, sync::LazyLock, time::Duration};

use futures::{Stream, StreamExt as _};
use tidegate_proto::{
    Invalid,
    v1::{self, join_by_iam_request, join_by_iam_response, join_service_server::JoinService},
};
use tidegate_service::rpc;
use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::{Code, Request, Response, Status, Streaming};

use super::{Api, guard::Caller, status::refuse, undecodable::received};
use crate::access::join::iam::Challenged;

/// From the opening of a stream to who wants to join.
const OPENING_MAX: Duration = Duration::from_secs(10);
/// How long a challenge can be answered.
const CHALLENGE_LIFE: Duration = Duration::from_secs(30);
/// Streams at once; each is a few KiB for at most [`OPENING_MAX`] and [`CHALLENGE_LIFE`].
const STREAMS_MAX: usize = 1024;

static STREAMS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(STREAMS_MAX));

/// A stream of somebody who joins. It ends with its second answer, or with the first thing that is wrong.
struct Joining {
    messages: Streaming<v1::JoinByIamRequest>,
    remote: Option<SocketAddr>,
    /// Who was given a challenge.
    challenged: Option<Challenged>,
    _place: SemaphorePermit<'static>,
}

impl Api {
    /// Takes the next message and answers it; the stream goes on when there is somebody to answer a challenge.
    async fn join_step(
        &self,
        mut joining: Joining,
    ) -> Result<(v1::JoinByIamResponse, Option<Joining>), Status> {
        let step = self.next_step(&mut joining).await?;
        let (answer, joining) = match (step, joining.challenged.take()) {
            (join_by_iam_request::Step::Join(request), None) => {
                let challenged = self.access.challenge(request, joining.remote).await?;
                let challenge = challenged.challenge().to_owned();
                joining.challenged = Some(challenged);
                (
                    join_by_iam_response::Step::Challenge(challenge),
                    Some(joining),
                )
            }
            (join_by_iam_request::Step::Proof(proof), Some(challenged)) => {
                let joined = self.access.join_by_iam(challenged, &proof).await?;
                (join_by_iam_response::Step::Joined(joined), None)
            }
            (join_by_iam_request::Step::Proof(_), None) => {
                return Err(Invalid::new("step", "must say who joins first").into());
            }
            (join_by_iam_request::Step::Join(_), Some(_)) => {
                return Err(Invalid::new("step", "must be the proof").into());
            }
        };
        let answer = v1::JoinByIamResponse { step: Some(answer) };
        Ok((answer, joining))
    }

    async fn next_step(&self, joining: &mut Joining) -> Result<join_by_iam_request::Step, Status> {
        let within = match joining.challenged {
            None => OPENING_MAX,
            Some(_) => CHALLENGE_LIFE,
        };
        let next = tokio::select! {
            () = self.shutdown.cancelled() => {
                return Err(refuse(Code::Unavailable, "SHUTTING_DOWN", "the auth service is shutting down"));
            }
            next = tokio::time::timeout(within, received(&mut joining.messages)) => next,
        };
        match next {
            Ok(Ok(Some(message))) => message
                .step
                .ok_or_else(|| Invalid::new("step", "is missing").into()),
            Ok(Err(broken)) if joining.challenged.is_none() => Err(broken),
            // It hung up, sent what is no message, or was too slow.
            Ok(Err(_) | Ok(None)) | Err(_) => Err(match &joining.challenged {
                Some(challenged) => self.access.unanswered(challenged).into(),
                None => refuse(
                    Code::DeadlineExceeded,
                    "NOBODY_JOINS",
                    "nobody said who joins",
                ),
            }),
        }
    }
}

#[tonic::async_trait]
impl JoinService for Api {
    type JoinByIamStream =
        Pin<Box<dyn Stream<Item = Result<v1::JoinByIamResponse, Status>> + Send>>;

    async fn join_by_iam(
        &self,
        request: Request<Streaming<v1::JoinByIamRequest>>,
    ) -> Result<Response<Self::JoinByIamStream>, Status> {
        let place = STREAMS.try_acquire().map_err(|_| {
            let message = "too many hosts join at once: try again in a moment";
            refuse(Code::ResourceExhausted, "BUSY", message)
        })?;
        let joining = Joining {
            remote: rpc::remote(&request),
            messages: request.into_inner(),
            challenged: None,
            _place: place,
        };
        let api = self.clone();
        let answers = futures::stream::unfold(Some(joining), move |joining| {
            let api = api.clone();
            async move {
                match api.join_step(joining?).await {
                    Ok((answer, joining)) => Some((Ok(answer), joining)),
                    Err(status) => Some((Err(status), None)),
                }
            }
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn upsert_token(
        &self,
        request: Request<v1::UpsertTokenRequest>,
    ) -> Result<Response<v1::Token>, Status> {
        let actor = Caller::of(&request).actor();
        let token = self
            .access
            .upsert_token(&actor, request.into_inner())
            .await?;
        Ok(Response::new(token))
    }
}
