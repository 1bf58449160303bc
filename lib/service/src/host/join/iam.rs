//! Joining by an AWS identity: the auth service gives a challenge, the process signs it with its AWS credentials, and
//! the auth service asks AWS who signed.
//!
//! Not here: signing, which needs AWS credentials ([`ProveCaller`] is implemented where both are known).

use std::{fmt, pin::Pin, sync::Arc};

use tidegate_proto::v1::{
    self, join_by_iam_request, join_by_iam_response, join_service_client::JoinServiceClient,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

use super::{Failure, classify};
use crate::telemetry::chain;

/// Both messages of a join.
const STEPS_MAX: usize = 2;

/// Why a process could not sign as its AWS identity.
#[derive(Debug, thiserror::Error)]
#[error("could not sign with this process's AWS credentials")]
pub struct ProveError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// What becomes of a challenge.
pub type Proving<'p> =
    Pin<Box<dyn Future<Output = Result<v1::SignedRequest, ProveError>> + Send + 'p>>;

/// Signs `sts:GetCallerIdentity` as this process's AWS identity, with a challenge among the signed headers. The request is
/// not sent: whoever has it can find out who we are, once, and nothing else.
pub trait ProveCaller: fmt::Debug + Send + Sync {
    /// Signs a challenge.
    fn prove<'p>(&'p self, challenge: &'p str) -> Proving<'p>;
}

/// The way to join.
#[derive(Clone, Debug)]
pub(super) struct Iam {
    pub(super) client: JoinServiceClient<Channel>,
    pub(super) prover: Arc<dyn ProveCaller>,
}

impl Iam {
    /// Asks once.
    pub(super) async fn join(&self, request: v1::JoinRequest) -> Result<v1::JoinResponse, Failure> {
        let refused = |status: tonic::Status| classify(&status);
        let (steps, messages) = mpsc::channel(STEPS_MAX);
        say(&steps, join_by_iam_request::Step::Join(request)).await?;
        let mut client = self.client.clone();
        let answers = client.join_by_iam(ReceiverStream::new(messages)).await;
        let mut answers = answers.map_err(refused)?.into_inner();
        let challenge = match next(&mut answers).await? {
            join_by_iam_response::Step::Challenge(challenge) => challenge,
            join_by_iam_response::Step::Joined(joined) => return Ok(joined),
        };
        let proof = self.prover.prove(&challenge).await;
        // Credentials may come later: those of an instance, or of a file that is being written.
        let proof = proof.map_err(|error| Failure::Unavailable(chain(&error)))?;
        say(&steps, join_by_iam_request::Step::Proof(proof)).await?;
        match next(&mut answers).await? {
            join_by_iam_response::Step::Joined(joined) => Ok(joined),
            join_by_iam_response::Step::Challenge(_) => Err(odd("it gave two challenges")),
        }
    }
}

fn odd(what: &str) -> Failure {
    Failure::Refused(format!("the auth service's answer cannot be used: {what}"))
}

async fn say(
    steps: &mpsc::Sender<v1::JoinByIamRequest>,
    step: join_by_iam_request::Step,
) -> Result<(), Failure> {
    let step = v1::JoinByIamRequest { step: Some(step) };
    let sent = steps.send(step).await;
    sent.map_err(|_| Failure::Unavailable("the auth service closed the stream".to_owned()))
}

async fn next(
    answers: &mut Streaming<v1::JoinByIamResponse>,
) -> Result<join_by_iam_response::Step, Failure> {
    match answers.message().await {
        Ok(Some(answer)) => answer.step.ok_or_else(|| odd("it is empty")),
        Ok(None) => Err(Failure::Unavailable(
            "the auth service ended the stream without an answer".to_owned(),
        )),
        Err(status) => Err(classify(&status)),
    }
}
