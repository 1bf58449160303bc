//! What the worker counts.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
};
use tidegate_core::DatabaseKind;
use tidegate_service::metrics::Metrics;

use crate::scan::{Observed, Scan};

/// Buckets of a scan's duration, doubling from this many seconds.
const SECONDS_LEAST: f64 = 0.05;
/// How many buckets: the last is past the longest scan.
const SECONDS_BUCKETS: u16 = 12;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ScanLabels {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PublishLabels {
    outcome: &'static str,
}

/// How a publication ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PublishOutcome {
    Applied,
    Failed,
    LeaseLost,
    Unchanged,
}

impl PublishOutcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Failed => "failed",
            Self::LeaseLost => "lease_lost",
            Self::Unchanged => "unchanged",
        }
    }
}

/// The worker's metrics; two workers in one process count into the same ones.
#[derive(Clone, Debug)]
pub(crate) struct Meters {
    scans: Family<ScanLabels, Counter>,
    scan_seconds: Family<KindLabels, Histogram, fn() -> Histogram>,
    databases: Family<KindLabels, Gauge>,
    aws_calls: Family<KindLabels, Counter>,
    publications: Family<PublishLabels, Counter>,
}

impl Meters {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let seconds: fn() -> Histogram =
            || Histogram::new(exponential_buckets(SECONDS_LEAST, 2.0, SECONDS_BUCKETS));
        Self {
            scans: metrics.register(
                "tidegate_discovery_scans_total",
                "Scans of one scope, by whether everything was seen",
                Family::default(),
            ),
            scan_seconds: metrics.register(
                "tidegate_discovery_scan_seconds",
                "Duration of scans of one scope",
                Family::new_with_constructor(seconds),
            ),
            databases: metrics.register(
                "tidegate_discovery_databases",
                "Databases that the last complete scans of this worker saw",
                Family::default(),
            ),
            aws_calls: metrics.register(
                "tidegate_discovery_aws_calls_total",
                "Calls to AWS that scans made, retries within a call not counted",
                Family::default(),
            ),
            publications: metrics.register(
                "tidegate_discovery_publications_total",
                "Scans offered to the auth service, by how that ended",
                Family::default(),
            ),
        }
    }

    pub(crate) fn scanned(&self, kind: DatabaseKind, scan: &Scan) {
        let outcome = match scan.observed {
            Observed::Complete(_) => "complete",
            Observed::Partial { .. } => "partial",
        };
        let kind = kind.as_str();
        self.scans
            .get_or_create(&ScanLabels { kind, outcome })
            .inc();
        let labels = KindLabels { kind };
        self.scan_seconds
            .get_or_create(&labels)
            .observe(scan.took.as_secs_f64());
        self.aws_calls
            .get_or_create(&labels)
            .inc_by(scan.aws_calls.into());
    }

    pub(crate) fn published(&self, outcome: PublishOutcome) {
        let outcome = outcome.as_str();
        self.publications
            .get_or_create(&PublishLabels { outcome })
            .inc();
    }

    /// One scope's count of databases went from `before` to `now`.
    pub(crate) fn databases(&self, kind: DatabaseKind, before: usize, now: usize) {
        let signed = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let kind = kind.as_str();
        self.databases
            .get_or_create(&KindLabels { kind })
            .inc_by(signed(now) - signed(before));
    }
}
