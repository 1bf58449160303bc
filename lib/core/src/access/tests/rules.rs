//! Who may do what in the cluster.

use super::*;

fn rule_role(name: &str, allow: &str, deny: &str) -> Role {
    read(&format!(
        r#"{{"name": "{name}", "allow": {{"rules": {allow}}}, "deny": {{"rules": {deny}}}}}"#
    ))
}

fn holder(roles: &[&str]) -> Subject {
    subject(roles, &[], &[])
}

#[test]
fn the_built_in_roles_may_do_this_and_no_more() {
    let policy = Policy::new(Role::builtin());
    for (role, kind, verb, allowed) in [
        ("editor", kinds::ROLE, Verb::Delete, true),
        ("editor", kinds::CERT_AUTHORITY, Verb::Rotate, true),
        ("auditor", kinds::EVENT, Verb::List, true),
        ("auditor", kinds::SESSION, Verb::Read, true),
        ("auditor", kinds::EVENT, Verb::ReadNoSecrets, true),
        ("auditor", kinds::EVENT, Verb::Delete, false),
        ("auditor", kinds::USER, Verb::Read, false),
        ("access", kinds::USER, Verb::List, false),
        ("access", kinds::EVENT, Verb::List, false),
        ("requester", kinds::ACCESS_REQUEST, Verb::Update, false),
        ("reviewer", kinds::ACCESS_REQUEST, Verb::List, true),
        ("reviewer", kinds::ACCESS_REQUEST, Verb::Update, false),
    ] {
        let explanation = policy.may(&holder(&[role]), Target::kind(kind), verb);
        assert_eq!(explanation.allowed(), allowed, "{role} {verb:?} {kind}");
    }
}

#[test]
fn a_role_that_cannot_be_read_denies_whatever_others_allow() {
    let mut roles = Role::builtin();
    roles.push(Role::unreadable("lost"));
    let policy = Policy::new(roles);
    let mut alice = subject(&["access", "editor", "requester"], &["x"], &["d"]);
    let asks = |alice: &Subject| {
        let target = Target::kind(kinds::ROLE);
        [
            check(&policy, alice, "prod", "x", "d").is_ok(),
            policy.may(alice, target, Verb::List).allowed(),
        ]
    };
    assert_eq!(asks(&alice), [true; 2]);
    alice.roles.push("lost".to_owned());
    assert_eq!(asks(&alice), [false; 2]);
    assert!(policy.requestable(&alice).is_empty());
}

#[test]
fn what_built_in_roles_may_do_is_this_table() {
    let table = rules_table(&Role::builtin());
    assert_eq!(table, include_str!("builtin.txt").trim_end(), "\n{table}\n");
}

#[test]
fn a_rule_covers_kinds_times_verbs() {
    let policy = Policy::new([rule_role(
        "r",
        r#"[{"resources": ["token", "lock"], "verbs": ["list", "readnosecrets"]}, {"resources": ["*"], "verbs": ["create"]}]"#,
        r#"[{"resources": ["lock"], "verbs": ["*"]}]"#,
    )]);
    for (kind, verb, allowed) in [
        (kinds::TOKEN, Verb::List, true),
        (kinds::TOKEN, Verb::ReadNoSecrets, true),
        (kinds::TOKEN, Verb::Read, false),
        (kinds::TOKEN, Verb::Create, true),
        (kinds::USER, Verb::Create, true),
        (kinds::USER, Verb::List, false),
        (kinds::LOCK, Verb::List, false),
        (kinds::LOCK, Verb::Create, false),
    ] {
        let explanation = policy.may(&holder(&["r"]), Target::kind(kind), verb);
        assert_eq!(explanation.allowed(), allowed, "{verb:?} {kind}");
        assert_eq!(policy.grants(&holder(&["r"])).may_some(kind, verb), allowed);
    }
}

#[test]
fn where_narrows_a_rule_to_some_resources() {
    let policy = Policy::new([rule_role(
        "r",
        r#"[{"resources": ["session"], "verbs": ["read"], "where": "resource.metadata.name == user.metadata.name"},
            {"resources": ["db"], "verbs": ["update"], "where": "labels.team == \"bi\""}]"#,
        r#"[{"resources": ["db"], "verbs": ["*"], "where": "labels.env == \"prod\""}]"#,
    )]);
    let alice = holder(&["r"]);
    let may = |target: Target<'_>, verb| policy.may(&alice, target, verb).allowed();
    assert!(may(Target::named(kinds::SESSION, "alice"), Verb::Read));
    assert!(!may(Target::named(kinds::SESSION, "bob"), Verb::Read));
    assert!(!may(Target::kind(kinds::SESSION), Verb::Read));
    let labelled = |pairs: &[(&str, &str)]| {
        let labels: Labels = pairs.iter().copied().collect();
        let target = Target {
            kind: kinds::DATABASE,
            name: "orders",
            labels: Some(&labels),
        };
        may(target, Verb::Update)
    };
    assert!(labelled(&[("team", "bi")]));
    assert!(!labelled(&[("team", "ops")]));
    assert!(!labelled(&[("team", "bi"), ("env", "prod")]));
    // Some of them may be: what a listing asks before it looks at rows.
    assert!(
        policy
            .grants(&alice)
            .may_some(kinds::DATABASE, Verb::Update)
    );
    assert!(
        !policy
            .grants(&alice)
            .may_some(kinds::DATABASE, Verb::Delete)
    );
}

#[test]
fn an_explanation_shows_the_rule_that_decides() {
    let policy = Policy::new([rule_role(
        "r",
        r#"[{"resources": ["token"], "verbs": ["list", "read"]}]"#,
        r#"[{"resources": ["*"], "verbs": ["delete"]}]"#,
    )]);
    let lines = |verb| {
        let target = Target::named(kinds::TOKEN, "t1");
        policy.may(&holder(&["r"]), target, verb).lines().join("\n")
    };
    assert_eq!(
        lines(Verb::Read),
        "\
`alice`, read token `t1`: allowed by role `r`
  role `r`
    deny   rules                no   none of 1 rules covers it
    allow  rules                yes  token: list, read"
    );
    assert_eq!(
        lines(Verb::Delete),
        "\
`alice`, delete token `t1`: denied by role `r` (rules)
  role `r`
    deny   rules                yes  *: delete
    allow  rules                no   none of 1 rules covers it"
    );
    let nobody = policy.may(&holder(&[]), Target::kind(kinds::TOKEN), Verb::List);
    assert_eq!(nobody.lines()[1], "  the person has no roles");
}
