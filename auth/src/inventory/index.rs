//! Which rows have which label: the inverted index that keeps a selective listing from looking at everything.
//!
//! Each key and each value is held once, whatever the number of rows that have it; a row costs two to four bytes a
//! label. The index is changed with each row, and never rebuilt.
//!
//! Invariant: the index narrows and never decides. Whoever uses it looks at each row again, except where the index
//! holds the whole question ([`LabelIndex::counts`]).

use std::{collections::HashMap, sync::Arc};

use tidegate_core::labels::{TELEPORT_INTERNAL_PREFIX, TELEPORT_PREFIX};

use super::{rows::Row, slots::Slots};

/// A row's number in the index. It is no part of what the row says, so any two are equal.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Slot(u32);

impl PartialEq for Slot {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// A label that a row must have, with any of these values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Term {
    key: String,
    values: Vec<String>,
}

impl Term {
    /// `None` when the index cannot tell: keys that stand for another one are read by the labels themselves, and the
    /// key `*` is none.
    pub(crate) fn new<V: Into<String>>(
        key: &str,
        values: impl IntoIterator<Item = V>,
    ) -> Option<Self> {
        is_indexed(key).then(|| {
            let mut values: Vec<String> = values.into_iter().map(Into::into).collect();
            values.sort();
            values.dedup();
            Self {
                key: key.to_owned(),
                values,
            }
        })
    }
}

impl Term {
    /// The labels that satisfy it.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values
            .iter()
            .map(|value| (self.key.as_str(), value.as_str()))
    }
}

/// Whether a key is found in the index as it is written.
pub(crate) fn is_indexed(key: &str) -> bool {
    key != "*" && !key.starts_with(TELEPORT_PREFIX) && !key.starts_with(TELEPORT_INTERNAL_PREFIX)
}

/// How many rows have each value of a label.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// By count, the largest first, then by value. The empty value counts rows without the label.
    pub(crate) values: Vec<(String, u64)>,
    /// Rows in all.
    pub(crate) total: u64,
}

impl Counts {
    /// The `most` largest of these.
    pub(crate) fn largest<'v>(
        counted: impl IntoIterator<Item = (&'v str, u64)>,
        total: u64,
        most: usize,
    ) -> Self {
        let mut counted: Vec<(&str, u64)> = counted.into_iter().collect();
        counted.sort_unstable_by(|(a, many), (b, few)| few.cmp(many).then_with(|| a.cmp(b)));
        counted.truncate(most);
        Self {
            values: counted
                .into_iter()
                .map(|(value, count)| (value.to_owned(), count))
                .collect(),
            total,
        }
    }
}

/// Rows by label.
#[derive(Debug)]
pub(crate) struct LabelIndex<R> {
    rows: Vec<Option<Arc<R>>>,
    /// Numbers of rows that went.
    free: Vec<u32>,
    keys: HashMap<Box<str>, HashMap<Box<str>, Slots>>,
}

impl<R> Default for LabelIndex<R> {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            free: Vec::new(),
            keys: HashMap::new(),
        }
    }
}

impl<R: Row> LabelIndex<R> {
    /// Takes in what a row was and what it is; gives the row with its number.
    pub(crate) fn replace(&mut self, previous: Option<&R>, current: Option<R>) -> Option<Arc<R>> {
        let same = matches!((previous, &current), (Some(a), Some(b)) if a.labels() == b.labels());
        if let Some(previous) = previous.filter(|_| !same) {
            self.forget(previous);
        }
        let Some(mut row) = current else {
            if let Some(Slot(slot)) = previous.map(Row::slot) {
                self.rows[slot as usize] = None;
                self.free.push(slot);
            }
            return None;
        };
        let Slot(slot) = previous.map_or_else(|| self.place(), Row::slot);
        row.set_slot(Slot(slot));
        let row = Arc::new(row);
        if !same {
            for (key, value) in row.labels().iter() {
                // Looked up before it is made: nearly all keys and values are there already.
                let values = match self.keys.get_mut(key) {
                    Some(values) => values,
                    None => self.keys.entry(key.into()).or_default(),
                };
                match values.get_mut(value) {
                    Some(slots) => slots.insert(slot),
                    None => values.entry(value.into()).or_default().insert(slot),
                }
            }
        }
        self.rows[slot as usize] = Some(row.clone());
        Some(row)
    }

    fn place(&mut self) -> Slot {
        Slot(self.free.pop().unwrap_or_else(|| {
            self.rows.push(None);
            u32::try_from(self.rows.len() - 1).expect("no machine holds four billion rows")
        }))
    }

    fn forget(&mut self, row: &R) {
        let Slot(slot) = row.slot();
        for (key, value) in row.labels().iter() {
            let Some(values) = self.keys.get_mut(key) else {
                continue;
            };
            if let Some(slots) = values.get_mut(value) {
                slots.remove(slot);
                if slots.is_empty() {
                    values.remove(value);
                }
            }
            if values.is_empty() {
                self.keys.remove(key);
            }
        }
    }

    /// Whether it holds no row and no label.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.len() == 0
    }

    /// How many rows there are.
    pub(crate) fn len(&self) -> usize {
        self.rows.len() - self.free.len()
    }

    /// The rows of these numbers that are still there.
    pub(crate) fn rows(&self, slots: &[u32]) -> Vec<Arc<R>> {
        let rows = slots
            .iter()
            .filter_map(|slot| self.rows.get(*slot as usize));
        rows.filter_map(Clone::clone).collect()
    }

    /// How many rows have a label.
    pub(super) fn rows_with(&self, term: &Term) -> usize {
        let values = self.keys.get(term.key.as_str());
        let slots = |value: &String| values?.get(value.as_str()).map(Slots::len);
        term.values.iter().filter_map(slots).sum()
    }

    /// The rows that have all these labels; `None` when nothing is asked for, which is all rows.
    pub(crate) fn candidates(&self, terms: &[Term]) -> Option<Slots> {
        let mut found: Vec<(usize, Vec<&Slots>)> = terms
            .iter()
            .map(|term| {
                let values = self.keys.get(term.key.as_str());
                let values = values.into_iter().flat_map(|values| {
                    let slots = |value: &String| values.get(value.as_str());
                    term.values.iter().filter_map(slots)
                });
                let values: Vec<&Slots> = values.collect();
                (values.iter().map(|slots| slots.len()).sum(), values)
            })
            .collect();
        // The rarest first: each further one can only take away.
        found.sort_by_key(|(len, _)| *len);
        let mut found = found.into_iter().map(|(_, values)| values);
        let mut candidates = united(&found.next()?);
        for values in found {
            if candidates.is_empty() {
                break;
            }
            candidates = match values.as_slice() {
                [only] => candidates.and(only),
                several => candidates.and(&united(several)),
            };
        }
        Some(candidates)
    }

    /// How many of the rows with all these labels have each value of a label.
    pub(crate) fn counts(&self, label: &str, terms: &[Term], most: usize) -> Counts {
        let among = self.candidates(terms);
        let total = among.as_ref().map_or_else(|| self.len(), Slots::len);
        let mut without = total;
        let values = self.keys.get(label).into_iter().flatten();
        let mut counted: Vec<(&str, u64)> = values
            .filter_map(|(value, slots)| {
                let count = among
                    .as_ref()
                    .map_or_else(|| slots.len(), |among| among.len_of_and(slots));
                without -= if value.is_empty() { 0 } else { count };
                (count > 0 && !value.is_empty()).then_some((&**value, count as u64))
            })
            .collect();
        if without > 0 {
            counted.push(("", without as u64));
        }
        Counts::largest(counted, total as u64, most)
    }
}

fn united(sets: &[&Slots]) -> Slots {
    let mut sets = sets.iter();
    let mut all = sets.next().copied().cloned().unwrap_or_default();
    sets.for_each(|set| all.add(set));
    all
}
