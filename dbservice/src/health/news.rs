//! How changes of health are told: in the log, and as audit events, within a budget.
//!
//! When a network fails, thousands of databases turn at once. So many changes are told one by one, and beyond that they
//! are counted and told together, once a minute. Pure, except for [`News::tell`] and [`News::flush`].

use std::time::Duration;

use jiff::Timestamp;
use tidegate_core::{DatabaseName, HealthStatus};
use tokio::time::Instant;
use tracing::{info, warn};

use super::state::State;
use crate::{
    audit::{self, AuditQueue, Kind, Subject},
    wanted::Wanted,
};

/// Changes that may be told one by one in a row.
const TOLD_MAX: u32 = 20;
/// From one change that is told by itself to the next, once those are used up.
const TOLD_EVERY: Duration = Duration::from_secs(3);
/// How long changes are counted before they are told together.
const TOGETHER_EVERY: Duration = Duration::from_mins(1);
/// Databases that are named among those that are told together.
const NAMES_MAX: usize = 10;

/// Changes that are told together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counted {
    unhealthy: u64,
    healthy: u64,
    names: Vec<DatabaseName>,
}

/// What was told lately, and what is still to be told.
#[derive(Debug)]
pub(super) struct News {
    audit: AuditQueue,
    turns: Budget,
    certificates: Budget,
}

/// Decides which changes are told by themselves.
#[derive(Debug)]
struct Budget {
    left: u32,
    refilled: Instant,
    counted: Counted,
    counted_since: Option<Instant>,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self {
            left: TOLD_MAX,
            refilled: now,
            counted: Counted::default(),
            counted_since: None,
        }
    }

    /// Whether a change may be told by itself; otherwise it is counted.
    fn allows(&mut self, name: &DatabaseName, status: HealthStatus, now: Instant) -> bool {
        while self.left < TOLD_MAX && self.refilled + TOLD_EVERY <= now {
            self.left += 1;
            self.refilled += TOLD_EVERY;
        }
        if self.left == TOLD_MAX {
            self.refilled = now;
        }
        if let Some(left) = self.left.checked_sub(1) {
            self.left = left;
            return true;
        }
        self.counted_since.get_or_insert(now);
        match status {
            HealthStatus::Healthy => self.counted.healthy += 1,
            HealthStatus::Unhealthy | HealthStatus::Unknown => self.counted.unhealthy += 1,
        }
        if self.counted.names.len() < NAMES_MAX {
            self.counted.names.push(name.clone());
        }
        false
    }

    /// What was counted, once it was counted for long enough.
    fn together(&mut self, now: Instant) -> Option<Counted> {
        if now < self.counted_since? + TOGETHER_EVERY {
            return None;
        }
        self.counted_since = None;
        Some(std::mem::take(&mut self.counted))
    }
}

impl News {
    /// Nothing was told.
    pub(super) fn new(audit: AuditQueue, now: Instant) -> Self {
        Self {
            audit,
            turns: Budget::new(now),
            certificates: Budget::new(now),
        }
    }

    /// Tells that a status is another one than `from`. That a new database is healthy is not worth an event.
    pub(super) fn tell(
        &mut self,
        wanted: &Wanted,
        state: &State,
        from: HealthStatus,
        now: (Instant, Timestamp),
    ) {
        if (from, state.status()) == (HealthStatus::Unknown, HealthStatus::Healthy) {
            return;
        }
        let database = &wanted.database;
        if !self.turns.allows(&database.name, state.status(), now.0) {
            return;
        }
        let failure = state.failure();
        let error = failure
            .map(|failure| failure.error.clone())
            .unwrap_or_default();
        let layer = failure.map_or("", |failure| failure.layer.as_str());
        let kind = match state.status() {
            HealthStatus::Unhealthy => {
                warn!(db.name = %database.name, layer, error, "a database is unhealthy");
                Kind::Unhealthy
            }
            HealthStatus::Healthy | HealthStatus::Unknown => {
                info!(db.name = %database.name, "a database is healthy");
                Kind::Healthy
            }
        };
        let subject = Subject {
            db_service: database.name.to_string(),
            ..Subject::default()
        };
        self.audit.try_put(|| {
            let mut event = audit::event(kind, &subject, now.1);
            event.error = error;
            let mut fact = |name: &str, value: &str| {
                if !value.is_empty() {
                    event.fields.insert(name.to_owned(), value.to_owned());
                }
            };
            fact("address", &database.uri.to_string());
            fact("db_protocol", database.protocol.as_str());
            fact("layer", layer);
            fact("previous_status", word(from));
            fact("status", word(state.status()));
            event
        });
    }

    /// Tells that a database's certificate ends in so many days.
    pub(super) fn tell_certificate(&mut self, wanted: &Wanted, days: i64, now: Instant) {
        let name = &wanted.database.name;
        if self.certificates.allows(name, HealthStatus::Unhealthy, now) {
            warn!(db.name = %name, days, "the certificate of a database ends soon: renew it");
        }
    }

    /// Tells together what was not told by itself, when it is time.
    pub(super) fn flush(&mut self, now: (Instant, Timestamp)) {
        if let Some(counted) = self.certificates.together(now.0) {
            warn!(
                databases = counted.unhealthy,
                "the certificates of further databases end soon"
            );
        }
        let Some(counted) = self.turns.together(now.0) else {
            return;
        };
        let names: Vec<&str> = counted.names.iter().map(DatabaseName::as_str).collect();
        let names = names.join(",");
        warn!(
            unhealthy = counted.unhealthy,
            healthy = counted.healthy,
            databases = names,
            "the health of many databases changed; the first are named"
        );
        self.audit.try_put(|| {
            let mut event = audit::event(Kind::HealthOfMany, &Subject::default(), now.1);
            event.fields.extend(
                [
                    ("turned_unhealthy", counted.unhealthy.to_string()),
                    ("turned_healthy", counted.healthy.to_string()),
                    ("databases", names),
                ]
                .map(|(name, value)| (name.to_owned(), value)),
            );
            event
        });
    }
}

const fn word(status: HealthStatus) -> &'static str {
    match status {
        HealthStatus::Healthy => "healthy",
        HealthStatus::Unhealthy => "unhealthy",
        HealthStatus::Unknown => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> DatabaseName {
        format!("db-{number}").parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_beyond_the_budget_is_counted_and_told_once_a_minute() {
        let begun = Instant::now();
        let mut budget = Budget::new(begun);
        let told = (0..5000)
            .filter(|number| budget.allows(&name(*number), HealthStatus::Unhealthy, begun))
            .count();
        assert_eq!(told, TOLD_MAX as usize);
        assert_eq!(budget.together(begun + TOGETHER_EVERY / 2), None);
        let counted = budget.together(begun + TOGETHER_EVERY).unwrap();
        assert_eq!(counted.unhealthy, 5000 - u64::from(TOLD_MAX));
        assert_eq!(counted.names.len(), NAMES_MAX);
        assert_eq!(budget.together(begun + TOGETHER_EVERY * 9), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_budget_comes_back_over_time_and_not_above_its_bound() {
        let begun = Instant::now();
        let mut budget = Budget::new(begun);
        let mut told = |count: usize, now| {
            (0..count)
                .filter(|number| budget.allows(&name(*number), HealthStatus::Healthy, now))
                .count()
        };
        assert_eq!(told(100, begun), 20);
        assert_eq!(told(100, begun + TOLD_EVERY), 1);
        assert_eq!(told(100, begun + TOLD_EVERY * 1000), 20);
        assert_eq!(told(100, begun + TOLD_EVERY * 1001), 1);
    }
}
