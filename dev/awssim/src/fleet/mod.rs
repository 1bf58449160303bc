//! The servers behind endpoints: addresses, wire fronts, native servers, databases and roles.
//!
//! Every endpoint has one loopback address and its AWS host name; the hosts file lists them in
//! the form that `libnss-wrapper` reads. Endpoints with a front share one PostgreSQL server, which is
//! started when first needed or asked for; their databases are made at the first log-in, so that
//! a world of ten thousand clusters costs ten thousand listeners and nothing more. A native cluster
//! is a server of its own.
//!
//! Invariant: what listens follows from the world ([`crate::world::World::wanted`]); [`settle`] is called
//! after every change and is the only place that starts and stops.

mod address;
mod change;
mod database;

use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, OnceCell};

use self::address::{Places, allocate, bind, write_hosts};
pub(crate) use self::change::{readdress, rename};
pub(crate) use self::database::sql;
use self::database::{Made, create_database, create_role, pg_prefix};
use crate::front::{Front, Manner, Shows};
use crate::mariadb::{Mariadb, MariadbError};
use crate::postgres::{Home, Postgres, PostgresError, Tcp, find_binaries};
use crate::state::State;
use crate::tls::{Ca, Certificate, TlsError};
use crate::world::{Cluster, ClusterId, Kind, Native, ResourceId, Wanted};

/// Addresses that are tried for one native cluster.
const NATIVE_TRIES_MAX: usize = 20;

/// An endpoint as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// What it is an endpoint of.
    pub kind: Kind,
    /// The name of that.
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

impl Endpoint {
    /// What it is an endpoint of.
    pub fn of(&self) -> ResourceId {
        ResourceId::new(self.kind, &self.cluster)
    }
}

/// Why a server could not be brought to where it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FleetError {
    /// The address that the world names cannot be listened on.
    #[error("could not listen on {address}:{port} for {of}; free it or name another")]
    Address {
        /// For what.
        of: ResourceId,
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
    /// A native cluster does only what PostgreSQL does by itself.
    #[error("{0} is a PostgreSQL of its own and has no front")]
    Native(ResourceId),
    /// A MariaDB server failed.
    #[error("could not use MariaDB")]
    Mariadb(#[from] MariadbError),
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
    /// There is no such thing, or no data behind it.
    #[error("there is no {0}, or nothing behind it")]
    Unknown(ResourceId),
}

#[derive(Debug)]
struct Placed {
    endpoint: Endpoint,
    /// The host of the endpoint that this one is a further one of, whose name its certificate has as well.
    further_of: Option<String>,
    /// What it shows whenever it listens.
    certificate: Certificate,
    /// How it treats connections whenever it listens.
    manner: Manner,
    /// Whether its name resolves.
    named: bool,
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
    /// The server of each database that speaks MySQL, once it was needed.
    mariadb: Mutex<HashMap<ResourceId, Arc<OnceCell<Arc<Mariadb>>>>>,
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
            mariadb: Mutex::default(),
            places,
            made,
        }
    }

    /// The simulation's folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
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

    /// The server of a database that speaks MySQL, started if it is not running.
    pub(crate) async fn mariadb(&self, at: &ResourceId) -> Result<Arc<Mariadb>, FleetError> {
        let server = Arc::clone(self.mariadb.lock().await.entry(at.clone()).or_default());
        let start = || async {
            let home = Home::make(
                &self.dir,
                &format!("m-{}", pg_prefix(at).trim_end_matches('_')),
            )?;
            Ok::<_, FleetError>(Arc::new(Mariadb::start(home).await?))
        };
        Ok(Arc::clone(server.get_or_try_init(start).await?))
    }

    pub(crate) async fn endpoints(&self) -> Vec<Endpoint> {
        let places = self.places.lock().await;
        places.all().map(|placed| placed.endpoint.clone()).collect()
    }

    /// The endpoints of one thing, in order of their names.
    pub(crate) async fn endpoints_of(&self, of: &ResourceId) -> Vec<Endpoint> {
        let places = self.places.lock().await;
        let placed = places
            .by_owner
            .get(of)
            .into_iter()
            .flat_map(|it| it.values());
        placed.map(|placed| placed.endpoint.clone()).collect()
    }

    /// Stops every front and server.
    pub(crate) async fn stop(&self) {
        let mut places = self.places.lock().await;
        for placed in places.by_owner.values_mut().flat_map(|it| it.values_mut()) {
            placed.stop().await;
        }
        if let Some(shared) = self.shared.get() {
            shared.stop().await;
        }
        for server in self.mariadb.lock().await.values() {
            if let Some(server) = server.get() {
                server.stop().await;
            }
        }
    }

    /// Forgets what something that is gone has left.
    async fn release(&self, of: &ResourceId) -> Result<(), FleetError> {
        let native = self.dir.join(native_home(of));
        if let Err(error) = std::fs::remove_dir_all(native)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%of, %error, "could not remove the server's folder");
        }
        let server = self.mariadb.lock().await.remove(of);
        if let Some(server) = server.as_ref().and_then(|server| server.get()) {
            server.stop().await;
        }
        self.drop_databases(of).await
    }

    async fn start_native(
        &self,
        cluster: &Cluster,
        native: Native,
        endpoint: &Endpoint,
        reserved: Option<TcpListener>,
    ) -> Result<Postgres, FleetError> {
        let leaf = self.ca.leaf(&[&endpoint.host], &Certificate::default())?;
        let tcp = Tcp {
            address: endpoint.address,
            port: endpoint.port,
            cert_pem: leaf.cert_pem,
            key_pem: leaf.key_pem,
            passwords: native.password_encryption,
            reserved,
        };
        let home = Home::make(&self.dir, &native_home(&endpoint.of()))?;
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

fn native_home(of: &ResourceId) -> String {
    format!("pg-{}", pg_prefix(of).trim_end_matches('_'))
}

impl Placed {
    fn certificate_names(&self) -> Vec<&str> {
        let own = std::iter::once(self.endpoint.host.as_str());
        own.chain(self.further_of.as_deref()).collect()
    }

    async fn stop(&mut self) {
        std::mem::replace(&mut self.server, Server::Down)
            .stop()
            .await;
        self.endpoint.listening = false;
    }
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

/// Brings what listens in line with the world, for one thing: places its endpoints that are new, starts
/// or stops servers after a change of status, forgets the endpoints that are gone.
pub(crate) async fn settle(state: &Arc<State>, of: &ResourceId) -> Result<(), FleetError> {
    settle_quietly(state, of).await?;
    write_hosts(&state.fleet).await
}

/// As [`settle`] for everything in the world.
pub(crate) async fn settle_all(state: &Arc<State>) -> Result<(), FleetError> {
    let ids = state.world().resource_ids();
    for of in ids {
        settle_quietly(state, &of).await?;
    }
    write_hosts(&state.fleet).await
}

async fn settle_quietly(state: &Arc<State>, of: &ResourceId) -> Result<(), FleetError> {
    let (wanted, exists) = {
        let world = state.world();
        (world.wanted(of), world.exists(of))
    };
    withdraw(&state.fleet, of, &wanted).await;
    if !exists {
        return state.fleet.release(of).await;
    }
    for wanted in &wanted {
        settle_endpoint(state, of, wanted).await?;
    }
    Ok(())
}

/// Stops and forgets the endpoints that are wanted no longer.
async fn withdraw(fleet: &Fleet, of: &ResourceId, wanted: &[Wanted]) {
    let mut places = fleet.places.lock().await;
    let Some(mut placed) = places.by_owner.remove(of) else {
        return;
    };
    let stays = |endpoint: &Endpoint| {
        let same = |it: &Wanted| it.host == endpoint.host && it.port == endpoint.port;
        wanted.iter().any(same)
    };
    for (_, mut gone) in placed.extract_if(.., |_, it| !stays(&it.endpoint)) {
        gone.stop().await;
    }
    if !placed.is_empty() {
        places.by_owner.insert(of.clone(), placed);
    }
}

/// PostgreSQL binds by itself, so another simulation can take a native cluster's address first:
/// then the next address is tried.
async fn settle_endpoint(
    state: &Arc<State>,
    of: &ResourceId,
    wanted: &Wanted,
) -> Result<(), FleetError> {
    for _ in 1..NATIVE_TRIES_MAX {
        match settle_once(state, of, wanted).await {
            Err(FleetError::Postgres(PostgresError::AddressTaken { .. })) => {}
            settled => return settled,
        }
    }
    settle_once(state, of, wanted).await
}

async fn settle_once(
    state: &Arc<State>,
    of: &ResourceId,
    wanted: &Wanted,
) -> Result<(), FleetError> {
    let mut places = state.fleet.places.lock().await;
    let known = places
        .by_owner
        .get_mut(of)
        .and_then(|it| it.remove(&wanted.host));
    let (mut placed, listener) = match known {
        Some(placed) => (placed, None),
        None => {
            let (address, bound) = allocate(&mut places, of, wanted.address, wanted.port).await?;
            let endpoint = Endpoint {
                kind: of.kind,
                cluster: of.id.clone(),
                host: wanted.host.clone(),
                address,
                port: wanted.port,
                listening: false,
            };
            let placed = Placed {
                endpoint,
                further_of: wanted.further_of.clone(),
                certificate: Certificate::default(),
                manner: Manner::default(),
                named: true,
                server: Server::Down,
            };
            (placed, Some(bound))
        }
    };
    let fresh = listener.is_some();
    match (&placed.server, wanted.listens) {
        (Server::Down, true) => match start(state, &placed, wanted, listener).await {
            Ok(server) => placed.server = server,
            Err(error) => {
                if !fresh {
                    places.put(placed);
                }
                return Err(error);
            }
        },
        (Server::Front(_) | Server::Native(_), false) => placed.stop().await,
        _ => {}
    }
    placed.endpoint.listening = !matches!(placed.server, Server::Down);
    places.put(placed);
    Ok(())
}

async fn start(
    state: &Arc<State>,
    placed: &Placed,
    wanted: &Wanted,
    listener: Option<TcpListener>,
) -> Result<Server, FleetError> {
    let endpoint = &placed.endpoint;
    let (of, fleet) = (endpoint.of(), &state.fleet);
    if let Some((cluster, native)) = find_native(state, &of) {
        let server = fleet
            .start_native(&cluster, native, endpoint, listener)
            .await?;
        return Ok(Server::Native(Box::new(server)));
    }
    let listener = match listener {
        Some(listener) => listener,
        None => bind(&of, endpoint.address, endpoint.port).await?,
    };
    let names = placed.certificate_names();
    let leaf = fleet.ca.leaf(&names, &placed.certificate)?;
    let tls = leaf.server_config(&endpoint.host)?;
    let (state, shows) = (Arc::clone(state), Shows::new(tls));
    let front = Front::start(state, endpoint, wanted.speaks, listener, shows);
    front.manners().set(placed.manner);
    Ok(Server::Front(front))
}

/// A cluster that is a PostgreSQL of its own.
fn find_native(state: &State, of: &ResourceId) -> Option<(Cluster, Native)> {
    let world = state.world();
    let cluster = world.cluster(&of.id).filter(|_| of.kind == Kind::Cluster)?;
    Some((cluster.clone(), cluster.native?))
}
