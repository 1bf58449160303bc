//! Request rates: one token bucket per account, region and operation.
//!
//! The account is the one that owns the calling credentials, as in AWS. Buckets fill by the
//! simulation's clock, so a test can wait without waiting.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use crate::faults::Site;
use crate::world::RateLimit;

/// Buckets kept at once; when there are more, all start full again.
const BUCKETS_MAX: usize = 100_000;

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Timestamp,
}

/// The limits in force and how far each is used up.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    limits: BTreeMap<String, RateLimit>,
    buckets: HashMap<String, Bucket>,
}

impl Limits {
    /// Puts limits in force; every bucket is full.
    pub(crate) fn set(&self, limits: BTreeMap<String, RateLimit>) {
        let buckets = HashMap::new();
        *self.inner.lock().unwrap_or_else(PoisonError::into_inner) = Inner { limits, buckets };
    }

    /// Whether a request may pass; it takes a token.
    pub(crate) fn admit(&self, site: &Site<'_>, now: Timestamp) -> bool {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.limits.is_empty() {
            return true;
        }
        let operation = format!("{}:{}", site.service, site.action);
        let Some(limit) = inner.limits.get(&operation).copied() else {
            return true;
        };
        if inner.buckets.len() >= BUCKETS_MAX {
            inner.buckets.clear();
        }
        let key = format!("{}/{}/{operation}", site.account, site.region);
        let full = Bucket {
            tokens: f64::from(limit.burst),
            at: now,
        };
        inner.buckets.entry(key).or_insert(full).take(limit, now)
    }
}

impl Bucket {
    fn take(&mut self, limit: RateLimit, now: Timestamp) -> bool {
        let passed = now.duration_since(self.at).as_secs_f64().max(0.0);
        self.tokens = (self.tokens + passed * limit.per_second).min(f64::from(limit.burst));
        self.at = self.at.max(now);
        let passes = self.tokens >= 1.0;
        if passes {
            self.tokens -= 1.0;
        }
        passes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::after;

    fn site<'a>(account: &'a str, region: &'a str, action: &'a str) -> Site<'a> {
        Site {
            service: "redshift",
            action,
            account,
            region,
            page: 1,
        }
    }

    #[test]
    fn a_bucket_is_one_accounts_in_one_region_for_one_operation() {
        let (limits, now) = (Limits::default(), Timestamp::UNIX_EPOCH);
        let limit = RateLimit {
            per_second: 0.5,
            burst: 2,
        };
        limits.set([("redshift:DescribeClusters".to_owned(), limit)].into());
        let admit = |account, region, action, late| {
            limits.admit(&site(account, region, action), after(now, late))
        };
        assert!(admit("1", "r", "DescribeClusters", 0) && admit("1", "r", "DescribeClusters", 0));
        assert!(!admit("1", "r", "DescribeClusters", 0));
        assert!(admit("2", "r", "DescribeClusters", 0) && admit("1", "s", "DescribeClusters", 0));
        assert!(admit("1", "r", "DescribeEndpointAccess", 0));
        assert!(!admit("1", "r", "DescribeClusters", 1));
        assert!(admit("1", "r", "DescribeClusters", 2));
    }
}
