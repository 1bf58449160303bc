use tidegate_core::{DatabaseKind, EndpointFilter, Selector};

use super::*;
use crate::fetch::testing::{Answer, Aws, Call, json, json_refusal, xml, xml_refusal};

fn matcher(regions: Regions) -> AwsMatcher {
    AwsMatcher {
        types: vec![DatabaseKind::Redshift],
        regions,
        tags: Selector::everything(),
        endpoints: EndpointFilter::default(),
        assume_role: None,
    }
}

fn these(names: &[&str]) -> Regions {
    Regions::These(names.iter().map(|name| name.parse().unwrap()).collect())
}

fn clusters(call: &Call) -> Answer {
    match call.action.as_str() {
        "listRegions" => json(
            r#"{"Regions":[{"RegionName":"us-east-1","RegionOptStatus":"ENABLED_BY_DEFAULT"},
            {"RegionName":"eu-west-1","RegionOptStatus":"ENABLED"}]}"#,
        ),
        "DescribeClusters" => xml(
            "DescribeClusters",
            "<Clusters><Cluster><ClusterIdentifier>a</ClusterIdentifier><ClusterStatus>available</ClusterStatus>\
             <Endpoint><Address>a.example</Address><Port>5439</Port></Endpoint>\
             <ClusterNamespaceArn>arn:aws:redshift:us-east-1:111122223333:namespace:n</ClusterNamespaceArn>\
             </Cluster></Clusters>",
        ),
        action => xml(action, ""),
    }
}

async fn look_at(aws: &Aws, matchers: &[AwsMatcher]) -> Survey {
    let mut told = Vec::new();
    let progress = |done, of| told.push((done, of));
    let survey = survey("prod", None, matchers, aws.factory.clone(), progress);
    let survey = survey.await.unwrap();
    let total = survey.scopes.len();
    assert_eq!(
        told,
        (1..=total).map(|done| (done, total)).collect::<Vec<_>>()
    );
    survey
}

#[tokio::test]
async fn everything_that_the_matchers_name_is_looked_at_in_order() {
    let aws = Aws::start(clusters).await;
    let matchers = [matcher(these(&["us-west-2"])), matcher(Regions::Enabled)];
    let survey = look_at(&aws, &matchers).await;
    let regions: Vec<&str> = survey
        .scopes
        .iter()
        .map(|one| one.scope.region.as_str())
        .collect();
    assert_eq!(regions, ["us-west-2", "eu-west-1", "us-east-1"]);
    for one in &survey.scopes {
        assert_eq!(
            (one.failure.as_ref(), one.items.len(), one.aws_calls),
            (None, 1, 2)
        );
        assert_eq!(one.items[0].name_base, "a");
    }
    assert!(survey.unexpanded.is_empty());
}

#[tokio::test]
async fn an_account_that_does_not_tell_its_regions_is_named_and_hides_no_other_matcher() {
    let aws = Aws::start(|call| match call.action.as_str() {
        "listRegions" => json_refusal("AccessDeniedException"),
        _ => clusters(call),
    })
    .await;
    let matchers = [matcher(Regions::Enabled), matcher(these(&["us-west-2"]))];
    let survey = look_at(&aws, &matchers).await;
    assert_eq!(survey.scopes.len(), 1);
    let [unexpanded] = survey.unexpanded.as_slice() else {
        panic!("{:?}", survey.unexpanded);
    };
    assert_eq!(unexpanded.matchers, [0]);
    assert_eq!(unexpanded.failure.class, "access_denied");
    assert_eq!(unexpanded.failure.aws_code, "AccessDeniedException");
    let message = &unexpanded.failure.message;
    assert!(message.contains("allow account:ListRegions"), "{message}");
    assert!(message.contains("name its regions"), "{message}");
    assert!(message.contains("for your own AWS identity"), "{message}");
}

#[tokio::test]
async fn a_scope_that_cannot_be_read_says_why_and_the_others_are_read() {
    let aws = Aws::start(|call| match call.action.as_str() {
        "DescribeDBInstances" | "DescribeDBClusters" => xml_refusal("AccessDenied"),
        _ => clusters(call),
    })
    .await;
    let both = AwsMatcher {
        types: vec![DatabaseKind::Rds, DatabaseKind::Redshift],
        ..matcher(these(&["us-east-1"]))
    };
    let survey = look_at(&aws, &[both]).await;
    let failures: Vec<Option<&str>> = survey
        .scopes
        .iter()
        .map(|one| one.failure.as_ref().map(|failure| failure.class.as_str()))
        .collect();
    assert_eq!(failures, [Some("access_denied"), None]);
    let message = &survey.scopes[0].failure.as_ref().unwrap().message;
    assert!(message.contains("for your own AWS identity"), "{message}");
}

#[tokio::test]
async fn a_resources_matchers_make_scopes_of_that_resource() {
    let aws = Aws::start(clusters).await;
    let matchers = [matcher(these(&["us-east-1"]))];
    let survey = survey(
        "prod",
        Some("team-a"),
        &matchers,
        aws.factory.clone(),
        |_, _| {},
    );
    let survey = survey.await.unwrap();
    assert_eq!(survey.scopes[0].scope.config.as_deref(), Some("team-a"));
}
