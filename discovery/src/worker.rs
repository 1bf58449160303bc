//! Starts the worker's tasks.
//!
//! One follows the group's resources ([`crate::configs`]), one keeps up to date what is wanted ([`crate::planner`]),
//! one keeps the leases ([`crate::lease`]), and one scans ([`scanner`]). They meet in watched values: resources →
//! wanted scopes → grants.

mod job;
mod lanes;
mod scanner;
mod tell;

use std::sync::Arc;

use tidegate_aws::{AwsFactory, SessionTag};
use tidegate_service::{
    admin::Readiness, clock::SharedClock, host::HostHandle, metrics::Metrics,
    rpc::MESSAGE_BYTES_MAX, settings::DiscoverySettings, tasks::Tasks,
};
use tokio::sync::watch;
use tracing::info;

pub use self::lanes::SCANS_MAX;
use self::{job::Shared, scanner::Scanner};
use crate::{
    configs::{self, Configs},
    fetch::{AwsFetch, Fetch},
    lease::{self, Leases},
    metrics::Meters,
    planner::Planner,
    publish::Client,
    regions::{AwsRegions, ListRegions},
    wanted::{Expansion, SCOPES_MAX},
};

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
    /// Starts a worker that runs until `tasks` shut down. Of settings that change later the matchers are followed: what they
    /// ask for no more is let go of as it is when a `discovery_config` goes, and new scopes are scanned within seconds. It needs neither AWS nor the auth service to be there:
    /// it keeps trying both, and becomes ready (component `discovery`) once the auth service has answered.
    ///
    /// # Errors
    ///
    /// [`DiscoveryError`], when waiting would not help. Matchers that come later and make too many scopes are an error in the
    /// log, and the last scopes are not scanned.
    pub fn start(
        settings: watch::Receiver<DiscoverySettings>,
        host: HostHandle,
        aws: AwsFactory,
        metrics: Metrics,
        readiness: Readiness,
        clock: SharedClock,
        tasks: &Tasks,
    ) -> Result<(), DiscoveryError> {
        // Named after the worker, so that CloudTrail tells which one scanned.
        let session = SessionTag::new(&format!("tidegate-discovery-{}", host.host_id()));
        let lister = Arc::new(AwsRegions::new(aws.clone(), session.clone()));
        let fetch = Arc::new(AwsFetch::new(aws, session));
        let client = Client::new(host.auth_channel())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let outside = Outside {
            client,
            fetch,
            lister,
            clock,
        };
        start(settings, outside, Meters::new(&metrics), &readiness, tasks)
    }
}

/// What the worker works with.
struct Outside {
    client: Client,
    fetch: Arc<dyn Fetch>,
    lister: Arc<dyn ListRegions>,
    clock: SharedClock,
}

fn start(
    settings: watch::Receiver<DiscoverySettings>,
    outside: Outside,
    meters: Meters,
    readiness: &Readiness,
    tasks: &Tasks,
) -> Result<(), DiscoveryError> {
    let (group, poll_interval) = {
        let settings = settings.borrow();
        (settings.group.clone(), settings.poll_interval)
    };
    let client = outside.client;
    let dynamic = !group.is_empty();
    // Workers without a group have no resources: that they have none is known.
    let (configs, known_configs) = watch::channel((!dynamic).then(Configs::new));
    let (planner, at_start) = Planner::new(
        group.clone(),
        settings,
        known_configs,
        client.clone(),
        outside.lister,
        meters.clone(),
    );
    checked(&at_start)?;
    info!(
        discovery.group = group,
        scopes = at_start.scopes.len(),
        poll_seconds = poll_interval.as_secs(),
        "starts to discover databases"
    );
    let shutdown = tasks.shutdown();
    if dynamic {
        let follow = configs::follow(
            client.clone(),
            group,
            configs,
            meters.clone(),
            shutdown.clone(),
        );
        tasks.spawn("discovery_configs", follow);
    }
    let leases = Arc::new(Leases::default());
    let keeping = lease::keep(
        client.clone(),
        planner.subscribe(),
        Arc::clone(&leases),
        readiness.component(COMPONENT),
        shutdown.clone(),
    );
    tasks.spawn("discovery_lease", keeping);
    let shared = Shared {
        client,
        fetch: outside.fetch,
        meters,
        clock: outside.clock,
        leases,
    };
    let scanner = Scanner::new(shared, planner.subscribe(), poll_interval);
    tasks.spawn("discovery_scan", scanner.run(shutdown.clone()));
    tasks.spawn("discovery_plan", planner.run(shutdown));
    Ok(())
}

/// Whether all scopes of the file can be asked for.
pub(crate) const fn checked(at_start: &Expansion) -> Result<(), DiscoveryError> {
    if at_start.left_out == 0 {
        return Ok(());
    }
    Err(DiscoveryError::TooManyScopes {
        scopes: at_start.scopes.len() + at_start.left_out,
        bytes: at_start.bytes,
    })
}

#[cfg(test)]
mod tests;
