//! Tells systemd how the process is, when it was started by it.
//!
//! Source: `sd_notify(3)`: a datagram to the socket that `NOTIFY_SOCKET` names, `@` standing for the abstract namespace.

use std::{
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

use tracing::warn;

const SOCKET_VARIABLE: &str = "NOTIFY_SOCKET";

/// Tells a state such as `READY=1`; several are told in lines. Nobody listens where the variable is not set.
pub(crate) fn tell(state: &str) {
    let Some(socket) = std::env::var_os(SOCKET_VARIABLE) else {
        return;
    };
    if let Err(error) = send(&socket, state) {
        warn!(error = %error, "could not tell the supervisor about this process");
    }
}

fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_arrives_by_path_and_by_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("tidegate-notify-{}", std::process::id());
        let sockets = [
            UnixDatagram::bind(&path).unwrap(),
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap(),
        ];
        for (socket, address) in sockets
            .iter()
            .zip([path.into_os_string(), format!("@{name}").into()])
        {
            send(&address, "READY=1").unwrap();
            let mut told = [0; 16];
            let len = socket.recv(&mut told).unwrap();
            assert_eq!(&told[..len], b"READY=1");
        }
    }
}
