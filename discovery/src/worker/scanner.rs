//! Scans the scopes that are held, when they are due, and publishes what they return.
//!
//! A bounded number of scans runs at a time ([`super::lanes`]). A scope is scanned at once when it is first held and when an
//! administrator asks for it, otherwise as its [`Schedule`] says, and not before its account and region have a call
//! left ([`crate::budget`]).
//!
//! Not here: the scan itself and its publication ([`super::job`]), and what is logged of them ([`tell`]).

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tidegate_core::{DatabaseKind, ScanScope, ScopeId};
use tidegate_service::{tasks::ShutdownToken, telemetry::SaidOnce};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tracing::{Instrument, field, info_span};

use super::{
    job::{End, Job, Shared},
    lanes::{Lane, Lanes},
    tell::{self, Cause},
};
use crate::{
    budget::{self, Budget, Budgets},
    fetch,
    known::Known,
    metrics::Meters,
    planner::Wanted,
    schedule::Schedule,
};

/// One scope, and what is remembered of it from scan to scan.
struct Tracked {
    scope: Arc<ScanScope>,
    /// Tells it from a scope of the same name that was wanted before.
    serial: u64,
    schedule: Schedule,
    /// As the last scan went.
    lane: Lane,
    budget: Arc<Budget>,
    running: bool,
    /// Requests to scan at once that the last scan, or the next one, meets; `None` before the first scan.
    rescan: Option<u64>,
    /// The next scan was asked for.
    asked_for: bool,
    /// What kept the last scan from being complete.
    cause: Option<String>,
    /// Databases that the last complete scan saw.
    databases: usize,
    /// What the last scan found, when that is settled.
    known: Option<Arc<Known>>,
}

/// How one scan of a scope ended.
struct Done {
    id: ScopeId,
    /// Of the scan among those that run.
    number: u64,
    serial: u64,
    started: Instant,
    end: End,
}

/// Runs the scans.
pub(super) struct Scanner {
    shared: Shared,
    wanted: watch::Receiver<Wanted>,
    poll_interval: Duration,
    scopes: HashMap<ScopeId, Tracked>,
    /// Scopes that were held and idle when it was last looked, by lane and when they fall due.
    agenda: Agenda,
    lanes: Lanes,
    running: FuturesUnordered<BoxFuture<'static, Done>>,
    budgets: Budgets,
    serial: u64,
    /// Scopes held and not held, as the metrics have them.
    counted: HashMap<(DatabaseKind, bool), i64>,
    /// What was said of publications that failed.
    said: SaidOnce,
}

impl Scanner {
    pub(super) fn new(
        shared: Shared,
        wanted: watch::Receiver<Wanted>,
        poll_interval: Duration,
    ) -> Self {
        Self {
            shared,
            wanted,
            poll_interval,
            scopes: HashMap::new(),
            agenda: Agenda::default(),
            lanes: Lanes::default(),
            running: FuturesUnordered::new(),
            budgets: Budgets::default(),
            serial: 0,
            counted: HashMap::new(),
            said: SaidOnce::new(),
        }
    }

    /// Ends with `shutdown`: a scan under way is dropped, and a stream cut before its trailer changes nothing.
    pub(super) async fn run(mut self, shutdown: ShutdownToken) {
        let mut grants = self.shared.leases.subscribe();
        self.want();
        loop {
            let next_due = self.start_due(Instant::now());
            tokio::select! {
                () = shutdown.cancelled() => return,
                Some(done) = self.running.next() => self.settle(done),
                // `shared` holds the sender, so this cannot fail.
                Ok(()) = grants.changed() => self.review(),
                // Fails when the worker is about to stop.
                Ok(()) = self.wanted.changed() => self.want(),
                () = async { sleep_until(next_due.unwrap_or_else(Instant::now)).await }, if next_due.is_some() => {}
            }
        }
    }

    /// Takes over what is wanted: keeps what is remembered of a scope that stays, whatever its order.
    fn want(&mut self) {
        let scopes = Arc::clone(&self.wanted.borrow_and_update().scopes);
        let mut before = std::mem::take(&mut self.scopes);
        for scope in scopes.iter() {
            let id = scope.id();
            let mut tracked = before.remove(&id).unwrap_or_else(|| self.track(scope));
            if *tracked.scope != *scope {
                tracked.scope = Arc::new(scope.clone());
                tracked.known = None;
            }
            self.scopes.insert(id, tracked);
        }
        for tracked in before.into_values() {
            let kind = tracked.scope.kind;
            self.shared.meters.databases(kind, tracked.databases, 0);
        }
        self.budgets.prune();
        self.review();
    }

    fn track(&mut self, scope: &ScanScope) -> Tracked {
        self.serial += 1;
        Tracked {
            scope: Arc::new(scope.clone()),
            serial: self.serial,
            schedule: Schedule::new(self.poll_interval, Instant::now()),
            lane: Lane::Quick,
            budget: self.budgets.of(scope.assume_role.as_ref(), &scope.region),
            running: false,
            rescan: None,
            asked_for: false,
            cause: None,
            databases: 0,
            known: None,
        }
    }

    /// Looks at what is held now: what has to be scanned when, and at once. Databases of scopes that others scan now
    /// no longer count as seen here.
    fn review(&mut self) {
        let now = Instant::now();
        self.agenda = Agenda::default();
        let mut counts: HashMap<(DatabaseKind, bool), i64> = HashMap::new();
        for (id, tracked) in &mut self.scopes {
            let kind = tracked.scope.kind;
            let rescan = self.shared.leases.rescan(id);
            *counts.entry((kind, rescan.is_some())).or_default() += 1;
            let Some(rescan) = rescan else {
                self.shared.meters.databases(kind, tracked.databases, 0);
                tracked.databases = 0;
                continue;
            };
            if tracked.running {
                continue;
            }
            tracked.heed(rescan, now, &self.shared.meters);
            self.agenda.add(id.clone(), tracked);
        }
        self.count(counts);
    }

    fn count(&mut self, counts: HashMap<(DatabaseKind, bool), i64>) {
        let before = std::mem::replace(&mut self.counted, counts);
        for (&(kind, held), now) in &self.counted {
            let change = now - before.get(&(kind, held)).unwrap_or(&0);
            self.shared.meters.scopes(kind, held, change);
        }
        for ((kind, held), gone) in before {
            if !self.counted.contains_key(&(kind, held)) {
                self.shared.meters.scopes(kind, held, -gone);
            }
        }
    }

    /// Starts what is held and due, the longest overdue first, as far as there is room. Returns when the next one
    /// falls due; `None` when something else has to happen first.
    fn start_due(&mut self, now: Instant) -> Option<Instant> {
        self.lanes.sort(now);
        let mut next: Option<Instant> = None;
        for lane in Lane::ALL {
            while let Some(due) = self.agenda.of(lane).first().map(|(due, _)| *due) {
                let at = if due > now {
                    Some(due)
                } else if self.lanes.has_room(lane) {
                    if let Some((_, id)) = self.agenda.of(lane).pop_first() {
                        self.start(id, now);
                    }
                    continue;
                } else {
                    // Room comes when a scan ends, or turns out slow.
                    self.lanes.sort(now).filter(|_| lane == Lane::Quick)
                };
                next = [next, at].into_iter().flatten().min();
                break;
            }
        }
        next
    }

    fn start(&mut self, id: ScopeId, now: Instant) {
        let leases = &self.shared.leases;
        let (Some(tracked), Some(epoch)) = (self.scopes.get_mut(&id), leases.epoch(&id)) else {
            // It comes back with the next grants.
            return;
        };
        let service = budget::service(fetch::first_action(tracked.scope.kind));
        if let Err(until) = tracked.budget.try_take(service, now) {
            self.shared.meters.put_off(tracked.scope.kind);
            tracked.schedule.put_off(until);
            self.agenda.add(id, tracked);
            return;
        }
        tracked.running = true;
        let fresh = tracked.asks_anew(leases.rescan(&id));
        let scope = Arc::clone(&tracked.scope);
        let span = info_span!(
            "scan_scope",
            scope.kind = scope.kind.as_str(),
            cloud.region = %scope.region,
            aws.role = scope.assume_role.as_ref().map(|role| role.role_arn.as_str()),
            discovery.config = scope.config,
            scope.found = field::Empty,
        );
        let (number, reads) = self.lanes.enter(tracked.lane, now);
        let job = Job {
            shared: self.shared.clone(),
            reads,
            scope,
            budget: Arc::clone(&tracked.budget),
            fresh,
            known: tracked.known.take(),
            epoch,
        };
        let (serial, started) = (tracked.serial, now);
        let work = async move {
            let end = job.run(&id).await;
            Done {
                id,
                number,
                serial,
                started,
                end,
            }
        };
        self.running.push(Box::pin(work.instrument(span)));
    }

    fn settle(&mut self, done: Done) {
        self.lanes.leave(done.number);
        let tracked = self.scopes.get_mut(&done.id);
        let Some(tracked) = tracked.filter(|tracked| tracked.serial == done.serial) else {
            return;
        };
        tracked.running = false;
        match done.end {
            // It stays due, for when the scope comes back.
            End::Moved => tell::moved(&tracked.scope),
            End::Scanned {
                complete,
                cause,
                took,
                known,
                published,
            } => {
                tracked.known = known;
                tracked.lane = Lane::after(took);
                if let Some(count) = complete {
                    let kind = tracked.scope.kind;
                    self.shared.meters.databases(kind, tracked.databases, count);
                    tracked.databases = count;
                }
                let read = !cause.as_ref().is_some_and(Cause::broke_off);
                if read && published.is_ok() {
                    tracked.schedule.succeeded(done.started);
                } else {
                    tracked.schedule.failed(Instant::now());
                }
                tell::cause(&tracked.scope, &mut tracked.cause, cause);
                tell::published(&tracked.scope, &published, &mut self.said);
            }
        }
        if let Some(rescan) = self.shared.leases.rescan(&done.id) {
            tracked.heed(rescan, Instant::now(), &self.shared.meters);
            self.agenda.add(done.id, tracked);
        }
    }
}

/// Scopes by when they fall due.
#[derive(Default)]
struct Agenda {
    quick: BTreeSet<(Instant, ScopeId)>,
    slow: BTreeSet<(Instant, ScopeId)>,
}

impl Agenda {
    const fn of(&mut self, lane: Lane) -> &mut BTreeSet<(Instant, ScopeId)> {
        match lane {
            Lane::Quick => &mut self.quick,
            Lane::Slow => &mut self.slow,
        }
    }

    fn add(&mut self, id: ScopeId, tracked: &Tracked) {
        let due = tracked.schedule.due();
        self.of(tracked.lane).insert((due, id));
    }
}

impl Tracked {
    /// Makes it due when a scan at once was asked for since the last one began.
    fn heed(&mut self, rescan: u64, now: Instant, meters: &Meters) {
        if self.rescan.is_some_and(|met| rescan > met) {
            self.rescan = Some(rescan);
            self.asked_for = true;
            self.schedule.hurry(now);
            meters.rescan(self.scope.kind);
        }
    }

    /// Takes note that the scan that begins meets all requests until now; returns whether there was one.
    fn asks_anew(&mut self, rescan: Option<u64>) -> bool {
        let more = rescan > self.rescan && self.rescan.is_some();
        self.rescan = rescan.or(self.rescan);
        std::mem::take(&mut self.asked_for) || more
    }
}
