//! How many cancel requests are passed on: each goes to every agent, and guessing a key must not pay.
//!
//! Counted in windows of [`WINDOW`], per address and over all. Pure: time comes in.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

const WINDOW: Duration = Duration::from_secs(1);
/// Requests of one address in a window: a person with several terminals, or a pool that cancels its lot.
const PER_ADDRESS_MAX: u32 = 20;
/// Requests over all addresses in a window; also bounds the addresses remembered.
const TOTAL_MAX: u32 = 200;

/// Counts cancel requests.
#[derive(Debug)]
pub(crate) struct CancelLimit {
    window: Instant,
    total: u32,
    by_address: HashMap<IpAddr, u32>,
}

impl CancelLimit {
    /// Nothing counted yet.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            window: now,
            total: 0,
            by_address: HashMap::new(),
        }
    }

    /// Counts one request and says whether it may pass.
    pub(crate) fn admit(&mut self, address: IpAddr, now: Instant) -> bool {
        if now.saturating_duration_since(self.window) >= WINDOW {
            *self = Self::new(now);
        }
        if self.total >= TOTAL_MAX {
            return false;
        }
        let count = self.by_address.entry(address).or_default();
        if *count >= PER_ADDRESS_MAX {
            return false;
        }
        *count += 1;
        self.total += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_use_up_what_others_need() {
        let start = Instant::now();
        let mut limit = CancelLimit::new(start);
        let [loud, quiet] = [IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2])];

        let passed = (0..1000).filter(|_| limit.admit(loud, start)).count();

        assert_eq!(passed, 20);
        assert!(limit.admit(quiet, start));
        assert!(limit.admit(loud, start + WINDOW));
    }

    #[test]
    fn all_addresses_together_are_bounded() {
        let start = Instant::now();
        let mut limit = CancelLimit::new(start);

        let passed = (0..100_000_u32)
            .filter(|n| limit.admit(IpAddr::from(n.to_be_bytes()), start))
            .count();

        assert_eq!(passed, 200);
        assert!(limit.by_address.len() <= 200);
    }
}
