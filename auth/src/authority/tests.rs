use std::path::{Path, PathBuf};

use secrecy::ExposeSecret as _;
use tidegate_identity::{KeyPair, SealingKey};
use tidegate_service::{
    clock::{ManualClock, SystemClock},
    settings::{CaKey, CaKeySettings},
};

use super::{
    rotate::Moved,
    rotation::{Mode, Phase},
    *,
};
use crate::{
    keys,
    record::{CaRecord, decode, encode},
    store::{
        Txn,
        sqlite::{SqliteOptions, SqliteStore},
    },
};

struct Place {
    directory: tempfile::TempDir,
    store: Arc<dyn Store>,
    audit: AuditLog,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> =
            SqliteStore::open(directory.path(), SqliteOptions::default()).unwrap();
        let audit = AuditLog::open(directory.path(), Arc::new(SystemClock)).unwrap();
        Self {
            directory,
            store,
            audit,
        }
    }

    async fn authority(
        &self,
        keys: Option<&CaKeySettings>,
    ) -> Result<Arc<Authority>, AuthorityError> {
        self.named("a.test", keys, Arc::new(SystemClock)).await
    }

    async fn named(
        &self,
        cluster: &str,
        keys: Option<&CaKeySettings>,
        clock: SharedClock,
    ) -> Result<Arc<Authority>, AuthorityError> {
        let cluster = cluster.parse().unwrap();
        let loaded = Authority::load(&self.store, &cluster, keys, clock, self.audit.clone()).await;
        loaded.map(Arc::new)
    }

    async fn record(&self, kind: CaKind) -> CaRecord {
        let entry = self.store.get(keys::ca(kind.as_str())).await.unwrap();
        decode(&entry.unwrap()).unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

fn files(first: &Path, others: &[&Path]) -> CaKeySettings {
    CaKeySettings {
        seal: CaKey::File(first.to_owned()),
        previous: others
            .iter()
            .map(|path| CaKey::File((*path).to_owned()))
            .collect(),
    }
}

async fn go(authority: &Authority, kinds: &[CaKind], moved: Moved) -> Result<(), RotateError> {
    let request = RotateRequest {
        kinds: kinds.to_vec(),
        moved,
        actor: "admin".to_owned(),
    };
    authority.rotate(request).await.map(drop)
}

async fn to(authority: &Authority, phase: Phase) {
    go(authority, &CaKind::ALL, Moved::To(phase)).await.unwrap();
}

fn pems(bundle: &str) -> Vec<String> {
    let pins = CaPin::all_of_pem(bundle).unwrap();
    pins.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn instances_that_start_together_have_the_same_authorities() {
    let place = Place::new();
    let ours = || place.authority(None);
    let (first, second, third) = tokio::join!(ours(), ours(), ours());
    let first = first.unwrap().trust();
    assert_eq!(first, second.unwrap().trust());
    assert_eq!(first, third.unwrap().trust());
    let other = place.named("b.test", None, Arc::new(SystemClock)).await;
    assert!(matches!(
        other.err().unwrap(),
        AuthorityError::Cluster { .. }
    ));
}

#[tokio::test]
async fn a_rotation_changes_who_signs_phase_by_phase_and_ends_with_the_new_ca_alone() {
    let place = Place::new();
    let authority = place.authority(None).await.unwrap();
    let old = authority.followed();
    to(&authority, Phase::Init).await;
    let init = authority.followed();
    assert_eq!(init.host_client_signer, old.host_client_signer);
    assert_eq!(init.db_signer, old.db_signer);
    let trusted = pems(&init.trust.as_ref().unwrap().host_ca_pem);
    assert_eq!(trusted.len(), 2);
    assert_eq!(trusted[1], old.host_client_signer);

    to(&authority, Phase::UpdateClients).await;
    let clients = authority.followed();
    assert_eq!(clients.host_client_signer, trusted[0]);
    assert_eq!(clients.host_server_signer, old.host_server_signer);
    assert_eq!(clients.db_signer, old.db_signer);
    let key = KeyPair::generate().unwrap();
    let host = HostRequest {
        public_key: &key.public_key_der(),
        host_id: &"h1".parse().unwrap(),
        hostname: "h1",
        services: &["proxy".to_owned()],
        names: &[],
    };
    let issued = authority.issue_host(host).unwrap();
    let signer = |chain: &str| CaPin::of_signer(chain).unwrap().to_string();
    assert_eq!(signer(&issued.client.chain_pem), trusted[0]);
    assert_eq!(signer(&issued.server.unwrap().chain_pem), trusted[1]);

    to(&authority, Phase::UpdateServers).await;
    let servers = authority.followed();
    assert_eq!(servers.host_server_signer, trusted[0]);
    assert_eq!(servers.trust, init.trust);
    assert!(authority.issue_host(host).unwrap().server.is_none());

    to(&authority, Phase::Standby).await;
    let trust = authority.followed().trust.unwrap();
    assert_eq!(pems(&trust.host_ca_pem), [trusted[0].clone()]);
    // A restart finds the same.
    let again = place.authority(None).await.unwrap();
    assert_eq!(again.trust(), trust);
}

#[tokio::test]
async fn a_rollback_leaves_everything_as_it_was() {
    let place = Place::new();
    let authority = place.authority(None).await.unwrap();
    let before = authority.followed();
    for last in [Phase::Init, Phase::UpdateClients, Phase::UpdateServers] {
        for phase in [Phase::Init, Phase::UpdateClients, Phase::UpdateServers] {
            to(&authority, phase).await;
            if phase == last {
                break;
            }
        }
        to(&authority, Phase::Rollback).await;
        assert_eq!(
            authority.followed().host_server_signer,
            before.host_server_signer
        );
        assert_eq!(pems(&authority.trust().user_ca_pem).len(), 2);
        to(&authority, Phase::Standby).await;
        assert_eq!(authority.followed(), before);
    }
}

#[tokio::test]
async fn of_two_operators_one_moves_and_nobody_skips_a_phase() {
    let place = Place::new();
    let (one, two) = (
        place.authority(None).await.unwrap(),
        place.authority(None).await.unwrap(),
    );
    let start = |authority| go(authority, &CaKind::ALL, Moved::Start(Mode::Manual));
    let (first, second) = tokio::join!(start(&one), start(&two));
    let refused = [first, second]
        .into_iter()
        .filter_map(Result::err)
        .collect::<Vec<_>>();
    assert!(
        matches!(refused.as_slice(), [RotateError::UnderWay { .. }]),
        "{refused:?}"
    );
    assert_eq!(place.record(CaKind::Host).await.keys.len(), 2);

    // The same phase, asked for by both, is one move; what follows is decided by what is stored.
    tokio::join!(
        to(&one, Phase::UpdateClients),
        to(&two, Phase::UpdateClients)
    );
    one.reread().await.unwrap();
    assert_eq!(one.trust(), two.trust());
    let skipped = go(&two, &[CaKind::Db], Moved::To(Phase::Standby)).await;
    assert!(
        matches!(skipped, Err(RotateError::NotNext { ca: "db", .. })),
        "{skipped:?}"
    );
    // One of several kinds that may not move keeps the others where they are.
    go(&one, &[CaKind::Db], Moved::To(Phase::UpdateServers))
        .await
        .unwrap();
    let mixed = go(&two, &CaKind::ALL, Moved::To(Phase::Standby)).await;
    assert!(mixed.is_err());
    assert_eq!(
        place.record(CaKind::Db).await.rotation.unwrap().phase,
        "update_servers"
    );
}

#[tokio::test]
async fn an_automatic_rotation_goes_through_its_phases_once_whatever_the_number_of_instances() {
    let place = Place::new();
    let clock = ManualClock::new(jiff::Timestamp::now());
    let load = || place.named("a.test", None, Arc::new(clock.clone()));
    let instances = [load().await.unwrap(), load().await.unwrap()];
    let shutdown = tidegate_service::tasks::ShutdownToken::new();
    for instance in &instances {
        tokio::spawn(instance.clone().follow(shutdown.clone()));
    }
    let before = instances[0].trust().user_ca_pem;
    let grace = Duration::from_secs(300);
    go(
        &instances[0],
        &[CaKind::User],
        Moved::Start(Mode::Automatic(grace)),
    )
    .await
    .unwrap();
    for expected in [Phase::UpdateClients, Phase::UpdateServers, Phase::Standby] {
        clock.advance(Duration::from_secs(100));
        for instance in &instances {
            let mut sets = instance.watch();
            let arrived = sets.wait_for(|sets| sets.user.phase() == expected);
            tokio::time::timeout(Duration::from_secs(60), arrived)
                .await
                .unwrap()
                .unwrap();
        }
    }
    assert_eq!(pems(&instances[0].trust().user_ca_pem).len(), 1);
    assert_eq!(instances[0].trust(), instances[1].trust());
    assert_ne!(instances[0].trust().user_ca_pem, before);
    shutdown.cancel();
}

#[tokio::test]
async fn keys_in_clear_are_encrypted_at_the_next_start_and_open_with_the_same_file_alone() {
    let place = Place::new();
    let clear = place.authority(None).await.unwrap();
    let path = place.file("ca.key");
    let keys = files(&path, &[]);
    let both = || place.authority(Some(&keys));
    let sealed = both().await.unwrap();
    assert_eq!(sealed.trust(), clear.trust());
    for kind in CaKind::ALL {
        let record = place.record(kind).await;
        let text = String::from_utf8_lossy(&encode(&record)).into_owned();
        assert!(!text.contains("PRIVATE KEY"), "{kind:?}");
    }
    // The instance that started before goes on, and cannot add a key in clear.
    let refused = go(&clear, &[CaKind::Host], Moved::Start(Mode::Manual)).await;
    assert!(
        matches!(
            &refused,
            Err(RotateError::Authority(why)) if matches!(**why, AuthorityError::Sealed { .. })
        ),
        "{refused:?}"
    );
    go(&sealed, &[CaKind::Host], Moved::Start(Mode::Manual))
        .await
        .unwrap();
    assert_eq!(both().await.unwrap().trust(), sealed.trust());

    let id = SealingKey::read(&path).unwrap().id().to_owned();
    let without = place.authority(None).await.err().unwrap().to_string();
    assert!(
        without.contains(&id) && without.contains("ca_key_params"),
        "{without}"
    );
    // Another file is not made beside keys that are encrypted already.
    let other = place.file("other.key");
    assert!(place.authority(Some(&files(&other, &[]))).await.is_err());
    assert!(!other.exists());
    SealingKey::create(&other).unwrap();
    let wrong = place
        .authority(Some(&files(&other, &[])))
        .await
        .err()
        .unwrap();
    assert!(
        tidegate_service::telemetry::chain(&wrong).contains(&id),
        "{wrong:?}"
    );
}

#[tokio::test]
async fn another_key_file_takes_over_what_the_one_before_encrypted() {
    let place = Place::new();
    let (old, new) = (place.file("old.key"), place.file("new.key"));
    let before = place.authority(Some(&files(&old, &[]))).await.unwrap();
    SealingKey::create(&new).unwrap();
    place.authority(Some(&files(&new, &[&old]))).await.unwrap();
    let after = place.authority(Some(&files(&new, &[]))).await.unwrap();
    assert_eq!(before.trust(), after.trust());
    assert!(place.authority(Some(&files(&old, &[]))).await.is_err());
}

#[tokio::test]
async fn a_key_that_was_moved_to_another_ca_does_not_open() {
    let place = Place::new();
    let path = place.file("ca.key");
    let keys = files(&path, &[]);
    place.authority(Some(&keys)).await.unwrap();
    let (mut host, user) = (
        place.record(CaKind::Host).await,
        place.record(CaKind::User).await,
    );
    host.keys[0].sealed.clone_from(&user.keys[0].sealed);
    let txn = Txn::new().put(keys::ca("host"), encode(&host));
    place.store.commit(txn).await.unwrap();
    let refused = place.authority(Some(&keys)).await.err().unwrap();
    assert!(
        matches!(refused, AuthorityError::Seal { ca: "host", .. }),
        "{refused}"
    );
}

#[tokio::test]
async fn what_an_earlier_program_stored_is_read_and_rotates() {
    let place = Place::new();
    let made = CertificateAuthority::create(
        CaKind::Host,
        &"a.test".parse().unwrap(),
        jiff::Timestamp::now(),
    )
    .unwrap();
    let record = CaRecord {
        cert_pem: made.cert_pem().to_owned(),
        key_pem: made.key_pem().expose_secret().to_owned(),
        ..CaRecord::default()
    };
    let txn = Txn::new().put(keys::ca("host"), encode(&record));
    place.store.commit(txn).await.unwrap();
    let authority = place.authority(None).await.unwrap();
    assert_eq!(authority.pins(), [made.pin()]);
    to(&authority, Phase::Init).await;
    assert_eq!(authority.pins()[1], made.pin());
}
