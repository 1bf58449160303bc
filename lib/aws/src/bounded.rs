//! A map that forgets what was used longest ago when it is full.

use std::{collections::HashMap, hash::Hash};

/// At most `entries_max` values, each with the time of its last use, counted in uses.
///
/// Making room looks at every entry: fine for thousands whose making costs a network call.
#[derive(Debug)]
pub(crate) struct Bounded<K, V> {
    entries: HashMap<K, (V, u64)>,
    entries_max: usize,
    uses: u64,
}

impl<K: Clone + Eq + Hash, V> Bounded<K, V> {
    pub(crate) fn new(entries_max: usize) -> Self {
        Self {
            entries: HashMap::new(),
            entries_max,
            uses: 0,
        }
    }

    /// The value for `key`, made by `make` when there is none.
    pub(crate) fn get_or_insert_with(&mut self, key: &K, make: impl FnOnce() -> V) -> V
    where
        V: Clone,
    {
        self.get_mut_or_insert_with(key, make).clone()
    }

    /// The value for `key`, empty when there was none.
    pub(crate) fn get_mut_or_default(&mut self, key: &K) -> &mut V
    where
        V: Default,
    {
        self.get_mut_or_insert_with(key, V::default)
    }

    fn get_mut_or_insert_with(&mut self, key: &K, make: impl FnOnce() -> V) -> &mut V {
        self.uses += 1;
        if !self.entries.contains_key(key) && self.entries.len() >= self.entries_max {
            self.forget_oldest();
        }
        let (value, used) = self
            .entries
            .entry(key.clone())
            .or_insert_with(|| (make(), self.uses));
        *used = self.uses;
        value
    }

    /// Forgets those that `keep` says no to.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        self.entries.retain(|key, (value, _)| keep(key, value));
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, (value, _))| (key, value))
    }

    fn forget_oldest(&mut self) {
        let oldest = self
            .entries
            .iter()
            .min_by_key(|(_, (_, used))| *used)
            .map(|(key, _)| key.clone());
        if let Some(key) = oldest {
            self.entries.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_longest_ago_is_forgotten_first() {
        let mut map = Bounded::new(2);
        for key in ["a", "b", "a", "c"] {
            map.get_or_insert_with(&key, || format!("first {key}"));
        }

        assert_eq!(map.get_or_insert_with(&"a", || "again".into()), "first a");
        assert_eq!(map.get_or_insert_with(&"b", || "again".into()), "again");
        assert_eq!(map.entries.len(), 2);
    }
}
