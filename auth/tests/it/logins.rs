//! Logins, seen from outside: listed, ended, and what is left of them when a person goes.

use std::time::Duration;

use tidegate_identity::{Holder, PeerIdentity, tls::first_certificate_der};
use tidegate_proto::v1;
use tokio::time::timeout;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

use crate::house::{Caller, House, Identity, PASSWORD, code};

/// Longest time until the end of a login reaches what runs already.
const REACHED_WITHIN: Duration = Duration::from_secs(2);

fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.map(|info| info.reason).unwrap_or_default()
}

fn login_id(identity: &Identity) -> String {
    let certificate = first_certificate_der(&identity.chain_pem).unwrap();
    match PeerIdentity::from_der(&certificate).unwrap().holder {
        Holder::User(user) => user.login.unwrap().id,
        Holder::Host(_) => panic!("not a person's certificate"),
    }
}

async fn watch(caller: &Caller) -> Streaming<v1::WatchDatabasesResponse> {
    let request = v1::WatchDatabasesRequest::default();
    let watch = caller.inventory().watch_databases(request).await;
    watch.unwrap().into_inner()
}

async fn end_of(mut watch: Streaming<v1::WatchDatabasesResponse>) -> Status {
    let ended = timeout(REACHED_WITHIN, async {
        loop {
            if let Err(end) = watch.message().await {
                return end;
            }
        }
    });
    ended.await.unwrap()
}

async fn refused(caller: &Caller) -> Status {
    let request = v1::ListDatabasesRequest::default();
    let listed = caller.inventory().list_databases(request).await;
    listed.unwrap_err()
}

async fn logins(house: &House, user: &str) -> Vec<v1::Login> {
    let request = v1::ListLoginsRequest {
        user: user.to_owned(),
    };
    let listed = house.admin().people().list_logins(request).await.unwrap();
    listed.into_inner().logins
}

async fn end(house: &House, user: &str, id: &str) -> Result<u32, Status> {
    let request = v1::EndLoginsRequest {
        user: user.to_owned(),
        id: id.to_owned(),
    };
    let ended = house.admin().people().end_logins(request).await?;
    Ok(ended.into_inner().ended)
}

async fn locks(house: &House) -> Vec<v1::Lock> {
    let agent = house.known(&house.host(&["db"]).await);
    let watch = agent.access().watch_locks(v1::WatchLocksRequest {}).await;
    let first = watch.unwrap().into_inner().message().await;
    first.unwrap().unwrap().locks
}

#[tokio::test]
async fn a_login_is_listed_with_where_it_came_from_and_marks_every_certificate_that_comes_of_it() {
    let house = House::new().await;
    house.add_database("orders", "prod").await;
    let alice = house.person("alice", &["access"]).await;
    let listed = logins(&house, "alice").await;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].id, login_id(&alice));
    assert!(listed[0].remote_addr.starts_with("127.0.0.1:"));
    let at = |at: Option<prost_types::Timestamp>| at.unwrap().seconds;
    assert!(at(listed[0].expires_at) > at(listed[0].created_at));
    let mut people = house.known(&alice).people();
    let own = people.list_own_logins(v1::ListOwnLoginsRequest {});
    assert!(own.await.unwrap().into_inner().logins[0].current);

    let key = tidegate_identity::KeyPair::generate().unwrap();
    let request = v1::IssueDatabaseCertificateRequest {
        public_key: key.public_key_der(),
        route: Some(v1::DatabaseRoute {
            database: "orders".to_owned(),
            ..v1::DatabaseRoute::default()
        }),
    };
    let mut session = house.known(&alice).session();
    let issued = session.issue_database_certificate(request).await.unwrap();
    let identity = issued.into_inner().identity.unwrap();
    assert_eq!(identity.login.unwrap().id, login_id(&alice));
    house.clock.advance(Duration::from_secs(12 * 3600 + 1));
    assert!(logins(&house, "alice").await.is_empty());
}

#[tokio::test]
async fn one_login_ends_and_the_other_goes_on() {
    let house = House::new().await;
    let one = house.person("alice", &["access"]).await;
    let other = house.login("alice", PASSWORD).await.unwrap();
    let (one_calls, other_calls) = (house.known(&one), house.known(&other));
    let running = watch(&one_calls).await;
    assert_eq!(end(&house, "alice", &login_id(&one)).await.unwrap(), 1);

    let ended = end_of(running).await;
    assert_eq!(ended.code(), Code::Unauthenticated);
    assert_eq!(reason(&ended), "LOGIN_ENDED");
    assert!(ended.message().contains("an administrator ended it"));
    assert_eq!(reason(&refused(&one_calls).await), "LOGIN_ENDED");
    assert!(other_calls.database_names().await.is_empty());
    assert_eq!(logins(&house, "alice").await.len(), 1);

    let again = end(&house, "alice", &login_id(&one)).await.unwrap_err();
    assert_eq!(again.code(), Code::NotFound);
    let nobody = end(&house, "nobody", "").await.unwrap_err();
    assert_eq!(nobody.code(), Code::NotFound);
}

#[tokio::test]
async fn all_logins_of_a_person_end_by_one_lock_and_the_next_login_works() {
    let house = House::new().await;
    let mut all = vec![house.person("alice", &["access"]).await];
    for _ in 0..3 {
        all.push(house.login("alice", PASSWORD).await.unwrap());
    }
    let bob = house.known(&house.person("bob", &["access"]).await);
    end(&house, "alice", &login_id(&all[0])).await.unwrap();
    end(&house, "alice", &login_id(&all[1])).await.unwrap();
    assert_eq!(locks(&house).await.len(), 2);
    assert_eq!(end(&house, "alice", "").await.unwrap(), 2);
    for identity in &all {
        assert_eq!(
            reason(&refused(&house.known(identity)).await),
            "LOGIN_ENDED"
        );
    }
    let stored = locks(&house).await;
    assert_eq!(stored.len(), 1, "{stored:?}");
    assert!(stored[0].expires_at.is_some());

    // The clock has not moved.
    let next = house.known(&house.login("alice", PASSWORD).await.unwrap());
    assert!(next.database_names().await.is_empty());
    assert!(bob.database_names().await.is_empty());
    // Administrators' listings and commands know nothing of it.
    let mut access = house.admin().access();
    let listed = access.list_locks(v1::ListLocksRequest {}).await.unwrap();
    assert!(listed.into_inner().locks.is_empty());
    let delete = v1::DeleteLockRequest {
        name: stored[0].name.clone(),
    };
    assert_eq!(code(access.delete_lock(delete).await), Code::NotFound);
    let upsert = v1::UpsertLockRequest {
        lock: Some(v1::Lock {
            name: "mine".to_owned(),
            revision: 0,
            ..stored[0].clone()
        }),
    };
    assert_eq!(
        code(access.upsert_lock(upsert).await),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn people_end_their_own_logins_and_nobody_else_s() {
    let house = House::new().await;
    let here = house.person("alice", &["access"]).await;
    let there = house.login("alice", PASSWORD).await.unwrap();
    let bob = house.person("bob", &["access"]).await;
    let end_own = |id: &str, all| v1::EndOwnLoginsRequest {
        id: id.to_owned(),
        all,
    };
    let alice = house.known(&here);
    let mut people = alice.people();
    let foreign = people.end_own_logins(end_own(&login_id(&bob), false));
    assert_eq!(foreign.await.unwrap_err().code(), Code::NotFound);
    let others = v1::EndLoginsRequest {
        user: "bob".to_owned(),
        id: String::new(),
    };
    assert_eq!(
        code(alice.people().end_logins(others).await),
        Code::PermissionDenied
    );
    alice
        .people()
        .end_own_logins(end_own("", false))
        .await
        .unwrap();
    let ended = refused(&alice).await;
    assert!(
        ended.message().contains("you ended it"),
        "{}",
        ended.message()
    );
    let there = house.known(&there);
    there
        .people()
        .end_own_logins(end_own("", true))
        .await
        .unwrap();
    assert_eq!(reason(&refused(&there).await), "LOGIN_ENDED");
    assert!(house.known(&bob).database_names().await.is_empty());
    assert!(logins(&house, "alice").await.is_empty());
}

#[tokio::test]
async fn a_removed_person_s_certificate_is_refused_at_once_on_calls_and_on_streams_also_when_the_name_is_given_again()
 {
    let house = House::new().await;
    let old = house.known(&house.person("alice", &["access"]).await);
    let running = watch(&old).await;
    let remove = v1::DeleteUserRequest {
        name: "alice".to_owned(),
    };
    house.admin().access().delete_user(remove).await.unwrap();
    let ended = end_of(running).await;
    assert!(ended.message().contains("your user was removed"));
    assert_eq!(reason(&refused(&old).await), "ACCOUNT_GONE");
    // Agents know it by the same lock.
    let target = locks(&house).await[0].target.clone().unwrap();
    assert_eq!(target.user, "alice");
    assert!(target.logins_until.is_some());

    let new = house.known(&house.person("alice", &["access"]).await);
    assert_eq!(reason(&refused(&old).await), "LOGIN_ENDED");
    assert!(new.database_names().await.is_empty());
}

#[tokio::test]
async fn a_reset_ends_all_logins() {
    let house = House::new().await;
    let alice = house.known(&house.person("alice", &["access"]).await);
    let reset = v1::ResetUserRequest {
        name: "alice".to_owned(),
        ttl: None,
    };
    house.admin().access().reset_user(reset).await.unwrap();
    let ended = refused(&alice).await;
    assert!(ended.message().contains("your user was reset"));
    assert!(logins(&house, "alice").await.is_empty());
}
