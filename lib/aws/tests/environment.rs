//! What the environment gives a process. A process cannot change its own environment safely, so each rule is tested
//! in a child: this test program again, with the one test that is ignored otherwise.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use axum::http::{HeaderMap, StatusCode};
use tidegate_aws::{
    AwsErrorClass, AwsFactory, RoleChain, SessionTag, redshift_cluster_credentials,
};
use tidegate_core::Region;

/// Where the child finds its credentials file.
const FILE: &str = "AWS_SHARED_CREDENTIALS_FILE";

/// Runs a test of this program that is ignored otherwise.
fn child(test: &str, environment: &[(&str, &str)]) {
    let program = std::env::current_exe().expect("this program is somewhere");
    let mut command = Command::new(program);
    command
        .args(["--exact", test, "--ignored", "--nocapture"])
        .envs(environment.iter().copied())
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_REGION", "us-east-1")
        .env_remove("AWS_ACCESS_KEY_ID")
        .env_remove("AWS_PROFILE");
    let output = command.output().expect("it runs");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{told}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(told.contains("1 passed"), "{told}");
}

fn write_keys(file: &Path, key: &str) {
    let text = format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = secret\n");
    std::fs::write(file, text).expect("the folder is there");
}

/// An AWS that takes every key but `AKIAOLD`.
async fn aws() -> String {
    let app = axum::Router::new().fallback(|headers: HeaderMap| async move {
        let signed = headers.get("authorization").and_then(|value| value.to_str().ok());
        if signed.is_some_and(|value| value.contains("Credential=AKIAOLD/")) {
            let body = "<ErrorResponse><Error><Type>Sender</Type><Code>ExpiredToken</Code>\
                        <Message>The security token included in the request is expired</Message></Error></ErrorResponse>";
            return (StatusCode::FORBIDDEN, body);
        }
        let body = "<GetClusterCredentialsResponse xmlns=\"urn:x\"><GetClusterCredentialsResult>\
                    <DbUser>IAM:alice</DbUser><DbPassword>p</DbPassword><Expiration>2100-01-01T00:00:00Z</Expiration>\
                    </GetClusterCredentialsResult></GetClusterCredentialsResponse>";
        (StatusCode::OK, body)
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("a bound port"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

async fn login(factory: &AwsFactory) -> Result<(), AwsErrorClass> {
    let (own, region) = (
        RoleChain::default(),
        "us-east-1".parse::<Region>().expect("a region"),
    );
    let client = factory
        .redshift(&own, &region, &SessionTag::new("test"))
        .await;
    let ttl = std::time::Duration::from_secs(900);
    let answer = redshift_cluster_credentials(&client, "c0", "alice", "dev", None, ttl).await;
    answer.map(drop).map_err(|failure| failure.class)
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_were_replaced_in_a_file_serve_without_a_restart() {
    let url = aws().await;
    let folder = std::env::temp_dir().join(format!("tidegate-keys-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("credentials");
    write_keys(&file, "AKIAOLD");
    let path = file.to_str().unwrap().to_owned();
    let run = move || {
        child(
            "a_process_whose_keys_expire",
            &[(FILE, &path), ("AWS_ENDPOINT_URL", &url)],
        )
    };
    tokio::task::spawn_blocking(run).await.unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
#[ignore = "run as a child, with an environment of its own"]
async fn a_process_whose_keys_expire() {
    let file = PathBuf::from(std::env::var_os(FILE).unwrap());
    let factory = AwsFactory::load().await;
    assert_eq!(
        login(&factory).await,
        Err(AwsErrorClass::ExpiredCredentials)
    );
    write_keys(&file, "AKIANEW");
    assert_eq!(
        login(&factory).await,
        Err(AwsErrorClass::ExpiredCredentials)
    );
    factory.refused(&RoleChain::default(), &SessionTag::new("test"));
    assert_eq!(login(&factory).await, Ok(()));
}

#[test]
fn the_environment_may_ask_for_fips() {
    child(
        "a_process_that_asks_for_fips",
        &[("AWS_USE_FIPS_ENDPOINT", "true")],
    );
}

#[tokio::test]
#[ignore = "run as a child, with an environment of its own"]
async fn a_process_that_asks_for_fips() {
    let factory = AwsFactory::load().await;
    let region: Region = "us-west-2".parse().unwrap();
    let config = factory
        .config(&RoleChain::default(), &region, &SessionTag::new("test"))
        .await;
    assert_eq!(config.use_fips(), Some(true));
}
