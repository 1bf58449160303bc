//! The cluster's certificate authorities: made once, kept in the store, used to sign.
//!
//! Invariant: private keys leave the store for this process's memory only; nothing here prints, lists or sends them.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use secrecy::ExposeSecret as _;
use tidegate_core::{ClusterName, HostId};
use tidegate_identity::{
    CaKind, CaPin, CertificateAuthority, HOST_CERT_TTL, HostLeaf, IdentityError, Issued,
    UserHolder, UserLeaf,
};
use tidegate_proto::{convert, v1};
use tidegate_service::clock::SharedClock;

use crate::{
    keys,
    record::{CaRecord, ClusterRecord, RecordError, decode, encode},
    store::{CommitError, Entry, Store, StoreUnavailable, Txn},
};

/// Why the cluster's authorities cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthorityError {
    /// They could not be stored.
    #[error("cannot store the {what}")]
    Commit {
        /// What was new.
        what: &'static str,
        /// Why not.
        source: CommitError,
    },
    /// The state belongs to a cluster of another name.
    #[error(
        "the state is of cluster `{stored}`, and the configuration says `{configured}`: the name cannot change"
    )]
    Cluster {
        /// As stored.
        stored: String,
        /// As configured.
        configured: String,
    },
    /// A certificate or key cannot be made or read.
    #[error("cannot make or read the {ca} CA")]
    Identity {
        /// Which.
        ca: &'static str,
        /// Why.
        source: IdentityError,
    },
    /// A record cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The store does not answer.
    #[error(transparent)]
    Unavailable(#[from] StoreUnavailable),
}

/// The three authorities of a cluster.
pub(crate) struct Authority {
    cluster: ClusterName,
    host: CertificateAuthority,
    user: CertificateAuthority,
    db: CertificateAuthority,
    clock: SharedClock,
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

impl Authority {
    /// Reads the authorities, or makes them when the cluster is new.
    pub(crate) async fn load(
        store: &Arc<dyn Store>,
        cluster: &ClusterName,
        clock: SharedClock,
    ) -> Result<Self, AuthorityError> {
        check_cluster(store, cluster, &clock).await?;
        let load = |kind| load_ca(store, kind, cluster, &clock);
        Ok(Self {
            host: load(CaKind::Host).await?,
            user: load(CaKind::User).await?,
            db: load(CaKind::Db).await?,
            cluster: cluster.clone(),
            clock,
        })
    }

    /// The cluster.
    pub(crate) const fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// Pin of the host CA.
    pub(crate) const fn pin(&self) -> CaPin {
        self.host.pin()
    }

    /// What everybody may know.
    pub(crate) fn trust(&self) -> v1::Trust {
        v1::Trust {
            cluster: self.cluster.to_string(),
            host_ca_pem: self.host.cert_pem().to_owned(),
            user_ca_pem: self.user.cert_pem().to_owned(),
            db_ca_pem: self.db.cert_pem().to_owned(),
        }
    }

    /// The CAs that callers of this service may have their certificates from.
    pub(crate) fn client_cas_pem(&self) -> String {
        format!("{}{}", self.host.cert_pem(), self.user.cert_pem())
    }

    /// A service's certificate.
    pub(crate) fn issue_host(&self, request: HostRequest<'_>) -> Result<Issued, IdentityError> {
        let leaf = HostLeaf {
            public_key: request.public_key,
            cluster: &self.cluster,
            host_id: request.host_id,
            hostname: request.hostname,
            services: request.services,
            names: request.names,
        };
        self.host.issue_host(leaf, self.clock.now(), HOST_CERT_TTL)
    }

    /// What an agent shows to clients.
    pub(crate) fn issue_database_server(&self, public_key: &[u8]) -> Result<Issued, IdentityError> {
        self.db
            .issue_database_server(public_key, &self.cluster, self.clock.now(), HOST_CERT_TTL)
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
            cluster: &self.cluster,
            user,
        };
        self.user.issue_user(leaf, self.clock.now(), ttl)
    }
}

async fn check_cluster(
    store: &Arc<dyn Store>,
    cluster: &ClusterName,
    clock: &SharedClock,
) -> Result<(), AuthorityError> {
    let record = ClusterRecord {
        name: cluster.to_string(),
        created_at: Some(convert::timestamp(clock.now())),
    };
    let made = || Ok(encode(&record));
    let stored: ClusterRecord = match first(store, keys::cluster(), "cluster's name", made).await? {
        First::Ours => return Ok(()),
        First::Stored(entry) => decode(&entry)?,
    };
    if stored.name == cluster.as_str() {
        return Ok(());
    }
    Err(AuthorityError::Cluster {
        stored: stored.name,
        configured: cluster.to_string(),
    })
}

async fn load_ca(
    store: &Arc<dyn Store>,
    kind: CaKind,
    cluster: &ClusterName,
    clock: &SharedClock,
) -> Result<CertificateAuthority, AuthorityError> {
    let failed = |source| AuthorityError::Identity {
        ca: kind.as_str(),
        source,
    };
    let mut ours = None;
    let make = || {
        let made = CertificateAuthority::create(kind, cluster, clock.now()).map_err(failed)?;
        let record = CaRecord {
            cert_pem: made.cert_pem().to_owned(),
            key_pem: made.key_pem().expose_secret().to_owned(),
        };
        ours = Some(made);
        Ok(encode(&record))
    };
    let stored = first(
        store,
        keys::ca(kind.as_str()),
        "certificate authority",
        make,
    )
    .await?;
    match (stored, ours) {
        (First::Ours, Some(made)) => {
            tracing::info!(ca = kind.as_str(), pin = %made.pin(), "made a certificate authority");
            Ok(made)
        }
        (First::Ours, None) => unreachable!("what was stored was made"),
        (First::Stored(entry), _) => {
            let record: CaRecord = decode(&entry)?;
            CertificateAuthority::from_pem(&record.cert_pem, &record.key_pem).map_err(failed)
        }
    }
}

/// Who was first to store something that is stored once.
enum First {
    /// This process.
    Ours,
    /// Somebody else, this.
    Stored(Entry),
}

/// Reads what is stored once, or makes and stores it. Of several instances that start together one is first, and the
/// others go by what it stored.
async fn first(
    store: &Arc<dyn Store>,
    key: Bytes,
    what: &'static str,
    make: impl FnOnce() -> Result<Bytes, AuthorityError> + Send,
) -> Result<First, AuthorityError> {
    if let Some(entry) = store.get(key.clone()).await? {
        return Ok(First::Stored(entry));
    }
    let txn = Txn::new().absent(key.clone()).put(key.clone(), make()?);
    let refused = match store.commit(txn).await {
        Ok(_) => return Ok(First::Ours),
        Err(CommitError::Unavailable(unavailable)) => return Err(unavailable.into()),
        Err(refused) => refused,
    };
    match store.get(key).await? {
        Some(entry) => Ok(First::Stored(entry)),
        None => Err(AuthorityError::Commit {
            what,
            source: refused,
        }),
    }
}

#[cfg(test)]
mod tests {
    use tidegate_service::clock::SystemClock;

    use super::*;
    use crate::store::sqlite::{SqliteOptions, SqliteStore};

    #[tokio::test]
    async fn instances_that_start_together_have_the_same_authorities() {
        let directory = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> =
            SqliteStore::open(directory.path(), SqliteOptions::default()).unwrap();
        let name = |name: &str| name.parse::<ClusterName>().unwrap();
        let load = async |cluster: ClusterName| {
            let clock = Arc::new(SystemClock);
            let loaded = Authority::load(&store, &cluster, clock).await;
            loaded.map(|authority| authority.trust())
        };
        let ours = || load(name("a.test"));
        let (first, second, third) = tokio::join!(ours(), ours(), ours());
        let first = first.unwrap();
        assert_eq!(first, second.unwrap());
        assert_eq!(first, third.unwrap());
        let other = load(name("b.test")).await;
        assert!(matches!(other, Err(AuthorityError::Cluster { .. })));
    }
}
