//! Drivers that the whole-system tests use and Debian has no package of, installed beside what cargo builds.
//!
//! `dev/e2e/drivers` says which, each of one version: `requirements.txt` for Python, `package-lock.json` for Node.js. An
//! installation holds a copy of that file, written last, and is made anew when it is another.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};

use crate::run::{root, step, target};

/// Installs what is missing, or of another version.
pub(crate) fn install() -> Result<()> {
    let place = target().join("drivers");
    let of = |name: &str| root().join("dev/e2e/drivers").join(name);
    keep(&of("requirements.txt"), &place.join("python"), python)?;
    keep(&of("package-lock.json"), &place.join("node"), |folder| {
        fs::copy(of("package.json"), folder.join("package.json"))?;
        fs::copy(of("package-lock.json"), folder.join("package-lock.json"))?;
        let mut npm = Command::new("npm");
        npm.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"])
            .current_dir(folder);
        quietly("drivers for Node.js", npm)
    })
}

fn python(folder: &Path) -> Result<()> {
    let mut environment = Command::new("python3");
    environment.args(["-m", "venv"]).arg(folder);
    quietly("an environment for Python", environment)?;
    let mut pip = Command::new(folder.join("bin/python"));
    pip.args(["-m", "pip", "install", "--disable-pip-version-check"])
        .args(["--quiet", "--requirement"])
        .arg(root().join("dev/e2e/drivers/requirements.txt"));
    quietly("drivers for Python", pip)
}

/// Has `install` fill a folder, unless that was done for a `list` like this one.
fn keep(list: &Path, folder: &Path, install: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let wanted = fs::read(list).with_context(|| format!("could not read {}", list.display()))?;
    let mark: PathBuf = folder.join("installed");
    if fs::read(&mark).is_ok_and(|kept| kept == wanted) {
        return Ok(());
    }
    eprintln!("xtask: installing the drivers of {}", list.display());
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    install(folder)?;
    Ok(fs::write(mark, wanted)?)
}

fn quietly(name: &str, mut command: Command) -> Result<()> {
    step(name, command.stdout(Stdio::null()))
}
