//! Scans the scopes that are held, when they are due, and publishes what they return.
//!
//! Two tasks: one keeps the leases ([`crate::lease`]), one runs the scans, at most [`SCANS_MAX`] at a time. A scope
//! is scanned at once when it is first held, then as its [`Schedule`] says. A result is published with the epoch
//! that the scope was held with when its scan began, and not at all when that is over.
//!
//! What is logged of it is in [`tell`].

mod tell;

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use prost::Message;
use tidegate_aws::AwsFactory;
use tidegate_core::{ScanScope, ScopeId};
use tidegate_proto::v1;
use tidegate_service::{
    admin::Readiness,
    clock::SharedClock,
    host::HostHandle,
    metrics::Metrics,
    rpc::MESSAGE_BYTES_MAX,
    settings::DiscoverySettings,
    tasks::{ShutdownToken, Tasks},
    telemetry::SaidOnce,
};
use tokio::time::{Instant, sleep_until};
use tracing::{Instrument, debug, field, info, info_span, warn};

use self::tell::Cause;
use crate::{
    fetch::{self, AwsFetch, Fetch},
    lease::{self, Leases},
    metrics::{Meters, PublishOutcome},
    publish::{self, Client, Publication, PublishError},
    scan::{self, Observed},
    schedule::Schedule,
};

/// Scans that one worker runs at once.
pub const SCANS_MAX: usize = 5;

/// Scopes of one worker: 100 accounts × 30 regions × 3 types, and room. The auth service takes no more.
pub const SCOPES_MAX: usize = 10_000;

/// The readiness component.
const COMPONENT: &str = "discovery";

/// Why a discovery worker cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiscoveryError {
    /// More scopes than the auth service takes, or than fit into the one message that asks for them.
    #[error(
        "the matchers make {scopes} scan scopes, which take {bytes} bytes to ask for; one worker may have {SCOPES_MAX} \
         in {MESSAGE_BYTES_MAX} bytes: share the matchers among more discovery groups"
    )]
    TooManyScopes {
        /// How many there are.
        scopes: usize,
        /// How large the message would be.
        bytes: usize,
    },
}

/// The discovery worker.
#[derive(Debug)]
pub struct Worker(());

impl Worker {
    /// Starts a worker that runs until `tasks` shut down. It needs neither AWS nor the auth service to be there:
    /// it keeps trying both, and becomes ready (component `discovery`) once the auth service has answered.
    ///
    /// # Errors
    ///
    /// [`DiscoveryError`], when waiting would not help.
    pub fn start(
        settings: DiscoverySettings,
        host: HostHandle,
        aws: AwsFactory,
        metrics: Metrics,
        readiness: Readiness,
        clock: SharedClock,
        tasks: &Tasks,
    ) -> Result<(), DiscoveryError> {
        let fetch = Arc::new(AwsFetch::new(aws, &host.host_id()));
        let client = Client::new(host.auth_channel())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        start(
            &settings,
            client,
            fetch,
            Meters::new(&metrics),
            &readiness,
            clock,
            tasks,
        )
    }
}

fn start(
    settings: &DiscoverySettings,
    client: Client,
    fetch: Arc<dyn Fetch>,
    meters: Meters,
    readiness: &Readiness,
    clock: SharedClock,
    tasks: &Tasks,
) -> Result<(), DiscoveryError> {
    let scopes = ScanScope::expand(&settings.group, &settings.matchers);
    let wanted = checked(&scopes)?;
    warn_of_unsupported(&scopes);
    info!(
        discovery.group = settings.group,
        scopes = scopes.len(),
        poll_seconds = settings.poll_interval.as_secs(),
        "starts to discover databases"
    );
    let leases = Arc::new(Leases::default());
    let component = readiness.component(COMPONENT);
    let shutdown = tasks.shutdown();
    let keeping = lease::keep(
        client.clone(),
        wanted,
        Arc::clone(&leases),
        component,
        shutdown.clone(),
    );
    tasks.spawn("discovery_lease", keeping);
    let shared = Shared {
        client,
        fetch,
        meters,
        clock,
        leases,
    };
    let scanner = Scanner::new(shared, scopes, settings.poll_interval);
    tasks.spawn("discovery_scan", scanner.run(shutdown));
    Ok(())
}

/// The scopes as they are asked for.
fn checked(scopes: &[ScanScope]) -> Result<Vec<v1::ScanScope>, DiscoveryError> {
    let scopes: Vec<v1::ScanScope> = scopes.iter().map(Into::into).collect();
    let request = v1::AcquireScopesRequest { scopes };
    let bytes = request.encoded_len();
    let scopes = request.scopes.len();
    if bytes > MESSAGE_BYTES_MAX || scopes > SCOPES_MAX {
        return Err(DiscoveryError::TooManyScopes { scopes, bytes });
    }
    Ok(request.scopes)
}

fn warn_of_unsupported(scopes: &[ScanScope]) {
    let mut kinds: Vec<_> = scopes
        .iter()
        .map(|scope| scope.kind)
        .filter(|kind| !fetch::is_supported(*kind))
        .collect();
    kinds.sort();
    kinds.dedup();
    for kind in kinds {
        warn!(
            scope.kind = kind.as_str(),
            "this version cannot discover databases of this type"
        );
    }
}

/// What every scan uses.
#[derive(Clone)]
struct Shared {
    client: Client,
    fetch: Arc<dyn Fetch>,
    meters: Meters,
    clock: SharedClock,
    leases: Arc<Leases>,
}

/// One scope, and what is remembered of it from scan to scan.
struct Tracked {
    scope: Arc<ScanScope>,
    id: ScopeId,
    schedule: Schedule,
    running: bool,
    /// What kept the last scan from being complete.
    cause: Option<String>,
    /// Databases that the last complete scan saw.
    databases: usize,
}

/// How one scan of a scope ended.
struct Done {
    index: usize,
    started: Instant,
    /// Databases seen, when it was complete.
    complete: Option<usize>,
    cause: Option<Cause>,
    published: Result<v1::PublishResult, PublishError>,
}

struct Scanner {
    shared: Shared,
    scopes: Vec<Tracked>,
    running: FuturesUnordered<BoxFuture<'static, Done>>,
    /// What was said of publications that failed.
    said: SaidOnce,
}

impl Scanner {
    fn new(shared: Shared, scopes: Vec<ScanScope>, poll_interval: Duration) -> Self {
        let now = Instant::now();
        let tracked = scopes.into_iter().map(|scope| Tracked {
            id: scope.id(),
            scope: Arc::new(scope),
            schedule: Schedule::new(poll_interval, now),
            running: false,
            cause: None,
            databases: 0,
        });
        Self {
            shared,
            scopes: tracked.collect(),
            running: FuturesUnordered::new(),
            said: SaidOnce::new(),
        }
    }

    /// Ends with `shutdown`: a scan under way is dropped, and a stream cut before its trailer changes nothing.
    async fn run(mut self, shutdown: ShutdownToken) {
        let mut grants = self.shared.leases.subscribe();
        loop {
            let next_due = self.start_due(Instant::now());
            tokio::select! {
                () = shutdown.cancelled() => return,
                Some(done) = self.running.next() => self.settle(done),
                // `shared` holds the sender, so this cannot fail.
                Ok(()) = grants.changed() => self.forget_lost(),
                () = async { sleep_until(next_due.unwrap_or_else(Instant::now)).await }, if next_due.is_some() => {}
            }
        }
    }

    /// Counts the databases of scopes that others scan now no longer as seen here.
    fn forget_lost(&mut self) {
        for tracked in &mut self.scopes {
            if tracked.databases > 0 && self.shared.leases.epoch(&tracked.id).is_none() {
                let kind = tracked.scope.kind;
                self.shared.meters.databases(kind, tracked.databases, 0);
                tracked.databases = 0;
            }
        }
    }

    /// Starts what is held and due, the longest overdue first, as far as there is room. Returns when the next one
    /// falls due; `None` when something else has to happen first.
    fn start_due(&mut self, now: Instant) -> Option<Instant> {
        loop {
            let held = self
                .scopes
                .iter()
                .enumerate()
                .filter_map(|(index, tracked)| {
                    let idle = !tracked.running;
                    let epoch = idle.then(|| self.shared.leases.epoch(&tracked.id))??;
                    Some((tracked.schedule.due(), index, epoch))
                });
            let (due, index, epoch) = held.min_by_key(|(due, index, _)| (*due, *index))?;
            if self.running.len() >= SCANS_MAX {
                return None;
            }
            if due > now {
                return Some(due);
            }
            self.start(index, epoch);
        }
    }

    fn start(&mut self, index: usize, epoch: u64) {
        let Some(tracked) = self.scopes.get_mut(index) else {
            return;
        };
        tracked.running = true;
        let scope = Arc::clone(&tracked.scope);
        let span = info_span!(
            "scan_scope",
            scope.kind = scope.kind.as_str(),
            cloud.region = %scope.region,
            aws.role = scope.assume_role.as_ref().map(|role| role.role_arn.as_str()),
            scope.found = field::Empty,
        );
        let work = scan_and_publish(self.shared.clone(), scope, tracked.id.clone(), epoch, index);
        self.running.push(Box::pin(work.instrument(span)));
    }

    fn settle(&mut self, done: Done) {
        let Some(tracked) = self.scopes.get_mut(done.index) else {
            return;
        };
        tracked.running = false;
        if let Some(count) = done.complete {
            let kind = tracked.scope.kind;
            self.shared.meters.databases(kind, tracked.databases, count);
            tracked.databases = count;
        }
        let read = !done.cause.as_ref().is_some_and(Cause::broke_off);
        if read && done.published.is_ok() {
            tracked.schedule.succeeded(done.started);
        } else {
            tracked.schedule.failed(Instant::now());
        }
        tell::cause(&tracked.scope, &mut tracked.cause, done.cause);
        tell::published(&tracked.scope, &done.published, &mut self.said);
    }
}

async fn scan_and_publish(
    shared: Shared,
    scope: Arc<ScanScope>,
    id: ScopeId,
    epoch: u64,
    index: usize,
) -> Done {
    let started = Instant::now();
    let scan = scan::scan(&*shared.fetch, &scope, &*shared.clock).await;
    shared.meters.scanned(scope.kind, &scan);
    tracing::Span::current().record("scope.found", scan.observed.seen().len());
    let complete = match &scan.observed {
        Observed::Complete(seen) => Some(seen.len()),
        Observed::Partial { .. } => None,
    };
    let cause = scan.observed.cause().map(|cause| Cause::new(cause, &scope));
    debug!(error = cause.as_ref().map(Cause::text), "scanned a scope");
    let published = if shared.leases.epoch(&id) == Some(epoch) {
        publish::publish(shared.client.clone(), Publication::new(&scope, epoch, scan)).await
    } else {
        let over = tonic::Status::failed_precondition("it ended during the scan");
        Err(over.into())
    };
    count(&shared, &published);
    if matches!(published, Err(PublishError::LeaseLost(_))) {
        shared.leases.lost(&id, epoch);
    }
    Done {
        index,
        started,
        complete,
        cause,
        published,
    }
}

fn count(shared: &Shared, published: &Result<v1::PublishResult, PublishError>) {
    shared.meters.published(match published {
        Ok(result) if result.unchanged => PublishOutcome::Unchanged,
        Ok(_) => PublishOutcome::Applied,
        Err(PublishError::LeaseLost(_)) => PublishOutcome::LeaseLost,
        Err(_) => PublishOutcome::Failed,
    });
}

#[cfg(test)]
mod tests;
