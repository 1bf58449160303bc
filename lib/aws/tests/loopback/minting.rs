//! What is asked for each kind of login, and what is done about calls that fail.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tidegate_aws::{
    AwsMinter, CredentialKey, Login, LoginRequest,
    login::{NewUser, RdsLogin, Workgroup},
};
use tidegate_core::Protocol;

use super::*;

fn key(login: Login, session: &SessionTag) -> CredentialKey {
    let request = LoginRequest {
        login,
        region: "eu-west-1".parse().expect("a region"),
        account: None,
        chain: two_hops(),
    };
    CredentialKey::new(request, session)
}

fn cluster_user(create: Option<NewUser>) -> Login {
    Login::ClusterUser {
        cluster: "c0".to_owned(),
        db_user: "alice".to_owned(),
        db_name: "dev".to_owned(),
        create,
    }
}

async fn mint(aws: &Aws, login: Login) -> Result<DbCredentials, AwsFailure> {
    let minter = AwsMinter::new(aws.factory().await);
    minter.mint(&key(login, &SessionTag::new("alice"))).await
}

fn some<const N: usize>(values: [&str; N]) -> [Option<String>; N] {
    values.map(|value| Some(value.to_owned()))
}

#[tokio::test]
async fn a_workgroup_is_asked_as_the_last_role_by_its_name_or_by_its_custom_domain() {
    for (workgroup, told) in [
        (
            Workgroup::Named {
                name: "wg".to_owned(),
                arn: None,
            },
            r#""workgroupName":"wg""#,
        ),
        (
            Workgroup::CustomDomain("wg.corp.example".to_owned()),
            r#""customDomainName":"wg.corp.example""#,
        ),
    ] {
        let aws = Aws::start(grant).await;
        let db_name = "dev".to_owned();
        let credentials = mint(&aws, Login::Workgroup { workgroup, db_name })
            .await
            .unwrap();
        assert_eq!(credentials.user, "IAMR:reader");
        assert_eq!(credentials.expires_at.as_second(), 4_102_444_800);
        let [[Some(key), Some(body)]] = &aws.seen("GetCredentials", ["key", "body"])[..] else {
            panic!("one call");
        };
        assert_eq!(key, "ASIAreader");
        for part in [told, r#""dbName":"dev""#, r#""durationSeconds":900"#] {
            assert!(body.contains(part), "{body}");
        }
    }
}

#[tokio::test]
async fn a_user_that_is_to_be_made_is_made_with_its_groups() {
    let fields = ["AutoCreate", "DbGroups.DbGroup.1", "DbGroups.DbGroup.2"];
    let groups = vec!["readers".to_owned(), "writers".to_owned()];
    for (create, expected) in [
        (
            Some(NewUser { groups }),
            some(["true", "readers", "writers"]),
        ),
        (
            Some(NewUser::default()),
            [Some("true".to_owned()), None, None],
        ),
        (None, [Some("false".to_owned()), None, None]),
    ] {
        let aws = Aws::start(grant).await;
        mint(&aws, cluster_user(create)).await.unwrap();
        assert_eq!(aws.seen("GetClusterCredentials", fields), [expected]);
    }
}

#[tokio::test]
async fn tokens_for_rds_are_signed_by_the_last_role_which_is_assumed_once_for_all() {
    let aws = Aws::start(grant).await;
    let minter = AwsMinter::new(aws.factory().await);
    for db_user in ["app", "reporting"] {
        let login = Login::RdsToken(RdsLogin {
            host: "app.abc.eu-west-1.rds.amazonaws.com".to_owned(),
            port: 5432,
            db_user: db_user.to_owned(),
            protocol: Protocol::Postgres,
            resource_id: None,
            is_proxy: false,
        });
        let credentials = minter
            .mint(&key(login, &SessionTag::new("alice")))
            .await
            .unwrap();
        let token = credentials.password.expose_secret();
        assert_eq!(credentials.user, db_user);
        assert!(token.contains("X-Amz-Credential=ASIAreader%2F"), "{token}");
        assert!(token.ends_with("&X-Amz-Security-Token=t"), "{token}");
    }
    assert_eq!(
        aws.seen("AssumeRole", ["key"]),
        [some(["AKIAOWN"]), some(["ASIAdba"])]
    );
    // The same credentials serve calls, and the other way round.
    minter
        .mint(&key(cluster_user(None), &SessionTag::new("alice")))
        .await
        .unwrap();
    assert_eq!(aws.seen("AssumeRole", []).len(), 2);
}

#[tokio::test]
async fn session_tags_are_sent_with_each_hop_and_only_when_there_are_any() {
    let fields = ["Tags.member.1.Key", "Tags.member.1.Value", "SourceIdentity"];
    let tagged = SessionTag::new("alice")
        .with_source_identity("alice")
        .with_tag("team", "data");
    for (session, first, second) in [
        (
            SessionTag::new("alice"),
            [None, None, None],
            [None, None, None],
        ),
        (
            tagged,
            some(["team", "data", "alice"]),
            [Some("team".to_owned()), Some("data".to_owned()), None],
        ),
    ] {
        let aws = Aws::start(grant).await;
        let minter = AwsMinter::new(aws.factory().await);
        minter
            .mint(&key(cluster_user(None), &session))
            .await
            .unwrap();
        assert_eq!(aws.seen("AssumeRole", fields), [first, second]);
    }
}

/// Answers the first `times` calls that mint with an error.
async fn failing(times: usize, code: &'static str) -> Aws {
    let calls = Arc::new(AtomicUsize::new(0));
    Aws::start(move |request| {
        if request["Action"] == "GetClusterCredentials" && calls.fetch_add(1, SeqCst) < times {
            return error(StatusCode::SERVICE_UNAVAILABLE, code, "Rate exceeded");
        }
        grant(request)
    })
    .await
}

#[tokio::test]
async fn a_call_that_aws_throttled_or_that_broke_is_repeated_within_the_budget() {
    for code in ["Throttling", "InternalFailure"] {
        let aws = failing(2, code).await;
        mint(&aws, cluster_user(None)).await.unwrap();
        assert_eq!(aws.seen("GetClusterCredentials", []).len(), 3, "{code}");
    }
}

#[tokio::test]
async fn a_call_that_stays_broken_is_given_up_and_a_denial_at_once() {
    for (code, calls) in [
        ("InternalFailure", 3),
        ("AccessDenied", 1),
        ("ClusterNotFound", 1),
    ] {
        let aws = failing(usize::MAX, code).await;
        let failure = mint(&aws, cluster_user(None)).await.unwrap_err();
        assert_eq!(failure.code.as_deref(), Some(code));
        assert_eq!(aws.seen("GetClusterCredentials", []).len(), calls, "{code}");
    }
}

#[tokio::test]
async fn the_own_account_is_asked_of_sts_once() {
    let aws = Aws::start(|_| {
        let body = "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
                    <GetCallerIdentityResult><Account>123456789012</Account></GetCallerIdentityResult>\
                    </GetCallerIdentityResponse>";
        (StatusCode::OK, body.to_owned())
    })
    .await;
    let factory = aws.factory().await;
    let region: Region = "eu-west-1".parse().unwrap();
    for _ in 0..3 {
        assert_eq!(
            factory.own_account(&region).await.unwrap().as_str(),
            "123456789012"
        );
    }
    assert_eq!(aws.seen("GetCallerIdentity", []).len(), 1);
}
