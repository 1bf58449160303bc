//! Disks that are full, processes that are killed, files that are old or were tampered with.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use tidegate_proto::{convert, v1::AuditEvent};

use super::{Bed, everything, now, of_user, open, origin, sound, verified};
use crate::audit::{
    AuditUnavailable, Figures, event,
    schema::{self, tests::old_file},
    shape,
    writer::{Batch, Writer},
};

/// Tells the test's own program to be the process that is killed.
const KILLED_IN: &str = "TIDEGATE_TEST_AUDIT_KILLED_IN";

fn batch(source: &str, events: impl IntoIterator<Item = AuditEvent>) -> Batch {
    let received = Some(convert::timestamp(now()));
    let shaped = events.into_iter().map(|event| AuditEvent {
        received,
        ..shape::shape(event)
    });
    Batch {
        source: source.to_owned(),
        events: shaped.collect(),
    }
}

#[tokio::test]
async fn a_full_disk_is_said_leaves_nothing_half_written_and_loses_no_own_event() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.db");
    let (connection, chains) = schema::open(&path, &origin(), now()).unwrap();
    let limit = |pages: u32| {
        // The limit is the connection's: only this one meets a full disk.
        format!("PRAGMA max_page_count = {pages}")
    };
    let pages: u32 = connection
        .pragma_query_value(None, "page_count", |row| row.get(0))
        .unwrap();
    connection
        .query_row(&limit(pages + 8), [], |_| Ok(()))
        .unwrap();
    let mut writer = Writer::new(connection, chains, Figures::default()).unwrap();
    let large = |number: usize| AuditEvent {
        uid: number.to_string(),
        error: "x".repeat(4000),
        ..of_user("alice")
    };
    let mut stored = 0;
    let refused = loop {
        let events = (stored..stored + 4).map(large);
        match writer.append(vec![(batch("host-1", events), false)]) {
            Ok(()) => stored += 4,
            Err(error) => break error,
        }
    };
    assert_eq!(refused, AuditUnavailable::Full);
    let own = (0..5).map(|number| AuditEvent {
        error: "x".repeat(4000),
        ..of_user(&format!("own-{number}"))
    });
    assert!(writer.append(vec![(batch("", own), true)]).is_err());
    let log = open(directory.path());
    assert_eq!(sound(&log).await["host-1"], stored as u64);

    writer
        .connection()
        .query_row(&limit(u32::MAX), [], |_| Ok(()))
        .unwrap();
    let events = (stored..stored + 4).map(large);
    writer
        .append(vec![(batch("host-1", events), false)])
        .unwrap();
    drop(writer);
    let log = open(directory.path());
    let counts = sound(&log).await;
    assert_eq!((counts["host-1"], counts["auth-1"]), (stored as u64 + 4, 5));
}

#[tokio::test]
async fn own_events_that_found_no_room_are_counted_in_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.db");
    let (connection, chains) = schema::open(&path, &origin(), now()).unwrap();
    let mut writer = Writer::new(connection, chains, Figures::default()).unwrap();
    writer
        .overflow()
        .store(3, std::sync::atomic::Ordering::Relaxed);
    let next = vec![(batch("host-1", [of_user("alice")]), false)];
    writer.append(next).unwrap();
    drop(writer);
    let kept = everything(&open(directory.path())).await;
    assert_eq!(kept[1].code, event::AUDIT_EVENTS_LOST.1);
    assert_eq!(kept[1].fields["events"], "3");
    assert_eq!(kept[1].received, Some(convert::timestamp(now())));
}

/// Not a test of its own: the process that the next one kills.
#[test]
fn a_process_that_appends_until_it_is_killed() {
    let Some(directory) = std::env::var_os(KILLED_IN) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let log = open(directory.as_ref());
        for number in 0..200_000 {
            let event = |part: usize| AuditEvent {
                uid: format!("{number}-{part}"),
                ..of_user("alice")
            };
            log.append("host-1", (0..7).map(event).collect())
                .await
                .unwrap();
            println!("\nACK {number}");
        }
    });
}

#[tokio::test]
async fn after_a_kill_all_that_was_acknowledged_is_there_in_whole_batches() {
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 1..=3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["a_process_that_appends_until_it_is_killed", "--nocapture"])
            .env(KILLED_IN, directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for line in lines.map_while(Result::ok) {
            if let Some(number) = line.strip_prefix("ACK ") {
                acknowledged = acknowledged.max(number.parse::<u64>().unwrap() + 1);
                if acknowledged >= round * 40 {
                    child.kill().unwrap();
                    break;
                }
            }
        }
        child.wait().unwrap();
        let log = open(directory.path());
        let count = sound(&log).await["host-1"];
        assert!(
            count >= acknowledged * 7,
            "{count} of {acknowledged} batches"
        );
        assert_eq!(count % 7, 0, "a batch is stored whole or not at all");
        log.close().await;
    }
}

#[tokio::test]
async fn a_file_without_chains_gets_them_and_keeps_its_order() {
    let directory = tempfile::tempdir().unwrap();
    let old: Vec<AuditEvent> = (0..2500)
        .map(|number| AuditEvent {
            sid: number.to_string(),
            server_id: ["", "host-1", "host-2"][number % 3].to_owned(),
            ..of_user("alice")
        })
        .collect();
    old_file(&directory.path().join("audit.db"), &old);
    let log = open(directory.path());
    let counts = sound(&log).await;
    assert_eq!((counts["host-1"], counts["host-2"]), (833, 833));
    let kept = everything(&log).await;
    assert_eq!(kept.len(), old.len() + 1);
    assert!(
        kept.iter()
            .zip(&old)
            .all(|(kept, old)| kept.sid == old.sid && kept.received.is_none())
    );
    let told = kept.last().unwrap();
    assert_eq!(told.code, event::AUDIT_LOG_MIGRATED.1);
    assert_eq!(told.fields["records"], "2500");
    log.close().await;
    // It is done once.
    let log = open(directory.path());
    assert_eq!(everything(&log).await.len(), old.len() + 1);
}

#[tokio::test]
async fn whoever_changes_the_file_is_seen() {
    for (what, sql, at) in [
        ("a body", "UPDATE records SET body = body || x'00' WHERE place = 3", 3),
        ("a hash", "UPDATE records SET hash = zeroblob(32) WHERE place = 3", 3),
        ("a hash's type", "UPDATE records SET hash = 'x' WHERE place = 3", 3),
        ("a person", "UPDATE records SET user = 'bob' WHERE place = 3", 3),
        ("a time", "UPDATE records SET at = at + 1 WHERE place = 3", 3),
        ("a removal", "DELETE FROM records WHERE place = 3", 4),
        ("the first one's removal", "DELETE FROM records WHERE place = 1", 2),
        (
            "a swap",
            "UPDATE records SET place = 100 WHERE place = 2; UPDATE records SET place = 2 WHERE place = 3;
             UPDATE records SET place = 3 WHERE place = 100",
            3,
        ),
        (
            "a source's name",
            "UPDATE sources SET name = 'host-9' WHERE name = 'host-1'",
            1,
        ),
    ] {
        let bed = Bed::new();
        let events = ["a", "b", "c", "d", "e"].map(of_user).to_vec();
        bed.log.append("host-1", events).await.unwrap();
        let bed = bed.tamper(sql).await;
        let found = verified(&bed.log).await;
        let broken = found.values().next().unwrap().broken.as_ref();
        assert_eq!(broken.map(|found| found.sequence), Some(at), "{what}");
    }
}
