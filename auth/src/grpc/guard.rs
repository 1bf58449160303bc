//! Who may call what: one table, looked at before any service sees a request.
//!
//! Invariant: a method that is not in [`METHODS`] cannot be called. A test compares the table with the contract.
//!
//! The caller is known from the connection. Certificates are checked again with each request: a connection may
//! outlive its certificate, and a person's account.

use std::{
    collections::HashMap,
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::{Either, Ready, ready};
use jiff::Timestamp;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};
use tidegate_core::{ClusterName, access::ROLE_EDITOR};
use tidegate_identity::{Holder, HostHolder, PeerIdentity, UserHolder};
use tidegate_service::{
    clock::SharedClock,
    metrics::Metrics,
    rpc::{ConnectInfo, Peer},
};
use tonic::{Code, Request, Status};

use super::status::refuse;
use crate::inventory::{Inventory, Viewer};

/// Somebody who may call a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// An administrator: role `editor`, or the local socket.
    Admin,
    /// A person whose certificate opens one database only.
    BoundUser,
    /// A host that may run any of these services; none named is any host.
    Host(&'static [&'static str]),
    /// A person.
    User,
}

/// What a method asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Requirement {
    /// Any of these.
    AnyOf(&'static [Who]),
    /// Served by another program.
    Elsewhere,
    /// Nothing.
    Public,
}

use Requirement::{AnyOf, Elsewhere, Public};
use Who::{Admin, BoundUser, Host, User};

const ANYBODY_KNOWN: Requirement = AnyOf(&[Admin, Host(&[]), User]);
const ADMIN: Requirement = AnyOf(&[Admin]);
/// Agents discover too, for the matchers of their own section.
const DISCOVERER: &[&str] = &["discovery", "db"];

/// Every method of the contract, by its service.
#[rustfmt::skip]
const METHODS: &[(&str, &[(&str, Requirement)])] = &[
    ("tidegate.v1.AccessService", &[
        ("CreateToken", ADMIN),
        ("CreateUser", ADMIN),
        ("DeleteRole", ADMIN),
        ("DeleteToken", ADMIN),
        ("DeleteUser", ADMIN),
        ("GetClusterStatus", ADMIN),
        ("ListRoles", AnyOf(&[Admin, Host(&["db", "proxy"])])),
        ("ListTokens", ADMIN),
        ("ListUsers", ADMIN),
        ("UpsertRole", ADMIN),
        ("WatchRoles", AnyOf(&[Admin, Host(&["db", "proxy"])])),
    ]),
    ("tidegate.v1.AuditService", &[
        ("Emit", AnyOf(&[Host(&[])])),
        ("ListEvents", ADMIN),
    ]),
    ("tidegate.v1.DiscoveryService", &[
        ("AcquireScopes", AnyOf(&[Host(DISCOVERER)])),
        ("AdoptDatabases", ADMIN),
        ("DeleteDiscoveryConfig", ADMIN),
        ("ListDiscoveryConfigs", ADMIN),
        ("ListScopes", AnyOf(&[Admin, Host(DISCOVERER)])),
        ("PlanDiscovery", ADMIN),
        ("PublishScan", AnyOf(&[Host(DISCOVERER)])),
        ("RequestRescan", ADMIN),
        ("UpsertDiscoveryConfig", ADMIN),
        ("WatchDiscoveryConfigs", AnyOf(&[Admin, Host(DISCOVERER)])),
    ]),
    ("tidegate.v1.InventoryService", &[
        ("CreateDatabase", ADMIN),
        ("DeleteDatabase", ADMIN),
        ("GetDatabase", ANYBODY_KNOWN),
        ("ListDatabaseServers", ANYBODY_KNOWN),
        ("ListDatabases", ANYBODY_KNOWN),
        ("ListProxies", ANYBODY_KNOWN),
        ("WatchDatabaseServers", ANYBODY_KNOWN),
        ("WatchDatabases", ANYBODY_KNOWN),
    ]),
    ("tidegate.v1.PresenceService", &[
        ("Announce", AnyOf(&[Host(&["db", "proxy", "discovery"])])),
    ]),
    ("tidegate.v1.SessionService", &[
        ("IssueDatabaseCertificate", AnyOf(&[User])),
        ("Login", Public),
        ("SignUp", Public),
        ("WhoAmI", AnyOf(&[BoundUser, Host(&[]), User])),
    ]),
    ("tidegate.v1.TrustService", &[
        ("GetTrust", Public),
        ("IssueDatabaseServerCertificate", AnyOf(&[Host(&["db"])])),
        ("Join", Public),
        ("RenewHostCertificate", AnyOf(&[Host(&[])])),
    ]),
    ("tidegate.v1.TunnelService", &[
        ("Control", Elsewhere),
    ]),
    ("grpc.health.v1.Health", &[
        ("Check", Public),
        ("Watch", Public),
    ]),
    ("grpc.reflection.v1.ServerReflection", &[
        ("ServerReflectionInfo", Public),
    ]),
    ("grpc.reflection.v1alpha.ServerReflection", &[
        ("ServerReflectionInfo", Public),
    ]),
];

/// Somebody who was let through.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// Nobody known.
    Anonymous,
    /// A service.
    Host(Arc<PeerIdentity>, HostHolder),
    /// Root or the service's user on this machine.
    Local,
    /// A person, and whether it administers.
    User(Arc<PeerIdentity>, UserHolder, bool),
}

impl Caller {
    /// Who sent a request. The guard has put it there.
    pub(super) fn of<T>(request: &Request<T>) -> Self {
        let caller = request.extensions().get::<Self>();
        caller.cloned().unwrap_or(Self::Anonymous)
    }

    /// What it may see of the inventory.
    pub(super) fn viewer(&self) -> Viewer {
        match self {
            Self::Host(..) | Self::Local | Self::User(_, _, true) => Viewer::All,
            Self::User(_, user, false) => Viewer::Person(user.subject()),
            Self::Anonymous => Viewer::Person(tidegate_core::Subject {
                user: String::new(),
                roles: Vec::new(),
                traits: tidegate_core::Traits::new(),
            }),
        }
    }

    /// Its name in the audit log.
    pub(super) fn actor(&self) -> String {
        match self {
            Self::Anonymous => String::new(),
            Self::Host(_, host) => host.host_id.to_string(),
            Self::Local => "local administrator".to_owned(),
            Self::User(_, user, _) => user.name.clone(),
        }
    }

    /// The host that it is.
    pub(super) fn host(&self) -> Result<&HostHolder, Status> {
        match self {
            Self::Host(_, host) => Ok(host),
            _ => Err(denied("only hosts of the cluster may call this")),
        }
    }

    /// The person that it is, and until when it is known.
    pub(super) fn user(&self) -> Result<(&UserHolder, Timestamp), Status> {
        match self {
            Self::User(identity, user, _) => Ok((user, identity.expires_at)),
            _ => Err(denied("only people who logged in may call this")),
        }
    }

    /// The certificate that it showed.
    pub(super) const fn identity(&self) -> Option<&Arc<PeerIdentity>> {
        match self {
            Self::Host(identity, _) | Self::User(identity, ..) => Some(identity),
            Self::Anonymous | Self::Local => None,
        }
    }
}

fn denied(message: &str) -> Status {
    refuse(Code::PermissionDenied, "NOT_ALLOWED", message)
}

/// Why somebody was not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Refusal {
    AccountGone,
    CertificateExpired,
    NotAllowed,
    NoCertificate,
    OtherCluster,
    UnknownMethod,
}

impl Refusal {
    const fn reason(self) -> &'static str {
        match self {
            Self::AccountGone => "ACCOUNT_GONE",
            Self::CertificateExpired => "CERTIFICATE_EXPIRED",
            Self::NotAllowed => "NOT_ALLOWED",
            Self::NoCertificate => "NO_CERTIFICATE",
            Self::OtherCluster => "OTHER_CLUSTER",
            Self::UnknownMethod => "UNKNOWN_METHOD",
        }
    }

    fn status(self) -> Status {
        let (code, message) = match self {
            Self::AccountGone => (Code::Unauthenticated, "your user was deleted"),
            Self::CertificateExpired => (
                Code::Unauthenticated,
                "your certificate has expired: log in again",
            ),
            Self::NotAllowed => (
                Code::PermissionDenied,
                "your certificate does not allow this",
            ),
            Self::NoCertificate => (
                Code::Unauthenticated,
                "this needs a certificate: log in, or join, first",
            ),
            Self::OtherCluster => (
                Code::Unauthenticated,
                "your certificate is of another cluster",
            ),
            Self::UnknownMethod => (Code::Unimplemented, "this service has no such method"),
        };
        refuse(code, self.reason(), message)
    }
}

/// Decides who may pass.
pub(crate) struct Guard {
    cluster: ClusterName,
    inventory: Arc<Inventory>,
    clock: SharedClock,
    methods: HashMap<String, Requirement>,
    refused: Family<RefusalLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    reason: &'static str,
}

impl Guard {
    pub(crate) fn new(
        cluster: ClusterName,
        inventory: Arc<Inventory>,
        clock: SharedClock,
        metrics: &Metrics,
    ) -> Self {
        Self {
            cluster,
            inventory,
            clock,
            methods: table(),
            refused: metrics.register(
                "tidegate_auth_requests_refused_total",
                "gRPC requests that were refused before any service saw them, by reason",
                Family::default(),
            ),
        }
    }

    fn admit(&self, path: &str, peer: &Peer) -> Result<Caller, Refusal> {
        let requirement = self.methods.get(path).ok_or(Refusal::UnknownMethod)?;
        let has_account = |name: &str| self.inventory.tables().users.contains(name);
        decide(
            *requirement,
            peer,
            &self.cluster,
            self.clock.now(),
            has_account,
        )
    }

    fn check(&self, path: &str, peer: &Peer) -> Result<Caller, Status> {
        self.admit(path, peer).map_err(|refusal| {
            let reason = refusal.reason();
            self.refused.get_or_create(&RefusalLabels { reason }).inc();
            tracing::debug!(rpc.method = path, reason, "refused a request");
            refusal.status()
        })
    }
}

/// The table by full method name.
fn table() -> HashMap<String, Requirement> {
    let of_service = |(service, methods): &(&str, &'static [(&str, Requirement)])| {
        let service = (*service).to_owned();
        methods
            .iter()
            .map(move |(method, requirement)| (format!("/{service}/{method}"), *requirement))
    };
    METHODS.iter().flat_map(of_service).collect()
}

/// Pure: whether a peer may call a method that requires this.
fn decide(
    requirement: Requirement,
    peer: &Peer,
    cluster: &ClusterName,
    now: Timestamp,
    has_account: impl Fn(&str) -> bool,
) -> Result<Caller, Refusal> {
    let allowed = match requirement {
        Elsewhere => return Err(Refusal::UnknownMethod),
        // A certificate is not looked at: whoever lost the right to one must be able to log in or join again.
        Public => return Ok(known(peer).unwrap_or(Caller::Anonymous)),
        AnyOf(allowed) => allowed,
    };
    if let Peer::Certified(identity) = peer {
        if identity.cluster != *cluster {
            return Err(Refusal::OtherCluster);
        }
        if identity.expires_at <= now {
            return Err(Refusal::CertificateExpired);
        }
    }
    let caller = known(peer).ok_or(Refusal::NoCertificate)?;
    if let Caller::User(_, user, _) = &caller
        && !has_account(&user.name)
    {
        return Err(Refusal::AccountGone);
    }
    if allowed.iter().any(|who| is(&caller, *who)) {
        Ok(caller)
    } else {
        Err(Refusal::NotAllowed)
    }
}

fn known(peer: &Peer) -> Option<Caller> {
    match peer {
        Peer::Anonymous => None,
        Peer::Local => Some(Caller::Local),
        Peer::Certified(identity) => Some(match &identity.holder {
            Holder::Host(host) => Caller::Host(identity.clone(), host.clone()),
            Holder::User(user) => {
                let admin =
                    user.route.is_none() && user.roles.iter().any(|role| role == ROLE_EDITOR);
                Caller::User(identity.clone(), user.clone(), admin)
            }
        }),
    }
}

fn is(caller: &Caller, who: Who) -> bool {
    match (who, caller) {
        (Admin, Caller::Local) => true,
        (Admin, Caller::User(_, _, admin)) => *admin,
        (BoundUser, Caller::User(_, user, _)) => user.route.is_some(),
        (User, Caller::User(_, user, _)) => user.route.is_none(),
        (Host(services), Caller::Host(_, host)) => {
            services.is_empty()
                || host
                    .services
                    .iter()
                    .any(|service| services.contains(&service.as_str()))
        }
        _ => false,
    }
}

/// Puts the guard in front of services.
#[derive(Clone)]
pub(crate) struct GuardLayer(Arc<Guard>);

impl GuardLayer {
    pub(crate) fn new(guard: Guard) -> Self {
        Self(Arc::new(guard))
    }
}

impl<S> tower::Layer<S> for GuardLayer {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded {
            guard: self.0.clone(),
            inner,
        }
    }
}

/// A service behind the guard.
#[derive(Clone)]
pub(crate) struct Guarded<S> {
    guard: Arc<Guard>,
    inner: S,
}

impl<S, I, O> tower::Service<http::Request<I>> for Guarded<S>
where
    S: tower::Service<http::Request<I>, Response = http::Response<O>>,
    O: Default,
{
    type Response = http::Response<O>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<http::Response<O>, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<I>) -> Self::Future {
        let info = request.extensions().get::<ConnectInfo>();
        let peer = info.map_or(Peer::Anonymous, |info| info.peer.clone());
        match self.guard.check(request.uri().path(), &peer) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                Either::Left(self.inner.call(request))
            }
            Err(status) => Either::Right(ready(Ok(status.into_http()))),
        }
    }
}

#[cfg(test)]
mod tests;
