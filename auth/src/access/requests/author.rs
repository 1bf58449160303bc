//! One person's requests: how many there are, and what is due with them.
//!
//! The list is a record of its own, written together with a request when that is made, decided or removed. Two requests
//! that are made at once therefore count each other. But for [`Author::of`] and [`Author::write`] it is pure.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tidegate_core::requests::{AccessRequest, RequestState};

use super::{
    KEPT_MAX, OPEN_MAX,
    record::{AuthorRecord, MadeRecord},
};
use crate::{
    keys,
    record::{RecordError, decode, encode},
    store::{Entry, Store, StoreUnavailable, Txn},
};

/// How long a request that is over is kept, for whoever asks what became of it.
const KEPT_AFTER_END: Duration = Duration::from_hours(7 * 24);

/// What a sweep has to do with one person's requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    /// Nobody decided these in time.
    pub(super) expired: Vec<String>,
    /// These have been over for so long that they can go.
    pub(super) forgotten: Vec<String>,
}

/// Why there is no room for another request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoRoom {
    /// As many are kept as can be, and the roles of all can be had.
    #[error(
        "{KEPT_MAX} of your requests are approved or wait: remove some first (`tg request rm`)"
    )]
    Kept,
    /// Too many wait for reviewers.
    #[error(
        "{OPEN_MAX} of your requests wait for reviewers already: wait, or withdraw some (`tg request rm`)"
    )]
    Open,
}

/// The requests of one person.
#[derive(Clone, Debug, Default)]
pub(super) struct Author {
    key: Bytes,
    /// Revision of the record; `None` when there is none yet.
    revision: Option<u64>,
    record: AuthorRecord,
}

impl Author {
    /// Reads them. A list that cannot be read counts as none: it bounds and reminds, and gives no right.
    pub(super) async fn of(store: &dyn Store, user: &str) -> Result<Self, StoreUnavailable> {
        let key = keys::request_author(user);
        let Some(entry) = store.get(key.clone()).await? else {
            return Ok(Self {
                key,
                ..Self::default()
            });
        };
        Ok(Self::read(&entry).unwrap_or_else(|error| {
            tracing::error!(error = %error, "cannot read a stored list of access requests; starting it anew");
            Self {
                key,
                revision: Some(entry.modified),
                record: AuthorRecord::default(),
            }
        }))
    }

    pub(super) fn read(entry: &Entry) -> Result<Self, RecordError> {
        Ok(Self {
            key: entry.key.clone(),
            revision: Some(entry.modified),
            record: decode(entry)?,
        })
    }

    /// Writes them, if nobody else did since they were read.
    pub(super) fn write(&self, txn: Txn) -> Txn {
        let key = self.key.clone();
        let txn = match self.revision {
            Some(revision) => txn.at(key.clone(), revision),
            None => txn.absent(key.clone()),
        };
        match (self.record.made.is_empty(), self.revision) {
            (false, _) => txn.put(key, encode(&self.record)),
            (true, Some(_)) => txn.delete(key),
            (true, None) => txn,
        }
    }

    /// Their ids, the oldest first.
    pub(super) fn ids(&self) -> impl Iterator<Item = &str> {
        self.record.made.iter().map(|made| made.id.as_str())
    }

    /// Makes room for one more; the id of the request that has to go for it, if one has.
    pub(super) fn make_room(&mut self, now: Timestamp) -> Result<Option<String>, NoRoom> {
        let waits = |made: &&MadeRecord| made.is_pending && !is_over(made, now);
        if self.record.made.iter().filter(waits).count() >= OPEN_MAX {
            return Err(NoRoom::Open);
        }
        if self.record.made.len() < KEPT_MAX {
            return Ok(None);
        }
        let mut made = self.record.made.iter();
        let oldest = made.position(|made| is_over(made, now));
        oldest
            .map(|place| Some(self.record.made.remove(place).id))
            .ok_or(NoRoom::Kept)
    }

    /// Takes a request in as it is now.
    pub(super) fn put(&mut self, request: &AccessRequest) {
        let end = match request.state {
            RequestState::Pending => request.pending_until,
            RequestState::Approved => request.access_until,
            RequestState::Denied | RequestState::Expired => {
                request.resolved.unwrap_or(request.pending_until)
            }
        };
        let now = MadeRecord {
            id: request.id.clone(),
            is_pending: request.state == RequestState::Pending,
            over_after: end.as_second(),
        };
        match self.record.made.iter_mut().find(|made| made.id == now.id) {
            Some(made) => *made = now,
            None => self.record.made.push(now),
        }
    }

    /// Takes requests out.
    pub(super) fn remove(&mut self, ids: &[String]) {
        self.record.made.retain(|made| !ids.contains(&made.id));
    }

    /// What is due now.
    pub(super) fn due(&self, now: Timestamp) -> Due {
        let mut due = Due::default();
        let kept = i64::try_from(KEPT_AFTER_END.as_secs()).unwrap_or(i64::MAX);
        for made in &self.record.made {
            if made.is_pending && is_over(made, now) {
                due.expired.push(made.id.clone());
            } else if made.over_after.saturating_add(kept) < now.as_second() {
                due.forgotten.push(made.id.clone());
            }
        }
        due
    }
}

fn is_over(made: &MadeRecord, now: Timestamp) -> bool {
    made.over_after < now.as_second()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn request(number: usize, state: RequestState, until: i64) -> AccessRequest {
        AccessRequest {
            id: format!("q{number}"),
            user: "alice".to_owned(),
            roles: vec!["access".to_owned()],
            reason: String::new(),
            created: at(0),
            pending_until: at(until),
            access_until: at(until),
            needs: Vec::new(),
            state,
            reviews: Vec::new(),
            resolved: (state != RequestState::Pending).then(|| at(1)),
        }
    }

    fn author(requests: impl IntoIterator<Item = AccessRequest>) -> Author {
        let mut author = Author::default();
        for request in requests {
            author.put(&request);
        }
        author
    }

    #[test]
    fn only_so_many_requests_wait_and_those_whose_time_is_over_do_not() {
        let pending = |number| request(number, RequestState::Pending, 100);
        let mut full = author((0..OPEN_MAX).map(pending));
        assert_eq!(full.make_room(at(50)), Err(NoRoom::Open));
        assert_eq!(full.make_room(at(101)), Ok(None));
        full.put(&request(0, RequestState::Denied, 100));
        assert_eq!(full.make_room(at(50)), Ok(None));
    }

    #[test]
    fn the_oldest_that_is_over_makes_room_and_none_that_gives_roles() {
        let approved = |number| request(number, RequestState::Approved, 100);
        let mut full = author((0..KEPT_MAX).map(approved));
        assert_eq!(full.make_room(at(50)), Err(NoRoom::Kept));
        full.put(&request(7, RequestState::Denied, 100));
        full.put(&request(9, RequestState::Denied, 100));
        assert_eq!(full.make_room(at(50)), Ok(Some("q7".to_owned())));
        assert_eq!(full.ids().count(), KEPT_MAX - 1);
    }

    #[test]
    fn what_waited_too_long_is_due_and_what_was_over_for_a_week_goes() {
        let author = author([
            request(0, RequestState::Pending, 100),
            request(1, RequestState::Approved, 100),
            request(2, RequestState::Denied, 100),
        ]);
        assert_eq!(author.due(at(100)), Due::default());
        assert_eq!(author.due(at(101)).expired, ["q0"]);
        let week = 7 * 24 * 3600;
        assert_eq!(author.due(at(week + 2)).forgotten, ["q2"]);
        let later = author.due(at(week + 101));
        assert_eq!(later.forgotten, ["q1", "q2"]);
        assert_eq!(later.expired, ["q0"]);
    }
}
