//! Two instances over one store, of which a worker's scans reach now the one, now the other.

use std::{sync::Arc, time::Duration};

use tidegate_core::ScanScope;
use tidegate_identity::secret;
use tidegate_proto::{convert::timestamp, v1};
use tidegate_service::{
    clock::{Clock as _, ManualClock},
    metrics::Metrics,
    tasks::ShutdownToken,
};

use super::{
    super::{Begun, Header, Items, Ledger, LedgerParts, PublishError, Worker, plan::Seen},
    parts::{START, identity, item, scopes},
    world::folder,
};
use crate::{
    audit::AuditLog,
    inventory::{Inventory, tables::Row as _},
    service::Timings,
    store::sqlite::{SqliteOptions, SqliteStore},
};

const WORKER: Worker<'static> = Worker {
    host_id: "host-a",
    hostname: "a",
};

struct Instances {
    ledgers: [Ledger; 2],
    clock: ManualClock,
    shutdown: ShutdownToken,
    _directory: tempfile::TempDir,
}

impl Drop for Instances {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// A scan: what its header and its items say.
struct Scan {
    header: Header,
    seen: Seen,
}

impl Instances {
    async fn new() -> Self {
        let directory = folder();
        let store = SqliteStore::open(directory.path(), SqliteOptions::default()).unwrap();
        let clock = ManualClock::new(START);
        let shared = Arc::new(clock.clone());
        let audit = AuditLog::open(directory.path(), shared.clone()).unwrap();
        let shutdown = ShutdownToken::new();
        let instance = async || {
            let (inventory, watch) = Inventory::load(store.clone()).await.unwrap();
            tokio::spawn(inventory.clone().follow(watch, shutdown.clone()));
            let parts = LedgerParts {
                store: store.clone(),
                inventory,
                audit: audit.clone(),
                clock: shared.clone(),
                timings: Timings::default(),
            };
            Ledger::open(parts, &Metrics::new()).await.unwrap()
        };
        let ledgers = [instance().await, instance().await];
        Self {
            ledgers,
            clock,
            shutdown,
            _directory: directory,
        }
    }

    /// The epochs of the first scopes of the worker's group, handed out by the first instance.
    async fn epochs<const N: usize>(&self) -> [u64; N] {
        let wanted = scopes()[..N].iter().map(v1::ScanScope::from).collect();
        let granted = self.ledgers[0].acquire(WORKER, wanted).await.unwrap();
        std::array::from_fn(|index| granted.grants[index].epoch)
    }

    fn scan(&self, scope: &ScanScope, epoch: u64, databases: &[(u8, u8)]) -> Scan {
        // No two scans of a worker start at once.
        self.clock.advance(Duration::from_millis(1));
        let now = Some(timestamp(self.clock.now()));
        let header = Header::try_from(v1::ScanHeader {
            scope: Some(scope.into()),
            epoch,
            completeness: v1::Completeness::Complete.into(),
            digest: secret::digest(&format!("{databases:?}")).to_vec(),
            started_at: now,
            finished_at: now,
            ..v1::ScanHeader::default()
        })
        .unwrap();
        let mut items = Items::new(&header);
        for (database, env) in databases {
            items.push(item(*database, Some(*env))).unwrap();
        }
        let count = u32::try_from(databases.len()).unwrap();
        let seen = items.finish(v1::ScanTrailer { items: count }).unwrap();
        Scan { header, seen }
    }

    async fn begin(&self, instance: usize, scan: &Scan) {
        let ledger = &self.ledgers[instance];
        let begun = ledger.begin(WORKER.host_id, &scan.header).await.unwrap();
        assert!(matches!(begun, Begun::SendItems), "{begun:?}");
    }

    async fn apply(&self, instance: usize, scan: &Scan) -> Result<v1::PublishResult, PublishError> {
        let ledger = &self.ledgers[instance];
        ledger.catch_up().await.unwrap();
        ledger.apply(WORKER.host_id, &scan.header, &scan.seen).await
    }

    async fn publish(&self, instance: usize, scan: Scan) -> v1::PublishResult {
        self.begin(instance, &scan).await;
        self.apply(instance, &scan).await.unwrap()
    }

    /// The owner of a database, as an instance shows it.
    async fn owner_of(&self, instance: usize, database: u8) -> Option<String> {
        let ledger = &self.ledgers[instance];
        ledger.catch_up().await.unwrap();
        let look = ledger.inventory.tables();
        let row = look.owned.with_identity(identity(database).as_str())?;
        Some(row.message().scope_id.clone())
    }
}

#[tokio::test]
async fn a_scan_that_began_before_one_that_another_instance_took_changes_nothing() {
    let instances = Instances::new().await;
    let [epoch] = instances.epochs().await;
    let scope = &scopes()[0];
    let early = instances.scan(scope, epoch, &[(0, 1)]);
    instances.begin(0, &early).await;
    let late = instances.scan(scope, epoch, &[(0, 1), (1, 1)]);
    assert_eq!(instances.publish(1, late).await.created, 2);

    let refused = instances.apply(0, &early).await.unwrap_err();
    assert!(
        matches!(refused, PublishError::Superseded { .. }),
        "{refused}"
    );
    assert!(instances.owner_of(0, 1).await.is_some());
    // The next one counts, wherever it goes.
    let next = instances.scan(scope, epoch, &[(1, 1)]);
    assert_eq!(instances.publish(0, next).await.deleted, 1);
}

#[tokio::test]
async fn a_database_goes_to_the_scope_that_only_another_instance_was_told_of() {
    let instances = Instances::new().await;
    let [first, second] = instances.epochs().await;
    let [owner, heir, ..] = scopes();
    let owned = instances.scan(owner, first, &[(0, 1)]);
    assert_eq!(instances.publish(0, owned).await.created, 1);
    let shadowed = instances.scan(heir, second, &[(0, 1)]);
    assert_eq!(instances.publish(1, shadowed).await.shadowed, 1);

    // Its tag has changed: the first scope does not want it any more.
    let gone = instances.scan(owner, first, &[]);
    let result = instances.publish(0, gone).await;
    assert_eq!((result.updated, result.deleted), (1, 0));
    for instance in [0, 1] {
        let owner = instances.owner_of(instance, 0).await;
        assert_eq!(owner, Some(heir.id().0));
    }
}

#[tokio::test]
async fn the_time_between_scans_is_not_forgotten_by_an_instance_that_sees_its_first() {
    let instances = Instances::new().await;
    let [epoch] = instances.epochs().await;
    let scope = &scopes()[0];
    let databases = [(0, 1), (1, 1), (2, 1), (3, 1)];
    for (scan, instance) in [(1, 0), (2, 0), (3, 0), (4, 1)] {
        instances.clock.advance(Duration::from_secs(300));
        let scan = instances.scan(scope, epoch, &databases[..scan]);
        instances.publish(instance, scan).await;
    }
    let records = instances.ledgers[1].scope_records().await.unwrap();
    assert_eq!(records[0].period_seconds, 300);
}
