//! What a simulation of the caller's policies says of a refusal: which of them refuse, and what they lack.

use super::{
    super::{Edit, PolicyChange, PolicyKind, Step, denied},
    Evidence, unseen,
};
use crate::{
    error::AwsFailure,
    iam::{Decision, Simulated},
};

/// What the caller's side says.
pub(super) enum Side {
    Fine,
    /// Changes that it needs, and what they are for.
    Lacks(Vec<(PolicyChange, String)>),
    Unknown,
}

pub(super) fn side(
    failure: &AwsFailure,
    step: &Step,
    evidence: &Evidence,
    told: &mut Vec<String>,
) -> Side {
    let Some(results) = evidence.caller.seen() else {
        told.extend(unseen(
            &evidence.caller,
            "iam:SimulatePrincipalPolicy",
            "the caller",
        ));
        return Side::Unknown;
    };
    if let Some(boundary) = &evidence.boundary {
        told.push(format!(
            "the permissions boundary of {} is {boundary}",
            evidence.source
        ));
    }
    told.extend(results.iter().map(|one| line(one, &evidence.source)));
    let mut lacking: Vec<(PolicyChange, String)> = Vec::new();
    let mut is_unclear = results.is_empty();
    for one in results {
        let Some((policy, denies)) = refusing(one) else {
            is_unclear |= one.decision != Decision::Allowed;
            continue;
        };
        if lacking.iter().any(|(change, _)| change.policy == policy) {
            continue;
        }
        lacking.extend(changes_of(policy, denies, one, failure, step, evidence));
    }
    match (lacking.is_empty(), is_unclear) {
        (false, _) => Side::Lacks(lacking),
        (true, true) => Side::Unknown,
        (true, false) => Side::Fine,
    }
}

/// The kind of policy that refuses, and whether by a statement; `None` where nothing does or it cannot be said.
fn refusing(one: &Simulated) -> Option<(PolicyKind, bool)> {
    let denies = one.decision == Decision::ExplicitDeny;
    if one.decision == Decision::Allowed {
        None
    } else if one.by_organization == Some(false) {
        Some((PolicyKind::ServiceControl, denies))
    } else if one.by_boundary == Some(false) {
        Some((PolicyKind::Boundary, denies))
    } else if denies {
        Some((PolicyKind::Identity, true))
    } else {
        // With keys that IAM was not given its policies may say otherwise in earnest.
        one.missing_keys
            .is_empty()
            .then_some((PolicyKind::Identity, false))
    }
}

fn changes_of(
    policy: PolicyKind,
    denies: bool,
    one: &Simulated,
    failure: &AwsFailure,
    step: &Step,
    evidence: &Evidence,
) -> Vec<(PolicyChange, String)> {
    let (action, source) = (&one.action, &evidence.source);
    let of = match (policy, &evidence.boundary) {
        (PolicyKind::ServiceControl, _) => denied::owner(policy, failure, step),
        (PolicyKind::Boundary, Some(boundary)) => format!("{source} ({boundary})"),
        _ => source.clone(),
    };
    if denies {
        let named = one.matched.iter().find(|name| !name.is_empty());
        let edit = Edit::StopDenying {
            action: action.clone(),
            policy_arn: named.cloned(),
        };
        let remedy = format!("let {action} through, which a statement denies");
        return vec![(PolicyChange { policy, of, edit }, remedy)];
    }
    let remedy = match policy {
        PolicyKind::Boundary => format!(
            "let {action} through the permissions boundary, which has to allow it beside the permissions policy"
        ),
        PolicyKind::ServiceControl => {
            format!(
                "let {action} through the service control policies, one of which has to allow it at each level"
            )
        }
        _ => format!("allow {source} {action}"),
    };
    let additions = denied::additions(policy, failure, step).into_iter();
    // AWS's simulation tells which of several statements is missing.
    let additions = additions.filter(|change| match &change.edit {
        Edit::Add(statement) => statement.actions().contains(action),
        Edit::StopDenying { .. } => false,
    });
    additions
        .map(|change| PolicyChange {
            of: of.clone(),
            ..change
        })
        .map(|change| (change, remedy.clone()))
        .collect()
}

fn line(one: &Simulated, source: &str) -> String {
    let mut line = format!(
        "iam:SimulatePrincipalPolicy says of {source}: {} on {} is {}",
        one.action,
        one.resource,
        match one.decision {
            Decision::Allowed => "allowed",
            Decision::ExplicitDeny => "denied by a statement (explicitDeny)",
            Decision::ImplicitDeny => "not allowed (implicitDeny)",
        }
    );
    let mut add = |text: &str| {
        line.push_str("; ");
        line.push_str(text);
    };
    if one.by_organization == Some(false) {
        add("the organization's service control policies do not let it through");
    }
    if one.by_boundary == Some(false) {
        add("the permissions boundary does not let it through");
    }
    let named: Vec<&str> = one.matched.iter().map(String::as_str).collect();
    match (one.decision, named.is_empty()) {
        (Decision::Allowed, _) => {}
        // IAM looks no further then.
        (_, true) if one.by_organization == Some(false) => {}
        (_, true) => add("no statement matched"),
        (_, false) => add(&format!("statements matched in {}", named.join(", "))),
    }
    if !one.missing_keys.is_empty() && one.decision != Decision::Allowed {
        add(&format!(
            "policies ask for keys that only a real call has: {}",
            one.missing_keys.join(", ")
        ));
    }
    line
}
