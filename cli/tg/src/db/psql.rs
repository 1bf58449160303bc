//! Starting `psql`.

use std::{ffi::OsString, io, os::unix::process::CommandExt, process::Command};

use tidegate_console::Failure;

use super::target::Target;

const PSQL: &str = "psql";

/// Becomes `psql`: signals, terminal and exit code are its own from then on. Returns only when it cannot be started.
///
/// Nothing secret is in its arguments: the conninfo names files.
pub(super) fn exec(target: &Target, arguments: &[OsString]) -> Failure {
    let error = Command::new(PSQL)
        .arg("--dbname")
        .arg(target.conninfo())
        .args(arguments)
        .exec();
    match error.kind() {
        io::ErrorKind::NotFound => Failure::new("`psql` is not installed, or not in your PATH").hint(
            "install it (Debian: postgresql-client; macOS: libpq), or use another program with what `tg db login` and \
             `tg db env` print",
        ),
        _ => Failure::new(format!("cannot start `psql`: {error}")),
    }
}
