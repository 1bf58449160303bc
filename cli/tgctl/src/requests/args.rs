//! The command line of `tgctl requests`.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use tidegate_console::{Format, when};

#[derive(Debug, Subcommand)]
pub(crate) enum RequestsCommand {
    /// Approve requests, alone: whatever number of reviewers they need.
    #[command(
        after_help = "Examples:\n  tgctl requests approve 0193b1a2-…\n  tgctl requests approve 0193b1a2-… 0193b1a3-… --reason='outage, see SEC-123'\n\nIt takes a rule for `update` on `access_request`. Nobody decides about their own request; who reviews by role uses `tg request review`."
    )]
    Approve(DecideArgs),
    /// Ask for roles for somebody, who has to be allowed to ask for them.
    #[command(
        after_help = "Examples:\n  tgctl requests create alice --roles=access --reason='on call this week'\n  tgctl requests create alice --roles=access --max-duration=2h --format=json | jq -r .metadata.name"
    )]
    Create(CreateArgs),
    /// Deny requests, alone.
    #[command(
        after_help = "Examples:\n  tgctl requests deny 0193b1a2-… --reason='use the replica'"
    )]
    Deny(DecideArgs),
    /// Show requests and what reviewers said.
    #[command(
        after_help = "Examples:\n  tgctl requests get 0193b1a2-…\n  tgctl requests get 0193b1a2-… --format=json | jq .spec.reviews"
    )]
    Get(GetArgs),
    /// List requests, the oldest first.
    #[command(
        after_help = "Examples:\n  tgctl requests ls\n  tgctl requests ls --state=pending\n  tgctl requests ls --format=json | jq -r '.[] | [.metadata.name, .spec.user, .spec.state] | @tsv'\n\nRequests that are over are kept for a week; after that the audit log has them."
    )]
    Ls(LsArgs),
    /// Remove requests. Roles that they gave cannot be used any more, and sessions with them end.
    #[command(
        after_help = "Examples:\n  tgctl requests rm 0193b1a2-…\n\nRemoving an approved request makes a lock, `access-request-ID`, that lasts as long as its roles would have; removing that lock gives nothing back but what certificates carry until then."
    )]
    Rm(RmArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DecideArgs {
    /// The requests, by their ids.
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<String>,
    /// Why; who asked and the audit log see it.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// For whom.
    #[arg(value_name = "USER")]
    pub(crate) user: String,
    /// The roles, with commas between.
    #[arg(long, required = true, value_name = "ROLES", value_delimiter = ',')]
    pub(crate) roles: Vec<String>,
    /// Why; reviewers and the audit log see it.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) reason: String,
    /// How long, from now [default: as long as they may be had, up to 12h].
    #[arg(long, value_name = "TIME", value_parser = when::parse_span)]
    pub(crate) max_duration: Option<Duration>,
    /// How the request is written.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// The requests, by their ids.
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<String>,
    /// How they are written.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum State {
    /// It waits for reviewers.
    Pending,
    /// It was approved, whether its roles can still be had or not.
    Approved,
    /// It was denied.
    Denied,
    /// Nobody decided in time.
    Expired,
}

#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// Only in one of these states.
    #[arg(long, value_enum, value_name = "STATES", value_delimiter = ',')]
    pub(crate) state: Vec<State>,
    /// How results are written.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// The requests, by their ids.
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<String>,
}
