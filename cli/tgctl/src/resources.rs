//! `tgctl get` and `tgctl rm`: resources by kind and name.

use std::str::FromStr;

use serde::Serialize;
use tidegate_console::{
    Failure, Format, Output, Table,
    client::Client,
    inventory::{self, Query},
    output, resource, rpc,
    table::visible,
};
use tidegate_proto::v1::{
    self, DeleteDatabaseRequest, DeleteDiscoveryConfigRequest, DeleteLockRequest,
    DeleteRoleRequest, ListDiscoveryConfigsRequest, ListRolesRequest,
};

use crate::{databases, discovery, health, locks, requests, tokens, users};

/// Kinds of resources, by the names that people type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    AccessRequest,
    Database,
    DatabaseServer,
    DiscoveryConfig,
    HealthCheckConfig,
    Lock,
    Role,
    Token,
    User,
}

impl Kind {
    const ALL: [Self; 9] = [
        Self::AccessRequest,
        Self::Database,
        Self::DatabaseServer,
        Self::DiscoveryConfig,
        Self::HealthCheckConfig,
        Self::Lock,
        Self::Role,
        Self::Token,
        Self::User,
    ];

    /// The kind as resources of it have it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::AccessRequest => "access_request",
            Self::Database => "db",
            Self::DatabaseServer => "db_server",
            Self::DiscoveryConfig => "discovery_config",
            Self::HealthCheckConfig => "health_check_config",
            Self::Lock => "lock",
            Self::Role => "role",
            Self::Token => "token",
            Self::User => "user",
        }
    }

    /// The kind of this word.
    pub(crate) fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

/// A kind, and a name when one of it is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) kind: Kind,
    pub(crate) name: Option<String>,
}

impl FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, name) = match text.split_once('/') {
            Some((kind, name)) => (kind, Some(name)),
            None => (text, None),
        };
        let kind = match kind.to_ascii_lowercase().as_str() {
            "access_request" | "access_requests" | "request" | "requests" => Kind::AccessRequest,
            "db" | "dbs" | "database" | "databases" => Kind::Database,
            "db_server" | "db_servers" => Kind::DatabaseServer,
            "discovery_config" | "discovery_configs" => Kind::DiscoveryConfig,
            "health_check_config" | "health_check_configs" => Kind::HealthCheckConfig,
            "lock" | "locks" => Kind::Lock,
            "role" | "roles" => Kind::Role,
            "token" | "tokens" => Kind::Token,
            "user" | "users" => Kind::User,
            _ => {
                return Err(format!(
                    "there is no kind of resource `{kind}`; kinds are access_request, db, db_server, discovery_config, health_check_config, lock, role, user and token"
                ));
            }
        };
        if name == Some("") {
            return Err("a name is missing after the slash".to_owned());
        }
        Ok(Self {
            kind,
            name: name.map(str::to_owned),
        })
    }
}

pub(crate) async fn get(
    client: &Client,
    reference: Reference,
    format: Format,
) -> Result<(), Failure> {
    let Reference { kind, name } = reference;
    let out = Output::new(format);
    match kind {
        Kind::AccessRequest => {
            let found = requests::list(client, name.as_deref()).await?;
            out.list(&found, || requests::table(&found))
        }
        Kind::Database => {
            let found = get_databases(client, name.as_deref()).await?;
            let found: Vec<_> = found.iter().map(resource::Database::from).collect();
            out.list(&found, || database_table(&found))
        }
        Kind::DatabaseServer => {
            let found = get_servers(client, name.as_deref()).await?;
            let found: Vec<_> = found.iter().map(resource::DatabaseServer::from).collect();
            out.list(&found, || databases::table(&found, true))
        }
        Kind::DiscoveryConfig => {
            let found = named("discovery_config", discovery_configs(client).await?, name)?;
            out.list(&found, || discovery_config_table(&found))
        }
        Kind::HealthCheckConfig => {
            let found = named("health_check_config", health::list(client).await?, name)?;
            out.list(&found, || health::table(&found))
        }
        Kind::Lock => {
            let found = named("lock", locks::list(client).await?, name)?;
            out.list(&found, || locks::table(&found))
        }
        Kind::Role => {
            let found = named("role", list_roles(client).await?, name)?;
            out.list(&found, || role_table(&found))
        }
        Kind::Token => {
            let found = named("token", tokens::list(client).await?, name)?;
            out.list(&found, || tokens::table(&found))
        }
        Kind::User => {
            let found = named("user", users::list(client).await?, name)?;
            out.list(&found, || users::table(&found))
        }
    }
}

async fn get_databases(client: &Client, name: Option<&str>) -> Result<Vec<v1::Database>, Failure> {
    let mut inventory = client.inventory();
    match name {
        Some(name) => Ok(vec![inventory::find(&mut inventory, name).await?]),
        None => inventory::databases(&mut inventory, &Query::default()).await,
    }
}

/// The servers of one database, or all. A database that is written in an agent's configuration is nowhere but in its
/// servers, so an exact name is looked for there first.
async fn get_servers(
    client: &Client,
    name: Option<&str>,
) -> Result<Vec<v1::DatabaseServer>, Failure> {
    let mut inventory = client.inventory();
    let all = Query::default();
    let Some(name) = name else {
        return inventory::servers(&mut inventory, &all, "").await;
    };
    let found = inventory::servers(&mut inventory, &all, name).await?;
    if !found.is_empty() {
        return Ok(found);
    }
    let database = inventory::find(&mut inventory, name).await?;
    let found = inventory::servers(&mut inventory, &all, &database.name).await?;
    if found.is_empty() {
        output::remark(&format!(
            "No agent serves \"{}\" now. An agent picks it up when its `db_service.resources` labels match.",
            visible(&database.name)
        ));
    }
    Ok(found)
}

pub(crate) async fn list_roles(client: &Client) -> Result<Vec<resource::Role>, Failure> {
    let listed = rpc::call(
        "list roles",
        client.access().list_roles(ListRolesRequest {}),
    )
    .await?;
    Ok(listed.roles.iter().map(resource::Role::from).collect())
}

pub(crate) async fn list_discovery_configs(
    client: &Client,
) -> Result<Vec<v1::DiscoveryConfig>, Failure> {
    let mut discovery = client.discovery();
    let listed = rpc::call(
        "list discovery configurations",
        discovery.list_discovery_configs(ListDiscoveryConfigsRequest {}),
    )
    .await?;
    Ok(listed.configs)
}

/// With their status, which the scopes tell.
async fn discovery_configs(client: &Client) -> Result<Vec<resource::DiscoveryConfig>, Failure> {
    let configs = list_discovery_configs(client).await?;
    let scopes = discovery::scopes(client).await?;
    let with_status = |config: &v1::DiscoveryConfig| {
        let mut shown = resource::DiscoveryConfig::from(config);
        shown.status = Some(resource::discovery_config_status(&config.name, &scopes));
        shown
    };
    Ok(configs.iter().map(with_status).collect())
}

/// All, or the one with exactly this name.
fn named<Spec: Serialize, Status: Serialize>(
    kind: &str,
    all: Vec<resource::Resource<Spec, Status>>,
    name: Option<String>,
) -> Result<Vec<resource::Resource<Spec, Status>>, Failure> {
    let Some(name) = name else { return Ok(all) };
    let found = all
        .into_iter()
        .find(|resource| resource.metadata.name == name);
    found
        .map(|resource| vec![resource])
        .ok_or_else(|| not_there(kind, &name))
}

/// There is none of this name.
pub(crate) fn not_there(kind: &str, name: &str) -> Failure {
    Failure::new(format!("there is no {kind} `{name}`"))
        .hint(format!("`tgctl get {kind}` lists them"))
}

pub(crate) fn database_table(databases: &[resource::Database]) -> Table {
    let mut table =
        Table::new(["Name", "Description", "Protocol", "URI", "Labels"]).shrinking("Labels");
    for database in databases {
        table.row([
            database.metadata.name.as_str(),
            &database.metadata.description,
            &database.spec.protocol,
            &database.spec.uri,
            &databases::labels_text(&database.metadata, false),
        ]);
    }
    table
}

pub(crate) fn discovery_config_table(configs: &[resource::DiscoveryConfig]) -> Table {
    let mut table = Table::new(["Name", "Group", "Matchers", "Databases", "State"]);
    for config in configs {
        let status = config.status.as_ref();
        let state = status.map_or("", |status| status.state);
        table.row([
            config.metadata.name.as_str(),
            &config.spec.discovery_group,
            &config.spec.aws.len().to_string(),
            &status
                .map_or(0, |status| status.discovered_resources)
                .to_string(),
            &state
                .trim_start_matches("DISCOVERY_CONFIG_STATE_")
                .to_ascii_lowercase(),
        ]);
    }
    table
}

pub(crate) fn role_table(roles: &[resource::Role]) -> Table {
    let mut table = Table::new(["Role", "DB Labels", "DB Users", "DB Names"]);
    for role in roles {
        let allow = &role.spec.allow;
        let labels: Vec<String> = allow
            .db_labels
            .iter()
            .map(|(key, values)| format!("{key}={}", values.join("|")))
            .collect();
        table.row([
            role.metadata.name.as_str(),
            &labels.join(","),
            &allow.db_users.join(","),
            &allow.db_names.join(","),
        ]);
    }
    table
}

pub(crate) async fn rm(client: &Client, reference: Reference) -> Result<(), Failure> {
    let Some(name) = reference.name else {
        return Err(Failure::usage("which one is to be removed?").hint("tgctl rm KIND/NAME"));
    };
    let what = match reference.kind {
        Kind::AccessRequest => return requests::rm(client, &[name]).await,
        Kind::Database => {
            let request = DeleteDatabaseRequest { name: name.clone() };
            let doing = format!("remove database `{name}`");
            let _: v1::DeleteDatabaseResponse =
                rpc::call(&doing, client.inventory().delete_database(request)).await?;
            "Database"
        }
        Kind::DatabaseServer => {
            return Err(Failure::usage("a database server cannot be removed")
                .hint("it goes when its agent stops, or when the agent's labels no longer match"));
        }
        Kind::DiscoveryConfig => {
            let request = DeleteDiscoveryConfigRequest { name: name.clone() };
            let doing = format!("remove discovery_config `{name}`");
            let _: v1::DeleteDiscoveryConfigResponse =
                rpc::call(&doing, client.discovery().delete_discovery_config(request)).await?;
            "Discovery configuration"
        }
        Kind::HealthCheckConfig => {
            health::rm(client, &name).await?;
            "Health check configuration"
        }
        Kind::Lock => {
            let request = DeleteLockRequest { name: name.clone() };
            let doing = format!("remove lock `{name}`");
            let _: v1::DeleteLockResponse =
                rpc::call(&doing, client.access().delete_lock(request)).await?;
            "Lock"
        }
        Kind::Role => {
            let request = DeleteRoleRequest { name: name.clone() };
            let doing = format!("remove role `{name}`");
            let _: v1::DeleteRoleResponse =
                rpc::call(&doing, client.access().delete_role(request)).await?;
            "Role"
        }
        Kind::Token => return tokens::rm(client, &name).await,
        Kind::User => return users::rm(client, &[name]).await,
    };
    output::print(&format!(
        "{what} \"{}\" has been removed.\n",
        visible(&name)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_named_by_kind_and_name() {
        let parsed: Reference = "db_server/orders".parse().unwrap();
        assert_eq!(
            parsed,
            Reference {
                kind: Kind::DatabaseServer,
                name: Some("orders".to_owned())
            }
        );
        assert_eq!("roles".parse::<Reference>().unwrap().name, None);
        for bad in ["node", "db/", ""] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
    }
}
