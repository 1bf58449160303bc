//! One statement of an IAM policy, as it can be pasted.

use serde::{Serialize, Serializer, ser::SerializeMap};
use tidegate_core::ExternalId;

/// What stands for an external id where not everybody may read it.
const HIDDEN: &str = "<the external id that is configured here>";

/// A statement that allows.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Statement {
    actions: Vec<String>,
    resources: Vec<String>,
    /// Set in trust policies, which name no resource.
    principal: Option<String>,
    external_id: Option<ExternalId>,
}

impl Statement {
    /// Allows an action on resources, for a policy of the one who acts.
    pub fn allow(
        action: impl Into<String>,
        resources: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self::allow_all([action], resources)
    }

    /// Allows several actions on resources, for a policy of the one who acts.
    pub fn allow_all(
        actions: impl IntoIterator<Item = impl Into<String>>,
        resources: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self {
            actions: actions.into_iter().map(Into::into).collect(),
            resources: resources.into_iter().map(Into::into).collect(),
            principal: None,
            external_id: None,
        }
    }

    /// Lets `principal` do these actions to a role, for the role's trust policy; with an external id only who shows it.
    pub fn trust(
        principal: impl Into<String>,
        actions: impl IntoIterator<Item = impl Into<String>>,
        external_id: Option<ExternalId>,
    ) -> Self {
        Self {
            actions: actions.into_iter().map(Into::into).collect(),
            resources: Vec::new(),
            principal: Some(principal.into()),
            external_id,
        }
    }

    /// The actions.
    #[must_use]
    pub fn actions(&self) -> &[String] {
        &self.actions
    }

    /// The resources; empty in a trust policy.
    #[must_use]
    pub fn resources(&self) -> &[String] {
        &self.resources
    }

    /// JSON on one line, for administrators: with the external id.
    #[must_use]
    pub fn json(&self) -> String {
        text(serde_json::to_string(&Written(self, Reader::Administrator)))
    }

    /// JSON on several lines, for administrators: with the external id.
    #[must_use]
    pub fn json_pretty(&self) -> String {
        text(serde_json::to_string_pretty(&Written(
            self,
            Reader::Administrator,
        )))
    }

    /// JSON on one line, for whoever meets the error: an external id is left out of it.
    #[must_use]
    pub fn json_for_clients(&self) -> String {
        text(serde_json::to_string(&Written(self, Reader::Client)))
    }
}

fn text(written: serde_json::Result<String>) -> String {
    written.expect("a map with text as keys is always JSON")
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reader {
    Administrator,
    Client,
}

struct Written<'s>(&'s Statement, Reader);

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(statement, reader) = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("Effect", "Allow")?;
        if let Some(principal) = &statement.principal {
            map.serialize_entry("Principal", &One("AWS", principal))?;
        }
        map.serialize_entry("Action", &OneOrMany(&statement.actions))?;
        if !statement.resources.is_empty() {
            map.serialize_entry("Resource", &OneOrMany(&statement.resources))?;
        }
        if let Some(id) = &statement.external_id {
            let id = match reader {
                Reader::Administrator => id.as_str(),
                Reader::Client => HIDDEN,
            };
            map.serialize_entry("Condition", &One("StringEquals", One("sts:ExternalId", id)))?;
        }
        map.end()
    }
}

/// An object with one entry.
struct One<V>(&'static str, V);

impl<V: Serialize> Serialize for One<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(self.0, &self.1)?;
        map.end()
    }
}

/// A list as policies write it: one entry stands alone.
struct OneOrMany<'l>(&'l [String]);

impl Serialize for OneOrMany<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            [one] => one.serialize(serializer),
            many => many.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_written_as_policies_are() {
        let statement = Statement::allow("redshift:JoinGroup", ["arn:a", "arn:b"]);
        assert_eq!(
            statement.json(),
            r#"{"Effect":"Allow","Action":"redshift:JoinGroup","Resource":["arn:a","arn:b"]}"#
        );
    }

    #[test]
    fn names_that_json_has_to_quote_are_quoted() {
        let statement = Statement::allow("x:Y", ["a\"b\u{e9}"]);
        assert!(
            statement.json().contains(r#""a\"bé""#),
            "{}",
            statement.json()
        );
    }

    #[test]
    fn an_external_id_is_shown_to_administrators_alone() {
        let statement = Statement::trust(
            "arn:aws:iam::123456789012:role/agent",
            ["sts:AssumeRole", "sts:TagSession"],
            Some("s3cret-id".parse().unwrap()),
        );
        assert_eq!(
            statement.json(),
            r#"{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::123456789012:role/agent"},"Action":["sts:AssumeRole","sts:TagSession"],"Condition":{"StringEquals":{"sts:ExternalId":"s3cret-id"}}}"#
        );
        assert!(!statement.json_for_clients().contains("s3cret-id"));
        assert!(statement.json_for_clients().contains("sts:ExternalId"));
    }
}
