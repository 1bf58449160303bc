//! What a world is made of: its scopes, workers, scans on their way, and a control plane that runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use jiff::Timestamp;
use tidegate_core::{DatabaseKind, EndpointFilter, ScanScope, Selector};
use tidegate_proto::v1;
use tidegate_service::tasks::ShutdownToken;

use super::{
    super::{Header, Ledger, plan::Seen, workers::Watching},
    flaky::Flaky,
};
use crate::{
    inventory::Inventory,
    store::sqlite::{Monotonic, SqliteStore},
};

pub(in crate::ledger::lives) const DATABASES: u8 = 12;
pub(in crate::ledger::lives) const WORKERS: usize = 3;
pub(in crate::ledger::lives) const SCOPES: usize = 5;
/// One step of time: workers ask again well within their lease of 30 seconds, and two steps are more than it.
pub(in crate::ledger::lives) const STEP: Duration = Duration::from_secs(20);
/// Rounds in which what a poll asks for comes to rest.
pub(in crate::ledger::lives) const POLL_ROUNDS_MAX: usize = 8;
/// When each world begins.
pub(in crate::ledger::lives) const START: Timestamp = Timestamp::constant(1_700_000_000, 0);
/// Longer than any grace.
pub(in crate::ledger::lives) const LONG: Duration = Duration::from_hours(24 * 365);

/// AWS, by database: its tag.
pub(in crate::ledger::lives) type Aws = BTreeMap<u8, u8>;

#[derive(Default)]
pub(in crate::ledger::lives) struct ManualTime(pub(in crate::ledger::lives) Mutex<Duration>);

impl Monotonic for ManualTime {
    fn elapsed(&self) -> Duration {
        *self.0.lock().unwrap()
    }
}

/// What goes wrong in a scan, as bits by database.
#[derive(Clone, Copy, Debug)]
pub(in crate::ledger::lives) struct Fault {
    pub(in crate::ledger::lives) unseen: u16,
    pub(in crate::ledger::lives) untagged: u16,
}

/// Scopes that overlap, of two groups, of files and of resources; in each group some want everything and some not.
pub(in crate::ledger::lives) fn scopes() -> &'static [ScanScope; SCOPES] {
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

pub(in crate::ledger::lives) fn scope_with(id: &str) -> usize {
    let mut all = scopes().iter();
    all.position(|scope| scope.id().0 == id)
        .expect("the world has all scopes")
}

pub(in crate::ledger::lives) fn wants(scope: usize, env: u8) -> bool {
    let envs: &[u8] = [&[1][..], &[0, 1, 2], &[1, 2], &[0, 1, 2], &[2]][scope];
    envs.contains(&env)
}

pub(in crate::ledger::lives) fn identity(database: u8) -> String {
    format!("arn:aws:redshift:us-east-1:111122223333:cluster:db{database:02}")
}

pub(in crate::ledger::lives) fn item(database: u8, env: Option<u8>) -> v1::ScanItem {
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
pub(in crate::ledger::lives) struct Grant {
    pub(in crate::ledger::lives) epoch: u64,
    pub(in crate::ledger::lives) rescan: u64,
}

/// A worker. It keeps its host id over its lives, as a restarted process does.
pub(in crate::ledger::lives) struct Process {
    pub(in crate::ledger::lives) host: &'static str,
    pub(in crate::ledger::lives) group: &'static str,
    pub(in crate::ledger::lives) configuration: BTreeSet<usize>,
    pub(in crate::ledger::lives) alive: bool,
    pub(in crate::ledger::lives) life: u32,
    pub(in crate::ledger::lives) grants: BTreeMap<usize, Grant>,
    /// Until when it believes in its grants.
    pub(in crate::ledger::lives) until: Duration,
}

/// A scan on its way.
#[derive(Debug)]
pub(in crate::ledger::lives) struct Stream {
    pub(in crate::ledger::lives) worker: usize,
    pub(in crate::ledger::lives) life: u32,
    pub(in crate::ledger::lives) scope: usize,
    pub(in crate::ledger::lives) header: Header,
    pub(in crate::ledger::lives) seen: Seen,
    /// What was seen and could be judged.
    pub(in crate::ledger::lives) judged: BTreeSet<u8>,
    /// The header was taken and the items are with the service, which has not looked at them yet.
    pub(in crate::ledger::lives) begun: bool,
    /// A later scan of the scope has begun.
    pub(in crate::ledger::lives) superseded: bool,
}

/// How far a scan gets before something else happens.
#[derive(Clone, Copy, Debug)]
pub(in crate::ledger::lives) enum Pace {
    /// All the way.
    Prompt,
    /// The service has it and takes its time.
    Begun,
    /// It is still on its way.
    Late,
}

/// A listed database.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::ledger::lives) struct Listed {
    pub(in crate::ledger::lives) owner: usize,
    pub(in crate::ledger::lives) database: v1::Database,
}

/// A control plane that runs.
pub(in crate::ledger::lives) struct House {
    pub(in crate::ledger::lives) store: Arc<SqliteStore>,
    pub(in crate::ledger::lives) flaky: Arc<Flaky>,
    pub(in crate::ledger::lives) inventory: Arc<Inventory>,
    pub(in crate::ledger::lives) ledger: Ledger,
    pub(in crate::ledger::lives) shutdown: ShutdownToken,
    pub(in crate::ledger::lives) _watching: Vec<Watching>,
}

impl Drop for House {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}
