//! `health_check_config`.

use std::time::Duration;

use tidegate_core::{
    HealthCheckConfig, Selector,
    health::{
        HEALTHY_THRESHOLD_DEFAULT, HealthChecks, INTERVAL_DEFAULT, LabelsExpression,
        TIMEOUT_DEFAULT, UNHEALTHY_THRESHOLD_DEFAULT,
    },
};

use super::{Invalid, span};
use crate::v1;

/// A span of time for the wire; none that is in bounds is too long for it.
fn seconds(span: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(span).ok()
}

impl From<HealthCheckConfig> for v1::HealthCheckConfig {
    fn from(config: HealthCheckConfig) -> Self {
        let expression = config.db_labels_expression.as_ref();
        Self {
            name: config.name,
            description: config.description,
            db_labels: Some(config.db_labels.into()),
            db_labels_expression: expression
                .map(|expression| expression.as_str().to_owned())
                .unwrap_or_default(),
            interval: seconds(config.checks.interval),
            timeout: seconds(config.checks.timeout),
            healthy_threshold: config.checks.healthy_threshold,
            unhealthy_threshold: config.checks.unhealthy_threshold,
            revision: 0,
        }
    }
}

impl TryFrom<v1::HealthCheckConfig> for HealthCheckConfig {
    type Error = Invalid;

    fn try_from(config: v1::HealthCheckConfig) -> Result<Self, Invalid> {
        let selector = config.db_labels.unwrap_or_default();
        let db_labels = Selector::try_from(selector)
            .map_err(|invalid| Invalid::new("db_labels", invalid.problem))?;
        let text = config.db_labels_expression;
        let expression = (!text.is_empty())
            .then(|| LabelsExpression::new(&text))
            .transpose()
            .map_err(|error| Invalid::new("db_labels_expression", error))?;
        let or = |number: u32, default| if number == 0 { default } else { number };
        let checks = HealthChecks {
            interval: span("interval", config.interval)?.unwrap_or(INTERVAL_DEFAULT),
            timeout: span("timeout", config.timeout)?.unwrap_or(TIMEOUT_DEFAULT),
            healthy_threshold: or(config.healthy_threshold, HEALTHY_THRESHOLD_DEFAULT),
            unhealthy_threshold: or(config.unhealthy_threshold, UNHEALTHY_THRESHOLD_DEFAULT),
        };
        Ok(Self {
            name: config.name,
            description: config.description,
            db_labels,
            db_labels_expression: expression,
            checks: checks
                .checked()
                .map_err(|wrong| Invalid::new(wrong.field, wrong.problem))?,
        })
    }
}
