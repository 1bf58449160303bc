//! The agents that have a control connection to this proxy.
//!
//! An agent that connects again replaces its earlier self: the old connection may be dead without anybody knowing yet.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tidegate_core::HostId;
use tidegate_proto::v1::{ControlResponse, control_response::Message};
use tokio::sync::{
    mpsc::{self, WeakSender},
    watch,
};

use crate::limit::Tally;

/// Messages that wait to be written to one agent; an agent that is further behind takes no sessions.
pub(crate) const CONTROL_QUEUE_MAX: usize = 256;

/// Bits of a cancel key's number that its agent counts its own sessions by.
const CANCEL_SESSION_BITS: u32 = 18;

/// What an agent says of itself when it connects.
#[derive(Clone, Debug)]
pub(crate) struct Introduced {
    pub(crate) host_id: HostId,
    pub(crate) hostname: String,
    pub(crate) zone: String,
    pub(crate) cancel_prefix: Option<u32>,
    pub(crate) address: Option<IpAddr>,
}

/// What waits to be written to an agent.
pub(crate) type ControlSender = mpsc::Sender<Result<ControlResponse, tonic::Status>>;

/// One control connection.
#[derive(Debug)]
pub(crate) struct Agent {
    /// Who it is, by its certificate.
    pub(crate) host_id: HostId,
    /// Its host name, for people.
    pub(crate) hostname: String,
    /// Where it is; empty is unknown.
    pub(crate) zone: String,
    /// What the numbers of its cancel keys begin with; `None`: they may be any.
    cancel_prefix: Option<u32>,
    /// Where its control connection comes from.
    address: Option<IpAddr>,
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

    /// Whether a cancel key with this number may be one of its sessions'.
    pub(crate) fn may_know(&self, number: u32) -> bool {
        self.cancel_prefix
            .is_none_or(|prefix| prefix == cancel_prefix_of(number))
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

/// The bits of a cancel key's number that name its agent: the upper 13 of 31.
pub(crate) const fn cancel_prefix_of(number: u32) -> u32 {
    number >> CANCEL_SESSION_BITS
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

#[derive(Debug, Default)]
struct Connected {
    by_host: HashMap<HostId, Arc<Agent>>,
    /// Asked for each connection that is accepted, so that nobody walks over thousands of agents then.
    addresses: Tally<IpAddr>,
}

impl Connected {
    fn put(&mut self, agent: &Arc<Agent>) -> Option<Arc<Agent>> {
        if let Some(address) = agent.address {
            self.addresses.take(address, usize::MAX);
        }
        let replaced = self
            .by_host
            .insert(agent.host_id.clone(), Arc::clone(agent));
        self.forget(replaced.as_deref());
        replaced
    }

    fn forget(&mut self, agent: Option<&Agent>) {
        if let Some(address) = agent.and_then(|agent| agent.address) {
            self.addresses.give(&address);
        }
    }
}

/// All control connections.
#[derive(Debug)]
pub(crate) struct Agents {
    connected: Mutex<Connected>,
    /// How many there have been, those that are gone included.
    generations: watch::Sender<u64>,
}

impl Default for Agents {
    fn default() -> Self {
        Self {
            connected: Mutex::default(),
            generations: watch::Sender::new(0),
        }
    }
}

impl Agents {
    /// Adds a connection, in place of the agent's earlier one, which is returned.
    pub(crate) fn connect(
        &self,
        introduced: Introduced,
        sender: &ControlSender,
    ) -> (Arc<Agent>, Option<Arc<Agent>>) {
        let Introduced {
            host_id,
            hostname,
            zone,
            cancel_prefix,
            address,
        } = introduced;
        let mut connected = self.lock();
        let agent = Arc::new(Agent {
            host_id,
            hostname,
            zone,
            cancel_prefix,
            address: address.map(|address| address.to_canonical()),
            generation: *self.generations.borrow(),
            sender: sender.downgrade(),
            draining: AtomicBool::new(false),
            sessions: AtomicUsize::new(0),
        });
        let replaced = connected.put(&agent);
        self.generations.send_modify(|generation| *generation += 1);
        drop(connected);
        (agent, replaced)
    }

    /// Changes whenever an agent connects.
    pub(crate) fn arrivals(&self) -> watch::Receiver<u64> {
        self.generations.subscribe()
    }

    /// Whether an agent's control connection comes from there.
    pub(crate) fn come_from(&self, address: IpAddr) -> bool {
        self.lock().addresses.has(&address.to_canonical())
    }

    /// Removes a connection, unless a later one took its place.
    pub(crate) fn disconnect(&self, agent: &Agent) {
        let mut connected = self.lock();
        if connected
            .by_host
            .get(&agent.host_id)
            .is_some_and(|present| present.generation == agent.generation)
        {
            let removed = connected.by_host.remove(&agent.host_id);
            connected.forget(removed.as_deref());
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
            .filter_map(|(place, host)| Some((place, Arc::clone(connected.by_host.get(host)?))))
            .filter(|(_, agent)| !agent.is_draining())
            .collect()
    }

    /// Every connection.
    pub(crate) fn all(&self) -> Vec<Arc<Agent>> {
        self.lock().by_host.values().cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().by_host.len()
    }

    fn lock(&self) -> MutexGuard<'_, Connected> {
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

    fn introduced(name: &str, cancel_prefix: Option<u32>) -> Introduced {
        Introduced {
            host_id: host(name),
            hostname: name.to_owned(),
            zone: String::new(),
            cancel_prefix,
            address: None,
        }
    }

    fn connect(agents: &Agents, name: &str) -> Arc<Agent> {
        let (sender, _) = mpsc::channel(1);
        agents.connect(introduced(name, None), &sender).0
    }

    #[test]
    fn an_address_is_an_agent_s_for_as_long_as_one_is_connected_from_there() {
        let agents = Agents::default();
        let (sender, _) = mpsc::channel(1);
        let address = IpAddr::from([192, 0, 2, 1]);
        let connect = |name| {
            let introduced = Introduced {
                address: Some(address),
                ..introduced(name, None)
            };
            agents.connect(introduced, &sender).0
        };
        let _earlier = connect("a");
        let (first, second) = (connect("a"), connect("b"));
        agents.disconnect(&first);
        assert!(agents.come_from(address));
        agents.disconnect(&second);
        assert!(!agents.come_from(address));
    }

    #[test]
    fn a_cancel_request_is_for_agents_whose_prefix_its_number_has() {
        let agents = Agents::default();
        let (sender, _) = mpsc::channel(1);
        let number = (5 << 18) | 77;
        let knows = |prefix| {
            let agent = agents.connect(introduced("a", prefix), &sender).0;
            agent.may_know(number)
        };
        assert_eq!(
            [knows(Some(5)), knows(Some(6)), knows(None)],
            [true, false, true]
        );
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
