//! The one file that is kept: encrypted with a key that comes from the host's private key, and replaced as a whole.
//!
//! Invariant: what opens is what this host wrote for its present identity, byte for byte. A file that was cut, changed, or
//! written for another identity, cluster or version is refused as such. An older one of the same identity opens, which is
//! why what is in it says when it was so.
//!
//! All of this reads and writes files: not for the runtime's own threads.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use prost::Message as _;
use tidegate_identity::{IdentityError, KeyPair, SealingKey};
use tidegate_service::host::HostHandle;
use zeroize::Zeroizing;

use super::record::Record;

/// The file, in the data directory.
pub(crate) const FILE_NAME: &str = "offline.sealed";

/// What the file begins with; another version begins otherwise.
const MAGIC: &[u8] = b"tidegate offline 1\n";

/// What its key is made for.
const PURPOSE: &[u8] = b"offline start";

/// Largest file: far more than thousands of roles and locks take.
const FILE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Only the service's user reads it.
const FILE_MODE: u32 = 0o600;

/// Why there is nothing to use.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error("nothing was kept of the control plane: `{}` is not there", .0.display())]
    Missing(PathBuf),
    #[error(
        "`{}` is damaged, or was written for another identity of this host; it is not used", .0.display()
    )]
    NotOurs(PathBuf),
    #[error("`{}` was written by another version of Tidegate; it is not used", .0.display())]
    OtherVersion(PathBuf),
    #[error("could not read `{}`", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("could not encrypt what is kept of the control plane")]
    Seal(#[source] IdentityError),
    #[error("what there is to keep of the control plane has {0} bytes, more than {FILE_BYTES_MAX}")]
    TooLarge(usize),
    #[error("could not write `{}`", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// Whose file it is.
pub(super) struct Owner {
    key: KeyPair,
    context: Vec<u8>,
}

impl Owner {
    /// The host, with the identity that it has now.
    pub(super) fn of(host: &HostHandle) -> Self {
        Self::new(
            host.key(),
            host.cluster().as_str(),
            &host.host_id().to_string(),
        )
    }

    fn new(key: KeyPair, cluster: &str, host_id: &str) -> Self {
        // Neither name can hold a line feed.
        let context = [MAGIC, cluster.as_bytes(), b"\n", host_id.as_bytes()].concat();
        Self { key, context }
    }

    fn sealing_key(&self) -> Result<SealingKey, IdentityError> {
        SealingKey::derived_from(&self.key, PURPOSE)
    }

    /// Reads what was kept.
    ///
    /// # Errors
    ///
    /// [`FileError`].
    pub(super) fn read(&self, path: &Path) -> Result<Record, FileError> {
        let not_ours = || FileError::NotOurs(path.to_owned());
        let bytes = read_bounded(path)?;
        let Some(sealed) = bytes.strip_prefix(MAGIC) else {
            return Err(FileError::OtherVersion(path.to_owned()));
        };
        let plain = self
            .sealing_key()
            .and_then(|key| key.open_bytes(sealed, &self.context))
            .map_err(|_| not_ours())?;
        Record::decode(plain.as_slice()).map_err(|_| not_ours())
    }

    /// Keeps a record in place of the one before.
    ///
    /// # Errors
    ///
    /// [`FileError`]; what was kept before is still there then.
    pub(super) fn write(&self, path: &Path, record: &Record) -> Result<(), FileError> {
        let plain = Zeroizing::new(record.encode_to_vec());
        let sealed = self
            .sealing_key()
            .and_then(|key| key.seal_bytes(&plain, &self.context))
            .map_err(FileError::Seal)?;
        let bytes = [MAGIC, &sealed].concat();
        if bytes.len() > FILE_BYTES_MAX {
            return Err(FileError::TooLarge(bytes.len()));
        }
        replace(path, &bytes).map_err(|source| FileError::Write {
            path: path.to_owned(),
            source,
        })
    }
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, FileError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => FileError::Missing(path.to_owned()),
        _ => FileError::Read {
            path: path.to_owned(),
            source,
        },
    };
    let mut bytes = Vec::new();
    let limit = u64::try_from(FILE_BYTES_MAX).unwrap_or(u64::MAX);
    File::open(path)
        .and_then(|file| file.take(limit.saturating_add(1)).read_to_end(&mut bytes))
        .map_err(failed)?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(FileError::NotOurs(path.to_owned()));
    }
    Ok(bytes)
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_added_extension("new");
    remove(&new)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    path.parent()
        .map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// Makes sure that there is no such file.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn record() -> Record {
        let mut record = Record::default();
        record.proxies.push("proxy.example.com:443".to_owned());
        record.key_pem.push_str("hush");
        record.confirmed_at_ms = 7;
        record
    }

    #[test]
    fn what_was_kept_reads_back_and_only_its_owner_may_read_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let key = KeyPair::generate().unwrap();
        let owner = Owner::new(key.clone(), "c", "h");
        assert!(matches!(owner.read(&path), Err(FileError::Missing(_))));
        owner.write(&path, &Record::default()).unwrap();
        owner.write(&path, &record()).unwrap();
        let again = Owner::new(key, "c", "h");
        assert_eq!(again.read(&path).unwrap(), record());
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let bytes = fs::read(&path).unwrap();
        assert!(!bytes.windows(4).any(|part| part == b"hush"));
    }

    #[test]
    fn a_file_that_was_cut_changed_or_is_somebody_else_s_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let key = KeyPair::generate().unwrap();
        let owner = Owner::new(key.clone(), "c", "h");
        owner.write(&path, &record()).unwrap();
        for other in [
            Owner::new(KeyPair::generate().unwrap(), "c", "h"),
            Owner::new(key.clone(), "d", "h"),
            Owner::new(key, "c", "i"),
        ] {
            assert!(matches!(other.read(&path), Err(FileError::NotOurs(_))));
        }
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(&path, &changed).unwrap();
            assert!(owner.read(&path).is_err(), "byte {at}");
            fs::write(&path, &whole[..at]).unwrap();
            assert!(owner.read(&path).is_err(), "length {at}");
        }
        fs::write(&path, b"tidegate offline 2\nsomething").unwrap();
        assert!(matches!(owner.read(&path), Err(FileError::OtherVersion(_))));
    }
}
