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

use tidegate_service::{host::HostHandle, tasks::Tasks};
use tokio::sync::Semaphore;

use crate::{certificate::ClientTls, engine::Engine, served::ServedSet};

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
    pub(crate) served: Arc<ServedSet>,
    pub(crate) client_tls: ClientTls,
    pub(crate) engine: Arc<Engine>,
    pub(crate) tasks: Tasks,
    pub(crate) sessions: Arc<Semaphore>,
    pub(crate) ahead: Arc<Semaphore>,
    pub(crate) cancels: Arc<Semaphore>,
    pub(crate) connected: Connected,
}

/// Which proxies this agent is connected to, by their own ids: one behind two addresses gets one connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connected {
    by_host_id: Arc<Mutex<HashMap<String, String>>>,
}

/// One proxy's place; dropping it frees it.
#[derive(Debug)]
struct Place {
    connected: Connected,
    host_id: String,
}

impl Connected {
    /// Takes a proxy's place, unless a connection over another address has it; that address is told then.
    fn take(&self, host_id: &str, address: &str) -> Result<Place, String> {
        let mut places = self.lock();
        if let Some(other) = places.get(host_id) {
            return Err(other.clone());
        }
        places.insert(host_id.to_owned(), address.to_owned());
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

    fn lock(&self) -> MutexGuard<'_, HashMap<String, String>> {
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
        let place = connected.take("p1", "a:1").unwrap();
        assert_eq!(connected.take("p1", "b:1").unwrap_err(), "a:1");
        assert!(connected.take("p2", "b:1").is_ok());
        drop(place);
        assert!(connected.take("p1", "b:1").is_ok());
    }
}
