//! TLS, and etcd's own users.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};

use super::{
    server::{ServerTls, free_address},
    *,
};

/// A CA that writes certificates and keys to files.
struct Ca {
    directory: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let ca = Self {
            directory: tempfile::tempdir().unwrap(),
            issuer: CertifiedIssuer::self_signed(params, key).unwrap(),
        };
        std::fs::write(ca.ca_file(), ca.issuer.pem()).unwrap();
        ca
    }

    fn ca_file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// Certificate and key of somebody, who may be a server at an address.
    fn issue(&self, name: &str, address: Ipv4Addr) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::IpAddress(IpAddr::V4(address))];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let place = |kind: &str| self.directory.path().join(format!("{name}.{kind}"));
        std::fs::write(place("pem"), certificate.pem()).unwrap();
        std::fs::write(place("key"), key.serialize_pem()).unwrap();
        (place("pem"), place("key"))
    }
}

fn tls(ca_file: &Path, identity: Option<(PathBuf, PathBuf)>) -> EtcdTls {
    EtcdTls {
        ca_file: Some(ca_file.to_owned()),
        identity: identity.map(|(cert_file, key_file)| EtcdIdentity {
            cert_file,
            key_file,
        }),
    }
}

async fn refusal(mut options: EtcdOptions) -> String {
    options.request_timeout = Duration::from_secs(2);
    match EtcdStore::open(options).await.err() {
        Some(OpenError::Unavailable(error)) => {
            tidegate_service::telemetry::chain(&error).to_lowercase()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn tls_is_verified_both_ways() {
    let (ca, stranger) = (Ca::new(), Ca::new());
    let address = free_address();
    let (cert_file, key_file) = ca.issue("server", address);
    let server = Server::start_tls(
        address,
        &ServerTls {
            ca_file: ca.ca_file(),
            cert_file,
            key_file,
        },
    );
    let client = ca.issue("client", Ipv4Addr::LOCALHOST);
    let mut options = server.options();
    options.tls = tls(&ca.ca_file(), Some(client.clone()));
    let store = EtcdStore::open(options.clone()).await.unwrap();
    let written = store.commit(put("/a", "1")).await.unwrap();
    let mut watch = store.watch(Bytes::new(), written - 1).await.unwrap();
    assert!(matches!(next(&mut watch).await, Ok(Watched::Batch(_))));

    options.tls = tls(&ca.ca_file(), None);
    let told = refusal(options.clone()).await;
    assert!(told.contains("certificate"), "{told}");
    options.tls = tls(&stranger.ca_file(), Some(client));
    let told = refusal(options.clone()).await;
    assert!(told.contains("certificate"), "{told}");
    options.tls = tls(Path::new("/nonexistent/ca.pem"), None);
    let told = refusal(options).await;
    assert!(told.contains("/nonexistent/ca.pem"), "{told}");
}

/// An etcd that asks for a login.
fn guarded() -> Server {
    let server = Server::start(&[]);
    for args in [
        &["user", "add", "root:toor"][..],
        &["user", "grant-role", "root", "root"],
        &["user", "add", "tidegate:ebb"],
        &["role", "add", "tidegate"],
        &[
            "role",
            "grant-permission",
            "tidegate",
            "readwrite",
            "--prefix=true",
            "/tidegate/",
        ],
        &["user", "grant-role", "tidegate", "tidegate"],
        &["auth", "enable"],
    ] {
        server.ctl(args);
    }
    server
}

fn login(username: &str, password: &str) -> Option<EtcdLogin> {
    Some(EtcdLogin {
        username: username.to_owned(),
        password: password.to_owned().into(),
    })
}

#[tokio::test]
async fn who_does_not_log_in_or_may_not_is_told_what_is_missing() {
    let server = guarded();
    let mut options = server.options();
    let told = refusal(options.clone()).await;
    assert!(
        told.contains("configure a user name and a password"),
        "{told}"
    );
    options.login = login("tidegate", "flood");
    let told = refusal(options.clone()).await;
    assert!(told.contains("authentication failed"), "{told}");
    assert!(!told.contains("flood"));
    options.login = login("tidegate", "ebb");
    options.prefix = "/elsewhere".to_owned();
    let told = refusal(options).await;
    assert!(told.contains("grant the etcd user readwrite"), "{told}");
}

#[tokio::test]
async fn a_token_that_etcd_forgot_is_replaced() {
    let mut server = guarded();
    let mut options = server.options();
    options.login = login("tidegate", "ebb");
    let store = EtcdStore::open(options).await.unwrap();
    let written = store.commit(put("/a", "1")).await.unwrap();
    let lease = store.grant(Duration::from_secs(60)).await.unwrap();
    store.keep_alive(lease).await.unwrap();
    let mut watch = store.watch(Bytes::new(), written).await.unwrap();
    assert_eq!(next(&mut watch).await.unwrap(), Watched::CaughtUp(written));

    server.restart(); // its tokens are in memory only
    // What is written into the old connection would be in doubt.
    store.get("/a".into()).await.unwrap();
    let later = store.commit(put("/a", "2")).await.unwrap();
    store.keep_alive(lease).await.unwrap();
    let largest = (0..TXN_OPS_MAX).fold(Txn::new(), |txn, index| {
        txn.put(format!("/b/{index}").into(), Bytes::new())
    });
    let last = store.commit(largest).await.unwrap();
    for revision in [later, last] {
        match next(&mut watch).await.unwrap() {
            Watched::Batch(batch) => assert_eq!(batch.revision, revision),
            Watched::CaughtUp(told) => panic!("told {told}"),
        }
    }
}
