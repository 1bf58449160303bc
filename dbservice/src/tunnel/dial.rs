//! Takes a session: dials back to the proxy that asked, and hands the connection to the engine.
//!
//! The database is dialled first, beside the proxy, so that an agent that cannot reach it says so while the proxy can
//! still ask another one; the client never notices. Beyond [`super::AHEAD_MAX`] of such connections, or when the
//! database is known to be unavailable, the session is taken without; and by the last agent that the proxy asks, when the
//! database cannot be reached: only an agent can tell the client why, in the client's own protocol.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rustls::ServerConfig;
use tidegate_core::{Problem, Protocol};
use tidegate_proto::v1::{self, control_request::Message as Said};
use tidegate_service::gather::GatherStream;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    sync::{OwnedSemaphorePermit, TryAcquireError},
    time::timeout,
};
use tracing::{debug, warn};

use super::{
    Tunnel,
    control::{Outgoing, say},
};
use crate::{
    engine::{self, Ahead, Incoming, Upstream, mysql, postgres},
    served::Serving,
    through::Through,
};

/// How long the last agent that is asked waits for the database before it takes the session without: shorter than proxies
/// wait for an agent.
const LAST_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Introduces a connection that was dialled back; the token follows.
const PREAMBLE: [u8; 8] = *b"TGDIAL\x00\x01";

/// Bytes of a token.
const TOKEN_BYTES: usize = 16;

/// How long the proxy's TCP address may take to answer.
const PROXY_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest address of a client that is kept.
const CLIENT_ADDR_CHARS_MAX: usize = 64;

/// Why a session is left to another agent.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{}", .0.operator)]
    Database(Problem),
    #[error("this agent has no certificate for clients yet")]
    NoCertificate,
    #[error(transparent)]
    Route(#[from] crate::served::LookupError),
    #[error("this agent shuts down")]
    ShuttingDown,
    #[error("this agent has {} sessions, its most", super::SESSIONS_MAX)]
    TooMany,
}

/// What a session needs from the start.
struct Taken {
    serving: Serving,
    tls: Arc<ServerConfig>,
    place: OwnedSemaphorePermit,
}

/// Takes the session that the proxy asks for, in a task of its own, or refuses it.
pub(super) async fn take(
    tunnel: &Arc<Tunnel>,
    (proxy, outgoing, through): (SocketAddr, &Outgoing, &Through),
    asked: v1::Dial,
) {
    if asked.token.len() != TOKEN_BYTES {
        warn!(
            bytes = asked.token.len(),
            "a proxy sent a token of the wrong length"
        );
        return;
    }
    match admit(tunnel, &asked.route) {
        Ok(mut taken) => {
            taken.serving.through = through.clone();
            let (session, outgoing) = (Arc::clone(tunnel), outgoing.clone());
            tunnel.tasks.spawn_session("session", async move {
                Box::pin(session_task(session, proxy, outgoing, asked, taken)).await;
            });
        }
        Err(refused) => refuse(tunnel, outgoing, asked, &refused).await,
    }
}

fn admit(tunnel: &Tunnel, route: &str) -> Result<Taken, Refused> {
    if tunnel.tasks.shutdown().is_cancelled() {
        return Err(Refused::ShuttingDown);
    }
    let serving = tunnel.served.by_route(route)?;
    let tls = tunnel.client_tls.config().ok_or(Refused::NoCertificate)?;
    let place = Arc::clone(&tunnel.sessions)
        .try_acquire_owned()
        .map_err(|_: TryAcquireError| Refused::TooMany)?;
    Ok(Taken {
        serving,
        tls,
        place,
    })
}

async fn refuse(tunnel: &Tunnel, outgoing: &Outgoing, asked: v1::Dial, refused: &Refused) {
    tunnel.engine.metrics.dials_refused.inc();
    warn!(route = asked.route, error = %refused, "left a session to another agent");
    let message = Said::DialRefused(v1::DialRefused {
        token: asked.token,
        reason: refused.to_string(),
    });
    say(outgoing, message).await;
}

async fn session_task(
    tunnel: Arc<Tunnel>,
    proxy: SocketAddr,
    outgoing: Outgoing,
    asked: v1::Dial,
    taken: Taken,
) {
    let Taken {
        serving,
        tls,
        place,
    } = taken;
    let (to_proxy, begun) = tokio::join!(dial_proxy(proxy), begin(&tunnel, &serving, asked.last));
    let begun = match begun {
        Ok(begun) => begun,
        Err(problem) => {
            tunnel.engine.health.doubt(&serving.wanted);
            refuse(&tunnel, &outgoing, asked, &Refused::Database(problem)).await;
            return;
        }
    };
    // The proxy notices by itself that nobody dials back.
    let mut stream = match to_proxy {
        Ok(stream) => stream,
        Err(error) => {
            warn!(proxy.address = %proxy, %error, "could not dial back to a proxy");
            return;
        }
    };
    drop(outgoing);
    if let Err(error) = stream.write_all(&introduction(&asked.token)).await {
        debug!(proxy.address = %proxy, %error, "a proxy closed a connection that was dialled back");
        return;
    }
    let client_addr = asked
        .client_addr
        .chars()
        .take(CLIENT_ADDR_CHARS_MAX)
        .collect();
    match begun {
        Begun::Mysql(ahead) => {
            let incoming = Incoming {
                stream,
                tls,
                serving,
                client_addr,
                ahead: ahead.map(|ahead| *ahead),
            };
            mysql::serve(&tunnel.engine, incoming, asked.greeted_as).await;
        }
        Begun::Postgres(ahead) => {
            let incoming = Incoming {
                stream,
                tls,
                serving,
                client_addr,
                ahead: ahead.map(|ahead| *ahead),
            };
            postgres::serve(&tunnel.engine, incoming).await;
        }
    }
    drop(place);
}

fn introduction(token: &[u8]) -> Vec<u8> {
    [&PREAMBLE[..], token].concat()
}

async fn dial_proxy(proxy: SocketAddr) -> std::io::Result<GatherStream> {
    let stream = timeout(PROXY_TIMEOUT, TcpStream::connect(proxy))
        .await
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))?;
    engine::tune(&stream)?;
    Ok(GatherStream::new(stream))
}

/// A session's protocol, and the connection to its database that was begun.
enum Begun {
    Mysql(Option<Box<Ahead<mysql::Greeted>>>),
    Postgres(Option<Box<Ahead<Upstream>>>),
}

/// As [`begin_ahead`]; the last agent that is asked takes the session also without.
async fn begin(tunnel: &Tunnel, serving: &Serving, is_last: bool) -> Result<Begun, Problem> {
    if !is_last {
        return begin_ahead(tunnel, serving).await;
    }
    match timeout(LAST_CONNECT_TIMEOUT, begin_ahead(tunnel, serving)).await {
        Ok(Ok(begun)) => Ok(begun),
        Ok(Err(_)) | Err(_) => {
            tunnel.engine.health.doubt(&serving.wanted);
            Ok(match serving.wanted.database.protocol {
                Protocol::Mysql => Begun::Mysql(None),
                Protocol::Postgres => Begun::Postgres(None),
            })
        }
    }
}

/// Connects to the database, as far as TCP; the rest goes on while the client's handshake is under way.
async fn begin_ahead(tunnel: &Tunnel, serving: &Serving) -> Result<Begun, Problem> {
    let wanted = Arc::clone(&serving.wanted);
    let connector = Arc::clone(&tunnel.engine.connector);
    let permit = match wanted.database.unavailable.is_empty() {
        true => Arc::clone(&tunnel.ahead).try_acquire_owned().ok(),
        false => None,
    };
    let connected = match permit {
        Some(permit) => Some((connector.tcp(&wanted.database).await?, permit)),
        None => None,
    };
    Ok(match wanted.database.protocol {
        Protocol::Mysql => Begun::Mysql(connected.map(|(stream, permit)| {
            let work = async move { mysql::greeted(&wanted.database, stream).await };
            Box::new(Ahead::new(work, permit))
        })),
        Protocol::Postgres => Begun::Postgres(connected.map(|(stream, permit)| {
            let work = async move { connector.tls(&wanted.database, stream).await };
            Box::new(Ahead::new(work, permit))
        })),
    })
}
