//! What the proxy counts. Labels come from the enums here, never from what a client sends.

use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};
use tidegate_service::metrics::Metrics;

/// An enum of label values, with the name of each.
macro_rules! outcomes {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            pub(crate) const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

outcomes! {
    /// What a connection turned out to be.
    Handshake {
        AuthRelay = "auth_relay",
        Cancel = "cancel",
        Database = "database",
        DialBack = "dial_back",
        Gone = "gone",
        /// Its source has too many connections of which nothing is known yet.
        Limited = "limited",
        NoDatabase = "no_database",
        Refused = "refused",
        Tunnel = "tunnel",
        Web = "web",
    }
}

outcomes! {
    /// How a session ended.
    SessionOutcome {
        /// The route stands for more than one database.
        Ambiguous = "ambiguous",
        /// Relayed to its end.
        Completed = "completed",
        /// Every agent that was tried refused or failed.
        DialFailed = "dial_failed",
        /// Cut off because the proxy shut down.
        Drained = "drained",
        /// No agent that serves the database is connected here.
        NoAgent = "no_agent",
        /// The proxy is full.
        TooMany = "too_many",
        /// No database has the route.
        Unknown = "unknown",
    }
}

outcomes! {
    /// How one attempt to get a connection from an agent ended.
    DialOutcome {
        /// The agent does not read its control connection fast enough.
        Busy = "busy",
        Connected = "connected",
        /// The control connection was lost meanwhile.
        Lost = "lost",
        /// The agent said no.
        Refused = "refused",
        /// It dialled back and hung up before it said anything.
        Silent = "silent",
        TimedOut = "timed_out",
    }
}

outcomes! {
    /// Which way bytes went.
    Direction {
        ClientToDatabase = "client_to_database",
        DatabaseToClient = "database_to_client",
    }
}

/// One label: its key, and a value that one of the enums here names.
type Label = [(&'static str, &'static str); 1];

/// The proxy's metrics; clones count together.
#[derive(Clone, Debug)]
pub(crate) struct ProxyMetrics {
    handshakes: Family<Label, Counter>,
    sessions: Family<Label, Counter>,
    dials: Family<Label, Counter>,
    bytes: Family<Label, Counter>,
    /// Sessions that are being relayed.
    pub(crate) sessions_active: Gauge,
    /// Agents with a control connection here.
    pub(crate) agents: Gauge,
    /// Cancel requests that were dropped because there were too many.
    pub(crate) cancels_limited: Counter,
}

impl ProxyMetrics {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        Self {
            handshakes: metrics.register(
                "tidegate_proxy_handshakes_total",
                "Connections accepted, by what they turned out to be",
                Family::default(),
            ),
            sessions: metrics.register(
                "tidegate_proxy_sessions_total",
                "Database sessions that have ended, by how",
                Family::default(),
            ),
            dials: metrics.register(
                "tidegate_proxy_dials_total",
                "Attempts to get a connection from an agent, by how they ended",
                Family::default(),
            ),
            bytes: metrics.register(
                "tidegate_proxy_relayed_bytes_total",
                "Bytes of ended database sessions, by direction",
                Family::default(),
            ),
            sessions_active: metrics.register(
                "tidegate_proxy_sessions_active",
                "Database sessions being relayed now",
                Gauge::default(),
            ),
            agents: metrics.register(
                "tidegate_proxy_agents_connected",
                "Agents with a control connection to this proxy",
                Gauge::default(),
            ),
            cancels_limited: metrics.register(
                "tidegate_proxy_cancels_limited_total",
                "Cancel requests dropped because there were too many",
                Counter::default(),
            ),
        }
    }

    pub(crate) fn handshake(&self, outcome: Handshake) {
        count(&self.handshakes, outcome.as_str());
    }

    pub(crate) fn session(&self, outcome: SessionOutcome) {
        count(&self.sessions, outcome.as_str());
    }

    pub(crate) fn dial(&self, outcome: DialOutcome) {
        count(&self.dials, outcome.as_str());
    }

    pub(crate) fn relayed(&self, direction: Direction, bytes: u64) {
        self.bytes
            .get_or_create(&[("direction", direction.as_str())])
            .inc_by(bytes);
    }
}

fn count(family: &Family<Label, Counter>, outcome: &'static str) {
    family.get_or_create(&[("outcome", outcome)]).inc();
}
