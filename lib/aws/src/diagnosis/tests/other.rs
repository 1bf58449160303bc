//! Failures that no policy ends.

use super::*;

fn failed(class: AwsErrorClass, code: &str, said: &str) -> AwsFailure {
    let mut failure = AwsFailure::new(class, "redshift:GetClusterCredentials", said);
    failure.code = Some(code.to_owned());
    failure
}

#[test]
fn failures_that_no_policy_ends_say_who_ends_them() {
    let assumed = RoleChain::new(Some(role("dba", None)), None);
    for (class, code, said, chain, who, told) in [
        (
            AwsErrorClass::ClockSkew,
            "RequestExpired",
            "",
            RoleChain::default(),
            Actor::Operator,
            "clock",
        ),
        (
            AwsErrorClass::ExpiredCredentials,
            "ExpiredToken",
            "",
            RoleChain::default(),
            Actor::Operator,
            "read again",
        ),
        (
            AwsErrorClass::ExpiredCredentials,
            "ExpiredToken",
            "",
            assumed.clone(),
            Actor::Wait,
            "assumed anew",
        ),
        (
            AwsErrorClass::InvalidRequest,
            "InvalidParameterValue",
            "",
            RoleChain::default(),
            Actor::User,
            "database name",
        ),
        (
            AwsErrorClass::InvalidRequest,
            "InvalidClusterState",
            "",
            RoleChain::default(),
            Actor::Wait,
            "present state",
        ),
        (
            AwsErrorClass::InvalidRequest,
            "UnsupportedOperation",
            "",
            RoleChain::default(),
            Actor::AwsAdministrator,
            "cluster `orders`",
        ),
        (
            AwsErrorClass::NoCredentials,
            "SignatureDoesNotMatch",
            "",
            RoleChain::default(),
            Actor::Operator,
            "secret",
        ),
        (
            AwsErrorClass::NoCredentials,
            "InvalidIdentityToken",
            "",
            RoleChain::default(),
            Actor::Operator,
            "web identity",
        ),
        (
            AwsErrorClass::NoCredentials,
            "",
            "",
            RoleChain::default(),
            Actor::Operator,
            "hop limit",
        ),
        (
            AwsErrorClass::NotFound,
            "ClusterNotFound",
            "",
            RoleChain::default(),
            Actor::Operator,
            "account 123456789012",
        ),
        (
            AwsErrorClass::NotFound,
            "ClusterNotFound",
            "",
            assumed.clone(),
            Actor::Operator,
            "still exists",
        ),
        (
            AwsErrorClass::RegionDisabled,
            "InvalidClientTokenId",
            "",
            RoleChain::default(),
            Actor::Operator,
            "exist",
        ),
        (
            AwsErrorClass::RegionDisabled,
            "InvalidClientTokenId",
            "",
            assumed,
            Actor::AwsAdministrator,
            "region us-east-1",
        ),
        (
            AwsErrorClass::RegionDisabled,
            "RegionDisabledException",
            "",
            RoleChain::default(),
            Actor::AwsAdministrator,
            "activate STS",
        ),
        (
            AwsErrorClass::OverBudget,
            "",
            "",
            RoleChain::default(),
            Actor::Wait,
            "different logins",
        ),
        (
            AwsErrorClass::Throttled,
            "Throttling",
            "",
            RoleChain::default(),
            Actor::Wait,
            "limits",
        ),
        (
            AwsErrorClass::Timeout,
            "",
            "",
            RoleChain::default(),
            Actor::Wait,
            "way to AWS",
        ),
        (
            AwsErrorClass::Unavailable,
            "InternalFailure",
            "",
            RoleChain::default(),
            Actor::Wait,
            "way to AWS",
        ),
        (
            AwsErrorClass::Malformed,
            "",
            "",
            RoleChain::default(),
            Actor::Wait,
            "way to AWS",
        ),
    ] {
        let found = at(
            &failed(class, code, said),
            &cluster_user(chain, None),
            &alice(),
        );
        assert_eq!(found.who, who, "{class} {code}");
        assert!(
            found.hint().contains(told),
            "{class} {code}: {}",
            found.hint()
        );
        assert!(found.changes.is_empty());
    }
}

#[test]
fn a_cluster_of_another_account_than_the_caller_s_is_looked_for_in_the_wrong_place() {
    let elsewhere = AssumeRole {
        role_arn: "arn:aws:iam::222222222222:role/dba".parse().unwrap(),
        external_id: None,
    };
    let request = cluster_user(RoleChain::new(Some(elsewhere), None), None);
    let found = at(
        &failed(AwsErrorClass::NotFound, "ClusterNotFound", ""),
        &request,
        &alice(),
    );
    assert!(
        found.remedy.contains("a role of account 123456789012"),
        "{}",
        found.remedy
    );
    assert!(
        found.remedy.contains("looked for in account 222222222222"),
        "{}",
        found.remedy
    );
}

#[test]
fn a_hop_that_sts_does_not_take_as_it_is_is_the_configurations_fault() {
    let chain = RoleChain::new(Some(role("dba", None)), None);
    for (code, said, told) in [
        ("PackedPolicyTooLarge", "", "session tags"),
        (
            "ValidationError",
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining",
            "at least an hour",
        ),
        (
            "ValidationError",
            "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
            "at least an hour",
        ),
        ("ValidationError", "1 validation error detected", "its ARN"),
    ] {
        let mut failure = failed(AwsErrorClass::InvalidRequest, code, said);
        failure.hop = Some(role("dba", None).role_arn);
        let found = at(&failure, &cluster_user(chain.clone(), None), &alice());
        assert_eq!(
            (found.code, found.who),
            (ErrorCode::AwsCredentials, Actor::Operator)
        );
        assert!(found.remedy.contains(told), "{code}: {}", found.remedy);
    }
}

#[test]
fn a_token_that_rds_refuses_may_lack_the_grant_or_the_permission() {
    let request = |login| LoginRequest {
        login: Login::RdsToken(login),
        ..cluster_user(RoleChain::new(Some(role("dba", None)), None), None)
    };
    let said = "28000 PAM authentication failed for user \"app\"";
    let found = rds_login_refused(&request(rds_login(false)), said).unwrap();
    assert_eq!(
        (found.code, found.who),
        (ErrorCode::DatabaseLogin, Actor::DatabaseAdministrator)
    );
    let hint = found.hint();
    assert!(hint.contains(r#"GRANT rds_iam TO "app""#), "{hint}");
    assert!(hint.contains("dbuser:db-ABC/app"), "{hint}");
    assert_eq!(found.evidence, said);

    let mysql = RdsLogin {
        protocol: Protocol::Mysql,
        ..rds_login(false)
    };
    let hint = rds_login_refused(&request(mysql), said).unwrap().hint();
    assert!(hint.contains("AWSAuthenticationPlugin"), "{hint}");

    let hint = rds_login_refused(&request(rds_login(true)), said)
        .unwrap()
        .hint();
    assert!(hint.contains("secret for `app`"), "{hint}");

    assert_eq!(
        rds_login_refused(&cluster_user(RoleChain::default(), None), said),
        None
    );
}
