//! How much one source may have of what everybody needs: handshakes, sessions, cancel requests. Pure: time comes in.
//!
//! Cancel requests are counted in windows of [`WINDOW`], per address and over all, since guessing a key must not pay.
//! Everything else is counted while it lasts, in a [`Tally`].

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Bits of an IPv6 address that make a source: who has one address of a network of 64 bits has them all.
const SOURCE_BITS: u32 = 64;

/// Whom an address counts for.
pub(crate) fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> SOURCE_BITS << SOURCE_BITS).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Counts by key what lasts. Remembers only keys that have something, so it is bounded by what there is at one time.
#[derive(Debug)]
pub(crate) struct Tally<K> {
    counts: HashMap<K, usize>,
}

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self {
            counts: HashMap::new(),
        }
    }
}

impl<K: Hash + Eq> Tally<K> {
    /// One more of this key, unless it has `max`, which is at least 1.
    pub(crate) fn take(&mut self, key: K, max: usize) -> bool {
        let count = self.counts.entry(key).or_default();
        let has_room = *count < max;
        *count += usize::from(has_room);
        has_room
    }

    /// Whether this key has any.
    pub(crate) fn has(&self, key: &K) -> bool {
        self.counts.contains_key(key)
    }

    /// One less of this key.
    pub(crate) fn give(&mut self, key: &K) {
        match self.counts.get_mut(key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.counts.remove(key)),
        }
    }
}

/// Connections of which it is not known yet what they want, by source.
#[derive(Clone, Debug)]
pub(crate) struct Handshakes {
    tally: Arc<Mutex<Unknown>>,
    per_source_max: usize,
}

#[derive(Debug, Default)]
struct Unknown {
    total: usize,
    by_source: Tally<IpAddr>,
}

/// One such connection, until this is dropped.
#[derive(Debug)]
pub(crate) struct Shaking {
    handshakes: Handshakes,
    source: Option<IpAddr>,
}

impl Handshakes {
    /// None yet.
    pub(crate) fn new(per_source_max: usize) -> Self {
        Self {
            tally: Arc::default(),
            per_source_max,
        }
    }

    /// Counts a connection; `None` when its source has too many. One that `is_exempt` counts for no source.
    pub(crate) fn begin(&self, address: IpAddr, is_exempt: bool) -> Option<Shaking> {
        let source = (!is_exempt).then(|| source_of(address));
        let mut unknown = self.lock();
        if let Some(source) = source
            && !unknown.by_source.take(source, self.per_source_max)
        {
            return None;
        }
        unknown.total += 1;
        drop(unknown);
        Some(Shaking {
            handshakes: self.clone(),
            source,
        })
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.lock().total
    }

    fn lock(&self) -> MutexGuard<'_, Unknown> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shaking {
    fn drop(&mut self) {
        let mut unknown = self.handshakes.lock();
        unknown.total -= 1;
        if let Some(source) = &self.source {
            unknown.by_source.give(source);
        }
    }
}

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
    fn a_source_has_so_many_and_gets_room_by_giving() {
        let mut tally = Tally::default();
        assert!(tally.take("a", 2) && tally.take("a", 2) && !tally.take("a", 2));
        assert!(tally.take("b", 2));
        tally.give(&"a");
        assert!(tally.take("a", 2));
        for key in ["a", "a", "b"] {
            tally.give(&key);
        }
        assert!(tally.counts.is_empty());
    }

    #[test]
    fn a_network_of_64_bits_is_one_source() {
        let source = |text: &str| source_of(text.parse().unwrap());
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:1"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
    }

    #[test]
    fn handshakes_are_counted_until_they_are_done() {
        let handshakes = Handshakes::new(1);
        let address = IpAddr::from([192, 0, 2, 1]);
        let first = handshakes.begin(address, false);
        assert!(first.is_some() && handshakes.begin(address, false).is_none());
        let exempt = handshakes.begin(address, true);
        assert_eq!(handshakes.len(), 2);
        drop((first, exempt));
        assert_eq!(handshakes.len(), 0);
        assert!(handshakes.begin(address, false).is_some());
    }

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
