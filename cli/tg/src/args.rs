//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use secrecy::SecretString;
use tidegate_console::{Format, profile::ProxyAddr, when};
use tidegate_identity::CaPin;

use crate::request::RequestCommand;

const EXAMPLES: &str = "\
Examples:
  tg login --proxy=tidegate.example.com --user=alice
  tg db ls
  tg db connect --db-user=reader --db-name=dev orders
  tg logout";

/// Connects you to databases through Tidegate.
#[derive(Debug, Parser)]
#[command(name = "tg", version, after_help = EXAMPLES)]
pub(crate) struct Tg {
    /// The cluster's proxy; the port is 3080 when none is given [default: the last one logged in to].
    #[arg(
        long,
        global = true,
        value_name = "HOST[:PORT]",
        env = "TIDEGATE_PROXY",
        hide_env_values = true,
        help_heading = "Which cluster"
    )]
    pub(crate) proxy: Option<ProxyAddr>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Databases: list them, connect to them.
    #[command(subcommand)]
    Db(DbCommand),
    /// Log in to a cluster.
    Login(LoginArgs),
    /// Log out: end your login and forget its certificates, of one proxy when `--proxy` names it, else of all.
    #[command(
        after_help = "Examples:\n  tg logout\n  tg logout --proxy=tidegate.example.com\n  tg logout --all                                           # on every machine\n  tg logout --session=0199f2c4-8c5e-7d1a-b3f0-5a6b7c8d9e0f   # as `tg sessions` shows it"
    )]
    Logout(LogoutArgs),
    /// Second factors: codes of an authenticator app, beside your password.
    #[command(subcommand)]
    Mfa(MfaCommand),
    /// Change your password.
    Passwd(PasswdArgs),
    /// Doors on this machine, for programs that cannot find the way themselves.
    #[command(subcommand)]
    Proxy(ProxyCommand),
    /// Roles that you do not have: ask for them, decide about what others ask for, use what was approved.
    #[command(subcommand, visible_alias = "requests")]
    Request(RequestCommand),
    /// Your logins, on this machine and others.
    #[command(
        after_help = "Examples:\n  tg sessions\n  tg sessions --format=json | jq -r '.[] | select(.current | not) | .id'"
    )]
    Sessions(StatusArgs),
    /// Who you are, and for how long.
    #[command(
        after_help = "Examples:\n  tg status\n  tg status --format=json | jq -r .valid_until"
    )]
    Status(StatusArgs),
    /// Print the program's version.
    #[command(after_help = "Examples:\n  tg version")]
    Version,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// How the result is written.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// Where what proves who one is comes from.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("password").multiple(false))]
pub(crate) struct SecretArgs {
    /// Read the password from the first line of standard input.
    #[arg(long, group = "password")]
    pub(crate) password_stdin: bool,
    /// Read the password from the first line of a file.
    #[arg(long, value_name = "FILE", group = "password")]
    pub(crate) password_file: Option<PathBuf>,
    /// The code of your authenticator app [default: asked for at a terminal].
    #[arg(
        long,
        value_name = "CODE",
        env = "TIDEGATE_OTP",
        hide_env_values = true,
        value_parser = secret_text
    )]
    pub(crate) otp: Option<SecretString>,
}

impl SecretArgs {
    /// Whether somebody is there to ask.
    pub(crate) const fn at_terminal(&self) -> bool {
        !self.password_stdin && self.password_file.is_none()
    }
}

/// Takes a text as it is, and never prints it.
fn secret_text(text: &str) -> Result<SecretString, std::convert::Infallible> {
    Ok(SecretString::from(text))
}

#[derive(Debug, Args)]
pub(crate) struct LogoutArgs {
    /// End all your logins, on every machine.
    #[arg(long)]
    pub(crate) all: bool,
    /// End this login alone, as `tg sessions` shows it.
    #[arg(long, value_name = "ID", conflicts_with = "all")]
    pub(crate) session: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MfaCommand {
    /// Add a second factor: shows a secret for an authenticator app, and asks for a code that the app shows.
    #[command(
        after_help = "Examples:\n  tg mfa add\n  tg mfa add phone\n\nWith --password-stdin the code is read from the next line, after the secret was printed."
    )]
    Add(MfaAddArgs),
    /// List your second factors.
    #[command(after_help = "Examples:\n  tg mfa ls\n  tg mfa ls --format=json")]
    Ls(StatusArgs),
    /// Remove one of your second factors.
    #[command(after_help = "Examples:\n  tg mfa rm phone")]
    Rm(MfaRmArgs),
}

#[derive(Debug, Args)]
pub(crate) struct MfaAddArgs {
    /// By which you know it [default: app, app-2, ...].
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) secrets: SecretArgs,
}

#[derive(Debug, Args)]
pub(crate) struct MfaRmArgs {
    /// Its name, as `tg mfa ls` shows it.
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) secrets: SecretArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tg passwd
  tg passwd --password-file=/run/secrets/old --new-password-file=/run/secrets/new

With --password-stdin the new password is the next line, unless a file is named for it.")]
pub(crate) struct PasswdArgs {
    #[command(flatten)]
    pub(crate) secrets: SecretArgs,
    /// Read the new password from the first line of a file.
    #[arg(long, value_name = "FILE")]
    pub(crate) new_password_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tg login --proxy=tidegate.example.com --user=alice
  tg login --proxy=tidegate.example.com --ca-pin=sha256:… --token=…
  tg login --proxy=10.0.0.5:3080 --user=ci --ttl=1h --password-file=/run/secrets/tidegate
  tg login --proxy=10.0.0.5:3080 --user=ci --password-file=/run/secrets/tidegate --otp=123456

The first time, an administrator gives you a token (`tgctl users add`) and the CA pin
(`tgctl status`). Without a pin this machine has to trust the proxy's own certificate.")]
pub(crate) struct LoginArgs {
    /// Your name in the cluster [default: the last one used, else $USER].
    #[arg(long, env = "TIDEGATE_USER", hide_env_values = true)]
    pub(crate) user: Option<String>,
    /// The cluster CA's pin; may be given several times, any may match.
    #[arg(long, value_name = "sha256:HEX")]
    pub(crate) ca_pin: Vec<CaPin>,
    /// A one-time sign-up token: sets your password, then logs in.
    #[arg(long)]
    pub(crate) token: Option<String>,
    /// How long the certificate should be good for; at most what the cluster allows [default: that].
    #[arg(long, value_parser = when::parse_span)]
    pub(crate) ttl: Option<Duration>,
    /// Use the roles of this approved request; without a login if there is one already.
    #[arg(long, value_name = "ID")]
    pub(crate) request_id: Vec<String>,
    #[command(flatten)]
    pub(crate) secrets: SecretArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DbCommand {
    /// Print what other programs need for a database that you logged in to, in their own words.
    Config(ConfigArgs),
    /// Start `psql`, or `mysql`, on a database.
    Connect(ConnectArgs),
    /// Print the environment that `psql` and other libpq programs need for a database you logged in to.
    Env(EnvArgs),
    /// Run a statement on several databases.
    Exec(ExecArgs),
    /// Get a certificate for a database, for programs of your own.
    Login(DbLoginArgs),
    /// Remove a database's certificate, or all.
    #[command(after_help = "Examples:\n  tg db logout orders\n  tg db logout")]
    Logout(DbLogoutArgs),
    /// List the databases that you can use.
    Ls(LsArgs),
}

/// Which database is meant.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// The database: its name, its name without what discovery appends, or the beginning of its name when only one begins so
    /// [default: the only one that you are logged in to].
    pub(crate) name: Option<String>,
    /// Only databases with these labels: `key=value,other=value`.
    #[arg(long, value_name = "LABELS")]
    pub(crate) labels: Option<String>,
    /// Only databases for which this predicate holds.
    #[arg(long, value_name = "PREDICATE")]
    pub(crate) query: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Who {
    /// The database user to be [default: the only one that you may be].
    #[arg(long, value_name = "USER")]
    pub(crate) db_user: Option<String>,
    /// The logical database to open [default: the only one that you may open].
    #[arg(long, value_name = "NAME")]
    pub(crate) db_name: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tg db connect --db-user=alice --db-name=dev my-redshift
  tg db connect my-redshift --db-user=role/redshift-user-role
  tg db connect orders --db-user=reader --db-name=dev -- -c 'select 1' --csv
  tg db connect shop-mysql --db-user=reader -- -e 'select 1'
  tg db connect orders --labels=region=us-east-1
  tg db connect --query='labels[\"team\"] == \"bi\" && hasPrefix(name, \"dw-\")'

The exit code is the client's.")]
pub(crate) struct ConnectArgs {
    #[command(flatten)]
    pub(crate) which: Which,
    #[command(flatten)]
    pub(crate) who: Who,
    /// Arguments for psql, or for mysql.
    #[arg(last = true, value_name = "CLIENT ARGUMENTS")]
    pub(crate) client: Vec<std::ffi::OsString>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tg db login --db-user=reader --db-name=dev orders
  psql service=CLUSTER-orders        # the command prints the exact name

The certificate ends when your login does.")]
pub(crate) struct DbLoginArgs {
    #[command(flatten)]
    pub(crate) which: Which,
    #[command(flatten)]
    pub(crate) who: Who,
}

#[derive(Debug, Args)]
pub(crate) struct DbLogoutArgs {
    /// The database; all when none is named.
    pub(crate) name: Option<String>,
}

/// For whom `tg db config` writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ConfigFormat {
    /// The facts, for people.
    #[default]
    Text,
    /// The command that starts the database's own client.
    Cmd,
    /// The facts as JSON.
    Json,
    /// The facts as YAML.
    Yaml,
    /// The command that starts psql.
    Psql,
    /// A URL for psql, and for drivers that take libpq's.
    Url,
    /// A URL for the PostgreSQL JDBC driver.
    Jdbc,
    /// A connection string for psqlODBC.
    Odbc,
    /// What connects in Python: psycopg, or PyMySQL.
    Python,
    /// A profile for dbt.
    Dbt,
    /// A data-sources.json for DBeaver.
    Dbeaver,
}

impl ConfigFormat {
    /// As it is typed.
    pub(crate) fn name(self) -> String {
        let value = self.to_possible_value();
        value
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tg db config orders
  psql \"$(tg db config orders --format=url)\"
  tg db config orders --format=jdbc
  tg db config orders --format=dbt >> ~/.dbt/profiles.yml

It names files that `tg db login` wrote; they are good until your login ends.")]
pub(crate) struct ConfigArgs {
    /// The database; not needed when you logged in to one only.
    pub(crate) name: Option<String>,
    /// For whom it is written.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: ConfigFormat,
    /// The logical database, where your login to the database left it open.
    #[arg(long, value_name = "NAME")]
    pub(crate) db_name: Option<String>,
    /// The proxy's port, where it is another one [default: the proxy's own; for MySQL 3036].
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
}

#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("which").required(true).multiple(true).args(["dbs", "labels", "search", "query"]),
    after_help = "\
Examples:
  tg db exec 'select count(*) from orders' --dbs=orders-eu,orders-us --db-user=reader
  tg db exec 'analyze' --labels=env=prod,team=bi --parallel=5 --output-dir=analyze-out --yes

Each database is asked with its own client (psql or mysql); output goes where it goes, or to a file a
database with --output-dir, beside a summary.json. The exit code is 1 when any database failed."
)]
pub(crate) struct ExecArgs {
    /// What to run.
    #[arg(value_name = "SQL")]
    pub(crate) statement: String,
    /// On these databases, with commas between.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) dbs: Vec<String>,
    /// On databases with these labels: `key=value,other=value`.
    #[arg(long, value_name = "LABELS")]
    pub(crate) labels: Option<String>,
    /// On databases whose name, description or labels hold all these words.
    #[arg(long, value_name = "WORDS", value_delimiter = ',')]
    pub(crate) search: Vec<String>,
    /// On databases for which this predicate holds.
    #[arg(long, value_name = "PREDICATE")]
    pub(crate) query: Option<String>,
    #[command(flatten)]
    pub(crate) who: Who,
    /// On so many databases at a time, 10 at most.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=10))]
    pub(crate) parallel: u8,
    /// Write each database's output to a file in this folder, which must not be there yet.
    #[arg(long, value_name = "DIR")]
    pub(crate) output_dir: Option<PathBuf>,
    /// Do not ask before it is run.
    #[arg(short, long, visible_alias = "no-confirm")]
    pub(crate) yes: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProxyCommand {
    /// Keep a local port, or socket, open that leads to a database; with --tunnel programs need no certificate.
    Db(ProxyDbArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tg proxy db --tunnel --db-user=reader --db-name=dev orders
  tg proxy db --tunnel --port=5433 orders        # always the same port, for a graphical program
  tg proxy db --tunnel --socket orders           # psql and the like, out of reach for other users
  tg proxy db orders                             # programs that show the certificate themselves

It stays open until Ctrl-C, through sleep and changes of network. Certificates are renewed as long as your
login lasts; when that has ended, log in again and it goes on.

On a port with --tunnel only programs of yours are let in where the system tells whose they are (Linux).")]
pub(crate) struct ProxyDbArgs {
    #[command(flatten)]
    pub(crate) which: Which,
    #[command(flatten)]
    pub(crate) who: Who,
    /// Put connections into TLS with your certificate: programs need neither certificate nor password.
    #[arg(long)]
    pub(crate) tunnel: bool,
    /// The port to listen on [default: one that is free].
    #[arg(
        short,
        long,
        value_name = "PORT",
        default_value_t = 0,
        hide_default_value = true
    )]
    pub(crate) port: u16,
    /// The address to listen on; one that other machines reach lets whoever comes be you.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1")]
    pub(crate) listen: std::net::IpAddr,
    /// Listen on a socket file that you alone can reach, not on a port.
    #[arg(long, requires = "tunnel", conflicts_with_all = ["port", "listen"])]
    pub(crate) socket: bool,
    /// How the address is written.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  eval \"$(tg db env orders)\" && psql
  tg db env orders --format=json")]
pub(crate) struct EnvArgs {
    /// The database; not needed when you logged in to one only.
    pub(crate) name: Option<String>,
    /// How the result is written; text is for a shell.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tg db ls
  tg db ls env=prod,region=us-east-1
  tg db ls --search=orders,reporting -v
  tg db ls --query='labels[\"env\"] == \"prod\" && hasPrefix(name, \"dw-\")'
  tg db ls --sort='labels.env desc, name'
  tg db ls --format=json | jq -r '.[].metadata.name'")]
pub(crate) struct LsArgs {
    /// Only databases with these labels: `key=value,other=value`.
    #[arg(value_name = "LABELS")]
    pub(crate) labels: Option<String>,
    /// Only databases whose name, description or labels hold all these words.
    #[arg(long, value_name = "WORDS", value_delimiter = ',')]
    pub(crate) search: Vec<String>,
    /// Only databases for which this predicate holds.
    #[arg(long, value_name = "PREDICATE")]
    pub(crate) query: Option<String>,
    /// In this order: fields with commas between, `desc` after one for the other way [default: name].
    #[arg(long, value_name = "FIELDS")]
    pub(crate) sort: Option<String>,
    /// Protocol, type, address, state and all labels too.
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// How results are written.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Tg::command().debug_assert();
    }

    #[test]
    fn every_commands_help_has_examples() {
        fn check(command: &clap::Command) {
            for sub in command.get_subcommands() {
                if sub.has_subcommands() {
                    check(sub);
                } else {
                    let help = sub.clone().render_long_help().to_string();
                    assert!(help.contains("Examples:"), "{}", sub.get_name());
                }
            }
        }
        check(&Tg::command());
    }

    #[test]
    fn the_guides_commands_are_understood() {
        for line in [
            "tg login --proxy=teleport.example.com --user=email@example.com",
            "tg db ls",
            "tg db connect --db-user=alice --db-name=dev my-redshift",
            "tg db connect my-redshift --db-user=role/redshift-user-role",
            "tg db logout my-redshift",
            "tg db connect orders -- -c select",
            "tg request roles",
            "tg request create --roles=access,dba --reason=look --max-duration=2h",
            "tg request create --roles=access --nowait --format=json",
            "tg request ls --mine",
            "tg request ls --reviewable",
            "tg request show 0193b1a2",
            "tg request review 0193b1a2 --approve --reason=go",
            "tg request assume 0193b1a2 0193b1a3",
            "tg request drop",
            "tg request rm 0193b1a2",
            "tg login --request-id=0193b1a2",
        ] {
            let parsed = Tg::try_parse_from(line.split(' '));
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
    }

    #[test]
    fn a_password_comes_from_one_place() {
        for command in ["login", "passwd", "mfa add", "mfa rm phone"] {
            let both = format!("tg {command} --password-stdin --password-file=/x");
            assert!(Tg::try_parse_from(both.split(' ')).is_err(), "{command}");
        }
    }

    #[test]
    fn a_code_never_prints() {
        let parsed = Tg::try_parse_from(["tg", "login", "--otp=123456"]).unwrap();
        assert!(!format!("{parsed:?}").contains("123456"));
    }
}
