//! What the control plane measures of its inventory.

use std::{sync::Arc, time::Duration};

use prometheus_client::metrics::gauge::Gauge;
use tidegate_service::{metrics::Metrics, tasks::ShutdownToken};

use crate::inventory::Inventory;

/// The number of rows of each table, kept current.
async fn gauges_loop(
    inventory: Arc<Inventory>,
    databases: Gauge,
    servers: Gauge,
    revision: Gauge,
    shutdown: ShutdownToken,
) {
    const INTERVAL: Duration = Duration::from_secs(5);
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let look = inventory.tables();
        databases.set(count(look.databases.len()));
        servers.set(count(look.servers.len()));
        revision.set(i64::try_from(look.revision).unwrap_or(i64::MAX));
    }
}

/// Registers them, and gives the task that keeps them current until shutdown.
pub(super) fn gauges(
    inventory: Arc<Inventory>,
    metrics: &Metrics,
    shutdown: ShutdownToken,
) -> impl Future<Output = ()> + Send + use<> {
    let gauge = |name: &str, help: &str| metrics.register(name, help, Gauge::<i64>::default());
    gauges_loop(
        inventory,
        gauge("tidegate_auth_databases", "Databases in the inventory"),
        gauge(
            "tidegate_auth_database_servers",
            "Database servers that are present",
        ),
        gauge(
            "tidegate_auth_inventory_revision",
            "The state store's revision that the inventory in memory shows",
        ),
        shutdown,
    )
}
