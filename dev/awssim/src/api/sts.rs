//! STS: who am I, and becoming a role.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::error::ApiError;
use super::form::Form;
use super::service::{STS, Service};
use super::xml::Xml;
use super::{Answer, Call, deny};
use crate::clock::{after, iso};
use crate::iam::{Asker, Context, Denial, IdentityPolicy, Layer, Trusted, evaluate_trust};
use crate::sessions::{Caller, Session, SessionSpec};
use crate::state::State;
use crate::world::Role;

/// The longest session of a role that a session assumed, in seconds.
pub(super) const CHAINED_SECONDS_MAX: u32 = 3_600;
/// Longest session policy, in characters.
const POLICY_CHARS_MAX: usize = 2_048;
/// Most session tags.
const TAGS_MAX: usize = 50;

/// Whether an operation answers in JSON when it is asked to. AWS does so for all of the service; others than these are
/// asked by SDKs alone, which read XML.
pub(super) fn speaks_json(service: &Service, action: &str) -> bool {
    service.name == STS.name && action == "GetCallerIdentity"
}

pub(super) fn get_caller_identity(call: &Call<'_>) -> Answer {
    let caller = call.caller;
    if call.wants_json {
        return serde_json::json!({
            "Arn": caller.arn(),
            "UserId": caller.user_id(),
            "Account": caller.account(),
        })
        .into();
    }
    let mut xml = Xml::default();
    xml.leaf("Arn", caller.arn());
    xml.leaf("UserId", caller.user_id());
    xml.leaf("Account", caller.account());
    xml.into()
}

pub(super) fn assume_role(state: &State, call: &Call<'_>) -> Result<Xml, ApiError> {
    let asked = Asked::read(call.form)?;
    let spec = asked.spec(call.caller)?;
    let role = find_role(state, &asked.role_arn);
    authorize(state, call, &asked, &spec, role.as_ref())?;
    let role = role.ok_or_else(|| deny(call.caller, "sts:AssumeRole", &asked.role_arn, ""))?;
    if asked.seconds > role.max_session_duration {
        return Err(ApiError::validation(
            "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
        ));
    }
    if matches!(call.caller, Caller::Session(_)) && asked.seconds > CHAINED_SECONDS_MAX {
        return Err(ApiError::validation(
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by \
             role chaining",
        ));
    }
    let expires_at = after(state.clock.now(), asked.seconds);
    Ok(reply(&state.sessions.start(spec, expires_at)))
}

/// The credentials of a session.
pub(super) fn reply(session: &Arc<Session>) -> Xml {
    let mut xml = Xml::default();
    xml.node("Credentials", |xml| {
        xml.leaf("AccessKeyId", &session.access_key);
        xml.leaf("SecretAccessKey", session.secret.expose());
        xml.leaf("SessionToken", session.token.expose());
        xml.leaf("Expiration", iso(session.expires_at));
    });
    xml.node("AssumedRoleUser", |xml| {
        xml.leaf("AssumedRoleId", session.user_id());
        xml.leaf("Arn", session.arn());
    });
    xml.maybe("SourceIdentity", session.spec.source_identity.as_deref());
    xml
}

/// AssumeRole's parameters, each within its constraints.
struct Asked {
    role_arn: String,
    account: String,
    role: String,
    session_name: String,
    seconds: u32,
    external_id: Option<String>,
    source_identity: Option<String>,
    tags: BTreeMap<String, String>,
    transitive: BTreeSet<String>,
    policy: Option<IdentityPolicy>,
}

impl Asked {
    fn read(form: &Form) -> Result<Self, ApiError> {
        for parameter in ["SerialNumber", "TokenCode"] {
            if form.get(parameter).is_some() {
                return Err(ApiError::not_simulated(parameter));
            }
        }
        for list in ["PolicyArns", "ProvidedContexts"] {
            if !form.list(list).is_empty() || form.get(&format!("{list}.member.1.arn")).is_some() {
                return Err(ApiError::not_simulated(list));
            }
        }
        let role_arn = form.required("RoleArn")?;
        let (account, role) = parse_role_arn(role_arn)
            .ok_or_else(|| ApiError::validation(format!("{role_arn} is invalid")))?;
        let session_name = form.required("RoleSessionName")?;
        check_text("roleSessionName", session_name, 2..=64, "+=,.@-")?;
        let external_id = form.get("ExternalId");
        if let Some(text) = external_id {
            check_text("externalId", text, 2..=1224, "+=,.@:/-")?;
        }
        let source_identity = form.get("SourceIdentity");
        if let Some(text) = source_identity {
            check_text("sourceIdentity", text, 2..=64, "+=,.@-")?;
        }
        let tags = form.pairs("Tags.");
        if tags.len() > TAGS_MAX {
            return Err(ApiError::constraint(
                "tags",
                "tags",
                "Member must have length <= 50",
            ));
        }
        for key in form.list("TransitiveTagKeys") {
            if !tags.contains_key(&key) {
                let message =
                    "The specified transitive tag key must be included in the requested tags.";
                return Err(ApiError::invalid_parameter(message));
            }
        }
        Ok(Self {
            role_arn: role_arn.to_owned(),
            account,
            role,
            session_name: session_name.to_owned(),
            seconds: form.number("DurationSeconds", 900..=43_200, CHAINED_SECONDS_MAX)?,
            external_id: external_id.map(str::to_owned),
            source_identity: source_identity.map(str::to_owned),
            tags,
            transitive: form.list("TransitiveTagKeys").into_iter().collect(),
            policy: form.get("Policy").map(parse_policy).transpose()?,
        })
    }

    /// The session to make; a source identity and transitive tags that were set earlier in the chain stay.
    fn spec(&self, caller: &Caller) -> Result<SessionSpec, ApiError> {
        let inherited = match caller {
            Caller::User { .. } => None,
            Caller::Session(session) => session.spec.source_identity.clone(),
        };
        let (mut tags, mut transitive) = (self.tags.clone(), self.transitive.clone());
        for (key, value) in caller.transitive_tags() {
            if tags.insert(key.clone(), value).is_some() {
                let message = "One of the specified transitive tag keys can't be set because it conflicts with a \
                    transitive tag key from the calling session.";
                return Err(ApiError::invalid_parameter(message));
            }
            transitive.insert(key);
        }
        Ok(SessionSpec {
            account: self.account.clone(),
            role: self.role.clone(),
            role_arn: self.role_arn.clone(),
            name: self.session_name.clone(),
            source_identity: inherited.or_else(|| self.source_identity.clone()),
            tags,
            transitive,
            policy: self.policy.clone(),
        })
    }

    fn context(&self, caller: &Caller, spec: &SessionSpec, region: &str) -> Context {
        let mut context = caller.context(region);
        context.set("sts:RoleSessionName", self.session_name.as_str());
        if let Some(external_id) = &self.external_id {
            context.set("sts:ExternalId", external_id.as_str());
        }
        if let Some(source) = &spec.source_identity {
            context.set("sts:SourceIdentity", source.as_str());
        }
        for (key, value) in &spec.tags {
            context.set(&format!("aws:RequestTag/{key}"), value.as_str());
        }
        context
    }
}

/// AssumeRole, and what a source identity and tags need on top, each asked of the role's trust
/// policy and of the caller's own policies. A role that does not exist is refused in the same
/// words as one that does not trust the caller.
fn authorize(
    state: &State,
    call: &Call<'_>,
    asked: &Asked,
    spec: &SessionSpec,
    role: Option<&Role>,
) -> Result<(), ApiError> {
    let context = asked.context(call.caller, spec, call.region);
    let changes_source =
        asked.source_identity.is_some() && asked.source_identity != spec.source_identity;
    let actions = [
        ("sts:AssumeRole", true),
        ("sts:SetSourceIdentity", spec.source_identity.is_some()),
        ("sts:TagSession", !spec.tags.is_empty()),
    ];
    for (action, _) in actions.into_iter().filter(|(_, needed)| *needed) {
        let arn = &asked.role_arn;
        let caller = call.caller.trusted();
        let trusted = role.map_or(Trusted::No, |role| {
            evaluate_trust(&role.trust, Asker::Caller(&caller), action, &context)
        });
        let decided = state.decide(call.caller, action, arn, &context);
        let same_account = caller.account == asked.account;
        let refused = match (trusted, decided) {
            (Trusted::Forbidden, _) => Some(Denial::Explicit(Layer::Resource)),
            (_, Err(Denial::Explicit(layer))) => Some(Denial::Explicit(layer)),
            (Trusted::Directly, Err(Denial::Missing(layer))) => {
                let alone = same_account && !call.caller.is_restricted();
                let counts = !alone || layer == Layer::ServiceControl;
                counts.then_some(Denial::Missing(layer))
            }
            (Trusted::No, Ok(())) => Some(Denial::Missing(Layer::Resource)),
            (_, decided) => decided.err(),
        };
        match refused {
            // AWS says nothing of what is lacking where two accounts have to allow it, on either side.
            Some(Denial::Missing(_)) if !same_account => {
                return Err(deny(call.caller, action, arn, ""));
            }
            Some(denial) => return Err(deny(call.caller, action, arn, &denial.because(action))),
            None if action == "sts:SetSourceIdentity" && changes_source => {
                return Err(deny(call.caller, action, arn, ""));
            }
            None => {}
        }
    }
    Ok(())
}

pub(super) fn find_role(state: &State, arn: &str) -> Option<Role> {
    let (account, name) = parse_role_arn(arn)?;
    let world = state.world();
    let in_account = world.accounts.get(&account)?;
    let (partition, role) = (in_account.partition(), in_account.roles.get(&name)?);
    let exact = format!("arn:{partition}:iam::{account}:role{}{name}", role.path) == arn;
    exact.then(|| role.clone())
}

/// Account and name of `arn:PARTITION:iam::ACCOUNT:role/PATH/NAME`.
pub(crate) fn parse_role_arn(arn: &str) -> Option<(String, String)> {
    let (partition, rest) = arn.strip_prefix("arn:")?.split_once(":iam::")?;
    if !["aws", "aws-cn", "aws-us-gov"].contains(&partition) {
        return None;
    }
    let (account, path) = rest.split_once(":role/")?;
    let digits = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
    let name = path.rsplit('/').next().filter(|name| !name.is_empty())?;
    digits.then(|| (account.to_owned(), name.to_owned()))
}

pub(super) fn parse_policy(text: &str) -> Result<IdentityPolicy, ApiError> {
    if text.len() > POLICY_CHARS_MAX {
        let message = format!("policy is longer than {POLICY_CHARS_MAX} characters");
        return Err(ApiError::new(400, "PackedPolicyTooLarge", message));
    }
    serde_json::from_str(text)
        .map_err(|error| ApiError::new(400, "MalformedPolicyDocument", error.to_string()))
}

pub(super) fn check_text(
    member: &str,
    text: &str,
    length: std::ops::RangeInclusive<usize>,
    punctuation: &str,
) -> Result<(), ApiError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || punctuation.contains(c);
    if !text.chars().all(allowed) {
        let rule = format!("Member must satisfy regular expression pattern: [\\w{punctuation}]*");
        return Err(ApiError::constraint(text, member, &rule));
    }
    if !length.contains(&text.len()) {
        let (least, most) = length.into_inner();
        let rule = format!("Member must have length between {least} and {most}");
        return Err(ApiError::constraint(text, member, &rule));
    }
    Ok(())
}
