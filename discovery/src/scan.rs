//! Scans one scope, within a time limit, and says whether everything was seen.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use tidegate_core::ScanScope;
use tidegate_service::clock::Clock;
use tokio::time::{Instant, timeout};

use crate::{
    fetch::{self, Fetch, FetchError, Reading},
    found::Databases,
};

/// Longest scan of one scope; what was read until then is kept.
pub(crate) const SCAN_TIMEOUT: Duration = Duration::from_secs(120);

/// What one scope returned.
#[derive(Debug)]
pub(crate) enum Observed {
    /// Every page and every database was read: what is absent is gone.
    Complete(Databases),
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
    pub(crate) const fn seen(&self) -> &Databases {
        match self {
            Self::Complete(seen) | Self::Partial { seen, .. } => seen,
        }
    }

    /// Why it is not complete.
    pub(crate) const fn cause(&self) -> Option<&FetchError> {
        match self {
            Self::Complete(_) => None,
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
}

/// Scans a scope; takes [`SCAN_TIMEOUT`] at most.
pub(crate) async fn scan(fetch: &dyn Fetch, scope: &ScanScope, clock: &dyn Clock) -> Scan {
    let (started_at, started) = (clock.now(), Instant::now());
    let mut reading = Reading::default();
    let ended = timeout(SCAN_TIMEOUT, fetch.fetch(scope, &mut reading))
        .await
        .unwrap_or_else(|_| {
            Err(FetchError::TimedOut {
                action: fetch::first_action(scope.kind),
                after: SCAN_TIMEOUT,
            })
        });
    Scan {
        aws_calls: reading.aws_calls,
        left_out: std::mem::take(&mut reading.left_out),
        observed: conclude(reading, ended),
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
        (Ok(()), None) => Observed::Complete(seen),
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
            reading.called();
            Box::pin(pending())
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
        let scan = scan(&Endless, &scope, &SystemClock).await;
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
