//! Where programs get AWS credentials from: instance metadata, container credentials, tokens of OIDC providers.
//!
//! Everything is below `/_machine/NAME` of the simulation's address, so each machine is an endpoint of its own that
//! programs are pointed at by the SDKs' variables ([`environment`]). Credentials are sessions of the machine's role, handed out
//! only if the role trusts the service; a new one is there before the old one ends, by the simulation's clock.
//!
//! Source: EC2 user guide, "Use the Instance Metadata Service"; SDK reference guide, "Container credential provider";
//! EKS user guide, "EKS Pod Identity".

mod instance;
mod token;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, Method};
use jiff::Timestamp;
use serde_json::json;

use self::instance::Tokens;
pub(crate) use self::token::{Claims, TokenError};
use crate::api::{Reply, Unsigned, answer_unsigned, parse_role_arn};
use crate::clock::{after, iso};
use crate::crypto::random_base64;
use crate::iam::{Asker, Context, Trusted, evaluate_trust};
use crate::sessions::{Session, SessionSpec};
use crate::state::State;
use crate::verbs::SimError;
use crate::world::{CredentialSource, Machine, Role, derived_hex};

/// Where machines are on the simulation's address.
pub(crate) const PATH: &str = "/_machine/";
/// How long before the end of a session the next one is handed out, in seconds.
const RENEW_SECONDS: u32 = 300;
/// Whom the tokens of service accounts are for.
const AUDIENCE: &str = "sts.amazonaws.com";
/// How long a token of a service account is good, in seconds (a day).
const TOKEN_SECONDS: u32 = 86_400;

/// What machines have handed out.
pub(crate) struct Machines {
    sessions: Mutex<HashMap<String, Arc<Session>>>,
    tokens: Tokens,
    /// What programs in containers have to show.
    authorization: String,
    issuer: token::Issuer,
}

impl std::fmt::Debug for Machines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Machines")
    }
}

impl Default for Machines {
    fn default() -> Self {
        Self {
            sessions: Mutex::default(),
            tokens: Tokens::default(),
            authorization: random_base64::<24>(),
            issuer: token::Issuer::default(),
        }
    }
}

impl Machines {
    /// Reads a token of a service account and proves its signature.
    pub(crate) fn read_token(&self, token: &str) -> Result<Claims, TokenError> {
        self.issuer.read(token)
    }

    /// Forgets what a machine had, as one that was replaced.
    pub(crate) fn forget(&self, name: &str) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.remove(name);
    }
}

/// Answers a request below [`PATH`].
pub(crate) async fn serve(
    state: &State,
    method: &Method,
    rest: &str,
    headers: &HeaderMap,
) -> Reply {
    let (name, path) = rest.split_once('/').unwrap_or((rest, ""));
    let Some(machine) = state.world().machines.get(name).cloned() else {
        return Reply::plain(404, "there is no such machine");
    };
    let service = match machine.source {
        CredentialSource::Instance { .. } => "metadata",
        _ => "container",
    };
    let (account, _) = parse_role_arn(&machine.role_arn).unwrap_or_default();
    let asked = Unsigned {
        service,
        action: format!("{method} /{path}"),
        account: &account,
        region: &machine.region,
        headers,
    };
    answer_unsigned(state, asked, || match machine.source {
        CredentialSource::Instance { beyond_hop_limit } => {
            let asked = instance::Asked {
                name,
                machine: &machine,
                beyond_hop_limit,
                headers,
            };
            asked.answer(state, method, path)
        }
        CredentialSource::EcsTask {} | CredentialSource::EksPod { .. } => {
            container(state, name, &machine, path, headers)
        }
        CredentialSource::ServiceAccount { .. } => Reply::plain(404, "Not Found"),
    })
    .await
}

/// The credentials of a task or pod, for whoever shows the authorization token.
fn container(
    state: &State,
    name: &str,
    machine: &Machine,
    path: &str,
    headers: &HeaderMap,
) -> Reply {
    if path != "credentials" {
        return Reply::plain(404, "Not Found");
    }
    let shown = headers.get("authorization").and_then(|it| it.to_str().ok());
    if shown != Some(&state.machines.authorization) {
        let body = json!({"code": "InvalidToken", "message": "the authorization token is missing or wrong"});
        return Reply::json(401, &body);
    }
    match session_of(state, name, machine) {
        Ok(session) => Reply::json(
            200,
            &json!({
                "AccessKeyId": session.access_key,
                "SecretAccessKey": session.secret.expose(),
                "Token": session.token.expose(),
                "Expiration": iso(session.expires_at),
                "RoleArn": machine.role_arn,
            }),
        ),
        Err(refused) => {
            let message = format!("{refused} cannot assume the role {}", machine.role_arn);
            Reply::json(
                400,
                &json!({"code": "AccessDeniedException", "message": message}),
            )
        }
    }
}

/// The machine's session, a new one if there is none or it ends soon; the service that its role does not trust.
fn session_of(state: &State, name: &str, machine: &Machine) -> Result<Arc<Session>, &'static str> {
    let (service, session_name, tags) = match &machine.source {
        CredentialSource::EcsTask {} => {
            let id = derived_hex("", name);
            ("ecs-tasks.amazonaws.com", id, BTreeMap::new())
        }
        CredentialSource::EksPod { tags } => {
            let id = derived_hex("eks-", name);
            ("pods.eks.amazonaws.com", id, tags.clone())
        }
        CredentialSource::Instance { .. } | CredentialSource::ServiceAccount { .. } => {
            ("ec2.amazonaws.com", instance_id(name), BTreeMap::new())
        }
    };
    let (account, role_name) = parse_role_arn(&machine.role_arn).ok_or(service)?;
    let role = state
        .world()
        .accounts
        .get(&account)
        .and_then(|it| it.roles.get(&role_name).cloned());
    if !role.is_some_and(|role| trusts(&role, service, !tags.is_empty())) {
        return Err(service);
    }
    let now = state.clock.now();
    let mut sessions = state
        .machines
        .sessions
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if let Some(kept) = sessions.get(name).filter(|it| is_fresh(it, now)) {
        return Ok(Arc::clone(kept));
    }
    let spec = SessionSpec {
        account,
        role: role_name,
        role_arn: machine.role_arn.clone(),
        name: session_name,
        transitive: tags.keys().cloned().collect::<BTreeSet<_>>(),
        tags,
        ..SessionSpec::default()
    };
    let session = state
        .sessions
        .start(spec, after(now, machine.session_seconds));
    sessions.insert(name.to_owned(), Arc::clone(&session));
    Ok(session)
}

fn is_fresh(session: &Session, now: Timestamp) -> bool {
    session.expires_at > after(now, RENEW_SECONDS)
}

fn trusts(role: &Role, service: &str, with_tags: bool) -> bool {
    let actions = ["sts:AssumeRole"].into_iter();
    let mut actions = actions.chain(with_tags.then_some("sts:TagSession"));
    actions.all(|action| {
        let none = Context::default();
        evaluate_trust(&role.trust, Asker::Service(service), action, &none) == Trusted::Directly
    })
}

fn instance_id(name: &str) -> String {
    derived_hex("i-", name)
}

/// The variables that lead a program on a machine to its credentials, its token renewed. All other credentials have to be taken
/// out of its environment.
pub(crate) fn environment(state: &State, name: &str) -> Result<BTreeMap<String, String>, SimError> {
    let machine = state.world().machines.get(name).cloned();
    let machine = machine.ok_or_else(|| SimError::UnknownMachine(name.to_owned()))?;
    let url = format!("{}{PATH}{name}", state.endpoint_url);
    let pairs = match &machine.source {
        CredentialSource::Instance { .. } => {
            vec![("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)]
        }
        CredentialSource::EcsTask {} => vec![
            (
                "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                format!("{url}/credentials"),
            ),
            (
                "AWS_CONTAINER_AUTHORIZATION_TOKEN",
                state.machines.authorization.clone(),
            ),
        ],
        CredentialSource::EksPod { .. } => {
            let file = write_token(state, name, &state.machines.authorization)?;
            vec![
                (
                    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                    format!("{url}/credentials"),
                ),
                ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file),
            ]
        }
        CredentialSource::ServiceAccount { issuer, subject } => {
            let claims = Claims {
                issuer: issuer.clone(),
                subject: subject.clone(),
                audience: AUDIENCE.to_owned(),
                expires_at: after(state.clock.now(), TOKEN_SECONDS),
            };
            let file = write_token(state, name, &state.machines.issuer.sign(&claims))?;
            vec![
                ("AWS_ROLE_ARN", machine.role_arn.clone()),
                ("AWS_WEB_IDENTITY_TOKEN_FILE", file),
            ]
        }
    };
    let pairs = pairs.into_iter();
    Ok(pairs
        .map(|(name, value)| (name.to_owned(), value))
        .collect())
}

fn write_token(state: &State, name: &str, token: &str) -> Result<String, SimError> {
    let path = state.fleet.dir().join(format!("token-{name}"));
    let written = std::fs::write(&path, token);
    written.map_err(|source| SimError::Token {
        path: path.clone(),
        source,
    })?;
    Ok(path.display().to_string())
}
