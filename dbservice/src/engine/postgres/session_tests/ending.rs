//! Sessions that a rule ends, or keeps from beginning: locks, silence, expiry, too many, no audit. Each is said.

use tidegate_core::{
    Lock, LockTarget,
    access::{AuditMode, LockMode, RecordSession},
    locks::LOCKS_STALE_AFTER,
};
use tokio::time::Instant;

use super::*;
use crate::audit::{self, Kind, Subject};

fn lock(user: &str) -> Lock {
    Lock {
        name: "lock-7".to_owned(),
        target: LockTarget {
            user: Some(user.to_owned()),
            ..LockTarget::default()
        },
        message: "left the company".to_owned(),
        created: Timestamp::UNIX_EPOCH,
        expires: None,
        created_by: "root".to_owned(),
    }
}

impl Bed {
    fn lock(&self, locks: Vec<Lock>) {
        self.engine.locks.set(locks, Some(self.clock.now()));
    }

    /// Fills the audit queue as far as statements may.
    fn fill_audit(&self) {
        let any = || audit::event(Kind::Query, &Subject::default(), Timestamp::UNIX_EPOCH);
        while self.engine.audit.try_put(any) {}
    }

    async fn refused(&self) -> ErrorResponse {
        let (mut client, _) = self.client().await;
        client.write_all(&startup("reader")).await.unwrap();
        error(&mut client).await
    }

    /// Codes and causes of what was audited.
    fn audited(&mut self) -> Vec<(String, String)> {
        let mut seen = Vec::new();
        while let Ok(event) = self.events.try_recv() {
            let cause = event.fields.get("cause").or(event.fields.get("reason"));
            seen.push((event.code, cause.cloned().unwrap_or_default()));
        }
        seen
    }
}

fn pair(code: &str, cause: &str) -> (String, String) {
    (code.to_owned(), cause.to_owned())
}

async fn ended(client: client::TlsStream<DuplexStream>, serving: JoinHandle<()>) {
    drop(client);
    tokio::time::timeout(WAIT, serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_lock_ends_a_running_session_at_once_and_says_why() {
    let mut bed = Bed::new().await;
    let (mut client, mut database, _, serving) = bed.session().await;
    bed.lock(vec![lock("bob")]);
    client
        .write_all(&frontend::query("select 1"))
        .await
        .unwrap();
    assert_eq!(message(&mut database).await.0, b'Q');
    database
        .write_all(&ready_for_query(TxStatus::Idle))
        .await
        .unwrap();
    assert_eq!(message(&mut client).await.0, b'Z');

    tokio::time::pause();
    let begun = Instant::now();
    bed.lock(vec![lock("bob"), lock("alice")]);
    let error = error(&mut client).await;
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!(error.code.as_str(), "57P01");
    assert!(error.message.contains("left the company"));
    assert!(error.hint.unwrap().contains("lock-7"));
    tokio::time::resume();
    assert_eq!(message(&mut database).await.0, b'X');
    ended(client, serving).await;
    assert_eq!(
        bed.audited(),
        [
            pair("TDB00I", ""),
            pair("TDB02I", ""),
            pair("T3006I", "locked"),
            pair("TDB01I", "locked")
        ]
    );
}

#[tokio::test]
async fn a_lock_stops_the_statement_that_runs() {
    let bed = Bed::new().await;
    let (mut client, mut database, _, _serving) = bed.session().await;
    client
        .write_all(&frontend::query("select pg_sleep(60)"))
        .await
        .unwrap();
    message(&mut database).await;
    bed.lock(vec![lock("alice")]);
    let told = async { error(&mut client).await };
    let cancelled = async {
        let mut stream = bed.upstream().await;
        first(&mut stream).await
    };
    let (told, cancelled) = tokio::join!(told, cancelled);
    assert_eq!(told.code.as_str(), "57P01");
    let FirstMessage::Cancel(request) = cancelled else {
        panic!("a cancel request")
    };
    assert_eq!(request.process_id, 77);
}

#[tokio::test]
async fn a_client_that_breaks_off_leaves_no_statement_running() {
    let bed = Bed::new().await;
    let (mut client, mut database, _, _serving) = bed.session().await;
    client
        .write_all(&frontend::query("select pg_sleep(60)"))
        .await
        .unwrap();
    message(&mut database).await;
    drop(client);
    let mut stream = bed.upstream().await;
    let FirstMessage::Cancel(request) = first(&mut stream).await else {
        panic!("a cancel request")
    };
    assert_eq!(request.process_id, 77);
}

#[tokio::test]
async fn a_lock_never_puts_words_into_the_middle_of_a_message_and_does_not_wait_for_its_end() {
    let bed = Bed::new().await;
    let (mut client, mut database, _, _serving) = bed.session().await;
    let half = b"D\0\0\x10\0half of a row";
    database.write_all(half).await.unwrap();
    let mut got = vec![0; half.len()];
    client.read_exact(&mut got).await.unwrap();
    tokio::time::pause();
    let begun = Instant::now();
    bed.lock(vec![lock("alice")]);
    assert_eq!(client.read(&mut [0; 16]).await.unwrap(), 0);
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_lock_does_not_wait_for_what_a_shutdown_would_wait_for() {
    let bed = Bed::new().await;
    let (mut client, mut database, _, _serving) = bed.session().await;
    client
        .write_all(&frontend::query("select pg_sleep(60)"))
        .await
        .unwrap();
    message(&mut database).await;
    bed.engine.shutdown.cancel();
    tokio::task::yield_now().await;
    tokio::time::pause();
    let begun = Instant::now();
    bed.lock(vec![lock("alice")]);
    let error = error(&mut client).await;
    assert!(error.message.contains("left the company"));
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn who_is_locked_begins_no_session() {
    let mut bed = Bed::new().await;
    bed.lock(vec![lock("alice")]);
    let (mut client, serving) = bed.client().await;
    client.write_all(&startup("reader")).await.unwrap();
    let error = error(&mut client).await;
    assert_eq!(error.code.as_str(), "28000");
    assert!(error.message.contains("left the company"));
    assert!(error.hint.unwrap().contains("lock-7"));
    ended(client, serving).await;
    assert_eq!(bed.audited(), [pair("TDB00W", "locked")]);
    bed.lock(Vec::new());
    bed.session().await;
}

#[tokio::test]
async fn strict_roles_allow_no_session_while_the_locks_are_not_known() {
    let mut bed = Bed::new().await;
    bed.hold_to(&RoleOptions {
        lock: Some(LockMode::Strict),
        ..RoleOptions::default()
    });
    assert_eq!(bed.refused().await.code.as_str(), "57P03");

    bed.lock(Vec::new());
    let (mut client, _database, _, serving) = bed.session().await;
    bed.clock.advance(LOCKS_STALE_AFTER);
    bed.lock(Vec::new());
    bed.clock
        .advance(LOCKS_STALE_AFTER + Duration::from_millis(1));
    let error = error(&mut client).await;
    assert_eq!(error.code.as_str(), "57P01");
    assert!(error.message.contains("which locks"));
    ended(client, serving).await;
    assert!(bed.audited().contains(&pair("TDB01I", "locks_unknown")));
}

#[tokio::test]
async fn without_strict_roles_old_locks_are_enforced_and_sessions_go_on() {
    let bed = Bed::new().await;
    bed.lock(vec![lock("bob")]);
    bed.clock.advance(LOCKS_STALE_AFTER * 2);
    let (mut client, mut database, _, _serving) = bed.session().await;
    client
        .write_all(&frontend::query("select 1"))
        .await
        .unwrap();
    assert_eq!(message(&mut database).await.0, b'Q');
    let bed = Bed::new().await;
    bed.lock(vec![lock("alice")]);
    bed.clock.advance(LOCKS_STALE_AFTER * 2);
    assert_eq!(bed.refused().await.code.as_str(), "28000");
}

#[tokio::test]
async fn a_client_that_is_silent_for_too_long_is_told_57p05_and_one_that_speaks_is_left_alone() {
    let mut bed = Bed::new().await;
    bed.hold_to(&RoleOptions {
        client_idle_timeout: Some(Duration::from_secs(8)),
        ..RoleOptions::default()
    });
    let (mut client, mut database, _, serving) = bed.session().await;
    tokio::time::pause();
    let begun = Instant::now();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(6)).await;
        client
            .write_all(&frontend::query("select 1"))
            .await
            .unwrap();
        tokio::time::resume();
        assert_eq!(message(&mut database).await.0, b'Q');
        tokio::time::pause();
    }
    let spoke = begun.elapsed();
    let error = error(&mut client).await;
    let silent = begun.elapsed().checked_sub(spoke).unwrap();
    assert!(silent >= Duration::from_secs(8) && silent <= Duration::from_secs(10));
    assert_eq!(error.code.as_str(), "57P05");
    assert!(error.message.contains("8 s"), "{}", error.message);
    tokio::time::resume();
    drop(database);
    ended(client, serving).await;
    assert!(bed.audited().contains(&pair("T3006I", "idle_timeout")));
}

#[tokio::test]
async fn a_session_ends_with_its_certificate_where_a_role_asks_for_it() {
    let mut bed = Bed::new().await;
    let (mut lax, mut database, _, _lax) = bed.session().await;
    bed.hold_to(&RoleOptions {
        disconnect_expired_cert: Some(true),
        ..RoleOptions::default()
    });
    let (mut client, _database, _, serving) = bed.session().await;
    // The certificate is a little younger than the test's clock.
    bed.clock.advance(TTL + WAIT);
    let error = error(&mut client).await;
    assert_eq!(error.code.as_str(), "57P01");
    assert!(error.hint.unwrap().contains("tg login"));
    ended(client, serving).await;
    assert!(
        bed.audited()
            .contains(&pair("T3006I", "certificate_expired"))
    );
    // A role that changed does not reach the session that began before.
    lax.write_all(&frontend::query("select 1")).await.unwrap();
    assert_eq!(message(&mut database).await.0, b'Q');
}

#[tokio::test]
async fn a_person_has_no_more_sessions_than_roles_allow_and_gets_a_place_back_at_once() {
    let mut bed = Bed::new().await;
    bed.hold_to(&RoleOptions {
        max_db_connections: Some(2),
        ..RoleOptions::default()
    });
    let (first, first_database, _, first_serving) = bed.session().await;
    let (_second, _database, _, _serving) = bed.session().await;
    let error = bed.refused().await;
    assert_eq!(error.code.as_str(), "53300");
    assert!(error.message.contains("2 sessions"));
    assert!(error.hint.unwrap().contains("max_db_connections"));

    drop(first_database);
    ended(first, first_serving).await;
    let (_third, _third_database, _, _serving) = bed.session().await;
    assert_eq!(bed.refused().await.code.as_str(), "53300");
    assert!(bed.audited().contains(&pair("TDB00W", "too_many_sessions")));
}

#[tokio::test]
async fn a_session_that_does_not_come_about_holds_no_place() {
    let bed = Bed::with(
        Err(Problem::new(ErrorCode::AwsAccessDenied, "x was denied")),
        |_| (),
    )
    .await;
    bed.hold_to(&RoleOptions {
        max_db_connections: Some(1),
        ..RoleOptions::default()
    });
    for _ in 0..3 {
        assert_eq!(bed.refused().await.code.as_str(), "08001");
    }
}

#[tokio::test]
async fn where_audit_is_strict_a_statement_that_cannot_be_audited_never_reaches_the_database() {
    let mut bed = Bed::new().await;
    bed.hold_to(&RoleOptions {
        record_session: RecordSession {
            default: Some(AuditMode::Strict),
        },
        ..RoleOptions::default()
    });
    let (mut client, mut database, _, serving) = bed.session().await;
    bed.fill_audit();
    client
        .write_all(&frontend::query("select secrets"))
        .await
        .unwrap();
    let error = error(&mut client).await;
    assert_eq!(error.code.as_str(), "57P01");
    assert!(error.message.contains("cannot be audited"));
    assert!(database.read_u8().await.is_err(), "nothing arrived");
    ended(client, serving).await;
    assert_eq!(bed.refused().await.code.as_str(), "57P03");
    assert!(bed.audited().contains(&pair("TDB01I", "not_audited")));
}

#[tokio::test]
async fn where_audit_is_not_strict_statements_pass_and_the_gap_is_counted() {
    let mut bed = Bed::new().await;
    let (mut client, mut database, _, serving) = bed.session().await;
    bed.fill_audit();
    client
        .write_all(&frontend::query("select 1"))
        .await
        .unwrap();
    assert_eq!(message(&mut database).await.0, b'Q');
    drop(database);
    ended(client, serving).await;
    let mut dropped = None;
    while let Ok(event) = bed.events.try_recv() {
        dropped = event.fields.get("statements_dropped").cloned().or(dropped);
    }
    assert_eq!(dropped.as_deref(), Some("1"));
}
