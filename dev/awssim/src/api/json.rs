//! Bodies of the JSON protocols, and of Query replies to who asks for JSON.

use http::{HeaderMap, header::ACCEPT};
use serde_json::{Value, json};

use super::error::ApiError;

/// The reply of an operation that failed.
pub(super) fn failure(error: &ApiError) -> String {
    json!({ "__type": error.code, "message": error.message }).to_string()
}

/// Whether a request asks for JSON.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.eq_ignore_ascii_case("application/json"))
}

/// The reply of a Query operation that succeeded.
pub(super) fn query_success(action: &str, request_id: &str, result: &Value) -> String {
    let reply = json!({
        format!("{action}Result"): result,
        "ResponseMetadata": { "RequestId": request_id },
    });
    json!({ format!("{action}Response"): reply }).to_string()
}

/// The reply of a Query operation that failed.
pub(super) fn query_failure(request_id: &str, error: &ApiError) -> String {
    let at_fault = if error.status < 500 {
        "Sender"
    } else {
        "Receiver"
    };
    let told = json!({ "Type": at_fault, "Code": error.code, "Message": error.message });
    json!({ "Error": told, "RequestId": request_id }).to_string()
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
