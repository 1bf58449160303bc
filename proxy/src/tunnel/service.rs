//! The gRPC service that agents keep a control connection to.
//!
//! Who calls is known from the certificate of the TLS connection, which ends with that certificate. A connection that
//! breaks or falls silent is given up at once, and whatever waited for the agent fails over.

use std::{net::IpAddr, pin::Pin, sync::Arc, time::Duration};

use futures::Stream;
use tidegate_core::{ClusterName, HostId};
use tidegate_identity::Holder;
use tidegate_proto::v1::{
    AgentHello, ControlRequest, ControlResponse, DialRefused, Ping, ProxyDraining, ProxyHello,
    control_request, control_response,
    tunnel_service_server::{TunnelService, TunnelServiceServer},
};
use tidegate_service::rpc::{self, Peer};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, service::Routes};
use tracing::{debug, info, warn};

use super::agents::{Agent, CONTROL_QUEUE_MAX, ControlSender, Introduced};
use crate::{cancel, opening::Token, shared::Shared};

/// From the call to the agent's hello.
const HELLO_MAX: Duration = Duration::from_secs(10);
/// Between two pings.
const PING_INTERVAL: Duration = Duration::from_secs(15);
/// Silence after which an agent counts as gone: two pings unanswered, and time for the last one.
const SILENCE_MAX: Duration = Duration::from_secs(40);
/// A control message is small; a refusal with a long reason is the largest.
const CONTROL_MESSAGE_BYTES_MAX: usize = 16 << 10;
/// What a host's certificate must allow.
const SERVICE: &str = "db";
/// What is kept of an agent's reason for a refusal.
const REASON_CHARS_MAX: usize = 300;

/// Who has called, by certificate.
#[derive(Clone, Debug)]
struct Caller {
    host_id: HostId,
    hostname: String,
    address: Option<IpAddr>,
}

impl Caller {
    /// Only hosts of this cluster that may run the database service are agents.
    fn of(peer: Peer, address: Option<IpAddr>, cluster: &ClusterName) -> Result<Self, Status> {
        let Peer::Certified(identity) = peer else {
            return Err(Status::unauthenticated("a host certificate is needed"));
        };
        let denied = |problem: &str| Err(Status::permission_denied(problem.to_owned()));
        if identity.cluster != *cluster {
            return denied("the certificate is of another cluster");
        }
        match &identity.holder {
            Holder::Host(host) if host.services.iter().any(|service| service == SERVICE) => {
                Ok(Self {
                    host_id: host.host_id.clone(),
                    hostname: host.hostname.clone(),
                    address,
                })
            }
            Holder::Host(_) => denied("the host may not run the database service"),
            Holder::User(_) => denied("the certificate is a user's"),
        }
    }
}

/// The service, ready to be served.
pub(crate) fn routes(shared: Arc<Shared>) -> Routes {
    Routes::new(
        TunnelServiceServer::new(Tunnel { shared })
            .max_decoding_message_size(CONTROL_MESSAGE_BYTES_MAX),
    )
}

#[derive(Clone, Debug)]
struct Tunnel {
    shared: Arc<Shared>,
}

type ControlStream = Pin<Box<dyn Stream<Item = Result<ControlResponse, Status>> + Send>>;

#[tonic::async_trait]
impl TunnelService for Tunnel {
    type ControlStream = ControlStream;

    async fn control(
        &self,
        request: Request<Streaming<ControlRequest>>,
    ) -> Result<Response<ControlStream>, Status> {
        let address = rpc::remote(&request).map(|addr| addr.ip());
        let caller = Caller::of(rpc::peer(&request), address, &self.shared.cluster).inspect_err(
            |status| {
                let address = rpc::remote(&request).map(tracing::field::display);
                warn!(
                    client.address = address,
                    error = status.message(),
                    "refused a control connection"
                );
            },
        )?;
        let (sender, receiver) = mpsc::channel(CONTROL_QUEUE_MAX);
        let shared = Arc::clone(&self.shared);
        self.shared.tasks.spawn_quiet(
            "proxy-control",
            control(shared, caller, request.into_inner(), sender),
        );
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// One control connection, from hello to its end.
async fn control(
    shared: Arc<Shared>,
    caller: Caller,
    mut inbound: Streaming<ControlRequest>,
    sender: ControlSender,
) {
    let greeted = tokio::time::timeout(HELLO_MAX, greet(&shared, &mut inbound, &sender)).await;
    let hello = match greeted {
        Ok(Ok(hello)) => hello,
        Ok(Err(status)) => return refuse(&caller, &sender, status),
        Err(_) => return refuse(&caller, &sender, Status::deadline_exceeded("no hello came")),
    };
    let introduced = Introduced {
        host_id: caller.host_id,
        hostname: caller.hostname,
        zone: hello.zone,
        cancel_prefix: hello.cancel_prefix,
        address: caller.address,
    };
    let (agent, replaced) = shared.agents.connect(introduced, &sender);
    if let Some(replaced) = replaced {
        shared.dials.lost(&replaced);
    }
    count(&shared);
    info!(agent.host_id = %agent.host_id, agent.hostname, agent.version = hello.version, agent.zone, "agent connected");
    let cause = converse(&shared, &agent, inbound, &sender).await;
    shared.agents.disconnect(&agent);
    shared.dials.lost(&agent);
    count(&shared);
    info!(agent.host_id = %agent.host_id, agent.hostname, cause = cause.as_str(), "agent disconnected");
}

async fn greet(
    shared: &Shared,
    inbound: &mut Streaming<ControlRequest>,
    sender: &ControlSender,
) -> Result<AgentHello, Status> {
    let first = inbound.message().await?.and_then(|request| request.message);
    let Some(control_request::Message::Hello(hello)) = first else {
        return Err(Status::invalid_argument("the first message must be hello"));
    };
    let answer = control_response::Message::Hello(ProxyHello {
        host_id: shared.host_id.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        instance: shared.instance.clone(),
    });
    let answer = ControlResponse {
        message: Some(answer),
    };
    sender
        .send(Ok(answer))
        .await
        .map_err(|_| Status::cancelled("the agent left"))?;
    Ok(hello)
}

fn refuse(caller: &Caller, sender: &ControlSender, status: Status) {
    warn!(agent.host_id = %caller.host_id, error = rpc::describe(&status), "refused a control connection");
    // The queue of a connection that never began has room, unless the agent left.
    let _ = sender.try_send(Err(status));
}

fn count(shared: &Shared) {
    shared
        .metrics
        .agents
        .set(i64::try_from(shared.agents.len()).unwrap_or(i64::MAX));
}

/// Why a control connection ended.
#[derive(Clone, Copy, Debug)]
enum Cause {
    Broken,
    Closed,
    Shutdown,
    Silent,
}

impl Cause {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Broken => "broken",
            Self::Closed => "closed by the agent",
            Self::Shutdown => "proxy shutdown",
            Self::Silent => "silent for too long",
        }
    }
}

async fn converse(
    shared: &Shared,
    agent: &Agent,
    mut inbound: Streaming<ControlRequest>,
    sender: &ControlSender,
) -> Cause {
    let shutdown = shared.tasks.shutdown();
    let mut is_told = false;
    let mut heard = Instant::now();
    let mut pings = tokio::time::interval(PING_INTERVAL);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // An agent that was told to connect again does so at once, and one that was cut off waits.
            biased;
            () = shutdown.cancelled(), if !is_told => {
                is_told = true;
                // One that is this far behind stays until the drain is over, and then connects again.
                let _ = agent.send(control_response::Message::Draining(ProxyDraining {}));
            }
            () = shared.drained.cancelled() => return Cause::Shutdown,
            () = sender.closed() => return Cause::Closed,
            message = inbound.message() => match message {
                Ok(Some(request)) => {
                    heard = Instant::now();
                    listen(shared, agent, request);
                }
                Ok(None) => return Cause::Closed,
                Err(status) => {
                    debug!(agent.host_id = %agent.host_id, error = rpc::describe(&status), "control connection broke");
                    return Cause::Broken;
                }
            },
            _ = pings.tick() => {
                if heard.elapsed() >= SILENCE_MAX {
                    return Cause::Silent;
                }
                // A full queue is answered by the silence check.
                let _ = agent.send(control_response::Message::Ping(Ping {}));
            }
        }
    }
}

fn listen(shared: &Shared, agent: &Agent, request: ControlRequest) {
    match request.message {
        Some(control_request::Message::DialRefused(DialRefused { token, reason })) => {
            let Ok(token) = token.try_into() else {
                return debug!(agent.host_id = %agent.host_id, "ignored a refusal of an impossible token");
            };
            let reason = reason.chars().take(REASON_CHARS_MAX).collect();
            shared.dials.refused(Token(token), agent, reason);
        }
        Some(control_request::Message::CancelElsewhere(asked)) => {
            cancel::elsewhere(shared, asked, agent);
        }
        Some(control_request::Message::Draining(_)) => {
            info!(agent.host_id = %agent.host_id, "agent takes no new sessions");
            agent.drain();
        }
        Some(control_request::Message::Hello(_) | control_request::Message::Pong(_)) | None => {}
    }
}
