//! Whether this agent reaches its databases, layer by layer, at intervals.
//!
//! The cluster's `health_check_config` resources say which database is checked how ([`configs`]). A check resolves the
//! name, connects to every address and, some minutes apart, makes the TLS handshake that sessions make ([`probe`]). What
//! results come to is decided in [`state`], and when the next check is due in [`schedule`]; both are pure.
//!
//! Credentials and login are not tried: that would cost AWS calls, and a process in the database, for nothing anybody
//! asked for. People's own sessions show how they fare. A session that cannot connect brings the next check forward.
//!
//! What must hold: checks never cost more than a fixed rate, whatever fails; a check sends nothing to a database whose
//! certificate was not verified, and no password to anyone.
//!
//! Not here: telling the cluster ([`crate::presence`]), and choosing between agents (the proxy).

pub(crate) mod configs;
#[cfg(test)]
mod mariadb_tests;
mod mysql;
mod news;
pub(crate) mod probe;
mod schedule;
mod state;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tidegate_core::{HealthLayer, TargetHealth};
use tidegate_identity::secret;
use tidegate_service::{clock::SharedClock, tasks::ShutdownToken};
use tokio::{
    sync::{Notify, watch},
    task::{JoinError, JoinSet},
    time::{Instant, MissedTickBehavior, sleep_until},
};

use crate::{
    audit::AuditQueue,
    metrics::{Cause, HealthMetrics},
    served::ServedSet,
    wanted::Wanted,
};
use configs::Configs;
use news::News;
use probe::Prober;
pub(crate) use schedule::Census;
use schedule::{Due, Schedule, Ticket};
use state::{Checked, State};

/// Checks under way at once.
const CHECKS_MAX: usize = 256;
/// Checks that begin together, at most every [`STARTS_EVERY`]: 500 a second.
const STARTS_MAX: usize = 10;
const STARTS_EVERY: Duration = Duration::from_millis(20);
/// How often metrics are brought up to date, and what was held back is told.
const TICK: Duration = Duration::from_secs(1);

/// The health of every database that is served.
#[derive(Debug)]
pub(crate) struct Health {
    schedule: Mutex<Schedule>,
    changed: watch::Sender<u64>,
    /// Wakes the checker: something is due earlier than it knew.
    hurry: Notify,
}

impl Health {
    /// Nothing is known.
    pub(crate) fn new() -> Self {
        Self {
            schedule: Mutex::default(),
            changed: watch::Sender::new(0),
            hurry: Notify::new(),
        }
    }

    /// What is known of a database.
    pub(crate) fn of(&self, wanted: &Wanted) -> TargetHealth {
        let address = &wanted.database.uri;
        self.schedule()
            .state(wanted)
            .map_or_else(|| State::new().told(address), |state| state.told(address))
    }

    /// Tells of changes; the value only counts them.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// A session could not connect to the database: it is checked at once. May be called at any rate.
    pub(crate) fn doubt(&self, wanted: &Wanted) {
        self.schedule().doubt(&wanted.database.name, Instant::now());
        self.hurry.notify_one();
    }

    /// A session was let in.
    pub(crate) fn session_began(&self, wanted: &Wanted, now: Timestamp) {
        self.hear(
            wanted,
            &[(HealthLayer::Credential, true), (HealthLayer::Login, true)],
            now,
        );
    }

    /// A session was not let in, for this reason.
    pub(crate) fn session_failed(&self, wanted: &Wanted, cause: Cause, now: Timestamp) {
        match cause {
            Cause::Credentials => self.hear(wanted, &[(HealthLayer::Credential, false)], now),
            Cause::DatabaseRefused => self.hear(
                wanted,
                &[(HealthLayer::Credential, true), (HealthLayer::Login, false)],
                now,
            ),
            Cause::DatabaseUnavailable if wanted.database.unavailable.is_empty() => {
                self.doubt(wanted);
            }
            _ => {}
        }
    }

    fn hear(&self, wanted: &Wanted, heard: &[(HealthLayer, bool)], now: Timestamp) {
        if let Some(state) = self.schedule().state_mut(wanted) {
            for (layer, passed) in heard {
                state.hear(*layer, *passed, now);
            }
        }
    }

    fn tell(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        // Nothing in it calls out, so a panic under the lock is a fault that the task's supervisor reports; what is
        // left is usable, since results only count for the turn they belong to.
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes checks when they are due.
pub(crate) struct Checker {
    served: Arc<ServedSet>,
    health: Arc<Health>,
    configs: watch::Receiver<Arc<Vec<tidegate_core::HealthCheckConfig>>>,
    prober: Arc<Prober>,
    metrics: HealthMetrics,
    news: News,
    clock: SharedClock,
}

type Running = JoinSet<(Ticket, Checked)>;

impl Checker {
    /// One that checks nothing yet.
    pub(crate) fn new(
        served: Arc<ServedSet>,
        health: Arc<Health>,
        configs: &Configs,
        prober: Prober,
        metrics: HealthMetrics,
        audit: AuditQueue,
        clock: SharedClock,
    ) -> Self {
        Self {
            served,
            health,
            configs: configs.changes(),
            prober: Arc::new(prober),
            metrics,
            news: News::new(audit, Instant::now()),
            clock,
        }
    }

    /// Checks every database that is served until shutdown.
    pub(crate) async fn run(mut self, shutdown: ShutdownToken) {
        let mut served = self.served.changes();
        let mut configs = self.configs.clone();
        let mut running = Running::new();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut not_before = Instant::now();
        self.sync(true);
        loop {
            let next = match running.len() {
                CHECKS_MAX.. => None,
                _ => self.health.schedule().next_at(),
            };
            let next_due = async {
                match next {
                    Some(at) => sleep_until(at.max(not_before)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = served.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.sync(false);
                }
                changed = configs.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.sync(true);
                }
                Some(done) = running.join_next() => self.take(done),
                () = self.health.hurry.notified() => {}
                () = next_due => {
                    let now = Instant::now();
                    not_before = now + STARTS_EVERY;
                    self.start_due(&mut running, now);
                }
                _ = tick.tick() => self.keep_house(),
            }
        }
    }

    fn now(&self) -> (Instant, Timestamp) {
        (Instant::now(), self.clock.now())
    }

    fn sync(&mut self, configs_changed: bool) {
        let configs = Arc::clone(&self.configs.borrow_and_update());
        let served = self.served.all();
        let is_news =
            self.health
                .schedule()
                .sync(&served, &configs, configs_changed, self.now(), random);
        if is_news {
            self.health.tell();
        }
    }

    fn start_due(&self, running: &mut Running, now: Instant) {
        for _ in 0..STARTS_MAX.min(CHECKS_MAX.saturating_sub(running.len())) {
            let Some(due) = self.health.schedule().pop(now) else {
                return;
            };
            let prober = Arc::clone(&self.prober);
            running.spawn(async move {
                let Due {
                    ticket,
                    wanted,
                    timeout,
                    with_tls,
                } = due;
                let checked = prober.check(&wanted.database, timeout, with_tls).await;
                (ticket, checked)
            });
        }
    }

    fn take(&mut self, done: Result<(Ticket, Checked), JoinError>) {
        let (ticket, checked) = match done {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                // A check that panicked is a fault of ours, and its database would never be checked again.
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => return,
            },
        };
        let now = self.now();
        let health = Arc::clone(&self.health);
        let mut schedule = health.schedule();
        let Some((turn, state, wanted)) = schedule.take(ticket, checked, now, random) else {
            return;
        };
        if let Some(from) = turn.from {
            self.news.tell(wanted, state, from, now);
        }
        if let Some(days) = turn.certificate_days {
            self.news.tell_certificate(wanted, days, now.0);
        }
        if turn.is_news {
            health.tell();
        }
    }

    fn keep_house(&mut self) {
        self.news.flush(self.now());
        let census = self.health.schedule().census();
        self.metrics.take(&census);
    }
}

/// A number of at least 0 and below 1. Without chance everything happens in the middle.
fn random() -> f64 {
    secret::random_bytes::<4>().map_or(0.5, |bytes| {
        f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
    })
}

#[cfg(test)]
mod tests {
    use tidegate_core::HealthStatus;

    use super::*;
    use crate::testing::wanted;

    fn now() -> Timestamp {
        Timestamp::from_second(1_790_000_000).unwrap()
    }

    fn health_of(wanted: &Arc<Wanted>) -> Health {
        let health = Health::new();
        health.schedule().sync(
            std::slice::from_ref(wanted),
            &[tidegate_core::HealthCheckConfig::preset()],
            true,
            (Instant::now(), now()),
            || 0.0,
        );
        health
    }

    /// Gives the check that is due this result.
    fn check(health: &Health, checked: Checked) {
        let mut schedule = health.schedule();
        let at = schedule.next_at().unwrap();
        let due = schedule.pop(at).unwrap();
        schedule.take(due.ticket, checked, (at, now()), || 0.0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_cannot_connect_brings_a_check_forward_and_others_do_not() {
        let orders = wanted("orders");
        let health = health_of(&orders);
        check(&health, Ok(state::Passed::Tls(None)));
        let regular = health.schedule().next_at().unwrap();

        health.session_failed(&orders, Cause::Denied, now());
        assert_eq!(health.schedule().next_at(), Some(regular));
        health.session_failed(&orders, Cause::DatabaseUnavailable, now());
        let early = health.schedule().next_at().unwrap();
        assert!(early < Instant::now() + Duration::from_secs(2));
        health.doubt(&wanted("unheard-of"));
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_tell_of_credentials_and_logins() {
        let orders = wanted("orders");
        let health = health_of(&orders);
        let told = |cause: Option<Cause>| {
            match cause {
                Some(cause) => health.session_failed(&orders, cause, now()),
                None => health.session_began(&orders, now()),
            }
            check(&health, Ok(state::Passed::Tcp));
            let health = health.of(&orders);
            let passed = |saw: Option<tidegate_core::SessionsSaw>| saw.map(|saw| saw.passed);
            assert_eq!(health.status, HealthStatus::Healthy);
            (passed(health.credential), passed(health.login))
        };
        assert_eq!(told(Some(Cause::Credentials)), (Some(false), None));
        assert_eq!(told(None), (Some(true), Some(true)));
        assert_eq!(
            told(Some(Cause::DatabaseRefused)),
            (Some(true), Some(false))
        );
        assert_eq!(told(Some(Cause::Denied)), (Some(true), Some(false)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_database_that_is_not_known_yet_is_unknown() {
        let orders = wanted("orders");
        let health = Health::new();
        assert_eq!(health.of(&orders).status, HealthStatus::Unknown);
        assert_eq!(health.of(&orders).address, orders.database.uri.to_string());
    }
}
