//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use tidegate_console::{Format, when};

use crate::resources::Reference;

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

const PLAN_HELP: &str = "\
Examples:
  tgctl discovery plan -f /etc/tidegate.yaml
  tgctl discovery plan -f analytics.yaml --live
  tgctl discovery plan -f /etc/tidegate.yaml --live --fail-on=remove     # in CI
  tgctl discovery plan -f new.yaml --format=json | jq -r '.changes[] | select(.action == \"remove\").name'
  tgctl get discovery_config/team | sed 's/prod/stage/' | tgctl discovery plan -f -

The file is a configuration with a `discovery_service`, or one `discovery_config` resource. It is planned as if it took \
the place of what its group (or the `discovery_config` of its name) asks for now, once every scope was scanned and what \
is no longer asked for is gone.

Without --live the inventory is taken for AWS: databases that no worker found yet are not in it. With --live the \
program looks at AWS itself, with the credentials and roles that it finds here.

JSON and YAML: {group, config, source, changes, kept, unseen, left_out, summary}. Each of `changes` has `action` (add, \
change, remove), `name`, `identity`, `why`, `differences` [{field, before, after}], `owner_before`, `owner_after`, and \
the database `before` and `after`. `kept` has names, with -v. `summary` has added, changed, removed, kept, held, shadowed, \
unjudged, retired_scopes, partial_scopes, complete. What is empty is left out, but for `changes` and `summary`.

Exit codes: 0; with --fail-on 3 when that comes about, or else 4 when not everything could be seen; 1 for other errors.";

/// Administers a Tidegate cluster.
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
    /// Create databases, roles, locks and discovery configurations from a file.
    Create(CreateArgs),
    /// Databases and who serves them.
    #[command(subcommand)]
    Db(DbCommand),
    /// What discovery looks for, how that goes, and why a database is where it is.
    #[command(subcommand)]
    Discovery(DiscoveryCommand),
    /// Print resources in full.
    Get(GetArgs),
    /// Shut a person, a role, an agent or a database out, whatever roles allow. Running sessions end.
    Lock(LockArgs),
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

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// List events, the newest last.
    #[command(
        after_help = "Examples:\n  tgctl audit ls\n  tgctl audit ls --event=db.session.start --user=alice\n  tgctl audit ls --limit=1000 --format=json | jq '.[].db_service'"
    )]
    Ls(AuditLsArgs),
}

#[derive(Debug, Args)]
pub(crate) struct AuditLsArgs {
    /// Only this event, such as `db.session.start`.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) event: String,
    /// Only events of this user.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) user: String,
    /// At most this many, the newest.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i32).range(1..=1000))]
    pub(crate) limit: i32,
    /// How results are written.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tgctl create orders.yaml\n  tgctl create -f roles.yaml        # replace what is there\n  tgctl get role/access | sed 's/name: access/name: mine/' | tgctl create -\n\nA file may hold several documents. Kinds: db, discovery_config, lock, role."
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

#[derive(Debug, Subcommand)]
pub(crate) enum DiscoveryCommand {
    /// Hand the databases of a discovery group that no live worker names any more to another group.
    #[command(
        after_help = "Examples:\n  tgctl discovery adopt --from=prod --to=production     # after the group was renamed"
    )]
    Adopt(AdoptArgs),
    /// Say why a database is in the inventory as it is, or why it is not: every scope, and the clause that fails.
    #[command(
        after_help = "Examples:\n  tgctl discovery explain orders\n  tgctl discovery explain arn:aws:redshift:us-east-1:111122223333:cluster:orders\n  tgctl discovery explain orders --format=json | jq '.scopes[] | select(.verdict == \"owns\")'\n\nA database may be named by a prefix that only it has. An ARN may be one that was never found."
    )]
    Explain(ExplainArgs),
    /// Say what a configuration would add, change and remove, and change nothing.
    #[command(after_help = PLAN_HELP)]
    Plan(PlanArgs),
    /// Ask the workers to scan now, all scopes or these.
    #[command(
        after_help = "Examples:\n  tgctl discovery rescan\n  tgctl discovery rescan \"$(tgctl discovery status --format=json | jq -r '.[] | select(.state == \"failed\").id' | head -1)\"\n\n`tgctl discovery status -v` shows the ids of scopes."
    )]
    Rescan(RescanArgs),
    /// Show how each scope fares: one account, region and kind of database.
    #[command(
        after_help = "Examples:\n  tgctl discovery status\n  tgctl discovery status --watch\n  tgctl discovery status --check > /dev/null || echo 'discovery is not well'\n  tgctl discovery status --format=json | jq '.[] | select(.state == \"failed\")'\n\nExit codes: 0, or 3 with --check when a scope fails."
    )]
    Status(DiscoveryStatusArgs),
}

#[derive(Debug, Args)]
pub(crate) struct AdoptArgs {
    /// The group that is no more.
    #[arg(long, value_name = "GROUP")]
    pub(crate) from: String,
    /// The group that takes its databases over.
    #[arg(long, value_name = "GROUP")]
    pub(crate) to: String,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The name or the ARN of a database.
    #[arg(value_name = "NAME|ARN")]
    pub(crate) database: String,
    /// How results are written.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// A YAML or JSON file; `-` is standard input.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Look at AWS, not into the inventory.
    #[arg(long)]
    pub(crate) live: bool,
    /// Plan for this discovery group [default: the file's].
    #[arg(long, value_name = "NAME")]
    pub(crate) group: Option<String>,
    /// Exit with 3 when anything would change, or only when anything would be removed.
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(crate) fail_on: Option<FailOn>,
    /// List what stays as it is too.
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// How results are written.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// What a plan must not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FailOn {
    /// That anything is added, changed or removed.
    Change,
    /// That anything is removed.
    Remove,
}

#[derive(Debug, Args)]
pub(crate) struct RescanArgs {
    /// Ids of scopes [default: all].
    #[arg(value_name = "SCOPE_ID")]
    pub(crate) scopes: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct DiscoveryStatusArgs {
    /// Exit with 3 when a scope fails.
    #[arg(long, conflicts_with = "watch")]
    pub(crate) check: bool,
    /// Show the ids of scopes too.
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// Show it again every 2 seconds, until Ctrl-C.
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// How results are written.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tgctl get db\n  tgctl get db/orders --format=json\n  tgctl get db_server/orders --format=json | jq '.[].status.target_health'\n  tgctl get role/access\n  tgctl get lock\n  tgctl get discovery_config/team\n\nKinds: db, db_server, discovery_config, lock, role, user, token. A database may be named by a prefix that only it has."
)]
pub(crate) struct GetArgs {
    /// What to print.
    #[arg(value_name = "KIND[/NAME]")]
    pub(crate) resource: Reference,
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
    after_help = "Examples:\n  tgctl rm db/orders\n  tgctl rm role/analyst\n  tgctl rm lock/stolen-laptop\n  tgctl rm token/0a1b2c3d\n  tgctl rm discovery_config/team     # its databases go with it\n\nNames must be exact. Kinds: db, discovery_config, lock, role, user, token."
)]
pub(crate) struct RmArgs {
    /// What to remove.
    #[arg(value_name = "KIND/NAME")]
    pub(crate) resource: Reference,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokensCommand {
    /// Create a join token and print its secret, which is shown nowhere else.
    #[command(
        after_help = "Examples:\n  tgctl tokens add --type=db --format=text > /tmp/token\n  tgctl tokens add --type=db,discovery --ttl=30m\n  tgctl tokens add --type=proxy --format=json | jq -r .token"
    )]
    Add(TokensAddArgs),
    /// List tokens, never their secrets.
    #[command(after_help = "Examples:\n  tgctl tokens ls\n  tgctl tokens ls --format=json")]
    Ls(FormatArgs),
    /// Remove a token: nothing more joins with it. What joined stays.
    #[command(after_help = "Examples:\n  tgctl tokens rm 0a1b2c3d")]
    Rm(TokensRmArgs),
}

#[derive(Debug, Args)]
pub(crate) struct TokensAddArgs {
    /// What may join with it: `db`, `discovery`, `proxy`.
    #[arg(
        long = "type",
        value_name = "TYPES",
        value_delimiter = ',',
        required = true
    )]
    pub(crate) types: Vec<String>,
    /// How long it can be used [default: 1h].
    #[arg(long, value_parser = when::parse_span)]
    pub(crate) ttl: Option<Duration>,
    /// How the result is written; text is the secret alone.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct TokensRmArgs {
    /// The id that `tokens ls` shows, or the secret.
    pub(crate) token: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UsersCommand {
    /// Create a user, and a one-time token to set a password with.
    #[command(
        after_help = "Examples:\n  tgctl users add --roles=access --db-users='*' --db-names='*' alice\n  tgctl users add --roles=access --db-users=reader --db-names=dev,prod --ttl=24h bob\n  tgctl users add --roles=editor carol        # an administrator"
    )]
    Add(UsersAddArgs),
    /// List users.
    #[command(after_help = "Examples:\n  tgctl users ls\n  tgctl users ls --format=json")]
    Ls(FormatArgs),
    /// Void a person's password, and make a one-time token to set another with. Certificates work until they end: see
    /// `tgctl lock`.
    #[command(
        after_help = "Examples:\n  tgctl users reset alice\n  tgctl users reset alice --ttl=24h --format=json | jq -r .command"
    )]
    Reset(UsersResetArgs),
    /// Remove users. Certificates that they hold work until they end.
    #[command(after_help = "Examples:\n  tgctl users rm alice\n  tgctl users rm alice,bob")]
    Rm(UsersRmArgs),
    /// Give a person other roles, database users or logical databases. It counts from the next login on.
    #[command(
        after_help = "Examples:\n  tgctl users update alice --set-roles=access,auditor\n  tgctl users update alice --set-db-users=reader,writer --set-db-names='*'\n  tgctl users update alice --set-db-names=        # none any more"
    )]
    Update(UsersUpdateArgs),
}

#[derive(Debug, Args)]
pub(crate) struct UsersResetArgs {
    /// The person's name.
    pub(crate) name: String,
    /// How long the sign-up token can be used [default: 1h].
    #[arg(long, value_parser = when::parse_span)]
    pub(crate) ttl: Option<Duration>,
    /// How the result is written.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct UsersUpdateArgs {
    /// The person's name.
    pub(crate) name: String,
    /// Roles, in the place of those that the person has.
    #[arg(long, value_name = "ROLES", value_delimiter = ',')]
    pub(crate) set_roles: Option<Vec<String>>,
    /// Database users, in the place of those that the person may be; `*` is any.
    #[arg(long, value_name = "DB_USERS", value_delimiter = ',')]
    pub(crate) set_db_users: Option<Vec<String>>,
    /// Logical databases, in the place of those that the person may open; `*` is any.
    #[arg(long, value_name = "DB_NAMES", value_delimiter = ',')]
    pub(crate) set_db_names: Option<Vec<String>>,
    /// How the result is written.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct UsersAddArgs {
    /// The person's name.
    pub(crate) name: String,
    /// Roles to give: `access` to use databases, `editor` to administer.
    #[arg(long, value_delimiter = ',', required = true)]
    pub(crate) roles: Vec<String>,
    /// Database users that the person may be; `*` is any.
    #[arg(long, value_delimiter = ',')]
    pub(crate) db_users: Vec<String>,
    /// Logical databases that the person may open; `*` is any.
    #[arg(long, value_delimiter = ',')]
    pub(crate) db_names: Vec<String>,
    /// How long the sign-up token can be used [default: 1h].
    #[arg(long, value_parser = when::parse_span)]
    pub(crate) ttl: Option<Duration>,
    /// How the result is written.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct UsersRmArgs {
    /// Names, with commas between.
    #[arg(value_delimiter = ',', required = true)]
    pub(crate) users: Vec<String>,
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
