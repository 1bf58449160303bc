//! A file that arrives piece by piece, and is looked at once it is whole.
//!
//! It has no name, so nothing of it is left when the process ends, however that comes.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufReader, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use bytes::Bytes;
use tidegate_proto::v1::BackupEntry;
use tidegate_service::backup::{BackupError, Reader};
use uuid::Uuid;

/// Largest backup that is taken in.
pub(super) const BACKUP_BYTES_MAX: u64 = 64 * 1024 * 1024 * 1024;
/// Entries, and bytes of them, that are read at once.
const BATCH_ENTRIES: usize = 500;
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// Reads the entries of a file that was found sound.
pub(super) type Entries = Reader<BufReader<File>>;

/// The pieces so far.
#[derive(Debug)]
pub(super) struct Spool {
    file: File,
    bytes: u64,
}

impl Spool {
    /// Nothing yet; only this process can read it.
    pub(super) fn new(folder: &Path) -> io::Result<Self> {
        let path = folder.join(format!("restore-{}", Uuid::now_v7()));
        let file = OpenOptions::new()
            .create_new(true)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)?;
        std::fs::remove_file(path)?;
        Ok(Self { file, bytes: 0 })
    }

    /// Adds a piece.
    pub(super) async fn push(mut self, chunk: Bytes) -> io::Result<Self> {
        self.bytes += chunk.len() as u64;
        if self.bytes > BACKUP_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        blocking(move || {
            self.file.write_all(&chunk)?;
            Ok(self)
        })
        .await
    }

    /// Reads all of it, and so finds whether it is sound.
    pub(super) async fn check(self) -> Result<(Self, Entries), BackupError> {
        let checked = tokio::task::spawn_blocking(move || {
            let mut entries = self.entries().map_err(BackupError::Io)??;
            while entries.next_entry()?.is_some() {}
            Ok((self, entries))
        });
        checked.await.unwrap_or_else(|error| Err(ended(error)))
    }

    /// Its entries, from the first.
    pub(super) fn entries(&self) -> io::Result<Result<Entries, BackupError>> {
        // Both are the same open file, so only one may be read at a time.
        let mut file = self.file.try_clone()?;
        file.rewind()?;
        Ok(Reader::open(BufReader::new(file)))
    }
}

/// The next entries; none at the end.
pub(super) async fn batch(
    mut entries: Entries,
) -> Result<(Entries, Vec<BackupEntry>), BackupError> {
    let read = tokio::task::spawn_blocking(move || {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < BATCH_ENTRIES && bytes < BATCH_BYTES {
            let Some(entry) = entries.next_entry()? else {
                break;
            };
            bytes += entry.key.len() + entry.value.len();
            batch.push(entry);
        }
        Ok((entries, batch))
    });
    read.await.unwrap_or_else(|error| Err(ended(error)))
}

async fn blocking<T: Send + 'static>(
    run: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(run)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// A blocking task that did not come to its end.
fn ended(error: tokio::task::JoinError) -> BackupError {
    BackupError::Io(io::Error::other(error))
}
