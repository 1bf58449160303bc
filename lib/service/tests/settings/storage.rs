//! Where the control plane keeps its state, as settings tell it.

use std::{path::Path, time::Duration};

use secrecy::ExposeSecret as _;
use tidegate_service::settings::{EtcdSettings, StorageSettings};

use crate::{blockers, errors, good, warnings};

fn of(storage: &str) -> String {
    format!(
        "tidegate: {{data_dir: /d, storage: {{{storage}}}}}\nauth_service: {{cluster_name: a}}\n"
    )
}

fn etcd(storage: &str) -> EtcdSettings {
    match good(&of(storage)).auth.expect("it has the section").storage {
        StorageSettings::Etcd(etcd) => etcd,
        other @ StorageSettings::Sqlite { .. } => panic!("{other:?}"),
    }
}

#[test]
fn the_embedded_store_is_what_runs_when_nothing_else_is_said() {
    for (storage, wanted) in [
        ("", "/d/backend"),
        ("type: sqlite", "/d/backend"),
        ("type: dir, path: /s", "/s"),
        ("path: /s", "/s"),
    ] {
        let auth = good(&of(storage)).auth.unwrap();
        let StorageSettings::Sqlite { dir } = auth.storage else {
            panic!("{storage}");
        };
        assert_eq!(dir, Path::new(wanted), "{storage}");
        assert_eq!(auth.audit_dir, dir);
    }
}

#[test]
fn etcd_is_read_with_its_defaults() {
    let least = etcd("type: etcd, peers: ['https://etcd-1', 'https://[::1]:1/']");
    assert_eq!(least.peers, ["https://etcd-1:2379", "https://[::1]:1"]);
    assert_eq!(least.prefix, "/tidegate");
    assert!(least.ca_file.is_none() && least.identity.is_none() && least.login.is_none());
    assert_eq!((least.dial_timeout, least.request_timeout), (None, None));
    let auth = good(&of("type: etcd, peers: 'https://etcd-1'"))
        .auth
        .unwrap();
    assert_eq!(auth.audit_dir, Path::new("/d/backend"));
}

#[test]
fn etcd_is_read_with_everything() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    std::fs::write(&file, "hunter2\n").unwrap();
    let full = etcd(&format!(
        "type: etcd, peers: ['https://a:1'], prefix: /t/x, tls_ca_file: /ca, tls_cert_file: /cert, tls_key_file: /key, \
         username: tidegate, password_file: {}, dial_timeout: 1s, request_timeout: 20s",
        file.display()
    ));
    assert_eq!(full.prefix, "/t/x");
    assert_eq!(full.ca_file.as_deref(), Some(Path::new("/ca")));
    let identity = full.identity.unwrap();
    assert_eq!(identity.cert_file, Path::new("/cert"));
    assert_eq!(identity.key_file, Path::new("/key"));
    let login = full.login.unwrap();
    assert!(!format!("{login:?}").contains("hunter2"));
    assert_eq!(login.username, "tidegate");
    assert_eq!(login.password.expose_secret(), "hunter2");
    assert_eq!(full.dial_timeout, Some(Duration::from_secs(1)));
    assert_eq!(full.request_timeout, Some(Duration::from_secs(20)));
}

#[test]
fn what_is_wrong_with_a_store_is_told_at_its_place() {
    let peers = "peers: ['https://a']";
    for (storage, told) in [
        (
            "type: dynamodb".to_owned(),
            "storage.type: unknown value `dynamodb`",
        ),
        ("type: etc".to_owned(), "did you mean `etcd`?"),
        ("type: etcd".to_owned(), "storage.peers: is required"),
        (
            "type: etcd, peers: []".to_owned(),
            "storage.peers: names 0 members",
        ),
        (
            "type: etcd, peers: ['a:2379']".to_owned(),
            "storage.peers[0]: `a:2379` is not the address",
        ),
        (
            "type: etcd, peers: ['ftp://a']".to_owned(),
            "storage.peers[0]",
        ),
        (
            "type: etcd, peers: ['https://']".to_owned(),
            "storage.peers[0]",
        ),
        (
            "type: etcd, peers: ['https://a:x']".to_owned(),
            "storage.peers[0]",
        ),
        (
            "type: etcd, peers: ['https://u@a/b']".to_owned(),
            "storage.peers[0]",
        ),
        (
            "type: etcd, peers: ['https://a', 'http://b']".to_owned(),
            "storage.peers[1]: has another scheme",
        ),
        (
            format!("type: etcd, {peers}, prefix: ''"),
            "storage.prefix: is empty",
        ),
        (
            format!("type: etcd, {peers}, prefix: /"),
            "storage.prefix: is empty",
        ),
        (
            format!("type: etcd, {peers}, path: /s"),
            "storage.path: is a key of `type: sqlite`",
        ),
        (
            format!("type: sqlite, {peers}"),
            "storage.peers: is a key of `type: etcd`",
        ),
        (
            format!("type: etcd, {peers}, tls_cert_file: /c"),
            "storage.tls_cert_file: is given alone",
        ),
        (
            format!("type: etcd, {peers}, tls_key_file: /c"),
            "storage.tls_key_file: is given alone",
        ),
        (
            format!("type: etcd, {peers}, username: u"),
            "storage.username: is given alone",
        ),
        (
            format!("type: etcd, {peers}, password_file: /p"),
            "storage.password_file: is given alone",
        ),
        (
            format!("type: etcd, {peers}, insecure: yes"),
            "storage.insecure: Tidegate always checks",
        ),
        (
            format!("type: etcd, {peers}, dial_timeout: 1ms"),
            "storage.dial_timeout: `1ms` is out of range",
        ),
        (
            format!("type: etcd, {peers}, perfix: /t"),
            "storage.perfix: unknown key",
        ),
        (
            "type: etcd, peers: ['http://a'], tls_ca_file: /c".to_owned(),
            "storage.tls_ca_file: is given, but",
        ),
    ] {
        let errors = errors(&of(&storage));
        assert_eq!(errors.len(), 1, "{storage}: {errors:?}");
        assert!(errors[0].starts_with("tidegate.yaml:1:"), "{errors:?}");
        assert!(errors[0].contains(told), "{storage}: {errors:?}");
    }
}

#[test]
fn a_password_in_the_clear_is_a_warning_and_one_that_cannot_be_read_stops_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    std::fs::write(&file, "hunter2\n").unwrap();
    let login = |peer: &str, file: &Path| {
        of(&format!(
            "type: etcd, peers: ['{peer}'], username: u, password_file: {}",
            file.display()
        ))
    };
    let told = warnings(&login("http://a", &file));
    assert!(
        told.len() == 1 && told[0].1.contains("in the clear"),
        "{told:?}"
    );
    assert!(warnings(&login("https://a", &file)).is_empty());
    let missing = login("https://a", &directory.path().join("missing"));
    assert!(blockers(&missing).contains("storage.password_file: cannot read"));
    std::fs::write(&file, "\n").unwrap();
    assert!(blockers(&login("https://a", &file)).contains("it is empty"));
}
