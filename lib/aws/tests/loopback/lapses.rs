//! Credentials that lapse, clocks that are wrong, calls that hang.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::*;

/// Gives another key at each look: `AKIA1`, `AKIA2`, …
#[derive(Debug, Default)]
struct Rotated(AtomicUsize);

impl ProvideCredentials for Rotated {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let look = self.0.fetch_add(1, Relaxed) + 1;
        let key = format!("AKIA{look}");
        future::ProvideCredentials::ready(Ok(Credentials::new(key, "secret", None, None, "test")))
    }
}

/// Refuses the first key, with this code.
async fn expired(code: &'static str) -> (Aws, AwsFactory) {
    let aws = Aws::start(move |request| {
        if request["key"] == "AKIA1" {
            error(
                StatusCode::FORBIDDEN,
                code,
                "The security token included in the request is expired",
            )
        } else {
            grant(request)
        }
    })
    .await;
    let loader = loader().endpoint_url(&aws.url);
    let factory = factory(loader.credentials_provider(Rotated::default())).await;
    (aws, factory)
}

#[tokio::test]
async fn own_credentials_that_expired_early_are_looked_for_again_when_that_is_told() {
    let (_aws, factory) = expired("ExpiredToken").await;
    let own = RoleChain::default();
    for _ in 0..2 {
        let failure = login(&factory, &own).await.unwrap_err();
        assert_eq!(failure.class, AwsErrorClass::ExpiredCredentials);
    }
    factory.refused(&own, &SessionTag::new("any"));
    login(&factory, &own).await.unwrap();
}

#[tokio::test]
async fn a_role_that_was_not_given_for_expired_or_deleted_credentials_is_asked_for_with_new_ones() {
    for code in ["ExpiredToken", "InvalidClientTokenId"] {
        let (aws, factory) = expired(code).await;
        let failure = login(&factory, &two_hops()).await.unwrap_err();
        assert_eq!(failure.code.as_deref(), Some(code));
        login(&factory, &two_hops()).await.unwrap();
        assert_eq!(
            aws.seen("AssumeRole", ["key"]),
            ["AKIA1", "AKIA2", "ASIAdba"].map(|key| [Some(key.to_owned())])
        );
    }
}

#[tokio::test]
async fn sessions_of_a_role_that_are_refused_are_opened_again() {
    let aws = Aws::start(grant).await;
    let factory = aws.factory().await;
    let session = SessionTag::new("alice@example.com");
    login(&factory, &two_hops()).await.unwrap();
    factory.refused(&two_hops(), &session);
    login(&factory, &two_hops()).await.unwrap();
    // The role before it is still good.
    assert_eq!(aws.seen("AssumeRole", []).len(), 3);
}

#[tokio::test]
async fn a_role_is_assumed_once_for_all_regions() {
    let aws = Aws::start(grant).await;
    let factory = aws.factory().await;
    let session = SessionTag::new("alice@example.com");
    for region in ["eu-west-1", "us-east-1", "us-west-2"] {
        let region: Region = region.parse().unwrap();
        let client = factory.redshift(&two_hops(), &region, &session).await;
        redshift_cluster_credentials(&client, "c0", "alice", "dev", None, TTL)
            .await
            .unwrap();
    }
    assert_eq!(aws.seen("AssumeRole", []).len(), 2);
}

#[tokio::test]
async fn a_clock_that_is_wrong_is_told_from_a_wrong_signature() {
    for (code, message, class) in [
        (
            "SignatureDoesNotMatch",
            "Signature expired: 20260101T000000Z is now earlier than 20260101T001500Z",
            AwsErrorClass::ClockSkew,
        ),
        (
            "InvalidSignatureException",
            "Signature not yet current: 20260101T001500Z is still later than 20260101T000500Z",
            AwsErrorClass::ClockSkew,
        ),
        ("RequestTimeTooSkewed", "no", AwsErrorClass::ClockSkew),
        (
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match",
            AwsErrorClass::NoCredentials,
        ),
    ] {
        let aws = Aws::start(move |_| error(StatusCode::FORBIDDEN, code, message)).await;
        let failure = failure(&aws, &RoleChain::default()).await;
        assert_eq!(failure.class, class, "{code}: {message}");
    }
}

#[tokio::test]
async fn a_call_that_hangs_ends_with_its_operation_whatever_its_attempts() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let limits = Limits {
        attempts_max: 3,
        attempt_timeout: Duration::from_millis(400),
        operation_timeout: Duration::from_millis(500),
        ..Limits::default()
    };
    let loader = loader().endpoint_url(format!("http://{}", silent.local_addr().unwrap()));
    let builder = AwsFactory::builder().limits(limits).loader(loader);
    let factory = builder.load().await;
    for chain in [RoleChain::default(), two_hops()] {
        let began = std::time::Instant::now();
        let failure = login(&factory, &chain).await.unwrap_err();
        assert_eq!(failure.class, AwsErrorClass::Timeout, "{failure}");
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "{:?}",
            began.elapsed()
        );
    }
}
