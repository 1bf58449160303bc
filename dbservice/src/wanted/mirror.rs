//! A copy of the matched part of the inventory, fed by a watch.
//!
//! A watch sends a full listing, says `synced`, and then changes; it can be resumed from the last revision. A listing
//! that breaks off half-way says nothing about what it did not reach, so it is collected aside and replaces the copy
//! only when it is whole. Pure: messages in, changes out.

use std::collections::BTreeMap;

use tidegate_core::Database;
use tidegate_proto::{
    convert::Invalid,
    v1::{self, watch_databases_response::Event},
};

/// What is known of the inventory.
#[derive(Debug, Default)]
pub(crate) struct Mirror {
    databases: BTreeMap<String, Database>,
    listing: Option<BTreeMap<String, Database>>,
    revision: u64,
}

/// What a message did.
#[derive(Debug)]
pub(crate) enum Applied {
    /// The copy changed, or was found to be whole.
    Changed,
    /// A database that cannot be understood; it counts as absent.
    Invalid { name: String, invalid: Invalid },
    /// Nothing that matters yet.
    Nothing,
}

impl Mirror {
    /// The databases, by name.
    pub(crate) fn databases(&self) -> impl Iterator<Item = &Database> {
        self.databases.values()
    }

    /// What the next watch should resume after; 0 asks for a full listing.
    pub(crate) fn resume_after(&self) -> u64 {
        self.revision
    }

    /// A watch begins. What an earlier one had listed in part is forgotten.
    pub(crate) fn watch_began(&mut self) {
        self.listing = (self.revision == 0).then(BTreeMap::new);
    }

    /// The auth service cannot resume: the next watch lists in full. What is known stays until that is whole.
    pub(crate) fn history_is_gone(&mut self) {
        self.revision = 0;
    }

    /// Takes one message.
    ///
    /// Several changes may share a revision, so a change alone says only that the revision before it is complete.
    pub(crate) fn apply(&mut self, message: v1::WatchDatabasesResponse) -> Applied {
        let (applied, complete) = match message.event {
            Some(Event::Upserted(database)) => (self.upsert(database), false),
            Some(Event::Deleted(name)) => {
                self.target().remove(&name);
                (Applied::Changed, false)
            }
            Some(Event::Synced(_)) => match self.listing.take() {
                Some(whole) => {
                    self.databases = whole;
                    (Applied::Changed, true)
                }
                None => (Applied::Nothing, true),
            },
            Some(Event::Bookmark(_)) => (Applied::Nothing, true),
            None => (Applied::Nothing, false),
        };
        if self.listing.is_some() {
            return match applied {
                Applied::Changed => Applied::Nothing,
                other => other,
            };
        }
        let known = message.revision.saturating_sub(u64::from(!complete));
        self.revision = self.revision.max(known);
        applied
    }

    fn upsert(&mut self, database: v1::Database) -> Applied {
        let name = database.name.clone();
        match Database::try_from(database) {
            Ok(database) => {
                self.target().insert(name, database);
                Applied::Changed
            }
            Err(invalid) => {
                self.target().remove(&name);
                Applied::Invalid { name, invalid }
            }
        }
    }

    fn target(&mut self) -> &mut BTreeMap<String, Database> {
        self.listing.as_mut().unwrap_or(&mut self.databases)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::redshift;

    fn message(revision: u64, event: Event) -> v1::WatchDatabasesResponse {
        v1::WatchDatabasesResponse {
            revision,
            event: Some(event),
        }
    }

    fn upserted(revision: u64, name: &str) -> v1::WatchDatabasesResponse {
        message(revision, Event::Upserted(redshift(name, &[]).into()))
    }

    fn synced(revision: u64) -> v1::WatchDatabasesResponse {
        message(revision, Event::Synced(v1::Synced {}))
    }

    fn names(mirror: &Mirror) -> Vec<&str> {
        mirror
            .databases()
            .map(|database| database.name.as_str())
            .collect()
    }

    fn listed(databases: &[&str]) -> Mirror {
        let mut mirror = Mirror::default();
        mirror.watch_began();
        for name in databases {
            mirror.apply(upserted(1, name));
        }
        mirror.apply(synced(7));
        mirror
    }

    #[test]
    fn a_listing_counts_only_when_it_is_whole() {
        let mut mirror = Mirror::default();
        mirror.watch_began();
        assert!(matches!(
            mirror.apply(upserted(3, "orders")),
            Applied::Nothing
        ));
        assert_eq!((names(&mirror).len(), mirror.resume_after()), (0, 0));
        assert!(matches!(mirror.apply(synced(7)), Applied::Changed));
        assert_eq!((names(&mirror), mirror.resume_after()), (vec!["orders"], 7));
    }

    #[test]
    fn changes_after_the_listing_apply_at_once_and_can_be_resumed() {
        let mut mirror = listed(&["orders"]);
        mirror.apply(upserted(8, "users"));
        mirror.apply(message(9, Event::Deleted("orders".to_owned())));
        mirror.apply(message(12, Event::Bookmark(v1::Bookmark {})));
        assert_eq!((names(&mirror), mirror.resume_after()), (vec!["users"], 12));
        mirror.watch_began();
        mirror.apply(upserted(13, "more"));
        assert_eq!(names(&mirror), ["more", "users"]);
    }

    #[test]
    fn a_watch_that_broke_off_between_changes_of_one_revision_asks_for_it_again() {
        let mut mirror = listed(&["orders"]);
        mirror.apply(upserted(9, "users"));
        assert_eq!(mirror.resume_after(), 8);
        mirror.apply(upserted(10, "more"));
        assert_eq!(mirror.resume_after(), 9);
    }

    #[test]
    fn while_history_is_listed_again_the_last_known_state_stays() {
        let mut mirror = listed(&["orders", "users"]);
        mirror.history_is_gone();
        mirror.watch_began();
        mirror.apply(upserted(20, "users"));
        assert_eq!(names(&mirror), ["orders", "users"]);
        mirror.watch_began();
        mirror.apply(upserted(20, "users"));
        mirror.apply(synced(21));
        assert_eq!(names(&mirror), ["users"]);
    }

    #[test]
    fn a_database_that_cannot_be_understood_counts_as_absent() {
        let mut mirror = listed(&["orders"]);
        let mut broken: v1::Database = redshift("orders", &[]).into();
        broken.uri = "nowhere".to_owned();
        assert!(matches!(
            mirror.apply(message(8, Event::Upserted(broken))),
            Applied::Invalid { .. }
        ));
        assert!(names(&mirror).is_empty());
    }
}
