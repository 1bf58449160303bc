//! What a look into policies adds to a refusal: which of those that may have refused did.
//!
//! AWS often leaves that open. An [`Inquiry`] says what is worth asking IAM then, with the credentials that this process has
//! itself and so about its own account only; [`narrow`] reads the answers, and takes off the list what they clear. What
//! was not seen stays on it.
//!
//! IAM simulates policies of users and roles, boundaries and service control policies. Policies of sessions, of VPC
//! endpoints, resource control policies, and service control policies with conditions it leaves out; neither does it
//! look at trust policies, which is why those are read.
//!
//! Pure. Not here: asking (`dbservice/src/doctor`; sessions never do).
//!
//! Source: IAM API reference, `SimulatePrincipalPolicy`, `EvaluationResult`; IAM user guide, "Testing IAM policies with
//! the IAM policy simulator", "Policy evaluation logic".

use tidegate_core::{ExternalId, RoleArn};

use super::{
    Actor, Blame, Call, Diagnosis, Edit, Identity, PolicyChange, PolicyKind, Step,
    blame::principal,
    denied,
    trust::{Answer, Asker, Named, TrustPolicy, place},
};
use crate::{
    error::{AwsErrorClass, AwsFailure},
    iam::{Decision, IamQuestion, IamRefusal, Simulated},
};

/// Most statements of which the actions are simulated.
const STATEMENTS_MAX: usize = 4;
/// Most principals of a trust policy that are told.
const PRINCIPALS_MAX: usize = 6;

/// A user or role whose policies are looked into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// It is in the account that can be asked.
    Here {
        /// Its ARN; without its path where [`Self::Here::role_of_session`] says so.
        arn: String,
        /// The name of the role when only a session of it is known, which does not tell the path.
        role_of_session: Option<String>,
    },
    /// It is in this account, which cannot be asked.
    Elsewhere(String),
}

/// What is worth asking about a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inquiry {
    /// The partition of both accounts.
    pub partition: String,
    /// Whose policies may have refused; `None` when AWS says that they have not.
    pub caller: Option<Subject>,
    /// The role whose trust policy may have refused, and its name where it can be asked for.
    pub role: Option<(RoleArn, Subject)>,
    statements: Vec<(Vec<String>, Vec<String>)>,
    external_id: Option<ExternalId>,
}

impl Inquiry {
    /// What is worth asking, `own` being the ARN of this process's own identity; `None` when AWS has told all.
    #[must_use]
    pub fn of(failure: &AwsFailure, step: &Step, own: &str) -> Option<Self> {
        let (partition, account) = place(own)?;
        let blame = failure.blame();
        if failure.class != AwsErrorClass::AccessDenied {
            return None;
        }
        let whose = |arn: &str| match place(arn) {
            Some((_, there)) if there != account => Subject::Elsewhere(there.to_owned()),
            _ => Subject::Here {
                arn: principal(arn),
                role_of_session: role_of_session(arn),
            },
        };
        let caller = match &step.caller {
            Identity::Own => own,
            Identity::Role(role) => role.as_str(),
        };
        let caller = (blame == Blame::Unsaid).then(|| whose(caller));
        let (role, external_id) = match &step.call {
            Call::AssumeRole { role, .. } => (
                matches!(blame, Blame::Unsaid | Blame::Missing(PolicyKind::Trust))
                    .then(|| (role.role_arn.clone(), whose(role.role_arn.as_str()))),
                role.external_id.clone(),
            ),
            Call::Mint(_) => (None, None),
        };
        if caller.is_none() && role.is_none() {
            return None;
        }
        let needs = denied::additions(PolicyKind::Identity, failure, step);
        let statements = needs.into_iter().take(STATEMENTS_MAX);
        let statements = statements.filter_map(|need| match need.edit {
            Edit::Add(statement) => {
                Some((statement.actions().to_vec(), statement.resources().to_vec()))
            }
            Edit::StopDenying { .. } => None,
        });
        Some(Self {
            partition: partition.to_owned(),
            caller,
            role,
            statements: statements.collect(),
            external_id,
        })
    }

    /// The questions about what the policies of `source` allow, an ARN with its path.
    #[must_use]
    pub fn simulations(&self, source: &str) -> Vec<IamQuestion> {
        let ask = |(actions, resources): &(Vec<String>, Vec<String>)| IamQuestion::Simulate {
            source: source.to_owned(),
            actions: actions.clone(),
            resources: resources.clone(),
            external_id: self.external_id.clone(),
        };
        self.statements.iter().map(ask).collect()
    }
}

/// The role behind the ARN of a session.
fn role_of_session(arn: &str) -> Option<String> {
    let (_, session) = arn.split_once(":assumed-role/")?;
    session.split_once('/').map(|(role, _)| role.to_owned())
}

/// What came of a look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Look<T> {
    /// Nobody looked: AWS has told already.
    #[default]
    NotNeeded,
    /// It is in this account, and credentials of another are at hand.
    Elsewhere(String),
    /// IAM did not tell.
    Refused(IamRefusal),
    /// IAM did not answer.
    Unanswered(String),
    /// This is what it says.
    Seen(T),
}

impl<T> Look<T> {
    const fn seen(&self) -> Option<&T> {
        match self {
            Self::Seen(seen) => Some(seen),
            _ => None,
        }
    }
}

/// A role that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleSeen {
    /// With its path.
    pub arn: String,
    /// `None` where it has not the form of one.
    pub trust: Option<TrustPolicy>,
}

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Whose policies were simulated, with path.
    pub source: String,
    /// What they say.
    pub caller: Look<Vec<Simulated>>,
    /// ARN of the caller's permissions boundary, where it was seen.
    pub boundary: Option<String>,
    /// The role that was to be assumed.
    pub role: Look<RoleSeen>,
}

/// What the caller's side says.
enum Side {
    Fine,
    /// Changes that it needs, and what they are for.
    Lacks(Vec<(PolicyChange, String)>),
    Unknown,
}

/// What the role's side says.
enum RoleSide {
    Fine(Named),
    Lacks {
        change: Option<PolicyChange>,
        who: Actor,
        remedy: String,
        /// How far the caller is named once that is done.
        then: Named,
    },
    Unknown,
}

/// What a refusal means with what was seen, and what was seen, one fact a line. `own` is the ARN of this process's own
/// identity.
#[must_use]
pub fn narrow(
    diagnosis: Diagnosis,
    failure: &AwsFailure,
    step: &Step,
    own: &str,
    evidence: &Evidence,
) -> (Diagnosis, Vec<String>) {
    let asker = match &step.caller {
        Identity::Own => own,
        Identity::Role(role) => role.as_str(),
    };
    let mut told = Vec::new();
    let caller = caller_side(failure, step, evidence, &mut told);
    let role = role_side(failure, step, asker, &evidence.role, &mut told);
    (with(diagnosis, failure, step, asker, caller, role), told)
}

/// What both sides come to.
fn with(
    mut diagnosis: Diagnosis,
    failure: &AwsFailure,
    step: &Step,
    asker: &str,
    mut caller: Side,
    role: RoleSide,
) -> Diagnosis {
    let named = match &role {
        RoleSide::Fine(named) | RoleSide::Lacks { then: named, .. } => Some(*named),
        RoleSide::Unknown => None,
    };
    if named == Some(Named::Directly)
        && is_of_one_account(step, asker)
        && let Side::Lacks(changes) = &mut caller
    {
        // Who is named in a trust policy of its own account needs no policy of its own.
        changes.retain(|(change, _)| {
            change.policy != PolicyKind::Identity || matches!(change.edit, Edit::StopDenying { .. })
        });
        if changes.is_empty() {
            caller = Side::Fine;
        }
    }
    let (mut changes, mut remedies, mut who) = (Vec::new(), Vec::new(), None);
    if let Side::Lacks(lacking) = &caller {
        for (change, remedy) in lacking {
            who.get_or_insert(denied::actor(change.policy));
            changes.push(change.clone());
            remedies.push(remedy.clone());
        }
    }
    if let RoleSide::Lacks {
        change,
        who: actor,
        remedy,
        ..
    } = &role
    {
        who.get_or_insert(*actor);
        changes.extend(change.clone());
        remedies.push(remedy.clone());
    }
    if let Some(who) = who {
        (diagnosis.who, diagnosis.any_of, diagnosis.changes) = (who, false, changes);
        diagnosis.remedy = remedies.join("; and ");
        return diagnosis;
    }
    let only = match (&caller, &role) {
        (Side::Fine, RoleSide::Fine(_)) => {
            diagnosis.changes.clear();
            diagnosis.any_of = false;
            diagnosis.remedy = HIDDEN.to_owned();
            return diagnosis;
        }
        (Side::Fine, _) => PolicyKind::Trust,
        (_, RoleSide::Fine(_)) if diagnosis.changes.len() > 1 => PolicyKind::Identity,
        _ => return diagnosis,
    };
    diagnosis.changes.retain(|change| change.policy == only);
    diagnosis.any_of = false;
    diagnosis.remedy = denied::remedy(failure, step, &Blame::Missing(only));
    if only == PolicyKind::Trust {
        diagnosis
            .remedy
            .push_str("; AWS says the same of a role that does not exist");
    }
    diagnosis
}

/// What to do when nothing that can be seen refuses.
const HIDDEN: &str = "look where IAM shows nothing, since the policies that it shows allow the call: a session policy, the \
                      policy of a VPC endpoint, a resource control policy, a service control policy with conditions; or \
                      wait a minute where a policy was changed just now";

fn is_of_one_account(step: &Step, asker: &str) -> bool {
    match &step.call {
        Call::AssumeRole { role, .. } => place(role.role_arn.as_str()) == place(asker),
        Call::Mint(_) => false,
    }
}

fn caller_side(
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

/// Why nothing was seen; nothing where nobody looked.
fn unseen<T>(look: &Look<T>, action: &str, whose: &str) -> Option<String> {
    match look {
        Look::NotNeeded | Look::Seen(_) => None,
        Look::Elsewhere(account) => Some(format!(
            "{action} was not asked: {whose} is in account {account}, and the agent's own identity is not"
        )),
        Look::Refused(IamRefusal::Denied { code }) => Some(format!(
            "{action} was refused ({code}): not permitted to look. With it and iam:GetRole the doctor can tell more"
        )),
        Look::Refused(refusal) => Some(format!("{action} told nothing: {refusal}")),
        Look::Unanswered(why) => Some(format!("{action} did not answer: {why}")),
    }
}

fn role_side(
    failure: &AwsFailure,
    step: &Step,
    asker: &str,
    look: &Look<RoleSeen>,
    told: &mut Vec<String>,
) -> RoleSide {
    let Call::AssumeRole { role, .. } = &step.call else {
        return RoleSide::Fine(Named::No);
    };
    let arn = &role.role_arn;
    if *look == Look::Refused(IamRefusal::Absent) {
        told.push(format!("iam:GetRole finds no role of the name of {arn}"));
        return RoleSide::Lacks {
            change: None,
            who: Actor::Operator,
            remedy: format!("name a role that exists, or have {arn} created"),
            then: Named::No,
        };
    }
    let Some(seen) = look.seen() else {
        told.extend(unseen(look, "iam:GetRole", "the role"));
        // Where AWS blames what the caller has, nobody asked for the role, and it is not at fault.
        return RoleSide::Unknown;
    };
    if seen.arn != arn.as_str() {
        told.push(format!(
            "iam:GetRole: the role of that name is {}",
            seen.arn
        ));
        return RoleSide::Lacks {
            change: None,
            who: Actor::Operator,
            remedy: format!("name the role with its path, as {}", seen.arn),
            then: Named::No,
        };
    }
    let Some(trust) = &seen.trust else {
        told.push(format!(
            "iam:GetRole: the trust policy of {arn} cannot be read"
        ));
        return RoleSide::Unknown;
    };
    judge(trust, failure, step, asker, told)
}

fn judge(
    trust: &TrustPolicy,
    failure: &AwsFailure,
    step: &Step,
    caller: &str,
    told: &mut Vec<String>,
) -> RoleSide {
    let Call::AssumeRole { role, .. } = &step.call else {
        return RoleSide::Unknown;
    };
    let asker = Asker {
        arn: caller,
        external_id: role.external_id.as_ref(),
    };
    let arn = &role.role_arn;
    let named = trust.names(asker);
    let answers = step.role_actions().into_iter();
    let mut answers = answers.map(|action| (action, trust.answer(asker, action)));
    let gap = answers.find(|(_, answer)| !matches!(answer, Answer::Allows(_)));
    let mut tell =
        |says: String| told.push(format!("the trust policy of {arn} (iam:GetRole) {says}"));
    let trusted = principal(caller);
    let lacks = |change, remedy, then| RoleSide::Lacks {
        change,
        who: Actor::AwsAdministrator,
        remedy,
        then,
    };
    let addition = || {
        denied::additions(PolicyKind::Trust, failure, step)
            .into_iter()
            .next()
    };
    match gap {
        None => {
            tell(format!("lets {trusted} assume it"));
            RoleSide::Fine(named)
        }
        Some((_, Answer::NotTheCaller)) => {
            tell(format!("does not name {trusted}: {}", whom(trust)));
            let remedy = format!("let the trust policy of {arn} name {trusted}");
            lacks(addition(), remedy, Named::Directly)
        }
        Some((action, Answer::NotTheAction)) => {
            tell(format!("names {trusted}, and not for {action}"));
            lacks(addition(), setting(action, arn), named)
        }
        Some((_, Answer::ExternalId)) => {
            let (sent, now) = match &role.external_id {
                Some(_) => ("which is not the one that was sent", "another is sent now"),
                None => ("and none was sent", "none is sent now"),
            };
            tell(format!(
                "names {trusted}, and asks for an external id, {sent}"
            ));
            RoleSide::Lacks {
                change: None,
                who: Actor::Operator,
                remedy: format!(
                    "write the external id that the trust policy of {arn} asks for into the configuration, as `external_id` \
                     beside the role; {now}"
                ),
                then: named,
            }
        }
        Some((action, Answer::Denies)) => {
            tell(format!("denies {trusted} {action}"));
            let change = PolicyChange {
                policy: PolicyKind::Trust,
                of: arn.to_string(),
                edit: Edit::StopDenying {
                    action: action.to_owned(),
                    policy_arn: None,
                },
            };
            lacks(Some(change), format!("let {arn} be assumed"), named)
        }
        Some((_, Answer::Unclear(what))) => {
            tell(format!(
                "names {trusted} under conditions that are not judged here: {what}"
            ));
            RoleSide::Unknown
        }
        Some((_, Answer::Allows(_))) => RoleSide::Fine(named),
    }
}

/// What an action besides `sts:AssumeRole` is wanted for.
fn setting(action: &str, role: &RoleArn) -> String {
    denied::session_remedy(action, role)
        .unwrap_or_else(|| format!("let the trust policy of {role} allow {action}"))
}

fn whom(trust: &TrustPolicy) -> String {
    let principals = trust.principals();
    let mut told = match principals.len() {
        0 => "it names no AWS identity".to_owned(),
        count => {
            let shown = principals[..count.min(PRINCIPALS_MAX)].join(", ");
            match count.saturating_sub(PRINCIPALS_MAX) {
                0 => format!("it names {shown}"),
                more => format!("it names {shown} and {more} more"),
            }
        }
    };
    if !trust.deleted().is_empty() {
        told.push_str(
            "; an id instead of an ARN is of a user or role that was deleted, and of none that was made anew with its name",
        );
    }
    told
}

#[cfg(test)]
#[path = "evidence/tests.rs"]
mod tests;
