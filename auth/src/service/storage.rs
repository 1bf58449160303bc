//! Opens the store that settings name, and closes it.

use std::{os::unix::fs::DirBuilderExt as _, path::Path, sync::Arc};

use http::Uri;
use tidegate_service::{
    clock::SharedClock,
    metrics::Metrics,
    settings::{EtcdSettings, StorageSettings},
};

use crate::{
    audit::{AuditLog, Origin},
    store::{
        BoxError, Store,
        etcd::{EtcdIdentity, EtcdLogin, EtcdOptions, EtcdStore, EtcdTls},
        patience::Patient,
        sqlite::{SqliteOptions, SqliteStore},
    },
};

/// An open store.
pub(super) enum Storage {
    /// Shared with other instances.
    Etcd(Arc<EtcdStore>),
    /// Embedded.
    Sqlite(Arc<SqliteStore>),
}

impl Storage {
    /// Opens it; an embedded one is locked against other processes.
    pub(super) async fn open(settings: &StorageSettings) -> Result<Self, BoxError> {
        Ok(match settings {
            StorageSettings::Etcd(etcd) => Self::Etcd(EtcdStore::open(options(etcd)?).await?),
            StorageSettings::Sqlite { dir } => {
                Self::Sqlite(SqliteStore::open(dir, SqliteOptions::default())?)
            }
        })
    }

    /// For everybody who need not know which it is; whoever asks is answered in time, or told that there is no answer.
    pub(super) fn store(&self) -> Arc<dyn Store> {
        let store: Arc<dyn Store> = match self {
            Self::Etcd(store) => store.clone(),
            Self::Sqlite(store) => store.clone(),
        };
        Arc::new(Patient::new(store))
    }

    /// Ends it: what is written is safe, and later calls fail.
    pub(super) async fn close(&self) {
        match self {
            Self::Etcd(store) => store.close(),
            Self::Sqlite(store) => store.close().await,
        }
    }
}

fn options(settings: &EtcdSettings) -> Result<EtcdOptions, http::uri::InvalidUri> {
    let members = settings.peers.iter().map(|peer| peer.parse::<Uri>());
    let members = members.collect::<Result<_, _>>()?;
    let mut options = EtcdOptions::new(members, settings.prefix.clone());
    options.tls = EtcdTls {
        ca_file: settings.ca_file.clone(),
        identity: settings.identity.clone().map(|files| EtcdIdentity {
            cert_file: files.cert_file,
            key_file: files.key_file,
        }),
    };
    options.login = settings.login.clone().map(|login| EtcdLogin {
        username: login.username,
        password: login.password,
    });
    options.dial_timeout = settings.dial_timeout.unwrap_or(options.dial_timeout);
    options.request_timeout = settings.request_timeout.unwrap_or(options.request_timeout);
    Ok(options)
}

/// Opens this instance's audit log, in a folder that is made when there is none.
pub(super) fn audit_log(
    dir: &Path,
    origin: Origin,
    clock: SharedClock,
    metrics: &Metrics,
) -> Result<AuditLog, BoxError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)?;
    Ok(AuditLog::open_as(dir, origin, clock, metrics)?)
}

/// Where the state is, for people.
pub(super) fn place(settings: &StorageSettings) -> String {
    match settings {
        StorageSettings::Etcd(etcd) => {
            format!("etcd at {}, under `{}`", etcd.peers.join(", "), etcd.prefix)
        }
        StorageSettings::Sqlite { dir } => folder(dir),
    }
}

/// A folder, for people.
pub(super) fn folder(path: &Path) -> String {
    format!("`{}`", path.display())
}
