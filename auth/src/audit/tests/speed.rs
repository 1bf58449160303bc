//! That work per event and per search stays small. Figures: run the ignored tests with `--ignored --nocapture`.

use std::time::Instant;

use tidegate_proto::{convert, v1::AuditEvent};

use super::{Bed, now, of_user};
use crate::{
    audit::{EventQuery, Spot, event, reader},
    store::sqlite::open_reader,
};

#[tokio::test]
async fn every_search_goes_by_an_index_and_sorts_nothing() {
    let bed = Bed::new();
    bed.log
        .append("host-1", vec![of_user("alice")])
        .await
        .unwrap();
    let connection = open_reader(&bed.directory.path().join("audit.db")).unwrap();
    let of = |name: &str, text: &str| {
        let mut query = EventQuery {
            limit: 100,
            from: Some(now()),
            to: Some(now()),
            before: Some(Spot { at: 1, place: 1 }),
            ..EventQuery::default()
        };
        match name {
            "user" => text.clone_into(&mut query.user),
            "db" => text.clone_into(&mut query.db),
            "sid" => text.clone_into(&mut query.sid),
            "event" => text.clone_into(&mut query.event),
            _ => {}
        }
        query
    };
    for name in ["time", "user", "db", "sid", "event"] {
        let plan = reader::explain(&connection, &of(name, "x"));
        assert!(
            plan.contains(&format!("USING INDEX records_by_{name}")),
            "{name}: {plan}"
        );
        assert!(!plan.contains("B-TREE"), "{name}: {plan}");
    }
}

/// As many as a first scan of a large cluster makes.
#[tokio::test]
#[ignore = "figures, not a rule"]
async fn figures_of_a_scan_of_100_000_databases() {
    let bed = Bed::new();
    let begun = Instant::now();
    for chunk in 0..200 {
        let events = (0..500).map(|number| AuditEvent {
            db_service: format!("db-{chunk}-{number}"),
            fields: [
                (
                    "identity",
                    format!(
                        "arn:aws:redshift:eu-central-1:123456789012:cluster:db-{chunk}-{number}"
                    ),
                ),
                (
                    "scope",
                    "group/redshift/arn:aws:iam::123456789012:role/discovery/eu-central-1"
                        .to_owned(),
                ),
            ]
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
            ..event::new(event::DB_CREATE)
        });
        bed.log.record_all(events.collect()).await;
    }
    let queued = begun.elapsed();
    bed.log.close().await;
    let stored = begun.elapsed();
    println!(
        "100,000 events: handed over in {queued:?}, on disk in {stored:?}, {:.0} a second",
        1e5 / stored.as_secs_f64()
    );
}

#[tokio::test]
#[ignore = "figures, not a rule"]
async fn figures_of_a_search_over_a_million_events() {
    let bed = Bed::new();
    for chunk in 0..1000 {
        let events = (0..1000).map(|number: i64| {
            let at = now() - jiff::SignedDuration::from_secs(chunk * 600 + number / 2);
            AuditEvent {
                time: Some(convert::timestamp(at)),
                db_service: format!("db-{}", number % 500),
                ..of_user(&format!("user-{}", (chunk * 7 + number) % 1000))
            }
        });
        bed.log.append("host-1", events.collect()).await.unwrap();
    }
    let timed = async |what: &str, query: EventQuery| {
        let begun = Instant::now();
        let found = bed.log.search(query).await.unwrap().events.len();
        println!("{what}: {found} events in {:?}", begun.elapsed());
    };
    let any = EventQuery {
        limit: 100,
        ..EventQuery::default()
    };
    let from = Some(now() - jiff::SignedDuration::from_hours(50));
    let to = Some(now() - jiff::SignedDuration::from_hours(40));
    timed("the newest", any.clone()).await;
    timed(
        "by time",
        EventQuery {
            from,
            to,
            ..any.clone()
        },
    )
    .await;
    let user = "user-7".to_owned();
    timed(
        "by time and user",
        EventQuery {
            from,
            to,
            user: user.clone(),
            ..any.clone()
        },
    )
    .await;
    timed(
        "by user, of another event",
        EventQuery {
            user,
            event: "db.create".to_owned(),
            ..any
        },
    )
    .await;
}
