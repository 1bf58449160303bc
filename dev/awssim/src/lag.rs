//! Eventual consistency: what was changed lately is not what listings show yet.
//!
//! The world has the truth; this keeps what readers still see instead, until the simulation's
//! clock passes it. In a simulation without lag it is empty and costs one look.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};

use crate::world::{Cluster, ClusterId, Kind};

/// Late changes kept at once; beyond them a change shows at once.
const LATE_MAX: usize = 100_000;
/// Deleted clusters kept at once, to show once more; beyond them one stays away.
const GHOSTS_MAX: usize = 1_000;
/// The listing after a deletion that shows the cluster again, counted from 1.
const HAUNTED_LISTING: u32 = 2;

type Tags = BTreeMap<String, String>;

#[derive(Debug)]
struct Late {
    hidden_until: Timestamp,
    old_tags: Option<(Timestamp, Tags)>,
}

/// Every change that does not show yet.
#[derive(Debug, Default)]
pub(crate) struct Lag {
    late: Mutex<HashMap<(Kind, ClusterId), Late>>,
    ghosts: Mutex<BTreeMap<ClusterId, Ghost>>,
}

/// A deleted cluster that shows once more.
#[derive(Debug)]
struct Ghost {
    cluster: Cluster,
    /// Listings that began since it was deleted.
    listings: u32,
}

/// What listings show at an instant.
pub(crate) struct View<'a> {
    late: MutexGuard<'a, HashMap<(Kind, ClusterId), Late>>,
    now: Timestamp,
}

impl Lag {
    /// Hides something that was added now.
    pub(crate) fn added(&self, kind: Kind, id: &ClusterId, now: Timestamp, ms: u64) {
        let late = Late {
            hidden_until: later(now, ms),
            old_tags: None,
        };
        self.keep(kind, id, now, ms, late);
    }

    /// Goes on showing the tags that something had before now.
    pub(crate) fn retagged(&self, kind: Kind, id: &ClusterId, old: Tags, now: Timestamp, ms: u64) {
        let late = Late {
            hidden_until: now,
            old_tags: Some((later(now, ms), old)),
        };
        self.keep(kind, id, now, ms, late);
    }

    fn keep(&self, kind: Kind, id: &ClusterId, now: Timestamp, ms: u64, mut late: Late) {
        if ms == 0 {
            return;
        }
        let mut kept = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, late| late.lasts(now));
        if let Some(before) = kept.remove(&(kind, id.clone())) {
            late.hidden_until = late.hidden_until.max(before.hidden_until);
            late.old_tags = before.old_tags.or(late.old_tags);
        }
        if kept.len() < LATE_MAX {
            kept.insert((kind, id.clone()), late);
        }
    }

    /// Forgets something that was removed.
    pub(crate) fn removed(&self, kind: Kind, id: &ClusterId) {
        let mut kept = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        kept.remove(&(kind, id.clone()));
    }

    /// Lets a cluster that was deleted show once more.
    pub(crate) fn haunt(&self, id: &ClusterId, cluster: Cluster) {
        let mut ghosts = self.ghosts.lock().unwrap_or_else(PoisonError::into_inner);
        if ghosts.len() < GHOSTS_MAX {
            let listings = 0;
            ghosts.insert(id.clone(), Ghost { cluster, listings });
        }
    }

    /// The deleted clusters that a page of a listing shows all the same, by name.
    pub(crate) fn ghosts(
        &self,
        account: &str,
        region: &str,
        is_first_page: bool,
    ) -> BTreeMap<String, Cluster> {
        let mut ghosts = self.ghosts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut shown = BTreeMap::new();
        ghosts.retain(|id, ghost| {
            if id.account == account && id.region == region {
                ghost.listings += u32::from(is_first_page);
                if ghost.listings == HAUNTED_LISTING {
                    shown.insert(id.id.clone(), ghost.cluster.clone());
                }
            }
            ghost.listings <= HAUNTED_LISTING
        });
        shown
    }

    pub(crate) fn view(&self, now: Timestamp) -> View<'_> {
        let late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        View { late, now }
    }
}

impl Late {
    fn lasts(&self, now: Timestamp) -> bool {
        let tags_until = self.old_tags.as_ref().map(|(until, _)| *until);
        self.hidden_until.max(tags_until.unwrap_or(now)) > now
    }
}

impl View<'_> {
    /// Whether listings leave it out still.
    pub(crate) fn hides(&self, kind: Kind, account: &str, region: &str, name: &str) -> bool {
        let late = self.find(kind, account, region, name);
        late.is_some_and(|late| late.hidden_until > self.now)
    }

    /// The tags that listings show.
    pub(crate) fn tags<'a>(
        &'a self,
        kind: Kind,
        account: &str,
        region: &str,
        name: &str,
        true_tags: &'a Tags,
    ) -> &'a Tags {
        let late = self.find(kind, account, region, name);
        match late.and_then(|late| late.old_tags.as_ref()) {
            Some((until, old)) if *until > self.now => old,
            _ => true_tags,
        }
    }

    fn find(&self, kind: Kind, account: &str, region: &str, name: &str) -> Option<&Late> {
        if self.late.is_empty() {
            return None;
        }
        self.late
            .get(&(kind, ClusterId::new(account, region, name)))
    }
}

fn later(now: Timestamp, ms: u64) -> Timestamp {
    let ms = SignedDuration::from_millis(i64::try_from(ms).unwrap_or(i64::MAX));
    now.saturating_add(ms).unwrap_or(Timestamp::MAX)
}
