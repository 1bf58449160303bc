//! How many sessions each person has on this agent.
//!
//! Invariant: every session that was let in holds one [`Place`] until its relay ends, and a place is given back
//! however that comes about. Looking and taking are one step, so two that come at once cannot both take the last.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The places that are taken. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    taken: Arc<Mutex<HashMap<String, u64>>>,
}

/// One session of a person; dropping it gives the place back.
#[derive(Debug)]
pub(crate) struct Place {
    places: Places,
    user: String,
}

/// A person has as many sessions as roles allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoPlace {
    /// That many.
    pub(crate) most: u64,
}

impl Places {
    /// Takes a place for a person who may have `most` of them; `None` is any number.
    ///
    /// # Errors
    ///
    /// [`NoPlace`] when the person has that many already.
    pub(crate) fn take(&self, user: &str, most: Option<u64>) -> Result<Place, NoPlace> {
        let mut taken = self.lock();
        let has = taken.get(user).copied().unwrap_or_default();
        if let Some(most) = most.filter(|most| has >= *most) {
            return Err(NoPlace { most });
        }
        taken.insert(user.to_owned(), has + 1);
        drop(taken);
        Ok(Place {
            places: self.clone(),
            user: user.to_owned(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        // Each change is one insert or remove, so a panic elsewhere leaves nothing half done.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        match taken.get_mut(&self.user) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(taken.remove(&self.user)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_place_is_taken_once_however_many_come_at_the_same_time() {
        let places = Places::default();
        let got: Vec<_> = std::thread::scope(|scope| {
            let come = || scope.spawn(|| places.take("alice", Some(3)));
            let come: Vec<_> = (0..16).map(|_| come()).collect();
            come.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert_eq!(got.iter().filter(|got| got.is_ok()).count(), 3);
        assert!(
            places.take("bob", Some(1)).is_ok(),
            "others are not counted"
        );
    }

    #[test]
    fn a_place_that_is_given_back_can_be_taken_again_and_nothing_is_kept() {
        let places = Places::default();
        let first = places.take("alice", None).unwrap();
        let second = places.take("alice", Some(2)).unwrap();
        let most = places.take("alice", Some(2)).unwrap_err();
        assert_eq!(most, NoPlace { most: 2 });
        drop(first);
        let third = places.take("alice", Some(2)).unwrap();
        drop((second, third));
        assert!(places.lock().is_empty());
    }
}
