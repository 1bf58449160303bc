//! The command line of `tg request`.

use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};
use tidegate_console::{Format, when};

#[derive(Debug, Subcommand)]
pub(crate) enum RequestCommand {
    /// Use the roles of an approved request, beside those that you use already.
    #[command(
        after_help = "Examples:\n  tg request assume 0193b1a2-…\n  tg login --request-id=0193b1a2-…      # the same\n\nThe roles last until the request's access ends; your own roles stay, and so does your login."
    )]
    Assume(AssumeArgs),
    /// Ask for roles, wait for the outcome, and use them.
    Create(CreateArgs),
    /// Go back to your own roles, or stop using some requests.
    #[command(after_help = "Examples:\n  tg request drop\n  tg request drop 0193b1a2-…")]
    Drop(DropArgs),
    /// List requests: yours, and those that you may see.
    #[command(
        after_help = "Examples:\n  tg request ls\n  tg request ls --mine\n  tg request ls --reviewable\n  tg request ls --format=json | jq -r '.[] | select(.spec.state == \"APPROVED\") | .metadata.name'"
    )]
    Ls(LsArgs),
    /// Say yes or no to somebody's request.
    Review(ReviewArgs),
    /// Withdraw a request of yours. Roles that it gave cannot be used any more.
    #[command(after_help = "Examples:\n  tg request rm 0193b1a2-…")]
    Rm(RmArgs),
    /// List the roles that you may ask for.
    #[command(after_help = "Examples:\n  tg request roles\n  tg request roles --format=json")]
    Roles(RolesArgs),
    /// Show a request and what reviewers said.
    #[command(
        after_help = "Examples:\n  tg request show 0193b1a2-…\n  tg request show 0193b1a2-… --format=json | jq .spec.reviews"
    )]
    Show(ShowArgs),
}

#[derive(Debug, Args)]
pub(crate) struct AssumeArgs {
    /// The requests, by their ids.
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tg request create --roles=access --reason='look at SEC-123'
  tg request create --roles=access,dba --max-duration=2h
  tg request create --roles=access --nowait --format=json | jq -r .metadata.name

It waits until reviewers have decided, and then uses the roles. Interrupting it leaves the request as
it is; `tg request assume ID` goes on from there.

Exit codes: 0 when the roles are in use (with --nowait: when the request is made); 1 otherwise.")]
pub(crate) struct CreateArgs {
    /// The roles, with commas between; `tg request roles` lists those that you may ask for.
    #[arg(long, required = true, value_name = "ROLES", value_delimiter = ',')]
    pub(crate) roles: Vec<String>,
    /// Why you need them; reviewers and the audit log see it.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) reason: String,
    /// How long you need them, from now [default: as long as they may be had, up to 12h].
    #[arg(long, value_name = "TIME", value_parser = when::parse_span)]
    pub(crate) max_duration: Option<Duration>,
    /// Do not wait for the outcome.
    #[arg(long)]
    pub(crate) nowait: bool,
    /// How the request is written.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct DropArgs {
    /// The requests to stop using; all when none is named.
    #[arg(value_name = "ID")]
    pub(crate) ids: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// Only your own.
    #[arg(long, conflicts_with = "reviewable")]
    pub(crate) mine: bool,
    /// Only those that wait for your review.
    #[arg(long)]
    pub(crate) reviewable: bool,
    /// How results are written.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("verdict").required(true),
    after_help = "\
Examples:
  tg request review 0193b1a2-… --approve --reason='until the migration is done'
  tg request review 0193b1a2-… --deny

A reviewer speaks once, and nobody about their own request."
)]
pub(crate) struct ReviewArgs {
    /// The request, by its id.
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// For it.
    #[arg(long, group = "verdict")]
    pub(crate) approve: bool,
    /// Against it.
    #[arg(long, group = "verdict")]
    pub(crate) deny: bool,
    /// Why; who asked and the audit log see it.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) reason: String,
    /// How the request is written.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// The request, by its id.
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct RolesArgs {
    /// How results are written.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The request, by its id.
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// How the request is written.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}
