//! `discovery_config` resources.

use std::time::Duration;

use tidegate_proto::v1;
use tonic::{Code, Status, Streaming};

use crate::house::{Caller, House, code};

fn config(name: &str, group: &str, region: &str) -> v1::DiscoveryConfig {
    v1::DiscoveryConfig {
        name: name.to_owned(),
        discovery_group: group.to_owned(),
        aws: vec![v1::AwsMatcher {
            types: vec!["redshift".to_owned()],
            regions: vec![region.to_owned()],
            ..v1::AwsMatcher::default()
        }],
        revision: 0,
    }
}

async fn upsert(
    caller: &Caller,
    config: v1::DiscoveryConfig,
) -> Result<v1::DiscoveryConfig, Status> {
    let request = v1::UpsertDiscoveryConfigRequest {
        config: Some(config),
    };
    let stored = caller.discovery().upsert_discovery_config(request).await;
    stored.map(tonic::Response::into_inner)
}

async fn delete(caller: &Caller, name: &str) -> Result<(), Status> {
    let request = v1::DeleteDiscoveryConfigRequest {
        name: name.to_owned(),
    };
    let deleted = caller.discovery().delete_discovery_config(request).await;
    deleted.map(drop)
}

async fn next(watch: &mut Streaming<v1::WatchDiscoveryConfigsResponse>) -> Vec<String> {
    let message = tokio::time::timeout(Duration::from_secs(10), watch.message()).await;
    let configs = message.unwrap().unwrap().unwrap().configs;
    configs.into_iter().map(|config| config.name).collect()
}

#[tokio::test]
async fn a_group_s_workers_see_its_configurations_come_change_and_go() {
    let house = House::new().await;
    let admin = house.admin();
    upsert(&admin, config("elsewhere", "lab", "us-east-1"))
        .await
        .unwrap();
    let worker = house.known(&house.host(&["discovery"]).await);
    let request = v1::WatchDiscoveryConfigsRequest {
        discovery_group: "prod".to_owned(),
    };
    let watch = worker.discovery().watch_discovery_configs(request).await;
    let mut watch = watch.unwrap().into_inner();
    assert!(next(&mut watch).await.is_empty());

    upsert(&admin, config("team", "prod", "us-east-1"))
        .await
        .unwrap();
    assert_eq!(next(&mut watch).await, ["team"]);
    upsert(&admin, config("team", "prod", "us-west-2"))
        .await
        .unwrap();
    assert_eq!(next(&mut watch).await, ["team"]);
    // What happens in another group is no news here.
    delete(&admin, "elsewhere").await.unwrap();
    upsert(&admin, config("team", "lab", "us-west-2"))
        .await
        .unwrap();
    assert!(next(&mut watch).await.is_empty());

    let request = v1::ListDiscoveryConfigsRequest {};
    let listed = admin.discovery().list_discovery_configs(request).await;
    let listed = listed.unwrap().into_inner().configs;
    assert_eq!(listed[0].discovery_group, "lab");
    assert!(listed[0].revision > 0);
}

#[tokio::test]
async fn who_writes_over_another_s_change_is_told() {
    let house = House::new().await;
    let admin = house.admin();
    let first = upsert(&admin, config("team", "prod", "us-east-1"))
        .await
        .unwrap();
    let second = upsert(&admin, first.clone()).await.unwrap();
    assert!(second.revision > first.revision);
    assert_eq!(code(upsert(&admin, first).await), Code::Aborted);
    let absent = v1::DiscoveryConfig {
        revision: 5,
        ..config("other", "prod", "us-east-1")
    };
    assert_eq!(code(upsert(&admin, absent).await), Code::Aborted);
    assert_eq!(code(delete(&admin, "other").await), Code::NotFound);
}

#[tokio::test]
async fn what_workers_could_not_use_is_refused_and_only_editors_write() {
    let house = House::new().await;
    let admin = house.admin();
    let refused = upsert(&admin, config("team", "prod", "nowhere at all"))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(
        refused.message().contains("config.aws[0].regions"),
        "{}",
        refused.message()
    );
    let worker = house.known(&house.host(&["discovery"]).await);
    assert_eq!(
        code(upsert(&worker, config("team", "prod", "us-east-1")).await),
        Code::PermissionDenied
    );
    let request = v1::WatchDiscoveryConfigsRequest::default();
    let groupless = worker.discovery().watch_discovery_configs(request).await;
    assert_eq!(groupless.unwrap_err().code(), Code::InvalidArgument);
}
