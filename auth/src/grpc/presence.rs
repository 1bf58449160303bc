//! `PresenceService`: announcements of agents and proxies.

use std::pin::Pin;

use futures::{Stream, StreamExt as _};
use tidegate_identity::HostHolder;
use tidegate_proto::{
    Invalid,
    v1::{self, announce_request::Message, presence_service_server::PresenceService},
};
use tonic::{Code, Request, Response, Status, Streaming};

use super::{Api, guard::Caller, status::refuse, undecodable::received};
use crate::presence::Session;

/// An announcing process.
struct Announcing {
    host: HostHolder,
    messages: Streaming<v1::AnnounceRequest>,
    session: Option<Session>,
}

impl Api {
    /// Takes the next message; `None` after a goodbye, or when the stream is lost.
    async fn take(
        &self,
        announcing: &mut Announcing,
    ) -> Result<Option<v1::AnnounceResponse>, Status> {
        let lease = self.presence.lease;
        let next = tokio::select! {
            () = self.shutdown.cancelled() => {
                return Err(refuse(Code::Unavailable, "SHUTTING_DOWN", "the auth service is shutting down"));
            }
            next = tokio::time::timeout(lease, received(&mut announcing.messages)) => next,
        };
        let next = next.map_err(|_| {
            refuse(
                Code::DeadlineExceeded,
                "NO_HEARTBEAT",
                "no sign of life within the lease's time",
            )
        })?;
        let Some(message) = next? else {
            return Ok(None);
        };
        let Some(message) = message.message else {
            return Err(Invalid::new("message", "is missing").into());
        };
        let revision = match (message, &mut announcing.session) {
            (Message::Hello(hello), None) => {
                let (session, revision) = self.presence.hello(&announcing.host, hello).await?;
                announcing.session = Some(session);
                revision
            }
            (Message::Hello(_), Some(_)) => {
                return Err(Invalid::new("message", "is a second hello").into());
            }
            (_, None) => return Err(Invalid::new("message", "must be a hello first").into()),
            (Message::Delta(delta), Some(session)) => session.delta(delta).await?,
            (Message::Heartbeat(_), Some(session)) => {
                session.heartbeat().await?;
                self.inventory.revision()
            }
            (Message::Goodbye(_), session) => {
                if let Some(session) = session.take() {
                    session.goodbye().await?;
                }
                return Ok(None);
            }
        };
        Ok(Some(v1::AnnounceResponse {
            heartbeat_seconds: self.presence.heartbeat_seconds(),
            revision,
        }))
    }
}

#[tonic::async_trait]
impl PresenceService for Api {
    type AnnounceStream = Pin<Box<dyn Stream<Item = Result<v1::AnnounceResponse, Status>> + Send>>;

    async fn announce(
        &self,
        request: Request<Streaming<v1::AnnounceRequest>>,
    ) -> Result<Response<Self::AnnounceStream>, Status> {
        let start = Announcing {
            host: Caller::of(&request).host()?.clone(),
            messages: request.into_inner(),
            session: None,
        };
        let api = self.clone();
        let answers = futures::stream::unfold(Some(start), move |announcing| {
            let api = api.clone();
            async move {
                let mut announcing = announcing?;
                match api.take(&mut announcing).await {
                    Ok(Some(answer)) => Some((Ok(answer), Some(announcing))),
                    Ok(None) => None,
                    Err(status) => {
                        if let Some(session) = &announcing.session {
                            tracing::info!(host.id = %session.host_id(), error = status.message(), "an announcing stream ended");
                        }
                        Some((Err(status), None))
                    }
                }
            }
        });
        Ok(Response::new(answers.boxed()))
    }
}
