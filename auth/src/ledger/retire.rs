//! Ends scopes that nobody asks for any more, and their databases with them.
//!
//! What another scope of the group sees goes to it as soon as nobody names the owner, so that a matcher that was edited
//! goes on without a gap; the rest waits.
//!
//! A scope whose group is alive but that no live worker names is over after a time of grace: [`POLLS`] of its polls, and
//! never less than [`crate::Timings::retire_grace_min`]. While no worker of the group is alive nothing ends, and the
//! time starts anew when one comes back: an outage is no wish. The time is kept in memory, so a restart of the auth
//! service starts it anew as well.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tidegate_proto::v1;
use tidegate_service::{tasks::ShutdownToken, telemetry::chain};

use super::{
    Ledger,
    plan::{self, Owner, Plan},
    step::{Fence, View, steps},
    workers::Live,
};
use crate::{
    keys,
    store::{CommitError, StoreUnavailable, Txn},
};

/// Polls without anybody naming a scope until it is over.
const POLLS: u32 = 3;
/// Looks for scopes to end within the shortest time of grace.
const LOOKS_PER_GRACE: u32 = 6;
/// Bounds of the time between two looks.
const LOOK_INTERVAL_MIN: Duration = Duration::from_millis(50);
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(10);
/// Plans made for the end of one scope while others write.
const ATTEMPTS_MAX: usize = 8;

/// A scope that owns databases or is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    group: String,
    period: Duration,
}

/// Which scopes are over now. `retiring` keeps since when each waits, as the time when it is over.
fn due(
    retiring: &mut HashMap<String, Timestamp>,
    known: &BTreeMap<String, Known>,
    live: &Live,
    now: Timestamp,
    grace_min: Duration,
) -> Vec<String> {
    let unnamed =
        |id: &str, scope: &Known| live.is_alive(&scope.group) && !live.names(&scope.group, id);
    retiring.retain(|id, _| known.get(id).is_some_and(|scope| unnamed(id, scope)));
    let mut due = Vec::new();
    for (id, scope) in known.iter().filter(|(id, scope)| unnamed(id, scope)) {
        let retires_at = *retiring.entry(id.clone()).or_insert_with(|| {
            let grace = grace_min.max(scope.period.saturating_mul(POLLS));
            let grace = SignedDuration::try_from(grace).unwrap_or(SignedDuration::MAX);
            now.saturating_add(grace).unwrap_or(Timestamp::MAX)
        });
        if retires_at <= now {
            due.push(id.clone());
        }
    }
    due
}

impl Ledger {
    /// Ends scopes that are over, until shutdown.
    pub(crate) async fn tend(&self, shutdown: ShutdownToken) {
        let interval = self.timings.retire_grace_min / LOOKS_PER_GRACE;
        let mut ticks = tokio::time::interval(interval.clamp(LOOK_INTERVAL_MIN, LOOK_INTERVAL_MAX));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            if let Some(Err(error)) = shutdown.run_until_cancelled(self.end_what_is_over()).await {
                tracing::warn!(
                    error = chain(&error),
                    "cannot look for scopes that nobody names"
                );
            }
        }
    }

    pub(super) async fn end_what_is_over(&self) -> Result<(), StoreUnavailable> {
        let known = self.known_scopes().await?;
        let live = self.live().await?;
        let now = self.clock.now();
        let (due, waiting) = {
            let retiring = &mut self.memory().retiring;
            let due = due(retiring, &known, &live, now, self.timings.retire_grace_min);
            let waits = |id: &&String| !due.contains(id);
            let waiting: Vec<String> = retiring.keys().filter(waits).cloned().collect();
            (due, waiting)
        };
        for scope_id in due {
            if let Some(scope) = known.get(&scope_id) {
                self.end(&scope_id, &scope.group).await?;
            }
        }
        for scope_id in waiting {
            if let Some(scope) = known.get(&scope_id) {
                self.pass_on(&scope_id, &scope.group).await?;
            }
        }
        Ok(())
    }

    /// Hands what other scopes of the group see over to them.
    async fn pass_on(&self, scope_id: &str, group: &str) -> Result<(), StoreUnavailable> {
        let mut heirs = self.heirs(scope_id, group, |_| true).await?;
        heirs.retain(|_, heir| heir.group == group);
        if heirs.is_empty() {
            return Ok(());
        }
        let mut plan = self.plan_end(scope_id, &heirs);
        plan.deletes.clear();
        let fence = Txn::new().absent(keys::scope_holder(scope_id));
        let steps = steps(&nobody(scope_id, group), &mut plan);
        let mut total = v1::PublishResult::default();
        match self
            .take(&steps, scope_id, Fence::new(fence), &mut total)
            .await
        {
            Ok(revision) => {
                self.inventory.reached(revision).await;
                tracing::info!(
                    scope = scope_id,
                    handed_over = total.updated,
                    "handed over the databases of a scope that no worker names any more"
                );
                Ok(())
            }
            Err(CommitError::Unavailable(unavailable)) => Err(unavailable),
            Err(error) => {
                tracing::debug!(scope = scope_id, error = %error, "handing over later");
                Ok(())
            }
        }
    }

    fn plan_end(&self, scope_id: &str, heirs: &HashMap<String, Owner>) -> Plan {
        let look = self.inventory.tables();
        let view = View {
            tables: &look,
            heirs,
        };
        plan::retire(scope_id, &view)
    }

    /// Every scope that is remembered or owns databases.
    async fn known_scopes(&self) -> Result<BTreeMap<String, Known>, StoreUnavailable> {
        let mut known = BTreeMap::new();
        for record in self.scope_records().await? {
            let period = Duration::from_secs(record.period_seconds.into());
            if let Some(scope) = record.scope {
                let period = period.max(self.period_of(&scope.id));
                let group = scope.group;
                known.insert(scope.id, Known { group, period });
            }
        }
        let look = self.inventory.tables();
        for (scope_id, row) in look.owned.scopes() {
            if !known.contains_key(scope_id) {
                let group = row.group().to_owned();
                let period = Duration::ZERO;
                known.insert(scope_id.to_owned(), Known { group, period });
            }
        }
        Ok(known)
    }

    /// Ends a scope: its databases go to whoever else sees them, or go; then what is remembered of it goes. A worker
    /// that holds it after all stops that.
    async fn end(&self, scope_id: &str, group: &str) -> Result<(), StoreUnavailable> {
        let fence = Txn::new().absent(keys::scope_holder(scope_id));
        let mut total = v1::PublishResult::default();
        for _ in 0..ATTEMPTS_MAX {
            if self.live().await?.names(group, scope_id) {
                return Ok(());
            }
            match self.try_end(scope_id, group, &fence, &mut total).await {
                Ok(revision) => {
                    self.inventory.reached(revision).await;
                    self.forget(scope_id);
                    tracing::info!(
                        scope = scope_id,
                        deleted = total.deleted,
                        handed_over = total.updated,
                        "ended a scope that no worker names any more"
                    );
                    return Ok(());
                }
                Err(CommitError::Unavailable(unavailable)) => return Err(unavailable),
                Err(error) => {
                    tracing::debug!(scope = scope_id, error = %error, "planning the end of a scope again");
                    if self
                        .store
                        .get(keys::scope_holder(scope_id))
                        .await?
                        .is_some()
                    {
                        return Ok(());
                    }
                    self.catch_up().await?;
                }
            }
        }
        tracing::warn!(
            scope = scope_id,
            "met other writers while ending a scope: going on later"
        );
        Ok(())
    }

    async fn try_end(
        &self,
        scope_id: &str,
        group: &str,
        fence: &Txn,
        total: &mut v1::PublishResult,
    ) -> Result<u64, CommitError> {
        let heirs = self.heirs(scope_id, group, |_| true).await?;
        let steps = steps(
            &nobody(scope_id, group),
            &mut self.plan_end(scope_id, &heirs),
        );
        self.take(&steps, scope_id, Fence::new(fence.clone()), total)
            .await?;
        let end = fence
            .clone()
            .delete(keys::scope(scope_id))
            .delete(keys::rescan(scope_id));
        self.store.commit(end).await
    }

    /// Nothing is remembered of a scope any more.
    pub(super) fn forget(&self, scope_id: &str) {
        let mut memory = self.memory();
        memory.attempts.remove(scope_id);
        memory.begun.remove(scope_id);
        memory.shadows.forget(scope_id);
        memory.retiring.remove(scope_id);
    }
}

/// A scope that makes nothing: what it lets go of says itself who gets it.
fn nobody(scope_id: &str, group: &str) -> Owner {
    Owner {
        scope_id: scope_id.to_owned(),
        group: group.to_owned(),
        order: 0,
        config: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(180);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn known(period: u64) -> BTreeMap<String, Known> {
        let scope = Known {
            group: "prod".to_owned(),
            period: Duration::from_secs(period),
        };
        [("s".to_owned(), scope)].into()
    }

    #[test]
    fn a_scope_that_nobody_names_is_over_after_three_of_its_polls() {
        let mut retiring = HashMap::new();
        let live = Live::with("prod", &["other"]);
        assert!(due(&mut retiring, &known(300), &live, at(0), GRACE).is_empty());
        assert_eq!(retiring["s"], at(900));
        assert!(due(&mut retiring, &known(300), &live, at(899), GRACE).is_empty());
        assert_eq!(
            due(&mut retiring, &known(300), &live, at(900), GRACE),
            ["s"]
        );
    }

    #[test]
    fn the_grace_is_never_shorter_than_its_least() {
        let mut retiring = HashMap::new();
        let live = Live::with("prod", &[]);
        due(&mut retiring, &known(1), &live, at(0), GRACE);
        assert_eq!(retiring["s"], at(180));
    }

    #[test]
    fn a_scope_that_is_named_again_waits_anew() {
        let mut retiring = HashMap::new();
        let without = Live::with("prod", &["other"]);
        due(&mut retiring, &known(1), &without, at(0), GRACE);
        due(
            &mut retiring,
            &known(1),
            &Live::with("prod", &["s"]),
            at(100),
            GRACE,
        );
        assert!(retiring.is_empty());
        assert!(due(&mut retiring, &known(1), &without, at(200), GRACE).is_empty());
        assert_eq!(retiring["s"], at(380));
    }

    #[test]
    fn while_nobody_of_the_group_is_alive_nothing_is_over() {
        let mut retiring = HashMap::new();
        let live = Live::with("prod", &["other"]);
        due(&mut retiring, &known(1), &live, at(0), GRACE);
        let nobody = Live::with("lab", &["other"]);
        assert!(due(&mut retiring, &known(1), &nobody, at(1000), GRACE).is_empty());
        assert!(due(&mut retiring, &known(1), &live, at(1001), GRACE).is_empty());
        assert_eq!(due(&mut retiring, &known(1), &live, at(1181), GRACE), ["s"]);
    }
}
