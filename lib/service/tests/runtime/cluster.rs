//! A cluster of its own for each test: real CAs, and an auth service that knows one join token.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rustls::ServerConfig;
use tidegate_core::{ClusterName, HostId};
use tidegate_identity::{
    ALPN_AUTH, CaKind, CertificateAuthority, HOST_CERT_TTL, Holder, HostLeaf, Issued, KeyPair,
    tls::{self, ClientAuth, ServerTls},
};
use tidegate_proto::{
    convert,
    v1::{self, trust_service_server::TrustService, trust_service_server::TrustServiceServer},
};
use tidegate_service::{
    host::{IssuedHost, TrustBundle},
    rpc::{self, Peer},
    tasks::ShutdownToken,
};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::Notify,
    task::JoinHandle,
};
use tonic::{Request, Response, Status, service::Routes};

pub(crate) const TOKEN: &str = "0123456789abcdef";
/// Longest wait for a state that must come; reached only by a test that fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The cluster's CAs and what its auth service has seen.
pub(crate) struct Cluster {
    pub(crate) name: ClusterName,
    pub(crate) host_ca: CertificateAuthority,
    user_ca: CertificateAuthority,
    db_ca: CertificateAuthority,
    pub(crate) ttl: Duration,
    pub(crate) joins: AtomicUsize,
    pub(crate) renewals: AtomicUsize,
    pub(crate) peers: Mutex<Vec<Peer>>,
    pub(crate) host_ids: Mutex<Vec<String>>,
    /// While set, `GetTrust` never answers; it tells here that it was asked.
    pub(crate) hang: Mutex<Option<Arc<Notify>>>,
}

impl Cluster {
    pub(crate) fn new() -> Arc<Self> {
        let name: ClusterName = "tidegate.example.com".parse().unwrap();
        let ca = |kind| CertificateAuthority::create(kind, &name, Timestamp::now()).unwrap();
        Arc::new(Self {
            host_ca: ca(CaKind::Host),
            user_ca: ca(CaKind::User),
            db_ca: ca(CaKind::Db),
            name,
            ttl: HOST_CERT_TTL,
            joins: AtomicUsize::new(0),
            renewals: AtomicUsize::new(0),
            peers: Mutex::default(),
            host_ids: Mutex::default(),
            hang: Mutex::default(),
        })
    }

    pub(crate) fn trust(&self) -> TrustBundle {
        TrustBundle {
            cluster: self.name.clone(),
            host_ca_pem: self.host_ca.cert_pem().to_owned(),
            user_ca_pem: self.user_ca.cert_pem().to_owned(),
            db_ca_pem: self.db_ca.cert_pem().to_owned(),
        }
    }

    fn issue(
        &self,
        public_key: &[u8],
        host_id: &str,
        services: &[String],
        names: &[String],
    ) -> Issued {
        let host_id: HostId = host_id.parse().unwrap();
        let leaf = HostLeaf {
            public_key,
            cluster: &self.name,
            host_id: &host_id,
            hostname: host_id.as_str(),
            services,
            names,
        };
        self.host_ca
            .issue_host(leaf, Timestamp::now(), self.ttl)
            .unwrap()
    }

    /// An identity as an auth service gives it to its own process.
    pub(crate) fn identity(&self, host_id: &str, services: &[&str]) -> IssuedHost {
        let key = KeyPair::generate().unwrap();
        let services: Vec<String> = services.iter().map(ToString::to_string).collect();
        let issued = self.issue(&key.public_key_der(), host_id, &services, &[]);
        IssuedHost {
            key,
            chain_pem: issued.chain_pem,
            server_chain_pem: None,
            trust: self.trust(),
        }
    }

    /// Lets a process in, under the id that it had.
    pub(crate) fn let_in(&self, request: v1::JoinRequest) -> v1::JoinResponse {
        self.joins.fetch_add(1, Ordering::SeqCst);
        self.host_ids.lock().unwrap().push(request.host_id.clone());
        let host_id = if request.host_id.is_empty() {
            "host-1".to_owned()
        } else {
            request.host_id
        };
        let issued = self.issue(
            &request.public_key,
            &host_id,
            &request.services,
            &request.names,
        );
        v1::JoinResponse {
            host_id,
            certificate: Some(certificate(issued)),
            trust: Some(self.trust_message()),
        }
    }

    fn trust_message(&self) -> v1::Trust {
        let trust = self.trust();
        v1::Trust {
            cluster: trust.cluster.to_string(),
            host_ca_pem: trust.host_ca_pem,
            user_ca_pem: trust.user_ca_pem,
            db_ca_pem: trust.db_ca_pem,
        }
    }

    fn server_tls(&self) -> Arc<ServerConfig> {
        let identity = self.identity("auth-1", &["auth"]);
        let clients = ClientAuth::Optional {
            ca_pem: self.host_ca.cert_pem().to_owned(),
        };
        tls::server_config(ServerTls {
            chain_pem: &identity.chain_pem,
            key: &identity.key,
            clients,
            alpn: &[ALPN_AUTH],
        })
        .unwrap()
    }

    pub(crate) fn routes(self: &Arc<Self>) -> Routes {
        Routes::new(TrustServiceServer::new(FakeAuth(Arc::clone(self))))
            .add_service(crate::joining::service(self))
    }

    /// Serves the auth service on `listener` until [`Running::stop`].
    pub(crate) fn serve(self: &Arc<Self>, listener: TcpListener) -> Running {
        let shutdown = ShutdownToken::new();
        let address = listener.local_addr().unwrap();
        let tls = Arc::new(ArcSwap::new(self.server_tls()));
        let incoming = rpc::tls_incoming(listener, tls, shutdown.clone());
        let server = tokio::spawn(rpc::serve(self.routes(), incoming, shutdown.clone()));
        Running {
            address,
            shutdown,
            server,
        }
    }

    pub(crate) async fn start(self: &Arc<Self>) -> Running {
        self.serve(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }
}

/// A server that runs.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) shutdown: ShutdownToken,
    pub(crate) server: JoinHandle<Result<(), rpc::ServeError>>,
}

impl Running {
    pub(crate) async fn stop(self) -> SocketAddr {
        self.shutdown.cancel();
        self.server.await.unwrap().unwrap();
        self.address
    }
}

/// An address at which nobody listens, and that nobody else gets while this lives.
pub(crate) struct Nobody {
    pub(crate) address: SocketAddr,
    _bound: TcpSocket,
}

impl Nobody {
    pub(crate) fn new() -> Self {
        let bound = TcpSocket::new_v4().unwrap();
        bound.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self {
            address: bound.local_addr().unwrap(),
            _bound: bound,
        }
    }
}

struct FakeAuth(Arc<Cluster>);

fn certificate(issued: Issued) -> v1::HostCertificate {
    v1::HostCertificate {
        certificate_pem: issued.chain_pem,
        expires_at: Some(convert::timestamp(issued.expires_at)),
        server_certificate_pem: String::new(),
    }
}

#[tonic::async_trait]
impl TrustService for FakeAuth {
    async fn get_trust(
        &self,
        request: Request<v1::GetTrustRequest>,
    ) -> Result<Response<v1::Trust>, Status> {
        assert!(rpc::remote(&request).is_none_or(|address| address.ip().is_loopback()));
        self.0.peers.lock().unwrap().push(rpc::peer(&request));
        let hang = self.0.hang.lock().unwrap().clone();
        if let Some(asked) = hang {
            asked.notify_one();
            std::future::pending::<()>().await;
        }
        Ok(Response::new(self.0.trust_message()))
    }

    async fn join(
        &self,
        request: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinResponse>, Status> {
        let request = request.into_inner();
        if request.token != TOKEN {
            return Err(Status::permission_denied(
                "the join token is unknown or has expired",
            ));
        }
        Ok(Response::new(self.0.let_in(request)))
    }

    async fn renew_host_certificate(
        &self,
        request: Request<v1::RenewHostCertificateRequest>,
    ) -> Result<Response<v1::HostCertificate>, Status> {
        let Peer::Certified(peer) = rpc::peer(&request) else {
            return Err(Status::unauthenticated("show a host certificate"));
        };
        let Holder::Host(host) = &peer.holder else {
            return Err(Status::permission_denied("for services only"));
        };
        self.0.renewals.fetch_add(1, Ordering::SeqCst);
        let request = request.into_inner();
        let issued = self.0.issue(
            &request.public_key,
            host.host_id.as_str(),
            &host.services,
            &request.names,
        );
        Ok(Response::new(certificate(issued)))
    }

    async fn issue_database_server_certificate(
        &self,
        _: Request<v1::IssueDatabaseServerCertificateRequest>,
    ) -> Result<Response<v1::HostCertificate>, Status> {
        Err(Status::unimplemented("not part of these tests"))
    }
}
