//! `tgctl backup`: the cluster's state in a file, and back.
//!
//! A file gets its name only when it is whole: it is written under another, read back and checked, and brought to disk
//! first. Before a file is restored it is checked here too, so that a damaged one costs nobody a connection.

mod file;

use std::path::Path;

use serde::Serialize;
use tidegate_console::{Failure, Output, client::Client, output, rpc, when};
use tidegate_proto::{
    convert,
    v1::{
        BackupHeader, CreateBackupRequest, RestoreBackupRequest, RestoreOptions,
        restore_backup_request::Part,
    },
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;

use crate::args::{BackupCreateArgs, BackupRestoreArgs, BackupVerifyArgs};
use file::{Destination, chunks, verified};

/// How long a restore may take, from the first byte that is sent to the answer.
const RESTORE_TIMEOUT: std::time::Duration = std::time::Duration::from_hours(2);
/// Pieces of a file that wait to be sent.
const PIECES_WAITING_MAX: usize = 4;
const HINT_LOCAL: &str = "run it on an auth host, as root or as the service's user: nobody else may see what a backup holds";

/// A backup file, as results tell of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Summary {
    file: String,
    cluster: String,
    revision: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<jiff::Timestamp>,
    /// Version of the program that made it.
    program: String,
    entries: u64,
    bytes: u64,
    sha256: String,
    /// Whether private keys of CAs are in it as they are.
    holds_private_keys: bool,
}

impl Summary {
    fn text(&self, verb: &str) -> String {
        let made = self
            .created
            .map_or("at no known time".to_owned(), when::utc);
        format!(
            "{verb} {}: cluster {} at revision {}, {made}; {} entries, {} bytes.\n",
            self.file, self.cluster, self.revision, self.entries, self.bytes
        )
    }

    fn warn(&self) {
        if self.holds_private_keys {
            output::remark(&format!(
                "WARNING: {} holds the private keys of the cluster's CAs as they are: whoever reads it can pass for \
                 anybody. Keep it as you keep those keys, or seal them first.",
                self.file
            ));
        }
    }
}

/// What a restore did.
#[derive(Debug, Serialize)]
struct Restored {
    cluster: String,
    entries: u64,
    written: u64,
    deleted: u64,
    expired: u64,
}

pub(crate) fn verify(args: &BackupVerifyArgs) -> Result<(), Failure> {
    let summary = verified(&args.file)?;
    Output::new(args.format).value(&summary, || summary.text("Sound:"))
}

pub(crate) async fn create(client: &Client, args: BackupCreateArgs) -> Result<(), Failure> {
    let name = args.output.unwrap_or_else(|| {
        let now = jiff::Timestamp::now();
        format!("tidegate-backup-{}", now.strftime("%Y%m%dT%H%M%SZ")).into()
    });
    let mut destination = Destination::new(&name, args.force)?;
    let summary = match receive(client, &mut destination).await {
        Ok(()) => destination.finish()?,
        Err(failure) => {
            destination.discard();
            return Err(failure);
        }
    };
    Output::new(args.format).value(&summary, || summary.text("Written to"))?;
    summary.warn();
    Ok(())
}

/// Writes what the auth service sends.
async fn receive(client: &Client, destination: &mut Destination) -> Result<(), Failure> {
    const DOING: &str = "make a backup";
    let mut backup = client.backup();
    let answer = backup.create_backup(CreateBackupRequest {});
    let mut chunks = rpc::call_refusable(DOING, answer, Some(HINT_LOCAL)).await?;
    loop {
        let next = timeout(rpc::CALL_TIMEOUT, chunks.message()).await;
        let next = next.map_err(|_| {
            Failure::new(format!(
                "could not {DOING}: nothing came for {} seconds",
                rpc::CALL_TIMEOUT.as_secs()
            ))
        })?;
        match next {
            Ok(Some(message)) => destination.write(&message.chunk)?,
            Ok(None) => return Ok(()),
            Err(status) => return Err(rpc::failure(DOING, &status)),
        }
    }
}

pub(crate) async fn restore(client: &Client, args: BackupRestoreArgs) -> Result<(), Failure> {
    const DOING: &str = "restore the backup";
    let summary = verified(&args.file)?;
    let (pieces, sent) = mpsc::channel(PIECES_WAITING_MAX);
    let options = RestoreOptions { force: args.force };
    let reading = tokio::task::spawn_blocking(move || send(&args.file, options, &pieces));
    let mut backup = client.backup();
    let answer = backup.restore_backup(ReceiverStream::new(sent));
    let restored = match timeout(RESTORE_TIMEOUT, answer).await {
        Ok(Ok(restored)) => restored.into_inner(),
        Ok(Err(status)) => {
            // What cannot be read any more is the cause, and the auth service only sees that the file ends.
            if let Ok(Err(failure)) = reading.await {
                return Err(failure);
            }
            return Err(refused(DOING, &status));
        }
        Err(_) => {
            return Err(
                Failure::new(format!("could not {DOING}: no answer within hours"))
                    .hint("look at the auth service's log; when it was cut off, restore it again"),
            );
        }
    };
    let done = Restored {
        cluster: summary.cluster.clone(),
        entries: restored.entries,
        written: restored.written,
        deleted: restored.deleted,
        expired: restored.expired,
    };
    Output::new(args.format).value(&done, || {
        format!(
            "The state of cluster {} is that of the backup: {} entries, of which {} had to be written and {} had expired; {} others were deleted.\n",
            done.cluster, done.entries, done.written, done.expired, done.deleted
        )
    })?;
    output::remark(
        "Every instance of the auth service ends now, and has to be started again with the restored CAs; systemd and \
         containers do so by themselves.",
    );
    Ok(())
}

fn refused(doing: &str, status: &tonic::Status) -> Failure {
    let failure = rpc::failure(doing, status);
    match status.code() {
        tonic::Code::PermissionDenied | tonic::Code::Unauthenticated => failure.hint(HINT_LOCAL),
        _ => failure,
    }
}

/// Sends options, then the file piece by piece; ends when nobody takes them any more.
fn send(
    file: &Path,
    options: RestoreOptions,
    to: &mpsc::Sender<RestoreBackupRequest>,
) -> Result<(), Failure> {
    let part = |part| RestoreBackupRequest { part: Some(part) };
    if to.blocking_send(part(Part::Options(options))).is_err() {
        return Ok(());
    }
    for chunk in chunks(file)? {
        if to.blocking_send(part(Part::Chunk(chunk?))).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// What a file says of itself.
fn summary(file: &Path, header: &BackupHeader, entries: u64, bytes: u64, sha256: &[u8]) -> Summary {
    Summary {
        file: file.display().to_string(),
        cluster: header.cluster.clone(),
        revision: header.revision,
        created: header.created_at.and_then(|at| convert::instant(&at).ok()),
        program: header.program.clone(),
        entries,
        bytes,
        sha256: sha256.iter().map(|byte| format!("{byte:02x}")).collect(),
        holds_private_keys: header.holds_private_keys,
    }
}
