//! `tgctl discovery`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use tidegate_console::Format;

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
