//! The control plane over HTTP: JSON under `/_sim/`, for other processes. [`crate::SimClient`] speaks it.
//!
//! | request | does |
//! |---|---|
//! | `GET info` | addresses |
//! | `GET calls?since=N`, `GET logins?since=N` | the journal after record N |
//! | `POST journal/clear` | forgets calls and log-ins |
//! | `POST fault` with a [`crate::Fault`] | orders a fault |
//! | `POST faults/clear` | takes back every fault |
//! | `POST clock` with `{"offset_seconds": n}` or `{"advance_seconds": n}` | moves the clock |
//! | `POST cluster` with `{"add": {"id": …, "cluster": …}}`, `{"change": {"id": …, "patch": …}}` or `{"remove": {"id": …}}` | changes clusters |
//! | `POST resource` with `{"put": {"id": …, "resource": {KIND: …}}}` or `{"remove": {"id": …, "kind": KIND}}` | changes workgroups, RDS instances, clusters and proxies |
//! | `POST behave` with `{"of": {"kind", "id"}, "manner": …}` | treats connections otherwise |
//! | `POST named` with `{"of", "named"}` | lets host names resolve or not |
//! | `POST rename` with `{"of", "name"}` | gives something another name |
//! | `POST status` with `{"of", "status"}` | sets the status of anything |
//! | `POST certificate` with `{"of": {"kind", "id"}, "certificate": …}` | shows another certificate |
//! | `POST readdress` with `{"kind", "id"}` | moves endpoints to other addresses |
//! | `POST machine` with `{"name", "machine"}` | adds or replaces a machine |
//! | `POST machine/environment` with a name | the variables for programs on it |
//! | `POST region` with `{"account", "region", "enabled"}` | enables or disables a region |
//! | `POST rate_limits` with `{"service:Operation": {"per_second", "burst"}}` | puts request rates in force |
//! | `POST role` with `{"account", "name", "role"}` | adds or replaces a role; `null` deletes it |
//! | `POST user` with `{"account", "name", "user"}` | adds or replaces an IAM user |
//! | `POST sql` with `{"kind", "cluster", "database", "sql"}` | runs SQL as superuser |
//!
//! Answers are 200 with JSON, 400 for what cannot be read, 404 for other paths, 409 for what
//! cannot be done, these with `{"error": text}`. Nobody is authenticated: it listens on
//! loopback, for tests.

use std::sync::Arc;

use http::Method;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error_chain;
use crate::fleet::sql;
use crate::front::Manner;
use crate::machines;
use crate::state::State;
use crate::tls::Certificate;
use crate::verbs::{self, ClusterPatch, SimError};
use crate::world::{Cluster, ClusterId, Kind, Machine, Resource, ResourceId, Role, User};

/// How to move the clock.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum ClockChange {
    OffsetSeconds(i64),
    AdvanceSeconds(i64),
}

/// What to do to a cluster.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum ClusterChange {
    Add {
        id: ClusterId,
        cluster: Box<Cluster>,
    },
    Change {
        id: ClusterId,
        patch: ClusterPatch,
    },
    Remove {
        id: ClusterId,
    },
}

/// What to do to a workgroup, RDS instance, cluster or proxy.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum ResourceChange {
    Put {
        id: ClusterId,
        resource: Box<Resource>,
    },
    Remove {
        id: ClusterId,
        kind: Kind,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CertificateChange {
    pub(crate) of: ResourceId,
    pub(crate) certificate: Certificate,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BehaviourChange {
    pub(crate) of: ResourceId,
    pub(crate) manner: Manner,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamedChange {
    pub(crate) of: ResourceId,
    pub(crate) named: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NameChange {
    pub(crate) of: ResourceId,
    pub(crate) name: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StatusChange {
    pub(crate) of: ResourceId,
    pub(crate) status: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MachineChange {
    pub(crate) name: String,
    pub(crate) machine: Machine,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegionChange {
    pub(crate) account: String,
    pub(crate) region: String,
    pub(crate) enabled: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RoleChange {
    pub(crate) account: String,
    pub(crate) name: String,
    pub(crate) role: Option<Role>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UserChange {
    pub(crate) account: String,
    pub(crate) name: String,
    pub(crate) user: User,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SqlRequest {
    #[serde(default = "a_cluster")]
    pub(crate) kind: Kind,
    pub(crate) cluster: ClusterId,
    pub(crate) database: Option<String>,
    pub(crate) sql: String,
}

fn a_cluster() -> Kind {
    Kind::Cluster
}

enum Problem {
    Refused(SimError),
    Unknown,
    Unreadable(serde_json::Error),
}

impl<E: Into<SimError>> From<E> for Problem {
    fn from(error: E) -> Self {
        Self::Refused(error.into())
    }
}

/// Does what a request says; HTTP status and JSON.
pub(crate) async fn handle(
    state: &Arc<State>,
    method: &Method,
    verb: &str,
    query: &str,
    body: &[u8],
) -> (u16, String) {
    let done = if method == Method::GET {
        read(state, verb, query).await
    } else {
        change(state, verb, body).await
    };
    let (status, json) = match done {
        Ok(json) => (200, json),
        Err(Problem::Refused(error)) => (409, json!({"error": error_chain(&error)})),
        Err(Problem::Unknown) => (
            404,
            json!({"error": format!("there is no {method} {verb}")}),
        ),
        Err(Problem::Unreadable(error)) => (400, json!({"error": error.to_string()})),
    };
    (status, json.to_string())
}

async fn read(state: &State, verb: &str, query: &str) -> Result<Value, Problem> {
    let since = query
        .strip_prefix("since=")
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    match verb {
        "calls" => Ok(json!(state.calls.since(since))),
        "info" => Ok(json!(state.info().await)),
        "logins" => Ok(json!(state.logins.since(since))),
        _ => Err(Problem::Unknown),
    }
}

async fn change(state: &Arc<State>, verb: &str, body: &[u8]) -> Result<Value, Problem> {
    match verb {
        "certificate" => {
            let CertificateChange { of, certificate } = parse(body)?;
            Ok(json!(
                verbs::show_certificate(state, &of, &certificate).await?
            ))
        }
        "clock" => {
            let offset = state.clock.offset_seconds();
            state.clock.set_offset(match parse(body)? {
                ClockChange::OffsetSeconds(offset) => offset,
                ClockChange::AdvanceSeconds(seconds) => offset.saturating_add(seconds),
            });
            Ok(json!({"now": state.clock.now()}))
        }
        "behave" => {
            let BehaviourChange { of, manner } = parse(body)?;
            Ok(json!(verbs::behave(state, &of, manner).await?))
        }
        "cluster" => change_cluster(state, parse(body)?).await,
        "fault" => Ok(json!(state.order_fault(parse(body)?)?)),
        "faults/clear" => Ok(json!(state.faults.clear())),
        "journal/clear" => {
            state.calls.clear();
            Ok(json!(state.logins.clear()))
        }
        "machine" => {
            let MachineChange { name, machine } = parse(body)?;
            Ok(json!(state.put_machine(&name, machine)?))
        }
        "machine/environment" => Ok(json!(machines::environment(
            state,
            &parse::<String>(body)?
        )?)),
        "rate_limits" => Ok(json!(state.set_rate_limits(parse(body)?)?)),
        "readdress" => Ok(json!(verbs::readdress(state, &parse(body)?).await?)),
        "named" => {
            let NamedChange { of, named } = parse(body)?;
            let set = state.fleet.set_named(&of, named).await;
            Ok(json!(set.map_err(SimError::from)?))
        }
        "rename" => {
            let NameChange { of, name } = parse(body)?;
            Ok(json!(verbs::rename(state, &of, &name).await?))
        }
        "status" => {
            let StatusChange { of, status } = parse(body)?;
            Ok(json!(verbs::set_status(state, &of, &status).await?))
        }
        "region" => {
            let RegionChange {
                account,
                region,
                enabled,
            } = parse(body)?;
            Ok(json!(state.set_region_enabled(&account, &region, enabled)?))
        }
        "resource" => Ok(match parse(body)? {
            ResourceChange::Put { id, resource } => {
                json!(verbs::put_resource(state, &id, *resource).await?)
            }
            ResourceChange::Remove {
                kind: Kind::Cluster,
                id,
            } => json!(verbs::remove_cluster(state, &id).await?),
            ResourceChange::Remove { id, kind } => {
                json!(verbs::remove_resource(state, &id, kind).await?)
            }
        }),
        "role" => {
            let RoleChange {
                account,
                name,
                role,
            } = parse(body)?;
            Ok(match role {
                Some(role) => json!(state.put_role(&account, &name, role)?),
                None => json!(state.remove_role(&account, &name)?),
            })
        }
        "sql" => {
            let SqlRequest {
                kind,
                cluster,
                database,
                sql: text,
            } = parse(body)?;
            let of = ResourceId::new(kind, &cluster);
            let rows = sql(state, &of, database.as_deref(), &text).await;
            Ok(json!(rows.map_err(SimError::from)?))
        }
        "user" => {
            let UserChange {
                account,
                name,
                user,
            } = parse(body)?;
            Ok(json!(state.put_user(&account, &name, user)?))
        }
        _ => Err(Problem::Unknown),
    }
}

async fn change_cluster(state: &Arc<State>, change: ClusterChange) -> Result<Value, Problem> {
    Ok(match change {
        ClusterChange::Add { id, cluster } => {
            json!(verbs::add_cluster(state, &id, *cluster).await?)
        }
        ClusterChange::Change { id, patch } => {
            json!(verbs::change_cluster(state, &id, patch).await?)
        }
        ClusterChange::Remove { id } => json!(verbs::remove_cluster(state, &id).await?),
    })
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(Problem::Unreadable)
}
