//! What changes between a request and its use, and who is told.

use tidegate_proto::v1::watch_access_requests_response::Event;
use tonic::Streaming;

use super::*;

async fn watch(caller: &Caller, id: &str) -> Streaming<v1::WatchAccessRequestsResponse> {
    let request = v1::WatchAccessRequestsRequest { id: id.to_owned() };
    let watch = requests(caller).watch_access_requests(request).await;
    watch.unwrap().into_inner()
}

async fn next(watch: &mut Streaming<v1::WatchAccessRequestsResponse>) -> Result<String, Status> {
    let event = timeout(PATIENCE, watch.message()).await.unwrap()?;
    Ok(match event.unwrap().event.unwrap() {
        Event::Request(request) => request.state().as_str_name().to_owned(),
        Event::Removed(_) => "removed".to_owned(),
        Event::Synced(_) => "synced".to_owned(),
    })
}

#[tokio::test]
async fn a_watch_tells_what_is_then_each_change_and_ends_when_roles_change() {
    let house = House::new().await;
    let alice = house.known(&house.person("alice", &["requester"]).await);
    let carol = house.known(&house.person("carol", &["requester"]).await);
    let made = ask(&alice, &["access"]).await;
    let mut own = watch(&alice, &made.id).await;
    let mut all = watch(&alice, "").await;
    let mut others = watch(&carol, "").await;
    for watch in [&mut own, &mut all] {
        assert_eq!(next(watch).await.unwrap(), "ACCESS_REQUEST_STATE_PENDING");
        assert_eq!(next(watch).await.unwrap(), "synced");
    }
    assert_eq!(next(&mut others).await.unwrap(), "synced");
    decide(&house.admin(), &made.id, ReviewVerdict::Approve)
        .await
        .unwrap();
    let second = ask(&alice, &["access"]).await;
    remove(&alice, &second.id).await.unwrap();
    assert_eq!(
        next(&mut own).await.unwrap(),
        "ACCESS_REQUEST_STATE_APPROVED"
    );
    assert_eq!(
        next(&mut all).await.unwrap(),
        "ACCESS_REQUEST_STATE_APPROVED"
    );
    assert_eq!(
        next(&mut all).await.unwrap(),
        "ACCESS_REQUEST_STATE_PENDING"
    );
    assert_eq!(next(&mut all).await.unwrap(), "removed");
    role(&house, "another", may_review("access")).await;
    // It has seen nothing of what others did.
    let ended = next(&mut others).await.unwrap_err();
    assert_eq!(
        (ended.code(), reason(&ended).as_str()),
        (Code::OutOfRange, "ROLES_CHANGED")
    );
}

#[tokio::test]
async fn roles_of_a_removed_request_cannot_be_used_and_own_ones_can() {
    let house = House::new().await;
    let login = house.person("alice", &["requester"]).await;
    let alice = house.known(&login);
    let made = ask(&alice, &["access"]).await;
    decide(&house.admin(), &made.id, ReviewVerdict::Approve)
        .await
        .unwrap();
    let (more, _) = assume(&house, &login, &[&made.id]).await.unwrap();
    let more = house.known(&more);
    let list = || v1::ListDatabasesRequest::default();
    assert!(more.inventory().list_databases(list()).await.is_ok());

    let lock = remove(&house.admin(), &made.id).await.unwrap();
    assert_eq!(lock, format!("access-request-{}", made.id));
    let refused = more.inventory().list_databases(list()).await.unwrap_err();
    assert_eq!(reason(&refused), "LOCKED");
    assert!(
        refused.message().contains("tg request drop"),
        "{}",
        refused.message()
    );
    assert!(alice.inventory().list_databases(list()).await.is_ok());
    let again = assume(&house, &login, &[&made.id]).await.err().unwrap();
    assert_eq!(again.code(), Code::NotFound);
    let locks = house
        .admin()
        .access()
        .list_locks(v1::ListLocksRequest {})
        .await;
    let locks = locks.unwrap().into_inner().locks;
    assert_eq!(locks[0].target.as_ref().unwrap().access_request, made.id);
    assert_eq!(locks[0].expires_at, made.access_until);
    let deleted = told(&house, "access_request.delete").await;
    assert_eq!(deleted[0].code, "T5003I");

    // One that gave nothing needs no lock.
    let second = ask(&alice, &["access"]).await;
    assert_eq!(remove(&alice, &second.id).await.unwrap(), "");
    assert_eq!(code(remove(&alice, &second.id).await), Code::NotFound);
}

#[tokio::test]
async fn a_new_account_of_the_same_name_has_nothing_of_the_old_ones_requests() {
    let house = House::new().await;
    let alice = house.known(&house.person("alice", &["requester"]).await);
    let (first, second) = (
        ask(&alice, &["access"]).await,
        ask(&alice, &["access"]).await,
    );
    decide(&house.admin(), &first.id, ReviewVerdict::Approve)
        .await
        .unwrap();
    let gone = v1::DeleteUserRequest {
        name: "alice".to_owned(),
    };
    house.admin().access().delete_user(gone).await.unwrap();
    let orphan = decide(&house.admin(), &second.id, ReviewVerdict::Approve)
        .await
        .unwrap_err();
    assert_eq!(reason(&orphan), "REQUESTER_GONE");
    // The clock of the test stands still: accounts are told apart by when they were made.
    house.clock.advance(Duration::from_secs(1));
    let login = house.person("alice", &["requester"]).await;
    let orphan = decide(&house.admin(), &second.id, ReviewVerdict::Approve)
        .await
        .unwrap_err();
    assert_eq!(reason(&orphan), "REQUESTER_GONE");
    let stolen = assume(&house, &login, &[&first.id]).await.err().unwrap();
    assert_eq!(stolen.code(), Code::NotFound);
}

#[tokio::test]
async fn a_request_for_a_role_that_is_gone_is_not_approved_and_not_used() {
    let house = House::new().await;
    role(&house, "dba", v1::RoleConditions::default()).await;
    role(&house, "asks", may_ask("dba", 1)).await;
    let login = house.person("alice", &["asks"]).await;
    let alice = house.known(&login);
    let (first, second) = (ask(&alice, &["dba"]).await, ask(&alice, &["dba"]).await);
    decide(&house.admin(), &first.id, ReviewVerdict::Approve)
        .await
        .unwrap();
    let gone = v1::DeleteRoleRequest {
        name: "dba".to_owned(),
    };
    house.admin().access().delete_role(gone).await.unwrap();
    let approved = decide(&house.admin(), &second.id, ReviewVerdict::Approve).await;
    assert_eq!(reason(&approved.unwrap_err()), "ROLE_GONE");
    let used = assume(&house, &login, &[&first.id]).await.err().unwrap();
    assert_eq!(reason(&used), "ROLE_GONE");
    assert!(
        decide(&house.admin(), &second.id, ReviewVerdict::Deny)
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn what_it_takes_to_approve_is_as_it_was_when_the_request_was_made() {
    let house = House::new().await;
    role(&house, "asks", may_ask("access", 2)).await;
    role(&house, "decides", may_review("access")).await;
    let alice = house.known(&house.person("alice", &["asks"]).await);
    let bob = house.known(&house.person("bob", &["decides"]).await);
    let carol = house.known(&house.person("carol", &["decides"]).await);
    let made = ask(&alice, &["access"]).await;
    role(&house, "asks", may_ask("access", 1)).await;
    let once = review(&bob, &made.id, ReviewVerdict::Approve)
        .await
        .unwrap();
    assert_eq!(once.state(), AccessRequestState::Pending);
    let again = review(&bob, &made.id, ReviewVerdict::Approve)
        .await
        .unwrap_err();
    assert_eq!(reason(&again), "REVIEWED_ALREADY");
    // Who may review is asked anew.
    role(&house, "decides", v1::RoleConditions::default()).await;
    let refused = review(&carol, &made.id, ReviewVerdict::Approve)
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), "NOT_REVIEWER");
}

#[tokio::test]
async fn requests_outlive_a_restart() {
    let house = House::new().await;
    let alice = house.known(&house.person("alice", &["requester"]).await);
    let made = ask(&alice, &["access"]).await;
    let house = house.restart().await;
    let found = get(&house.admin(), &made.id).await.unwrap();
    assert_eq!(found, made);
}
