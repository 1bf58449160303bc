//! AssumeRoleWithWebIdentity: a session for the token of an OIDC provider. The request is not signed; the token proves all.
//!
//! Source: STS API reference, `AssumeRoleWithWebIdentity`.

use super::error::ApiError;
use super::form::Form;
use super::sts::{CHAINED_SECONDS_MAX, check_text, find_role, parse_policy, parse_role_arn, reply};
use super::xml::Xml;
use crate::clock::{after, iso};
use crate::iam::{Asker, Context, Trusted, evaluate_trust};
use crate::machines::{Claims, TokenError};
use crate::sessions::SessionSpec;
use crate::state::State;

/// The operation, which alone comes without a signature.
pub(super) const ACTION: &str = "AssumeRoleWithWebIdentity";
const POLICY_ACTION: &str = "sts:AssumeRoleWithWebIdentity";

/// The account of the role that is asked for, for faults.
pub(super) fn account_of(form: &Form) -> String {
    let role = form.get("RoleArn").and_then(parse_role_arn);
    role.map(|(account, _)| account).unwrap_or_default()
}

pub(super) fn assume_role(state: &State, form: &Form) -> Result<Xml, ApiError> {
    let role_arn = form.required("RoleArn")?;
    let (account, name) = parse_role_arn(role_arn)
        .ok_or_else(|| ApiError::validation(format!("{role_arn} is invalid")))?;
    let session_name = form.required("RoleSessionName")?;
    check_text("roleSessionName", session_name, 2..=64, "+=,.@-")?;
    let seconds = form.number("DurationSeconds", 900..=43_200, CHAINED_SECONDS_MAX)?;
    let policy = form.get("Policy").map(parse_policy).transpose()?;
    let claims = check_token(state, &account, form.required("WebIdentityToken")?)?;

    let role = find_role(state, role_arn).filter(|role| {
        let provider = claims.provider_arn(role_arn, &account);
        let asker = Asker::Federated(&provider);
        evaluate_trust(&role.trust, asker, POLICY_ACTION, &context(&claims)) == Trusted::Directly
    });
    let role = role.ok_or_else(|| {
        ApiError::access_denied(format!("Not authorized to perform {POLICY_ACTION}"))
    })?;
    if seconds > role.max_session_duration {
        return Err(ApiError::validation(
            "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
        ));
    }
    let spec = SessionSpec {
        account,
        role: name,
        role_arn: role_arn.to_owned(),
        name: session_name.to_owned(),
        policy,
        ..SessionSpec::default()
    };
    let session = state
        .sessions
        .start(spec, after(state.clock.now(), seconds));
    let mut xml = reply(&session);
    xml.leaf("SubjectFromWebIdentityToken", &claims.subject);
    xml.leaf(
        "Provider",
        claims.provider_arn(role_arn, &session.spec.account),
    );
    xml.leaf("Audience", &claims.audience);
    Ok(xml)
}

fn context(claims: &Claims) -> Context {
    let mut context = Context::default();
    let issuer = &claims.issuer;
    context
        .set(&format!("{issuer}:sub"), claims.subject.as_str())
        .set(&format!("{issuer}:aud"), claims.audience.as_str());
    context
}

/// The token is one of a provider that the role's account knows, for one of its audiences, and has not expired.
fn check_token(state: &State, account: &str, token: &str) -> Result<Claims, ApiError> {
    let invalid = |message: String| ApiError::new(400, "InvalidIdentityToken", message);
    let claims = state.machines.read_token(token).map_err(|error| match error {
        TokenError::Malformed => invalid(
            "The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)"
                .to_owned(),
        ),
        TokenError::Signature => invalid("Token signature invalid".to_owned()),
    })?;
    let world = state.world();
    let providers = world.accounts.get(account).map(|it| &it.oidc_providers);
    let Some(provider) = providers.and_then(|it| it.get(&claims.issuer)) else {
        return Err(invalid(format!(
            "No OpenIDConnect provider found in your account for https://{}",
            claims.issuer
        )));
    };
    let now = state.clock.now();
    if claims.expires_at <= now {
        let message = format!(
            "Token expired: current date/time {} must be before the expiration date/time {}",
            iso(now),
            iso(claims.expires_at)
        );
        return Err(ApiError::new(400, "ExpiredTokenException", message));
    }
    if !provider.audiences.contains(&claims.audience) {
        return Err(invalid("Incorrect token audience".to_owned()));
    }
    Ok(claims)
}
