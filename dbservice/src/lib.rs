//! The database service: an agent that serves databases to people, near the databases.
//!
//! It decides what to serve (`wanted`), tells the cluster (`presence`, `health`), is reached through proxies
//! (`tunnel`), lets in whom roles allow (`roles`) and locks do not shut out (`locks`), logs in to databases with credentials that AWS mints
//! (`credentials`), goes on by what it was told when it starts without a control plane (`offline`), relays sessions (`engine`), says what happened (`audit`), and what keeps sessions from a database ([`doctor`]).
//!
//! What must hold: credentials go only to a database whose address can be right and whose certificate was verified;
//! nobody reaches a database without a permit; bytes of a session pass as they came; an auth service that is away
//! stops no session and, for as long as certificates last, none from beginning.
//!
//! Not here: which roles and databases there are (`tidegate-auth`), how databases are found (`tidegate-discovery`), and
//! what a proxy does with a client (`tidegate-proxy`).

mod audit;
mod certificate;
mod credentials;
pub mod doctor;
mod engine;
mod health;
mod labels;
mod locks;
mod metadata;
mod metrics;
mod names;
mod offline;
mod places;
mod presence;
mod retry;
mod roles;
mod served;
#[cfg(test)]
mod testing;
mod through;
mod trust;
mod tunnel;
mod wanted;

use std::{path::PathBuf, sync::Arc};

use tidegate_aws::AwsFactory;
use tidegate_identity::IdentityError;
use tidegate_service::{
    admin::Readiness, clock::SharedClock, host::HostHandle, metrics::Metrics,
    settings::DatabaseSettings, tasks::Tasks,
};
use tokio::sync::{Semaphore, watch};
use tracing::info;

use crate::{
    audit::AuditQueue,
    certificate::ClientTls,
    credentials::AwsCredentials,
    doctor::live::Live,
    engine::{
        AgentNames, BOUNDARY_GRACE, Connector, Engine, FINISH_GRACE, postgres::CancelRegistry,
    },
    health::{Checker, Health, configs::Configs, probe::Prober},
    labels::Labelled,
    locks::Locks,
    metadata::{AwsDescribe, Book},
    metrics::ServiceMetrics,
    names::Names,
    offline::Standing,
    places::Places,
    presence::Announcer,
    roles::Roles,
    served::ServedSet,
    through::Processes,
    trust::Trust,
    tunnel::{AHEAD_MAX, CANCELS_MAX, Connected, SESSIONS_MAX, Tunnel},
    wanted::{Facts, watch::Reconciler},
};

/// The service that a host's certificate must allow.
const SERVICE: &str = "db";

/// Where CA bundles are kept, in the data directory.
const CA_BUNDLES_FOLDER: &str = "ca-bundles";

/// What the agent knows of its surroundings.
#[derive(Clone, Debug)]
pub struct AgentContext {
    /// Where it keeps what it should know at its next start.
    pub data_dir: PathBuf,
    /// Its name for people.
    pub hostname: String,
    /// The one proxy to connect to (`host:port`); without it, all that the inventory lists.
    pub proxy_server: Option<String>,
    /// Where it is; empty is unknown.
    pub zone: String,
}

/// Why the service cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseServiceError {
    /// There are no random bytes to be had.
    #[error("cannot name the cancel keys of this process")]
    CancelKeys(#[from] IdentityError),
    /// The process joined without the right to run it.
    #[error(
        "this host's certificate is for {services}, not for `{SERVICE}`: join with a token of type `{SERVICE}`"
    )]
    NotAllowed {
        /// What it may run.
        services: String,
    },
}

/// The database service.
#[derive(Debug)]
pub struct DatabaseService;

impl DatabaseService {
    /// Starts the service. It returns at once; everything runs in tasks of `tasks`, until shutdown.
    ///
    /// Nothing that is away now (auth service, proxies, databases, AWS) keeps it from starting: each is tried again,
    /// and `readiness` tells what is missing. Settings that change later are followed; sessions go on unless the
    /// endpoint of their database is another one.
    ///
    /// # Errors
    ///
    /// [`DatabaseServiceError::NotAllowed`].
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a different thing that the process has one of"
    )]
    pub fn start(
        settings: watch::Receiver<DatabaseSettings>,
        context: AgentContext,
        host: HostHandle,
        aws: AwsFactory,
        metrics: &Metrics,
        readiness: &Readiness,
        clock: SharedClock,
        tasks: &Tasks,
    ) -> Result<(), DatabaseServiceError> {
        let services = host.services();
        if !services.iter().any(|service| service == SERVICE) {
            return Err(DatabaseServiceError::NotAllowed {
                services: services.join(", "),
            });
        }
        {
            let settings = settings.borrow();
            info!(
                databases = settings.databases.len(),
                resources = settings.resources.len(),
                "starting the database service"
            );
        }
        let metrics = ServiceMetrics::register(metrics);
        let (shutdown, auth) = (tasks.shutdown(), host.auth_channel());
        let (audit, events) = AuditQueue::new(metrics.clone());
        let audit_holders = audit.holders();
        let (served, health) = (Arc::new(ServedSet::new()), Arc::new(Health::new()));
        let (roles, locks, client_tls) = (Roles::default(), Locks::default(), ClientTls::default());
        let folder = context.data_dir.join(CA_BUNDLES_FOLDER);
        let trust = Arc::new(Trust::new(folder, settings.clone(), Arc::clone(&clock)));
        let connector = Arc::new(Connector::new(
            metrics.connect_seconds.clone(),
            Arc::clone(&trust),
        ));
        let credentials = Arc::new(AwsCredentials::new(
            aws.clone(),
            settings.clone(),
            &clock,
            metrics.clone(),
        ));
        let drain_timeout = tasks.drain().timeout;
        let (cancels, cancels_elsewhere) = CancelRegistry::of_agent()?;
        let engine = Arc::new(Engine {
            cluster: host.cluster(),
            agent: AgentNames {
                host_id: host.host_id().to_string(),
                hostname: context.hostname.clone(),
            },
            roles: roles.clone(),
            locks: locks.clone(),
            places: Places::default(),
            credentials: Arc::<AwsCredentials>::clone(&credentials),
            connector: Arc::clone(&connector),
            cancels,
            mysql_numbers: engine::mysql::Numbers::default(),
            audit: audit.clone(),
            metrics: metrics.clone(),
            health: Arc::clone(&health),
            clock: Arc::clone(&clock),
            settings: settings.clone(),
            shutdown: shutdown.clone(),
            drain_timeout,
        });
        let (told, kept_proxies) = offline::start(
            settings.borrow().offline_start,
            &context.data_dir,
            &host,
            Standing {
                roles: roles.clone(),
                locks: locks.clone(),
                client_tls: client_tls.clone(),
            },
            readiness,
            &clock,
            tasks,
        );
        let tunnel = Arc::new(Tunnel {
            host: host.clone(),
            hostname: context.hostname.clone(),
            zone: context.zone,
            served: Arc::clone(&served),
            client_tls: client_tls.clone(),
            engine,
            tasks: tasks.clone(),
            sessions: Arc::new(Semaphore::new(SESSIONS_MAX)),
            ahead: Arc::new(Semaphore::new(AHEAD_MAX)),
            cancels: Arc::new(Semaphore::new(CANCELS_MAX)),
            connected: Connected::default(),
            processes: Processes::default(),
        });
        let again = Arc::new(Names::default());
        let book = Arc::new(Book::new(Arc::clone(&again)));
        let labels = Labelled::new(tasks.clone(), Arc::clone(&again));
        let doctor = Live {
            served: Arc::clone(&served),
            hostname: context.hostname.clone(),
            clock: Arc::clone(&clock),
            settings: settings.clone(),
            trust: Arc::clone(&trust),
            looker: Arc::default(),
        };
        let reconciler = Reconciler::new(
            settings,
            Arc::new(labels),
            Arc::clone(&book) as Arc<dyn Facts>,
            again,
            Arc::clone(&served),
            audit.clone(),
            metrics.clone(),
            Arc::clone(&clock),
        );
        let announcer = Announcer {
            host_id: host.host_id(),
            hostname: context.hostname,
            served: Arc::clone(&served),
            health: Arc::clone(&health),
        };
        let configs = Configs::default();
        let checker = Checker::new(
            served,
            health,
            &configs,
            Prober::new(connector, metrics.health.clone()),
            metrics.health.clone(),
            audit,
            Arc::clone(&clock),
        );
        let sessions_end_within = drain_timeout.max(FINISH_GRACE) + BOUNDARY_GRACE;
        let bundle_times = metrics.bundle_times.clone();
        tasks.spawn(
            "ca_bundles",
            trust.bundles().keep_fresh(bundle_times, shutdown.clone()),
        );
        let session = format!("tidegate-agent-{}", host.host_id());
        tasks.spawn(
            "metadata",
            metadata::keep(
                book,
                Arc::new(AwsDescribe::new(aws, &session)),
                metrics.endpoint_verdicts.clone(),
                shutdown.clone(),
            ),
        );
        tasks.spawn(
            "audit",
            audit::send_all(
                events,
                audit_holders,
                auth.clone(),
                metrics,
                shutdown.clone(),
                sessions_end_within,
            ),
        );
        let stopping = shutdown.clone();
        tasks.spawn("credentials", async move {
            tokio::select! {
                () = credentials.keep_fresh() => {}
                () = stopping.cancelled() => {}
            }
        });
        tasks.spawn(
            "roles",
            roles::follow(auth.clone(), roles, told.clone(), shutdown.clone()),
        );
        tasks.spawn(
            "locks",
            locks::follow(
                auth.clone(),
                locks,
                told.clone(),
                Arc::clone(&clock),
                shutdown.clone(),
            ),
        );
        tasks.spawn(
            "database_certificate",
            certificate::keep_fresh(
                host,
                client_tls,
                told.clone(),
                Arc::clone(&clock),
                readiness.component(SERVICE),
                shutdown.clone(),
            ),
        );
        tasks.spawn(
            "inventory",
            reconciler.follow(auth.clone(), shutdown.clone()),
        );
        tasks.spawn(
            "health_check_configs",
            health::configs::follow(auth.clone(), configs, shutdown.clone()),
        );
        tasks.spawn("health", checker.run(shutdown.clone()));
        tasks.spawn(
            "doctor",
            doctor.take_questions(auth.clone(), shutdown.clone()),
        );
        tasks.spawn("presence", announcer.run(auth, shutdown));
        tasks.spawn(
            "cancels_elsewhere",
            tunnel::pass_cancels_on(Arc::clone(&tunnel), cancels_elsewhere),
        );
        tasks.spawn(
            "proxies",
            tunnel::proxies::keep_connected(tunnel, context.proxy_server, told, kept_proxies),
        );
        Ok(())
    }
}
