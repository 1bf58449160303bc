//! Giving up old history, which etcd would keep until its disk quota is used up.
//!
//! Any instance may do it: whoever sees first that there is twice as much history as must be kept. etcd refuses what
//! somebody else did already. It concerns all of etcd, not only our prefix.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use super::{
    client::{Client, Kind},
    convert::signed,
    failure::Failure,
    kv,
    pb::etcdserverpb::CompactionRequest,
};

/// Looks at how much history there is.
pub(super) struct Compactor {
    keep_min: Option<u64>,
    compacted: AtomicU64,
    is_busy: AtomicBool,
}

impl Compactor {
    pub(super) const fn new(keep_min: Option<u64>) -> Self {
        Self {
            keep_min,
            compacted: AtomicU64::new(0),
            is_busy: AtomicBool::new(false),
        }
    }

    /// Takes note of the store's revision, and gives up history when there is too much.
    pub(super) fn note(self: &Arc<Self>, client: &Arc<Client>, revision: u64) {
        let Some(until) = self.until(revision) else {
            return;
        };
        if self.is_busy.swap(true, Ordering::AcqRel) {
            return;
        }
        let (compactor, client) = (self.clone(), client.clone());
        tokio::spawn(async move {
            compact(&client, until).await;
            // After a failure too: the next attempt comes with the next round of history.
            compactor.compacted.store(until, Ordering::Release);
            compactor.is_busy.store(false, Ordering::Release);
        });
    }

    /// The revision up to which history is to go, if it is time.
    fn until(&self, revision: u64) -> Option<u64> {
        let keep_min = self.keep_min?;
        let kept = revision.saturating_sub(self.compacted.load(Ordering::Acquire));
        (kept > keep_min.saturating_mul(2).max(1)).then(|| revision - keep_min)
    }
}

async fn compact(client: &Client, until: u64) {
    let request = CompactionRequest {
        revision: signed(until),
    };
    let done = client
        .call(Kind::Read, request, |channel, request| async move {
            kv(channel).compact(request).await
        })
        .await;
    match done {
        Ok(_) => tracing::debug!(revision = until, "gave up history in etcd"),
        // Somebody else was first.
        Err(error) if error.failure == Failure::Compacted => {}
        Err(error) => {
            tracing::warn!(error = %error, "cannot compact etcd: its history grows until that works");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_goes_when_there_is_twice_as_much_as_must_be_kept() {
        let compactor = Compactor::new(Some(10));
        assert_eq!(compactor.until(20), None);
        assert_eq!(compactor.until(21), Some(11));
        compactor.compacted.store(11, Ordering::Release);
        assert_eq!(compactor.until(31), None);
        assert_eq!(compactor.until(32), Some(22));
        assert_eq!(Compactor::new(None).until(1_000_000), None);
    }
}
