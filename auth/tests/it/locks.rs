use std::time::Duration;

use tidegate_identity::KeyPair;
use tidegate_proto::{convert, v1};
use tokio::time::timeout;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

use crate::house::{House, PASSWORD, code};

/// Longest time until a lock reaches what runs already.
const REACHED_WITHIN: Duration = Duration::from_secs(2);

fn target() -> v1::LockTarget {
    v1::LockTarget::default()
}

fn on_user(name: &str) -> v1::LockTarget {
    v1::LockTarget {
        user: name.to_owned(),
        ..target()
    }
}

async fn try_lock(house: &House, lock: v1::Lock) -> Result<v1::Lock, Status> {
    let request = v1::UpsertLockRequest { lock: Some(lock) };
    let answer = house.admin().access().upsert_lock(request).await;
    answer.map(tonic::Response::into_inner)
}

async fn lock(house: &House, target: v1::LockTarget) -> v1::Lock {
    let lock = v1::Lock {
        target: Some(target),
        message: "laptop stolen".to_owned(),
        ..v1::Lock::default()
    };
    try_lock(house, lock).await.unwrap()
}

async fn unlock(house: &House, name: &str) {
    let request = v1::DeleteLockRequest {
        name: name.to_owned(),
    };
    house.admin().access().delete_lock(request).await.unwrap();
}

fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.map(|info| info.reason).unwrap_or_default()
}

async fn events(house: &House, event: &str) -> Vec<v1::AuditEvent> {
    let request = v1::ListEventsRequest {
        event: event.to_owned(),
        ..v1::ListEventsRequest::default()
    };
    let listed = house.admin().audit().list_events(request).await.unwrap();
    listed.into_inner().events
}

async fn next_locks(watch: &mut Streaming<v1::WatchLocksResponse>) -> Vec<String> {
    let answer = timeout(REACHED_WITHIN, watch.message()).await.unwrap();
    let locks = answer.unwrap().unwrap().locks;
    locks.into_iter().map(|lock| lock.name).collect()
}

#[tokio::test]
async fn a_locked_person_is_out_at_once_and_told_why_until_the_lock_goes() {
    let house = House::new().await;
    let caller = house.known(&house.person("alice", &["access"]).await);
    let mut inventory = caller.inventory();
    let watch = inventory.watch_databases(v1::WatchDatabasesRequest::default());
    let mut watch = watch.await.unwrap().into_inner();
    let made = lock(&house, on_user("alice")).await;
    assert_eq!(made.created_by, "local administrator");

    let list = || v1::ListDatabasesRequest::default();
    let refused = inventory.list_databases(list()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(reason(&refused), "LOCKED");
    assert_eq!(refused.message(), "locked: laptop stolen");
    let login = house.login("alice", PASSWORD).await.err().unwrap();
    assert_eq!(reason(&login), "LOCKED");
    let wrong = house.login("alice", "wrong password").await.err().unwrap();
    assert_eq!(wrong.code(), Code::Unauthenticated);
    let ended = timeout(REACHED_WITHIN, async {
        loop {
            match watch.message().await {
                Ok(Some(_)) => {}
                end => return end,
            }
        }
    });
    let ended = ended.await.unwrap().unwrap_err();
    assert_eq!(ended.message(), "locked: laptop stolen");

    unlock(&house, &made.name).await;
    assert!(inventory.list_databases(list()).await.is_ok());
    assert!(house.login("alice", PASSWORD).await.is_ok());
    let created = events(&house, "lock.created").await;
    assert_eq!(created[0].code, "TLK00I");
    assert_eq!(created[0].fields["target.user"], "alice");
    assert_eq!(events(&house, "lock.deleted").await[0].code, "TLK01I");
}

#[tokio::test]
async fn a_lock_on_a_role_strikes_its_holders_alone() {
    let house = House::new().await;
    let alice = house.known(&house.person("alice", &["access"]).await);
    let eve = house.known(&house.person("eve", &["editor"]).await);
    let role = v1::LockTarget {
        role: "access".to_owned(),
        ..target()
    };
    lock(&house, role).await;
    let list = || v1::ListDatabasesRequest::default();
    let refused = alice.inventory().list_databases(list()).await;
    assert_eq!(code(refused), Code::PermissionDenied);
    assert!(eve.inventory().list_databases(list()).await.is_ok());
}

#[tokio::test]
async fn a_locked_agent_is_refused_and_what_it_has_open_ends() {
    let house = House::new().await;
    let agent = house.host(&["db"]).await;
    let caller = house.known(&agent);
    let mut access = caller.access();
    let watch = access.watch_locks(v1::WatchLocksRequest {}).await;
    let mut watch = watch.unwrap().into_inner();
    assert!(next_locks(&mut watch).await.is_empty());
    let this = v1::LockTarget {
        agent: agent.host_id.clone(),
        ..target()
    };
    lock(&house, this).await;
    let refused = access.list_locks(v1::ListLocksRequest {}).await;
    assert_eq!(reason(&refused.unwrap_err()), "LOCKED");
    let ended = timeout(REACHED_WITHIN, async {
        loop {
            if let Err(status) = watch.message().await {
                return status;
            }
        }
    });
    assert_eq!(ended.await.unwrap().code(), Code::PermissionDenied);
    let token = house.join_token(&["db"]).await;
    let again = house.join(&token, &["db"], &agent.host_id).await;
    assert_eq!(reason(&again.err().unwrap()), "LOCKED");
}

#[tokio::test]
async fn a_lock_on_a_person_and_a_database_leaves_other_databases() {
    let house = House::new().await;
    house.add_database("orders", "prod").await;
    house.add_database("users", "prod").await;
    let alice = house.known(&house.person("alice", &["access"]).await);
    let both = v1::LockTarget {
        database: "orders".to_owned(),
        ..on_user("alice")
    };
    lock(&house, both).await;
    let key = KeyPair::generate().unwrap();
    let request = |database: &str| v1::IssueDatabaseCertificateRequest {
        public_key: key.public_key_der(),
        route: Some(v1::DatabaseRoute {
            database: database.to_owned(),
            ..v1::DatabaseRoute::default()
        }),
    };
    let mut session = alice.session();
    let refused = session.issue_database_certificate(request("orders")).await;
    assert_eq!(reason(&refused.unwrap_err()), "LOCKED");
    let other = session.issue_database_certificate(request("users")).await;
    assert!(other.is_ok());
}

#[tokio::test]
async fn agents_are_told_of_locks_now_and_after_each_change_and_end() {
    let house = House::new().await;
    let agent = house.known(&house.host(&["db"]).await);
    let kept = lock(&house, on_user("alice")).await;
    let mut access = agent.access();
    let watch = access.watch_locks(v1::WatchLocksRequest {}).await;
    let mut watch = watch.unwrap().into_inner();
    assert_eq!(next_locks(&mut watch).await, [kept.name.as_str()]);
    let short = v1::Lock {
        name: "short".to_owned(),
        target: Some(on_user("bob")),
        expires_at: Some(convert::timestamp(
            jiff::Timestamp::now() + jiff::SignedDuration::from_secs(600),
        )),
        ..v1::Lock::default()
    };
    try_lock(&house, short).await.unwrap();
    while !next_locks(&mut watch).await.contains(&"short".to_owned()) {}
    house.clock.advance(Duration::from_secs(700));
    while next_locks(&mut watch).await != [kept.name.as_str()] {}
    unlock(&house, &kept.name).await;
    while !next_locks(&mut watch).await.is_empty() {}
}

#[tokio::test]
async fn locks_outlive_a_restart() {
    let house = House::new().await;
    house.person("alice", &["access"]).await;
    lock(&house, on_user("alice")).await;
    let house = house.restart().await;
    let login = house.login("alice", PASSWORD).await.err().unwrap();
    assert_eq!(reason(&login), "LOCKED");
}

#[tokio::test]
async fn a_lock_that_cannot_be_meant_is_refused_by_field() {
    let house = House::new().await;
    let past = jiff::Timestamp::from_second(1).unwrap();
    let long = "x".repeat(2000);
    let named = |name: &str, target, message: &str, expires_at| v1::Lock {
        name: name.to_owned(),
        target,
        message: message.to_owned(),
        expires_at,
        ..v1::Lock::default()
    };
    let past = Some(convert::timestamp(past));
    for (lock, field) in [
        (named("", None, "", None), "lock.target"),
        (named("", Some(on_user("a")), &long, None), "lock.message"),
        (named("", Some(on_user("a")), "", past), "lock.expires_at"),
        (named("a b", Some(on_user("a")), "", None), "lock.name"),
    ] {
        let refused = try_lock(&house, lock).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains(field), "{}", refused.message());
    }
    let mut made = lock(&house, on_user("alice")).await;
    made.revision += 1;
    assert_eq!(code(try_lock(&house, made).await), Code::Aborted);
    let missing = v1::DeleteLockRequest {
        name: "nothing".to_owned(),
    };
    let gone = house.admin().access().delete_lock(missing).await;
    assert_eq!(code(gone), Code::NotFound);
}
