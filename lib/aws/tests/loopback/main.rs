//! The SDK against an AWS of a few lines on the loopback: what is sent, and what failures become.

mod lapses;
mod minting;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_config::{BehaviorVersion, ConfigLoader};
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, error::CredentialsError, future},
};
use axum::http::{HeaderMap, StatusCode};
use secrecy::ExposeSecret;
use tidegate_aws::{
    AwsErrorClass, AwsFactory, AwsFailure, DbCredentials, Limits, RoleChain, SessionTag,
    redshift_cluster_credentials, redshift_cluster_credentials_with_iam,
};
use tidegate_core::{AssumeRole, Region, RoleArn};

const TTL: Duration = Duration::from_secs(900);

type Answer = (StatusCode, String);

/// One request: its form fields, and as `key` the access key that signed it.
type Request = HashMap<String, String>;

struct Aws {
    url: String,
    seen: Arc<Mutex<Vec<Request>>>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Aws {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Aws {
    async fn start(answer: impl Fn(&Request) -> Answer + Clone + Send + Sync + 'static) -> Self {
        let seen = Arc::<Mutex<Vec<Request>>>::default();
        let journal = seen.clone();
        let app =
            axum::Router::new().fallback(move |headers: HeaderMap, body: String| async move {
                let request = parse(&headers, &body);
                let (status, body) = answer(&request);
                journal
                    .lock()
                    .expect("no test panics with it")
                    .push(request);
                (status, [("x-amzn-requestid", "req-1")], body)
            });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("a bound port"));
        let server = tokio::spawn(async move {
            axum::serve(listener, app)
                .await
                .expect("serves until dropped")
        });
        Self { url, seen, server }
    }

    async fn factory(&self) -> AwsFactory {
        factory(loader().endpoint_url(&self.url)).await
    }

    /// The given fields of every request for `action`.
    fn seen<const N: usize>(&self, action: &str, fields: [&str; N]) -> Vec<[Option<String>; N]> {
        let seen = self.seen.lock().expect("no test panics with it");
        let wanted = seen.iter().filter(|request| request["Action"] == action);
        wanted
            .map(|request| fields.map(|field| request.get(field).cloned()))
            .collect()
    }
}

fn parse(headers: &HeaderMap, body: &str) -> Request {
    let mut request: Request = body
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| {
            (
                name.to_owned(),
                value
                    .replace("%3A", ":")
                    .replace("%2F", "/")
                    .replace("%40", "@"),
            )
        })
        .collect();
    let signature = headers
        .get("authorization")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let key = signature
        .split_once("Credential=")
        .and_then(|(_, rest)| rest.split('/').next());
    request.insert("key".into(), key.unwrap_or_default().into());
    let target = headers
        .get("x-amz-target")
        .and_then(|value| value.to_str().ok());
    if let Some((_, action)) = target.and_then(|target| target.split_once('.')) {
        request.insert("Action".into(), action.into());
        request.insert("body".into(), body.into());
    }
    request
}

fn loader() -> ConfigLoader {
    aws_config::defaults(BehaviorVersion::v2026_01_12())
        .region(aws_config::Region::from_static("us-east-1"))
        .credentials_provider(Credentials::new("AKIAOWN", "secret", None, None, "test"))
}

async fn factory(loader: ConfigLoader) -> AwsFactory {
    let limits = Limits {
        attempts_max: 1,
        operation_timeout: Duration::from_secs(5),
        ..Limits::default()
    };
    AwsFactory::builder()
        .limits(limits)
        .loader(loader)
        .load()
        .await
}

/// Grants every role and every password.
fn grant(request: &Request) -> Answer {
    let body = match request["Action"].as_str() {
        "AssumeRole" => {
            let role = request["RoleArn"].rsplit('/').next().expect("a role name");
            format!(
                "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult><Credentials>\
                 <AccessKeyId>ASIA{role}</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>\
                 <Expiration>2100-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"
            )
        }
        "GetCredentials" => {
            r#"{"dbUser":"IAMR:reader","dbPassword":"hunter2","expiration":4102444800}"#.to_owned()
        }
        action => format!(
            "<{action}Response xmlns=\"http://redshift.amazonaws.com/doc/2012-12-01/\"><{action}Result>\
             <DbUser>IAM:alice</DbUser><DbPassword>hunter2</DbPassword><Expiration>2100-01-01T00:00:00Z</Expiration>\
             </{action}Result></{action}Response>"
        ),
    };
    (StatusCode::OK, body)
}

fn error(status: StatusCode, code: &str, message: &str) -> Answer {
    let body = format!(
        "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>\
         <RequestId>req-1</RequestId></ErrorResponse>"
    );
    (status, body)
}

fn role(name: &str) -> RoleArn {
    format!("arn:aws:iam::123456789012:role/{name}")
        .parse()
        .expect("a role")
}

fn two_hops() -> RoleChain {
    let first = AssumeRole {
        role_arn: role("dba"),
        external_id: Some("xyz".parse().expect("an external id")),
    };
    RoleChain::new(Some(first), Some(role("reader")))
}

async fn login(factory: &AwsFactory, chain: &RoleChain) -> Result<DbCredentials, AwsFailure> {
    let region: Region = "eu-west-1".parse().expect("a region");
    let client = factory
        .redshift(chain, &region, &SessionTag::new("alice@example.com"))
        .await;
    redshift_cluster_credentials(&client, "c0", "alice", "dev", None, TTL).await
}

async fn failure(aws: &Aws, chain: &RoleChain) -> AwsFailure {
    login(&aws.factory().await, chain)
        .await
        .expect_err("the answer is an error")
}

#[tokio::test]
async fn a_chain_assumes_each_role_with_the_one_before_and_shows_the_external_id_to_the_first() {
    let aws = Aws::start(grant).await;
    login(&aws.factory().await, &two_hops()).await.unwrap();

    let fields = [
        "key",
        "RoleArn",
        "ExternalId",
        "RoleSessionName",
        "SourceIdentity",
    ];
    let session = Some("alice@example.com".to_owned());
    assert_eq!(
        aws.seen("AssumeRole", fields),
        [
            [
                Some("AKIAOWN".into()),
                Some(role("dba").to_string()),
                Some("xyz".into()),
                session.clone(),
                None
            ],
            [
                Some("ASIAdba".into()),
                Some(role("reader").to_string()),
                None,
                session,
                None
            ],
        ]
    );
    assert_eq!(
        aws.seen("GetClusterCredentials", ["key"]),
        [[Some("ASIAreader".into())]]
    );
}

#[tokio::test]
async fn a_source_identity_is_sent_on_the_first_hop_when_asked_for() {
    let aws = Aws::start(grant).await;
    let session = SessionTag::new("s-1").with_source_identity("alice");
    let client = aws
        .factory()
        .await
        .redshift(&two_hops(), &"eu-west-1".parse().unwrap(), &session)
        .await;
    redshift_cluster_credentials(&client, "c0", "alice", "dev", None, TTL)
        .await
        .unwrap();

    assert_eq!(
        aws.seen("AssumeRole", ["SourceIdentity"]),
        [[Some("alice".into())], [None]]
    );
}

#[tokio::test]
async fn roles_are_assumed_once_for_many_calls() {
    let aws = Aws::start(grant).await;
    let factory = aws.factory().await;
    for _ in 0..3 {
        login(&factory.clone(), &two_hops()).await.unwrap();
    }

    assert_eq!(aws.seen("AssumeRole", []).len(), 2);
    assert_eq!(aws.seen("GetClusterCredentials", []).len(), 3);
}

#[tokio::test]
async fn a_password_is_asked_for_an_existing_user_with_a_life_of_its_own() {
    let aws = Aws::start(grant).await;
    let credentials = login(&aws.factory().await, &RoleChain::default())
        .await
        .unwrap();

    let fields = [
        "ClusterIdentifier",
        "DbUser",
        "DbName",
        "AutoCreate",
        "DurationSeconds",
        "key",
    ];
    let sent =
        ["c0", "alice", "dev", "false", "900", "AKIAOWN"].map(|value| Some(value.to_owned()));
    assert_eq!(aws.seen("GetClusterCredentials", fields), [sent]);
    assert_eq!(
        (
            credentials.user.as_str(),
            credentials.password.expose_secret()
        ),
        ("IAM:alice", "hunter2")
    );
    assert_eq!(credentials.expires_at.to_string(), "2100-01-01T00:00:00Z");
}

#[tokio::test]
async fn with_iam_no_user_is_named() {
    let aws = Aws::start(grant).await;
    let client = aws
        .factory()
        .await
        .redshift(
            &two_hops(),
            &"eu-west-1".parse().unwrap(),
            &SessionTag::new("alice"),
        )
        .await;
    redshift_cluster_credentials_with_iam(&client, "c0", "dev", TTL)
        .await
        .unwrap();

    assert_eq!(
        aws.seen("GetClusterCredentialsWithIAM", ["DbUser", "DbName", "key"]),
        [[None, Some("dev".into()), Some("ASIAreader".into())]]
    );
}

#[tokio::test]
async fn a_denied_hop_is_named_with_what_aws_said() {
    for name in ["dba", "reader"] {
        let aws = Aws::start(move |request| match request.get("RoleArn") {
            Some(arn) if arn.ends_with(name) => error(
                StatusCode::FORBIDDEN,
                "AccessDenied",
                "User: arn:aws:iam::1:user/x is not authorized to perform: sts:AssumeRole on resource: y",
            ),
            _ => grant(request),
        })
        .await;
        let failure = failure(&aws, &two_hops()).await;

        assert_eq!(
            (failure.class, failure.action),
            (AwsErrorClass::AccessDenied, "sts:AssumeRole")
        );
        assert_eq!(failure.hop, Some(role(name)));
        assert_eq!(failure.code.as_deref(), Some("AccessDenied"));
        assert_eq!(failure.request_id.as_deref(), Some("req-1"));
        assert_eq!(failure.denied_action.as_deref(), Some("sts:AssumeRole"));
        assert!(
            failure.message.starts_with("User: arn:aws:iam::1:user/x"),
            "{failure}"
        );
    }
}

#[tokio::test]
async fn a_denied_call_is_no_failure_of_a_hop() {
    let aws = Aws::start(|request| match request["Action"].as_str() {
        "GetClusterCredentials" => error(StatusCode::FORBIDDEN, "AccessDenied", "no"),
        _ => grant(request),
    })
    .await;
    let failure = failure(&aws, &two_hops()).await;

    assert_eq!(
        (failure.class, failure.action),
        (
            AwsErrorClass::AccessDenied,
            "redshift:GetClusterCredentials"
        )
    );
    assert_eq!(failure.hop, None);
}

#[tokio::test]
async fn answers_that_are_no_aws_error_are_told_apart() {
    let page = "<html>oops</html>";
    let cases = [
        (
            StatusCode::INTERNAL_SERVER_ERROR,
            AwsErrorClass::Unavailable,
        ),
        (StatusCode::BAD_GATEWAY, AwsErrorClass::Unavailable),
        (StatusCode::NOT_FOUND, AwsErrorClass::Malformed),
        (StatusCode::OK, AwsErrorClass::Malformed),
    ];
    for (status, class) in cases {
        let aws = Aws::start(move |_| (status, page.to_owned())).await;
        assert_eq!(
            failure(&aws, &RoleChain::default()).await.class,
            class,
            "{status}"
        );
    }
}

#[tokio::test]
async fn codes_of_the_service_are_classified_on_the_way_in() {
    for (code, class) in [
        ("ClusterNotFound", AwsErrorClass::NotFound),
        ("Throttling", AwsErrorClass::Throttled),
        ("InvalidClientTokenId", AwsErrorClass::RegionDisabled),
        ("ExpiredToken", AwsErrorClass::ExpiredCredentials),
        ("UnsupportedOperation", AwsErrorClass::InvalidRequest),
    ] {
        let aws = Aws::start(move |_| error(StatusCode::BAD_REQUEST, code, "no")).await;
        let failure = failure(&aws, &RoleChain::default()).await;
        assert_eq!(
            (failure.class, failure.code.as_deref()),
            (class, Some(code))
        );
    }
}

#[tokio::test]
async fn an_endpoint_that_nobody_listens_on_is_unavailable() {
    let aws = Aws::start(grant).await;
    let factory = aws.factory().await;
    aws.server.abort();
    while !aws.server.is_finished() {
        tokio::task::yield_now().await;
    }

    for chain in [RoleChain::default(), two_hops()] {
        let failure = login(&factory, &chain).await.unwrap_err();
        assert_eq!(failure.class, AwsErrorClass::Unavailable, "{failure}");
        assert_eq!(
            failure.hop,
            chain.hops().first().map(|hop| hop.role_arn.clone())
        );
    }
}

#[tokio::test]
async fn an_endpoint_that_never_answers_is_a_timeout_also_within_a_hop() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let limits = Limits {
        attempts_max: 1,
        attempt_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let loader = loader().endpoint_url(format!("http://{}", silent.local_addr().unwrap()));
    let factory = AwsFactory::builder()
        .limits(limits)
        .loader(loader)
        .load()
        .await;

    for chain in [RoleChain::default(), two_hops()] {
        let failure = login(&factory, &chain).await.unwrap_err();
        assert_eq!(failure.class, AwsErrorClass::Timeout, "{failure}");
    }
}

#[derive(Debug)]
struct Nobody;

impl ProvideCredentials for Nobody {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(Err(CredentialsError::not_loaded(
            "nothing in the environment",
        )))
    }
}

#[tokio::test]
async fn without_credentials_nothing_is_sent_and_the_reason_is_told() {
    let aws = Aws::start(grant).await;
    let factory = factory(loader().endpoint_url(&aws.url).credentials_provider(Nobody)).await;

    for chain in [RoleChain::default(), two_hops()] {
        let failure = login(&factory, &chain).await.unwrap_err();
        assert_eq!(failure.class, AwsErrorClass::NoCredentials, "{failure}");
        assert!(
            failure.message.contains("nothing in the environment"),
            "{failure}"
        );
    }
    assert!(aws.seen.lock().unwrap().is_empty());
}
