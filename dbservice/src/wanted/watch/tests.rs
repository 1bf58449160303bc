//! The reconciler without its streams: whatever happened before, what is served is what a fresh start would serve.

use jiff::Timestamp;
use proptest::prelude::*;
use tidegate_core::{AssumeRole, ResourceMatcher};
use tidegate_proto::v1::watch_databases_response::Event;
use tidegate_service::{clock::ManualClock, metrics::Metrics, tasks::Tasks};

use super::*;
use crate::{
    audit::AuditReceiver,
    testing::{redshift, role},
    wanted::{AsWritten, Wanted},
};

/// What the agent's clock shows.
const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// What is served of each name, without where it is in memory.
type Served = Vec<Wanted>;

struct Bed {
    settings: watch::Sender<DatabaseSettings>,
    reconciler: Reconciler,
    events: AuditReceiver,
    revision: u64,
}

impl Bed {
    fn new(settings: DatabaseSettings) -> Self {
        let settings = watch::Sender::new(settings);
        let again = Arc::new(Names::default());
        let metrics = ServiceMetrics::register(&Metrics::new());
        let (audit, events) = AuditQueue::new(metrics.clone());
        let reconciler = Reconciler::new(
            settings.subscribe(),
            Arc::new(Labelled::new(Tasks::new(), Arc::clone(&again))),
            Arc::new(AsWritten),
            again,
            Arc::new(ServedSet::new()),
            audit,
            metrics,
            Arc::new(ManualClock::new(NOW)),
        );
        Self {
            settings,
            reconciler,
            events,
            revision: 1,
        }
    }

    fn set(&mut self, settings: DatabaseSettings) -> Selectors {
        self.settings.send_replace(settings);
        let selectors = self.reconciler.take_settings();
        if selectors == Selectors::Other {
            self.reconciler.mirror.watch_began();
        }
        selectors
    }

    fn say(&mut self, events: impl IntoIterator<Item = Event>) {
        self.revision += 1;
        let message = |event| {
            Ok(v1::WatchDatabasesResponse {
                revision: self.revision,
                event: Some(event),
            })
        };
        let batch = events.into_iter().map(message).collect();
        self.reconciler.take_in(batch).unwrap();
    }

    fn served(&self) -> Served {
        let all = self.reconciler.served.all();
        all.into_iter()
            .map(|wanted| Wanted::clone(&wanted))
            .collect()
    }

    fn names(&self) -> Vec<String> {
        let names = |wanted: Wanted| wanted.database.name.to_string();
        self.served().into_iter().map(names).collect()
    }
}

fn entry(env: &str, assume: Option<AssumeRole>) -> ResourceMatcher {
    ResourceMatcher {
        labels: Selector::new([("env", [env])]).unwrap(),
        assume_role: assume,
        line: 1,
    }
}

fn upserted(database: Database) -> Event {
    Event::Upserted(database.into())
}

fn synced() -> Event {
    Event::Synced(v1::Synced {})
}

fn listed(entries: Vec<ResourceMatcher>, databases: &[Database]) -> Bed {
    let mut bed = Bed::new(DatabaseSettings {
        resources: entries,
        ..DatabaseSettings::default()
    });
    bed.reconciler.mirror.watch_began();
    bed.say(databases.iter().cloned().map(upserted));
    bed.say([synced()]);
    bed
}

#[test]
fn other_entries_count_at_once_and_list_the_inventory_anew() {
    let (prod, dev) = (
        redshift("orders", &[("env", "prod")]),
        redshift("users", &[("env", "dev")]),
    );
    let mut bed = listed(
        vec![entry("prod", None), entry("dev", None)],
        &[prod, dev.clone()],
    );
    assert_eq!(bed.names(), ["orders", "users"]);
    let narrower = DatabaseSettings {
        resources: vec![entry("prod", Some(role("agent")))],
        ..DatabaseSettings::default()
    };
    assert_eq!(bed.set(narrower.clone()), Selectors::Other);
    assert_eq!(bed.reconciler.mirror.resume_after(), 0);
    assert_eq!(bed.served()[0].effective.role, Some(role("agent")));
    assert_eq!(bed.names(), ["orders"]);
    assert_eq!(bed.set(narrower), Selectors::Same);
}

#[test]
fn a_role_that_changes_asks_the_inventory_for_nothing() {
    let mut bed = listed(
        vec![entry("prod", None)],
        &[redshift("orders", &[("env", "prod")])],
    );
    let ended = bed.reconciler.served.by_route("orders").unwrap().ended;
    let other = DatabaseSettings {
        resources: vec![entry("prod", Some(role("other")))],
        ..DatabaseSettings::default()
    };
    assert_eq!(bed.set(other), Selectors::Same);
    assert_eq!(bed.served()[0].effective.role, Some(role("other")));
    assert!(!ended.is_cancelled());
}

#[test]
fn without_entries_nothing_of_the_inventory_is_served_or_kept() {
    let mut bed = listed(
        vec![entry("prod", None)],
        &[redshift("orders", &[("env", "prod")])],
    );
    assert_eq!(bed.set(DatabaseSettings::default()), Selectors::Other);
    assert!(bed.names().is_empty());
    assert_eq!(bed.reconciler.mirror.names().count(), 0);
}

#[test]
fn databases_of_the_file_come_and_go_with_it_and_give_their_name_back() {
    let found = redshift("orders", &[("env", "prod")]);
    let mut bed = listed(vec![entry("prod", None)], std::slice::from_ref(&found));
    let mut own = redshift("orders", &[]);
    own.description = "own".to_owned();
    let with_own = DatabaseSettings {
        resources: vec![entry("prod", None)],
        databases: vec![own, redshift("stock", &[])],
        ..DatabaseSettings::default()
    };
    bed.set(with_own.clone());
    assert_eq!(bed.names(), ["orders", "stock"]);
    assert_eq!(bed.served()[0].database.description, "own");
    assert_eq!(bed.reconciler.refused.len(), 1);
    bed.set(DatabaseSettings {
        databases: Vec::new(),
        ..with_own
    });
    assert_eq!(bed.names(), ["orders"]);
    assert_eq!(*bed.served()[0].database, found);
    assert!(bed.reconciler.refused.is_empty());
}

/// One thing that happens to an agent.
#[derive(Clone, Debug)]
enum Step {
    Upserted(u8, u8),
    Deleted(u8),
    /// A full listing of these.
    Listed(Vec<(u8, u8)>),
    Settings(Vec<(u8, bool)>, Vec<(u8, u8)>),
}

const ENVS: [&str; 3] = ["dev", "prod", "stage"];

/// One of few databases, in one of few forms: labels and address differ.
fn form(number: u8, form: u8) -> Database {
    let env = ENVS[usize::from(form) % ENVS.len()];
    let mut database = redshift(&format!("db{number}"), &[("env", env)]);
    if form >= 3 {
        database.uri = "elsewhere.example.com:5439".parse().unwrap();
    }
    database
}

fn settings(entries: &[(u8, bool)], statics: &[(u8, u8)]) -> DatabaseSettings {
    let statics: BTreeMap<u8, u8> = statics.iter().copied().collect();
    DatabaseSettings {
        resources: entries
            .iter()
            .map(|(env, named)| entry(ENVS[usize::from(*env)], named.then(|| role("agent"))))
            .collect(),
        databases: statics
            .into_iter()
            .map(|(number, what)| form(number, what))
            .collect(),
        ..DatabaseSettings::default()
    }
}

fn step() -> impl Strategy<Value = Step> {
    let database = || (0..5_u8, 0..4_u8);
    prop_oneof![
        4 => database().prop_map(|(number, form)| Step::Upserted(number, form)),
        2 => (0..5_u8).prop_map(Step::Deleted),
        1 => prop::collection::vec(database(), 0..5).prop_map(Step::Listed),
        2 => (
            prop::collection::vec((0..3_u8, any::<bool>()), 0..4),
            prop::collection::vec(database(), 0..3),
        )
            .prop_map(|(entries, statics)| Step::Settings(entries, statics)),
    ]
}

proptest! {
    #[test]
    fn changes_in_any_order_lead_to_what_a_fresh_start_serves(steps in prop::collection::vec(step(), 0..40)) {
        let mut bed = listed(Vec::new(), &[]);
        let mut now = DatabaseSettings::default();
        let mut inventory: BTreeMap<u8, u8> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Upserted(number, what) => {
                    inventory.insert(number, what);
                    bed.say([upserted(form(number, what))]);
                }
                Step::Deleted(number) => {
                    inventory.remove(&number);
                    bed.say([Event::Deleted(format!("db{number}"))]);
                }
                Step::Listed(all) => {
                    inventory = all.into_iter().collect();
                    bed.reconciler.mirror.list_again();
                    bed.reconciler.mirror.watch_began();
                }
                Step::Settings(entries, statics) => {
                    now = settings(&entries, &statics);
                    bed.set(now.clone());
                }
            }
            // A listing that is due is whole before anything is compared.
            if bed.reconciler.mirror.resume_after() == 0 {
                let all: Vec<_> = inventory.iter().map(|(number, what)| upserted(form(*number, *what))).collect();
                bed.say(all);
                bed.say([synced()]);
            }
        }
        let all: Vec<Database> = inventory.iter().map(|(number, what)| form(*number, *what)).collect();
        let mut fresh = listed(now.resources.clone(), &all);
        fresh.set(now);
        prop_assert_eq!(bed.served(), fresh.served());
        prop_assert_eq!(&bed.reconciler.refused, &fresh.reconciler.refused);
    }
}

/// One change among thousands must not cost what thousands do.
#[test]
fn one_change_among_thousands_moves_one_database_and_leaves_the_others_where_they_are() {
    let all: Vec<Database> = (0..5000)
        .map(|number| redshift(&format!("db{number}"), &[("env", "prod")]))
        .collect();
    let mut bed = listed(vec![entry("prod", None)], &all);
    let before = bed.reconciler.served.all();
    assert_eq!(before.len(), 5000);
    let mut changed = all[17].clone();
    changed.description = "other".to_owned();
    bed.say([upserted(changed)]);
    let after = bed.reconciler.served.all();
    let moved = before
        .iter()
        .zip(&after)
        .filter(|(then, now)| !Arc::ptr_eq(then, now))
        .count();
    assert_eq!(moved, 1);
}

#[test]
fn a_poisoned_record_is_refused_and_audited_once() {
    let mut bed = listed(vec![entry("prod", None)], &[]);
    let mut orders = redshift("orders", &[("env", "prod")]);
    orders.uri = "orders.evil.example.com:5439".parse().unwrap();
    let poisoned = || Event::Upserted(orders.clone().into());
    bed.say([poisoned()]);
    bed.say([poisoned()]);
    assert!(bed.reconciler.served.all().is_empty());
    let event = bed.events.try_recv().unwrap();
    assert_eq!(
        (
            event.event.as_str(),
            event.code.as_str(),
            event.db_service.as_str()
        ),
        ("db.endpoint.refused", "TDE00W", "orders")
    );
    assert!(!event.success && event.error.contains("evil.example.com"));
    assert_eq!(event.time.map(|time| time.seconds), Some(NOW.as_second()));
    assert!(bed.events.try_recv().is_err());
}
