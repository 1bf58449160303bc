//! Which hosts are called in each partition, with and without FIPS; no call is made.

use std::sync::{Arc, Mutex};

use aws_config::{BehaviorVersion, ConfigLoader};
use aws_credential_types::Credentials;
use aws_smithy_runtime_api::client::{
    http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn},
    orchestrator::HttpRequest,
    result::ConnectorError,
};
use tidegate_aws::{AwsFactory, Limits, RoleChain, SessionTag};
use tidegate_core::{AssumeRole, Region};

/// Refuses to connect, and remembers where to.
#[derive(Clone, Debug, Default)]
struct Nowhere {
    hosts: Arc<Mutex<Vec<String>>>,
}

impl HttpConnector for Nowhere {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let host = request.uri().trim_start_matches("https://");
        let host = host.split('/').next().unwrap_or_default().to_owned();
        self.hosts
            .lock()
            .expect("no test panics with it")
            .push(host);
        let refused = ConnectorError::io("nobody is connected to here".into());
        HttpConnectorFuture::ready(Err(refused))
    }
}

async fn factory(
    own: &'static str,
    adjust: impl FnOnce(ConfigLoader) -> ConfigLoader,
) -> (AwsFactory, Nowhere) {
    let nowhere = Nowhere::default();
    let connector = SharedHttpConnector::new(nowhere.clone());
    let loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .region(aws_config::Region::from_static(own))
        .http_client(http_client_fn(move |_, _| connector.clone()))
        .credentials_provider(Credentials::new("AKIA", "secret", None, None, "test"));
    let limits = Limits {
        attempts_max: 1,
        ..Limits::default()
    };
    let builder = AwsFactory::builder().limits(limits).loader(adjust(loader));
    (builder.load().await, nowhere)
}

/// The host that Redshift is called at in `region`, and the one that STS is asked at for `role`.
async fn hosts(own: &'static str, region: &str, role: &str, fips: bool) -> (String, String) {
    let (factory, nowhere) = factory(
        own,
        |loader| if fips { loader.use_fips(true) } else { loader },
    )
    .await;
    let region: Region = region.parse().expect("a region");
    let session = SessionTag::new("test");
    let role = AssumeRole {
        role_arn: role.parse().expect("a role"),
        external_id: None,
    };
    for chain in [RoleChain::default(), RoleChain::new(Some(role), None)] {
        let client = factory.redshift(&chain, &region, &session).await;
        assert!(client.describe_clusters().send().await.is_err());
    }
    let hosts = nowhere
        .hosts
        .lock()
        .expect("no test panics with it")
        .clone();
    let [redshift, sts] = hosts.as_slice() else {
        panic!("{hosts:?}");
    };
    (redshift.clone(), sts.clone())
}

#[tokio::test]
async fn every_partition_has_its_own_hosts_and_sts_is_asked_in_the_own_region() {
    for (own, region, role, redshift, sts) in [
        (
            "eu-west-1",
            "us-east-2",
            "arn:aws:iam::123456789012:role/r",
            "redshift.us-east-2.amazonaws.com",
            "sts.eu-west-1.amazonaws.com",
        ),
        (
            "cn-north-1",
            "cn-northwest-1",
            "arn:aws-cn:iam::123456789012:role/r",
            "redshift.cn-northwest-1.amazonaws.com.cn",
            "sts.cn-north-1.amazonaws.com.cn",
        ),
        (
            "us-gov-east-1",
            "us-gov-west-1",
            "arn:aws-us-gov:iam::123456789012:role/r",
            "redshift.us-gov-west-1.amazonaws.com",
            "sts.us-gov-east-1.amazonaws.com",
        ),
    ] {
        let hosts = hosts(own, region, role, false).await;
        assert_eq!(hosts, (redshift.to_owned(), sts.to_owned()));
    }
}

#[tokio::test]
async fn fips_is_kept_for_every_service_and_for_sts() {
    let role = "arn:aws:iam::123456789012:role/r";
    assert_eq!(
        hosts("us-east-1", "us-west-2", role, true).await,
        (
            "redshift-fips.us-west-2.amazonaws.com".to_owned(),
            "sts-fips.us-east-1.amazonaws.com".to_owned()
        )
    );
}

#[tokio::test]
async fn a_profile_may_ask_for_fips() {
    let folder = std::env::temp_dir().join(format!("tidegate-fips-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("config");
    std::fs::write(&file, "[default]\nuse_fips_endpoint = true\n").unwrap();
    #[allow(deprecated)]
    let files = {
        use aws_config::profile::profile_file::{ProfileFileKind, ProfileFiles};
        ProfileFiles::builder()
            .with_file(ProfileFileKind::Config, &file)
            .build()
    };
    let (factory, nowhere) = factory("us-east-1", |loader| loader.profile_files(files)).await;
    let region: Region = "us-east-1".parse().unwrap();
    let client = factory
        .redshift(&RoleChain::default(), &region, &SessionTag::new("test"))
        .await;
    assert!(client.describe_clusters().send().await.is_err());
    std::fs::remove_dir_all(&folder).unwrap();
    let hosts = nowhere.hosts.lock().unwrap().clone();
    assert_eq!(hosts, ["redshift-fips.us-east-1.amazonaws.com"]);
}
