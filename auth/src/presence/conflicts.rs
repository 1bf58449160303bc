//! Tells once of each name that agents serve different databases by.
//!
//! Each instance tells of what the agents that announce to it change, so a conflict is told by whom it began with; the
//! agents that were there before find it when somebody looks at them (`crate::inventory::Inventory::compared`).

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use tidegate_identity::HostHolder;

use crate::{
    audit::{AuditLog, event},
    inventory::Inventory,
};

/// Conflicts that are remembered as told; past that all are forgotten, and told once more when they change.
const TOLD_MAX: usize = 10_000;

/// What was told, by database and agent.
#[derive(Debug, Default)]
pub(crate) struct Conflicts {
    told: Mutex<HashMap<(String, String), String>>,
}

impl Conflicts {
    /// Looks at databases that `host` announced or withdrew, and tells of conflicts that were not told before.
    pub(super) fn look(
        &self,
        inventory: &Inventory,
        audit: &AuditLog,
        host: &HostHolder,
        names: &[String],
    ) {
        let host_id = host.host_id.as_str();
        for name in names {
            let conflict = inventory.tables().conflict(name, host_id, |_| true);
            let Some(told) = self.news(name, host_id, conflict) else {
                continue;
            };
            tracing::warn!(
                db.name = name,
                host.id = host_id,
                host.name = host.hostname,
                conflict = told,
                "agents serve different databases by one name"
            );
            let mut event = event::new(event::DB_CONFLICT);
            event.db_service.clone_from(name);
            event.error = told;
            let fields = [("host_id", host_id), ("hostname", host.hostname.as_str())];
            event.fields.extend(
                fields
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), value.to_owned())),
            );
            audit.record(event);
        }
    }

    /// The conflict, unless there is none or just that one was told.
    fn news(&self, name: &str, host_id: &str, conflict: Option<String>) -> Option<String> {
        let key = (name.to_owned(), host_id.to_owned());
        // Whole texts: a panic elsewhere leaves none half-made.
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(conflict) = conflict else {
            told.remove(&key);
            return None;
        };
        if told.get(&key) == Some(&conflict) {
            return None;
        }
        if told.len() >= TOLD_MAX {
            told.clear();
        }
        told.insert(key, conflict.clone());
        Some(conflict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conflict_is_news_once_and_again_after_it_was_gone() {
        let conflicts = Conflicts::default();
        let news = |text: Option<&str>| {
            conflicts
                .news("orders", "h-1", text.map(str::to_owned))
                .is_some()
        };
        assert!(news(Some("b")) && !news(Some("b")));
        assert!(news(Some("c")), "another one");
        assert!(!news(None) && news(Some("c")));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let conflicts = Conflicts::default();
        for number in 0..=TOLD_MAX {
            let name = format!("db{number}");
            assert!(conflicts.news(&name, "h", Some(String::new())).is_some());
        }
        assert_eq!(conflicts.told.lock().unwrap().len(), 1);
    }
}
