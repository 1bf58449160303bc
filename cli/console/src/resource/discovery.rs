//! `kind: discovery_config`: matchers that the workers of a group scan beside those of their files.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use tidegate_proto::v1;

use super::{Metadata, Resource};
use crate::discovery::{Endpoints, Scope, State};

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DiscoveryConfigSpec {
    /// Whose workers are meant.
    pub discovery_group: String,
    /// What to look for.
    pub aws: Vec<MatcherSpec>,
}

/// One matcher.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MatcherSpec {
    /// `redshift`, `redshift-serverless`, `rds`, `rdsproxy`.
    pub types: Vec<String>,
    /// Regions; `*` alone is all that the account has enabled.
    pub regions: Vec<String>,
    /// Which databases, over tags and generated labels.
    pub tags: BTreeMap<String, Vec<String>>,
    /// The role to look with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assume_role: Option<AssumeRoleSpec>,
    /// Which of their endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Endpoints>,
}

/// A role to assume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AssumeRoleSpec {
    /// Its ARN.
    pub role_arn: String,
    /// Sent when it is assumed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub external_id: String,
}

/// How it goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DiscoveryConfigStatus {
    /// `DISCOVERY_CONFIG_STATE_RUNNING`, `_ERROR` or `_SYNCING`.
    pub state: &'static str,
    /// What the first failing scope says.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error_message: String,
    /// Databases that its scopes own.
    pub discovered_resources: u64,
    /// The newest scan that saw everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_sync_time: Option<Timestamp>,
}

impl From<&v1::DiscoveryConfig> for super::DiscoveryConfig {
    fn from(config: &v1::DiscoveryConfig) -> Self {
        Resource {
            kind: "discovery_config",
            version: "v1",
            metadata: Metadata::named(&config.name, config.revision),
            spec: DiscoveryConfigSpec {
                discovery_group: config.discovery_group.clone(),
                aws: config.aws.iter().cloned().map(matcher).collect(),
            },
            status: None,
        }
    }
}

fn matcher(matcher: v1::AwsMatcher) -> MatcherSpec {
    MatcherSpec {
        types: matcher.types,
        regions: matcher.regions,
        tags: matcher
            .tags
            .unwrap_or_default()
            .labels
            .into_iter()
            .map(|(key, values)| (key, values.values))
            .collect(),
        assume_role: matcher.assume_role.map(|role| AssumeRoleSpec {
            role_arn: role.role_arn,
            external_id: role.external_id,
        }),
        endpoints: matcher.endpoints.and_then(Endpoints::of),
    }
}

/// The status of a configuration, from the scopes that it asks for. One that is never scanned yet is syncing.
#[must_use]
pub fn discovery_config_status(name: &str, scopes: &[Scope]) -> DiscoveryConfigStatus {
    let own = || scopes.iter().filter(|scope| scope.config == name);
    let failure = own()
        .filter(|scope| scope.state == State::Failed)
        .find_map(|scope| scope.failure.as_ref().map(|failure| (scope, failure)));
    let synced = own().next().is_some() && own().all(|scope| scope.state != State::Never);
    let (state, error_message) = match failure {
        Some((scope, failure)) => (
            "DISCOVERY_CONFIG_STATE_ERROR",
            format!("{}: {}", scope.sentence(), failure.message),
        ),
        None if synced => ("DISCOVERY_CONFIG_STATE_RUNNING", String::new()),
        None => ("DISCOVERY_CONFIG_STATE_SYNCING", String::new()),
    };
    DiscoveryConfigStatus {
        state,
        error_message,
        discovered_resources: own().map(|scope| u64::from(scope.databases)).sum(),
        last_sync_time: own().filter_map(|scope| scope.last_success).max(),
    }
}

#[cfg(test)]
mod tests {
    use crate::{discovery, output, resource};

    use super::*;

    fn message() -> v1::DiscoveryConfig {
        let values = |values: &[&str]| v1::LabelValues {
            values: values.iter().map(|value| (*value).to_owned()).collect(),
        };
        v1::DiscoveryConfig {
            name: "team".to_owned(),
            discovery_group: "prod".to_owned(),
            aws: vec![v1::AwsMatcher {
                types: vec!["redshift".to_owned(), "rds".to_owned()],
                regions: vec!["*".to_owned()],
                tags: Some(v1::Selector {
                    labels: [("env".to_owned(), values(&["prod", "stage"]))].into(),
                }),
                assume_role: Some(v1::AssumeRole {
                    role_arn: "arn:aws:iam::111122223333:role/discovery".to_owned(),
                    external_id: "ext".to_owned(),
                }),
                endpoints: Some(v1::EndpointFilter {
                    include: Vec::new(),
                    exclude: vec!["reader".to_owned()],
                }),
            }],
            revision: 7,
        }
    }

    #[test]
    fn a_discovery_config_is_printed_in_the_known_shape() {
        assert_eq!(
            output::yaml(&resource::DiscoveryConfig::from(&message())).unwrap(),
            "\
kind: discovery_config
version: v1
metadata:
  name: team
  revision: \"7\"
spec:
  discovery_group: prod
  aws:
  - types:
    - redshift
    - rds
    regions:
    - \"*\"
    tags:
      env:
      - prod
      - stage
    assume_role:
      role_arn: arn:aws:iam::111122223333:role/discovery
      external_id: ext
    endpoints:
      exclude:
      - reader
"
        );
    }

    #[test]
    fn its_status_is_that_of_its_scopes() {
        let scope = |config: &str, failing: bool, success: bool| v1::ScopeStatus {
            scope: Some(v1::ScanScope {
                config: config.to_owned(),
                kind: "redshift".to_owned(),
                region: "us-east-1".to_owned(),
                ..v1::ScanScope::default()
            }),
            failure: failing.then(|| v1::ScanFailure {
                message: "not allowed".to_owned(),
                ..v1::ScanFailure::default()
            }),
            last_success: success.then_some(prost_types::Timestamp {
                seconds: 60,
                nanos: 0,
            }),
            databases: 2,
            ..v1::ScopeStatus::default()
        };
        let status = |scopes| discovery_config_status("team", &discovery::scopes(scopes));
        assert_eq!(status(vec![]).state, "DISCOVERY_CONFIG_STATE_SYNCING");
        let waiting = status(vec![
            scope("team", false, true),
            scope("team", false, false),
        ]);
        assert_eq!(waiting.state, "DISCOVERY_CONFIG_STATE_SYNCING");
        let running = status(vec![scope("team", false, true), scope("", true, true)]);
        assert_eq!(running.state, "DISCOVERY_CONFIG_STATE_RUNNING");
        assert_eq!(running.discovered_resources, 2);
        assert!(running.last_sync_time.is_some());
        let failing = status(vec![scope("team", false, true), scope("team", true, true)]);
        assert_eq!(failing.state, "DISCOVERY_CONFIG_STATE_ERROR");
        assert_eq!(
            failing.error_message,
            "redshift in us-east-1, own identity: not allowed"
        );
    }
}
