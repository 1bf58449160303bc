//! How many scans run at once, so that scopes that hang do not keep others waiting.
//!
//! There are two lanes. A scan that is still reading after [`SLOW_AFTER`] moves to the slow one as long as that has
//! room, and a scope whose last scan was slow starts there. So a region without answers holds up the others for
//! [`SLOW_AFTER`] when it is met first, and not at all from then on; only when more than [`SLOW_SCANS_MAX`] scopes
//! hang, which nobody knew of before, do others wait for some of them to end (half a minute a call,
//! `tidegate_aws::factory::OPERATION_TIMEOUT`).
//!
//! Pure: time is a value.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

/// Scans that one worker runs at once, those that turned out slow not counted.
pub const SCANS_MAX: usize = 5;
/// Slow scans that run beside them; they mostly wait for AWS.
pub(super) const SLOW_SCANS_MAX: usize = 50;
/// Reading that lasts longer is slow.
pub(super) const SLOW_AFTER: Duration = Duration::from_secs(3);

/// Where a scan runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Quick,
    Slow,
}

impl Lane {
    /// All, in the order in which they are filled.
    pub(super) const ALL: [Self; 2] = [Self::Quick, Self::Slow];

    /// For the next scan of a scope that was read in `took`.
    pub(super) fn after(took: Duration) -> Self {
        if took < SLOW_AFTER {
            Self::Quick
        } else {
            Self::Slow
        }
    }
}

/// Says whether a scan still reads; what is read already must not make room for more.
#[derive(Clone, Debug)]
pub(super) struct Reads(Arc<AtomicBool>);

impl Reads {
    /// The scan goes on to publish.
    pub(super) fn end(&self) {
        self.0.store(false, Relaxed);
    }
}

#[derive(Debug)]
struct Running {
    lane: Lane,
    started: Instant,
    reads: Reads,
}

/// The scans that run.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    running: BTreeMap<u64, Running>,
    entered: u64,
}

impl Lanes {
    fn count(&self, lane: Lane) -> usize {
        let running = self.running.values();
        running.filter(|running| running.lane == lane).count()
    }

    /// Whether a scan may start in `lane`.
    pub(super) fn has_room(&self, lane: Lane) -> bool {
        let most = match lane {
            Lane::Quick => SCANS_MAX,
            Lane::Slow => SLOW_SCANS_MAX,
        };
        self.count(lane) < most
    }

    /// A scan starts; it leaves with the number that is returned.
    pub(super) fn enter(&mut self, lane: Lane, now: Instant) -> (u64, Reads) {
        self.entered += 1;
        let reads = Reads(Arc::new(AtomicBool::new(true)));
        let running = Running {
            lane,
            started: now,
            reads: reads.clone(),
        };
        self.running.insert(self.entered, running);
        (self.entered, reads)
    }

    /// A scan ended.
    pub(super) fn leave(&mut self, number: u64) {
        self.running.remove(&number);
    }

    /// Moves scans that turned out slow; returns when the next one will.
    pub(super) fn sort(&mut self, now: Instant) -> Option<Instant> {
        let mut room = SLOW_SCANS_MAX.saturating_sub(self.count(Lane::Slow));
        let mut next = None;
        for running in self.running.values_mut() {
            if running.lane == Lane::Slow || !running.reads.0.load(Relaxed) || room == 0 {
                continue;
            }
            let turns = running.started + SLOW_AFTER;
            if turns <= now {
                running.lane = Lane::Slow;
                room -= 1;
            } else {
                next = next.min(Some(turns)).or(Some(turns));
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(lanes: &mut Lanes, lane: Lane, now: Instant) -> Vec<(u64, Reads)> {
        std::iter::from_fn(|| lanes.has_room(lane).then(|| lanes.enter(lane, now))).collect()
    }

    #[test]
    fn scans_that_hang_make_room_after_a_moment() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        assert_eq!(full(&mut lanes, Lane::Quick, now).len(), SCANS_MAX);
        assert_eq!(lanes.sort(now), Some(now + SLOW_AFTER));
        assert!(!lanes.has_room(Lane::Quick));
        assert_eq!(lanes.sort(now + SLOW_AFTER), None);
        assert!(lanes.has_room(Lane::Quick));
    }

    #[test]
    fn a_scan_that_publishes_for_long_makes_no_room() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        for (_, reads) in full(&mut lanes, Lane::Quick, now) {
            reads.end();
        }
        assert_eq!(lanes.sort(now + SLOW_AFTER), None);
        assert!(!lanes.has_room(Lane::Quick));
    }

    #[test]
    fn slow_scans_are_bounded_too_and_leave_the_quick_lane_alone() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        let slow = full(&mut lanes, Lane::Slow, now);
        assert_eq!(slow.len(), SLOW_SCANS_MAX);
        assert_eq!(full(&mut lanes, Lane::Quick, now).len(), SCANS_MAX);
        assert_eq!(lanes.sort(now + SLOW_AFTER), None);
        assert!(!lanes.has_room(Lane::Quick));

        lanes.leave(slow[0].0);
        lanes.sort(now + SLOW_AFTER);
        assert!(lanes.has_room(Lane::Quick) && !lanes.has_room(Lane::Slow));
    }

    #[test]
    fn a_scope_that_answers_again_is_quick_again() {
        assert_eq!(Lane::after(SLOW_AFTER), Lane::Slow);
        assert_eq!(Lane::after(Duration::from_millis(200)), Lane::Quick);
    }
}
