//! How many calls to AWS a worker makes in one account and region.
//!
//! AWS counts calls per account, region and service, over everybody who works there; a scan must not crowd out
//! people and deployments. A [`Budget`] holds a token bucket for each service of one account and region: it fills at
//! [`CALLS_PER_SECOND`] and holds [`BURST_CALLS_MAX`]. Every call takes a token first: each page, each list of tags.
//! A call that AWS throttled to its last attempt halves the rate, down to [`CALLS_PER_SECOND_MIN`]; each one that was
//! answered wins a little of it back.
//!
//! Not here: what waits for a token, and how long ([`crate::fetch::calls`]); how a single call is repeated when AWS
//! throttles it (`tidegate-aws`).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tidegate_core::{AccountId, AssumeRole, Region};
use tokio::time::{Instant, sleep_until};

/// Calls a second to one service in one account and region, as long as AWS does not throttle.
pub(crate) const CALLS_PER_SECOND: f64 = 5.0;
/// The least that throttling brings it down to.
pub(crate) const CALLS_PER_SECOND_MIN: f64 = 0.25;
/// Calls that may follow each other at once after a pause: a scan of a usual account makes fewer.
pub(crate) const BURST_CALLS_MAX: f64 = 20.0;
/// What a call that was answered adds to a lowered rate: from the least to all takes a minute of calls.
const RECOVERY_PER_CALL: f64 = 0.05;
/// Calls that are under way together and throttled together lower the rate once.
const LOWERED_APART_MIN: Duration = Duration::from_secs(2);

/// The service that AWS counts an action for, as its policies name it.
pub(crate) fn service(action: &'static str) -> &'static str {
    action
        .split_once(':')
        .map_or(action, |(service, _)| service)
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    per_second: f64,
    filled: Instant,
    lowered: Option<Instant>,
}

impl Bucket {
    const fn new(now: Instant) -> Self {
        Self {
            tokens: BURST_CALLS_MAX,
            per_second: CALLS_PER_SECOND,
            filled: now,
            lowered: None,
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

    fn throttled(&mut self, now: Instant) {
        self.fill(now);
        self.tokens = self.tokens.min(0.0);
        let again = |at: Instant| now.saturating_duration_since(at) < LOWERED_APART_MIN;
        if !self.lowered.is_some_and(again) {
            self.lowered = Some(now);
            self.per_second = (self.per_second / 2.0).max(CALLS_PER_SECOND_MIN);
        }
    }

    fn answered(&mut self, now: Instant) {
        self.fill(now);
        self.per_second = (self.per_second + RECOVERY_PER_CALL).min(CALLS_PER_SECOND);
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

    /// AWS answered a call, or throttled it to its last attempt.
    pub(crate) fn answered(&self, service: &'static str, throttled: bool, now: Instant) {
        self.with(service, now, |bucket| {
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
        assert_eq!(taken(&budget, now), 20);
        assert_eq!(taken(&budget, now + Duration::from_secs(1)), 5);
        assert_eq!(taken(&budget, now + Duration::from_secs(100)), 20);
        assert!(budget.try_take("rds", now).is_ok());
    }

    #[test]
    fn throttling_halves_the_rate_down_to_a_floor_and_answers_win_it_back() {
        let (budget, now) = (Budget::default(), Instant::now());
        taken(&budget, now);
        budget.answered("redshift", true, now);
        let mut later = now + Duration::from_secs(2);
        assert_eq!(taken(&budget, later), 5);
        for _ in 0..20 {
            later += LOWERED_APART_MIN;
            budget.answered("redshift", true, later);
        }
        assert_eq!(taken(&budget, later + Duration::from_secs(81)), 20);
        assert_eq!(taken(&budget, later + Duration::from_secs(89)), 2);
        for _ in 0..100 {
            budget.answered("redshift", false, later);
        }
        taken(&budget, later + Duration::from_secs(100));
        assert_eq!(taken(&budget, later + Duration::from_secs(101)), 5);
    }

    #[test]
    fn calls_that_are_throttled_together_lower_the_rate_once() {
        let (budget, now) = (Budget::default(), Instant::now());
        for _ in 0..4 {
            budget.answered("redshift", true, now);
        }
        assert_eq!(taken(&budget, now + Duration::from_millis(2_001)), 5);
    }

    #[test]
    fn a_call_is_counted_for_the_service_that_a_policy_names() {
        for (action, expected) in [
            ("redshift-serverless:ListWorkgroups", "redshift-serverless"),
            ("tag:GetResources", "tag"),
        ] {
            assert_eq!(service(action), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_waits_for_the_rate() {
        let (budget, began) = (Budget::default(), Instant::now());
        for _ in 0..30 {
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
