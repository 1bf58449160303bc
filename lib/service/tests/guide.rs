//! Every YAML snippet of Teleport's Redshift guide loads unchanged, and means what it says there.

use std::path::Path;

use tidegate_core::{DatabaseKind, Labels, Region, Regions, overrides};
use tidegate_service::settings::{self, Settings, resource::Resource};

fn snippet(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guide");
    std::fs::read_to_string(folder.join(name)).expect("the snippet is in the repository")
}

fn load(name: &str) -> Settings {
    settings::parse(&snippet(name), Path::new(name)).unwrap_or_else(|error| panic!("{error}"))
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().copied().collect()
}

fn regions(regions: &Regions) -> &[Region] {
    match regions {
        Regions::These(regions) => regions,
        Regions::Enabled => panic!("regions are named"),
    }
}

#[test]
fn every_snippet_loads() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guide");
    let mut loaded = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        if text.starts_with("kind:") {
            settings::resource::parse_resources(&text).unwrap_or_else(|error| panic!("{error}"));
        } else {
            let settings = settings::load(&path).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(settings.warnings, [], "{}", path.display());
        }
        loaded += 1;
    }
    assert_eq!(loaded, 6);
}

#[test]
fn a_snippet_without_connection_is_sound_and_not_startable() {
    let settings = load("discovery-service.yaml");
    let error = settings.check_startable().unwrap_err();
    assert!(
        error
            .to_string()
            .contains("`auth_server` or `proxy_server`"),
        "{error}"
    );
}

#[test]
fn discovery_s_matchers_are_read() {
    let discovery = load("discovery-service.yaml").discovery.unwrap();
    assert_eq!(discovery.group, "prod");
    let [rds, redshift] = discovery.matchers.as_slice() else {
        panic!("two matchers");
    };
    assert_eq!(rds.types, [DatabaseKind::Rds]);
    assert_eq!(regions(&rds.regions).len(), 2);
    assert_eq!(
        redshift.types,
        [DatabaseKind::Redshift, DatabaseKind::RedshiftServerless]
    );
    assert!(redshift.tags.matches(&labels(&[("env", "dev")])));
    assert_eq!(
        redshift.assume_role.as_ref().unwrap().role_arn.as_str(),
        "arn:aws:iam::123456789012:role/example-role-redshift-env-dev"
    );
}

#[test]
fn overrides_and_inheritance_are_read() {
    let resources = load("db-service-overrides.yaml")
        .database
        .unwrap()
        .resources;
    assert_eq!(resources.len(), 3);
    assert!(
        resources[0]
            .labels
            .matches(&labels(&[("env", "prod"), ("region", "us-west-1")]))
    );
    assert!(
        !resources[0]
            .labels
            .matches(&labels(&[("env", "prod"), ("region", "us-west-2")]))
    );
    assert!(resources[1].assume_role.is_some());
    assert!(resources[2].assume_role.is_none());
    let resources = load("db-service-override-and-inherit.yaml")
        .database
        .unwrap()
        .resources;
    assert!(overrides::is_wanted(
        &resources,
        &labels(&[("env", "prod")])
    ));
    assert!(!overrides::is_wanted(
        &resources,
        &labels(&[("env", "stage")])
    ));
}

#[test]
fn the_service_s_own_matchers_are_read() {
    let database = load("db-service-matchers.yaml").database.unwrap();
    assert_eq!(database.matchers.len(), 2);
    assert!(database.resources.is_empty());
}

#[test]
fn a_static_database_tells_its_account_and_region() {
    let databases = load("db-service-static.yaml").database.unwrap().databases;
    let [database] = databases.as_slice() else {
        panic!("one database");
    };
    assert_eq!(database.name.as_str(), "rds-postgres");
    assert_eq!(
        database.aws.account_id.as_ref().unwrap().as_str(),
        "123456789012"
    );
    assert_eq!(database.aws.region.as_ref().unwrap().as_str(), "us-west-1");
    assert_eq!(database.kind, Some(DatabaseKind::Rds));
    assert_eq!(database.labels.get("teleport.dev/origin"), Some("config"));
}

#[test]
fn the_resource_is_read() {
    let resources = settings::resource::parse_resources(&snippet("db-resource.yaml")).unwrap();
    let [Resource::Database(database), ..] = resources.as_slice() else {
        panic!("one database");
    };
    assert_eq!(database.labels.get("env"), Some("dev"));
    assert_eq!(database.labels.get("tidegate.dev/origin"), Some("dynamic"));
    assert_eq!(database.uri.port(), 5432);
}
