//! The AWS endpoints: one address for every service, each in its own protocol.
//!
//! Every request is authenticated first (key, signature, session, region), then held to the
//! request rates, then struck by an ordered fault if one fits, then authorised and answered; each leaves one record in the journal.
//! Secrets appear in replies only.
//!
//! Not here: sockets and HTTP ([`crate::http_server`]), the simulation's own verbs
//! ([`crate::control`]).

mod authenticate;
mod credentials;
mod describe;
mod error;
mod form;
mod iam;
mod json;
mod kms;
mod page;
mod rds;
mod rds_proxy;
mod regions;
mod serverless;
mod serverless_login;
mod service;
mod strike;
mod sts;
mod tagging;
mod unsigned;
mod web_identity;
mod xml;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use http::HeaderMap;

use self::authenticate::{Asked, authenticate};
use self::error::ApiError;
use self::form::Form;
pub(crate) use self::form::decode;
use self::service::{Protocol, STS, Service};
use self::strike::{damage, fail_or_wait};
pub(crate) use self::sts::parse_role_arn;
pub(crate) use self::unsigned::{Unsigned, answer_unsigned};
use crate::faults::{FaultKind, Site};
use crate::iam::{Context, Denial, Layer};
use crate::journal;
use crate::sessions::Caller;
use crate::sigv4::{Claim, SignatureError, SignedRequest};
use crate::state::State;
use crate::world;

/// Parameters that the journal shows.
const JOURNALED: [&str; 41] = [
    "AutoCreate",
    "ClusterIdentifier",
    "CustomDomainName",
    "DBClusterIdentifier",
    "DBInstanceIdentifier",
    "DBProxyEndpointName",
    "DBProxyName",
    "DbName",
    "DbUser",
    "DurationSeconds",
    "EndpointName",
    "ExternalId",
    "KeyId",
    "KeySpec",
    "Marker",
    "MaxRecords",
    "MaxResults",
    "NextToken",
    "PaginationToken",
    "Policy",
    "PolicySourceArn",
    "ResourceName",
    "ResourceOwner",
    "ResourcesPerPage",
    "RoleArn",
    "RoleName",
    "RoleSessionName",
    "SourceIdentity",
    "Version",
    "VpcId",
    "customDomainName",
    "dbName",
    "durationSeconds",
    "maxResults",
    "namespaceName",
    "nextToken",
    "ownerAccount",
    "resourceArn",
    "vpcId",
    "workgroupName",
    "AccountId",
];

/// What goes back over HTTP.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) request_id: String,
    pub(crate) content_type: &'static str,
    /// For `x-amzn-errortype`, in the JSON protocols.
    pub(crate) error_type: Option<String>,
    pub(crate) body: String,
    /// Further headers.
    pub(crate) headers: Vec<(&'static str, String)>,
    /// For the `Date` header.
    pub(crate) date: jiff::Timestamp,
    pub(crate) delivery: Delivery,
}

/// How much of a reply arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    Whole,
    /// Half of the body, then the connection closes.
    Half,
    /// Nothing at all.
    Never,
    /// A reset instead of an answer.
    Reset,
}

/// An authenticated request.
struct Call<'a> {
    caller: &'a Caller,
    region: &'a str,
    service: &'static Service,
    action: &'a str,
    form: &'a Form,
    paged: Paged,
    /// Whether the caller asks for JSON where XML is usual.
    wants_json: bool,
}

/// How a page of a listing is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Paged {
    AsItIs,
    /// This page's records are left for the next one.
    Empty,
    /// The token leads to this page again.
    Again,
}

impl Call<'_> {
    /// Fails unless the caller may do this call on a resource.
    fn require(&self, state: &State, arn: &str) -> Result<(), ApiError> {
        let action = self.policy_action();
        let context = self.caller.context(self.region);
        require(state, self.caller, &action, arn, &context)
    }

    /// The call as policies name it.
    fn policy_action(&self) -> String {
        format!("{}:{}", self.service.iam_prefix, self.action)
    }

    /// The ARN of a resource in the caller's account and the call's region.
    fn arn(&self, service: &str, resource: &str) -> String {
        world::arn(service, self.region, self.caller.account(), resource)
    }
}

/// The result of an operation, before it is wrapped.
enum Answer {
    Json(serde_json::Value),
    Xml(xml::Xml),
}

impl From<serde_json::Value> for Answer {
    fn from(json: serde_json::Value) -> Self {
        Self::Json(json)
    }
}

impl From<xml::Xml> for Answer {
    fn from(xml: xml::Xml) -> Self {
        Self::Xml(xml)
    }
}

/// Answers one request.
pub(crate) async fn serve(state: &Arc<State>, request: SignedRequest<'_>) -> Reply {
    let started = Instant::now();
    let claim = Claim::parse(&request);
    let mut service = Service::of(claim.as_ref().ok(), &request);
    let wants_json = json::is_wanted(request.headers);
    let form = if service.is_query() {
        Ok(Form::parse(request.body))
    } else {
        Form::from_json(request.body)
    };
    let (form, unreadable) = match form {
        Ok(form) => (form, None),
        Err(error) => (Form::default(), Some(error)),
    };
    let mut record = blank_record(&form, claim.as_ref().ok(), request.headers);
    if claim.is_err() && form.get("Action") == Some(web_identity::ACTION) {
        service = &STS;
    }
    record.action = service.action(&request, &form);

    let mut strike = None;
    let asked = Asked {
        service,
        action: &record.action,
        page: page::page_of(&form),
    };
    let is_unsigned = matches!(claim, Err(SignatureError::Missing));
    let outcome = match claim.map_err(ApiError::from) {
        Err(_) if is_unsigned && record.action == web_identity::ACTION => {
            by_web_identity(state, &mut record, &form, &mut strike).await
        }
        Ok(claim) => match authenticate(state, &claim, &request, &asked, &mut strike) {
            Ok(caller) => {
                let site = asked.site(caller.account(), &claim.region);
                record.principal = Some(caller.arn());
                record.account = Some(caller.account().to_owned());
                let call = Call {
                    caller: &caller,
                    region: &claim.region,
                    service,
                    action: &record.action,
                    form: &form,
                    paged: Paged::AsItIs,
                    wants_json,
                };
                admit_and_answer(state, call, &site, unreadable, &mut strike).await
            }
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    };
    let outcome = outcome.map_err(|error| service.spell(error));

    record.error = outcome.as_ref().err().map(|error| error.code.clone());
    record.fault = strike.as_ref().map(|kind| format!("{kind:?}"));
    let in_json = wants_json && sts::speaks_json(service, &record.action);
    let mut reply = reply(service, &record.action, outcome, in_json);
    reply.date = state.clock.now();
    damage(&mut reply, service.is_query() && !in_json, strike.as_ref());
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

/// The one operation whose caller is known by a token of its own; it goes for the region of the global endpoint.
async fn by_web_identity(
    state: &State,
    record: &mut journal::Call,
    form: &Form,
    strike: &mut Option<FaultKind>,
) -> Result<Answer, ApiError> {
    let account = web_identity::account_of(form);
    STS.name.clone_into(&mut record.service);
    "us-east-1".clone_into(&mut record.region);
    let site = Site {
        service: STS.name,
        action: web_identity::ACTION,
        account: &account,
        region: "us-east-1",
        page: 1,
    };
    if !state.limits.admit(&site, state.clock.now()) {
        return Err(ApiError::throttling());
    }
    *strike = state.faults.strike(&site);
    let refused = "Not authorized to perform sts:AssumeRoleWithWebIdentity";
    fail_or_wait(strike.as_ref(), || ApiError::access_denied(refused)).await?;
    web_identity::assume_role(state, form).map(Answer::from)
}

/// Holds a request to the request rates, lets a fault strike it, and answers it.
async fn admit_and_answer(
    state: &State,
    mut call: Call<'_>,
    site: &Site<'_>,
    unreadable: Option<ApiError>,
    strike: &mut Option<FaultKind>,
) -> Result<Answer, ApiError> {
    if !state.limits.admit(site, state.clock.now()) {
        return Err(ApiError::throttling());
    }
    *strike = state.faults.strike(site);
    call.paged = match strike {
        Some(FaultKind::EmptyPage) => Paged::Empty,
        Some(FaultKind::RepeatedToken) => Paged::Again,
        _ => Paged::AsItIs,
    };
    let refused = || {
        let action = call.policy_action();
        let because = Denial::Missing(Layer::Identity).because(&action);
        deny(call.caller, &action, "*", &because)
    };
    fail_or_wait(strike.as_ref(), refused).await?;
    match unreadable {
        Some(error) => Err(error),
        None => answer(state, &call).await,
    }
}

fn reply(
    service: &Service,
    action: &str,
    outcome: Result<Answer, ApiError>,
    in_json: bool,
) -> Reply {
    let request_id = uuid::Uuid::new_v4().to_string();
    let error = outcome.as_ref().err();
    let error_type = error.map(|error| error.code.clone());
    let status = error.map_or(200, |error| error.status);
    let body = match (outcome, &service.protocol) {
        (Ok(Answer::Json(result)), Protocol::Query { .. }) => {
            json::query_success(action, &request_id, &result)
        }
        (Err(error), Protocol::Query { .. }) if in_json => json::query_failure(&request_id, &error),
        (Ok(Answer::Xml(result)), Protocol::Query { namespace, .. }) => {
            xml::success(namespace, action, &request_id, result)
        }
        (Err(error), Protocol::Query { namespace, .. }) => {
            xml::failure(namespace, &request_id, &error)
        }
        (Ok(Answer::Json(json)), _) => json.to_string(),
        (Ok(Answer::Xml(_)), _) => unreachable!("only Query operations answer in XML"),
        (Err(error), _) => json::failure(&error),
    };
    Reply {
        status,
        request_id,
        content_type: if in_json {
            "application/json"
        } else {
            service.content_type()
        },
        error_type: error_type.filter(|_| !service.is_query()),
        body,
        headers: Vec::new(),
        date: jiff::Timestamp::UNIX_EPOCH,
        delivery: Delivery::Whole,
    }
}

fn blank_record(form: &Form, claim: Option<&Claim>, headers: &HeaderMap) -> journal::Call {
    let mut params = BTreeMap::new();
    for name in JOURNALED {
        params.extend(
            form.get(name)
                .map(|value| (name.to_owned(), value.to_owned())),
        );
    }
    for name in [
        "DbGroups",
        "RegionOptStatusContains",
        "ResourceARNList",
        "ResourceTypeFilters",
        "TagKeys",
        "TagValues",
    ] {
        let list = form.list(name);
        if !list.is_empty() {
            params.insert(name.to_owned(), list.join(","));
        }
    }
    for filter in form.filters() {
        params.insert(format!("Filters.{}", filter.name), filter.values.join(","));
    }
    for filter in form.tag_filters() {
        let name = format!("TagFilters.{}", filter.name);
        params.insert(name, filter.values.join(","));
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
        action: String::new(),
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

async fn answer(state: &State, call: &Call<'_>) -> Result<Answer, ApiError> {
    if let Protocol::Query { version, .. } = call.service.protocol
        && call.form.get("Version") != Some(version)
    {
        return Err(no_operation(call));
    }
    let xml = match (call.service.name, call.action) {
        ("iam", "GetRole") => iam::get_role(state, call),
        ("iam", "SimulatePrincipalPolicy") => iam::simulate_principal_policy(state, call),
        ("sts", "AssumeRole") => sts::assume_role(state, call),
        ("sts", "GetCallerIdentity") => return Ok(sts::get_caller_identity(call)),
        ("redshift", "DescribeClusters") => describe::describe_clusters(state, call),
        ("redshift", "DescribeCustomDomainAssociations") => {
            describe::describe_custom_domains(state, call)
        }
        ("redshift", "DescribeEndpointAccess") => describe::describe_endpoint_access(state, call),
        ("redshift", "GetClusterCredentials") => {
            credentials::get_cluster_credentials(state, call).await
        }
        ("redshift", "GetClusterCredentialsWithIAM") => {
            credentials::get_cluster_credentials_with_iam(state, call).await
        }
        ("rds", "DescribeDBClusters") => rds::describe_clusters(state, call),
        ("rds", "DescribeDBInstances") => rds::describe_instances(state, call),
        ("rds", "DescribeDBProxies") => rds_proxy::describe_proxies(state, call),
        ("rds", "DescribeDBProxyEndpoints") => rds_proxy::describe_endpoints(state, call),
        ("rds", "ListTagsForResource") => rds::list_tags(state, call),
        _ => return answer_json(state, call).map(Answer::from),
    };
    xml.map(Answer::from)
}

fn answer_json(state: &State, call: &Call<'_>) -> Result<serde_json::Value, ApiError> {
    match (call.service.name, call.action) {
        ("account", "ListRegions") => regions::list_regions(state, call),
        ("kms", "Decrypt") => kms::decrypt(state, call),
        ("kms", "Encrypt") => kms::encrypt(state, call),
        ("kms", "GenerateDataKey") => kms::generate_data_key(state, call),
        ("redshift-serverless", "GetCredentials") => serverless_login::get_credentials(state, call),
        ("redshift-serverless", "GetNamespace") => serverless_login::get_namespace(state, call),
        ("redshift-serverless", "GetWorkgroup") => serverless::get_workgroup(state, call),
        ("redshift-serverless", "ListEndpointAccess") => {
            serverless::list_endpoint_access(state, call)
        }
        ("redshift-serverless", "ListTagsForResource") => serverless::list_tags(state, call),
        ("redshift-serverless", "ListWorkgroups") => serverless::list_workgroups(state, call),
        ("tagging", "GetResources") => tagging::get_resources(state, call),
        _ => Err(no_operation(call)),
    }
}

fn no_operation(call: &Call<'_>) -> ApiError {
    let version = call.form.get("Version").unwrap_or_default();
    let action = call.action;
    let message = format!("Could not find operation {action} for version {version}");
    ApiError::new(400, "InvalidAction", message)
}

/// A truth as XML spells it.
fn yes_no(yes: bool) -> &'static str {
    if yes { "true" } else { "false" }
}

/// Fails unless the caller's policies allow an action on a resource.
fn require(
    state: &State,
    caller: &Caller,
    action: &str,
    arn: &str,
    context: &Context,
) -> Result<(), ApiError> {
    let decided = state.decide(caller, action, arn, context);
    decided.map_err(|denial| deny(caller, action, arn, &denial.because(action)))
}

/// `AccessDenied` in AWS's words.
fn deny(caller: &Caller, action: &str, arn: &str, because: &str) -> ApiError {
    let who = caller.arn();
    ApiError::access_denied(format!(
        "User: {who} is not authorized to perform: {action} on resource: {arn}{because}"
    ))
}
