//! One control connection to one proxy: kept, and opened again when it breaks.
//!
//! The proxy's name may stand for several addresses, and a connection that is dialled back must reach the very proxy
//! that asked. So the name is resolved here, and both connections go to the address that answered.
//!
//! A proxy that drains keeps its connection for the sessions that it has, and a new one is opened beside it: another process
//! may have its address by then.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tidegate_identity::{ALPN_TUNNEL, SERVER_NAME_PROXY};
use tidegate_proto::v1::{
    self, control_request::Message as Said, control_response::Message as Heard,
    tunnel_service_client::TunnelServiceClient,
};
use tidegate_service::{
    rpc::{self, Endpoints, MESSAGE_BYTES_MAX},
    tasks::ShutdownToken,
};
use tokio::{net::lookup_host, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};
use tracing::{debug, info, warn};

use super::{Place, Tunnel, dial};
use crate::{engine::postgres, retry::Retry, through::Through};

/// Messages to a proxy that wait to be sent.
const OUTGOING_MAX: usize = 1024;

/// How long a proxy may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;

/// How long to leave an address alone that leads to a proxy which is connected already.
const DUPLICATE_WAIT: Duration = Duration::from_secs(15);

/// How long to wait before connecting to the address of a proxy that drains: whoever takes over is about to accept.
const AFTER_DRAINING: Duration = Duration::from_millis(20);

/// How long a draining agent stays on the line, so that the proxy hears of it.
const DRAINING_LINGER: Duration = Duration::from_millis(200);

/// Messages to one proxy.
pub(super) type Outgoing = mpsc::Sender<v1::ControlRequest>;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum ControlError {
    #[error("the proxy ended the connection")]
    Closed,
    #[error("the proxy drains")]
    Draining,
    #[error("connected to that proxy by {0} already")]
    Duplicate(String),
    #[error("the proxy did not say hello in {} s", HELLO_TIMEOUT.as_secs())]
    NoHello,
    #[error("could not resolve the name: {0}")]
    Resolve(#[source] std::io::Error),
    #[error("{}", rpc::describe(.0))]
    Status(#[from] Status),
}

/// Keeps a connection to the proxy at `address` until `stop`.
pub(super) async fn keep(tunnel: Arc<Tunnel>, address: String, stop: ShutdownToken) {
    let mut retry = Retry::new();
    loop {
        retry.begin();
        let error = match Box::pin(connect(&tunnel, &address, &stop, &mut retry)).await {
            Ok(()) => return,
            Err(_) if stop.is_cancelled() => return,
            Err(ControlError::Draining) => {
                info!(
                    proxy.address = address,
                    "a proxy drains; connecting to its address again"
                );
                tokio::time::sleep(AFTER_DRAINING).await;
                continue;
            }
            Err(error) => error,
        };
        let cause = error.to_string();
        let is_duplicate = matches!(error, ControlError::Duplicate(_));
        match (retry.failed(&cause), is_duplicate) {
            (true, true) => info!(
                proxy.address = address,
                reason = cause,
                "not connecting to a proxy twice"
            ),
            (true, false) => warn!(
                proxy.address = address,
                error = cause,
                "no control connection to a proxy"
            ),
            (false, _) => debug!(
                proxy.address = address,
                error = cause,
                "still no control connection to a proxy"
            ),
        }
        let goes_on = if is_duplicate {
            stop.run_until_cancelled(tokio::time::sleep(DUPLICATE_WAIT))
                .await
                .is_some()
        } else {
            retry.wait(&stop).await
        };
        if !goes_on {
            return;
        }
    }
}

/// Tries the addresses of the name in turn. `Ok` means that we were asked to stop.
async fn connect(
    tunnel: &Arc<Tunnel>,
    address: &str,
    stop: &ShutdownToken,
    retry: &mut Retry,
) -> Result<(), ControlError> {
    let addresses: Vec<SocketAddr> = lookup_host(address)
        .await
        .map_err(ControlError::Resolve)?
        .take(ADDRESSES_MAX)
        .collect();
    let mut last = ControlError::Closed;
    for resolved in addresses {
        let opened = stop
            .run_until_cancelled(open(tunnel, address, resolved))
            .await;
        match opened {
            None => return Ok(()),
            Some(Ok(line)) => {
                retry.succeeded();
                return attend(tunnel, line, stop).await;
            }
            Some(Err(error)) => last = error,
        }
    }
    Err(last)
}

/// An open control connection.
struct Line {
    /// Kept so that the connection below lives as long as its stream.
    client: TunnelServiceClient<Channel>,
    proxy: SocketAddr,
    outgoing: Outgoing,
    incoming: Streaming<v1::ControlResponse>,
    place: Place,
    through: Through,
}

/// Opens a connection and says hello.
async fn open(tunnel: &Tunnel, address: &str, resolved: SocketAddr) -> Result<Line, ControlError> {
    let host = tunnel.host.clone();
    let channel = rpc::channel(
        Endpoints::new([resolved.to_string()]),
        move || host.client_config(&[ALPN_TUNNEL]),
        SERVER_NAME_PROXY,
    );
    let mut client = TunnelServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let (outgoing, outgoing_stream) = mpsc::channel(OUTGOING_MAX);
    let hello = Said::Hello(v1::AgentHello {
        hostname: tunnel.hostname.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        zone: tunnel.zone.clone(),
        cancel_prefix: Some(tunnel.engine.cancels.prefix()),
    });
    say(&outgoing, hello).await;
    let greeting = async {
        let mut incoming = client
            .control(ReceiverStream::new(outgoing_stream))
            .await?
            .into_inner();
        let first = incoming.message().await?;
        Ok::<_, Status>((first, incoming))
    };
    let (first, incoming) = tokio::time::timeout(HELLO_TIMEOUT, greeting)
        .await
        .map_err(|_| ControlError::NoHello)??;
    let Some(v1::ControlResponse {
        message: Some(Heard::Hello(hello)),
    }) = first
    else {
        return Err(ControlError::NoHello);
    };
    let place = tunnel
        .connected
        .take(&hello.host_id, address, &outgoing)
        .map_err(ControlError::Duplicate)?;
    info!(
        proxy.id = hello.host_id,
        proxy.version = hello.version,
        proxy.address = %resolved,
        "connected to a proxy"
    );
    Ok(Line {
        client,
        proxy: resolved,
        outgoing,
        incoming,
        place,
        through: tunnel.processes.of(&hello.instance),
    })
}

/// Does what the proxy asks until the connection ends, the proxy drains, or we have to stop.
async fn attend(
    tunnel: &Arc<Tunnel>,
    line: Line,
    stop: &ShutdownToken,
) -> Result<(), ControlError> {
    let gauge = &tunnel.engine.metrics.proxies_connected;
    let show = || gauge.set(i64::try_from(tunnel.connected.len()).unwrap_or(i64::MAX));
    show();
    let Line {
        client,
        proxy,
        outgoing,
        incoming,
        place,
        through,
    } = line;
    let mut talk = Talk {
        _client: client,
        proxy,
        outgoing,
        incoming,
        through,
    };
    let ended = talk.go_on(tunnel, stop).await;
    drop(place);
    show();
    if matches!(ended, Err(ControlError::Draining)) {
        let (staying, shutdown) = (Arc::clone(tunnel), tunnel.tasks.shutdown());
        tunnel.tasks.spawn_quiet("tunnel_draining", async move {
            while matches!(
                talk.go_on(&staying, &shutdown).await,
                Err(ControlError::Draining)
            ) {}
        });
    }
    ended
}

/// A conversation with a proxy.
struct Talk {
    _client: TunnelServiceClient<Channel>,
    proxy: SocketAddr,
    outgoing: Outgoing,
    incoming: Streaming<v1::ControlResponse>,
    through: Through,
}

impl Talk {
    /// Does what the proxy asks; `Ok` when we have to stop.
    async fn go_on(
        &mut self,
        tunnel: &Arc<Tunnel>,
        stop: &ShutdownToken,
    ) -> Result<(), ControlError> {
        loop {
            let heard = tokio::select! {
                () = stop.cancelled() => {
                    say(&self.outgoing, Said::Draining(v1::Draining {})).await;
                    tokio::time::sleep(DRAINING_LINGER).await;
                    return Ok(());
                }
                heard = self.incoming.message() => heard?.ok_or(ControlError::Closed)?,
            };
            match heard.message {
                Some(Heard::Draining(_)) => return Err(ControlError::Draining),
                Some(message) => self.obey(tunnel, message).await,
                None => {}
            }
        }
    }

    async fn obey(&self, tunnel: &Arc<Tunnel>, message: Heard) {
        match message {
            Heard::Dial(asked) => {
                let line = (self.proxy, &self.outgoing, &self.through);
                dial::take(tunnel, line, asked).await;
            }
            Heard::Cancel(asked) => cancel(tunnel, asked),
            Heard::EndSessions(asked) => {
                info!(proxy.address = %self.proxy, "a proxy ends; ending its sessions");
                self.through
                    .end(Duration::from_millis(asked.within_ms.into()));
            }
            Heard::Ping(_) => say(&self.outgoing, Said::Pong(v1::Pong {})).await,
            Heard::Draining(_) | Heard::Hello(_) => {}
        }
    }
}

fn cancel(tunnel: &Arc<Tunnel>, asked: v1::CancelStatement) {
    let Ok(permit) = Arc::clone(&tunnel.cancels).try_acquire_owned() else {
        warn!("dropped a cancel request: too many at once");
        return;
    };
    let engine = Arc::clone(&tunnel.engine);
    tunnel.tasks.spawn_quiet("cancel", async move {
        let came_to = postgres::cancel(&engine, asked.process_id, &asked.secret).await;
        debug!(
            client.address = asked.client_addr,
            came_to, "handled a cancel request"
        );
        drop(permit);
    });
}

/// Queues a message; one for a connection that just ended goes nowhere.
pub(super) async fn say(outgoing: &Outgoing, message: Said) {
    let request = v1::ControlRequest {
        message: Some(message),
    };
    if outgoing.send(request).await.is_err() {
        debug!("a message to a proxy found its connection closed");
    }
}
