//! The cluster's certificate authorities: made once, kept in the store, used to sign; of each kind one, or two while it
//! is rotated.
//!
//! They are read anew whenever the store's records of them change, so that all instances over one store sign with the
//! same and trust the same within moments of a change.
//!
//! Invariant: private keys leave the store for this process's memory only; nothing here prints, lists or sends them.
//!
//! Not here: which phase follows which ([`rotation`]), what they are encrypted with ([`crate::seal`]).

mod error;
mod keep;
mod rotate;
pub(crate) mod rotation;
mod set;

use std::{sync::Arc, time::Duration};

use tidegate_core::{ClusterName, HostId};
use tidegate_identity::{
    CaKind, CaPin, CertificateAuthority, HOST_CERT_TTL, HostLeaf, IdentityError, Issued,
    UserHolder, UserLeaf,
};
use tidegate_proto::{convert, v1};
use tidegate_service::clock::SharedClock;
use tokio::sync::watch as cell;

use crate::{audit::AuditLog, store::Store};
pub(crate) use error::{AuthorityError, RotateError};
pub(crate) use rotate::RotateRequest;
use set::{CaSet, Keeping};

/// The authorities of a cluster.
pub(crate) struct Authority {
    store: Arc<dyn Store>,
    clock: SharedClock,
    audit: AuditLog,
    keeping: Keeping,
    sets: cell::Sender<Arc<Sets>>,
}

/// All CAs, as they were read last.
#[derive(Clone)]
pub(crate) struct Sets {
    db: CaSet,
    host: CaSet,
    user: CaSet,
}

impl Sets {
    const fn of(&self, kind: CaKind) -> &CaSet {
        match kind {
            CaKind::Db => &self.db,
            CaKind::Host => &self.host,
            CaKind::User => &self.user,
        }
    }

    /// By kind.
    const fn all(&self) -> [&CaSet; 3] {
        [&self.db, &self.host, &self.user]
    }
}

/// What a service's certificate is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostRequest<'r> {
    /// SubjectPublicKeyInfo in DER.
    pub(crate) public_key: &'r [u8],
    /// The process.
    pub(crate) host_id: &'r HostId,
    /// Its name for people.
    pub(crate) hostname: &'r str,
    /// What it may run.
    pub(crate) services: &'r [String],
    /// DNS names and addresses.
    pub(crate) names: &'r [String],
}

/// What a service shows.
#[derive(Clone, Debug)]
pub(crate) struct HostIssued {
    /// To servers, and to its own clients when there is no other.
    pub(crate) client: Issued,
    /// To its own clients, where a rotation has not reached servers yet.
    pub(crate) server: Option<Issued>,
}

impl HostIssued {
    /// What is shown as a server.
    pub(crate) fn for_servers(&self) -> &Issued {
        self.server.as_ref().unwrap_or(&self.client)
    }
}

impl From<HostIssued> for v1::HostCertificate {
    fn from(issued: HostIssued) -> Self {
        Self {
            certificate_pem: issued.client.chain_pem,
            expires_at: Some(convert::timestamp(issued.client.expires_at)),
            server_certificate_pem: issued
                .server
                .map(|server| server.chain_pem)
                .unwrap_or_default(),
        }
    }
}

impl Authority {
    /// The cluster.
    pub(crate) const fn cluster(&self) -> &ClusterName {
        &self.keeping.cluster
    }

    fn sets(&self) -> Arc<Sets> {
        self.sets.borrow().clone()
    }

    /// The CAs now, and after each change.
    pub(crate) fn watch(&self) -> cell::Receiver<Arc<Sets>> {
        self.sets.subscribe()
    }

    /// Pins of the host CAs that are trusted, newest first.
    pub(crate) fn pins(&self) -> Vec<CaPin> {
        self.sets().host.pins()
    }

    /// Pin of the host CA that signs what the auth service shows.
    pub(crate) fn pin(&self) -> CaPin {
        self.sets().host.for_servers().pin()
    }

    /// What everybody may know.
    pub(crate) fn trust(&self) -> v1::Trust {
        self.sets().trust(self.cluster())
    }

    /// What hosts are to follow.
    pub(crate) fn followed(&self) -> v1::WatchTrustResponse {
        let sets = self.sets();
        let pin = |ca: &CertificateAuthority| ca.pin().to_string();
        v1::WatchTrustResponse {
            trust: Some(sets.trust(self.cluster())),
            host_client_signer: pin(sets.host.for_clients()),
            host_server_signer: pin(sets.host.for_servers()),
            db_signer: pin(sets.db.for_servers()),
        }
    }

    /// The CAs that callers of this service may have their certificates from.
    pub(crate) fn client_cas_pem(&self) -> String {
        let sets = self.sets();
        format!("{}{}", sets.host.trusted_pem(), sets.user.trusted_pem())
    }

    /// A service's certificate.
    pub(crate) fn issue_host(&self, request: HostRequest<'_>) -> Result<HostIssued, IdentityError> {
        let leaf = HostLeaf {
            public_key: request.public_key,
            cluster: self.cluster(),
            host_id: request.host_id,
            hostname: request.hostname,
            services: request.services,
            names: request.names,
        };
        let (sets, now) = (self.sets(), self.clock.now());
        let (clients, servers) = (sets.host.for_clients(), sets.host.for_servers());
        let client = clients.issue_host(leaf, now, HOST_CERT_TTL)?;
        let server = (clients.pin() != servers.pin())
            .then(|| servers.issue_host(leaf, now, HOST_CERT_TTL))
            .transpose()?;
        Ok(HostIssued { client, server })
    }

    /// What the auth service itself shows: as [`Self::issue_host`] has it for servers, and verifiable by each host CA that
    /// is trusted, as newcomers may have the pin of either.
    pub(crate) fn issue_own(&self, request: HostRequest<'_>) -> Result<Issued, IdentityError> {
        let mut issued = self.issue_host(request)?.for_servers().clone();
        issued.chain_pem.push_str(&self.sets().host.other_chain());
        Ok(issued)
    }

    /// What an agent shows to clients.
    pub(crate) fn issue_database_server(&self, public_key: &[u8]) -> Result<Issued, IdentityError> {
        let (sets, now) = (self.sets(), self.clock.now());
        sets.db
            .for_servers()
            .issue_database_server(public_key, self.cluster(), now, HOST_CERT_TTL)
    }

    /// A person's certificate.
    pub(crate) fn issue_user(
        &self,
        public_key: &[u8],
        user: &UserHolder,
        ttl: Duration,
    ) -> Result<Issued, IdentityError> {
        let leaf = UserLeaf {
            public_key,
            cluster: self.cluster(),
            user,
        };
        let sets = self.sets();
        sets.user
            .for_clients()
            .issue_user(leaf, self.clock.now(), ttl)
    }

    /// The CAs as administrators see them.
    pub(crate) fn list(&self) -> Vec<v1::CertAuthority> {
        self.sets().all().map(CaSet::message).into()
    }
}

impl Sets {
    fn trust(&self, cluster: &ClusterName) -> v1::Trust {
        v1::Trust {
            cluster: cluster.to_string(),
            host_ca_pem: self.host.trusted_pem(),
            user_ca_pem: self.user.trusted_pem(),
            db_ca_pem: self.db.trusted_pem(),
        }
    }
}

#[cfg(test)]
mod tests;
