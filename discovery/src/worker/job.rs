//! One scan and its publication.
//!
//! Invariant: a result is published with the epoch that the scope was held with when its scan began, and not at all
//! when that is over; a scan whose scope was taken away stops.

use std::{sync::Arc, time::Duration};

use tidegate_core::{ScanScope, ScopeId};
use tidegate_proto::v1;
use tidegate_service::clock::SharedClock;
use tracing::debug;

use super::{lanes::Reads, tell::Cause};
use crate::{
    budget::Budget,
    fetch::Fetch,
    known::Known,
    lease::Leases,
    metrics::{Meters, PublishOutcome},
    publish::{self, Client, Publication, PublishError},
    scan::{self, Observed, Scan, Terms},
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
        /// How long reading took.
        took: Duration,
        /// What the next scan can be compared with.
        known: Option<Arc<Known>>,
        published: Result<v1::PublishResult, PublishError>,
    },
}

/// One scan, and what becomes of it.
pub(super) struct Job {
    pub(super) shared: Shared,
    pub(super) scope: Arc<ScanScope>,
    /// A token for its first call was taken from it.
    pub(super) budget: Arc<Budget>,
    /// Somebody asked for it.
    pub(super) fresh: bool,
    /// What the last scan found, when that is settled.
    pub(super) known: Option<Arc<Known>>,
    pub(super) epoch: u64,
    pub(super) reads: Reads,
}

impl Job {
    pub(super) async fn run(mut self, id: &ScopeId) -> End {
        let mut prepaid = true;
        loop {
            let shared = &self.shared;
            let terms = Terms {
                budget: Arc::clone(&self.budget),
                prepaid: std::mem::take(&mut prepaid),
                fresh: self.fresh,
                known: self.known.take(),
            };
            let scan = tokio::select! {
                scan = scan::scan(&*shared.fetch, &self.scope, terms, &*shared.clock) => scan,
                () = shared.leases.over(id, self.epoch) => {
                    shared.meters.published(PublishOutcome::LeaseLost);
                    return End::Moved;
                }
            };
            self.reads.end();
            let end = self.conclude(id, scan).await;
            let wanted = matches!(
                &end,
                End::Scanned {
                    published: Err(PublishError::ItemsWanted),
                    ..
                }
            );
            // Ends: the second time nothing is known, so all is read.
            if !wanted {
                return end;
            }
            debug!("the auth service wants what an unchanged scan found: scans again");
        }
    }

    async fn conclude(&self, id: &ScopeId, scan: Scan) -> End {
        let shared = &self.shared;
        let took = scan.took;
        shared.meters.scanned(self.scope.kind, &scan);
        let count = scan.observed.count();
        tracing::Span::current().record("scope.found", count);
        let complete = match &scan.observed {
            Observed::Complete(_) | Observed::Same(_) => Some(count),
            Observed::Partial { .. } => None,
        };
        let cause = scan.observed.cause();
        let cause = cause.map(|cause| Cause::new(cause, &self.scope));
        debug!(error = cause.as_ref().map(Cause::text), "scanned a scope");
        let (same, trace, left_out) = (scan.observed.same(), scan.trace, scan.left_out.clone());
        let (published, digest) = self.publish(id, scan).await;
        let known = match (&published, same, trace) {
            (Ok(result), _, _) if result.held > 0 || result.shadowed > 0 => None,
            (Ok(_), Some(same), _) => Some(same),
            (Ok(_), None, Some(trace)) => Some(Arc::new(Known {
                trace,
                digest,
                databases: count,
                left_out,
            })),
            _ => None,
        };
        End::Scanned {
            complete,
            cause,
            took,
            known,
            published,
        }
    }

    /// Publishes, and tells the digest of what was found.
    async fn publish(
        &self,
        id: &ScopeId,
        scan: Scan,
    ) -> (Result<v1::PublishResult, PublishError>, [u8; 32]) {
        let shared = &self.shared;
        let publication = Publication::new(&self.scope, self.epoch, scan);
        let digest = publication.digest();
        let published = if shared.leases.epoch(id) == Some(self.epoch) {
            publish::publish(shared.client.clone(), publication).await
        } else {
            let over = tonic::Status::failed_precondition("it ended during the scan");
            Err(over.into())
        };
        let outcome = match &published {
            Ok(result) if result.unchanged => Some(PublishOutcome::Unchanged),
            Ok(_) => Some(PublishOutcome::Applied),
            Err(PublishError::LeaseLost(_)) => Some(PublishOutcome::LeaseLost),
            // The scan that follows at once is counted.
            Err(PublishError::ItemsWanted) => None,
            Err(_) => Some(PublishOutcome::Failed),
        };
        if let Some(outcome) = outcome {
            shared.meters.published(outcome);
        }
        if matches!(published, Err(PublishError::LeaseLost(_))) {
            shared.leases.lost(id, self.epoch);
        }
        (published, digest)
    }
}
