//! Starting MySQL's or MariaDB's command line client on a tunnel, and the option file for other programs.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::Arc,
};

use tidegate_console::{
    Failure,
    profile::{self, Profile},
};
use tidegate_wire::route::route_label;
use tokio::process::Command;

use super::{
    Speaks,
    certificate::{Certificate, Route},
    target::Target,
    tunnel::{Tunnel, Way},
};

/// The clients, in the order in which they are looked for. Where both are installed they are mostly one.
pub(super) const CLIENTS: [&str; 2] = ["mysql", "mariadb"];

/// What a shell says of a program that a signal ended: 128 and the signal's number.
const SIGNALLED: i32 = 128;

/// Runs a client to its end on a tunnel of its own; its exit code is ours.
///
/// Nothing secret is in its arguments: there is no password, and the socket can be reached by this user alone.
pub(super) async fn run(way: Way, route: &Route, arguments: &[OsString]) -> Result<i32, Failure> {
    let tunnel = Tunnel::on_socket(Arc::new(way), Speaks::Mysql)?;
    let facts = facts(tunnel.socket().unwrap_or(Path::new("")), route);
    // The terminal tells both of us of Ctrl-C; it is for the client, which stops its statement.
    let interrupts = tokio::spawn(async { while tokio::signal::ctrl_c().await.is_ok() {} });
    let mut ended = None;
    for client in CLIENTS {
        match Command::new(client)
            .args(&facts)
            .args(arguments)
            .status()
            .await
        {
            Ok(status) => {
                ended = Some(Ok(code(status)));
                break;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                ended = Some(Err(Failure::new(format!(
                    "cannot start `{client}`: {error}"
                ))));
                break;
            }
        }
    }
    interrupts.abort();
    ended.unwrap_or_else(|| {
        Err(
            Failure::new("neither `mysql` nor `mariadb` is installed, or in your PATH").hint(
                "install one (Debian: mariadb-client; macOS: mysql-client), or use another program with what \
                 `tg db login` prints",
            ),
        )
    })
}

/// What the client is told. The protocol is named, since its own option files may name another.
pub(super) fn facts(socket: &Path, route: &Route) -> Vec<OsString> {
    let mut socket_fact = OsString::from("--socket=");
    socket_fact.push(socket);
    let mut facts = vec![
        "--protocol=SOCKET".into(),
        socket_fact,
        format!("--user={}", route.db_user).into(),
    ];
    facts.extend(
        route
            .db_name
            .as_ref()
            .map(|name| format!("--database={name}").into()),
    );
    facts
}

/// The exit code as a shell would say it.
pub(super) fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;

    let signalled = status.signal().map(|signal| SIGNALLED + signal);
    status.code().or(signalled).unwrap_or(1)
}

/// Where the option file of a database is.
pub(super) fn option_file(profile: &Profile, database: &str) -> PathBuf {
    profile
        .database_dir()
        .join(format!("{}.cnf", route_label(database)))
}

/// Writes the option file with which clients connect to the proxy's port for MySQL.
pub(super) fn write_option_file(
    profile: &Profile,
    target: &Target,
    certificate: &Certificate,
) -> Result<PathBuf, Failure> {
    let path = option_file(profile, &certificate.route.database);
    let mut lines = vec![
        "[client]".to_owned(),
        format!("host={}", quote(target.host())),
        format!("user={}", quote(&certificate.route.db_user)),
        format!("ssl-ca={}", quote(target.ca_file())),
        format!(
            "ssl-cert={}",
            quote(&certificate.chain_file.display().to_string())
        ),
        format!(
            "ssl-key={}",
            quote(&certificate.key_file.display().to_string())
        ),
    ];
    if let Some(name) = &certificate.route.db_name {
        // A program that knows no such option would refuse the whole file.
        lines.push(format!("loose-database={}", quote(name)));
    }
    lines.push(String::new());
    profile::write_private(&path, lines.join("\n").as_bytes())?;
    Ok(path)
}

/// Whether an option file was written for a database, which says that it speaks MySQL.
pub(super) fn kept_option_file(profile: &Profile, database: &str) -> Option<PathBuf> {
    Some(option_file(profile, database)).filter(|path| path.exists())
}

/// Removes a database's option file, if there is one.
pub(super) fn remove_option_file(profile: &Profile, database: &str) -> Result<(), Failure> {
    Ok(profile::remove_file(&option_file(profile, database))?)
}

/// A value of an option file: in quotes, with quotes and backslashes escaped.
///
/// Source: MySQL reference manual, "Using Option Files".
fn quote(value: &str) -> String {
    let escaped = value.replace('\\', r"\\").replace('"', r#"\""#);
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(db_name: Option<&str>) -> Route {
        Route {
            database: "orders".to_owned(),
            db_user: "reader".to_owned(),
            db_name: db_name.map(str::to_owned),
        }
    }

    #[test]
    fn a_client_is_told_socket_user_and_database_and_no_password() {
        let facts = facts(Path::new("/run/tg-1/s"), &route(Some("app")));
        assert_eq!(
            facts,
            [
                "--protocol=SOCKET",
                "--socket=/run/tg-1/s",
                "--user=reader",
                "--database=app"
            ]
        );
    }

    #[test]
    fn option_values_cannot_break_out_of_their_quotes() {
        assert_eq!(quote(r#"a"b\c"#), r#""a\"b\\c""#);
    }
}
