//! A folder that only this user may enter, for a socket file.

use std::{
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use tidegate_console::{Failure, client::tls_unusable};
use tidegate_identity::secret;

/// The most of a socket's path that systems take (`sun_path` of macOS, with a NUL; Linux has 108).
const SOCKET_PATH_BYTES_MAX: usize = 103;

/// A folder of ours; it goes with this value, and what is in it.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Makes a folder where systems put such things, in which a socket called `socket` can be.
    pub(super) fn create(socket: &str) -> Result<Self, Failure> {
        let name = secret::random_bytes::<8>().map_err(tls_unusable)?;
        let name = format!("tg-{}", secret::hex(&name));
        let parents = [
            std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from),
            Some(std::env::temp_dir()),
            Some(PathBuf::from("/tmp")),
        ];
        let mut last = None;
        for parent in parents.into_iter().flatten() {
            let folder = parent.join(&name);
            if folder.join(socket).as_os_str().len() > SOCKET_PATH_BYTES_MAX {
                continue;
            }
            match fs::DirBuilder::new().mode(0o700).create(&folder) {
                Ok(()) => return Ok(Self(folder)),
                Err(error) => last = Some((folder, error)),
            }
        }
        Err(match last {
            Some((folder, error)) => Failure::new(format!(
                "cannot make a folder for a socket, {}: {error}",
                folder.display()
            )),
            None => {
                Failure::new("there is no folder with a path that is short enough for a socket")
            }
        })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left of it holds nothing: a socket without a listener.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_folder_is_this_users_alone_and_goes_with_its_value() {
        let folder = Folder::create("s").unwrap();
        let path = folder.path().to_owned();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        fs::write(path.join("s"), b"").unwrap();
        drop(folder);
        assert!(!path.exists());
    }
}
