//! The command line: program-wide options, and the verbs that are small. Others are in [`discovery`] and [`people`].

mod audit;
mod auth;
mod backup;
mod discovery;
mod people;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use tidegate_console::{Format, when};

pub(crate) use self::{audit::*, auth::*, backup::*, discovery::*, people::*};
use crate::{
    doctor::DoctorArgs,
    get::{QueryArgs, Wanted},
    requests::RequestsCommand,
    resources::Reference,
};

const EXAMPLES: &str = "\
Examples:
  tgctl status
  tgctl users add --roles=access --db-users=reader --db-names='*' alice
  tgctl tokens add --type=db --ttl=1h --format=text > /tmp/token
  tgctl db ls env=prod
  tgctl get db_server/orders --format=json
  tgctl create -f orders.yaml
  tgctl discovery status

On an auth host run it as root or as the service's user. Elsewhere, log in first with `tg login`.";

#[derive(Debug, Parser)]
#[command(name = "tgctl", version, after_help = EXAMPLES, infer_subcommands = false)]
pub(crate) struct Tgctl {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which auth service is meant.
#[derive(Debug, Args)]
pub(crate) struct Connection {
    /// The auth host's configuration file, to find its data directory.
    #[arg(
        short,
        long,
        global = true,
        value_name = "FILE",
        conflicts_with = "data_dir",
        help_heading = "Which cluster"
    )]
    pub(crate) config: Option<PathBuf>,
    /// The auth host's data directory, which holds its local socket [default: /var/lib/tidegate].
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        help_heading = "Which cluster"
    )]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Who may use which database, and why.
    #[command(subcommand)]
    Access(AccessCommand),
    /// What happened in the cluster.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// The cluster's CAs: their rotation, and what encrypts them.
    #[command(subcommand)]
    Auth(AuthCommand),
    /// The cluster's state in a file, and back.
    #[command(subcommand)]
    Backup(BackupCommand),
    /// Create databases, roles, users and other resources from a file.
    Create(CreateArgs),
    /// Databases and who serves them.
    #[command(subcommand)]
    Db(DbCommand),
    /// What discovery looks for, how that goes, and why a database is where it is.
    #[command(subcommand)]
    Discovery(DiscoveryCommand),
    /// Change a resource in an editor.
    Edit(EditArgs),
    /// Print resources in full.
    Get(GetArgs),
    /// Shut a person, a role, an agent or a database out, whatever roles allow. Running sessions end.
    Lock(LockArgs),
    /// Who asked for which roles, and deciding about it.
    #[command(subcommand, visible_alias = "request")]
    Requests(RequestsCommand),
    /// Remove a resource.
    Rm(RmArgs),
    /// The cluster's name, version and CA pin.
    #[command(
        after_help = "Examples:\n  tgctl status\n  tgctl status --format=json | jq .databases"
    )]
    Status(FormatArgs),
    /// Join tokens for services.
    #[command(subcommand)]
    Tokens(TokensCommand),
    /// People who may log in.
    #[command(subcommand)]
    Users(UsersCommand),
    /// Print the program's version.
    #[command(after_help = "Examples:\n  tgctl version")]
    Version,
}

/// How results are written.
#[derive(Debug, Args)]
pub(crate) struct FormatArgs {
    /// How results are written.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AccessCommand {
    /// Say whether a person may use a database, and what each clause of each of the person's roles says to it.
    #[command(
        after_help = "Examples:\n  tgctl access explain --user=alice --db=orders --db-user=reader --db-name=dev\n  tgctl access explain --user=alice --db=orders --db-user=reader --db-name=dev --check > /dev/null || echo denied\n  tgctl access explain --user=alice --db=orders --db-user=reader --db-name=dev --format=json | jq .reason.outcome\n\nIt decides with the roles and traits that the person would get by logging in now.\n\nJSON and YAML: {allowed, lock, reason}; `lock` is the lock that strikes, if one does; `reason` has `question`, \
                      `outcome` and `roles`.\n\nExit codes: 0; with --check 3 when it is denied; 1 for errors."
    )]
    Explain(ExplainAccessArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ExplainAccessArgs {
    /// The person.
    #[arg(long, value_name = "NAME")]
    pub(crate) user: String,
    /// The database, by its exact name.
    #[arg(long, value_name = "NAME")]
    pub(crate) db: String,
    /// The database user.
    #[arg(long, value_name = "NAME")]
    pub(crate) db_user: String,
    /// The logical database; for protocols that have one a connection.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) db_name: String,
    /// Exit with 3 when it is denied.
    #[arg(long)]
    pub(crate) check: bool,
    /// How the result is written.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tgctl create orders.yaml\n  tgctl create -f roles.yaml        # replace what is there\n  tgctl get role/access | sed 's/name: access/name: mine/' | tgctl create -\n\nA file may hold several documents. Kinds: db, discovery_config, lock, role, token."
)]
pub(crate) struct CreateArgs {
    /// Replace resources that exist already.
    #[arg(short, long)]
    pub(crate) force: bool,
    /// A YAML or JSON file; `-` is standard input.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DbCommand {
    /// Have an agent say what keeps sessions from a database, and who can put it right.
    Doctor(DoctorArgs),
    /// List which agent serves which database.
    #[command(
        after_help = "Examples:\n  tgctl db ls\n  tgctl db ls env=prod,region=us-east-1\n  tgctl db ls --search=orders -v\n  tgctl db ls --query='labels[\"env\"] == \"prod\" && hasPrefix(name, \"dw-\")' --sort=name\n  tgctl db ls --format=json | jq -r '.[].metadata.name'\n\nDatabases that no agent serves are not in this list: see `tgctl get db`."
    )]
    Ls(DbLsArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DbLsArgs {
    /// Only databases with these labels: `key=value,other=value`.
    #[arg(value_name = "LABELS")]
    pub(crate) labels: Option<String>,
    /// Only databases whose name, description or labels hold all these words.
    #[arg(long, value_name = "WORDS", value_delimiter = ',')]
    pub(crate) search: Vec<String>,
    /// Only databases for which this predicate holds.
    #[arg(
        long,
        value_name = "PREDICATE",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) query: String,
    /// Fields to order by: `labels.env, name desc` [default: by host].
    #[arg(
        long,
        value_name = "FIELDS",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) sort: String,
    /// All labels, the health and the role that each agent assumes.
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// How results are written.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tgctl edit role/analyst\n  tgctl edit user/alice\n  EDITOR='code --wait' tgctl edit db/orders\n\nThe editor is VISUAL, else EDITOR, else vi. A text that is left as it is changes nothing; one that cannot be used is kept in a file. When somebody else changed the resource meanwhile nothing is written.\n\nKinds: db, discovery_config, health_check_config, lock, role, token, user."
)]
pub(crate) struct EditArgs {
    /// What to change.
    #[arg(value_name = "KIND/NAME")]
    pub(crate) resource: Reference,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tgctl get db\n  tgctl get db/orders --format=json\n  tgctl get db_server/orders --format=json | jq '.[].status.target_health'\n  tgctl get role/access\n  tgctl get lock\n  tgctl get discovery_config/team\n  tgctl get user --query='contains(roles, \"editor\")' --sort=created_at:desc --format=text\n  tgctl get instance --query='contains(services, \"db\") && databases == \"0\"' --format=text\n  tgctl get discovery_scope --query='status != \"ok\"' --format=json\n  tgctl get lock --watch --format=json\n\nKinds: access_request, db, db_server, discovery_config, health_check_config, lock, role, user, token; and, to look at, discovery_scope, instance, proxy. A database may be named by a prefix that only it has.\n\nWith --query, --search, --labels, --sort, --limit or --watch the auth service is asked for resources that are registered in the cluster; fields of each kind: docs/reference/query-fields.md."
)]
pub(crate) struct GetArgs {
    /// What to print.
    #[arg(value_name = "KIND[/NAME]")]
    pub(crate) resource: Wanted,
    #[command(flatten)]
    pub(crate) query: QueryArgs,
    /// How results are written.
    #[arg(long, value_enum, default_value_t = Format::Yaml)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tgctl lock --user=alice --message='laptop stolen, see SEC-123' --ttl=12h\n  tgctl lock --role=contractor --expires=2026-12-24T00:00:00Z\n  tgctl lock --agent=7b1f0c52-3f39-4d4e-8a52-8f3a8d7f6f10 --name=broken-host\n  tgctl lock --user=alice --db=orders        # this person on this database\n  tgctl get lock\n  tgctl rm lock/broken-host\n\nWhat is named has to fit together: each of --user, --role, --agent and --db narrows the lock."
)]
pub(crate) struct LockArgs {
    /// A person: no login, no call and no session.
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// Everybody who has this role.
    #[arg(long, value_name = "NAME")]
    pub(crate) role: Option<String>,
    /// An agent or other service, by host id or host name.
    #[arg(long, value_name = "HOST", alias = "server-id")]
    pub(crate) agent: Option<String>,
    /// A database, by its exact name.
    #[arg(long, value_name = "NAME")]
    pub(crate) db: Option<String>,
    /// Whoever has roles by this access request.
    #[arg(long, value_name = "ID")]
    pub(crate) access_request: Option<String>,
    /// What those who are shut out may read.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) message: String,
    /// How long [default: until it is removed].
    #[arg(long, value_parser = when::parse_span, conflicts_with = "expires")]
    pub(crate) ttl: Option<Duration>,
    /// Until when: `2026-12-24T00:00:00Z`.
    #[arg(long, value_name = "INSTANT")]
    pub(crate) expires: Option<jiff::Timestamp>,
    /// What the lock is called [default: a new id]. One of that name is replaced.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// How the result is written.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tgctl rm db/orders\n  tgctl rm role/analyst\n  tgctl rm lock/stolen-laptop\n  tgctl rm token/0a1b2c3d\n  tgctl rm discovery_config/team     # its databases go with it\n\nNames must be exact. Kinds: access_request, db, discovery_config, health_check_config, lock, role, user, token."
)]
pub(crate) struct RmArgs {
    /// What to remove.
    #[arg(value_name = "KIND/NAME")]
    pub(crate) resource: Reference,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Tgctl::command().debug_assert();
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
        check(&Tgctl::command());
    }

    #[test]
    fn the_guides_commands_are_understood() {
        for line in [
            r"tgctl users add --roles=access --db-users=* --db-names=* alice",
            r"tgctl users add --roles=access,requester --db-users=* --db-names=* alice",
            r"tgctl tokens add --type=db --format=text",
            r"tgctl get db_server/postgres-instance-1 --format json",
            r"tgctl status",
            r"tgctl create -f db.yaml",
            r"tgctl -c /etc/teleport.yaml db ls",
            r"tgctl lock --user=alice --message=x --ttl=10h",
            r"tgctl lock --role=contractor --expires=2026-12-24T00:00:00Z",
            r"tgctl lock --server-id=363256df",
            r"tgctl users update alice --set-roles=access --set-db-users=*",
            r"tgctl users reset alice",
        ] {
            let parsed = Tgctl::try_parse_from(line.split(' '));
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
    }
}
