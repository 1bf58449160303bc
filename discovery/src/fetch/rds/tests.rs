use aws_sdk_rds::types::{DbClusterMember, DbSubnetGroup, Endpoint};
use tidegate_core::DatabaseKind::Rds;

use super::{
    clusters::{Parent, custom_name, unsupported},
    instances::is_old_mariadb,
    *,
};
use crate::{
    fetch::{
        status::Availability,
        testing::{
            Answer, Aws, Call, everything, only, own_labels, seen, without, xml, xml_refusal,
        },
    },
    found::Found,
    scan::Observed,
};

fn instance(engine: &str, version: &str) -> DbInstance {
    let tag = Tag::builder().key("env").value("prod").build();
    DbInstance::builder()
        .db_instance_identifier("orders")
        .db_instance_arn("arn:aws:rds:us-west-2:111122223333:db:orders")
        .dbi_resource_id("db-ABC")
        .db_instance_status("available")
        .engine(engine)
        .engine_version(version)
        .endpoint(
            Endpoint::builder()
                .address("orders.x.example")
                .port(5432)
                .build(),
        )
        .db_subnet_group(DbSubnetGroup::builder().vpc_id("vpc-1").build())
        .iam_database_authentication_enabled(true)
        .tag_list(tag)
        .build()
}

fn cluster(engine: &str, members: &[bool]) -> DbCluster {
    let members = members.iter();
    let members = members.map(|writer| DbClusterMember::builder().is_cluster_writer(*writer));
    DbCluster::builder()
        .db_cluster_identifier("orders")
        .db_cluster_arn("arn:aws:rds:us-west-2:111122223333:cluster:orders")
        .db_cluster_resource_id("cluster-ABC")
        .status("available")
        .engine(engine)
        .engine_version("16.4")
        .endpoint("orders.cluster-x.us-west-2.rds.amazonaws.com")
        .reader_endpoint("orders.cluster-ro-x.us-west-2.rds.amazonaws.com")
        .custom_endpoints("batch.cluster-custom-x.us-west-2.rds.amazonaws.com")
        .port(5432)
        .set_db_cluster_members(Some(members.map(|member| member.build()).collect()))
        .build()
}

fn vpcs(complete: bool) -> Vpcs {
    Vpcs {
        of: HashMap::new(),
        complete,
    }
}

fn endpoints(cluster: &DbCluster, scope: &ScanScope) -> Vec<Found> {
    let vpcs = Vpcs {
        of: HashMap::from([("orders".to_owned(), "vpc-7".to_owned())]),
        complete: true,
    };
    let parent = Parent::read(cluster, &vpcs).unwrap();
    let endpoints = parent.endpoints(scope).into_iter();
    endpoints.filter_map(Result::unwrap).collect()
}

#[test]
fn an_instance_becomes_the_database_that_the_known_scheme_gives() {
    let found = instances::convert(&everything(Rds), &instance("postgres", "16.4"));
    let found = found.unwrap().unwrap();
    let database = &found.database;
    assert_eq!(database.name.as_str(), "orders-rds-us-west-2-111122223333");
    assert_eq!(
        database.identity,
        "arn:aws:rds:us-west-2:111122223333:db:orders"
    );
    assert_eq!(database.aws.rds_instance_id.as_deref(), Some("orders"));
    assert_eq!(database.aws.rds_resource_id.as_deref(), Some("db-ABC"));
    assert_eq!(database.aws.rds_iam_auth, Some(true));
    let labels: Vec<_> = database.labels.iter().collect();
    for label in [
        ("endpoint-type", "instance"),
        ("engine", "postgres"),
        ("engine-version", "16.4"),
        ("env", "prod"),
        ("vpc-id", "vpc-1"),
    ] {
        assert!(labels.contains(&label), "{label:?}");
    }
    for (engine, expected) in [
        ("postgres", Protocol::Postgres),
        ("mysql", Protocol::Mysql),
        ("mariadb", Protocol::Mysql),
        ("aurora-mysql", Protocol::Mysql),
        ("aurora-postgresql", Protocol::Postgres),
    ] {
        assert_eq!(protocol(engine), Some(expected));
    }
}

#[test]
fn what_cannot_log_in_with_iam_is_told_apart_by_version() {
    for old in ["10.5.9", "9.6", "10", "", "preview"] {
        assert!(is_old_mariadb(old), "{old}");
    }
    for new in ["10.6.0", "10.11.4", "11.4"] {
        assert!(!is_old_mariadb(new), "{new}");
    }
    let aurora = |mode: &str, version: &str| {
        let mut cluster = cluster("aurora-mysql", &[true]);
        cluster.engine_mode = Some(mode.to_owned());
        cluster.engine_version = Some(version.to_owned());
        unsupported(&cluster).is_some()
    };
    assert!(aurora("serverless", "5.7.mysql_aurora.2.11.2"));
    assert!(aurora("parallelquery", "5.6.mysql_aurora.1.22.2"));
    assert!(aurora("parallelquery", "5.6.10a"));
    assert!(!aurora("parallelquery", "5.6.mysql_aurora.1.23.0"));
    assert!(!aurora("provisioned", "8.0.mysql_aurora.3.04.0"));
}

#[test]
fn an_aurora_cluster_is_a_database_for_each_of_its_endpoints() {
    let found = endpoints(
        &cluster("aurora-postgresql", &[true, false]),
        &everything(Rds),
    );
    let told: Vec<_> = found
        .iter()
        .map(|found| {
            let database = &found.database;
            (
                database.name.as_str(),
                database.identity.rsplit(':').next().unwrap(),
                database.labels.get("endpoint-type").unwrap(),
                database.tls.server_name.as_deref(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (
                "orders-rds-aurora-us-west-2-111122223333",
                "orders",
                "primary",
                None
            ),
            (
                "orders-reader-rds-aurora-us-west-2-111122223333",
                "orders#reader",
                "reader",
                None
            ),
            (
                "orders-custom-batch-rds-aurora-us-west-2-111122223333",
                "orders#custom/batch",
                "custom",
                Some("orders.cluster-x.us-west-2.rds.amazonaws.com")
            ),
        ]
    );
    for found in &found {
        assert_eq!(found.database.aws.rds_cluster_id.as_deref(), Some("orders"));
        assert_eq!(
            own_labels(found)[1..],
            [
                ("engine", "aurora-postgresql"),
                ("engine-version", "16.4"),
                ("status", "available"),
                ("vpc-id", "vpc-7"),
            ]
        );
    }
}

#[test]
fn parts_that_nobody_plays_have_no_database_unless_they_are_just_changing_hands() {
    let types = |cluster: &DbCluster, scope: &ScanScope| {
        let found = endpoints(cluster, scope);
        let types = found.iter().map(|found| {
            let labels = &found.database.labels;
            labels.get("endpoint-type").unwrap().to_owned()
        });
        types.collect::<Vec<_>>()
    };
    let all = everything(Rds);
    assert_eq!(
        types(&cluster("postgres", &[true]), &all),
        ["primary", "custom"]
    );
    assert_eq!(
        types(&cluster("mysql", &[false]), &all),
        ["reader", "custom"]
    );
    let scope = without(Rds, &["reader", "custom"]);
    let both = cluster("aurora-mysql", &[true, false]);
    assert_eq!(types(&both, &scope), ["primary"]);

    let mut failing_over = cluster("aurora-mysql", &[false]);
    failing_over.status = Some("failing-over".to_owned());
    let vpcs = vpcs(true);
    let parent = Parent::read(&failing_over, &vpcs).unwrap();
    let doubts = parent.endpoints(&all).iter().filter(|e| e.is_err()).count();
    assert_eq!(doubts, 1);
}

#[test]
fn a_multi_az_cluster_is_named_as_a_cluster() {
    let found = endpoints(&cluster("postgres", &[true, false]), &everything(Rds));
    assert_eq!(
        found[0].database.name.as_str(),
        "orders-rds-cluster-us-west-2-111122223333"
    );
}

#[test]
fn one_custom_endpoint_that_cannot_be_read_hides_no_other() {
    assert_eq!(custom_name("a.cluster-custom-x.example"), Some("a"));
    for bad in ["", "a", ".cluster-custom-x", "a.cluster-x.example"] {
        assert_eq!(custom_name(bad), None, "{bad}");
    }
    let mut odd = cluster("aurora-mysql", &[true]);
    odd.custom_endpoints = Some(vec!["odd".into(), "b.cluster-custom-x.example".into()]);
    let vpcs = vpcs(true);
    let parent = Parent::read(&odd, &vpcs).unwrap();
    let became = parent.endpoints(&everything(Rds));
    assert_eq!(became.iter().filter(|one| one.is_err()).count(), 1);
    assert_eq!(became.len(), 3);
}

#[test]
fn a_vpc_that_could_not_be_looked_up_is_unknown_and_not_missing() {
    let cluster = cluster("aurora-mysql", &[true]);
    let scope = only(Rds, "vpc-id", "vpc-7");
    let first = |complete| {
        let vpcs = vpcs(complete);
        let parent = Parent::read(&cluster, &vpcs).unwrap();
        parent.endpoints(&scope).swap_remove(0).unwrap()
    };
    assert_eq!(first(true), None);
    assert!(first(false).unwrap().tags_unknown);
}

#[test]
fn statuses_say_whether_it_can_be_connected_to() {
    for status in ["available", "storage-full", "upgrading"] {
        assert_eq!(instances::availability(status), Availability::Available);
    }
    for status in ["stopped", "failed", "creating"] {
        assert_eq!(instances::availability(status), Availability::Unavailable);
    }
    for status in ["failing-over", "update-iam-db-auth"] {
        assert_eq!(clusters::availability(status), Availability::Available);
    }
    for status in ["stopped", "cloning-failed"] {
        assert_eq!(clusters::availability(status), Availability::Unavailable);
    }
    assert_eq!(clusters::availability("napping"), Availability::Unknown);
    assert_eq!(instances::availability("napping"), Availability::Unknown);
}

fn instance_xml(id: &str, engine: &str, version: &str, cluster: &str) -> String {
    format!(
        "<DBInstance><DBInstanceIdentifier>{id}</DBInstanceIdentifier>\
         <DBInstanceArn>arn:aws:rds:us-west-2:111122223333:db:{id}</DBInstanceArn>\
         <DBInstanceStatus>available</DBInstanceStatus><Engine>{engine}</Engine>\
         <EngineVersion>{version}</EngineVersion><Endpoint><Address>{id}.example</Address><Port>5432</Port></Endpoint>\
         <DBClusterIdentifier>{cluster}</DBClusterIdentifier>\
         <DBSubnetGroup><VpcId>vpc-{id}</VpcId></DBSubnetGroup></DBInstance>"
    )
}

fn instances_page(list: &str, marker: &str) -> Answer {
    let result = format!("<Marker>{marker}</Marker><DBInstances>{list}</DBInstances>");
    xml("DescribeDBInstances", &result)
}

fn clusters_page() -> Answer {
    let cluster = "<DBCluster><DBClusterIdentifier>c</DBClusterIdentifier>\
        <DBClusterArn>arn:aws:rds:us-west-2:111122223333:cluster:c</DBClusterArn><Status>available</Status>\
        <Engine>aurora-postgresql</Engine><EngineVersion>16.4</EngineVersion><Port>5432</Port>\
        <Endpoint>c.cluster-x.example</Endpoint><ReaderEndpoint>c.cluster-ro-x.example</ReaderEndpoint>\
        <DBClusterMembers><DBClusterMember><IsClusterWriter>true</IsClusterWriter></DBClusterMember></DBClusterMembers>\
        </DBCluster>";
    xml(
        "DescribeDBClusters",
        &format!("<DBClusters>{cluster}</DBClusters>"),
    )
}

fn good(call: &Call) -> Answer {
    match (call.action.as_str(), call.param("Marker")) {
        ("DescribeDBInstances", "") => {
            let list = instance_xml("a", "postgres", "16.4", "")
                + &instance_xml("old", "mariadb", "10.5.1", "");
            instances_page(&list, "m2")
        }
        ("DescribeDBInstances", _) => {
            instances_page(&instance_xml("m", "aurora-postgresql", "16.4", "c"), "")
        }
        _ => clusters_page(),
    }
}

const A: (&str, &str) = ("a-rds-us-west-2-111122223333", "instance");
const C: (&str, &str) = ("c-rds-aurora-us-west-2-111122223333", "primary");

#[tokio::test]
async fn instances_and_clusters_are_found_and_a_member_tells_the_vpc_of_its_cluster() {
    let aws = Aws::start(good).await;
    let observed = aws.scan(&everything(Rds)).await;
    assert!(matches!(observed, Observed::Complete(_)), "{observed:?}");
    assert_eq!(seen(&observed), [C, A]);
    let cluster = observed.seen().values().next().unwrap();
    assert_eq!(cluster.database.labels.get("vpc-id"), Some("vpc-m"));
    assert!(!cluster.tags_unknown);
}

#[tokio::test]
async fn a_region_that_does_not_know_an_engine_gives_what_the_others_have() {
    let aws = Aws::start(|call| {
        let engines: Vec<&str> = (1..=6)
            .map(|n| match n {
                1 => call.param("Filters.Filter.1.Values.Value.1"),
                2 => call.param("Filters.Filter.1.Values.Value.2"),
                _ => "",
            })
            .filter(|engine| !engine.is_empty())
            .collect();
        match (call.action.as_str(), engines.as_slice()) {
            (_, [_, _, ..] | ["mariadb"]) => xml_refusal("InvalidParameterValue"),
            ("DescribeDBInstances", [engine @ ("mysql" | "postgres")]) => {
                instances_page(&instance_xml(engine, engine, "8.0", ""), "")
            }
            ("DescribeDBInstances", _) => instances_page("", ""),
            (_, ["aurora-postgresql"]) => clusters_page(),
            _ => xml("DescribeDBClusters", "<DBClusters></DBClusters>"),
        }
    })
    .await;
    let observed = aws.scan(&everything(Rds)).await;
    assert!(matches!(observed, Observed::Complete(_)), "{observed:?}");
    assert_eq!(seen(&observed).len(), 3);
    assert_eq!(aws.calls("DescribeDBInstances"), 6);
    assert_eq!(aws.calls("DescribeDBClusters"), 5);
}

#[tokio::test]
async fn one_list_that_is_denied_hides_nothing_of_the_other() {
    let aws = Aws::start(|call| match call.param("Marker") {
        "m2" => xml_refusal("AccessDenied"),
        _ => good(call),
    })
    .await;
    let observed = aws.scan(&everything(Rds)).await;
    assert_eq!(seen(&observed), [C, A]);
    assert_eq!(observed.cause().unwrap().action(), DESCRIBE_INSTANCES);
    let cluster = observed.seen().values().next().unwrap();
    assert!(cluster.tags_unknown);

    let aws = Aws::start(|call| match call.action.as_str() {
        "DescribeDBClusters" => xml_refusal("AccessDenied"),
        _ => good(call),
    })
    .await;
    let observed = aws.scan(&everything(Rds)).await;
    assert_eq!(seen(&observed), [A]);
    assert_eq!(observed.cause().unwrap().action(), DESCRIBE_CLUSTERS);

    let aws = Aws::start(|_| xml_refusal("Throttling")).await;
    aws.scan(&everything(Rds)).await;
    assert_eq!(aws.actions(), ["DescribeDBInstances"]);
}
