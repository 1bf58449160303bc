//! Takes questions from the auth service, one after the other, and answers them as this agent.
//!
//! The database is looked into as the agent serves it now; AWS is asked with credentials that are looked for anew. While
//! the auth service is away nobody can ask.

use std::{future::Future, sync::Arc};

use futures::future::BoxFuture;
use tidegate_aws::AwsFactory;
use tidegate_core::{
    DatabaseName, Diagnosis, ErrorCode,
    doctor::{Ladder, StepName, Stop, Verdict, Who},
};
use tidegate_proto::v1::{
    self, diagnose_service_client::DiagnoseServiceClient, serve_diagnoses_request::Message,
};
use tidegate_service::{
    clock::SharedClock, rpc::MESSAGE_BYTES_MAX, settings::DatabaseSettings, tasks::ShutdownToken,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, transport::Channel};
use tracing::{info, warn};

use super::{Doctor, Question, evidence::Looker};
use crate::{retry, served::ServedSet, trust::Trust, wanted::Wanted};

/// Messages that wait to be sent: ready, and one answer.
const OUTGOING_MAX: usize = 2;

/// Answers for this agent.
#[derive(Clone)]
pub(crate) struct Live {
    pub(crate) served: Arc<ServedSet>,
    pub(crate) hostname: String,
    pub(crate) clock: SharedClock,
    pub(crate) settings: watch::Receiver<DatabaseSettings>,
    pub(crate) trust: Arc<Trust>,
    pub(crate) looker: Arc<Looker>,
}

impl Live {
    /// Takes questions until shutdown.
    pub(crate) async fn take_questions(self, channel: Channel, shutdown: ShutdownToken) {
        retry::follow(
            &shutdown,
            || serve(channel.clone(), |question| self.answer(question)),
            |cause| warn!(error = cause, "cannot take questions for the doctor"),
        )
        .await;
    }

    fn answer(&self, asked: v1::DiagnoseRequest) -> BoxFuture<'_, Diagnosis> {
        Box::pin(async move {
            let Ok(database) = asked.database.parse::<DatabaseName>() else {
                return unnameable(&asked, &self.hostname);
            };
            info!(db.name = %database, db.user = asked.db_user, "the doctor was asked about a database");
            let given = |text: String| Some(text).filter(|text| !text.is_empty());
            let found = self.found(&database);
            let question = Question {
                database,
                db_user: given(asked.db_user),
                db_name: given(asked.db_name),
            };
            let aws = AwsFactory::load().await;
            let naming = self.settings.borrow().aws_session.clone();
            let (clock, trust) = (Arc::clone(&self.clock), Arc::clone(&self.trust));
            let looker = Arc::clone(&self.looker);
            let doctor = Doctor::within(aws, clock, self.hostname.clone(), naming, trust, looker);
            doctor.walk(found, &question).await
        })
    }

    fn found(&self, name: &DatabaseName) -> Result<Wanted, Stop> {
        let wanted = self.served.get(name);
        wanted.map(|wanted| Wanted::clone(&wanted)).ok_or_else(|| {
            let verdict = Verdict::new(
                ErrorCode::AgentUnavailable,
                format!("this agent does not serve database `{name}` now"),
                Who::Operator,
            )
            .how(format!("`tgctl db ls` lists who serves it; the agent's log says why this one does not, and so does `tidegate db doctor {name}` on its host"));
            Stop::new(verdict, format!("it serves {} databases, and not this one", self.served.len()))
        })
    }
}

/// A name that no database can have.
fn unnameable(asked: &v1::DiagnoseRequest, host: &str) -> Diagnosis {
    let mut ladder = Ladder::new();
    let verdict = Verdict::new(
        ErrorCode::UnknownDatabase,
        "no database can have this name",
        Who::User,
    );
    let stop = Stop::new(verdict, asked.database.clone());
    let verdict = ladder.failed(StepName::Serve, "serve it", stop, std::time::Duration::ZERO);
    ladder.end(
        (&asked.database, &asked.db_user, &asked.db_name, host),
        verdict,
    )
}

/// One stream: ready, then an answer to each question, until it ends.
async fn serve<F>(channel: Channel, answer: impl Fn(v1::DiagnoseRequest) -> F) -> Result<(), Status>
where
    F: Future<Output = Diagnosis>,
{
    let mut client =
        DiagnoseServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let (outgoing, messages) = mpsc::channel(OUTGOING_MAX);
    send(&outgoing, Message::Ready(v1::DiagnosesReady {})).await?;
    let mut questions = client
        .serve_diagnoses(ReceiverStream::new(messages))
        .await?
        .into_inner();
    while let Some(asked) = questions.message().await? {
        let Some(question) = asked.question else {
            continue;
        };
        let diagnosis = answer(question).await;
        let answer = v1::DiagnosisAnswer {
            id: asked.id,
            diagnosis: Some(diagnosis.into()),
        };
        send(&outgoing, Message::Answer(answer)).await?;
    }
    Ok(())
}

async fn send(
    outgoing: &mpsc::Sender<v1::ServeDiagnosesRequest>,
    message: Message,
) -> Result<(), Status> {
    let request = v1::ServeDiagnosesRequest {
        message: Some(message),
    };
    outgoing
        .send(request)
        .await
        .map_err(|_| Status::unavailable("the stream has ended"))
}
