//! Labels as people type and read them: `env=prod,team=bi`.

use tidegate_core::{Labels, Selector, labels::RESERVED_PREFIX};

use crate::Failure;

/// The labels in key order, `key=value` with commas between.
///
/// Those that Tidegate keeps for itself are left out unless `all` is asked for: they are the same for most databases
/// and would hide the others.
#[must_use]
pub fn text(labels: &Labels, all: bool) -> String {
    let shown: Vec<String> = labels
        .iter()
        .filter(|(key, _)| all || !key.starts_with(RESERVED_PREFIX))
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    shown.join(",")
}

/// Reads a filter: `key=value` with commas between; a value may be quoted to hold commas. A key given twice means any of
/// its values. Values are patterns, as in a selector.
///
/// # Errors
///
/// A usage failure when a part is no `key=value`, or a value no pattern.
pub fn filter(text: &str) -> Result<Selector, Failure> {
    let wrong = |problem: String| {
        Failure::usage(format!("`{text}` is not a label filter: {problem}"))
            .hint("write it as `key=value,other=value`, for example `env=prod,region=us-*`")
    };
    let mut terms: std::collections::BTreeMap<String, Vec<String>> = Default::default();
    for part in parts(text).map_err(&wrong)? {
        let (key, value) = part
            .split_once('=')
            .ok_or_else(|| wrong(format!("`{part}` has no `=`")))?;
        let (key, value) = (key.trim(), value.trim());
        if key.is_empty() || value.is_empty() {
            return Err(wrong(format!("`{part}` lacks a key or a value")));
        }
        terms
            .entry(key.to_owned())
            .or_default()
            .push(value.to_owned());
    }
    Selector::new(terms).map_err(|error| wrong(error.to_string()))
}

/// Splits at commas outside quotes, and takes the quotes away.
fn parts(text: &str) -> Result<Vec<String>, String> {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => parts.push(String::new()),
            other => {
                if let Some(part) = parts.last_mut() {
                    part.push(other);
                }
            }
        }
    }
    if quoted {
        return Err("a quote is not closed".to_owned());
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_reads_keys_values_and_quotes() {
        let selector = filter(r#"env=prod,team="a,b",env=dev"#).unwrap();
        assert_eq!(
            selector,
            Selector::new([("env", vec!["prod", "dev"]), ("team", vec!["a,b"])]).unwrap()
        );
    }

    #[test]
    fn a_filter_that_is_none_says_what_is_wrong() {
        for (text, says) in [
            ("env", "has no `=`"),
            ("=x", "lacks a key or a value"),
            ("a=", "lacks a key or a value"),
            ("a=1,", "has no `=`"),
            ("a=\"1", "not closed"),
            ("a=^($", "not a valid pattern"),
        ] {
            let failure = filter(text).unwrap_err();
            assert!(failure.message().contains(says), "{text}: {failure}");
            assert_eq!(failure.exit(), crate::Exit::Usage);
        }
    }

    #[test]
    fn internal_labels_are_shown_on_request_only() {
        let labels: Labels = [("env", "dev"), ("tidegate.dev/origin", "cloud")]
            .into_iter()
            .collect();
        assert_eq!(text(&labels, false), "env=dev");
        assert_eq!(text(&labels, true), "env=dev,tidegate.dev/origin=cloud");
    }
}
