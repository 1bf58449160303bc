//! Relays a TLS connection to an auth server without opening it, so that agents and clients that reach the proxy alone
//! can still talk to the control plane end to end.
//!
//! Ends with the proxy: its users connect again, elsewhere, by themselves.

use std::{io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tracing::{debug, warn};

use crate::{net, relay::Relay, shared::Shared};

/// How long one auth server may take to accept: short enough that a client still waits when the third is tried.
const CONNECT_MAX: Duration = Duration::from_millis(1500);

/// Serves one relayed connection to its end.
pub(crate) async fn serve(shared: &Shared, client: TcpStream, hello: Bytes, addr: SocketAddr) {
    let Some(mut server) = connect(&shared.auth_servers).await else {
        warn!(client.address = %addr, auth.servers = ?shared.auth_servers, "no auth server accepts connections; dropped a client's");
        return;
    };
    if let Err(error) = server.write_all(&hello).await {
        return debug!(client.address = %addr, error = %error, "an auth server hung up");
    }
    drop(hello);
    let drained = shared.drained.clone();
    let mut relay = Relay::new(client, server);
    tokio::select! {
        _ = &mut relay => {}
        () = drained.cancelled() => {}
    }
    let report = relay.report();
    debug!(
        client.address = %addr,
        client_to_auth_bytes = report.client_to_server,
        auth_to_client_bytes = report.server_to_client,
        "relayed connection to the auth service ended"
    );
}

/// The first auth server that accepts, in the order configured.
async fn connect(servers: &[String]) -> Option<TcpStream> {
    for server in servers {
        match dial(server).await {
            Ok(stream) => return Some(stream),
            Err(error) => {
                debug!(auth.server = server, error = %error, "cannot reach an auth server")
            }
        }
    }
    None
}

async fn dial(server: &str) -> io::Result<TcpStream> {
    let stream = tokio::time::timeout(CONNECT_MAX, TcpStream::connect(server))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    net::tune(&stream)?;
    Ok(stream)
}
