//! What `tg login` leaves on disk, and everything else reads: one folder a proxy below `~/.tidegate`.
//!
//! ```text
//! ~/.tidegate/            (or $TIDEGATE_HOME)
//!   profile.json          which proxy is current
//!   <proxy>/
//!     profile.json        proxy address, cluster, user, end of the certificate
//!     host-ca.pem         whom to trust towards the cluster
//!     db-ca.pem           whom to trust towards databases
//!     user.pem, user.key  the person's certificate and key
//!     assumed.json        a certificate with roles that were had by asking, while there is one
//!     db/<database>.*     what `tg db login` made
//! ```
//!
//! Invariant: every file is written whole or not at all and can be read by its owner alone (0600, folders 0700). What
//! a certificate says is read from the certificate, never from `profile.json`.

mod assumed;
mod files;
mod proxy_addr;

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use tidegate_core::ClusterName;
use tidegate_identity::{Holder, KeyPair, PeerIdentity, UserHolder, tls};

pub use assumed::{Assumed, AssumedRequest};
pub use files::{read_private, remove_file, remove_folder, write_private};
pub use proxy_addr::{PROXY_PORT, ProxyAddr};

use crate::Failure;

/// The environment variable that names another folder than `~/.tidegate`.
pub const HOME_VARIABLE: &str = "TIDEGATE_HOME";

const PROFILE: &str = "profile.json";
const HOST_CA: &str = "host-ca.pem";
const DB_CA: &str = "db-ca.pem";
const USER_CHAIN: &str = "user.pem";
const USER_KEY: &str = "user.key";
const DATABASES: &str = "db";

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The certificate's life is over.
    #[error("your certificate for {proxy} expired at {}", crate::when::utc(*.at))]
    Expired {
        /// The proxy.
        proxy: ProxyAddr,
        /// When.
        at: Timestamp,
    },
    /// A file does not hold what it should.
    #[error("{} is damaged: {problem}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file cannot be read, written or removed.
    #[error("cannot {doing} {}: {source}", .path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Neither `TIDEGATE_HOME` nor `HOME` says where to look.
    #[error("cannot tell where your profile is: neither {HOME_VARIABLE} nor HOME is set")]
    Homeless,
    /// Nobody is logged in.
    #[error("you are not logged in{}", .proxy.as_ref().map(|proxy| format!(" to {proxy}")).unwrap_or_default())]
    LoggedOut {
        /// The proxy that was asked for, if one was.
        proxy: Option<ProxyAddr>,
    },
}

impl From<ProfileError> for Failure {
    fn from(error: ProfileError) -> Self {
        let failure = Self::new(&error);
        match error {
            ProfileError::Expired { proxy, .. } => {
                failure.hint(format!("log in again: tg login --proxy={proxy}"))
            }
            ProfileError::LoggedOut { proxy: Some(proxy) } => {
                failure.hint(format!("log in: tg login --proxy={proxy}"))
            }
            ProfileError::LoggedOut { proxy: None } => {
                failure.hint("log in: tg login --proxy=HOST --user=NAME")
            }
            ProfileError::Damaged { .. } => failure.hint("log in again to write it anew"),
            ProfileError::Homeless => failure.hint(format!("set {HOME_VARIABLE} to a folder")),
            ProfileError::File { .. } => failure,
        }
    }
}

/// Where profiles are.
#[derive(Clone, Debug)]
pub struct Home {
    dir: PathBuf,
}

/// Which proxy is current, in the home's `profile.json`.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Current {
    current: Option<ProxyAddr>,
}

/// What `profile.json` of a proxy says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Where the proxy is.
    pub proxy_addr: ProxyAddr,
    /// The cluster behind it.
    pub cluster: ClusterName,
    /// Who logged in last.
    pub user: String,
    /// When the certificate ends; `None` after a logout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// What host names of databases end in: `db.<cluster>`.
    pub db_suffix: String,
}

/// A person's certificate and key.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The certificate, then its CA, in PEM.
    pub chain_pem: String,
    /// The key.
    pub key: KeyPair,
    /// Who the certificate says it is.
    pub user: UserHolder,
    /// When it ends.
    pub expires_at: Timestamp,
}

impl Home {
    /// The folder that the environment names.
    ///
    /// # Errors
    ///
    /// When it names none.
    pub fn locate() -> Result<Self, ProfileError> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        if let Some(dir) = set(HOME_VARIABLE) {
            return Ok(Self::at(dir));
        }
        let home = set("HOME").ok_or(ProfileError::Homeless)?;
        Ok(Self::at(Path::new(&home).join(".tidegate")))
    }

    /// A folder of the caller's choice. A relative one is taken from where the program runs: programs that are given
    /// paths of files below it may run elsewhere.
    #[must_use]
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        Self {
            dir: std::path::absolute(&dir).unwrap_or(dir),
        }
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The proxy that commands use when none is named.
    ///
    /// # Errors
    ///
    /// When the home's `profile.json` is there and cannot be used.
    pub fn current(&self) -> Result<Option<ProxyAddr>, ProfileError> {
        let path = self.dir.join(PROFILE);
        Ok(read_private(&path)?
            .map(|text| files::parse::<Current>(&path, &text))
            .transpose()?
            .and_then(|current| current.current))
    }

    /// Makes a proxy current, or none.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn set_current(&self, proxy: Option<&ProxyAddr>) -> Result<(), ProfileError> {
        files::write_json(
            &self.dir.join(PROFILE),
            &Current {
                current: proxy.cloned(),
            },
        )
    }

    /// The profile of a proxy, or of the current one; logged in or not.
    ///
    /// # Errors
    ///
    /// [`ProfileError::LoggedOut`] when there is none.
    pub fn profile(&self, proxy: Option<&ProxyAddr>) -> Result<Profile, ProfileError> {
        let logged_out = || ProfileError::LoggedOut {
            proxy: proxy.cloned(),
        };
        let addr = match proxy {
            Some(proxy) => proxy.clone(),
            None => self.current()?.ok_or_else(logged_out)?,
        };
        let dir = self.folder(&addr);
        let path = dir.join(PROFILE);
        let text = read_private(&path)?.ok_or_else(logged_out)?;
        let facts = files::parse(&path, &text)?;
        Ok(Profile { dir, facts })
    }

    /// Every profile that can be read, in folder order.
    ///
    /// # Errors
    ///
    /// When the home cannot be listed.
    pub fn profiles(&self) -> Result<Vec<Profile>, ProfileError> {
        let mut found = Vec::new();
        for dir in files::entries(&self.dir)? {
            let path = dir.join(PROFILE);
            let text = dir.is_dir().then(|| read_private(&path)).transpose()?;
            let facts = text
                .flatten()
                .and_then(|text| files::parse(&path, &text).ok());
            found.extend(facts.map(|facts| Profile { dir, facts }));
        }
        Ok(found)
    }

    /// Writes a fresh login, and makes its proxy current.
    ///
    /// # Errors
    ///
    /// When a file cannot be written.
    pub fn save(&self, login: &Login<'_>) -> Result<Profile, ProfileError> {
        let dir = self.folder(&login.facts.proxy_addr);
        write_private(&dir.join(HOST_CA), login.host_ca_pem.as_bytes())?;
        write_private(&dir.join(DB_CA), login.db_ca_pem.as_bytes())?;
        write_private(
            &dir.join(USER_KEY),
            login.key.to_pem().expose_secret().as_bytes(),
        )?;
        write_private(&dir.join(USER_CHAIN), login.chain_pem.as_bytes())?;
        files::write_json(&dir.join(PROFILE), &login.facts)?;
        self.set_current(Some(&login.facts.proxy_addr))?;
        Ok(Profile {
            dir,
            facts: login.facts.clone(),
        })
    }

    fn folder(&self, proxy: &ProxyAddr) -> PathBuf {
        self.dir.join(proxy.folder_name())
    }
}

/// What a login gave.
#[derive(Debug)]
pub struct Login<'l> {
    /// What `profile.json` will say.
    pub facts: Facts,
    /// CAs of services, in PEM.
    pub host_ca_pem: &'l str,
    /// CAs of databases' agents, in PEM.
    pub db_ca_pem: &'l str,
    /// The person's certificate, then its CA, in PEM.
    pub chain_pem: &'l str,
    /// The person's key.
    pub key: &'l KeyPair,
}

/// One proxy's folder.
#[derive(Clone, Debug)]
pub struct Profile {
    dir: PathBuf,
    facts: Facts,
}

impl Profile {
    /// What `profile.json` says.
    #[must_use]
    pub const fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where files of single databases are.
    #[must_use]
    pub fn database_dir(&self) -> PathBuf {
        self.dir.join(DATABASES)
    }

    /// Files of single databases with this ending, in name order.
    ///
    /// # Errors
    ///
    /// When their folder is there and cannot be listed.
    pub fn database_files(&self, ending: &str) -> Result<Vec<PathBuf>, ProfileError> {
        let mut found = files::entries(&self.database_dir())?;
        found.retain(|path| {
            path.extension()
                .is_some_and(|extension| extension == ending)
        });
        Ok(found)
    }

    /// The file with the CAs that database connections are verified with.
    #[must_use]
    pub fn db_ca_file(&self) -> PathBuf {
        self.dir.join(DB_CA)
    }

    /// CAs of services, in PEM. They stay after a logout, so that the next login knows the cluster.
    ///
    /// # Errors
    ///
    /// When the file is gone or cannot be read.
    pub fn host_ca_pem(&self) -> Result<String, ProfileError> {
        let path = self.dir.join(HOST_CA);
        read_private(&path)?.ok_or_else(|| ProfileError::Damaged {
            problem: "it is missing".to_owned(),
            path,
        })
    }

    /// Replaces the CAs by those that the cluster has now; what is the same is not written.
    ///
    /// # Errors
    ///
    /// When a text holds no certificate, or a file cannot be written.
    pub fn keep_trust(&self, host_ca_pem: &str, db_ca_pem: &str) -> Result<(), ProfileError> {
        for (name, pem) in [(HOST_CA, host_ca_pem), (DB_CA, db_ca_pem)] {
            let path = self.dir.join(name);
            if let Err(error) = tls::certificates(pem) {
                return Err(ProfileError::Damaged {
                    problem: format!("the cluster's answer for it is unusable: {error}"),
                    path,
                });
            }
            if read_private(&path)?.is_none_or(|kept| kept != pem) {
                write_private(&path, pem.as_bytes())?;
            }
        }
        Ok(())
    }

    /// The certificate and key to show: with roles that were had by asking while there are any, else [`Self::own_credentials`].
    ///
    /// # Errors
    ///
    /// As [`Self::own_credentials`].
    pub fn credentials(&self, now: Timestamp) -> Result<Credentials, ProfileError> {
        match self.assumed(now)? {
            Some(assumed) => Ok(assumed.credentials),
            None => self.own_credentials(now),
        }
    }

    /// The certificate and key of the login, when they are still good at `now`.
    ///
    /// # Errors
    ///
    /// When nobody is logged in, the certificate expired, or a file is damaged.
    pub fn own_credentials(&self, now: Timestamp) -> Result<Credentials, ProfileError> {
        let chain = self.dir.join(USER_CHAIN);
        let Some(chain_pem) = read_private(&chain)? else {
            return Err(ProfileError::LoggedOut {
                proxy: Some(self.facts.proxy_addr.clone()),
            });
        };
        let key_path = self.dir.join(USER_KEY);
        let key_pem = read_private(&key_path)?.unwrap_or_default();
        let credentials = read_credentials(&chain, chain_pem, &key_path, &key_pem)?;
        if credentials.expires_at <= now {
            return Err(ProfileError::Expired {
                proxy: self.facts.proxy_addr.clone(),
                at: credentials.expires_at,
            });
        }
        Ok(credentials)
    }

    /// Forgets the person: certificate, key and everything of single databases. CAs stay.
    ///
    /// # Errors
    ///
    /// When a file cannot be removed.
    pub fn log_out(&self) -> Result<(), ProfileError> {
        self.drop_assumed()?;
        remove_file(&self.dir.join(USER_CHAIN))?;
        remove_file(&self.dir.join(USER_KEY))?;
        remove_folder(&self.database_dir())?;
        files::write_json(
            &self.dir.join(PROFILE),
            &Facts {
                expires_at: None,
                ..self.facts.clone()
            },
        )
    }
}

/// A certificate and key from their texts; the paths are for the error alone.
///
/// # Errors
///
/// When either is not what it should be.
pub fn read_credentials(
    chain: &Path,
    chain_pem: String,
    key_path: &Path,
    key_pem: &str,
) -> Result<Credentials, ProfileError> {
    let (user, expires_at) = read_certificate(chain, &chain_pem)?;
    Ok(Credentials {
        chain_pem,
        key: KeyPair::from_pem(key_pem).map_err(|error| damaged(key_path, error.to_string()))?,
        user,
        expires_at,
    })
}

/// Whose a certificate is, and when it ends.
fn read_certificate(
    chain: &Path,
    chain_pem: &str,
) -> Result<(UserHolder, Timestamp), ProfileError> {
    let identity = tls::first_certificate_der(chain_pem)
        .and_then(|der| PeerIdentity::from_der(&der))
        .map_err(|error| damaged(chain, error.to_string()))?;
    match identity.holder {
        Holder::User(user) => Ok((user, identity.expires_at)),
        Holder::Host(_) => Err(damaged(
            chain,
            "it is not a person's certificate".to_owned(),
        )),
    }
}

fn damaged(path: &Path, problem: String) -> ProfileError {
    ProfileError::Damaged {
        path: path.to_owned(),
        problem,
    }
}

#[cfg(test)]
mod tests;
