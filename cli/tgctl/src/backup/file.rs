//! Backup files on disk.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use tidegate_console::{Failure, output};
use tidegate_service::{
    backup::{BackupError, Reader},
    telemetry::chain,
};

use super::{Summary, summary};

/// Bytes of a piece that is sent; the auth service takes up to 1 MiB.
const PIECE_BYTES: u64 = 512 * 1024;

fn failed<'f>(doing: &'f str, file: &'f Path) -> impl FnOnce(io::Error) -> Failure + 'f {
    move |error| Failure::new(format!("cannot {doing} {}: {error}", file.display()))
}

/// A file that gets its name once it is whole.
#[derive(Debug)]
pub(super) struct Destination {
    name: PathBuf,
    part: PathBuf,
    file: File,
    force: bool,
}

impl Destination {
    /// Begins a file beside its name; only its owner may read it.
    pub(super) fn new(name: &Path, force: bool) -> Result<Self, Failure> {
        if !force && name.symlink_metadata().is_ok() {
            return Err(exists(name));
        }
        let mut part = name.as_os_str().to_owned();
        part.push(format!(".part-{}", std::process::id()));
        let part = PathBuf::from(part);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&part)
            .map_err(failed("write", &part))?;
        Ok(Self {
            name: name.to_owned(),
            part,
            file,
            force,
        })
    }

    /// Adds to it.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = self.file.write_all(bytes);
        written.map_err(failed("write", &self.part))
    }

    /// Brings it to disk, checks what is there, and gives it its name.
    pub(super) fn finish(self) -> Result<Summary, Failure> {
        let synced = self.file.sync_all().map_err(failed("write", &self.part));
        match synced.and_then(|()| read_back(&self.part)) {
            Ok(found) => {
                self.rename()?;
                Ok(Summary {
                    file: self.name.display().to_string(),
                    ..found
                })
            }
            Err(failure) => {
                self.discard();
                Err(failure)
            }
        }
    }

    fn rename(&self) -> Result<(), Failure> {
        let renamed = if self.force {
            fs::rename(&self.part, &self.name)
        } else {
            // Unlike a renaming, this fails when somebody else was quicker.
            fs::hard_link(&self.part, &self.name).and_then(|()| fs::remove_file(&self.part))
        };
        match renamed {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.discard();
                return Err(exists(&self.name));
            }
            Err(error) => return Err(failed("rename", &self.part)(error)),
        }
        let folder = match self.name.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(failed("write", folder))
    }

    /// Nobody needs it.
    pub(super) fn discard(&self) {
        if let Err(error) = fs::remove_file(&self.part) {
            output::remark(&format!("cannot remove {}: {error}", self.part.display()));
        }
    }
}

fn exists(name: &Path) -> Failure {
    Failure::new(format!("{} exists already", name.display())).hint("`--force` replaces it")
}

/// A file's summary, if it is a sound backup.
pub(super) fn verified(file: &Path) -> Result<Summary, Failure> {
    read_back(file).map_err(|failure| {
        failure.hint(
            "restore another backup; `tgctl backup create` makes one while the auth service runs",
        )
    })
}

fn read_back(file: &Path) -> Result<Summary, Failure> {
    let opened = File::open(file).map_err(failed("read", file))?;
    let bytes = opened.metadata().map_err(failed("read", file))?.len();
    let told = |error: BackupError| Failure::new(format!("{}: {}", file.display(), chain(&error)));
    let mut reader = Reader::open(BufReader::new(opened)).map_err(told)?;
    while reader.next_entry().map_err(told)?.is_some() {}
    let sha256 = reader.sha256().unwrap_or_default();
    Ok(summary(
        file,
        reader.header(),
        reader.entries(),
        bytes,
        sha256,
    ))
}

/// A file in pieces.
pub(super) fn chunks(
    file: &Path,
) -> Result<impl Iterator<Item = Result<Vec<u8>, Failure>> + use<>, Failure> {
    let mut opened = File::open(file).map_err(failed("read", file))?;
    let file = file.to_owned();
    Ok(std::iter::from_fn(move || {
        let mut chunk = Vec::new();
        match (&mut opened).take(PIECE_BYTES).read_to_end(&mut chunk) {
            Ok(0) => None,
            Ok(_) => Some(Ok(chunk)),
            Err(error) => Some(Err(failed("read", &file)(error))),
        }
    }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use tidegate_proto::v1::{BackupEntry, BackupHeader};
    use tidegate_service::backup::Writer;

    use super::*;

    fn backup() -> Vec<u8> {
        let header = BackupHeader {
            cluster: "tidegate.test".to_owned(),
            revision: 7,
            ..BackupHeader::default()
        };
        let mut writer = Writer::new(Vec::new(), header).unwrap();
        let entry = BackupEntry {
            key: b"/a".to_vec(),
            ..BackupEntry::default()
        };
        writer.entry(entry).unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn a_file_gets_its_name_when_it_is_whole_and_is_its_owner_s() {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().join("backup");
        let bytes = backup();
        let mut destination = Destination::new(&name, false).unwrap();
        destination.write(&bytes[..20]).unwrap();
        assert!(!name.exists());
        destination.write(&bytes[20..]).unwrap();
        let summary = destination.finish().unwrap();
        assert_eq!((summary.entries, summary.revision), (1, 7));
        assert_eq!(verified(&name).unwrap(), summary);
        let mode = fs::metadata(&name).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let sent: Vec<u8> = chunks(&name).unwrap().flat_map(Result::unwrap).collect();
        assert_eq!(sent, bytes);
    }

    #[test]
    fn a_file_that_is_there_is_replaced_only_with_force() {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().join("backup");
        fs::write(&name, "mine").unwrap();
        let refused = Destination::new(&name, false).unwrap_err();
        assert!(refused.message().contains("exists already"), "{refused}");
        let mut destination = Destination::new(&name, true).unwrap();
        destination.write(&backup()).unwrap();
        destination.finish().unwrap();
        assert_eq!(verified(&name).unwrap().entries, 1);
    }

    #[test]
    fn a_file_that_came_in_part_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().join("backup");
        let mut destination = Destination::new(&name, false).unwrap();
        destination.write(&backup()[..30]).unwrap();
        let refused = destination.finish().unwrap_err();
        assert!(refused.message().contains("cut off"), "{refused}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
