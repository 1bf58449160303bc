//! Roles as people write them, and what is wrong with them.

use super::*;

#[test]
fn a_role_reads_as_it_is_written_in_yaml_and_prints_back() {
    let written = r#"{"name": "dba",
        "options": {"max_session_ttl": "8h", "lock": "strict", "record_session": {"default": "strict"}},
        "allow": {
            "db_labels": {"env": ["prod", "dev"]},
            "db_labels_expression": "exists(labels[\"team\"])",
            "db_users": ["{{external.db_users}}"], "db_names": ["*"], "db_roles": ["reader"],
            "rules": [{"resources": ["db", "*"], "verbs": ["list", "*"], "where": "resource.kind == \"db\""}],
            "request": {"roles": ["access"], "thresholds": [{"approve": 2}], "max_duration": "4h"},
            "review_requests": {"roles": ["dev-*"], "where": "contains(request.roles, \"dev-x\")"}
        },
        "deny": {"db_users": ["postgres"]}}"#;
    let role = read(written);
    assert_eq!(role.problems(), []);
    assert_eq!(role.allow.request.thresholds[0].deny, 1);
    let printed = serde_json::to_string(&role).unwrap();
    assert_eq!(read(&printed), role);
    for wrong in [
        r#"{"allow": {"db_labels_expression": "lables.env"}}"#,
        r#"{"allow": {"rules": [{"resources": ["db"], "verbs": ["fly"]}]}}"#,
        r#"{"allow": {"rules": [{"resources": ["db"], "verbs": ["list"], "where": "name"}]}}"#,
    ] {
        assert!(serde_json::from_str::<Role>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn everything_wrong_with_a_role_is_told_at_once() {
    let role = read(
        r#"{"name": "r", "allow": {
            "db_users": ["ok", "{{x"], "db_labels": {"env": "{{internal.}}"},
            "rules": [{"resources": [], "verbs": []}, {"resources": ["rolse"], "verbs": ["list"]}],
            "request": {"roles": ["^(a$"], "thresholds": [{"approve": 0}]}
        }, "deny": {"db_names": ["}}"]}}"#,
    );
    let fields: Vec<String> = role
        .problems()
        .into_iter()
        .map(|problem| problem.field)
        .collect();
    assert_eq!(
        fields,
        [
            "allow.db_users[1]",
            "allow.request.roles[0]",
            "allow.db_labels[env]",
            "allow.rules[0].resources",
            "allow.rules[0].verbs",
            "allow.request.thresholds[0]",
            "deny.db_names[0]",
        ]
    );
    assert_eq!(
        role.unknown_kinds(),
        [("rolse".to_owned(), Some("role".to_owned()))]
    );
}

#[test]
fn built_in_roles_are_sound_and_known_by_name() {
    let roles = Role::builtin();
    let names: Vec<&str> = roles.iter().map(|role| role.name.as_str()).collect();
    assert_eq!(
        names,
        ["access", "auditor", "editor", "requester", "reviewer"]
    );
    for role in &roles {
        assert_eq!(role.problems(), []);
        assert_eq!(role.unknown_kinds(), []);
        assert!(Role::is_builtin(&role.name));
    }
    assert!(!Role::is_builtin("dba"));
}
