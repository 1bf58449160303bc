//! A copy of the matched part of the inventory, fed by a watch.
//!
//! A watch sends a full listing, says `synced`, and then changes; it can be resumed from the last revision. A listing
//! that breaks off half-way says nothing about what it did not reach, so it is collected aside and replaces the copy
//! only when it is whole. Pure: messages in, changes out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tidegate_core::{Database, DatabaseName};
use tidegate_proto::{
    convert::Invalid,
    v1::{self, watch_databases_response::Event},
};

/// Databases by name.
type Databases = BTreeMap<DatabaseName, Arc<Database>>;

/// What is known of the inventory.
#[derive(Debug, Default)]
pub(crate) struct Mirror {
    databases: Databases,
    listing: Option<Databases>,
    revision: u64,
}

/// A database that cannot be understood; it counts as absent.
#[derive(Debug)]
pub(crate) struct Misunderstood {
    /// What it is called.
    pub(crate) name: String,
    /// What is wrong with it.
    pub(crate) invalid: Invalid,
}

impl Mirror {
    /// A database.
    pub(crate) fn get(&self, name: &DatabaseName) -> Option<&Arc<Database>> {
        self.databases.get(name)
    }

    /// The names of all, in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &DatabaseName> {
        self.databases.keys()
    }

    /// What the next watch should resume after; 0 asks for a full listing.
    pub(crate) fn resume_after(&self) -> u64 {
        self.revision
    }

    /// A watch begins. What an earlier one had listed in part is forgotten.
    pub(crate) fn watch_began(&mut self) {
        self.listing = (self.revision == 0).then(BTreeMap::new);
    }

    /// The next watch lists in full, because the auth service cannot resume or other databases are asked for. What is
    /// known stays until that listing is whole.
    pub(crate) fn list_again(&mut self) {
        self.revision = 0;
    }

    /// Nothing is asked for any more. Names of what is forgotten are added to `changed`.
    pub(crate) fn forget(&mut self, changed: &mut BTreeSet<DatabaseName>) {
        self.revision = 0;
        self.listing = None;
        changed.extend(std::mem::take(&mut self.databases).into_keys());
    }

    /// Takes one message, and adds the names of databases that are other ones now to `changed`.
    ///
    /// Several changes may share a revision, so a change alone says only that the revision before it is complete.
    ///
    /// # Errors
    ///
    /// [`Misunderstood`]; the message counts as taken.
    pub(crate) fn apply(
        &mut self,
        message: v1::WatchDatabasesResponse,
        changed: &mut BTreeSet<DatabaseName>,
    ) -> Result<(), Misunderstood> {
        let (taken, complete) = match message.event {
            Some(Event::Upserted(database)) => (self.upsert(database, changed), false),
            Some(Event::Deleted(name)) => {
                self.remove(&name, changed);
                (Ok(()), false)
            }
            Some(Event::Synced(_)) => {
                if let Some(whole) = self.listing.take() {
                    self.replace(whole, changed);
                }
                (Ok(()), true)
            }
            Some(Event::Bookmark(_)) => (Ok(()), true),
            None => (Ok(()), false),
        };
        if self.listing.is_none() {
            let known = message.revision.saturating_sub(u64::from(!complete));
            self.revision = self.revision.max(known);
        }
        taken
    }

    fn upsert(
        &mut self,
        database: v1::Database,
        changed: &mut BTreeSet<DatabaseName>,
    ) -> Result<(), Misunderstood> {
        let name = database.name.clone();
        let database = match Database::try_from(database) {
            Ok(database) => Arc::new(database),
            Err(invalid) => {
                self.remove(&name, changed);
                return Err(Misunderstood { name, invalid });
            }
        };
        let name = database.name.clone();
        if let Some(listing) = &mut self.listing {
            listing.insert(name, database);
        } else if self.databases.get(&name) != Some(&database) {
            self.databases.insert(name.clone(), database);
            changed.insert(name);
        }
        Ok(())
    }

    fn remove(&mut self, name: &str, changed: &mut BTreeSet<DatabaseName>) {
        // What is no name was never taken in.
        let Ok(name) = name.parse::<DatabaseName>() else {
            return;
        };
        if let Some(listing) = &mut self.listing {
            listing.remove(&name);
        } else if self.databases.remove(&name).is_some() {
            changed.insert(name);
        }
    }

    /// Takes a whole listing for what is known. Databases that stayed the same stay the same values in memory too.
    fn replace(&mut self, mut whole: Databases, changed: &mut BTreeSet<DatabaseName>) {
        for (name, now) in &mut whole {
            match self.databases.remove(name) {
                Some(then) if *now == then => *now = then,
                _ => drop(changed.insert(name.clone())),
            }
        }
        let before = std::mem::replace(&mut self.databases, whole);
        changed.extend(before.into_keys());
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
        mirror.names().map(DatabaseName::as_str).collect()
    }

    /// The names that a message changed.
    fn take(mirror: &mut Mirror, message: v1::WatchDatabasesResponse) -> Vec<String> {
        let mut changed = BTreeSet::new();
        mirror.apply(message, &mut changed).unwrap();
        changed.into_iter().map(|name| name.to_string()).collect()
    }

    fn listed(databases: &[&str]) -> Mirror {
        let mut mirror = Mirror::default();
        mirror.watch_began();
        for name in databases {
            take(&mut mirror, upserted(1, name));
        }
        take(&mut mirror, synced(7));
        mirror
    }

    #[test]
    fn a_listing_counts_only_when_it_is_whole() {
        let mut mirror = Mirror::default();
        mirror.watch_began();
        assert!(take(&mut mirror, upserted(3, "orders")).is_empty());
        assert_eq!((names(&mirror).len(), mirror.resume_after()), (0, 0));
        assert_eq!(take(&mut mirror, synced(7)), ["orders"]);
        assert_eq!((names(&mirror), mirror.resume_after()), (vec!["orders"], 7));
    }

    #[test]
    fn changes_after_the_listing_apply_at_once_and_can_be_resumed() {
        let mut mirror = listed(&["orders"]);
        take(&mut mirror, upserted(8, "users"));
        take(&mut mirror, message(9, Event::Deleted("orders".to_owned())));
        take(&mut mirror, message(12, Event::Bookmark(v1::Bookmark {})));
        assert_eq!((names(&mirror), mirror.resume_after()), (vec!["users"], 12));
        mirror.watch_began();
        take(&mut mirror, upserted(13, "more"));
        assert_eq!(names(&mirror), ["more", "users"]);
    }

    #[test]
    fn a_watch_that_broke_off_between_changes_of_one_revision_asks_for_it_again() {
        let mut mirror = listed(&["orders"]);
        take(&mut mirror, upserted(9, "users"));
        assert_eq!(mirror.resume_after(), 8);
        take(&mut mirror, upserted(10, "more"));
        assert_eq!(mirror.resume_after(), 9);
    }

    #[test]
    fn while_history_is_listed_again_the_last_known_state_stays() {
        let mut mirror = listed(&["orders", "users"]);
        mirror.list_again();
        mirror.watch_began();
        take(&mut mirror, upserted(20, "users"));
        assert_eq!(names(&mirror), ["orders", "users"]);
        mirror.watch_began();
        take(&mut mirror, upserted(20, "users"));
        take(&mut mirror, synced(21));
        assert_eq!(names(&mirror), ["users"]);
    }

    #[test]
    fn a_database_that_cannot_be_understood_counts_as_absent() {
        let mut mirror = listed(&["orders"]);
        let mut broken: v1::Database = redshift("orders", &[]).into();
        broken.uri = "nowhere".to_owned();
        let mut changed = BTreeSet::new();
        let taken = mirror.apply(message(8, Event::Upserted(broken)), &mut changed);
        assert_eq!(taken.unwrap_err().name, "orders");
        assert_eq!(changed.len(), 1);
        assert!(names(&mirror).is_empty());
    }

    #[test]
    fn a_full_listing_changes_only_what_is_different_in_it() {
        let mut mirror = listed(&["orders", "stock", "users"]);
        mirror.list_again();
        mirror.watch_began();
        let mut moved: v1::Database = redshift("stock", &[]).into();
        moved.description = "moved".to_owned();
        take(&mut mirror, upserted(9, "orders"));
        take(&mut mirror, message(9, Event::Upserted(moved)));
        take(&mut mirror, upserted(9, "added"));
        assert_eq!(take(&mut mirror, synced(9)), ["added", "stock", "users"]);
        assert_eq!(take(&mut mirror, upserted(10, "orders")), [""; 0]);
    }

    #[test]
    fn what_nobody_asks_for_any_more_is_forgotten() {
        let mut mirror = listed(&["orders", "users"]);
        let mut changed = BTreeSet::new();
        mirror.forget(&mut changed);
        assert_eq!((changed.len(), mirror.resume_after()), (2, 0));
        assert!(names(&mirror).is_empty());
    }
}
