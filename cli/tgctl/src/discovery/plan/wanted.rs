//! The configuration that is planned: from a service's file, or a `discovery_config` resource.

use std::path::Path;

use tidegate_console::Failure;
use tidegate_core::AwsMatcher;
use tidegate_service::settings::{self, Warning};

use crate::{
    args::PlanArgs,
    create::{self, Wanted as Resource},
};

/// What is planned.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wanted {
    /// The discovery group; empty is none.
    pub(super) group: String,
    /// The `discovery_config`; `None` is a configuration file.
    pub(super) config: Option<String>,
    /// Never empty.
    pub(super) matchers: Vec<AwsMatcher>,
}

/// Reads and checks a file, or standard input.
pub(super) fn read(args: &PlanArgs) -> Result<Wanted, Failure> {
    let text = create::read_text(&args.file)?;
    let (mut wanted, warnings) = parse(&text, &args.file)?;
    create::warn(&args.file, &warnings);
    if let Some(group) = &args.group {
        group.clone_into(&mut wanted.group);
    }
    Ok(wanted)
}

fn parse(text: &str, file: &Path) -> Result<(Wanted, Vec<Warning>), Failure> {
    let (wanted, warnings) = if create::documents(text).iter().any(|text| is_resource(text)) {
        of_resources(text, file)?
    } else {
        of_service(text, file)?
    };
    if wanted.matchers.is_empty() {
        let failure = Failure::new(format!("{} has no matchers to plan", file.display()));
        return Err(failure.hint(
            "write them under `aws`; `tgctl rm discovery_config/NAME` removes a configuration, and its databases with it",
        ));
    }
    Ok((wanted, warnings))
}

fn is_resource(document: &str) -> bool {
    let has_kind = |value: &serde_json::Value| value.get("kind").is_some();
    serde_yaml::from_str::<serde_json::Value>(document).is_ok_and(|value| match &value {
        serde_json::Value::Array(all) => all.iter().any(has_kind),
        one => has_kind(one),
    })
}

fn of_resources(text: &str, file: &Path) -> Result<(Wanted, Vec<Warning>), Failure> {
    let (resources, warnings) = create::parse(text, file)?;
    let mut configs = resources.into_iter().filter_map(|resource| match resource {
        Resource::DiscoveryConfig(config) => Some(*config),
        _ => None,
    });
    let Some(config) = configs.next() else {
        let none = format!("{} holds no discovery_config", file.display());
        return Err(Failure::new(none));
    };
    if let Some(second) = configs.next() {
        return Err(Failure::new(format!(
            "{} holds several: discovery_config `{}`, `{}`",
            file.display(),
            config.name,
            second.name
        ))
        .hint("plan for one at a time: each takes the place of the one of its name"));
    }
    let wanted = Wanted {
        group: config.discovery_group,
        config: Some(config.name),
        matchers: config.matchers,
    };
    Ok((wanted, warnings))
}

fn of_service(text: &str, file: &Path) -> Result<(Wanted, Vec<Warning>), Failure> {
    let settings = settings::parse(text, file).map_err(Failure::new)?;
    let Some(discovery) = settings.discovery else {
        let failure = Failure::new(format!(
            "{} has no `discovery_service` that is enabled",
            file.display()
        ));
        return Err(
            failure.hint("plan for the file of a discovery worker, or for a `discovery_config`")
        );
    };
    let about_discovery = |warning: &Warning| warning.message.starts_with("discovery_service");
    let wanted = Wanted {
        group: discovery.group,
        config: None,
        matchers: discovery.matchers,
    };
    let warnings = settings.warnings.into_iter().filter(about_discovery);
    Ok((wanted, warnings.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: &str = "\
discovery_service:
  enabled: yes
  discovery_group: prod
  aws:
  - types: [redshift]
    regions: [us-east-1]
";
    const RESOURCE: &str = "\
kind: discovery_config
version: v1
metadata: {name: team}
spec:
  discovery_group: prod
  aws: [{types: [rds], regions: ['*']}]
";

    fn parsed(text: &str) -> Result<Wanted, String> {
        parse(text, Path::new("f.yaml"))
            .map(|(wanted, _)| wanted)
            .map_err(|failure| failure.message().to_owned())
    }

    #[test]
    fn a_service_or_a_resource_is_planned() {
        let of_service = parsed(SERVICE).unwrap();
        assert_eq!(
            (of_service.group.as_str(), of_service.config),
            ("prod", None)
        );
        let of_resource = parsed(RESOURCE).unwrap();
        assert_eq!(of_resource.config.as_deref(), Some("team"));
        assert_eq!(of_resource.matchers.len(), 1);
        let json = r#"{"kind": "discovery_config", "version": "v1", "metadata": {"name": "t"}, "spec": {"discovery_group": "g", "aws": [{"types": ["rds"], "regions": ["*"]}]}}"#;
        assert_eq!(parsed(json).unwrap().group, "g");
        assert_eq!(parsed(&format!("[{json}]")).unwrap().group, "g");
    }

    #[test]
    fn a_file_that_cannot_be_planned_says_why() {
        for (text, problem) in [
            (
                "db_service: {enabled: yes}",
                "has no `discovery_service` that is enabled",
            ),
            (
                "discovery_service: {enabled: yes, discovery_group: prod}",
                "has no matchers to plan",
            ),
            (
                "kind: discovery_config\nversion: v1\nmetadata: {name: t}\nspec: {discovery_group: g}",
                "has no matchers to plan",
            ),
            (
                "discovery_service:\n  enabled: yes\n  aws: [{types: [redshft], regions: [us-east-1]}]",
                "f.yaml:3:18",
            ),
            (
                "kind: role\nversion: v7\nmetadata: {name: r}\nspec: {}",
                "holds no discovery_config",
            ),
            (
                &format!("{RESOURCE}---\n{}", RESOURCE.replace("team", "b")),
                "`team`, `b`",
            ),
            ("{", "f.yaml:"),
            ("", "holds no settings"),
        ] {
            let told = parsed(text).unwrap_err();
            assert!(told.contains(problem), "{text}: {told}");
        }
    }

    #[test]
    fn only_warnings_about_discovery_are_passed_on() {
        let text = format!(
            "ssh_service: {{enabled: yes}}\n{}",
            SERVICE.replace("us-east-1", "us-eats-1")
        );
        let (_, warnings) = parse(&text, Path::new("f.yaml")).unwrap();
        assert_eq!(warnings.len(), 1);
        assert_eq!(warnings[0].line, 7);
    }
}
