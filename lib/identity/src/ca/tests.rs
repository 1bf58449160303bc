use rustls::client::{WebPkiServerVerifier, danger::ServerCertVerifier as _};
use rustls_pki_types::UnixTime;
use secrecy::ExposeSecret;

use super::*;
use crate::{Holder, PeerIdentity, Route, tls};

fn cluster() -> ClusterName {
    "tidegate.example.com".parse().unwrap()
}

fn now() -> Timestamp {
    Timestamp::from_second(1_790_000_000).unwrap()
}

fn alice() -> UserHolder {
    UserHolder {
        name: "alice".to_owned(),
        roles: vec!["access".to_owned()],
        traits: [("db_users".to_owned(), vec!["*".to_owned()])].into(),
        route: Some(Route {
            database: "orders".to_owned(),
            db_user: Some("reader".to_owned()),
            db_name: None,
        }),
        access_requests: vec!["q1".to_owned()],
        login: Some(tidegate_core::locks::LoginMark {
            id: "l1".to_owned(),
            at: now(),
        }),
    }
}

#[test]
fn a_user_certificate_carries_the_whole_identity() {
    let ca = CertificateAuthority::create(CaKind::User, &cluster(), now()).unwrap();
    let key = KeyPair::generate().unwrap();
    let user = alice();
    let issued = ca
        .issue_user(
            UserLeaf {
                public_key: &key.public_key_der(),
                cluster: &cluster(),
                user: &user,
            },
            now(),
            Duration::from_secs(60),
        )
        .unwrap();
    let peer =
        PeerIdentity::from_der(&tls::first_certificate_der(&issued.chain_pem).unwrap()).unwrap();
    assert_eq!(
        peer,
        PeerIdentity {
            cluster: cluster(),
            holder: Holder::User(alice()),
            expires_at: issued.expires_at
        }
    );
}

#[test]
fn a_ca_cannot_speak_for_holders_of_another_kind() {
    let ca = CertificateAuthority::create(CaKind::Host, &cluster(), now()).unwrap();
    let key = KeyPair::generate().unwrap();
    let issued = ca
        .issue_user(
            UserLeaf {
                public_key: &key.public_key_der(),
                cluster: &cluster(),
                user: &alice(),
            },
            now(),
            Duration::from_secs(60),
        )
        .unwrap();
    assert!(
        PeerIdentity::from_der(&tls::first_certificate_der(&issued.chain_pem).unwrap()).is_err()
    );
}

#[test]
fn a_stored_ca_keeps_its_pin_and_goes_on_signing() {
    let ca = CertificateAuthority::create(CaKind::Db, &cluster(), now()).unwrap();
    let again =
        CertificateAuthority::from_pem(ca.cert_pem(), ca.key_pem().expose_secret()).unwrap();
    assert_eq!(ca.pin(), again.pin());
    let key = KeyPair::generate().unwrap();
    again
        .issue_database_server(
            &key.public_key_der(),
            &cluster(),
            now(),
            Duration::from_secs(60),
        )
        .unwrap();
}

#[test]
fn who_trusts_one_ca_verifies_what_the_other_signed_by_the_cross_signed_certificate() {
    let create = || CertificateAuthority::create(CaKind::Host, &cluster(), now()).unwrap();
    let (old, new) = (create(), create());
    let cross = new.cross_sign(&old, now()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = HostLeaf {
        public_key: &key.public_key_der(),
        cluster: &cluster(),
        host_id: &"h1".parse().unwrap(),
        hostname: "h1",
        services: &["auth".to_owned()],
        names: &[],
    };
    let issued = old
        .issue_host(leaf, now(), Duration::from_secs(60))
        .unwrap();
    let name = SERVER_NAME_AUTH.try_into().unwrap();
    let verify = |chain: &str, trusted: &CertificateAuthority| {
        let chain = tls::certificates(chain).unwrap();
        let roots = tls::root_store(trusted.cert_pem()).unwrap();
        let at = UnixTime::since_unix_epoch(Duration::from_secs(1_790_000_001));
        WebPkiServerVerifier::builder_with_provider(roots.into(), tls::provider())
            .build()
            .unwrap()
            .verify_server_cert(&chain[0], &chain[1..], &name, &[], at)
            .is_ok()
    };
    assert!(verify(&issued.chain_pem, &old));
    assert!(!verify(&issued.chain_pem, &new));
    assert!(verify(&format!("{}{cross}", issued.chain_pem), &new));
    assert_eq!(CaPin::of_signer(&issued.chain_pem).unwrap(), old.pin());
    assert_ne!(
        subject(old.cert_pem()).unwrap(),
        subject(new.cert_pem()).unwrap()
    );
}

#[test]
fn a_malformed_public_key_is_refused() {
    let ca = CertificateAuthority::create(CaKind::Db, &cluster(), now()).unwrap();
    assert!(
        ca.issue_database_server(b"junk", &cluster(), now(), Duration::from_secs(60))
            .is_err()
    );
}
