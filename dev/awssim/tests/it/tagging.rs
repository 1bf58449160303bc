//! The tagging API, as the AWS SDK sees it.

use aws_sdk_redshift::error::ProvideErrorMetadata;
use aws_sdk_resourcegroupstagging::types::{ResourceTagMapping, TagFilter};
use awssim::{
    Cluster, DbCluster, DbInstance, DbProxy, Fault, FaultKind, IdentityPolicy, RateLimit, User,
    Workgroup, World,
};

use crate::{Fixture, HOME, KEY, SECRET, cluster_id, world};

/// Five tagged workgroups and one without tags, and one resource of each other kind.
fn tagged_world() -> World {
    let mut world = world();
    for n in 0..5 {
        let number = n.to_string();
        let tags = [("env", "prod"), ("n", number.as_str())];
        let id = cluster_id(HOME, &format!("etl-{n}"));
        world.put(&id, Workgroup::with(tags));
    }
    world.put(&cluster_id(HOME, "bare"), Workgroup::default());
    let cluster = Cluster::listed([("env", "prod")]);
    world.put_cluster(&cluster_id(HOME, "dw"), cluster);
    let tags = [("env", "dev")];
    let aurora = DbCluster::with("aurora-postgresql", tags, []);
    world.put(&cluster_id(HOME, "aurora"), aurora);
    world.put(&cluster_id(HOME, "db"), DbInstance::with("mysql", tags));
    world.put(&cluster_id(HOME, "pool"), DbProxy::with(tags));
    world
}

fn tag(of: &ResourceTagMapping, key: &str) -> Option<String> {
    let found = of.tags().iter().find(|tag| tag.key() == key);
    found.map(|tag| tag.value().to_owned())
}

#[tokio::test]
async fn one_listing_has_the_tags_of_all_workgroups_and_ends_with_an_empty_token() {
    let mut world = tagged_world();
    world.page_records_max = Some(2);
    let fixture = Fixture::api(world).await;
    let (client, mut token, mut found) = (fixture.tagging(), None, Vec::new());
    let last = loop {
        let page = client
            .get_resources()
            .resource_type_filters("redshift-serverless:workgroup")
            .resources_per_page(100)
            .set_pagination_token(token)
            .send()
            .await
            .unwrap();
        let next = page.pagination_token().map(str::to_owned);
        found.extend(page.resource_tag_mapping_list.unwrap_or_default());
        if next.as_deref().is_none_or(str::is_empty) {
            break next;
        }
        token = next;
    };
    assert_eq!(last.as_deref(), Some(""));
    let mut numbers: Vec<_> = found.iter().filter_map(|of| tag(of, "n")).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, ["0", "1", "2", "3", "4"]);
    assert_eq!((found.len(), fixture.sim.calls().len()), (5, 3));

    let listed = fixture.serverless().list_workgroups().send().await.unwrap();
    let arn = listed.workgroups()[1].workgroup_arn().unwrap();
    assert!(found.iter().any(|of| of.resource_arn() == Some(arn)));
    let calls = fixture.sim.calls();
    assert_eq!(
        calls[0].params["ResourceTypeFilters"],
        "redshift-serverless:workgroup"
    );
}

#[tokio::test]
async fn types_and_tags_filter_and_what_has_no_tags_is_not_listed() {
    let fixture = Fixture::api(tagged_world()).await;
    let ask = async |types: &[&str], tags: &[(&str, &[&str])]| {
        let filter = |(key, values): &(&str, &[&str])| {
            let builder = TagFilter::builder().key(*key);
            let values = values.iter().map(|&value| value.to_owned()).collect();
            builder.set_values(Some(values)).build()
        };
        let types = types.iter().map(|&name| name.to_owned()).collect();
        let request = fixture.tagging().get_resources();
        let request = request.set_resource_type_filters(Some(types));
        let tags = tags.iter().map(filter).collect();
        let answer = request.set_tag_filters(Some(tags)).send().await;
        answer.map(|page| {
            let all = page.resource_tag_mapping_list.unwrap_or_default();
            let arns = all.into_iter().filter_map(|of| of.resource_arn);
            arns.collect::<Vec<String>>()
        })
    };
    assert_eq!(ask(&[], &[]).await.unwrap().len(), 9);
    assert_eq!(ask(&["redshift-serverless"], &[]).await.unwrap().len(), 5);
    assert_eq!(ask(&["rds"], &[]).await.unwrap().len(), 3);
    let arns = ask(&["redshift:cluster", "rds:db"], &[]).await.unwrap();
    let expected = [
        "arn:aws:rds:us-east-1:111111111111:db:db",
        "arn:aws:redshift:us-east-1:111111111111:cluster:dw",
    ];
    assert_eq!(arns, expected);
    let prod: (&str, &[&str]) = ("env", &["prod", "test"]);
    assert_eq!(ask(&[], &[prod]).await.unwrap().len(), 6);
    let both = [prod, ("n", &["1", "2"])];
    assert_eq!(ask(&[], &both).await.unwrap().len(), 2);
    assert_eq!(ask(&[], &[("n", &[])]).await.unwrap().len(), 5);
    let unknown = ask(&["redshift_serverless"], &[]).await.unwrap_err();
    assert_eq!(unknown.code(), Some("NotSimulated"));

    let arn = expected[0];
    let named = fixture.tagging().get_resources().resource_arn_list(arn);
    let answer = named.clone().send().await.unwrap();
    assert_eq!(answer.resource_tag_mapping_list().len(), 1);
    let both = named.resource_type_filters("rds").send().await;
    assert_eq!(both.unwrap_err().code(), Some("InvalidParameterException"));
    let too_many = fixture.tagging().get_resources().resources_per_page(101);
    let refused = too_many.send().await.unwrap_err();
    assert_eq!(refused.code(), Some("InvalidParameterException"));
}

#[tokio::test]
async fn the_tagging_api_has_its_own_permission_rate_and_error_codes() {
    let fixture = Fixture::api(tagged_world()).await;
    let code = async || {
        let answer = fixture.tagging().get_resources().send().await;
        answer
            .err()
            .and_then(|error| error.code().map(str::to_owned))
    };
    let limit = RateLimit {
        per_second: 0.0,
        burst: 1,
    };
    let limits = [("tagging:GetResources".to_owned(), limit)];
    fixture.sim.set_rate_limits(limits.into()).unwrap();
    assert_eq!(code().await, None);
    assert_eq!(code().await.as_deref(), Some("ThrottledException"));
    fixture.sim.set_rate_limits([].into()).unwrap();

    let broken = Fault::new(FaultKind::InternalFailure).on("tagging", "GetResources");
    fixture.sim.fault(broken.times(1)).unwrap();
    assert_eq!(code().await.as_deref(), Some("InternalServiceException"));

    let key = awssim::AccessKey {
        id: KEY.to_owned(),
        secret: SECRET.to_owned(),
    };
    let without = User {
        access_keys: vec![key],
        policies: vec![IdentityPolicy::allow(["redshift-serverless:*"], ["*"])],
        ..User::default()
    };
    fixture.sim.put_user(HOME, "worker", without).unwrap();
    let denied = fixture.tagging().get_resources().send().await.unwrap_err();
    assert_eq!(denied.code(), Some("AccessDeniedException"));
    assert!(denied.message().unwrap().contains("tag:GetResources"));
}

#[tokio::test]
async fn tags_change_late_here_as_in_other_listings() {
    let mut world = tagged_world();
    world.tags_lag_ms = 30_000;
    let fixture = Fixture::api(world).await;
    let etl = Workgroup::with([("n", "new")]);
    fixture
        .sim
        .put_workgroup(&cluster_id(HOME, "etl-0"), etl)
        .await
        .unwrap();
    let news = async || {
        let page = fixture.tagging().get_resources().send().await.unwrap();
        let all = page.resource_tag_mapping_list.unwrap_or_default();
        let is_new = |of: &&ResourceTagMapping| tag(of, "n").as_deref() == Some("new");
        all.iter().filter(is_new).count()
    };
    assert_eq!(news().await, 0);
    fixture.sim.advance_clock(31);
    assert_eq!(news().await, 1);
}
