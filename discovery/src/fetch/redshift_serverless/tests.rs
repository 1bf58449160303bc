use aws_sdk_redshiftserverless::types::{Endpoint, VpcEndpoint, WorkgroupStatus};
use tidegate_core::DatabaseKind::RedshiftServerless;

use super::*;
use crate::{
    fetch::testing::{
        Answer, Aws, Call, everything, json, json_refusal, only, own_labels, seen, without,
    },
    scan::Observed,
};

const ARN: &str = "arn:aws:redshift-serverless:eu-west-2:111122223333:workgroup/0b1c";

fn workgroup(status: &str) -> Workgroup {
    let host = "etl.111122223333.eu-west-2.redshift-serverless.amazonaws.com";
    let endpoint = Endpoint::builder()
        .address(host)
        .port(5439)
        .vpc_endpoints(VpcEndpoint::builder().vpc_id("vpc-1").build());
    Workgroup::builder()
        .workgroup_name("etl")
        .workgroup_arn(ARN)
        .namespace_name("lake")
        .status(WorkgroupStatus::from(status))
        .publicly_accessible(false)
        .endpoint(endpoint.build())
        .build()
}

fn access() -> EndpointAccess {
    let host = "private-endpoint-x.111122223333.eu-west-2.redshift-serverless.amazonaws.com";
    EndpointAccess::builder()
        .endpoint_name("private")
        .endpoint_status("ACTIVE")
        .workgroup_name("etl")
        .address(host)
        .port(5439)
        .vpc_endpoint(VpcEndpoint::builder().vpc_id("vpc-2").build())
        .build()
}

fn tags(pairs: &[(&str, &str)]) -> Tags {
    let pairs = pairs.iter();
    pairs
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn eu() -> ScanScope {
    ScanScope {
        region: "eu-west-2".parse().unwrap(),
        ..everything(RedshiftServerless)
    }
}

#[test]
fn a_workgroup_becomes_the_database_that_the_known_scheme_gives() {
    let workgroup = workgroup("AVAILABLE");
    let tags = tags(&[("env", "prod")]);
    let parent = Parent::read(&workgroup, Some(&tags)).unwrap();
    let found = convert(&eu(), &parent).unwrap().unwrap();
    let database = &found.database;
    assert_eq!(
        database.name.as_str(),
        "etl-redshift-serverless-eu-west-2-111122223333"
    );
    assert_eq!(database.identity, ARN);
    assert_eq!(
        database.uri.to_string(),
        "etl.111122223333.eu-west-2.redshift-serverless.amazonaws.com:5439"
    );
    assert_eq!(database.tls.server_name, None);
    let aws = &database.aws;
    assert_eq!(aws.redshift_serverless_workgroup.as_deref(), Some("etl"));
    assert_eq!(aws.redshift_serverless_endpoint, None);
    assert!(!found.tags_unknown);
    let labels: Vec<_> = found.database.labels.iter().collect();
    assert!(labels.contains(&("account-id", "111122223333")));
    assert!(labels.contains(&("env", "prod")));
    assert!(labels.contains(&("endpoint-type", "workgroup")));
    assert!(labels.contains(&("namespace", "lake")));
    assert!(labels.contains(&("status", "available")));
    assert!(labels.contains(&("vpc-id", "vpc-1")));
}

#[test]
fn a_vpc_endpoint_carries_its_workgroups_tags_and_certificate() {
    let workgroup = workgroup("AVAILABLE");
    let none = Tags::new();
    let parent = Parent::read(&workgroup, Some(&none)).unwrap();
    let memory = Memory::default();
    let found = convert_endpoint(&eu(), &parent, &access(), &memory);
    let found = found.unwrap().unwrap();
    let database = &found.database;
    assert_eq!(
        database.name.as_str(),
        "etl-private-redshift-serverless-eu-west-2-111122223333"
    );
    assert_eq!(database.identity, format!("{ARN}#vpc-endpoint/private"));
    assert_eq!(
        database.tls.server_name.as_deref(),
        Some("etl.111122223333.eu-west-2.redshift-serverless.amazonaws.com")
    );
    assert_eq!(
        own_labels(&found),
        [
            ("endpoint-type", "vpc-endpoint"),
            ("namespace", "lake"),
            ("publicly-accessible", "false"),
            ("status", "active"),
            ("vpc-id", "vpc-2"),
            ("workgroup", "etl"),
        ]
    );

    let named = tags(&[("TeleportDatabaseName", "etl-prod")]);
    let parent = Parent::read(&workgroup, Some(&named)).unwrap();
    let found = convert_endpoint(&eu(), &parent, &access(), &memory);
    let found = found.unwrap().unwrap();
    assert_eq!(found.database.name.as_str(), "etl-prod-private");
}

#[test]
fn unknown_tags_are_not_missing_tags() {
    let workgroup = workgroup("AVAILABLE");
    let parent = Parent::read(&workgroup, None).unwrap();
    let found = |key, value| convert(&only(RedshiftServerless, key, value), &parent).unwrap();
    assert!(found("env", "prod").unwrap().tags_unknown);
    assert!(found("namespace", "lake").unwrap().tags_unknown);
    assert_eq!(found("namespace", "other"), None);

    let none = Tags::new();
    let parent = Parent::read(&workgroup, Some(&none)).unwrap();
    let found = convert(&only(RedshiftServerless, "env", "prod"), &parent);
    assert_eq!(found.unwrap(), None);
}

#[test]
fn statuses_say_whether_a_workgroup_can_be_connected_to() {
    for (status, expected) in [
        ("AVAILABLE", ""),
        ("MODIFYING", ""),
        ("DELETING", "deleting"),
        ("SOMETHING", ""),
    ] {
        let workgroup = workgroup(status);
        let parent = Parent::read(&workgroup, None).unwrap();
        let found = convert(&eu(), &parent).unwrap().unwrap();
        assert_eq!(found.database.unavailable, expected, "{status}");
    }
    let mut coming = workgroup("CREATING");
    coming.endpoint = None;
    let parent = Parent::read(&coming, None).unwrap();
    assert_eq!(convert(&eu(), &parent).unwrap(), None);
    coming.status = Some(WorkgroupStatus::Available);
    let parent = Parent::read(&coming, None).unwrap();
    assert!(convert(&eu(), &parent).is_err());
}

fn page(names: &[&str], token: &str) -> Answer {
    let workgroups: Vec<String> = names
        .iter()
        .map(|name| {
            format!(
                r#"{{"workgroupName":"{name}","workgroupArn":"{ARN}-{name}","status":"AVAILABLE",
                "endpoint":{{"address":"{name}.example","port":5439}}}}"#
            )
        })
        .collect();
    let token = if token.is_empty() {
        String::new()
    } else {
        format!(r#","nextToken":"{token}""#)
    };
    json(format!(
        r#"{{"workgroups":[{}]{token}}}"#,
        workgroups.join(",")
    ))
}

fn tagged(env: &str) -> Answer {
    json(format!(r#"{{"tags":[{{"key":"env","value":"{env}"}}]}}"#))
}

fn no_endpoints() -> Answer {
    json(r#"{"endpoints":[]}"#)
}

/// An AWS that does not allow to list tags.
fn good(call: &Call) -> Answer {
    match call.action.as_str() {
        "GetResources" => json_refusal("AccessDeniedException"),
        "ListWorkgroups" if call.says("t2") => page(&["b"], ""),
        "ListWorkgroups" => page(&["a"], "t2"),
        "ListTagsForResource" if call.says("-a\"") => tagged("prod"),
        "ListTagsForResource" => tagged("dev"),
        _ => json(
            r#"{"endpoints":[{"endpointName":"p","workgroupName":"b","endpointStatus":"ACTIVE",
            "address":"p.example","port":5439},{"endpointName":"q","workgroupName":"gone"}]}"#,
        ),
    }
}

#[tokio::test]
async fn pages_tags_and_endpoints_are_read_and_tags_remembered() {
    let aws = Aws::start(good).await;
    let all = everything(RedshiftServerless);
    for _ in 0..4 {
        let observed = aws.scan(&all).await;
        assert!(matches!(observed, Observed::Complete(_)), "{observed:?}");
        assert_eq!(
            seen(&observed),
            [
                ("a-redshift-serverless-us-west-2-111122223333", "workgroup"),
                ("b-redshift-serverless-us-west-2-111122223333", "workgroup"),
                (
                    "b-p-redshift-serverless-us-west-2-111122223333",
                    "vpc-endpoint"
                ),
            ]
        );
    }
    let asked = aws.calls("ListTagsForResource");
    assert!((2..8).contains(&asked), "{asked}");

    let prod = aws.scan(&only(RedshiftServerless, "env", "prod")).await;
    assert_eq!(seen(&prod).len(), 1);
    let before = aws.calls("ListEndpointAccess");
    let scope = without(RedshiftServerless, &["vpc-endpoint"]);
    assert_eq!(seen(&aws.scan(&scope).await).len(), 2);
    assert_eq!(aws.calls("ListEndpointAccess"), before);
}

#[tokio::test]
async fn tags_that_cannot_be_read_keep_their_workgroup_and_make_the_scan_partial() {
    let aws = Aws::start(|call| match call.action.as_str() {
        "ListTagsForResource" if call.says("-b\"") => json_refusal("AccessDeniedException"),
        _ => good(call),
    })
    .await;
    let observed = aws.scan(&only(RedshiftServerless, "env", "prod")).await;
    let unknown: Vec<bool> = observed
        .seen()
        .values()
        .map(|found| found.tags_unknown)
        .collect();
    assert_eq!(unknown, [false, true, true]);
    assert_eq!(observed.cause().unwrap().action(), LIST_TAGS);
}

#[tokio::test]
async fn endpoints_that_cannot_be_listed_hide_no_workgroup() {
    let aws = Aws::start(|call| match call.action.as_str() {
        "ListEndpointAccess" => json_refusal("AccessDeniedException"),
        _ => good(call),
    })
    .await;
    let observed = aws.scan(&everything(RedshiftServerless)).await;
    assert_eq!(seen(&observed).len(), 2);
    assert_eq!(observed.cause().unwrap().action(), LIST_ENDPOINT_ACCESS);
}

#[tokio::test]
async fn a_failed_page_keeps_what_was_read_and_throttling_ends_the_calls() {
    let aws = Aws::start(|call| match call.action.as_str() {
        "ListWorkgroups" if call.says("t2") => json_refusal("ThrottlingException"),
        _ => good(call),
    })
    .await;
    let observed = aws.scan(&everything(RedshiftServerless)).await;
    assert_eq!(seen(&observed).len(), 1);
    assert!(observed.seen().values().all(|found| found.tags_unknown));
    assert_eq!(observed.cause().unwrap().class(), "throttled");
    assert_eq!(aws.actions(), ["ListWorkgroups", "ListWorkgroups"]);
}

#[tokio::test]
async fn an_empty_region_takes_one_call_and_a_malformed_workgroup_hides_no_other() {
    let aws = Aws::start(|_| page(&[], "")).await;
    let observed = aws.scan(&everything(RedshiftServerless)).await;
    assert!(matches!(observed, Observed::Complete(_)), "{observed:?}");
    assert_eq!(aws.actions(), ["ListWorkgroups"]);

    let aws = Aws::start(|call| match call.action.as_str() {
        "ListWorkgroups" => {
            let (status, body) = page(&["a"], "");
            let broken = r#"{"workgroups":[{"workgroupName":"broken"},"#;
            (status, body.replace(r#"{"workgroups":["#, broken))
        }
        "ListEndpointAccess" => no_endpoints(),
        _ => good(call),
    })
    .await;
    let observed = aws.scan(&everything(RedshiftServerless)).await;
    assert_eq!(seen(&observed).len(), 1);
    let cause = observed.cause().unwrap().to_string();
    assert!(cause.contains("workgroup `broken`"), "{cause}");
}

/// The tags of these workgroups, all with `env` = `prod`.
fn resources(names: &[&str], token: &str) -> Answer {
    let list: Vec<String> = names
        .iter()
        .map(|name| {
            format!(r#"{{"ResourceARN":"{ARN}-{name}","Tags":[{{"Key":"env","Value":"prod"}}]}}"#)
        })
        .collect();
    json(format!(
        r#"{{"PaginationToken":"{token}","ResourceTagMappingList":[{}]}}"#,
        list.join(",")
    ))
}

#[tokio::test]
async fn one_list_gives_the_tags_of_all_workgroups_to_its_last_page() {
    let aws = Aws::start(|call| match call.action.as_str() {
        "GetResources" => {
            assert!(call.says(r#"["redshift-serverless:workgroup"]"#));
            if call.says("p2") {
                resources(&["b"], "")
            } else {
                resources(&["a"], "p2")
            }
        }
        _ => good(call),
    })
    .await;
    for _ in 0..4 {
        let observed = aws.scan(&only(RedshiftServerless, "env", "prod")).await;
        assert!(matches!(observed, Observed::Complete(_)), "{observed:?}");
        assert_eq!(seen(&observed).len(), 3);
    }
    assert_eq!(aws.calls("GetResources"), 8);
    assert_eq!(aws.calls("ListTagsForResource"), 0);
}

#[tokio::test]
async fn a_workgroup_that_the_list_lacks_is_asked_once_and_again_when_it_had_tags() {
    let listed = Arc::new(std::sync::Mutex::new(vec!["a"]));
    let of_aws = Arc::clone(&listed);
    let aws = Aws::start(move |call| match call.action.as_str() {
        "GetResources" => resources(&of_aws.lock().unwrap(), ""),
        "ListTagsForResource" if call.says("-b\"") => json(r#"{"tags":[]}"#),
        _ => good(call),
    })
    .await;
    let prod = only(RedshiftServerless, "env", "prod");
    for _ in 0..3 {
        let observed = aws.scan(&prod).await;
        assert!(matches!(observed, Observed::Complete(_)), "{observed:?}");
        assert_eq!(seen(&observed).len(), 1);
    }
    assert_eq!(aws.calls("ListTagsForResource"), 1);

    // The list has lost it for a moment: its tags are still there.
    listed.lock().unwrap().clear();
    let observed = aws.scan(&prod).await;
    assert!(matches!(observed, Observed::Complete(_)), "{observed:?}");
    assert_eq!(seen(&observed).len(), 1);
    assert_eq!(aws.calls("ListTagsForResource"), 2);
}

#[tokio::test]
async fn a_list_that_is_not_to_be_had_is_asked_for_again_later_or_on_request() {
    for code in [
        "AccessDeniedException",
        "ThrottledException",
        "InvalidParameterException",
    ] {
        let aws = Aws::start(move |call| match call.action.as_str() {
            "GetResources" => json_refusal(code),
            _ => good(call),
        })
        .await;
        for _ in 0..3 {
            let observed = aws.scan(&everything(RedshiftServerless)).await;
            assert!(matches!(observed, Observed::Complete(_)), "{observed:?}");
        }
        assert_eq!(aws.calls("GetResources"), 1, "{code}");
        aws.scan_on_request(&everything(RedshiftServerless)).await;
        assert_eq!(aws.calls("GetResources"), 2, "{code}");
    }
}

#[tokio::test]
async fn half_a_list_of_tags_decides_nothing() {
    let aws = Aws::start(|call| match call.action.as_str() {
        "GetResources" if call.says("p2") => json_refusal("InternalServiceException"),
        "GetResources" => resources(&["a"], "p2"),
        _ => good(call),
    })
    .await;
    let observed = aws.scan(&everything(RedshiftServerless)).await;
    assert!(matches!(observed, Observed::Complete(_)), "{observed:?}");
    assert_eq!(aws.calls("ListTagsForResource"), 2);
}
