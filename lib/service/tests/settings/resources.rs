//! `kind: discovery_config`.

use std::path::Path;

use tidegate_core::{DatabaseKind, Labels, Regions};
use tidegate_service::settings::resource::{
    self, DiscoveryConfig, Resource, parse_resources, read_resources,
};

fn config(lines: &str) -> String {
    format!(
        "kind: discovery_config\nversion: v1\nmetadata: {{name: team, revision: '7'}}\nspec:\n  discovery_group: prod\n{lines}"
    )
}

fn read(text: &str) -> DiscoveryConfig {
    let mut resources = parse_resources(text).unwrap_or_else(|error| panic!("{error}"));
    match resources.pop() {
        Some(Resource::DiscoveryConfig(config)) if resources.is_empty() => config,
        other => panic!("{other:?}"),
    }
}

fn errors(text: &str) -> Vec<String> {
    let error = parse_resources(text).expect_err("it is wrong");
    let told = error.in_file(Path::new("c.yaml")).to_string();
    told.lines().map(str::to_owned).collect()
}

#[test]
fn matchers_are_read_in_the_resources_form() {
    let config = read(&config(
        "  aws:
    - types: [redshift, rds]
      regions: ['*']
      tags: {env: [prod, stage], team: bi}
      assume_role: {role_arn: 'arn:aws:iam::111111111111:role/x', external_id: abc}
      endpoints: {exclude: [reader]}
      install: {}
  azure: []
  kube: []
",
    ));
    assert_eq!(
        (config.name.as_str(), config.discovery_group.as_str()),
        ("team", "prod")
    );
    let [matcher] = config.matchers.as_slice() else {
        panic!("one matcher");
    };
    assert_eq!(matcher.types, [DatabaseKind::Redshift, DatabaseKind::Rds]);
    assert_eq!(matcher.regions, Regions::Enabled);
    let labels: Labels = [("env", "stage"), ("team", "bi")].into_iter().collect();
    assert!(matcher.tags.matches(&labels));
    let role = matcher.assume_role.as_ref().unwrap();
    assert_eq!(role.role_arn.as_str(), "arn:aws:iam::111111111111:role/x");
    assert_eq!(role.external_id.as_ref().unwrap().as_str(), "abc");
    assert_eq!(matcher.endpoints.exclude, ["reader"]);
}

#[test]
fn the_files_form_of_a_role_and_no_matchers_are_read_too() {
    let read_role = |lines: &str| {
        let lines = format!("  aws: [{{types: [rds], regions: [us-east-1], {lines}}}]\n");
        read(&config(&lines)).matchers.remove(0).assume_role
    };
    let flat = read_role(
        "assume_role_arn: 'arn:aws:iam::111111111111:role/x', external_id: abc, assume_role: {}",
    );
    let nested = read_role(
        "assume_role: {role_arn: 'arn:aws:iam::111111111111:role/x', external_id: abc}, external_id: ''",
    );
    assert_eq!(flat, nested);
    assert!(flat.is_some());
    assert_eq!(
        read_role("assume_role: {role_arn: '', external_id: ''}"),
        None
    );
    assert_eq!(read(&config("")).matchers, []);
}

#[test]
fn impossible_configurations_are_refused_with_their_place() {
    let matcher = |line: &str| {
        config(&format!(
            "  aws:\n    - types: [rds]\n      regions: [us-east-1]\n      {line}\n"
        ))
    };
    for (text, told) in [
        (
            config("").replace("  discovery_group: prod\n", "  aws: []\n"),
            "5:3: spec.discovery_group: is required",
        ),
        (
            config("").replace("prod", "''"),
            "5:20: spec.discovery_group: is empty",
        ),
        (
            config("").replace("prod", "db_service"),
            "5:20: spec.discovery_group: `db_service` is the group of the workers that run beside database services, expected another name",
        ),
        (
            config("").replace("v1", "v3"),
            "2:10: version: unknown value `v3`, expected `v1`",
        ),
        (
            config("").replace("name: team", "name: a/b"),
            "3:18: metadata.name: `a/b` is not a name, expected letters, digits, `-`, `_` and `.`, the first a letter or digit, at most 128 characters",
        ),
        (
            config("  azure: [{types: [mysql]}]\n"),
            "6:10: spec.azure: Tidegate discovers databases in AWS only, expected matchers under `aws`",
        ),
        (
            config("  poll_interval: 5m\n"),
            "6:3: spec.poll_interval: unknown key",
        ),
        (
            matcher("assume_role: {role_arn: x}"),
            "9:31: spec.aws[0].assume_role.role_arn: `x` is not a valid IAM role ARN, expected `arn:aws:iam::<12-digit account>:role/<name>`",
        ),
        (
            matcher("assume_role: {external_id: abc}"),
            "9:34: spec.aws[0].assume_role.external_id: is given without a role to assume, expected `role_arn` beside it",
        ),
        (
            matcher("assume_role: {role_name: x}"),
            "9:32: spec.aws[0].assume_role.role_name: Tidegate does not look through the accounts of an organization, expected `role_arn`, one matcher an account",
        ),
        (
            matcher("assume_role: {role_ran: x}"),
            "9:21: spec.aws[0].assume_role.role_ran: unknown key, did you mean `role_arn`?",
        ),
        (
            matcher(
                "{assume_role: {role_arn: 'arn:aws:iam::111111111111:role/x'}, external_id: abc}",
            )
            .replace("      {assume", "      assume")
            .replace("}, external_id: abc}", "}\n      external_id: abc"),
            "9:20: spec.aws[0].assume_role: is given beside `external_id`, expected the role in one place",
        ),
        (
            matcher("tags: {env: ['^(b$']}"),
            "9:20: spec.aws[0].tags[\"env\"][0]: value `^(b$` of key `env` is not a valid pattern",
        ),
    ] {
        let found = errors(&text);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].starts_with(&format!("c.yaml:{told}")),
            "{found:?}\n{told}"
        );
    }
}

#[test]
fn what_looks_wrong_without_being_wrong_is_a_warning() {
    let text = config("  aws: [{types: [rds], regions: [us-eats-1]}]\n");
    let resource::Resources {
        resources,
        warnings,
    } = read_resources(&text).unwrap();
    assert_eq!(resources.len(), 1);
    assert_eq!(
        (warnings[0].line, warnings[0].message.as_str()),
        (
            6,
            "spec.aws[0].regions[0]: `us-eats-1` is not a region that this version knows, did you mean `us-east-1`?"
        )
    );
}

#[test]
fn configurations_and_databases_may_share_a_text() {
    let text = format!(
        "{}---\nkind: db\nversion: v3\nmetadata: {{name: pg}}\nspec: {{protocol: postgres, uri: 'h:1'}}\n",
        config("")
    );
    let resources = parse_resources(&text).unwrap();
    assert!(matches!(
        resources.as_slice(),
        [Resource::DiscoveryConfig(_), Resource::Database(_)]
    ));
}
