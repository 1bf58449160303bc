//! The tables in memory, one a kind, fed by the inventory's watch of the store.
//!
//! A row is made of all entries of the store that are of one resource, and keeps them: so what it was before a change,
//! or at an earlier revision, can be told from the entries that changed.
//!
//! Pure: [`Tables::apply`] takes one transaction and says what changed. One that is already in changes nothing.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use tidegate_core::predicate::Fields;

use super::kind::{Beside, KINDS, Kind, Record};
use crate::{
    inventory::Ordered,
    keys,
    store::{Batch, Entry},
};

/// One resource.
pub(crate) struct Row {
    /// What it is.
    pub(crate) kind: &'static dyn Kind,
    /// Its place in the table. It may be a digest, and is never sent.
    pub(super) id: String,
    /// Revision of its last change; 0 for what is not in the store.
    pub(crate) revision: u64,
    /// What is known of it.
    pub(crate) record: Arc<dyn Record>,
    entries: Vec<Entry>,
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Row")
            .field("kind", &self.kind.name())
            .field("name", &self.record.name())
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

impl Ordered for Row {
    fn sort_fields(&self) -> &dyn Fields {
        self.record.as_ref()
    }

    fn sort_key(&self) -> (&str, &str) {
        (self.record.name(), self.record.tie())
    }
}

impl Row {
    /// As predicates look at it.
    pub(crate) fn fields(&self) -> &dyn Fields {
        self.record.as_ref()
    }

    /// The same with what is known beside the store.
    pub(crate) fn completed(self: &Arc<Self>, beside: &Beside<'_>) -> Arc<Self> {
        match self.record.completed(beside) {
            None => self.clone(),
            Some(record) => Arc::new(Self {
                kind: self.kind,
                id: self.id.clone(),
                revision: self.revision,
                record,
                entries: Vec::new(),
            }),
        }
    }

    /// What it was when each of these keys held this instead.
    pub(super) fn rewound(
        kind: &'static dyn Kind,
        id: &str,
        now: Option<&Self>,
        before: &BTreeMap<bytes::Bytes, Option<Entry>>,
    ) -> Option<Arc<Self>> {
        let mut entries = now.map(|row| row.entries.clone()).unwrap_or_default();
        for (key, entry) in before {
            replace(&mut entries, key, entry.as_ref());
        }
        made(kind, id, entries, None)
    }
}

/// What became of one resource in one transaction; at least one side is there.
#[derive(Clone, Debug)]
pub(crate) struct RowChange {
    /// What it was.
    pub(crate) previous: Option<Arc<Row>>,
    /// What it is.
    pub(crate) current: Option<Arc<Row>>,
}

/// The changes of one transaction; never none.
#[derive(Debug)]
pub(crate) struct Changes {
    /// Its revision.
    pub(crate) revision: u64,
    /// In order of kind and id.
    pub(crate) changes: Vec<RowChange>,
}

/// Rows by id; what an id is, the kind knows.
pub(super) type Rows = BTreeMap<String, Arc<Row>>;

/// The tables.
#[derive(Default)]
pub(crate) struct Tables {
    /// The store's revision that they show.
    pub(super) revision: u64,
    rows: [Rows; KINDS.len()],
    /// What there is without the store.
    fixed: [BTreeMap<String, Arc<dyn Record>>; KINDS.len()],
    /// How many databases each host serves.
    pub(super) serving: Arc<HashMap<String, u32>>,
}

/// A key, and the entry that it holds now.
type Changed<'c> = (&'c bytes::Bytes, Option<&'c Entry>);

/// Where a kind's rows are.
fn place(kind: &dyn Kind) -> Option<usize> {
    KINDS.iter().position(|known| known.name() == kind.name())
}

impl Tables {
    /// The tables of a store in which nothing is.
    pub(crate) fn new() -> Self {
        let mut tables = Self::default();
        for kind in KINDS {
            for (id, record) in kind.built_in() {
                tables.fix(kind, id, record);
            }
        }
        tables
    }

    /// The prefixes of what is kept here, each once.
    pub(crate) fn prefixes() -> Vec<&'static str> {
        let mut prefixes: Vec<&str> = KINDS
            .iter()
            .flat_map(|kind| kind.prefixes())
            .copied()
            .collect();
        prefixes.sort_unstable();
        prefixes.dedup();
        prefixes
    }

    /// Adds what there is without the store; the store's own of that id comes first.
    pub(super) fn fix(&mut self, kind: &'static dyn Kind, id: String, record: Arc<dyn Record>) {
        let Some(place) = place(kind) else { return };
        if !self.rows[place].contains_key(&id)
            && let Some(row) = made(kind, &id, Vec::new(), Some(&record))
        {
            self.rows[place].insert(id.clone(), row);
        }
        self.fixed[place].insert(id, record);
    }

    /// Takes over what there is without the store from the tables before.
    pub(super) fn fixed_as(&mut self, before: &Self) {
        for (kind, fixed) in KINDS.into_iter().zip(&before.fixed) {
            for (id, record) in fixed {
                self.fix(kind, id.clone(), record.clone());
            }
        }
    }

    /// Takes in one entry of the first reading.
    pub(crate) fn load(&mut self, entry: &Entry) {
        for (place, kind) in KINDS.into_iter().enumerate() {
            if let Some(id) = id_in(kind, &entry.key) {
                self.change(place, id, &[(&entry.key, Some(entry))]);
            }
        }
    }

    /// The first reading began at this revision.
    pub(crate) const fn began(&mut self, revision: u64) {
        self.revision = revision;
    }

    /// After the first reading; `serving` is the host of each database server.
    pub(crate) fn loaded<'h>(&mut self, revision: u64, serving: impl Iterator<Item = &'h str>) {
        self.revision = revision;
        let mut counted: HashMap<String, u32> = HashMap::new();
        for host_id in serving {
            match counted.get_mut(host_id) {
                Some(count) => *count += 1,
                None => drop(counted.insert(host_id.to_owned(), 1)),
            }
        }
        self.serving = Arc::new(counted);
    }

    /// Takes in one transaction. One that is already in is left out.
    pub(crate) fn apply(&mut self, batch: &Batch) -> Vec<RowChange> {
        if batch.revision <= self.revision {
            return Vec::new();
        }
        self.revision = batch.revision;
        let mut touched: BTreeMap<(usize, &str), Vec<Changed<'_>>> = BTreeMap::new();
        for change in &batch.changes {
            if let Some(pair) = keys::name_under(keys::PRESENCE, &change.key) {
                self.count(pair, change.current.as_ref(), batch.revision);
                continue;
            }
            for (place, kind) in KINDS.into_iter().enumerate() {
                if let Some(id) = id_in(kind, &change.key) {
                    let entries = touched.entry((place, id)).or_default();
                    entries.push((&change.key, change.current.as_ref()));
                }
            }
        }
        let changed = touched
            .into_iter()
            .map(|((place, id), entries)| self.change(place, id, &entries));
        changed
            .filter(|change| change.previous.is_some() || change.current.is_some())
            .collect()
    }

    /// Counts a database server that came or went.
    fn count(&mut self, pair: &str, current: Option<&Entry>, revision: u64) {
        let Some((host_id, _)) = pair.split_once('/') else {
            return;
        };
        match current {
            Some(entry) if entry.created == revision => {
                let serving = Arc::make_mut(&mut self.serving);
                *serving.entry(host_id.to_owned()).or_default() += 1;
            }
            Some(_) => {}
            None => {
                let serving = Arc::make_mut(&mut self.serving);
                if let Some(count) = serving.get_mut(host_id) {
                    *count -= 1;
                    if *count == 0 {
                        serving.remove(host_id);
                    }
                }
            }
        }
    }

    fn change(&mut self, place: usize, id: &str, changed: &[Changed<'_>]) -> RowChange {
        let kind = KINDS[place];
        let previous = self.rows[place].get(id).cloned();
        let mut entries = previous
            .as_ref()
            .map(|row| row.entries.clone())
            .unwrap_or_default();
        for (key, entry) in changed {
            replace(&mut entries, key, *entry);
        }
        let current = made(kind, id, entries, self.fixed[place].get(id));
        match &current {
            Some(row) => drop(self.rows[place].insert(id.to_owned(), row.clone())),
            None => drop(self.rows[place].remove(id)),
        }
        RowChange { previous, current }
    }

    /// Every row of a kind.
    pub(super) fn rows(&self, kind: &dyn Kind) -> Option<&Rows> {
        place(kind).map(|place| &self.rows[place])
    }

    /// What there is of a kind without the store, by id.
    pub(super) fn fixed(&self, kind: &dyn Kind, id: &str) -> Option<Arc<Row>> {
        let place = place(kind)?;
        made(KINDS[place], id, Vec::new(), self.fixed[place].get(id))
    }
}

/// The resource of a kind that a key is of.
pub(super) fn id_in<'k>(kind: &dyn Kind, key: &'k [u8]) -> Option<&'k str> {
    // Most keys are of no kind here, so the cheapest look comes first.
    let mut prefixes = kind.prefixes().iter();
    let rest = prefixes.find_map(|prefix| key.strip_prefix(prefix.as_bytes()))?;
    kind.id_of(std::str::from_utf8(rest).ok()?)
}

fn made(
    kind: &'static dyn Kind,
    id: &str,
    entries: Vec<Entry>,
    fixed: Option<&Arc<dyn Record>>,
) -> Option<Arc<Row>> {
    let stored = if entries.is_empty() {
        None
    } else {
        kind.read(&entries)
    };
    Some(Arc::new(Row {
        kind,
        id: id.to_owned(),
        revision: entries
            .iter()
            .map(|entry| entry.modified)
            .max()
            .unwrap_or(0),
        record: stored.or_else(|| fixed.cloned())?,
        entries,
    }))
}

/// Puts an entry in the place of what is there of its key.
fn replace(entries: &mut Vec<Entry>, key: &bytes::Bytes, entry: Option<&Entry>) {
    let found = entries.binary_search_by(|held| held.key.cmp(key));
    match (found, entry) {
        (Ok(at), Some(entry)) => entries[at] = kept(entry),
        (Ok(at), None) => drop(entries.remove(at)),
        (Err(at), Some(entry)) => entries.insert(at, kept(entry)),
        (Err(_), None) => {}
    }
}

/// An entry with buffers of its own: a small one must not keep a whole answer of the store.
fn kept(entry: &Entry) -> Entry {
    Entry {
        key: bytes::Bytes::copy_from_slice(&entry.key),
        value: bytes::Bytes::copy_from_slice(&entry.value),
        ..entry.clone()
    }
}
