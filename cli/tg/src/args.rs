//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{ArgGroup, Args, Parser, Subcommand};
use tidegate_console::{Format, profile::ProxyAddr, when};
use tidegate_identity::CaPin;

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
    /// Forget your certificates: of one proxy when `--proxy` names it, else of all.
    #[command(after_help = "Examples:\n  tg logout\n  tg logout --proxy=tidegate.example.com")]
    Logout,
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

#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("password").multiple(false),
    after_help = "\
Examples:
  tg login --proxy=tidegate.example.com --user=alice
  tg login --proxy=tidegate.example.com --ca-pin=sha256:… --token=…
  tg login --proxy=10.0.0.5:3080 --user=ci --ttl=1h --password-file=/run/secrets/tidegate

The first time, an administrator gives you a token (`tgctl users add`) and the CA pin
(`tgctl status`). Without a pin this machine has to trust the proxy's own certificate."
)]
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
    /// Read the password from the first line of standard input.
    #[arg(long, group = "password")]
    pub(crate) password_stdin: bool,
    /// Read the password from the first line of a file.
    #[arg(long, value_name = "FILE", group = "password")]
    pub(crate) password_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DbCommand {
    /// Start `psql` on a database.
    Connect(ConnectArgs),
    /// Print the environment that `psql` and other libpq programs need for a database you logged in to.
    Env(EnvArgs),
    /// Get a certificate for a database, for programs of your own.
    Login(DbLoginArgs),
    /// Remove a database's certificate, or all.
    #[command(after_help = "Examples:\n  tg db logout orders\n  tg db logout")]
    Logout(DbLogoutArgs),
    /// List the databases that you can use.
    Ls(LsArgs),
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

The exit code is psql's.")]
pub(crate) struct ConnectArgs {
    /// The database, or the beginning of its name when only one begins so.
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) who: Who,
    /// Arguments for psql.
    #[arg(last = true, value_name = "PSQL ARGUMENTS")]
    pub(crate) psql: Vec<std::ffi::OsString>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tg db login --db-user=reader --db-name=dev orders
  psql service=CLUSTER-orders        # the command prints the exact name

The certificate ends when your login does.")]
pub(crate) struct DbLoginArgs {
    /// The database, or the beginning of its name when only one begins so.
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) who: Who,
}

#[derive(Debug, Args)]
pub(crate) struct DbLogoutArgs {
    /// The database; all when none is named.
    pub(crate) name: Option<String>,
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
        ] {
            let parsed = Tg::try_parse_from(line.split(' '));
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
    }

    #[test]
    fn a_password_comes_from_one_place() {
        let both = "tg login --password-stdin --password-file=/x";
        assert!(Tg::try_parse_from(both.split(' ')).is_err());
    }
}
