//! What this service counts. Labels come from enums alone.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
};
use tidegate_service::metrics::Metrics;

use crate::health::Census;

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Cause {
    /// The client's certificate expired while the session ran.
    CertificateExpired,
    /// It was a request to cancel, and was handled.
    CancelRequest,
    /// The client closed its connection without a goodbye.
    ClientClosed,
    /// The client's connection broke.
    ClientFailed,
    /// The client said goodbye.
    ClientTerminated,
    /// No credentials for the database.
    Credentials,
    /// The database closed the connection.
    DatabaseClosed,
    /// The connection to the database broke.
    DatabaseFailed,
    /// The database refused the login.
    DatabaseRefused,
    /// The database is not available, or cannot be reached.
    DatabaseUnavailable,
    /// No role allows it, or the certificate does not.
    Denied,
    /// The agent shuts down.
    Drained,
    /// The client's TLS handshake or start-up failed.
    Handshake,
    /// The client sent nothing for longer than its roles allow.
    Idle,
    /// A lock strikes.
    Locked,
    /// It is not known which locks there are, and a role asks that this ends sessions.
    LocksUnknown,
    /// It cannot be audited, and a role asks that this ends sessions.
    NotAudited,
    /// The database's endpoint changed, or it is served no longer.
    NotServed,
    /// One side broke the protocol.
    Protocol,
    /// The client asked for what is not done here.
    Refused,
    /// The person has as many sessions as roles allow.
    TooMany,
    /// A fault or a bound of ours.
    Internal,
}

impl Cause {
    /// The word for audit and logs.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::CancelRequest => "cancel_request",
            Self::CertificateExpired => "certificate_expired",
            Self::ClientClosed => "client_closed",
            Self::ClientFailed => "client_failed",
            Self::ClientTerminated => "client_terminated",
            Self::Credentials => "credentials",
            Self::DatabaseClosed => "database_closed",
            Self::DatabaseFailed => "database_failed",
            Self::DatabaseRefused => "database_refused",
            Self::DatabaseUnavailable => "database_unavailable",
            Self::Denied => "denied",
            Self::Drained => "drained",
            Self::Handshake => "handshake",
            Self::Idle => "idle_timeout",
            Self::Locked => "locked",
            Self::LocksUnknown => "locks_unknown",
            Self::NotAudited => "not_audited",
            Self::NotServed => "not_served",
            Self::Protocol => "protocol",
            Self::Refused => "refused",
            Self::TooMany => "too_many_sessions",
            Self::Internal => "internal",
        }
    }

    /// Whether a session that runs is ended by a rule that its person is held to.
    pub(crate) const fn is_by_rule(self) -> bool {
        matches!(
            self,
            Self::CertificateExpired
                | Self::Idle
                | Self::Locked
                | Self::LocksUnknown
                | Self::NotAudited
        )
    }
}

/// How asking for credentials came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Outcome {
    /// AWS refused.
    Denied,
    /// AWS did not answer usefully.
    Failed,
    /// There are credentials.
    Minted,
}

/// A part of connecting to a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Stage {
    /// Until TCP is connected.
    Tcp,
    /// Until TLS is set up.
    Tls,
}

/// Whose certificates a CA bundle is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum BundleOf {
    /// RDS in a region.
    Rds,
    /// Redshift in a partition.
    Redshift,
}

/// What AWS says of the address of a database that discovery found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum VerdictWord {
    /// It knows nothing of that name.
    Absent,
    /// It is being asked.
    Awaited,
    /// It is AWS's.
    Confirmed,
    /// It says another.
    Contradicted,
    /// It may not be asked.
    Denied,
    /// It was not asked, or did not answer.
    Unchecked,
}

/// Labels of sessions that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct CauseLabel {
    pub(crate) cause: Cause,
}

/// Labels of credential requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OutcomeLabel {
    pub(crate) outcome: Outcome,
}

/// Labels of connection times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct StageLabel {
    pub(crate) stage: Stage,
}

/// Labels of CA bundles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct BundleLabel {
    pub(crate) of: BundleOf,
}

/// Labels of databases by what AWS says of their addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct VerdictLabel {
    pub(crate) verdict: VerdictWord,
}

/// When the CA bundle that was not looked at for longest was, of each kind.
pub(crate) type BundleTimes = Family<BundleLabel, Gauge>;

/// Databases by verdict.
pub(crate) type VerdictCounts = Family<VerdictLabel, Gauge>;

/// Seconds by part of connecting.
pub(crate) type ConnectSeconds = Family<StageLabel, Histogram, fn() -> Histogram>;

/// Times that nobody reads: of connections that are no sessions'.
pub(crate) fn connect_seconds() -> ConnectSeconds {
    Family::new_with_constructor(seconds)
}

/// The service's metrics; clones count together.
#[derive(Clone, Debug)]
pub(crate) struct ServiceMetrics {
    pub(crate) sessions_active: Gauge,
    pub(crate) sessions: Family<CauseLabel, Counter>,
    pub(crate) connect_seconds: ConnectSeconds,
    pub(crate) credentials: Family<OutcomeLabel, Counter>,
    pub(crate) credential_mints: Family<OutcomeLabel, Counter>,
    pub(crate) databases_served: Gauge,
    pub(crate) dials_refused: Counter,
    pub(crate) audit_dropped: Counter,
    pub(crate) bundle_times: BundleTimes,
    pub(crate) endpoint_verdicts: VerdictCounts,
    pub(crate) proxies_connected: Gauge,
    pub(crate) health: HealthMetrics,
}

impl ServiceMetrics {
    /// Registers all of them.
    pub(crate) fn register(metrics: &Metrics) -> Self {
        Self {
            sessions_active: metrics.register(
                "tidegate_dbservice_sessions_active",
                "Sessions from accept to end",
                Gauge::default(),
            ),
            sessions: metrics.register(
                "tidegate_dbservice_sessions_total",
                "Sessions that ended, by cause",
                Family::default(),
            ),
            connect_seconds: metrics.register(
                "tidegate_dbservice_upstream_connect_seconds",
                "Time to connect to a database, by stage",
                Family::new_with_constructor(seconds),
            ),
            credentials: metrics.register(
                "tidegate_dbservice_credentials_total",
                "Requests for database credentials, cached ones included, by outcome",
                Family::default(),
            ),
            credential_mints: metrics.register(
                "tidegate_dbservice_credential_mints_total",
                "Database credentials that were not in the cache and had to be made, by outcome",
                Family::default(),
            ),
            databases_served: metrics.register(
                "tidegate_dbservice_databases_served",
                "Databases that this agent serves",
                Gauge::default(),
            ),
            dials_refused: metrics.register(
                "tidegate_dbservice_dials_refused_total",
                "Sessions that were left to another agent",
                Counter::default(),
            ),
            audit_dropped: metrics.register(
                "tidegate_dbservice_audit_events_dropped_total",
                "Audit events of statements that found the queue full, and batches that were refused",
                Counter::default(),
            ),
            bundle_times: metrics.register(
                "tidegate_dbservice_ca_bundle_refreshed_timestamp_seconds",
                "When the CA bundle that was not refreshed for longest was fetched or found unchanged, as Unix time; 0 while one was not since the start",
                Family::default(),
            ),
            endpoint_verdicts: metrics.register(
                "tidegate_dbservice_endpoint_databases",
                "Databases that discovery found, by what AWS says of their addresses",
                Family::default(),
            ),
            proxies_connected: metrics.register(
                "tidegate_dbservice_proxies_connected",
                "Proxies that can send sessions here",
                Gauge::default(),
            ),
            health: HealthMetrics::register(metrics),
        }
    }
}

/// From 1 ms to about 16 s.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

/// A layer that checks look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum CheckedLayer {
    /// The name resolves.
    Dns,
    /// Every address takes connections.
    Tcp,
    /// The certificate can be trusted.
    Tls,
}

/// How a layer of a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum CheckOutcome {
    /// The check ended there.
    Failed,
    /// It went on, or was done.
    Passed,
}

/// What a database is known to be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum StatusWord {
    /// No configuration matches it.
    Disabled,
    /// The last checks passed.
    Healthy,
    /// The last checks failed.
    Unhealthy,
    /// Not checked yet.
    Unknown,
}

/// Labels of checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct CheckLabel {
    pub(crate) layer: CheckedLayer,
    pub(crate) outcome: CheckOutcome,
}

/// Labels of the time that checks take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct LayerLabel {
    pub(crate) layer: CheckedLayer,
}

/// Labels of databases by what they are known to be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct StatusLabel {
    pub(crate) status: StatusWord,
}

/// What is counted of health checks; clones count together.
#[derive(Clone, Debug)]
pub(crate) struct HealthMetrics {
    pub(crate) databases: Family<StatusLabel, Gauge>,
    pub(crate) checks: Family<CheckLabel, Counter>,
    pub(crate) seconds: Family<LayerLabel, Histogram, fn() -> Histogram>,
    pub(crate) certificate_ends: Gauge,
}

impl HealthMetrics {
    fn register(metrics: &Metrics) -> Self {
        Self {
            databases: metrics.register(
                "tidegate_dbservice_health_databases",
                "Databases by what health checks show of them",
                Family::default(),
            ),
            checks: metrics.register(
                "tidegate_dbservice_health_checks_total",
                "Layers of databases that were checked, by outcome",
                Family::default(),
            ),
            seconds: metrics.register(
                "tidegate_dbservice_health_check_seconds",
                "Time that a layer of a check took",
                Family::new_with_constructor(seconds),
            ),
            certificate_ends: metrics.register(
                "tidegate_dbservice_database_certificate_ends_timestamp_seconds",
                "When the first of all databases' certificates ends, as Unix time; 0 while none is known",
                Gauge::default(),
            ),
        }
    }

    /// Shows these counts.
    pub(crate) fn take(&self, census: &Census) {
        for (status, count) in [
            (StatusWord::Disabled, census.disabled),
            (StatusWord::Healthy, census.healthy),
            (StatusWord::Unhealthy, census.unhealthy),
            (StatusWord::Unknown, census.unknown),
        ] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.databases
                .get_or_create(&StatusLabel { status })
                .set(count);
        }
        let ends = census.certificate_ends.map_or(0, |at| at.as_second());
        self.certificate_ends.set(ends);
    }
}
