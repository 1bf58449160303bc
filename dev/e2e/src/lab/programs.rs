//! Programs that the laboratory starts, and where they are found.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};

/// A program of this workspace, built beside the running one.
///
/// # Errors
///
/// When it was not built.
pub fn program(name: &str) -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    let found = here
        .ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file());
    found.with_context(|| format!("`{name}` was not built: run `cargo build --workspace --bins`"))
}

/// A server program of PostgreSQL, from the newest version that is installed.
///
/// # Errors
///
/// When there is none.
pub fn postgres_program(name: &str) -> Result<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            Some((
                entry.file_name().to_str()?.parse().ok()?,
                entry.path().join("bin").join(name),
            ))
        })
        .filter(|(_, path)| path.is_file())
        .collect();
    versions.sort();
    let on_path = std::env::var_os("PATH")
        .into_iter()
        .flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let found = versions.pop().map(|(_, path)| path).or_else(|| {
        on_path
            .map(|dir| dir.join(name))
            .find(|path| path.is_file())
    });
    found.with_context(|| format!("PostgreSQL's `{name}` is not installed"))
}

/// How a process of the laboratory finds AWS host names on loopback addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// A mount namespace of its own, in which the simulated AWS's hosts file is `/etc/hosts`. Needs root.
    Namespace,
    /// `libnss-wrapper`, preloaded. It is not made for several threads that look up their first names at once: that can
    /// end a process in the memory allocator.
    Preload,
}

impl Names {
    /// The better of what this machine allows.
    pub(super) fn of_this_machine() -> Self {
        let allowed = Command::new("unshare")
            .args([
                "--mount",
                "--",
                "mount",
                "--bind",
                "/etc/hosts",
                "/etc/hosts",
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if allowed {
            Self::Namespace
        } else {
            Self::Preload
        }
    }
}

pub(super) fn nss_wrapper() -> Result<PathBuf> {
    let dirs = [
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib64",
        "/usr/lib",
    ];
    let found = dirs
        .iter()
        .map(|dir| Path::new(dir).join("libnss_wrapper.so"))
        .find(|path| path.exists());
    found.context("libnss_wrapper.so is not installed")
}
