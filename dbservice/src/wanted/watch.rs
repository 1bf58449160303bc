//! Follows the inventory and serves what the plan says.
//!
//! While the auth service is away, the last known state goes on being served.

use std::{sync::Arc, time::Duration};

use tidegate_proto::v1::{self, inventory_service_client::InventoryServiceClient};
use tidegate_service::{
    rpc::{self, MESSAGE_BYTES_MAX},
    settings::DatabaseSettings,
    tasks::ShutdownToken,
};
use tokio_stream::StreamExt;
use tonic::{Code, Status, transport::Channel};
use tracing::{error, info, warn};

use super::{
    Plan, Refusal,
    mirror::{Applied, Mirror},
    plan,
};
use crate::{metrics::ServiceMetrics, retry::Retry, served::ServedSet};

/// Changes that arrive within this time are planned together.
const SETTLE: Duration = Duration::from_millis(20);

/// Changes that are planned together at most.
const TOGETHER_MAX: usize = 1024;

/// Keeps the served set what settings and inventory want.
#[derive(Debug)]
pub(crate) struct Reconciler {
    settings: DatabaseSettings,
    served: Arc<ServedSet>,
    metrics: ServiceMetrics,
    mirror: Mirror,
    last: Plan,
}

impl Reconciler {
    /// Serves the databases of the settings at once.
    pub(crate) fn new(
        settings: DatabaseSettings,
        served: Arc<ServedSet>,
        metrics: ServiceMetrics,
    ) -> Self {
        let mut reconciler = Self {
            settings,
            served,
            metrics,
            mirror: Mirror::default(),
            last: Plan::default(),
        };
        reconciler.reconcile();
        reconciler
    }

    fn reconcile(&mut self) {
        let plan = plan(
            &self.settings.databases,
            &self.settings.resources,
            self.mirror.databases(),
        );
        for (name, refusal) in &plan.refused {
            if self.last.refused.get(name) != Some(refusal) {
                report(name.as_str(), refusal);
            }
        }
        self.served.apply(&plan);
        let served = i64::try_from(self.served.len()).unwrap_or(i64::MAX);
        self.metrics.databases_served.set(served);
        self.last = plan;
    }

    /// Follows the inventory until shutdown. Without selectors there is nothing to follow.
    pub(crate) async fn follow(mut self, channel: Channel, shutdown: ShutdownToken) {
        if self.settings.resources.is_empty() {
            shutdown.cancelled().await;
            return;
        }
        let mut retry = Retry::new();
        loop {
            retry.begin();
            let watched = shutdown
                .run_until_cancelled(self.watch_once(channel.clone(), &mut retry))
                .await;
            let cause = match watched {
                None => return,
                Some(Ok(())) => "the auth service ended the watch".to_owned(),
                Some(Err(status)) if status.code() == Code::OutOfRange => {
                    self.mirror.history_is_gone();
                    info!("the inventory's history is gone; listing it in full");
                    "history is gone".to_owned()
                }
                Some(Err(status)) => rpc::describe(&status),
            };
            if retry.failed(&cause) {
                warn!(
                    error = cause,
                    databases = self.served.len(),
                    "cannot watch the inventory; serving what was last known"
                );
            }
            if !retry.wait(&shutdown).await {
                return;
            }
        }
    }

    async fn watch_once(&mut self, channel: Channel, retry: &mut Retry) -> Result<(), Status> {
        let mut client =
            InventoryServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let request = v1::WatchDatabasesRequest {
            selectors: self
                .settings
                .resources
                .iter()
                .map(|entry| entry.labels.clone().into())
                .collect(),
            after_revision: self.mirror.resume_after(),
        };
        let stream = client.watch_databases(request).await?.into_inner();
        self.mirror.watch_began();
        let batches = stream.chunks_timeout(TOGETHER_MAX, SETTLE);
        let mut batches = std::pin::pin!(batches);
        while let Some(batch) = batches.next().await {
            let (changed, ended) = self.take_in(batch);
            if changed {
                self.reconcile();
            }
            if let Some(status) = ended {
                return Err(status);
            }
            retry.succeeded();
        }
        Ok(())
    }

    /// Applies messages up to the end of the stream; whether anything changed, and how it ended if it did.
    fn take_in(
        &mut self,
        batch: Vec<Result<v1::WatchDatabasesResponse, Status>>,
    ) -> (bool, Option<Status>) {
        let mut changed = false;
        for message in batch {
            let message = match message {
                Ok(message) => message,
                Err(status) => return (changed, Some(status)),
            };
            match self.mirror.apply(message) {
                Applied::Changed => changed = true,
                Applied::Nothing => {}
                Applied::Invalid { name, invalid } => {
                    changed = true;
                    error!(db.name = name, error = %invalid, "a database of the inventory cannot be understood; it is not served");
                }
            }
        }
        (changed, None)
    }
}

fn report(name: &str, refusal: &Refusal) {
    match refusal {
        Refusal::Endpoint(_) => {
            error!(db.name = name, error = %refusal, "refusing to serve a database whose address cannot be right");
        }
        Refusal::Protocol(_) | Refusal::Shadowed => {
            warn!(db.name = name, error = %refusal, "a database is not served");
        }
    }
}
