//! `tidegate db`: an agent from flags alone, and the doctor on an agent's host.

pub(crate) mod doctor;
mod flags;
mod labels;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use tidegate_service::settings::{self, ConfigError, ConfigProblem, Settings};

use flags::Written;

#[derive(Debug, Subcommand)]
pub(crate) enum DbCommand {
    /// Serve one database that is described by flags, until SIGTERM or SIGINT.
    #[command(after_help = START_EXAMPLES)]
    Start(Box<StartArgs>),
    /// Walk the way from this host to a database, step by step, and say where it ends and who can put it right.
    #[command(after_help = doctor::EXAMPLES)]
    Doctor(doctor::DoctorArgs),
}

const START_EXAMPLES: &str = "\
Examples:
  A Redshift cluster:
    tidegate db start --token=/tmp/token --proxy=proxy.example.com --ca-pin=sha256:… \\
      --name=orders --protocol=postgres \\
      --uri=orders.abc123.us-east-1.redshift.amazonaws.com:5439 --labels=env=prod,team=sales

  A PostgreSQL on this network, with its own CA and a label from a command that runs every hour:
    tidegate db start --token=/tmp/token --auth-server=auth.example.com --name=stock --protocol=postgres \\
      --uri=stock.internal:5432 --ca-cert=/etc/stock-ca.pem --labels='env=dev,rack=[1h:cat /etc/rack]'

  What a file says, and nothing else:
    tidegate db start -c /etc/tidegate.yaml

The flags are read as the same settings in a file would be: every check and default is that of `tidegate start -c`.

Exit codes: 0 when all is well, 1 otherwise.";

const JOINING: &str = "Joining";
const DATABASE: &str = "The database";
const AWS: &str = "The database in AWS";
const WITHOUT_FILE: &str = "config";

/// `tidegate db start`. Names are those that people know from `teleport db start`.
#[derive(Debug, Default, Args)]
pub(crate) struct StartArgs {
    /// A configuration file, instead of all other flags but `--debug`.
    #[arg(short, long, value_name = "FILE", conflicts_with = "flags")]
    config: Option<PathBuf>,
    /// Log in detail.
    #[arg(short, long)]
    pub(crate) debug: bool,
    #[command(flatten)]
    flags: Flags,
}

impl StartArgs {
    /// Whether the flags are all there is.
    pub(crate) const fn has_no_file(&self) -> bool {
        self.config.is_none()
    }
}

/// What describes an agent and its database.
#[derive(Clone, Debug, Default, Args)]
#[group(id = "flags", multiple = true)]
pub(crate) struct Flags {
    /// The join token, or better the file that holds it: other users of this host see command lines.
    #[arg(long, value_name = "TOKEN", help_heading = JOINING)]
    token: Option<String>,
    /// How to prove that this process may join: `token` or `iam`; with `iam` the token is a name.
    #[arg(long, value_name = "METHOD", help_heading = JOINING)]
    join_method: Option<String>,
    /// Address of an auth service [port: 3025].
    #[arg(long, value_name = "ADDR", help_heading = JOINING)]
    auth_server: Option<String>,
    /// Address of a proxy, which relays to the auth service [port: 3080].
    #[arg(long, value_name = "ADDR", help_heading = JOINING)]
    proxy: Option<String>,
    /// Pin of the cluster's CA, or the file that holds it. May be repeated.
    #[arg(long, value_name = "PIN", help_heading = JOINING)]
    ca_pin: Vec<String>,
    /// Name of this process for people [default: the host's name].
    #[arg(long, value_name = "NAME", help_heading = JOINING)]
    nodename: Option<String>,
    /// Where this process keeps its identity [default: /var/lib/tidegate].
    #[arg(long, value_name = "DIR", help_heading = JOINING)]
    data_dir: Option<String>,
    /// Where /healthz, /readyz and /metrics are served [default: nowhere].
    #[arg(long, value_name = "ADDR", help_heading = JOINING)]
    diag_addr: Option<String>,

    /// Name of the database.
    #[arg(long, value_name = "NAME", required_unless_present = WITHOUT_FILE, help_heading = DATABASE)]
    name: Option<String>,
    /// One line about it.
    #[arg(long, value_name = "TEXT", help_heading = DATABASE)]
    description: Option<String>,
    /// What it speaks: `postgres` or `mysql`.
    #[arg(long, value_name = "PROTOCOL", required_unless_present = WITHOUT_FILE, help_heading = DATABASE)]
    protocol: Option<String>,
    /// Where it listens: `host:port`.
    #[arg(long, value_name = "ADDR", required_unless_present = WITHOUT_FILE, help_heading = DATABASE)]
    uri: Option<String>,
    /// Its labels: `env=prod,rate=[5s:cmd]`; the second is what the command prints, every 5 s.
    #[arg(long, value_name = "LABELS", help_heading = DATABASE)]
    labels: Option<String>,
    /// File of the CA of its certificate [default: what the system trusts].
    #[arg(long, visible_alias = "ca-cert-file", value_name = "FILE", help_heading = DATABASE)]
    ca_cert: Option<String>,

    /// Its region [default: as its address says].
    #[arg(long, value_name = "REGION", help_heading = AWS)]
    aws_region: Option<String>,
    /// The account that owns it, 12 digits.
    #[arg(long, value_name = "ID", help_heading = AWS)]
    aws_account_id: Option<String>,
    /// The role to assume for it.
    #[arg(long, value_name = "ARN", help_heading = AWS)]
    aws_assume_role_arn: Option<String>,
    /// The external id to assume that role with.
    #[arg(long, value_name = "ID", help_heading = AWS)]
    aws_external_id: Option<String>,
    /// Identifier of a Redshift cluster [default: as its address says].
    #[arg(long, value_name = "ID", help_heading = AWS)]
    aws_redshift_cluster_id: Option<String>,
    /// Name of a Redshift Serverless workgroup.
    #[arg(long, value_name = "NAME", help_heading = AWS)]
    aws_redshift_serverless_workgroup_name: Option<String>,
    /// Identifier of an RDS instance.
    #[arg(long, value_name = "ID", help_heading = AWS)]
    aws_rds_instance_id: Option<String>,
    /// Identifier of an Aurora or Multi-AZ cluster.
    #[arg(long, value_name = "ID", help_heading = AWS)]
    aws_rds_cluster_id: Option<String>,
}

/// The settings that a file or the flags give, and that a process can start with.
///
/// # Errors
///
/// For everything that is wrong, each with the flag or the line that it is about.
pub(crate) fn start_settings(args: &StartArgs) -> anyhow::Result<Settings> {
    if let Some(file) = &args.config {
        let settings = settings::load(file)?;
        settings.check_startable()?;
        anyhow::ensure!(
            settings.database.is_some(),
            "{}: it enables no `db_service`, which is all that `tidegate db start` runs beside what else it enables",
            file.display()
        );
        return Ok(settings);
    }
    let written = flags::write(&args.flags)?;
    let mut settings = settings::parse(&written.text, Path::new(flags::PLACE))
        .map_err(|error| told_of_flags(error, &written))?;
    settings
        .check_startable()
        .map_err(|error| told_of_flags(error, &written))?;
    for warning in &mut settings.warnings {
        if let Some(flag) = written.flags.get(&warning.line) {
            warning.message = format!("{flag}: {}", warning.message);
        }
        warning.line = 0;
    }
    Ok(settings)
}

/// What is wrong, told of the flags and not of the text that was made of them.
fn told_of_flags(error: ConfigError, written: &Written) -> anyhow::Error {
    if error.problems().is_empty() {
        return error.into();
    }
    anyhow::anyhow!(lines(error.problems(), &written.flags).join("\n"))
}

fn lines(problems: &[ConfigProblem], flags: &BTreeMap<u64, &'static str>) -> Vec<String> {
    let line = |problem: &ConfigProblem| match flags.get(&problem.line) {
        Some(flag) => {
            let key = String::new();
            format!(
                "{flag}: {}",
                ConfigProblem {
                    key,
                    ..problem.clone()
                }
            )
        }
        None => problem.to_string(),
    };
    problems.iter().map(line).collect()
}

#[cfg(test)]
mod tests;
