//! Which format the store under a prefix has: a key of its own says it, so that an older program does not touch what a
//! newer one wrote.

use bytes::Bytes;

use super::{
    Inner,
    client::{CallError, Kind},
    kv,
    pb::etcdserverpb::{RangeRequest, StatusRequest, maintenance_client::MaintenanceClient},
};
use crate::store::{CommitError, StoreUnavailable};

/// The format that this program writes, and the newest that it reads.
const FORMAT: u64 = 1;
/// The oldest etcd whose API has what we use: fragments.
const VERSION_MIN: (u64, u64) = (3, 4);

/// Why a store in etcd cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// What is there was not written by us, or is damaged.
    #[error(
        "`{key}` in etcd holds no format: the prefix belongs to something else, or was damaged"
    )]
    Foreign {
        /// The key.
        key: String,
    },
    /// It was written by a newer program.
    #[error(
        "`{key}` in etcd has format {found}, and this program knows up to {FORMAT}: start a newer one, or restore a backup"
    )]
    Newer {
        /// The key that says so.
        key: String,
        /// Its format.
        found: u64,
    },
    /// The server is too old.
    #[error(
        "etcd {version} is too old: {}.{} or newer is needed", VERSION_MIN.0, VERSION_MIN.1
    )]
    OldServer {
        /// Its version.
        version: String,
    },
    /// It does not answer, or does not let us in.
    #[error(transparent)]
    Unavailable(#[from] StoreUnavailable),
}

/// What the key holds while the store has our format.
pub(super) fn value() -> Bytes {
    Bytes::from(FORMAT.to_string())
}

/// Checks that the server can be used, and that the store is ours; marks a new one.
pub(super) async fn check(store: &Inner) -> Result<(), OpenError> {
    let status = store
        .client
        .call(
            Kind::Read,
            StatusRequest {},
            |channel, request| async move { MaintenanceClient::new(channel).status(request).await },
        )
        .await
        .map_err(unavailable)?;
    if !is_new_enough(&status.version) {
        return Err(OpenError::OldServer {
            version: status.version,
        });
    }
    let known = match read(store).await? {
        Some(known) => known,
        None => mark(store).await?,
    };
    let key = String::from_utf8_lossy(store.names.format()).into_owned();
    match std::str::from_utf8(&known)
        .ok()
        .and_then(|text| text.parse().ok())
    {
        None | Some(0) => Err(OpenError::Foreign { key }),
        Some(found) if found > FORMAT => Err(OpenError::Newer { key, found }),
        Some(_) => Ok(()),
    }
}

async fn read(store: &Inner) -> Result<Option<Bytes>, OpenError> {
    let request = RangeRequest {
        key: store.names.format().clone(),
        ..RangeRequest::default()
    };
    let range = store
        .client
        .call(Kind::Read, request, |channel, request| async move {
            kv(channel).range(request).await
        })
        .await
        .map_err(unavailable)?;
    Ok(range.kvs.into_iter().next().map(|found| found.value))
}

/// Writes our format, unless somebody else is first, and gives what is there then.
async fn mark(store: &Inner) -> Result<Bytes, OpenError> {
    let value = value();
    match store.mark_format(value.clone()).await {
        Ok(()) => Ok(value),
        Err(CommitError::Unavailable(error)) => Err(error.into()),
        Err(_) => Ok(read(store).await?.unwrap_or_default()),
    }
}

fn unavailable(error: CallError) -> OpenError {
    error.unavailable("open").into()
}

fn is_new_enough(version: &str) -> bool {
    let mut parts = version
        .split('.')
        .map(|part| part.parse::<u64>().unwrap_or(0));
    let (major, minor) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    (major, minor) >= VERSION_MIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        for (version, is_enough) in [
            ("3.4.23", true),
            ("3.10.0", true),
            ("4.0.0-rc.1", true),
            ("3.3.27", false),
            ("", false),
        ] {
            assert_eq!(is_new_enough(version), is_enough, "{version}");
        }
    }
}
