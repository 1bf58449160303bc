//! `tgctl db doctor`: has an agent that runs look into what keeps sessions from a database.

use std::time::Duration;

use clap::Args;
use tidegate_console::{
    Failure, Format, Output,
    client::Client,
    inventory::{self, Query},
    rpc,
};
use tidegate_core::Diagnosis;
use tidegate_proto::v1;

/// Longer than the auth service waits for an agent.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(125);

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tgctl db doctor orders --db-user=reader\n  tgctl db doctor orders --db-user=role/analyst --db-name=dev --host=ip-10-0-0-111\n  tgctl db doctor orders --db-user=reader --format=json | jq -r '.verdict.fixes[0].json'\n\nThe agent takes the steps of a session: whether it serves the database, DNS, TCP, TLS, its AWS credentials, each role, the \
                  password, the login and `SELECT 1`. It stops at the first that fails. Redshift makes the user of a role \
                  (`role/x`) at its first login; nothing else is changed. It is audited as `db.diagnose`.\n\nJSON and YAML: {database, db_user, db_name, \
                  host, steps, verdict}; see docs/guides/doctor.md.\n\nExit codes: 0 every step passed; 3 a step failed; 1 for errors."
)]
pub(crate) struct DoctorArgs {
    /// The database: its name, the one without type, region and account, or a prefix that no other has.
    #[arg(value_name = "NAME")]
    name: String,
    /// The database user to log in as, or a role: `role/name` or its ARN. Without one nobody logs in.
    #[arg(
        long,
        value_name = "USER",
        default_value = "",
        hide_default_value = true
    )]
    db_user: String,
    /// The logical database [default: `dev` of Redshift, else `postgres`].
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    db_name: String,
    /// The agent, by its host name or host id [default: one that serves the database, healthy ones first].
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// How the result is written.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Asks, and prints the diagnosis.
pub(crate) async fn doctor(client: &Client, args: DoctorArgs) -> Result<(), Failure> {
    let (name, servers) = served(client, args.name).await?;
    let host_id = choose(&servers, args.host.as_deref(), &name)?.to_owned();
    let question = v1::DiagnoseRequest {
        database: name,
        db_user: args.db_user,
        db_name: args.db_name,
        host_id,
    };
    let doing = "ask the agent";
    let mut doctor = client.diagnoses();
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, doctor.diagnose(question)).await;
    let diagnosis = match answer {
        Ok(Ok(answer)) => Diagnosis::try_from(answer.into_inner()).map_err(|invalid| {
            Failure::new(format!("the agent's answer cannot be read: {invalid}"))
        })?,
        Ok(Err(status)) => return Err(rpc::failure(doing, &status)),
        Err(_) => {
            let seconds = ANSWER_TIMEOUT.as_secs();
            return Err(Failure::new(format!("no answer within {seconds} seconds")).within(doing));
        }
    };
    Output::new(args.format).value(&diagnosis, || diagnosis.to_string())?;
    if diagnosis.is_well() {
        Ok(())
    } else {
        Err(Failure::unwell())
    }
}

/// Who serves the database that is meant. One that nobody serves may be registered under a longer name.
async fn served(
    client: &Client,
    wanted: String,
) -> Result<(String, Vec<v1::DatabaseServer>), Failure> {
    let mut inventory = client.inventory();
    let servers = inventory::servers(&mut inventory, &Query::default(), &wanted).await?;
    if !servers.is_empty() {
        return Ok((wanted, servers));
    }
    let found = inventory::find(&mut inventory, &wanted).await?;
    let servers = inventory::servers(&mut inventory, &Query::default(), &found.name).await?;
    Ok((found.name, servers))
}

/// The host id of the agent to ask. Pure.
fn choose<'s>(
    servers: &'s [v1::DatabaseServer],
    wanted: Option<&str>,
    name: &str,
) -> Result<&'s str, Failure> {
    let is_wanted = |server: &&v1::DatabaseServer| {
        wanted.is_none_or(|wanted| server.hostname == wanted || server.host_id == wanted)
    };
    let rank = |server: &&v1::DatabaseServer| {
        let health = server.target_health.as_ref();
        match health.map(|health| health.status.as_str()) {
            Some("healthy") => 0,
            Some("unhealthy") => 2,
            _ => 1,
        }
    };
    let chosen = servers.iter().filter(is_wanted).min_by_key(rank);
    chosen.map(|server| server.host_id.as_str()).ok_or_else(|| {
        let hosts: Vec<&str> = servers.iter().map(|server| server.hostname.as_str()).collect();
        match wanted {
            Some(wanted) if !hosts.is_empty() => {
                Failure::new(format!("no agent `{wanted}` serves `{name}`"))
                    .hint(format!("these do: {}", hosts.join(", ")))
            }
            _ => Failure::new(format!("no agent serves `{name}`")).hint(
                "`tidegate db doctor` on the host of an agent that should serve it says why it does not",
            ),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(hostname: &str, status: &str) -> v1::DatabaseServer {
        v1::DatabaseServer {
            hostname: hostname.to_owned(),
            host_id: format!("id-{hostname}"),
            target_health: Some(v1::TargetHealth {
                status: status.to_owned(),
                ..v1::TargetHealth::default()
            }),
            ..v1::DatabaseServer::default()
        }
    }

    #[test]
    fn a_healthy_agent_is_asked_unless_another_is_named_by_name_or_id() {
        let servers = [server("a", "unhealthy"), server("b", "healthy")];
        let choose = |wanted| choose(&servers, wanted, "orders");
        assert_eq!(choose(None).unwrap(), "id-b");
        assert_eq!(choose(Some("a")).unwrap(), "id-a");
        assert_eq!(choose(Some("id-a")).unwrap(), "id-a");
        let failure = choose(Some("c")).unwrap_err();
        assert_eq!(failure.hint_text(), Some("these do: a, b"));
    }

    #[test]
    fn a_database_that_nobody_serves_is_looked_into_on_a_host() {
        let failure = choose(&[], None, "orders").unwrap_err();
        assert!(failure.hint_text().unwrap().contains("tidegate db doctor"));
    }
}
