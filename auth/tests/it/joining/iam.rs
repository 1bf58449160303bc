//! Joining by an AWS identity, with an STS that says what the test wants.

use std::time::Duration;

use tidegate_identity::KeyPair;
use tidegate_proto::v1::{self, join_by_iam_request::Step, join_by_iam_response};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

use super::{
    services_of,
    sts::{Answer, FakeSts, error, identity},
};
use crate::house::{House, Identity, Options};

const NAME: &str = "agents";
const ACCOUNT: &str = "111122223333";
const ARN: &str = "arn:aws:sts::111122223333:assumed-role/agents/i-0a";
const BODY: &str = "Action=GetCallerIdentity&Version=2011-06-15";

pub(super) fn iam_token(allow: &[(&str, &str)]) -> v1::Token {
    v1::Token {
        types: vec!["db".to_owned()],
        join_method: "iam".to_owned(),
        allow: allow
            .iter()
            .map(|(account, arn)| v1::TokenAllow {
                aws_account: (*account).to_owned(),
                aws_arn: (*arn).to_owned(),
            })
            .collect(),
        ..v1::Token::default()
    }
}

struct World {
    house: House,
    sts: FakeSts,
}

impl World {
    /// A control plane with a token for one role.
    async fn new() -> Self {
        let sts = FakeSts::start().await;
        let options = Options {
            sts_endpoint: Some(sts.endpoint()),
            ..Options::default()
        };
        let house = House::with_options(options).await;
        let request = v1::UpsertTokenRequest {
            token: Some(iam_token(&[(
                "",
                "arn:aws:sts::111122223333:assumed-role/agents/*",
            )])),
            name: NAME.to_owned(),
            replace: false,
        };
        house.admin().joining().upsert_token(request).await.unwrap();
        Self { house, sts }
    }

    /// Someone who has opened a stream and said who joins.
    async fn open(&self, request: v1::JoinRequest) -> Result<Talk, Status> {
        let (steps, messages) = mpsc::channel(2);
        let mut joining = self.house.stranger().joining();
        let answers = joining.join_by_iam(ReceiverStream::new(messages)).await?;
        let mut talk = Talk {
            steps,
            answers: answers.into_inner(),
        };
        talk.say(Step::Join(request)).await;
        Ok(talk)
    }

    fn signed(&self, challenge: &str) -> v1::SignedRequest {
        let date = self.house.clock.now_text();
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/{}/us-east-1/sts/aws4_request, \
             SignedHeaders=accept;content-type;host;x-amz-date;x-tidegate-challenge, Signature={}",
            &date[..8],
            "a".repeat(64)
        );
        let headers = [
            ("accept", "application/json"),
            (
                "content-type",
                "application/x-www-form-urlencoded; charset=utf-8",
            ),
            ("host", "sts.us-east-1.amazonaws.com"),
            ("x-amz-date", &date),
            ("x-tidegate-challenge", challenge),
            ("authorization", &authorization),
        ];
        v1::SignedRequest {
            method: "POST".to_owned(),
            path: "/".to_owned(),
            headers: headers
                .iter()
                .map(|(name, value)| v1::HttpHeader {
                    name: (*name).to_owned(),
                    value: (*value).to_owned(),
                })
                .collect(),
            body: BODY.as_bytes().to_vec(),
        }
    }

    /// Joins as whom AWS names.
    async fn join_as(&self, arn: &str, host_id: &str) -> Result<Identity, Status> {
        self.sts.answer(identity(ACCOUNT, arn));
        self.join(host_id).await
    }

    async fn join(&self, host_id: &str) -> Result<Identity, Status> {
        let key = KeyPair::generate().unwrap();
        let mut talk = self.open(request(&key, host_id)).await?;
        let challenge = talk.challenge().await?;
        talk.say(Step::Proof(self.signed(&challenge))).await;
        let joined = talk.joined().await?;
        Ok(Identity {
            key,
            chain_pem: joined.certificate.unwrap().certificate_pem,
            host_id: joined.host_id,
        })
    }
}

fn request(key: &KeyPair, host_id: &str) -> v1::JoinRequest {
    v1::JoinRequest {
        token: NAME.to_owned(),
        public_key: key.public_key_der(),
        hostname: "node".to_owned(),
        services: vec!["db".to_owned()],
        names: Vec::new(),
        host_id: host_id.to_owned(),
    }
}

struct Talk {
    steps: mpsc::Sender<v1::JoinByIamRequest>,
    answers: Streaming<v1::JoinByIamResponse>,
}

impl Talk {
    async fn say(&mut self, step: Step) {
        let message = v1::JoinByIamRequest { step: Some(step) };
        self.steps.send(message).await.unwrap();
    }

    async fn next(&mut self) -> Result<join_by_iam_response::Step, Status> {
        Ok(self.answers.message().await?.unwrap().step.unwrap())
    }

    async fn challenge(&mut self) -> Result<String, Status> {
        match self.next().await? {
            join_by_iam_response::Step::Challenge(challenge) => Ok(challenge),
            join_by_iam_response::Step::Joined(_) => panic!("joined without a challenge"),
        }
    }

    async fn joined(&mut self) -> Result<v1::JoinResponse, Status> {
        match self.next().await? {
            join_by_iam_response::Step::Joined(joined) => Ok(joined),
            join_by_iam_response::Step::Challenge(_) => panic!("another challenge"),
        }
    }
}

#[track_caller]
fn told<T>(outcome: Result<T, Status>) -> (Code, String, String) {
    let status = outcome.err().unwrap();
    let reason = status.get_details_error_info().map(|info| info.reason);
    (
        status.code(),
        reason.unwrap_or_default(),
        status.message().to_owned(),
    )
}

#[tokio::test]
async fn an_aws_identity_that_the_token_allows_joins() {
    let world = World::new().await;
    let host = world.join_as(ARN, "").await.unwrap();
    assert_eq!(services_of(&host.chain_pem), ["db"]);

    let asked = world.sts.requests().remove(0);
    assert!(asked.starts_with("POST / HTTP/1.1\r\n"), "{asked}");
    assert!(
        asked.contains("host: sts.us-east-1.amazonaws.com\r\n") && asked.ends_with(BODY),
        "{asked}"
    );

    let event = super::told(&world.house, "instance.join", 1)
        .await
        .remove(0);
    assert_eq!(
        (event.code.as_str(), &event.fields["host_id"]),
        ("TJ002I", &host.host_id)
    );
    for (key, value) in [
        ("method", "iam"),
        ("token_name", NAME),
        ("aws.account", ACCOUNT),
        ("aws.arn", ARN),
    ] {
        assert_eq!(event.fields[key], value);
    }
    let tokens = world
        .house
        .admin()
        .access()
        .list_tokens(v1::ListTokensRequest {})
        .await
        .unwrap()
        .into_inner()
        .tokens;
    let token = tokens.iter().find(|token| token.id == NAME).unwrap();
    assert_eq!(token.uses, 1);
}

#[tokio::test]
async fn another_account_and_another_role_are_refused_and_told_apart() {
    let world = World::new().await;
    let other = "arn:aws:sts::444455556666:assumed-role/agents/i-0a";
    world.sts.answer(identity("444455556666", other));
    let (code, reason, message) = told(world.join("").await);
    assert_eq!(
        (code, reason.as_str()),
        (Code::PermissionDenied, "ACCOUNT_NOT_ALLOWED")
    );
    assert!(message.contains("444455556666"), "{message}");
    let role = "arn:aws:sts::111122223333:assumed-role/others/i-0a";
    let (code, reason, message) = told(world.join_as(role, "").await);
    assert_eq!(
        (code, reason.as_str()),
        (Code::PermissionDenied, "ARN_NOT_ALLOWED")
    );
    assert!(message.contains(role), "{message}");
    let events = super::told(&world.house, "instance.join", 2).await;
    assert!(
        events
            .iter()
            .all(|event| event.code == "TJ002E" && event.fields.contains_key("aws.arn")),
        "{events:?}"
    );
}

#[tokio::test]
async fn an_answer_to_another_challenge_never_reaches_aws() {
    let world = World::new().await;
    let key = KeyPair::generate().unwrap();
    let mut first = world.open(request(&key, "")).await.unwrap();
    let challenge = first.challenge().await.unwrap();
    let mut second = world.open(request(&key, "")).await.unwrap();
    assert_ne!(second.challenge().await.unwrap(), challenge);
    second.say(Step::Proof(world.signed(&challenge))).await;
    let (code, reason, _) = told(second.joined().await);
    assert_eq!(
        (code, reason.as_str()),
        (Code::InvalidArgument, "CHALLENGE_MISMATCH")
    );

    let mut signed = world.signed(&challenge);
    signed.body = b"Action=AssumeRole&Version=2011-06-15".to_vec();
    first.say(Step::Proof(signed)).await;
    let (_, reason, _) = told(first.joined().await);
    assert_eq!(reason, "NOT_GET_CALLER_IDENTITY");
    assert!(first.answers.message().await.unwrap().is_none());
    assert!(world.sts.requests().is_empty());
}

#[tokio::test]
async fn a_challenge_that_nobody_answers_is_told() {
    let world = World::new().await;
    let key = KeyPair::generate().unwrap();
    let mut talk = world.open(request(&key, "")).await.unwrap();
    talk.challenge().await.unwrap();
    let Talk { steps, mut answers } = talk;
    drop(steps);
    let (code, reason, _) = told(answers.message().await);
    assert_eq!(
        (code, reason.as_str()),
        (Code::DeadlineExceeded, "CHALLENGE_EXPIRED")
    );
}

#[tokio::test]
async fn a_refusal_of_aws_is_told_from_an_outage() {
    let world = World::new().await;
    for (answer, code, reason, says) in [
        (
            error(403, "ExpiredToken"),
            Code::Unauthenticated,
            "AWS_REFUSED",
            "ExpiredToken",
        ),
        (
            error(403, "SignatureDoesNotMatch"),
            Code::Unauthenticated,
            "AWS_REFUSED",
            "clock",
        ),
        (
            error(400, "Throttling"),
            Code::Unavailable,
            "STS_UNAVAILABLE",
            "try again",
        ),
        (
            error(500, "InternalFailure"),
            Code::Unavailable,
            "STS_UNAVAILABLE",
            "try again",
        ),
        (
            Answer::Reply(200, "<xml/>".to_owned()),
            Code::Unavailable,
            "STS_UNAVAILABLE",
            "try again",
        ),
        (
            Answer::Reply(200, "x".repeat(1 << 20)),
            Code::Unavailable,
            "STS_UNAVAILABLE",
            "try again",
        ),
        (
            Answer::HangUp,
            Code::Unavailable,
            "STS_UNAVAILABLE",
            "try again",
        ),
    ] {
        world.sts.answer(answer);
        let (told_code, told_reason, message) = told(world.join("").await);
        assert_eq!(
            (told_code, told_reason.as_str()),
            (code, reason),
            "{message}"
        );
        assert!(message.contains(says), "{message}");
        assert!(
            !message.contains("words") && !message.contains("127.0.0.1"),
            "{message}"
        );
    }
    let events = super::told(&world.house, "instance.join", 7).await;
    let mut details = events.iter().filter_map(|event| event.fields.get("detail"));
    assert!(
        details.any(|detail| detail == "in AWS's words"),
        "{events:?}"
    );
}

#[tokio::test]
async fn a_host_keeps_its_id_for_its_own_aws_identity_alone() {
    let world = World::new().await;
    let first = world.join_as(ARN, "").await.unwrap();
    let later = world.join_as(ARN, &first.host_id).await.unwrap();
    assert_eq!(later.host_id, first.host_id);

    let other = format!("{ARN}b");
    let thief = world.join_as(&other, &first.host_id).await.unwrap();
    assert_ne!(thief.host_id, first.host_id);
    let token = world.house.join_token(&["db"]).await;
    let by_secret = world.house.join(&token, &["db"], &first.host_id).await;
    assert_ne!(by_secret.unwrap().host_id, first.host_id);
    let stranger = world.join_as(ARN, "made-up").await.unwrap();
    assert_ne!(stranger.host_id, "made-up");
}

#[tokio::test]
async fn a_token_is_joined_with_by_its_own_method() {
    let world = World::new().await;
    let by_secret = world.house.join(NAME, &["db"], "").await;
    let (code, reason, message) = told(by_secret);
    assert_eq!(
        (code, reason.as_str()),
        (Code::FailedPrecondition, "JOIN_METHOD")
    );
    assert!(message.contains("`join_params.method: iam`"), "{message}");

    let key = KeyPair::generate().unwrap();
    let secret = v1::JoinRequest {
        token: world.house.join_token(&["db"]).await,
        ..request(&key, "")
    };
    let mut talk = world.open(secret).await.unwrap();
    assert_eq!(told(talk.challenge().await).1, "JOIN_METHOD");
    let unknown = v1::JoinRequest {
        token: "nothing".to_owned(),
        ..request(&key, "")
    };
    let mut talk = world.open(unknown).await.unwrap();
    assert_eq!(told(talk.challenge().await).0, Code::Unauthenticated);
    let more = v1::JoinRequest {
        services: vec!["proxy".to_owned()],
        ..request(&key, "")
    };
    let mut talk = world.open(more).await.unwrap();
    assert_eq!(told(talk.challenge().await).1, "SERVICE_NOT_ALLOWED");
}

#[tokio::test]
async fn a_token_that_is_removed_between_challenge_and_answer_lets_nobody_in() {
    let world = World::new().await;
    let key = KeyPair::generate().unwrap();
    let mut talk = world.open(request(&key, "")).await.unwrap();
    let challenge = talk.challenge().await.unwrap();
    let request = v1::DeleteTokenRequest {
        token: NAME.to_owned(),
    };
    let mut access = world.house.admin().access();
    access.delete_token(request).await.unwrap();
    world.sts.answer(identity(ACCOUNT, ARN));
    talk.say(Step::Proof(world.signed(&challenge))).await;
    assert_eq!(told(talk.joined().await).0, Code::Unauthenticated);
}

#[tokio::test]
async fn messages_out_of_order_empty_or_too_large_are_refused() {
    let world = World::new().await;
    let key = KeyPair::generate().unwrap();
    let open = async |message: v1::JoinByIamRequest| {
        let (steps, messages) = mpsc::channel(2);
        steps.send(message).await.unwrap();
        let mut joining = world.house.stranger().joining();
        let answers = joining.join_by_iam(ReceiverStream::new(messages)).await;
        told(answers.unwrap().into_inner().message().await).0
    };
    let proof = Step::Proof(v1::SignedRequest::default());
    let first = v1::JoinByIamRequest { step: Some(proof) };
    assert_eq!(open(first).await, Code::InvalidArgument);
    let empty = v1::JoinByIamRequest { step: None };
    assert_eq!(open(empty).await, Code::InvalidArgument);
    let large = v1::JoinRequest {
        hostname: "x".repeat(1 << 20),
        ..request(&key, "")
    };
    let large = v1::JoinByIamRequest {
        step: Some(Step::Join(large)),
    };
    assert_eq!(open(large).await, Code::OutOfRange);

    let mut talk = world.open(request(&key, "")).await.unwrap();
    talk.challenge().await.unwrap();
    talk.say(Step::Join(request(&key, ""))).await;
    assert_eq!(told(talk.joined().await).0, Code::InvalidArgument);
}

#[tokio::test]
async fn a_clock_that_is_wrong_is_told_with_both_times() {
    let world = World::new().await;
    let key = KeyPair::generate().unwrap();
    let mut talk = world.open(request(&key, "")).await.unwrap();
    let challenge = talk.challenge().await.unwrap();
    let early = world.signed(&challenge);
    world.house.clock.advance(Duration::from_secs(301));
    talk.say(Step::Proof(early)).await;
    let (code, reason, message) = told(talk.joined().await);
    assert_eq!(
        (code, reason.as_str()),
        (Code::FailedPrecondition, "CLOCK_SKEW")
    );
    assert!(message.contains("set the clock"), "{message}");
}

/// The house's time as a signature has it.
trait NowText {
    fn now_text(&self) -> String;
}

impl NowText for tidegate_service::clock::ManualClock {
    fn now_text(&self) -> String {
        use tidegate_service::clock::Clock as _;
        self.now().strftime("%Y%m%dT%H%M%SZ").to_string()
    }
}
