//! A control plane: gives the agent what it asks for, and keeps what it says.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
};

use futures::{Stream, StreamExt};
use jiff::Timestamp;
use tidegate_core::{HealthCheckConfig, Lock, Role};
use tidegate_identity::HOST_CERT_TTL;
use tidegate_proto::{
    convert,
    v1::{
        self, AnnounceRequest, AnnounceResponse, AuditEvent, WatchDatabasesRequest,
        WatchDatabasesResponse,
        access_service_server::{AccessService, AccessServiceServer},
        audit_service_server::{AuditService, AuditServiceServer},
        health_service_server::{HealthService, HealthServiceServer},
        inventory_service_server::{InventoryService, InventoryServiceServer},
        presence_service_server::{PresenceService, PresenceServiceServer},
        trust_service_server::{TrustService, TrustServiceServer},
    },
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{UnboundedReceiverStream, WatchStream};
use tonic::{Request, Response, Status, Streaming, async_trait, service::Routes};

use crate::world::Cas;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
/// What a test sends to one watch of the inventory.
pub(crate) type Watch = mpsc::UnboundedSender<Result<WatchDatabasesResponse, Status>>;

/// What the agent did, as the plane saw it.
pub(crate) struct Seen {
    /// Each watch of the inventory, with its request.
    pub(crate) watches: mpsc::UnboundedReceiver<(WatchDatabasesRequest, Watch)>,
    /// Everything that was announced.
    pub(crate) announced: mpsc::UnboundedReceiver<AnnounceRequest>,
    /// Audit events.
    pub(crate) events: mpsc::UnboundedReceiver<AuditEvent>,
    /// Each watch of the locks.
    pub(crate) lock_watches: mpsc::UnboundedReceiver<()>,
}

#[derive(Clone)]
pub(crate) struct Plane {
    cas: Arc<Cas>,
    proxies: Arc<Mutex<Vec<String>>>,
    watches: mpsc::UnboundedSender<(WatchDatabasesRequest, Watch)>,
    announced: mpsc::UnboundedSender<AnnounceRequest>,
    events: mpsc::UnboundedSender<AuditEvent>,
    lock_watches: mpsc::UnboundedSender<()>,
    locks: watch::Sender<Result<Vec<Lock>, ()>>,
    health_configs: watch::Sender<Vec<HealthCheckConfig>>,
}

impl Plane {
    pub(crate) fn new(cas: Arc<Cas>, proxies: Vec<String>) -> (Self, Seen) {
        let (watches, seen_watches) = mpsc::unbounded_channel();
        let (announced, seen_announced) = mpsc::unbounded_channel();
        let (events, seen_events) = mpsc::unbounded_channel();
        let (lock_watches, seen_lock_watches) = mpsc::unbounded_channel();
        let plane = Self {
            cas,
            proxies: Arc::new(Mutex::new(proxies)),
            watches,
            announced,
            events,
            lock_watches,
            locks: watch::Sender::new(Ok(Vec::new())),
            health_configs: watch::Sender::new(vec![HealthCheckConfig::preset()]),
        };
        let seen = Seen {
            watches: seen_watches,
            announced: seen_announced,
            events: seen_events,
            lock_watches: seen_lock_watches,
        };
        (plane, seen)
    }

    /// From here on these locks are in force; `Err` ends every watch.
    pub(crate) fn tell_locks(&self, locks: Result<Vec<Lock>, ()>) {
        self.locks.send_modify(|told| *told = locks);
    }

    /// From here on databases are to be checked like this.
    pub(crate) fn tell_health_configs(&self, configs: Vec<HealthCheckConfig>) {
        self.health_configs.send_modify(|told| *told = configs);
    }

    pub(crate) fn routes(&self) -> Routes {
        Routes::new(InventoryServiceServer::new(self.clone()))
            .add_service(PresenceServiceServer::new(self.clone()))
            .add_service(TrustServiceServer::new(self.clone()))
            .add_service(AccessServiceServer::new(self.clone()))
            .add_service(AuditServiceServer::new(self.clone()))
            .add_service(HealthServiceServer::new(self.clone()))
    }
}

fn no<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not in this test"))
}

#[async_trait]
impl InventoryService for Plane {
    type WatchDatabasesStream = Answers<WatchDatabasesResponse>;
    type WatchDatabaseServersStream = Answers<v1::WatchDatabaseServersResponse>;

    async fn watch_databases(
        &self,
        request: Request<WatchDatabasesRequest>,
    ) -> Result<Response<Self::WatchDatabasesStream>, Status> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let _ = self.watches.send((request.into_inner(), sender));
        Ok(Response::new(
            UnboundedReceiverStream::new(receiver).boxed(),
        ))
    }

    async fn list_proxies(
        &self,
        _: Request<v1::ListProxiesRequest>,
    ) -> Result<Response<v1::ListProxiesResponse>, Status> {
        let proxies = self.proxies.lock().unwrap().clone();
        let proxies = proxies
            .into_iter()
            .map(|public_addr| v1::Proxy {
                public_addr,
                ..v1::Proxy::default()
            })
            .collect();
        Ok(Response::new(v1::ListProxiesResponse { proxies }))
    }

    async fn list_databases(
        &self,
        _: Request<v1::ListDatabasesRequest>,
    ) -> Result<Response<v1::ListDatabasesResponse>, Status> {
        no()
    }

    async fn get_database(
        &self,
        _: Request<v1::GetDatabaseRequest>,
    ) -> Result<Response<v1::Database>, Status> {
        no()
    }

    async fn create_database(
        &self,
        _: Request<v1::CreateDatabaseRequest>,
    ) -> Result<Response<v1::Database>, Status> {
        no()
    }

    async fn update_database(
        &self,
        _: Request<v1::UpdateDatabaseRequest>,
    ) -> Result<Response<v1::Database>, Status> {
        no()
    }

    async fn count_databases(
        &self,
        _: Request<v1::CountDatabasesRequest>,
    ) -> Result<Response<v1::CountDatabasesResponse>, Status> {
        no()
    }

    async fn delete_database(
        &self,
        _: Request<v1::DeleteDatabaseRequest>,
    ) -> Result<Response<v1::DeleteDatabaseResponse>, Status> {
        no()
    }

    async fn list_database_servers(
        &self,
        _: Request<v1::ListDatabaseServersRequest>,
    ) -> Result<Response<v1::ListDatabaseServersResponse>, Status> {
        no()
    }

    async fn watch_database_servers(
        &self,
        _: Request<v1::WatchDatabaseServersRequest>,
    ) -> Result<Response<Self::WatchDatabaseServersStream>, Status> {
        no()
    }
}

#[async_trait]
impl PresenceService for Plane {
    type AnnounceStream = Answers<AnnounceResponse>;

    async fn announce(
        &self,
        request: Request<Streaming<AnnounceRequest>>,
    ) -> Result<Response<Self::AnnounceStream>, Status> {
        let announced = self.announced.clone();
        let answers = request.into_inner().map(move |message| {
            let _ = announced.send(message?);
            Ok(AnnounceResponse {
                heartbeat_seconds: 60,
                revision: 1,
            })
        });
        Ok(Response::new(answers.boxed()))
    }
}

#[async_trait]
impl TrustService for Plane {
    async fn issue_database_server_certificate(
        &self,
        request: Request<v1::IssueDatabaseServerCertificateRequest>,
    ) -> Result<Response<v1::HostCertificate>, Status> {
        let issued = self
            .cas
            .db
            .issue_database_server(
                &request.into_inner().public_key,
                &self.cas.cluster,
                Timestamp::now(),
                HOST_CERT_TTL,
            )
            .unwrap();
        Ok(Response::new(v1::HostCertificate {
            certificate_pem: issued.chain_pem,
            expires_at: Some(convert::timestamp(issued.expires_at)),
            server_certificate_pem: String::new(),
        }))
    }

    async fn get_trust(
        &self,
        _: Request<v1::GetTrustRequest>,
    ) -> Result<Response<v1::Trust>, Status> {
        no()
    }

    async fn join(
        &self,
        _: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinResponse>, Status> {
        no()
    }

    async fn renew_host_certificate(
        &self,
        _: Request<v1::RenewHostCertificateRequest>,
    ) -> Result<Response<v1::HostCertificate>, Status> {
        no()
    }
}

#[async_trait]
impl AuditService for Plane {
    type EmitStreamStream = Answers<v1::EmitStreamResponse>;
    type ReadRecordsStream = Answers<v1::ReadRecordsResponse>;

    async fn emit_stream(
        &self,
        request: Request<Streaming<v1::EmitStreamRequest>>,
    ) -> Result<Response<Self::EmitStreamStream>, Status> {
        let events = self.events.clone();
        let answers = request.into_inner().map(move |batch| {
            let v1::EmitStreamRequest {
                batch,
                events: more,
            } = batch?;
            for event in more {
                let _ = events.send(event);
            }
            Ok(v1::EmitStreamResponse {
                durable_batch: batch,
            })
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn read_records(
        &self,
        _: Request<v1::ReadRecordsRequest>,
    ) -> Result<Response<Self::ReadRecordsStream>, Status> {
        no()
    }

    async fn list_events(
        &self,
        _: Request<v1::ListEventsRequest>,
    ) -> Result<Response<v1::ListEventsResponse>, Status> {
        no()
    }
}

#[async_trait]
impl HealthService for Plane {
    type WatchHealthCheckConfigsStream = Answers<v1::WatchHealthCheckConfigsResponse>;

    async fn watch_health_check_configs(
        &self,
        _: Request<v1::WatchHealthCheckConfigsRequest>,
    ) -> Result<Response<Self::WatchHealthCheckConfigsStream>, Status> {
        let answers = WatchStream::new(self.health_configs.subscribe()).map(|configs| {
            let configs = configs.into_iter().map(Into::into).collect();
            Ok(v1::WatchHealthCheckConfigsResponse { configs })
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn upsert_health_check_config(
        &self,
        _: Request<v1::UpsertHealthCheckConfigRequest>,
    ) -> Result<Response<v1::HealthCheckConfig>, Status> {
        no()
    }

    async fn list_health_check_configs(
        &self,
        _: Request<v1::ListHealthCheckConfigsRequest>,
    ) -> Result<Response<v1::ListHealthCheckConfigsResponse>, Status> {
        no()
    }

    async fn delete_health_check_config(
        &self,
        _: Request<v1::DeleteHealthCheckConfigRequest>,
    ) -> Result<Response<v1::DeleteHealthCheckConfigResponse>, Status> {
        no()
    }
}

#[async_trait]
impl AccessService for Plane {
    type WatchRolesStream = Answers<v1::WatchRolesResponse>;

    async fn watch_roles(
        &self,
        _: Request<v1::WatchRolesRequest>,
    ) -> Result<Response<Self::WatchRolesStream>, Status> {
        let roles = Role::builtin().into_iter().map(Into::into).collect();
        let now = v1::WatchRolesResponse { roles, revision: 1 };
        let answers = futures::stream::iter([Ok(now)]).chain(futures::stream::pending());
        Ok(Response::new(answers.boxed()))
    }

    async fn create_user(
        &self,
        _: Request<v1::CreateUserRequest>,
    ) -> Result<Response<v1::CreateUserResponse>, Status> {
        no()
    }

    async fn list_users(
        &self,
        _: Request<v1::ListUsersRequest>,
    ) -> Result<Response<v1::ListUsersResponse>, Status> {
        no()
    }

    async fn update_user(
        &self,
        _: Request<v1::UpdateUserRequest>,
    ) -> Result<Response<v1::User>, Status> {
        no()
    }

    async fn reset_user(
        &self,
        _: Request<v1::ResetUserRequest>,
    ) -> Result<Response<v1::ResetUserResponse>, Status> {
        no()
    }

    async fn delete_user(
        &self,
        _: Request<v1::DeleteUserRequest>,
    ) -> Result<Response<v1::DeleteUserResponse>, Status> {
        no()
    }

    async fn create_token(
        &self,
        _: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        no()
    }

    async fn list_tokens(
        &self,
        _: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        no()
    }

    async fn delete_token(
        &self,
        _: Request<v1::DeleteTokenRequest>,
    ) -> Result<Response<v1::DeleteTokenResponse>, Status> {
        no()
    }

    async fn list_roles(
        &self,
        _: Request<v1::ListRolesRequest>,
    ) -> Result<Response<v1::ListRolesResponse>, Status> {
        no()
    }

    async fn upsert_role(
        &self,
        _: Request<v1::UpsertRoleRequest>,
    ) -> Result<Response<v1::Role>, Status> {
        no()
    }

    async fn delete_role(
        &self,
        _: Request<v1::DeleteRoleRequest>,
    ) -> Result<Response<v1::DeleteRoleResponse>, Status> {
        no()
    }

    async fn upsert_lock(
        &self,
        _: Request<v1::UpsertLockRequest>,
    ) -> Result<Response<v1::Lock>, Status> {
        no()
    }

    async fn list_locks(
        &self,
        _: Request<v1::ListLocksRequest>,
    ) -> Result<Response<v1::ListLocksResponse>, Status> {
        no()
    }

    async fn delete_lock(
        &self,
        _: Request<v1::DeleteLockRequest>,
    ) -> Result<Response<v1::DeleteLockResponse>, Status> {
        no()
    }

    async fn explain_access(
        &self,
        _: Request<v1::ExplainAccessRequest>,
    ) -> Result<Response<v1::ExplainAccessResponse>, Status> {
        no()
    }

    type WatchLocksStream = Answers<v1::WatchLocksResponse>;

    async fn watch_locks(
        &self,
        _: Request<v1::WatchLocksRequest>,
    ) -> Result<Response<Self::WatchLocksStream>, Status> {
        let _ = self.lock_watches.send(());
        let answers = WatchStream::new(self.locks.subscribe()).map(|locks| {
            let locks = locks.map_err(|()| Status::unavailable("going away"))?;
            let locks = locks.into_iter().map(Into::into).collect();
            Ok(v1::WatchLocksResponse { locks })
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn get_cluster_status(
        &self,
        _: Request<v1::GetClusterStatusRequest>,
    ) -> Result<Response<v1::ClusterStatus>, Status> {
        no()
    }
}
