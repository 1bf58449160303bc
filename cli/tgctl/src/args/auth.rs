//! `tgctl auth`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use tidegate_console::{Format, when};
use tidegate_proto::v1::RotationPhase;

use super::FormatArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum AuthCommand {
    /// Make a key file that encrypts the private keys of the CAs in the state store.
    #[command(
        after_help = "Examples:\n  tgctl auth keyfile /etc/tidegate/ca.key\n\nThe file must not be there yet; only its owner may read it. Name it in `auth_service.ca_key_params.key_file` of every auth instance, and keep a copy apart from backups of the state."
    )]
    Keyfile(AuthKeyfileArgs),
    /// Replace a CA by a new one, in phases, while everything goes on.
    #[command(
        after_help = "Examples:\n  tgctl auth rotate --type=all                          # by itself, within 48 hours\n  tgctl auth rotate --type=host --grace-period=72h\n  tgctl auth rotate --type=user --manual                # begins with phase init\n  tgctl auth rotate --type=user --phase=update_clients\n  tgctl auth rotate --type=user --phase=rollback\n\nPhases: standby, init, update_clients, update_servers, standby; from each but standby `rollback` leads back. A phase that is asked for by name makes an automatic rotation a manual one."
    )]
    Rotate(AuthRotateArgs),
    /// The CAs: their pins, who signs, and where their rotation is.
    #[command(
        after_help = "Examples:\n  tgctl auth status\n  tgctl auth status --format=json | jq '.[] | select(.kind == \"host\") | .phase'"
    )]
    Status(FormatArgs),
}

#[derive(Debug, Args)]
pub(crate) struct AuthKeyfileArgs {
    /// Where to write it.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct AuthRotateArgs {
    /// Which CA.
    #[arg(long = "type", value_name = "CA", value_enum)]
    pub(crate) kind: CaType,
    /// The phase to move to [default: start a rotation].
    #[arg(long, value_enum)]
    pub(crate) phase: Option<PhaseName>,
    /// Wait for an administrator before each phase.
    #[arg(long)]
    pub(crate) manual: bool,
    /// From the start of an automatic rotation to its end [default: 48h].
    #[arg(long, value_parser = when::parse_span, conflicts_with_all = ["manual", "phase"])]
    pub(crate) grace_period: Option<Duration>,
    /// How the result is written.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// CAs by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CaType {
    /// Host, user and db.
    All,
    /// What agents show to clients.
    Db,
    /// Services.
    Host,
    /// People.
    User,
}

impl CaType {
    pub(crate) fn kinds(self) -> Vec<String> {
        let names: &[&str] = match self {
            Self::All => &["host", "user", "db"],
            Self::Db => &["db"],
            Self::Host => &["host"],
            Self::User => &["user"],
        };
        names.iter().map(ToString::to_string).collect()
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Db => "db",
            Self::Host => "host",
            Self::User => "user",
        }
    }
}

/// Phases by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum PhaseName {
    /// One CA. From `update_servers` the new one stays, from `rollback` the old one.
    Standby,
    /// A new CA is trusted beside the old one.
    Init,
    /// The new CA signs what clients show.
    UpdateClients,
    /// The new CA signs everything.
    UpdateServers,
    /// The old CA signs everything again.
    Rollback,
}

impl From<PhaseName> for RotationPhase {
    fn from(phase: PhaseName) -> Self {
        match phase {
            PhaseName::Standby => Self::Standby,
            PhaseName::Init => Self::Init,
            PhaseName::UpdateClients => Self::UpdateClients,
            PhaseName::UpdateServers => Self::UpdateServers,
            PhaseName::Rollback => Self::Rollback,
        }
    }
}
