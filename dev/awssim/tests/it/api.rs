//! The API, as the AWS SDK sees it.

use aws_credential_types::Credentials;
use aws_sdk_redshift::error::ProvideErrorMetadata;
use awssim::{Cluster, Fault, FaultKind, IdentityPolicy, Role, TrustPolicy};

use crate::{ACCESS, AWAY, DISCOVER, Fixture, HOME, KEY, SECRET, cluster_id, worker, world};

fn code(error: &impl ProvideErrorMetadata) -> String {
    error.code().unwrap_or("none").to_owned()
}

/// A world where the worker's own account has `n` clusters, 20 to a page at most.
fn paged_world(n: u32) -> awssim::World {
    let mut world = world();
    world.page_records_max = Some(20);
    for n in 0..n {
        let even = if n % 2 == 0 { "yes" } else { "no" };
        let cluster = Cluster::with([("even", even)], []);
        world.put_cluster(&cluster_id(HOME, &format!("c{n:03}")), cluster);
    }
    world
}

async fn ids(pages: aws_sdk_redshift::Client) -> Vec<String> {
    let mut stream = pages.describe_clusters().into_paginator().send();
    let mut ids = Vec::new();
    while let Some(page) = stream.next().await {
        ids.extend(
            page.unwrap()
                .clusters()
                .iter()
                .map(|c| c.cluster_identifier().unwrap().to_owned()),
        );
    }
    ids
}

#[tokio::test]
async fn a_listing_of_three_pages_has_every_cluster_once() {
    let fixture = Fixture::api(paged_world(45)).await;
    let ids = ids(fixture.redshift(worker())).await;
    let expected: Vec<String> = (0..45).map(|n| format!("c{n:03}")).collect();
    assert_eq!(ids, expected);
    let calls = fixture.sim.calls();
    assert_eq!(calls.len(), 3);
    assert_eq!(
        calls[0].principal.as_deref(),
        Some("arn:aws:iam::111111111111:user/worker")
    );
}

#[tokio::test]
async fn tags_filter_and_an_empty_page_is_not_the_end() {
    let fixture = Fixture::api(paged_world(45)).await;
    let empty = Fault::new(FaultKind::EmptyPage)
        .on("redshift", "DescribeClusters")
        .at_page(2);
    fixture.sim.fault(empty.times(1)).unwrap();
    assert_eq!(ids(fixture.redshift(worker())).await.len(), 45);

    let client = fixture.redshift(worker());
    let page = client
        .describe_clusters()
        .tag_keys("even")
        .tag_values("yes")
        .send()
        .await
        .unwrap();
    assert_eq!(page.clusters().len(), 20);
    let page = client
        .describe_clusters()
        .tag_values("maybe")
        .send()
        .await
        .unwrap();
    assert!(page.clusters().is_empty() && page.marker().is_none());
}

#[tokio::test]
async fn a_cluster_has_the_fields_that_discovery_imports() {
    let fixture = Fixture::api(world()).await;
    let client = fixture.redshift(fixture.assume(worker(), DISCOVER).await);
    let answer = client
        .describe_clusters()
        .cluster_identifier("c0")
        .send()
        .await
        .unwrap();
    let [cluster] = answer.clusters() else {
        panic!("{answer:?}")
    };
    let host = cluster.endpoint().unwrap().address().unwrap();
    assert!(host.starts_with("c0.") && host.ends_with(".us-east-1.redshift.amazonaws.com"));
    assert_eq!(cluster.endpoint().unwrap().port(), Some(5439));
    assert_eq!(cluster.db_name(), Some("dev"));
    assert!(
        cluster
            .cluster_namespace_arn()
            .unwrap()
            .contains(":222222222222:namespace:")
    );
    assert_eq!(cluster.multi_az(), Some("Disabled"));
    let tags: Vec<_> = cluster
        .tags()
        .iter()
        .map(|t| (t.key().unwrap(), t.value().unwrap()))
        .collect();
    assert_eq!(tags, [("a&b", "<c>"), ("env", "prod")]);

    fixture
        .sim
        .set_status(&cluster_id(AWAY, "c0"), "creating")
        .await
        .unwrap();
    let answer = client.describe_clusters().send().await.unwrap();
    assert!(answer.clusters()[0].endpoint().is_none());
    let gone = client
        .describe_clusters()
        .cluster_identifier("c9")
        .send()
        .await
        .unwrap_err();
    assert_eq!(
        (
            code(&gone).as_str(),
            gone.raw_response().unwrap().status().as_u16()
        ),
        ("ClusterNotFound", 404)
    );
}

#[tokio::test]
async fn a_role_is_assumed_with_its_external_id_only() {
    let fixture = Fixture::api(world()).await;
    let ask = |external_id: Option<&str>| {
        let request = fixture.sts(worker()).assume_role().role_arn(DISCOVER);
        request
            .role_session_name("it")
            .set_external_id(external_id.map(str::to_owned))
            .send()
    };
    for wrong in [None, Some("x-2")] {
        let denied = ask(wrong).await.unwrap_err();
        assert_eq!(code(&denied), "AccessDenied");
        let message = "User: arn:aws:iam::111111111111:user/worker is not authorized to perform: \
                       sts:AssumeRole on resource: arn:aws:iam::222222222222:role/discover";
        assert_eq!(denied.message(), Some(message));
    }
    let user = ask(Some("x-1")).await.unwrap().assumed_role_user.unwrap();
    assert_eq!(
        user.arn,
        "arn:aws:sts::222222222222:assumed-role/discover/it"
    );
    let calls = fixture.sim.calls();
    assert_eq!(calls[2].params["ExternalId"], "x-1");
    assert_eq!(calls[2].params["RoleArn"], DISCOVER);
}

#[tokio::test]
async fn a_chained_session_lasts_an_hour_at_most() {
    let fixture = Fixture::api(world()).await;
    let ask = |caller: Credentials, seconds: i32| {
        let request = fixture
            .sts(caller)
            .assume_role()
            .role_arn(ACCESS)
            .role_session_name("it");
        request.duration_seconds(seconds).send()
    };
    ask(worker(), 7200).await.unwrap();
    let too_long = ask(worker(), 7201).await.unwrap_err();
    assert!(too_long.message().unwrap().contains("MaxSessionDuration"));
    let session = fixture.assume(worker(), DISCOVER).await;
    ask(session.clone(), 3600).await.unwrap();
    let chained = ask(session, 3601).await.unwrap_err();
    assert_eq!(code(&chained), "ValidationError");
    assert!(chained.message().unwrap().contains("1 hour session limit"));
}

#[tokio::test]
async fn across_accounts_trust_alone_is_not_enough() {
    let mut world = world();
    world
        .account(HOME)
        .users
        .get_mut("worker")
        .unwrap()
        .policies
        .clear();
    let fixture = Fixture::api(world).await;
    let sts = fixture.sts(worker());
    let request = sts.assume_role().role_arn(ACCESS).role_session_name("it");
    assert_eq!(code(&request.send().await.unwrap_err()), "AccessDenied");
    assert_eq!(
        sts.get_caller_identity().send().await.unwrap().account(),
        Some(HOME)
    );
}

#[tokio::test]
async fn a_source_identity_needs_its_own_permission_and_stays_through_the_chain() {
    let mut world = world();
    let trust = TrustPolicy::allow_actions([HOME], ["sts:AssumeRole"]);
    world
        .account(AWAY)
        .put_role("plain", Role::new(trust, vec![]));
    let fixture = Fixture::api(world).await;
    let ask = |role: &str| {
        let request = fixture
            .sts(worker())
            .assume_role()
            .role_arn(role)
            .role_session_name("it");
        request.external_id("x-1").source_identity("ann").send()
    };
    let denied = ask("arn:aws:iam::222222222222:role/plain")
        .await
        .unwrap_err();
    assert!(denied.message().unwrap().contains("sts:SetSourceIdentity"));
    assert_eq!(ask(DISCOVER).await.unwrap().source_identity(), Some("ann"));
}

#[tokio::test]
async fn an_expired_session_a_wrong_secret_and_an_unknown_key_are_told_apart() {
    let fixture = Fixture::api(world()).await;
    let session = fixture.assume(worker(), DISCOVER).await;
    fixture
        .redshift(session.clone())
        .describe_clusters()
        .send()
        .await
        .unwrap();
    let refused = |credentials: Credentials| {
        let request = fixture.redshift(credentials).describe_clusters();
        async { code(&request.send().await.unwrap_err()) }
    };
    let key = |id: &str, secret: &str| Credentials::new(id, secret, None, None, "it");
    assert_eq!(refused(key(KEY, "wrong")).await, "SignatureDoesNotMatch");
    assert_eq!(
        refused(key("AKIANOBODY", SECRET)).await,
        "InvalidClientTokenId"
    );
    let (id, secret) = (session.access_key_id(), session.secret_access_key());
    let token = Some("other".to_owned());
    assert_eq!(
        refused(Credentials::new(id, secret, token, None, "it")).await,
        "InvalidClientTokenId"
    );
}

#[tokio::test]
async fn a_session_ends_on_the_simulations_clock() {
    let fixture = Fixture::api(world()).await;
    let session = fixture.assume(worker(), ACCESS).await;
    fixture.sim.set_clock_offset(3601);
    // One retry: the SDK learns the simulation's time from the Date header of the first refusal.
    let sts = fixture.sts(session).config().to_builder();
    let retry = aws_sdk_sts::config::retry::RetryConfig::standard().with_max_attempts(2);
    let sts = aws_sdk_sts::Client::from_conf(sts.retry_config(retry).build());
    let expired = sts.get_caller_identity().send().await.unwrap_err();
    assert_eq!(code(&expired), "ExpiredToken");
    let codes: Vec<_> = fixture
        .sim
        .calls()
        .into_iter()
        .filter_map(|call| call.error)
        .collect();
    assert_eq!(codes, ["SignatureDoesNotMatch", "ExpiredToken"]);
}

#[tokio::test]
async fn credentials_are_refused_beyond_the_callers_policy() {
    let fixture = Fixture::api(world()).await;
    let client = fixture.redshift(fixture.assume(worker(), ACCESS).await);
    let ask = |user: &str, db: &str| {
        client
            .get_cluster_credentials()
            .cluster_identifier("c0")
            .db_user(user)
            .db_name(db)
            .send()
    };
    let given = ask("alice", "dev").await.unwrap();
    assert_eq!(given.db_user(), Some("IAM:alice"));
    let denied = ask("bob", "dev").await.unwrap_err();
    assert_eq!(code(&denied), "AccessDenied");
    let message = "User: arn:aws:sts::222222222222:assumed-role/access/it is not authorized to \
                   perform: redshift:GetClusterCredentials on resource: \
                   arn:aws:redshift:us-east-1:222222222222:dbuser:c0/bob because no \
                   identity-based policy allows the redshift:GetClusterCredentials action";
    assert_eq!(denied.message(), Some(message));
    assert_eq!(
        code(&ask("alice", "prod").await.unwrap_err()),
        "AccessDenied"
    );
    let created = client
        .get_cluster_credentials()
        .cluster_identifier("c0")
        .db_user("alice");
    let denied = created.auto_create(true).send().await.unwrap_err();
    assert!(
        denied
            .message()
            .unwrap()
            .contains("redshift:CreateClusterUser")
    );
}

#[tokio::test]
async fn parameters_are_held_to_their_constraints() {
    let fixture = Fixture::api(world()).await;
    let client = fixture.redshift(worker());
    let ask = |user: &str, seconds: i32| {
        let request = client
            .get_cluster_credentials()
            .cluster_identifier("c0")
            .db_user(user);
        request.duration_seconds(seconds).send()
    };
    assert_eq!(
        code(&ask("alice", 899).await.unwrap_err()),
        "ValidationError"
    );
    assert_eq!(
        code(&ask("alice", 3601).await.unwrap_err()),
        "ValidationError"
    );
    assert_eq!(
        code(&ask("1alice", 900).await.unwrap_err()),
        "InvalidParameterValue"
    );
    assert_eq!(
        code(&ask("alice", 900).await.unwrap_err()),
        "ClusterNotFound"
    );
    let short = client
        .describe_clusters()
        .max_records(19)
        .send()
        .await
        .unwrap_err();
    assert_eq!(code(&short), "ValidationError");
    let marker = client
        .describe_clusters()
        .marker("made-up")
        .send()
        .await
        .unwrap_err();
    assert_eq!(code(&marker), "InvalidParameterValue");
    let request = fixture
        .sts(worker())
        .assume_role()
        .role_arn(ACCESS)
        .role_session_name("a b");
    assert_eq!(code(&request.send().await.unwrap_err()), "ValidationError");
}

#[tokio::test]
async fn a_region_that_is_not_enabled_looks_like_a_bad_key() {
    let fixture = Fixture::api(world()).await;
    let client = fixture.redshift(worker());
    let elsewhere = aws_sdk_redshift::config::Region::new("ap-east-1");
    let other = aws_sdk_redshift::config::Builder::default().region(elsewhere);
    let request = client
        .describe_clusters()
        .customize()
        .config_override(other);
    assert_eq!(
        code(&request.send().await.unwrap_err()),
        "InvalidClientTokenId"
    );
}

#[tokio::test]
async fn ordered_faults_strike_where_they_were_ordered() {
    let fixture = Fixture::api(paged_world(30)).await;
    let client = fixture.redshift(worker());
    let order = |kind: FaultKind| {
        let fault = Fault::new(kind)
            .on("redshift", "DescribeClusters")
            .in_account(HOME)
            .times(1);
        fixture.sim.fault(fault).unwrap();
        client.describe_clusters().send()
    };
    let throttled = order(FaultKind::Throttling).await.unwrap_err();
    assert_eq!(
        (code(&throttled).as_str(), throttled.message()),
        ("Throttling", Some("Rate exceeded"))
    );
    assert_eq!(
        code(&order(FaultKind::AccessDenied).await.unwrap_err()),
        "AccessDenied"
    );
    assert_eq!(
        code(&order(FaultKind::InternalFailure).await.unwrap_err()),
        "InternalFailure"
    );
    for broken in [FaultKind::Reset, FaultKind::TruncatedBody] {
        let error = order(broken).await.unwrap_err();
        assert!(error.as_service_error().is_none(), "{error:?}");
    }
    let nonsense = Some("z".to_owned());
    let field = FaultKind::MalformedField {
        element: "Encrypted".to_owned(),
        text: nonsense,
    };
    assert!(order(field).await.is_err());
    order(FaultKind::Delay { ms: 1 }).await.unwrap();
    let struck = fixture
        .sim
        .calls()
        .iter()
        .filter(|call| call.fault.is_some())
        .count();
    assert_eq!(struck, 7);

    let second = Fault::new(FaultKind::InternalFailure)
        .on("redshift", "DescribeClusters")
        .at_page(2);
    fixture.sim.fault(second).unwrap();
    let first = client.describe_clusters().send().await.unwrap();
    let rest = client
        .describe_clusters()
        .set_marker(first.marker)
        .send()
        .await;
    assert_eq!(code(&rest.unwrap_err()), "InternalFailure");
    fixture.sim.clear_faults();
}

#[tokio::test]
async fn an_explicit_deny_of_a_changed_role_counts_at_once() {
    let fixture = Fixture::api(world()).await;
    let session = fixture.assume(worker(), DISCOVER).await;
    let client = fixture.redshift(session);
    client.describe_clusters().send().await.unwrap();
    let policies = vec![
        IdentityPolicy::allow(["*"], ["*"]),
        IdentityPolicy::deny(["redshift:*"], ["*"]),
    ];
    fixture
        .sim
        .put_role(
            AWAY,
            "discover",
            Role::new(TrustPolicy::allow(["*"]), policies),
        )
        .unwrap();
    let denied = client.describe_clusters().send().await.unwrap_err();
    assert!(
        denied
            .message()
            .unwrap()
            .ends_with("explicit deny in an identity-based policy")
    );
}
