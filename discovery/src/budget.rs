//! How many calls to AWS a worker makes in one account and region.
//!
//! AWS counts calls per account, region and service, over everybody who works there; a scan must not crowd out
//! people and deployments. A [`Budget`] holds a token bucket for each service of one account and region: it fills at
//! [`CALLS_PER_SECOND`] and holds [`BURST_CALLS_MAX`]. A scan that was throttled halves the rate, down to
//! [`CALLS_PER_SECOND_MIN`]; each that was not wins a little of it back.
//!
//! A scan starts when there is a token, and is charged with the calls that it turned out to make: a long list puts
//! the bucket into debt, and the next scan there waits. [`Budget::take`] is for calls outside of scans.
//!
//! Not here: how a single call is repeated when AWS throttles it (`tidegate-aws`).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tidegate_core::{AccountId, AssumeRole, DatabaseKind, Region};
use tokio::time::{Instant, sleep_until};

/// Calls a second to one service in one account and region, as long as AWS does not throttle.
pub(crate) const CALLS_PER_SECOND: f64 = 5.0;
/// The least that throttling brings it down to.
pub(crate) const CALLS_PER_SECOND_MIN: f64 = 0.25;
/// Calls that may follow each other at once after a pause.
pub(crate) const BURST_CALLS_MAX: f64 = 10.0;
/// What a scan that was not throttled adds to a lowered rate.
const RECOVERY_PER_SCAN: f64 = 0.25;
/// Longest time that one scan's calls may keep the next one waiting.
const DEBT_MAX: Duration = Duration::from_secs(60);

/// The service that AWS counts calls to databases of this kind for.
pub(crate) const fn service(kind: DatabaseKind) -> &'static str {
    match kind {
        DatabaseKind::Rds | DatabaseKind::Rdsproxy => "rds",
        DatabaseKind::Redshift => "redshift",
        DatabaseKind::RedshiftServerless => "redshift-serverless",
    }
}

#[derive(Debug)]
struct Bucket {
    /// Below zero: calls that were made ahead of the rate.
    tokens: f64,
    per_second: f64,
    filled: Instant,
}

impl Bucket {
    const fn new(now: Instant) -> Self {
        Self {
            tokens: BURST_CALLS_MAX,
            per_second: CALLS_PER_SECOND,
            filled: now,
        }
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = passed
            .mul_add(self.per_second, self.tokens)
            .min(BURST_CALLS_MAX);
        self.filled = self.filled.max(now);
    }

    /// Takes one token, or says when there will be one.
    fn take(&mut self, now: Instant) -> Result<(), Instant> {
        self.fill(now);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        // A millisecond on top, so that rounding does not wake a waiter a moment early.
        let wait = Duration::from_secs_f64((1.0 - self.tokens) / self.per_second);
        Err(now + wait + Duration::from_millis(1))
    }

    fn spend(&mut self, calls: u32, now: Instant) {
        self.fill(now);
        let least = -DEBT_MAX.as_secs_f64() * self.per_second;
        self.tokens = (self.tokens - f64::from(calls)).max(least);
    }

    fn throttled(&mut self, now: Instant) {
        self.fill(now);
        self.per_second = (self.per_second / 2.0).max(CALLS_PER_SECOND_MIN);
        self.tokens = self.tokens.min(0.0);
    }

    fn answered(&mut self, now: Instant) {
        self.fill(now);
        self.per_second = (self.per_second + RECOVERY_PER_SCAN).min(CALLS_PER_SECOND);
    }
}

/// The calls of one account and region.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    services: Mutex<HashMap<&'static str, Bucket>>,
}

impl Budget {
    fn with<T>(
        &self,
        service: &'static str,
        now: Instant,
        act: impl FnOnce(&mut Bucket) -> T,
    ) -> T {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        act(services.entry(service).or_insert_with(|| Bucket::new(now)))
    }

    /// Takes the token for one call, or says when to ask again.
    pub(crate) fn try_take(&self, service: &'static str, now: Instant) -> Result<(), Instant> {
        self.with(service, now, |bucket| bucket.take(now))
    }

    /// Waits for the token for one call.
    pub(crate) async fn take(&self, service: &'static str) {
        while let Err(at) = self.try_take(service, Instant::now()) {
            sleep_until(at).await;
        }
    }

    /// A scan ended that took one token and made `calls` calls.
    pub(crate) fn scanned(&self, service: &'static str, calls: u32, throttled: bool, now: Instant) {
        self.with(service, now, |bucket| {
            bucket.spend(calls.saturating_sub(1), now);
            if throttled {
                bucket.throttled(now);
            } else {
                bucket.answered(now);
            }
        });
    }
}

/// Whose calls: the worker's own account, or that of a role, in one region.
type Place = (Option<AccountId>, Region);

/// The budgets that scopes share, by account and region. One is kept as long as a scope uses it.
#[derive(Debug, Default)]
pub(crate) struct Budgets {
    places: HashMap<Place, Weak<Budget>>,
}

impl Budgets {
    /// The budget of the account of a role in a region.
    pub(crate) fn of(&mut self, role: Option<&AssumeRole>, region: &Region) -> Arc<Budget> {
        let account = role.map(|role| role.role_arn.account());
        let place = self.places.entry((account, region.clone())).or_default();
        place.upgrade().unwrap_or_else(|| {
            let budget = Arc::new(Budget::default());
            *place = Arc::downgrade(&budget);
            budget
        })
    }

    /// Forgets budgets that no scope uses any more.
    pub(crate) fn prune(&mut self) {
        self.places.retain(|_, budget| budget.strong_count() > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(budget: &Budget, now: Instant) -> usize {
        (0..1_000)
            .take_while(|_| budget.try_take("redshift", now).is_ok())
            .count()
    }

    #[test]
    fn a_burst_is_allowed_and_then_the_rate() {
        let (budget, now) = (Budget::default(), Instant::now());
        assert_eq!(taken(&budget, now), 10);
        assert_eq!(taken(&budget, now + Duration::from_secs(1)), 5);
        assert_eq!(taken(&budget, now + Duration::from_secs(100)), 10);
    }

    #[test]
    fn throttling_halves_the_rate_down_to_a_floor_and_quiet_scans_win_it_back() {
        let (budget, now) = (Budget::default(), Instant::now());
        taken(&budget, now);
        budget.scanned("redshift", 1, true, now);
        assert_eq!(taken(&budget, now + Duration::from_secs(2)), 5);
        for _ in 0..20 {
            budget.scanned("redshift", 1, true, now + Duration::from_secs(2));
        }
        let later = now + Duration::from_secs(2 + 40);
        assert_eq!(taken(&budget, later), 10);
        assert_eq!(taken(&budget, later + Duration::from_secs(8)), 2);
        for _ in 0..20 {
            budget.scanned("redshift", 1, false, later);
        }
        taken(&budget, later + Duration::from_secs(10));
        assert_eq!(taken(&budget, later + Duration::from_secs(11)), 5);
    }

    #[test]
    fn a_long_list_makes_the_next_scan_wait_within_a_bound() {
        let (budget, now) = (Budget::default(), Instant::now());
        budget.try_take("redshift", now).unwrap();
        budget.scanned("redshift", 60, false, now);
        let at = budget.try_take("redshift", now).unwrap_err();
        assert_eq!((at - now).as_secs(), 10);

        budget.scanned("redshift", 1_000_000, false, now);
        let at = budget.try_take("redshift", now).unwrap_err();
        assert!(at - now <= DEBT_MAX + Duration::from_secs(1));
        assert!(budget.try_take("rds", now).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_waits_for_the_rate() {
        let (budget, began) = (Budget::default(), Instant::now());
        for _ in 0..20 {
            budget.take("account").await;
        }
        assert_eq!(began.elapsed().as_secs(), 2);
    }

    #[test]
    fn scopes_of_one_account_and_region_share_a_budget() {
        let mut budgets = Budgets::default();
        let role = |name: &str| AssumeRole {
            role_arn: format!("arn:aws:iam::111122223333:role/{name}")
                .parse()
                .unwrap(),
            external_id: None,
        };
        let region: Region = "us-east-1".parse().unwrap();
        let a = budgets.of(Some(&role("a")), &region);
        assert!(Arc::ptr_eq(&a, &budgets.of(Some(&role("b")), &region)));
        assert!(!Arc::ptr_eq(&a, &budgets.of(None, &region)));
        drop(a);
        budgets.prune();
        assert!(budgets.places.is_empty());
    }
}
