//! The raw store: the records that the service wrote, written again by the store's own client alone.
//!
//! They are written as the service wrote them: one transaction of its own is one batch here. What takes time is the
//! writing; reading what the service wrote is not measured.

mod etcd;
mod sqlite;

use std::path::Path;

use anyhow::Result;

use etcd::RawEtcd;
use sqlite::RawSqlite;

/// A raw store that follows the service's own.
pub(super) enum Raw {
    Etcd(RawEtcd),
    Sqlite(RawSqlite),
}

impl Raw {
    /// Beside the etcd server that the service keeps its state in: under another prefix.
    pub(super) fn etcd(url: &str) -> Result<Self> {
        RawEtcd::new(url).map(Self::Etcd)
    }

    /// Beside the service's own file: another file in `dir`, of the same schema.
    pub(super) fn sqlite(state: &Path, dir: &Path) -> Result<Self> {
        RawSqlite::open(state, dir).map(Self::Sqlite)
    }

    /// Writes what the service wrote since the last time; the seconds that writing took.
    pub(super) async fn catch_up(&mut self) -> Result<f64> {
        match self {
            Self::Etcd(raw) => raw.catch_up().await,
            Self::Sqlite(raw) => tokio::task::block_in_place(|| raw.catch_up()),
        }
    }
}
