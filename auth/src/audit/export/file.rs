//! Lines at the end of a file, and on standard output.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::ExportError;

/// The file's name where a folder is named.
const FILE_NAME: &str = "audit.jsonl";
/// How far back the end of the last whole line is looked for: no line is longer.
const LINE_BYTES_MAX: u64 = 1024 * 1024;

/// A file that lines are appended to. It is opened for each batch, so that it can be renamed away at any time.
#[derive(Debug)]
pub(super) struct FileTarget {
    path: PathBuf,
}

impl FileTarget {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// Appends lines and waits until they are on disk.
    pub(super) async fn append(&self, text: Bytes) -> Result<(), ExportError> {
        let path = self.path.clone();
        on_a_thread(self.path.display().to_string(), move || {
            let path = if path.is_dir() {
                path.join(FILE_NAME)
            } else {
                path
            };
            let mut file = OpenOptions::new()
                .create(true)
                .read(true)
                .append(true)
                .mode(0o600)
                .open(path)?;
            let is_file = file.metadata()?.is_file();
            if is_file {
                drop_torn_line(&mut file)?;
            }
            file.write_all(&text)?;
            if is_file { file.sync_data() } else { Ok(()) }
        })
        .await
    }
}

/// Writes lines to standard output.
pub(super) async fn print(text: Bytes) -> Result<(), ExportError> {
    on_a_thread("standard output".to_owned(), move || {
        let mut stdout = io::stdout().lock();
        stdout.write_all(&text)?;
        stdout.flush()
    })
    .await
}

async fn on_a_thread(
    file: String,
    write: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> Result<(), ExportError> {
    let written = tokio::task::spawn_blocking(write).await;
    written
        .unwrap_or_else(|error| Err(io::Error::other(error)))
        .map_err(|source| ExportError::File { file, source })
}

/// Takes away a last line that a full disk or a power cut left without its end. It comes again, whole: its batch was
/// not written to the end.
fn drop_torn_line(file: &mut File) -> io::Result<()> {
    let length = file.metadata()?.len();
    if length == 0 {
        return Ok(());
    }
    let from = length.saturating_sub(LINE_BYTES_MAX);
    file.seek(SeekFrom::Start(length - 1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    if last == *b"\n" {
        return Ok(());
    }
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(from))?;
    file.take(LINE_BYTES_MAX).read_to_end(&mut tail)?;
    let whole = tail.iter().rposition(|byte| *byte == b'\n');
    let whole = whole.map_or(0, |at| at + 1);
    file.set_len(from + u64::try_from(whole).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_that_was_cut_off_is_taken_away_before_more_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        let target = FileTarget::new(directory.path());
        target
            .append(Bytes::from_static(b"one\ntwo\n"))
            .await
            .unwrap();
        std::fs::write(&path, "one\ntwo\nthr").unwrap();
        target.append(Bytes::from_static(b"three\n")).await.unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\nthree\n");
        std::fs::write(&path, "torn").unwrap();
        target.append(Bytes::from_static(b"one\n")).await.unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\n");
    }
}
