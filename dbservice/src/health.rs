//! Whether this agent reaches its databases: a light TCP connect to each, at intervals.
//!
//! The first result decides at once; later a database counts as unhealthy after one failure and as healthy after two
//! successes, so that one that flaps is left alone. A connect proves reachability and no more: TLS, credentials and
//! login have their own failures.
//!
//! [`State::observe`] is pure; [`check_all`] dials and waits.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tidegate_core::{DatabaseName, HealthStatus, TargetHealth, Uri};
use tidegate_identity::secret;
use tidegate_service::{clock::SharedClock, tasks::ShutdownToken};
use tokio::{
    net::TcpStream,
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tracing::{info, warn};

use crate::{served::ServedSet, wanted::Wanted};

/// From the start of one check of a database to the next, before jitter.
const INTERVAL: Duration = Duration::from_secs(30);
/// Each interval is shortened by up to this, so that checks spread out.
const JITTER_MAX: Duration = Duration::from_secs(5);
/// How long a connect may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);
/// Checks under way at once.
const CHECKS_MAX: usize = 10;
/// Successes in a row after which a database is healthy again.
const HEALTHY_THRESHOLD: u32 = 2;
/// Failures in a row after which a database is unhealthy.
const UNHEALTHY_THRESHOLD: u32 = 1;

/// What checks of one address have shown.
#[derive(Clone, Debug, PartialEq)]
struct State {
    health: TargetHealth,
    /// Results in a row that speak against the present status.
    against: u32,
}

impl State {
    fn new(uri: &Uri) -> Self {
        Self {
            health: TargetHealth {
                address: uri.to_string(),
                protocol: "TCP".to_owned(),
                status: HealthStatus::Unknown,
                transition_timestamp: None,
                transition_reason: "initialized".to_owned(),
                transition_error: String::new(),
                message: "not checked yet".to_owned(),
            },
            against: 0,
        }
    }

    /// Takes one result; whether the status changed.
    fn observe(&mut self, result: Result<(), String>, now: Timestamp) -> bool {
        let (status, threshold) = match &result {
            Ok(()) => (HealthStatus::Healthy, HEALTHY_THRESHOLD),
            Err(_) => (HealthStatus::Unhealthy, UNHEALTHY_THRESHOLD),
        };
        if status == self.health.status {
            self.against = 0;
            return false;
        }
        self.against += 1;
        if self.health.status != HealthStatus::Unknown && self.against < threshold {
            return false;
        }
        self.health = TargetHealth {
            status,
            transition_timestamp: Some(now),
            transition_reason: "threshold_reached".to_owned(),
            message: match &result {
                Ok(()) => format!("{} connect passed", self.against),
                Err(_) => format!("{} connect failed", self.against),
            },
            transition_error: result.err().unwrap_or_default(),
            ..std::mem::take(&mut self.health)
        };
        self.against = 0;
        true
    }
}

/// The health of every database that is served.
#[derive(Debug)]
pub(crate) struct Health {
    states: Mutex<HashMap<DatabaseName, State>>,
    changed: watch::Sender<u64>,
}

impl Health {
    /// Nothing is known.
    pub(crate) fn new() -> Self {
        Self {
            states: Mutex::default(),
            changed: watch::Sender::new(0),
        }
    }

    /// What is known of a database.
    pub(crate) fn of(&self, wanted: &Wanted) -> TargetHealth {
        self.lock()
            .get(&wanted.database.name)
            .filter(|state| state.health.address == wanted.database.uri.to_string())
            .map_or_else(
                || State::new(&wanted.database.uri).health,
                |state| state.health.clone(),
            )
    }

    /// Tells of changes; the value only counts them.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn observe(&self, wanted: &Wanted, result: Result<(), String>, now: Timestamp) {
        let database = &wanted.database;
        let mut states = self.lock();
        let state = states
            .entry(database.name.clone())
            .or_insert_with(|| State::new(&database.uri));
        if state.health.address != database.uri.to_string() {
            *state = State::new(&database.uri);
        }
        if !state.observe(result, now) {
            return;
        }
        match state.health.status {
            HealthStatus::Unhealthy => {
                warn!(db.name = %database.name, error = state.health.transition_error, "a database cannot be reached");
            }
            _ => info!(db.name = %database.name, "a database can be reached"),
        }
        drop(states);
        self.changed.send_modify(|count| *count += 1);
    }

    fn forget_all_but(&self, served: &[Arc<Wanted>]) {
        let names: HashSet<&DatabaseName> =
            served.iter().map(|wanted| &wanted.database.name).collect();
        self.lock().retain(|name, _| names.contains(name));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DatabaseName, State>> {
        // Each state is replaced as a whole: a panic elsewhere leaves none half-made.
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks every database that is served until shutdown; new ones at once.
pub(crate) async fn check_all(
    served: Arc<ServedSet>,
    health: Arc<Health>,
    clock: SharedClock,
    shutdown: ShutdownToken,
) {
    let mut changes = served.changes();
    let mut due: BTreeMap<(Instant, DatabaseName), Arc<Wanted>> = BTreeMap::new();
    let mut running = JoinSet::new();
    reschedule(&mut due, &served, &health);
    loop {
        let has_room = running.len() < CHECKS_MAX;
        let next_at = due.keys().next().map(|(at, _)| *at);
        let next_due = async {
            match next_at {
                Some(at) if has_room => sleep_until(at).await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
                reschedule(&mut due, &served, &health);
            }
            Some(_) = running.join_next() => {}
            () = next_due => {
                if let Some(((_, name), wanted)) = due.pop_first() {
                    due.insert((Instant::now() + interval(), name), Arc::clone(&wanted));
                    let (health, clock) = (Arc::clone(&health), Arc::clone(&clock));
                    running.spawn(async move {
                        let result = connect(&wanted.database.uri).await;
                        health.observe(&wanted, result, clock.now());
                    });
                }
            }
        }
    }
}

/// Keeps the times of databases whose address stayed, checks the others now, and forgets what is gone.
fn reschedule(
    due: &mut BTreeMap<(Instant, DatabaseName), Arc<Wanted>>,
    served: &ServedSet,
    health: &Health,
) {
    let all = served.all();
    health.forget_all_but(&all);
    let times: HashMap<DatabaseName, (Instant, Uri)> = std::mem::take(due)
        .into_iter()
        .map(|((at, name), wanted)| (name, (at, wanted.database.uri.clone())))
        .collect();
    for wanted in all {
        let at = match times.get(&wanted.database.name) {
            Some((at, uri)) if *uri == wanted.database.uri => *at,
            _ => Instant::now(),
        };
        due.insert((at, wanted.database.name.clone()), wanted);
    }
}

/// The interval less a random part.
fn interval() -> Duration {
    let random = secret::random_bytes::<4>().map_or(0, u32::from_le_bytes);
    INTERVAL - JITTER_MAX.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

async fn connect(uri: &Uri) -> Result<(), String> {
    match timeout(CHECK_TIMEOUT, TcpStream::connect((uri.host(), uri.port()))).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer in {} s", CHECK_TIMEOUT.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::wanted;

    fn now() -> Timestamp {
        Timestamp::from_second(1_790_000_000).unwrap()
    }

    fn state() -> State {
        State::new(&"h:1".parse().unwrap())
    }

    #[test]
    fn the_first_result_decides_at_once() {
        let mut state = state();
        assert!(state.observe(Ok(()), now()));
        assert_eq!(state.health.status, HealthStatus::Healthy);
        assert_eq!(state.health.transition_timestamp, Some(now()));
        assert_eq!(state.health.transition_reason, "threshold_reached");
    }

    #[test]
    fn one_failure_makes_unhealthy_and_two_successes_healthy_again() {
        let mut state = state();
        state.observe(Ok(()), now());
        assert!(state.observe(Err("refused".to_owned()), now()));
        assert_eq!(
            (state.health.status, state.health.transition_error.as_str()),
            (HealthStatus::Unhealthy, "refused")
        );
        assert!(!state.observe(Ok(()), now()));
        assert!(!state.observe(Err("refused".to_owned()), now()));
        assert!(!state.observe(Ok(()), now()));
        assert!(state.observe(Ok(()), now()));
        assert_eq!(state.health.status, HealthStatus::Healthy);
        assert!(state.health.transition_error.is_empty());
    }

    #[test]
    fn what_is_known_of_an_old_address_is_not_said_of_a_new_one() {
        let health = Health::new();
        let orders = wanted("orders");
        health.observe(&orders, Ok(()), now());
        assert_eq!(health.of(&orders).status, HealthStatus::Healthy);

        let mut moved = Wanted::clone(&orders);
        moved.database_mut().uri = "elsewhere:1".parse().unwrap();
        assert_eq!(health.of(&moved).status, HealthStatus::Unknown);
    }

    #[tokio::test]
    async fn a_listening_port_passes_and_a_closed_one_fails() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri: Uri = listener.local_addr().unwrap().to_string().parse().unwrap();
        assert_eq!(connect(&uri).await, Ok(()));
        drop(listener);
        assert!(connect(&uri).await.is_err());
    }
}
