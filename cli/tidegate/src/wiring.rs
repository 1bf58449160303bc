//! Which services start, in which order, with what of each other.
//!
//! The auth service comes first, since the others take their identity from it when it runs in the same process, and
//! join over the network otherwise. The process has one identity for all its services.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use tidegate_auth::{AuthHandle, AuthService, Node};
use tidegate_aws::AwsFactory;
use tidegate_dbservice::{AgentContext, DatabaseService};
use tidegate_discovery::Worker;
use tidegate_proxy::{Proxy, ProxyHandle};
use tidegate_service::{
    admin::{self, Readiness},
    clock::{SharedClock, SystemClock},
    handover::Sockets,
    host::{HostConfig, HostHandle, ProveCaller},
    metrics::Metrics,
    settings::{
        AuthSettings, DatabaseSettings, DiscoverySettings, JoinMethod, ProcessSettings,
        ProxySettings, Settings,
    },
    tasks::Tasks,
    telemetry,
};
use tokio::{net::TcpListener, sync::watch};
use tracing::{error, info};

use crate::{
    beside,
    caller::AwsCaller,
    notify,
    reload::{Agent, Followers},
};

/// How often a process that is to take over from another one looks whether it could.
const READY_CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// What every service of the process is given.
#[derive(Clone)]
pub(crate) struct Shared {
    clock: SharedClock,
    metrics: Metrics,
    pub(crate) readiness: Readiness,
    pub(crate) sockets: Sockets,
    pub(crate) tasks: Tasks,
}

impl Shared {
    pub(crate) fn new(tasks: Tasks, sockets: Sockets) -> Self {
        Self {
            sockets,
            clock: std::sync::Arc::new(SystemClock),
            metrics: Metrics::new(),
            readiness: Readiness::new(),
            tasks,
        }
    }

    /// Everything was started: takes over from the process before, if there is one, once this one could serve; and tells
    /// the supervisor.
    pub(crate) fn begin(&self) {
        let Self {
            readiness, sockets, ..
        } = self.clone();
        let shutdown = self.tasks.shutdown();
        let begin = async move {
            while sockets.has_predecessor() && !readiness.is_ready() {
                tokio::time::sleep(READY_CHECK_INTERVAL).await;
            }
            sockets.take_over().await;
            notify::tell(&format!("MAINPID={}\nREADY=1", std::process::id()));
        };
        self.tasks.spawn_quiet("begin", async move {
            // What is told to stop before it could serve has nothing to take over.
            let _ = shutdown.run_until_cancelled(begin).await;
        });
    }

    /// Serves `/healthz`, `/readyz` and `/metrics` from now on.
    pub(crate) fn serve_diagnostics(&self, listener: TcpListener) {
        if let Ok(address) = listener.local_addr() {
            info!(listen.address = %address, "diagnostics listen");
        }
        let (metrics, readiness) = (self.metrics.clone(), self.readiness.clone());
        let shutdown = self.tasks.shutdown();
        self.tasks.spawn("diagnostics", async move {
            if let Err(failed) = admin::serve(listener, metrics, readiness, shutdown).await {
                error!(error = telemetry::chain(&failed), "diagnostics port failed");
            }
        });
    }
}

/// Starts everything that the settings enable; answers what new settings go to.
pub(crate) async fn start(settings: Settings, shared: &Shared) -> anyhow::Result<Followers> {
    let services = services(&settings);
    let Settings {
        process,
        auth,
        proxy,
        discovery,
        database,
        ..
    } = settings;

    let auth = match auth {
        Some(auth) => Some(start_auth(auth, &process, shared).await?),
        None => None,
    };
    let mut followers = Followers::default();
    if services.is_empty() {
        return Ok(followers);
    }
    let names = proxy
        .iter()
        .map(|proxy| host_of(&proxy.public_addr).to_owned())
        .collect();
    let auth_servers = match &auth {
        Some(handle) => vec![reachable(handle.local_addr).to_string()],
        None => process.auth_servers.clone(),
    };
    let joins_by_iam = auth.is_none() && process.join.method == JoinMethod::Iam;
    let aws = if discovery.is_some() || database.is_some() || joins_by_iam {
        Some(AwsFactory::load().await)
    } else {
        None
    };
    let host = identity(
        &process,
        aws.as_ref(),
        auth.as_ref(),
        &auth_servers,
        services,
        names,
        shared,
    )
    .await?;

    let mut agent = AgentContext {
        data_dir: process.data_dir.clone(),
        hostname: process.nodename,
        proxy_server: process.proxy_server,
        zone: process.zone,
    };
    if let Some(proxy) = proxy {
        let handle = start_proxy(proxy, &host, auth_servers, shared).await?;
        // All in one process is all there is, so the agent need not look for its proxy by a name that may not resolve.
        if auth.is_some() {
            agent
                .proxy_server
                .get_or_insert_with(|| reachable(handle.local_addr).to_string());
        }
    }
    if let Some(aws) = aws {
        if let Some(discovery) = discovery {
            followers.worker = Some(start_worker(discovery, &host, &aws, shared)?);
        }
        if let Some(database) = database {
            followers.agent = Some(start_agent(database, agent, host, aws, shared)?);
        }
    }
    Ok(followers)
}

async fn start_auth(
    settings: AuthSettings,
    process: &ProcessSettings,
    shared: &Shared,
) -> anyhow::Result<AuthHandle> {
    let node = Node {
        data_dir: process.data_dir.clone(),
        nodename: process.nodename.clone(),
    };
    AuthService::start(
        settings,
        node,
        shared.clock.clone(),
        shared.metrics.clone(),
        shared.readiness.clone(),
        &shared.tasks,
    )
    .await
    .context("cannot start the auth service")
}

async fn start_proxy(
    settings: ProxySettings,
    host: &HostHandle,
    auth_servers: Vec<String>,
    shared: &Shared,
) -> anyhow::Result<ProxyHandle> {
    Proxy::start(
        settings,
        host.clone(),
        auth_servers,
        shared.metrics.clone(),
        shared.readiness.clone(),
        (&shared.sockets, &shared.tasks),
    )
    .await
    .context("cannot start the proxy")
}

/// The database service, and beside it the worker for matchers of its own.
fn start_agent(
    mut settings: DatabaseSettings,
    context: AgentContext,
    host: HostHandle,
    aws: AwsFactory,
    shared: &Shared,
) -> anyhow::Result<Agent> {
    let mut worker = None;
    if !settings.matchers.is_empty() {
        let (own, entries) =
            beside::discovery(&settings.matchers).context("cannot use `db_service.aws`")?;
        worker = Some(start_worker(own, &host, &aws, shared)?);
        settings.resources.extend(entries);
    }
    let settings = watch::Sender::new(settings);
    DatabaseService::start(
        settings.subscribe(),
        context,
        host,
        aws,
        &shared.metrics,
        &shared.readiness,
        shared.clock.clone(),
        &shared.tasks,
    )
    .context("cannot start the database service")?;
    Ok(Agent { settings, worker })
}

fn start_worker(
    settings: DiscoverySettings,
    host: &HostHandle,
    aws: &AwsFactory,
    shared: &Shared,
) -> anyhow::Result<watch::Sender<DiscoverySettings>> {
    let settings = watch::Sender::new(settings);
    Worker::start(
        settings.subscribe(),
        host.clone(),
        aws.clone(),
        shared.metrics.clone(),
        shared.readiness.clone(),
        shared.clock.clone(),
        &shared.tasks,
    )
    .context("cannot start discovery")?;
    Ok(settings)
}

/// The identity: from the auth service in this process, or by joining.
async fn identity(
    process: &ProcessSettings,
    aws: Option<&AwsFactory>,
    auth: Option<&AuthHandle>,
    auth_servers: &[String],
    services: Vec<String>,
    names: Vec<String>,
    shared: &Shared,
) -> anyhow::Result<HostHandle> {
    let clock = shared.clock.clone();
    match auth {
        Some(handle) => {
            let issued = handle
                .issue_host(&services, &names, &process.nodename)
                .await
                .context("cannot issue an identity")?;
            HostHandle::from_issued(issued, auth_servers, names, clock, &shared.tasks)
                .context("cannot use the identity that was issued")
        }
        None => {
            let config = HostConfig {
                data_dir: process.data_dir.clone(),
                nodename: process.nodename.clone(),
                services,
                names,
                auth_servers: auth_servers.to_vec(),
                proxy_server: process.proxy_server.clone(),
                join: process.join.clone(),
                prover: aws
                    .cloned()
                    .map(|aws| Arc::new(AwsCaller(aws)) as Arc<dyn ProveCaller>),
            };
            HostHandle::join_or_load(config, clock, &shared.tasks)
                .await
                .context("cannot join the cluster")
        }
    }
}

/// What the identity has to be good for. An agent with matchers of its own runs a discovery worker too.
fn services(settings: &Settings) -> Vec<String> {
    let own_matchers = settings
        .database
        .as_ref()
        .is_some_and(|database| !database.matchers.is_empty());
    let wanted = [
        ("proxy", settings.proxy.is_some()),
        ("discovery", settings.discovery.is_some() || own_matchers),
        ("db", settings.database.is_some()),
    ];
    wanted
        .into_iter()
        .filter(|(_, runs)| *runs)
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// The host of `host:port`, without the brackets of an IPv6 address.
fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_matches(['[', ']'])
}

/// An address to connect to: what listens everywhere is reached on loopback.
fn reachable(listening: SocketAddr) -> SocketAddr {
    let ip = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listening.port())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tidegate_service::settings;

    use super::*;

    #[test]
    fn the_identity_covers_every_service_of_the_process() {
        let services = |text: &str| services(&settings::parse(text, Path::new("t.yaml")).unwrap());
        assert_eq!(services("auth_service: {cluster_name: c}"), [""; 0]);
        assert_eq!(
            services("proxy_service: {}\ndb_service: {enabled: yes}"),
            ["proxy", "db"]
        );
        assert_eq!(
            services(
                "db_service: {enabled: yes, aws: [{types: [redshift], regions: [us-east-1]}]}"
            ),
            ["discovery", "db"]
        );
    }

    #[test]
    fn what_listens_everywhere_is_reached_on_loopback() {
        for (listening, reached) in [
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:1", "[::1]:1"),
            ("10.0.0.1:1", "10.0.0.1:1"),
        ] {
            assert_eq!(reachable(listening.parse().unwrap()).to_string(), reached);
        }
        assert_eq!((host_of("a.b:1"), host_of("[::1]:1")), ("a.b", "::1"));
    }
}
