use futures::stream;
use tidegate_core::{ScanScope, Selector};
use tidegate_proto::v1::{
    self, publish_scan_request::Frame as Request, publish_scan_response::Frame as Response,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::house::{Caller, House, code};

pub(crate) fn scope(group: &str, order: u32) -> v1::ScanScope {
    let scope = ScanScope {
        group: group.to_owned(),
        kind: tidegate_core::DatabaseKind::Redshift,
        region: "us-east-1".parse().unwrap(),
        assume_role: None,
        tags: Selector::everything(),
        endpoints: tidegate_core::EndpointFilter::default(),
        config: None,
        order,
    };
    v1::ScanScope::from(&scope)
}

pub(crate) fn item(cluster: &str, env: &str) -> v1::ScanItem {
    v1::ScanItem {
        database: Some(v1::Database {
            protocol: "postgres".to_owned(),
            uri: format!("{cluster}.abc.us-east-1.redshift.amazonaws.com:5439"),
            kind: "redshift".to_owned(),
            identity: format!("arn:aws:redshift:us-east-1:111122223333:cluster:{cluster}"),
            labels: [("env".to_owned(), env.to_owned())].into(),
            aws: Some(v1::AwsMetadata {
                region: "us-east-1".to_owned(),
                account_id: "111122223333".to_owned(),
                ..v1::AwsMetadata::default()
            }),
            ..v1::Database::default()
        }),
        name_base: cluster.to_owned(),
        name_suffix: ["redshift", "us-east-1", "111122223333"]
            .map(str::to_owned)
            .into(),
        ..v1::ScanItem::default()
    }
}

pub(crate) fn items(clusters: &[&str]) -> Vec<v1::ScanItem> {
    clusters
        .iter()
        .map(|cluster| item(cluster, "prod"))
        .collect()
}

/// A worker that holds a scope.
pub(crate) struct Worker {
    pub(crate) caller: Caller,
    pub(crate) scope: v1::ScanScope,
    pub(crate) epoch: u64,
}

impl Worker {
    pub(crate) async fn start(house: &House, group: &str, order: u32) -> Self {
        let caller = house.known(&house.host(&["discovery"]).await);
        Self::with(caller, scope(group, order)).await
    }

    pub(crate) async fn with(caller: Caller, scope: v1::ScanScope) -> Self {
        let grant = acquire(&caller, &scope).await;
        assert!(grant.held, "{grant:?}");
        Self {
            caller,
            scope,
            epoch: grant.epoch,
        }
    }

    pub(crate) fn header(&self, whole: bool, digest: u8) -> v1::ScanHeader {
        let completeness = if whole {
            v1::Completeness::Complete
        } else {
            v1::Completeness::Partial
        };
        v1::ScanHeader {
            scope: Some(self.scope.clone()),
            epoch: self.epoch,
            completeness: completeness.into(),
            digest: vec![digest; 32],
            failure: (!whole).then(|| v1::ScanFailure {
                class: "throttled".to_owned(),
                ..v1::ScanFailure::default()
            }),
            aws_calls: 3,
            left_out: Vec::new(),
            ..v1::ScanHeader::default()
        }
    }

    pub(crate) async fn publish(
        &self,
        whole: bool,
        digest: u8,
        items: Vec<v1::ScanItem>,
    ) -> Result<v1::PublishResult, Status> {
        let count = u32::try_from(items.len()).unwrap();
        publish(&self.caller, self.header(whole, digest), items, count).await
    }

    pub(crate) async fn complete(&self, digest: u8, clusters: &[&str]) -> v1::PublishResult {
        self.publish(true, digest, items(clusters)).await.unwrap()
    }
}

pub(crate) async fn acquire(caller: &Caller, scope: &v1::ScanScope) -> v1::ScopeGrant {
    let request = v1::AcquireScopesRequest {
        scopes: vec![scope.clone()],
    };
    let answer = caller.discovery().acquire_scopes(request).await.unwrap();
    answer.into_inner().grants.remove(0)
}

/// As a worker does: the header first, the items when asked for, then the result.
pub(crate) async fn publish(
    caller: &Caller,
    header: v1::ScanHeader,
    items: Vec<v1::ScanItem>,
    count: u32,
) -> Result<v1::PublishResult, Status> {
    let (frames, incoming) = mpsc::channel(4);
    let send = |frame: Request| v1::PublishScanRequest { frame: Some(frame) };
    frames.send(send(Request::Header(header))).await.unwrap();
    let answers = caller
        .discovery()
        .publish_scan(ReceiverStream::new(incoming))
        .await?;
    let mut answers = answers.into_inner();
    match answers.message().await?.unwrap().frame.unwrap() {
        Response::Result(result) => return Ok(result),
        Response::SendItems(_) => {}
    }
    for item in items {
        if frames
            .send(send(Request::Items(v1::ScanItems { items: vec![item] })))
            .await
            .is_err()
        {
            break;
        }
    }
    let trailer = v1::ScanTrailer { items: count };
    let _ = frames.send(send(Request::Trailer(trailer))).await;
    match answers.message().await?.unwrap().frame.unwrap() {
        Response::Result(result) => Ok(result),
        Response::SendItems(_) => panic!("asked for the items twice"),
    }
}

const NAMES: [&str; 2] = [
    "orders-redshift-us-east-1-111122223333",
    "users-redshift-us-east-1-111122223333",
];

#[tokio::test]
async fn scans_create_update_and_delete_and_a_quiet_one_writes_nothing() {
    let house = House::new().await;
    let worker = Worker::start(&house, "prod", 0).await;
    let admin = house.admin();

    let result = worker.complete(1, &["orders", "users"]).await;
    assert_eq!((result.created, result.updated, result.deleted), (2, 0, 0));
    assert_eq!(admin.database_names().await, NAMES);

    let revision = status(&house).await.revision;
    let result = worker.complete(1, &["orders", "users"]).await;
    assert!(result.unchanged, "{result:?}");
    assert_eq!(status(&house).await.revision, revision);

    let changed = vec![item("orders", "dev"), item("users", "prod")];
    let result = worker.publish(true, 2, changed).await.unwrap();
    assert_eq!((result.created, result.updated, result.deleted), (0, 1, 0));
    let request = v1::GetDatabaseRequest {
        name: NAMES[0].to_owned(),
    };
    let orders = admin
        .inventory()
        .get_database(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(orders.labels["env"], "dev");
    assert_eq!(orders.labels["tidegate.dev/origin"], "cloud");
    assert_eq!(orders.labels["tidegate.dev/discovery-group"], "prod");
    assert_eq!(orders.labels["tidegate.dev/discovery-type"], "redshift");
    assert_eq!(orders.discovered_name, "orders");
    assert_eq!(orders.scope_id, worker.scope.id);

    let result = worker.complete(3, &["users"]).await;
    assert_eq!((result.created, result.updated, result.deleted), (0, 0, 1));
    assert_eq!(admin.database_names().await, NAMES[1..]);
}

#[tokio::test]
async fn a_partial_scan_deletes_nothing_and_says_why_it_is_partial() {
    let house = House::new().await;
    let worker = Worker::start(&house, "prod", 0).await;
    worker.complete(1, &["orders", "users"]).await;
    let result = worker.publish(false, 2, items(&["orders"])).await.unwrap();
    assert_eq!((result.deleted, result.held), (0, 0));
    assert_eq!(house.admin().database_names().await, NAMES);

    let scopes = house
        .admin()
        .discovery()
        .list_scopes(v1::ListScopesRequest::default())
        .await;
    let scope = scopes.unwrap().into_inner().scopes.remove(0);
    assert_eq!(scope.failure.unwrap().class, "throttled");
    assert_eq!(
        (scope.databases, scope.aws_calls, scope.epoch),
        (2, 3, worker.epoch)
    );
    assert!(scope.held_by.starts_with("node ("), "{}", scope.held_by);
    // After a partial scan even the digest of the last complete one is sent in full.
    assert!(!worker.complete(1, &["orders", "users"]).await.unchanged);
}

#[tokio::test]
async fn a_mass_deletion_waits_for_a_second_scan_that_agrees() {
    let house = House::new().await;
    let worker = Worker::start(&house, "prod", 0).await;
    let names: Vec<String> = (0..20).map(|index| format!("db{index:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    worker.complete(1, &names).await;
    let first = worker.complete(2, &names[..4]).await;
    assert_eq!((first.deleted, first.held), (0, 16));
    let partial = worker.publish(false, 3, items(&names[..1])).await.unwrap();
    assert_eq!(partial.deleted, 0);
    let second = worker.complete(2, &names[..4]).await;
    assert_eq!((second.deleted, second.held), (16, 0));
    assert_eq!(house.admin().database_names().await.len(), 4);
}

#[tokio::test]
async fn a_scope_has_one_holder_and_an_old_epoch_changes_nothing() {
    let house = House::new().await;
    let worker = Worker::start(&house, "prod", 0).await;
    assert_eq!(
        acquire(&worker.caller, &worker.scope).await.epoch,
        worker.epoch
    );

    let rival = house.known(&house.host(&["discovery"]).await);
    let refused = acquire(&rival, &worker.scope).await;
    assert!(
        !refused.held && refused.held_by.starts_with("node ("),
        "{refused:?}"
    );
    let stolen = publish(&rival, worker.header(true, 1), items(&["orders"]), 1).await;
    assert_eq!(code(stolen), Code::FailedPrecondition);

    let old = v1::ScanHeader {
        epoch: worker.epoch - 1,
        ..worker.header(true, 1)
    };
    let late = publish(&worker.caller, old, items(&["orders"]), 1)
        .await
        .unwrap_err();
    assert_eq!(late.code(), Code::FailedPrecondition);
    assert!(
        late.message().contains("holds it with epoch"),
        "{}",
        late.message()
    );
    assert!(house.admin().database_names().await.is_empty());
}

#[tokio::test]
async fn another_group_sees_its_find_shadowed_and_takes_over_when_the_owner_lets_go() {
    let house = House::new().await;
    let owner = Worker::start(&house, "prod", 0).await;
    let other = Worker::start(&house, "lab", 0).await;
    owner.complete(1, &["orders"]).await;
    let shadowed = other.complete(1, &["orders"]).await;
    assert_eq!(
        (shadowed.created, shadowed.updated, shadowed.shadowed),
        (0, 0, 1)
    );
    let gone = other.complete(2, &[]).await;
    assert_eq!(gone.deleted, 0, "what another scope owns stays");

    owner.complete(2, &[]).await;
    assert!(house.admin().database_names().await.is_empty());
    let taken = other.complete(3, &["orders"]).await;
    assert_eq!(taken.created, 1);
}

#[tokio::test]
async fn what_is_no_scan_is_refused_and_changes_nothing() {
    let house = House::new().await;
    let worker = Worker::start(&house, "prod", 0).await;
    let lost = publish(
        &worker.caller,
        worker.header(true, 1),
        items(&["orders"]),
        2,
    )
    .await;
    assert_eq!(code(lost), Code::InvalidArgument);

    let mut elsewhere = item("orders", "prod");
    elsewhere
        .database
        .as_mut()
        .unwrap()
        .aws
        .as_mut()
        .unwrap()
        .region = "eu-west-1".to_owned();
    assert_eq!(
        code(worker.publish(true, 1, vec![elsewhere]).await),
        Code::InvalidArgument
    );
    let mut nameless = item("orders", "prod");
    nameless.database.as_mut().unwrap().identity = String::new();
    assert_eq!(
        code(worker.publish(true, 1, vec![nameless]).await),
        Code::InvalidArgument
    );

    let first = v1::PublishScanRequest {
        frame: Some(Request::Trailer(v1::ScanTrailer { items: 0 })),
    };
    let answers = worker
        .caller
        .discovery()
        .publish_scan(stream::iter([first]))
        .await;
    let refused = answers.unwrap().into_inner().message().await;
    assert_eq!(code(refused), Code::InvalidArgument);
    assert!(house.admin().database_names().await.is_empty());
}

#[tokio::test]
async fn many_databases_are_written_in_bounded_steps() {
    let house = House::new().await;
    let worker = Worker::start(&house, "prod", 0).await;
    let names: Vec<String> = (0..1000).map(|index| format!("db{index:04}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let result = worker.complete(1, &names).await;
    assert_eq!(result.created, 1000);
    assert_eq!(status(&house).await.databases, 1000);
    let request = v1::ListEventsRequest {
        event: "db.create".to_owned(),
        limit: 1000,
        ..v1::ListEventsRequest::default()
    };
    let events = house.admin().audit().list_events(request).await.unwrap();
    assert_eq!(events.into_inner().events.len(), 1000);
}

#[tokio::test]
async fn only_discoverers_publish() {
    let house = House::new().await;
    let proxy = house.known(&house.host(&["proxy"]).await);
    let request = v1::AcquireScopesRequest {
        scopes: vec![scope("prod", 0)],
    };
    assert_eq!(
        code(proxy.discovery().acquire_scopes(request).await),
        Code::PermissionDenied
    );
}

async fn status(house: &House) -> v1::ClusterStatus {
    let request = v1::GetClusterStatusRequest {};
    house
        .admin()
        .access()
        .get_cluster_status(request)
        .await
        .unwrap()
        .into_inner()
}
