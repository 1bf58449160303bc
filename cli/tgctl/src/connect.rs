//! Which auth service to talk to: the one on this host, by its local socket, or the one that the person logged in to.
//!
//! Invariant: whoever names a data directory or a configuration file means that service and no other; there is no
//! falling back to a profile then.

use std::{
    io,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use tidegate_console::{
    Failure,
    client::Client,
    profile::{Home, ProfileError},
};
use tidegate_service::settings;

use crate::args::Connection;

const DATA_DIR: &str = "/var/lib/tidegate";
const SOCKET: &str = "auth.sock";

/// A client for the service that the options, or else this machine's state, name.
pub(crate) fn client(options: &Connection) -> Result<Client, Failure> {
    let (data_dir, named) = data_dir(options)?;
    let socket = data_dir.join(SOCKET);
    let refused = match UnixStream::connect(&socket) {
        Ok(_) => return Ok(Client::local(&socket)),
        Err(error) => refusal(&socket, &error),
    };
    if named {
        return Err(
            Failure::new(format!("cannot reach the auth service: {refused}")).hint(
                "run it on the auth host, as root or as the service's user, while the service runs",
            ),
        );
    }
    let profile = Home::locate().and_then(|home| home.profile(None));
    match profile.and_then(|profile| {
        profile.credentials(jiff::Timestamp::now())?;
        Ok(profile)
    }) {
        Ok(profile) => Client::of_profile(&profile),
        Err(error @ ProfileError::Expired { .. }) => Err(error.into()),
        Err(error) => Err(Failure::new(format!(
            "cannot reach an auth service: {refused}; {error}"
        ))
        .hint(
            "on an auth host, run it as root or as the service's user (`--data-dir` when the service keeps its data \
             elsewhere); on another machine, log in first: tg login --proxy=HOST --user=NAME",
        )),
    }
}

fn data_dir(options: &Connection) -> Result<(PathBuf, bool), Failure> {
    if let Some(dir) = &options.data_dir {
        return Ok((dir.clone(), true));
    }
    match &options.config {
        Some(file) => settings::load(file)
            .map(|settings| (settings.process.data_dir, true))
            .map_err(|error| Failure::new(tidegate_service::telemetry::chain(&error))),
        None => Ok((PathBuf::from(DATA_DIR), false)),
    }
}

fn refusal(socket: &Path, error: &io::Error) -> String {
    let why = match error.kind() {
        io::ErrorKind::NotFound => "it does not exist",
        io::ErrorKind::PermissionDenied => "you may not open it",
        io::ErrorKind::ConnectionRefused => "nobody listens there",
        _ => return format!("{}: {error}", socket.display()),
    };
    format!("{}: {why}", socket.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_directory_is_never_replaced_by_a_profile() {
        let temp = tempfile::tempdir().unwrap();
        let options = Connection {
            config: None,
            data_dir: Some(temp.path().to_owned()),
        };
        let failure = client(&options).unwrap_err();
        assert!(
            failure.message().ends_with("auth.sock: it does not exist"),
            "{failure}"
        );
        assert!(!failure.message().contains("logged in"), "{failure}");
    }

    #[test]
    fn a_socket_that_nobody_serves_says_so() {
        let temp = tempfile::tempdir().unwrap();
        drop(std::os::unix::net::UnixListener::bind(temp.path().join(SOCKET)).unwrap());
        let options = Connection {
            config: None,
            data_dir: Some(temp.path().to_owned()),
        };
        let failure = client(&options).unwrap_err();
        assert!(
            failure.message().ends_with("nobody listens there"),
            "{failure}"
        );
    }
}
