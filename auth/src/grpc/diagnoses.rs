//! `DiagnoseService`: questions to agents, and the streams that agents take them on.

use std::pin::Pin;

use futures::{Stream, StreamExt as _};
use tidegate_proto::{
    Invalid,
    v1::{self, diagnose_service_server::DiagnoseService, serve_diagnoses_request::Message},
};
use tonic::{Code, Request, Response, Status, Streaming};

use super::{Api, guard::Caller, status::refuse, undecodable::received};
use crate::diagnoses::Agent;

/// A stream of an agent.
struct Serving {
    host: String,
    messages: Streaming<v1::ServeDiagnosesRequest>,
    agent: Option<Agent>,
}

impl Api {
    /// The next question for the agent; `None` when the stream is over.
    async fn next_question(
        &self,
        serving: &mut Serving,
    ) -> Result<Option<v1::ServeDiagnosesResponse>, Status> {
        loop {
            let questions = async {
                match &mut serving.agent {
                    Some(agent) => agent.questions.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.shutdown.cancelled() => {
                    return Err(refuse(Code::Unavailable, "SHUTTING_DOWN", "the auth service is shutting down"));
                }
                asked = questions => {
                    let Some(asked) = asked else {
                        return Err(refuse(Code::Aborted, "REPLACED", "a newer stream of this host takes the questions"));
                    };
                    self.diagnoses.taken(&serving.host, &asked.id).await?;
                    return Ok(Some(v1::ServeDiagnosesResponse {
                        id: asked.id,
                        question: Some(asked.question),
                    }));
                }
                message = received(&mut serving.messages) => {
                    let Some(message) = message? else { return Ok(None) };
                    self.take_message(serving, message).await?;
                }
            }
        }
    }

    async fn take_message(
        &self,
        serving: &mut Serving,
        message: v1::ServeDiagnosesRequest,
    ) -> Result<(), Status> {
        match (message.message, &serving.agent) {
            (Some(Message::Ready(_)), None) => {
                let agent = self.diagnoses.serve(&serving.host).await;
                serving.agent = Some(agent.map_err(|error| super::status::store(&error))?);
                Ok(())
            }
            (Some(Message::Answer(answer)), Some(_)) => {
                Ok(self.diagnoses.answered(&serving.host, answer).await?)
            }
            (Some(Message::Ready(_)), Some(_)) => {
                Err(Invalid::new("message", "says ready for the second time").into())
            }
            (Some(Message::Answer(_)), None) => {
                Err(Invalid::new("message", "must say ready first").into())
            }
            (None, _) => Err(Invalid::new("message", "is missing").into()),
        }
    }
}

#[tonic::async_trait]
impl DiagnoseService for Api {
    async fn diagnose(
        &self,
        request: Request<v1::DiagnoseRequest>,
    ) -> Result<Response<v1::Diagnosis>, Status> {
        let actor = Caller::of(&request).actor();
        let (api, question) = (self.clone(), request.into_inner());
        // Goes on when the caller went away, so that the question is taken back and the agent free for others.
        let asking = tokio::spawn(async move { api.diagnoses.ask(&actor, question).await });
        let asked = asking
            .await
            .map_err(|failed| super::status::internal(&failed))?;
        Ok(Response::new(asked?))
    }

    type ServeDiagnosesStream =
        Pin<Box<dyn Stream<Item = Result<v1::ServeDiagnosesResponse, Status>> + Send>>;

    async fn serve_diagnoses(
        &self,
        request: Request<Streaming<v1::ServeDiagnosesRequest>>,
    ) -> Result<Response<Self::ServeDiagnosesStream>, Status> {
        let start = Serving {
            host: Caller::of(&request).host()?.host_id.to_string(),
            messages: request.into_inner(),
            agent: None,
        };
        let api = self.clone();
        let questions = futures::stream::unfold(Some(start), move |serving| {
            let api = api.clone();
            async move {
                let mut serving = serving?;
                match api.next_question(&mut serving).await {
                    Ok(Some(question)) => Some((Ok(question), Some(serving))),
                    Ok(None) => None,
                    Err(status) => Some((Err(status), None)),
                }
            }
        });
        Ok(Response::new(questions.boxed()))
    }
}
