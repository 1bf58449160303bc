//! Answers of etcd's watch as transactions of ours. Pure.
//!
//! Invariants: a batch is whole (etcd never splits a revision over answers, except into fragments that say so), no
//! revision is given twice, and a change whose previous value is missing is an error, not a change.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{
    convert::{entry, entry_under, unsigned},
    namespace::Namespace,
    pb::{
        etcdserverpb::WatchResponse,
        mvccpb::{Event, event::EventType},
    },
};
use crate::store::{Batch, Change, WatchError, Watched};

/// Where a watch stands, and what it has for its reader.
pub(super) struct Assembler {
    names: Namespace,
    prefix: Bytes,
    /// Everything up to this revision has been given, or lies in `ready`.
    seen: u64,
    /// The revision that the reader waits to be told of.
    goal: Option<u64>,
    fragments: Vec<Event>,
    ready: VecDeque<Watched>,
}

/// Why an answer ends a watch, or its stream.
#[derive(Debug)]
pub(super) enum Cancelled {
    /// The watch cannot go on.
    Ended(WatchError),
    /// etcd gave it up, and says why: another stream may do.
    Lost(String),
}

impl Assembler {
    /// Begins after a revision. `current` is the store's own: history ends there.
    pub(super) fn new(names: Namespace, prefix: Bytes, after: u64, current: u64) -> Self {
        let mut made = Self {
            names,
            prefix,
            seen: after,
            goal: Some(current),
            fragments: Vec::new(),
            ready: VecDeque::new(),
        };
        made.reach(after);
        made
    }

    /// The last revision that was given in full.
    pub(super) const fn seen(&self) -> u64 {
        self.seen
    }

    /// Whether the reader waits to be told of a revision that nothing has reached yet.
    pub(super) const fn is_waiting(&self) -> bool {
        self.goal.is_some()
    }

    /// What is next for the reader.
    pub(super) fn pop(&mut self) -> Option<Watched> {
        self.ready.pop_front()
    }

    /// The reader is to be told when a revision is reached; nothing happens when it is already.
    pub(super) fn expect(&mut self, revision: u64) {
        if revision > self.seen {
            self.goal = self.goal.max(Some(revision));
        }
    }

    /// Forgets the half of an answer that a lost stream left.
    pub(super) fn interrupted(&mut self) {
        self.fragments.clear();
    }

    /// Takes an answer in.
    pub(super) fn take(&mut self, answer: WatchResponse) -> Result<(), Cancelled> {
        if answer.compact_revision > 0 {
            let compacted = unsigned(answer.compact_revision);
            return Err(Cancelled::Ended(WatchError::Compacted { compacted }));
        }
        if answer.canceled {
            return Err(Cancelled::Lost(answer.cancel_reason));
        }
        if answer.created {
            return Ok(());
        }
        self.fragments.extend(answer.events);
        if answer.fragment {
            return Ok(());
        }
        let events = std::mem::take(&mut self.fragments);
        if events.is_empty() {
            // Nothing has changed up to the revision that it names.
            let header = answer.header.unwrap_or_default();
            self.reach(unsigned(header.revision));
            return Ok(());
        }
        self.take_events(events).map_err(Cancelled::Ended)
    }

    fn take_events(&mut self, events: Vec<Event>) -> Result<(), WatchError> {
        let mut batch = Batch {
            revision: self.seen,
            changes: Vec::new(),
        };
        for event in events {
            let revision = event.kv.as_ref().map_or(0, |kv| unsigned(kv.mod_revision));
            if revision <= self.seen {
                continue;
            }
            if revision != batch.revision {
                self.finish(std::mem::replace(
                    &mut batch,
                    Batch {
                        revision,
                        changes: Vec::new(),
                    },
                ));
            }
            batch.changes.extend(self.change(event)?);
        }
        self.finish(batch);
        Ok(())
    }

    fn finish(&mut self, batch: Batch) {
        let revision = batch.revision;
        // What the reader waits for lies before this: it is told first.
        if self.goal.is_some_and(|goal| goal < revision) {
            self.tell();
        }
        if !batch.changes.is_empty() {
            self.ready.push_back(Watched::Batch(batch));
        }
        self.reach(revision);
    }

    fn reach(&mut self, revision: u64) {
        self.seen = self.seen.max(revision);
        if self.goal.is_some_and(|goal| goal <= self.seen) {
            self.tell();
        }
    }

    fn tell(&mut self) {
        if let Some(goal) = self.goal.take() {
            self.ready.push_back(Watched::CaughtUp(goal));
        }
    }

    /// `None` for what is not under the prefix, or not a caller's.
    fn change(&self, event: Event) -> Result<Option<Change>, WatchError> {
        let is_deletion = event.r#type == i32::from(EventType::Delete);
        let Some(found) = event.kv else {
            return Ok(None);
        };
        let Some(key) = self.names.strip(&found.key) else {
            return Ok(None);
        };
        if !key.starts_with(&self.prefix) {
            return Ok(None);
        }
        let revision = unsigned(found.mod_revision);
        let previous = event.prev_kv.and_then(|kv| entry(&self.names, kv));
        let is_new = !is_deletion && found.version == 1;
        if previous.is_none() && !is_new {
            // etcd leaves it out when history was given up while the answer was on its way.
            let compacted = revision.saturating_sub(1);
            return Err(WatchError::Compacted { compacted });
        }
        Ok(Some(Change {
            current: (!is_deletion).then(|| entry_under(key.clone(), found)),
            key,
            previous,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::etcd::pb::{etcdserverpb::ResponseHeader, mvccpb::KeyValue};

    fn kv(name: &str, revision: i64, version: i64) -> KeyValue {
        KeyValue {
            key: Bytes::from(format!("/t/{name}")),
            mod_revision: revision,
            create_revision: revision,
            version,
            ..KeyValue::default()
        }
    }

    fn put(name: &str, revision: i64) -> Event {
        Event {
            r#type: EventType::Put.into(),
            kv: Some(kv(name, revision, 1)),
            prev_kv: None,
        }
    }

    fn answer(events: Vec<Event>) -> WatchResponse {
        WatchResponse {
            events,
            ..WatchResponse::default()
        }
    }

    fn assembler(after: u64, current: u64) -> Assembler {
        Assembler::new(Namespace::new("/t"), "/a".into(), after, current)
    }

    /// Revisions of batches with their number of changes, and what was told.
    fn told(assembler: &mut Assembler) -> Vec<String> {
        std::iter::from_fn(|| assembler.pop())
            .map(|watched| match watched {
                Watched::Batch(batch) => format!("{}:{}", batch.revision, batch.changes.len()),
                Watched::CaughtUp(revision) => format!("caught up {revision}"),
            })
            .collect()
    }

    #[test]
    fn one_answer_can_hold_many_transactions_and_one_transaction_many_answers() {
        let mut watch = assembler(1, 1);
        assert_eq!(told(&mut watch), ["caught up 1"]);
        let many = vec![put("data/a1", 2), put("data/a2", 2), put("data/a3", 3)];
        watch.take(answer(many)).unwrap();
        assert_eq!(told(&mut watch), ["2:2", "3:1"]);

        let part = WatchResponse {
            fragment: true,
            ..answer(vec![put("data/a4", 4)])
        };
        watch.take(part.clone()).unwrap();
        assert!(told(&mut watch).is_empty());
        watch.take(answer(vec![put("data/a5", 4)])).unwrap();
        assert_eq!(told(&mut watch), ["4:2"]);
    }

    #[test]
    fn what_a_new_stream_repeats_is_not_given_twice() {
        let mut watch = assembler(1, 1);
        let part = WatchResponse {
            fragment: true,
            ..answer(vec![put("data/a1", 2)])
        };
        watch.take(part).unwrap();
        watch.interrupted();
        watch.take(answer(vec![put("data/a1", 2)])).unwrap();
        watch
            .take(answer(vec![put("data/a1", 2), put("data/a2", 3)]))
            .unwrap();
        assert_eq!(told(&mut watch), ["caught up 1", "2:1", "3:1"]);
    }

    #[test]
    fn the_end_of_history_is_told_at_its_place() {
        let mut watch = assembler(1, 4);
        watch.take(answer(vec![put("data/a1", 3)])).unwrap();
        assert_eq!(told(&mut watch), ["3:1"]);
        assert!(watch.is_waiting());
        let later = vec![put("data/other", 4), put("data/a2", 5)];
        watch.take(answer(later)).unwrap();
        assert_eq!(told(&mut watch), ["caught up 4", "5:1"]);
        assert_eq!(watch.seen(), 5);

        let mut skipping = assembler(1, 4);
        skipping.take(answer(vec![put("data/a1", 6)])).unwrap();
        assert_eq!(told(&mut skipping), ["caught up 4", "6:1"]);
    }

    #[test]
    fn progress_moves_the_revision_on_and_is_told_only_when_asked_for() {
        let progress = |revision| WatchResponse {
            header: Some(ResponseHeader {
                revision,
                ..ResponseHeader::default()
            }),
            ..WatchResponse::default()
        };
        let mut watch = assembler(1, 1);
        told(&mut watch);
        watch.take(progress(7)).unwrap();
        assert!(told(&mut watch).is_empty());
        assert_eq!(watch.seen(), 7);
        watch.expect(7);
        assert!(!watch.is_waiting());
        watch.expect(9);
        watch.take(answer(vec![put("meta/bookmark", 9)])).unwrap();
        assert_eq!(told(&mut watch), ["caught up 9"]);
    }

    #[test]
    fn a_change_without_its_past_is_lost_history() {
        let mut watch = assembler(1, 1);
        let rewritten = Event {
            kv: Some(kv("data/a", 5, 3)),
            ..Event::default()
        };
        let ended = watch.take(answer(vec![rewritten])).unwrap_err();
        assert!(matches!(
            ended,
            Cancelled::Ended(WatchError::Compacted { compacted: 4 })
        ));
    }
}
