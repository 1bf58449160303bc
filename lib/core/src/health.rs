//! How the health of databases is checked: which configuration is whose.
//!
//! A `health_check_config` names databases by labels, by a predicate, or by both, which then must both hold. Of several
//! that match a database the first by name counts; one that none matches is not checked. Unless somebody wrote another
//! one of its name, there is the preset [`DEFAULT`], which matches everything.
//!
//! Pure. Not here: dialling databases, and what results come to (the database service).

use std::{borrow::Cow, time::Duration};

use crate::{
    labels::Labels,
    predicate::{Field, FieldType, Fields, Predicate, PredicateError, Schema},
    selector::Selector,
};

/// The name of the preset.
pub const DEFAULT: &str = "default";
/// Shortest and longest time from one check to the next.
pub const INTERVAL_MIN: Duration = Duration::from_secs(5);
/// Longest time from one check to the next.
pub const INTERVAL_MAX: Duration = Duration::from_hours(1);
/// Shortest time that a check may take.
pub const TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// Most results in a row that may be asked for.
pub const THRESHOLD_MAX: u32 = 10;
/// From one check to the next, when nothing is written.
pub const INTERVAL_DEFAULT: Duration = Duration::from_secs(30);
/// How long a check may take, when nothing is written.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// Checks in a row that must succeed, when nothing is written.
pub const HEALTHY_THRESHOLD_DEFAULT: u32 = 2;
/// Checks in a row that must fail, when nothing is written.
pub const UNHEALTHY_THRESHOLD_DEFAULT: u32 = 1;

/// What the predicate of a configuration may speak of.
const SCHEMA: Schema = Schema {
    kind: "a database's labels",
    fields: &[&[Field {
        path: "labels",
        also: &["resource.metadata.labels"],
        holds: FieldType::Labels,
    }]],
    searchable: false,
};

/// A number that is out of its bounds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct InvalidHealthCheck {
    /// Which: `interval`, `timeout`, `healthy_threshold`, `unhealthy_threshold`.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

/// A predicate over labels, kept with the text it was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelsExpression {
    written: String,
    predicate: Predicate,
}

impl LabelsExpression {
    /// Parses it.
    ///
    /// # Errors
    ///
    /// The first fault from the left, with its place.
    pub fn new(text: &str) -> Result<Self, PredicateError> {
        Ok(Self {
            written: text.to_owned(),
            predicate: Predicate::parse_for(&SCHEMA, text)?,
        })
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.written
    }

    /// Whether it holds; one that takes too many steps does not.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.predicate.matches(&Labelled(labels))
    }
}

/// Labels alone, to a predicate.
struct Labelled<'l>(&'l Labels);

impl Fields for Labelled<'_> {
    fn text(&self, _path: &str) -> Option<Cow<'_, str>> {
        None
    }

    fn labels(&self, path: &str) -> Option<&Labels> {
        (path == "labels").then_some(self.0)
    }
}

/// When and how often a database is checked, and what counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthChecks {
    /// From the start of one check to the next, before jitter.
    pub interval: Duration,
    /// How long one check may take.
    pub timeout: Duration,
    /// Checks in a row that must succeed until a database counts as healthy.
    pub healthy_threshold: u32,
    /// Checks in a row that must fail until a database counts as unhealthy.
    pub unhealthy_threshold: u32,
}

impl Default for HealthChecks {
    fn default() -> Self {
        Self {
            interval: INTERVAL_DEFAULT,
            timeout: TIMEOUT_DEFAULT,
            healthy_threshold: HEALTHY_THRESHOLD_DEFAULT,
            unhealthy_threshold: UNHEALTHY_THRESHOLD_DEFAULT,
        }
    }
}

impl HealthChecks {
    /// Checks what no type rules out.
    ///
    /// # Errors
    ///
    /// [`InvalidHealthCheck`] names the first number that is out of bounds.
    pub fn checked(self) -> Result<Self, InvalidHealthCheck> {
        let wrong = |field, problem: String| Err(InvalidHealthCheck { field, problem });
        let seconds = Duration::as_secs_f64;
        if !(INTERVAL_MIN..=INTERVAL_MAX).contains(&self.interval) {
            let (least, most) = (INTERVAL_MIN.as_secs(), INTERVAL_MAX.as_secs());
            let given = seconds(&self.interval);
            let problem = format!("must be {least} s to {most} s, not {given} s");
            return wrong("interval", problem);
        }
        if self.timeout < TIMEOUT_MIN || self.timeout > self.interval {
            let (least, most) = (TIMEOUT_MIN.as_secs(), seconds(&self.interval));
            let given = seconds(&self.timeout);
            let problem =
                format!("must be {least} s to {most} s, which is the interval, not {given} s");
            return wrong("timeout", problem);
        }
        for (field, threshold) in [
            ("healthy_threshold", self.healthy_threshold),
            ("unhealthy_threshold", self.unhealthy_threshold),
        ] {
            if !(1..=THRESHOLD_MAX).contains(&threshold) {
                return wrong(
                    field,
                    format!("must be 1 to {THRESHOLD_MAX}, not {threshold}"),
                );
            }
        }
        Ok(self)
    }
}

/// Which databases are checked how.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthCheckConfig {
    /// Names it; the first of those that match counts.
    pub name: String,
    /// One line for people.
    pub description: String,
    /// Databases with these labels. Empty matches none, unless there is an expression: then labels are not asked.
    pub db_labels: Selector,
    /// Databases for which this holds.
    pub db_labels_expression: Option<LabelsExpression>,
    /// How they are checked.
    pub checks: HealthChecks,
}

impl HealthCheckConfig {
    /// What there is when nobody wrote another one of its name.
    #[must_use]
    pub fn preset() -> Self {
        Self {
            name: DEFAULT.to_owned(),
            description: "Checks every database.".to_owned(),
            db_labels: Selector::everything(),
            db_labels_expression: None,
            checks: HealthChecks::default(),
        }
    }

    /// Whether it is about a database with these labels.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        let expression = self.db_labels_expression.as_ref();
        let by_labels = if self.db_labels.is_empty() {
            expression.is_some()
        } else {
            self.db_labels.matches(labels)
        };
        by_labels && expression.is_none_or(|expression| expression.matches(labels))
    }
}

/// How a database with these labels is checked: by the first configuration by name that matches, `None` is not at all.
pub fn checks_of<'c>(
    configs: impl IntoIterator<Item = &'c HealthCheckConfig>,
    labels: &Labels,
) -> Option<&'c HealthCheckConfig> {
    configs
        .into_iter()
        .filter(|config| config.matches(labels))
        .min_by(|one, other| one.name.cmp(&other.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(env: &str) -> Labels {
        [("env".to_owned(), env.to_owned())].into_iter().collect()
    }

    fn config(name: &str, env: Option<&str>, expression: Option<&str>) -> HealthCheckConfig {
        HealthCheckConfig {
            name: name.to_owned(),
            db_labels: Selector::new(env.map(|env| ("env", [env]))).unwrap(),
            db_labels_expression: expression.map(|text| LabelsExpression::new(text).unwrap()),
            ..HealthCheckConfig::preset()
        }
    }

    #[test]
    fn the_first_by_name_of_those_that_match_counts() {
        let configs = [
            HealthCheckConfig::preset(),
            config("b", Some("prod"), None),
            config("a", Some("dev"), None),
        ];
        let name = |env| checks_of(&configs, &labels(env)).map(|config| config.name.as_str());
        assert_eq!(name("prod"), Some("b"));
        assert_eq!(name("dev"), Some("a"));
        assert_eq!(name("test"), Some(DEFAULT));
        assert_eq!(checks_of(&[config("a", None, None)], &labels("prod")), None);
    }

    #[test]
    fn labels_and_expression_must_both_hold() {
        let is_prod = r#"labels["env"] == "prod""#;
        assert!(config("a", None, Some(is_prod)).matches(&labels("prod")));
        assert!(!config("a", None, Some(is_prod)).matches(&labels("dev")));
        assert!(!config("a", Some("dev"), Some(is_prod)).matches(&labels("prod")));
        assert!(!config("a", Some("dev"), Some(is_prod)).matches(&labels("dev")));
        assert!(LabelsExpression::new("user.spec.traits[\"a\"]").is_err());
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        let usual = HealthChecks::default();
        assert_eq!(usual.checked(), Ok(usual));
        let second = Duration::from_secs(1);
        for (wrong, field) in [
            (
                HealthChecks {
                    interval: second,
                    ..usual
                },
                "interval",
            ),
            (
                HealthChecks {
                    interval: INTERVAL_MAX + second,
                    ..usual
                },
                "interval",
            ),
            (
                HealthChecks {
                    timeout: usual.interval + second,
                    ..usual
                },
                "timeout",
            ),
            (
                HealthChecks {
                    timeout: Duration::ZERO,
                    ..usual
                },
                "timeout",
            ),
            (
                HealthChecks {
                    healthy_threshold: 0,
                    ..usual
                },
                "healthy_threshold",
            ),
            (
                HealthChecks {
                    unhealthy_threshold: 11,
                    ..usual
                },
                "unhealthy_threshold",
            ),
        ] {
            assert_eq!(wrong.checked().unwrap_err().field, field);
        }
    }
}
