//! `tgctl tokens` and `tgctl users`.

use std::time::Duration;

use clap::{Args, Subcommand};
use tidegate_console::{Format, when};

use super::FormatArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum TokensCommand {
    /// Create a join token and print its secret, which is shown nowhere else.
    #[command(
        after_help = "Examples:\n  tgctl tokens add --type=db --format=text > /tmp/token\n  tgctl tokens add --type=db,discovery --ttl=30m\n  tgctl tokens add --type=proxy --format=json | jq -r .token\n  tgctl tokens add --type=db --single-use --ttl=10m   # for one host, and no more\n\nTo join without a secret, by an AWS identity, create a token of method `iam` with `tgctl create`."
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
    /// The secret, of at least 16 characters [default: a new one]. Others may see it in this machine's list of
    /// processes.
    #[arg(long, value_name = "SECRET")]
    pub(crate) value: Option<String>,
    /// One host may join with it, and no more.
    #[arg(long)]
    pub(crate) single_use: bool,
    /// How the result is written; text is the secret alone.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct TokensRmArgs {
    /// What `tokens ls` shows, or the secret.
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
    /// Void a person's password and second factors, end all logins, and make a one-time token to set another password
    /// with.
    #[command(
        after_help = "Examples:\n  tgctl users reset alice\n  tgctl users reset alice --ttl=24h --format=json | jq -r .command\n  tgctl users reset alice --mfa-only      # a lost phone: password and logins stay"
    )]
    Reset(UsersResetArgs),
    /// End a person's logins: certificates are refused at once, and sessions end.
    #[command(
        after_help = "Examples:\n  tgctl users revoke alice\n  tgctl users revoke alice --session=0199f2c4-8c5e-7d1a-b3f0-5a6b7c8d9e0f\n\nWho can log in can do so again: to shut somebody out, use `tgctl lock` or `tgctl users rm`."
    )]
    Revoke(UsersRevokeArgs),
    /// Remove users, and end all their logins.
    #[command(after_help = "Examples:\n  tgctl users rm alice\n  tgctl users rm alice,bob")]
    Rm(UsersRmArgs),
    /// List a person's logins.
    #[command(
        after_help = "Examples:\n  tgctl users sessions alice\n  tgctl users sessions alice --format=json | jq -r '.[].id'"
    )]
    Sessions(UsersSessionsArgs),
    /// Let a person try to log in again at once, after too many failed tries.
    #[command(after_help = "Examples:\n  tgctl users unlock alice")]
    Unlock(UsersUnlockArgs),
    /// Give a person other roles, database users or logical databases. It counts from the next login on.
    #[command(
        after_help = "Examples:\n  tgctl users update alice --set-roles=access,auditor\n  tgctl users update alice --set-db-users=reader,writer --set-db-names='*'\n  tgctl users update alice --set-db-names=        # none any more"
    )]
    Update(UsersUpdateArgs),
}

#[derive(Debug, Args)]
pub(crate) struct UsersRevokeArgs {
    /// The person's name.
    pub(crate) name: String,
    /// This login alone, as `tgctl users sessions` shows it [default: all].
    #[arg(long, value_name = "ID")]
    pub(crate) session: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct UsersSessionsArgs {
    /// The person's name.
    pub(crate) name: String,
    /// How the result is written.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct UsersUnlockArgs {
    /// The person's name.
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct UsersResetArgs {
    /// The person's name.
    pub(crate) name: String,
    /// Remove the second factors and nothing else.
    #[arg(long, conflicts_with = "ttl")]
    pub(crate) mfa_only: bool,
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
