//! Scans one scope, within a time limit, and says whether everything was seen.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use tidegate_core::ScanScope;
use tidegate_service::clock::Clock;
use tokio::time::{Instant, timeout};

use crate::{
    budget::Budget,
    fetch::{self, Fetch, FetchError, Reading, calls::Calls},
    found::Databases,
    known::{Comparison, Known, Trace},
};

/// Longest scan of one scope; what was read until then is kept.
pub(crate) const SCAN_TIMEOUT: Duration = Duration::from_secs(120);

/// What one scope returned.
#[derive(Debug)]
pub(crate) enum Observed {
    /// Every page and every database was read: what is absent is gone.
    Complete(Databases),
    /// As the last one, which was complete.
    Same(Arc<Known>),
    /// Something failed: what is absent is unknown.
    Partial {
        /// What was read nevertheless.
        seen: Databases,
        /// Why not all.
        cause: FetchError,
        /// How many more failures there were.
        further: usize,
    },
}

impl Observed {
    /// What was seen, whole or not.
    #[cfg(test)]
    pub(crate) fn seen(&self) -> &Databases {
        match self {
            Self::Complete(seen) | Self::Partial { seen, .. } => seen,
            Self::Same(_) => panic!("a scan that found the same has read nothing"),
        }
    }

    /// How many databases were seen.
    pub(crate) fn count(&self) -> usize {
        match self {
            Self::Complete(seen) | Self::Partial { seen, .. } => seen.len(),
            Self::Same(known) => known.databases,
        }
    }

    /// What the last scan found, when this one found the same.
    pub(crate) fn same(&self) -> Option<Arc<Known>> {
        match self {
            Self::Same(known) => Some(Arc::clone(known)),
            Self::Complete(_) | Self::Partial { .. } => None,
        }
    }

    /// Why it is not complete.
    pub(crate) const fn cause(&self) -> Option<&FetchError> {
        match self {
            Self::Complete(_) | Self::Same(_) => None,
            Self::Partial { cause, .. } => Some(cause),
        }
    }
}

/// One scan.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) observed: Observed,
    pub(crate) aws_calls: u32,
    /// How many were left out because no agent could serve them, by reason.
    pub(crate) left_out: BTreeMap<&'static str, usize>,
    pub(crate) started_at: Timestamp,
    pub(crate) finished_at: Timestamp,
    pub(crate) took: Duration,
    /// What the next scan can be compared with, when this one was complete and its answers tell all.
    pub(crate) trace: Option<Trace>,
}

/// How a scope is scanned.
#[derive(Debug)]
pub(crate) struct Terms {
    /// Of its account and region.
    pub(crate) budget: Arc<Budget>,
    /// The token for the first call was taken from it already.
    pub(crate) prepaid: bool,
    /// Somebody asked for this scan: what is remembered of tags and refusals does not count.
    pub(crate) fresh: bool,
    /// What the last scan of the scope found, when that is settled.
    pub(crate) known: Option<Arc<Known>>,
}

/// Scans a scope; takes [`SCAN_TIMEOUT`] at most.
pub(crate) async fn scan(
    fetch: &dyn Fetch,
    scope: &ScanScope,
    terms: Terms,
    clock: &dyn Clock,
) -> Scan {
    let (started_at, started) = (clock.now(), Instant::now());
    let calls = Calls::new(terms.budget, started + SCAN_TIMEOUT);
    let calls = if terms.prepaid {
        calls.prepaid()
    } else {
        calls
    };
    let mut reading = Reading::new(calls, terms.fresh, Comparison::with(terms.known));
    let ended = timeout(SCAN_TIMEOUT, fetch.fetch(scope, &mut reading))
        .await
        .unwrap_or_else(|_| {
            Err(FetchError::TimedOut {
                action: fetch::first_action(scope.kind),
                after: SCAN_TIMEOUT,
            })
        });
    let aws_calls = reading.calls.made();
    let mut left_out = std::mem::take(&mut reading.left_out);
    let trace = reading.comparison.trace();
    let observed = conclude(reading, ended);
    if let Observed::Same(known) = &observed {
        left_out.clone_from(&known.left_out);
    }
    Scan {
        aws_calls,
        left_out,
        trace: trace.filter(|_| matches!(observed, Observed::Complete(_))),
        observed,
        started_at,
        finished_at: clock.now(),
        took: started.elapsed(),
    }
}

/// The one place that decides whether everything was seen.
fn conclude(reading: Reading, ended: Result<(), FetchError>) -> Observed {
    let seen = reading.found;
    let missed = reading.missed_further + usize::from(reading.missed.is_some());
    match (ended, reading.missed) {
        (Ok(()), None) => match reading.comparison.same() {
            Some(known) => Observed::Same(known),
            None => Observed::Complete(seen),
        },
        (Ok(()), Some(cause)) => Observed::Partial {
            seen,
            cause,
            further: reading.missed_further,
        },
        (Err(cause), _) => Observed::Partial {
            seen,
            cause,
            further: missed,
        },
    }
}

#[cfg(test)]
mod tests {
    use futures::future::{BoxFuture, pending};
    use tidegate_core::{DatabaseKind, Selector};
    use tidegate_service::clock::SystemClock;

    use super::*;

    struct Endless;

    impl Fetch for Endless {
        fn fetch<'f>(
            &'f self,
            _scope: &'f ScanScope,
            reading: &'f mut Reading,
        ) -> BoxFuture<'f, Result<(), FetchError>> {
            Box::pin(async {
                reading.calls.start("redshift:DescribeClusters").await?;
                pending().await
            })
        }
    }

    fn missed() -> FetchError {
        FetchError::Malformed {
            action: "a",
            resource: "b".into(),
            field: "c",
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_scan_that_does_not_end_is_cut_off_and_partial() {
        let scope = ScanScope {
            group: String::new(),
            kind: DatabaseKind::Redshift,
            region: "us-east-1".parse().unwrap(),
            assume_role: None,
            tags: Selector::everything(),
            endpoints: tidegate_core::EndpointFilter::default(),
            config: None,
            order: 0,
        };
        let terms = Terms {
            budget: Arc::default(),
            prepaid: false,
            fresh: false,
            known: None,
        };
        let scan = scan(&Endless, &scope, terms, &SystemClock).await;
        let cause = scan.observed.cause().unwrap();
        assert_eq!(
            (cause.class(), cause.action()),
            ("timeout", "redshift:DescribeClusters")
        );
        assert_eq!((scan.took, scan.aws_calls), (SCAN_TIMEOUT, 1));
    }

    #[test]
    fn a_single_database_that_could_not_be_read_makes_the_scan_partial() {
        let mut reading = Reading::default();
        reading.missed(missed());
        reading.missed(missed());
        let observed = conclude(reading, Ok(()));
        assert!(matches!(observed, Observed::Partial { further: 1, .. }));
        let complete = conclude(Reading::default(), Ok(()));
        assert!(matches!(complete, Observed::Complete(_)));
    }

    #[test]
    fn a_call_that_failed_is_told_before_databases_that_could_not_be_read() {
        let mut reading = Reading::default();
        reading.missed(missed());
        let observed = conclude(reading, Err(FetchError::TooManyPages { action: "a" }));
        assert_eq!(observed.cause().unwrap().class(), "too_many_pages");
        assert!(matches!(observed, Observed::Partial { further: 1, .. }));
    }
}
