//! A proxy, and a control plane that tells it what a test wants it to know.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::Stream;
use jiff::Timestamp;
use tidegate_core::{ClusterName, HostId};
use tidegate_identity::{
    ALPN_AUTH, CaKind, CertificateAuthority, HOST_CERT_TTL, HostLeaf, KeyPair, tls::ClientAuth,
};
use tidegate_proto::v1::{
    self, AnnounceRequest, AnnounceResponse, Database, DatabaseServer, DatabaseServerKey, Synced,
    TargetHealth, WatchDatabaseServersRequest, WatchDatabaseServersResponse,
    announce_request::Message,
    inventory_service_server::{InventoryService, InventoryServiceServer},
    presence_service_server::{PresenceService, PresenceServiceServer},
    watch_database_servers_response::Event,
};
use tidegate_proxy::Proxy;
use tidegate_service::{
    admin::Readiness,
    clock::SystemClock,
    handover::Sockets,
    host::{HostHandle, IssuedHost, TrustBundle},
    metrics::Metrics,
    rpc,
    settings::{KeyPairFiles, MysqlSettings, Network, ProxyLimits, ProxySettings},
    tasks::Tasks,
};
use tokio::{net::TcpListener, sync::broadcast, task::JoinHandle};
use tokio_stream::{StreamExt, wrappers::BroadcastStream};
use tonic::{Request, Response, Status, Streaming, service::Routes};

/// Nothing in these tests takes longer unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Cas {
    pub(crate) cluster: ClusterName,
    pub(crate) host: CertificateAuthority,
    pub(crate) user: CertificateAuthority,
    pub(crate) db: CertificateAuthority,
}

impl Cas {
    pub(crate) fn new() -> Self {
        let cluster: ClusterName = "tide.test".parse().unwrap();
        let ca = |kind| CertificateAuthority::create(kind, &cluster, Timestamp::now()).unwrap();
        Self {
            host: ca(CaKind::Host),
            user: ca(CaKind::User),
            db: ca(CaKind::Db),
            cluster,
        }
    }

    pub(crate) fn trust(&self) -> TrustBundle {
        TrustBundle {
            cluster: self.cluster.clone(),
            host_ca_pem: self.host.cert_pem().to_owned(),
            user_ca_pem: self.user.cert_pem().to_owned(),
            db_ca_pem: self.db.cert_pem().to_owned(),
        }
    }

    pub(crate) fn host(&self, host_id: &str, services: &[&str]) -> IssuedHost {
        let key = KeyPair::generate().unwrap();
        let services: Vec<String> = services.iter().map(|&name| name.to_owned()).collect();
        let names = ["proxy.example.com".to_owned()];
        let leaf = HostLeaf {
            public_key: &key.public_key_der(),
            cluster: &self.cluster,
            host_id: &host_id.parse::<HostId>().unwrap(),
            hostname: host_id,
            services: &services,
            names: &names,
        };
        let issued = self
            .host
            .issue_host(leaf, Timestamp::now(), HOST_CERT_TTL)
            .unwrap();
        IssuedHost {
            key,
            chain_pem: issued.chain_pem,
            server_chain_pem: None,
            trust: self.trust(),
        }
    }
}

/// What a test sets of the proxy.
#[derive(Default)]
pub(crate) struct Given {
    pub(crate) zone: String,
    pub(crate) balancers: Vec<Network>,
    pub(crate) limits: ProxyLimits,
    pub(crate) sockets: Sockets,
    pub(crate) listen: Option<std::net::SocketAddr>,
}

pub(crate) struct World {
    pub(crate) cas: Arc<Cas>,
    pub(crate) proxy: std::net::SocketAddr,
    pub(crate) mysql: std::net::SocketAddr,
    pub(crate) auth: FakeAuth,
    pub(crate) tasks: Tasks,
    metrics: Metrics,
    readiness: Readiness,
}

impl World {
    /// A proxy that has read an inventory in which `hosts` serve the database `orders`.
    pub(crate) async fn serving(hosts: &[(&str, &str)]) -> Self {
        Self::with(Arc::new(Cas::new()), hosts, Vec::new()).await
    }

    /// As [`Self::serving`], with CAs and certificates of one's own.
    pub(crate) async fn with(
        cas: Arc<Cas>,
        hosts: &[(&str, &str)],
        https_keypairs: Vec<KeyPairFiles>,
    ) -> Self {
        Self::given(cas, hosts, https_keypairs, Given::default()).await
    }

    /// As [`Self::with`], with other settings.
    pub(crate) async fn given(
        cas: Arc<Cas>,
        hosts: &[(&str, &str)],
        https_keypairs: Vec<KeyPairFiles>,
        given: Given,
    ) -> Self {
        let auth = FakeAuth::default();
        for (host, health) in hosts {
            auth.put("orders", host, health);
        }
        let auth_addr = auth.serve(&cas, "127.0.0.1:0").await;
        let tasks = Tasks::new();
        let host = HostHandle::from_issued(
            cas.host("proxy-1", &["proxy"]),
            std::slice::from_ref(&auth_addr),
            vec!["proxy.example.com".to_owned()],
            Arc::new(SystemClock),
            &tasks,
        )
        .unwrap();
        let settings = ProxySettings {
            mysql: Some(MysqlSettings {
                listen_addr: ([127, 0, 0, 1], 0).into(),
                server_version: "8.0.0-test".to_owned(),
            }),
            listen_addr: given.listen.unwrap_or(([127, 0, 0, 1], 0).into()),
            public_addr: "proxy.example.com:3080".to_owned(),
            https_keypairs,
            zone: given.zone,
            balancers: given.balancers,
            limits: given.limits,
            handover_timeout: PATIENCE,
        };
        let (metrics, readiness) = (Metrics::new(), Readiness::new());
        let started = Proxy::start(
            settings,
            host,
            vec!["127.0.0.1:1".to_owned(), auth_addr],
            metrics.clone(),
            readiness.clone(),
            (&given.sockets, &tasks),
        );
        let started = started.await.unwrap();
        let (proxy, mysql) = (started.local_addr, started.mysql_addr.unwrap());
        let world = Self {
            cas,
            proxy,
            mysql,
            auth,
            tasks,
            metrics,
            readiness,
        };
        world.until(|world| world.readiness.is_ready()).await;
        world
    }

    /// Waits for a state.
    pub(crate) async fn until(&self, holds: impl Fn(&Self) -> bool) {
        let wait = async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .expect("the state is reached");
    }

    pub(crate) async fn until_metric(&self, line: &str) {
        self.until(|world| world.metric(line)).await;
    }

    /// Whether the metrics have this line.
    pub(crate) fn metric(&self, line: &str) -> bool {
        self.metrics.encode().lines().any(|one| one == line)
    }

    pub(crate) async fn stop(self) {
        assert!(
            self.tasks.close_and_wait(PATIENCE).await,
            "tasks are left: {:?}",
            self.tasks
        );
        assert_eq!(self.tasks.failure(), None);
    }
}

/// The part of the control plane that a proxy talks to.
#[derive(Clone)]
pub(crate) struct FakeAuth {
    state: Arc<Mutex<State>>,
    changes: broadcast::Sender<WatchDatabaseServersResponse>,
    /// Where it listens, and the task that does.
    running: Arc<Mutex<Option<Running>>>,
}

type Running = (String, JoinHandle<()>);

#[derive(Default)]
struct State {
    revision: u64,
    servers: Vec<DatabaseServer>,
    announced: Vec<v1::Hello>,
}

impl Default for FakeAuth {
    fn default() -> Self {
        Self {
            state: Arc::default(),
            changes: broadcast::channel(64).0,
            running: Arc::default(),
        }
    }
}

impl FakeAuth {
    pub(crate) fn put(&self, database: &str, host: &str, health: &str) {
        let server = DatabaseServer {
            host_id: host.to_owned(),
            database: Some(Database {
                name: database.to_owned(),
                ..Database::default()
            }),
            target_health: Some(TargetHealth {
                status: health.to_owned(),
                ..TargetHealth::default()
            }),
            ..DatabaseServer::default()
        };
        let mut state = self.state.lock().unwrap();
        state.servers.push(server.clone());
        self.change(&mut state, Event::Upserted(server));
    }

    pub(crate) fn remove(&self, database: &str, host: &str) {
        let mut state = self.state.lock().unwrap();
        state.servers.retain(|server| {
            server.host_id != host || server.database.as_ref().unwrap().name != database
        });
        let key = DatabaseServerKey {
            database: database.to_owned(),
            host_id: host.to_owned(),
        };
        self.change(&mut state, Event::Deleted(key));
    }

    fn change(&self, state: &mut State, event: Event) {
        state.revision += 1;
        let _ = self.changes.send(WatchDatabaseServersResponse {
            revision: state.revision,
            event: Some(event),
        });
    }

    pub(crate) fn announced(&self) -> Vec<v1::Hello> {
        self.state.lock().unwrap().announced.clone()
    }

    /// Goes away, with every connection.
    pub(crate) fn stop(&self) {
        if let Some((_, task)) = self.running.lock().unwrap().as_ref() {
            task.abort();
        }
    }

    /// Comes back where it was.
    pub(crate) async fn start_again(&self, cas: &Cas) {
        let (addr, task) = self.running.lock().unwrap().take().unwrap();
        let _ = task.await;
        self.serve(cas, &addr).await;
    }

    async fn serve(&self, cas: &Cas, addr: &str) -> String {
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let tasks = Tasks::new();
        let issued = cas.host("auth-1", &["auth"]);
        let host = HostHandle::from_issued(issued, &[], Vec::new(), Arc::new(SystemClock), &tasks)
            .unwrap();
        let clients = |trust: &TrustBundle| ClientAuth::Optional {
            ca_pem: trust.host_ca_pem.clone(),
        };
        let tls = host
            .live_server_config(clients, &[ALPN_AUTH], &tasks)
            .unwrap();
        let routes = Routes::new(InventoryServiceServer::new(self.clone()))
            .add_service(PresenceServiceServer::new(self.clone()));
        let task = tokio::spawn(async move {
            let shutdown = tasks.shutdown();
            let _stopped_with_this = shutdown.clone().drop_guard();
            let incoming = rpc::tls_incoming(listener, tls, shutdown.clone());
            rpc::serve(routes, incoming, shutdown).await.unwrap();
        });
        *self.running.lock().unwrap() = Some((addr.clone(), task));
        addr
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn not_asked<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("a proxy does not ask this"))
}

#[tonic::async_trait]
impl InventoryService for FakeAuth {
    type WatchDatabasesStream = Answers<v1::WatchDatabasesResponse>;
    type WatchDatabaseServersStream = Answers<WatchDatabaseServersResponse>;

    async fn watch_database_servers(
        &self,
        request: Request<WatchDatabaseServersRequest>,
    ) -> Result<Response<Self::WatchDatabaseServersStream>, Status> {
        if request.into_inner().after_revision > 0 {
            return Err(Status::out_of_range("there is no history"));
        }
        let state = self.state.lock().unwrap();
        let revision = state.revision;
        let response = move |event| {
            Ok(WatchDatabaseServersResponse {
                revision,
                event: Some(event),
            })
        };
        let listing: Vec<_> = state
            .servers
            .iter()
            .cloned()
            .map(Event::Upserted)
            .chain([Event::Synced(Synced {})])
            .map(response)
            .collect();
        let changes = BroadcastStream::new(self.changes.subscribe())
            .map(|change| change.map_err(|_| Status::out_of_range("lagged")));
        Ok(Response::new(Box::pin(
            tokio_stream::iter(listing).chain(changes),
        )))
    }

    async fn list_databases(
        &self,
        _: Request<v1::ListDatabasesRequest>,
    ) -> Result<Response<v1::ListDatabasesResponse>, Status> {
        not_asked()
    }

    async fn get_database(
        &self,
        _: Request<v1::GetDatabaseRequest>,
    ) -> Result<Response<Database>, Status> {
        not_asked()
    }

    async fn watch_databases(
        &self,
        _: Request<v1::WatchDatabasesRequest>,
    ) -> Result<Response<Self::WatchDatabasesStream>, Status> {
        not_asked()
    }

    async fn create_database(
        &self,
        _: Request<v1::CreateDatabaseRequest>,
    ) -> Result<Response<Database>, Status> {
        not_asked()
    }

    async fn update_database(
        &self,
        _: Request<v1::UpdateDatabaseRequest>,
    ) -> Result<Response<v1::Database>, Status> {
        not_asked()
    }

    async fn count_databases(
        &self,
        _: Request<v1::CountDatabasesRequest>,
    ) -> Result<Response<v1::CountDatabasesResponse>, Status> {
        not_asked()
    }

    async fn delete_database(
        &self,
        _: Request<v1::DeleteDatabaseRequest>,
    ) -> Result<Response<v1::DeleteDatabaseResponse>, Status> {
        not_asked()
    }

    async fn list_database_servers(
        &self,
        _: Request<v1::ListDatabaseServersRequest>,
    ) -> Result<Response<v1::ListDatabaseServersResponse>, Status> {
        not_asked()
    }

    async fn list_proxies(
        &self,
        _: Request<v1::ListProxiesRequest>,
    ) -> Result<Response<v1::ListProxiesResponse>, Status> {
        not_asked()
    }
}

#[tonic::async_trait]
impl PresenceService for FakeAuth {
    type AnnounceStream = Answers<AnnounceResponse>;

    async fn announce(
        &self,
        request: Request<Streaming<AnnounceRequest>>,
    ) -> Result<Response<Self::AnnounceStream>, Status> {
        let auth = self.clone();
        let answers = request.into_inner().map(move |message| {
            if let Some(Message::Hello(hello)) = message?.message {
                auth.state.lock().unwrap().announced.push(hello);
            }
            Ok(AnnounceResponse {
                heartbeat_seconds: 1,
                revision: 1,
            })
        });
        Ok(Response::new(Box::pin(answers)))
    }
}
