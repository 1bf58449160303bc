//! The way in: control connections to proxies, over which sessions are asked for.
//!
//! Agents sit behind firewalls, so they dial. To each proxy one control connection is kept ([`control`]); for a session
//! the proxy asks over it, and the agent dials a fresh TCP connection back ([`dial`]), introduced by the token that it
//! was given. Which proxies there are comes from the settings or from the inventory ([`proxies`]).
//!
//! Not here: what happens on such a connection ([`crate::engine`]).

mod control;
mod dial;
pub(crate) mod proxies;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tidegate_proto::v1::{CancelElsewhere, control_request::Message as Said};
use tidegate_service::{host::HostHandle, tasks::Tasks};
use tokio::sync::{Semaphore, mpsc};
use tracing::debug;

use crate::{
    certificate::ClientTls, engine::Engine, served::ServedSet, through::Processes,
    tunnel::control::Outgoing,
};

/// Sessions of one agent at once; more are left to other agents.
pub(crate) const SESSIONS_MAX: usize = 10_000;

/// Connections to databases that are begun for clients that have not proven who they are.
pub(crate) const AHEAD_MAX: usize = 256;

/// Cancel requests from proxies that are worked on at once; a client that finds no room may ask again.
pub(crate) const CANCELS_MAX: usize = 64;

/// What taking a session needs.
#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(crate) host: HostHandle,
    pub(crate) hostname: String,
    pub(crate) zone: String,
    pub(crate) served: Arc<ServedSet>,
    pub(crate) client_tls: ClientTls,
    pub(crate) engine: Arc<Engine>,
    pub(crate) tasks: Tasks,
    pub(crate) sessions: Arc<Semaphore>,
    pub(crate) ahead: Arc<Semaphore>,
    pub(crate) cancels: Arc<Semaphore>,
    pub(crate) connected: Connected,
    pub(crate) processes: Processes,
}

/// Passes on what clients of this agent want to cancel at others: to one proxy, since all know all agents.
pub(crate) async fn pass_cancels_on(
    tunnel: Arc<Tunnel>,
    mut asked: mpsc::Receiver<CancelElsewhere>,
) {
    let shutdown = tunnel.tasks.shutdown();
    loop {
        let asked = tokio::select! {
            () = shutdown.cancelled() => return,
            Some(asked) = asked.recv() => asked,
            else => return shutdown.cancelled().await,
        };
        match tunnel.connected.any() {
            Some(outgoing) => control::say(&outgoing, Said::CancelElsewhere(asked)).await,
            None => debug!("dropped a cancel request for another agent: no proxy is connected"),
        }
    }
}

/// Which proxies this agent is connected to, by their own ids: one behind two addresses gets one connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connected {
    by_host_id: Arc<Mutex<HashMap<String, Holder>>>,
}

/// Who has a proxy's place.
#[derive(Debug)]
struct Holder {
    address: String,
    outgoing: Outgoing,
}

/// One proxy's place; dropping it frees it.
#[derive(Debug)]
struct Place {
    connected: Connected,
    host_id: String,
}

impl Connected {
    /// Takes a proxy's place, unless a connection over another address has it; that address is told then.
    fn take(&self, host_id: &str, address: &str, outgoing: &Outgoing) -> Result<Place, String> {
        let mut places = self.lock();
        if let Some(other) = places.get(host_id) {
            return Err(other.address.clone());
        }
        let holder = Holder {
            address: address.to_owned(),
            outgoing: outgoing.clone(),
        };
        places.insert(host_id.to_owned(), holder);
        drop(places);
        Ok(Place {
            connected: self.clone(),
            host_id: host_id.to_owned(),
        })
    }

    /// How many proxies there are connections to.
    fn len(&self) -> usize {
        self.lock().len()
    }

    /// The way to one of them.
    fn any(&self) -> Option<Outgoing> {
        let places = self.lock();
        let mut open = places
            .values()
            .filter(|holder| !holder.outgoing.is_closed());
        open.next().map(|holder| holder.outgoing.clone())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Holder>> {
        // Entries are whole values: a panic elsewhere leaves none half-made.
        self.by_host_id
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connected.lock().remove(&self.host_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_behind_two_addresses_gets_one_connection() {
        let connected = Connected::default();
        let (outgoing, _sent) = mpsc::channel(1);
        let take = |host_id, address| connected.take(host_id, address, &outgoing);
        let place = take("p1", "a:1").unwrap();
        assert_eq!(take("p1", "b:1").unwrap_err(), "a:1");
        assert!(take("p2", "b:1").is_ok());
        assert!(connected.any().is_some());
        drop(place);
        assert!(connected.any().is_none());
        assert!(take("p1", "b:1").is_ok());
    }
}
