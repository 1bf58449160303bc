//! One database session at the proxy: find the agent, relay, and tell how it ended.
//!
//! `Identified → Dialled → Relaying → Ended`: each step takes what the one before gave, and every session ends in one
//! summary event and one count, however far it came.
//!
//! Not here: copying ([`crate::relay`]), choosing and asking agents ([`crate::dial`]).

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::future::{AbortHandle, AbortRegistration, Abortable, Aborted};
use tidegate_core::ErrorCode;
use tidegate_service::settings::ProxyLimits;
use tidegate_wire::{SqlState, backend::ErrorResponse};
use tokio::net::TcpStream;
use tracing::{info, warn};

use crate::{
    dial::{self, DialError, Dialled, Wanted},
    directory::{Lookup, Server},
    limit::{Shaking, Tally, source_of},
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
    #[error(transparent)]
    TooMany(#[from] Full),
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
            Self::TooMany(_) => SessionOutcome::TooMany,
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
            Self::TooMany(full) => full.answer(route),
            Self::Unknown => (
                ErrorCode::UnknownDatabase,
                format!("there is no database \"{route}\" here, or no agent serves it"),
                format!("List what you may reach with `tg db ls`. Host names are {cluster_hosts}."),
            ),
        };
        ErrorResponse::fatal(sqlstate(code), message).hint(hint)
    }
}

/// Why there is no place for one more session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Full {
    #[error("{SESSIONS_MAX} sessions are open already")]
    Proxy,
    #[error("{0} sessions to this database are open already")]
    Route(usize),
    #[error("{0} sessions from this source are open already")]
    Source(usize),
}

impl Full {
    fn answer(self, route: &str) -> (ErrorCode, String, String) {
        let (message, hint) = match self {
            Self::Proxy => (
                "the proxy has too many sessions".to_owned(),
                "Try again later, or connect to another proxy.",
            ),
            Self::Route(max) => (
                format!("the proxy has {max} sessions to the database \"{route}\", its most"),
                "Close sessions that are not needed, or ask the operator for a higher `sessions_per_route`.",
            ),
            Self::Source(max) => (
                format!(
                    "there are {max} sessions from your address, the most that the proxy allows"
                ),
                "Close sessions that are not needed, or ask the operator for a higher `sessions_per_source`.",
            ),
        };
        (ErrorCode::TooMany, message, hint.to_owned())
    }
}

fn sqlstate(code: ErrorCode) -> SqlState {
    SqlState::from_bytes(code.sqlstate().as_bytes()).unwrap_or(SqlState::INTERNAL_ERROR)
}

/// Serves a session to its end.
pub(crate) async fn serve(shared: &Shared, client: Identified, shaking: Option<Shaking>) {
    let record = Record {
        started: Instant::now(),
        addr: client.addr,
        route: client.route.clone(),
    };
    let connected = connect(shared, &client, shaking).await;
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
async fn connect<'s>(
    shared: &'s Shared,
    client: &Identified,
    shaking: Option<Shaking>,
) -> Result<Connected<'s>, Refused> {
    let (slot, cut) = shared.sessions.open(client.addr.ip(), &client.route)?;
    // In this order: a drain must not find neither.
    drop(shaking);
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
#[derive(Debug)]
pub(crate) struct Sessions {
    limits: ProxyLimits,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    sessions: HashMap<u64, OpenSession>,
    by_source: Tally<IpAddr>,
    by_route: Tally<Arc<str>>,
    next: u64,
}

#[derive(Debug)]
struct OpenSession {
    cut: AbortHandle,
    source: IpAddr,
    route: Arc<str>,
}

impl Sessions {
    /// None yet.
    pub(crate) fn new(limits: ProxyLimits) -> Self {
        Self {
            limits,
            open: Mutex::default(),
        }
    }

    /// Takes a place, unless all of the proxy, of the source or of the route are taken.
    fn open(&self, address: IpAddr, route: &str) -> Result<(Slot<'_>, AbortRegistration), Full> {
        let (source, route) = (source_of(address), Arc::<str>::from(route));
        let ProxyLimits {
            sessions_per_source,
            sessions_per_route,
            ..
        } = self.limits;
        let mut open = self.lock();
        if open.sessions.len() >= SESSIONS_MAX {
            return Err(Full::Proxy);
        }
        if !open.by_source.take(source, sessions_per_source) {
            return Err(Full::Source(sessions_per_source));
        }
        if !open.by_route.take(Arc::clone(&route), sessions_per_route) {
            open.by_source.give(&source);
            return Err(Full::Route(sessions_per_route));
        }
        let (cut, registration) = AbortHandle::new_pair();
        let id = open.next;
        open.next += 1;
        let session = OpenSession { cut, source, route };
        open.sessions.insert(id, session);
        Ok((Slot { sessions: self, id }, registration))
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().sessions.len()
    }

    /// Cuts every session off.
    pub(crate) fn abort_all(&self) {
        for session in self.lock().sessions.values() {
            session.cut.abort();
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
        let mut open = self.sessions.lock();
        if let Some(OpenSession { source, route, .. }) = open.sessions.remove(&self.id) {
            open.by_source.give(&source);
            open.by_route.give(&route);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions(sessions_per_source: usize, sessions_per_route: usize) -> Sessions {
        Sessions::new(ProxyLimits {
            sessions_per_source,
            sessions_per_route,
            ..ProxyLimits::default()
        })
    }

    #[test]
    fn one_source_and_one_route_have_no_more_than_their_share() {
        let sessions = sessions(2, 3);
        let [alice, bob] = [IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2])];
        let open = |who, route| sessions.open(who, route).map(|(slot, _)| slot);

        let first = open(alice, "orders");
        let _second = open(alice, "orders").unwrap();
        assert_eq!(open(alice, "users").unwrap_err(), Full::Source(2));
        let _third = open(bob, "orders").unwrap();
        assert_eq!(open(bob, "orders").unwrap_err(), Full::Route(3));
        let _fourth = open(bob, "users").unwrap();

        drop(first);
        assert!(open(alice, "orders").is_ok());
        assert_eq!(sessions.len(), 3);
    }

    #[test]
    fn a_client_that_is_too_much_is_told_which_limit_it_met() {
        for (full, word) in [
            (Full::Proxy, "the proxy has too many sessions"),
            (Full::Route(7), "7 sessions to the database \"orders\""),
            (Full::Source(9), "9 sessions from your address"),
        ] {
            let answer = Refused::TooMany(full).answer("orders", "");
            assert_eq!(answer.code.as_str(), "53300");
            assert!(answer.message.contains(word), "{}", answer.message);
        }
    }
}
