//! Reading the CAs from the store, making those of a new cluster, and following what other instances change.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt as _;
use tidegate_core::ClusterName;
use tidegate_identity::CaKind;
use tidegate_proto::convert;
use tidegate_service::{
    clock::SharedClock, rpc::Backoff, settings::CaKeySettings, tasks::ShutdownToken,
    telemetry::chain,
};
use tokio::{
    sync::watch as cell,
    time::{MissedTickBehavior, interval},
};

use super::{
    Authority, AuthorityError, Sets,
    rotate::{Moved, RotateRequest},
    rotation::Phase,
    set::{CaSet, Keeping},
};
use crate::{
    audit::AuditLog,
    keys,
    record::{CaRecord, ClusterRecord, decode, encode},
    seal::Keyring,
    store::{CommitError, Entry, RangeQuery, Store, Txn, WatchError, Watched},
};

/// Longest time from one reading of the store to the next.
const REREAD_INTERVAL: Duration = Duration::from_secs(60);
/// How long to wait after a rotation could not be moved on.
const MOVE_RETRY_DELAY: Duration = Duration::from_secs(2);
/// How often keys are encrypted anew when another instance writes them at the same time.
const SEAL_ATTEMPTS_MAX: usize = 8;

/// Why following the store ended.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    Watch(#[from] WatchError),
}

impl Authority {
    /// Reads the authorities, or makes them when the cluster is new. Keys that are in clear are encrypted, when there is
    /// something to encrypt them with.
    pub(crate) async fn load(
        store: &Arc<dyn Store>,
        cluster: &ClusterName,
        ca_keys: Option<&CaKeySettings>,
        clock: SharedClock,
        audit: AuditLog,
    ) -> Result<Self, AuthorityError> {
        check_cluster(store, cluster, &clock).await?;
        let keyring = match ca_keys {
            Some(settings) => Some(keyring(store, settings).await?),
            None => None,
        };
        let keeping = Keeping {
            cluster: cluster.clone(),
            keyring,
        };
        let load = |kind| load_or_make(store, &keeping, kind, &clock);
        let sets = Sets {
            db: load(CaKind::Db).await?,
            host: load(CaKind::Host).await?,
            user: load(CaKind::User).await?,
        };
        if !sets.all().iter().all(|set| set.is_sealed()) {
            tracing::warn!(
                "the private keys of the CAs are not encrypted in the state store: whoever reads it or a backup of it can \
                 issue certificates; set `auth_service.ca_key_params`"
            );
        }
        Ok(Self {
            store: store.clone(),
            clock,
            audit,
            keeping,
            sets: cell::Sender::new(Arc::new(sets)),
        })
    }

    /// Keeps the CAs as the store has them, and moves automatic rotations on, until shutdown.
    pub(crate) async fn follow(self: Arc<Self>, shutdown: ShutdownToken) {
        let mut backoff = Backoff::new();
        loop {
            let ended = tokio::select! {
                () = shutdown.cancelled() => return,
                ended = self.follow_watch(&mut backoff) => ended,
            };
            let Err(error) = ended;
            tracing::error!(
                error = chain(&error),
                "cannot follow the certificate authorities of the state store, starting again"
            );
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(backoff.next()) => {}
            }
        }
    }

    async fn follow_watch(&self, backoff: &mut Backoff) -> Result<Infallible, FollowError> {
        // From a fresh reading: history before it may be gone.
        let revision = self.reread().await?;
        let prefix = Bytes::from_static(keys::CAS.as_bytes());
        let mut watch = self.store.watch(prefix, revision).await?;
        backoff.reset();
        let mut reread = interval(REREAD_INTERVAL);
        reread.set_missed_tick_behavior(MissedTickBehavior::Delay);
        reread.reset();
        loop {
            tokio::select! {
                next = watch.next() => {
                    let next = next.unwrap_or(Err(WatchError::Closed))?;
                    if matches!(next, Watched::Batch(_)) {
                        self.reread().await?;
                    }
                }
                _ = reread.tick() => drop(self.reread().await?),
                // Moved outside of this choice, which would drop a move when its own change arrives.
                (kind, next) = self.due() => self.move_on(kind, next).await,
            }
        }
    }

    /// Waits until an automatic rotation is due to move on; for ever when there is none.
    async fn due(&self) -> (CaKind, Phase) {
        let sets = self.sets();
        let due = sets.all().into_iter().filter_map(|set| {
            let (at, next) = set.due()?;
            Some((at, next, set.kind))
        });
        match due.min_by_key(|(at, ..)| *at) {
            Some((at, next, kind)) => {
                self.clock.wait_until(at).await;
                (kind, next)
            }
            None => std::future::pending().await,
        }
    }

    /// Moves a rotation to the phase that is due. What does not succeed is due still, and tried again after a pause.
    async fn move_on(&self, kind: CaKind, next: Phase) {
        let moved = self.rotate(RotateRequest {
            kinds: vec![kind],
            moved: Moved::Due(next),
            actor: String::new(),
        });
        if let Err(error) = moved.await {
            tracing::warn!(
                ca = kind.as_str(),
                rotation.phase = next.as_str(),
                error = chain(&error),
                "cannot move a rotation on yet"
            );
            tokio::time::sleep(MOVE_RETRY_DELAY).await;
        }
    }

    /// Reads the CAs anew, and tells whoever watches when they changed. Gives a revision from which to watch them.
    pub(super) async fn reread(&self) -> Result<u64, AuthorityError> {
        let known = self.sets();
        let range = self.store.range(RangeQuery::prefix(keys::CAS)).await?;
        let mut read = Vec::with_capacity(CaKind::ALL.len());
        for set in known.all() {
            let key = keys::ca(set.kind.as_str());
            let stored = range.entries.iter().find(|entry| entry.key == key);
            let Some(entry) = stored.filter(|entry| entry.modified > set.revision) else {
                continue;
            };
            let record: CaRecord = decode(entry)?;
            read.push(
                CaSet::read(&self.keeping, set.kind, record, entry.modified, Some(set)).await?,
            );
        }
        self.sets.send_if_modified(|now| {
            let newest = |kind| {
                let now = now.of(kind);
                let read = read.iter().find(|set| set.kind == kind).unwrap_or(now);
                if read.revision > now.revision {
                    read.clone()
                } else {
                    now.clone()
                }
            };
            let sets = Sets {
                db: newest(CaKind::Db),
                host: newest(CaKind::Host),
                user: newest(CaKind::User),
            };
            let changed = CaKind::ALL
                .iter()
                .any(|kind| sets.of(*kind).revision != now.of(*kind).revision);
            if changed {
                *now = Arc::new(sets);
            }
            changed
        });
        Ok(range.revision)
    }
}

/// Opens what encrypts keys. A key file may be made only where no other one has encrypted anything yet.
async fn keyring(
    store: &Arc<dyn Store>,
    settings: &CaKeySettings,
) -> Result<Keyring, AuthorityError> {
    let mut sealed = false;
    for kind in CaKind::ALL {
        if let Some(entry) = store.get(keys::ca(kind.as_str())).await? {
            let record: CaRecord = decode(&entry)?;
            sealed |= record.keys.iter().any(|key| key.sealed.is_some());
        }
    }
    let opened = Keyring::open(settings, !sealed).await;
    opened.map_err(AuthorityError::Keyring)
}

async fn check_cluster(
    store: &Arc<dyn Store>,
    cluster: &ClusterName,
    clock: &SharedClock,
) -> Result<(), AuthorityError> {
    let key = keys::cluster();
    let entry = match store.get(key.clone()).await? {
        Some(entry) => entry,
        None => {
            let record = ClusterRecord {
                name: cluster.to_string(),
                created_at: Some(convert::timestamp(clock.now())),
            };
            match first(store, key, "cluster's name", encode(&record)).await? {
                First::Ours(_) => return Ok(()),
                First::Stored(entry) => entry,
            }
        }
    };
    let stored: ClusterRecord = decode(&entry)?;
    if stored.name == cluster.as_str() {
        return Ok(());
    }
    Err(AuthorityError::Cluster {
        stored: stored.name,
        configured: cluster.to_string(),
    })
}

async fn load_or_make(
    store: &Arc<dyn Store>,
    keeping: &Keeping,
    kind: CaKind,
    clock: &SharedClock,
) -> Result<CaSet, AuthorityError> {
    let key = keys::ca(kind.as_str());
    let entry = match store.get(key.clone()).await? {
        Some(entry) => entry,
        None => {
            let made = CaSet::make(keeping, kind, clock.now()).await?;
            let record = encode(&made.record());
            match first(store, key, "certificate authority", record).await? {
                First::Ours(revision) => return Ok(made.stored_at(revision)),
                First::Stored(entry) => entry,
            }
        }
    };
    seal_stored(store, keeping, kind, entry).await
}

/// Reads stored CAs; those whose keys are not encrypted as they should be are stored anew.
async fn seal_stored(
    store: &Arc<dyn Store>,
    keeping: &Keeping,
    kind: CaKind,
    mut entry: Entry,
) -> Result<CaSet, AuthorityError> {
    let what = "encrypted keys of a certificate authority";
    let mut attempts = 0;
    loop {
        let set = CaSet::read(keeping, kind, decode(&entry)?, entry.modified, None).await?;
        let Some(sealed) = set.sealed(keeping).await? else {
            return Ok(set);
        };
        let key = keys::ca(kind.as_str());
        let txn = Txn::new()
            .at(key.clone(), entry.modified)
            .put(key.clone(), encode(&sealed.record()));
        attempts += 1;
        match store.commit(txn).await {
            Ok(revision) => {
                tracing::info!(
                    ca = kind.as_str(),
                    "encrypted the private key of a certificate authority"
                );
                return Ok(sealed.stored_at(revision));
            }
            Err(CommitError::Unavailable(unavailable)) => return Err(unavailable.into()),
            Err(source) => match store.get(key).await? {
                Some(newer) if attempts < SEAL_ATTEMPTS_MAX => entry = newer,
                _ => return Err(AuthorityError::Commit { what, source }),
            },
        }
    }
}

/// Who was first to store something that is stored once.
enum First {
    /// This process, at this revision.
    Ours(u64),
    /// Somebody else, this.
    Stored(Entry),
}

/// Stores what is stored once. Of several instances that start together one is first, and the others go by what it
/// stored.
async fn first(
    store: &Arc<dyn Store>,
    key: Bytes,
    what: &'static str,
    value: Bytes,
) -> Result<First, AuthorityError> {
    let txn = Txn::new().absent(key.clone()).put(key.clone(), value);
    let refused = match store.commit(txn).await {
        Ok(revision) => return Ok(First::Ours(revision)),
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
