//! Gets a connection to an agent that serves a database, trying the next one when one fails.
//!
//! The client notices nothing of it: its ClientHello is kept, and sent to each agent that dials back. An agent is
//! settled on once it has answered the hello with a first byte.
//!
//! Bounded by [`choice::TRIES_MAX`] agents, [`DIAL_BACK_MAX`] for each and [`BUDGET_MAX`] over all.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tidegate_identity::{IdentityError, secret};
use tidegate_proto::v1::{Dial, control_response::Message};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::Instant};
use tracing::info;

use crate::{
    choice::{self, Load},
    directory::Server,
    metrics::DialOutcome,
    opening::Token,
    shared::Shared,
    tunnel::{
        agents::{Agent, Occupied},
        dials::Answered,
    },
};

/// How long one agent may take to dial back, and then to answer the client's hello.
const DIAL_BACK_MAX: Duration = Duration::from_secs(5);
/// How long after a proxy has begun to accept a session waits for agents to connect: those that know the proxy's address
/// come at once when a process takes over from another one.
const SETTLE_MAX: Duration = Duration::from_secs(5);
/// How long a session may wait for an agent in all.
const BUDGET_MAX: Duration = Duration::from_secs(15);

/// What a session asks agents for.
pub(crate) struct Wanted<'w> {
    pub(crate) route: &'w str,
    pub(crate) client_addr: SocketAddr,
    /// The number for its connection that the client was greeted with; 0 for none.
    pub(crate) greeted_as: u32,
    /// The client's ClientHello.
    pub(crate) hello: &'w [u8],
}

/// A connection to an agent that has begun to answer.
#[derive(Debug)]
pub(crate) struct Dialled {
    pub(crate) stream: TcpStream,
    pub(crate) occupied: Occupied,
}

/// Why no agent took the session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// Each agent that was tried failed; the reasons are in the log.
    #[error("{tried} agents were tried and none took the connection; the last one: {last}")]
    AllFailed {
        /// How many.
        tried: usize,
        /// Why the last one did not.
        last: AttemptError,
    },
    /// None of those that serve it is connected here.
    #[error("of {serving} agents that serve it none is connected to this proxy")]
    NoneConnected {
        /// How many there are.
        serving: usize,
    },
}

/// Why one agent did not take the session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttemptError {
    #[error("its control connection is backed up")]
    Busy,
    #[error("its control connection was lost")]
    Lost,
    #[error("no token could be made")]
    NoToken(#[source] IdentityError),
    #[error("it refused: {0}")]
    Refused(String),
    #[error("it hung up before it answered")]
    Silent,
    #[error("it took too long")]
    TimedOut,
}

impl AttemptError {
    const fn outcome(&self) -> DialOutcome {
        match self {
            Self::Busy | Self::NoToken(_) => DialOutcome::Busy,
            Self::Lost => DialOutcome::Lost,
            Self::Refused(_) => DialOutcome::Refused,
            Self::Silent => DialOutcome::Silent,
            Self::TimedOut => DialOutcome::TimedOut,
        }
    }
}

/// Tries the agents that serve a database until one takes the session.
pub(crate) async fn dial(
    shared: &Shared,
    servers: &[Server],
    wanted: &Wanted<'_>,
) -> Result<Dialled, DialError> {
    let candidates = candidates_in_time(shared, servers).await;
    let deadline = Instant::now() + BUDGET_MAX;
    let mut last = None;
    for (tried, agent) in candidates.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let occupied = agent.occupy();
        let is_last = tried + 1 == candidates.len();
        let attempt = attempt(shared, agent, wanted, is_last, left.min(DIAL_BACK_MAX)).await;
        shared.metrics.dial(match &attempt {
            Ok(_) => DialOutcome::Connected,
            Err(error) => error.outcome(),
        });
        match attempt {
            Ok(stream) => return Ok(Dialled { stream, occupied }),
            Err(error) => {
                info!(agent.host_id = %agent.host_id, agent.hostname, route = wanted.route, error = %error, "an agent did not take a session");
                last = Some((tried + 1, error));
            }
        }
    }
    Err(match last {
        Some((tried, last)) => DialError::AllFailed { tried, last },
        None => DialError::NoneConnected {
            serving: servers.len(),
        },
    })
}

/// As [`candidates`]; in a proxy that has just begun, agents that are on their way are waited for.
async fn candidates_in_time(shared: &Shared, servers: &[Server]) -> Vec<Arc<Agent>> {
    let mut arrivals = shared.agents.arrivals();
    let begun = shared
        .opened
        .get()
        .map_or(SETTLE_MAX, std::time::Instant::elapsed);
    let deadline = Instant::now() + SETTLE_MAX.saturating_sub(begun);
    loop {
        let found = candidates(shared, servers);
        if !found.is_empty() {
            return found;
        }
        match tokio::time::timeout_at(deadline, arrivals.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return found,
        }
    }
}

fn candidates(shared: &Shared, servers: &[Server]) -> Vec<Arc<Agent>> {
    let available = shared
        .agents
        .available(servers.iter().map(|server| &server.host_id));
    let loads: Vec<Load> = available
        .iter()
        .map(|(place, agent)| Load {
            health: servers[*place].health,
            is_near: !shared.zone.is_empty() && agent.zone == shared.zone,
            sessions: agent.sessions(),
        })
        .collect();
    choice::order(&loads, shared.next_turn())
        .into_iter()
        .map(|place| Arc::clone(&available[place].1))
        .collect()
}

async fn attempt(
    shared: &Shared,
    agent: &Agent,
    wanted: &Wanted<'_>,
    is_last: bool,
    wait_max: Duration,
) -> Result<TcpStream, AttemptError> {
    let token = Token(secret::random_bytes().map_err(AttemptError::NoToken)?);
    let mut wait = shared.dials.wait(token, agent);
    let message = Message::Dial(Dial {
        token: token.0.to_vec(),
        route: wanted.route.to_owned(),
        client_addr: wanted.client_addr.to_string(),
        greeted_as: wanted.greeted_as,
        last: is_last,
    });
    if !agent.send(message) {
        return Err(AttemptError::Busy);
    }
    let connect = async {
        match wait.answer().await {
            Some(Answered::Connected(mut stream)) => {
                match say_hello(&mut stream, wanted.hello).await {
                    Ok(true) => Ok(stream),
                    Ok(false) | Err(_) => Err(AttemptError::Silent),
                }
            }
            Some(Answered::Refused(reason)) => Err(AttemptError::Refused(reason)),
            None => Err(AttemptError::Lost),
        }
    };
    tokio::time::timeout(wait_max, connect)
        .await
        .unwrap_or(Err(AttemptError::TimedOut))
}

/// Sends the client's hello and waits for the first byte of the answer, which stays in the socket.
async fn say_hello(stream: &mut TcpStream, hello: &[u8]) -> std::io::Result<bool> {
    stream.write_all(hello).await?;
    Ok(stream.peek(&mut [0]).await? > 0)
}
