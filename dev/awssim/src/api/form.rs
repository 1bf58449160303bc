//! The parameters of a request, from the form of a Query request or from JSON.

use std::collections::BTreeMap;

use serde_json::Value;

use super::error::ApiError;

/// One filter of RDS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) name: String,
    pub(crate) values: Vec<String>,
}

/// Parameters by name, as `Name` or `List.member.1`, whichever protocol brought them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Form(BTreeMap<String, String>);

impl Form {
    /// Reads `application/x-www-form-urlencoded`; of a name given twice the last counts.
    pub(crate) fn parse(body: &[u8]) -> Self {
        let text = String::from_utf8_lossy(body);
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        let decoded = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        });
        Self(decoded.collect())
    }

    /// Reads a JSON object; what is nested has a path for a name, as in a Query request.
    pub(crate) fn from_json(body: &[u8]) -> Result<Self, ApiError> {
        let bad = || ApiError::new(400, "SerializationException", "the body is no JSON object");
        let json: Value = match body {
            b"" => Value::Object(serde_json::Map::new()),
            body => serde_json::from_slice(body).map_err(|_| bad())?,
        };
        let members = json.as_object().ok_or_else(bad)?;
        let mut form = BTreeMap::new();
        for (name, value) in members {
            flatten(name.clone(), value, &mut form);
        }
        Ok(Self(form))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// As [`Form::get`], with empty text as good as none.
    pub(crate) fn non_empty(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|text| !text.is_empty())
    }

    /// Every parameter but these, as one text.
    pub(crate) fn without(&self, names: &[&str]) -> String {
        let others = self.0.iter();
        let others = others.filter(|(name, _)| !names.contains(&name.as_str()));
        others
            .map(|(name, value)| format!("{name}={value}&"))
            .collect()
    }

    /// The filters of RDS, whatever the members of the lists are called.
    pub(crate) fn filters(&self) -> Vec<Filter> {
        self.named_lists("Filters.", ".Name")
    }

    /// The filters of the tagging API.
    pub(crate) fn tag_filters(&self) -> Vec<Filter> {
        self.named_lists("TagFilters.", ".Key")
    }

    fn named_lists(&self, list: &str, name_member: &str) -> Vec<Filter> {
        let mut filters = Vec::new();
        for (path, name) in &self.0 {
            let stem = path
                .strip_suffix(name_member)
                .filter(|stem| stem.starts_with(list));
            filters.extend(stem.map(|stem| Filter {
                name: name.clone(),
                values: self.list(&format!("{stem}.Values")),
            }));
        }
        filters
    }

    pub(crate) fn required(&self, name: &str) -> Result<&str, ApiError> {
        let missing = || {
            let rule = "Member must not be null";
            ApiError::validation(format!(
                "1 validation error detected: Value null at '{name}' failed to satisfy \
                 constraint: {rule}"
            ))
        };
        self.get(name).ok_or_else(missing)
    }

    /// A whole number within a range, or its default.
    pub(crate) fn number(
        &self,
        name: &str,
        range: std::ops::RangeInclusive<u32>,
        default: u32,
    ) -> Result<u32, ApiError> {
        let Some(text) = self.get(name) else {
            return Ok(default);
        };
        let parsed = text.parse().ok().filter(|n| range.contains(n));
        parsed.ok_or_else(|| {
            let (least, most) = range.into_inner();
            let rule = format!("Member must have value between {least} and {most}");
            ApiError::constraint(text, name, &rule)
        })
    }

    pub(crate) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(text) => Err(ApiError::constraint(
                text,
                name,
                "Member must be true or false",
            )),
        }
    }

    /// The values of a list, whatever its members are called, ordered by number.
    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        let mut members: Vec<(u32, &String)> = Vec::new();
        for (key, value) in &self.0 {
            let rest = key
                .strip_prefix(name)
                .and_then(|rest| rest.strip_prefix('.'));
            let number = rest.and_then(|rest| rest.rsplit('.').next()?.parse().ok());
            members.extend(number.map(|number| (number, value)));
        }
        members.sort_unstable();
        members
            .into_iter()
            .map(|(_, value)| value.clone())
            .collect()
    }

    /// What is nested right below a name, by its own name.
    pub(crate) fn under<'f>(&'f self, name: &'f str) -> impl Iterator<Item = (&'f str, &'f str)> {
        self.0.iter().filter_map(move |(path, value)| {
            let own = path.strip_prefix(name)?.strip_prefix('.')?;
            Some((own, value.as_str()))
        })
    }

    /// The pairs of a list of `Key` and `Value`.
    pub(crate) fn pairs(&self, name: &str) -> BTreeMap<String, String> {
        let mut pairs = BTreeMap::new();
        for (path, key) in &self.0 {
            let stem = path
                .strip_suffix(".Key")
                .filter(|stem| stem.starts_with(name));
            if let Some(stem) = stem {
                let value = self.get(&format!("{stem}.Value")).unwrap_or_default();
                pairs.insert(key.clone(), value.to_owned());
            }
        }
        pairs
    }

    /// IAM's context keys, each with its first value.
    pub(crate) fn context_entries(&self) -> Vec<(String, String)> {
        let keys = self.0.iter().filter_map(|(path, key)| {
            let stem = path.strip_suffix(".ContextKeyName")?;
            let stem = stem.starts_with("ContextEntries.").then_some(stem)?;
            let values = self.list(&format!("{stem}.ContextKeyValues"));
            Some((key.clone(), values.into_iter().next()?))
        });
        keys.collect()
    }
}

/// Enters a value and what is nested in it; serde_json bounds how deep that is.
fn flatten(path: String, value: &Value, form: &mut BTreeMap<String, String>) {
    let text = match value {
        Value::Array(items) => {
            for (n, item) in (1..).zip(items) {
                flatten(format!("{path}.member.{n}"), item, form);
            }
            return;
        }
        Value::Object(members) => {
            for (name, member) in members {
                flatten(format!("{path}.{name}"), member, form);
            }
            return;
        }
        Value::Null => return,
        Value::Bool(yes) => yes.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
    };
    form.insert(path, text);
}

/// Undoes the encoding of forms and queries.
pub(crate) fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = match (first, after) {
            (b'%', [high, low, ..]) => hex_digit(*high).zip(hex_digit(*low)),
            _ => None,
        };
        rest = match escaped {
            Some((high, low)) => {
                bytes.push(high << 4 | low);
                &after[2..]
            }
            None => {
                bytes.push(if first == b'+' { b' ' } else { first });
                after
            }
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_decoded() {
        let form = Form::parse(b"Action=X&DbUser=a%2Bb+c&Bad=%zz");
        assert_eq!(form.get("DbUser"), Some("a+b c"));
        assert_eq!(form.get("Bad"), Some("%zz"));
    }

    #[test]
    fn lists_take_any_member_name_in_order_of_number() {
        let form = Form::parse(b"TagKeys.TagKey.2=b&TagKeys.TagKey.10=c&TagKeys.member.1=a");
        assert_eq!(form.list("TagKeys"), ["a", "b", "c"]);
        let form = Form::parse(b"Tags.member.1.Key=k&Tags.member.1.Value=v");
        assert_eq!(form.pairs("Tags")["k"], "v");
    }

    #[test]
    fn filters_take_any_member_name() {
        let form = Form::parse(
            b"Filters.Filter.1.Name=engine&Filters.Filter.1.Values.Value.1=mysql\
              &Filters.member.2.Name=db-cluster-id&Filters.member.2.Values.member.1=a\
              &Filters.member.2.Values.member.2=b",
        );
        let filter = |name: &str, values: &[&str]| Filter {
            name: name.to_owned(),
            values: values.iter().map(|&value| value.to_owned()).collect(),
        };
        let expected = [
            filter("engine", &["mysql"]),
            filter("db-cluster-id", &["a", "b"]),
        ];
        assert_eq!(form.filters(), expected);
    }

    #[test]
    fn json_is_read_as_the_same_parameters() {
        let form = Form::from_json(br#"{"a": 7, "b": "x", "c": ["y", "z"], "d": null}"#).unwrap();
        assert_eq!(
            (form.get("a"), form.get("b"), form.get("d")),
            (Some("7"), Some("x"), None)
        );
        assert_eq!(form.list("c"), ["y", "z"]);
        let body = br#"{"TagFilters": [{"Key": "env", "Values": ["prod", "dev"]}]}"#;
        let filter = Filter {
            name: "env".to_owned(),
            values: vec!["prod".to_owned(), "dev".to_owned()],
        };
        assert_eq!(Form::from_json(body).unwrap().tag_filters(), [filter]);
        assert!(Form::from_json(b"[]").is_err());
    }
}
