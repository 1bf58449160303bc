//! Members that die, fall silent or lose what is sent.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::{net::TcpListener, time::Instant};

use super::{
    relay::{Loses, Relay},
    *,
};

/// Writes one key after the other's answer until it is told to stop; gives the revisions that etcd acknowledged.
async fn write(store: &EtcdStore, is_over: &AtomicBool) -> Vec<u64> {
    let mut acknowledged = Vec::new();
    for number in 0_u64.. {
        if is_over.load(Ordering::SeqCst) {
            break;
        }
        let txn = Txn::new().put("/load".into(), number.to_string().into());
        match store.commit(txn).await {
            Ok(revision) => acknowledged.push(revision),
            Err(CommitError::Unavailable(_)) => {}
            Err(other) => panic!("{other}"),
        }
    }
    acknowledged
}

/// What became of attempts to raise a number by one.
#[derive(Default)]
struct Raised {
    surely: u64,
    in_doubt: u64,
}

/// Raises a number by one, each time from what was read before, until it is told to stop.
async fn raise(store: &EtcdStore, is_over: &AtomicBool) -> Raised {
    let mut raised = Raised::default();
    while !is_over.load(Ordering::SeqCst) {
        let Ok(Some(entry)) = store.get("/number".into()).await else {
            continue;
        };
        let next = number(&entry) + 1;
        let txn = Txn::new()
            .at("/number".into(), entry.modified)
            .put("/number".into(), next.to_string().into());
        match store.commit(txn).await {
            Ok(_) => raised.surely += 1,
            Err(CommitError::Conflict { .. }) => {}
            Err(CommitError::Unavailable(_)) => raised.in_doubt += 1,
            Err(other) => panic!("{other}"),
        }
    }
    raised
}

fn number(entry: &Entry) -> u64 {
    std::str::from_utf8(&entry.value).unwrap().parse().unwrap()
}

/// Reads a watch of that key to a revision, and fails when anything is missing or comes twice.
async fn read_to(watch: &mut Watch, from: u64, last: u64) -> Vec<u64> {
    let mut seen = vec![from];
    while seen.last() < Some(&last) {
        if let Watched::Batch(batch) = next(watch).await.unwrap() {
            let previous = batch.changes[0].previous.as_ref().unwrap();
            assert_eq!(Some(&previous.modified), seen.last());
            seen.push(batch.revision);
        }
    }
    seen
}

/// Lets `fault` happen under writes, and holds what is there then against what was acknowledged.
async fn nothing_is_lost(store: &EtcdStore, fault: impl Future<Output = ()>) {
    const RAISERS: usize = 4;
    let lease = store.grant(Duration::from_secs(60)).await.unwrap();
    let first = Txn::new()
        .put("/load".into(), "first".into())
        .put("/number".into(), "0".into())
        .put_with("/leased".into(), Bytes::new(), Some(lease));
    let first = store.commit(first).await.unwrap();
    let mut watch = store.watch("/load".into(), first).await.unwrap();
    let is_over = AtomicBool::new(false);
    let faulty = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        fault.await;
        // The store answers again.
        let deadline = Instant::now() + PATIENCE;
        while store.commit(put("/after", "1")).await.is_err() {
            assert!(Instant::now() < deadline, "etcd did not come back");
        }
        store.keep_alive(lease).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        is_over.store(true, Ordering::SeqCst);
    };
    let raisers = (0..RAISERS).map(|_| raise(store, &is_over));
    let raisers = futures::future::join_all(raisers);
    let (acknowledged, raised, ()) = futures::join!(write(store, &is_over), raisers, faulty);

    let last = *acknowledged.last().unwrap();
    let seen = read_to(&mut watch, first, last).await;
    assert!(acknowledged.len() > 20, "{}", acknowledged.len());
    assert!(acknowledged.iter().all(|revision| seen.contains(revision)));
    let surely: u64 = raised.iter().map(|raised| raised.surely).sum();
    let in_doubt: u64 = raised.iter().map(|raised| raised.in_doubt).sum();
    let reached = number(&store.get("/number".into()).await.unwrap().unwrap());
    assert!(
        (surely..=surely + in_doubt).contains(&reached),
        "{surely} surely, {in_doubt} in doubt, {reached} reached"
    );
    let leased = store.get("/leased".into()).await.unwrap();
    assert_eq!(leased.unwrap().lease, Some(lease));
}

#[tokio::test]
async fn a_watch_goes_on_over_a_restart_of_etcd() {
    let server = Mutex::new(Server::start(&[]));
    let options = server.lock().unwrap().options();
    let store = EtcdStore::open(options).await.unwrap();
    let restart = async { server.lock().unwrap().restart() };
    nothing_is_lost(&store, restart).await;
}

#[tokio::test]
async fn a_cluster_that_loses_its_leader_loses_no_write_and_no_event() {
    let members = Mutex::new(Server::start_three());
    let endpoints: Vec<_> = members
        .lock()
        .unwrap()
        .each_ref()
        .map(Server::endpoint)
        .into();
    let store = EtcdStore::open(EtcdOptions::new(endpoints, "/tidegate"))
        .await
        .unwrap();
    let kill = async {
        let mut members = members.lock().unwrap();
        let leader = members.iter().position(is_leader).unwrap();
        members[leader].kill();
        members.rotate_left(leader);
    };
    nothing_is_lost(&store, kill).await;

    // One that is left alone has no leader, and says so in time.
    let [_dead, alone, mut other] = members.into_inner().unwrap();
    other.kill();
    let endpoint = alone.endpoint();
    let mut options = EtcdOptions::new(vec![endpoint], "/tidegate");
    options.request_timeout = Duration::from_secs(2);
    let in_time = tokio::time::timeout(Duration::from_secs(4), EtcdStore::open(options)).await;
    let refused = in_time.expect("no call may hang").err();
    assert!(matches!(refused, Some(OpenError::Unavailable(_))));
}

fn is_leader(member: &Server) -> bool {
    let status = member.ctl(&["endpoint", "status", "--write-out=simple"]);
    status.split(", ").nth(4) == Some("true")
}

#[tokio::test]
async fn dead_and_silent_members_are_passed_over() {
    let server = Server::start(&[]);
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = |listener: &TcpListener| -> http::Uri {
        let text = format!("http://{}", listener.local_addr().unwrap());
        text.parse().unwrap()
    };
    let endpoints = vec![uri(&dead), uri(&silent), server.endpoint()];
    drop(dead);
    let mut options = EtcdOptions::new(endpoints, "/tidegate");
    options.request_timeout = Duration::from_secs(4);
    let store = EtcdStore::open(options).await.unwrap();
    let written = store.commit(put("/a", "1")).await.unwrap();
    let mut watch = store.watch(Bytes::new(), written - 1).await.unwrap();
    assert!(matches!(next(&mut watch).await, Ok(Watched::Batch(_))));
    let lease = store.grant(Duration::from_secs(3)).await.unwrap();
    store.keep_alive(lease).await.unwrap();
}

#[tokio::test]
async fn without_etcd_every_call_fails_in_time() {
    let mut server = Server::start(&[]);
    let mut options = server.options();
    options.request_timeout = Duration::from_secs(1);
    let store = EtcdStore::open(options.clone()).await.unwrap();
    let lease = store.grant(Duration::from_secs(60)).await.unwrap();
    server.kill();
    let in_time = async {
        assert!(EtcdStore::open(options).await.is_err());
        assert!(store.get("/a".into()).await.is_err());
        assert!(store.range(RangeQuery::prefix("")).await.is_err());
        let refused = store.commit(put("/a", "1")).await;
        assert!(matches!(refused, Err(CommitError::Unavailable(_))));
        assert!(store.grant(Duration::from_secs(3)).await.is_err());
        let lost = store.keep_alive(lease).await;
        assert!(matches!(lost, Err(LeaseError::Unavailable(_))));
        assert!(store.revoke(lease).await.is_err());
        let refused = store.watch(Bytes::new(), 1).await.err();
        assert!(matches!(refused, Some(WatchError::Unavailable(_))));
    };
    tokio::time::timeout(Duration::from_secs(15), in_time)
        .await
        .expect("no call may hang");
    server.run();
    store.keep_alive(lease).await.unwrap();
}

/// A store behind a relay, with a key at a revision.
async fn relayed(server: &Server) -> (Relay, Arc<EtcdStore>, u64) {
    let relay = Relay::start(&server.endpoint()).await;
    let mut options = EtcdOptions::new(vec![relay.endpoint()], "/tidegate");
    options.request_timeout = Duration::from_secs(1);
    let store = EtcdStore::open(options).await.unwrap();
    let written = store.commit(put("/a", "1")).await.unwrap();
    (relay, store, written)
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_neither_repeated_nor_called_done_or_refused() {
    let server = Server::start(&[]);
    let (relay, store, written) = relayed(&server).await;
    let guarded = Txn::new()
        .at("/a".into(), written)
        .put("/a".into(), "2".into());
    for txn in [put("/b", "1"), guarded] {
        store.get("/a".into()).await.unwrap(); // a connection is there
        relay.lose(Loses::Answers);
        let lost = store.commit(txn).await.unwrap_err();
        let CommitError::Unavailable(error) = &lost else {
            panic!("{lost}")
        };
        let told = tidegate_service::telemetry::chain(error);
        assert!(
            told.contains("whether the write was made is not known"),
            "{told}"
        );
    }
    // Both were made, once.
    let entry = store.get("/b".into()).await.unwrap().unwrap();
    assert_eq!(entry.created, entry.modified);
    let entry = store.get("/a".into()).await.unwrap().unwrap();
    assert_eq!((entry.value, entry.created), ("2".into(), written));
    let history = server.ctl(&["get", "/tidegate/data/a", "--write-out=fields"]);
    assert!(history.contains("\"Version\" : 2"), "{history}");
}

#[tokio::test]
async fn a_guarded_write_that_never_arrived_is_sent_again() {
    let server = Server::start(&[]);
    let (relay, store, written) = relayed(&server).await;
    relay.lose(Loses::Requests);
    let guarded = Txn::new()
        .at("/a".into(), written)
        .put("/a".into(), "2".into());
    let revision = store.commit(guarded).await.unwrap();
    let entry = store.get("/a".into()).await.unwrap().unwrap();
    assert_eq!(entry.modified, revision);

    // Without a guard it could be made twice: it is not.
    store.get("/a".into()).await.unwrap();
    relay.lose(Loses::Requests);
    assert!(store.commit(put("/b", "1")).await.is_err());
    assert_eq!(store.get("/b".into()).await.unwrap(), None);
}
