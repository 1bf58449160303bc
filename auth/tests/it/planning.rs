//! What a configuration would change.

use std::collections::BTreeMap;

use futures::stream;
use tidegate_auth::Timings;
use tidegate_core::{ScanScope, Selector};
use tidegate_proto::v1::{
    self, PlanAction, plan_discovery_request::Frame as Request,
    plan_discovery_response::Frame as Response,
};
use tonic::{Code, Status};

use crate::{
    discovery::{Worker, item, scope},
    house::{Caller, House, code},
};

/// A scope of group `prod` that looks for this tag.
fn selecting(order: u32, env: &str) -> v1::ScanScope {
    let plain = ScanScope::try_from(scope("prod", order)).unwrap();
    let tags = Selector::new([("env".to_owned(), vec![env.to_owned()])]).unwrap();
    v1::ScanScope::from(&ScanScope { tags, ..plain })
}

fn header(recorded: bool) -> Request {
    Request::Header(v1::PlanHeader {
        group: "prod".to_owned(),
        config: String::new(),
        recorded,
    })
}

fn planned(scope: v1::ScanScope, whole: bool) -> Request {
    let completeness = if whole {
        v1::Completeness::Complete
    } else {
        v1::Completeness::Partial
    };
    Request::Scope(v1::PlanScope {
        scope: Some(scope),
        completeness: completeness.into(),
        failure: None,
    })
}

fn items(items: &[v1::ScanItem]) -> Request {
    Request::Items(v1::ScanItems {
        items: items.to_vec(),
    })
}

fn trailer(items: u32) -> Request {
    Request::Trailer(v1::ScanTrailer { items })
}

/// The plan: what becomes of each database, by name, and the counts.
async fn plan(
    caller: &Caller,
    frames: Vec<Request>,
) -> Result<(Vec<v1::PlannedChange>, v1::PlanSummary), Status> {
    let frames = frames
        .into_iter()
        .map(|frame| v1::PlanDiscoveryRequest { frame: Some(frame) });
    let answers = caller
        .discovery()
        .plan_discovery(stream::iter(frames))
        .await?;
    let mut answers = answers.into_inner();
    let mut changes = Vec::new();
    while let Some(answer) = answers.message().await? {
        match answer.frame.unwrap() {
            Response::Change(change) => changes.push(change),
            Response::Summary(summary) => {
                assert_eq!(answers.message().await?, None, "the summary is the last");
                return Ok((changes, summary));
            }
        }
    }
    panic!("a plan without a summary: {changes:?}");
}

fn told(changes: &[v1::PlannedChange]) -> Vec<(String, PlanAction)> {
    changes
        .iter()
        .map(|change| {
            let database = change.before.as_ref().or(change.after.as_ref()).unwrap();
            let cluster = database.name.split('-').next().unwrap().to_owned();
            (cluster, change.action())
        })
        .collect()
}

async fn listed(house: &House) -> BTreeMap<String, v1::Database> {
    let request = v1::ListDatabasesRequest::default();
    let listed = house.admin().inventory().list_databases(request).await;
    let databases = listed.unwrap().into_inner().databases.into_iter();
    databases
        .map(|database| {
            let bare = v1::Database {
                revision: 0,
                ..database
            };
            (bare.name.clone(), bare)
        })
        .collect()
}

async fn revision(house: &House) -> u64 {
    let request = v1::GetClusterStatusRequest {};
    let status = house.admin().access().get_cluster_status(request).await;
    status.unwrap().into_inner().revision
}

/// What a plan says there is afterwards.
fn promised(changes: Vec<v1::PlannedChange>) -> BTreeMap<String, v1::Database> {
    let after = changes.into_iter().filter_map(|change| change.after);
    after
        .map(|database| {
            let bare = v1::Database {
                revision: 0,
                ..database
            };
            (bare.name.clone(), bare)
        })
        .collect()
}

#[tokio::test]
async fn a_plan_says_what_publishing_the_same_scans_leads_to_and_changes_nothing() {
    let timings = Timings {
        retire_grace_min: std::time::Duration::from_millis(100),
        ..Timings::default()
    };
    let house = House::with(timings).await;
    let old = Worker::start(&house, "prod", 0).await;
    let before = [
        item("kept", "prod"),
        item("moved", "dev"),
        item("gone", "test"),
    ];
    old.publish(true, 1, before.to_vec()).await.unwrap();

    let (prod, dev) = (selecting(0, "prod"), selecting(1, "dev"));
    let now = [item("kept", "prod"), item("new", "prod")];
    let seen_dev = [item("moved", "dev")];
    let asked = vec![
        header(false),
        planned(prod.clone(), true),
        items(&now),
        planned(dev.clone(), true),
        items(&seen_dev),
        trailer(3),
    ];
    let at = revision(&house).await;
    let (changes, summary) = plan(&house.admin(), asked).await.unwrap();
    assert_eq!(
        told(&changes),
        [
            ("gone".to_owned(), PlanAction::Remove),
            ("kept".to_owned(), PlanAction::Change),
            ("moved".to_owned(), PlanAction::Change),
            ("new".to_owned(), PlanAction::Add),
        ]
    );
    assert_eq!((summary.added, summary.changed, summary.removed), (1, 2, 1));
    assert_eq!((summary.retired_scopes, summary.shadowed), (1, 0));
    assert_eq!(revision(&house).await, at, "a plan writes nothing");

    let caller = old.caller.clone();
    let worker = acquire_all(&caller, &[prod, dev]).await;
    for (worker, items) in worker.iter().zip([&now[..], &seen_dev[..]]) {
        worker.publish(true, 2, items.to_vec()).await.unwrap();
    }
    let promised = promised(changes);
    let patience = tokio::time::timeout(std::time::Duration::from_secs(20), async {
        loop {
            house.clock.advance(std::time::Duration::from_secs(60));
            let listed = listed(&house).await;
            if listed.keys().eq(promised.keys()) && listed == promised {
                return;
            }
            // The new owner scans once more, as it is asked to.
            for (worker, items) in worker.iter().zip([&now[..], &seen_dev[..]]) {
                worker.publish(true, 3, items.to_vec()).await.unwrap();
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    });
    if patience.await.is_err() {
        assert_eq!(listed(&house).await, promised);
    }
}

/// A worker that names these scopes and no others.
async fn acquire_all(caller: &Caller, scopes: &[v1::ScanScope]) -> Vec<Worker> {
    let request = v1::AcquireScopesRequest {
        scopes: scopes.to_vec(),
    };
    let answer = caller.discovery().acquire_scopes(request).await.unwrap();
    let grants = answer.into_inner().grants.into_iter();
    grants
        .zip(scopes)
        .map(|(grant, scope)| Worker {
            caller: caller.clone(),
            scope: scope.clone(),
            epoch: grant.epoch,
        })
        .collect()
}

#[tokio::test]
async fn a_plan_over_the_recorded_inventory_sees_what_selectors_and_endpoints_admit() {
    let house = House::new().await;
    let worker = Worker::start(&house, "prod", 0).await;
    let mut reader = item("reader", "prod");
    if let Some(database) = &mut reader.database {
        let label = ("endpoint-type".to_owned(), "reader".to_owned());
        database.labels.extend([label]);
    }
    let known = vec![item("orders", "prod"), item("users", "dev"), reader];
    worker.publish(true, 1, known).await.unwrap();
    let narrow = |exclude: &[&str]| {
        let mut narrow = ScanScope::try_from(selecting(0, "prod")).unwrap();
        narrow.endpoints.exclude = exclude.iter().map(|kind| (*kind).to_owned()).collect();
        v1::ScanScope::from(&narrow)
    };
    let asked = |scopes: &[v1::ScanScope]| {
        let scopes = scopes.iter().map(|scope| planned(scope.clone(), true));
        let mut frames = vec![header(true)];
        frames.extend(scopes);
        frames.push(trailer(0));
        frames
    };
    let admin = house.admin();
    let same = plan(&admin, asked(std::slice::from_ref(&worker.scope)))
        .await
        .unwrap();
    assert!(same.0.iter().all(|change| change.before == change.after));
    assert_eq!(
        same.1,
        v1::PlanSummary {
            kept: 3,
            ..v1::PlanSummary::default()
        }
    );

    let (changes, _) = plan(&admin, asked(&[narrow(&["reader"])])).await.unwrap();
    assert_eq!(
        told(&changes),
        [
            ("orders".to_owned(), PlanAction::Change),
            ("reader".to_owned(), PlanAction::Remove),
            ("users".to_owned(), PlanAction::Remove),
        ]
    );

    // Another account's role sees nothing of this one.
    let mut elsewhere = ScanScope::try_from(scope("prod", 0)).unwrap();
    let role = |account: &str| tidegate_core::AssumeRole {
        role_arn: format!("arn:aws:iam::{account}:role/discovery")
            .parse()
            .unwrap(),
        external_id: None,
    };
    elsewhere.assume_role = Some(role("444455556666"));
    let (_, summary) = plan(&admin, asked(&[v1::ScanScope::from(&elsewhere)]))
        .await
        .unwrap();
    assert_eq!((summary.removed, summary.partial_scopes), (3, 0));
    elsewhere.assume_role = Some(role("111122223333"));
    let (changes, summary) = plan(&admin, asked(&[v1::ScanScope::from(&elsewhere)]))
        .await
        .unwrap();
    assert_eq!((summary.changed, summary.removed), (3, 0));
    let aws = changes[0].after.clone().unwrap().aws.unwrap();
    assert_eq!(
        aws.assume_role.unwrap().role_arn,
        "arn:aws:iam::111122223333:role/discovery"
    );
}

#[tokio::test]
async fn where_own_identities_look_is_unknown_until_they_found_something() {
    let house = House::new().await;
    let asked = vec![header(true), planned(scope("prod", 0), true), trailer(0)];
    let (changes, summary) = plan(&house.admin(), asked).await.unwrap();
    assert_eq!((changes.len(), summary.partial_scopes), (0, 1));
}

#[tokio::test]
async fn a_scope_that_was_seen_in_part_loses_nothing() {
    let house = House::new().await;
    let worker = Worker::start(&house, "prod", 0).await;
    worker.complete(1, &["orders", "users"]).await;
    let asked = vec![
        header(false),
        planned(worker.scope.clone(), false),
        items(&[item("orders", "prod")]),
        trailer(1),
    ];
    let (_, summary) = plan(&house.admin(), asked).await.unwrap();
    assert_eq!((summary.kept, summary.removed), (2, 0));
    assert_eq!(summary.partial_scopes, 1);
}

#[tokio::test]
async fn what_is_no_question_is_refused() {
    let house = House::new().await;
    let admin = house.admin();
    let of_lab = planned(scope("lab", 0), true);
    let one = || planned(scope("prod", 0), true);
    let some = || items(&[item("orders", "prod")]);
    for (frames, problem) in [
        (vec![], "is missing"),
        (vec![one()], "must be a header first"),
        (vec![header(false), header(false)], "is a second header"),
        (vec![header(false), some()], "must follow a scope"),
        (vec![header(true), one(), some()], "must not be sent"),
        (vec![header(false), of_lab], "is of another group"),
        (vec![header(false), one(), one()], "came before"),
        (
            vec![header(false), one(), some(), trailer(2)],
            "is 2, but 1 came",
        ),
        (vec![header(false), one(), some()], "is missing"),
    ] {
        let refused = plan(&admin, frames).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{problem}");
        assert!(refused.message().contains(problem), "{}", refused.message());
    }
}

#[tokio::test]
async fn only_administrators_plan() {
    let house = House::new().await;
    let worker = house.known(&house.host(&["discovery"]).await);
    let asked = vec![header(true), trailer(0)];
    assert_eq!(code(plan(&worker, asked).await), Code::PermissionDenied);
}
