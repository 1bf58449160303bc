use proptest::prelude::*;

use super::*;
use crate::{
    database::{AwsMetadata, Origin, Protocol, TlsSettings},
    matcher::DatabaseKind,
    selector::Selector,
};

mod explain;
mod laws;
mod rules;
mod users;
mod written;

fn database(env: &str) -> Database {
    Database {
        name: "orders".parse().unwrap(),
        description: String::new(),
        labels: [("env", env)].into_iter().collect(),
        origin: Origin::Cloud,
        protocol: Protocol::Postgres,
        uri: "h:1".parse().unwrap(),
        tls: TlsSettings::default(),
        aws: AwsMetadata::default(),
        kind: None,
        identity: String::new(),
        discovered_name: String::new(),
        unavailable: String::new(),
    }
}

fn subject(roles: &[&str], users: &[&str], names: &[&str]) -> Subject {
    let owned = |values: &[&str]| {
        values
            .iter()
            .map(|value| (*value).to_owned())
            .collect::<Vec<_>>()
    };
    Subject {
        user: "alice".to_owned(),
        roles: owned(roles),
        traits: [
            (TRAIT_DB_USERS.to_owned(), owned(users)),
            (TRAIT_DB_NAMES.to_owned(), owned(names)),
        ]
        .into(),
    }
}

fn role(name: &str, env: &str, users: &[&str], names: &[&str]) -> Role {
    let conditions = RoleConditions {
        db_labels: Selector::new([("env", [env])]).unwrap(),
        db_users: users.iter().map(|user| (*user).to_owned()).collect(),
        db_names: names.iter().map(|name| (*name).to_owned()).collect(),
        ..RoleConditions::default()
    };
    Role {
        name: name.to_owned(),
        allow: conditions,
        ..Role::default()
    }
}

fn check(policy: &Policy, subject: &Subject, env: &str, db_user: &str, db_name: &str) -> Decision {
    policy.check(
        subject,
        Request {
            database: &database(env),
            db_user,
            db_name,
        },
    )
}

#[test]
fn the_access_role_allows_what_the_traits_list() {
    let policy = Policy::new(Role::builtin());
    let alice = subject(&["access"], &["reader"], &["*"]);
    assert_eq!(
        check(&policy, &alice, "prod", "reader", "dev")
            .unwrap()
            .role(),
        "access"
    );
    let denial = check(&policy, &alice, "prod", "admin", "dev").unwrap_err();
    assert_eq!(
        denial.reasons,
        [Reason::User {
            role: "access".to_owned(),
            db_user: "admin".to_owned()
        }]
    );
}

#[test]
fn rights_of_two_roles_are_not_combined() {
    let policy = Policy::new([
        role("a", "prod", &["x"], &["*"]),
        role("b", "dev", &["y"], &["*"]),
    ]);
    assert!(check(&policy, &subject(&["a", "b"], &[], &[]), "prod", "y", "d").is_err());
}

#[test]
fn deny_wins_over_any_allow() {
    let mut forbids = role("forbids", "none", &[], &[]);
    forbids.deny.db_users = vec!["postgres".to_owned()];
    let policy = Policy::new([role("a", "prod", &["*"], &["*"]), forbids]);
    let alice = subject(&["a", "forbids"], &[], &[]);
    assert!(check(&policy, &alice, "prod", "postgres", "d").is_err());
    assert!(check(&policy, &alice, "prod", "other", "d").is_ok());
}

#[test]
fn nobody_without_roles_gets_in_and_the_reason_says_so() {
    let denial = check(
        &Policy::new(Role::builtin()),
        &subject(&[], &["*"], &["*"]),
        "prod",
        "x",
        "d",
    )
    .unwrap_err();
    assert_eq!(denial.to_string(), "user has no roles");
    let denial = check(
        &Policy::new(Role::builtin()),
        &subject(&["gone"], &["*"], &["*"]),
        "prod",
        "x",
        "d",
    )
    .unwrap_err();
    assert_eq!(denial.to_string(), "role `gone` does not exist");
}

#[test]
fn listings_hold_only_what_some_role_may_see() {
    let policy = Policy::new([role("a", "prod", &["x"], &["*"])]);
    let alice = subject(&["a"], &[], &[]);
    assert!(policy.may_see(&alice, &database("prod").labels));
    assert!(!policy.may_see(&alice, &database("dev").labels));
}

/// A role from JSON, which is how the tables below write them shortest.
fn read(json: &str) -> Role {
    serde_json::from_str(json).unwrap()
}

fn decide(roles: &[Role], alice: &Subject, db_user: &str) -> Decided {
    let request = Request {
        database: &database("prod"),
        db_user,
        db_name: "dev",
    };
    let policy = Policy::new(roles.to_vec());
    policy.grants(alice).decide(request, Provisioning::Unable)
}

#[test]
fn labels_and_expression_together_allow_only_when_both_hold_and_deny_when_either_does() {
    let yes = r#""db_labels_expression": "labels[\"env\"] == \"prod\"""#;
    let no = r#""db_labels_expression": "labels[\"env\"] == \"dev\"""#;
    let (prod, dev) = (
        r#""db_labels": {"env": "prod"}"#,
        r#""db_labels": {"env": "dev"}"#,
    );
    let everything = r#""db_users": ["*"], "db_names": ["*"]"#;
    for (allow, allowed) in [
        (yes.to_owned(), true),
        (no.to_owned(), false),
        (prod.to_owned(), true),
        (format!("{prod}, {yes}"), true),
        (format!("{prod}, {no}"), false),
        (format!("{dev}, {yes}"), false),
        (r#""db_labels": {}"#.to_owned(), false),
    ] {
        let role = read(&format!(
            r#"{{"name": "r", "allow": {{{allow}, {everything}}}}}"#
        ));
        let decided = decide(&[role], &subject(&["r"], &[], &[]), "x");
        assert_eq!(decided.decision.is_ok(), allowed, "allow {allow}");
    }
    for (deny, denied) in [
        (yes.to_owned(), true),
        (no.to_owned(), false),
        (format!("{prod}, {no}"), true),
        (format!("{dev}, {yes}"), true),
        (format!("{dev}, {no}"), false),
    ] {
        let role = read(&format!(
            r#"{{"name": "r", "allow": {{{prod}, {everything}}}, "deny": {{{deny}}}}}"#
        ));
        let decided = decide(&[role], &subject(&["r"], &[], &[]), "x");
        assert_eq!(decided.decision.is_err(), denied, "deny {deny}");
    }
}

#[test]
fn labels_take_values_from_traits() {
    let role = read(
        r#"{"name": "r", "allow": {"db_labels": {"env": ["{{external.envs}}"]}, "db_users": ["*"], "db_names": ["*"]}}"#,
    );
    let mut alice = subject(&["r"], &[], &[]);
    let allowed = |alice: &Subject| {
        let decided = decide(std::slice::from_ref(&role), alice, "x");
        let seen = Policy::new([role.clone()]).may_see(alice, &database("prod").labels);
        assert_eq!(decided.decision.is_ok(), seen);
        seen
    };
    assert!(!allowed(&alice));
    alice
        .traits
        .insert("envs".to_owned(), vec!["dev".to_owned(), "pr*".to_owned()]);
    assert!(allowed(&alice));
    alice
        .traits
        .insert("envs".to_owned(), vec!["dev".to_owned()]);
    assert!(!allowed(&alice));
}

#[test]
fn an_expression_compares_labels_with_who_asks() {
    let role = read(
        r#"{"name": "r", "allow": {"db_labels_expression": "contains(user.spec.traits[\"envs\"], labels[\"env\"])",
            "db_users": ["*"], "db_names": ["*"]}}"#,
    );
    let mut alice = subject(&["r"], &[], &[]);
    assert!(
        decide(std::slice::from_ref(&role), &alice, "x")
            .decision
            .is_err()
    );
    alice
        .traits
        .insert("envs".to_owned(), vec!["prod".to_owned()]);
    assert!(decide(&[role], &alice, "x").decision.is_ok());
}

#[test]
fn what_cannot_be_read_allows_nothing_and_denies_everything() {
    let good = role("good", "prod", &["*"], &["*"]);
    for side in [
        r#""db_users": ["{{intern.x}}"], "db_names": ["*"], "db_labels": {"*": "*"}"#,
        r#""db_users": ["*"], "db_names": ["{{internal.x"], "db_labels": {"*": "*"}"#,
        r#""db_users": ["*"], "db_names": ["*"], "db_labels": {"env": "{{x}}"}"#,
    ] {
        let allows = read(&format!(r#"{{"name": "r", "allow": {{{side}}}}}"#));
        assert!(!allows.problems().is_empty());
        assert!(
            decide(&[allows], &subject(&["r"], &[], &[]), "x")
                .decision
                .is_err(),
            "{side}"
        );
    }
    for side in [
        r#""db_users": ["{{intern.x}}"]"#,
        r#""db_names": ["{{internal.x"]"#,
        r#""db_labels": {"env": "{{x}}"}"#,
    ] {
        let denies = read(&format!(r#"{{"name": "r", "deny": {{{side}}}}}"#));
        let decided = decide(
            &[good.clone(), denies],
            &subject(&["good", "r"], &[], &[]),
            "x",
        );
        assert!(
            matches!(decided.explanation.outcome, Outcome::Denied { .. }),
            "{side}"
        );
        assert!(decided.decision.is_err());
    }
}

/// Whether an allow, and whether a deny, of `written` means a person who asks for `asked`.
fn meant(database: &Database, written: &str, asked: &str) -> [bool; 2] {
    let request = Request {
        database,
        db_user: asked,
        db_name: "dev",
    };
    let alice = subject(&["allows", "denies"], &[], &[]);
    let policy = Policy::new([role("allows", "prod", &[written], &["*"])]);
    let allowed = policy.check(&alice, request).is_ok();
    let mut denies = role("denies", "none", &[], &[]);
    denies.deny.db_users = vec![written.to_owned()];
    let policy = Policy::new([role("allows", "prod", &["*"], &["*"]), denies]);
    [allowed, policy.check(&alice, request).is_err()]
}

#[test]
fn a_role_as_database_user_is_one_user_by_all_its_names() {
    let arn = "arn:aws:iam::111122223333:role/team/reader";
    let other = "arn:aws:iam::999999999999:role/team/reader";
    let short = "role/team/reader";
    let with = |kind: Option<DatabaseKind>, account: Option<&str>| {
        let mut database = database("prod");
        database.kind = kind;
        database.aws.account_id = account.map(|account| account.parse().unwrap());
        database
    };
    let account = Some("111122223333");
    let redshift = with(Some(DatabaseKind::Redshift), account);
    let serverless = with(Some(DatabaseKind::RedshiftServerless), account);
    let rds = with(Some(DatabaseKind::Rds), account);
    let mut by_hand = with(None, None);
    by_hand.aws.redshift_cluster_id = Some("dw".to_owned());
    for (database, written, asked, expected) in [
        (&redshift, short, arn, [true, true]),
        (&redshift, arn, short, [true, true]),
        (&redshift, arn, arn, [true, true]),
        (&redshift, short, other, [false, false]),
        (&redshift, other, short, [false, false]),
        (&redshift, "team/reader", short, [false, false]),
        (&serverless, "team/reader", short, [true, true]),
        (&serverless, "team/reader", arn, [true, true]),
        (&serverless, "team/reader", other, [false, false]),
        (&serverless, "arn:bad", "arn:worse", [false, false]),
        (&rds, short, arn, [false, false]),
        // Which account it is only the agent knows: an allow needs the same words, a deny does not.
        (&by_hand, short, short, [true, true]),
        (&by_hand, short, other, [false, true]),
        (&by_hand, arn, short, [false, true]),
        (&by_hand, arn, other, [false, false]),
    ] {
        assert_eq!(
            meant(database, written, asked),
            expected,
            "{written}, asked {asked}"
        );
    }
}

#[test]
fn names_are_enforced_only_where_a_connection_reaches_one() {
    let mut mysql = database("prod");
    mysql.protocol = Protocol::Mysql;
    let mut only = role("r", "prod", &["*"], &["one"]);
    only.deny.db_names = vec!["two".to_owned()];
    let policy = Policy::new([only]);
    let alice = subject(&["r"], &[], &[]);
    let on = |database: &Database| {
        let request = Request {
            database,
            db_user: "x",
            db_name: "two",
        };
        policy.check(&alice, request).is_ok()
    };
    assert!(on(&mysql));
    assert!(!on(&database("prod")));
}

#[test]
fn allowed_users_leave_out_what_is_denied() {
    let mut denies = role("b", "none", &[], &[]);
    denies.deny.db_users = vec!["admin".to_owned()];
    let labels = database("prod").labels;
    let alice = subject(&["a", "b"], &[], &[]);
    let named = Policy::new([
        role("a", "prod", &["admin", "reader"], &["*"]),
        denies.clone(),
    ]);
    assert_eq!(named.allowed_users(&alice, &labels), ["reader"]);
    let any = Policy::new([role("a", "prod", &["*"], &["*"]), denies.clone()]);
    let users = any.grants(&alice).db_users(&labels);
    assert_eq!(
        (users.values, users.except),
        (vec!["*".to_owned()], vec!["admin".to_owned()])
    );
    denies.deny.db_users = vec!["*".to_owned()];
    let none = Policy::new([role("a", "prod", &["*"], &["*"]), denies]);
    assert!(none.allowed_users(&alice, &labels).is_empty());
}
