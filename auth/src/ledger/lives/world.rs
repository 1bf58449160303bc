//! A small AWS, the workers that scan it, and a control plane over a real store that can be restarted.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use jiff::Timestamp;
use tempfile::TempDir;
use tidegate_core::{DatabaseKind, EndpointFilter, ScanScope, Selector};
use tidegate_identity::secret;
use tidegate_proto::{convert::timestamp, v1};
use tidegate_service::{
    clock::{Clock as _, ManualClock},
    metrics::Metrics,
    tasks::ShutdownToken,
};

use super::{
    super::{
        AcquireError, AdoptError, Begun, Header, Items, Ledger, LedgerParts, PublishError, Worker,
        plan::{Owner, Seen},
        workers::Watching,
    },
    flaky::{Failure, Flaky},
};
use crate::{
    audit::AuditLog,
    inventory::{Inventory, tables::Row as _},
    keys,
    service::Timings,
    store::{
        RangeQuery, Store as _,
        sqlite::{Monotonic, SqliteOptions, SqliteStore},
    },
};

pub(super) const DATABASES: u8 = 12;
pub(super) const WORKERS: usize = 3;
pub(super) const SCOPES: usize = 5;
/// One step of time: workers ask again well within their lease of 30 seconds, and two steps are more than it.
const STEP: Duration = Duration::from_secs(20);
/// Rounds in which what a poll asks for comes to rest.
const POLL_ROUNDS_MAX: usize = 8;
/// When each world begins.
pub(super) const START: Timestamp = Timestamp::constant(1_700_000_000, 0);
/// Longer than any grace.
const LONG: Duration = Duration::from_hours(24 * 365);

/// AWS, by database: its tag.
pub(super) type Aws = BTreeMap<u8, u8>;

#[derive(Default)]
struct ManualTime(Mutex<Duration>);

impl Monotonic for ManualTime {
    fn elapsed(&self) -> Duration {
        *self.0.lock().unwrap()
    }
}

/// What goes wrong in a scan, as bits by database.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    pub(super) unseen: u16,
    pub(super) untagged: u16,
}

/// Scopes that overlap, of two groups, of files and of resources; in each group some want everything and some not.
fn scopes() -> &'static [ScanScope; SCOPES] {
    static MADE: OnceLock<[ScanScope; SCOPES]> = OnceLock::new();
    MADE.get_or_init(|| {
        let scope = |group: &str, order, config: Option<&str>, envs: &[u8]| ScanScope {
            group: group.to_owned(),
            kind: DatabaseKind::Redshift,
            region: "us-east-1".parse().unwrap(),
            assume_role: None,
            tags: if envs.is_empty() {
                Selector::everything()
            } else {
                let envs = envs.iter().map(u8::to_string);
                Selector::new([("env".to_owned(), envs.collect::<Vec<_>>())]).unwrap()
            },
            endpoints: EndpointFilter::default(),
            config: config.map(str::to_owned),
            order,
        };
        [
            scope("prod", 0, None, &[1]),
            scope("prod", 1, None, &[]),
            scope("prod", 0, Some("team"), &[1, 2]),
            scope("lab", 0, None, &[]),
            scope("lab", 0, Some("guests"), &[2]),
        ]
    })
}

fn scope_with(id: &str) -> usize {
    let mut all = scopes().iter();
    all.position(|scope| scope.id().0 == id)
        .expect("the world has all scopes")
}

fn wants(scope: usize, env: u8) -> bool {
    let envs: &[u8] = [&[1][..], &[0, 1, 2], &[1, 2], &[0, 1, 2], &[2]][scope];
    envs.contains(&env)
}

fn identity(database: u8) -> String {
    format!("arn:aws:redshift:us-east-1:111122223333:cluster:db{database:02}")
}

fn item(database: u8, env: Option<u8>) -> v1::ScanItem {
    let env = env.map(|env| ("env".to_owned(), env.to_string()));
    v1::ScanItem {
        database: Some(v1::Database {
            protocol: "postgres".to_owned(),
            uri: format!("db{database:02}.abc.us-east-1.redshift.amazonaws.com:5439"),
            kind: "redshift".to_owned(),
            identity: identity(database),
            labels: env.clone().into_iter().collect(),
            aws: Some(v1::AwsMetadata {
                region: "us-east-1".to_owned(),
                account_id: "111122223333".to_owned(),
                ..v1::AwsMetadata::default()
            }),
            ..v1::Database::default()
        }),
        name_base: format!("db{database:02}"),
        // No two databases can want one name: who came first would say which gets it.
        name_suffix: ["redshift", "us-east-1", "111122223333"]
            .map(str::to_owned)
            .into(),
        tags_unknown: env.is_none(),
        ..v1::ScanItem::default()
    }
}

/// A worker's right to a scope, as it was told.
#[derive(Clone, Copy, Debug)]
struct Grant {
    epoch: u64,
    rescan: u64,
}

/// A worker. It keeps its host id over its lives, as a restarted process does.
struct Process {
    host: &'static str,
    group: &'static str,
    configuration: BTreeSet<usize>,
    alive: bool,
    life: u32,
    grants: BTreeMap<usize, Grant>,
    /// Until when it believes in its grants.
    until: Duration,
}

/// A scan on its way.
#[derive(Debug)]
struct Stream {
    worker: usize,
    life: u32,
    scope: usize,
    header: Header,
    seen: Seen,
    /// What was seen and could be judged.
    judged: BTreeSet<u8>,
    /// The header was taken and the items are with the service, which has not looked at them yet.
    begun: bool,
    /// A later scan of the scope has begun.
    superseded: bool,
}

/// How far a scan gets before something else happens.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// All the way.
    Prompt,
    /// The service has it and takes its time.
    Begun,
    /// It is still on its way.
    Late,
}

/// A listed database.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Listed {
    owner: usize,
    database: v1::Database,
}

/// A control plane that runs.
struct House {
    store: Arc<SqliteStore>,
    flaky: Arc<Flaky>,
    inventory: Arc<Inventory>,
    ledger: Ledger,
    shutdown: ShutdownToken,
    _watching: Vec<Watching>,
}

impl Drop for House {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

pub(super) struct World {
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
pub(super) fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

impl World {
    pub(super) async fn new(audit: &AuditLog) -> Self {
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
    pub(super) async fn fresh(&self) -> Self {
        let mut fresh = Self::new(&self.audit).await;
        fresh.aws = self.aws.clone();
        for (fresh, worker) in fresh.workers.iter_mut().zip(&self.workers) {
            fresh.configuration = worker.configuration.clone();
        }
        fresh
    }

    async fn start(&mut self) {
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
    pub(super) async fn restart(&mut self) {
        let house = self.house.take().expect("it runs");
        house.shutdown.cancel();
        house.store.close().await;
        drop(house);
        self.streams.retain(|stream| !stream.begun);
        self.start().await;
        self.look().await;
    }

    fn house(&self) -> &House {
        self.house.as_ref().expect("it runs")
    }

    fn now(&self) -> Duration {
        self.time.elapsed()
    }

    pub(super) async fn tag(&mut self, database: u8, env: u8) {
        self.aws.insert(database, env);
        self.look().await;
    }

    pub(super) async fn remove(&mut self, database: u8) {
        self.aws.remove(&database);
        self.look().await;
    }

    /// A write of the service is going to fail.
    pub(super) fn break_down(&self, failure: Option<Failure>) {
        *self.house().flaky.failure.lock().unwrap() = failure;
    }

    pub(super) fn die(&mut self, worker: usize) {
        self.workers[worker].alive = false;
    }

    pub(super) fn come_back(&mut self, worker: usize) {
        let worker = &mut self.workers[worker];
        if !worker.alive {
            worker.alive = true;
            worker.life += 1;
            worker.grants.clear();
        }
    }

    /// Gives a worker another configuration: the scopes of its group whose bits are set.
    pub(super) fn configure(&mut self, worker: usize, wanted: u8) {
        let worker = &mut self.workers[worker];
        worker.configuration = (0..SCOPES)
            .filter(|scope| wanted >> scope & 1 == 1 && scopes()[*scope].group == worker.group)
            .collect();
    }

    /// A worker asks for what it is configured to scan.
    pub(super) async fn ask(&mut self, index: usize) {
        self.renew(index).await;
        self.look().await;
    }

    async fn renew(&mut self, index: usize) {
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
    fn check_grant(&mut self, index: usize, scope: usize, epoch: u64) {
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

    /// A worker that believes to hold a scope scans it.
    pub(super) async fn scan(
        &mut self,
        pick: usize,
        scope: usize,
        fault: Option<Fault>,
        pace: Pace,
    ) {
        let able =
            |(_, worker): &(usize, &Process)| worker.alive && worker.grants.contains_key(&scope);
        let able: Vec<usize> = self
            .workers
            .iter()
            .enumerate()
            .filter(able)
            .map(|(index, _)| index)
            .collect();
        if able.is_empty() {
            return;
        }
        let worker = able[pick % able.len()];
        let life = self.workers[worker].life;
        // A worker has one scan of a scope on its way at a time.
        if self
            .streams
            .iter()
            .any(|stream| (stream.worker, stream.life, stream.scope) == (worker, life, scope))
        {
            return;
        }
        let stream = self.saw(worker, scope, fault);
        match pace {
            Pace::Prompt => drop(self.deliver(stream).await),
            Pace::Begun => {
                if let Some(begun) = self.begin(stream).await.err() {
                    self.streams.push(*begun);
                    self.look().await;
                }
            }
            Pace::Late => self.streams.push(stream),
        }
    }

    /// What a worker sees of AWS now.
    fn saw(&self, worker: usize, scope: usize, fault: Option<Fault>) -> Stream {
        let bit = |bits: u16, database: u8| bits >> database & 1 == 1;
        let mut items = Vec::new();
        let mut judged = BTreeSet::new();
        for (database, env) in &self.aws {
            if fault.is_some_and(|fault| bit(fault.unseen, *database)) {
                continue;
            }
            if fault.is_some_and(|fault| bit(fault.untagged, *database)) {
                items.push(item(*database, None));
            } else if wants(scope, *env) {
                items.push(item(*database, Some(*env)));
                judged.insert(*database);
            }
        }
        let completeness = match fault {
            Some(_) => v1::Completeness::Partial,
            None => v1::Completeness::Complete,
        };
        // No two scans of a worker start at once.
        self.clock.advance(Duration::from_millis(1));
        let now = Some(timestamp(self.clock.now()));
        let header = v1::ScanHeader {
            scope: Some(v1::ScanScope::from(&scopes()[scope])),
            epoch: self.workers[worker].grants[&scope].epoch,
            completeness: completeness.into(),
            digest: secret::digest(&format!("{items:?}")).to_vec(),
            failure: fault.map(|_| v1::ScanFailure {
                class: "throttled".to_owned(),
                ..v1::ScanFailure::default()
            }),
            started_at: now,
            finished_at: now,
            aws_calls: 1,
            left_out: Vec::new(),
        };
        let header = Header::try_from(header).unwrap();
        let mut received = Items::new(&header);
        let count = u32::try_from(items.len()).unwrap();
        for item in items {
            received.push(item).unwrap();
        }
        Stream {
            worker,
            life: self.workers[worker].life,
            scope,
            seen: received.finish(v1::ScanTrailer { items: count }).unwrap(),
            header,
            judged,
            begun: false,
            superseded: false,
        }
    }

    /// A scan that was on its way arrives.
    pub(super) async fn arrive(&mut self, pick: usize) {
        if self.streams.is_empty() {
            return;
        }
        let stream = self.streams.remove(pick % self.streams.len());
        self.deliver(stream).await;
    }

    async fn deliver(&mut self, stream: Stream) -> Option<v1::PublishResult> {
        if stream.begun {
            return self.apply(stream).await;
        }
        let sender = (stream.worker, stream.life);
        match self.begin(stream).await {
            Ok(done) => done,
            Err(stream) => {
                let worker = &self.workers[sender.0];
                // The dead send no items.
                if worker.alive && worker.life == sender.1 {
                    self.apply(*stream).await
                } else {
                    None
                }
            }
        }
    }

    async fn is_current(&self, stream: &Stream) -> bool {
        let key = keys::scope_holder(&stream.header.message.id);
        let holder = self.house().store.get(key).await.unwrap();
        holder.is_some_and(|holder| holder.created == stream.header.epoch)
    }

    /// Sends a header: the result when that ends it, or the stream that goes on.
    async fn begin(
        &mut self,
        mut stream: Stream,
    ) -> Result<Option<v1::PublishResult>, Box<Stream>> {
        let host = self.workers[stream.worker].host;
        let current = self.is_current(&stream).await;
        let begun = self.house().ledger.begin(host, &stream.header).await;
        assert_eq!(begun.is_ok(), current, "{begun:?}");
        match begun {
            Err(PublishError::NotHolder { .. }) => Ok(None),
            Err(error) => panic!("{error:?}"),
            Ok(answer) => {
                for other in &mut self.streams {
                    other.superseded |= other.begun && other.scope == stream.scope;
                }
                match answer {
                    Begun::Unchanged(result) => Ok(Some(result)),
                    Begun::SendItems => {
                        stream.begun = true;
                        Err(Box::new(stream))
                    }
                }
            }
        }
    }

    /// The service looks at the items.
    async fn apply(&mut self, stream: Stream) -> Option<v1::PublishResult> {
        let host = self.workers[stream.worker].host;
        let current = self.is_current(&stream).await && !stream.superseded;
        let before = if current {
            None
        } else {
            Some(self.state().await)
        };
        let ledger = &self.house().ledger;
        match ledger.apply(host, &stream.header, &stream.seen).await {
            Ok(result) => {
                assert!(
                    current,
                    "a scan counted that came too late: {:?}",
                    stream.header
                );
                self.take_claims(&stream);
                self.look().await;
                Some(result)
            }
            Err(PublishError::NotHolder { .. } | PublishError::Superseded { .. }) if !current => {
                assert_eq!(
                    Some(self.state().await),
                    before,
                    "a scan that was refused left something behind"
                );
                self.look().await;
                None
            }
            // What was done of it stays.
            Err(PublishError::Unavailable(_)) => {
                if stream.header.complete {
                    let claims = self.claims.entry(stream.scope).or_default();
                    claims.retain(|database| stream.judged.contains(database));
                }
                self.catch_up().await;
                self.look().await;
                None
            }
            Err(error) => panic!("{error:?}"),
        }
    }

    /// All that can be seen of the service's state.
    async fn state(&self) -> (u64, Vec<v1::ScopeStatus>) {
        let house = self.house();
        let newest = house.store.range(RangeQuery::prefix(keys::CLUSTER));
        let revision = newest.await.unwrap().revision;
        let all = v1::ListScopesRequest::default();
        let statuses = house.ledger.list_scopes(&all).await.unwrap();
        (revision, statuses.scopes)
    }

    fn take_claims(&mut self, stream: &Stream) {
        let listed = self.listed();
        let claims = self.claims.entry(stream.scope).or_default();
        if stream.header.complete {
            claims.clear();
        }
        let others = stream.judged.iter().filter(|database| {
            let row = listed.get(database);
            row.is_some_and(|row| row.owner != stream.scope)
        });
        claims.extend(others);
    }

    /// Time passes in steps; live workers ask again in each, or hang.
    pub(super) async fn pass(&mut self, steps: u8, renew: bool) {
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

    async fn tend(&mut self) {
        if self.house().ledger.end_what_is_over().await.is_err() {
            self.catch_up().await;
        }
        self.look().await;
    }

    async fn catch_up(&self) {
        self.house().ledger.catch_up().await.unwrap();
    }

    pub(super) async fn ask_for_scans(&mut self, scope: Option<usize>) {
        let scope_ids = scope.map(|scope| scopes()[scope].id().0);
        let request = v1::RequestRescanRequest {
            scope_ids: scope_ids.into_iter().collect(),
        };
        // Without the store nobody is asked.
        let _ = self.house().ledger.rescan(request).await;
    }

    pub(super) async fn adopt(&mut self, into_lab: bool) {
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

    pub(super) fn listed(&self) -> BTreeMap<u8, Listed> {
        let look = self.house().inventory.tables();
        let rows = look.databases.values();
        rows.map(|row| {
            let number = row.identity().rsplit("db").next().unwrap();
            let listed = Listed {
                owner: scope_with(row.scope_id()),
                database: row.message(),
            };
            (number.parse().unwrap(), listed)
        })
        .collect()
    }

    /// Looks at what is listed after something happened: nothing is missing that may not be, and names stay.
    async fn look(&mut self) {
        let listed = self.listed();
        for database in &self.safe {
            assert!(
                listed.contains_key(database),
                "database {database} was missing"
            );
        }
        for (database, name) in &self.names {
            if let Some(now) = listed.get(database) {
                assert_eq!(&now.database.name, name, "a name changed");
            }
        }
        let live = self.house().ledger.live().await.unwrap();
        let is_named = |scope: usize| live.names(&scopes()[scope].group, &scopes()[scope].id().0);
        let is_over = |scope: usize| live.is_alive(&scopes()[scope].group) && !is_named(scope);
        self.claims.retain(|scope, _| !is_over(*scope));
        for (scope, claims) in &mut self.claims {
            claims.retain(|database| listed.get(database).is_some_and(|row| row.owner != *scope));
        }
        let mut late = Vec::new();
        for stream in &self.streams {
            if stream.header.complete && !stream.superseded && self.is_current(stream).await {
                late.push((stream.scope, &stream.judged));
            }
        }
        let safe = listed.iter().filter_map(|(database, row)| {
            let env = *self.aws.get(database)?;
            let claimed = || {
                let mut claims = self.claims.iter();
                claims.any(|(scope, claims)| {
                    is_named(*scope) && wants(*scope, env) && claims.contains(database)
                })
            };
            // A scan that looked before the database came to be, or to be wanted, may still take it away.
            let doubted = late
                .iter()
                .any(|(scope, judged)| wants(*scope, env) && !judged.contains(database));
            let owned = wants(row.owner, env) && !is_over(row.owner);
            let stays = (owned || claimed()) && !doubted;
            stays.then_some(*database)
        });
        self.safe = safe.collect();
        self.names = listed
            .into_iter()
            .map(|(database, row)| (database, row.database.name))
            .collect();
    }

    /// All faults end: what was on its way arrives, everybody is alive, and time passes until what nobody asks for is
    /// over.
    pub(super) async fn settle(&mut self) {
        self.break_down(None);
        while !self.streams.is_empty() {
            self.arrive(0).await;
        }
        for worker in 0..WORKERS {
            self.come_back(worker);
        }
        self.pass(2, true).await;
        self.clock.advance(LONG);
        self.tend().await;
    }

    /// One poll without faults: each scope is scanned, and again when the service asks for it or waits for a second
    /// scan to agree.
    pub(super) async fn poll(&mut self) {
        let mut scanned: BTreeMap<usize, u64> = BTreeMap::new();
        for _ in 0..POLL_ROUNDS_MAX {
            let mut quiet = true;
            for worker in 0..WORKERS {
                self.renew(worker).await;
                for (scope, grant) in self.workers[worker].grants.clone() {
                    if scanned.get(&scope) == Some(&grant.rescan) {
                        continue;
                    }
                    quiet = false;
                    let stream = self.saw(worker, scope, None);
                    let result = self.deliver(stream).await.expect("a holder's scan counts");
                    if result.held == 0 {
                        scanned.insert(scope, grant.rescan);
                    }
                }
            }
            if quiet {
                let scanned: BTreeSet<usize> = scanned.into_keys().collect();
                assert_eq!(scanned, self.configured(), "not all scopes were scanned");
                return;
            }
        }
        panic!("a poll does not come to rest");
    }

    fn configured(&self) -> BTreeSet<usize> {
        let workers = self.workers.iter();
        workers
            .flat_map(|worker| worker.configuration.iter().copied())
            .collect()
    }

    /// What is listed, without what depends on which group came first; each owner must be the first of its group.
    pub(super) fn outcome(&self) -> BTreeMap<u8, v1::Database> {
        let configured = self.configured();
        let rows = self.listed().into_iter();
        rows.map(|(database, row)| {
            let group = &scopes()[row.owner].group;
            let env = self.aws.get(&database).copied();
            let wanting = configured.iter().copied().filter(|scope| {
                scopes()[*scope].group == *group && env.is_some_and(|env| wants(*scope, env))
            });
            let owners: Vec<Owner> = wanting.map(|scope| Owner::of(&scopes()[scope])).collect();
            let first = owners.iter().min_by_key(|owner| owner.rank());
            assert_eq!(
                first,
                Some(&Owner::of(&scopes()[row.owner])),
                "of database {database}"
            );
            let mut message = row.database;
            message.revision = 0;
            message.scope_id.clear();
            message.labels.retain(|key, _| {
                key != tidegate_core::labels::DISCOVERY_GROUP
                    && key != tidegate_core::labels::DISCOVERY_CONFIG
            });
            (database, message)
        })
        .collect()
    }

    pub(super) async fn close(mut self) {
        if let Some(house) = self.house.take() {
            house.shutdown.cancel();
            house.store.close().await;
        }
    }
}
