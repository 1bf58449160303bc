//! The identity on disk: `host.pem` (key, certificate, CA) and `host.json` (what goes with it).
//!
//! Each file is replaced as a whole, by a rename, and only its owner may read it. What was read is checked like an
//! answer from the network: a file that does not fit the other is an identity that cannot be used.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tidegate_core::HostId;
use tidegate_identity::{KeyPair, tls};

use super::{Current, HostError, IssuedHost, TrustBundle};
use crate::telemetry::chain;

const PEM_FILE: &str = "host.pem";
const META_FILE: &str = "host.json";
const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;
const CERTIFICATE_BEGINS: &str = "-----BEGIN CERTIFICATE-----";

/// `host.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Meta {
    host_id: HostId,
    issued_at: Timestamp,
    trust: TrustBundle,
    /// What is shown as a server, where it is not the certificate in `host.pem`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    server_chain_pem: Option<String>,
}

/// What a process remembers of an earlier join, even when its certificate is of no use any more.
#[derive(Clone, Debug)]
pub(crate) struct Earlier {
    pub(crate) host_id: HostId,
    pub(crate) trust: TrustBundle,
}

/// What the data directory holds.
pub(crate) enum Stored {
    /// A complete identity, whether or not it is still good.
    Identity(Box<Current>),
    /// No certificate, or a broken one.
    Nothing {
        /// What is left.
        earlier: Option<Earlier>,
        /// Why it is no identity, for people.
        reason: String,
    },
}

/// Reads what an earlier run left.
///
/// # Errors
///
/// When a file is there and cannot be read.
pub(crate) fn load(dir: &Path) -> Result<Stored, HostError> {
    let Some(meta) = read(&dir.join(META_FILE))? else {
        return Ok(Stored::Nothing {
            earlier: None,
            reason: "it has no identity yet".to_owned(),
        });
    };
    let meta: Meta = match serde_json::from_str(meta.expose_secret()) {
        Ok(meta) => meta,
        Err(error) => {
            let reason = format!("its stored {META_FILE} is broken: {error}");
            return Ok(Stored::Nothing {
                earlier: None,
                reason,
            });
        }
    };
    let earlier = Earlier {
        host_id: meta.host_id.clone(),
        trust: meta.trust.clone(),
    };
    let Some(pem) = read(&dir.join(PEM_FILE))? else {
        return Ok(Stored::Nothing {
            earlier: Some(earlier),
            reason: format!("its {PEM_FILE} is missing"),
        });
    };
    Ok(match assemble(pem.expose_secret(), meta) {
        Ok(current) => Stored::Identity(Box::new(current)),
        Err(error) => {
            let reason = format!("its stored {PEM_FILE} is broken: {}", chain(&error));
            Stored::Nothing {
                earlier: Some(earlier),
                reason,
            }
        }
    })
}

fn assemble(pem: &str, meta: Meta) -> Result<Current, HostError> {
    let chain_pem = pem
        .find(CERTIFICATE_BEGINS)
        .map(|at| pem[at..].to_owned())
        .unwrap_or_default();
    let key = KeyPair::from_pem(pem)?;
    // A crash between the two files leaves one of the key before. The next renewal brings another.
    let fits = |chain: &String| tls::certifies(chain, &key).unwrap_or(false);
    Current::new(
        IssuedHost {
            server_chain_pem: meta.server_chain_pem.filter(fits),
            key,
            chain_pem,
            trust: meta.trust,
        },
        meta.issued_at,
    )
}

/// Makes sure that an identity can be kept, before a token is spent on one.
///
/// # Errors
///
/// When the directory cannot be made or written to.
pub(crate) fn prepare(dir: &Path) -> Result<(), HostError> {
    let failed = |source| HostError::State {
        path: dir.to_owned(),
        source,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(DIR_MODE)
        .create(dir)
        .map_err(failed)?;
    let probe = temporary(&dir.join(META_FILE));
    create(&probe).map_err(failed)?;
    fs::remove_file(&probe).map_err(failed)
}

/// Writes the identity. What is read back later is the old one or the new one.
///
/// # Errors
///
/// When a file cannot be written.
pub(crate) fn save(dir: &Path, current: &Current) -> Result<(), HostError> {
    let meta = Meta {
        host_id: current.holder.host_id.clone(),
        issued_at: current.issued_at,
        trust: TrustBundle::clone(&current.trust),
        server_chain_pem: current.server_chain_pem.clone(),
    };
    let meta = serde_json::to_string_pretty(&meta).map_err(|error| HostError::State {
        path: dir.join(META_FILE),
        source: error.into(),
    })?;
    replace(&dir.join(META_FILE), &meta)?;
    let key = current.key.to_pem();
    let pem = SecretString::from(format!("{}{}", key.expose_secret(), current.chain_pem));
    replace(&dir.join(PEM_FILE), pem.expose_secret())
}

fn read(path: &Path) -> Result<Option<SecretString>, HostError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(HostError::State {
            path: path.to_owned(),
            source,
        }),
    }
}

fn replace(path: &Path, text: &str) -> Result<(), HostError> {
    let written = || -> io::Result<()> {
        let new = temporary(path);
        let mut file = create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        path.parent()
            .map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    };
    written().map_err(|source| HostError::State {
        path: path.to_owned(),
        source,
    })
}

fn temporary(path: &Path) -> PathBuf {
    path.with_added_extension("new")
}

/// An empty file that only its owner may read, in place of what a crash may have left there.
fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(path)
}
