//! Rotating CAs over gRPC, and those who follow.

use std::{path::Path, sync::Arc, time::Duration};

use tidegate_identity::{
    ALPN_AUTH, CaPin, KeyPair, SERVER_NAME_AUTH,
    tls::{self, ClientTls, Roots},
};
use tidegate_proto::v1::{
    self, RotationPhase, cert_authority_service_client::CertAuthorityServiceClient,
};
use tidegate_service::{
    clock::SystemClock,
    host::{HostConfig, HostHandle},
    rpc::{self, Endpoints},
    settings::{CaKey, CaKeySettings, JoinSettings},
    tasks::Tasks,
};
use tokio::time::timeout;
use tonic::{Code, Status, transport::Channel};

use crate::house::{Caller, House, Identity, Options, code};

/// Longest wait for something that follows by itself.
const PATIENCE: Duration = Duration::from_secs(30);

fn authorities(caller: &Caller) -> CertAuthorityServiceClient<Channel> {
    CertAuthorityServiceClient::new(caller.0.clone())
}

async fn rotate(
    house: &House,
    kinds: &[&str],
    phase: RotationPhase,
) -> Result<Vec<v1::CertAuthority>, Status> {
    let request = v1::RotateCertAuthoritiesRequest {
        kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
        phase: phase.into(),
        manual: phase == RotationPhase::Unspecified,
        grace_period: None,
    };
    let mut authorities = authorities(&house.admin());
    let rotated = authorities.rotate_cert_authorities(request).await?;
    Ok(rotated.into_inner().authorities)
}

const ALL: &[&str] = &["host", "user", "db"];
const PHASES: [RotationPhase; 4] = [
    RotationPhase::Init,
    RotationPhase::UpdateClients,
    RotationPhase::UpdateServers,
    RotationPhase::Standby,
];

/// Somebody who knows a pin and nothing more.
fn by_pin(house: &House, pin: CaPin) -> Caller {
    let config = tls::client_config(ClientTls {
        roots: Roots::Pinned(&[pin]),
        identity: None,
        alpn: &[ALPN_AUTH],
    })
    .unwrap();
    let endpoints = Endpoints::new([house.address()]);
    Caller(rpc::channel(
        endpoints,
        move || config.clone(),
        SERVER_NAME_AUTH,
    ))
}

/// Asks until the answer is as it has to become.
async fn until<F: Future<Output = bool>>(what: &str, ask: impl Fn() -> F) {
    let asked = async {
        while !ask().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, asked)
        .await
        .unwrap_or_else(|_| panic!("{what}"));
}

async fn knows(house: &House, pin: CaPin) -> bool {
    let asked = by_pin(house, pin)
        .trust()
        .get_trust(v1::GetTrustRequest {})
        .await;
    asked.is_ok()
}

fn pins(house: &[v1::CertAuthority], kind: &str) -> Vec<CaPin> {
    let authority = house
        .iter()
        .find(|authority| authority.kind == kind)
        .unwrap();
    authority
        .keys
        .iter()
        .map(|key| key.pin.parse().unwrap())
        .collect()
}

async fn renewed(house: &House, host: &Identity) -> v1::HostCertificate {
    let request = v1::RenewHostCertificateRequest {
        public_key: KeyPair::generate().unwrap().public_key_der(),
        names: Vec::new(),
    };
    let mut trust = house.known(host).trust();
    trust
        .renew_host_certificate(request)
        .await
        .unwrap()
        .into_inner()
}

#[tokio::test]
async fn a_host_hears_of_each_phase_over_one_stream_that_outlives_the_rotation() {
    let house = House::new().await;
    let host = house.host(&["db"]).await;
    let mut watch = authorities(&house.known(&host));
    let mut told = watch
        .watch_trust(v1::WatchTrustRequest {})
        .await
        .unwrap()
        .into_inner();
    let old = told.message().await.unwrap().unwrap();
    let next = async |told: &mut tonic::Streaming<v1::WatchTrustResponse>| {
        timeout(PATIENCE, told.message())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
    };
    rotate(&house, ALL, RotationPhase::Unspecified)
        .await
        .unwrap();
    let init = next(&mut told).await;
    assert_eq!(init.host_client_signer, old.host_client_signer);
    let trust = init.trust.clone().unwrap();
    assert_eq!(CaPin::all_of_pem(&trust.db_ca_pem).unwrap().len(), 2);

    rotate(&house, ALL, RotationPhase::UpdateClients)
        .await
        .unwrap();
    let clients = next(&mut told).await;
    assert_ne!(clients.host_client_signer, old.host_client_signer);
    assert_eq!(clients.host_server_signer, old.host_server_signer);
    let certificate = renewed(&house, &host).await;
    let signer = |chain: &str| CaPin::of_signer(chain).unwrap().to_string();
    assert_eq!(
        signer(&certificate.certificate_pem),
        clients.host_client_signer
    );
    assert_eq!(
        signer(&certificate.server_certificate_pem),
        old.host_server_signer
    );

    rotate(&house, ALL, RotationPhase::UpdateServers)
        .await
        .unwrap();
    let servers = next(&mut told).await;
    assert_eq!(servers.host_server_signer, clients.host_client_signer);
    assert_ne!(servers.db_signer, old.db_signer);
    assert_eq!(renewed(&house, &host).await.server_certificate_pem, "");

    rotate(&house, ALL, RotationPhase::Standby).await.unwrap();
    let standby = next(&mut told).await;
    let trust = standby.trust.unwrap();
    assert_eq!(CaPin::all_of_pem(&trust.host_ca_pem).unwrap().len(), 1);
    // The old certificate opens nothing any more, once the port has heard of it.
    until("the old certificate is still accepted", || async {
        let mut watch = authorities(&by_identity(&house, &host, &trust.host_ca_pem));
        watch.watch_trust(v1::WatchTrustRequest {}).await.is_err()
    })
    .await;
}

/// A host that trusts what it is told to.
fn by_identity(house: &House, host: &Identity, host_ca_pem: &str) -> Caller {
    let config = tls::client_config(ClientTls {
        roots: Roots::Pem(host_ca_pem),
        identity: Some((host.chain_pem.as_str(), &host.key)),
        alpn: &[ALPN_AUTH],
    })
    .unwrap();
    let endpoints = Endpoints::new([house.address()]);
    Caller(rpc::channel(
        endpoints,
        move || config.clone(),
        SERVER_NAME_AUTH,
    ))
}

#[tokio::test]
async fn newcomers_may_know_the_cluster_by_either_pin_while_it_rotates() {
    let house = House::new().await;
    let old = house.handle.ca_pin;
    let started = rotate(&house, &["host"], RotationPhase::Unspecified)
        .await
        .unwrap();
    let both = pins(&started, "host");
    assert_eq!(both[1], old);
    let status = house
        .admin()
        .access()
        .get_cluster_status(v1::GetClusterStatusRequest {})
        .await;
    let shown: Vec<String> = both.iter().map(ToString::to_string).collect();
    assert_eq!(status.unwrap().into_inner().ca_pins, shown);
    for phase in [RotationPhase::UpdateClients, RotationPhase::UpdateServers] {
        for pin in &both {
            until("a pin of the rotation is not accepted", || {
                knows(&house, *pin)
            })
            .await;
        }
        rotate(&house, &["host"], phase).await.unwrap();
    }
    for pin in &both {
        until("a pin of the rotation is not accepted", || {
            knows(&house, *pin)
        })
        .await;
    }
    rotate(&house, &["host"], RotationPhase::Standby)
        .await
        .unwrap();
    until("the old pin is still accepted", || async {
        !knows(&house, old).await
    })
    .await;
    assert!(knows(&house, both[0]).await);
}

#[tokio::test]
async fn phases_that_do_not_follow_and_requests_without_sense_are_refused_with_a_reason() {
    let house = House::new().await;
    let skipped = rotate(&house, &["db"], RotationPhase::UpdateServers)
        .await
        .unwrap_err();
    assert_eq!(skipped.code(), Code::FailedPrecondition);
    assert!(skipped.message().contains("init"), "{}", skipped.message());
    assert_eq!(
        code(rotate(&house, &["dbs"], RotationPhase::Init).await),
        Code::InvalidArgument
    );
    assert_eq!(
        code(rotate(&house, &[], RotationPhase::Init).await),
        Code::InvalidArgument
    );
    rotate(&house, &["db"], RotationPhase::Init).await.unwrap();
    // The same again is the same; another start is not.
    let again = rotate(&house, &["db"], RotationPhase::Init).await.unwrap();
    assert_eq!(pins(&again, "db").len(), 2);
    let start = rotate(&house, &["db"], RotationPhase::Unspecified).await;
    assert_eq!(code(start), Code::FailedPrecondition);
    let person = house.person("alice", &["access"]).await;
    let mut theirs = authorities(&house.known(&person));
    let request = v1::RotateCertAuthoritiesRequest {
        kinds: vec!["db".to_owned()],
        ..v1::RotateCertAuthoritiesRequest::default()
    };
    assert_eq!(
        code(theirs.rotate_cert_authorities(request).await),
        Code::PermissionDenied
    );
}

#[tokio::test]
async fn a_rotation_outlives_a_restart_and_encrypted_keys_open_again() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::with_options(Options {
        ca_keys: Some(CaKeySettings {
            seal: CaKey::File(folder.path().join("ca.key")),
            previous: Vec::new(),
        }),
        ..Options::default()
    })
    .await;
    let started = rotate(&house, ALL, RotationPhase::Init).await.unwrap();
    let sealed = |authority: &v1::CertAuthority| {
        authority
            .keys
            .iter()
            .all(|key| key.sealed_with.starts_with("key_file "))
    };
    assert!(started.iter().all(sealed), "{started:?}");
    let house = house.restart().await;
    let mut admin = authorities(&house.admin());
    let listed = admin
        .list_cert_authorities(v1::ListCertAuthoritiesRequest {})
        .await;
    let listed = listed.unwrap().into_inner().authorities;
    assert_eq!(pins(&listed, "user"), pins(&started, "user"));
    rotate(&house, ALL, RotationPhase::UpdateClients)
        .await
        .unwrap();
}

async fn member(
    house: &House,
    token: &str,
    folder: &Path,
    pin: CaPin,
    tasks: &Tasks,
) -> HostHandle {
    let config = HostConfig {
        data_dir: folder.to_owned(),
        nodename: "member".to_owned(),
        services: vec!["db".to_owned()],
        names: Vec::new(),
        auth_servers: vec![house.address()],
        proxy_server: None,
        join: JoinSettings {
            token: Some(token.into()),
            ca_pins: vec![pin],
            ..JoinSettings::default()
        },
        prover: None,
    };
    let joining = HostHandle::join_or_load(config, Arc::new(SystemClock), tasks);
    timeout(PATIENCE, joining).await.unwrap().unwrap()
}

fn signed_by(host: &HostHandle) -> CaPin {
    CaPin::of_signer(&host.chain_pem()).unwrap()
}

#[tokio::test]
async fn a_member_follows_a_rotation_and_one_that_was_away_joins_again() {
    let house = House::new().await;
    let token = house.join_token(&["db"]).await;
    let (here, away) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (tasks, gone) = (Tasks::new(), Tasks::new());
    let old = house.handle.ca_pin;
    let follower = member(&house, &token, here.path(), old, &tasks).await;
    let absent = member(&house, &token, away.path(), old, &gone).await;
    let absent_id = absent.host_id();
    drop(absent);
    assert!(gone.close_and_wait(PATIENCE).await);

    let id = follower.host_id();
    let mut new = old;
    for phase in PHASES {
        let now = rotate(&house, ALL, phase).await.unwrap();
        let host = now
            .iter()
            .find(|authority| authority.kind == "host")
            .unwrap();
        let signer = host.keys.iter().find(|key| key.signs_clients).unwrap();
        new = signer.pin.parse().unwrap();
        until("the member does not follow", || async {
            let trusted = CaPin::all_of_pem(&follower.trust().host_ca_pem).unwrap();
            trusted == pins(&now, "host") && signed_by(&follower) == new
        })
        .await;
    }
    assert_ne!(new, old);
    assert_eq!(follower.host_id(), id);
    assert!(tasks.close_and_wait(PATIENCE).await);

    // What was written down is what was followed: a restart needs nobody's help.
    let tasks = Tasks::new();
    let again = member(&house, "not-a-token", here.path(), old, &tasks).await;
    assert_eq!(signed_by(&again), new);
    let mut watch = CertAuthorityServiceClient::new(again.auth_channel());
    until("the restarted member is not let in", || {
        let mut watch = watch.clone();
        async move { watch.watch_trust(v1::WatchTrustRequest {}).await.is_ok() }
    })
    .await;
    drop(watch.watch_trust(v1::WatchTrustRequest {}).await);

    let back = member(&house, &token, away.path(), new, &tasks).await;
    assert_eq!(signed_by(&back), old);
    until("the one that was away does not join again", || async {
        signed_by(&back) == new
    })
    .await;
    assert_eq!(back.host_id(), absent_id);
    tasks.shutdown().cancel();
}
