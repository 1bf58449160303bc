//! `kind: health_check_config` as people write it.
//!
//! The auth service checks bounds, names and the predicate; here is what a file alone can tell.

use std::{collections::BTreeMap, time::Duration};

use jiff::SignedDuration;
use serde::{Deserialize, de::IgnoredAny};
use serde_yaml::Spanned;
use tidegate_proto::v1;

use super::{
    place::{Place, Problem},
    role::one_or_many,
};

const VERSION: &str = "v1";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[expect(dead_code, reason = "told apart before")]
    kind: String,
    version: Spanned<String>,
    metadata: Metadata,
    spec: Spec,
    #[serde(default)]
    #[expect(dead_code, reason = "it is not asked for")]
    status: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    name: Spanned<String>,
    #[serde(default)]
    description: String,
    #[serde(default)]
    #[expect(dead_code, reason = "`tgctl get` prints it; it is not asked for")]
    revision: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    #[serde(rename = "match")]
    matches: Match,
    #[serde(default)]
    interval: Option<Spanned<String>>,
    #[serde(default)]
    timeout: Option<Spanned<String>>,
    #[serde(default)]
    healthy_threshold: Option<Spanned<u32>>,
    #[serde(default)]
    unhealthy_threshold: Option<Spanned<u32>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Match {
    #[serde(default)]
    db_labels: Vec<Label>,
    #[serde(default)]
    db_labels_expression: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Label {
    name: Spanned<String>,
    values: Vec<String>,
}

/// Reads the configurations of a document.
pub(super) fn parse(document: &str) -> Result<Vec<v1::HealthCheckConfig>, Vec<Problem>> {
    let written: Vec<Written> = one_or_many(document)?;
    written
        .into_iter()
        .map(|written| config(written).map_err(|problem| vec![problem]))
        .collect()
}

fn config(written: Written) -> Result<v1::HealthCheckConfig, Problem> {
    let Written {
        version,
        metadata,
        spec,
        ..
    } = written;
    if version.value != VERSION {
        let text = format!(
            "version `{}` of a health_check_config is not known; write {VERSION}",
            version.value
        );
        return Err(Problem {
            place: Place::of(&version),
            text,
        });
    }
    if metadata.name.value.is_empty() {
        return Err(Problem {
            place: Place::of(&metadata.name),
            text: "metadata.name of a health_check_config is empty".to_owned(),
        });
    }
    Ok(v1::HealthCheckConfig {
        name: metadata.name.value,
        description: metadata.description,
        db_labels: Some(selector(spec.matches.db_labels)?),
        db_labels_expression: spec.matches.db_labels_expression,
        interval: span("interval", spec.interval)?,
        timeout: span("timeout", spec.timeout)?,
        healthy_threshold: threshold("healthy_threshold", spec.healthy_threshold)?,
        unhealthy_threshold: threshold("unhealthy_threshold", spec.unhealthy_threshold)?,
        revision: 0,
    })
}

fn selector(written: Vec<Label>) -> Result<v1::Selector, Problem> {
    let mut labels = BTreeMap::new();
    for Label { name, values } in written {
        let place = Place::of(&name);
        let key = name.value;
        if labels.contains_key(&key) {
            let text = format!(
                "spec.match.db_labels: label `{key}` is there twice; write all its values in one"
            );
            return Err(Problem { place, text });
        }
        labels.insert(key, v1::LabelValues { values });
    }
    Ok(v1::Selector { labels })
}

fn span(
    key: &str,
    written: Option<Spanned<String>>,
) -> Result<Option<prost_types::Duration>, Problem> {
    let Some(written) = written else {
        return Ok(None);
    };
    let place = Place::of(&written);
    let span: Option<SignedDuration> = written.value.parse().ok();
    let span = span.and_then(|span| Duration::try_from(span).ok());
    let span = span.and_then(|span| prost_types::Duration::try_from(span).ok());
    span.map(Some).ok_or_else(|| Problem {
        place,
        text: format!(
            "spec.{key}: `{}` is no span of time; write `30s` or `1m30s`",
            written.value
        ),
    })
}

/// A threshold as it is sent, where 0 means that none was written.
fn threshold(key: &str, written: Option<Spanned<u32>>) -> Result<u32, Problem> {
    match written {
        Some(written) if written.value == 0 => Err(Problem {
            place: Place::of(&written),
            text: format!("spec.{key}: must be at least 1"),
        }),
        Some(written) => Ok(written.value),
        None => Ok(0),
    }
}

#[cfg(test)]
mod tests {
    use tidegate_console::{output, resource};

    use super::*;

    const TEXT: &str = "\
kind: health_check_config
version: v1
metadata:
  name: prod
  description: production more often
spec:
  match:
    db_labels:
    - name: env
      values: [prod, stage]
    db_labels_expression: labels[\"team\"] != \"lab\"
  interval: 10s
  timeout: 2s
  healthy_threshold: 3
";

    #[test]
    fn what_get_prints_can_be_given_back() {
        let mut configs = parse(TEXT).unwrap();
        assert_eq!(configs[0].interval.unwrap().seconds, 10);
        configs[0].unhealthy_threshold = 1;
        let shown = v1::HealthCheckConfig {
            revision: 3,
            ..configs[0].clone()
        };
        let printed = output::yaml(&resource::HealthCheckConfig::from(&shown)).unwrap();
        assert_eq!(parse(&printed), Ok(configs));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (wrong, line) in [
            (TEXT.replace("10s", "often"), 12),
            (
                TEXT.replace("healthy_threshold: 3", "healthy_threshold: 0"),
                14,
            ),
            (TEXT.replace("version: v1", "version: v9"), 2),
        ] {
            assert_eq!(parse(&wrong).unwrap_err()[0].place.line, line, "{wrong}");
        }
    }
}
