use std::{collections::BTreeMap, sync::Arc};

use tidegate_aws::diagnosis::Statement;
use tidegate_core::{
    AwsMetadata, Origin, Policy, Protocol, Request, Role, Subject, access::Provisioning,
};

use super::*;
use crate::testing::{redshift, role, wanted_as as wanted};

const WORKGROUP: &str = "arn:aws:redshift-serverless:us-east-1:123456789012:workgroup/0a1b-2c3d";

fn of(database: Database, effective: Option<&str>) -> Wanted {
    Wanted {
        database: Arc::new(database),
        ..wanted(effective)
    }
}

fn serverless(effective: Option<&str>) -> Wanted {
    let mut database = redshift("reports", &[]);
    database.kind = Some(DatabaseKind::RedshiftServerless);
    database.identity = WORKGROUP.to_owned();
    database.uri = "reports.123456789012.us-east-1.redshift-serverless.amazonaws.com:5439"
        .parse()
        .unwrap();
    database.aws.redshift_cluster_id = None;
    database.aws.redshift_serverless_workgroup = Some("reports".to_owned());
    of(database, effective)
}

fn rds(kind: DatabaseKind, effective: Option<&str>) -> Wanted {
    let mut database = redshift("app", &[]);
    database.kind = Some(kind);
    database.uri = "app.abc.us-east-1.rds.amazonaws.com:5432".parse().unwrap();
    database.aws.redshift_cluster_id = None;
    database.aws.rds_instance_id = Some("app".to_owned());
    database.aws.rds_resource_id = Some("db-ABC".to_owned());
    of(database, effective)
}

fn request(wanted: &Wanted, db_user: &str) -> LoginRequest {
    match plan_login(wanted, db_user, "dev").unwrap() {
        LoginPlan::Aws(plan) => plan.request(None).unwrap(),
        LoginPlan::Trust { .. } => panic!("a plan for AWS"),
    }
}

fn hops(wanted: &Wanted, db_user: &str) -> Vec<String> {
    let chain = request(wanted, db_user).chain;
    let hops = chain.hops().iter();
    hops.map(|hop| hop.role_arn.role_name().to_owned())
        .collect()
}

#[test]
fn a_plain_user_is_asked_for_as_the_effective_role() {
    let request = request(&wanted(Some("agent")), "reader");
    assert_eq!(request.chain.last(), Some(&role("agent").role_arn));
    assert_eq!(
        request.login,
        Login::ClusterUser {
            cluster: "orders".to_owned(),
            db_user: "reader".to_owned(),
            db_name: "dev".to_owned(),
            create: None,
        }
    );
}

#[test]
fn a_role_is_assumed_on_top_of_the_effective_one() {
    for db_user in ["role/analyst", "arn:aws:iam::123456789012:role/analyst"] {
        let orders = wanted(Some("agent"));
        assert_eq!(hops(&orders, db_user), ["agent", "analyst"]);
        assert!(matches!(
            request(&orders, db_user).login,
            Login::ClusterRole { .. }
        ));
    }
    assert_eq!(hops(&wanted(None), "role/team/analyst"), ["analyst"]);
}

#[test]
fn the_external_id_of_the_effective_role_goes_to_it_alone() {
    let mut orders = wanted(Some("agent"));
    orders.effective.role = Some(AssumeRole {
        external_id: Some("xyz".parse().unwrap()),
        ..role("agent")
    });
    let chain = request(&orders, "role/analyst").chain;
    let ids: Vec<bool> = chain
        .hops()
        .iter()
        .map(|hop| hop.external_id.is_some())
        .collect();
    assert_eq!(ids, [true, false]);
}

#[test]
fn the_external_id_of_the_database_goes_to_the_users_role_when_that_is_the_first() {
    for (effective, expected) in [(None, vec![true]), (Some("agent"), vec![false, false])] {
        let mut reports = serverless(effective);
        reports.database_mut().aws.external_id = Some("xyz".parse().unwrap());
        let chain = request(&reports, "analyst").chain;
        let ids: Vec<bool> = chain
            .hops()
            .iter()
            .map(|hop| hop.external_id.is_some())
            .collect();
        assert_eq!(ids, expected);
    }
}

#[test]
fn a_bare_role_is_of_the_databases_account_or_else_of_the_effective_roles_or_else_of_the_agent() {
    let mut orders = wanted(Some("agent"));
    orders.database_mut().aws.account_id = Some("999999999999".parse().unwrap());
    let account = |wanted: &Wanted| request(wanted, "role/x").chain.last().unwrap().account();
    assert_eq!(account(&orders).as_str(), "999999999999");
    orders.database_mut().aws.account_id = None;
    assert_eq!(account(&orders).as_str(), "123456789012");
    orders.effective.role = None;
    let LoginPlan::Aws(plan) = plan_login(&orders, "role/x", "dev").unwrap() else {
        panic!("a plan for AWS");
    };
    assert!(plan.needs_own_account());
    assert!(plan.request(None).is_err());
    let own = "777777777777".parse().unwrap();
    let request = plan.request(Some(&own)).unwrap();
    assert_eq!(
        request.chain.last().unwrap().as_str(),
        "arn:aws:iam::777777777777:role/x"
    );
}

#[test]
fn bare_roles_are_of_the_partition_that_the_database_is_in() {
    for (region, partition) in [("us-gov-west-1", "aws-us-gov"), ("cn-north-1", "aws-cn")] {
        let mut orders = wanted(None);
        orders.database_mut().aws.region = Some(region.parse().unwrap());
        let request = request(&orders, "role/x");
        let arn = format!("arn:{partition}:iam::123456789012:role/x");
        assert_eq!(request.chain.last().unwrap().as_str(), arn);
        let needs: Vec<String> = request.needs().iter().map(Statement::json).collect();
        assert!(
            needs[0].contains(&format!("arn:{partition}:redshift:{region}:")),
            "{needs:?}"
        );
    }
}

#[test]
fn in_redshift_serverless_every_user_is_a_role() {
    for db_user in [
        "analyst",
        "role/analyst",
        "arn:aws:iam::123456789012:role/analyst",
    ] {
        let reports = serverless(Some("agent"));
        assert_eq!(hops(&reports, db_user), ["agent", "analyst"], "{db_user}");
        let workgroup = Workgroup::Named {
            name: "reports".to_owned(),
            arn: Some(WORKGROUP.to_owned()),
        };
        let db_name = "dev".to_owned();
        assert_eq!(
            request(&reports, db_user).login,
            Login::Workgroup { workgroup, db_name }
        );
    }
}

#[test]
fn a_vpc_endpoint_belongs_to_its_workgroup_and_a_custom_domain_stands_for_it() {
    let mut reports = serverless(None);
    reports.database_mut().identity = format!("{WORKGROUP}#vpc-endpoint/inside");
    let Login::Workgroup { workgroup, .. } = request(&reports, "analyst").login else {
        panic!("a workgroup");
    };
    let arn = Some(WORKGROUP.to_owned());
    assert_eq!(
        workgroup,
        Workgroup::Named {
            name: "reports".to_owned(),
            arn
        }
    );

    reports.database_mut().identity.clear();
    reports.database_mut().aws.redshift_serverless_workgroup = None;
    reports.database_mut().uri = "reports.corp.example:5439".parse().unwrap();
    let Login::Workgroup { workgroup, .. } = request(&reports, "analyst").login else {
        panic!("a workgroup");
    };
    assert_eq!(
        workgroup,
        Workgroup::CustomDomain("reports.corp.example".to_owned())
    );
}

#[test]
fn tokens_for_rds_are_signed_for_its_endpoint_as_the_effective_role() {
    for (kind, is_proxy) in [(DatabaseKind::Rds, false), (DatabaseKind::Rdsproxy, true)] {
        for protocol in [Protocol::Postgres, Protocol::Mysql] {
            let mut app = rds(kind, Some("agent"));
            app.database_mut().protocol = protocol;
            let expected = RdsLogin {
                host: "app.abc.us-east-1.rds.amazonaws.com".to_owned(),
                port: 5432,
                db_user: "app_user".to_owned(),
                protocol,
                resource_id: Some("db-ABC".to_owned()),
                is_proxy,
            };
            let asked = request(&app, "app_user");
            assert_eq!(asked.login, Login::RdsToken(expected.clone()));
            assert_eq!(asked.chain.last(), Some(&role("agent").role_arn));

            app.database_mut().uri = "App.corp.example:5432".parse().unwrap();
            let problem = plan_login(&app, "app_user", "dev").unwrap_err();
            assert!(problem.hint.unwrap().contains("tls.server_name"));
            app.database_mut().tls.server_name =
                Some("APP.abc.us-east-1.rds.amazonaws.com".to_owned());
            assert_eq!(request(&app, "app_user").login, Login::RdsToken(expected));
        }
    }
}

#[test]
fn kinds_that_know_no_roles_say_so() {
    let mut own = wanted(None);
    own.database_mut().kind = None;
    own.database_mut().aws = AwsMetadata::default();
    for wanted in [
        rds(DatabaseKind::Rds, None),
        rds(DatabaseKind::Rdsproxy, None),
        own,
    ] {
        for db_user in ["role/x", "arn:aws:iam::123456789012:role/x"] {
            let problem = plan_login(&wanted, db_user, "dev").unwrap_err();
            assert_eq!(problem.code, ErrorCode::AccessDenied, "{problem}");
        }
    }
}

#[test]
fn users_that_redshift_would_not_take_are_refused_before_aws_is_asked() {
    let long = "x".repeat(65);
    for db_user in [
        "IAM:alice",
        "IAMA:alice",
        "IAMR:analyst",
        "1alice",
        "a b",
        "public",
        "",
        &long,
    ] {
        let problem = plan_login(&wanted(None), db_user, "dev").unwrap_err();
        assert_eq!(problem.code, ErrorCode::AccessDenied, "{db_user}");
    }
    for db_user in [
        "IAM:alice",
        "IAMR:analyst",
        "arn:aws:iam::123456789012:user/x",
        "a b",
        "role/",
    ] {
        let problem = plan_login(&serverless(None), db_user, "dev").unwrap_err();
        assert_eq!(problem.code, ErrorCode::AccessDenied, "{db_user}");
    }
    for db_user in ["alice@example.com", "Zoë", "a+b.c-d_e"] {
        assert!(
            plan_login(&wanted(None), db_user, "dev").is_ok(),
            "{db_user}"
        );
    }
}

#[test]
fn a_database_outside_aws_has_to_trust_us() {
    let mut own = wanted(None);
    own.database_mut().kind = None;
    own.database_mut().origin = Origin::Config;
    own.database_mut().aws = AwsMetadata::default();
    let db_user = "app".to_owned();
    assert_eq!(
        plan_login(&own, "app", "dev").unwrap(),
        LoginPlan::Trust { db_user }
    );
}

#[test]
fn without_the_facts_that_aws_asks_for_the_operator_is_told_what_is_missing() {
    let mut orders = wanted(None);
    orders.database_mut().aws.redshift_cluster_id = None;
    let problem = plan_login(&orders, "reader", "dev").unwrap_err();
    assert!(problem.message.contains("cluster identifier"), "{problem}");
    for mut wanted in [wanted(None), serverless(None), rds(DatabaseKind::Rds, None)] {
        wanted.database_mut().aws.region = None;
        let problem = plan_login(&wanted, "reader", "dev").unwrap_err();
        assert!(problem.message.contains("region"), "{problem}");
    }
}

fn permitted(wanted: &Wanted, mode: &str, db_user: &str) -> Result<LoginPlan, Problem> {
    let role: Role = serde_json::from_str(&format!(
        r#"{{"name": "makers", "options": {{"create_db_user_mode": "{mode}"}},
            "allow": {{"db_labels": {{"*": ["*"]}}, "db_users": ["*"], "db_names": ["*"],
                       "db_roles": ["Readers", "writers"]}}, "deny": {{}}}}"#
    ))
    .unwrap();
    let policy = Policy::new([role]);
    let subject = Subject {
        user: "alice".to_owned(),
        roles: vec!["makers".to_owned()],
        traits: BTreeMap::new(),
    };
    let asked = Request {
        database: &wanted.database,
        db_user,
        db_name: "dev",
    };
    let able = Provisioning::on(&wanted.database);
    let permit = policy
        .grants(&subject)
        .decide(asked, able)
        .decision
        .unwrap();
    plan_permitted(wanted, &permit)
}

#[test]
fn where_a_role_asks_for_it_the_persons_own_user_is_made_with_the_groups_of_her_roles() {
    for (mode, made) in [("keep", true), ("best_effort_drop", true), ("off", false)] {
        let plan = permitted(&wanted(None), mode, "alice").unwrap();
        let LoginPlan::Aws(plan) = plan else {
            panic!("a plan for AWS");
        };
        let Login::ClusterUser {
            db_user, create, ..
        } = plan.request(None).unwrap().login
        else {
            panic!("a user");
        };
        assert_eq!(db_user, "alice");
        let groups = vec!["readers".to_owned(), "writers".to_owned()];
        assert_eq!(create, made.then_some(NewUser { groups }), "{mode}");
    }
}

#[test]
fn where_no_users_can_be_made_a_role_that_asks_for_them_leaves_others_usable() {
    let plan = permitted(&rds(DatabaseKind::Rds, None), "keep", "app_user").unwrap();
    let LoginPlan::Aws(plan) = plan else {
        panic!("a plan for AWS");
    };
    assert!(matches!(
        plan.request(None).unwrap().login,
        Login::RdsToken(_)
    ));
}

#[test]
fn what_rds_refuses_without_a_reason_is_told_with_what_may_be_missing_and_other_refusals_are_not() {
    let app = plan_login(&rds(DatabaseKind::Rds, None), "app_user", "app").unwrap();
    let meaning = app.refusal("28000 PAM authentication failed").unwrap();
    assert_eq!(meaning.code, ErrorCode::DatabaseLogin);
    let hint = meaning.hint.unwrap();
    assert!(hint.contains(r#"GRANT rds_iam TO "app_user""#), "{hint}");
    assert!(hint.contains("rds-db:connect"), "{hint}");
    let orders = plan_login(&wanted(None), "reader", "dev").unwrap();
    assert_eq!(orders.refusal("28000 no such user"), None);
}
