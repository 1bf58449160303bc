//! Roles that were had by asking, beside the person's own: a second certificate for the same key, in a file of its own.
//!
//! Nothing of the login is touched. When the second certificate ends, or its file is removed, the person goes on with
//! their own roles; a new login makes it void, since it says which login it belongs to.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidegate_identity::secret;

use super::{Credentials, Profile, ProfileError, files, read_private, remove_file};

/// The file's name below the profile.
const ASSUMED: &str = "assumed.json";

/// An approved request whose roles the certificate carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssumedRequest {
    /// The request.
    pub id: String,
    /// Its roles.
    pub roles: Vec<String>,
    /// When they end.
    pub expires: Timestamp,
}

/// What the file holds.
#[derive(Debug, Serialize, Deserialize)]
struct Written {
    /// Digest of the certificate of the login that it belongs to.
    login: String,
    /// The certificate, then its CA, in PEM.
    chain_pem: String,
    requests: Vec<AssumedRequest>,
}

/// Roles that were had by asking.
#[derive(Clone, Debug)]
pub struct Assumed {
    /// The requests that they come from.
    pub requests: Vec<AssumedRequest>,
    /// The certificate with them, and the login's key.
    pub credentials: Credentials,
}

impl Profile {
    /// The roles that were had by asking, when they are still good at `now`. What cannot be read counts as none: the
    /// person has the same roles as before asking then.
    ///
    /// # Errors
    ///
    /// When a file cannot be read.
    pub fn assumed(&self, now: Timestamp) -> Result<Option<Assumed>, ProfileError> {
        let path = self.assumed_file();
        let Some(text) = read_private(&path)? else {
            return Ok(None);
        };
        let own = self.own_credentials(now)?;
        let Ok(written) = files::parse::<Written>(&path, &text) else {
            return Ok(None);
        };
        if written.login != login_mark(&own) {
            return Ok(None);
        }
        let Ok(read) = super::read_certificate(&path, &written.chain_pem) else {
            return Ok(None);
        };
        let (user, expires_at) = read;
        Ok((expires_at > now).then_some(Assumed {
            requests: written.requests,
            credentials: Credentials {
                chain_pem: written.chain_pem,
                user,
                expires_at,
                ..own
            },
        }))
    }

    /// Keeps a certificate with roles that were had by asking, for the login's key.
    ///
    /// # Errors
    ///
    /// When the file cannot be written, or nobody is logged in.
    pub fn assume(
        &self,
        chain_pem: String,
        requests: Vec<AssumedRequest>,
        now: Timestamp,
    ) -> Result<(), ProfileError> {
        let written = Written {
            login: login_mark(&self.own_credentials(now)?),
            chain_pem,
            requests,
        };
        files::write_json(&self.assumed_file(), &written)
    }

    /// Goes back to the person's own roles.
    ///
    /// # Errors
    ///
    /// When the file cannot be removed.
    pub fn drop_assumed(&self) -> Result<(), ProfileError> {
        remove_file(&self.assumed_file())
    }

    fn assumed_file(&self) -> PathBuf {
        self.dir.join(ASSUMED)
    }
}

fn login_mark(own: &Credentials) -> String {
    secret::hex(&secret::digest(&own.chain_pem))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidegate_core::ClusterName;
    use tidegate_identity::{CaKind, CertificateAuthority, KeyPair, UserHolder, UserLeaf};

    use super::*;
    use crate::profile::{Facts, Home, Login};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + second).unwrap()
    }

    struct Cluster {
        name: ClusterName,
        ca: CertificateAuthority,
        home: Home,
        _dir: tempfile::TempDir,
    }

    impl Cluster {
        fn new() -> Self {
            let name: ClusterName = "example.com".parse().unwrap();
            let dir = tempfile::tempdir().unwrap();
            Self {
                ca: CertificateAuthority::create(CaKind::User, &name, at(0)).unwrap(),
                home: Home::at(dir.path()),
                name,
                _dir: dir,
            }
        }

        fn certificate(&self, key: &KeyPair, roles: &[&str], ttl: u64) -> String {
            let user = UserHolder {
                name: "alice".to_owned(),
                roles: roles.iter().map(|role| (*role).to_owned()).collect(),
                traits: [].into(),
                route: None,
                access_requests: Vec::new(),
                login: None,
            };
            let leaf = UserLeaf {
                public_key: &key.public_key_der(),
                cluster: &self.name,
                user: &user,
            };
            let issued = self.ca.issue_user(leaf, at(0), Duration::from_secs(ttl));
            issued.unwrap().chain_pem
        }

        fn log_in(&self) -> (Profile, KeyPair) {
            let key = KeyPair::generate().unwrap();
            let login = Login {
                facts: Facts {
                    proxy_addr: "proxy.example.com".parse().unwrap(),
                    cluster: self.name.clone(),
                    user: "alice".to_owned(),
                    expires_at: Some(at(3600)),
                    db_suffix: "db.example.com".to_owned(),
                },
                host_ca_pem: self.ca.cert_pem(),
                db_ca_pem: self.ca.cert_pem(),
                chain_pem: &self.certificate(&key, &["requester"], 3600),
                key: &key,
            };
            (self.home.save(&login).unwrap(), key)
        }

        fn assume(&self, profile: &Profile, key: &KeyPair) {
            let chain_pem = self.certificate(key, &["requester", "access"], 600);
            let request = AssumedRequest {
                id: "q1".to_owned(),
                roles: vec!["access".to_owned()],
                expires: at(600),
            };
            profile.assume(chain_pem, vec![request], at(0)).unwrap();
        }
    }

    fn roles(profile: &Profile, second: i64) -> Vec<String> {
        profile.credentials(at(second)).unwrap().user.roles
    }

    #[test]
    fn roles_that_were_had_by_asking_are_used_until_they_end_or_are_dropped() {
        let cluster = Cluster::new();
        let (profile, key) = cluster.log_in();
        cluster.assume(&profile, &key);
        assert_eq!(roles(&profile, 599), ["requester", "access"]);
        assert_eq!(roles(&profile, 600), ["requester"]);
        let assumed = profile.assumed(at(1)).unwrap().unwrap();
        assert_eq!(assumed.requests[0].id, "q1");
        let shown = assumed.credentials.key.public_key_der();
        assert_eq!(shown, key.public_key_der());
        profile.drop_assumed().unwrap();
        assert_eq!(roles(&profile, 1), ["requester"]);
    }

    #[test]
    fn a_new_login_and_a_logout_make_them_void() {
        let cluster = Cluster::new();
        let (profile, key) = cluster.log_in();
        cluster.assume(&profile, &key);
        let (profile, key) = cluster.log_in();
        assert_eq!(roles(&profile, 1), ["requester"]);
        cluster.assume(&profile, &key);
        profile.log_out().unwrap();
        assert!(profile.credentials(at(1)).is_err());
        assert_eq!(read_private(&profile.assumed_file()).unwrap(), None);
    }

    #[test]
    fn a_damaged_file_leaves_the_person_their_own_roles() {
        let cluster = Cluster::new();
        let (profile, _) = cluster.log_in();
        crate::profile::write_private(&profile.assumed_file(), b"{").unwrap();
        assert_eq!(roles(&profile, 1), ["requester"]);
    }
}
