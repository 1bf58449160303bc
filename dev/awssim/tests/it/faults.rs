//! Ordered faults that look like AWS's own refusals, in the words of each protocol.

use aws_sdk_account::types::RegionOptStatus;
use aws_sdk_redshift::error::ProvideErrorMetadata;
use awssim::{Fault, FaultKind, SimError};

use crate::{EAST, Fixture, HOME, worker, world};

/// What each protocol answers to a simple call: Redshift, STS, Redshift Serverless, account management.
async fn codes(fixture: &Fixture) -> [Option<String>; 4] {
    let code = |error: &dyn ProvideErrorMetadata| error.code().map(str::to_owned);
    let redshift = fixture.redshift(worker()).describe_clusters().send().await;
    let sts = fixture.sts(worker()).get_caller_identity().send().await;
    let serverless = fixture.serverless().list_workgroups().send().await;
    let account = fixture.account().list_regions().send().await;
    [
        redshift.err().and_then(|error| code(&error)),
        sts.err().and_then(|error| code(&error)),
        serverless.err().and_then(|error| code(&error)),
        account.err().and_then(|error| code(&error)),
    ]
}

fn some(codes: [&str; 4]) -> [Option<String>; 4] {
    codes.map(|code| Some(code.to_owned()))
}

const NONE: [Option<String>; 4] = [None, None, None, None];

#[tokio::test]
async fn expired_credentials_are_told_as_each_protocol_does() {
    let fixture = Fixture::api(world()).await;
    fixture
        .sim
        .fault(Fault::new(FaultKind::ExpiredToken).in_region(EAST))
        .unwrap();
    let expected = [
        "ExpiredToken",
        "ExpiredToken",
        "ExpiredTokenException",
        "ExpiredTokenException",
    ];
    assert_eq!(codes(&fixture).await, some(expected));
    fixture.sim.clear_faults();
    assert_eq!(codes(&fixture).await, NONE);
}

#[tokio::test]
async fn a_skewed_clock_refuses_signatures_and_tells_its_time() {
    let fixture = Fixture::api(world()).await;
    let expected = [
        "SignatureDoesNotMatch",
        "SignatureDoesNotMatch",
        "InvalidSignatureException",
        "InvalidSignatureException",
    ];
    for seconds in [600, -600] {
        let told = true;
        let skew = FaultKind::ClockSkew { seconds, told };
        fixture.sim.fault(Fault::new(skew).in_region(EAST)).unwrap();
        assert_eq!(codes(&fixture).await, some(expected), "{seconds}");
        let request = fixture.redshift(worker()).describe_clusters();
        let refused = request.send().await.unwrap_err();
        let says = if seconds > 0 {
            "expired"
        } else {
            "not yet current"
        };
        assert!(refused.message().unwrap().contains(says), "{refused:?}");
        let date = refused.raw_response().unwrap().headers().get("date");
        let date = jiff::fmt::rfc2822::parse(date.unwrap())
            .unwrap()
            .timestamp();
        let ahead = date.as_second() - fixture.sim.now().as_second();
        assert!((ahead - seconds).abs() < 30, "{ahead}");
        fixture.sim.clear_faults();
    }
    let (seconds, told) = (200, false);
    let little = FaultKind::ClockSkew { seconds, told };
    fixture.sim.fault(Fault::new(little)).unwrap();
    assert_eq!(codes(&fixture).await, NONE);
}

#[tokio::test]
async fn a_client_makes_up_for_a_skew_that_it_is_told() {
    let fixture = Fixture::api(world()).await;
    let seconds = 900;
    for (told, refused) in [(true, None), (false, Some("SignatureDoesNotMatch"))] {
        let skew = Fault::new(FaultKind::ClockSkew { seconds, told });
        fixture.sim.fault(skew).unwrap();
        let client = fixture.redshift(worker());
        let code = async || {
            let answer = client.describe_clusters().send().await;
            answer
                .err()
                .and_then(|error| error.code().map(str::to_owned))
        };
        assert_eq!(code().await.as_deref(), Some("SignatureDoesNotMatch"));
        assert_eq!(code().await.as_deref(), refused);
        fixture.sim.clear_faults();
    }
}

#[tokio::test]
async fn a_region_that_is_disabled_refuses_credentials_and_keeps_what_it_has() {
    let mut world = world();
    world.account(HOME).enable_region("us-west-2");
    let fixture = Fixture::api(world).await;
    fixture.sim.set_region_enabled(HOME, EAST, false).unwrap();
    // STS and account management are global in us-east-1.
    let [redshift, sts, serverless, account] = codes(&fixture).await;
    assert_eq!(redshift.as_deref(), Some("InvalidClientTokenId"));
    assert_eq!(serverless.as_deref(), Some("UnrecognizedClientException"));
    assert_eq!((sts, account), (None, None));
    let status = async || {
        let request = fixture.account().list_regions().max_results(50);
        let regions = request.send().await.unwrap().regions.unwrap();
        let east = regions.into_iter().find(|r| r.region_name() == Some(EAST));
        east.unwrap().region_opt_status.unwrap()
    };
    assert_eq!(status().await, RegionOptStatus::Disabled);
    let elsewhere = "us-west-2";
    fixture
        .sim
        .set_region_enabled(HOME, elsewhere, false)
        .unwrap();
    let refused = fixture.sts_in(worker(), elsewhere).get_caller_identity();
    let refused = refused.send().await.unwrap_err();
    assert_eq!(refused.code(), Some("RegionDisabledException"));
    fixture.sim.set_region_enabled(HOME, EAST, true).unwrap();
    assert_eq!(codes(&fixture).await, NONE);
    assert_eq!(status().await, RegionOptStatus::EnabledByDefault);
    let unknown = fixture.sim.set_region_enabled(HOME, "eu-west-1", true);
    assert!(matches!(unknown, Err(SimError::UnknownRegion { .. })));
}
