//! One database session at the proxy: find the agent, relay, and tell how it ended.
//!
//! `Identified → Dialled → Relaying → Ended`: each step takes what the one before gave, and every session ends in one
//! summary event and one count, however far it came.
//!
//! Not here: copying ([`crate::relay`]), choosing and asking agents ([`crate::dial`]).

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::future::{AbortHandle, AbortRegistration, Abortable, Aborted};
use tidegate_core::ErrorCode;
use tidegate_wire::{SqlState, backend::ErrorResponse};
use tokio::net::TcpStream;
use tracing::{info, warn};

use crate::{
    dial::{self, DialError, Dialled, Wanted},
    directory::{Lookup, Server},
    metrics::{Direction, SessionOutcome},
    refuse,
    relay::{Relay, Report, Side},
    route::{self, Speaks},
    shared::Shared,
    tunnel::agents::Agent,
};

/// Sessions at one time; each has two connections.
pub(crate) const SESSIONS_MAX: usize = 16_384;

/// A client of which it is known what it wants.
#[derive(Debug)]
pub(crate) struct Identified {
    pub(crate) stream: TcpStream,
    /// Its ClientHello, to be replayed.
    pub(crate) hello: Bytes,
    pub(crate) addr: SocketAddr,
    pub(crate) route: String,
    pub(crate) speaks: Speaks,
    /// The number for its connection that it was greeted with; 0 for a client that was not greeted.
    pub(crate) greeted_as: u32,
}

/// Why a session never began.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("more than one database has this route")]
    Ambiguous,
    #[error("no agent takes it: {0}")]
    Dial(#[from] DialError),
    #[error("the inventory has not been read yet")]
    NotSynced,
    #[error("{SESSIONS_MAX} sessions are open already")]
    TooMany,
    #[error("no database has this route")]
    Unknown,
}

impl Refused {
    const fn outcome(&self) -> SessionOutcome {
        match self {
            Self::Ambiguous => SessionOutcome::Ambiguous,
            Self::Dial(DialError::AllFailed { .. }) => SessionOutcome::DialFailed,
            Self::Dial(DialError::NoneConnected { .. }) | Self::NotSynced => {
                SessionOutcome::NoAgent
            }
            Self::TooMany => SessionOutcome::TooMany,
            Self::Unknown => SessionOutcome::Unknown,
        }
    }

    /// What the client may read: its own route, and what to do; nothing about who serves it.
    fn answer(&self, route: &str, cluster_hosts: &str) -> ErrorResponse {
        let (code, message, hint) = match self {
            Self::Ambiguous => (
                ErrorCode::UnknownDatabase,
                format!("the name \"{route}\" stands for more than one database"),
                "Ask the operator to rename one of them: host names do not tell upper from lower case.".to_owned(),
            ),
            Self::Dial(_) => (
                ErrorCode::AgentUnavailable,
                format!("no agent can take a connection to the database \"{route}\" now"),
                "Try again in a moment; if it lasts, the operator finds the reason in the proxy's and the agents' logs.".to_owned(),
            ),
            Self::NotSynced => (
                ErrorCode::AgentUnavailable,
                "the proxy is starting and does not know the databases yet".to_owned(),
                "Try again in a moment.".to_owned(),
            ),
            Self::TooMany => (
                ErrorCode::TooMany,
                "the proxy has too many sessions".to_owned(),
                "Try again later, or connect to another proxy.".to_owned(),
            ),
            Self::Unknown => (
                ErrorCode::UnknownDatabase,
                format!("there is no database \"{route}\" here, or no agent serves it"),
                format!("List what you may reach with `tg db ls`. Host names are {cluster_hosts}."),
            ),
        };
        ErrorResponse::fatal(sqlstate(code), message).hint(hint)
    }
}

fn sqlstate(code: ErrorCode) -> SqlState {
    SqlState::from_bytes(code.sqlstate().as_bytes()).unwrap_or(SqlState::INTERNAL_ERROR)
}

/// Serves a session to its end.
pub(crate) async fn serve(shared: &Shared, client: Identified) {
    let record = Record {
        started: Instant::now(),
        addr: client.addr,
        route: client.route.clone(),
    };
    let connected = connect(shared, &client).await;
    let Identified {
        stream,
        hello,
        speaks,
        ..
    } = client;
    match connected {
        Ok(connected) => {
            // Sent already, and not to be kept for as long as the session lives.
            drop(hello);
            relay(shared, stream, connected, &record).await;
        }
        Err(refused) => {
            shared.metrics.session(refused.outcome());
            record.refused(&refused);
            let answer = refused.answer(&record.route, &route::host_pattern(&shared.cluster));
            let told = refuse::client(shared, stream, hello, record.addr, speaks, answer);
            Box::pin(told).await;
        }
    }
}

/// A session that can be relayed.
struct Connected<'s> {
    dialled: Dialled,
    slot: Slot<'s>,
    cut: AbortRegistration,
}

/// Finds an agent. The future is kept off the session's own, which lives much longer.
async fn connect<'s>(shared: &'s Shared, client: &Identified) -> Result<Connected<'s>, Refused> {
    let (slot, cut) = shared.sessions.open().ok_or(Refused::TooMany)?;
    let servers = servers(shared, &client.route)?;
    let wanted = Wanted {
        route: &client.route,
        client_addr: client.addr,
        greeted_as: client.greeted_as,
        hello: &client.hello,
    };
    let dialled = Box::pin(dial::dial(shared, &servers, &wanted)).await?;
    Ok(Connected { dialled, slot, cut })
}

fn servers(shared: &Shared, route: &str) -> Result<Arc<[Server]>, Refused> {
    match shared.directory.lookup(route) {
        Lookup::Ambiguous => Err(Refused::Ambiguous),
        Lookup::NotSynced => Err(Refused::NotSynced),
        Lookup::Served(servers) => Ok(servers),
        Lookup::Unknown => Err(Refused::Unknown),
    }
}

async fn relay(shared: &Shared, client: TcpStream, connected: Connected<'_>, record: &Record) {
    let Connected { dialled, slot, cut } = connected;
    let metrics = &shared.metrics;
    let mut relay = Relay::new(client, dialled.stream);
    metrics.sessions_active.inc();
    let relayed = Abortable::new(&mut relay, cut).await;
    metrics.sessions_active.dec();
    let outcome = match relayed {
        Ok(_) => SessionOutcome::Completed,
        Err(Aborted) => SessionOutcome::Drained,
    };
    let report = relay.report();
    metrics.session(outcome);
    metrics.relayed(Direction::ClientToDatabase, report.client_to_server);
    metrics.relayed(Direction::DatabaseToClient, report.server_to_client);
    record.ended(outcome, &report, dialled.occupied.agent());
    drop(slot);
}

/// What the summary of a session says.
struct Record {
    started: Instant,
    addr: SocketAddr,
    route: String,
}

impl Record {
    fn ended(&self, outcome: SessionOutcome, report: &Report, agent: &Agent) {
        info!(
            client.address = %self.addr,
            route = self.route,
            agent.host_id = %agent.host_id,
            agent.hostname = agent.hostname,
            session.outcome = outcome.as_str(),
            session.duration_ms = millis(self.started.elapsed()),
            client_to_database_bytes = report.client_to_server,
            database_to_client_bytes = report.server_to_client,
            session.ended_by = report.ended_by.map_or("proxy", Side::as_str),
            error.kind = report.error.map(|kind| kind.to_string()),
            "session ended"
        );
    }

    fn refused(&self, refused: &Refused) {
        warn!(
            client.address = %self.addr,
            route = self.route,
            session.outcome = refused.outcome().as_str(),
            session.duration_ms = millis(self.started.elapsed()),
            error = %refused,
            "session refused"
        );
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The sessions that are open, so that they can be counted and, at the end of a drain, cut off.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    handles: HashMap<u64, AbortHandle>,
    next: u64,
}

impl Sessions {
    /// Takes a place, unless all are taken.
    fn open(&self) -> Option<(Slot<'_>, AbortRegistration)> {
        let mut open = self.lock();
        if open.handles.len() >= SESSIONS_MAX {
            return None;
        }
        let (handle, registration) = AbortHandle::new_pair();
        let id = open.next;
        open.next += 1;
        open.handles.insert(id, handle);
        Some((Slot { sessions: self, id }, registration))
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().handles.len()
    }

    /// Cuts every session off.
    pub(crate) fn abort_all(&self) {
        for handle in self.lock().handles.values() {
            handle.abort();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One place among the sessions.
#[derive(Debug)]
struct Slot<'s> {
    sessions: &'s Sessions,
    id: u64,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.sessions.lock().handles.remove(&self.id);
    }
}
