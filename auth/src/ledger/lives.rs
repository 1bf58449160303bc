//! Whatever happens to workers, to the service and in AWS, one poll without faults heals everything, and nothing that
//! was there all the time is missed.
//!
//! As the history of [`super::plan`] has it for planning alone, here with leases, epochs, several workers, late streams,
//! restarts over the real store, adoption, and configurations that change.

mod flaky;
mod instances;
mod parts;
mod world;

use std::sync::Arc;

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use tidegate_service::clock::ManualClock;
use tokio::runtime::Builder;

use crate::audit::AuditLog;
use flaky::Failure;
use parts::{DATABASES, Fault, Pace, SCOPES, START, WORKERS};
use world::World;

/// Cases that are tried unless the environment says otherwise.
const CASES: u32 = 64;
const EVENTS_MAX: usize = 40;
/// All databases, as bits.
const ALL: u16 = (1 << DATABASES) - 1;
/// Attempts to make a history that fails shorter.
const SHRINKS_MAX: u32 = 4096;

/// What can happen.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A database is made in AWS, or changed.
    Tag { database: u8, env: u8 },
    /// A database is deleted in AWS.
    Remove { database: u8 },
    /// Many are, as bits.
    Sweep { databases: u16 },
    /// A worker asks for scopes.
    Ask { worker: usize },
    /// A worker that believes to hold a scope scans it.
    Scan {
        pick: usize,
        scope: usize,
        fault: Option<Fault>,
        pace: Pace,
    },
    /// A scan that was on its way arrives.
    Arrive { pick: usize },
    /// A worker dies.
    Die { worker: usize },
    /// A dead worker comes back.
    Return { worker: usize },
    /// A worker's configuration changes.
    Configure { worker: usize, scopes: u8 },
    /// Time passes.
    Pass { steps: u8, renew: bool },
    /// The service stops and starts.
    Restart,
    /// A write of the service fails, once.
    BreakDown { failure: Failure },
    /// Somebody asks for scans.
    Rescan { scope: Option<usize> },
    /// Somebody renames a group.
    Adopt { into_lab: bool },
}

fn fault() -> impl Strategy<Value = Fault> {
    let some = || proptest::bits::u16::masked(ALL);
    (some(), some()).prop_map(|(unseen, untagged)| Fault { unseen, untagged })
}

fn scan() -> impl Strategy<Value = Event> {
    let pace = prop_oneof![3 => Just(Pace::Prompt), 1 => Just(Pace::Begun), 1 => Just(Pace::Late)];
    let fault = proptest::option::weighted(0.3, fault());
    (0..WORKERS, 0..SCOPES, fault, pace).prop_map(|(pick, scope, fault, pace)| Event::Scan {
        pick,
        scope,
        fault,
        pace,
    })
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..DATABASES, 0..3_u8).prop_map(|(database, env)| Event::Tag { database, env }),
        2 => (0..DATABASES).prop_map(|database| Event::Remove { database }),
        1 => proptest::bits::u16::masked(ALL).prop_map(|databases| Event::Sweep { databases }),
        4 => (0..WORKERS).prop_map(|worker| Event::Ask { worker }),
        12 => scan(),
        4 => (0..8_usize).prop_map(|pick| Event::Arrive { pick }),
        1 => (0..WORKERS).prop_map(|worker| Event::Die { worker }),
        2 => (0..WORKERS).prop_map(|worker| Event::Return { worker }),
        3 => (0..WORKERS, 0..1_u8 << SCOPES).prop_map(|(worker, scopes)| Event::Configure { worker, scopes }),
        4 => (1..4_u8, proptest::bool::weighted(0.8)).prop_map(|(steps, renew)| Event::Pass { steps, renew }),
        2 => Just(Event::Restart),
        2 => (0..4_u8, any::<bool>()).prop_map(|(after, written)| {
            let failure = Failure { after, written };
            Event::BreakDown { failure }
        }),
        1 => proptest::option::of(0..SCOPES).prop_map(|scope| Event::Rescan { scope }),
        1 => any::<bool>().prop_map(|into_lab| Event::Adopt { into_lab }),
    ]
}

impl World {
    async fn happen(&mut self, event: Event) {
        match event {
            Event::Tag { database, env } => self.tag(database, env).await,
            Event::Remove { database } => self.remove(database).await,
            Event::Sweep { databases } => {
                for database in (0..DATABASES).filter(|database| databases >> database & 1 == 1) {
                    self.remove(database).await;
                }
            }
            Event::Ask { worker } => self.ask(worker).await,
            Event::Scan {
                pick,
                scope,
                fault,
                pace,
            } => self.scan(pick, scope, fault, pace).await,
            Event::Arrive { pick } => self.arrive(pick).await,
            Event::Die { worker } => self.die(worker),
            Event::Return { worker } => self.come_back(worker),
            Event::Configure { worker, scopes } => self.configure(worker, scopes),
            Event::Pass { steps, renew } => self.pass(steps, renew).await,
            Event::Restart => self.restart().await,
            Event::BreakDown { failure } => self.break_down(Some(failure)),
            Event::Rescan { scope } => self.ask_for_scans(scope).await,
            Event::Adopt { into_lab } => self.adopt(into_lab).await,
        }
    }
}

/// What the histories of one test share.
struct Tester {
    _directory: tempfile::TempDir,
    audit: AuditLog,
}

impl Tester {
    fn new() -> Self {
        let directory = world::folder();
        let clock = Arc::new(ManualClock::new(START));
        let audit = AuditLog::open(directory.path(), clock).unwrap();
        Self {
            _directory: directory,
            audit,
        }
    }

    /// Events, then a poll without faults, then the comparison with a fresh cluster. `born` are the tags of the databases
    /// that are there from the start.
    fn live_through(&self, born: &[Option<u8>], events: &[Event]) {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new(&self.audit).await;
            for (database, env) in (0..DATABASES).zip(born) {
                if let Some(env) = env {
                    world.tag(database, *env).await;
                }
            }
            for worker in 0..WORKERS {
                world.ask(worker).await;
            }
            for event in events {
                world.happen(*event).await;
            }
            world.settle().await;
            world.poll().await;
            let mut fresh = world.fresh().await;
            fresh.poll().await;
            assert_eq!(world.outcome(), fresh.outcome());
            world.close().await;
            fresh.close().await;
        });
    }
}

fn config() -> Config {
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    let default = Config::default();
    Config {
        cases: if asked { default.cases } else { CASES },
        max_shrink_iters: SHRINKS_MAX,
        failure_persistence: None,
        ..default
    }
}

#[test]
fn one_good_poll_gives_what_a_fresh_cluster_would_have() {
    let tester = Tester::new();
    let born = proptest::collection::vec(proptest::option::of(0..3_u8), DATABASES as usize);
    let histories = (born, proptest::collection::vec(event(), 0..EVENTS_MAX));
    let mut runner = TestRunner::new(config());
    let tried = runner.run(&histories, |(born, events)| {
        tester.live_through(&born, &events);
        Ok(())
    });
    tried.unwrap();
}

fn scan_of(scope: usize) -> Event {
    scan_at(scope, Pace::Prompt)
}

fn scan_at(scope: usize, pace: Pace) -> Event {
    Event::Scan {
        pick: 0,
        scope,
        fault: None,
        pace,
    }
}

fn tag(env: u8) -> Event {
    Event::Tag { database: 7, env }
}

/// The first worker names these scopes of its group, and the second none.
fn only(scopes: u8) -> [Event; 4] {
    [
        Event::Configure { worker: 0, scopes },
        Event::Configure {
            worker: 1,
            scopes: 0,
        },
        Event::Ask { worker: 1 },
        Event::Ask { worker: 0 },
    ]
}

#[test]
fn a_late_stream_that_would_change_nothing_is_refused_too() {
    let failed = |pace| Event::Scan {
        pick: 0,
        scope: 0,
        fault: Some(Fault {
            unseen: 0,
            untagged: 0,
        }),
        pace,
    };
    let hang = Event::Pass {
        steps: 1,
        renew: false,
    };
    let history = [failed(Pace::Prompt), hang, failed(Pace::Begun), hang];
    Tester::new().live_through(&[], &history);
}

#[test]
fn a_stream_of_an_earlier_life_does_not_undo_a_later_scan() {
    let history = [
        scan_at(0, Pace::Begun),
        Event::Die { worker: 0 },
        Event::Return { worker: 0 },
        Event::Ask { worker: 0 },
        tag(1),
        scan_of(0),
        Event::Arrive { pick: 0 },
    ];
    Tester::new().live_through(&[], &[&only(0b00001)[..], &history].concat());
}

#[test]
fn a_database_that_comes_back_to_a_scope_is_looked_at_again() {
    let history = [
        tag(2),
        // The third scope finds it and is at rest, the second takes it over and sees it change.
        scan_of(2),
        scan_of(1),
        tag(0),
        scan_of(1),
        tag(2),
        // Nobody names the second any more: the third goes on.
        Event::Configure {
            worker: 0,
            scopes: 0b00100,
        },
        Event::Pass {
            steps: 1,
            renew: true,
        },
    ];
    Tester::new().live_through(&[], &[&only(0b00110)[..], &history].concat());
}

#[test]
fn a_scan_that_was_half_written_leaves_no_older_one_as_the_last() {
    let history = [
        tag(0),
        scan_of(1),
        tag(2),
        Event::BreakDown {
            failure: Failure {
                after: 1,
                written: false,
            },
        },
        scan_of(1),
        tag(0),
    ];
    Tester::new().live_through(&[], &[&only(0b00010)[..], &history].concat());
}
