//! Where a server lives and as whom it runs.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::unistd::{User, geteuid};
use tokio::process::Command;

use super::{PostgresError, io_error};

/// Longest folder of a unix socket, in bytes: the socket's whole path holds 107.
const SOCKET_DIR_BYTES_MAX: usize = 80;
/// Where distributions put the server, by version.
const DEBIAN_ROOT: &str = "/usr/lib/postgresql";

/// The folder that holds `initdb` and `postgres`: the one given, else the first on `PATH`, else
/// Debian's newest.
pub(crate) fn find_binaries(given: Option<&Path>) -> Result<PathBuf, PostgresError> {
    let mut folders: Vec<PathBuf> = Vec::new();
    match given {
        Some(given) => folders.push(given.to_owned()),
        None => {
            let path = std::env::var_os("PATH").unwrap_or_default();
            folders.extend(std::env::split_paths(&path));
            let mut versions: Vec<(u32, PathBuf)> = fs::read_dir(DEBIAN_ROOT)
                .into_iter()
                .flatten()
                .flatten()
                .filter_map(|entry| {
                    let version = entry.file_name().to_str()?.parse().ok()?;
                    Some((version, entry.path().join("bin")))
                })
                .collect();
            versions.sort_unstable_by(|a, b| b.cmp(a));
            folders.extend(versions.into_iter().map(|(_, folder)| folder));
        }
    }
    let has = |folder: &Path, program: &str| folder.join(program).is_file();
    let complete = |folder: &PathBuf| has(folder, "initdb") && has(folder, "postgres");
    folders
        .iter()
        .find(|folder| complete(folder))
        .cloned()
        .ok_or_else(|| {
            let looked: Vec<_> = folders.iter().map(|f| f.display().to_string()).collect();
            PostgresError::Absent {
                looked: format!("{}, {DEBIAN_ROOT}/*/bin", looked.join(", ")),
            }
        })
}

/// A server's own folder, private to the user that runs the server.
#[derive(Debug)]
pub(crate) struct Home {
    path: PathBuf,
    /// User and group to become, when run by root.
    owner: Option<(u32, u32)>,
    temporary: bool,
}

impl Home {
    /// Makes `dir/name`. Where the server's user could not get there, or the path is too long for
    /// a socket, a folder under the system's temporary one is made instead, and removed in the end.
    pub(crate) fn make(dir: &Path, name: &str) -> Result<Self, PostgresError> {
        let owner = if geteuid().is_root() {
            Some(find_owner()?)
        } else {
            None
        };
        let wanted = dir.join(name);
        let reachable = owner.is_none() || is_traversable(dir);
        let fits = wanted.as_os_str().len() <= SOCKET_DIR_BYTES_MAX;
        let temporary = !(reachable && fits);
        let path = if temporary {
            let unique = uuid::Uuid::new_v4().simple().to_string();
            std::env::temp_dir().join(format!("awssim-{}", &unique[..12]))
        } else {
            wanted
        };
        let made = fs::create_dir_all(&path)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o700)))
            .and_then(|()| owner.map_or(Ok(()), |(u, g)| chown(&path, Some(u), Some(g))));
        made.map_err(|e| io_error(format!("make {}", path.display()), e))?;
        Ok(Self {
            path,
            owner,
            temporary,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A command that runs as the server's user, in its folder, with a bare environment.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let path = std::env::var_os("PATH").unwrap_or_default();
        command
            .env_clear()
            .env("PATH", path)
            .env("LC_ALL", "C")
            .env("TZ", "UTC");
        command.current_dir(&self.path);
        if let Some((user, group)) = self.owner {
            command.gid(group).uid(user);
        }
        command
    }

    /// Writes a file that only the server's user may read.
    pub(super) fn write_private(&self, path: &Path, text: &str) -> Result<(), PostgresError> {
        let written = fs::write(path, text)
            .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o600)))
            .and_then(|()| {
                self.owner
                    .map_or(Ok(()), |(u, g)| chown(path, Some(u), Some(g)))
            });
        written.map_err(|e| io_error(format!("write {}", path.display()), e))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.temporary {
            let removed = fs::remove_dir_all(&self.path);
            tracing::debug!(path = %self.path.display(), ?removed, "removed temporary folder");
        }
    }
}

fn find_owner() -> Result<(u32, u32), PostgresError> {
    let find = |name| User::from_name(name).ok().flatten();
    let user = find("postgres")
        .or_else(|| find("nobody"))
        .ok_or(PostgresError::NoUser)?;
    Ok((user.uid.as_raw(), user.gid.as_raw()))
}

/// Whether anybody may pass through `dir` and all that lead to it. `dir` itself is opened for
/// that if it is root's.
fn is_traversable(dir: &Path) -> bool {
    let Ok(dir) = dir.canonicalize() else {
        return false;
    };
    if let Ok(found) = fs::metadata(&dir)
        && found.uid() == 0
        && found.mode() & 0o001 == 0
        && let Err(error) =
            fs::set_permissions(&dir, fs::Permissions::from_mode(found.mode() | 0o011))
    {
        tracing::debug!(%error, "could not open the state folder");
    }
    dir.ancestors()
        .all(|a| fs::metadata(a).is_ok_and(|found| found.mode() & 0o001 != 0))
}
