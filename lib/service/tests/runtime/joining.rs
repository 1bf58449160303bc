//! Joining by an AWS identity, as the process does it.

use std::{
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::{Stream, StreamExt as _};
use tidegate_proto::v1::{
    self, join_by_iam_request, join_by_iam_response,
    join_service_server::{JoinService, JoinServiceServer},
};
use tidegate_service::{
    clock::SystemClock,
    host::{HostConfig, HostError, HostHandle, ProveCaller, ProveError, Proving},
    settings::{JoinMethod, JoinSettings},
    tasks::Tasks,
};
use tokio::time::timeout;
use tonic::{Request, Response, Status, Streaming};

use crate::cluster::{Cluster, PATIENCE, TOKEN};

const CHALLENGE: &str = "c2VudA";

/// A control plane that takes the challenge itself for a proof.
pub(crate) struct FakeJoins(pub(crate) Arc<Cluster>);

#[tonic::async_trait]
impl JoinService for FakeJoins {
    type JoinByIamStream =
        Pin<Box<dyn Stream<Item = Result<v1::JoinByIamResponse, Status>> + Send>>;

    async fn join_by_iam(
        &self,
        request: Request<Streaming<v1::JoinByIamRequest>>,
    ) -> Result<Response<Self::JoinByIamStream>, Status> {
        let cluster = Arc::clone(&self.0);
        let mut who = None;
        let answers = request.into_inner().map(move |message| {
            let step = match message?.step.unwrap() {
                join_by_iam_request::Step::Join(request) => {
                    who = Some(request);
                    join_by_iam_response::Step::Challenge(CHALLENGE.to_owned())
                }
                join_by_iam_request::Step::Proof(proof) if proof.path == CHALLENGE => {
                    let joined = cluster.let_in(who.take().unwrap());
                    join_by_iam_response::Step::Joined(joined)
                }
                join_by_iam_request::Step::Proof(_) => {
                    return Err(Status::permission_denied("another challenge"));
                }
            };
            Ok(v1::JoinByIamResponse { step: Some(step) })
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn upsert_token(
        &self,
        _: Request<v1::UpsertTokenRequest>,
    ) -> Result<Response<v1::Token>, Status> {
        Err(Status::unimplemented("not part of these tests"))
    }
}

/// For the routes of a control plane.
pub(crate) fn service(cluster: &Arc<Cluster>) -> JoinServiceServer<FakeJoins> {
    JoinServiceServer::new(FakeJoins(Arc::clone(cluster)))
}

/// Finds its credentials at the second look.
#[derive(Debug, Default)]
struct LateCredentials {
    looks: AtomicUsize,
    says: Option<&'static str>,
}

impl ProveCaller for LateCredentials {
    fn prove<'p>(&'p self, challenge: &'p str) -> Proving<'p> {
        Box::pin(async move {
            if self.looks.fetch_add(1, Ordering::SeqCst) == 0 {
                return Err(ProveError("no credentials yet".into()));
            }
            Ok(v1::SignedRequest {
                path: self.says.unwrap_or(challenge).to_owned(),
                ..v1::SignedRequest::default()
            })
        })
    }
}

async fn join(
    dir: &Path,
    address: String,
    cluster: &Cluster,
    prover: Option<Arc<dyn ProveCaller>>,
    tasks: &Tasks,
) -> Result<HostHandle, HostError> {
    let config = HostConfig {
        data_dir: dir.join("state"),
        nodename: "node".to_owned(),
        services: vec!["db".to_owned()],
        names: Vec::new(),
        auth_servers: vec![address],
        proxy_server: None,
        join: JoinSettings {
            method: JoinMethod::Iam,
            token: Some(TOKEN.into()),
            ca_pins: vec![cluster.host_ca.pin()],
        },
        prover,
    };
    let joined = HostHandle::join_or_load(config, Arc::new(SystemClock), tasks);
    timeout(PATIENCE, joined).await.unwrap()
}

#[tokio::test]
async fn a_process_signs_the_challenge_once_it_has_credentials() {
    let (cluster, dir, tasks) = (Cluster::new(), tempfile::tempdir().unwrap(), Tasks::new());
    let server = cluster.start().await;
    let prover = Arc::new(LateCredentials::default());

    let address = server.address.to_string();
    let joined = join(dir.path(), address, &cluster, Some(prover.clone()), &tasks).await;

    assert_eq!(joined.unwrap().host_id().as_str(), "host-1");
    assert_eq!(prover.looks.load(Ordering::SeqCst), 2);
    assert!(tasks.close_and_wait(PATIENCE).await);
    server.stop().await;
}

#[tokio::test]
async fn a_proof_that_is_refused_is_not_tried_again() {
    let (cluster, dir, tasks) = (Cluster::new(), tempfile::tempdir().unwrap(), Tasks::new());
    let server = cluster.start().await;
    let prover = LateCredentials {
        looks: AtomicUsize::new(1),
        says: Some("something else"),
    };

    let address = server.address.to_string();
    let refused = join(
        dir.path(),
        address,
        &cluster,
        Some(Arc::new(prover)),
        &tasks,
    )
    .await;

    let refused = refused.unwrap_err();
    assert!(
        matches!(&refused, HostError::Refused { message } if message.contains("another challenge")),
        "{refused}"
    );
    assert!(tasks.close_and_wait(PATIENCE).await);
    server.stop().await;
}

#[tokio::test]
async fn a_program_without_aws_says_that_it_cannot_join_so() {
    let (cluster, dir, tasks) = (Cluster::new(), tempfile::tempdir().unwrap(), Tasks::new());
    let refused = join(dir.path(), "127.0.0.1:1".to_owned(), &cluster, None, &tasks).await;
    assert!(matches!(refused, Err(HostError::NoProver)));
}
