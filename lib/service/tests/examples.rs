//! The example files load, and say what the demo and the guides rely on.

use std::path::{Path, PathBuf};

use tidegate_core::{AssumeRole, DatabaseKind, Labels, Regions};
use tidegate_service::settings::{self, Settings, StorageSettings};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/examples")
}

fn load(name: &str) -> Settings {
    settings::load(&folder().join(name)).unwrap_or_else(|error| panic!("{error}"))
}

fn role(role: Option<&AssumeRole>) -> Option<(&str, Option<&str>)> {
    let role = role?;
    let external_id = role.external_id.as_ref().map(AsRef::as_ref);
    Some((role.role_arn.as_str(), external_id))
}

#[test]
fn every_example_lacks_nothing_but_the_files_of_its_host() {
    let mut loaded = 0;
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let settings = settings::load(&path).unwrap_or_else(|error| panic!("{error}"));
        for warning in &settings.warnings {
            assert!(
                warning.message.contains("/etc/tidegate/token"),
                "{}",
                warning.message
            );
        }
        for blocker in &settings.blockers {
            assert!(
                blocker.problem.contains("/etc/tidegate/ca-pin"),
                "{blocker}"
            );
        }
        loaded += 1;
    }
    assert!(loaded >= 7);
}

#[test]
fn each_example_runs_the_services_that_its_name_says() {
    let services = |name| {
        let settings = load(name);
        [
            settings.auth.is_some(),
            settings.proxy.is_some(),
            settings.discovery.is_some(),
            settings.database.is_some(),
        ]
    };
    assert_eq!(services("auth.yaml"), [true, false, false, false]);
    assert_eq!(services("auth-etcd.yaml"), [true, false, false, false]);
    assert_eq!(services("proxy.yaml"), [false, true, false, false]);
    assert_eq!(services("discovery.yaml"), [false, false, true, false]);
    assert_eq!(services("agent-a.yaml"), [false, false, false, true]);
    assert_eq!(services("agent-b.yaml"), [false, false, false, true]);
    assert_eq!(services("all-in-one.yaml"), [true; 4]);
}

#[test]
fn the_control_plane_of_several_instances_shares_etcd_over_tls() {
    let auth = load("auth-etcd.yaml").auth.unwrap();
    let StorageSettings::Etcd(etcd) = auth.storage else {
        panic!("{:?}", auth.storage);
    };
    assert_eq!(etcd.peers.len(), 3);
    assert!(etcd.peers.iter().all(|peer| peer.starts_with("https://")));
    assert!(etcd.ca_file.is_some() && etcd.identity.is_some());
    assert!(auth.audit_dir.starts_with("/var/lib/tidegate/auth"));
}

#[test]
fn discovery_looks_at_two_accounts_and_two_regions() {
    for name in ["discovery.yaml", "all-in-one.yaml"] {
        let discovery = load(name).discovery.unwrap();
        assert_eq!(discovery.group, "prod");
        let roles: Vec<_> = discovery
            .matchers
            .iter()
            .map(|matcher| role(matcher.assume_role.as_ref()))
            .collect();
        assert_eq!(
            roles,
            [
                Some(("arn:aws:iam::111111111111:role/tidegate-discovery", None)),
                Some((
                    "arn:aws:iam::222222222222:role/tidegate-discovery",
                    Some("tidegate-discovery-2f9c")
                )),
            ]
        );
        for matcher in &discovery.matchers {
            let mut types = matcher.types.clone();
            types.sort();
            assert_eq!(types, DatabaseKind::ALL);
            assert!(
                matches!(&matcher.regions, Regions::These(regions) if regions.len() == 2),
                "{matcher:?}"
            );
        }
    }
}

#[test]
fn agents_override_as_their_comments_say() {
    let chosen = |name: &str, account: &str| {
        let resources = load(name).database.unwrap().resources;
        let labels: Labels = [("env", "prod"), ("account-id", account)]
            .into_iter()
            .collect();
        let matching: Vec<_> = resources
            .iter()
            .filter(|entry| entry.labels.matches(&labels))
            .collect();
        assert!(!matching.is_empty(), "{name} serves {account}");
        let first = matching
            .iter()
            .find_map(|entry| role(entry.assume_role.as_ref()));
        first.map(|(arn, id)| (arn.to_owned(), id.map(str::to_owned)))
    };
    let arn = |text: &str, id: Option<&str>| Some((text.to_owned(), id.map(str::to_owned)));
    assert_eq!(
        chosen("agent-a.yaml", "111111111111"),
        arn("arn:aws:iam::111111111111:role/tidegate-access-a", None)
    );
    assert_eq!(chosen("agent-a.yaml", "222222222222"), None);
    assert_eq!(
        chosen("agent-b.yaml", "111111111111"),
        arn("arn:aws:iam::111111111111:role/tidegate-access-b", None)
    );
    assert_eq!(
        chosen("agent-b.yaml", "222222222222"),
        arn(
            "arn:aws:iam::222222222222:role/tidegate-access",
            Some("tidegate-access-8b41")
        )
    );
}
