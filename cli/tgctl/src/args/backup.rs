//! The command line of `tgctl backup`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use tidegate_console::Format;

#[derive(Debug, Subcommand)]
pub(crate) enum BackupCommand {
    /// Write the cluster's whole state to a file.
    #[command(
        after_help = "Examples:\n  tgctl backup create\n  tgctl backup create -o /var/backups/tidegate\n  tgctl backup create --format=json | jq -r .sha256\n\nRun it on an auth host, as root or as the service's user. The file is only its owner's to read; unless CA keys are sealed it holds them as they are.\n\nWhat lives with running services (presence, scan leases) and the audit log are not in it."
    )]
    Create(BackupCreateArgs),
    /// Make the cluster's state that of a backup.
    #[command(
        after_help = "Examples:\n  tgctl backup restore /var/backups/tidegate\n  tgctl backup restore --force /var/backups/tidegate     # replace what is there\n\nThe auth service runs, with the cluster name of the backup and a new store: that is also how a cluster moves from SQLite to etcd or back. Nothing is written before the whole file has been checked. Afterwards every instance of the auth service ends, to be started again with the restored CAs. When it was cut off, run it again."
    )]
    Restore(BackupRestoreArgs),
    /// Check a file: that it is whole, and nothing in it was changed.
    #[command(
        after_help = "Examples:\n  tgctl backup verify /var/backups/tidegate\n\nIt reads the file and asks nobody."
    )]
    Verify(BackupVerifyArgs),
}

#[derive(Debug, Args)]
pub(crate) struct BackupCreateArgs {
    /// The file [default: `tidegate-backup-<time>` in this folder].
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Replace a file of that name.
    #[arg(short, long)]
    pub(crate) force: bool,
    /// How the result is written.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct BackupRestoreArgs {
    /// The backup.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Also where there are users, databases or anything else: they go.
    #[arg(short, long)]
    pub(crate) force: bool,
    /// How the result is written.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct BackupVerifyArgs {
    /// The backup.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// How the result is written.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
}
