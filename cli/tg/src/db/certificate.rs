//! Certificates for single databases: asked for, kept, found again, removed.
//!
//! Invariant: what a kept certificate is for is read from the certificate, so nothing beside it can be out of date.

use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject as _};
use secrecy::ExposeSecret;
use tidegate_console::{
    Failure,
    client::{Client, tls_unusable},
    profile::{self, Profile, ProfileError},
    rpc,
    table::visible,
};
use tidegate_identity::{KeyPair, tls};
use tidegate_proto::v1::{DatabaseRoute, IssueDatabaseCertificateRequest};
use tidegate_wire::route::route_label;

use crate::trust;

/// A certificate with less than this left is not worth connecting with.
const LEFT_MIN: SignedDuration = SignedDuration::from_secs(30);

/// The ending of files with keys in DER (PKCS #8), for Java's drivers, which read no PEM.
pub(super) const DER_KEY: &str = "pk8";

/// What a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// The database.
    pub(super) database: String,
    /// As which database user.
    pub(super) db_user: String,
    /// On which logical database; `None` leaves it to the client.
    pub(super) db_name: Option<String>,
}

/// A certificate on disk.
#[derive(Clone, Debug)]
pub(super) struct Certificate {
    /// What it is for.
    pub(super) route: Route,
    /// The file with the certificate.
    pub(super) chain_file: PathBuf,
    /// The file with its key.
    pub(super) key_file: PathBuf,
}

impl Certificate {
    /// Whether one of these CAs signed it.
    pub(super) fn is_of(&self, user_ca_pem: &str) -> bool {
        let chain = profile::read_private(&self.chain_file).ok().flatten();
        chain.is_some_and(|chain| trust::is_signed_by(&chain, user_ca_pem))
    }
}

fn files(profile: &Profile, database: &str) -> (PathBuf, PathBuf) {
    let dir = profile.database_dir();
    let label = route_label(database);
    (
        dir.join(format!("{label}.pem")),
        dir.join(format!("{label}.key")),
    )
}

/// A certificate that was just given, with its key; on no disk yet.
pub(super) struct Issued {
    /// The certificate, then its CA, in PEM.
    pub(super) chain_pem: String,
    /// Its key.
    pub(super) key: KeyPair,
}

/// Asks for a certificate.
pub(super) async fn request(client: &Client, route: &Route) -> Result<Issued, Failure> {
    let key = KeyPair::generate().map_err(tls_unusable)?;
    let request = IssueDatabaseCertificateRequest {
        public_key: key.public_key_der(),
        route: Some(DatabaseRoute {
            database: route.database.clone(),
            db_user: route.db_user.clone(),
            db_name: route.db_name.clone().unwrap_or_default(),
        }),
    };
    let doing = format!("get a certificate for `{}`", route.database);
    let given = rpc::call(&doing, client.session().issue_database_certificate(request)).await?;
    tls::first_certificate_der(&given.certificate_pem)
        .map_err(|_| Failure::new("the auth service answered without a usable certificate"))?;
    Ok(Issued {
        chain_pem: given.certificate_pem,
        key,
    })
}

/// Asks for a certificate and keeps it.
pub(super) async fn issue(
    profile: &Profile,
    client: &Client,
    route: Route,
) -> Result<Certificate, Failure> {
    let issued = request(client, &route).await?;
    let (chain_file, key_file) = files(profile, &route.database);
    profile::remove_file(&chain_file)?;
    let pem = issued.key.to_pem();
    let der = PrivateKeyDer::from_pem_slice(pem.expose_secret().as_bytes())
        .map_err(|error| Failure::new(format!("cannot write the key in DER: {error}")))?;
    profile::write_private(&key_file.with_extension(DER_KEY), der.secret_der())?;
    profile::write_private(&key_file, pem.expose_secret().as_bytes())?;
    profile::write_private(&chain_file, issued.chain_pem.as_bytes())?;
    Ok(Certificate {
        route,
        chain_file,
        key_file,
    })
}

/// The kept certificate of a database that is good for a while yet.
pub(super) fn find(
    profile: &Profile,
    database: &str,
    now: Timestamp,
) -> Result<Option<Certificate>, Failure> {
    let (chain_file, key_file) = files(profile, database);
    let found = read(chain_file, key_file, now)?;
    Ok(found.filter(|certificate| certificate.route.database == database))
}

/// Reads a kept certificate; one that ended, or that is no certificate of ours, counts as none.
fn read(
    chain_file: PathBuf,
    key_file: PathBuf,
    now: Timestamp,
) -> Result<Option<Certificate>, Failure> {
    let (Some(chain), Some(key)) = (
        profile::read_private(&chain_file)?,
        profile::read_private(&key_file)?,
    ) else {
        return Ok(None);
    };
    let credentials = match profile::read_credentials(&chain_file, chain, &key_file, &key) {
        Ok(credentials) => credentials,
        Err(ProfileError::Damaged { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let good = credentials.expires_at > now + LEFT_MIN;
    Ok(credentials
        .user
        .route
        .filter(|_| good)
        .map(|route| Certificate {
            route: Route {
                database: route.database,
                db_user: route.db_user.unwrap_or_default(),
                db_name: route.db_name,
            },
            chain_file,
            key_file,
        }))
}

/// All kept certificates that are good for a while yet, in order of database.
pub(super) fn kept(profile: &Profile, now: Timestamp) -> Result<Vec<Certificate>, Failure> {
    let mut found = Vec::new();
    for chain_file in profile.database_files("pem")? {
        let key_file = chain_file.with_extension("key");
        found.extend(read(chain_file, key_file, now)?);
    }
    found.sort_by(|a, b| a.route.database.cmp(&b.route.database));
    Ok(found)
}

/// Databases with a kept certificate, ended or not.
pub(super) fn kept_names(profile: &Profile) -> Result<Vec<String>, Failure> {
    let kept = kept(profile, Timestamp::MIN)?;
    Ok(kept.into_iter().map(|one| one.route.database).collect())
}

/// The database with a kept certificate that is meant by a name: exact, or a prefix that only one has.
pub(super) fn kept_name(profile: &Profile, wanted: &str) -> Result<String, Failure> {
    pick(kept_names(profile)?, Some(wanted))
}

/// The kept certificate that is meant: by name, or the only one.
pub(super) fn the_one(
    profile: &Profile,
    wanted: Option<&str>,
    now: Timestamp,
) -> Result<Certificate, Failure> {
    let kept = kept(profile, now)?;
    let names = kept.iter().map(|one| one.route.database.clone()).collect();
    let name = pick(names, wanted)?;
    kept.into_iter()
        .find(|one| one.route.database == name)
        .ok_or_else(|| not_logged_in(Some(&name)))
}

fn pick(mut names: Vec<String>, wanted: Option<&str>) -> Result<String, Failure> {
    if let Some(wanted) = wanted {
        if names.iter().any(|name| name == wanted) {
            return Ok(wanted.to_owned());
        }
        names.retain(|name| name.starts_with(wanted));
    }
    if names.len() > 1 {
        return Err(Failure::usage(format!(
            "which database? You are logged in to {}",
            visible(&names.join(", "))
        ))
        .hint("name one of them"));
    }
    names.pop().ok_or_else(|| not_logged_in(wanted))
}

fn not_logged_in(wanted: Option<&str>) -> Failure {
    let (to, name) = match wanted {
        Some(name) => (format!("database `{name}`"), name),
        None => ("any database".to_owned(), "NAME"),
    };
    Failure::new(format!("you are not logged in to {to}"))
        .hint(format!("log in first: tg db login {name}"))
}

/// Removes a database's certificate and key.
pub(super) fn remove(profile: &Profile, database: &str) -> Result<(), Failure> {
    let (chain_file, key_file) = files(profile, database);
    profile::remove_file(&chain_file)?;
    profile::remove_file(&key_file.with_extension(DER_KEY))?;
    profile::remove_file(&key_file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn without_a_name_only_a_single_login_is_meant() {
        assert_eq!(pick(names(&["a"]), None).unwrap(), "a");
        assert!(pick(names(&["a", "b"]), None).is_err());
        assert!(
            pick(Vec::new(), None)
                .unwrap_err()
                .to_string()
                .contains("tg db login NAME")
        );
    }

    #[test]
    fn an_exact_name_beats_a_prefix_and_an_ambiguous_prefix_is_refused() {
        assert_eq!(pick(names(&["dw", "dw-2"]), Some("dw")).unwrap(), "dw");
        assert_eq!(pick(names(&["dw", "dw-2"]), Some("dw-")).unwrap(), "dw-2");
        assert!(pick(names(&["dw-1", "dw-2"]), Some("dw")).is_err());
        assert!(pick(names(&["dw"]), Some("x")).is_err());
    }
}
