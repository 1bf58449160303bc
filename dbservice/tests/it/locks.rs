//! Locks, from the control plane to a client that has a session.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use tidegate_core::{Lock, LockTarget};
use tidegate_wire::{backend::ErrorResponse, frontend};
use tokio::io::AsyncWriteExt;

use crate::{
    sessions::{message, open, ready},
    world::{World, patiently},
};

/// How long a lock may take to reach a session that runs.
const REACH_MAX: Duration = Duration::from_secs(2);

fn lock(target: LockTarget) -> Lock {
    Lock {
        name: "lock-7".to_owned(),
        target,
        message: "left the company".to_owned(),
        created: Timestamp::now(),
        expires: None,
        created_by: "root".to_owned(),
    }
}

fn named(text: &str) -> Option<String> {
    Some(text.to_owned())
}

async fn audited(world: &mut World, code: &str) -> tidegate_proto::v1::AuditEvent {
    loop {
        let event = patiently(world.seen.events.recv()).await.unwrap();
        if event.code == code {
            return event;
        }
    }
}

#[tokio::test]
async fn a_lock_on_person_role_agent_or_database_reaches_a_running_session_within_two_seconds() {
    for target in [
        LockTarget {
            user: named("alice"),
            ..LockTarget::default()
        },
        LockTarget {
            role: named("access"),
            ..LockTarget::default()
        },
        LockTarget {
            agent: named("agent-1"),
            ..LockTarget::default()
        },
        LockTarget {
            agent: named("agent"),
            ..LockTarget::default()
        },
        LockTarget {
            database: named("own"),
            ..LockTarget::default()
        },
    ] {
        let (mut world, line) = ready().await;
        let (mut client, _database) = open(&mut world, &line).await;
        let made = Instant::now();
        world.plane.tell_locks(Ok(vec![lock(target.clone())]));
        let (tag, body) = message(&mut client).await;
        assert!(made.elapsed() < REACH_MAX, "{target:?}");
        let error = ErrorResponse::parse(&body);
        assert_eq!((tag, error.code.as_str()), (b'E', "57P01"), "{target:?}");
        assert!(error.message.contains("left the company"));
        drop(client);
        let event = audited(&mut world, "T3006I").await;
        assert_eq!(event.event, "client.disconnect");
        assert_eq!(event.fields["reason"], "locked");
        assert!(event.fields["message"].contains("lock-7"));
        assert_eq!(
            audited(&mut world, "TDB01I").await.fields["cause"],
            "locked"
        );
    }
}

#[tokio::test]
async fn locks_are_followed_again_after_the_auth_service_was_away_and_sessions_last_meanwhile() {
    let (mut world, line) = ready().await;
    let (mut client, mut database) = open(&mut world, &line).await;
    patiently(world.seen.lock_watches.recv()).await.unwrap();
    world.plane.tell_locks(Err(()));
    client
        .write_all(&frontend::query("select 1"))
        .await
        .unwrap();
    assert_eq!(message(&mut database).await.0, b'Q');
    patiently(world.seen.lock_watches.recv()).await.unwrap();
    let alice = LockTarget {
        user: named("alice"),
        ..LockTarget::default()
    };
    world.plane.tell_locks(Ok(vec![lock(alice)]));
    let (tag, body) = message(&mut client).await;
    assert_eq!(tag, b'E');
    assert_eq!(ErrorResponse::parse(&body).code.as_str(), "57P01");
}
