//! `kind: health_check_config`: how databases' health is checked.

use serde::Serialize;
use tidegate_proto::v1;

use super::{Metadata, Resource};
use crate::when;

/// Which databases, and how they are checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HealthCheckSpec {
    /// Which databases.
    #[serde(rename = "match")]
    pub matches: HealthMatchSpec,
    /// From one check to the next.
    pub interval: String,
    /// How long one check may take.
    pub timeout: String,
    /// Checks in a row that must succeed until a database counts as healthy.
    pub healthy_threshold: u32,
    /// Checks in a row that must fail until a database counts as unhealthy.
    pub unhealthy_threshold: u32,
}

/// Which databases are checked: labels and expression must both hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HealthMatchSpec {
    /// Labels, each with the values that it may have.
    pub db_labels: Vec<LabelSpec>,
    /// A predicate over labels.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub db_labels_expression: String,
}

/// A label and the values that it may have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LabelSpec {
    /// The label's key.
    pub name: String,
    /// Any of these.
    pub values: Vec<String>,
}

/// `1m30s`, with parts of a second where there are any.
fn span(span: Option<&prost_types::Duration>) -> String {
    let span = span.copied().unwrap_or_default();
    let span = std::time::Duration::try_from(span).unwrap_or_default();
    if span.subsec_nanos() == 0 && span.as_secs().is_multiple_of(60) {
        return when::span(span);
    }
    format!("{}s", span.as_secs_f64())
}

impl From<&v1::HealthCheckConfig> for super::HealthCheckConfig {
    fn from(config: &v1::HealthCheckConfig) -> Self {
        let labels = config.db_labels.clone().unwrap_or_default().labels;
        Resource {
            kind: "health_check_config",
            version: "v1",
            metadata: Metadata {
                description: config.description.clone(),
                ..Metadata::named(&config.name, config.revision)
            },
            spec: HealthCheckSpec {
                matches: HealthMatchSpec {
                    db_labels: labels
                        .into_iter()
                        .map(|(name, values)| LabelSpec {
                            name,
                            values: values.values,
                        })
                        .collect(),
                    db_labels_expression: config.db_labels_expression.clone(),
                },
                interval: span(config.interval.as_ref()),
                timeout: span(config.timeout.as_ref()),
                healthy_threshold: config.healthy_threshold,
                unhealthy_threshold: config.unhealthy_threshold,
            },
            status: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{output, resource};

    #[test]
    fn a_health_check_config_is_printed_in_the_known_shape() {
        let everything = v1::LabelValues {
            values: vec!["*".to_owned()],
        };
        let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let config = v1::HealthCheckConfig {
            name: "default".to_owned(),
            db_labels: Some(v1::Selector {
                labels: [("*".to_owned(), everything)].into(),
            }),
            interval: seconds(60),
            timeout: seconds(5),
            healthy_threshold: 2,
            unhealthy_threshold: 1,
            ..v1::HealthCheckConfig::default()
        };
        assert_eq!(
            output::yaml(&resource::HealthCheckConfig::from(&config)).unwrap(),
            "\
kind: health_check_config
version: v1
metadata:
  name: default
spec:
  match:
    db_labels:
    - name: \"*\"
      values:
      - \"*\"
  interval: 1m
  timeout: 5s
  healthy_threshold: 2
  unhealthy_threshold: 1
"
        );
        let odd = prost_types::Duration {
            seconds: 90,
            nanos: 500_000_000,
        };
        assert_eq!(span(Some(&odd)), "90.5s");
    }
}
