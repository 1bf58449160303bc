//! The agents that have a control connection to this proxy.
//!
//! An agent that connects again replaces its earlier self: the old connection may be dead without anybody knowing yet.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use tidegate_core::HostId;
use tidegate_proto::v1::{ControlResponse, control_response::Message};
use tokio::sync::mpsc::{self, WeakSender};

/// Messages that wait to be written to one agent; an agent that is further behind takes no sessions.
pub(crate) const CONTROL_QUEUE_MAX: usize = 256;

/// What waits to be written to an agent.
pub(crate) type ControlSender = mpsc::Sender<Result<ControlResponse, tonic::Status>>;

/// One control connection.
#[derive(Debug)]
pub(crate) struct Agent {
    /// Who it is, by its certificate.
    pub(crate) host_id: HostId,
    /// Its host name, for people.
    pub(crate) hostname: String,
    /// Tells this connection from the agent's earlier ones.
    pub(crate) generation: u64,
    /// Weak, since sessions outlive the connection and must not keep it open.
    sender: WeakSender<Result<ControlResponse, tonic::Status>>,
    draining: AtomicBool,
    sessions: AtomicUsize,
}

impl Agent {
    /// Queues a message; `false` when the queue is full or the connection gone.
    pub(crate) fn send(&self, message: Message) -> bool {
        let message = ControlResponse {
            message: Some(message),
        };
        self.sender
            .upgrade()
            .is_some_and(|sender| sender.try_send(Ok(message)).is_ok())
    }

    /// Takes no new sessions from now on.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Sessions through this proxy, those being dialled included.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Counts a session for as long as the answer lives.
    pub(crate) fn occupy(self: &Arc<Self>) -> Occupied {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        Occupied(Arc::clone(self))
    }
}

/// A session that an agent has.
#[derive(Debug)]
pub(crate) struct Occupied(Arc<Agent>);

impl Occupied {
    pub(crate) fn agent(&self) -> &Agent {
        &self.0
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All control connections.
#[derive(Debug, Default)]
pub(crate) struct Agents {
    connected: Mutex<HashMap<HostId, Arc<Agent>>>,
    generations: AtomicU64,
}

impl Agents {
    /// Adds a connection, in place of the agent's earlier one, which is returned.
    pub(crate) fn connect(
        &self,
        host_id: HostId,
        hostname: String,
        sender: &ControlSender,
    ) -> (Arc<Agent>, Option<Arc<Agent>>) {
        let agent = Arc::new(Agent {
            host_id: host_id.clone(),
            hostname,
            generation: self.generations.fetch_add(1, Ordering::Relaxed),
            sender: sender.downgrade(),
            draining: AtomicBool::new(false),
            sessions: AtomicUsize::new(0),
        });
        let replaced = self.lock().insert(host_id, Arc::clone(&agent));
        (agent, replaced)
    }

    /// Removes a connection, unless a later one took its place.
    pub(crate) fn disconnect(&self, agent: &Agent) {
        let mut connected = self.lock();
        if connected
            .get(&agent.host_id)
            .is_some_and(|present| present.generation == agent.generation)
        {
            connected.remove(&agent.host_id);
        }
    }

    /// The connections of these hosts that take sessions, in the order asked for, with the place in it.
    pub(crate) fn available<'h>(
        &self,
        hosts: impl Iterator<Item = &'h HostId>,
    ) -> Vec<(usize, Arc<Agent>)> {
        let connected = self.lock();
        hosts
            .enumerate()
            .filter_map(|(place, host)| Some((place, Arc::clone(connected.get(host)?))))
            .filter(|(_, agent)| !agent.is_draining())
            .collect()
    }

    /// Every connection.
    pub(crate) fn all(&self) -> Vec<Arc<Agent>> {
        self.lock().values().cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<HostId, Arc<Agent>>> {
        self.connected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> HostId {
        name.parse().unwrap()
    }

    fn connect(agents: &Agents, name: &str) -> Arc<Agent> {
        let (sender, _) = mpsc::channel(1);
        agents.connect(host(name), name.to_owned(), &sender).0
    }

    #[test]
    fn an_old_connection_s_end_does_not_remove_the_new_one() {
        let agents = Agents::default();
        let old = connect(&agents, "a");
        let new = connect(&agents, "a");

        agents.disconnect(&old);
        assert_eq!(agents.all()[0].generation, new.generation);
        agents.disconnect(&new);
        assert_eq!(agents.len(), 0);
    }

    #[test]
    fn only_connected_agents_that_do_not_drain_are_available() {
        let agents = Agents::default();
        connect(&agents, "a").drain();
        connect(&agents, "b");
        let hosts = [host("a"), host("b"), host("c")];

        let places: Vec<usize> = agents
            .available(hosts.iter())
            .iter()
            .map(|(place, _)| *place)
            .collect();

        assert_eq!(places, [1]);
    }

    #[test]
    fn sessions_are_counted_while_they_live() {
        let agents = Agents::default();
        let agent = connect(&agents, "a");
        let session = agent.occupy();
        assert_eq!(agent.sessions(), 1);
        drop(session);
        assert_eq!(agent.sessions(), 0);
    }
}
