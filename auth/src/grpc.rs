//! The gRPC services, one file each, thin: check the message, call what does the work, turn its answer into a message.
//!
//! Who may call what is decided before any of them, for every method in one place: [`guard`].

mod access;
mod audit;
mod backup;
mod diagnoses;
mod discovery;
mod front_doors;
pub(crate) mod guard;
mod health;
mod inventory;
mod joining;
mod people;
mod presence;
mod requests;
mod resources;
mod rotation;
mod session;
mod status;
mod trust;
mod undecodable;

use std::sync::Arc;

use tidegate_proto::{
    DESCRIPTOR,
    v1::{
        access_service_server::AccessServiceServer, audit_service_server::AuditServiceServer,
        backup_service_server::BackupServiceServer,
        cert_authority_service_server::CertAuthorityServiceServer,
        diagnose_service_server::DiagnoseServiceServer,
        discovery_service_server::DiscoveryServiceServer,
        front_door_service_server::FrontDoorServiceServer,
        health_service_server::HealthServiceServer,
        inventory_service_server::InventoryServiceServer, join_service_server::JoinServiceServer,
        people_service_server::PeopleServiceServer, presence_service_server::PresenceServiceServer,
        request_service_server::RequestServiceServer,
        resource_service_server::ResourceServiceServer,
        session_service_server::SessionServiceServer, trust_service_server::TrustServiceServer,
    },
};
use tidegate_service::{
    clock::SharedClock, metrics::Metrics, rpc::MESSAGE_BYTES_MAX, tasks::ShutdownToken,
};
use tonic::service::Routes;

use crate::{
    access::Access,
    audit::AuditLog,
    authority::Authority,
    backup::{Backups, Restores},
    configs::DiscoveryConfigs,
    databases::Databases,
    diagnoses::Diagnoses,
    health_configs::HealthConfigs,
    inventory::Inventory,
    ledger::Ledger,
    presence::Presence,
};
use guard::{Guard, GuardLayer, GuardParts};

/// Largest message of an agent: its full set of databases is one message.
const ANNOUNCE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Largest message of a worker: all scopes that it names are one message.
const ACQUIRE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Largest message of who joins, or of a token: a signed request's longest part is the session token of some KiB.
const JOIN_BYTES_MAX: usize = 256 * 1024;

/// What the services stand on.
pub(crate) struct Services {
    /// People, roles, tokens.
    pub(crate) access: Access,
    /// The audit log.
    pub(crate) audit: AuditLog,
    /// The CAs.
    pub(crate) authority: Arc<Authority>,
    /// Makes and restores backups.
    pub(crate) backups: Backups,
    /// The time.
    pub(crate) clock: SharedClock,
    /// Matchers of groups.
    pub(crate) configs: DiscoveryConfigs,
    /// Databases of administrators.
    pub(crate) databases: Databases,
    /// Questions to agents.
    pub(crate) diagnoses: Arc<Diagnoses>,
    /// How databases' health is checked.
    pub(crate) health: Arc<HealthConfigs>,
    /// Listings and watches.
    pub(crate) inventory: Arc<Inventory>,
    /// Discovery.
    pub(crate) ledger: Ledger,
    /// Agents and proxies.
    pub(crate) presence: Arc<Presence>,
    /// Whether the state is being restored.
    pub(crate) restores: Arc<Restores>,
    /// Ends what streams.
    pub(crate) shutdown: ShutdownToken,
}

/// The server-side part of one gRPC service; clones share everything.
#[derive(Clone)]
struct Api(Arc<Services>);

impl std::ops::Deref for Api {
    type Target = Services;

    fn deref(&self) -> &Services {
        &self.0
    }
}

/// All services behind the guard, with health and reflection.
///
/// # Errors
///
/// When the contract's own description cannot be read, which is a fault of the build.
pub(crate) async fn routes(
    services: Arc<Services>,
    metrics: &Metrics,
) -> Result<Routes, tonic_reflection::server::Error> {
    let parts = GuardParts {
        cluster: services.authority.cluster().clone(),
        inventory: services.inventory.clone(),
        locks: services.access.locks().clone(),
        audit: services.audit.clone(),
        clock: services.clock.clone(),
        restores: services.restores.clone(),
    };
    let guard = Guard::new(parts, metrics);
    let api = || Api(services.clone());
    let (health, health_server) = tonic_health::server::health_reporter();
    health.set_serving::<InventoryServiceServer<Api>>().await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTOR)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let mut routes = Routes::builder();
    routes
        .add_service(AccessServiceServer::new(api()).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(AuditServiceServer::new(api()).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(BackupServiceServer::new(api()).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(DiagnoseServiceServer::new(api()).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(
            DiscoveryServiceServer::new(api()).max_decoding_message_size(ACQUIRE_BYTES_MAX),
        )
        .add_service(
            FrontDoorServiceServer::new(api()).max_decoding_message_size(MESSAGE_BYTES_MAX),
        )
        .add_service(HealthServiceServer::new(api()).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(
            InventoryServiceServer::new(api()).max_decoding_message_size(MESSAGE_BYTES_MAX),
        )
        .add_service(JoinServiceServer::new(api()).max_decoding_message_size(JOIN_BYTES_MAX))
        .add_service(
            PresenceServiceServer::new(api()).max_decoding_message_size(ANNOUNCE_BYTES_MAX),
        )
        .add_service(RequestServiceServer::new(api()).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(ResourceServiceServer::new(api()).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(PeopleServiceServer::new(api()).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(SessionServiceServer::new(api()).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(TrustServiceServer::new(api()).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(
            CertAuthorityServiceServer::new(api()).max_decoding_message_size(MESSAGE_BYTES_MAX),
        )
        .add_service(health_server)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    let guarded = routes
        .routes()
        .into_axum_router()
        .layer(GuardLayer::new(guard));
    Ok(Routes::from(guarded))
}
