//! Bodies of the JSON protocols.

use serde_json::{Value, json};

use super::error::ApiError;

/// The reply of an operation that failed.
pub(super) fn failure(error: &ApiError) -> String {
    json!({ "__type": error.code, "message": error.message }).to_string()
}

/// Replaces every value `name` that is no list and no object by a text, or leaves it out.
pub(super) fn damage(body: &str, name: &str, text: Option<&str>) -> String {
    match serde_json::from_str(body) {
        Ok(mut json) => {
            damage_value(&mut json, name, text);
            json.to_string()
        }
        Err(_) => body.to_owned(),
    }
}

fn damage_value(json: &mut Value, name: &str, text: Option<&str>) {
    match json {
        Value::Array(items) => {
            for item in items {
                damage_value(item, name, text);
            }
        }
        Value::Object(members) => {
            let is_leaf = |value: &Value| !value.is_array() && !value.is_object();
            if members.get(name).is_some_and(is_leaf) {
                match text {
                    Some(text) => drop(members.insert(name.to_owned(), json!(text))),
                    None => drop(members.remove(name)),
                }
            }
            for member in members.values_mut() {
                damage_value(member, name, text);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_replaces_or_removes_every_such_value() {
        let body = r#"{"a":[{"port":1},{"port":[]}]}"#;
        assert_eq!(
            damage(body, "port", Some("z")),
            r#"{"a":[{"port":"z"},{"port":[]}]}"#
        );
        assert_eq!(damage(body, "port", None), r#"{"a":[{},{"port":[]}]}"#);
    }
}
