use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use tidegate_identity::{CaKind, CertificateAuthority, UserLeaf};

use super::*;

fn now() -> Timestamp {
    "2026-11-22T10:00:00Z".parse().unwrap()
}

struct Person {
    key: KeyPair,
    chain_pem: String,
    expires_at: Timestamp,
    ca_pem: String,
}

fn person(name: &str) -> Person {
    let cluster: ClusterName = "example.com".parse().unwrap();
    let ca = CertificateAuthority::create(CaKind::User, &cluster, now()).unwrap();
    let key = KeyPair::generate().unwrap();
    let user = UserHolder {
        name: name.to_owned(),
        roles: vec!["access".to_owned()],
        traits: [("db_users".to_owned(), vec!["reader".to_owned()])].into(),
        route: None,
        access_requests: Vec::new(),
        login: None,
    };
    let public_key = key.public_key_der();
    let leaf = UserLeaf {
        public_key: &public_key,
        cluster: &cluster,
        user: &user,
    };
    let issued = ca
        .issue_user(leaf, now(), Duration::from_secs(3600))
        .unwrap();
    Person {
        key,
        chain_pem: issued.chain_pem,
        expires_at: issued.expires_at,
        ca_pem: ca.cert_pem().to_owned(),
    }
}

fn save(home: &Home, proxy: &str, person: &Person) -> Profile {
    home.save(&Login {
        facts: Facts {
            proxy_addr: proxy.parse().unwrap(),
            cluster: "example.com".parse().unwrap(),
            user: "alice".to_owned(),
            expires_at: Some(person.expires_at),
            db_suffix: "db.example.com".to_owned(),
        },
        host_ca_pem: &person.ca_pem,
        db_ca_pem: &person.ca_pem,
        chain_pem: &person.chain_pem,
        key: &person.key,
    })
    .unwrap()
}

fn modes(dir: &Path) -> Vec<(String, u32)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        found.push((
            entry.path().display().to_string(),
            meta.permissions().mode() & 0o777,
        ));
        if meta.is_dir() {
            found.extend(modes(&entry.path()));
        }
    }
    found
}

#[test]
fn nobody_else_can_read_a_profile() {
    let temp = tempfile::tempdir().unwrap();
    let home = Home::at(temp.path().join("home"));
    let profile = save(&home, "proxy.example.com", &person("alice"));
    write_private(&profile.database_dir().join("orders.key"), b"key").unwrap();
    for (path, mode) in modes(temp.path()) {
        let wanted = if Path::new(&path).is_dir() {
            0o700
        } else {
            0o600
        };
        assert_eq!(mode, wanted, "{path}: {mode:o}");
    }
}

#[test]
fn writing_again_replaces_the_file_and_tightens_its_mode() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("f");
    fs::write(&path, "old").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    write_private(&path, b"new").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
}

#[test]
fn a_login_reads_back_and_its_proxy_is_current() {
    let temp = tempfile::tempdir().unwrap();
    let home = Home::at(temp.path());
    let alice = person("alice");
    save(&home, "one.example.com:443", &alice);
    save(&home, "two.example.com", &alice);

    let current = home.profile(None).unwrap();
    assert_eq!(
        current.facts().proxy_addr.to_string(),
        "two.example.com:3080"
    );
    let named = home
        .profile(Some(&"one.example.com:443".parse().unwrap()))
        .unwrap();
    let credentials = named.credentials(now()).unwrap();
    assert_eq!(credentials.user.name, "alice");
    assert_eq!(credentials.expires_at, alice.expires_at);
    assert_eq!(credentials.key.public_key_der(), alice.key.public_key_der());
}

#[test]
fn an_expired_certificate_says_to_log_in_again() {
    let temp = tempfile::tempdir().unwrap();
    let home = Home::at(temp.path());
    let profile = save(&home, "proxy.example.com", &person("alice"));
    let later = now() + jiff::SignedDuration::from_hours(2);
    let failure = Failure::from(profile.credentials(later).unwrap_err());
    assert_eq!(
        failure.to_string(),
        "ERROR: your certificate for proxy.example.com:3080 expired at 2026-11-22 11:00:00 UTC\n  \
         hint: log in again: tg login --proxy=proxy.example.com:3080"
    );
}

#[test]
fn a_logout_forgets_the_person_and_remembers_the_cluster() {
    let temp = tempfile::tempdir().unwrap();
    let home = Home::at(temp.path());
    let profile = save(&home, "proxy.example.com", &person("alice"));
    write_private(&profile.database_dir().join("orders.key"), b"key").unwrap();
    profile.log_out().unwrap();
    profile.log_out().unwrap();

    let profile = home.profile(None).unwrap();
    assert!(matches!(
        profile.credentials(now()),
        Err(ProfileError::LoggedOut { .. })
    ));
    assert!(!profile.database_dir().exists());
    assert!(profile.host_ca_pem().is_ok());
    assert_eq!(profile.facts().expires_at, None);
}

#[test]
fn without_a_login_there_is_no_profile() {
    let temp = tempfile::tempdir().unwrap();
    let home = Home::at(temp.path().join("none"));
    let failure = Failure::from(home.profile(None).unwrap_err());
    assert!(failure.to_string().contains("not logged in"), "{failure}");
}

#[test]
fn a_damaged_profile_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let home = Home::at(temp.path());
    let profile = save(&home, "proxy.example.com", &person("alice"));
    fs::write(profile.dir().join("user.pem"), "x").unwrap();
    let failure = Failure::from(profile.credentials(now()).unwrap_err());
    assert!(
        failure.to_string().contains("user.pem is damaged"),
        "{failure}"
    );
}
