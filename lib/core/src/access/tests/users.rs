//! Database users that are made for sessions, and their roles.

use super::*;

/// A role that makes database users in `prod`.
fn making(name: &str, mode: &str, db_roles: &str) -> Role {
    read(&format!(
        r#"{{"name": "{name}", "options": {{"create_db_user_mode": "{mode}"}},
            "allow": {{"db_labels": {{"env": "prod"}}, "db_names": ["*"], "db_roles": {db_roles}}}}}"#
    ))
}

fn provisioned(roles: &[Role], db_user: &str, wanted: &[&str]) -> Decision {
    let decided = decided(roles, db_user, wanted);
    assert_eq!(decided.decision.is_ok(), decided.explanation.allowed());
    decided.decision
}

fn decided(roles: &[Role], db_user: &str, wanted: &[&str]) -> Decided {
    let names: Vec<&str> = roles.iter().map(|role| role.name.as_str()).collect();
    let alice = subject(&names, &[], &[]);
    let wanted: Vec<String> = wanted.iter().map(|role| (*role).to_owned()).collect();
    let request = Request {
        database: &database("prod"),
        db_user,
        db_name: "dev",
    };
    let policy = Policy::new(roles.to_vec());
    let able = Provisioning::Able { db_roles: &wanted };
    policy.grants(&alice).decide(request, able)
}

#[test]
fn where_users_are_made_a_person_is_only_themselves() {
    let roles = [making("m", "keep", r#"["reader"]"#)];
    let permit = provisioned(&roles, "alice", &[]).unwrap();
    assert_eq!(permit.user_mode(), DbUserMode::Keep);
    assert_eq!(permit.db_roles(), ["reader"]);
    assert!(provisioned(&roles, "postgres", &[]).is_err());
    // An agent that cannot make users goes by `db_users`, and there are none.
    assert!(
        decide(&roles, &subject(&["m"], &[], &[]), "alice")
            .decision
            .is_err()
    );
    // A role that is off does not count, and neither does one for other databases.
    assert!(provisioned(&[making("m", "off", "[]")], "alice", &[]).is_err());
    let mut elsewhere = making("m", "keep", "[]");
    elsewhere.allow.db_labels = Selector::new([("env", ["dev"])]).unwrap();
    assert!(provisioned(&[elsewhere], "alice", &[]).is_err());
}

#[test]
fn database_roles_come_from_roles_that_make_users_less_what_is_denied() {
    let mut not_making = role("n", "prod", &["*"], &["*"]);
    not_making.allow.db_roles = vec!["admin".to_owned()];
    let mut denies = role("d", "none", &[], &[]);
    denies.deny.db_roles = vec!["writer".to_owned()];
    let roles = [
        making("m", "keep", r#"["reader", "writer"]"#),
        making("o", "best_effort_drop", r#"["owner"]"#),
        not_making,
        denies,
    ];
    let permit = provisioned(&roles, "alice", &[]).unwrap();
    assert_eq!(permit.db_roles(), ["owner", "reader"]);
    assert_eq!(permit.user_mode(), DbUserMode::BestEffortDrop);
    assert_eq!(
        provisioned(&roles, "alice", &["reader"])
            .unwrap()
            .db_roles(),
        ["reader"]
    );
    for refused in ["writer", "admin"] {
        assert_eq!(
            provisioned(&roles, "alice", &["reader", refused])
                .unwrap_err()
                .to_string(),
            format!("access to database role `{refused}` denied")
        );
    }
}

#[test]
fn an_explanation_tells_which_database_roles_are_refused() {
    let roles = [making("m", "keep", r#"["reader"]"#)];
    let explained = decided(&roles, "alice", &["reader", "owner"]).explanation;
    assert_eq!(
        explained.lines()[0],
        "`alice` using database `orders` as `alice` on `dev`: database role owner denied; allowed are: reader"
    );
    let own_name = decided(&roles, "postgres", &[])
        .explanation
        .lines()
        .join("\n");
    assert!(
        own_name.contains("no   `postgres` has to be the person's own name, `alice`"),
        "{own_name}"
    );
}
