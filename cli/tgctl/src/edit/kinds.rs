//! Each kind of resource that can be edited: as it is, as YAML, and written back if nobody changed it meanwhile.

use serde::Serialize;
use tidegate_console::{Failure, client::Client, inventory, output, resource, rpc};
use tidegate_proto::v1;
use tonic::{Code, Status};

use crate::{
    create::Wanted,
    health, locks,
    resources::{Kind, list_discovery_configs, list_roles, not_there},
    tokens, users,
};

/// A resource as it was read.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    /// Its kind, as people write it.
    pub(super) word: &'static str,
    pub(super) name: String,
    /// As people edit it.
    pub(super) yaml: String,
    /// Which change of it was read; 0 when nobody wrote it yet.
    pub(super) revision: u64,
}

/// Why a resource was not written.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) failure: Failure,
    /// What the auth service said, if it said something.
    pub(super) code: Option<Code>,
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            code: None,
        }
    }
}

/// Reads the resource of exactly this name; a database may be named by a prefix that only it has.
pub(super) async fn load(client: &Client, kind: Kind, name: &str) -> Result<Loaded, Failure> {
    match kind {
        Kind::Database => {
            let found = inventory::find(&mut client.inventory(), name).await?;
            if found.origin() != v1::Origin::Dynamic {
                return Err(Failure::new(format!(
                    "database `{}` was not created with `tgctl create`, so it cannot be edited",
                    found.name
                ))
                .hint("what discovery finds follows its tags in AWS; what an agent's configuration names is edited there"));
            }
            loaded(resource::Database::from(&found))
        }
        Kind::DiscoveryConfig => {
            let all = list_discovery_configs(client).await?;
            let found = all.iter().map(resource::DiscoveryConfig::from);
            one(kind.word(), found, name)
        }
        Kind::HealthCheckConfig => one(kind.word(), health::list(client).await?, name),
        Kind::Lock => one(kind.word(), locks::list(client).await?, name),
        Kind::Role => one(kind.word(), list_roles(client).await?, name),
        Kind::Token => {
            let all = tokens::list(client).await?;
            let is_it = |token: &&resource::Token| token.metadata.name == name;
            if all.iter().find(is_it).is_some_and(|token| token.spec.join_method == "token") {
                return Err(Failure::new(format!(
                    "join token `{name}` cannot be edited: its name is a secret that is not shown again"
                ))
                .hint("add another with `tgctl tokens add`, and remove this one"));
            }
            one(kind.word(), all, name)
        }
        Kind::User => one(kind.word(), users::list(client).await?, name),
        Kind::AccessRequest => Err(Failure::usage("an access request cannot be edited").hint(
            "decide about it with `tgctl requests approve|deny`, or remove it with `tgctl requests rm`",
        )),
        Kind::DatabaseServer => Err(Failure::usage("a database server cannot be edited").hint(
            "it shows what an agent does; `tgctl edit db/NAME` edits a database that was created",
        )),
    }
}

fn one<Spec: Serialize, State: Serialize>(
    word: &str,
    all: impl IntoIterator<Item = resource::Resource<Spec, State>>,
    name: &str,
) -> Result<Loaded, Failure> {
    let mut all = all.into_iter();
    let found = all.find(|resource| resource.metadata.name == name);
    loaded(found.ok_or_else(|| not_there(word, name))?)
}

fn loaded<Spec: Serialize, State: Serialize>(
    mut resource: resource::Resource<Spec, State>,
) -> Result<Loaded, Failure> {
    resource.status = None;
    Ok(Loaded {
        word: resource.kind,
        name: resource.metadata.name.clone(),
        revision: resource.metadata.revision.parse().unwrap_or(0),
        yaml: output::yaml(&resource)?,
    })
}

/// Writes a resource in place of the one that was read.
pub(super) async fn write(client: &Client, loaded: &Loaded, wanted: Wanted) -> Result<(), Refused> {
    let revision = loaded.revision;
    if revision == 0 {
        check_unwritten(client, loaded).await?;
    }
    let doing = format!("update {} `{}`", loaded.word, loaded.name);
    match wanted {
        Wanted::Database(database) => {
            let database = Some(v1::Database {
                revision,
                ..(*database).into()
            });
            let request = v1::UpdateDatabaseRequest { database };
            call(&doing, client.inventory().update_database(request)).await
        }
        Wanted::DiscoveryConfig(config) => {
            let config = Some(v1::DiscoveryConfig {
                revision,
                ..crate::create::discovery_config(*config)
            });
            let request = v1::UpsertDiscoveryConfigRequest { config };
            call(&doing, client.discovery().upsert_discovery_config(request)).await
        }
        Wanted::HealthCheckConfig(config) => {
            let config = Some(v1::HealthCheckConfig {
                revision,
                ..*config
            });
            let request = v1::UpsertHealthCheckConfigRequest { config };
            call(&doing, client.health().upsert_health_check_config(request)).await
        }
        Wanted::Lock(lock) => {
            let lock = Some(v1::Lock { revision, ..*lock });
            let request = v1::UpsertLockRequest { lock };
            call(&doing, client.access().upsert_lock(request)).await
        }
        Wanted::Role(role) => {
            let role = Some(v1::Role {
                revision,
                ..(*role).into()
            });
            let request = v1::UpsertRoleRequest { role };
            call(&doing, client.access().upsert_role(request)).await
        }
        Wanted::Token(mut request) => {
            request.replace = true;
            if let Some(token) = &mut request.token {
                token.revision = revision;
            }
            call(&doing, client.joining().upsert_token(*request)).await
        }
        Wanted::User(user) => {
            let user = Some(v1::User { revision, ..*user });
            let request = v1::UpdateUserRequest { user };
            call(&doing, client.access().update_user(request)).await
        }
    }
}

async fn call<T>(
    doing: &str,
    answer: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<(), Refused> {
    match tokio::time::timeout(rpc::CALL_TIMEOUT, answer).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(status)) => Err(Refused {
            failure: rpc::failure(doing, &status),
            code: Some(status.code()),
        }),
        Err(_) => Err(Failure::new(format!(
            "could not {doing}: no answer within {} seconds",
            rpc::CALL_TIMEOUT.as_secs()
        ))
        .into()),
    }
}

/// What is built in has no revision to write against, so it is read again.
async fn check_unwritten(client: &Client, loaded: &Loaded) -> Result<(), Refused> {
    let kind = Kind::of_word(loaded.word);
    let Some(kind) = kind else { return Ok(()) };
    let now = load(client, kind, &loaded.name).await?;
    if now.revision == 0 {
        return Ok(());
    }
    Err(Refused {
        failure: Failure::new(format!(
            "could not update {} `{}`: somebody wrote it meanwhile",
            loaded.word, loaded.name
        )),
        code: Some(Code::Aborted),
    })
}
