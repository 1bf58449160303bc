//! Files that only their owner may read, written whole or not at all.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

use super::ProfileError;

const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

fn failed<'p>(
    doing: &'static str,
    path: &'p Path,
) -> impl FnOnce(io::Error) -> ProfileError + use<'p> {
    move |source| ProfileError::File {
        doing,
        path: path.to_owned(),
        source,
    }
}

/// Writes a file that only its owner may read, replacing what was there; makes the folders above it.
///
/// A reader sees the old content or the new, never a part: the content goes to a file beside it, which then takes
/// its name.
///
/// # Errors
///
/// When a folder or the file cannot be written.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), ProfileError> {
    if let Some(folder) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(FOLDER_MODE)
            .create(folder)
            .map_err(failed("create", folder))?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let beside = path.with_file_name(name);
    remove_file(&beside)?;
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(&beside)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&beside, path));
    written.map_err(|error| {
        let _ = fs::remove_file(&beside);
        failed("write", path)(error)
    })
}

/// Removes a file; one that is not there is fine.
///
/// # Errors
///
/// When it is there and cannot be removed.
pub fn remove_file(path: &Path) -> Result<(), ProfileError> {
    absent_is_fine(fs::remove_file(path)).map_err(failed("remove", path))
}

/// Removes a folder and all in it; one that is not there is fine.
///
/// # Errors
///
/// When it is there and cannot be removed.
pub fn remove_folder(path: &Path) -> Result<(), ProfileError> {
    absent_is_fine(fs::remove_dir_all(path)).map_err(failed("remove", path))
}

fn absent_is_fine(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// What is in a folder, in name order; nothing when it is not there.
pub(super) fn entries(path: &Path) -> Result<Vec<PathBuf>, ProfileError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("list", path)(error)),
    };
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .collect();
    found.sort();
    Ok(found)
}

/// A file's text; `None` when there is no such file.
///
/// # Errors
///
/// When it is there and cannot be read.
pub fn read_private(path: &Path) -> Result<Option<String>, ProfileError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}

pub(super) fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, ProfileError> {
    serde_json::from_str(text).map_err(|error| ProfileError::Damaged {
        path: path.to_owned(),
        problem: error.to_string(),
    })
}

pub(super) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), ProfileError> {
    let mut text = serde_json::to_string_pretty(value).map_err(|error| ProfileError::Damaged {
        path: path.to_owned(),
        problem: error.to_string(),
    })?;
    text.push('\n');
    write_private(path, text.as_bytes())
}
