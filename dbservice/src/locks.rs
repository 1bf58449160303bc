//! The locks that are in force, as this agent knows them: followed live, kept while the auth service is away.
//!
//! Invariant: what is known carries the time at which it was last told to be complete, so that whoever may not act on
//! old knowledge can tell. The first answer of a watch may be from the auth service's memory, as old as its own
//! knowledge is; so it makes locks known where none were, and makes nothing fresher. A lock that cannot be understood in
//! full strikes its target until it is removed.
//!
//! Not here: whom locks strike (`tidegate_core::locks`), and ending sessions (`engine`).

use std::{sync::Arc, time::Duration};

use futures::{Stream, StreamExt};
use jiff::Timestamp;
use tidegate_core::{Lock, LockTarget};
use tidegate_proto::v1::{self, access_service_client::AccessServiceClient};
use tidegate_service::{clock::SharedClock, rpc::MESSAGE_BYTES_MAX, tasks::ShutdownToken};
use tokio::{sync::watch, time::timeout};
use tonic::{Status, transport::Channel};
use tracing::{error, info, warn};

use crate::{offline::Told, retry};

/// The auth service says at least every minute which locks there are; after this long without a word it is asked anew.
const SILENCE_MAX: Duration = Duration::from_secs(150);

/// Locks, and how fresh they are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// As they were told last.
    pub(crate) locks: Arc<[Lock]>,
    /// When they were told; `None` is never.
    pub(crate) at: Option<Timestamp>,
}

/// The present locks. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Locks {
    known: Arc<watch::Sender<Known>>,
}

impl Locks {
    /// These are all locks there are, as of `at` if that is known. Sessions are woken only when that is news.
    pub(crate) fn set(&self, locks: Vec<Lock>, at: Option<Timestamp>) -> bool {
        self.known.send_if_modified(|known| {
            known.at = at.or(known.at);
            let is_news = *known.locks != *locks;
            if is_news {
                known.locks = locks.into();
            }
            is_news
        })
    }

    /// These were all locks once; they are enforced until any are told, and it stays unknown how fresh they are.
    pub(crate) fn stand_in(&self, locks: impl Iterator<Item = Lock>) {
        self.known.send_if_modified(|known| {
            let is_told = known.at.is_some() || !known.locks.is_empty();
            if !is_told {
                known.locks = locks.collect();
            }
            !is_told
        });
    }

    /// What is known now.
    pub(crate) fn known(&self) -> Known {
        self.known.borrow().clone()
    }

    /// Tells of every later change.
    pub(crate) fn changes(&self) -> watch::Receiver<Known> {
        self.known.subscribe()
    }
}

/// Follows the locks until shutdown.
pub(crate) async fn follow(
    channel: Channel,
    locks: Locks,
    told: Told,
    clock: SharedClock,
    shutdown: ShutdownToken,
) {
    retry::follow(
        &shutdown,
        || watch_once(channel.clone(), &locks, &told, &clock),
        |cause| {
            let known = locks.known();
            warn!(
                error = cause,
                locks = known.locks.len(),
                known_at = known.at.map(|at| at.to_string()),
                "cannot watch locks; enforcing what was last known"
            );
        },
    )
    .await;
}

async fn watch_once(
    channel: Channel,
    locks: &Locks,
    told: &Told,
    clock: &SharedClock,
) -> Result<(), Status> {
    let mut client = AccessServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let answers = client.watch_locks(v1::WatchLocksRequest {}).await?;
    take(answers.into_inner(), locks, told, clock).await
}

/// Takes what one watch says, until it ends or falls silent.
async fn take(
    mut answers: impl Stream<Item = Result<v1::WatchLocksResponse, Status>> + Unpin,
    locks: &Locks,
    told: &Told,
    clock: &SharedClock,
) -> Result<(), Status> {
    let mut is_fresh = locks.known().at.is_none();
    loop {
        let answer = timeout(SILENCE_MAX, answers.next())
            .await
            .map_err(|_| Status::deadline_exceeded("the auth service says nothing of locks"))?;
        let Some(answer) = answer.transpose()? else {
            return Ok(());
        };
        let now = clock.now();
        told.locks(&answer.locks, is_fresh.then_some(now));
        let understood: Vec<Lock> = answer
            .locks
            .into_iter()
            .map(|lock| understood(lock, now))
            .collect();
        let in_force = understood.len();
        if locks.set(understood, is_fresh.then_some(now)) {
            info!(locks = in_force, "locks changed");
        }
        is_fresh = true;
    }
}

/// A lock as it was sent. Whom it strikes can always be read; when its end cannot, it has none.
pub(crate) fn understood(lock: v1::Lock, now: Timestamp) -> Lock {
    let plain = Lock {
        name: lock.name.clone(),
        target: lock
            .target
            .clone()
            .map(LockTarget::from)
            .unwrap_or_default(),
        message: lock.message.clone(),
        created: now,
        expires: None,
        created_by: lock.created_by.clone(),
    };
    Lock::try_from(lock).unwrap_or_else(|invalid| {
        error!(lock = plain.name, error = %invalid, "a lock cannot be understood; it strikes until it is removed");
        plain
    })
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use tidegate_service::clock::{Clock, ManualClock};
    use tonic::Code;

    use super::*;

    fn lock(user: &str) -> v1::Lock {
        v1::Lock {
            name: "l1".to_owned(),
            target: Some(v1::LockTarget {
                user: user.to_owned(),
                ..v1::LockTarget::default()
            }),
            ..v1::Lock::default()
        }
    }

    #[test]
    fn a_lock_whose_times_cannot_be_read_strikes_for_ever() {
        let now = Timestamp::UNIX_EPOCH;
        let lock = understood(lock("alice"), now);
        assert_eq!(lock.target.user.as_deref(), Some("alice"));
        assert!(lock.is_in_force(Timestamp::MAX));
    }

    #[test]
    fn being_told_the_same_again_is_fresh_and_no_news() {
        let locks = Locks::default();
        let mut changes = locks.changes();
        let at = |second| Timestamp::from_second(second).unwrap();
        let one = || vec![understood(lock("alice"), at(0))];
        assert!(locks.set(one(), Some(at(1))));
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        assert!(!locks.set(one(), Some(at(2))));
        assert!(!changes.has_changed().unwrap());
        assert_eq!(locks.known().at, Some(at(2)));
        assert!(locks.set(Vec::new(), None));
        assert_eq!(locks.known().at, Some(at(2)), "of unknown age");
    }

    #[test]
    fn locks_that_were_kept_are_enforced_make_nothing_fresh_and_give_way_to_what_is_told() {
        let locks = Locks::default();
        let kept = || [understood(lock("alice"), Timestamp::UNIX_EPOCH)].into_iter();
        locks.stand_in(kept());
        assert_eq!(locks.known().locks.len(), 1);
        assert_eq!(locks.known().at, None);
        locks.set(Vec::new(), Some(Timestamp::UNIX_EPOCH));
        locks.stand_in(kept());
        assert!(locks.known().locks.is_empty());
    }

    #[tokio::test]
    async fn the_first_answer_of_a_later_watch_is_enforced_and_makes_nothing_fresher() {
        let begun = Timestamp::from_second(100).unwrap();
        let clock = ManualClock::new(begun);
        let shared: SharedClock = Arc::new(clock.clone());
        let locks = Locks::default();
        let says = |users: &[&str]| {
            let locks = users.iter().map(|user| lock(user)).collect();
            Ok(v1::WatchLocksResponse { locks })
        };
        take(stream::iter([says(&[])]), &locks, &Told::default(), &shared)
            .await
            .unwrap();
        assert_eq!(locks.known().at, Some(begun), "nothing was known before");

        clock.advance(Duration::from_secs(60));
        take(
            stream::iter([says(&["alice"])]),
            &locks,
            &Told::default(),
            &shared,
        )
        .await
        .unwrap();
        assert_eq!(locks.known().locks.len(), 1);
        assert_eq!(locks.known().at, Some(begun));
        let twice = [says(&["alice"]), says(&["alice"])];
        take(stream::iter(twice), &locks, &Told::default(), &shared)
            .await
            .unwrap();
        assert_eq!(locks.known().at, Some(clock.now()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_falls_silent_is_given_up_and_what_is_known_stays() {
        let shared: SharedClock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
        let locks = Locks::default();
        let locked = v1::WatchLocksResponse {
            locks: vec![lock("alice")],
        };
        let silent = stream::iter([Ok(locked)]).chain(stream::pending());
        let status = take(silent, &locks, &Told::default(), &shared)
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert_eq!(locks.known().locks.len(), 1);
    }
}
