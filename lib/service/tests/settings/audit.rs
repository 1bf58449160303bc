//! Where audit events are exported to, as settings tell it.

use tidegate_service::settings::AuditTarget;

use crate::{errors, good, warnings};

fn of(uris: &str) -> String {
    format!(
        "tidegate: {{storage: {{audit_events_uri: {uris}}}}}\nauth_service: {{cluster_name: a}}\n"
    )
}

fn targets(uris: &str) -> Vec<String> {
    let targets = good(&of(uris)).auth.expect("an auth service").audit_targets;
    targets.iter().map(AuditTarget::to_string).collect()
}

#[test]
fn one_target_or_a_list_is_read_and_nothing_is_the_default() {
    assert!(
        good("auth_service: {cluster_name: a}\n")
            .auth
            .unwrap()
            .audit_targets
            .is_empty()
    );
    assert_eq!(targets("'stdout://'"), ["stdout://"]);
    let many = "['file:///var/log/audit.jsonl', 's3://my-audit/a/b/?region=eu-central-1', \
                's3://my-audit?region=us-east-1&endpoint=http://127.0.0.1:9000/']";
    assert_eq!(
        targets(many),
        [
            "file:///var/log/audit.jsonl",
            "s3://my-audit/a/b?region=eu-central-1",
            "s3://my-audit/?region=us-east-1&endpoint=http://127.0.0.1:9000",
        ]
    );
}

#[test]
fn what_is_no_target_is_refused_with_what_would_be_one() {
    for (uri, said) in [
        ("/var/log", "is no URI"),
        ("file://relative", "is no target"),
        ("stdout://x", "is no target"),
        ("ftp://host/x", "is no target"),
        ("s3://my-audit", "in which region"),
        (
            "s3://My_Audit?region=eu-central-1",
            "is not a bucket's name",
        ),
        ("s3://my-audit?region=x y", "a space"),
        (
            "s3://my-audit?region=eu-central-1&acl=x",
            "`acl=x` after the `?`",
        ),
        (
            "s3://my-audit?region=eu-central-1&endpoint=http://example.com",
            "as `endpoint`",
        ),
    ] {
        let found = errors(&of(&format!("'{uri}'")));
        assert!(found[0].contains(said), "{uri}: {found:?}");
    }
    let twice = errors(&of("['stdout://', 'stdout://']"));
    assert!(twice[0].contains("second time"), "{twice:?}");
}

#[test]
fn stores_of_teleports_are_ignored_and_said() {
    let said = warnings(&of("['dynamodb://events', 'stdout://']"));
    assert!(
        said.iter()
            .any(|(_, said)| said.contains("`dynamodb` is ignored")),
        "{said:?}"
    );
}
