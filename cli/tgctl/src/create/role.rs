//! `kind: role` as people write it.
//!
//! Keys that are not served are refused, not ignored: a role that seems to forbid something and does not would be worse
//! than none.

use serde::Deserialize;
use serde_json::Value;
use tidegate_core::{Role, RoleConditions, Selector};

/// Versions of the shape that are read; they do not differ in what is served.
const VERSIONS: [&str; 6] = ["v3", "v4", "v5", "v6", "v7", "v8"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[expect(dead_code, reason = "told apart before")]
    kind: String,
    version: String,
    metadata: Metadata,
    spec: Spec,
    #[serde(default)]
    #[expect(dead_code, reason = "`tgctl get` prints it; it is not asked for")]
    status: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    name: String,
    #[serde(default)]
    #[expect(dead_code, reason = "roles have no description here")]
    description: Option<String>,
    #[serde(default)]
    #[expect(dead_code, reason = "`tgctl get` prints it; it is not asked for")]
    revision: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    #[serde(default)]
    allow: Conditions,
    #[serde(default)]
    deny: Conditions,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Conditions {
    db_labels: Selector,
    db_users: Vec<String>,
    db_names: Vec<String>,
}

impl From<Conditions> for RoleConditions {
    fn from(conditions: Conditions) -> Self {
        Self {
            db_labels: conditions.db_labels,
            db_users: conditions.db_users,
            db_names: conditions.db_names,
            ..Self::default()
        }
    }
}

/// One role, or a list of them.
#[derive(Deserialize)]
#[serde(untagged)]
enum Peek {
    Many(Vec<Value>),
    One(Value),
}

/// Whether a document is about roles. One that cannot be read is not: the reader of databases says what is wrong.
pub(super) fn is_role(document: &str) -> bool {
    let kind_is_role = |value: &Value| value.get("kind").and_then(Value::as_str) == Some("role");
    match serde_yaml::from_str::<Peek>(document) {
        Ok(Peek::One(value)) => kind_is_role(&value),
        Ok(Peek::Many(values)) => values.first().is_some_and(kind_is_role),
        Err(_) => false,
    }
}

/// Reads the roles of a document.
pub(super) fn parse(document: &str) -> Result<Vec<Role>, String> {
    let written: Vec<Written> = match serde_yaml::from_str::<Peek>(document) {
        Ok(Peek::Many(_)) => serde_yaml::from_str(document).map_err(|error| error.to_string())?,
        _ => vec![serde_yaml::from_str(document).map_err(|error| error.to_string())?],
    };
    written.into_iter().map(role).collect()
}

fn role(written: Written) -> Result<Role, String> {
    if !VERSIONS.contains(&written.version.as_str()) {
        return Err(format!(
            "version `{}` of a role is not known; write v7",
            written.version
        ));
    }
    if written.metadata.name.is_empty() {
        return Err("metadata.name of a role is empty".to_owned());
    }
    Ok(Role {
        name: written.metadata.name,
        allow: written.spec.allow.into(),
        deny: written.spec.deny.into(),
        ..Role::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_not_served_is_refused() {
        let text =
            "kind: role\nversion: v7\nmetadata: {name: a}\nspec: {options: {lock: strict}}\n";
        assert!(is_role(text));
        assert!(parse(text).unwrap_err().contains("options"));
    }

    #[test]
    fn a_list_of_roles_is_read() {
        let text = r#"[{"kind": "role", "version": "v7", "metadata": {"name": "a"}, "spec": {"deny": {"db_users": ["x"]}}}]"#;
        assert!(is_role(text));
        let roles = parse(text).unwrap();
        assert_eq!(roles[0].deny.db_users, ["x"]);
    }

    #[test]
    fn an_unknown_version_is_refused() {
        let text = "kind: role\nversion: v99\nmetadata: {name: a}\nspec: {}\n";
        assert!(parse(text).unwrap_err().contains("v99"));
    }
}
