use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::*;

fn with_vpc_endpoint(id: &str) -> Cluster {
    let endpoint = Endpoint::builder()
        .address(format!("{id}.example"))
        .port(5439)
        .vpc_endpoints(VpcEndpoint::builder().vpc_endpoint_id("vpce-1").build());
    cluster(id)
        .endpoint(endpoint.build())
        .vpc_id("vpc-1")
        .cluster_version("1.0")
        .custom_domain_name("dw.example.com")
        .tags(tag("env", "prod"))
        .build()
}

fn access(name: &str) -> EndpointAccess {
    EndpointAccess::builder()
        .endpoint_name(name)
        .cluster_identifier("c1")
        .endpoint_status("active")
        .address(format!("{name}-endpoint-x.example"))
        .port(5439)
        .vpc_endpoint(VpcEndpoint::builder().vpc_id("vpc-9").build())
        .build()
}

#[test]
fn a_vpc_endpoint_is_a_database_of_its_cluster_with_the_clusters_certificate() {
    let memory = Memory::default();
    let cluster = with_vpc_endpoint("c1");
    let found = convert_endpoint(&everything(), &cluster, &access("private"), &memory);
    let found = found.unwrap().unwrap();
    let database = &found.database;
    assert_eq!(
        database.name.as_str(),
        "c1-private-redshift-us-west-2-111122223333"
    );
    assert_eq!(
        database.identity,
        "arn:aws:redshift:us-west-2:111122223333:cluster:c1#vpc-endpoint/private"
    );
    assert_eq!(database.uri.to_string(), "private-endpoint-x.example:5439");
    assert_eq!(database.tls.server_name.as_deref(), Some("c1.example"));
    assert_eq!(database.aws.redshift_cluster_id.as_deref(), Some("c1"));
    assert_eq!(
        own_labels(&found),
        [
            ("custom-domain", "dw.example.com"),
            ("endpoint-type", "vpc-endpoint"),
            ("engine-version", "1.0"),
            ("env", "prod"),
            ("namespace", "0b1c"),
            ("status", "active"),
            ("vpc-id", "vpc-9"),
        ]
    );
}

#[test]
fn a_vpc_endpoint_of_anothers_cluster_of_the_same_name_is_not_ours() {
    let memory = Memory::default();
    let mut foreign = access("private");
    foreign.resource_owner = Some("444455556666".to_owned());
    let found = convert_endpoint(&everything(), &with_vpc_endpoint("c1"), &foreign, &memory);
    assert_eq!(found.unwrap(), None);
}

#[tokio::test]
async fn clusters_and_their_vpc_endpoints_are_found_and_the_filter_takes_either_away() {
    let aws = Aws::start(|call| match call.action.as_str() {
        "DescribeClusters" => page(&["a", "b"], ""),
        _ => endpoints(&[("a", "private"), ("gone", "other")]),
    })
    .await;
    let observed = aws.scan(&everything()).await;
    assert!(matches!(observed, Observed::Complete(_)), "{observed:?}");
    let types = |observed| {
        let seen = seen(observed).into_iter();
        seen.map(|(_, kind)| kind.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(types(&observed), ["cluster", "vpc-endpoint", "cluster"]);

    let kind = DatabaseKind::Redshift;
    let only_endpoints = aws.scan(&without(kind, &["cluster"])).await;
    assert_eq!(types(&only_endpoints), ["vpc-endpoint"]);
    let by_label = aws.scan(&only("vpc-id", "vpc-9")).await;
    assert_eq!(types(&by_label), ["vpc-endpoint"]);

    let before = aws.calls("DescribeEndpointAccess");
    let only_clusters = aws.scan(&without(kind, &["vpc-endpoint"])).await;
    assert_eq!(types(&only_clusters), ["cluster", "cluster"]);
    assert_eq!(aws.calls("DescribeEndpointAccess"), before);
}

fn with_endpoint_mark(answer: Answer) -> Answer {
    let (status, body) = answer;
    let mark = "<VpcEndpoints><VpcEndpoint><VpcEndpointId>vpce-1</VpcEndpointId></VpcEndpoint></VpcEndpoints></Endpoint>";
    (status, body.replace("</Endpoint>", mark))
}

#[tokio::test]
async fn a_withheld_permission_matters_only_where_a_cluster_has_vpc_endpoints() {
    let aws = Aws::start(|call| match call.action.as_str() {
        "DescribeClusters" => page(&["a"], ""),
        _ => xml_refusal("AccessDenied"),
    })
    .await;
    for _ in 0..3 {
        let observed = aws.scan(&everything()).await;
        assert!(matches!(observed, Observed::Complete(_)), "{observed:?}");
    }
    assert_eq!(aws.calls("DescribeEndpointAccess"), 1);

    let aws = Aws::start(|call| match call.action.as_str() {
        "DescribeClusters" => with_endpoint_mark(page(&["a"], "")),
        _ => xml_refusal("AccessDenied"),
    })
    .await;
    for _ in 0..3 {
        let observed = aws.scan(&everything()).await;
        assert_eq!(ids(&observed), ["a"]);
        let cause = observed.cause().unwrap();
        assert_eq!(cause.action(), DESCRIBE_ENDPOINT_ACCESS);
        assert!(!cause.is_denial() && !cause.broke_off());
    }
    assert_eq!(aws.calls("DescribeEndpointAccess"), 1);
}

#[tokio::test]
async fn a_permission_that_is_taken_away_deletes_no_vpc_endpoint() {
    let allowed = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&allowed);
    let aws = Aws::start(move |call| match call.action.as_str() {
        "DescribeClusters" => page(&["a"], ""),
        _ if switch.load(Ordering::Relaxed) => endpoints(&[("a", "private")]),
        _ => xml_refusal("AccessDenied"),
    })
    .await;
    assert!(matches!(
        aws.scan(&everything()).await,
        Observed::Complete(_)
    ));
    allowed.store(false, Ordering::Relaxed);
    let observed = aws.scan(&everything()).await;
    let cause = observed.cause().unwrap();
    assert_eq!(cause.action(), DESCRIBE_ENDPOINT_ACCESS);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_asked_about_again_after_a_while() {
    let memory = Memory::default();
    let denied = || {
        let class = tidegate_aws::AwsErrorClass::AccessDenied;
        FetchError::from(tidegate_aws::AwsFailure::new(class, "a:B", "no"))
    };
    assert!(
        memory
            .refusals
            .remember("a:B", &everything(), denied())
            .is_ok()
    );
    assert!(memory.refusals.known("a:B", &everything()).is_some());
    assert!(memory.refusals.known("a:C", &everything()).is_none());
    tokio::time::advance(REMEMBERED_FOR).await;
    assert!(memory.refusals.known("a:B", &everything()).is_none());
}

#[tokio::test]
async fn vpc_endpoints_that_fail_for_another_reason_make_the_scan_partial() {
    let aws = Aws::start(|call| match call.action.as_str() {
        "DescribeClusters" => page(&["a"], ""),
        _ => xml_refusal("Throttling"),
    })
    .await;
    let observed = aws.scan(&everything()).await;
    assert_eq!(ids(&observed), ["a"]);
    assert_eq!(observed.cause().unwrap().class(), "throttled");
}
