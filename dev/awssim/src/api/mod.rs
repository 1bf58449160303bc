//! The AWS endpoints: one address for STS and Redshift, in the Query protocol.
//!
//! Every request is authenticated first (key, signature, session, region), then struck by an
//! ordered fault if one fits, then authorised and answered; each leaves one record in the journal.
//! Secrets appear in replies only.
//!
//! Not here: sockets and HTTP ([`crate::http_server`]), the simulation's own verbs
//! ([`crate::control`]).

mod credentials;
mod describe;
mod error;
mod form;
mod sts;
mod xml;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;

use self::error::ApiError;
use self::form::Form;
use crate::faults::{DELAY_MS_MAX, FaultKind, Site};
use crate::iam::{Context, Verdict};
use crate::journal;
use crate::sessions::Caller;
use crate::sigv4::{Claim, SignedRequest};
use crate::state::State;

/// Parameters that the journal shows.
const JOURNALED: [&str; 14] = [
    "AutoCreate",
    "ClusterIdentifier",
    "CustomDomainName",
    "DbName",
    "DbUser",
    "DurationSeconds",
    "ExternalId",
    "Marker",
    "MaxRecords",
    "Policy",
    "RoleArn",
    "RoleSessionName",
    "SourceIdentity",
    "Version",
];

/// What goes back over HTTP.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) request_id: String,
    pub(crate) body: String,
    pub(crate) delivery: Delivery,
}

/// How much of a reply arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    Whole,
    /// Half of the body, then the connection closes.
    Half,
    /// A reset instead of an answer.
    Reset,
}

/// An authenticated request.
struct Call<'a> {
    caller: &'a Caller,
    region: &'a str,
    form: &'a Form,
}

/// A service, as far as the protocol goes.
struct Service {
    name: &'static str,
    version: &'static str,
    namespace: &'static str,
}

const STS: Service = Service {
    name: "sts",
    version: "2011-06-15",
    namespace: "https://sts.amazonaws.com/doc/2011-06-15/",
};
const REDSHIFT: Service = Service {
    name: "redshift",
    version: "2012-12-01",
    namespace: "http://redshift.amazonaws.com/doc/2012-12-01/",
};

/// Answers one request to `/`.
pub(crate) async fn serve(state: &Arc<State>, request: SignedRequest<'_>) -> Reply {
    let started = Instant::now();
    let form = Form::parse(request.body);
    let claim = Claim::parse(&request);
    let mut record = blank_record(&form, claim.as_ref().ok(), request.headers);
    let service = if record.service == STS.name {
        &STS
    } else {
        &REDSHIFT
    };
    let request_id = uuid::Uuid::new_v4().to_string();

    let mut strike = None;
    let outcome = match claim.map_err(ApiError::from) {
        Ok(claim) => match authenticate(state, &claim, &request) {
            Ok(caller) => {
                record.principal = Some(caller.arn());
                record.account = Some(caller.account().to_owned());
                strike = find_fault(state, &record, &caller, &form);
                let call = Call {
                    caller: &caller,
                    region: &claim.region,
                    form: &form,
                };
                answer_or_fail(state, service, &record.action, &call, strike.as_ref()).await
            }
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    };

    record.error = outcome.as_ref().err().map(|error| error.code.clone());
    record.fault = strike.as_ref().map(|kind| format!("{kind:?}"));
    let mut reply = Reply {
        status: outcome.as_ref().err().map_or(200, |error| error.status),
        body: match outcome {
            Ok(result) => xml::success(service.namespace, &record.action, &request_id, result),
            Err(error) => xml::failure(service.namespace, &request_id, &error),
        },
        request_id,
        delivery: Delivery::Whole,
    };
    damage(&mut reply, strike.as_ref());
    record.status = if reply.delivery == Delivery::Reset {
        0
    } else {
        reply.status
    };
    record.ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    record.time = state.clock.now();
    state.calls.keep(record);
    reply
}

fn blank_record(form: &Form, claim: Option<&Claim>, headers: &HeaderMap) -> journal::Call {
    let mut params = BTreeMap::new();
    for name in JOURNALED {
        params.extend(
            form.get(name)
                .map(|value| (name.to_owned(), value.to_owned())),
        );
    }
    for name in ["DbGroups", "TagKeys", "TagValues"] {
        let list = form.list(name);
        if !list.is_empty() {
            params.insert(name.to_owned(), list.join(","));
        }
    }
    let tags = form.pairs("Tags.");
    if !tags.is_empty() {
        let pairs: Vec<String> = tags.iter().map(|(k, v)| format!("{k}={v}")).collect();
        params.insert("Tags".to_owned(), pairs.join(","));
    }
    journal::Call {
        seq: 0,
        time: jiff::Timestamp::UNIX_EPOCH,
        principal: None,
        account: None,
        access_key: claim.map(|claim| claim.access_key.clone()),
        service: claim.map(|claim| claim.service.clone()).unwrap_or_default(),
        region: claim.map(|claim| claim.region.clone()).unwrap_or_default(),
        action: form.get("Action").unwrap_or_default().to_owned(),
        params,
        status: 0,
        error: None,
        fault: None,
        ms: 0,
        user_agent: headers
            .get("user-agent")
            .and_then(|v| v.to_str().ok())
            .map(str::to_owned),
    }
}

/// Finds whose key it is and proves the signature; then the session and the region.
fn authenticate(
    state: &State,
    claim: &Claim,
    request: &SignedRequest<'_>,
) -> Result<Caller, ApiError> {
    let now = state.clock.now();
    if ![STS.name, REDSHIFT.name].contains(&claim.service.as_str()) {
        let message = "Credential should be scoped to correct service: 'sts' or 'redshift'.";
        return Err(ApiError::new(403, "SignatureDoesNotMatch", message));
    }
    let caller = match state.sessions.find(&claim.access_key) {
        Some(session) => {
            claim.verify(request, session.secret.expose(), now)?;
            if claim.token.as_deref() != Some(session.token.expose()) {
                return Err(ApiError::invalid_token());
            }
            if session.expires_at <= now {
                let message = "The security token included in the request is expired";
                return Err(ApiError::new(403, "ExpiredToken", message));
            }
            Caller::Session(session)
        }
        None => {
            let (caller, secret) = state
                .find_user(&claim.access_key)
                .ok_or_else(ApiError::invalid_token)?;
            claim.verify(request, secret.expose(), now)?;
            caller
        }
    };
    let global_sts = claim.service == STS.name && claim.region == "us-east-1";
    let enabled = state
        .world()
        .region(caller.account(), &claim.region)
        .is_some();
    if enabled || global_sts {
        Ok(caller)
    } else {
        Err(ApiError::invalid_token())
    }
}

fn find_fault(
    state: &State,
    record: &journal::Call,
    caller: &Caller,
    form: &Form,
) -> Option<FaultKind> {
    let page = if record.action == "DescribeClusters" {
        describe::page_of(form)
    } else {
        1
    };
    state.faults.strike(&Site {
        service: &record.service,
        action: &record.action,
        account: caller.account(),
        region: &record.region,
        page,
    })
}

async fn answer_or_fail(
    state: &State,
    service: &Service,
    action: &str,
    call: &Call<'_>,
    strike: Option<&FaultKind>,
) -> Result<xml::Xml, ApiError> {
    match strike {
        Some(FaultKind::AccessDenied) => {
            let action = format!("{}:{action}", service.name);
            return Err(deny(call.caller, &action, "*", &no_policy_allows(&action)));
        }
        Some(FaultKind::Error {
            status,
            code,
            message,
        }) => {
            return Err(ApiError::new(*status, code, message.clone()));
        }
        Some(FaultKind::InternalFailure) => {
            return Err(ApiError::internal("an internal error was ordered"));
        }
        Some(FaultKind::Throttling) => return Err(ApiError::throttling()),
        Some(FaultKind::Delay { ms }) => {
            tokio::time::sleep(Duration::from_millis((*ms).min(DELAY_MS_MAX))).await;
        }
        _ => {}
    }
    answer(
        state,
        service,
        action,
        call,
        matches!(strike, Some(FaultKind::EmptyPage)),
    )
    .await
}

async fn answer(
    state: &State,
    service: &Service,
    action: &str,
    call: &Call<'_>,
    empty_page: bool,
) -> Result<xml::Xml, ApiError> {
    let version = call.form.get("Version").unwrap_or_default();
    if version != service.version {
        let message = format!("Could not find operation {action} for version {version}");
        return Err(ApiError::new(400, "InvalidAction", message));
    }
    match (service.name, action) {
        ("sts", "AssumeRole") => sts::assume_role(state, call),
        ("sts", "GetCallerIdentity") => Ok(sts::get_caller_identity(call)),
        ("redshift", "DescribeClusters") => describe::describe_clusters(state, call, empty_page),
        ("redshift", "GetClusterCredentials") => {
            credentials::get_cluster_credentials(state, call).await
        }
        ("redshift", "GetClusterCredentialsWithIAM") => {
            credentials::get_cluster_credentials_with_iam(state, call).await
        }
        _ => {
            let message = format!("Could not find operation {action} for version {version}");
            Err(ApiError::new(400, "InvalidAction", message))
        }
    }
}

fn damage(reply: &mut Reply, strike: Option<&FaultKind>) {
    match strike {
        Some(FaultKind::MalformedField { element, text }) => {
            reply.body = xml::damage(&reply.body, element, text.as_deref());
        }
        Some(FaultKind::Reset) => reply.delivery = Delivery::Reset,
        Some(FaultKind::TruncatedBody) => reply.delivery = Delivery::Half,
        _ => {}
    }
}

/// Fails unless the caller's policies allow an action on a resource.
fn require(
    state: &State,
    caller: &Caller,
    action: &str,
    arn: &str,
    context: &Context,
) -> Result<(), ApiError> {
    match state.verdict(caller, action, arn, context) {
        Verdict::Allowed => Ok(()),
        Verdict::NotAllowed => Err(deny(caller, action, arn, &no_policy_allows(action))),
        Verdict::Forbidden => Err(deny(
            caller,
            action,
            arn,
            " with an explicit deny in an identity-based policy",
        )),
    }
}

fn no_policy_allows(action: &str) -> String {
    format!(" because no identity-based policy allows the {action} action")
}

/// `AccessDenied` in AWS's words.
fn deny(caller: &Caller, action: &str, arn: &str, because: &str) -> ApiError {
    let who = caller.arn();
    ApiError::access_denied(format!(
        "User: {who} is not authorized to perform: {action} on resource: {arn}{because}"
    ))
}
