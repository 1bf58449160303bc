//! What must hold after every event, and what is compared in the end.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_proto::v1;

use super::super::super::plan::Owner;
use crate::inventory::tables::Row as _;

use super::{super::parts::*, World};

impl World {
    pub(in crate::ledger::lives) fn listed(&self) -> BTreeMap<u8, Listed> {
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
    pub(in crate::ledger::lives) async fn look(&mut self) {
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
    pub(in crate::ledger::lives) async fn settle(&mut self) {
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
    pub(in crate::ledger::lives) async fn poll(&mut self) {
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

    pub(in crate::ledger::lives) fn configured(&self) -> BTreeSet<usize> {
        let workers = self.workers.iter();
        workers
            .flat_map(|worker| worker.configuration.iter().copied())
            .collect()
    }

    /// What is listed, without what depends on which group came first; each owner must be the first of its group.
    pub(in crate::ledger::lives) fn outcome(&self) -> BTreeMap<u8, v1::Database> {
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
}
