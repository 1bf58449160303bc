//! The calls of one scan: each waits for its place in the budget, is counted, and teaches the budget how AWS took it.
//!
//! Invariant: every call of a fetcher goes through [`Calls::call`], so that no page and no list of tags is made beside
//! the budget of the account, region and service that AWS counts it for.
//!
//! A call that would get its token too late for the scan to end in time is not waited for: the scan then ends as
//! partial with [`FetchError::OverBudget`], which is no failure of AWS.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use aws_sdk_rds::error::{ProvideErrorMetadata, SdkError};
use tidegate_aws::{AwsErrorClass, classify};
use tokio::time::{Instant, sleep_until};

use super::{FetchError, pages::Pages};
use crate::budget::{Budget, service};

/// Time that is left to the last call of a scan.
const LAST_CALL: Duration = Duration::from_secs(10);

/// The calls of one scan.
#[derive(Debug)]
pub(crate) struct Calls {
    budget: Arc<Budget>,
    /// No call waits longer for its token.
    until: Instant,
    /// The token for the first call was taken already.
    prepaid: AtomicBool,
    made: AtomicU32,
}

impl Calls {
    /// For a scan that ends at `end` at the latest.
    pub(crate) fn new(budget: Arc<Budget>, end: Instant) -> Self {
        Self {
            budget,
            until: end.checked_sub(LAST_CALL).unwrap_or(end),
            prepaid: AtomicBool::new(false),
            made: AtomicU32::new(0),
        }
    }

    /// Whoever started the scan took the token for its first call.
    pub(crate) fn prepaid(self) -> Self {
        self.prepaid.store(true, Relaxed);
        self
    }

    /// Calls so far, retries within a call and role assumption not counted.
    pub(crate) fn made(&self) -> u32 {
        self.made.load(Relaxed)
    }

    /// Makes a call of `action` (as policies name it) when the budget allows it.
    pub(crate) async fn call<T, E>(
        &self,
        action: &'static str,
        call: impl Future<Output = Result<T, SdkError<E>>>,
    ) -> Result<T, FetchError>
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        self.start(action).await?;
        let answer = call.await.map_err(|error| classify(action, error));
        let class = answer.as_ref().err().map(|failure| failure.class);
        // A role that could not be assumed says nothing of this service.
        let unanswered = answer.as_ref().is_err_and(|failure| failure.hop.is_some());
        if !unanswered {
            let throttled = class == Some(AwsErrorClass::Throttled);
            self.budget
                .answered(service(action), throttled, Instant::now());
        }
        Ok(answer?)
    }

    /// Calls `action` for page after page until the list ends: `ask` asks for the page at a marker, `take` takes a page
    /// in and gives the marker after it.
    pub(crate) async fn list<T, E, F>(
        &self,
        action: &'static str,
        mut ask: impl FnMut(Option<String>) -> F,
        mut take: impl FnMut(T) -> Option<String>,
    ) -> Result<(), FetchError>
    where
        E: ProvideErrorMetadata + Error + 'static,
        F: Future<Output = Result<T, SdkError<E>>>,
    {
        let mut pages = Pages::new(action);
        let mut marker = None;
        // Ends: `pages` gives a bounded number of markers.
        loop {
            let page = self.call(action, ask(marker)).await?;
            marker = pages.after(take(page))?;
            if marker.is_none() {
                return Ok(());
            }
        }
    }

    /// Waits for the token of one call, and counts it.
    pub(crate) async fn start(&self, action: &'static str) -> Result<(), FetchError> {
        if !self.prepaid.swap(false, Relaxed) {
            let service = service(action);
            while let Err(at) = self.budget.try_take(service, Instant::now()) {
                if at > self.until {
                    return Err(FetchError::OverBudget {
                        action,
                        calls: self.made(),
                    });
                }
                sleep_until(at).await;
            }
        }
        self.made.fetch_add(1, Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tidegate_aws::AwsFailure;

    use super::*;
    use crate::scan::SCAN_TIMEOUT;

    const ACTION: &str = "rds:DescribeDBInstances";

    fn calls() -> Calls {
        Calls::new(Arc::default(), Instant::now() + SCAN_TIMEOUT)
    }

    #[tokio::test(start_paused = true)]
    async fn a_usual_scan_waits_for_nothing_and_a_long_one_keeps_to_the_rate() {
        let (calls, began) = (calls(), Instant::now());
        for _ in 0..20 {
            calls.start(ACTION).await.unwrap();
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
        for _ in 0..50 {
            calls.start(ACTION).await.unwrap();
        }
        assert_eq!((began.elapsed().as_secs(), calls.made()), (10, 70));
    }

    #[tokio::test(start_paused = true)]
    async fn a_scan_that_the_budget_keeps_from_ending_in_time_stops_before_its_time_is_up() {
        let (calls, began) = (calls(), Instant::now());
        let error = loop {
            if let Err(error) = calls.start(ACTION).await {
                break error;
            }
        };
        assert_eq!((error.class(), error.action()), ("over_budget", ACTION));
        assert!(error.broke_off() && error.concerns_every_call());
        assert!(error.to_string().contains(ACTION), "{error}");
        assert!(began.elapsed() <= SCAN_TIMEOUT - LAST_CALL);
        assert!(
            (500..=20 + 110 * 5).contains(&calls.made()),
            "{}",
            calls.made()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_prepaid_call_takes_no_further_token() {
        let budget = Arc::<Budget>::default();
        while budget.try_take("rds", Instant::now()).is_ok() {}
        let began = Instant::now();
        let calls = Calls::new(budget, began + SCAN_TIMEOUT).prepaid();
        calls.start(ACTION).await.unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO);
        calls.start(ACTION).await.unwrap();
        assert!(began.elapsed() > Duration::ZERO);
    }

    #[test]
    fn being_over_budget_is_no_throttling_by_aws() {
        let throttled = FetchError::from(AwsFailure::new(AwsErrorClass::Throttled, ACTION, ""));
        let over = FetchError::OverBudget {
            action: ACTION,
            calls: 7,
        };
        assert_ne!(over.class(), throttled.class());
    }
}
