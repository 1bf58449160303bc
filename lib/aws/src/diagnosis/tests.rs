//! One row a cause: who has to act, on what, with which statement.

mod other;

use tidegate_core::{AssumeRole, Protocol};

use super::*;
use crate::{
    chain::RoleChain,
    login::{Login, LoginRequest, NewUser, RdsLogin, Workgroup},
    session::SessionTag,
};

const USER: &str =
    "User: arn:aws:sts::999999999999:assumed-role/tidegate/i-1 is not authorized to perform:";

fn role(name: &str, external_id: Option<&str>) -> AssumeRole {
    AssumeRole {
        role_arn: format!("arn:aws:iam::123456789012:role/{name}")
            .parse()
            .unwrap(),
        external_id: external_id.map(|id| id.parse().unwrap()),
    }
}

fn cluster_user(chain: RoleChain, create: Option<NewUser>) -> LoginRequest {
    LoginRequest {
        login: Login::ClusterUser {
            cluster: "orders".to_owned(),
            db_user: "reader".to_owned(),
            db_name: "dev".to_owned(),
            create,
        },
        region: "us-east-1".parse().unwrap(),
        account: Some("123456789012".parse().unwrap()),
        chain,
    }
}

fn denied(action: &'static str, said: &str) -> AwsFailure {
    let mut failure = AwsFailure::new(AwsErrorClass::AccessDenied, action, said);
    failure.code = Some("AccessDenied".to_owned());
    failure.denied_action = crate::error::denied_action(said).map(Into::into);
    failure
}

fn at(failure: &AwsFailure, request: &LoginRequest, session: &SessionTag) -> Diagnosis {
    diagnose(failure, &Step::of_failure(failure, request, session))
}

fn alice() -> SessionTag {
    SessionTag::new("alice")
}

fn policies(diagnosis: &Diagnosis) -> Vec<(PolicyKind, &str)> {
    let changes = diagnosis.changes.iter();
    changes
        .map(|change| (change.policy, change.of.as_str()))
        .collect()
}

fn statements(diagnosis: &Diagnosis) -> Vec<String> {
    let changes = diagnosis.changes.iter();
    changes
        .map(|change| match &change.edit {
            Edit::Add(statement) => statement.json(),
            Edit::StopDenying { action, policy_arn } => format!("stop {action} {policy_arn:?}"),
        })
        .collect()
}

/// The first hop refused.
fn hop(said: &str, external_id: Option<&str>) -> Diagnosis {
    let chain = RoleChain::new(Some(role("dba", external_id)), None);
    let mut failure = denied("sts:AssumeRole", said);
    failure.hop = Some(role("dba", None).role_arn);
    at(&failure, &cluster_user(chain, None), &alice())
}

#[test]
fn a_refused_hop_without_a_reason_may_lack_trust_or_permission_and_both_are_told() {
    let said = format!("{USER} sts:AssumeRole on resource: arn:aws:iam::123456789012:role/dba");
    let found = hop(&said, Some("xyz-1"));
    assert_eq!((found.who, found.any_of), (Actor::AwsAdministrator, true));
    let agent = "arn:aws:iam::999999999999:role/tidegate";
    let dba = "arn:aws:iam::123456789012:role/dba";
    assert_eq!(
        policies(&found),
        [(PolicyKind::Trust, dba), (PolicyKind::Identity, agent)]
    );
    assert_eq!(
        statements(&found),
        [
            format!(
                r#"{{"Effect":"Allow","Principal":{{"AWS":"{agent}"}},"Action":"sts:AssumeRole","Condition":{{"StringEquals":{{"sts:ExternalId":"xyz-1"}}}}}}"#
            ),
            format!(r#"{{"Effect":"Allow","Action":"sts:AssumeRole","Resource":"{dba}"}}"#),
        ]
    );
    assert!(
        found.remedy.contains("external id is sent"),
        "{}",
        found.remedy
    );
    assert!(!found.hint().contains("xyz-1"), "{}", found.hint());
    assert!(hop(&said, None).remedy.contains("no external id is sent"));
}

#[test]
fn what_aws_blames_is_the_only_policy_to_change() {
    for (said, policy, of, who) in [
        (
            "because no identity-based policy allows the sts:AssumeRole action",
            PolicyKind::Identity,
            "arn:aws:iam::999999999999:role/tidegate",
            Actor::AwsAdministrator,
        ),
        (
            "because no permissions boundary allows the sts:AssumeRole action",
            PolicyKind::Boundary,
            "arn:aws:iam::999999999999:role/tidegate",
            Actor::AwsAdministrator,
        ),
        (
            "because no session policy allows the sts:AssumeRole action",
            PolicyKind::Session,
            "arn:aws:iam::999999999999:role/tidegate",
            Actor::AwsAdministrator,
        ),
        (
            "because no role trust policy allows the sts:AssumeRole action",
            PolicyKind::Trust,
            "arn:aws:iam::123456789012:role/dba",
            Actor::AwsAdministrator,
        ),
        (
            "because no service control policy allows the sts:AssumeRole action",
            PolicyKind::ServiceControl,
            "the organization of the caller's account",
            Actor::OrganizationAdministrator,
        ),
        (
            "because no VPC endpoint policy allows the sts:AssumeRole action",
            PolicyKind::VpcEndpoint,
            "the VPC endpoint that the call goes through",
            Actor::AwsAdministrator,
        ),
    ] {
        let said =
            format!("{USER} sts:AssumeRole on resource: arn:aws:iam::123456789012:role/dba {said}");
        let found = hop(&said, None);
        assert_eq!(policies(&found), [(policy, of)], "{said}");
        assert_eq!((found.who, found.any_of), (who, false), "{said}");
    }
}

#[test]
fn an_explicit_deny_is_to_be_taken_away_and_nothing_to_be_added() {
    let policy = "arn:aws:organizations::1:policy/o-1/service_control_policy/p-9";
    let said = format!(
        "{USER} sts:AssumeRole on resource: arn:aws:iam::123456789012:role/dba with an explicit deny in a service control \
         policy: {policy}"
    );
    let found = hop(&said, None);
    assert_eq!(
        statements(&found),
        [format!("stop sts:AssumeRole Some({policy:?})")]
    );
    assert_eq!(found.who, Actor::OrganizationAdministrator);
    assert!(
        found.hint().contains("from denying sts:AssumeRole"),
        "{}",
        found.hint()
    );
}

#[test]
fn tags_and_source_identity_that_a_role_does_not_take_are_named_with_the_setting_that_sends_them() {
    let session = alice()
        .with_source_identity("alice")
        .with_tag("team", "data");
    let chain = RoleChain::new(Some(role("dba", None)), None);
    for (action, setting) in [
        ("sts:TagSession", "db_service.aws_session.tags"),
        (
            "sts:SetSourceIdentity",
            "db_service.aws_session.source_identity",
        ),
    ] {
        let said = format!("{USER} {action} on resource: arn:aws:iam::123456789012:role/dba");
        let mut failure = denied("sts:AssumeRole", &said);
        failure.hop = Some(role("dba", None).role_arn);
        let found = at(&failure, &cluster_user(chain.clone(), None), &session);
        assert!(found.what.contains(action), "{}", found.what);
        assert!(
            found.remedy.contains(action) && found.remedy.contains(setting),
            "{}",
            found.remedy
        );
        let all = r#"["sts:AssumeRole","sts:SetSourceIdentity","sts:TagSession"]"#;
        assert!(
            statements(&found)[0].contains(all),
            "{:?}",
            statements(&found)
        );
        assert!(!found.any_of, "both policies need it");
    }
}

#[test]
fn the_second_hop_is_the_first_roles_call_and_trust() {
    let chain = RoleChain::new(
        Some(role("dba", Some("xyz"))),
        Some(role("analyst", None).role_arn),
    );
    let mut failure = denied("sts:AssumeRole", "Access denied");
    failure.hop = Some(role("analyst", None).role_arn);
    let found = at(&failure, &cluster_user(chain, None), &alice());
    assert_eq!(
        found.what,
        "sts:AssumeRole was denied, assuming arn:aws:iam::123456789012:role/analyst as \
         arn:aws:iam::123456789012:role/dba"
    );
    let (analyst, dba) = (
        "arn:aws:iam::123456789012:role/analyst",
        "arn:aws:iam::123456789012:role/dba",
    );
    assert_eq!(
        policies(&found),
        [(PolicyKind::Trust, analyst), (PolicyKind::Identity, dba)]
    );
    assert!(!statements(&found)[0].contains("ExternalId"));
}

#[test]
fn each_kind_of_login_needs_its_own_statement() {
    let own = RoleChain::default;
    let serverless = |arn: Option<&str>| Login::Workgroup {
        workgroup: Workgroup::Named {
            name: "wg".to_owned(),
            arn: arn.map(str::to_owned),
        },
        db_name: "dev".to_owned(),
    };
    let rds = |region: &str| (region.to_owned(), Login::RdsToken(rds_login(false)));
    let create = Some(NewUser {
        groups: vec!["readers".to_owned()],
    });
    for (login, region, expected) in [
        (
            cluster_user(own(), None).login,
            "us-east-1",
            vec![
                r#"{"Effect":"Allow","Action":"redshift:GetClusterCredentials","Resource":["arn:aws:redshift:us-east-1:123456789012:dbuser:orders/reader","arn:aws:redshift:us-east-1:123456789012:dbname:orders/dev"]}"#,
            ],
        ),
        (
            cluster_user(own(), create).login,
            "us-gov-west-1",
            vec![
                r#"{"Effect":"Allow","Action":"redshift:GetClusterCredentials","Resource":["arn:aws-us-gov:redshift:us-gov-west-1:123456789012:dbuser:orders/reader","arn:aws-us-gov:redshift:us-gov-west-1:123456789012:dbname:orders/dev"]}"#,
                r#"{"Effect":"Allow","Action":"redshift:CreateClusterUser","Resource":"arn:aws-us-gov:redshift:us-gov-west-1:123456789012:dbuser:orders/reader"}"#,
                r#"{"Effect":"Allow","Action":"redshift:JoinGroup","Resource":"arn:aws-us-gov:redshift:us-gov-west-1:123456789012:dbgroup:orders/readers"}"#,
            ],
        ),
        (
            Login::ClusterRole {
                cluster: "orders".to_owned(),
                db_name: "dev".to_owned(),
            },
            "us-east-1",
            vec![
                r#"{"Effect":"Allow","Action":"redshift:GetClusterCredentialsWithIAM","Resource":"arn:aws:redshift:us-east-1:123456789012:dbname:orders/dev"}"#,
            ],
        ),
        (
            serverless(Some(
                "arn:aws:redshift-serverless:us-east-1:123456789012:workgroup/u-u-i-d",
            )),
            "us-east-1",
            vec![
                r#"{"Effect":"Allow","Action":"redshift-serverless:GetCredentials","Resource":"arn:aws:redshift-serverless:us-east-1:123456789012:workgroup/u-u-i-d"}"#,
            ],
        ),
        (
            serverless(None),
            "us-east-1",
            vec![
                r#"{"Effect":"Allow","Action":"redshift-serverless:GetCredentials","Resource":"arn:aws:redshift-serverless:us-east-1:123456789012:workgroup/*"}"#,
            ],
        ),
        (
            rds("cn-north-1").1,
            "cn-north-1",
            vec![
                r#"{"Effect":"Allow","Action":"rds-db:connect","Resource":"arn:aws-cn:rds-db:cn-north-1:123456789012:dbuser:db-ABC/app"}"#,
            ],
        ),
    ] {
        let request = LoginRequest {
            login,
            region: region.parse().unwrap(),
            ..cluster_user(own(), None)
        };
        let needs: Vec<String> = request.needs().iter().map(Statement::json).collect();
        assert_eq!(needs, expected);
    }
}

#[test]
fn of_several_statements_only_the_one_that_aws_missed_is_told() {
    let create = Some(NewUser {
        groups: vec!["readers".to_owned()],
    });
    let request = cluster_user(RoleChain::default(), create);
    let said = format!(
        "{USER} redshift:JoinGroup on resource: arn:aws:redshift:us-east-1:123456789012:dbgroup:orders/readers because \
         no identity-based policy allows the redshift:JoinGroup action"
    );
    let found = at(
        &denied("redshift:GetClusterCredentials", &said),
        &request,
        &alice(),
    );
    assert_eq!(statements(&found).len(), 1);
    assert!(statements(&found)[0].contains("redshift:JoinGroup"));
    assert_eq!(found.remedy, "allow redshift:JoinGroup");
}

#[test]
fn clients_read_neither_what_aws_said_nor_whom_else_it_named() {
    let said = format!("{USER} redshift:GetClusterCredentials on resource: arn:x/secret-cluster");
    let chain = RoleChain::new(Some(role("dba", None)), None);
    let failure = denied("redshift:GetClusterCredentials", &said);
    let problem = at(&failure, &cluster_user(chain, None), &alice()).problem();
    assert_eq!(problem.code, ErrorCode::AwsAccessDenied);
    assert!(
        problem
            .message
            .contains("called as arn:aws:iam::123456789012:role/dba")
    );
    for text in [&problem.message, problem.hint.as_ref().unwrap()] {
        assert!(
            !text.contains("secret-cluster") && !text.contains("i-1"),
            "{text}"
        );
    }
    assert!(problem.operator.contains("secret-cluster"));
}

fn rds_login(is_proxy: bool) -> RdsLogin {
    RdsLogin {
        host: "app.abc.us-east-1.rds.amazonaws.com".to_owned(),
        port: 5432,
        db_user: "app".to_owned(),
        protocol: Protocol::Postgres,
        resource_id: Some("db-ABC".to_owned()),
        is_proxy,
    }
}
