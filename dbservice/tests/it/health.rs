//! Health as the cluster hears of it.

use std::time::Duration;

use tidegate_core::{HealthCheckConfig, health::HealthChecks};
use tidegate_proto::v1;

use crate::{
    sessions::database_end,
    world::{World, patiently},
};

/// The health of `own`, if a delta tells it.
fn own(delta: &v1::AnnounceDelta) -> Option<&v1::TargetHealth> {
    let is_own = |server: &&v1::DatabaseServer| {
        server
            .database
            .as_ref()
            .is_some_and(|found| found.name == "own")
    };
    delta.upserted.iter().find(is_own)?.target_health.as_ref()
}

fn every(seconds: u64) -> HealthCheckConfig {
    HealthCheckConfig {
        checks: HealthChecks {
            interval: Duration::from_secs(seconds),
            timeout: Duration::from_secs(1),
            ..HealthChecks::default()
        },
        ..HealthCheckConfig::preset()
    }
}

async fn until(world: &mut World, is: impl Fn(&v1::TargetHealth) -> bool) {
    world
        .until_announced(|delta| own(delta).is_some_and(&is))
        .await;
}

#[tokio::test]
async fn a_configuration_that_goes_and_comes_back_stops_and_starts_the_checks() {
    let mut world = World::start().await;
    until(&mut world, |health| {
        health.status == "healthy" && health.certificate_not_after.is_some()
    })
    .await;

    world.plane.tell_health_configs(Vec::new());
    until(&mut world, |health| {
        health.status == "unknown" && health.transition_reason == "disabled"
    })
    .await;

    world.plane.tell_health_configs(vec![every(5)]);
    let (cas, listener) = (world.cas.clone(), world.database.take().unwrap());
    let checking = tokio::spawn(async move { database_end(&cas, &listener).await });
    until(&mut world, |health| health.status == "healthy").await;
    patiently(checking).await.unwrap();
}

#[tokio::test]
async fn a_database_that_went_away_is_unhealthy_and_audited() {
    let mut world = World::start().await;
    until(&mut world, |health| health.status == "healthy").await;
    let listener = world.database.take().unwrap();
    drop(listener);
    world.plane.tell_health_configs(vec![every(5)]);
    until(&mut world, |health| {
        health.status == "unhealthy"
            && health.failed_layer == "tcp"
            && health.transition_reason == "threshold_reached"
    })
    .await;
    let event = patiently(world.seen.events.recv()).await.unwrap();
    assert_eq!(
        (event.event.as_str(), event.code.as_str()),
        ("db.health.change", "TDH00W")
    );
    assert_eq!(event.db_service, "own");
    assert_eq!(event.fields["layer"], "tcp");
    assert_eq!(event.fields["previous_status"], "healthy");
}
