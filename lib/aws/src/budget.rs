//! How often an API of AWS is called in one account and region.
//!
//! AWS counts calls of an API over everybody who works in an account and region, and publishes no numbers. A
//! [`Budget`] holds a token bucket for each; every call takes a token first, and who finds none waits in line. The line
//! is served in the order of arrival, and nobody joins it who would wait too long: that is told at once.
//! A call that AWS throttled lowers the rate of its bucket; each one that was answered wins a little of it back.
//!
//! Not here: what is done with calls that were throttled ([`crate::mint`]).

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use tidegate_core::{AccountId, Region};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::bounded::Bounded;

/// How long anybody waits for a token. A database gives a connection that nobody logs in to a minute, and the call and
/// the login come behind the wait.
pub const WAIT_MAX: Duration = Duration::from_secs(40);

/// Nobody joins a line that looks longer than this. Less than [`WAIT_MAX`], so that who joins is served by then although
/// waits are rounded up.
const JOIN_MAX: Duration = Duration::from_secs(39);

/// Buckets that are kept; beyond it the one used longest ago starts full again when it is needed.
pub const PLACES_MAX: usize = 4096;

/// What an answered call adds to a lowered rate, as a part of the full rate.
const RECOVERY: f64 = 0.02;
/// What is left of a rate after AWS throttled.
const LOWERED: f64 = 0.7;
/// The least that throttling brings a rate down to, as a part of the full rate.
const FLOOR: f64 = 0.1;
/// Calls that are under way together and throttled together lower the rate once.
const LOWERED_APART_MIN: Duration = Duration::from_secs(2);

/// A rate of calls.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Calls a second, in the long run.
    pub per_second: f64,
    /// Calls that may follow each other at once after a pause.
    pub burst: f64,
}

/// For calls that give database passwords.
pub const MINT_RATE: Rate = Rate {
    per_second: 5.0,
    burst: 5.0,
};

/// For `sts:AssumeRole`, of which AWS takes some hundreds a second for an account and region.
pub const STS_RATE: Rate = Rate {
    per_second: 50.0,
    burst: 50.0,
};

/// Where calls are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The account of the credentials that call; `None` is this process's own.
    pub account: Option<AccountId>,
    /// The API, as policies name it.
    pub action: &'static str,
    /// The region that is called.
    pub region: Region,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let account = self
            .account
            .as_ref()
            .map_or("this service's own account", AccountId::as_str);
        write!(f, "{} in {account}, {}", self.action, self.region)
    }
}

/// Why no token was given.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error(
    "{ahead} calls of {place} wait already, and {per_second:.1} a second are made; nobody waits longer than {} s",
    WAIT_MAX.as_secs()
)]
pub struct OverBudget {
    /// Which API, where.
    pub place: Place,
    /// Who is ahead in the line.
    pub ahead: u32,
    /// The rate as it is now.
    pub per_second: f64,
}

#[derive(Debug)]
struct Bucket {
    full: Rate,
    level: Mutex<Level>,
    /// Held by the first in line; the runtime gives it on in the order of arrival.
    line: tokio::sync::Mutex<()>,
    /// Those in line.
    waiting: AtomicU32,
}

#[derive(Debug)]
struct Level {
    tokens: f64,
    per_second: f64,
    filled: Instant,
    lowered: Option<Instant>,
}

/// Token buckets, made when they are first needed.
#[derive(Debug)]
pub struct Budget {
    buckets: Mutex<Bounded<Place, Arc<Bucket>>>,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            buckets: Mutex::new(Bounded::new(PLACES_MAX)),
        }
    }
}

impl Budget {
    /// Waits for the token for one call; a repeat takes another.
    ///
    /// # Errors
    ///
    /// [`OverBudget`], mostly at once, when the line is longer than [`WAIT_MAX`] at the present rate.
    pub async fn take(&self, place: &Place, rate: Rate) -> Result<(), OverBudget> {
        let bucket = self.bucket(place, rate);
        let (_in_line, ahead) = InLine::join(&bucket);
        let over = || OverBudget {
            place: place.clone(),
            ahead,
            per_second: bucket.level().per_second,
        };
        let now = Instant::now();
        if bucket.wait(ahead, now) > JOIN_MAX {
            return Err(over());
        }
        let served = async {
            let _first = bucket.line.lock().await;
            loop {
                let taken = bucket.level().take(rate, Instant::now());
                match taken {
                    Ok(()) => return,
                    Err(at) => sleep_until(at).await,
                }
            }
        };
        timeout_at(now + WAIT_MAX, served).await.map_err(|_| over())
    }

    /// AWS answered a call, or throttled it.
    pub fn answered(&self, place: &Place, rate: Rate, throttled: bool) {
        let bucket = self.bucket(place, rate);
        let mut level = bucket.level();
        if throttled {
            level.throttled(rate, Instant::now());
        } else {
            level.answered(rate, Instant::now());
        }
    }

    fn bucket(&self, place: &Place, rate: Rate) -> Arc<Bucket> {
        // A panic while the lock was held leaves at worst a bucket that is made again.
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.get_or_insert_with(place, || Arc::new(Bucket::new(rate, Instant::now())))
    }
}

/// A place in line, given back when it is dropped.
struct InLine<'b>(&'b Bucket);

impl<'b> InLine<'b> {
    /// Joins, and says how many are ahead.
    fn join(bucket: &'b Bucket) -> (Self, u32) {
        let ahead = bucket.waiting.fetch_add(1, Relaxed);
        (Self(bucket), ahead)
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

impl Bucket {
    fn new(full: Rate, now: Instant) -> Self {
        Self {
            full,
            level: Mutex::new(Level {
                tokens: full.burst,
                per_second: full.per_second,
                filled: now,
                lowered: None,
            }),
            line: tokio::sync::Mutex::default(),
            waiting: AtomicU32::new(0),
        }
    }

    fn level(&self) -> std::sync::MutexGuard<'_, Level> {
        // Numbers that are changed one by one: none is wrong for having been changed alone.
        self.level.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long somebody behind `ahead` others waits at the present rate.
    fn wait(&self, ahead: u32, now: Instant) -> Duration {
        let mut level = self.level();
        level.fill(self.full, now);
        let missing = (f64::from(ahead) + 1.0 - level.tokens).max(0.0);
        Duration::try_from_secs_f64(missing / level.per_second).unwrap_or(Duration::MAX)
    }
}

impl Level {
    fn fill(&mut self, full: Rate, now: Instant) {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = passed.mul_add(self.per_second, self.tokens).min(full.burst);
        self.filled = self.filled.max(now);
    }

    /// Takes one token, or says when there will be one.
    fn take(&mut self, full: Rate, now: Instant) -> Result<(), Instant> {
        self.fill(full, now);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        // A millisecond on top, so that rounding does not wake a waiter a moment early.
        let wait = Duration::from_secs_f64((1.0 - self.tokens) / self.per_second);
        Err(now + wait + Duration::from_millis(1))
    }

    fn throttled(&mut self, full: Rate, now: Instant) {
        self.fill(full, now);
        self.tokens = self.tokens.min(0.0);
        let again = |at: Instant| now.saturating_duration_since(at) < LOWERED_APART_MIN;
        if !self.lowered.is_some_and(again) {
            self.lowered = Some(now);
            self.per_second = (self.per_second * LOWERED).max(full.per_second * FLOOR);
        }
    }

    fn answered(&mut self, full: Rate, now: Instant) {
        self.fill(full, now);
        self.per_second = full
            .per_second
            .mul_add(RECOVERY, self.per_second)
            .min(full.per_second);
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, future::join_all};

    use super::*;

    const ACTION: &str = "redshift:GetClusterCredentials";

    fn place(account: Option<&str>) -> Place {
        Place {
            account: account.map(|account| account.parse().unwrap()),
            action: ACTION,
            region: "us-east-1".parse().unwrap(),
        }
    }

    async fn take(budget: &Budget) -> Result<(), OverBudget> {
        budget.take(&place(None), MINT_RATE).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_let_through_and_then_the_rate() {
        let (budget, began) = (Budget::default(), Instant::now());
        for _ in 0..15 {
            take(&budget).await.unwrap();
        }
        assert_eq!(began.elapsed().as_secs(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn two_hundred_at_once_are_served_in_the_order_of_arrival() {
        let budget = Budget::default();
        let served = Mutex::new(Vec::new());
        let takers = (0..200).map(|number| {
            let (budget, served) = (&budget, &served);
            async move {
                take(budget).await.unwrap();
                served.lock().unwrap().push(number);
            }
        });
        let began = Instant::now();
        join_all(takers).await;
        assert_eq!(*served.lock().unwrap(), (0..200).collect::<Vec<_>>());
        assert_eq!(began.elapsed().as_secs(), 39);
    }

    #[tokio::test(start_paused = true)]
    async fn who_would_wait_too_long_is_told_at_once_and_others_are_served() {
        let budget = Budget::default();
        let began = Instant::now();
        let takers = (0..300).map(|_| take(&budget).map(|taken| (taken, began.elapsed())));
        let (served, refused): (Vec<_>, Vec<_>) = join_all(takers)
            .await
            .into_iter()
            .partition(|(taken, _)| taken.is_ok());
        assert_eq!((served.len(), refused.len()), (200, 100));
        for (refusal, after) in refused {
            let refusal = refusal.unwrap_err();
            assert_eq!(after, Duration::ZERO);
            assert!(refusal.to_string().contains("5.0 a second"), "{refusal}");
            assert!(refusal.to_string().contains(ACTION), "{refusal}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_leaves_the_line() {
        let budget = Budget::default();
        let mut left: Vec<_> = (0..200).map(|_| Box::pin(take(&budget))).collect();
        for taker in &mut left {
            let _ = taker.now_or_never();
        }
        drop(left);
        assert_eq!(take(&budget).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn throttling_lowers_the_rate_once_for_calls_under_way_together_and_answers_win_it_back()
    {
        let budget = Budget::default();
        let rate = || budget.bucket(&place(None), MINT_RATE).level().per_second;
        for _ in 0..4 {
            budget.answered(&place(None), MINT_RATE, true);
        }
        assert!((rate() - 3.5).abs() < 0.01, "{}", rate());
        for _ in 0..40 {
            tokio::time::advance(LOWERED_APART_MIN).await;
            budget.answered(&place(None), MINT_RATE, true);
        }
        assert!((rate() - 0.5).abs() < 0.01, "{}", rate());
        for _ in 0..50 {
            budget.answered(&place(None), MINT_RATE, false);
        }
        assert!((rate() - 5.0).abs() < 0.01, "{}", rate());
    }

    #[tokio::test(start_paused = true)]
    async fn each_account_has_a_budget_of_its_own() {
        let budget = Budget::default();
        for _ in 0..5 {
            take(&budget).await.unwrap();
        }
        assert!(take(&budget).now_or_never().is_none());
        let other = place(Some("222222222222"));
        assert_eq!(budget.take(&other, MINT_RATE).now_or_never(), Some(Ok(())));
    }
}
