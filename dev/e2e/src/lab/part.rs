//! The parts of the system, each a process of its own.

/// A part of the system that runs as a process of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The control plane.
    Auth,
    /// Another instance of it, over etcd. Started on demand.
    AuthB,
    /// A third one. Started on demand.
    AuthC,
    /// The proxy.
    Proxy,
    /// The discovery worker.
    Discovery,
    /// Another worker of the same group. Started on demand.
    DiscoveryB,
    /// A third one. Started on demand.
    DiscoveryC,
    /// An agent with its own role overrides.
    AgentA,
    /// Another agent with others.
    AgentB,
    /// Another proxy. Started on demand.
    ProxyB,
    /// A third one. Started on demand.
    ProxyC,
}

impl Part {
    /// All parts, in the order in which they start.
    pub const ALL: [Self; 5] = [
        Self::Auth,
        Self::Proxy,
        Self::Discovery,
        Self::AgentA,
        Self::AgentB,
    ];

    /// The instances of the control plane.
    pub const AUTHS: [Self; 3] = [Self::Auth, Self::AuthB, Self::AuthC];

    /// The proxies.
    pub const PROXIES: [Self; 3] = [Self::Proxy, Self::ProxyB, Self::ProxyC];

    /// Whether it is a proxy.
    #[must_use]
    pub const fn is_proxy(self) -> bool {
        matches!(self, Self::Proxy | Self::ProxyB | Self::ProxyC)
    }

    /// Whether it is an instance of the control plane.
    #[must_use]
    pub const fn is_auth(self) -> bool {
        matches!(self, Self::Auth | Self::AuthB | Self::AuthC)
    }

    /// The example configuration that it runs.
    pub(super) const fn example(self) -> &'static str {
        match self {
            Self::Auth => "auth.yaml",
            Self::AuthB | Self::AuthC => "auth-etcd.yaml",
            Self::Proxy | Self::ProxyB | Self::ProxyC => "proxy.yaml",
            Self::Discovery | Self::DiscoveryB | Self::DiscoveryC => "discovery.yaml",
            Self::AgentA => "agent-a.yaml",
            Self::AgentB => "agent-b.yaml",
        }
    }

    /// Its name, also that of its node.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::AuthB => "auth-b",
            Self::AuthC => "auth-c",
            Self::Proxy => "proxy",
            Self::Discovery => "discovery",
            Self::DiscoveryB => "discovery-b",
            Self::DiscoveryC => "discovery-c",
            Self::AgentA => "agent-a",
            Self::AgentB => "agent-b",
            Self::ProxyB => "proxy-b",
            Self::ProxyC => "proxy-c",
        }
    }

    /// The access key that it calls AWS with, if it does.
    #[must_use]
    pub const fn access_key(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Auth | Self::AuthB | Self::AuthC => None,
            Self::Proxy | Self::ProxyB | Self::ProxyC => None,
            Self::Discovery | Self::DiscoveryB | Self::DiscoveryC => {
                Some(("AKIADISCOVERY0000001", "simulated-secret-of-discovery"))
            }
            Self::AgentA => Some(("AKIAAGENTA0000000001", "simulated-secret-of-agent-a")),
            Self::AgentB => Some(("AKIAAGENTB0000000001", "simulated-secret-of-agent-b")),
        }
    }
}
