//! Resources that are one record under a name, made and deleted over the API: the name's rules, and writes that nobody
//! else's come between.
//!
//! Not here: what such a record holds ([`crate::configs`], [`crate::health_configs`]), and who may write it.

use bytes::Bytes;
use tidegate_proto::Invalid;

use crate::store::{CommitError, Store, StoreUnavailable, Txn};

/// Longest name.
const NAME_CHARS_MAX: usize = 128;

/// Why a record was not written or deleted.
#[derive(Debug)]
pub(crate) enum Refused {
    /// It is not at the revision that was expected, which is this one.
    Conflict(u64),
    /// There is none to delete.
    Missing,
    /// There are as many as there may be.
    TooMany,
    /// The store does not answer.
    Unavailable(StoreUnavailable),
}

impl From<StoreUnavailable> for Refused {
    fn from(unavailable: StoreUnavailable) -> Self {
        Self::Unavailable(unavailable)
    }
}

/// Checks a name.
///
/// # Errors
///
/// [`Invalid`] says what a name is made of.
pub(crate) fn check_name(field: &str, name: &str) -> Result<(), Invalid> {
    let is_name = (1..=NAME_CHARS_MAX).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if is_name {
        return Ok(());
    }
    let problem = format!(
        "`{name}` must be 1 to {NAME_CHARS_MAX} letters, digits or `-_.`, the first a letter or digit"
    );
    Err(Invalid::new(field, problem))
}

/// What a write did.
pub(crate) struct Written {
    /// The revision that it made.
    pub(crate) revision: u64,
    /// Whether there was none before.
    pub(crate) is_new: bool,
}

/// Makes a record, or replaces the one at a revision; 0 is any. `has_room` is asked only for one that is new.
///
/// # Errors
///
/// [`Refused`]: nothing was written, or, when the store does not answer, it is not known.
pub(crate) async fn put(
    store: &dyn Store,
    key: Bytes,
    value: Bytes,
    expected: u64,
    has_room: impl FnOnce() -> bool + Send,
) -> Result<Written, Refused> {
    let stored = store.get(key.clone()).await?;
    let guarded = match &stored {
        Some(entry) if expected != 0 && entry.modified != expected => {
            return Err(Refused::Conflict(expected));
        }
        Some(entry) => Txn::new().at(key.clone(), entry.modified),
        None if expected != 0 => return Err(Refused::Conflict(expected)),
        None if !has_room() => return Err(Refused::TooMany),
        None => Txn::new().absent(key.clone()),
    };
    match store.commit(guarded.put(key, value)).await {
        Ok(revision) => Ok(Written {
            revision,
            is_new: stored.is_none(),
        }),
        Err(CommitError::Unavailable(unavailable)) => Err(unavailable.into()),
        Err(_) => Err(Refused::Conflict(expected)),
    }
}

/// Deletes a record; gives the revision that shows it gone.
///
/// # Errors
///
/// [`Refused`], as for [`put`].
pub(crate) async fn delete(store: &dyn Store, key: Bytes) -> Result<u64, Refused> {
    let entry = store.get(key).await?.ok_or(Refused::Missing)?;
    let txn = Txn::new()
        .at(entry.key.clone(), entry.modified)
        .delete(entry.key);
    match store.commit(txn).await {
        Ok(revision) => Ok(revision),
        Err(CommitError::Unavailable(unavailable)) => Err(unavailable.into()),
        Err(_) => Err(Refused::Conflict(entry.modified)),
    }
}
