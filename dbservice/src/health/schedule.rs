//! Which database is checked when, with what each is known to be like. Pure: the time and chance are handed in.
//!
//! Databases have a place by number, and times wait in one heap of numbers, so that a database costs some hundred bytes
//! and no task. A time that no longer counts is found out when it comes up: its turn is not the place's.
//!
//! Invariant: a database that is checked has exactly one time that counts, or its check is under way. A result counts for
//! the address that was checked, and for no later one.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use tidegate_core::{
    DatabaseName, HealthCheckConfig, HealthLayer, HealthStatus, Protocol,
    health::{HealthChecks, checks_of},
};
use tokio::time::Instant;

use super::state::{Checked, State, TLS_INTERVAL, Turn};
use crate::wanted::Wanted;

/// From the start of one check of a database to that of an early one.
const EARLY_AFTER: Duration = Duration::from_secs(1);

/// Each interval is shortened by up to this part of it, so that checks spread out.
const JITTER_PART: f64 = 1.0 / 7.0;

/// A check that is to begin.
#[derive(Debug)]
pub(super) struct Due {
    /// Given back with the result.
    pub(super) ticket: Ticket,
    pub(super) wanted: Arc<Wanted>,
    pub(super) timeout: Duration,
    /// Whether TLS is part of it.
    pub(super) with_tls: bool,
}

/// Which check of which database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket {
    slot: usize,
    turn: u32,
}

/// How many databases are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Census {
    pub(crate) healthy: usize,
    pub(crate) unhealthy: usize,
    pub(crate) unknown: usize,
    pub(crate) disabled: usize,
    /// When the first of all certificates ends.
    pub(crate) certificate_ends: Option<Timestamp>,
}

/// One database.
#[derive(Debug)]
struct Slot {
    wanted: Arc<Wanted>,
    /// `None` is not at all.
    checks: Option<HealthChecks>,
    state: State,
    /// Grows whenever what waits or is under way stops to count.
    turn: u32,
    /// When its last check began.
    began: Option<Instant>,
    is_running: bool,
    /// Somebody asked for a check while one was under way.
    is_wanted_again: bool,
}

/// All databases.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    by_name: HashMap<DatabaseName, usize>,
    due: BinaryHeap<Reverse<(Instant, Ticket)>>,
}

impl Schedule {
    /// Takes over what is served and how it is to be checked; whether the cluster should hear of something.
    ///
    /// A new database, and one at another address, is checked at once. One whose configuration changed is checked within
    /// its interval, at a time drawn from all of it. Everything else keeps its time. `random` gives numbers of at least 0
    /// and below 1.
    pub(super) fn sync(
        &mut self,
        served: &[Arc<Wanted>],
        configs: &[HealthCheckConfig],
        configs_changed: bool,
        now: (Instant, Timestamp),
        mut random: impl FnMut() -> f64,
    ) -> bool {
        self.forget_all_but(served);
        let mut is_news = false;
        for wanted in served {
            let name = &wanted.database.name;
            let decide = || checks_of(configs, &wanted.database.labels).map(|found| found.checks);
            let Some(&at) = self.by_name.get(name) else {
                self.add(Arc::clone(wanted), decide(), now);
                continue;
            };
            let Some(slot) = self.slots.get_mut(at).and_then(Option::as_mut) else {
                continue;
            };
            let before = std::mem::replace(&mut slot.wanted, Arc::clone(wanted));
            let same_labels = before.database.labels == wanted.database.labels;
            if is_elsewhere(&before, wanted) {
                slot.checks = decide();
                slot.state = State::new();
                is_news = true;
                self.restart(at, now.0, now.1);
            } else if configs_changed || !same_labels {
                let checks = decide();
                if checks != slot.checks {
                    is_news |= checks.is_some() != slot.checks.is_some();
                    slot.checks = checks;
                    let after = checks.map_or(Duration::ZERO, |checks| checks.interval);
                    self.restart(at, now.0 + after.mul_f64(random()), now.1);
                }
            }
        }
        self.shrink();
        is_news
    }

    fn forget_all_but(&mut self, served: &[Arc<Wanted>]) {
        let names: HashSet<&DatabaseName> =
            served.iter().map(|wanted| &wanted.database.name).collect();
        let (slots, free) = (&mut self.slots, &mut self.free);
        self.by_name.retain(|name, at| {
            let stays = names.contains(name);
            if !stays && let Some(slot) = slots.get_mut(*at) {
                *slot = None;
                free.push(*at);
            }
            stays
        });
    }

    fn add(
        &mut self,
        wanted: Arc<Wanted>,
        checks: Option<HealthChecks>,
        now: (Instant, Timestamp),
    ) {
        let name = wanted.database.name.clone();
        let slot = Slot {
            wanted,
            checks,
            state: State::new(),
            turn: 0,
            began: None,
            is_running: false,
            is_wanted_again: false,
        };
        let at = self.free.pop().unwrap_or(self.slots.len());
        if at == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[at] = Some(slot);
        self.by_name.insert(name, at);
        self.restart(at, now.0, now.1);
    }

    /// Begins anew at a time: what waits or is under way counts no longer.
    fn restart(&mut self, at: usize, due: Instant, now: Timestamp) {
        let Some(slot) = self.slots.get_mut(at).and_then(Option::as_mut) else {
            return;
        };
        slot.turn = slot.turn.wrapping_add(1);
        (slot.is_running, slot.is_wanted_again) = (false, false);
        match (slot.checks.is_some(), slot.state.is_disabled()) {
            (false, false) => slot.state.disable(now),
            (true, true) => slot.state.enable(now),
            _ => {}
        }
        if slot.checks.is_some() {
            let ticket = Ticket {
                slot: at,
                turn: slot.turn,
            };
            self.due.push(Reverse((due, ticket)));
        }
    }

    /// Keeps the heap from growing by times that count no longer.
    fn shrink(&mut self) {
        if self.due.len() > 2 * self.by_name.len() + 64 {
            let slots = &self.slots;
            self.due.retain(|Reverse((_, ticket))| {
                slot_of(slots, *ticket).is_some_and(|slot| !slot.is_running)
            });
        }
    }

    /// When the next check is due.
    pub(super) fn next_at(&mut self) -> Option<Instant> {
        while let Some(Reverse((at, ticket))) = self.due.peek() {
            if slot_of(&self.slots, *ticket).is_some_and(|slot| !slot.is_running) {
                return Some(*at);
            }
            self.due.pop();
        }
        None
    }

    /// The next check that is due by `now`. It is under way from here on, until its result is taken.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Due> {
        if self.next_at()? > now {
            return None;
        }
        let Reverse((_, ticket)) = self.due.pop()?;
        let slot = self.slots.get_mut(ticket.slot)?.as_mut()?;
        let checks = slot.checks?;
        slot.turn = slot.turn.wrapping_add(1);
        slot.is_running = true;
        slot.began = Some(now);
        Some(Due {
            ticket: Ticket {
                turn: slot.turn,
                ..ticket
            },
            wanted: Arc::clone(&slot.wanted),
            timeout: checks.timeout,
            with_tls: slot.state.is_tls_due(),
        })
    }

    /// Takes the result of a check and plans the next; nothing when the check counts no longer.
    pub(super) fn take(
        &mut self,
        ticket: Ticket,
        checked: Checked,
        now: (Instant, Timestamp),
        mut random: impl FnMut() -> f64,
    ) -> Option<(Turn, &State, &Arc<Wanted>)> {
        let slot = self.slots.get_mut(ticket.slot)?.as_mut()?;
        if slot.turn != ticket.turn || !slot.is_running {
            return None;
        }
        let checks = slot.checks?;
        let turn = slot.state.observe(checked, &checks, random(), now.1);
        slot.is_running = false;
        let began = slot.began.unwrap_or(now.0);
        let interval = interval_after(&slot.state, &slot.wanted, &checks);
        let next = if std::mem::take(&mut slot.is_wanted_again) {
            slot.state.doubt();
            began + EARLY_AFTER
        } else {
            began + interval.mul_f64(1.0 - JITTER_PART * random())
        };
        self.due.push(Reverse((next.max(now.0), ticket)));
        Some((turn, &slot.state, &slot.wanted))
    }

    /// Checks a database soon, with TLS: a session could not connect to it. A repeat changes nothing.
    pub(super) fn doubt(&mut self, name: &DatabaseName, now: Instant) {
        let Some(&at) = self.by_name.get(name) else {
            return;
        };
        let Some(slot) = self.slots.get_mut(at).and_then(Option::as_mut) else {
            return;
        };
        if slot.checks.is_none() {
            return;
        }
        slot.state.doubt();
        if slot.is_running {
            slot.is_wanted_again = true;
            return;
        }
        let earliest = slot.began.map_or(now, |began| now.max(began + EARLY_AFTER));
        slot.turn = slot.turn.wrapping_add(1);
        let ticket = Ticket {
            slot: at,
            turn: slot.turn,
        };
        self.due.push(Reverse((earliest, ticket)));
        self.shrink();
    }

    /// What is known of a database at its present address.
    pub(super) fn state(&self, wanted: &Wanted) -> Option<&State> {
        let at = *self.by_name.get(&wanted.database.name)?;
        let slot = self.slots.get(at)?.as_ref()?;
        (!is_elsewhere(&slot.wanted, wanted)).then_some(&slot.state)
    }

    /// The same, to add to it.
    pub(super) fn state_mut(&mut self, wanted: &Wanted) -> Option<&mut State> {
        let at = *self.by_name.get(&wanted.database.name)?;
        let slot = self.slots.get_mut(at)?.as_mut()?;
        (!is_elsewhere(&slot.wanted, wanted)).then_some(&mut slot.state)
    }

    /// Counts.
    pub(super) fn census(&self) -> Census {
        let mut census = Census::default();
        for Slot { state, .. } in self.slots.iter().flatten() {
            *match (state.is_disabled(), state.status()) {
                (true, _) => &mut census.disabled,
                (_, HealthStatus::Healthy) => &mut census.healthy,
                (_, HealthStatus::Unhealthy) => &mut census.unhealthy,
                (_, HealthStatus::Unknown) => &mut census.unknown,
            } += 1;
            census.certificate_ends = [census.certificate_ends, state.certificate_not_after()]
                .into_iter()
                .flatten()
                .min();
        }
        census
    }
}

/// From one check to the next. A MySQL server shuts a host out after too many handshakes that broke off, so those whose
/// certificate was not trusted are rare.
fn interval_after(state: &State, wanted: &Wanted, checks: &HealthChecks) -> Duration {
    let broke_off = state
        .failure()
        .is_some_and(|failure| failure.layer == HealthLayer::Tls);
    match wanted.database.protocol {
        Protocol::Mysql if broke_off => checks.interval.max(TLS_INTERVAL),
        Protocol::Mysql | Protocol::Postgres => checks.interval,
    }
}

fn slot_of(slots: &[Option<Slot>], ticket: Ticket) -> Option<&Slot> {
    let slot = slots.get(ticket.slot)?.as_ref()?;
    (slot.turn == ticket.turn).then_some(slot)
}

/// Whether what was found out of the one says nothing of the other.
fn is_elsewhere(one: &Wanted, other: &Wanted) -> bool {
    let (one, other) = (&one.database, &other.database);
    one.uri != other.uri || one.protocol != other.protocol || one.tls != other.tls
}

#[cfg(test)]
mod tests {
    use tidegate_core::Selector;

    use super::*;
    use crate::{
        health::state::{Failure, Passed},
        testing,
    };

    const SECOND: Duration = Duration::from_secs(1);

    fn at(now: Instant) -> (Instant, Timestamp) {
        (now, Timestamp::from_second(1_790_000_000).unwrap())
    }

    fn preset() -> Vec<HealthCheckConfig> {
        vec![HealthCheckConfig::preset()]
    }

    fn for_env(name: &str, env: &str, interval: u64) -> HealthCheckConfig {
        HealthCheckConfig {
            name: name.to_owned(),
            db_labels: Selector::new([("env", [env])]).unwrap(),
            checks: HealthChecks {
                interval: Duration::from_secs(interval),
                ..HealthChecks::default()
            },
            ..HealthCheckConfig::preset()
        }
    }

    fn labelled(name: &str, env: &str) -> Arc<Wanted> {
        let mut wanted = Wanted::clone(&testing::wanted(name));
        wanted.database_mut().labels = [("env", env)].into_iter().collect();
        Arc::new(wanted)
    }

    /// Takes what is due at `now`, and gives every check this result.
    fn run(schedule: &mut Schedule, now: Instant, result: &Checked) -> Vec<String> {
        run_with(schedule, now, result, 0.5)
    }

    fn run_with(
        schedule: &mut Schedule,
        now: Instant,
        result: &Checked,
        random: f64,
    ) -> Vec<String> {
        let mut names = Vec::new();
        while let Some(due) = schedule.pop(now) {
            names.push(due.wanted.database.name.to_string());
            schedule.take(due.ticket, result.clone(), at(now), || random);
        }
        names.sort();
        names
    }

    fn status(schedule: &Schedule, wanted: &Wanted) -> HealthStatus {
        schedule.state(wanted).unwrap().status()
    }

    #[tokio::test(start_paused = true)]
    async fn new_databases_are_checked_at_once_and_then_at_their_interval_less_a_part() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        let served = [labelled("orders", "prod"), labelled("users", "dev")];
        schedule.sync(&served, &preset(), true, at(now), || 0.5);
        assert_eq!(
            run(&mut schedule, now, &Ok(Passed::Tcp)),
            ["orders", "users"]
        );
        let next = schedule.next_at().unwrap();
        let expected = 30.0 * (1.0 - JITTER_PART / 2.0);
        assert!((next - now).as_secs_f64() - expected < 0.01);
        assert!(schedule.pop(next - SECOND).is_none());
        assert_eq!(run(&mut schedule, next, &Ok(Passed::Tcp)).len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_configuration_touches_only_what_it_matches() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        let served = [labelled("orders", "prod"), labelled("users", "dev")];
        schedule.sync(&served, &preset(), true, at(now), || 0.0);
        run(&mut schedule, now, &Ok(Passed::Tcp));

        let configs = [HealthCheckConfig::preset(), for_env("a", "prod", 10)];
        schedule.sync(&served, &configs, true, at(now + SECOND), || 0.5);
        assert_eq!(schedule.next_at(), Some(now + SECOND * 6));
        assert_eq!(
            run(&mut schedule, now + SECOND * 6, &Ok(Passed::Tcp)),
            ["orders"]
        );
        assert_eq!(
            run(&mut schedule, now + SECOND * 30, &Ok(Passed::Tcp)),
            ["orders", "users"]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_no_configuration_matches_is_unknown_and_not_checked_until_one_does() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        let orders = labelled("orders", "prod");
        let served = std::slice::from_ref(&orders);
        schedule.sync(served, &preset(), true, at(now), || 0.0);
        run(&mut schedule, now, &Ok(Passed::Tcp));
        assert_eq!(status(&schedule, &orders), HealthStatus::Healthy);

        assert!(schedule.sync(served, &[for_env("a", "dev", 10)], true, at(now), || 0.0));
        assert_eq!(schedule.next_at(), None);
        assert_eq!(status(&schedule, &orders), HealthStatus::Unknown);
        assert_eq!(schedule.census().disabled, 1);

        assert!(schedule.sync(served, &[for_env("a", "prod", 10)], true, at(now), || 0.5));
        assert_eq!(schedule.next_at(), Some(now + SECOND * 5));
        assert_eq!(schedule.census().unknown, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn labels_that_change_choose_another_configuration() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        let configs = [for_env("a", "prod", 10)];
        schedule.sync(
            &[labelled("orders", "dev")],
            &configs,
            true,
            at(now),
            || 0.0,
        );
        assert_eq!(schedule.next_at(), None);
        schedule.sync(
            &[labelled("orders", "prod")],
            &configs,
            false,
            at(now),
            || 0.0,
        );
        assert_eq!(schedule.next_at(), Some(now));
    }

    #[tokio::test(start_paused = true)]
    async fn a_result_from_an_old_address_says_nothing_of_the_new_one() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        let orders = labelled("orders", "prod");
        schedule.sync(
            std::slice::from_ref(&orders),
            &preset(),
            true,
            at(now),
            || 0.0,
        );
        let due = schedule.pop(now).unwrap();
        let mut moved = Wanted::clone(&orders);
        moved.database_mut().uri = "elsewhere:1".parse().unwrap();
        let moved = Arc::new(moved);
        assert!(schedule.sync(
            std::slice::from_ref(&moved),
            &preset(),
            false,
            at(now),
            || 0.0
        ));

        let taken = schedule.take(due.ticket, Ok(Passed::Tcp), at(now), || 0.0);
        assert!(taken.is_none());
        assert_eq!(status(&schedule, &moved), HealthStatus::Unknown);
        assert!(schedule.state(&orders).is_none());
        let due = schedule.pop(now).unwrap();
        assert_eq!(due.wanted.database.uri, moved.database.uri);
    }

    #[tokio::test(start_paused = true)]
    async fn a_database_that_went_and_came_back_begins_anew() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        let orders = labelled("orders", "prod");
        let served = std::slice::from_ref(&orders);
        schedule.sync(served, &preset(), true, at(now), || 0.0);
        let due = schedule.pop(now).unwrap();
        schedule.sync(&[], &preset(), false, at(now), || 0.0);
        schedule.sync(served, &preset(), false, at(now), || 0.0);
        schedule.take(due.ticket, Ok(Passed::Tcp), at(now), || 0.0);
        assert_eq!(run(&mut schedule, now, &Ok(Passed::Tcp)), ["orders"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_could_not_connect_brings_a_check_forward_once_a_second() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        let orders = labelled("orders", "prod");
        schedule.sync(
            std::slice::from_ref(&orders),
            &preset(),
            true,
            at(now),
            || 0.0,
        );
        run(&mut schedule, now, &Ok(Passed::Tls(None)));
        for _ in 0..1000 {
            schedule.doubt(&orders.database.name, now);
        }
        assert!(schedule.due.len() < 100, "{}", schedule.due.len());
        assert_eq!(schedule.next_at(), Some(now + EARLY_AFTER));

        let due = schedule.pop(now + EARLY_AFTER).unwrap();
        assert!(due.with_tls);
        schedule.doubt(&orders.database.name, now + EARLY_AFTER);
        assert_eq!(schedule.next_at(), None);
        let refused = Err(Failure::new(HealthLayer::Tcp, "refused"));
        let soon = now + EARLY_AFTER;
        schedule.take(due.ticket, refused, at(soon), || 0.0);
        assert_eq!(schedule.next_at(), Some(soon + EARLY_AFTER));
    }

    #[tokio::test(start_paused = true)]
    async fn broken_handshakes_with_mysql_are_kept_apart() {
        for (protocol, seconds) in [(Protocol::Postgres, 30), (Protocol::Mysql, 300)] {
            let (mut schedule, now) = (Schedule::default(), Instant::now());
            let mut orders = Wanted::clone(&labelled("orders", "prod"));
            orders.database_mut().protocol = protocol;
            schedule.sync(&[Arc::new(orders)], &preset(), true, at(now), || 0.0);
            let untrusted = Err(Failure::new(HealthLayer::Tls, "unknown issuer"));
            run_with(&mut schedule, now, &untrusted, 0.0);
            assert_eq!(schedule.next_at(), Some(now + SECOND * seconds));
        }
    }
}
