mod endpoints;
mod faults;
mod same;

use aws_sdk_redshift::types::{Endpoint, Tag, VpcEndpoint, builders::ClusterBuilder};
use tidegate_core::{AssumeRole, DatabaseKind};

use super::*;
use crate::{
    fetch::{
        Viewpoint,
        refusals::REMEMBERED_FOR,
        testing::{self, Answer, Aws, ROLE, own_labels, seen, without, xml, xml_refusal},
    },
    scan::Observed,
};

const NAMESPACE: &str = "arn:aws:redshift:us-west-2:111122223333:namespace:0b1c";

fn everything() -> ScanScope {
    testing::everything(DatabaseKind::Redshift)
}

fn only(key: &str, value: &str) -> ScanScope {
    testing::only(DatabaseKind::Redshift, key, value)
}

fn cluster(id: &str) -> ClusterBuilder {
    let endpoint = Endpoint::builder()
        .address(format!("{id}.abc123.us-west-2.redshift.amazonaws.com"))
        .port(5439);
    Cluster::builder()
        .cluster_identifier(id)
        .cluster_status("available")
        .cluster_namespace_arn(NAMESPACE)
        .endpoint(endpoint.build())
}

fn tag(key: &str, value: &str) -> Tag {
    Tag::builder().key(key).value(value).build()
}

fn found(scope: &ScanScope, cluster: ClusterBuilder) -> Found {
    convert(scope, &cluster.build()).unwrap().unwrap()
}

#[test]
fn a_cluster_becomes_the_database_that_the_known_scheme_gives() {
    let found = found(
        &everything(),
        cluster("analytics")
            .cluster_version("1.0")
            .vpc_id("vpc-1")
            .encrypted(true)
            .tags(tag("env", "dev")),
    );
    let database = found.database;
    assert_eq!(
        database.name.as_str(),
        "analytics-redshift-us-west-2-111122223333"
    );
    assert_eq!(database.discovered_name, "analytics");
    assert_eq!(
        database.identity,
        "arn:aws:redshift:us-west-2:111122223333:cluster:analytics"
    );
    assert_eq!(
        database.uri.to_string(),
        "analytics.abc123.us-west-2.redshift.amazonaws.com:5439"
    );
    assert_eq!(database.description, "Redshift cluster in us-west-2");
    assert_eq!(
        database.aws.redshift_cluster_id.as_deref(),
        Some("analytics")
    );
    assert_eq!(database.unavailable, "");
    let labels: Vec<_> = database.labels.iter().collect();
    assert_eq!(
        labels,
        [
            ("account-id", "111122223333"),
            ("encrypted", "true"),
            ("endpoint-type", "cluster"),
            ("engine-version", "1.0"),
            ("env", "dev"),
            ("namespace", "0b1c"),
            ("region", "us-west-2"),
            ("status", "available"),
            ("tidegate.dev/cloud", "AWS"),
            ("tidegate.dev/discovery-group", "prod"),
            ("tidegate.dev/discovery-type", "redshift"),
            ("tidegate.dev/origin", "cloud"),
            ("vpc-id", "vpc-1"),
        ]
    );
}

#[test]
fn the_name_is_made_of_the_name_tag_or_of_the_identifier_and_where_it_is() {
    let plain = found(&everything(), cluster("c1")).name;
    assert_eq!((plain.base.as_str(), plain.tagged), ("c1", false));
    assert_eq!(plain.suffix, ["redshift", "us-west-2", "111122223333"]);

    let tagged = found(
        &everything(),
        cluster("c1").tags(tag("TeleportDatabaseName", "sales")),
    );
    assert_eq!(
        (tagged.name.base.as_str(), tagged.name.tagged),
        ("sales", true)
    );
    assert_eq!(tagged.database.name.as_str(), "sales");
}

#[test]
fn a_tag_never_steers_a_generated_label() {
    let forged = cluster("c1")
        .tags(tag("account-id", "000000000000"))
        .tags(tag("tidegate.dev/origin", "config"));
    assert_eq!(
        convert(&only("account-id", "000000000000"), &forged.clone().build()).unwrap(),
        None
    );
    let labels = found(&everything(), forged).database.labels;
    assert_eq!(labels.get("account-id"), Some("111122223333"));
    assert_eq!(labels.get("aws/account-id"), Some("000000000000"));
    assert_eq!(labels.get("teleport.dev/origin"), Some("cloud"));
}

#[test]
fn only_what_the_matcher_asks_for_is_found_by_tags_and_generated_labels_alike() {
    let cluster = cluster("c1").tags(tag("env", "prod")).build();
    assert!(convert(&only("env", "prod"), &cluster).unwrap().is_some());
    assert!(
        convert(&only("region", "us-*"), &cluster)
            .unwrap()
            .is_some()
    );
    assert!(convert(&only("env", "dev"), &cluster).unwrap().is_none());
}

#[test]
fn a_database_names_the_resource_whose_matcher_found_it() {
    let label = |config: Option<&str>| {
        let scope = ScanScope {
            config: config.map(str::to_owned),
            ..everything()
        };
        let found = found(&scope, cluster("c1"));
        own_labels(&found);
        let config = found.database.labels.get(labels::DISCOVERY_CONFIG);
        config.map(str::to_owned)
    };
    assert_eq!(label(Some("team")).as_deref(), Some("team"));
    assert_eq!(label(None), None);
}

#[test]
fn a_paused_cluster_stays_and_says_why_it_cannot_be_connected_to() {
    let database = found(&everything(), cluster("c1").cluster_status("paused")).database;
    assert_eq!(database.unavailable, "paused");
    assert_eq!(database.labels.get("status"), Some("paused"));
}

#[test]
fn a_status_that_nobody_knows_counts_as_available() {
    assert_eq!(availability("defragmenting"), Availability::Unknown);
    let database = found(&everything(), cluster("c1").cluster_status("defragmenting")).database;
    assert_eq!(database.unavailable, "");
    for status in ["available", "resizing", "available, prep-for-resize"] {
        assert_eq!(availability(status), Availability::Available, "{status}");
    }
    for status in ["creating", "deleting", "incompatible-network"] {
        assert_eq!(availability(status), Availability::Unavailable, "{status}");
    }
}

#[test]
fn without_an_address_only_a_new_cluster_is_no_doubt() {
    let bare = |status| {
        let empty = Endpoint::builder().address("").build();
        cluster("c1").cluster_status(status).endpoint(empty).build()
    };
    assert_eq!(convert(&everything(), &bare("creating")).unwrap(), None);
    let error = convert(&everything(), &bare("deleting")).unwrap_err();
    assert!(matches!(error, FetchError::NoAddress { .. }), "{error}");
    // A cluster that the scope does not ask for is none of its doubts.
    assert_eq!(convert(&only("env", "x"), &bare("deleting")).unwrap(), None);
}

#[test]
fn the_account_comes_from_the_namespace_else_from_the_role() {
    let mut scope = everything();
    let without = || cluster("c1").set_cluster_namespace_arn(None);
    let error = convert(&scope, &without().build()).unwrap_err();
    assert!(error.to_string().contains("ClusterNamespaceArn"), "{error}");

    scope.assume_role = Some(AssumeRole {
        role_arn: ROLE.parse().unwrap(),
        external_id: None,
    });
    let of_role = found(&scope, without()).database;
    assert_eq!(
        of_role.identity,
        "arn:aws-us-gov:redshift:us-west-2:999988887777:cluster:c1"
    );
    assert_eq!(of_role.aws.assume_role, scope.assume_role);

    let of_namespace = found(&scope, cluster("c1")).database;
    assert_eq!(of_namespace.labels.get("account-id"), Some("111122223333"));
    for bad in ["nonsense", "arn:aws:redshift:us-west-2:123:namespace:x"] {
        let cluster = cluster("c1").cluster_namespace_arn(bad).build();
        assert!(convert(&scope, &cluster).is_err(), "{bad}");
    }
}

#[test]
fn a_cluster_that_cannot_be_read_is_named_with_the_field() {
    let port = |port| {
        let endpoint = Endpoint::builder().address("a.b").port(port).build();
        cluster("c1").endpoint(endpoint).build()
    };
    for bad in [0, -1, 70_000] {
        let error = convert(&everything(), &port(bad)).unwrap_err().to_string();
        assert!(
            error.contains("cluster `c1`") && error.contains("Endpoint"),
            "{error}"
        );
    }
    let nameless = Cluster::builder().build();
    assert!(convert(&everything(), &nameless).is_err());
}

/// An AWS whose clusters are given by marker, and that has no VPC endpoints.
async fn aws(clusters: impl Fn(&str) -> Answer + Clone + Send + Sync + 'static) -> Aws {
    Aws::start(move |call| match call.action.as_str() {
        "DescribeClusters" => clusters(call.param("Marker")),
        "DescribeEndpointAccess" => endpoints(&[]),
        other => panic!("unexpected call of {other}"),
    })
    .await
}

fn page(ids: &[&str], marker: &str) -> Answer {
    let clusters: String = ids
        .iter()
        .map(|id| {
            let namespace = if *id == "broken" { "nonsense" } else { NAMESPACE };
            format!(
                "<Cluster><ClusterIdentifier>{id}</ClusterIdentifier><ClusterStatus>available</ClusterStatus>\
                 <Endpoint><Address>{id}.example</Address><Port>5439</Port></Endpoint>\
                 <Tags><Tag><Key>env</Key><Value>prod</Value></Tag></Tags>\
                 <ClusterNamespaceArn>{namespace}</ClusterNamespaceArn></Cluster>"
            )
        })
        .collect();
    let marker = if marker.is_empty() {
        String::new()
    } else {
        format!("<Marker>{marker}</Marker>")
    };
    xml(
        "DescribeClusters",
        &format!("{marker}<Clusters>{clusters}</Clusters>"),
    )
}

fn endpoints(of: &[(&str, &str)]) -> Answer {
    let list: String = of
        .iter()
        .map(|(cluster, name)| {
            format!(
                "<member><ClusterIdentifier>{cluster}</ClusterIdentifier><EndpointName>{name}</EndpointName>\
                 <ResourceOwner>111122223333</ResourceOwner><EndpointStatus>active</EndpointStatus>\
                 <Address>{name}.example</Address><Port>5439</Port>\
                 <VpcEndpoint><VpcId>vpc-9</VpcId></VpcEndpoint></member>"
            )
        })
        .collect();
    xml(
        "DescribeEndpointAccess",
        &format!("<EndpointAccessList>{list}</EndpointAccessList>"),
    )
}

fn ids(observed: &Observed) -> Vec<&str> {
    let seen = observed.seen().values();
    seen.filter_map(|found| found.database.aws.redshift_cluster_id.as_deref())
        .collect()
}

#[tokio::test]
async fn pages_are_read_to_the_last_and_an_empty_one_is_not_the_last() {
    let aws = aws(|marker| match marker {
        "" => page(&["a", "b"], "m2"),
        "m2" => page(&[], "m3"),
        _ => page(&["c"], ""),
    })
    .await;
    let observed = aws.scan(&only("env", "prod")).await;

    assert!(matches!(observed, Observed::Complete(_)), "{observed:?}");
    assert_eq!(ids(&observed), ["a", "b", "c"]);
    assert_eq!(aws.calls("DescribeClusters"), 3);
}

#[tokio::test]
async fn a_failure_on_a_later_page_keeps_what_was_read_and_is_partial() {
    let aws = aws(|marker| match marker {
        "" => page(&["a"], "m2"),
        _ => xml_refusal("AccessDenied"),
    })
    .await;
    let observed = aws.scan(&everything()).await;

    assert_eq!(ids(&observed), ["a"]);
    let status = observed
        .cause()
        .unwrap()
        .status(&everything(), Viewpoint::Worker, 0);
    assert_eq!(
        (
            status.class.as_str(),
            status.aws_code.as_str(),
            status.action.as_str()
        ),
        ("access_denied", "AccessDenied", DESCRIBE_CLUSTERS)
    );
}

#[tokio::test]
async fn a_repeated_marker_ends_the_scan_as_partial() {
    let aws = aws(|_| page(&["a"], "m2")).await;
    let observed = aws.scan(&everything()).await;

    assert!(matches!(
        observed.cause(),
        Some(FetchError::RepeatedMarker { pages: 2, .. })
    ));
    assert_eq!(ids(&observed), ["a"]);
    assert_eq!(aws.calls("DescribeClusters"), 2);
}

#[tokio::test]
async fn one_malformed_cluster_is_named_and_hides_no_other() {
    let aws = aws(|marker| match marker {
        "" => page(&["a", "broken"], "m2"),
        _ => page(&["c"], ""),
    })
    .await;
    let observed = aws.scan(&everything()).await;

    assert_eq!(ids(&observed), ["a", "c"]);
    let cause = observed.cause().unwrap().to_string();
    assert!(cause.contains("cluster `broken`"), "{cause}");
}
