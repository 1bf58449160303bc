//! Request rates, lag and size.

use std::time::Instant;

use aws_credential_types::Credentials;
use aws_sdk_redshift::error::ProvideErrorMetadata;
use awssim::{
    Cluster, GENERATED_KEY, GENERATED_ROLE, GENERATED_SECRET, RateLimit, SimError, Workgroup, World,
};

use crate::{AWAY, DISCOVER, Fixture, HOME, cluster_id, worker, world};

#[tokio::test]
async fn a_bucket_throttles_one_account_and_fills_again() {
    let mut world = world();
    let limit = RateLimit {
        per_second: 0.1,
        burst: 2,
    };
    let name = "redshift:DescribeClusters".to_owned();
    world.rate_limits.insert(name, limit);
    let fixture = Fixture::api(world).await;
    let home = fixture.redshift(worker());
    let away = fixture.redshift(fixture.assume(worker(), DISCOVER).await);
    home.describe_clusters().send().await.unwrap();
    home.describe_clusters().send().await.unwrap();
    let throttled = home.describe_clusters().send().await.unwrap_err();
    assert_eq!(throttled.code(), Some("Throttling"));
    assert_eq!(throttled.raw_response().unwrap().status().as_u16(), 400);
    away.describe_clusters().send().await.unwrap();
    home.describe_endpoint_access().send().await.unwrap();
    fixture.sim.advance_clock(11);
    home.describe_clusters().send().await.unwrap();

    let serverless = [(
        "redshift-serverless:ListWorkgroups".to_owned(),
        RateLimit {
            per_second: 0.0,
            burst: 1,
        },
    )];
    fixture.sim.set_rate_limits(serverless.into()).unwrap();
    home.describe_clusters().send().await.unwrap();
    let client = fixture.serverless();
    client.list_workgroups().send().await.unwrap();
    let throttled = client.list_workgroups().send().await.unwrap_err();
    assert_eq!(throttled.code(), Some("ThrottlingException"));
}

#[tokio::test]
async fn what_is_new_appears_late_and_tags_change_late() {
    let mut world = world();
    (world.appear_after_ms, world.tags_lag_ms) = (60_000, 30_000);
    let fixture = Fixture::api(world).await;
    let (new, old) = (cluster_id(AWAY, "new"), cluster_id(AWAY, "c0"));
    let client = fixture.redshift(fixture.assume(worker(), DISCOVER).await);
    let seen = async || {
        let answer = client.describe_clusters().send().await.unwrap();
        let clusters = answer.clusters.unwrap();
        let first = clusters[0]
            .tags()
            .iter()
            .any(|tag| tag.key() == Some("fresh"));
        (clusters.len(), first)
    };
    fixture
        .sim
        .add_cluster(&new, Cluster::listed([]))
        .await
        .unwrap();
    let tags = [("fresh".to_owned(), "yes".to_owned())];
    fixture.sim.set_tags(&old, tags.into()).await.unwrap();
    assert_eq!(seen().await, (1, false));
    fixture.sim.advance_clock(31);
    assert_eq!(seen().await, (1, true));
    fixture.sim.advance_clock(30);
    assert_eq!(seen().await, (2, true));

    let etl = cluster_id(HOME, "etl");
    fixture
        .sim
        .put_workgroup(&etl, Workgroup::default())
        .await
        .unwrap();
    let listed = async || fixture.serverless().list_workgroups().send().await.unwrap();
    assert!(listed().await.workgroups().is_empty());
    fixture.sim.advance_clock(61);
    assert_eq!(listed().await.workgroups().len(), 1);
    fixture.sim.remove_workgroup(&etl).await.unwrap();
    assert!(listed().await.workgroups().is_empty());
    let gone = fixture.sim.remove_workgroup(&etl).await;
    assert!(matches!(gone, Err(SimError::Unknown { .. })));
}

#[tokio::test]
async fn a_deleted_cluster_flickers_back_in_one_listing() {
    let mut world = world();
    (world.deleted_flicker, world.page_records_max) = (true, Some(1));
    world.put_cluster(&cluster_id(HOME, "a"), Cluster::listed([]));
    world.put_cluster(&cluster_id(HOME, "b"), Cluster::listed([]));
    let fixture = Fixture::api(world).await;
    let client = fixture.redshift(worker());
    let listed = async || {
        let pages = client.describe_clusters().into_paginator().items().send();
        let clusters = pages.collect::<Result<Vec<_>, _>>().await.unwrap();
        let ids = clusters.into_iter().filter_map(|it| it.cluster_identifier);
        ids.collect::<Vec<String>>().concat()
    };
    assert_eq!(listed().await, "ab");
    let deleted = cluster_id(HOME, "a");
    fixture.sim.remove_cluster(&deleted).await.unwrap();
    let listings = [listed().await, listed().await, listed().await];
    assert_eq!(listings, ["b", "ab", "b"]);
}

#[tokio::test]
async fn a_hundred_thousand_clusters_are_listed_without_a_listener() {
    let started = Instant::now();
    let fixture = Fixture::api(World::generate(1, 100, 10, 100)).await;
    println!("100,000 clusters after {:?}", started.elapsed());
    let key = Credentials::new(GENERATED_KEY, GENERATED_SECRET, None, None, "it");
    let account = World::generated_account(42);
    let role = format!("arn:aws:iam::{account}:role/{GENERATED_ROLE}");
    let client = fixture.redshift(fixture.assume(key, &role).await);
    let started = Instant::now();
    for _ in 0..10 {
        let page = client.describe_clusters().send().await.unwrap();
        assert_eq!((page.clusters().len(), page.marker()), (100, None));
    }
    println!("one listing of 100 clusters: {:?}", started.elapsed() / 10);
    let info = fixture.sim.info().await;
    assert!(info.clusters.is_empty());
    assert_eq!(std::fs::read_to_string(info.hosts_file).unwrap(), "");
}
