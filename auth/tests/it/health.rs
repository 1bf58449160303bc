//! `health_check_config` resources.

use std::time::Duration;

use tidegate_proto::v1::{self, health_service_client::HealthServiceClient};
use tonic::{Code, Status, Streaming, transport::Channel};

use crate::house::{Caller, House, code};

fn health(caller: &Caller) -> HealthServiceClient<Channel> {
    HealthServiceClient::new(caller.0.clone())
}

async fn upsert(
    caller: &Caller,
    config: v1::HealthCheckConfig,
) -> Result<v1::HealthCheckConfig, Status> {
    let request = v1::UpsertHealthCheckConfigRequest {
        config: Some(config),
    };
    let stored = health(caller).upsert_health_check_config(request).await;
    stored.map(tonic::Response::into_inner)
}

async fn delete(caller: &Caller, name: &str) -> Result<(), Status> {
    let request = v1::DeleteHealthCheckConfigRequest {
        name: name.to_owned(),
    };
    let deleted = health(caller).delete_health_check_config(request).await;
    deleted.map(drop)
}

/// Names and intervals.
fn shown(configs: Vec<v1::HealthCheckConfig>) -> Vec<(String, i64)> {
    let seconds = |config: &v1::HealthCheckConfig| config.interval.unwrap().seconds;
    let configs = configs.into_iter();
    configs
        .map(|config| (config.name.clone(), seconds(&config)))
        .collect()
}

async fn next(watch: &mut Streaming<v1::WatchHealthCheckConfigsResponse>) -> Vec<(String, i64)> {
    let message = tokio::time::timeout(Duration::from_secs(10), watch.message()).await;
    shown(message.unwrap().unwrap().unwrap().configs)
}

fn every(name: &str, seconds: i64) -> v1::HealthCheckConfig {
    v1::HealthCheckConfig {
        name: name.to_owned(),
        interval: Some(prost_types::Duration { seconds, nanos: 0 }),
        ..v1::HealthCheckConfig::default()
    }
}

fn pair(name: &str, seconds: i64) -> (String, i64) {
    (name.to_owned(), seconds)
}

#[tokio::test]
async fn agents_are_told_of_the_preset_and_of_every_change() {
    let house = House::new().await;
    let admin = house.admin();
    let agent = house.known(&house.host(&["db"]).await);
    let request = v1::WatchHealthCheckConfigsRequest {};
    let watch = health(&agent).watch_health_check_configs(request).await;
    let mut watch = watch.unwrap().into_inner();
    assert_eq!(next(&mut watch).await, [pair("default", 30)]);

    upsert(&admin, every("prod", 10)).await.unwrap();
    let both = [pair("default", 30), pair("prod", 10)];
    assert_eq!(next(&mut watch).await, both);
    upsert(&admin, every("default", 60)).await.unwrap();
    let changed = [pair("default", 60), pair("prod", 10)];
    assert_eq!(next(&mut watch).await, changed);
    let request = v1::ListHealthCheckConfigsRequest {};
    let listed = health(&admin).list_health_check_configs(request).await;
    assert_eq!(shown(listed.unwrap().into_inner().configs), changed);
    // What nobody wrote comes back.
    delete(&admin, "default").await.unwrap();
    assert_eq!(next(&mut watch).await, both);
    assert_eq!(code(delete(&admin, "default").await), Code::NotFound);
}

#[tokio::test]
async fn a_configuration_is_checked_and_guarded_by_its_revision() {
    let house = House::new().await;
    let admin = house.admin();
    let first = upsert(&admin, every("prod", 10)).await.unwrap();
    let second = upsert(&admin, first.clone()).await.unwrap();
    assert!(second.revision > first.revision);
    assert_eq!(code(upsert(&admin, first).await), Code::Aborted);
    let refused = upsert(&admin, every("prod", 1)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let message = refused.message();
    assert!(message.contains("config.interval"), "{message}");
    let agent = house.known(&house.host(&["db"]).await);
    let denied = upsert(&agent, every("mine", 10)).await;
    assert_eq!(code(denied), Code::PermissionDenied);
}
