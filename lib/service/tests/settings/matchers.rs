//! What to discover and what to serve.

use std::time::Duration;

use tidegate_core::{AwsMatcher, Regions};

use crate::{errors, good, warnings};

/// A matcher with one line put in.
fn matcher(line: &str) -> String {
    format!(
        "discovery_service:\n  enabled: yes\n  discovery_group: g\n  aws:\n    - types: [redshift]\n      regions: [us-east-1]\n      {line}\n"
    )
}

fn these(names: &[&str]) -> Regions {
    Regions::These(
        names
            .iter()
            .map(|name| name.parse().expect("a test names regions"))
            .collect(),
    )
}

/// The one matcher of a discovery service with one line put in.
fn read(line: &str) -> AwsMatcher {
    good(&matcher(line))
        .discovery
        .expect("the service is enabled")
        .matchers
        .remove(0)
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
            "[us-east-1, '*']",
            "regions[1]: `*` means every region, so it stands alone, expected `*` alone, or a list of region names",
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
    assert_eq!(matchers[0].types.len(), 1);
    assert_eq!(matchers[0].regions, these(&["us-east-1"]));
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
fn the_group_of_workers_beside_database_services_is_nobody_else_s() {
    let told = errors("discovery_service:\n  enabled: yes\n  discovery_group: db_service\n");
    assert_eq!(
        told,
        [
            "tidegate.yaml:3:20: discovery_service.discovery_group: `db_service` is the group of the workers that run \
          beside database services, expected another name"
        ]
    );
}

#[test]
fn the_sovereign_cloud_s_region_is_known() {
    let text = "discovery_service: {enabled: yes, discovery_group: g, aws: [{types: [rds], regions: [eusc-de-east-1]}]}";
    assert_eq!(warnings(text), []);
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

#[test]
fn a_star_alone_means_every_region_of_the_account() {
    for regions in ["['*']", "'*'"] {
        let text = matcher("tags: {}").replace("[us-east-1]", regions);
        let matchers = good(&text).discovery.unwrap().matchers;
        assert_eq!(matchers[0].regions, Regions::Enabled, "{regions}");
    }
    let text = matcher("tags: {}").replace("[us-east-1]", "['*', us-east-1]");
    assert_eq!(
        errors(&text),
        [
            "tidegate.yaml:6:17: discovery_service.aws[0].regions[0]: `*` means every region, so it stands alone, expected `*` alone, or a list of region names"
        ]
    );
}

#[test]
fn endpoints_are_chosen_by_their_type() {
    let chosen =
        read("endpoints: {include: [primary, reader, primary], exclude: reader}").endpoints;
    assert_eq!(chosen.include, ["primary", "reader"]);
    assert_eq!(chosen.exclude, ["reader"]);
    assert!(read("endpoints: {}").endpoints.is_everything());
    assert!(read("endpoints:").endpoints.is_everything());
    assert!(read("endpoints: {include: []}").endpoints.is_everything());
}

#[test]
fn impossible_choices_of_endpoints_are_refused() {
    for (line, told) in [
        (
            "endpoints: {include: [raeder]}",
            "7:29: discovery_service.aws[0].endpoints.include[0]: unknown value `raeder`, expected ",
        ),
        (
            "endpoints: {exclude: [reader, 5]}",
            "7:37: discovery_service.aws[0].endpoints.exclude[1]: unknown value `5`",
        ),
        (
            "endpoints: {inclde: [reader]}",
            "7:19: discovery_service.aws[0].endpoints.inclde: unknown key, did you mean `include`?",
        ),
        (
            "endpoints: [reader]",
            "7:18: discovery_service.aws[0].endpoints: is a list, expected a mapping",
        ),
        (
            "endpoints: {include: [reader], exclude: [reader]}",
            "7:18: discovery_service.aws[0].endpoints: leaves no endpoint, expected an `include` that `exclude` does not take away whole",
        ),
    ] {
        let found = errors(&matcher(line));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].starts_with(&format!("tidegate.yaml:{told}")),
            "{found:?}"
        );
    }
    assert!(
        errors(&matcher("endpoints: {include: [raeder]}"))[0].ends_with("did you mean `reader`?")
    );
}

#[test]
fn the_database_services_own_matchers_are_read_alike() {
    let text = |line: &str| {
        format!(
            "db_service:\n  enabled: yes\n  aws:\n    - types: [rds]\n      regions: ['*']\n      {line}\n"
        )
    };
    let matchers = good(&text("endpoints: {exclude: [reader]}"))
        .database
        .unwrap()
        .matchers;
    assert_eq!(matchers[0].regions, Regions::Enabled);
    assert_eq!(matchers[0].endpoints.exclude, ["reader"]);
    assert_eq!(
        errors(&text("assume_role: {role_arn: x}")),
        [
            "tidegate.yaml:6:20: db_service.aws[0].assume_role: is how resources write a role, expected `assume_role_arn`, and `external_id` where the role asks for one"
        ]
    );
}

#[test]
fn an_entry_that_never_decides_is_told() {
    let text = "\
db_service:
  enabled: yes
  resources:
    - labels: {env: '*'}
      aws: {assume_role_arn: 'arn:aws:iam::111111111111:role/wide'}
    - labels: {env: prod, region: us-east-1}
      aws: {assume_role_arn: 'arn:aws:iam::111111111111:role/narrow'}
    - labels: {team: bi}
";
    assert_eq!(
        warnings(text),
        [(
            6,
            "db_service.resources[1]: never decides: the entry on line 4 matches everything that this one does, comes first and names a role; put the narrower entry first"
                .to_owned()
        )]
    );
}

#[test]
fn an_entry_that_never_matches_is_told() {
    let text = "\
db_service:
  enabled: yes
  resources:
    - labels: {tidegate.dev/origin: config}
";
    let told = warnings(text);
    assert!(
        told[0]
            .1
            .contains("resources[0]: never matches: the label `tidegate.dev/origin`"),
        "{told:?}"
    );
}

#[test]
fn where_the_order_of_entries_decides_a_note_says_so() {
    let text = "\
db_service:
  enabled: yes
  resources:
    - labels: {env: prod}
      aws: {assume_role_arn: 'arn:aws:iam::111111111111:role/a'}
    - labels: {team: bi}
      aws: {assume_role_arn: 'arn:aws:iam::111111111111:role/b'}
    - labels: {env: dev}
      aws: {assume_role_arn: 'arn:aws:iam::111111111111:role/a'}
";
    let settings = crate::good(text);
    let notes: Vec<_> = settings
        .notes
        .iter()
        .map(|note| (note.line, note.message.as_str()))
        .collect();
    assert_eq!(
        notes,
        [
            (
                6,
                "db_service.resources[1]: comes after the entry on line 4, which names another role: a database that both match gets that one"
            ),
            (
                8,
                "db_service.resources[2]: comes after the entry on line 6, which names another role: a database that both match gets that one"
            ),
        ]
    );
    assert!(settings.warnings.is_empty());
}
