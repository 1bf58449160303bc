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
struct ScopeLabels {
    kind: &'static str,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
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
    publications: Family<OutcomeLabels, Counter>,
    scopes: Family<ScopeLabels, Gauge>,
    rescans: Family<KindLabels, Counter>,
    configs: Family<StateLabels, Gauge>,
    region_lists: Family<OutcomeLabels, Counter>,
    put_off: Family<KindLabels, Counter>,
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
            scopes: metrics.register(
                "tidegate_discovery_scopes",
                "Scan scopes that this worker is configured for, by whether it holds them",
                Family::default(),
            ),
            rescans: metrics.register(
                "tidegate_discovery_rescans_total",
                "Scans that an administrator asked for",
                Family::default(),
            ),
            configs: metrics.register(
                "tidegate_discovery_configs",
                "discovery_config resources of the group, by whether they can be used as they are",
                Family::default(),
            ),
            region_lists: metrics.register(
                "tidegate_discovery_region_lists_total",
                "Lists of the regions that an account has enabled, by outcome",
                Family::default(),
            ),
            put_off: metrics.register(
                "tidegate_discovery_scans_put_off_total",
                "Scans that were due and waited for the call budget of their account and region",
                Family::default(),
            ),
        }
    }

    pub(crate) fn scanned(&self, kind: DatabaseKind, scan: &Scan) {
        let outcome = match scan.observed {
            Observed::Complete(_) | Observed::Same(_) => "complete",
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
            .get_or_create(&OutcomeLabels { outcome })
            .inc();
    }

    /// Scopes of this kind became more or fewer.
    pub(crate) fn scopes(&self, kind: DatabaseKind, held: bool, change: i64) {
        let (kind, state) = (kind.as_str(), if held { "held" } else { "not_held" });
        self.scopes
            .get_or_create(&ScopeLabels { kind, state })
            .inc_by(change);
    }

    /// A scan that an administrator asked for became due.
    pub(crate) fn rescan(&self, kind: DatabaseKind) {
        let kind = kind.as_str();
        self.rescans.get_or_create(&KindLabels { kind }).inc();
    }

    /// A scan has to wait for its budget.
    pub(crate) fn put_off(&self, kind: DatabaseKind) {
        let kind = kind.as_str();
        self.put_off.get_or_create(&KindLabels { kind }).inc();
    }

    /// The counts of `discovery_config` resources in force and malformed went from `before` to `now`.
    pub(crate) fn configs(&self, before: (usize, usize), now: (usize, usize)) {
        for (state, before, now) in [
            ("in_force", before.0, now.0),
            ("malformed", before.1, now.1),
        ] {
            self.configs
                .get_or_create(&StateLabels { state })
                .inc_by(signed(now) - signed(before));
        }
    }

    /// An account was asked for its regions.
    pub(crate) fn regions_listed(&self, listed: bool) {
        let outcome = if listed { "ok" } else { "failed" };
        self.region_lists
            .get_or_create(&OutcomeLabels { outcome })
            .inc();
    }

    /// One scope's count of databases went from `before` to `now`.
    pub(crate) fn databases(&self, kind: DatabaseKind, before: usize, now: usize) {
        let kind = kind.as_str();
        self.databases
            .get_or_create(&KindLabels { kind })
            .inc_by(signed(now) - signed(before));
    }
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_lists_every_metric() {
        let metrics = Metrics::new();
        let (meters, kind) = (Meters::new(&metrics), DatabaseKind::Redshift);
        let scan = Scan {
            observed: Observed::Complete(Default::default()),
            aws_calls: 1,
            left_out: std::collections::BTreeMap::new(),
            started_at: jiff::Timestamp::UNIX_EPOCH,
            finished_at: jiff::Timestamp::UNIX_EPOCH,
            took: std::time::Duration::ZERO,
            trace: None,
        };
        meters.scanned(kind, &scan);
        meters.published(PublishOutcome::Applied);
        meters.scopes(kind, true, 1);
        meters.rescan(kind);
        meters.put_off(kind);
        meters.configs((0, 0), (1, 0));
        meters.regions_listed(true);
        meters.databases(kind, 0, 1);
        let text = metrics.encode();
        let names: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next())
            .filter(|name| name.starts_with("tidegate_discovery_"))
            .collect();
        assert!(names.len() >= 10, "{text}");
        let guide = include_str!("../../docs/guides/discovery.md");
        for name in names {
            let listed = [format!("`{name}`"), format!("`{name}_total`")];
            assert!(listed.iter().any(|name| guide.contains(name)), "{name}");
        }
    }
}
