//! What the environment gives a process. A process cannot change its own environment safely, so each rule is tested
//! in a child: this test program again, with the one test that is ignored otherwise.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use axum::http::{HeaderMap, Method, StatusCode, Uri};
use tidegate_aws::{
    AwsErrorClass, AwsFactory, AwsMinter, CredentialKey, Login, LoginRequest, RoleChain,
    SessionTag, redshift_cluster_credentials,
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
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_REGION", "us-east-1")
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env(FILE, "/dev/null")
        .env_remove("AWS_ACCESS_KEY_ID")
        .env_remove("AWS_PROFILE")
        .envs(environment.iter().copied());
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

/// Where a container, or an instance, gets its credentials. The first look finds nothing, the second credentials that
/// AWS takes for expired, and later ones good credentials.
async fn metadata() -> (String, Arc<AtomicUsize>) {
    let looks = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&looks);
    let app = axum::Router::new().fallback(move |method: Method, uri: Uri, headers: HeaderMap| async move {
        let path = uri.path();
        if method == Method::PUT && path == "/latest/api/token" {
            let ttl = [("x-aws-ec2-metadata-token-ttl-seconds", "21600")];
            return (StatusCode::OK, ttl, "session-token".to_owned());
        }
        let none = [("x-nothing", "")];
        let of_instance = "/latest/meta-data/iam/security-credentials/";
        if path.starts_with("/latest") && headers.get("x-aws-ec2-metadata-token").is_none() {
            return (StatusCode::UNAUTHORIZED, none, String::new());
        }
        match path {
            path if path == of_instance => (StatusCode::OK, none, "agent-role".to_owned()),
            "/container" | "/latest/meta-data/iam/security-credentials/agent-role" => {
                let key = match counted.fetch_add(1, SeqCst) {
                    0 => return (StatusCode::NOT_FOUND, none, String::new()),
                    1 => "AKIAOLD",
                    _ => "AKIANEW",
                };
                let body = format!(
                    r#"{{"Code":"Success","LastUpdated":"2026-01-01T00:00:00Z","Type":"AWS-HMAC","AccessKeyId":"{key}",
                        "SecretAccessKey":"secret","Token":"token","Expiration":"2100-01-01T00:00:00Z"}}"#
                );
                (StatusCode::OK, none, body)
            }
            _ => (StatusCode::NOT_FOUND, none, String::new()),
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("a bound port"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, looks)
}

/// Runs the child that gets its credentials from `metadata`, told where by `variables`.
async fn child_of_metadata(variables: impl FnOnce(&str) -> Vec<(&'static str, String)>) -> usize {
    let (endpoint, (metadata, looks)) = (aws().await, metadata().await);
    let mut environment = variables(&metadata);
    environment.push(("AWS_ENDPOINT_URL", endpoint));
    let run = move || {
        let environment: Vec<(&str, &str)> = environment
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        child(
            "a_process_whose_surroundings_give_it_credentials",
            &environment,
        );
    };
    tokio::task::spawn_blocking(run)
        .await
        .expect("the child ran");
    looks.load(SeqCst)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_containers_credentials_that_come_late_and_expire_are_found_without_a_restart() {
    let looks = child_of_metadata(|url| {
        vec![(
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            format!("{url}/container"),
        )]
    })
    .await;
    assert_eq!(looks, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instances_credentials_that_come_late_and_expire_are_found_without_a_restart() {
    let looks = child_of_metadata(|url| {
        vec![
            ("AWS_EC2_METADATA_DISABLED", "false".to_owned()),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", url.to_owned()),
        ]
    })
    .await;
    assert_eq!(looks, 3);
}

fn login_request() -> CredentialKey {
    let login = Login::ClusterUser {
        cluster: "c0".to_owned(),
        db_user: "alice".to_owned(),
        db_name: "dev".to_owned(),
        create: None,
    };
    let request = LoginRequest {
        login,
        region: "us-east-1".parse().expect("a region"),
        account: None,
        chain: RoleChain::default(),
    };
    CredentialKey::new(request, &SessionTag::new("test"))
}

#[tokio::test]
#[ignore = "run as a child, with an environment of its own"]
async fn a_process_whose_surroundings_give_it_credentials() {
    let factory = AwsFactory::load().await;
    // Nothing is there yet.
    assert_eq!(login(&factory).await, Err(AwsErrorClass::NoCredentials));
    // What is there is refused, and looked for anew within the same login.
    let minter = AwsMinter::new(factory);
    let credentials = minter.mint(&login_request()).await.unwrap();
    assert_eq!(credentials.user, "IAM:alice");
    // What is good is kept.
    minter.mint(&login_request()).await.unwrap();
}
