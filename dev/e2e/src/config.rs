//! The example configurations, fitted to the laboratory: other addresses and folders, the same everything else.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::{Map, Value};

/// The folder of the example configurations.
#[must_use]
pub fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/examples")
}

/// Reads an example, lays patches over it, one after the other, and writes the result (JSON, which is YAML) to `to`.
///
/// # Errors
///
/// When the example cannot be read or the result not be written.
pub fn render(example: &str, patches: impl IntoIterator<Item = Value>, to: &Path) -> Result<()> {
    let path = examples().join(example);
    let text =
        fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
    let mut config: Value = serde_yaml::from_str(&text)
        .with_context(|| format!("could not parse {}", path.display()))?;
    patches
        .into_iter()
        .for_each(|patch| lay_over(&mut config, patch));
    fs::write(to, serde_json::to_string_pretty(&config)?)
        .with_context(|| format!("could not write {}", to.display()))
}

/// Replaces what `patch` names; `null` removes.
fn lay_over(base: &mut Value, patch: Value) {
    match patch {
        Value::Object(patch) => {
            if !base.is_object() {
                *base = Value::Object(Map::new());
            }
            let Value::Object(base) = base else { return };
            for (key, value) in patch {
                if value.is_null() {
                    base.remove(&key);
                } else {
                    lay_over(base.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        other => *base = other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_patch_replaces_removes_and_leaves_the_rest() {
        let mut base = json!({"a": {"b": 1, "c": 2}, "d": [1, 2]});
        lay_over(
            &mut base,
            json!({"a": {"b": 3, "c": null}, "d": [9], "e": {"f": 1}}),
        );
        assert_eq!(base, json!({"a": {"b": 3}, "d": [9], "e": {"f": 1}}));
    }
}
