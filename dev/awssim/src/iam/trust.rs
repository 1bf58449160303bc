//! Trust policies: who may assume a role.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::policy::{Effect, OneOrMany, action_matches, conditions_hold};
use super::{ConditionOperator, Conditions, Context};

/// Who a trust statement speaks of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Principal {
    /// `"*"`: everybody.
    Text(String),
    /// By kind of principal.
    Kinds(PrincipalKinds),
}

/// The `{"AWS": …}` form of a principal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrincipalKinds {
    /// Accounts, users, roles and sessions, or `*`.
    #[serde(rename = "AWS", default, skip_serializing_if = "Option::is_none")]
    pub aws: Option<OneOrMany<String>>,
    /// AWS services that hand out the role's sessions: `ec2.amazonaws.com` and the like.
    #[serde(rename = "Service", default, skip_serializing_if = "Option::is_none")]
    pub service: Option<OneOrMany<String>>,
    /// OIDC providers by ARN.
    #[serde(rename = "Federated", default, skip_serializing_if = "Option::is_none")]
    pub federated: Option<OneOrMany<String>>,
}

/// One statement of a trust policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
pub struct TrustStatement {
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
    /// Grants or forbids.
    pub effect: Effect,
    /// Who.
    pub principal: Principal,
    /// `sts:AssumeRole`, `sts:AssumeRoleWithWebIdentity`, `sts:SetSourceIdentity`, `sts:TagSession`.
    pub action: OneOrMany<String>,
    /// All of them must hold; here the external id is asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub condition: Conditions,
}

/// A role's trust policy document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
pub struct TrustPolicy {
    /// `2012-10-17`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The statements.
    pub statement: OneOrMany<TrustStatement>,
}

impl TrustPolicy {
    /// Lets these principals (ARNs, account ids or `*`) assume the role, name a source identity
    /// and pass session tags.
    pub fn allow<'a>(principals: impl IntoIterator<Item = &'a str>) -> Self {
        let actions = ["sts:AssumeRole", "sts:SetSourceIdentity", "sts:TagSession"];
        Self::allow_actions(principals, actions)
    }

    /// As [`TrustPolicy::allow`], with the actions named.
    pub fn allow_actions<'a, 'b>(
        principals: impl IntoIterator<Item = &'a str>,
        actions: impl IntoIterator<Item = &'b str>,
    ) -> Self {
        let principal = PrincipalKinds {
            aws: Some(principals.into()),
            ..PrincipalKinds::default()
        };
        Self::allow_principal(principal, actions.into(), BTreeMap::new())
    }

    /// Lets an AWS service hand out the role's sessions, with tags: `ec2.amazonaws.com`.
    pub fn allow_service(service: &str) -> Self {
        let principal = PrincipalKinds {
            service: Some([service].into()),
            ..PrincipalKinds::default()
        };
        let actions = ["sts:AssumeRole", "sts:TagSession"];
        Self::allow_principal(principal, actions.into(), BTreeMap::new())
    }

    /// Lets holders of an OIDC provider's tokens about `subject` assume the role.
    pub fn allow_web_identity(account: &str, issuer: &str, subject: &str) -> Self {
        let principal = PrincipalKinds {
            federated: Some(OneOrMany::One(format!(
                "arn:aws:iam::{account}:oidc-provider/{issuer}"
            ))),
            ..PrincipalKinds::default()
        };
        let subject = OneOrMany::One(subject.to_owned());
        let keys = BTreeMap::from([(format!("{issuer}:sub"), subject)]);
        let condition = BTreeMap::from([(ConditionOperator::StringEquals, keys)]);
        let actions = ["sts:AssumeRoleWithWebIdentity"];
        Self::allow_principal(principal, actions.into(), condition)
    }

    fn allow_principal(
        principal: PrincipalKinds,
        action: OneOrMany<String>,
        condition: Conditions,
    ) -> Self {
        let statement = TrustStatement {
            sid: None,
            effect: Effect::Allow,
            principal: Principal::Kinds(principal),
            action,
            condition,
        };
        Self {
            version: Some("2012-10-17".to_owned()),
            statement: OneOrMany::Many(vec![statement]),
        }
    }

    /// Asks every caller for this external id.
    #[must_use]
    pub fn with_external_id(mut self, external_id: &str) -> Self {
        let mut statements = self.statement.as_slice().to_vec();
        for statement in &mut statements {
            let keys = statement
                .condition
                .entry(ConditionOperator::StringEquals)
                .or_default();
            let wanted = OneOrMany::One(external_id.to_owned());
            keys.insert("sts:ExternalId".to_owned(), wanted);
        }
        self.statement = OneOrMany::Many(statements);
        self
    }
}

/// A caller as trust policies name it.
#[derive(Clone, Debug)]
pub(crate) struct TrustedCaller {
    pub(crate) account: String,
    /// ARN of the user, or of the session.
    pub(crate) arn: String,
    /// ARN of the role, if the caller is a session of one.
    pub(crate) role_arn: Option<String>,
}

/// How far a trust policy goes towards a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trusted {
    /// No statement allows it.
    No,
    /// The caller's account is trusted; its own policies decide within it.
    Account,
    /// The caller itself is named: in the role's own account nothing more is needed.
    Directly,
    /// A statement forbids it.
    Forbidden,
}

/// Who asks for a session of a role.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asker<'a> {
    Caller(&'a TrustedCaller),
    /// An OIDC provider's ARN.
    Federated(&'a str),
    /// An AWS service.
    Service(&'a str),
}

/// Evaluates a trust policy for one asker and action.
pub(crate) fn evaluate_trust(
    policy: &TrustPolicy,
    asker: Asker<'_>,
    action: &str,
    context: &Context,
) -> Trusted {
    let mut best = Trusted::No;
    for statement in policy.statement.as_slice() {
        let named = names(&statement.principal, asker);
        if named == Trusted::No
            || !action_matches(&statement.action, action)
            || !conditions_hold(&statement.condition, context)
        {
            continue;
        }
        match statement.effect {
            Effect::Deny => return Trusted::Forbidden,
            Effect::Allow => best = best.max(named),
        }
    }
    best
}

fn names(principal: &Principal, asker: Asker<'_>) -> Trusted {
    let listed = |one: &Option<OneOrMany<String>>| {
        one.as_ref().map_or(Vec::new(), |it| it.as_slice().to_vec())
    };
    let exactly = |one: &Option<OneOrMany<String>>, wanted: &str| match listed(one)
        .iter()
        .any(|it| it == wanted)
    {
        true => Trusted::Directly,
        false => Trusted::No,
    };
    match (principal, asker) {
        (Principal::Text(text), Asker::Caller(caller)) => names_one(text, caller),
        (Principal::Text(text), _) if text == "*" => Trusted::Directly,
        (Principal::Text(_), _) => Trusted::No,
        (Principal::Kinds(kinds), Asker::Caller(caller)) => {
            let named = listed(&kinds.aws);
            let named = named.iter().map(|one| names_one(one, caller));
            named.max().unwrap_or(Trusted::No)
        }
        (Principal::Kinds(kinds), Asker::Federated(arn)) => exactly(&kinds.federated, arn),
        (Principal::Kinds(kinds), Asker::Service(name)) => exactly(&kinds.service, name),
    }
}

fn names_one(principal: &str, caller: &TrustedCaller) -> Trusted {
    let partition = caller.arn.split(':').nth(1).unwrap_or("aws");
    let root = format!("arn:{partition}:iam::{}:root", caller.account);
    if principal == "*" || principal == caller.arn || Some(principal) == caller.role_arn.as_deref()
    {
        Trusted::Directly
    } else if principal == root || principal == caller.account {
        Trusted::Account
    } else {
        Trusted::No
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> TrustedCaller {
        TrustedCaller {
            account: "111111111111".to_owned(),
            arn: "arn:aws:sts::111111111111:assumed-role/agent/i-1".to_owned(),
            role_arn: Some("arn:aws:iam::111111111111:role/agent".to_owned()),
        }
    }

    fn trusts(policy: &TrustPolicy, context: &Context) -> Trusted {
        evaluate_trust(policy, Asker::Caller(&session()), "sts:AssumeRole", context)
    }

    #[test]
    fn a_session_is_named_by_itself_its_role_its_account_or_all() {
        let none = Context::default();
        for direct in [
            session().arn.as_str(),
            "arn:aws:iam::111111111111:role/agent",
            "*",
        ] {
            assert_eq!(
                trusts(&TrustPolicy::allow([direct]), &none),
                Trusted::Directly
            );
        }
        for account in ["111111111111", "arn:aws:iam::111111111111:root"] {
            assert_eq!(
                trusts(&TrustPolicy::allow([account]), &none),
                Trusted::Account
            );
        }
        for other in ["222222222222", "arn:aws:iam::111111111111:role/other"] {
            assert_eq!(trusts(&TrustPolicy::allow([other]), &none), Trusted::No);
        }
    }

    #[test]
    fn a_missing_external_id_is_as_bad_as_a_wrong_one() {
        let policy = TrustPolicy::allow(["111111111111"]).with_external_id("x-1");
        let mut context = Context::default();
        assert_eq!(trusts(&policy, &context), Trusted::No);
        context.set("sts:ExternalId", "x-2");
        assert_eq!(trusts(&policy, &context), Trusted::No);
        context.set("sts:ExternalId", "x-1");
        assert_eq!(trusts(&policy, &context), Trusted::Account);
    }
}
