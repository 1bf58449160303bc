//! `GetCallerIdentity` in JSON, for who verifies a signature that somebody else made.

use aws_credential_types::Credentials;
use serde_json::Value;

use crate::{Fixture, HOME, KEY, SECRET, worker, world};

/// Asks in JSON, for a host that is not where the request goes. The SDK reads XML, so that every answer is a failure to it.
async fn ask(fixture: &Fixture, credentials: Credentials, host: &'static str) -> (u16, Value) {
    let call = fixture.sts(credentials).get_caller_identity().customize();
    let call = call.mutate_request(move |request| {
        request.headers_mut().insert("accept", "application/json");
        request.headers_mut().insert("host", host);
        request.headers_mut().insert("x-challenge", "c2VudA");
    });
    let failure = call.send().await.unwrap_err();
    let raw = failure.raw_response().unwrap();
    let body = serde_json::from_slice(raw.body().bytes().unwrap()).unwrap();
    (raw.status().as_u16(), body)
}

const HOST: &str = "sts.us-east-1.amazonaws.com";

#[tokio::test]
async fn an_identity_is_told_in_json_to_who_asks_for_it() {
    let fixture = Fixture::api(world()).await;
    let (status, body) = ask(&fixture, worker(), HOST).await;
    let told = &body["GetCallerIdentityResponse"]["GetCallerIdentityResult"];
    assert_eq!(status, 200, "{body}");
    assert_eq!(told["Account"], HOME);
    assert_eq!(told["Arn"], "arn:aws:iam::111111111111:user/worker");
    assert!(body["GetCallerIdentityResponse"]["ResponseMetadata"]["RequestId"].is_string());
}

#[tokio::test]
async fn a_signature_that_is_wrong_old_or_of_another_region_is_refused() {
    let fixture = Fixture::api(world()).await;
    let refused = |(status, body): (u16, Value)| {
        assert_eq!(status, 403, "{body}");
        body["Error"]["Code"].as_str().unwrap().to_owned()
    };
    let wrong = Credentials::new(KEY, "wrong", None, None, "it");
    assert_eq!(
        refused(ask(&fixture, wrong, HOST).await),
        "SignatureDoesNotMatch"
    );
    let unknown = Credentials::new("AKIANOBODY0000000001", SECRET, None, None, "it");
    assert_eq!(
        refused(ask(&fixture, unknown, HOST).await),
        "InvalidClientTokenId"
    );
    let elsewhere = ask(&fixture, worker(), "sts.eu-west-1.amazonaws.com").await;
    assert_eq!(refused(elsewhere), "SignatureDoesNotMatch");
    fixture.sim.set_clock_offset(600);
    let (status, body) = ask(&fixture, worker(), HOST).await;
    assert_eq!(status, 403);
    let message = body["Error"]["Message"].as_str().unwrap();
    assert!(message.starts_with("Signature expired"), "{message}");
}
