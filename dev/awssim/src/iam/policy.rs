//! Identity policies: what a user or role may do.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Context, pattern};

/// One value or a list of them, as policy JSON allows in most places.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// Written without brackets.
    One(T),
    /// Written as a list.
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    /// The values as a list.
    pub fn as_slice(&self) -> &[T] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

impl<'a, I: IntoIterator<Item = &'a str>> From<I> for OneOrMany<String> {
    fn from(items: I) -> Self {
        Self::Many(items.into_iter().map(str::to_owned).collect())
    }
}

/// Whether a statement grants or forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Grants.
    Allow,
    /// Forbids, whatever else grants.
    Deny,
}

/// The supported condition operators. Another one fails when the policy is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ConditionOperator {
    /// Exact text.
    StringEquals,
    /// Text with `*` and `?`.
    StringLike,
}

/// Operator, then key, then the values of which one has to match.
pub type Conditions = BTreeMap<ConditionOperator, BTreeMap<String, OneOrMany<String>>>;

/// One statement of an identity policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
pub struct Statement {
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
    /// Grants or forbids.
    pub effect: Effect,
    /// Actions, `service:Operation`, without regard to case.
    pub action: OneOrMany<String>,
    /// Resource ARNs.
    pub resource: OneOrMany<String>,
    /// All of them must hold.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub condition: Conditions,
}

/// An identity policy document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
pub struct IdentityPolicy {
    /// `2012-10-17`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The statements.
    pub statement: OneOrMany<Statement>,
}

impl IdentityPolicy {
    /// A policy that allows these actions on these resources.
    pub fn allow<'a>(
        actions: impl IntoIterator<Item = &'a str>,
        resources: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        Self::of(Effect::Allow, actions.into(), resources.into())
    }

    /// A policy that forbids these actions on these resources.
    pub fn deny<'a>(
        actions: impl IntoIterator<Item = &'a str>,
        resources: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        Self::of(Effect::Deny, actions.into(), resources.into())
    }

    fn of(effect: Effect, action: OneOrMany<String>, resource: OneOrMany<String>) -> Self {
        let condition = BTreeMap::new();
        let statement = Statement {
            sid: None,
            effect,
            action,
            resource,
            condition,
        };
        Self {
            version: Some("2012-10-17".to_owned()),
            id: None,
            statement: OneOrMany::One(statement),
        }
    }
}

/// The outcome of evaluating policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allowed,
    /// Nothing allows it.
    NotAllowed,
    /// A statement forbids it.
    Forbidden,
}

/// Evaluates identity policies for one action on one resource.
pub(crate) fn evaluate<'a>(
    policies: impl IntoIterator<Item = &'a IdentityPolicy>,
    action: &str,
    resource: &str,
    context: &Context,
) -> Verdict {
    let mut verdict = Verdict::NotAllowed;
    for statement in policies.into_iter().flat_map(|p| p.statement.as_slice()) {
        let applies = action_matches(&statement.action, action)
            && statement
                .resource
                .as_slice()
                .iter()
                .any(|r| pattern::matches(r, resource, context))
            && conditions_hold(&statement.condition, context);
        match statement.effect {
            Effect::Deny if applies => return Verdict::Forbidden,
            Effect::Allow if applies => verdict = Verdict::Allowed,
            _ => {}
        }
    }
    verdict
}

pub(super) fn action_matches(patterns: &OneOrMany<String>, action: &str) -> bool {
    let (action, none) = (action.to_ascii_lowercase(), Context::default());
    let matches = |p: &String| pattern::matches(&p.to_ascii_lowercase(), &action, &none);
    patterns.as_slice().iter().any(matches)
}

/// A key without a value in the context fails its condition.
pub(super) fn conditions_hold(conditions: &Conditions, context: &Context) -> bool {
    conditions.iter().all(|(operator, keys)| {
        keys.iter().all(|(key, wanted)| {
            let Some(actual) = context.get(key) else {
                return false;
            };
            wanted.as_slice().iter().any(|wanted| match operator {
                ConditionOperator::StringLike => pattern::matches(wanted, actual, context),
                ConditionOperator::StringEquals if wanted.contains("${") => {
                    let literal = wanted.replace('*', "${*}").replace('?', "${?}");
                    pattern::matches(&literal, actual, context)
                }
                ConditionOperator::StringEquals => wanted == actual,
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:redshift:us-east-1:111111111111:dbuser:c0/alice";

    fn verdict(policies: &[IdentityPolicy]) -> Verdict {
        evaluate(
            policies,
            "redshift:GetClusterCredentials",
            ARN,
            &Context::default(),
        )
    }

    #[test]
    fn nothing_said_is_not_allowed() {
        assert_eq!(verdict(&[]), Verdict::NotAllowed);
        let other = IdentityPolicy::allow(["redshift:Describe*"], ["*"]);
        assert_eq!(verdict(&[other]), Verdict::NotAllowed);
    }

    #[test]
    fn wildcards_allow_and_actions_ignore_case() {
        let policy =
            IdentityPolicy::allow(["Redshift:getcluster*"], ["arn:aws:redshift:*:dbuser:c0/*"]);
        assert_eq!(verdict(&[policy]), Verdict::Allowed);
    }

    #[test]
    fn a_deny_wins_over_every_allow() {
        let policies = [
            IdentityPolicy::allow(["*"], ["*"]),
            IdentityPolicy::deny(["*"], [ARN]),
        ];
        assert_eq!(verdict(&policies), Verdict::Forbidden);
    }

    #[test]
    fn conditions_need_a_value_that_matches() {
        let policy: IdentityPolicy = serde_json::from_str(
            r#"{"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*",
                "Condition": {"StringLike": {"redshift:dbuser": ["bob", "al*"]}}}}"#,
        )
        .unwrap();
        let check = |context: &Context| evaluate([&policy], "redshift:X", ARN, context);
        let mut context = Context::default();
        assert_eq!(check(&context), Verdict::NotAllowed);
        context.set("redshift:DbUser", "alice");
        assert_eq!(check(&context), Verdict::Allowed);
    }
}
