//! Sets of row numbers, small enough for an index that names every row twenty times.
//!
//! A set of more than a few numbers is cut into chunks of 65,536: a chunk is a sorted list of 16-bit numbers while that
//! is the smaller form, and a bitmap beyond. A row costs two bytes in most of its sets, and sets are intersected a word
//! at a time where they are large.

/// Most numbers that are kept as they are, without chunks.
const FEW_MAX: usize = 32;
/// Most numbers of a chunk that is a list: from here on a bitmap is smaller.
const SPARSE_MAX: usize = 4096;
/// Words of a bitmap.
const WORDS: usize = (1 << 16) / 64;

/// A set of row numbers.
#[derive(Clone, Debug)]
pub(crate) enum Slots {
    /// Sorted.
    Few(Vec<u32>),
    /// Sorted by the upper half of the numbers; no chunk is empty.
    Many(Vec<(u16, Chunk)>),
}

/// Numbers with one upper half, by their lower half.
#[derive(Clone, Debug)]
pub(crate) enum Chunk {
    /// Sorted.
    Sparse(Vec<u16>),
    /// One bit a number, and how many are set.
    Dense(Box<[u64]>, usize),
}

impl Default for Slots {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Slots {
    /// How many numbers there are.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Few(few) => few.len(),
            Self::Many(chunks) => chunks.iter().map(|(_, chunk)| chunk.len()).sum(),
        }
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Few(few) => few.is_empty(),
            Self::Many(chunks) => chunks.is_empty(),
        }
    }

    /// Whether a number is in the set.
    pub(crate) fn contains(&self, slot: u32) -> bool {
        match self {
            Self::Few(few) => few.binary_search(&slot).is_ok(),
            Self::Many(_) => {
                let (high, low) = halves(slot);
                self.chunk(high).is_some_and(|chunk| chunk.contains(low))
            }
        }
    }

    /// Adds a number; one that is there already stays once.
    pub(crate) fn insert(&mut self, slot: u32) {
        match self {
            Self::Few(few) => {
                if let Err(at) = few.binary_search(&slot) {
                    few.insert(at, slot);
                }
                if few.len() > FEW_MAX {
                    let few = std::mem::take(few);
                    *self = Self::Many(Vec::new());
                    few.into_iter().for_each(|slot| self.insert(slot));
                }
            }
            Self::Many(chunks) => {
                let (high, low) = halves(slot);
                match chunks.binary_search_by_key(&high, |(high, _)| *high) {
                    Ok(at) => chunks[at].1.insert(low),
                    Err(at) => chunks.insert(at, (high, Chunk::Sparse(vec![low]))),
                }
            }
        }
    }

    /// Takes a number away, if it is there.
    pub(crate) fn remove(&mut self, slot: u32) {
        match self {
            Self::Few(few) => {
                if let Ok(at) = few.binary_search(&slot) {
                    few.remove(at);
                }
            }
            Self::Many(chunks) => {
                let (high, low) = halves(slot);
                if let Ok(at) = chunks.binary_search_by_key(&high, |(high, _)| *high) {
                    chunks[at].1.remove(low);
                    if chunks[at].1.len() == 0 {
                        chunks.remove(at);
                    }
                }
            }
        }
    }

    /// The numbers in both.
    pub(crate) fn and(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Few(few), larger) | (larger, Self::Few(few)) => {
                let both = few.iter().copied().filter(|slot| larger.contains(*slot));
                Self::Few(both.collect())
            }
            (Self::Many(chunks), Self::Many(_)) => {
                let both = chunks.iter().filter_map(|(high, chunk)| {
                    let both = chunk.and(other.chunk(*high)?);
                    (both.len() > 0).then_some((*high, both))
                });
                Self::Many(both.collect())
            }
        }
    }

    /// How many numbers are in both.
    pub(crate) fn len_of_and(&self, other: &Self) -> usize {
        match (self, other) {
            (Self::Few(few), larger) | (larger, Self::Few(few)) => {
                few.iter().filter(|slot| larger.contains(**slot)).count()
            }
            (Self::Many(chunks), Self::Many(_)) => chunks
                .iter()
                .filter_map(|(high, chunk)| Some(chunk.len_of_and(other.chunk(*high)?)))
                .sum(),
        }
    }

    /// Adds all numbers of another set.
    pub(crate) fn add(&mut self, other: &Self) {
        let Self::Many(theirs) = other else {
            other.iter().for_each(|slot| self.insert(slot));
            return;
        };
        if let Self::Few(few) = self {
            let few = std::mem::take(few);
            *self = other.clone();
            few.into_iter().for_each(|slot| self.insert(slot));
            return;
        }
        let Self::Many(ours) = self else { return };
        for (high, chunk) in theirs {
            match ours.binary_search_by_key(high, |(high, _)| *high) {
                Ok(at) => ours[at].1.add(chunk),
                Err(at) => ours.insert(at, (*high, chunk.clone())),
            }
        }
    }

    /// The numbers in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> {
        let (few, chunks) = match self {
            Self::Few(few) => (few.as_slice(), [].as_slice()),
            Self::Many(chunks) => ([].as_slice(), chunks.as_slice()),
        };
        let chunked = chunks.iter().flat_map(|(high, chunk)| {
            let high = u32::from(*high) << 16;
            chunk.iter().map(move |low| high | u32::from(low))
        });
        few.iter().copied().chain(chunked)
    }

    fn chunk(&self, high: u16) -> Option<&Chunk> {
        let Self::Many(chunks) = self else {
            return None;
        };
        let at = chunks.binary_search_by_key(&high, |(high, _)| *high);
        at.ok().map(|at| &chunks[at].1)
    }
}

impl Chunk {
    fn len(&self) -> usize {
        match self {
            Self::Sparse(lows) => lows.len(),
            Self::Dense(_, len) => *len,
        }
    }

    fn contains(&self, low: u16) -> bool {
        match self {
            Self::Sparse(lows) => lows.binary_search(&low).is_ok(),
            Self::Dense(words, _) => {
                let (word, bit) = place(low);
                words[word] & bit != 0
            }
        }
    }

    fn insert(&mut self, low: u16) {
        match self {
            Self::Sparse(lows) => {
                if let Err(at) = lows.binary_search(&low) {
                    lows.insert(at, low);
                }
                if lows.len() > SPARSE_MAX {
                    *self = Self::dense(lows);
                }
            }
            Self::Dense(words, len) => {
                let (word, bit) = place(low);
                *len += usize::from(words[word] & bit == 0);
                words[word] |= bit;
            }
        }
    }

    fn remove(&mut self, low: u16) {
        match self {
            Self::Sparse(lows) => {
                if let Ok(at) = lows.binary_search(&low) {
                    lows.remove(at);
                }
            }
            Self::Dense(words, len) => {
                let (word, bit) = place(low);
                *len -= usize::from(words[word] & bit != 0);
                words[word] &= !bit;
                // Half way down, so that a set at the limit does not change its form with every row.
                if *len <= SPARSE_MAX / 2 {
                    *self = Self::Sparse(self.iter().collect());
                }
            }
        }
    }

    fn and(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Sparse(lows), larger) | (larger, Self::Sparse(lows)) => {
                let both = lows.iter().copied().filter(|low| larger.contains(*low));
                Self::Sparse(both.collect())
            }
            (Self::Dense(ours, _), Self::Dense(theirs, _)) => {
                let both = ours.iter().zip(theirs).map(|(a, b)| a & b);
                let words: Box<[u64]> = both.collect();
                let len = ones(words.iter().copied());
                Self::Dense(words, len)
            }
        }
    }

    fn len_of_and(&self, other: &Self) -> usize {
        match (self, other) {
            (Self::Sparse(lows), larger) | (larger, Self::Sparse(lows)) => {
                lows.iter().filter(|low| larger.contains(**low)).count()
            }
            (Self::Dense(ours, _), Self::Dense(theirs, _)) => {
                ones(ours.iter().zip(theirs).map(|(a, b)| a & b))
            }
        }
    }

    fn add(&mut self, other: &Self) {
        if let (Self::Dense(ours, len), Self::Dense(theirs, _)) = (&mut *self, other) {
            ours.iter_mut()
                .zip(theirs)
                .for_each(|(ours, theirs)| *ours |= theirs);
            *len = ones(ours.iter().copied());
        } else {
            other.iter().for_each(|low| self.insert(low));
        }
    }

    fn dense(lows: &[u16]) -> Self {
        let mut words = vec![0; WORDS].into_boxed_slice();
        for low in lows {
            let (word, bit) = place(*low);
            words[word] |= bit;
        }
        Self::Dense(words, lows.len())
    }

    fn iter(&self) -> impl Iterator<Item = u16> {
        let (lows, words) = match self {
            Self::Sparse(lows) => (lows.as_slice(), [].as_slice()),
            Self::Dense(words, _) => ([].as_slice(), &words[..]),
        };
        // The words come first: what follows the last base does not exist.
        let set = words
            .iter()
            .zip((0_u16..).step_by(64))
            .flat_map(|(word, base)| {
                let bits = (0..64).filter(move |bit| word >> bit & 1 == 1);
                bits.map(move |bit| base + bit)
            });
        lows.iter().copied().chain(set)
    }
}

fn halves(slot: u32) -> (u16, u16) {
    let [a, b, c, d] = slot.to_be_bytes();
    (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
}

fn place(low: u16) -> (usize, u64) {
    (usize::from(low / 64), 1 << (low % 64))
}

fn ones(words: impl Iterator<Item = u64>) -> usize {
    words.map(|word| word.count_ones() as usize).sum()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn slots(numbers: &BTreeSet<u32>) -> Slots {
        let mut slots = Slots::default();
        numbers.iter().for_each(|number| slots.insert(*number));
        slots
    }

    /// Sets of every form: few numbers, and runs dense enough for bitmaps, over three chunks.
    fn numbers() -> impl Strategy<Value = BTreeSet<u32>> {
        let few = prop::collection::btree_set(0..3_u32 << 16, 0..60);
        let run = (0..3_u32 << 16, 1..12_000_u32, 1..4_usize);
        let runs = prop::collection::vec(run, 0..3).prop_map(|runs| {
            let numbers = runs
                .into_iter()
                .flat_map(|(start, length, step)| (start..start + length).step_by(step));
            numbers.collect::<BTreeSet<u32>>()
        });
        (few, runs).prop_map(|(few, runs)| few.union(&runs).copied().collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn sets_of_every_form_hold_what_a_plain_set_holds(a in numbers(), b in numbers()) {
            let (ours, theirs) = (slots(&a), slots(&b));
            let both: Vec<u32> = a.intersection(&b).copied().collect();
            prop_assert_eq!(ours.and(&theirs).iter().collect::<Vec<_>>(), both.clone());
            prop_assert_eq!(ours.len_of_and(&theirs), both.len());
            prop_assert_eq!(ours.and(&theirs).len(), both.len());
            let mut either = ours.clone();
            either.add(&theirs);
            prop_assert!(either.iter().eq(a.union(&b).copied()));
            prop_assert_eq!(either.len(), a.union(&b).count());
            let mut rest = ours;
            b.iter().for_each(|number| rest.remove(*number));
            prop_assert!(rest.iter().eq(a.difference(&b).copied()));
            prop_assert_eq!(rest.is_empty(), a.is_subset(&b));
        }
    }
}
