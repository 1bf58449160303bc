//! One scan and its publication.
//!
//! Invariant: a result is published with the epoch that the scope was held with when its scan began, and not at all
//! when that is over; a scan whose scope was taken away stops.

use std::sync::Arc;

use tidegate_aws::AwsErrorClass;
use tidegate_core::{ScanScope, ScopeId};
use tidegate_proto::v1;
use tidegate_service::clock::SharedClock;
use tokio::time::Instant;
use tracing::debug;

use super::tell::Cause;
use crate::{
    budget::{self, Budget},
    fetch::{Fetch, FetchError},
    lease::Leases,
    metrics::{Meters, PublishOutcome},
    publish::{self, Client, Publication, PublishError},
    scan::{self, Observed, Scan},
};

/// What every scan uses.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) client: Client,
    pub(super) fetch: Arc<dyn Fetch>,
    pub(super) meters: Meters,
    pub(super) clock: SharedClock,
    pub(super) leases: Arc<Leases>,
}

/// How a scan of a scope ended.
pub(super) enum End {
    /// The scope was taken away before the scan was over.
    Moved,
    /// It was scanned, and then published or not.
    Scanned {
        /// Databases seen, when it was complete.
        complete: Option<usize>,
        cause: Option<Cause>,
        published: Result<v1::PublishResult, PublishError>,
    },
}

/// One scan, and what becomes of it.
pub(super) struct Job {
    pub(super) shared: Shared,
    pub(super) scope: Arc<ScanScope>,
    pub(super) budget: Arc<Budget>,
    pub(super) epoch: u64,
}

impl Job {
    pub(super) async fn run(self, id: &ScopeId) -> End {
        let shared = &self.shared;
        let scan = tokio::select! {
            scan = scan::scan(&*shared.fetch, &self.scope, &*shared.clock) => scan,
            () = shared.leases.over(id, self.epoch) => {
                shared.meters.published(PublishOutcome::LeaseLost);
                return End::Moved;
            }
        };
        shared.meters.scanned(self.scope.kind, &scan);
        self.charge(&scan);
        tracing::Span::current().record("scope.found", scan.observed.seen().len());
        let complete = match &scan.observed {
            Observed::Complete(seen) => Some(seen.len()),
            Observed::Partial { .. } => None,
        };
        let cause = scan.observed.cause();
        let cause = cause.map(|cause| Cause::new(cause, &self.scope));
        debug!(error = cause.as_ref().map(Cause::text), "scanned a scope");
        let published = self.publish(id, scan).await;
        End::Scanned {
            complete,
            cause,
            published,
        }
    }

    fn charge(&self, scan: &Scan) {
        let class = scan.observed.cause().map(FetchError::class);
        let throttled = class == Some(AwsErrorClass::Throttled.as_str());
        let service = budget::service(self.scope.kind);
        self.budget
            .scanned(service, scan.aws_calls, throttled, Instant::now());
    }

    async fn publish(&self, id: &ScopeId, scan: Scan) -> Result<v1::PublishResult, PublishError> {
        let shared = &self.shared;
        let published = if shared.leases.epoch(id) == Some(self.epoch) {
            let publication = Publication::new(&self.scope, self.epoch, scan);
            publish::publish(shared.client.clone(), publication).await
        } else {
            let over = tonic::Status::failed_precondition("it ended during the scan");
            Err(over.into())
        };
        shared.meters.published(match &published {
            Ok(result) if result.unchanged => PublishOutcome::Unchanged,
            Ok(_) => PublishOutcome::Applied,
            Err(PublishError::LeaseLost(_)) => PublishOutcome::LeaseLost,
            Err(_) => PublishOutcome::Failed,
        });
        if matches!(published, Err(PublishError::LeaseLost(_))) {
            shared.leases.lost(id, self.epoch);
        }
        published
    }
}
