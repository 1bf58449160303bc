//! Names of databases of which something changed, gathered until somebody looks.
//!
//! However often a database changes meanwhile, its name is here once, so what waits is bounded by the databases that
//! there are, and one change among thousands costs whoever looks one look.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tidegate_core::DatabaseName;
use tokio::sync::Notify;

/// Names for one reader.
#[derive(Debug, Default)]
pub(crate) struct Names {
    waiting: Mutex<BTreeSet<DatabaseName>>,
    woken: Notify,
}

impl Names {
    /// Something about these changed.
    pub(crate) fn add(&self, names: impl IntoIterator<Item = DatabaseName>) {
        let mut waiting = self.lock();
        waiting.extend(names);
        if !waiting.is_empty() {
            self.woken.notify_one();
        }
    }

    /// Takes all that were added, and waits for the first when there are none. Giving up the wait loses nothing.
    pub(crate) async fn next(&self) -> BTreeSet<DatabaseName> {
        loop {
            let taken = std::mem::take(&mut *self.lock());
            if !taken.is_empty() {
                return taken;
            }
            self.woken.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<DatabaseName>> {
        // A set of whole names: a panic elsewhere leaves none half-made.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_name_that_changed_often_is_told_once_and_none_is_lost() {
        let names = Names::default();
        let name = |text: &str| text.parse::<DatabaseName>().unwrap();
        assert!(names.next().now_or_never().is_none());
        names.add([name("users"), name("orders")]);
        names.add([name("orders")]);
        assert_eq!(
            names.next().await,
            BTreeSet::from([name("orders"), name("users")])
        );
        assert!(names.next().now_or_never().is_none());
        names.add([name("orders")]);
        assert_eq!(names.next().await.len(), 1);
    }
}
