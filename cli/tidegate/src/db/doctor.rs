//! `tidegate db doctor`: the doctor as the agent of this host, with what its configuration says and its identity.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use tidegate_aws::AwsFactory;
use tidegate_core::{Database, DatabaseName, Diagnosis};
use tidegate_dbservice::doctor::{Doctor, Question};
use tidegate_proto::v1::{
    self, GetDatabaseRequest, ListDatabasesRequest,
    inventory_service_client::InventoryServiceClient,
};
use tidegate_service::{
    clock::SystemClock,
    host::{HostConfig, stored_auth_channel},
    rpc,
    settings::{self, DatabaseSettings, ProcessSettings},
};
use tonic::{Code, Response, Status};

use crate::{CONFIG_DEFAULT, beside};

pub(crate) const EXAMPLES: &str = "\
Examples:
  tidegate db doctor orders --db-user=reader
  tidegate db doctor orders --db-user=role/analyst --db-name=dev
  tidegate db doctor orders --format=json | jq -r '.verdict.fixes[0].json'

Run it on an agent's host, as the service's user and with the service's environment: it looks with the agent's own AWS
credentials, configuration and identity. `tgctl db doctor` asks an agent that runs, from anywhere.

It takes the steps of a session: whether the agent serves the database, DNS, TCP, TLS, the agent's AWS credentials, each
role, the password, the login and `SELECT 1`. It stops at the first that fails. Redshift makes the user of a role (`role/x`) at
its first login; nothing else is changed.

JSON: {database, db_user, db_name, host, steps: [{step, status, what, evidence, took_ms}], verdict: {code, what, who, how,
fixes: [{policy, of, json}], any_of}}; `code` is `ok` or one of docs/reference/errors.md.

Exit codes: 0 every step passed, 1 a step failed, 2 no step was taken.";

/// Most databases that are looked through for one whose name was typed in short.
const NEAR_MAX: i32 = 100;
/// How long the inventory may take to answer.
const INVENTORY_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// The database: its name, the one without type, region and account, or a prefix that no other has.
    #[arg(value_name = "NAME")]
    name: String,
    /// The database user to log in as, or a role: `role/name` or its ARN. Without one nobody logs in.
    #[arg(long, value_name = "USER")]
    db_user: Option<String>,
    /// The logical database [default: `dev` of Redshift, else `postgres`].
    #[arg(long, value_name = "NAME")]
    db_name: Option<String>,
    /// The agent's configuration file.
    #[arg(short, long, value_name = "FILE", default_value = CONFIG_DEFAULT)]
    config: PathBuf,
    /// How the result is written.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// How a diagnosis is written.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Format {
    /// For people; may change.
    #[default]
    Text,
    /// One JSON document; its fields stay.
    Json,
}

/// Looks, prints, and gives the exit code.
pub(crate) fn run(args: &DoctorArgs) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime");
    match runtime.and_then(|runtime| runtime.block_on(diagnose(args))) {
        Ok(diagnosis) => {
            crate::print(written(&diagnosis, args.format).trim_end());
            ExitCode::from(u8::from(!diagnosis.is_well()))
        }
        Err(error) => {
            crate::complain(&format!("{error:#}"));
            ExitCode::from(crate::USAGE)
        }
    }
}

fn written(diagnosis: &Diagnosis, format: Format) -> String {
    match format {
        Format::Text => diagnosis.to_string(),
        Format::Json => serde_json::to_string_pretty(diagnosis)
            .expect("a diagnosis is lists and text, which JSON can hold"),
    }
}

async fn diagnose(args: &DoctorArgs) -> anyhow::Result<Diagnosis> {
    let name: DatabaseName = args.name.parse()?;
    let settings = settings::load(&args.config)?;
    let mut database = settings.database.with_context(|| {
        format!(
            "{}: it enables no `db_service`: run this on an agent's host",
            args.config.display()
        )
    })?;
    let (_, entries) =
        beside::discovery(&database.matchers).context("cannot use `db_service.aws`")?;
    database.resources.extend(entries);
    let inventory = if is_static(&database, &name) {
        None
    } else {
        in_inventory(&settings.process, &name, &args.config).await?
    };
    let question = Question {
        // Typed in short, perhaps.
        database: inventory.as_ref().map_or(name, |found| found.name.clone()),
        db_user: args.db_user.clone(),
        db_name: args.db_name.clone(),
    };
    let aws = AwsFactory::load().await;
    let doctor = Doctor::new(
        aws,
        Arc::new(SystemClock),
        settings.process.nodename,
        &database,
        &settings.process.data_dir,
    );
    Ok(doctor
        .examine(&database, inventory.as_ref(), &question)
        .await)
}

fn is_static(settings: &DatabaseSettings, name: &DatabaseName) -> bool {
    settings
        .databases
        .iter()
        .any(|database| database.name == *name)
}

/// What the inventory has of the database, asked with the identity that the agent keeps on this host.
async fn in_inventory(
    process: &ProcessSettings,
    name: &DatabaseName,
    config: &Path,
) -> anyhow::Result<Option<Database>> {
    let host = HostConfig {
        data_dir: process.data_dir.clone(),
        nodename: process.nodename.clone(),
        services: Vec::new(),
        names: Vec::new(),
        auth_servers: process.auth_servers.clone(),
        proxy_server: process.proxy_server.clone(),
        join: process.join.clone(),
        prover: None,
    };
    let asking = || {
        format!(
            "`{name}` is not in {}, and the inventory cannot be asked for it",
            config.display()
        )
    };
    let channel = stored_auth_channel(&host, &SystemClock).with_context(asking)?;
    let request = GetDatabaseRequest {
        name: name.to_string(),
    };
    let mut client =
        InventoryServiceClient::new(channel).max_decoding_message_size(rpc::MESSAGE_BYTES_MAX);
    let answer = tokio::time::timeout(INVENTORY_TIMEOUT, client.get_database(request)).await;
    match answer {
        Ok(Ok(answer)) => {
            let found = Database::try_from(answer.into_inner());
            Ok(Some(found.with_context(asking)?))
        }
        Ok(Err(status)) if status.code() == Code::NotFound => {
            let near = in_time(client.list_databases(near(name)), asking).await?;
            let meant = meant(name.as_str(), near.databases)?;
            meant
                .map(|found| Database::try_from(found).with_context(asking))
                .transpose()
        }
        Ok(Err(status)) => bail!("{}: {}", asking(), rpc::describe(&status)),
        Err(_) => bail!("{}: {}", asking(), silence()),
    }
}

fn silence() -> String {
    format!("no answer within {} s", INVENTORY_TIMEOUT.as_secs())
}

async fn in_time<T>(
    call: impl Future<Output = Result<Response<T>, Status>>,
    asking: impl Fn() -> String,
) -> anyhow::Result<T> {
    match tokio::time::timeout(INVENTORY_TIMEOUT, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => bail!("{}: {}", asking(), rpc::describe(&status)),
        Err(_) => bail!("{}: {}", asking(), silence()),
    }
}

/// Databases whose names have this in them.
fn near(name: &DatabaseName) -> ListDatabasesRequest {
    ListDatabasesRequest {
        page_size: NEAR_MAX,
        search: vec![name.to_string()],
        ..ListDatabasesRequest::default()
    }
}

/// The one database that is called so without type, region and account, or whose name alone begins so.
fn meant(typed: &str, near: Vec<v1::Database>) -> anyhow::Result<Option<v1::Database>> {
    let fits: [fn(&v1::Database, &str) -> bool; 2] = [
        |database, typed| database.discovered_name == typed,
        |database, typed| database.name.starts_with(typed),
    ];
    for fit in fits {
        let fitting: Vec<&v1::Database> = near
            .iter()
            .filter(|database| fit(database, typed))
            .collect();
        match fitting.as_slice() {
            [] => {}
            [one] => return Ok(Some((*one).clone())),
            several => {
                let names: Vec<&str> = several.iter().map(|one| one.name.as_str()).collect();
                bail!(
                    "`{typed}` fits {} databases, name one of them: {}",
                    names.len(),
                    names.join(", ")
                );
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(name: &str, discovered: &str) -> v1::Database {
        v1::Database {
            name: name.to_owned(),
            discovered_name: discovered.to_owned(),
            ..v1::Database::default()
        }
    }

    #[test]
    fn a_name_in_short_means_one_database_or_none_and_is_never_guessed() {
        let near = || {
            vec![
                database("orders-redshift-us-east-1", "orders"),
                database("orders-redshift-us-west-2", "orders"),
                database("users-redshift-us-east-1", "users"),
            ]
        };
        let name = |typed: &str| meant(typed, near()).unwrap().map(|found| found.name);
        assert_eq!(name("users").as_deref(), Some("users-redshift-us-east-1"));
        assert_eq!(
            name("orders-redshift-us-w").as_deref(),
            Some("orders-redshift-us-west-2")
        );
        assert_eq!(name("redshift"), None);
        let refused = meant("orders", near()).unwrap_err().to_string();
        assert!(
            refused.contains("fits 2 databases") && refused.contains("us-west-2"),
            "{refused}"
        );
    }
}
