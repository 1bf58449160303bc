//! Credentials of instances, containers, pods and service accounts, and the CA bundles: asked for by the SDK where it can be
//! told where to ask, else by hand.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::{BehaviorVersion, Region, imds};
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_sdk_sts::error::ProvideErrorMetadata;
use awssim::{
    CredentialSource, Fault, FaultKind, IdentityPolicy, Machine, OidcProvider, Role, TrustPolicy,
    World,
};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{EAST, Fixture, HOME, world};

const ISSUER: &str = "oidc.eks.us-east-1.amazonaws.com/id/A1B2";
const SUBJECT: &str = "system:serviceaccount:data:agent";
const INSTANCE: CredentialSource = CredentialSource::Instance {
    beyond_hop_limit: false,
};

fn role_arn(name: &str) -> String {
    format!("arn:aws:iam::{HOME}:role/{name}")
}

/// One machine of each sort, each with a role that trusts it, and a role that both may go on to.
fn machines() -> World {
    let mut world = world();
    let account = world.account(HOME);
    let go_on = || vec![IdentityPolicy::allow(["sts:*"], ["*"])];
    let sources = [
        (
            "instance",
            TrustPolicy::allow_service("ec2.amazonaws.com"),
            INSTANCE,
        ),
        (
            "task",
            TrustPolicy::allow_service("ecs-tasks.amazonaws.com"),
            CredentialSource::EcsTask {},
        ),
        (
            "pod",
            TrustPolicy::allow_service("pods.eks.amazonaws.com"),
            CredentialSource::EksPod {
                tags: [("kubernetes-namespace".to_owned(), "data".to_owned())].into(),
            },
        ),
        (
            "irsa",
            TrustPolicy::allow_web_identity(HOME, ISSUER, SUBJECT),
            CredentialSource::ServiceAccount {
                issuer: ISSUER.to_owned(),
                subject: SUBJECT.to_owned(),
            },
        ),
    ];
    let provider = OidcProvider {
        audiences: ["sts.amazonaws.com".to_owned()].into(),
    };
    account.oidc_providers.insert(ISSUER.to_owned(), provider);
    for (name, trust, _) in &sources {
        account.put_role(name, Role::new(trust.clone(), go_on()));
    }
    let no_tags = TrustPolicy::allow_actions([HOME], ["sts:AssumeRole"]);
    account.put_role("no-tags", Role::new(no_tags, vec![]));
    account.put_role("next", Role::new(TrustPolicy::allow([HOME]), vec![]));
    for (name, _, source) in sources {
        let machine = Machine::new(&role_arn(name), source);
        world.machines.insert(name.to_owned(), machine);
    }
    world
}

/// A request by hand: its status, headers and body.
async fn request(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
) -> (u16, BTreeMap<String, String>, String) {
    request_with(method, url, headers, "").await
}

/// As [`request`], with a body.
pub(crate) async fn request_with(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, BTreeMap<String, String>, String) {
    let (authority, path) = url.trim_start_matches("http://").split_once('/').unwrap();
    let mut stream = TcpStream::connect(authority).await.unwrap();
    let mut text =
        format!("{method} /{path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("content-length: {}\r\n", body.len()));
    stream
        .write_all(format!("{text}\r\n{body}").as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let status = lines
        .next()
        .unwrap()
        .split(' ')
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    let pairs = lines.filter_map(|line| line.split_once(": "));
    let headers = pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    (status, headers, body.to_owned())
}

fn imds(endpoint: &str) -> imds::Client {
    let client = imds::Client::builder().endpoint(endpoint).unwrap();
    let client = client
        .max_attempts(1)
        .read_timeout(Duration::from_millis(500));
    client.build()
}

/// With retries: the SDK makes up for a clock that was moved.
async fn who(fixture: &Fixture, credentials: Credentials) -> Result<String, String> {
    let config = aws_sdk_sts::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(fixture.sim.endpoint_url())
        .region(Region::new(EAST))
        .credentials_provider(credentials)
        .build();
    let client = aws_sdk_sts::Client::from_conf(config);
    let answer = client.get_caller_identity().send().await;
    let answer = answer.map_err(|error| error.into_service_error().code().unwrap().to_owned())?;
    Ok(answer.arn.unwrap())
}

#[tokio::test]
async fn an_instance_hands_out_sessions_that_end_and_are_renewed() {
    let fixture = Fixture::api(machines()).await;
    let endpoint =
        &fixture.sim.environment_of("instance").unwrap()["AWS_EC2_METADATA_SERVICE_ENDPOINT"];
    let provider = || {
        ImdsCredentialsProvider::builder()
            .imds_client(imds(endpoint))
            .build()
    };
    let first = provider().provide_credentials().await.unwrap();
    let arn = who(&fixture, first.clone()).await.unwrap();
    assert!(arn.contains("assumed-role/instance/i-"), "{arn}");
    let again = provider().provide_credentials().await.unwrap();
    assert_eq!(first.access_key_id(), again.access_key_id());

    fixture.sim.advance_clock(21_600 - 299);
    who(&fixture, first.clone()).await.unwrap();
    let renewed = provider().provide_credentials().await.unwrap();
    assert_ne!(first.access_key_id(), renewed.access_key_id());
    fixture.sim.advance_clock(300);
    assert_eq!(who(&fixture, first).await, Err("ExpiredToken".to_owned()));
    who(&fixture, renewed).await.unwrap();
    assert_eq!(
        imds(endpoint)
            .get("/latest/meta-data/placement/region")
            .await
            .unwrap()
            .as_ref(),
        "us-east-1"
    );
}

#[tokio::test]
async fn nothing_is_told_without_a_token_or_from_beyond_the_hop_limit() {
    let fixture = Fixture::api(machines()).await;
    let sim = &fixture.sim;
    let endpoint =
        sim.environment_of("instance").unwrap()["AWS_EC2_METADATA_SERVICE_ENDPOINT"].clone();
    let (token_url, data_url) = (
        format!("{endpoint}/latest/api/token"),
        format!("{endpoint}/latest/meta-data/instance-id"),
    );
    assert_eq!(request("GET", &data_url, &[]).await.0, 401);
    assert_eq!(request("PUT", &token_url, &[]).await.0, 400);
    let ttl = ("x-aws-ec2-metadata-token-ttl-seconds", "60");
    assert_eq!(
        request("PUT", &token_url, &[ttl, ("x-forwarded-for", "1.2.3.4")])
            .await
            .0,
        403
    );
    let (status, headers, token) = request("PUT", &token_url, &[ttl]).await;
    assert_eq!((status, headers[ttl.0].as_str()), (200, "60"));
    let with = [("x-aws-ec2-metadata-token", token.as_str())];
    assert_eq!(request("GET", &data_url, &with).await.0, 200);
    sim.advance_clock(61);
    assert_eq!(request("GET", &data_url, &with).await.0, 401);

    let beyond = CredentialSource::Instance {
        beyond_hop_limit: true,
    };
    sim.put_machine("instance", Machine::new(&role_arn("instance"), beyond))
        .unwrap();
    let failed = imds(&endpoint)
        .get("/latest/meta-data/instance-id")
        .await
        .unwrap_err();
    assert!(format!("{failed:?}").contains("imeout"), "{failed:?}");
    sim.put_machine("instance", Machine::new(&role_arn("task"), INSTANCE))
        .unwrap();
    let provider = ImdsCredentialsProvider::builder()
        .imds_client(imds(&endpoint))
        .build();
    let refused = provider.provide_credentials().await.unwrap_err();
    assert!(
        format!("{refused:?}").contains("EC2 cannot assume the role"),
        "{refused:?}"
    );
    let calls = sim.calls();
    assert!(calls.iter().any(|call| call.service == "metadata"
        && call.action == "PUT /latest/api/token"
        && call.status == 0));
}

async fn container(fixture: &Fixture, machine: &str, token: &str) -> (u16, Value) {
    let environment = fixture.sim.environment_of(machine).unwrap();
    let url = &environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"];
    let (status, _, body) = request("GET", url, &[("authorization", token)]).await;
    (status, serde_json::from_str(&body).unwrap())
}

fn credentials(json: &Value) -> Credentials {
    let text = |name: &str| json[name].as_str().unwrap().to_owned();
    let token = Some(text("Token"));
    Credentials::new(
        text("AccessKeyId"),
        text("SecretAccessKey"),
        token,
        None,
        "it",
    )
}

#[tokio::test]
async fn tasks_and_pods_ask_with_their_token_and_a_pods_tags_go_along() {
    let fixture = Fixture::api(machines()).await;
    let sim = &fixture.sim;
    let token = sim.environment_of("task").unwrap()["AWS_CONTAINER_AUTHORIZATION_TOKEN"].clone();
    assert_eq!(container(&fixture, "task", "wrong").await.0, 401);
    let task = container(&fixture, "task", &token).await.1;
    let arn = who(&fixture, credentials(&task)).await.unwrap();
    assert!(arn.contains("assumed-role/task/"), "{arn}");

    let file = sim.environment_of("pod").unwrap()["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"].clone();
    let token = std::fs::read_to_string(file).unwrap();
    let pod = credentials(&container(&fixture, "pod", &token).await.1);
    let assume = async |role: &str| {
        let request = fixture
            .sts(pod.clone())
            .assume_role()
            .role_arn(role_arn(role));
        request.role_session_name("it").send().await
    };
    // Transitive tags have to be allowed by every role further on.
    assume("next").await.unwrap();
    let refused = assume("no-tags").await.unwrap_err().into_service_error();
    let message = refused.message().unwrap();
    assert!(
        message.contains("not authorized to perform: sts:TagSession"),
        "{message}"
    );
    assert!(message.contains("because no resource-based policy allows the sts:TagSession action"));

    sim.fault(
        Fault::new(FaultKind::InternalFailure)
            .on("container", "GET /credentials")
            .times(1),
    )
    .unwrap();
    let environment = sim.environment_of("pod").unwrap();
    let url = &environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"];
    assert_eq!(
        request("GET", url, &[("authorization", &token)]).await.0,
        500
    );
}

#[tokio::test]
async fn a_web_identity_is_held_to_its_provider_audience_subject_and_end() {
    let fixture = Fixture::api(machines()).await;
    let sim = &fixture.sim;
    let environment = sim.environment_of("irsa").unwrap();
    assert_eq!(environment["AWS_ROLE_ARN"], role_arn("irsa"));
    let token = std::fs::read_to_string(&environment["AWS_WEB_IDENTITY_TOKEN_FILE"]).unwrap();
    let assume = async |role: &str, token: &str| {
        let nobody = Credentials::new("unused", "unused", None, None, "it");
        let request = fixture.sts(nobody).assume_role_with_web_identity();
        let request = request.role_arn(role_arn(role)).role_session_name("agent");
        let answer = request.web_identity_token(token).send().await;
        let answer = answer.map_err(|error| error.into_service_error());
        answer.map_err(|error| {
            (
                error.code().unwrap().to_owned(),
                error.message().unwrap().to_owned(),
            )
        })
    };
    let given = assume("irsa", &token).await.unwrap();
    assert_eq!(given.subject_from_web_identity_token(), Some(SUBJECT));
    let given = given.credentials.unwrap();
    let session = Credentials::new(
        given.access_key_id,
        given.secret_access_key,
        Some(given.session_token),
        None,
        "it",
    );
    assert!(
        who(&fixture, session)
            .await
            .unwrap()
            .ends_with("assumed-role/irsa/agent")
    );

    let (code, message) = assume("next", &token).await.unwrap_err();
    assert_eq!(
        (code.as_str(), message.as_str()),
        (
            "AccessDenied",
            "Not authorized to perform sts:AssumeRoleWithWebIdentity"
        )
    );
    let (code, _) = assume("irsa", "no token").await.unwrap_err();
    assert_eq!(code, "InvalidIdentityToken");
    let other = CredentialSource::ServiceAccount {
        issuer: "other.example.com".to_owned(),
        subject: SUBJECT.to_owned(),
    };
    sim.put_machine("other", Machine::new(&role_arn("irsa"), other))
        .unwrap();
    let file = &sim.environment_of("other").unwrap()["AWS_WEB_IDENTITY_TOKEN_FILE"];
    let (_, message) = assume("irsa", &std::fs::read_to_string(file).unwrap())
        .await
        .unwrap_err();
    assert!(
        message.contains(
            "No OpenIDConnect provider found in your account for https://other.example.com"
        ),
        "{message}"
    );
    sim.advance_clock(86_401);
    assert_eq!(
        assume("irsa", &token).await.unwrap_err().0,
        "ExpiredTokenException"
    );
    let file = &sim.environment_of("irsa").unwrap()["AWS_WEB_IDENTITY_TOKEN_FILE"];
    assume("irsa", &std::fs::read_to_string(file).unwrap())
        .await
        .unwrap();
}

#[tokio::test]
async fn ca_bundles_are_published_by_region_and_can_be_slow_blocked_or_garbage() {
    let fixture = Fixture::api(machines()).await;
    let sim = &fixture.sim;
    let url = format!("{}/us-east-1/us-east-1-bundle.pem", sim.trust_url());
    let (status, headers, pem) = request("GET", &url, &[]).await;
    assert_eq!(
        (status, pem),
        (200, std::fs::read_to_string(sim.ca_pem_path()).unwrap())
    );
    let known = [("if-none-match", headers["etag"].as_str())];
    assert_eq!(request("GET", &url, &known).await.0, 304);
    for (path, status) in [
        ("global/global-bundle.pem", 200),
        ("aws/amazon-trust-ca-bundle.crt", 200),
        ("mars-north-1/mars-north-1-bundle.pem", 403),
        ("us-east-1/other.pem", 403),
    ] {
        let url = format!("{}/{path}", sim.trust_url());
        assert_eq!(request("GET", &url, &[]).await.0, status, "{path}");
    }
    let garbage = FaultKind::Body {
        text: "<html>".to_owned(),
    };
    sim.fault(Fault::new(garbage).in_region("us-east-1"))
        .unwrap();
    assert_eq!(request("GET", &url, &[]).await.2, "<html>");
    let west = format!("{}/us-west-2/us-west-2-bundle.pem", sim.trust_url());
    assert!(
        request("GET", &west, &[])
            .await
            .2
            .starts_with("-----BEGIN CERTIFICATE")
    );
}
