//! What to discover and what to serve.

use std::time::Duration;

use crate::{errors, good, warnings};

/// A matcher with one line put in.
fn matcher(line: &str) -> String {
    format!(
        "discovery_service:\n  enabled: yes\n  discovery_group: g\n  aws:\n    - types: [redshift]\n      regions: [us-east-1]\n      {line}\n"
    )
}

#[test]
fn impossible_matchers_are_refused() {
    for (line, told) in [
        (
            "assume_role_arn: 'arn:aws:not valid'",
            "7:24: discovery_service.aws[0].assume_role_arn: `arn:aws:not valid` is not a valid IAM role ARN, expected `arn:aws:iam::<12-digit account>:role/<name>`",
        ),
        (
            "external_id: abc",
            "7:20: discovery_service.aws[0].external_id: is given without a role to assume, expected `assume_role_arn` beside it",
        ),
        (
            "tags: {env: []}",
            "7:19: discovery_service.aws[0].tags[\"env\"]: has no value to match, expected a value, or `*` for any",
        ),
        (
            "tags: {env: [a, '^(b$']}",
            "7:23: discovery_service.aws[0].tags[\"env\"][1]: value `^(b$` of key `env` is not a valid pattern",
        ),
        (
            "integration: x",
            "7:20: discovery_service.aws[0].integration: Tidegate cannot take its AWS credentials from there",
        ),
    ] {
        let told_now = errors(&matcher(line));
        assert_eq!(told_now.len(), 1, "{told_now:?}");
        assert!(
            told_now[0].starts_with(&format!("tidegate.yaml:{told}")),
            "{told_now:?}"
        );
    }
}

#[test]
fn types_and_regions_are_checked() {
    let with = |types: &str, regions: &str| {
        format!(
            "discovery_service: {{enabled: yes, discovery_group: g, aws: [{{types: {types}, regions: {regions}}}]}}"
        )
    };
    for (types, regions, told) in [
        ("[redshfit]", "[us-east-1]", "did you mean `redshift`?"),
        (
            "[redshfit]",
            "[us-east-1]",
            "expected `rds`, `rdsproxy`, `redshift` or `redshift-serverless`",
        ),
        ("['*']", "[us-east-1]", "unknown value `*`"),
        ("[ec2]", "[us-east-1]", "Tidegate does not discover `ec2`"),
        (
            "[]",
            "[us-east-1]",
            "types: is empty, expected at least one type",
        ),
        (
            "[rds]",
            "[]",
            "regions: is empty, expected at least one AWS region",
        ),
        (
            "[rds]",
            "['*']",
            "discovery in every region comes with a later version",
        ),
        (
            "[rds]",
            "[us-east]",
            "`us-east` is not a valid AWS region, expected a region name such as `us-east-1`",
        ),
        ("[rds]", "[us-east-1, ~]", "regions[1]: is empty"),
    ] {
        let found = errors(&with(types, regions));
        assert!(
            found.len() == 1 && found[0].contains(told),
            "{found:?}: {told}"
        );
    }
    assert_eq!(
        warnings(&with("[rds]", "[us-eats-1]")),
        [(
            1,
            "discovery_service.aws[0].regions[0]: `us-eats-1` is not a region that this version knows, did you mean `us-east-1`?"
                .to_owned()
        )]
    );
    let twice = good(&with("[rds, rds]", "[us-east-1, us-east-1]"));
    let matchers = twice.discovery.unwrap().matchers;
    assert_eq!((matchers[0].types.len(), matchers[0].regions.len()), (1, 1));
}

#[test]
fn an_external_id_may_stand_alone_where_users_are_roles() {
    let text = "discovery_service:\n  enabled: yes\n  discovery_group: g\n  aws:\n    - types: [redshift-serverless]\n      regions: [us-east-1]\n      external_id: abc\n";
    assert!(
        good(text).discovery.unwrap().matchers[0]
            .assume_role
            .is_none()
    );
}

#[test]
fn empty_tags_mean_everything_and_empty_labels_are_refused() {
    let settings = good(&matcher("tags: {}"));
    assert!(settings.discovery.unwrap().matchers[0].tags.is_everything());
    let text = "db_service:\n  enabled: yes\n  resources:\n    - labels: {}\n";
    assert!(errors(text)[0].contains("resources[0].labels: is empty and would match nothing"));
    let text = "db_service:\n  enabled: yes\n  resources:\n    - labels: {'*': '*'}\n      aws: {external_id: abc}\n";
    assert!(errors(text)[0].contains("resources[0].aws.external_id: is given without a role"));
}

#[test]
fn a_worker_needs_something_to_discover() {
    let told = errors("discovery_service:\n  enabled: yes\n");
    assert!(
        told[0].contains("discovery_service: has nothing to discover"),
        "{told:?}"
    );
    assert!(
        good("discovery_service:\n  enabled: yes\n  discovery_group: g\n")
            .discovery
            .is_some()
    );
    let text = matcher("tags: {}").replace("  discovery_group: g\n", "");
    assert!(warnings(&text)[0].1.contains("has no `discovery_group`"));
}

#[test]
fn poll_intervals_are_durations_in_bounds() {
    let interval = |text: &str| format!("{}  poll_interval: {text}\n", matcher("tags: {}"));
    for (text, seconds) in [
        ("5m", 300),
        ("1h30m", 5400),
        ("300", 300),
        ("90s", 90),
        ("0", 300),
        ("1h 5m", 3900),
    ] {
        let settings = good(&interval(text));
        assert_eq!(
            settings.discovery.unwrap().poll_interval,
            Duration::from_secs(seconds),
            "{text}"
        );
    }
    for text in [
        "999ms",
        "-5m",
        "soon",
        "99999999999999999999",
        "400d",
        "30d",
    ] {
        assert!(
            errors(&interval(text))[0].contains("poll_interval"),
            "{text}"
        );
    }
}
