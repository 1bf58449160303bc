//! Who is told of a change: the watchers that it may concern, and nobody else.
//!
//! A thousand watchers of a few databases each must not all wake at every change of a million. A watcher therefore says
//! which labels its rows have to have ([`Interest`]), and a change is looked up by the labels that its row has and had. The
//! lookup narrows and never decides: a watcher judges each change that it is told of by its whole filter.
//!
//! Invariants: a watcher is told of every change that its filter may meet, in order; one that does not take them is ended
//! when its queue is full, and never waited for.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::mpsc;

use super::{
    index::{LabelIndex, Term},
    rows::{Row, RowChange, RowChanges},
};

/// Transactions that may wait for a watcher.
pub(super) const QUEUE_MAX: usize = 1024;

/// Which changes may concern a watcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Interest {
    /// Any.
    All,
    /// Those of rows that have one of these labels.
    Labels(Vec<Term>),
}

impl Interest {
    /// For rows that have all labels of at least one of these lists; a list of none is every row. Of each list the
    /// label counts that the fewest rows have now.
    pub(super) fn new<R: Row>(any: &[Vec<Term>], index: &LabelIndex<R>) -> Self {
        let rarest = |all: &Vec<Term>| all.iter().min_by_key(|term| index.rows_with(term)).cloned();
        match any.iter().map(rarest).collect() {
            Some(terms) => Self::Labels(terms),
            None => Self::All,
        }
    }
}

/// What a watcher is told: of one transaction the changes that may concern it.
#[derive(Debug)]
pub(super) struct Told<R> {
    changes: Arc<RowChanges<R>>,
    /// Which of them; `None` is all.
    which: Option<Box<[u32]>>,
}

impl<R> Told<R> {
    /// The transaction's revision.
    pub(super) fn revision(&self) -> u64 {
        self.changes.revision
    }

    /// The changes, in order.
    pub(super) fn changes(&self) -> Box<dyn Iterator<Item = RowChange<R>> + Send + '_>
    where
        R: Send + Sync,
    {
        let all = &self.changes.changes;
        match &self.which {
            None => Box::new(all.iter().cloned()),
            Some(which) => Box::new(which.iter().map(|at| all[*at as usize].clone())),
        }
    }
}

/// Why nothing more is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The queue was full.
    TooSlow,
    /// The feed is gone: what it tells of was read anew.
    Closed,
}

/// The watchers of a table. Clones are the same feed.
#[derive(Debug)]
pub(crate) struct Feed<R>(Arc<Mutex<Watchers<R>>>);

impl<R> Default for Feed<R> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Watchers {
            all: BTreeMap::new(),
            of_everything: BTreeSet::new(),
            by_label: HashMap::new(),
            next: 0,
        })))
    }
}

#[derive(Debug)]
struct Watchers<R> {
    all: BTreeMap<u64, Watching<R>>,
    /// Watchers that everything concerns.
    of_everything: BTreeSet<u64>,
    /// Watchers by the labels that concern them.
    by_label: HashMap<Box<str>, HashMap<Box<str>, Vec<u64>>>,
    next: u64,
}

#[derive(Debug)]
struct Watching<R> {
    interest: Interest,
    queue: mpsc::Sender<Told<R>>,
    too_slow: Arc<AtomicBool>,
}

/// A watcher's place in a feed; dropping it ends it.
#[derive(Debug)]
pub(super) struct Subscription<R> {
    feed: Arc<Mutex<Watchers<R>>>,
    id: u64,
    queue: mpsc::Receiver<Told<R>>,
    too_slow: Arc<AtomicBool>,
}

impl<R: Row> Feed<R> {
    /// Begins to tell a watcher, from the next transaction on.
    pub(super) fn subscribe(&self, interest: Interest) -> Subscription<R> {
        let (sender, queue) = mpsc::channel(QUEUE_MAX);
        let too_slow = Arc::new(AtomicBool::new(false));
        let mut watchers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let id = watchers.add(Watching {
            interest,
            queue: sender,
            too_slow: too_slow.clone(),
        });
        Subscription {
            feed: self.0.clone(),
            id,
            queue,
            too_slow,
        }
    }

    /// Tells whoever a transaction may concern.
    pub(super) fn tell(&self, changes: RowChanges<R>) {
        let mut watchers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if watchers.all.is_empty() || changes.changes.is_empty() {
            return;
        }
        let changes = Arc::new(changes);
        let mut late = Vec::new();
        for (id, which) in watchers.concerned(&changes.changes) {
            let Some(watching) = watchers.all.get(&id) else {
                continue;
            };
            let told = Told {
                changes: changes.clone(),
                which: which.map(Vec::into_boxed_slice),
            };
            if watching.queue.try_send(told).is_err() {
                watching.too_slow.store(true, Ordering::Release);
                late.push(id);
            }
        }
        for id in late {
            watchers.remove(id);
        }
    }

    /// Ends all watchers.
    pub(super) fn close(&self) {
        let mut watchers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watchers.all.clear();
        watchers.of_everything.clear();
        watchers.by_label.clear();
    }
}

impl<R: Row> Watchers<R> {
    fn add(&mut self, watching: Watching<R>) -> u64 {
        let id = self.next;
        self.next += 1;
        match &watching.interest {
            Interest::All => drop(self.of_everything.insert(id)),
            Interest::Labels(terms) => {
                for (key, value) in terms.iter().flat_map(Term::pairs) {
                    let values = self.by_label.entry(key.into()).or_default();
                    values.entry(value.into()).or_default().push(id);
                }
            }
        }
        self.all.insert(id, watching);
        id
    }

    /// The watchers that any of these changes may concern, and which do; `None` is all of them.
    fn concerned(&self, changes: &[RowChange<R>]) -> Vec<(u64, Option<Vec<u32>>)> {
        let mut some: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        for (at, change) in (0_u32..).zip(changes) {
            let current = change.current.as_deref().map(Row::labels);
            let previous = change.previous.as_deref().map(Row::labels);
            let previous = previous.filter(|labels| current != Some(*labels));
            for (key, value) in current.into_iter().chain(previous).flat_map(|l| l.iter()) {
                let ids = self.by_label.get(key).and_then(|values| values.get(value));
                for id in ids.into_iter().flatten() {
                    let which = some.entry(*id).or_default();
                    if which.last() != Some(&at) {
                        which.push(at);
                    }
                }
            }
        }
        let everything = self.of_everything.iter();
        everything
            .map(|id| (*id, None))
            .chain(some.into_iter().map(|(id, which)| (id, Some(which))))
            .collect()
    }
}

impl<R> Watchers<R> {
    fn remove(&mut self, id: u64) {
        let Some(watching) = self.all.remove(&id) else {
            return;
        };
        self.of_everything.remove(&id);
        let Interest::Labels(terms) = watching.interest else {
            return;
        };
        for (key, value) in terms.iter().flat_map(Term::pairs) {
            let Some(values) = self.by_label.get_mut(key) else {
                continue;
            };
            if let Some(ids) = values.get_mut(value) {
                ids.retain(|other| *other != id);
                if ids.is_empty() {
                    values.remove(value);
                }
            }
            if values.is_empty() {
                self.by_label.remove(key);
            }
        }
    }
}

impl<R> Subscription<R> {
    /// What is told next.
    ///
    /// # Errors
    ///
    /// [`Ended`]: nothing more comes.
    pub(super) async fn next(&mut self) -> Result<Told<R>, Ended> {
        let told = self.queue.recv().await;
        if self.too_slow.load(Ordering::Acquire) {
            return Err(Ended::TooSlow);
        }
        told.ok_or(Ended::Closed)
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

impl<R> Drop for Subscription<R> {
    fn drop(&mut self) {
        let mut watchers = self.feed.lock().unwrap_or_else(PoisonError::into_inner);
        watchers.remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidegate_core::{Labels, Selector};
    use tidegate_proto::v1;

    use super::*;
    use crate::{
        inventory::{
            query::terms_of,
            rows::{DatabaseRow, database_row},
        },
        keys,
        record::{DatabaseRecord, encode},
        store::Entry,
    };

    fn row(name: &str, labels: &Labels) -> DatabaseRow {
        let database = v1::Database {
            name: name.to_owned(),
            labels: labels.into(),
            ..v1::Database::default()
        };
        let record = DatabaseRecord {
            database: Some(database),
            ..DatabaseRecord::default()
        };
        let entry = Entry {
            key: keys::database(name),
            value: encode(&record),
            created: 1,
            modified: 1,
            lease: None,
        };
        database_row(&entry).unwrap()
    }

    fn change(before: Option<&Labels>, after: Option<&Labels>) -> RowChange<DatabaseRow> {
        let row = |labels: &Labels| Arc::new(row("a", labels));
        RowChange {
            previous: before.map(row),
            current: after.map(row),
        }
    }

    fn one(change: RowChange<DatabaseRow>) -> RowChanges<DatabaseRow> {
        RowChanges {
            revision: 1,
            changes: vec![change],
        }
    }

    fn interest(selector: &Selector) -> Interest {
        Interest::new(
            &[terms_of(selector).collect()],
            &LabelIndex::<DatabaseRow>::default(),
        )
    }

    fn labels() -> impl Strategy<Value = Labels> {
        let pairs = prop::collection::vec(("[abc]", "[xyz]"), 0..4);
        pairs.prop_map(|pairs| pairs.into_iter().collect())
    }

    fn selector() -> impl Strategy<Value = Selector> {
        let values = prop::collection::vec(
            prop_oneof![4 => "[xyz]", 1 => Just("*".to_owned()), 1 => Just("^x|y$".to_owned())],
            1..3,
        );
        let pairs = prop::collection::btree_map("[abc]", values, 1..3);
        pairs.prop_map(|pairs| Selector::new(pairs).unwrap())
    }

    proptest! {
        #[test]
        fn whoever_a_change_concerns_is_told_of_it_once(
            selectors in prop::collection::vec(selector(), 1..8),
            changes in prop::collection::vec(
                (prop::option::of(labels()), prop::option::of(labels())), 1..6
            ),
            gone in any::<prop::sample::Index>(),
        ) {
            let feed = Feed::<DatabaseRow>::default();
            let mut watching: Vec<_> = selectors
                .into_iter()
                .map(|selector| (feed.subscribe(interest(&selector)), selector))
                .collect();
            drop(watching.remove(gone.index(watching.len())));
            let all: Vec<_> = changes
                .iter()
                .map(|(before, after)| change(before.as_ref(), after.as_ref()))
                .collect();
            feed.tell(RowChanges { revision: 7, changes: all });
            for (subscription, selector) in &mut watching {
                let told = subscription.queue.try_recv().ok();
                prop_assert!(subscription.is_empty());
                let told: Vec<RowChange<DatabaseRow>> =
                    told.iter().flat_map(Told::changes).collect();
                let concerns = |row: &Option<Arc<DatabaseRow>>| {
                    row.as_ref().is_some_and(|row| selector.matches(row.labels()))
                };
                let meant = |change: &&RowChange<DatabaseRow>| {
                    concerns(&change.previous) || concerns(&change.current)
                };
                let shown = |change: &RowChange<DatabaseRow>| {
                    let labels = |row: &Option<Arc<DatabaseRow>>| {
                        row.as_ref().map(|row| row.labels().clone())
                    };
                    (labels(&change.previous), labels(&change.current))
                };
                let got: Vec<_> = told.iter().filter(meant).map(shown).collect();
                let concerns = |labels: &Option<Labels>| {
                    labels.as_ref().is_some_and(|labels| selector.matches(labels))
                };
                let wanted = changes.iter().filter(|(a, b)| concerns(a) || concerns(b));
                prop_assert_eq!(got, wanted.cloned().collect::<Vec<_>>());
            }
            drop(watching);
            let left = feed.0.lock().unwrap();
            prop_assert!(left.all.is_empty() && left.by_label.is_empty());
            prop_assert!(left.of_everything.is_empty());
        }
    }

    #[test]
    fn a_narrow_watcher_is_not_told_of_others_rows() {
        let feed = Feed::<DatabaseRow>::default();
        let selector = |value: &str| Selector::new([("team", [value])]).unwrap();
        let mut mine = feed.subscribe(interest(&selector("bi")));
        let mut nothing = feed.subscribe(Interest::Labels(Vec::new()));
        let labels = |team: &str| Some([("team", team)].into_iter().collect::<Labels>());
        feed.tell(one(change(None, labels("web").as_ref())));
        assert!(mine.is_empty());
        feed.tell(one(change(labels("bi").as_ref(), labels("web").as_ref())));
        assert_eq!(mine.queue.try_recv().unwrap().changes().count(), 1);
        assert!(nothing.queue.try_recv().is_err());
    }

    #[tokio::test]
    async fn one_that_takes_nothing_is_ended_and_the_others_go_on() {
        let feed = Feed::<DatabaseRow>::default();
        let mut slow = feed.subscribe(Interest::All);
        let labels = Labels::new();
        for _ in 0..QUEUE_MAX {
            feed.tell(one(change(None, Some(&labels))));
        }
        let mut quick = feed.subscribe(Interest::All);
        feed.tell(one(change(None, Some(&labels))));
        assert_eq!(slow.next().await.err(), Some(Ended::TooSlow));
        assert_eq!(quick.next().await.unwrap().revision(), 1);
        feed.close();
        assert_eq!(quick.next().await.err(), Some(Ended::Closed));
    }
}
