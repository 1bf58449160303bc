use aws_sdk_rds::types::{DbProxyEndpointStatus, DbProxyEndpointTargetRole, DbProxyStatus};
use tidegate_core::DatabaseKind::Rdsproxy;

use super::*;
use crate::{
    fetch::testing::{
        Answer, Aws, Call, everything, only, own_labels, seen, without, xml, xml_refusal,
    },
    scan::Observed,
};

const ARN: &str = "arn:aws-cn:rds:us-west-2:111122223333:db-proxy:prx-1";

fn proxy(family: &str) -> DbProxy {
    DbProxy::builder()
        .db_proxy_name("pool")
        .db_proxy_arn(ARN)
        .status(DbProxyStatus::Available)
        .engine_family(family)
        .vpc_id("vpc-1")
        .endpoint("pool.proxy-x.example")
        .require_tls(true)
        .build()
}

fn further(role: DbProxyEndpointTargetRole) -> DbProxyEndpoint {
    DbProxyEndpoint::builder()
        .db_proxy_endpoint_name("ro")
        .db_proxy_name("pool")
        .status(DbProxyEndpointStatus::Available)
        .vpc_id("vpc-2")
        .endpoint("ro.endpoint.proxy-x.example")
        .target_role(role)
        .build()
}

#[test]
fn a_proxy_listens_where_its_engine_family_does() {
    let none = Tags::new();
    for (family, address, protocol) in [
        ("MYSQL", "pool.proxy-x.example:3306", Protocol::Mysql),
        (
            "POSTGRESQL",
            "pool.proxy-x.example:5432",
            Protocol::Postgres,
        ),
    ] {
        let proxy = proxy(family);
        assert_eq!(served(&proxy), Ok(()));
        let parent = Parent::read(&proxy, Some(&none)).unwrap();
        let found = convert(&everything(Rdsproxy), &parent).unwrap().unwrap();
        assert_eq!(found.database.uri.to_string(), address);
        assert_eq!(found.database.protocol, protocol);
        assert_eq!(
            found.database.name.as_str(),
            "pool-rdsproxy-us-west-2-111122223333"
        );
        assert_eq!(found.database.identity, ARN);
        assert_eq!(found.database.aws.rdsproxy_name.as_deref(), Some("pool"));
        assert_eq!(found.database.aws.rds_resource_id.as_deref(), Some("prx-1"));
        assert_eq!(
            own_labels(&found),
            [
                ("endpoint-type", "proxy"),
                ("engine", family),
                ("status", "available"),
                ("vpc-id", "vpc-1"),
            ]
        );
    }
}

#[test]
fn a_further_endpoint_shows_the_certificate_of_the_default_one() {
    let proxy = proxy("POSTGRESQL");
    let none = Tags::new();
    let parent = Parent::read(&proxy, Some(&none)).unwrap();
    let endpoint = further(DbProxyEndpointTargetRole::ReadOnly);
    let scope = everything(Rdsproxy);
    let found = convert_endpoint(&scope, &parent, &endpoint, &Memory::default());
    let found = found.unwrap().unwrap();
    let database = &found.database;
    assert_eq!(
        database.name.as_str(),
        "pool-ro-rdsproxy-us-west-2-111122223333"
    );
    assert_eq!(database.identity, format!("{ARN}#endpoint/ro"));
    assert_eq!(
        database.tls.server_name.as_deref(),
        Some("pool.proxy-x.example")
    );
    assert_eq!(database.labels.get("endpoint-type"), Some("READ_ONLY"));
    assert_eq!(database.labels.get("vpc-id"), Some("vpc-2"));
}

#[test]
fn proxies_that_nobody_could_use_are_left_out_with_the_reason() {
    let mut plain = proxy("MYSQL");
    plain.require_tls = Some(false);
    assert_eq!(served(&plain), Err(WITHOUT_TLS));
    assert_eq!(served(&proxy("SQLSERVER")), Err(OTHER_ENGINE));
    // Not told is a doubt and not a reason.
    assert_eq!(served(&proxy("")), Ok(()));
    assert!(Parent::read(&proxy(""), None).is_err());
}

#[test]
fn statuses_say_whether_a_proxy_can_be_connected_to() {
    for status in ["available", "modifying", "reactivating"] {
        assert_eq!(availability(status), Availability::Available, "{status}");
    }
    for status in ["creating", "deleting", "suspended", "incompatible-network"] {
        assert_eq!(availability(status), Availability::Unavailable, "{status}");
    }
    assert_eq!(availability("napping"), Availability::Unknown);
}

fn page(proxies: &[(&str, bool)]) -> Answer {
    let list: String = proxies
        .iter()
        .map(|(name, tls)| {
            format!(
                "<member><DBProxyName>{name}</DBProxyName><DBProxyArn>{ARN}-{name}</DBProxyArn>\
                 <Status>available</Status><EngineFamily>POSTGRESQL</EngineFamily>\
                 <Endpoint>{name}.example</Endpoint><RequireTLS>{tls}</RequireTLS></member>"
            )
        })
        .collect();
    xml(
        "DescribeDBProxies",
        &format!("<DBProxies>{list}</DBProxies>"),
    )
}

fn good(call: &Call) -> Answer {
    match call.action.as_str() {
        "DescribeDBProxies" => page(&[("a", true), ("b", true), ("c", false)]),
        "ListTagsForResource" => xml(
            "ListTagsForResource",
            "<TagList><Tag><Key>env</Key><Value>prod</Value></Tag></TagList>",
        ),
        "DescribeDBProxyEndpoints" => {
            let endpoint = |name: &str, is_default: bool| {
                format!(
                    "<member><DBProxyEndpointName>{name}</DBProxyEndpointName><DBProxyName>b</DBProxyName>\
                     <Status>available</Status><Endpoint>{name}.example</Endpoint>\
                     <TargetRole>READ_WRITE</TargetRole><IsDefault>{is_default}</IsDefault></member>"
                )
            };
            let list = endpoint("default", true) + &endpoint("rw", false);
            xml(
                "DescribeDBProxyEndpoints",
                &format!("<DBProxyEndpoints>{list}</DBProxyEndpoints>"),
            )
        }
        other => panic!("unexpected call of {other}"),
    }
}

#[tokio::test]
async fn proxies_and_their_further_endpoints_are_found_once_each() {
    let aws = Aws::start(good).await;
    let observed = aws.scan(&only(Rdsproxy, "env", "prod")).await;
    assert!(matches!(observed, Observed::Complete(_)), "{observed:?}");
    assert_eq!(
        seen(&observed),
        [
            ("a-rdsproxy-us-west-2-111122223333", "proxy"),
            ("b-rdsproxy-us-west-2-111122223333", "proxy"),
            ("b-rw-rdsproxy-us-west-2-111122223333", "READ_WRITE"),
        ]
    );
    assert_eq!(aws.calls("ListTagsForResource"), 2);

    let scope = without(Rdsproxy, &["READ_WRITE", "READ_ONLY"]);
    assert_eq!(seen(&aws.scan(&scope).await).len(), 2);
    assert_eq!(aws.calls("DescribeDBProxyEndpoints"), 1);
}

#[tokio::test]
async fn what_part_cannot_be_read_is_named_and_hides_nothing_else() {
    for (denied, expected) in [
        ("ListTagsForResource", (LIST_TAGS, 3)),
        ("DescribeDBProxyEndpoints", (DESCRIBE_ENDPOINTS, 2)),
    ] {
        let aws = Aws::start(move |call| {
            if call.action == denied {
                xml_refusal("AccessDenied")
            } else {
                good(call)
            }
        })
        .await;
        let observed = aws.scan(&everything(Rdsproxy)).await;
        let action = observed.cause().unwrap().action();
        assert_eq!((action, observed.seen().len()), expected);
    }
}
