//! Programs that speak MySQL: those that can show a certificate and send the server name.

use std::path::Path;

use tidegate_console::{Failure, shell};

use super::python_text;
use crate::db::target::Target;

/// The proxy's port for MySQL when nobody says another: which one it is, is the administrator's to say.
pub(super) const PORT: u16 = 3036;

/// What starts MySQL's own client, for a shell.
///
/// Source: MySQL reference manual, "Command Options for Connecting to the Server" (`--tls-sni-servername` since 8.1).
pub(super) fn command(target: &Target, option_file: &Path) -> String {
    format!(
        "mysql --defaults-file={} --port={} --ssl-mode=VERIFY_IDENTITY --tls-sni-servername={}\n",
        shell::quote(&option_file.display().to_string()),
        target.port(),
        target.host(),
    )
}

/// What connects with PyMySQL.
///
/// Source: PyMySQL's API reference, `Connection`.
pub(super) fn python(target: &Target) -> Result<String, Failure> {
    let database = match target.db_name() {
        Some(name) => format!("    database={},\n", python_text(name)?),
        None => String::new(),
    };
    Ok(format!(
        "import pymysql\n\nconnection = pymysql.connect(\n    host={},\n    port={},\n    user={},\n{database}    \
         ssl={{\"ca\": {}, \"cert\": {}, \"key\": {}}},\n)\n",
        python_text(target.host())?,
        target.port(),
        python_text(target.db_user())?,
        python_text(target.ca_file())?,
        python_text(target.chain_file())?,
        python_text(target.key_file())?,
    ))
}
