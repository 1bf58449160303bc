use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use aws_config::{BehaviorVersion, ConfigLoader, Region, retry::RetryConfig};
use aws_credential_types::{
    Credentials as Keys,
    provider::{ProvideCredentials, future},
};
use axum::http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use tidegate_aws::cache::REFUSED_AGE_MIN;
use tidegate_core::{DatabaseKind, ErrorCode, aws_session::Template};
use tidegate_service::{clock::ManualClock, metrics::Metrics};

use super::*;
use crate::{credentials::plan_login, testing::wanted_as as wanted};

/// Gives another key at each look: `AKIA1`, `AKIA2`, …
#[derive(Debug, Default)]
struct Rotated(AtomicUsize);

impl ProvideCredentials for Rotated {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let key = format!("AKIA{}", self.0.fetch_add(1, Relaxed) + 1);
        future::ProvideCredentials::ready(Ok(Keys::new(key, "secret", None, None, "test")))
    }
}

type Answer = fn(action: &str, key: &str) -> Option<(StatusCode, String)>;

/// An AWS that grants what `answer` has no other answer for; and what it was asked: action and key.
async fn aws(answer: Answer) -> (String, Arc<Mutex<Vec<(String, String)>>>) {
    let asked = Arc::<Mutex<Vec<(String, String)>>>::default();
    let journal = Arc::clone(&asked);
    let app = axum::Router::new().fallback(move |headers: HeaderMap, body: String| async move {
        let signed = headers.get("authorization").unwrap().to_str().unwrap();
        let (_, key) = signed.split_once("Credential=").unwrap();
        let key = key.split('/').next().unwrap().to_owned();
        let action = body.split_once("Action=").unwrap().1;
        let action = action.split('&').next().unwrap().to_owned();
        journal.lock().unwrap().push((action.clone(), key.clone()));
        answer(&action, &key).unwrap_or_else(|| (StatusCode::OK, granted(&action)))
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, asked)
}

fn granted(action: &str) -> String {
    let inner = match action {
        "AssumeRole" => {
            "<Credentials><AccessKeyId>ASIA</AccessKeyId><SecretAccessKey>s</SecretAccessKey>\
             <SessionToken>t</SessionToken><Expiration>2100-01-01T00:00:00Z</Expiration></Credentials>"
        }
        "GetCallerIdentity" => "<Account>777777777777</Account>",
        _ => {
            "<DbUser>IAM:reader</DbUser><DbPassword>p</DbPassword><Expiration>2100-01-01T00:00:00Z</Expiration>"
        }
    };
    format!(
        "<{action}Response xmlns=\"urn:x\"><{action}Result>{inner}</{action}Result></{action}Response>"
    )
}

fn refusal(code: &str, message: &str) -> (StatusCode, String) {
    let body = format!(
        "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>\
         </ErrorResponse>"
    );
    (StatusCode::FORBIDDEN, body)
}

async fn credentials(url: &str) -> AwsCredentials {
    credentials_at(url, &ManualClock::new(Timestamp::now())).await
}

async fn credentials_at(url: &str, clock: &ManualClock) -> AwsCredentials {
    let loader = ConfigLoader::default()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .retry_config(RetryConfig::disabled())
        .endpoint_url(url)
        .credentials_provider(Rotated::default());
    let factory = AwsFactory::builder().loader(loader).load().await;
    let clock: SharedClock = Arc::new(clock.clone());
    let metrics = ServiceMetrics::register(&Metrics::new());
    let settings = watch::Sender::new(DatabaseSettings::default()).subscribe();
    AwsCredentials::new(factory, settings, &clock, metrics)
}

#[tokio::test]
async fn credentials_of_the_agent_that_were_replaced_are_found_within_the_same_login() {
    let (url, asked) =
        aws(|_, key| (key == "AKIA1").then(|| refusal("ExpiredToken", "it expired"))).await;
    let credentials = credentials(&url).await;
    let plan = plan_login(&wanted(None), "reader", "dev").unwrap();
    assert_eq!(
        credentials.login(&plan, "alice").await.unwrap().user,
        "IAM:reader"
    );
    let keys: Vec<String> = asked
        .lock()
        .unwrap()
        .iter()
        .map(|(_, key)| key.clone())
        .collect();
    assert_eq!(keys, ["AKIA1", "AKIA2"]);
}

#[tokio::test]
async fn credentials_of_the_agent_that_expired_are_the_operators_matter() {
    let (url, asked) = aws(|_, _| Some(refusal("ExpiredToken", "it expired"))).await;
    let credentials = credentials(&url).await;
    let plan = plan_login(&wanted(None), "reader", "dev").unwrap();
    for _ in 0..5 {
        let refused = credentials.login(&plan, "alice").await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::AwsCredentials);
        assert!(refused.hint.unwrap().starts_with("an operator"));
    }
    assert_eq!(
        asked.lock().unwrap().len(),
        2,
        "once more with other credentials, then remembered"
    );
}

#[tokio::test]
async fn a_refusal_is_told_with_the_statement_that_ends_it() {
    let (url, _) = aws(|action, _| {
        (action == "GetClusterCredentials").then(|| {
            refusal(
                "AccessDenied",
                "User: arn:aws:sts::123456789012:assumed-role/agent/alice is not authorized to perform: \
                 redshift:GetClusterCredentials on resource: x because no identity-based policy allows the \
                 redshift:GetClusterCredentials action",
            )
        })
    })
    .await;
    let credentials = credentials(&url).await;
    let plan = plan_login(&wanted(Some("agent")), "reader", "dev").unwrap();
    let problem = credentials.login(&plan, "alice").await.unwrap_err();
    assert_eq!(problem.code, ErrorCode::AwsAccessDenied);
    assert_eq!(
        problem.message,
        "redshift:GetClusterCredentials was denied, called as arn:aws:iam::123456789012:role/agent"
    );
    assert!(problem.operator.contains("not authorized"));
    let hint = problem.hint.unwrap();
    assert!(
        hint.contains("an AWS administrator has to allow redshift:GetClusterCredentials: add to the identity policy of"),
        "{hint}"
    );
    assert!(
        hint.contains(r#""arn:aws:redshift:us-east-1:123456789012:dbuser:orders/reader""#),
        "{hint}"
    );
}

fn times(asked: &Mutex<Vec<(String, String)>>, action: &str) -> usize {
    let asked = asked.lock().unwrap();
    asked.iter().filter(|(called, _)| called == action).count()
}

#[tokio::test]
async fn another_password_is_asked_for_when_the_refused_one_is_old_and_not_when_it_is_new() {
    let (url, asked) = aws(|_, _| None).await;
    let clock = ManualClock::new(Timestamp::now());
    let credentials = credentials_at(&url, &clock).await;
    let plan = plan_login(&wanted(None), "reader", "dev").unwrap();
    let login = credentials.login(&plan, "alice").await.unwrap();
    let another = credentials.another(&plan, "alice", &login).await.unwrap();
    assert!(another.is_none());
    clock.advance(REFUSED_AGE_MIN);
    let another = credentials.another(&plan, "alice", &login).await.unwrap();
    assert!(another.is_some());
    assert_eq!(times(&asked, "GetClusterCredentials"), 2);
}

#[tokio::test]
async fn a_token_of_rds_that_is_refused_has_its_role_assumed_anew() {
    let (url, asked) = aws(|_, _| None).await;
    let clock = ManualClock::new(Timestamp::now());
    let credentials = credentials_at(&url, &clock).await;
    let mut orders = wanted(Some("agent"));
    let database = orders.database_mut();
    database.kind = Some(DatabaseKind::Rds);
    database.uri = "orders.abc.us-east-1.rds.amazonaws.com:5432"
        .parse()
        .unwrap();
    let plan = plan_login(&orders, "reader", "dev").unwrap();
    let login = credentials.login(&plan, "alice").await.unwrap();
    assert_eq!(times(&asked, "AssumeRole"), 1);
    clock.advance(REFUSED_AGE_MIN);
    let another = credentials.another(&plan, "alice", &login).await.unwrap();
    assert!(another.is_some());
    assert_eq!(times(&asked, "AssumeRole"), 2);
}

#[tokio::test]
async fn sts_is_asked_once_for_the_agents_own_account() {
    let (url, asked) = aws(|_, _| None).await;
    let credentials = credentials(&url).await;
    let mut orders = wanted(None);
    orders.database_mut().aws.account_id = None;
    for db_user in ["role/analyst", "role/reader"] {
        let LoginPlan::Aws(plan) = plan_login(&orders, db_user, "dev").unwrap() else {
            panic!("a plan for AWS");
        };
        let request = credentials.request(&plan).await.unwrap();
        assert_eq!(
            request.chain.last().unwrap().account().as_str(),
            "777777777777"
        );
    }
    assert_eq!(asked.lock().unwrap().len(), 1);
}

#[test]
fn sessions_are_called_as_the_configuration_says() {
    let LoginPlan::Aws(plan) = plan_login(&wanted(Some("agent")), "role/analyst", "dev").unwrap()
    else {
        panic!("a plan for AWS");
    };
    let template = |text: &str| text.parse::<Template>().unwrap();
    let plain = session_tag(&SessionNaming::default(), &plan, "alice@example.com");
    assert_eq!(plain.name(), "alice@example.com");
    assert_eq!((plain.source_identity(), plain.tags().len()), (None, 0));

    let naming = SessionNaming {
        name: template("{db_user}@{database}"),
        source_identity: Some(template("{user}")),
        tags: [("database".to_owned(), template("{database}"))].into(),
    };
    let named = session_tag(&naming, &plan, "alice");
    assert!(
        named.name().starts_with("role-analyst@orders-"),
        "{named:?}"
    );
    assert_eq!(named.source_identity(), Some("alice"));
    assert_eq!(named.tags()["database"], "orders");

    let mut orders = wanted(Some("agent"));
    let own = [("team", "data"), ("database", "mine")];
    orders.database_mut().aws.session_tags = own
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    let LoginPlan::Aws(plan) = plan_login(&orders, "reader", "dev").unwrap() else {
        panic!("a plan for AWS");
    };
    let tags = session_tag(&naming, &plan, "alice").tags().clone();
    let tags: Vec<_> = tags.iter().map(|(key, value)| (&**key, &**value)).collect();
    assert_eq!(tags, [("database", "mine"), ("team", "data")]);
}
