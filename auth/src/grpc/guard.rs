//! Who may call what: decided before any service sees a request, by one table ([`table`]).
//!
//! Services are let in by what their certificate says that they run, people by the rules of their roles, root and the
//! service's user on this machine to everything that administers. The caller is known from the connection. Certificates,
//! accounts and locks are looked at again with each request: a connection may outlive them all. A lock that comes while
//! an answer is under way ends it.
//!
//! Denied calls are in the audit log, whoever denied them.

mod caller;
mod cut;
mod decide;
mod denials;
mod sight;
mod table;

use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::HeaderMap;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};
use tidegate_core::ClusterName;
use tidegate_service::{
    clock::SharedClock,
    metrics::Metrics,
    rpc::{ConnectInfo, Peer},
};
use tonic::{Code, Status, body::Body};

use crate::{
    access::locks::Locks,
    audit::AuditLog,
    backup::Restores,
    grpc::{status::refuse, undecodable},
    inventory::Inventory,
};
pub(crate) use caller::Caller;
use cut::Cut;
use decide::{Cluster, Refusal, decide};
use denials::Denials;
pub(in crate::grpc) use sight::Sight;
use table::{Requirement, table};

/// The reason in the status when no role allows a call.
const REASON_NOT_ALLOWED: &str = "NOT_ALLOWED";

/// What the guard looks at.
pub(crate) struct GuardParts {
    /// The cluster that certificates must be of.
    pub(crate) cluster: ClusterName,
    /// Accounts and roles.
    pub(crate) inventory: Arc<Inventory>,
    /// Who is locked.
    pub(crate) locks: Arc<Locks>,
    /// Is told of denials.
    pub(crate) audit: AuditLog,
    /// The time.
    pub(crate) clock: SharedClock,
    /// Whether the state is whole.
    pub(crate) restores: Arc<Restores>,
}

/// Decides who may pass.
pub(crate) struct Guard {
    parts: GuardParts,
    denials: Denials,
    methods: HashMap<String, Requirement>,
    refused: Family<RefusalLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    reason: &'static str,
}

impl Guard {
    pub(crate) fn new(parts: GuardParts, metrics: &Metrics) -> Self {
        Self {
            denials: Denials::new(parts.audit.clone(), parts.clock.clone()),
            parts,
            methods: table(),
            refused: metrics.register(
                "tidegate_auth_requests_refused_total",
                "gRPC requests that were refused before any service saw them, by reason",
                Family::default(),
            ),
        }
    }

    fn check(&self, path: &str, peer: &Peer) -> Result<Caller, Status> {
        let requirement = self.methods.get(path).ok_or(Refusal::UnknownMethod);
        if self.parts.restores.is_unfinished() && !passes_while_restoring(path) {
            let message = "the state is being restored from a backup; an administrator repeats \
                           `tgctl backup restore` if that was cut off";
            return Err(refuse(Code::Unavailable, "RESTORING", message));
        }
        let policy = self.parts.inventory.roles().policy.clone();
        let cluster = Cluster {
            name: &self.parts.cluster,
            now: self.parts.clock.now(),
            policy: &policy,
            locks: &self.parts.locks.known(),
            has_account: &|name| self.parts.inventory.tables().users.contains(name),
        };
        let decision = requirement.and_then(|required| decide(*required, peer, &cluster));
        decision.map_err(|refusal| {
            let reason = refusal.reason();
            self.refused.get_or_create(&RefusalLabels { reason }).inc();
            tracing::debug!(rpc.method = path, reason, "refused a request");
            let status = refusal.status();
            if status.code() == Code::PermissionDenied
                && let Some(caller) = Caller::known(peer, &policy)
            {
                self.denials.tell(&caller, path, status.message());
            }
            status
        })
    }

    /// What becomes of a service's answer: a denial is told, and a lock can still end it.
    fn answered(
        &self,
        path: &str,
        caller: Caller,
        answer: http::Response<Body>,
    ) -> http::Response<Body> {
        // Nobody's calls are those that need no right; what they come to is told where it is decided.
        let is_public = matches!(self.methods.get(path), Some(Requirement::Public));
        if caller.identity().is_none() || is_public {
            return answer;
        }
        if let Some(error) = denial(answer.headers()) {
            self.denials.tell(&caller, path, &error);
            return answer;
        }
        let (locks, clock) = (self.parts.locks.watch(), self.parts.clock.clone());
        answer.map(|body| Body::new(Cut::new(body, caller, locks, clock)))
    }
}

/// What is served of a state that is neither the old one nor the backup's.
fn passes_while_restoring(path: &str) -> bool {
    path == "/tidegate.v1.BackupService/RestoreBackup" || path.starts_with("/grpc.")
}

/// What a service said when it denied a call without an answer of any length.
fn denial(headers: &HeaderMap) -> Option<String> {
    let status = Status::from_header_map(headers)?;
    (status.code() == Code::PermissionDenied).then(|| status.message().to_owned())
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
    S::Future: Send + 'static,
    S::Error: 'static,
    O: hyper::body::Body<Data = bytes::Bytes> + Send + 'static,
    O::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<I>) -> Self::Future {
        let info = request.extensions().get::<ConnectInfo>();
        let peer = info.map_or(Peer::Anonymous, |info| info.peer.clone());
        let path = request.uri().path().to_owned();
        match self.guard.check(&path, &peer) {
            Ok(caller) => {
                request.extensions_mut().insert(caller.clone());
                let answer = self.inner.call(request);
                let guard = self.guard.clone();
                Box::pin(async move {
                    let answer = undecodable::answered(answer.await?.map(Body::new));
                    Ok(guard.answered(&path, caller, answer))
                })
            }
            Err(status) => Box::pin(async move { Ok(status.into_http()) }),
        }
    }
}

#[cfg(test)]
mod tests;
