//! The process's metrics registry, in the OpenMetrics text format.
//!
//! Names are `tidegate_<crate>_<noun>_<unit>[_total]`, written in full at the place that registers them, so that what
//! an operator sees is found by searching the code. Labels come from enums only.

use std::{
    any::Any,
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prometheus_client::{
    encoding::text,
    registry::{Metric, Registry},
};

/// The content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A registry that all parts of the process share; clones are the same registry.
#[derive(Clone, Default)]
pub struct Metrics {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    registry: Registry,
    registered: HashMap<String, Box<dyn Any + Send + Sync>>,
}

impl Metrics {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a metric under its full name and returns the one to count with.
    ///
    /// A name is registered once: for a second caller (two workers in one process) the first one's metric is
    /// returned, so that both count into it, and `metric` is dropped. A counter's `_total` may be written or left out.
    pub fn register<M>(&self, name: &str, help: &str, metric: M) -> M
    where
        M: Metric + Clone,
    {
        let name = name.strip_suffix("_total").unwrap_or(name);
        let mut inner = self.lock();
        if let Some(present) = inner.registered.get(name) {
            let Some(present) = present.downcast_ref::<M>() else {
                tracing::error!(
                    metric = name,
                    "registered a metric twice with different types; one is not shown"
                );
                return metric;
            };
            return present.clone();
        }
        inner.registry.register(name, help, metric.clone());
        inner
            .registered
            .insert(name.to_owned(), Box::new(metric.clone()));
        metric
    }

    /// Every metric as OpenMetrics text.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut out = String::new();
        // Writing to a string fails only when a metric's own encoding does; what was written so far stands.
        if text::encode(&mut out, &self.lock().registry).is_err() {
            tracing::error!("could not encode every metric");
        }
        out
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A registry is never left half-changed, so a panic elsewhere does not spoil it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics")
            .field("registered", &self.lock().registered.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::{counter::Counter, gauge::Gauge};

    use super::*;

    #[test]
    fn a_second_registration_counts_into_the_first() {
        let metrics = Metrics::new();
        let first = metrics.register(
            "tidegate_test_scans_total",
            "Scans",
            Counter::<u64>::default(),
        );
        let second = metrics.register(
            "tidegate_test_scans_total",
            "Scans",
            Counter::<u64>::default(),
        );
        first.inc();
        second.inc();

        let text = metrics.encode();

        assert!(text.contains("tidegate_test_scans_total 2\n"), "{text}");
        assert_eq!(text.matches("# HELP tidegate_test_scans").count(), 1);
    }

    #[test]
    fn one_name_never_shows_two_types() {
        let metrics = Metrics::new();
        metrics.register("tidegate_test_x", "X", Counter::<u64>::default());
        metrics.register("tidegate_test_x", "X", Gauge::<i64>::default());
        assert!(!metrics.encode().contains("gauge"));
    }
}
