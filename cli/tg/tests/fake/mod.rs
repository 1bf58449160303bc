//! A cluster in memory behind one port: TLS with ALPN `tidegate-auth` reaches gRPC under the cluster's own CA, anything
//! else gets the proxy's web answer under a public certificate. Logins, certificates and TLS are real.

pub(crate) mod people;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use jiff::Timestamp;
use rustls::{ServerConfig, server::Acceptor};
use tidegate_core::{ClusterName, Database, Labels, Predicate, Selector};
use tidegate_identity::{
    ALPN_AUTH, ALPN_POSTGRES, CaKind, CaPin, CertificateAuthority, Holder, HostLeaf, KeyPair,
    Route, UserHolder, UserLeaf,
    tls::{self, ClientAuth, ServerTls},
};
use tidegate_proto::{
    convert,
    v1::{
        self,
        front_door_service_server::{FrontDoorService, FrontDoorServiceServer},
        inventory_service_server::{InventoryService, InventoryServiceServer},
        people_service_server::PeopleServiceServer,
        session_service_server::{SessionService, SessionServiceServer},
        trust_service_server::{TrustService, TrustServiceServer},
    },
};
use tidegate_service::{
    rpc::{self, ConnectInfo, Connection, Peer},
    tasks::ShutdownToken,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};
use tokio_stream::Empty;
use tonic::{Request, Response, Status, async_trait, service::Routes};

/// The one-time token that the cluster knows.
pub(crate) const SIGNUP_TOKEN: &str = "0123456789abcdef";

type Answer<T> = Result<Response<T>, Status>;
type Ready = mpsc::Sender<Connection<TlsStream<TcpStream>>>;

/// What the cluster knows.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) databases: BTreeMap<String, v1::Database>,
    /// Databases of agents' configurations, one entry an agent.
    pub(crate) configured: Vec<v1::Database>,
    /// Users that signed up, with their passwords.
    pub(crate) passwords: BTreeMap<String, String>,
    pub(crate) db_users: Vec<String>,
    pub(crate) db_names: Vec<String>,
    /// What roles allow on databases other than what traits say.
    pub(crate) choices: BTreeMap<String, v1::DescribeChoicesResponse>,
    /// Database certificates given.
    pub(crate) issued: Vec<v1::DatabaseRoute>,
    /// Requests to cancel that arrived in the clear.
    pub(crate) cancels: Vec<Vec<u8>>,
    /// Whether certificates of people are refused, as after their CA was replaced.
    pub(crate) refuses_people: bool,
    /// Lifetime of user certificates.
    pub(crate) ttl: Duration,
    /// Whether codes are asked for.
    pub(crate) second_factor: v1::SecondFactor,
    /// Names of second factors, by user.
    pub(crate) factors: BTreeMap<String, String>,
    /// Name of the second factor that was begun last.
    pub(crate) begun: String,
    /// As the programs that logged in called themselves.
    pub(crate) clients: Vec<String>,
    /// What was asked to be ended.
    pub(crate) ended: Vec<v1::EndOwnLoginsRequest>,
    /// Whether logins cannot be ended now.
    pub(crate) ends_nothing: bool,
}

pub(crate) struct Authorities {
    cluster: ClusterName,
    host: CertificateAuthority,
    user: CertificateAuthority,
    db: CertificateAuthority,
    web: CertificateAuthority,
}

/// The cluster.
#[derive(Clone)]
pub(crate) struct Fake {
    state: Arc<Mutex<State>>,
    authorities: Arc<Authorities>,
}

impl Fake {
    pub(crate) fn new() -> Self {
        let cluster: ClusterName = "tidegate.example.com".parse().unwrap();
        let now = Timestamp::now();
        let make = |kind| CertificateAuthority::create(kind, &cluster, now).unwrap();
        let authorities = Authorities {
            host: make(CaKind::Host),
            user: make(CaKind::User),
            db: make(CaKind::Db),
            web: make(CaKind::Host),
            cluster,
        };
        let state = State {
            ttl: Duration::from_secs(3600),
            second_factor: v1::SecondFactor::Off,
            ..State::default()
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            authorities: Arc::new(authorities),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn ca_pin(&self) -> CaPin {
        self.authorities.host.pin()
    }

    /// The CA that a machine has to trust to trust the proxy's web certificate.
    pub(crate) fn web_ca_pem(&self) -> &str {
        self.authorities.web.cert_pem()
    }

    /// Serves on a free port until the test ends.
    pub(crate) async fn serve(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let routes = Routes::new(TrustServiceServer::new(self.clone()))
            .add_service(SessionServiceServer::new(self.clone()))
            .add_service(PeopleServiceServer::new(self.clone()))
            .add_service(FrontDoorServiceServer::new(self.clone()))
            .add_service(InventoryServiceServer::new(self.clone()));
        let (ready, incoming) = rpc::established(16);
        tokio::spawn(rpc::serve(routes, incoming, ShutdownToken::new()));
        let fake = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, remote)) = listener.accept().await {
                tokio::spawn(fake.clone().accept(stream, remote, ready.clone()));
            }
        });
        addr
    }

    async fn accept(self, mut stream: TcpStream, remote: SocketAddr, ready: Ready) {
        let mut first = [0];
        if stream.peek(&mut first).await.is_ok_and(|read| read == 1) && first == [0] {
            // Nothing but a request to cancel begins so in this cluster, and it is sixteen bytes long.
            let mut request = vec![0; 16];
            if stream.read_exact(&mut request).await.is_ok() {
                self.state().cancels.push(request);
            }
            return;
        }
        let Ok(start) = LazyConfigAcceptor::new(Acceptor::default(), stream).await else {
            return;
        };
        let sni = start
            .client_hello()
            .server_name()
            .unwrap_or_default()
            .to_owned();
        if sni.ends_with(".db.tidegate.example.com") {
            if let Ok(tls) = start.into_stream(self.agent_config(&sni)).await {
                self.play_database(tls).await;
            }
            return;
        }
        let is_auth = start
            .client_hello()
            .alpn()
            .is_some_and(|mut alpn| alpn.any(|name| name == ALPN_AUTH));
        if is_auth {
            let config = self.server_config(&self.authorities.host, &["auth"]);
            if let Ok(tls) = start.into_stream(config).await {
                let info = ConnectInfo::of_tls(tls.get_ref().1, Some(remote)).unwrap();
                let _ = ready.send(Connection::new(tls, info)).await;
            }
        } else {
            let config = self.server_config(&self.authorities.web, &[]);
            if let Ok(tls) = start.into_stream(config).await {
                self.answer_find(tls).await;
            }
        }
    }

    fn server_config(&self, ca: &CertificateAuthority, services: &[&str]) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let services: Vec<String> = services.iter().map(|name| (*name).to_owned()).collect();
        let issued = ca
            .issue_host(
                HostLeaf {
                    public_key: &key.public_key_der(),
                    cluster: &self.authorities.cluster,
                    host_id: &"host-1".parse().unwrap(),
                    hostname: "host",
                    services: &services,
                    names: &["127.0.0.1".to_owned()],
                },
                Timestamp::now(),
                Duration::from_secs(3600),
            )
            .unwrap();
        tls::server_config(ServerTls {
            chain_pem: &issued.chain_pem,
            key: &key,
            clients: if services.is_empty() {
                ClientAuth::None
            } else {
                let people = if self.state().refuses_people {
                    &self.authorities.db
                } else {
                    &self.authorities.user
                };
                ClientAuth::Optional {
                    ca_pem: people.cert_pem().to_owned(),
                }
            },
            alpn: if services.is_empty() {
                &[]
            } else {
                &[ALPN_AUTH]
            },
        })
        .unwrap()
    }

    /// What an agent shows and asks for.
    fn agent_config(&self, host: &str) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let leaf = HostLeaf {
            public_key: &key.public_key_der(),
            cluster: &self.authorities.cluster,
            host_id: &"host-1".parse().unwrap(),
            hostname: "host",
            services: &["db".to_owned()],
            names: &[host.to_owned()],
        };
        let hour = Duration::from_secs(3600);
        let issued = self
            .authorities
            .db
            .issue_host(leaf, Timestamp::now(), hour)
            .unwrap();
        tls::server_config(ServerTls {
            chain_pem: &issued.chain_pem,
            key: &key,
            clients: ClientAuth::Required {
                ca_pem: self.authorities.user.cert_pem().to_owned(),
            },
            alpn: &[ALPN_POSTGRES],
        })
        .unwrap()
    }

    /// Sends back what came, to the end of it: first the start-up message, then whatever follows.
    async fn play_database(&self, tls: TlsStream<TcpStream>) {
        let (mut read, mut write) = tokio::io::split(tls);
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.write_all(b"the end").await;
        let _ = write.shutdown().await;
    }

    async fn answer_find(&self, mut tls: TlsStream<TcpStream>) {
        let mut request = vec![0; 1024];
        let read = tls.read(&mut request).await.unwrap_or(0);
        assert!(request[..read].starts_with(b"GET /webapi/find HTTP/1.1\r\n"));
        let body = serde_json::json!({
            "cluster_name": self.authorities.cluster,
            "ca_certs": [self.authorities.host.cert_pem()],
        })
        .to_string();
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let _ = tls.write_all(answer.as_bytes()).await;
        let _ = tls.shutdown().await;
    }

    fn trust(&self) -> v1::Trust {
        let authorities = &self.authorities;
        v1::Trust {
            cluster: authorities.cluster.to_string(),
            host_ca_pem: authorities.host.cert_pem().to_owned(),
            user_ca_pem: authorities.user.cert_pem().to_owned(),
            db_ca_pem: authorities.db.cert_pem().to_owned(),
        }
    }

    fn user(&self, name: &str) -> UserHolder {
        let state = self.state();
        UserHolder {
            name: name.to_owned(),
            roles: vec!["access".to_owned()],
            traits: [
                ("db_users".to_owned(), state.db_users.clone()),
                ("db_names".to_owned(), state.db_names.clone()),
            ]
            .into(),
            route: None,
            access_requests: Vec::new(),
            login: None,
        }
    }

    fn certificate(&self, user: &UserHolder, public_key: &[u8]) -> v1::UserCertificate {
        let leaf = UserLeaf {
            public_key,
            cluster: &self.authorities.cluster,
            user,
        };
        let ttl = self.state().ttl;
        let issued = self
            .authorities
            .user
            .issue_user(leaf, Timestamp::now(), ttl)
            .unwrap();
        v1::UserCertificate {
            certificate_pem: issued.chain_pem,
            expires_at: Some(convert::timestamp(issued.expires_at)),
            trust: Some(self.trust()),
            identity: Some(user.into()),
        }
    }
}

/// The person who sends a request; the certificate was verified by TLS.
fn caller<T>(request: &Request<T>) -> Result<UserHolder, Status> {
    match rpc::peer(request) {
        Peer::Certified(identity) => match &identity.holder {
            Holder::User(user) => Ok(user.clone()),
            Holder::Host(_) => Err(Status::permission_denied("people only")),
        },
        Peer::Anonymous | Peer::Local => Err(Status::unauthenticated("a certificate is needed")),
    }
}

#[async_trait]
impl TrustService for Fake {
    async fn get_trust(&self, _: Request<v1::GetTrustRequest>) -> Answer<v1::Trust> {
        Ok(Response::new(self.trust()))
    }

    async fn join(&self, _: Request<v1::JoinRequest>) -> Answer<v1::JoinResponse> {
        Err(Status::unimplemented("join"))
    }

    async fn renew_host_certificate(
        &self,
        _: Request<v1::RenewHostCertificateRequest>,
    ) -> Answer<v1::HostCertificate> {
        Err(Status::unimplemented("renew"))
    }

    async fn issue_database_server_certificate(
        &self,
        _: Request<v1::IssueDatabaseServerCertificateRequest>,
    ) -> Answer<v1::HostCertificate> {
        Err(Status::unimplemented("issue"))
    }
}

#[async_trait]
impl SessionService for Fake {
    async fn sign_up(&self, request: Request<v1::SignUpRequest>) -> Answer<v1::SignUpResponse> {
        let request = request.into_inner();
        if request.token != SIGNUP_TOKEN {
            return Err(Status::permission_denied(
                "the token is unknown, used or expired",
            ));
        }
        let user = "alice".to_owned();
        self.state()
            .passwords
            .insert(user.clone(), request.password);
        Ok(Response::new(v1::SignUpResponse { user }))
    }

    async fn login(&self, request: Request<v1::LoginRequest>) -> Answer<v1::UserCertificate> {
        let request = request.into_inner();
        self.prove_login(&request)?;
        let user = self.user(&request.user);
        Ok(Response::new(self.certificate(&user, &request.public_key)))
    }

    async fn issue_database_certificate(
        &self,
        request: Request<v1::IssueDatabaseCertificateRequest>,
    ) -> Answer<v1::UserCertificate> {
        let user = caller(&request)?;
        let request = request.into_inner();
        let route = request.route.unwrap_or_default();
        self.state().issued.push(route.clone());
        let some = |text: String| (!text.is_empty()).then_some(text);
        let bound = UserHolder {
            route: Some(Route {
                database: route.database,
                db_user: some(route.db_user),
                db_name: some(route.db_name),
            }),
            ..user
        };
        Ok(Response::new(self.certificate(&bound, &request.public_key)))
    }

    async fn who_am_i(&self, _: Request<v1::WhoAmIRequest>) -> Answer<v1::WhoAmIResponse> {
        Err(Status::unimplemented("who"))
    }
}

#[async_trait]
impl FrontDoorService for Fake {
    async fn describe_choices(
        &self,
        request: Request<v1::DescribeChoicesRequest>,
    ) -> Answer<v1::DescribeChoicesResponse> {
        caller(&request)?;
        let state = self.state();
        let choices = |values: &[String]| {
            Some(v1::Choices {
                values: values.to_vec(),
                except: Vec::new(),
            })
        };
        let of_traits = || v1::DescribeChoicesResponse {
            db_users: choices(&state.db_users),
            db_names: choices(&state.db_names),
            own_db_user: String::new(),
        };
        let told = state.choices.get(&request.get_ref().database).cloned();
        Ok(Response::new(told.unwrap_or_else(of_traits)))
    }
}

#[async_trait]
impl InventoryService for Fake {
    type WatchDatabasesStream = Empty<Result<v1::WatchDatabasesResponse, Status>>;
    type WatchDatabaseServersStream = Empty<Result<v1::WatchDatabaseServersResponse, Status>>;

    async fn list_databases(
        &self,
        request: Request<v1::ListDatabasesRequest>,
    ) -> Answer<v1::ListDatabasesResponse> {
        caller(&request)?;
        let request = request.into_inner();
        let selector = request
            .selector
            .map(|selector| Selector::try_from(selector).unwrap());
        let filter =
            (!request.filter.is_empty()).then(|| Predicate::parse(&request.filter).unwrap());
        let databases = self
            .state()
            .databases
            .values()
            .filter(|database| {
                let labels: Labels = database.labels.clone().into_iter().collect();
                selector
                    .as_ref()
                    .is_none_or(|selector| selector.matches(&labels))
                    && request
                        .search
                        .iter()
                        .all(|word| database.name.contains(word.as_str()))
                    && filter.as_ref().is_none_or(|filter| {
                        filter.matches(&Database::try_from((*database).clone()).unwrap())
                    })
            })
            .cloned()
            .collect();
        Ok(Response::new(v1::ListDatabasesResponse {
            databases,
            next_page_token: String::new(),
            revision: 1,
        }))
    }

    async fn get_database(&self, request: Request<v1::GetDatabaseRequest>) -> Answer<v1::Database> {
        caller(&request)?;
        let found = self
            .state()
            .databases
            .get(&request.into_inner().name)
            .cloned();
        found
            .map(Response::new)
            .ok_or_else(|| Status::not_found("no such database"))
    }

    async fn watch_databases(
        &self,
        _: Request<v1::WatchDatabasesRequest>,
    ) -> Answer<Self::WatchDatabasesStream> {
        Err(Status::unimplemented("watch"))
    }

    async fn create_database(&self, _: Request<v1::CreateDatabaseRequest>) -> Answer<v1::Database> {
        Err(Status::unimplemented("create"))
    }

    async fn update_database(&self, _: Request<v1::UpdateDatabaseRequest>) -> Answer<v1::Database> {
        Err(Status::unimplemented("update_database"))
    }

    async fn count_databases(
        &self,
        _: Request<v1::CountDatabasesRequest>,
    ) -> Answer<v1::CountDatabasesResponse> {
        Err(Status::unimplemented("count_databases"))
    }

    async fn delete_database(
        &self,
        _: Request<v1::DeleteDatabaseRequest>,
    ) -> Answer<v1::DeleteDatabaseResponse> {
        Err(Status::unimplemented("delete"))
    }

    async fn list_database_servers(
        &self,
        request: Request<v1::ListDatabaseServersRequest>,
    ) -> Answer<v1::ListDatabaseServersResponse> {
        caller(&request)?;
        let selector = request.into_inner().selector.unwrap_or_default();
        assert_eq!(selector.labels["tidegate.dev/origin"].values, ["config"]);
        let database_servers = self
            .state()
            .configured
            .iter()
            .map(|database| v1::DatabaseServer {
                database: Some(database.clone()),
                ..v1::DatabaseServer::default()
            })
            .collect();
        Ok(Response::new(v1::ListDatabaseServersResponse {
            database_servers,
            next_page_token: String::new(),
            revision: 1,
        }))
    }

    async fn watch_database_servers(
        &self,
        _: Request<v1::WatchDatabaseServersRequest>,
    ) -> Answer<Self::WatchDatabaseServersStream> {
        Err(Status::unimplemented("watch"))
    }

    async fn list_proxies(
        &self,
        _: Request<v1::ListProxiesRequest>,
    ) -> Answer<v1::ListProxiesResponse> {
        Err(Status::unimplemented("list"))
    }
}
