//! Several workers of a group, and what becomes of scopes that they let go.

use std::time::Duration;

use tidegate_auth::Timings;
use tidegate_core::{ScanScope, Selector};
use tidegate_proto::v1;
use tonic::Code;

use crate::{
    discovery::{Worker, acquire, scope},
    house::{Caller, House, code},
};

const PATIENCE: Duration = Duration::from_secs(20);
const ORDERS: &str = "orders-redshift-us-east-1-111122223333";

fn timings() -> Timings {
    Timings {
        scope_lease: Duration::from_secs(1),
        retire_grace_min: Duration::from_millis(300),
        ..Timings::default()
    }
}

/// Scopes that differ in their tags only.
pub(crate) fn scopes(group: &str, count: u32) -> Vec<v1::ScanScope> {
    (0..count)
        .map(|order| {
            let plain = ScanScope::try_from(scope(group, order)).unwrap();
            let tags = Selector::new([("team".to_owned(), vec![order.to_string()])]).unwrap();
            v1::ScanScope::from(&ScanScope { tags, ..plain })
        })
        .collect()
}

pub(crate) async fn worker(house: &House) -> Caller {
    house.known(&house.host(&["discovery"]).await)
}

pub(crate) async fn ask(caller: &Caller, scopes: &[v1::ScanScope]) -> Vec<v1::ScopeGrant> {
    let request = v1::AcquireScopesRequest {
        scopes: scopes.to_vec(),
    };
    let answer = caller.discovery().acquire_scopes(request).await.unwrap();
    answer.into_inner().grants
}

fn held(grants: &[v1::ScopeGrant]) -> usize {
    grants.iter().filter(|grant| grant.held).count()
}

/// Waits for a state, asking again and again.
async fn until<F: Future<Output = bool>>(mut holds: impl FnMut() -> F) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("what is waited for comes");
}

pub(crate) async fn statuses(house: &House) -> Vec<v1::ScopeStatus> {
    let request = v1::ListScopesRequest::default();
    let listed = house.admin().discovery().list_scopes(request).await;
    listed.unwrap().into_inner().scopes
}

async fn status(house: &House, scope: &v1::ScanScope) -> Option<v1::ScopeStatus> {
    let statuses = statuses(house).await;
    statuses
        .into_iter()
        .find(|status| status.scope.as_ref().is_some_and(|of| of.id == scope.id))
}

async fn owner(house: &House, name: &str) -> String {
    let request = v1::GetDatabaseRequest {
        name: name.to_owned(),
    };
    let database = house.admin().inventory().get_database(request).await;
    database.unwrap().into_inner().scope_id
}

async fn codes(house: &House, event: &str) -> Vec<String> {
    let request = v1::ListEventsRequest {
        event: event.to_owned(),
        limit: 100,
        ..v1::ListEventsRequest::default()
    };
    let events = house.admin().audit().list_events(request).await.unwrap();
    let events = events.into_inner().events.into_iter();
    events.map(|event| event.code).collect()
}

#[tokio::test]
async fn two_workers_share_and_never_hold_one_scope_together() {
    let house = House::new().await;
    let (one, other) = (worker(&house).await, worker(&house).await);
    let scopes = scopes("prod", 60);
    let before = ask(&one, &scopes).await;
    assert_eq!(held(&before), 60);
    let waits = ask(&other, &scopes).await;
    assert_eq!(held(&waits), 0, "what is held stays with its holder");
    assert!(waits[0].held_by.starts_with("node ("), "{waits:?}");

    let kept = ask(&one, &scopes).await;
    let moved = ask(&other, &scopes).await;
    assert_eq!(held(&kept) + held(&moved), 60);
    assert!((10..=50).contains(&held(&kept)), "{}", held(&kept));
    for ((before, kept), moved) in before.iter().zip(&kept).zip(&moved) {
        assert_ne!(kept.held, moved.held);
        if kept.held {
            assert_eq!(kept.epoch, before.epoch);
        } else {
            assert!(moved.epoch > before.epoch, "a move is a new epoch");
        }
    }
    let revision = revision(&house).await;
    assert_eq!(ask(&one, &scopes).await, kept);
    assert_eq!(held(&ask(&other, &scopes).await), held(&moved));
    assert_eq!(
        self::revision(&house).await,
        revision,
        "keeping writes nothing"
    );
}

async fn revision(house: &House) -> u64 {
    let request = v1::GetClusterStatusRequest {};
    let status = house.admin().access().get_cluster_status(request).await;
    status.unwrap().into_inner().revision
}

#[tokio::test]
async fn a_scope_that_is_left_out_is_free_at_once() {
    let house = House::new().await;
    let (one, other) = (worker(&house).await, worker(&house).await);
    let scopes = scopes("prod", 2);
    assert_eq!(held(&ask(&one, &scopes).await), 2);
    assert_eq!(held(&ask(&one, &scopes[..1]).await), 1);
    assert_eq!(held(&ask(&other, &scopes[1..]).await), 1);
}

#[tokio::test]
async fn workers_of_one_process_with_two_groups_do_not_disturb_each_other() {
    let house = House::new().await;
    let both = worker(&house).await;
    let (prod, lab) = (scopes("prod", 3), scopes("lab", 3));
    let first = ask(&both, &prod).await;
    assert_eq!(held(&ask(&both, &lab).await), 3);
    assert_eq!(ask(&both, &prod).await, first);
}

#[tokio::test]
async fn the_scopes_of_a_dead_worker_go_to_another_within_the_lease() {
    let house = House::with(timings()).await;
    let (dead, alive) = (worker(&house).await, worker(&house).await);
    let scopes = scopes("prod", 20);
    let before = ask(&dead, &scopes).await;
    assert_eq!(held(&before), 20);
    until(|| async { held(&ask(&alive, &scopes).await) == 20 }).await;
    let after = ask(&alive, &scopes).await;
    assert!(after[0].epoch > before[0].epoch);
}

#[tokio::test]
async fn what_an_owner_lets_go_goes_to_who_sees_it_and_is_never_gone() {
    let house = House::new().await;
    let owner_worker = Worker::start(&house, "prod", 0).await;
    let other = Worker::start(&house, "lab", 0).await;
    owner_worker.complete(1, &["orders", "users"]).await;
    other.complete(1, &["orders"]).await;
    let shadowed = status(&house, &other.scope).await.unwrap().shadowed;
    assert_eq!(shadowed.len(), 1);
    assert_eq!(shadowed[0].owned_by, owner_worker.scope.id);
    assert_eq!(codes(&house, "discovery.conflict").await, ["TDG02W"]);

    let before = acquire(&other.caller, &other.scope).await.rescan;
    let result = owner_worker.complete(2, &[]).await;
    assert_eq!((result.updated, result.deleted), (1, 1));
    assert_eq!(house.admin().database_names().await, [ORDERS]);
    assert_eq!(owner(&house, ORDERS).await, other.scope.id);
    assert!(acquire(&other.caller, &other.scope).await.rescan > before);
    assert_eq!(codes(&house, "db.delete").await.len(), 1);
    other.complete(1, &["orders"]).await;
    let now = status(&house, &other.scope).await.unwrap();
    assert_eq!((now.shadowed.len(), now.databases), (0, 1));
}

#[tokio::test]
async fn a_scope_that_nobody_names_is_retired_after_its_grace_and_its_databases_go() {
    let house = House::with(Timings {
        scope_lease: Duration::from_secs(30),
        ..timings()
    })
    .await;
    let gone = Worker::start(&house, "prod", 0).await;
    gone.complete(1, &["orders", "users"]).await;
    let stays = scopes("prod", 1).remove(0);
    // The same worker, with another configuration.
    let stays = Worker::with(gone.caller.clone(), stays).await;
    stays
        .publish(true, 1, vec![tagged("orders")])
        .await
        .unwrap();

    until(|| async {
        status(&house, &gone.scope)
            .await
            .unwrap()
            .retires_at
            .is_some()
    })
    .await;
    assert_eq!(house.admin().database_names().await.len(), 2);
    house.clock.advance(Duration::from_secs(1));
    until(|| async { status(&house, &gone.scope).await.is_none() }).await;
    assert_eq!(house.admin().database_names().await, [ORDERS]);
    assert_eq!(owner(&house, ORDERS).await, stays.scope.id);
    assert_eq!(codes(&house, "db.delete").await.len(), 1);
    assert_eq!(codes(&house, "db.create").await.len(), 2);
}

fn tagged(cluster: &str) -> v1::ScanItem {
    let mut item = crate::discovery::item(cluster, "prod");
    let database = item.database.as_mut().unwrap();
    database.labels.insert("team".to_owned(), "0".to_owned());
    item
}

#[tokio::test]
async fn a_matcher_that_was_edited_goes_on_with_what_it_found_before_any_grace_is_over() {
    let house = House::with(Timings {
        scope_lease: Duration::from_secs(30),
        ..timings()
    })
    .await;
    let before = Worker::start(&house, "prod", 0).await;
    before.complete(1, &["orders"]).await;
    let edited = scopes("prod", 2).remove(1);
    let edited = Worker::with(before.caller.clone(), edited).await;
    edited
        .publish(true, 1, vec![tagged("orders")])
        .await
        .unwrap();
    // The clock stands still: no grace passes.
    until(|| async { owner(&house, ORDERS).await == edited.scope.id }).await;
    assert!(status(&house, &before.scope).await.is_some());
    assert!(acquire(&edited.caller, &edited.scope).await.rescan > 0);
    assert!(codes(&house, "db.delete").await.is_empty());
}

#[tokio::test]
async fn a_worker_that_names_nothing_any_more_lets_its_group_s_last_scope_retire() {
    let house = House::with(Timings {
        scope_lease: Duration::from_secs(30),
        ..timings()
    })
    .await;
    let worker = Worker::start(&house, "prod", 0).await;
    worker.complete(1, &["orders"]).await;
    assert!(ask(&worker.caller, &[]).await.is_empty());
    until(|| async {
        status(&house, &worker.scope)
            .await
            .unwrap()
            .retires_at
            .is_some()
    })
    .await;
    house.clock.advance(Duration::from_secs(1));
    until(|| async { house.admin().database_names().await.is_empty() }).await;
}

async fn adopt(house: &House, from: &str, to: &str) -> Result<u32, tonic::Status> {
    let request = v1::AdoptDatabasesRequest {
        from_group: from.to_owned(),
        to_group: to.to_owned(),
    };
    let adopted = house.admin().discovery().adopt_databases(request).await;
    adopted.map(|adopted| adopted.into_inner().databases)
}

#[tokio::test]
async fn a_renamed_group_adopts_and_a_live_one_keeps_its_databases() {
    let house = House::with(timings()).await;
    let old = Worker::start(&house, "old", 0).await;
    old.complete(1, &["orders", "users"]).await;
    let refused = adopt(&house, "old", "new").await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(
        refused.message().contains("node ("),
        "{}",
        refused.message()
    );
    assert_eq!(
        code(adopt(&house, "old", "old").await),
        Code::InvalidArgument
    );

    let new = worker(&house).await;
    let scope = scope("new", 0);
    until(|| async {
        acquire(&new, &scope).await;
        adopt(&house, "old", "new").await.ok() == Some(2)
    })
    .await;
    assert_eq!(owner(&house, ORDERS).await, scope.id);
    assert!(status(&house, &old.scope).await.is_none());
    assert!(codes(&house, "db.delete").await.is_empty());

    let worker = Worker::with(new, scope).await;
    let result = worker.complete(1, &["orders", "users"]).await;
    assert_eq!((result.created, result.deleted, result.shadowed), (0, 0, 0));
    assert_eq!(
        code(adopt(&house, "old", "nobody").await),
        Code::FailedPrecondition
    );
}

#[tokio::test]
async fn a_rescan_reaches_the_holder_with_its_next_request() {
    let house = House::new().await;
    let worker = worker(&house).await;
    let scopes = scopes("prod", 3);
    let before = ask(&worker, &scopes).await;
    assert!(before.iter().all(|grant| grant.rescan == 0));
    let ask_for = async |scope_ids: Vec<String>| {
        let request = v1::RequestRescanRequest { scope_ids };
        let asked = house.admin().discovery().request_rescan(request).await;
        asked.unwrap().into_inner().scopes
    };
    let ids = vec![scopes[1].id.clone(), "nobody's".to_owned()];
    assert_eq!(ask_for(ids).await, 1);
    let one = ask(&worker, &scopes).await;
    assert_eq!((one[0].rescan, one[2].rescan), (0, 0));
    assert!(one[1].rescan > 0);
    assert_eq!(ask_for(Vec::new()).await, 3);
    let all = ask(&worker, &scopes).await;
    assert!(
        all.iter()
            .zip(&one)
            .all(|(now, then)| now.rescan > then.rescan)
    );
}

#[tokio::test]
async fn failures_recoveries_and_held_deletions_are_in_the_audit_log_once_each() {
    let house = House::new().await;
    let worker = Worker::start(&house, "prod", 0).await;
    let names: Vec<String> = (0..20).map(|index| format!("db{index:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    worker.complete(1, &names).await;
    for digest in 2..4 {
        worker.publish(false, digest, Vec::new()).await.unwrap();
    }
    assert_eq!(codes(&house, "discovery.scope.failed").await, ["TDG00W"]);
    worker.complete(4, &names[..4]).await;
    let held = status(&house, &worker.scope).await.unwrap();
    assert_eq!(held.held_deletions, 16);
    assert_eq!(codes(&house, "discovery.scope.recovered").await, ["TDG00I"]);
    assert_eq!(codes(&house, "discovery.deletion.held").await, ["TDG01W"]);
}
