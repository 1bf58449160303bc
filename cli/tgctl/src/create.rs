//! `tgctl create`: databases, discovery and health check configurations, locks, roles, tokens and users from a file.
//!
//! A file is read and checked whole before anything is sent: one wrong document and nothing is created.

mod health;
mod lock;
mod place;
mod role;
mod token;
mod user;

use std::{
    fs,
    io::{self, Read},
    path::Path,
};

use tidegate_console::{Failure, client::Client, output, rpc};
use tidegate_core::{Database, Role};
use tidegate_proto::v1::{
    self, CreateDatabaseRequest, DeleteDatabaseRequest, ListRolesRequest,
    UpsertDiscoveryConfigRequest, UpsertLockRequest, UpsertRoleRequest,
};
use tidegate_service::settings::{
    Warning,
    resource::{self, DiscoveryConfig},
};
use tonic::Code;

use crate::{args::CreateArgs, locks, resources, tokens};

/// Largest file of resources.
pub(crate) const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What a document asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Wanted {
    Database(Box<Database>),
    DiscoveryConfig(Box<DiscoveryConfig>),
    HealthCheckConfig(Box<v1::HealthCheckConfig>),
    Lock(Box<v1::Lock>),
    Role(Box<Role>),
    Token(Box<v1::UpsertTokenRequest>),
    User(Box<v1::User>),
}

impl Wanted {
    /// Its kind and its name.
    pub(crate) fn reference(&self) -> (&'static str, &str) {
        match self {
            Self::Database(database) => ("db", database.name.as_str()),
            Self::DiscoveryConfig(config) => ("discovery_config", &config.name),
            Self::HealthCheckConfig(config) => ("health_check_config", &config.name),
            Self::Lock(lock) => ("lock", &lock.name),
            Self::Role(role) => ("role", &role.name),
            Self::Token(request) => ("token", &request.name),
            Self::User(user) => ("user", &user.name),
        }
    }
}

/// Reads and checks a file, or standard input.
pub(crate) fn read(args: &CreateArgs) -> Result<Vec<Wanted>, Failure> {
    let text = read_text(&args.file)?;
    let (wanted, warnings) = parse(&text, &args.file)?;
    warn(&args.file, &warnings);
    if wanted.is_empty() {
        return Err(Failure::new(format!(
            "{} holds no resource",
            args.file.display()
        )));
    }
    Ok(wanted)
}

/// Tells what looks wrong in a file without being wrong.
pub(crate) fn warn(file: &Path, warnings: &[Warning]) {
    for warning in warnings {
        output::remark(&format!(
            "{}:{}: warning: {}",
            file.display(),
            warning.line,
            warning.message
        ));
    }
}

/// The text of a file, or of standard input.
pub(crate) fn read_text(file: &Path) -> Result<String, Failure> {
    let unreadable =
        |error: io::Error| Failure::new(format!("cannot read {}: {error}", file.display()));
    let input: Box<dyn Read> = if file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(fs::File::open(file).map_err(unreadable)?)
    };
    let mut text = String::new();
    input
        .take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(Failure::new(format!(
            "{} is larger than {FILE_BYTES_MAX} bytes",
            file.display()
        )));
    }
    Ok(text)
}

/// Reads and checks the resources of a text; `file` is what errors call it.
pub(crate) fn parse(text: &str, file: &Path) -> Result<(Vec<Wanted>, Vec<Warning>), Failure> {
    let (mut wanted, mut warnings) = (Vec::new(), Vec::new());
    for document in documents(text) {
        if role::is_of_kind(&document, "role") {
            let (roles, told) =
                role::parse(&document).map_err(|problems| place::failure(file, &problems))?;
            warnings.extend(told);
            wanted.extend(roles.into_iter().map(|role| Wanted::Role(Box::new(role))));
            continue;
        }
        if role::is_of_kind(&document, "lock") {
            let locks =
                lock::parse(&document).map_err(|problems| place::failure(file, &problems))?;
            wanted.extend(locks.into_iter().map(|lock| Wanted::Lock(Box::new(lock))));
            continue;
        }
        if role::is_of_kind(&document, "token") {
            let tokens =
                token::parse(&document).map_err(|problems| place::failure(file, &problems))?;
            wanted.extend(
                tokens
                    .into_iter()
                    .map(|token| Wanted::Token(Box::new(token))),
            );
            continue;
        }
        if role::is_of_kind(&document, "health_check_config") {
            let configs =
                health::parse(&document).map_err(|problems| place::failure(file, &problems))?;
            let configs = configs.into_iter().map(Box::new);
            wanted.extend(configs.map(Wanted::HealthCheckConfig));
            continue;
        }
        if role::is_of_kind(&document, "user") {
            let users =
                user::parse(&document).map_err(|problems| place::failure(file, &problems))?;
            wanted.extend(users.into_iter().map(|user| Wanted::User(Box::new(user))));
            continue;
        }
        let read = resource::read_resources(&document)
            .map_err(|error| Failure::new(error.in_file(file)))?;
        warnings.extend(read.warnings);
        for resource in read.resources {
            match resource {
                resource::Resource::Database(database) => {
                    wanted.push(Wanted::Database(database));
                }
                resource::Resource::DiscoveryConfig(config) => {
                    wanted.push(Wanted::DiscoveryConfig(Box::new(config)));
                }
                other => {
                    return Err(Failure::new(format!(
                        "{}: this program cannot create {other:?}",
                        file.display()
                    )));
                }
            }
        }
    }
    Ok((wanted, warnings))
}

/// The documents of a file, each with as many empty lines before it as keep its line numbers right.
pub(crate) fn documents(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for (number, line) in text.lines().enumerate() {
        if line == "---" || line.starts_with("--- ") {
            documents.push("\n".repeat(number));
        }
        if let Some(document) = documents.last_mut() {
            let content = line.strip_prefix("---").filter(|_| line.len() == 3);
            document.push_str(content.unwrap_or(line));
            document.push('\n');
        }
    }
    documents.retain(|document| !document.trim().is_empty());
    documents
}

/// Creates what was read, in its order; stops at the first that cannot be.
pub(crate) async fn create(
    client: &Client,
    wanted: Vec<Wanted>,
    replace: bool,
) -> Result<(), Failure> {
    for one in wanted {
        match one {
            Wanted::Database(database) => {
                Box::pin(create_database(client, *database, replace)).await?;
            }
            Wanted::DiscoveryConfig(config) => {
                create_discovery_config(client, *config, replace).await?;
            }
            Wanted::HealthCheckConfig(config) => {
                crate::health::create(client, *config, replace).await?;
            }
            Wanted::Lock(lock) => create_lock(client, *lock, replace).await?,
            Wanted::Role(role) => Box::pin(create_role(client, *role, replace)).await?,
            Wanted::Token(token) => tokens::create(client, *token, replace).await?,
            Wanted::User(user) => user::create(client, *user, replace).await?,
        }
    }
    Ok(())
}

async fn create_database(
    client: &Client,
    database: Database,
    replace: bool,
) -> Result<(), Failure> {
    let name = database.name.to_string();
    let doing = format!("create database `{name}`");
    let request = CreateDatabaseRequest {
        database: Some(database.into()),
    };
    let mut inventory = client.inventory();
    match inventory.create_database(request.clone()).await {
        Ok(_) => {}
        Err(status) if status.code() == Code::AlreadyExists && replace => {
            let old = DeleteDatabaseRequest { name: name.clone() };
            let _: v1::DeleteDatabaseResponse = rpc::call(
                &format!("replace database `{name}`"),
                inventory.delete_database(old),
            )
            .await?;
            rpc::call(&doing, inventory.create_database(request)).await?;
        }
        Err(status) => return Err(exists_hint(rpc::failure(&doing, &status), status.code())),
    }
    output::print(&format!("Database \"{name}\" has been created.\n"))
}

async fn create_discovery_config(
    client: &Client,
    config: DiscoveryConfig,
    replace: bool,
) -> Result<(), Failure> {
    let name = config.name.clone();
    if !replace {
        let listed = resources::list_discovery_configs(client).await?;
        if listed.iter().any(|config| config.name == name) {
            let failure = Failure::new(format!("there is a discovery_config `{name}` already"));
            return Err(exists_hint(failure, Code::AlreadyExists));
        }
    }
    let request = UpsertDiscoveryConfigRequest {
        config: Some(discovery_config(config)),
    };
    rpc::call(
        &format!("create discovery_config `{name}`"),
        client.discovery().upsert_discovery_config(request),
    )
    .await?;
    output::print(&format!(
        "Discovery configuration \"{name}\" has been created.\n"
    ))
}

/// A configuration as it is sent.
pub(crate) fn discovery_config(config: DiscoveryConfig) -> v1::DiscoveryConfig {
    v1::DiscoveryConfig {
        name: config.name,
        discovery_group: config.discovery_group,
        aws: config.matchers.into_iter().map(Into::into).collect(),
        revision: 0,
    }
}

async fn create_lock(client: &Client, lock: v1::Lock, replace: bool) -> Result<(), Failure> {
    let name = lock.name.clone();
    if !replace {
        let listed = locks::list(client).await?;
        if listed.iter().any(|lock| lock.metadata.name == name) {
            let failure = Failure::new(format!("there is a lock `{name}` already"));
            return Err(exists_hint(failure, Code::AlreadyExists));
        }
    }
    let request = UpsertLockRequest { lock: Some(lock) };
    let doing = format!("create lock `{name}`");
    rpc::call(&doing, client.access().upsert_lock(request)).await?;
    output::print(&format!("Lock \"{name}\" has been created.\n"))
}

async fn create_role(client: &Client, role: Role, replace: bool) -> Result<(), Failure> {
    let name = role.name.clone();
    let mut access = client.access();
    if !replace {
        let listed = rpc::call("list roles", access.list_roles(ListRolesRequest {})).await?;
        if listed.roles.iter().any(|role| role.name == name) {
            let failure = Failure::new(format!("there is a role `{name}` already"));
            return Err(exists_hint(failure, Code::AlreadyExists));
        }
    }
    let request = UpsertRoleRequest {
        role: Some(role.into()),
    };
    rpc::call(
        &format!("create role `{name}`"),
        access.upsert_role(request),
    )
    .await?;
    output::print(&format!("Role \"{name}\" has been created.\n"))
}

pub(crate) fn exists_hint(failure: Failure, code: Code) -> Failure {
    if code == Code::AlreadyExists {
        failure.hint("`tgctl create -f FILE` replaces what is there")
    } else {
        failure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DB: &str = "\
kind: db
version: v3
metadata:
  name: rds-postgres
spec:
  protocol: postgres
  uri: rds-postgres.abcdef012345.us-west-1.rds.amazonaws.com:5432
";

    const CONFIG: &str = "\
kind: discovery_config
version: v1
metadata:
  name: team
spec:
  discovery_group: prod
  aws:
  - types: [redshift]
    regions: ['*']
    tags: {env: [dev, stage]}
    assume_role: {role_arn: 'arn:aws:iam::111122223333:role/x', external_id: abc}
    endpoints: {exclude: [reader]}
  - types: [rds]
    regions: [us-east-1]
";

    const ROLE: &str = "\
kind: role
version: v7
metadata:
  name: analyst
spec:
  allow:
    db_labels:
      env: [dev, stage]
    db_users: [reader]
    db_names: ['*']
";

    fn parsed(text: &str) -> Result<Vec<Wanted>, String> {
        parse(text, Path::new("f.yaml"))
            .map(|(wanted, _)| wanted)
            .map_err(|failure| failure.message().to_owned())
    }

    #[test]
    fn databases_and_roles_may_share_a_file() {
        let wanted = parsed(&format!("{DB}---\n{ROLE}--- # the end\n")).unwrap();
        let [Wanted::Database(database), Wanted::Role(role)] = wanted.as_slice() else {
            panic!("{wanted:?}");
        };
        assert_eq!(database.name.as_str(), "rds-postgres");
        assert_eq!(role.name, "analyst");
        assert_eq!(role.allow.db_users, ["reader"]);
        assert_eq!(role.allow.db_labels.written()["env"], ["dev", "stage"]);
    }

    #[test]
    fn a_wrong_document_is_told_with_its_line_in_the_file() {
        let problem =
            parsed(&format!("{DB}---\nkind: db\nversion: v3\nmetadata: {{}}\n")).unwrap_err();
        assert!(problem.starts_with("f.yaml:9:"), "{problem}");
        let problem = parsed(&format!("{DB}---\n{ROLE}    logins: [root]\n")).unwrap_err();
        assert!(
            problem.contains("logins") && problem.contains("19"),
            "{problem}"
        );
    }

    #[test]
    fn what_get_prints_can_be_given_back() {
        let role = Role::builtin().into_iter().next().unwrap();
        let printed = output::yaml(&tidegate_console::resource::Role::from(
            &role.clone().into(),
        ))
        .unwrap();
        assert_eq!(parsed(&printed), Ok(vec![Wanted::Role(Box::new(role))]));

        let database = parsed(DB).unwrap();
        let [Wanted::Database(given)] = database.as_slice() else {
            panic!("{database:?}");
        };
        let message = v1::Database::from((**given).clone());
        let printed = output::yaml(&tidegate_console::resource::Database::from(&message)).unwrap();
        assert_eq!(parsed(&printed), Ok(database));

        let config = parsed(CONFIG).unwrap();
        let [Wanted::DiscoveryConfig(given)] = config.as_slice() else {
            panic!("{config:?}");
        };
        let message = v1::DiscoveryConfig {
            name: given.name.clone(),
            discovery_group: given.discovery_group.clone(),
            aws: given.matchers.iter().cloned().map(Into::into).collect(),
            revision: 4,
        };
        let printed =
            output::yaml(&tidegate_console::resource::DiscoveryConfig::from(&message)).unwrap();
        assert_eq!(parsed(&printed), Ok(config));
    }

    #[test]
    fn what_a_database_is_called_in_aws_survives_get_and_create() {
        let aws = "aws: {region: us-east-1, account_id: '111122223333', redshift_serverless: {workgroup_name: w, endpoint_name: e}, rds: {instance_id: i, cluster_id: c, resource_id: r, iam_auth: true}, rdsproxy: {name: p}}";
        let database = parsed(&format!("{DB}  {aws}\n")).unwrap();
        let [Wanted::Database(given)] = database.as_slice() else {
            panic!("{database:?}");
        };
        assert_eq!(given.aws.rdsproxy_name.as_deref(), Some("p"));
        let message = v1::Database::from((**given).clone());
        let printed = output::yaml(&tidegate_console::resource::Database::from(&message)).unwrap();
        assert_eq!(parsed(&printed), Ok(database));
    }
}
