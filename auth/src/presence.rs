//! Presence: what agents serve and which proxies are up, for as long as they say so.
//!
//! One stream has one lease, which every message keeps; the entries live with it. Losing the stream does nothing at
//! once: who comes back within the lease's time finds its entries, under the same lease, and rewrites only what
//! changed. A goodbye ends the lease, and the entries with it.
//!
//! Invariant: a process writes under its own host id, which is its certificate's, and only what its services allow.

mod conflicts;

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tidegate_core::{DatabaseServer, HostId, labels::LABELS_MAX};
use tidegate_identity::HostHolder;
use tidegate_proto::{Invalid, convert, v1};
use tidegate_service::clock::SharedClock;

pub(crate) use conflicts::Conflicts;

use crate::{
    audit::AuditLog,
    inventory::Inventory,
    keys,
    record::{decode, encode},
    store::{
        CommitError, Entry, LeaseError, LeaseId, RangeQuery, Store, StoreUnavailable, Txn,
        chunks::Chunks,
    },
};

/// Databases that one agent may serve.
const SERVERS_PER_HOST_MAX: usize = 50_000;
/// Bytes of them in parts that wait for their last one.
const PARTS_BYTES_MAX: usize = 128 << 20;
/// Entries changed in one transaction.
const CHANGES_PER_TXN_MAX: usize = 500;
/// Longest text of a hello.
const TEXT_CHARS_MAX: usize = 255;
/// Signs of life within one lease, so that a lost one costs nothing.
const HEARTBEATS_PER_LEASE: u64 = 3;

/// Why an announcement was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PresenceError {
    /// The certificate does not allow it.
    #[error("the certificate of this host does not allow {what}")]
    Denied {
        /// What was tried.
        what: &'static str,
    },
    /// A message is wrong.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The lease ran out: everything has to be announced again.
    #[error("presence has run out: connect again and announce everything")]
    LeaseGone,
    /// The store refused what should fit: a fault of ours.
    #[error("cannot write presence")]
    Refused(#[source] CommitError),
    /// The store does not answer.
    #[error(transparent)]
    Unavailable(#[from] StoreUnavailable),
}

impl From<CommitError> for PresenceError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::LeaseGone { .. } => Self::LeaseGone,
            CommitError::Unavailable(unavailable) => Self::Unavailable(unavailable),
            other => Self::Refused(other),
        }
    }
}

/// Takes announcements.
pub(crate) struct Presence {
    /// The state.
    pub(crate) store: Arc<dyn Store>,
    /// What is shown of it.
    pub(crate) inventory: Arc<Inventory>,
    /// The time.
    pub(crate) clock: SharedClock,
    /// Where conflicts are told.
    pub(crate) audit: AuditLog,
    /// Which were told.
    pub(crate) conflicts: Conflicts,
    /// How long entries outlive the last sign of life.
    pub(crate) lease: Duration,
}

/// One process that said hello.
pub(crate) struct Session {
    presence: Arc<Presence>,
    host: HostHolder,
    version: String,
    lease: LeaseId,
    /// Names of databases that it serves.
    names: HashSet<String>,
    /// A change of which more follows.
    parts: Option<Change>,
}

/// What an agent serves from now on, as it is stored.
#[derive(Default)]
struct Change {
    full: bool,
    wanted: BTreeMap<String, Bytes>,
    removed: Vec<String>,
    /// Bytes in `wanted` and `removed`.
    bytes: usize,
}

impl Presence {
    /// How often a sign of life is asked for.
    pub(crate) fn heartbeat_seconds(&self) -> u32 {
        u32::try_from(self.lease.as_secs() / HEARTBEATS_PER_LEASE)
            .map_or(1, |seconds| seconds.max(1))
    }

    /// Begins with a hello, and gives the revision that shows it.
    pub(crate) async fn hello(
        self: &Arc<Self>,
        host: &HostHolder,
        hello: v1::Hello,
    ) -> Result<(Session, u64), PresenceError> {
        let mut hello = checked_hello(host, hello)?;
        let host_id = host.host_id.as_str();
        let (lease, since) = match self.earlier_lease(host_id, &hello.services).await? {
            Some(earlier) => earlier,
            None => (self.store.grant(self.lease).await?, None),
        };
        hello.since = since.or_else(|| Some(convert::timestamp(self.clock.now())));
        let value = encode(&hello);
        let mut txn = Txn::new();
        for service in &hello.services {
            let key = keys::host(host_id, service);
            if !is_same(self.store.get(key.clone()).await?.as_ref(), &value, lease) {
                txn = txn.put_with(key, value.clone(), Some(lease));
            }
        }
        let revision = self.store.commit(txn).await?;
        self.inventory.reached(revision).await;
        tracing::info!(
            host.id = host_id,
            host.name = host.hostname,
            services = hello.services.join(","),
            "a host is up"
        );
        let session = Session {
            presence: self.clone(),
            host: host.clone(),
            version: hello.version,
            lease,
            names: HashSet::new(),
            parts: None,
        };
        Ok((session, revision))
    }

    /// The lease of an earlier stream of the same process and services, if it still lives, and since when it was up.
    async fn earlier_lease(
        &self,
        host_id: &str,
        services: &[String],
    ) -> Result<Option<(LeaseId, Option<prost_types::Timestamp>)>, StoreUnavailable> {
        let mut leases = HashSet::new();
        let mut since = None;
        for service in services {
            let entry = self.store.get(keys::host(host_id, service)).await?;
            let told = entry
                .as_ref()
                .and_then(|entry| decode::<v1::Hello>(entry).ok());
            since = since.or_else(|| told?.since);
            leases.insert(entry.and_then(|entry| entry.lease));
        }
        let one = if leases.len() == 1 {
            leases.into_iter().next().flatten()
        } else {
            None
        };
        let Some(lease) = one else { return Ok(None) };
        match self.store.keep_alive(lease).await {
            Ok(()) => Ok(Some((lease, since))),
            Err(LeaseError::Gone(_)) => Ok(None),
            Err(LeaseError::Unavailable(unavailable)) => Err(unavailable),
        }
    }
}

fn too_many() -> Invalid {
    let problem =
        format!("make more than {SERVERS_PER_HOST_MAX} databases of one agent, or too large ones");
    Invalid::new("delta.upserted", problem)
}

fn is_same(entry: Option<&Entry>, value: &Bytes, lease: LeaseId) -> bool {
    entry.is_some_and(|entry| entry.value == *value && entry.lease == Some(lease))
}

fn checked_hello(host: &HostHolder, hello: v1::Hello) -> Result<v1::Hello, PresenceError> {
    let mut services = hello.services;
    services.sort();
    services.dedup();
    if services.is_empty() {
        return Err(Invalid::new("hello.services", "are missing").into());
    }
    if !services
        .iter()
        .all(|service| host.services.contains(service))
    {
        return Err(PresenceError::Denied {
            what: "the services that it announces",
        });
    }
    let texts = [&hello.version, &hello.public_addr];
    if texts.into_iter().any(|text| text.len() > TEXT_CHARS_MAX) {
        return Err(Invalid::new("hello", "holds too long a text").into());
    }
    let is_proxy = services.iter().any(|service| service == "proxy");
    if !is_proxy && !hello.public_addr.is_empty() {
        return Err(PresenceError::Denied {
            what: "an address: it announces no proxy",
        });
    }
    Ok(v1::Hello {
        hostname: host.hostname.clone(),
        version: hello.version,
        public_addr: hello.public_addr,
        services,
        since: None,
    })
}

impl Session {
    /// Its host, for logs.
    pub(crate) const fn host_id(&self) -> &HostId {
        &self.host.host_id
    }

    /// Keeps the lease.
    pub(crate) async fn heartbeat(&self) -> Result<(), PresenceError> {
        match self.presence.store.keep_alive(self.lease).await {
            Ok(()) => Ok(()),
            Err(LeaseError::Gone(_)) => Err(PresenceError::LeaseGone),
            Err(LeaseError::Unavailable(unavailable)) => Err(unavailable.into()),
        }
    }

    /// Ends presence at once.
    pub(crate) async fn goodbye(self) -> Result<(), PresenceError> {
        self.presence.store.revoke(self.lease).await?;
        tracing::info!(host.id = %self.host.host_id, host.name = self.host.hostname, "a host said goodbye");
        Ok(())
    }

    /// Takes a change of what is served, or all of it, or a part of either, and gives the revision that shows it; for a
    /// part that is not the last, the present one.
    pub(crate) async fn delta(&mut self, delta: v1::AnnounceDelta) -> Result<u64, PresenceError> {
        self.heartbeat().await?;
        let serves = self.host.services.iter().any(|service| service == "db");
        if !serves && (!delta.upserted.is_empty() || !delta.removed.is_empty()) {
            return Err(PresenceError::Denied {
                what: "to serve databases",
            });
        }
        let more = delta.more;
        let change = self.joined(delta)?;
        if more {
            self.parts = Some(change);
            return Ok(self.presence.inventory.revision());
        }
        self.apply(change).await
    }

    /// What came before and this part of it.
    fn joined(&mut self, delta: v1::AnnounceDelta) -> Result<Change, Invalid> {
        let mut change = match self.parts.take() {
            Some(earlier) if earlier.full != delta.full => {
                return Err(Invalid::new(
                    "delta.full",
                    "differs from that of the part before",
                ));
            }
            Some(earlier) => earlier,
            None => Change {
                full: delta.full,
                ..Change::default()
            },
        };
        for name in delta.removed {
            change.bytes += name.len();
            change.removed.push(name);
        }
        for server in delta.upserted {
            let (name, value) = self.checked(server)?;
            change.bytes += name.len() + value.len();
            change.wanted.insert(name, value);
        }
        let names = change.wanted.len().max(change.removed.len());
        if names > SERVERS_PER_HOST_MAX || change.bytes > PARTS_BYTES_MAX {
            return Err(too_many());
        }
        Ok(change)
    }

    async fn apply(&mut self, change: Change) -> Result<u64, PresenceError> {
        let Change {
            full,
            mut wanted,
            removed,
            ..
        } = change;
        let stored = if full {
            self.stored().await?
        } else {
            BTreeMap::new()
        };
        let removed: Vec<String> = if full {
            self.names.clear();
            stored
                .keys()
                .filter(|name| !wanted.contains_key(*name))
                .cloned()
                .collect()
        } else {
            removed
        };
        for name in &removed {
            self.names.remove(name);
        }
        self.names.extend(wanted.keys().cloned());
        if self.names.len() > SERVERS_PER_HOST_MAX {
            return Err(too_many().into());
        }
        wanted.retain(|name, value| !is_same(stored.get(name), value, self.lease));
        let changed: Vec<String> = wanted.keys().chain(&removed).cloned().collect();
        let revision = self.write(wanted, removed).await?;
        let Presence {
            inventory, audit, ..
        } = &*self.presence;
        let conflicts = &self.presence.conflicts;
        conflicts.look(inventory, audit, &self.host, &changed);
        Ok(revision)
    }

    async fn write(
        &self,
        wanted: BTreeMap<String, Bytes>,
        mut removed: Vec<String>,
    ) -> Result<u64, PresenceError> {
        removed.sort();
        removed.dedup();
        removed.retain(|name| !wanted.contains_key(name));
        let host_id = self.host.host_id.as_str();
        let mut changes: Vec<(Bytes, Option<Bytes>)> = wanted
            .into_iter()
            .map(|(name, value)| (keys::presence(host_id, &name), Some(value)))
            .collect();
        changes.extend(
            removed
                .iter()
                .map(|name| (keys::presence(host_id, name), None)),
        );
        let mut revision = self.presence.inventory.revision();
        let mut chunks = Chunks::new(&changes, CHANGES_PER_TXN_MAX);
        while let Some(chunk) = chunks.next() {
            let txn = chunk
                .iter()
                .cloned()
                .fold(Txn::new(), |txn, change| match change {
                    (key, Some(value)) => txn.put_with(key, value, Some(self.lease)),
                    (key, None) => txn.delete(key),
                });
            match self.presence.store.commit(txn).await {
                Ok(written) => revision = written,
                Err(error) => chunks.give_back(chunk, error)?,
            }
        }
        self.presence.inventory.reached(revision).await;
        Ok(revision)
    }

    /// What is stored of this host, by database.
    async fn stored(&self) -> Result<BTreeMap<String, Entry>, StoreUnavailable> {
        let prefix = keys::presence(self.host.host_id.as_str(), "");
        let mut query = RangeQuery::prefix(prefix.clone());
        let mut stored = BTreeMap::new();
        loop {
            let page = self.presence.store.range(query.clone()).await?;
            query.after = page.entries.last().map(|entry| entry.key.clone());
            for entry in page.entries {
                let name = String::from_utf8_lossy(&entry.key[prefix.len()..]).into_owned();
                stored.insert(name, entry);
            }
            if !page.more {
                return Ok(stored);
            }
        }
    }

    /// A database server as it is stored: checked, and under the caller's own name.
    fn checked(&self, server: v1::DatabaseServer) -> Result<(String, Bytes), Invalid> {
        let mut server = server;
        server.host_id = self.host.host_id.to_string();
        server.hostname.clone_from(&self.host.hostname);
        if server.version.is_empty() {
            server.version.clone_from(&self.version);
        }
        let server = DatabaseServer::try_from(server)?;
        if server.database.labels.len() > LABELS_MAX {
            let problem = format!("are more than {LABELS_MAX}");
            return Err(Invalid::new("delta.upserted.database.labels", problem));
        }
        let name = server.database.name.to_string();
        Ok((name, encode(&v1::DatabaseServer::from(server))))
    }
}
