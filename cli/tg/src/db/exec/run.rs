//! One statement on one database, by the database's own client on a tunnel of its own: no certificate is written to disk,
//! and a login that is kept for the database stays as it is.

use std::{
    ffi::OsString,
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tidegate_console::Failure;
use tokio::{
    process::{Child, Command},
    sync::watch,
    time::timeout,
};

use super::report::Outcome;
use crate::{
    args::Who,
    db::{
        Session, Speaks,
        certificate::Route,
        choice, choose, mysql, target,
        tunnel::{Passport, Tunnel, Way},
    },
};

/// How long a client may take to end once it was told to: it asks the server to stop its statement first.
const ENDING_TIMEOUT: Duration = Duration::from_secs(5);
const PSQL: &str = "psql";

/// Whether all clients are to end.
pub(super) type Stop = watch::Receiver<bool>;

/// Waits until they are.
pub(super) async fn stopped(stop: &mut Stop) {
    // Without the other end nobody will say so any more.
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Runs a statement to its end. Output goes to a file, or to ours.
pub(super) async fn run(
    session: Session,
    who: Who,
    statement: &str,
    output: Option<&Path>,
    mut stop: Stop,
) -> Outcome {
    let starting = start(&session, who, statement, output);
    let started = tokio::select! {
        started = starting => started,
        () = stopped(&mut stop) => return Outcome::NotRun,
    };
    let (mut child, _tunnel) = match started {
        Ok(started) => started,
        Err(failure) => {
            return Outcome::NotConnected {
                error: failure.message().to_owned(),
            };
        }
    };
    let status = tokio::select! {
        status = child.wait() => status,
        () = stopped(&mut stop) => {
            end(&mut child).await;
            return Outcome::Interrupted;
        }
    };
    match status.map(mysql::code) {
        Ok(0) => Outcome::Succeeded,
        Ok(exit_code) => Outcome::Failed { exit_code },
        Err(error) => Outcome::NotConnected {
            error: format!("cannot wait for the client: {error}"),
        },
    }
}

/// Asks a client to end, and then ends it. Whoever sent us a signal may not have sent it one.
async fn end(child: &mut Child) {
    if let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) {
        let _ = kill(Pid::from_raw(id), Signal::SIGINT);
    }
    if timeout(ENDING_TIMEOUT, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

async fn start(
    session: &Session,
    who: Who,
    statement: &str,
    output: Option<&Path>,
) -> Result<(Child, Tunnel), Failure> {
    let (db_user, db_name) = choose(session, who).await?;
    let db_name = match (db_name, session.speaks) {
        (None, Speaks::Postgres) => Some(choice::usual_name(&session.database.kind).to_owned()),
        (name, _) => name,
    };
    let route = session.route(db_user, db_name);
    let host = target::host(&session.profile, &route.database);
    let passport = Passport::new(&session.profile, route.clone(), session.speaks)?;
    let way = Arc::new(Way::new(&session.profile, &host, passport)?);
    let tunnel = Tunnel::on_socket(way, session.speaks)?;
    let socket = tunnel.socket().unwrap_or(Path::new(""));
    let (clients, arguments): (&[&str], _) = match session.speaks {
        Speaks::Postgres => (&[PSQL], psql_arguments(socket, &route, statement)),
        Speaks::Mysql => (&mysql::CLIENTS, mysql_arguments(socket, &route, statement)),
    };
    let child = spawn(clients, &arguments, output)?;
    Ok((child, tunnel))
}

/// The first of these programs that there is.
fn spawn(
    clients: &[&str],
    arguments: &[OsString],
    output: Option<&Path>,
) -> Result<Child, Failure> {
    for client in clients {
        let mut command = Command::new(client);
        command
            .args(arguments)
            // These would lead libpq past the tunnel.
            .env_remove("PGHOSTADDR")
            .env_remove("PGSERVICE")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        if let Some(path) = output {
            let failed = |error: io::Error| {
                Failure::new(format!("cannot write {}: {error}", path.display()))
            };
            let mut options = OpenOptions::new();
            let file = options.create(true).write(true).truncate(true).mode(0o600);
            let file = file.open(path).map_err(failed)?;
            command.stderr(file.try_clone().map_err(failed)?);
            command.stdout(file);
        }
        match command.spawn() {
            Ok(child) => return Ok(child),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(Failure::new(format!("cannot start `{client}`: {error}")));
            }
        }
    }
    Err(Failure::new(format!(
        "`{}` is not installed, or not in your PATH",
        clients.join("` or `")
    )))
}

/// One transaction, that ends with the first error, without the person's own start-up file.
fn psql_arguments(socket: &Path, route: &Route, statement: &str) -> Vec<OsString> {
    let folder = socket.parent().unwrap_or(Path::new("/"));
    let mut conninfo = format!(
        "host={} port=5432 sslmode=disable user={}",
        target::quote(&folder.display().to_string()),
        target::quote(&route.db_user)
    );
    if let Some(name) = &route.db_name {
        conninfo.push_str(&format!(" dbname={}", target::quote(name)));
    }
    vec![
        "--no-psqlrc".into(),
        "--set=ON_ERROR_STOP=1".into(),
        "--dbname".into(),
        conninfo.into(),
        "--command".into(),
        statement.into(),
    ]
}

fn mysql_arguments(socket: &Path, route: &Route, statement: &str) -> Vec<OsString> {
    let mut arguments = mysql::facts(socket, route);
    arguments.push("--execute".into());
    arguments.push(statement.into());
    arguments
}

/// Where the output of a database goes.
pub(super) fn output_file(dir: &Path, database: &str) -> PathBuf {
    // A file's name has at most 255 bytes.
    const NAME_BYTES_MAX: usize = 240;
    if database.len() <= NAME_BYTES_MAX {
        return dir.join(format!("{database}.output"));
    }
    dir.join(format!(
        "{}.output",
        tidegate_wire::route::route_label(database)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn psql_is_told_the_tunnel_and_stops_at_the_first_error() {
        let route = Route {
            database: "orders".to_owned(),
            db_user: "it's".to_owned(),
            db_name: Some("dev".to_owned()),
        };
        let arguments = psql_arguments(Path::new("/run/tg-1/.s.PGSQL.5432"), &route, "SELECT 1");
        assert_eq!(
            arguments,
            [
                "--no-psqlrc",
                "--set=ON_ERROR_STOP=1",
                "--dbname",
                r"host=/run/tg-1 port=5432 sslmode=disable user='it\'s' dbname=dev",
                "--command",
                "SELECT 1"
            ]
        );
    }

    #[test]
    fn a_name_that_no_file_can_have_is_shortened() {
        let dir = Path::new("/out");
        assert_eq!(output_file(dir, "orders"), Path::new("/out/orders.output"));
        let long = "a".repeat(253);
        let name = output_file(dir, &long);
        assert!(name.file_name().unwrap().len() < 80, "{name:?}");
    }
}
