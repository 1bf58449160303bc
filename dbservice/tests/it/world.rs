//! An agent, and everything around it: control plane, one proxy, one database.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use arc_swap::ArcSwap;
use futures::{Stream, StreamExt};
use jiff::Timestamp;
use tidegate_aws::AwsFactory;
use tidegate_core::{
    AwsMetadata, ClusterName, Database, Labels, Origin, Protocol, ResourceMatcher, Selector,
    TlsSettings,
};
use tidegate_dbservice::{AgentContext, DatabaseService};
use tidegate_identity::{
    ALPN_AUTH, ALPN_TUNNEL, CaKind, CertificateAuthority, HOST_CERT_TTL, HostLeaf, KeyPair,
    UserHolder, UserLeaf,
    tls::{self, ClientAuth, ServerTls},
};
use tidegate_proto::v1::{
    self, ControlRequest, ControlResponse, control_response,
    tunnel_service_server::{TunnelService, TunnelServiceServer},
};
use tidegate_service::{
    admin::Readiness,
    clock::SystemClock,
    host::{HostHandle, IssuedHost, TrustBundle},
    metrics::Metrics,
    rpc::{self, ConnectInfo, Connection},
    settings::DatabaseSettings,
    tasks::Tasks,
};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Response, Status, Streaming, async_trait, service::Routes};

use crate::plane::{Plane, Seen};

/// Nothing in these tests takes longer unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Cas {
    pub(crate) cluster: ClusterName,
    pub(crate) host: CertificateAuthority,
    pub(crate) user: CertificateAuthority,
    pub(crate) db: CertificateAuthority,
}

impl Cas {
    fn new() -> Self {
        let cluster: ClusterName = "tide.test".parse().unwrap();
        let ca = |kind| CertificateAuthority::create(kind, &cluster, Timestamp::now()).unwrap();
        Self {
            host: ca(CaKind::Host),
            user: ca(CaKind::User),
            db: ca(CaKind::Db),
            cluster,
        }
    }

    fn host(&self, host_id: &str, service: &str) -> IssuedHost {
        let key = KeyPair::generate().unwrap();
        let leaf = HostLeaf {
            public_key: &key.public_key_der(),
            cluster: &self.cluster,
            host_id: &host_id.parse().unwrap(),
            hostname: host_id,
            services: &[service.to_owned()],
            names: &[],
        };
        let issued = self.host.issue_host(leaf, Timestamp::now(), HOST_CERT_TTL);
        IssuedHost {
            key,
            chain_pem: issued.unwrap().chain_pem,
            server_chain_pem: None,
            trust: TrustBundle {
                cluster: self.cluster.clone(),
                host_ca_pem: self.host.cert_pem().to_owned(),
                user_ca_pem: self.user.cert_pem().to_owned(),
                db_ca_pem: self.db.cert_pem().to_owned(),
            },
        }
    }

    fn server(&self, host_id: &str, service: &str, alpn: &[u8]) -> Arc<rustls::ServerConfig> {
        let issued = self.host(host_id, service);
        tls::server_config(ServerTls {
            chain_pem: &issued.chain_pem,
            key: &issued.key,
            clients: ClientAuth::Required {
                ca_pem: self.host.cert_pem().to_owned(),
            },
            alpn: &[alpn],
        })
        .unwrap()
    }

    /// A person who may be any database user.
    pub(crate) fn alice(&self) -> (String, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let any = |name: &str| (name.to_owned(), vec!["*".to_owned()]);
        let user = UserHolder {
            name: "alice".to_owned(),
            roles: vec!["access".to_owned()],
            traits: [any("db_users"), any("db_names")].into(),
            route: None,
            access_requests: Vec::new(),
            login: None,
        };
        let leaf = UserLeaf {
            public_key: &key.public_key_der(),
            cluster: &self.cluster,
            user: &user,
        };
        let issued = self.user.issue_user(leaf, Timestamp::now(), HOST_CERT_TTL);
        (issued.unwrap().chain_pem, key)
    }
}

/// A control connection, as the proxy sees it.
pub(crate) struct Line {
    pub(crate) said: Streaming<ControlRequest>,
    pub(crate) tell: mpsc::UnboundedSender<Result<ControlResponse, Status>>,
    /// What the numbers of the agent's cancel keys begin with.
    pub(crate) cancel_prefix: u32,
}

impl Line {
    pub(crate) fn tell(&self, message: control_response::Message) {
        let message = Some(message);
        self.tell.send(Ok(ControlResponse { message })).unwrap();
    }

    pub(crate) async fn next(&mut self) -> v1::control_request::Message {
        tokio::time::timeout(PATIENCE, self.said.message())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
            .message
            .unwrap()
    }
}

#[derive(Clone)]
struct Proxy {
    lines: mpsc::UnboundedSender<Line>,
}

#[async_trait]
impl TunnelService for Proxy {
    type ControlStream = Pin<Box<dyn Stream<Item = Result<ControlResponse, Status>> + Send>>;

    async fn control(
        &self,
        request: Request<Streaming<ControlRequest>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        let (tell, told) = mpsc::unbounded_channel();
        let line = Line {
            said: request.into_inner(),
            tell,
            cancel_prefix: 0,
        };
        line.tell(control_response::Message::Hello(v1::ProxyHello {
            host_id: "proxy-1".to_owned(),
            version: "0".to_owned(),
            instance: "process-1".to_owned(),
        }));
        let _ = self.lines.send(line);
        Ok(Response::new(UnboundedReceiverStream::new(told).boxed()))
    }
}

pub(crate) struct World {
    pub(crate) cas: Arc<Cas>,
    pub(crate) plane: Plane,
    pub(crate) seen: Seen,
    pub(crate) lines: mpsc::UnboundedReceiver<Line>,
    /// Connections that were dialled back, with their tokens.
    pub(crate) dialled: mpsc::UnboundedReceiver<([u8; 16], TcpStream)>,
    pub(crate) database: Option<TcpListener>,
    pub(crate) tasks: Tasks,
    pub(crate) readiness: Readiness,
    /// What the agent's file says.
    pub(crate) settings: watch::Sender<DatabaseSettings>,
}

impl World {
    /// An agent with one database of its own, `own`, and a selector for `env: prod`.
    pub(crate) async fn start() -> Self {
        Self::start_beside(std::future::ready(()), false).await
    }

    /// The same, with a control plane that takes connections and answers nobody until `answers` is ready. The agent
    /// knows its proxy from its settings.
    pub(crate) async fn start_while_away(
        answers: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        Self::start_beside(answers, true).await
    }

    async fn start_beside(
        answers: impl Future<Output = ()> + Send + 'static,
        knows_proxy: bool,
    ) -> Self {
        let cas = Arc::new(Cas::new());
        let tasks = Tasks::new();
        let proxy_listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy_addr = proxy_listener.local_addr().unwrap().to_string();
        let (plane, seen) = Plane::new(Arc::clone(&cas), vec![proxy_addr.clone()]);
        let auth_addr = serve_plane(&cas, &plane, answers).await;
        let (lines_sender, lines) = mpsc::unbounded_channel();
        let (dialled_sender, dialled) = mpsc::unbounded_channel();
        let proxy = Proxy {
            lines: lines_sender,
        };
        tokio::spawn(serve_proxy(
            proxy_listener,
            Arc::clone(&cas),
            proxy,
            dialled_sender,
        ));
        let database = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = HostHandle::from_issued(
            cas.host("agent-1", "db"),
            &[auth_addr],
            Vec::new(),
            Arc::new(SystemClock),
            &tasks,
        )
        .unwrap();
        let settings = DatabaseSettings {
            resources: vec![ResourceMatcher {
                labels: Selector::new([("env", ["prod"])]).unwrap(),
                assume_role: Some(role("agent")),
                line: 1,
            }],
            databases: vec![own(&cas, &database)],
            ..DatabaseSettings::default()
        };
        let settings = watch::Sender::new(settings);
        let readiness = Readiness::new();
        DatabaseService::start(
            settings.subscribe(),
            AgentContext {
                // Nothing is written there: no database of these tests needs a bundle of AWS.
                data_dir: std::env::temp_dir().join("tidegate-agent"),
                hostname: "agent".to_owned(),
                proxy_server: knows_proxy.then_some(proxy_addr),
                zone: "eu-west-1a".to_owned(),
            },
            host,
            AwsFactory::load().await,
            &Metrics::new(),
            &readiness,
            Arc::new(SystemClock),
            &tasks,
        )
        .unwrap();
        // The first health check comes before any session, and the next with TLS is longer away than a test lasts.
        let mut checked = patiently(crate::sessions::database_end(&cas, &database)).await;
        assert_eq!(patiently(checked.read(&mut [0; 1])).await.unwrap(), 0);
        Self {
            cas,
            plane,
            seen,
            lines,
            dialled,
            database: Some(database),
            tasks,
            readiness,
            settings,
        }
    }

    /// The next control connection, after the agent's hello.
    pub(crate) async fn line(&mut self) -> Line {
        let mut line = patiently(self.lines.recv()).await.unwrap();
        let said = line.next().await;
        let v1::control_request::Message::Hello(hello) = said else {
            panic!("{said:?}")
        };
        assert_eq!(hello.zone, "eu-west-1a");
        line.cancel_prefix = hello.cancel_prefix.unwrap();
        line
    }

    /// What is announced next that is no heartbeat.
    pub(crate) async fn announced(&mut self) -> v1::announce_request::Message {
        loop {
            let request = patiently(self.seen.announced.recv()).await.unwrap();
            match request.message.unwrap() {
                v1::announce_request::Message::Heartbeat(_) => {}
                other => return other,
            }
        }
    }

    /// Waits until a delta says what `is` looks for.
    pub(crate) async fn until_announced(&mut self, is: impl Fn(&v1::AnnounceDelta) -> bool) {
        loop {
            if let v1::announce_request::Message::Delta(delta) = self.announced().await
                && is(&delta)
            {
                return;
            }
        }
    }
}

pub(crate) async fn patiently<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.unwrap()
}

pub(crate) fn role(name: &str) -> tidegate_core::AssumeRole {
    tidegate_core::AssumeRole {
        role_arn: format!("arn:aws:iam::123456789012:role/{name}")
            .parse()
            .unwrap(),
        external_id: None,
    }
}

/// A database outside AWS that trusts the agent.
fn own(cas: &Cas, database: &TcpListener) -> Database {
    Database {
        name: "own".parse().unwrap(),
        description: String::new(),
        labels: Labels::new(),
        origin: Origin::Config,
        protocol: Protocol::Postgres,
        uri: database.local_addr().unwrap().to_string().parse().unwrap(),
        tls: TlsSettings {
            server_name: Some(format!("own.db.{}", cas.cluster)),
            ca_cert_pem: Some(cas.db.cert_pem().to_owned()),
            ..TlsSettings::default()
        },
        aws: AwsMetadata::default(),
        kind: None,
        identity: String::new(),
        discovered_name: String::new(),
        unavailable: String::new(),
    }
}

async fn serve_plane(
    cas: &Cas,
    plane: &Plane,
    answers: impl Future<Output = ()> + Send + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let config = Arc::new(ArcSwap::new(cas.server("auth-1", "auth", ALPN_AUTH)));
    let never = tokio_util::sync::CancellationToken::new();
    let incoming = rpc::tls_incoming(listener, config, never.clone());
    let serving = rpc::serve(plane.routes(), incoming, never);
    tokio::spawn(async move {
        answers.await;
        serving.await
    });
    address
}

/// One port, as a proxy has it: a preamble is a connection that was dialled back, anything else a control connection.
async fn serve_proxy(
    listener: TcpListener,
    cas: Arc<Cas>,
    proxy: Proxy,
    dialled: mpsc::UnboundedSender<([u8; 16], TcpStream)>,
) {
    let config = cas.server("proxy-1", "proxy", ALPN_TUNNEL);
    let (ready, incoming) = rpc::established(16);
    let never = tokio_util::sync::CancellationToken::new();
    let routes = Routes::new(TunnelServiceServer::new(proxy));
    tokio::spawn(rpc::serve(routes, incoming, never));
    let seen = Arc::new(Mutex::new(0));
    while let Ok((mut stream, remote)) = listener.accept().await {
        *seen.lock().unwrap() += 1;
        let (config, ready, dialled) = (Arc::clone(&config), ready.clone(), dialled.clone());
        tokio::spawn(async move {
            let mut first = [0; 1];
            stream.peek(&mut first).await.unwrap();
            if first == *b"T" {
                let mut introduction = [0; 24];
                stream.read_exact(&mut introduction).await.unwrap();
                assert_eq!(&introduction[..8], b"TGDIAL\x00\x01");
                let token = introduction[8..].try_into().unwrap();
                let _ = dialled.send((token, stream));
                return;
            }
            if let Ok(tls) = TlsAcceptor::from(config).accept(stream).await {
                let info = ConnectInfo::of_tls(tls.get_ref().1, Some(remote)).unwrap();
                let _ = ready.send(Connection::new(tls, info)).await;
            }
        });
    }
}
