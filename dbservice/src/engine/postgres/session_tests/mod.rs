//! Sessions from both ends: a client over TLS in memory, the engine, and a scripted database over TLS on loopback.

mod ending;
mod running;
mod starting;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use rustls_pki_types::ServerName;
use secrecy::SecretString;
use tidegate_core::{
    ClusterName, ErrorCode, Problem, Role, TlsMode, TlsSettings, access::RoleOptions,
};
use tidegate_identity::{
    CaKind, CertificateAuthority, HostLeaf, KeyPair, UserHolder, UserLeaf, tls,
};
use tidegate_proto::v1::AuditEvent;
use tidegate_service::{
    clock::{Clock, ManualClock},
    metrics::Metrics,
    settings::DatabaseSettings,
    tasks::ShutdownToken,
};
use tidegate_wire::{
    backend::{
        BackendKeyData, ErrorResponse, TxStatus, authentication_ok, backend_key_data,
        parameter_status, ready_for_query,
    },
    frontend,
    startup::{
        CancelRequest, FirstMessage, ProtocolVersion, SSL_REQUEST, StartupMessage, parse_first,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::{CancelRegistry, serve};
use crate::{
    audit::{AuditQueue, AuditReceiver},
    certificate::client_facing,
    credentials::{Credentials, LoginPlan},
    engine::{AgentNames, Connector, DbLogin, Engine, Incoming},
    health::Health,
    locks::Locks,
    metrics::ServiceMetrics,
    places::Places,
    roles::Roles,
    served::Serving,
    testing::{redshift, trust},
    wanted::Wanted,
};

pub(crate) const CLUSTER: &str = "tg.test";
pub(crate) const TTL: Duration = Duration::from_secs(600);
pub(crate) const WAIT: Duration = Duration::from_secs(20);

pub(crate) fn cluster() -> ClusterName {
    CLUSTER.parse().unwrap()
}

/// Gives everybody one login, or refuses; and once another password for it.
struct OneLogin(Result<(), Problem>, Mutex<Option<&'static str>>);

impl Credentials for OneLogin {
    fn login<'c>(
        &'c self,
        _: &'c LoginPlan,
        _: &'c str,
    ) -> BoxFuture<'c, Result<DbLogin, Problem>> {
        async {
            self.0.clone().map(|()| DbLogin {
                user: "IAM:reader".to_owned(),
                password: Some(SecretString::from("minted")),
            })
        }
        .boxed()
    }

    fn another<'c>(
        &'c self,
        _: &'c LoginPlan,
        _: &'c str,
        refused: &'c DbLogin,
    ) -> BoxFuture<'c, Result<Option<DbLogin>, Problem>> {
        let another = self.1.lock().unwrap().take();
        let another = another.map(|password| DbLogin {
            password: Some(SecretString::from(password)),
            ..refused.clone()
        });
        async { Ok(another) }.boxed()
    }
}

pub(crate) struct Bed {
    user_ca: CertificateAuthority,
    pub(crate) db_ca: CertificateAuthority,
    pub(crate) engine: Arc<Engine>,
    events: AuditReceiver,
    pub(crate) serving: Serving,
    pub(crate) database: TcpListener,
    pub(crate) tls: Arc<rustls::ServerConfig>,
    clock: ManualClock,
}

impl Bed {
    async fn new() -> Self {
        Self::with(Ok(()), |_| ()).await
    }

    pub(crate) async fn with(login: Result<(), Problem>, change: impl FnOnce(&mut Wanted)) -> Self {
        let ca = |kind| CertificateAuthority::create(kind, &cluster(), Timestamp::now()).unwrap();
        let (user_ca, db_ca) = (ca(CaKind::User), ca(CaKind::Db));
        let key = KeyPair::generate().unwrap();
        let issued = db_ca
            .issue_database_server(&key.public_key_der(), &cluster(), Timestamp::now(), TTL)
            .unwrap();
        let tls = client_facing(&issued.chain_pem, &key, user_ca.cert_pem()).unwrap();
        let database = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut described = redshift("orders", &[("env", "prod")]);
        described.uri = database.local_addr().unwrap().to_string().parse().unwrap();
        described.tls = TlsSettings {
            mode: TlsMode::VerifyFull,
            server_name: Some(format!("cluster.db.{CLUSTER}")),
            ca_cert_pem: Some(db_ca.cert_pem().to_owned()),
            trust_system_pool: false,
        };
        let effective = tidegate_core::overrides::effective_role(&[], &described);
        let mut wanted = Wanted::new(Arc::new(described), effective, "".into(), Vec::new());
        change(&mut wanted);
        let metrics = ServiceMetrics::register(&Metrics::new());
        let (audit, events) = AuditQueue::new(metrics.clone());
        let clock = ManualClock::new(Timestamp::now());
        let roles = Roles::default();
        roles.set(Role::builtin());
        let engine = Engine {
            cluster: cluster(),
            agent: AgentNames {
                host_id: "h-1".to_owned(),
                hostname: "agent-1".to_owned(),
            },
            roles,
            locks: Locks::default(),
            places: Places::default(),
            credentials: Arc::new(OneLogin(login, Mutex::default())),
            connector: Arc::new(Connector::new(metrics.connect_seconds.clone(), trust())),
            cancels: CancelRegistry::default(),
            mysql_numbers: Default::default(),
            audit,
            metrics,
            health: Arc::new(Health::new()),
            clock: Arc::new(clock.clone()),
            settings: watch::Sender::new(DatabaseSettings::default()).subscribe(),
            shutdown: ShutdownToken::new(),
            drain_timeout: crate::engine::FINISH_GRACE,
        };
        Self {
            engine: Arc::new(engine),
            serving: Serving {
                wanted: Arc::new(wanted),
                ended: Default::default(),
                through: Default::default(),
            },
            user_ca,
            db_ca,
            events,
            database,
            tls,
            clock,
        }
    }

    /// As it is, and AWS has another password.
    pub(crate) fn and_another(self, password: &'static str) -> Self {
        let mut engine = Arc::try_unwrap(self.engine).unwrap();
        engine.credentials = Arc::new(OneLogin(Ok(()), Mutex::new(Some(password))));
        let engine = Arc::new(engine);
        Self { engine, ..self }
    }

    /// From here on, what alice's role asks of sessions.
    fn hold_to(&self, options: &RoleOptions) {
        let held = |role: Role| Role {
            options: options.clone(),
            ..role
        };
        self.engine
            .roles
            .set(Role::builtin().into_iter().map(held).collect());
    }

    /// A client's raw connection, served by the engine.
    fn connect(&self) -> (DuplexStream, JoinHandle<()>) {
        let (near, far) = tokio::io::duplex(256 << 10);
        let incoming = Incoming {
            stream: far,
            tls: Arc::clone(&self.tls),
            serving: self.serving.clone(),
            client_addr: "192.0.2.7:5000".to_owned(),
            ahead: None,
        };
        let engine = Arc::clone(&self.engine);
        (
            near,
            tokio::spawn(async move { serve(&engine, incoming).await }),
        )
    }

    pub(crate) fn alice(&self) -> (String, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let user = UserHolder {
            name: "alice".to_owned(),
            roles: vec!["access".to_owned()],
            traits: [
                ("db_users".to_owned(), vec!["reader".to_owned()]),
                ("db_names".to_owned(), vec!["*".to_owned()]),
            ]
            .into(),
            route: None,
            access_requests: Vec::new(),
            login: None,
        };
        let leaf = UserLeaf {
            public_key: &key.public_key_der(),
            cluster: &cluster(),
            user: &user,
        };
        let issued = self
            .user_ca
            .issue_user(leaf, Timestamp::now(), TTL)
            .unwrap();
        (issued.chain_pem, key)
    }

    async fn client_as(
        &self,
        identity: Option<&(String, KeyPair)>,
        host: &str,
    ) -> (client::TlsStream<DuplexStream>, JoinHandle<()>) {
        let config = tls::client_config(tls::ClientTls {
            roots: tls::Roots::Pem(self.db_ca.cert_pem()),
            identity: identity.map(|(chain, key)| (chain.as_str(), key)),
            alpn: &[],
        })
        .unwrap();
        let (near, serving) = self.connect();
        let name = ServerName::try_from(format!("{host}.db.{CLUSTER}")).unwrap();
        let stream = TlsConnector::from(config)
            .connect(name, near)
            .await
            .unwrap();
        (stream, serving)
    }

    async fn client(&self) -> (client::TlsStream<DuplexStream>, JoinHandle<()>) {
        self.client_as(Some(&self.alice()), "orders").await
    }

    /// The database's end of the next connection, inside TLS.
    async fn upstream(&self) -> server::TlsStream<TcpStream> {
        let key = KeyPair::generate().unwrap();
        let issued = self
            .db_ca
            .issue_database_server(&key.public_key_der(), &cluster(), Timestamp::now(), TTL)
            .unwrap();
        let config = tls::server_config(tls::ServerTls {
            chain_pem: &issued.chain_pem,
            key: &key,
            clients: tls::ClientAuth::None,
            alpn: &[],
        })
        .unwrap();
        let (mut stream, _) = self.database.accept().await.unwrap();
        let mut request = [0; 8];
        stream.read_exact(&mut request).await.unwrap();
        assert_eq!(request, SSL_REQUEST);
        stream.write_all(b"S").await.unwrap();
        TlsAcceptor::from(config).accept(stream).await.unwrap()
    }

    /// Lets the agent in after it answered for its password in clear.
    async fn welcome(&self) -> (server::TlsStream<TcpStream>, StartupMessage) {
        self.welcome_with("minted").await
    }

    async fn welcome_with(&self, password: &str) -> (server::TlsStream<TcpStream>, StartupMessage) {
        let mut stream = self.upstream().await;
        let FirstMessage::Startup(startup) = first(&mut stream).await else {
            panic!("a start-up message")
        };
        stream
            .write_all(&[b'R', 0, 0, 0, 8, 0, 0, 0, 3])
            .await
            .unwrap();
        let sent = format!("{password}\0").into_bytes();
        assert_eq!(message(&mut stream).await, (b'p', sent));
        let words = [
            &authentication_ok()[..],
            &parameter_status("server_version", "8.0.2"),
            &backend_key_data(77, b"real"),
            &ready_for_query(TxStatus::Idle),
        ]
        .concat();
        stream.write_all(&words).await.unwrap();
        (stream, startup)
    }

    /// A session that runs: client, database, and the engine's task.
    async fn session(
        &self,
    ) -> (
        client::TlsStream<DuplexStream>,
        server::TlsStream<TcpStream>,
        BackendKeyData,
        JoinHandle<()>,
    ) {
        let (mut client, serving) = self.client().await;
        client.write_all(&startup("reader")).await.unwrap();
        let (database, _) = self.welcome().await;
        let mut key = None;
        loop {
            match message(&mut client).await {
                (b'K', body) => key = Some(BackendKeyData::parse(&body).unwrap()),
                (b'Z', _) => break,
                _ => {}
            }
        }
        (client, database, key.unwrap(), serving)
    }

    pub(crate) fn event(&mut self) -> AuditEvent {
        self.events.try_recv().unwrap()
    }
}

fn startup(user: &str) -> Bytes {
    StartupMessage::new(ProtocolVersion::V3_0)
        .with_param("user", user)
        .with_param("database", "dev")
        .with_param("application_name", "psql")
        .with_param("client_protocol_version", "2")
        .encode()
        .freeze()
}

async fn first<S: tokio::io::AsyncRead + Unpin>(stream: &mut S) -> FirstMessage {
    let mut bytes = Vec::new();
    loop {
        if let Some((message, _)) = parse_first(&bytes).unwrap() {
            return message;
        }
        bytes.push(stream.read_u8().await.unwrap());
    }
}

async fn message<S: tokio::io::AsyncRead + Unpin>(stream: &mut S) -> (u8, Vec<u8>) {
    tokio::time::timeout(WAIT, async {
        let tag = stream.read_u8().await.unwrap();
        let len = stream.read_u32().await.unwrap() as usize;
        let mut body = vec![0; len - 4];
        stream.read_exact(&mut body).await.unwrap();
        (tag, body)
    })
    .await
    .unwrap()
}

async fn error<S: tokio::io::AsyncRead + Unpin>(stream: &mut S) -> ErrorResponse {
    let (tag, body) = message(stream).await;
    assert_eq!(char::from(tag), 'E');
    ErrorResponse::parse(&body)
}
