//! Bundles that were downloaded, kept in the data directory for the next start.
//!
//! Each is two files: the bundle, and its version (what its place called it, and its digest). Both are replaced as a
//! whole. They are written one after the other; a version whose digest is another bundle's is one that a crash came
//! between, and tells nothing.
//!
//! Not here: whether bytes are a bundle ([`super::accept`]), which every reader asks again.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use aws_lc_rs::digest::{SHA256, digest};
use tidegate_identity::secret;

use super::{accept::BUNDLE_BYTES_MAX, source::BundleName};

/// Longest version that is kept; entity tags of S3 have some 34 bytes.
pub(super) const ETAG_BYTES_MAX: usize = 256;

/// A bundle as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) bytes: Vec<u8>,
    /// What its place calls this version, for asking whether there is another.
    pub(super) etag: Option<String>,
}

/// The folder of bundles.
#[derive(Clone, Debug)]
pub(super) struct BundleFiles {
    folder: PathBuf,
}

impl BundleFiles {
    /// Bundles in this folder, which is made when the first is written.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The bundle that was kept last, if any. Reads files: not for the runtime's own threads.
    pub(super) fn read(&self, name: &BundleName) -> io::Result<Option<Kept>> {
        let Some(bytes) = read_bounded(&self.bundle(name), BUNDLE_BYTES_MAX)? else {
            return Ok(None);
        };
        let version = read_bounded(&self.version(name), 2 * ETAG_BYTES_MAX)?.unwrap_or_default();
        let etag = String::from_utf8(version).ok().and_then(|version| {
            let (hash, etag) = version.split_once('\n')?;
            let etag = etag.trim_end();
            (hash == fingerprint(&bytes) && !etag.is_empty()).then(|| etag.to_owned())
        });
        Ok(Some(Kept { bytes, etag }))
    }

    /// Keeps a bundle in place of the one before. Writes files: not for the runtime's own threads.
    pub(super) fn write(&self, name: &BundleName, kept: &Kept) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        replace(&self.bundle(name), &kept.bytes)?;
        let etag = kept.etag.as_deref().unwrap_or_default();
        let version = format!("{}\n{etag}\n", fingerprint(&kept.bytes));
        replace(&self.version(name), version.as_bytes())?;
        File::open(&self.folder)?.sync_all()
    }

    fn bundle(&self, name: &BundleName) -> PathBuf {
        self.folder.join(format!("{}.pem", name.file_name()))
    }

    fn version(&self, name: &BundleName) -> PathBuf {
        self.folder.join(format!("{}.version", name.file_name()))
    }
}

/// The digest by which two bundles are told apart.
pub(super) fn fingerprint(bytes: &[u8]) -> String {
    secret::hex(digest(&SHA256, bytes).as_ref())
}

/// A whole file; an error for a longer one.
pub(super) fn read_bounded(path: &Path, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() > bytes_max {
        let problem = format!("{} has more than {bytes_max} bytes", path.display());
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, problem));
    }
    Ok(Some(bytes))
}

/// Certificates are public, so the file has the mode that the process gives to files.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_added_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> (tempfile::TempDir, BundleFiles) {
        let dir = tempfile::tempdir().unwrap();
        let files = BundleFiles::new(dir.path().join("trust"));
        (dir, files)
    }

    fn name() -> BundleName {
        BundleName::Rds("us-east-1".parse().unwrap())
    }

    fn kept(bytes: &[u8], etag: Option<&str>) -> Kept {
        Kept {
            bytes: bytes.to_vec(),
            etag: etag.map(str::to_owned),
        }
    }

    #[test]
    fn a_bundle_comes_back_with_its_version() {
        let (_dir, files) = files();
        assert_eq!(files.read(&name()).unwrap(), None);
        for one in [kept(b"one", Some("\"abc\"")), kept(b"two", None)] {
            files.write(&name(), &one).unwrap();
            assert_eq!(files.read(&name()).unwrap(), Some(one));
        }
    }

    #[test]
    fn after_a_crash_between_the_two_files_the_old_version_says_nothing_of_the_new_bundle() {
        let (_dir, files) = files();
        files.write(&name(), &kept(b"one", Some("v1"))).unwrap();
        replace(&files.bundle(&name()), b"two").unwrap();
        assert_eq!(files.read(&name()).unwrap(), Some(kept(b"two", None)));
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read_into_memory() {
        let (_dir, files) = files();
        files.write(&name(), &kept(b"", None)).unwrap();
        fs::write(files.bundle(&name()), vec![0; BUNDLE_BYTES_MAX + 1]).unwrap();
        let error = files.read(&name()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }
}
