//! The servers behind clusters: addresses, wire fronts, native servers, databases and roles.
//!
//! Every cluster has one loopback address and its AWS host name; the hosts file lists them in
//! the form that `libnss-wrapper` reads. Clusters with a front share one PostgreSQL server, which is
//! started when first needed or asked for; their databases are made at the first log-in, so that
//! a world of ten thousand clusters costs ten thousand listeners and nothing more. A native cluster
//! is a server of its own.
//!
//! Invariant: what listens follows from the cluster's status in the world; [`settle`] is called
//! after every change and is the only place that starts and stops.

mod address;
mod database;

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, OnceCell};

use self::address::{Places, allocate, bind, write_hosts};
pub(crate) use self::database::sql;
use self::database::{Made, create_database, create_role, pg_prefix};
use crate::front::Front;
use crate::postgres::{Home, Postgres, PostgresError, Tcp, find_binaries};
use crate::state::State;
use crate::tls::{Ca, TlsError};
use crate::world::{Cluster, ClusterId, Native};

/// Addresses that are tried for one native cluster.
const NATIVE_TRIES_MAX: usize = 20;

/// A cluster's endpoint as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// Which cluster.
    pub cluster: ClusterId,
    /// AWS host name.
    pub host: String,
    /// Loopback address that the name stands for.
    pub address: Ipv4Addr,
    /// TCP port.
    pub port: u16,
    /// Whether it accepts connections; paused clusters do not.
    pub listening: bool,
}

/// Why a cluster's server could not be brought to where it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FleetError {
    /// The address that the world names cannot be listened on.
    #[error("could not listen on {address}:{port} for cluster {cluster}; free it or name another")]
    Address {
        /// Which cluster.
        cluster: ClusterId,
        /// Its address.
        address: Ipv4Addr,
        /// Its port.
        port: u16,
        /// What the system says.
        source: io::Error,
    },
    /// The hosts file could not be written.
    #[error("could not write {}", path.display())]
    Hosts {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// No loopback address was free.
    #[error(
        "no address of 127.77.0.0/16 has port {port} free (tried {})",
        address::ADDRESS_TRIES_MAX
    )]
    NoAddress {
        /// The port.
        port: u16,
    },
    /// The PostgreSQL server failed.
    #[error("could not use PostgreSQL")]
    Postgres(#[from] PostgresError),
    /// No certificate for the endpoint.
    #[error("could not set up TLS")]
    Tls(#[from] TlsError),
    /// There is no such cluster.
    #[error("there is no cluster {0}")]
    Unknown(ClusterId),
}

#[derive(Debug)]
struct Placed {
    endpoint: Endpoint,
    server: Server,
}

#[derive(Debug)]
enum Server {
    Down,
    Front(Front),
    Native(Box<Postgres>),
}

#[derive(Debug)]
pub(crate) struct Fleet {
    dir: PathBuf,
    pg_bin_dir: Option<PathBuf>,
    ca: Ca,
    shared: OnceCell<Postgres>,
    places: Mutex<Places>,
    made: Mutex<Made>,
}

impl Fleet {
    pub(crate) fn new(dir: PathBuf, pg_bin_dir: Option<PathBuf>, ca: Ca) -> Self {
        let (places, made) = (Mutex::default(), Mutex::default());
        Self {
            dir,
            pg_bin_dir,
            ca,
            shared: OnceCell::new(),
            places,
            made,
        }
    }

    pub(crate) fn ca_pem(&self) -> String {
        self.ca.pem()
    }

    pub(crate) fn ca_file(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    pub(crate) fn hosts_file(&self) -> PathBuf {
        self.dir.join("hosts")
    }

    pub(crate) fn postgres_home(&self) -> Option<PathBuf> {
        Some(self.shared.get()?.home().to_owned())
    }

    /// The server behind all fronts, started if it is not running.
    pub(crate) async fn shared(&self) -> Result<&Postgres, FleetError> {
        let start = || async {
            let binaries = find_binaries(self.pg_bin_dir.as_deref())?;
            Postgres::start(&binaries, Home::make(&self.dir, "pg")?, None).await
        };
        Ok(self.shared.get_or_try_init(start).await?)
    }

    pub(crate) async fn endpoints(&self) -> Vec<Endpoint> {
        self.places
            .lock()
            .await
            .by_cluster
            .values()
            .map(|p| p.endpoint.clone())
            .collect()
    }

    /// Stops every front and server.
    pub(crate) async fn stop(&self) {
        let mut places = self.places.lock().await;
        for placed in places.by_cluster.values_mut() {
            std::mem::replace(&mut placed.server, Server::Down)
                .stop()
                .await;
            placed.endpoint.listening = false;
        }
        if let Some(shared) = self.shared.get() {
            shared.stop().await;
        }
    }

    async fn release(&self, id: &ClusterId) -> Result<(), FleetError> {
        let removed = self.places.lock().await.by_cluster.remove(id);
        if let Some(placed) = removed {
            placed.server.stop().await;
        }
        let native = self.dir.join(native_home(id));
        if let Err(error) = std::fs::remove_dir_all(native)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(cluster = %id, %error, "could not remove the cluster's folder");
        }
        self.drop_databases(id).await
    }

    async fn start_native(
        &self,
        cluster: &Cluster,
        native: Native,
        endpoint: &Endpoint,
        reserved: Option<TcpListener>,
    ) -> Result<Postgres, FleetError> {
        let leaf = self.ca.leaf(&endpoint.host)?;
        let tcp = Tcp {
            address: endpoint.address,
            port: endpoint.port,
            cert_pem: leaf.cert_pem,
            key_pem: leaf.key_pem,
            passwords: native.password_encryption,
            reserved,
        };
        let home = Home::make(&self.dir, &native_home(&endpoint.cluster))?;
        let binaries = find_binaries(self.pg_bin_dir.as_deref())?;
        let server = Postgres::start(&binaries, home, Some(tcp)).await?;
        let mut client = server.connect("postgres").await?;
        create_role(&mut client, &cluster.master_username).await?;
        for database in cluster.database_names() {
            create_database(&mut client, database, &cluster.master_username).await?;
        }
        Ok(server)
    }
}

fn native_home(id: &ClusterId) -> String {
    format!("pg-{}", pg_prefix(id).trim_end_matches('_'))
}

impl Server {
    async fn stop(self) {
        match self {
            Self::Down => {}
            Self::Front(front) => front.stop().await,
            Self::Native(server) => server.stop().await,
        }
    }
}

/// Brings what listens in line with the world, for one cluster: places it if it is new, starts
/// or stops its server after a change of status, forgets it if it is gone.
pub(crate) async fn settle(state: &Arc<State>, id: &ClusterId) -> Result<(), FleetError> {
    settle_quietly(state, id).await?;
    write_hosts(&state.fleet).await
}

/// As [`settle`] for every cluster of the world that is more than listed.
pub(crate) async fn settle_all(state: &Arc<State>) -> Result<(), FleetError> {
    let ids = {
        let world = state.world();
        let mut ids = world.cluster_ids();
        ids.retain(|id| world.cluster(id).is_some_and(|c| !c.unreachable));
        ids
    };
    for id in ids {
        settle_quietly(state, &id).await?;
    }
    write_hosts(&state.fleet).await
}

/// PostgreSQL binds by itself, so another simulation can take a native cluster's address first:
/// then the next address is tried.
async fn settle_quietly(state: &Arc<State>, id: &ClusterId) -> Result<(), FleetError> {
    for _ in 1..NATIVE_TRIES_MAX {
        match settle_once(state, id).await {
            Err(FleetError::Postgres(PostgresError::AddressTaken { .. })) => {}
            settled => return settled,
        }
    }
    settle_once(state, id).await
}

async fn settle_once(state: &Arc<State>, id: &ClusterId) -> Result<(), FleetError> {
    let fleet = &state.fleet;
    let found = {
        let world = state.world();
        world
            .cluster(id)
            .map(|c| (c.clone(), world.host_name(id), c.port.unwrap_or(world.port)))
    };
    let Some((cluster, host, port)) = found else {
        return fleet.release(id).await;
    };
    let mut places = fleet.places.lock().await;
    let mut listener = None;
    if !places.by_cluster.contains_key(id) {
        let (address, bound) = allocate(&mut places, id, cluster.address, port).await?;
        let cluster = id.clone();
        let endpoint = Endpoint {
            cluster,
            host,
            address,
            port,
            listening: false,
        };
        let server = Server::Down;
        places
            .by_cluster
            .insert(id.clone(), Placed { endpoint, server });
        listener = Some(bound);
    }
    let fresh = listener.is_some();
    let placed = places
        .by_cluster
        .get_mut(id)
        .ok_or_else(|| FleetError::Unknown(id.clone()))?;
    match (&placed.server, cluster.listens()) {
        (Server::Down, true) => match start(state, &cluster, &placed.endpoint, listener).await {
            Ok(server) => placed.server = server,
            Err(error) => {
                if fresh {
                    places.by_cluster.remove(id);
                }
                return Err(error);
            }
        },
        (Server::Front(_) | Server::Native(_), false) => {
            std::mem::replace(&mut placed.server, Server::Down)
                .stop()
                .await;
        }
        _ => {}
    }
    placed.endpoint.listening = !matches!(placed.server, Server::Down);
    Ok(())
}

async fn start(
    state: &Arc<State>,
    cluster: &Cluster,
    endpoint: &Endpoint,
    listener: Option<TcpListener>,
) -> Result<Server, FleetError> {
    let id = &endpoint.cluster;
    if let Some(native) = cluster.native {
        let server = state
            .fleet
            .start_native(cluster, native, endpoint, listener)
            .await?;
        return Ok(Server::Native(Box::new(server)));
    }
    let listener = match listener {
        Some(listener) => listener,
        None => bind(id, endpoint.address, endpoint.port).await?,
    };
    let tls = state
        .fleet
        .ca
        .leaf(&endpoint.host)?
        .server_config(&endpoint.host)?;
    Ok(Server::Front(Front::start(
        Arc::clone(state),
        id.clone(),
        listener,
        tls,
    )))
}
