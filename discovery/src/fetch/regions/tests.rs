use super::*;
use crate::fetch::testing::{Aws, ROLE, json, json_refusal};

fn session() -> SessionTag {
    SessionTag::new("test")
}

fn role(arn: &str) -> AssumeRole {
    AssumeRole {
        role_arn: arn.parse().unwrap(),
        external_id: None,
    }
}

#[tokio::test]
async fn enabled_regions_are_read_to_the_last_page_in_order() {
    let aws = Aws::start(|call| {
        assert_eq!(call.action, "listRegions");
        assert!(call.says("ENABLED_BY_DEFAULT"));
        if call.says("\"NextToken\"") {
            json(r#"{"Regions":[{"RegionName":"af-south-1","RegionOptStatus":"ENABLED"}]}"#)
        } else {
            json(
                r#"{"NextToken":"t","Regions":[
                {"RegionName":"us-east-1","RegionOptStatus":"ENABLED_BY_DEFAULT"},
                {"RegionName":"eu-west-1","RegionOptStatus":"ENABLED_BY_DEFAULT"},
                {"RegionName":"me-south-1","RegionOptStatus":"DISABLING"},
                {"RegionName":"??","RegionOptStatus":"ENABLED"}]}"#,
            )
        }
    })
    .await;
    let regions = enabled(&aws.factory, None, &session(), &Budget::default())
        .await
        .unwrap();
    let names: Vec<&str> = regions.iter().map(Region::as_str).collect();
    assert_eq!(names, ["af-south-1", "eu-west-1", "us-east-1"]);
    assert_eq!(aws.actions().len(), 2);
}

#[tokio::test]
async fn half_a_list_is_no_list() {
    let aws = Aws::start(|_| json(r#"{"NextToken":"t","Regions":[]}"#)).await;
    let failure = enabled(&aws.factory, None, &session(), &Budget::default())
        .await
        .unwrap_err();
    assert_eq!(failure.class, AwsErrorClass::Malformed);
    assert_eq!(aws.actions().len(), 2);

    let aws = Aws::start(|_| json_refusal("AccessDeniedException")).await;
    let failure = enabled(&aws.factory, None, &session(), &Budget::default())
        .await
        .unwrap_err();
    assert_eq!(
        (failure.class, failure.action),
        (AwsErrorClass::AccessDenied, LIST_REGIONS)
    );
}

#[test]
fn the_account_service_is_asked_in_the_partition_of_the_role() {
    let own = |name: &str| Some(name.parse::<Region>().unwrap());
    let china = role("arn:aws-cn:iam::123456789012:role/finder");
    let plain = role("arn:aws:iam::123456789012:role/finder");
    for (role, own, expected) in [
        (None, None, "us-east-1"),
        (None, own("eu-west-1"), "us-east-1"),
        (None, own("cn-north-1"), "cn-northwest-1"),
        (None, own("us-gov-east-1"), "us-gov-west-1"),
        (None, own("us-isob-west-1"), "us-isob-east-1"),
        (None, own("eu-isoe-west-1"), "eu-isoe-west-1"),
        (None, own("eusc-de-east-1"), "eusc-de-east-1"),
        (Some(&china), own("eu-west-1"), "cn-northwest-1"),
        (Some(&plain), own("cn-north-1"), "us-east-1"),
        (Some(&role(ROLE)), None, "us-gov-west-1"),
    ] {
        assert_eq!(home(role, own.as_ref()).as_str(), expected);
    }
}
