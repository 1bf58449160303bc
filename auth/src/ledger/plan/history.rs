//! Whatever happens, one good scan of each scope heals everything, and nothing that was there all the time is missed.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{unread_tags::without_tags, *};

const DATABASES: u8 = 24;

/// What can happen.
#[derive(Clone, Debug)]
enum Event {
    /// A database is made in AWS, or changed.
    Tag { database: u8, env: u8 },
    /// A database is deleted in AWS.
    Remove { database: u8 },
    /// A scope is scanned; what is left out, and whose tags are missing, only when the scan fails on the way.
    Scan { scope: usize, fault: Option<Fault> },
    /// The workers that name a scope change their configuration, and its grace passes.
    Retire { scope: usize },
    /// The workers that name a scope change their configuration, and others see what it owns.
    LetGo { scope: usize },
    /// The auth service restarts and forgets what scopes saw and do not own.
    Forget,
}

#[derive(Clone, Debug)]
struct Fault {
    unseen: BTreeSet<u8>,
    untagged: BTreeSet<u8>,
}

fn fault() -> impl Strategy<Value = Fault> {
    let some = || proptest::collection::btree_set(0..DATABASES, 0..DATABASES as usize);
    (some(), some()).prop_map(|(unseen, untagged)| Fault { unseen, untagged })
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0..DATABASES, 0..3_u8).prop_map(|(database, env)| Event::Tag { database, env }),
        1 => (0..DATABASES).prop_map(|database| Event::Remove { database }),
        4 => (0..4_usize, proptest::option::of(fault()))
            .prop_map(|(scope, fault)| Event::Scan { scope, fault }),
        1 => (0..4_usize).prop_map(|scope| Event::Retire { scope }),
        1 => (0..4_usize).prop_map(|scope| Event::LetGo { scope }),
        1 => Just(Event::Forget),
    ]
}

/// Scopes that overlap: all see everything but the second, which sees only some tags.
fn scopes() -> [ScanScope; 4] {
    let mut selective = scope("prod", "us-east-1", 1);
    selective.tags = Selector::new([("env".to_owned(), vec!["1".to_owned()])]).unwrap();
    [
        scope("prod", "us-east-1", 0),
        selective,
        of_config(scope("prod", "us-east-1", 0), "team"),
        scope("lab", "us-east-1", 0),
    ]
}

/// AWS, by database: its tag.
type Aws = BTreeMap<u8, u8>;

/// What a scan of a scope gives.
fn look(scope: &ScanScope, aws: &Aws, fault: Option<&Fault>) -> Seen {
    let mut seen = BTreeMap::new();
    for (database, env) in aws {
        let mut found = sighting(&format!("db{database}"), &env.to_string());
        if let Some(fault) = fault {
            if fault.unseen.contains(database) {
                continue;
            }
            if fault.untagged.contains(database) {
                found = without_tags(&format!("db{database}"));
            }
        }
        if found.tags_unknown || scope.tags.matches(&found.database.labels) {
            seen.insert(identity(*database), found);
        }
    }
    if fault.is_some() {
        Seen::Partial(seen)
    } else {
        Seen::Complete(seen)
    }
}

fn identity(database: u8) -> String {
    format!("arn:{database:02}")
}

/// A ledger over a model, as the shell keeps one.
#[derive(Default)]
struct Ledger {
    model: Model,
    held: [Option<[u8; 32]>; 4],
}

impl Ledger {
    fn scan(&mut self, index: usize, aws: &Aws, fault: Option<&Fault>) -> Plan {
        let scope = &scopes()[index];
        let seen = look(scope, aws, fault);
        let plan = self.model.scan_after(scope, &seen, self.held[index]);
        if fault.is_none() {
            self.held[index] = plan.held.as_ref().map(|held| held.digest);
        }
        plan
    }

    fn retire(&mut self, index: usize) {
        let scope = &scopes()[index];
        let me = Owner::of(scope);
        self.model.shadows.retain(|(_, heir)| *heir != me);
        let plan = retire(&me.scope_id, &self.model);
        self.model.apply(scope, &plan);
        self.held[index] = None;
    }

    fn let_go(&mut self, index: usize) {
        let scope = &scopes()[index];
        let me = Owner::of(scope);
        self.model.shadows.retain(|(_, heir)| *heir != me);
        let mut plan = retire(&me.scope_id, &self.model);
        plan.deletes.clear();
        self.model.apply(scope, &plan);
    }

    /// Scans each scope without a fault, and again where deletions were held.
    fn heal(&mut self, aws: &Aws) {
        for index in 0..4 {
            if self.scan(index, aws, None).held.is_some() {
                assert_eq!(self.scan(index, aws, None).held, None);
            }
        }
    }

    fn names(&self) -> BTreeMap<String, DatabaseName> {
        let rows = self.model.by_name.values();
        rows.map(|row| (row.database.identity.clone(), row.database.name.clone()))
            .collect()
    }

    fn labels(&self) -> BTreeMap<String, Option<String>> {
        let rows = self.model.by_name.values();
        rows.map(|row| {
            let env = row.database.labels.get("env").map(str::to_owned);
            (row.database.identity.clone(), env)
        })
        .collect()
    }
}

proptest! {
    #[test]
    fn one_good_scan_of_each_scope_gives_what_a_fresh_ledger_would_have(
        events in proptest::collection::vec(event(), 0..60)
    ) {
        let mut ledger = Ledger::default();
        let mut aws = Aws::new();
        // Registered, in AWS ever since, and never of a scope that was retired.
        let mut safe: BTreeSet<String> = BTreeSet::new();
        for event in events {
            match event {
                Event::Tag { database, env } => {
                    // A selective owner lets go of what no longer matches, as it should.
                    let selective = scopes()[1].id().0;
                    let name = identity(database);
                    let registered = ledger.model.with_identity(&name);
                    if registered.is_some_and(|row| row.owner.scope_id == selective) && env != 1 {
                        safe.remove(&name);
                    }
                    aws.insert(database, env);
                }
                Event::Remove { database } => {
                    aws.remove(&database);
                    safe.remove(&identity(database));
                }
                Event::Scan { scope, fault } => {
                    ledger.scan(scope, &aws, fault.as_ref());
                }
                Event::Retire { scope } => {
                    let id = scopes()[scope].id().0;
                    for row in ledger.model.owned_by(&id) {
                        safe.remove(&row.database.identity);
                    }
                    ledger.retire(scope);
                }
                Event::LetGo { scope } => {
                    ledger.let_go(scope);
                    // Nobody but the selective scope asks for what it inherited, and it may not want it by now.
                    let selective = scopes()[1].id().0;
                    for row in ledger.model.owned_by(&selective) {
                        let identity = row.database.identity;
                        let wanted = aws.iter().any(|(database, env)| self::identity(*database) == identity && *env == 1);
                        if !wanted {
                            safe.remove(&identity);
                        }
                    }
                }
                Event::Forget => ledger.model.shadows.clear(),
            }
            let names = ledger.names();
            for name in &safe {
                prop_assert!(names.contains_key(name), "{name} was missing");
            }
            for (database, env) in &aws {
                let row = ledger.model.with_identity(&identity(*database));
                let selective = scopes()[1].id().0;
                if row.is_some_and(|row| row.owner.scope_id != selective || *env == 1) {
                    safe.insert(identity(*database));
                }
            }
        }
        ledger.heal(&aws);
        let mut fresh = Ledger::default();
        fresh.heal(&aws);
        prop_assert_eq!(ledger.names(), fresh.names());
        prop_assert_eq!(ledger.labels(), fresh.labels());
    }
}
