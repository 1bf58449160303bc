//! Joining, loading and renewing.

use std::{
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use jiff::Timestamp;
use tidegate_identity::{ALPN_TUNNEL, CaPin, tls::ClientAuth};
use tidegate_proto::v1::{GetTrustRequest, trust_service_client::TrustServiceClient};
use tidegate_service::{
    clock::{ManualClock, SystemClock},
    host::{HostConfig, HostError, HostHandle, TrustBundle},
    rpc::Peer,
    settings::JoinSettings,
    tasks::Tasks,
};
use tokio::{net::TcpListener, time::timeout};

use crate::cluster::{Cluster, Nobody, PATIENCE, TOKEN};

fn config(dir: &Path, address: SocketAddr, pins: Vec<CaPin>) -> HostConfig {
    HostConfig {
        data_dir: dir.join("state"),
        nodename: "node".to_owned(),
        services: vec!["db".to_owned()],
        names: vec!["node.example.com".to_owned()],
        auth_servers: vec![address.to_string()],
        proxy_server: None,
        join: JoinSettings {
            token: Some(TOKEN.into()),
            ca_pins: pins,
            ..JoinSettings::default()
        },
        prover: None,
    }
}

async fn join(config: HostConfig, tasks: &Tasks) -> Result<HostHandle, HostError> {
    timeout(
        PATIENCE,
        HostHandle::join_or_load(config, Arc::new(SystemClock), tasks),
    )
    .await
    .unwrap()
}

async fn stop(tasks: Tasks) {
    assert!(tasks.close_and_wait(PATIENCE).await);
    assert_eq!(tasks.failure(), None);
}

#[tokio::test]
async fn a_token_is_spent_once_and_the_identity_found_again() {
    let (cluster, dir, tasks) = (Cluster::new(), tempfile::tempdir().unwrap(), Tasks::new());
    let server = cluster.start().await;
    let config = config(dir.path(), server.address, vec![cluster.host_ca.pin()]);

    let handle = join(config.clone(), &tasks).await.unwrap();
    assert_eq!(
        (handle.host_id().as_str(), handle.services()),
        ("host-1", vec!["db".to_owned()])
    );
    assert_eq!(*handle.trust(), cluster.trust());
    for file in ["host.pem", "host.json"] {
        let mode = std::fs::metadata(dir.path().join("state").join(file))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }

    let without_token = HostConfig {
        join: JoinSettings::default(),
        ..config
    };
    let again = join(without_token, &tasks).await.unwrap();

    assert_eq!(again.chain_pem(), handle.chain_pem());
    assert_eq!(cluster.joins.load(Ordering::SeqCst), 1);
    stop(tasks).await;
    server.stop().await;
}

#[tokio::test]
async fn the_auth_channel_shows_the_host_certificate() {
    let (cluster, dir, tasks) = (Cluster::new(), tempfile::tempdir().unwrap(), Tasks::new());
    let server = cluster.start().await;
    let handle = join(
        config(dir.path(), server.address, vec![cluster.host_ca.pin()]),
        &tasks,
    )
    .await
    .unwrap();

    TrustServiceClient::new(handle.auth_channel())
        .get_trust(GetTrustRequest {})
        .await
        .unwrap();

    assert!(matches!(
        cluster.peers.lock().unwrap().as_slice(),
        [Peer::Certified(_)]
    ));
    stop(tasks).await;
    server.stop().await;
}

#[tokio::test]
async fn a_token_that_is_refused_is_not_tried_again() {
    let (cluster, dir, tasks) = (Cluster::new(), tempfile::tempdir().unwrap(), Tasks::new());
    let server = cluster.start().await;
    let mut config = config(dir.path(), server.address, vec![cluster.host_ca.pin()]);
    config.join.token = Some("wrong".into());

    let error = join(config, &tasks).await.unwrap_err();

    assert!(
        matches!(&error, HostError::Refused { message } if message.contains("unknown or has expired")),
        "{error}"
    );
    stop(tasks).await;
    server.stop().await;
}

#[tokio::test]
async fn a_pin_of_another_cluster_sends_no_token() {
    let (cluster, other, tasks) = (Cluster::new(), Cluster::new(), Tasks::new());
    let dir = tempfile::tempdir().unwrap();
    let server = cluster.start().await;

    let error = join(
        config(dir.path(), server.address, vec![other.host_ca.pin()]),
        &tasks,
    )
    .await
    .unwrap_err();

    assert!(matches!(error, HostError::Untrusted { .. }), "{error}");
    assert!(error.to_string().contains("ca_pin"), "{error}");
    assert_eq!(cluster.joins.load(Ordering::SeqCst), 0);
    stop(tasks).await;
    server.stop().await;
}

#[tokio::test]
async fn what_is_missing_for_a_first_contact_is_named() {
    let (dir, tasks) = (tempfile::tempdir().unwrap(), Tasks::new());
    let pin = Cluster::new().host_ca.pin();
    let good = config(dir.path(), Nobody::new().address, vec![pin]);

    let mut no_pin = good.clone();
    no_pin.join.ca_pins.clear();
    assert!(
        join(no_pin, &tasks)
            .await
            .unwrap_err()
            .to_string()
            .contains("`ca_pin`")
    );
    let mut no_token = good.clone();
    no_token.join.token = None;
    assert!(
        join(no_token, &tasks)
            .await
            .unwrap_err()
            .to_string()
            .contains("tgctl tokens add --type=db")
    );
    let mut no_address = good;
    no_address.auth_servers.clear();
    assert!(
        join(no_address, &tasks)
            .await
            .unwrap_err()
            .to_string()
            .contains("`auth_server`")
    );

    assert!(!dir.path().join("state").exists());
    stop(tasks).await;
}

#[tokio::test]
async fn joining_waits_for_an_auth_service_that_is_away() {
    let (cluster, dir, tasks) = (Cluster::new(), tempfile::tempdir().unwrap(), Tasks::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = config(dir.path(), address, vec![cluster.host_ca.pin()]);
    let joining = tokio::spawn({
        let tasks = tasks.clone();
        async move { join(config, &tasks).await }
    });
    // A connection that is accepted and dropped: the service is there, and away again.
    drop(timeout(PATIENCE, listener.accept()).await.unwrap().unwrap());

    let server = cluster.serve(listener);

    assert_eq!(joining.await.unwrap().unwrap().host_id().as_str(), "host-1");
    stop(tasks).await;
    server.stop().await;
}

#[tokio::test]
async fn a_shutdown_ends_the_wait_for_an_auth_service_that_is_away() {
    let (cluster, dir, tasks) = (Cluster::new(), tempfile::tempdir().unwrap(), Tasks::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = config(
        dir.path(),
        listener.local_addr().unwrap(),
        vec![cluster.host_ca.pin()],
    );
    let joining = tokio::spawn({
        let tasks = tasks.clone();
        async move { join(config, &tasks).await }
    });
    drop(timeout(PATIENCE, listener.accept()).await.unwrap().unwrap());

    tasks.shutdown().cancel();

    assert!(matches!(joining.await.unwrap(), Err(HostError::Stopped)));
}

#[tokio::test]
async fn more_services_than_the_certificate_covers_need_a_new_join_that_keeps_the_host_id() {
    let (cluster, dir, tasks) = (Cluster::new(), tempfile::tempdir().unwrap(), Tasks::new());
    let server = cluster.start().await;
    let mut config = config(dir.path(), server.address, vec![cluster.host_ca.pin()]);
    join(config.clone(), &tasks).await.unwrap();

    config.services.push("discovery".to_owned());
    config.join.ca_pins.clear(); // the trust of the first join serves
    let handle = join(config, &tasks).await.unwrap();

    assert_eq!(handle.services(), ["db", "discovery"]);
    assert_eq!(*cluster.host_ids.lock().unwrap(), ["", "host-1"]);
    stop(tasks).await;
    server.stop().await;
}

#[tokio::test]
async fn a_broken_file_is_an_identity_to_be_joined_anew() {
    let (cluster, dir, tasks) = (Cluster::new(), tempfile::tempdir().unwrap(), Tasks::new());
    let server = cluster.start().await;
    let config = config(dir.path(), server.address, vec![cluster.host_ca.pin()]);
    join(config.clone(), &tasks).await.unwrap();
    std::fs::write(config.data_dir.join("host.pem"), "junk").unwrap();

    let mut no_token = config.clone();
    no_token.join.token = None;
    let error = join(no_token, &tasks).await.unwrap_err();
    assert!(error.to_string().contains("host.pem is broken"), "{error}");

    join(config, &tasks).await.unwrap();
    assert_eq!(*cluster.host_ids.lock().unwrap(), ["", "host-1"]);
    stop(tasks).await;
    server.stop().await;
}

/// Joins, moves the clock, and waits for the next identity.
async fn renewed_after(life: Duration, cluster: &Arc<Cluster>) -> (String, String, String) {
    let (dir, tasks) = (tempfile::tempdir().unwrap(), Tasks::new());
    let server = cluster.start().await;
    let clock = ManualClock::new(Timestamp::now());
    let config = config(dir.path(), server.address, vec![cluster.host_ca.pin()]);
    let pem = config.data_dir.join("host.pem");
    let joining = HostHandle::join_or_load(config, Arc::new(clock.clone()), &tasks);
    let handle = timeout(PATIENCE, joining).await.unwrap().unwrap();
    let before = handle.chain_pem();
    let mut renewed = handle.renewed();

    clock.advance(life);

    timeout(PATIENCE, renewed.changed()).await.unwrap().unwrap();
    let kept = std::fs::read_to_string(pem).unwrap();
    let after = handle.chain_pem();
    TrustServiceClient::new(handle.auth_channel())
        .get_trust(GetTrustRequest {})
        .await
        .unwrap();
    stop(tasks).await;
    server.stop().await;
    (before, after, kept)
}

#[tokio::test]
async fn a_certificate_is_renewed_before_it_ends_without_a_token() {
    let cluster = Cluster::new();
    let (before, after, kept) = renewed_after(Duration::from_secs(20 * 3600), &cluster).await;
    assert_ne!(before, after);
    assert!(kept.contains(&after));
    assert_eq!(
        (
            cluster.joins.load(Ordering::SeqCst),
            cluster.renewals.load(Ordering::SeqCst)
        ),
        (1, 1)
    );
}

#[tokio::test]
async fn a_certificate_that_ran_out_is_replaced_by_joining_again() {
    let cluster = Cluster::new();
    let (before, after, _) = renewed_after(Duration::from_secs(25 * 3600), &cluster).await;
    assert_ne!(before, after);
    assert_eq!(
        (
            cluster.joins.load(Ordering::SeqCst),
            cluster.renewals.load(Ordering::SeqCst)
        ),
        (2, 0)
    );
    assert_eq!(*cluster.host_ids.lock().unwrap(), ["", "host-1"]);
}

#[tokio::test]
async fn an_identity_issued_in_the_process_renews_like_any_other() {
    let (cluster, tasks) = (Cluster::new(), Tasks::new());
    let server = cluster.start().await;
    let clock = ManualClock::new(Timestamp::now());
    let issued = cluster.identity("all-in-one", &["proxy", "db"]);
    let auth_servers = [server.address.to_string()];
    let handle =
        HostHandle::from_issued(issued, &auth_servers, Vec::new(), Arc::new(clock), &tasks)
            .unwrap();
    let clients = |trust: &TrustBundle| ClientAuth::Required {
        ca_pem: trust.host_ca_pem.clone(),
    };
    let live = handle
        .live_server_config(clients, &[ALPN_TUNNEL], &tasks)
        .unwrap();
    let (before, served_before) = (handle.chain_pem(), live.load_full());
    let mut renewed = handle.renewed();

    handle.renew_now();

    timeout(PATIENCE, renewed.changed()).await.unwrap().unwrap();
    assert_ne!(before, handle.chain_pem());
    let follows = async {
        while Arc::ptr_eq(&served_before, &live.load_full()) {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, follows).await.unwrap();
    assert_eq!(
        (handle.host_id().as_str(), handle.services().len()),
        ("all-in-one", 2)
    );
    stop(tasks).await;
    server.stop().await;
}
