//! What is kept, in which form, and how it is found again.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use proptest::prelude::*;
use prost::Message as _;
use tidegate_proto::{convert, v1::AuditEvent};

use super::{Bed, everything, now, of_user, sound};
use crate::audit::{
    EventQuery, event,
    shape::{any_event, shape},
};

#[tokio::test]
async fn an_event_is_kept_once_whatever_number_of_times_it_comes() {
    let bed = Bed::new();
    let event = of_user("alice");
    let twice = vec![event.clone(), event.clone()];
    bed.log.append("host-1", twice).await.unwrap();
    bed.log.append("host-1", vec![event.clone()]).await.unwrap();
    let bed = bed.again().await;
    bed.log.append("host-1", vec![event.clone()]).await.unwrap();
    let kept = everything(&bed.log).await;
    assert_eq!(kept.len(), 1);
    assert_eq!(
        (kept[0].uid.as_str(), kept[0].sequence),
        (event.uid.as_str(), 1)
    );
    assert_eq!(kept[0].server_id, "host-1");
    assert_eq!(kept[0].cluster_name, "tidegate.test");
    // Another source cannot take an uid away from the one that it is of.
    bed.log.append("host-2", vec![event]).await.unwrap();
    let counts = sound(&bed.log).await;
    assert_eq!(
        counts,
        BTreeMap::from([("host-1".to_owned(), 1), ("host-2".to_owned(), 1)])
    );
}

#[tokio::test]
async fn an_uid_with_other_content_is_kept_apart_once_and_says_so() {
    let bed = Bed::new();
    let first = of_user("alice");
    let forged = AuditEvent {
        user: "mallory".to_owned(),
        ..first.clone()
    };
    for _ in 0..3 {
        let both = vec![first.clone(), forged.clone()];
        bed.log.append("host-1", both).await.unwrap();
    }
    let kept = everything(&bed.log).await;
    assert_eq!(kept.len(), 2);
    assert_eq!(
        (kept[0].uid == first.uid, kept[0].user.as_str()),
        (true, "alice")
    );
    assert!(kept[1].uid.starts_with(&format!("{}~", first.uid)));
    assert_eq!(kept[1].notes, [format!("uid_used_before:{}", first.uid)]);
    sound(&bed.log).await;
}

#[tokio::test]
async fn own_events_and_those_of_services_are_in_chains_by_their_source() {
    let bed = Bed::new();
    bed.log.record(event::new(event::LOGIN));
    bed.log
        .append("host-1", vec![of_user("a"), of_user("b")])
        .await
        .unwrap();
    bed.log.record_all(vec![event::new(event::LOGIN)]).await;
    let bed = bed.again().await;
    bed.log.append("host-1", vec![of_user("c")]).await.unwrap();
    let counts = sound(&bed.log).await;
    assert_eq!(
        counts,
        BTreeMap::from([("auth-1".to_owned(), 2), ("host-1".to_owned(), 3)])
    );
}

#[tokio::test]
async fn a_wrong_clock_hides_nothing_from_a_search_by_time() {
    let bed = Bed::new();
    let said = convert::timestamp("1999-01-01T00:00:00Z".parse().unwrap());
    let odd = AuditEvent {
        time: Some(said),
        ..of_user("alice")
    };
    bed.log.append("host-1", vec![odd]).await.unwrap();
    let query = EventQuery {
        from: Some(now()),
        limit: 1,
        ..EventQuery::default()
    };
    let found = bed.log.search(query).await.unwrap().events;
    assert_eq!(found[0].time, Some(said));
    assert_eq!(found[0].received, Some(convert::timestamp(now())));
}

#[tokio::test]
async fn a_search_pages_from_the_newest_and_misses_and_repeats_nothing() {
    let bed = Bed::new();
    let at = |second: i64| convert::timestamp(now() - jiff::SignedDuration::from_secs(second));
    // Many of one time, and not in the order of time.
    let events: Vec<_> = (0..97)
        .map(|number: i64| AuditEvent {
            time: Some(at(number * 31 % 7)),
            db_service: format!("db-{}", number % 2),
            sid: number.to_string(),
            ..of_user(if number % 3 == 0 { "alice" } else { "bob" })
        })
        .collect();
    bed.log.append("host-1", events.clone()).await.unwrap();
    for (user, db) in [("", ""), ("alice", ""), ("alice", "db-1")] {
        let mut query = EventQuery {
            user: user.to_owned(),
            db: db.to_owned(),
            limit: 10,
            ..EventQuery::default()
        };
        let mut sids = Vec::new();
        loop {
            let found = bed.log.search(query.clone()).await.unwrap();
            let page = found.events.iter().rev().map(|event| event.sid.clone());
            sids.extend(page);
            query.before = found.older_than;
            if query.before.is_none() {
                break;
            }
        }
        let mut expected: Vec<_> = events
            .iter()
            .filter(|event| user.is_empty() || event.user == user)
            .filter(|event| db.is_empty() || event.db_service == db)
            .collect();
        expected.sort_by_key(|event| event.time.map(|time| time.seconds));
        let expected: Vec<_> = expected
            .iter()
            .rev()
            .map(|event| event.sid.clone())
            .collect();
        assert_eq!(sids, expected, "{user} {db}");
    }
    let query = EventQuery {
        sid: "43".to_owned(),
        event: "user.login".to_owned(),
        to: Some(now()),
        limit: 10,
        ..EventQuery::default()
    };
    assert_eq!(bed.log.search(query).await.unwrap().events.len(), 1);
}

#[test]
fn any_events_at_all_are_stored_and_the_chains_are_sound() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let bed = runtime.block_on(async { Bed::new() });
    let distinct = RefCell::new(BTreeSet::new());
    proptest!(ProptestConfig::with_cases(16), |(events in proptest::collection::vec(any_event(), 1..8))| {
        let shaped = events.iter().map(|event| shape(event.clone()).encode_to_vec());
        distinct.borrow_mut().extend(shaped);
        runtime.block_on(async {
            bed.log.append("host-1", events.clone()).await.unwrap();
            // Sent again after a lost acknowledgement.
            bed.log.append("host-1", events).await.unwrap();
        });
    });
    let stored = distinct.borrow().len();
    assert_eq!(runtime.block_on(sound(&bed.log))["host-1"], stored as u64);
    assert_eq!(runtime.block_on(everything(&bed.log)).len(), stored);
}

#[tokio::test]
async fn ten_thousand_events_of_a_poisonous_kind_hold_nobody_up() {
    let bed = Bed::new();
    let poison = |number: usize| AuditEvent {
        uid: if number.is_multiple_of(3) {
            String::new()
        } else {
            "same".to_owned()
        },
        error: format!("{number}\0{}", "\u{202e}\u{1b}".repeat(20)),
        time: Some(prost_types::Timestamp {
            seconds: i64::MIN,
            nanos: i32::MAX,
        }),
        fields: (0..20)
            .map(|field| (format!("\r{field}"), "x".to_owned()))
            .collect(),
        ..AuditEvent::default()
    };
    for first in (0..10_000).step_by(250) {
        let events = (first..first + 250).map(poison).collect();
        bed.log.append("host-1", events).await.unwrap();
    }
    bed.log
        .append("host-2", vec![of_user("alice")])
        .await
        .unwrap();
    let counts = sound(&bed.log).await;
    assert_eq!((counts["host-1"], counts["host-2"]), (10_000, 1));
}
