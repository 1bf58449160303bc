//! The operator's guide says what is so: its examples load, and it names every type and every permission.

use std::{collections::BTreeSet, path::Path};

use tidegate_core::DatabaseKind;
use tidegate_service::settings::{self, resource::Resource};

const GUIDE: &str = include_str!("../../docs/guides/discovery.md");

/// The fenced blocks of a language.
fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    GUIDE
        .split(fence.as_str())
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect()
}

#[test]
fn the_guides_configuration_loads() {
    let blocks = blocks("yaml");
    let mut files = blocks
        .iter()
        .filter(|block| block.starts_with("discovery_service:"));
    let file = files.next().expect("the guide shows a file");
    let settings = settings::parse(file, Path::new("guide.yaml")).unwrap();
    let discovery = settings.discovery.unwrap();
    assert_eq!(
        (discovery.group.as_str(), discovery.matchers.len()),
        ("prod", 1)
    );
    assert_eq!(files.next(), None);
}

#[test]
fn the_guides_discovery_config_loads() {
    let blocks = blocks("yaml");
    let text = blocks.iter().find(|block| block.starts_with("kind:"));
    let resources = settings::resource::parse_resources(text.unwrap()).unwrap();
    let [Resource::DiscoveryConfig(config)] = resources.as_slice() else {
        panic!("{resources:?}");
    };
    assert_eq!(config.discovery_group, "prod");
    assert_eq!(config.matchers.len(), 1);
}

#[test]
fn the_guides_policy_holds_every_permission_of_its_table() {
    let policies = blocks("json");
    let policy = policies
        .iter()
        .find(|policy| policy.contains("RedshiftDiscovery"))
        .unwrap();
    let table = GUIDE.lines().filter(|line| line.starts_with('|'));
    let actions: BTreeSet<&str> = table
        .flat_map(|line| line.split('`'))
        .filter(|word| {
            [
                "account:",
                "rds:",
                "redshift-serverless:",
                "redshift:",
                "tag:",
            ]
            .iter()
            .any(|service| word.starts_with(service))
        })
        .collect();
    assert_eq!(actions.len(), 12, "{actions:?}");
    for action in actions {
        assert!(policy.contains(&format!("\"{action}\"")), "{action}");
    }
}

#[test]
fn the_guide_names_every_type() {
    for kind in DatabaseKind::ALL {
        assert!(
            GUIDE.contains(&format!("| `{}` |", kind.as_str())),
            "{kind:?}"
        );
    }
}
