//! What the log must hold to, whatever comes and whatever goes wrong.

mod codes;
mod faults;
mod kept;
mod speed;

use std::{collections::BTreeMap, path::Path, sync::Arc};

use jiff::Timestamp;
use tidegate_proto::{
    audit::{Chain, Link, Repeats, Verifier},
    v1::{AuditEvent, AuditRecord},
};
use tidegate_service::{clock::ManualClock, metrics::Metrics};

use super::{AuditLog, EventQuery, Origin, event};

const NOW: &str = "2026-11-22T12:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn origin() -> Origin {
    Origin {
        cluster: "tidegate.test".to_owned(),
        instance: "auth-1".to_owned(),
    }
}

/// A log in a folder of its own, whose clock stands still.
struct Bed {
    directory: tempfile::TempDir,
    log: AuditLog,
}

impl Bed {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let log = open(directory.path());
        Self { directory, log }
    }

    /// Closes the log and opens it again.
    async fn again(self) -> Self {
        self.log.close().await;
        let log = open(self.directory.path());
        Self { log, ..self }
    }

    /// Changes the file behind the log's back, past what keeps rows from being changed.
    async fn tamper(self, sql: &str) -> Self {
        self.log.close().await;
        let connection =
            rusqlite::Connection::open(self.directory.path().join("audit.db")).unwrap();
        connection
            .execute_batch("DROP TRIGGER records_never_change; DROP TRIGGER records_never_go;")
            .unwrap();
        connection.execute_batch(sql).unwrap();
        let log = open(self.directory.path());
        Self { log, ..self }
    }
}

fn open(directory: &Path) -> AuditLog {
    AuditLog::open_as(
        directory,
        origin(),
        Arc::new(ManualClock::new(now())),
        &Metrics::new(),
    )
    .unwrap()
}

fn of_user(user: &str) -> AuditEvent {
    AuditEvent {
        user: user.to_owned(),
        time: Some(tidegate_proto::convert::timestamp(now())),
        ..event::new(event::LOGIN)
    }
}

/// All records.
async fn records(log: &AuditLog) -> Vec<AuditRecord> {
    let upto = *log.newest().borrow();
    let (mut all, mut after) = (Vec::new(), 0);
    while after < upto {
        let page = log.page("", after, upto).await.unwrap();
        all.extend(page.records);
        after = page.through;
        assert_eq!(page.more, after < upto);
    }
    all
}

/// What verifying all of the log finds, by source.
async fn verified(log: &AuditLog) -> BTreeMap<String, Chain> {
    let mut verifier = Verifier::new(Repeats::Refused, BTreeMap::new());
    let id = log.id().log.clone();
    for record in records(log).await {
        verifier.read(Link {
            log: &id,
            source: &record.source,
            sequence: record.sequence,
            hash: &record.hash,
            event: &record.event,
        });
        if record.index_differs {
            verifier.accuse(&id, &record.source, record.sequence, "index");
        }
    }
    let chains = verifier.finish(&[&id]).into_iter();
    chains.map(|((_, source), chain)| (source, chain)).collect()
}

/// Fails unless every chain is sound; gives the number of records of each source.
async fn sound(log: &AuditLog) -> BTreeMap<String, u64> {
    let chains = verified(log).await.into_iter();
    chains
        .map(|(source, chain)| {
            assert_eq!(chain.broken, None, "{source}");
            (source, chain.count)
        })
        .collect()
}

async fn everything(log: &AuditLog) -> Vec<AuditEvent> {
    let query = EventQuery {
        limit: 100_000,
        ..EventQuery::default()
    };
    log.search(query).await.unwrap().events
}
