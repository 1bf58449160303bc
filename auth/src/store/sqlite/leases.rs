//! Deadlines of leases, in memory.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::LeaseId;

/// Time that only goes forward, from any start.
pub(crate) trait Monotonic: Send + Sync + 'static {
    /// Time since the start.
    fn elapsed(&self) -> Duration;
}

/// The system's monotonic clock.
#[derive(Debug)]
pub(crate) struct SystemMonotonic(Instant);

impl Default for SystemMonotonic {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Monotonic for SystemMonotonic {
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

#[derive(Clone, Copy, Debug)]
struct Deadline {
    ttl: Duration,
    at: Duration,
}

/// The leases that live. A lease that is not in here is gone, even while its row is still being deleted.
pub(super) struct Leases {
    time: Arc<dyn Monotonic>,
    deadlines: Mutex<HashMap<LeaseId, Deadline>>,
}

impl Leases {
    pub(super) fn new(time: Arc<dyn Monotonic>) -> Self {
        Self {
            time,
            deadlines: Mutex::default(),
        }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, HashMap<LeaseId, Deadline>> {
        self.deadlines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a lease's time.
    pub(super) fn start(&self, lease: LeaseId, ttl: Duration) {
        let at = self.time.elapsed() + ttl;
        self.locked().insert(lease, Deadline { ttl, at });
    }

    /// Gives a lease its full time again; `false` when it is gone.
    pub(super) fn keep_alive(&self, lease: LeaseId) -> bool {
        let now = self.time.elapsed();
        match self.locked().get_mut(&lease) {
            Some(deadline) => {
                deadline.at = now + deadline.ttl;
                true
            }
            None => false,
        }
    }

    /// How long a lease still lives; `None` when it is gone.
    pub(super) fn left(&self, lease: LeaseId) -> Option<Duration> {
        let now = self.time.elapsed();
        let deadlines = self.locked();
        let left = deadlines.get(&lease)?.at.saturating_sub(now);
        (!left.is_zero()).then_some(left)
    }

    pub(super) fn forget(&self, lease: LeaseId) {
        self.locked().remove(&lease);
    }

    /// Takes out the leases whose time is over.
    pub(super) fn take_expired(&self) -> Vec<LeaseId> {
        let now = self.time.elapsed();
        let mut deadlines = self.locked();
        let expired: Vec<LeaseId> = deadlines
            .iter()
            .filter(|(_, deadline)| deadline.at <= now)
            .map(|(lease, _)| *lease)
            .collect();
        for lease in &expired {
            deadlines.remove(lease);
        }
        expired
    }

    /// Puts leases back that could not be ended, so that the next sweep finds them at once.
    pub(super) fn put_back(&self, leases: Vec<LeaseId>) {
        let mut deadlines = self.locked();
        for lease in leases {
            deadlines.insert(
                lease,
                Deadline {
                    ttl: Duration::ZERO,
                    at: Duration::ZERO,
                },
            );
        }
    }
}
