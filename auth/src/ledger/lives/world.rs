//! A small AWS, the workers that scan it, and a control plane over a real store that can be restarted.
//!
//! Here: its life. Scans on their way are in [`streams`], what must hold in [`checks`].

mod checks;
mod streams;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use tempfile::TempDir;
use tidegate_proto::v1;
use tidegate_service::{clock::ManualClock, metrics::Metrics, tasks::ShutdownToken};

use super::{
    super::{AcquireError, AdoptError, Ledger, LedgerParts, Worker},
    flaky::{Failure, Flaky},
};
use crate::{
    audit::AuditLog,
    inventory::Inventory,
    service::Timings,
    store::sqlite::{Monotonic, SqliteOptions, SqliteStore},
};

use super::parts::*;

pub(in crate::ledger::lives) struct World {
    directory: TempDir,
    audit: AuditLog,
    time: Arc<ManualTime>,
    clock: ManualClock,
    house: Option<House>,
    aws: Aws,
    workers: [Process; WORKERS],
    streams: Vec<Stream>,
    /// The last epoch of each scope and whose it was.
    epochs: BTreeMap<usize, (u64, usize)>,
    /// What named scopes saw and do not own.
    claims: BTreeMap<usize, BTreeSet<u8>>,
    names: BTreeMap<u8, String>,
    /// What may not be missing.
    safe: BTreeSet<u8>,
}

/// A folder in memory where there is one: the store waits for the disk at each commit.
pub(in crate::ledger::lives) fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

impl World {
    pub(in crate::ledger::lives) async fn new(audit: &AuditLog) -> Self {
        let clock = ManualClock::new(START);
        let worker = |host, group, scopes: &[usize]| Process {
            host,
            group,
            configuration: scopes.iter().copied().collect(),
            alive: true,
            life: 0,
            grants: BTreeMap::new(),
            until: Duration::ZERO,
        };
        let mut world = Self {
            directory: folder(),
            audit: audit.clone(),
            time: Arc::default(),
            clock,
            house: None,
            aws: Aws::new(),
            workers: [
                worker("host-a", "prod", &[0, 1, 2]),
                worker("host-b", "prod", &[1]),
                worker("host-c", "lab", &[3, 4]),
            ],
            streams: Vec::new(),
            epochs: BTreeMap::new(),
            claims: BTreeMap::new(),
            names: BTreeMap::new(),
            safe: BTreeSet::new(),
        };
        world.start().await;
        world
    }

    /// A new cluster with the same configuration and the same AWS.
    pub(in crate::ledger::lives) async fn fresh(&self) -> Self {
        let mut fresh = Self::new(&self.audit).await;
        fresh.aws = self.aws.clone();
        for (fresh, worker) in fresh.workers.iter_mut().zip(&self.workers) {
            fresh.configuration = worker.configuration.clone();
        }
        fresh
    }

    pub(in crate::ledger::lives) async fn start(&mut self) {
        let options = SqliteOptions {
            time: self.time.clone(),
            ..SqliteOptions::default()
        };
        let store = SqliteStore::open(self.directory.path(), options).unwrap();
        let (inventory, watch) = Inventory::load(store.clone()).await.unwrap();
        let shutdown = ShutdownToken::new();
        tokio::spawn(inventory.clone().follow(watch, shutdown.clone()));
        let flaky = Arc::new(Flaky {
            store: store.clone(),
            failure: Mutex::default(),
        });
        let parts = LedgerParts {
            store: flaky.clone(),
            inventory: inventory.clone(),
            audit: self.audit.clone(),
            clock: Arc::new(self.clock.clone()),
            timings: Timings {
                retire_grace_min: STEP * 3,
                ..Timings::default()
            },
        };
        let ledger = Ledger::open(parts, &Metrics::new()).await.unwrap();
        let workers = self.workers.iter();
        let watching = workers.map(|worker| ledger.watching(worker.host, worker.group));
        self.house = Some(House {
            _watching: watching.collect(),
            store,
            flaky,
            inventory,
            ledger,
            shutdown,
        });
    }

    /// The service stops and starts; streams that it had are broken.
    pub(in crate::ledger::lives) async fn restart(&mut self) {
        let house = self.house.take().expect("it runs");
        house.shutdown.cancel();
        house.store.close().await;
        drop(house);
        self.streams.retain(|stream| !stream.begun);
        self.start().await;
        self.look().await;
    }

    pub(in crate::ledger::lives) fn house(&self) -> &House {
        self.house.as_ref().expect("it runs")
    }

    pub(in crate::ledger::lives) fn now(&self) -> Duration {
        self.time.elapsed()
    }

    pub(in crate::ledger::lives) async fn tag(&mut self, database: u8, env: u8) {
        self.aws.insert(database, env);
        self.look().await;
    }

    pub(in crate::ledger::lives) async fn remove(&mut self, database: u8) {
        self.aws.remove(&database);
        self.look().await;
    }

    /// A write of the service is going to fail.
    pub(in crate::ledger::lives) fn break_down(&self, failure: Option<Failure>) {
        *self.house().flaky.failure.lock().unwrap() = failure;
    }

    pub(in crate::ledger::lives) fn die(&mut self, worker: usize) {
        self.workers[worker].alive = false;
    }

    pub(in crate::ledger::lives) fn come_back(&mut self, worker: usize) {
        let worker = &mut self.workers[worker];
        if !worker.alive {
            worker.alive = true;
            worker.life += 1;
            worker.grants.clear();
        }
    }

    /// Gives a worker another configuration: the scopes of its group whose bits are set.
    pub(in crate::ledger::lives) fn configure(&mut self, worker: usize, wanted: u8) {
        let worker = &mut self.workers[worker];
        worker.configuration = (0..SCOPES)
            .filter(|scope| wanted >> scope & 1 == 1 && scopes()[*scope].group == worker.group)
            .collect();
    }

    /// A worker asks for what it is configured to scan.
    pub(in crate::ledger::lives) async fn ask(&mut self, index: usize) {
        self.renew(index).await;
        self.look().await;
    }

    pub(in crate::ledger::lives) async fn renew(&mut self, index: usize) {
        let worker = &self.workers[index];
        if !worker.alive {
            return;
        }
        let named = worker.configuration.iter();
        let asked = named
            .map(|scope| v1::ScanScope::from(&scopes()[*scope]))
            .collect();
        let caller = Worker {
            host_id: worker.host,
            hostname: worker.host,
        };
        let answer = match self.house().ledger.acquire(caller, asked).await {
            Ok(answer) => answer,
            Err(AcquireError::Unavailable(_)) => {
                // It goes on with what it was told before; who else was is not known.
                self.catch_up().await;
                self.workers[index].until = Duration::ZERO;
                return;
            }
            Err(error) => panic!("{error:?}"),
        };
        let until = self.now() + Duration::from_secs(answer.lease_seconds.into());
        let held = answer.grants.into_iter().filter(|grant| grant.held);
        let grants: BTreeMap<usize, Grant> = held
            .map(|grant| {
                let v1::ScopeGrant { epoch, rescan, .. } = grant;
                (scope_with(&grant.scope_id), Grant { epoch, rescan })
            })
            .collect();
        for (scope, grant) in &grants {
            self.check_grant(index, *scope, grant.epoch);
        }
        let worker = &mut self.workers[index];
        worker.grants = grants;
        worker.until = until;
    }

    /// A scope has one holder at a time, and each new one has a higher epoch.
    pub(in crate::ledger::lives) fn check_grant(&mut self, index: usize, scope: usize, epoch: u64) {
        let now = self.now();
        for (other, worker) in self.workers.iter().enumerate() {
            let holds = worker.until > now && worker.grants.contains_key(&scope);
            assert!(
                other == index || !holds,
                "scope {scope} has two holders, {other} and {index}"
            );
        }
        let (last, whose) = self
            .epochs
            .insert(scope, (epoch, index))
            .unwrap_or((0, index));
        assert!(
            epoch > last || (epoch, index) == (last, whose),
            "scope {scope} was given to {index} with epoch {epoch} after {whose} had {last}"
        );
    }

    /// Time passes in steps; live workers ask again in each, or hang.
    pub(in crate::ledger::lives) async fn pass(&mut self, steps: u8, renew: bool) {
        for _ in 0..steps {
            *self.time.0.lock().unwrap() += STEP;
            self.clock.advance(STEP);
            self.house().store.expire_leases().await;
            self.catch_up().await;
            self.look().await;
            if renew {
                for worker in 0..WORKERS {
                    self.renew(worker).await;
                }
                self.look().await;
            }
            self.tend().await;
        }
    }

    pub(in crate::ledger::lives) async fn tend(&mut self) {
        if self.house().ledger.end_what_is_over().await.is_err() {
            self.catch_up().await;
        }
        self.look().await;
    }

    pub(in crate::ledger::lives) async fn catch_up(&self) {
        self.house().ledger.catch_up().await.unwrap();
    }

    pub(in crate::ledger::lives) async fn ask_for_scans(&mut self, scope: Option<usize>) {
        let scope_ids = scope.map(|scope| scopes()[scope].id().0);
        let request = v1::RequestRescanRequest {
            scope_ids: scope_ids.into_iter().collect(),
        };
        // Without the store nobody is asked.
        let _ = self.house().ledger.rescan(request).await;
    }

    pub(in crate::ledger::lives) async fn adopt(&mut self, into_lab: bool) {
        let (from, to) = if into_lab {
            ("prod", "lab")
        } else {
            ("lab", "prod")
        };
        // Refused while the group lives or when nobody is there to adopt.
        match self.house().ledger.adopt(from, to).await {
            Err(AdoptError::Alive { .. } | AdoptError::NoScopes { .. }) => {}
            _ => self
                .claims
                .retain(|scope, _| scopes()[*scope].group != from),
        }
        self.catch_up().await;
        self.look().await;
    }

    pub(in crate::ledger::lives) async fn close(mut self) {
        if let Some(house) = self.house.take() {
            house.shutdown.cancel();
            house.store.close().await;
        }
    }
}
