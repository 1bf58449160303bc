//! Identity policies: what a user or role may do.

use std::collections::{BTreeMap, BTreeSet};

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

/// The outcome of evaluating policies of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allowed,
    /// Nothing allows it.
    NotAllowed,
    /// A statement forbids it.
    Forbidden,
}

/// A kind of policy, as refusals name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layer {
    Boundary,
    Identity,
    /// A role's trust policy.
    Resource,
    ServiceControl,
    Session,
}

impl Layer {
    fn name(self) -> &'static str {
        match self {
            Self::Boundary => "permissions boundary",
            Self::Identity => "identity-based policy",
            Self::Resource => "resource-based policy",
            Self::ServiceControl => "service control policy",
            Self::Session => "session policy",
        }
    }
}

/// Why all policies together do not allow something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denial {
    /// A statement forbids it.
    Explicit(Layer),
    /// Nothing of this kind allows it.
    Missing(Layer),
}

impl Denial {
    /// The end of AWS's sentence.
    ///
    /// Source: IAM user guide, "Troubleshoot access denied error messages".
    pub(crate) fn because(self, action: &str) -> String {
        match self {
            Self::Explicit(layer) => {
                let article = if layer == Layer::Identity { "an" } else { "a" };
                format!(" with an explicit deny in {article} {}", layer.name())
            }
            Self::Missing(layer) => {
                format!(" because no {} allows the {action} action", layer.name())
            }
        }
    }
}

/// Everything that limits a caller. What is absent limits nothing, but for the identity policies, which have to allow.
#[derive(Debug, Default)]
pub(crate) struct Layers<'a> {
    pub(crate) identity: &'a [IdentityPolicy],
    pub(crate) boundary: Option<&'a IdentityPolicy>,
    pub(crate) service_control: &'a [IdentityPolicy],
    pub(crate) session: Option<&'a IdentityPolicy>,
}

impl Layers<'_> {
    /// What all of them say together: any explicit deny first, then, in AWS's order, what does not allow.
    ///
    /// Source: IAM user guide, "Policy evaluation logic".
    pub(crate) fn decide(
        &self,
        action: &str,
        resource: &str,
        context: &Context,
    ) -> Result<(), Denial> {
        let verdicts = self.verdicts(action, resource, context);
        let has = |verdict| verdicts.iter().find(|(_, it)| *it == verdict);
        if let Some((layer, _)) = has(Verdict::Forbidden) {
            return Err(Denial::Explicit(*layer));
        }
        match has(Verdict::NotAllowed) {
            Some((layer, _)) => Err(Denial::Missing(*layer)),
            None => Ok(()),
        }
    }

    /// What each of them says.
    pub(crate) fn verdicts(
        &self,
        action: &str,
        resource: &str,
        context: &Context,
    ) -> Vec<(Layer, Verdict)> {
        let mut verdicts = Vec::new();
        if !self.service_control.is_empty() {
            let verdict = evaluate(self.service_control, action, resource, context);
            verdicts.push((Layer::ServiceControl, verdict));
        }
        let verdict = evaluate(self.identity, action, resource, context);
        verdicts.push((Layer::Identity, verdict));
        for (layer, policy) in [
            (Layer::Boundary, self.boundary),
            (Layer::Session, self.session),
        ] {
            if let Some(policy) = policy {
                verdicts.push((layer, evaluate([policy], action, resource, context)));
            }
        }
        verdicts
    }
}

/// Evaluates policies of one kind for one action on one resource.
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

/// Names of the policies of one kind that have a statement which decides: those that deny, else those that allow. A policy
/// without an id is called after its place.
pub(crate) fn deciding(
    policies: &[IdentityPolicy],
    action: &str,
    resource: &str,
    context: &Context,
) -> Vec<String> {
    let of = |wanted: Verdict| {
        let names = (1..).zip(policies).filter_map(|(place, policy)| {
            let decides = evaluate([policy], action, resource, context) == wanted;
            let name = || {
                policy
                    .id
                    .clone()
                    .unwrap_or_else(|| format!("policy-{place}"))
            };
            decides.then(name)
        });
        names.collect::<Vec<String>>()
    };
    let denying = of(Verdict::Forbidden);
    if denying.is_empty() {
        of(Verdict::Allowed)
    } else {
        denying
    }
}

impl IdentityPolicy {
    /// Whether a condition has a part in it.
    pub(crate) fn is_conditional(&self) -> bool {
        let mut statements = self.statement.as_slice().iter();
        statements.any(|statement| !statement.condition.is_empty())
    }

    /// The keys that its conditions and variables ask for.
    pub(crate) fn context_keys(&self) -> BTreeSet<String> {
        let mut keys = BTreeSet::new();
        for statement in self.statement.as_slice() {
            let conditions = statement.condition.values().flatten();
            let mut texts: Vec<&String> = statement.resource.as_slice().iter().collect();
            for (key, values) in conditions {
                keys.insert(key.clone());
                texts.extend(values.as_slice());
            }
            for text in texts {
                let variables = text.split("${").skip(1);
                let variables = variables.filter_map(|rest| rest.split_once('}'));
                let variables = variables.map(|(key, _)| key);
                keys.extend(
                    variables
                        .filter(|key| !["*", "?", "$"].contains(key))
                        .map(str::to_owned),
                );
            }
        }
        keys
    }
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
    fn every_layer_has_to_allow_and_a_deny_in_any_wins() {
        let (all, none) = (IdentityPolicy::allow(["*"], ["*"]), Context::default());
        let deny = IdentityPolicy::deny(["rds:*"], ["*"]);
        let other = IdentityPolicy::allow(["s3:*"], ["*"]);
        let decide = |identity: &[IdentityPolicy], boundary, service_control: &[IdentityPolicy]| {
            let layers = Layers {
                identity,
                boundary,
                service_control,
                session: None,
            };
            layers.decide("rds:X", ARN, &none)
        };
        let allow = std::slice::from_ref(&all);
        assert_eq!(decide(allow, Some(&all), &[]), Ok(()));
        assert_eq!(
            decide(&[], None, &[]),
            Err(Denial::Missing(Layer::Identity))
        );
        assert_eq!(
            decide(allow, Some(&other), &[]),
            Err(Denial::Missing(Layer::Boundary))
        );
        assert_eq!(
            decide(allow, Some(&deny), &[]),
            Err(Denial::Explicit(Layer::Boundary))
        );
        let missing = Err(Denial::Missing(Layer::ServiceControl));
        assert_eq!(decide(&[], None, std::slice::from_ref(&other)), missing);
        let forbidden = Err(Denial::Explicit(Layer::ServiceControl));
        assert_eq!(
            decide(&[], Some(&other), &[all.clone(), deny.clone()]),
            forbidden
        );
        let words = Denial::Explicit(Layer::Boundary).because("rds:X");
        assert_eq!(words, " with an explicit deny in a permissions boundary");
        let words = Denial::Missing(Layer::Identity).because("rds:X");
        assert_eq!(
            words,
            " because no identity-based policy allows the rds:X action"
        );
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
