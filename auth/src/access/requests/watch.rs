//! Requests as they change, for whoever may see them.
//!
//! What there is comes first, then that this was all, then each change, from the store's own watch: begun before the
//! listing was read to its end, so that nothing falls between.

use futures::{Stream, StreamExt as _, stream};
use tidegate_proto::v1;
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use super::{Sees, Stored, missing};
use crate::{
    access::{Access, AccessError},
    keys,
    store::{Batch, Change, Entry, Range, RangeQuery, WatchError, Watched},
};

/// Entries that are read at a time.
const READ_AT_ONCE: usize = 50;

/// What a watcher is told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RequestEvent {
    /// A request as it is now.
    Is(Box<v1::AccessRequest>),
    /// The request of this id was removed.
    Removed(String),
    /// Everything there was has been told.
    Synced,
}

/// Why a watch did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestWatchEnd {
    /// There is no such request, or the store does not answer.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// Changes were missed: by a slow watcher, or because history is gone.
    #[error("changes were missed: start the watch again")]
    Missed(#[source] WatchError),
    /// As many watch as can.
    #[error(
        "too many watch access requests at this auth service: ask again from time to time instead"
    )]
    TooMany,
    /// The store does not answer.
    #[error("the state store does not answer: start the watch again")]
    Unavailable(#[source] WatchError),
}

impl From<WatchError> for RequestWatchEnd {
    fn from(error: WatchError) -> Self {
        match error {
            WatchError::Ahead { .. } | WatchError::Compacted { .. } | WatchError::Lagged => {
                Self::Missed(error)
            }
            WatchError::Closed | WatchError::Unavailable(_) => Self::Unavailable(error),
        }
    }
}

impl Access {
    /// Watches one request, or all that may be seen.
    pub(crate) async fn watch_requests(
        &self,
        id: &str,
        sees: Sees,
    ) -> Result<
        impl Stream<Item = Result<RequestEvent, RequestWatchEnd>> + Send + use<>,
        RequestWatchEnd,
    > {
        let watches = self.requests.watches.clone();
        let place = watches
            .try_acquire_owned()
            .map_err(|_| RequestWatchEnd::TooMany)?;
        let prefix = if id.is_empty() {
            keys::ACCESS_REQUESTS.into()
        } else {
            // Ids have one length, so none is the beginning of another.
            let id = Uuid::try_parse(id).map_err(|_| missing(id))?;
            keys::access_request(&id.to_string())
        };
        let query = RangeQuery {
            limit: READ_AT_ONCE,
            ..RangeQuery::prefix(prefix.clone())
        };
        let store = self.parts.store.clone();
        let first = store
            .range(query.clone())
            .await
            .map_err(AccessError::from)?;
        let changes = store.watch(prefix, first.revision).await?;
        let (clock, of_change) = (self.parts.clock.clone(), sees.clone());
        let listed = stream::try_unfold(Some((store, query, Some(first))), |state| async move {
            let Some((store, mut query, first)) = state else {
                return Ok(None);
            };
            let range: Range = match first {
                Some(first) => first,
                None => store
                    .range(query.clone())
                    .await
                    .map_err(AccessError::from)?,
            };
            query.after = range.entries.last().map(|entry| entry.key.clone());
            let next = range.more.then_some((store, query, None));
            Ok::<_, RequestWatchEnd>(Some((range.entries, next)))
        });
        let listed = listed.flat_map(move |page| {
            let events: Vec<_> = match page {
                Ok(entries) => entries
                    .iter()
                    .filter_map(|entry| seen(entry, &sees, clock.now()))
                    .map(Ok)
                    .collect(),
                Err(error) => vec![Err(error)],
            };
            stream::iter(events)
        });
        let synced = stream::iter([Ok(RequestEvent::Synced)]);
        let clock = self.parts.clock.clone();
        let changed = changes.flat_map(move |watched| {
            let events: Vec<_> = match watched {
                Ok(Watched::Batch(Batch { changes, .. })) => changes
                    .iter()
                    .filter_map(|change| changed(change, &of_change, clock.now()))
                    .map(Ok)
                    .collect(),
                Ok(Watched::CaughtUp(_)) => Vec::new(),
                Err(error) => vec![Err(error.into())],
            };
            stream::iter(events)
        });
        let events = listed.chain(synced).chain(changed);
        Ok(holding(place, events))
    }
}

/// Keeps a place taken for as long as a stream is there.
fn holding<T: Send>(
    place: OwnedSemaphorePermit,
    events: impl Stream<Item = T> + Send,
) -> impl Stream<Item = T> + Send {
    events.map(move |event| {
        let _ = &place;
        event
    })
}

fn read(entry: &Entry) -> Option<Stored> {
    Stored::read(entry)
        .inspect_err(|error| {
            tracing::error!(error = %error, "left out a stored access request that cannot be read");
        })
        .ok()
}

fn seen(entry: &Entry, sees: &Sees, now: jiff::Timestamp) -> Option<RequestEvent> {
    let stored = read(entry)?.at(now);
    sees(&stored.request).then(|| RequestEvent::Is(Box::new(stored.message())))
}

fn changed(change: &Change, sees: &Sees, now: jiff::Timestamp) -> Option<RequestEvent> {
    match (&change.current, &change.previous) {
        (Some(current), _) => seen(current, sees, now),
        (None, Some(previous)) => {
            let gone = read(previous)?.request;
            sees(&gone).then_some(RequestEvent::Removed(gone.id))
        }
        (None, None) => None,
    }
}
