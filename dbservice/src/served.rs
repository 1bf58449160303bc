//! What this agent serves now: looked up once a session by route, changed a database at a time.
//!
//! A change of one database among thousands touches that one only. Two databases whose names differ by case alone share
//! a route; then neither is served over it, since nobody could say which one a client meant.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak},
};

use tidegate_core::DatabaseName;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    names::Names,
    through::Through,
    wanted::{Change, Wanted, change},
};

/// A database that is served now.
#[derive(Clone, Debug)]
pub(crate) struct Serving {
    /// What, and as whom.
    pub(crate) wanted: Arc<Wanted>,
    /// Cancelled when the database is served no longer, or at another endpoint: its sessions end.
    pub(crate) ended: CancellationToken,
    /// What a session of it came through.
    pub(crate) through: Through,
}

/// Why a route leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LookupError {
    /// Several databases share it.
    #[error("several databases share this route")]
    Ambiguous,
    /// None has it.
    #[error("no database of this route is served here")]
    Unknown,
}

#[derive(Debug, Default)]
struct Set {
    by_name: BTreeMap<DatabaseName, Serving>,
    /// Names of the databases that share a route: one, unless nobody can say which one is meant.
    by_route: HashMap<String, Vec<DatabaseName>>,
}

impl Set {
    fn put(&mut self, name: DatabaseName, serving: Serving) {
        let route = serving.wanted.route.clone();
        if self.by_name.insert(name.clone(), serving).is_some() {
            return;
        }
        let sharing = self.by_route.entry(route).or_default();
        sharing.push(name);
        if let [.., other, name] = sharing.as_slice() {
            warn!(db.name = %name, other = %other, "several databases share a route; none is served over it");
        }
    }

    fn take(&mut self, name: &DatabaseName) {
        let Some(serving) = self.by_name.remove(name) else {
            return;
        };
        let route = &serving.wanted.route;
        if let Some(sharing) = self.by_route.get_mut(route) {
            sharing.retain(|other| other != name);
            if sharing.is_empty() {
                self.by_route.remove(route);
            }
        }
    }
}

/// The set of databases that are served, shared by all parts of the agent.
#[derive(Debug)]
pub(crate) struct ServedSet {
    now: RwLock<Set>,
    changed: watch::Sender<u64>,
    readers: Mutex<Vec<Weak<Names>>>,
}

impl ServedSet {
    /// Nothing.
    pub(crate) fn new() -> Self {
        Self {
            now: RwLock::default(),
            changed: watch::Sender::new(0),
            readers: Mutex::default(),
        }
    }

    /// The database that a route leads to. Case does not matter.
    pub(crate) fn by_route(&self, route: &str) -> Result<Serving, LookupError> {
        let now = self.read();
        let found = if route.bytes().any(|byte| byte.is_ascii_uppercase()) {
            now.by_route.get(&route.to_ascii_lowercase())
        } else {
            now.by_route.get(route)
        };
        match found.map(Vec::as_slice) {
            Some([name]) => now.by_name.get(name).cloned().ok_or(LookupError::Unknown),
            Some([_, ..]) => Err(LookupError::Ambiguous),
            Some([]) | None => Err(LookupError::Unknown),
        }
    }

    /// The database of a name, if it is served.
    pub(crate) fn get(&self, name: &DatabaseName) -> Option<Arc<Wanted>> {
        let now = self.read();
        now.by_name
            .get(name)
            .map(|serving| Arc::clone(&serving.wanted))
    }

    /// All databases that are served, in name order.
    pub(crate) fn all(&self) -> Vec<Arc<Wanted>> {
        let now = self.read();
        now.by_name
            .values()
            .map(|serving| Arc::clone(&serving.wanted))
            .collect()
    }

    /// How many databases are served.
    pub(crate) fn len(&self) -> usize {
        self.read().by_name.len()
    }

    /// Tells when the set has changed; the value only counts changes.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The names of databases that change from here on, for one reader and as long as it holds them.
    pub(crate) fn names(&self) -> Arc<Names> {
        let names = Arc::new(Names::default());
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.retain(|reader| reader.strong_count() > 0);
        readers.push(Arc::downgrade(&names));
        names
    }

    /// Serves what was decided of these databases from here on; `None` is not at all. Answers what changed.
    pub(crate) fn apply(
        &self,
        decided: impl IntoIterator<Item = (DatabaseName, Option<Arc<Wanted>>)>,
    ) -> Vec<(DatabaseName, Change)> {
        let (mut changes, mut told) = (Vec::new(), Vec::new());
        let mut ended = Vec::new();
        let mut now = self.write();
        for (name, wanted) in decided {
            let before = now.by_name.get(&name);
            let Some(change) = change(before.map(|serving| &*serving.wanted), wanted.as_deref())
            else {
                continue;
            };
            let token = before.map(|serving| serving.ended.clone());
            let kept = match change {
                Change::Update => token,
                Change::Add | Change::Remove | Change::Restart => {
                    ended.extend(token);
                    None
                }
            };
            match &wanted {
                Some(wanted) => {
                    let ended = kept.unwrap_or_default();
                    let wanted = Arc::clone(wanted);
                    let through = Through::default();
                    let serving = Serving {
                        wanted,
                        ended,
                        through,
                    };
                    now.put(name.clone(), serving);
                }
                None => now.take(&name),
            }
            told.push(wanted);
            changes.push((name, change));
        }
        drop(now);
        // Whoever is told of an end already finds what is served now.
        ended.iter().for_each(CancellationToken::cancel);
        if !changes.is_empty() {
            self.tell(&changes);
        }
        for ((name, change), wanted) in changes.iter().zip(told) {
            report(name, *change, wanted.as_deref());
        }
        changes
    }

    fn tell(&self, changes: &[(DatabaseName, Change)]) {
        let readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        for reader in readers.iter().filter_map(Weak::upgrade) {
            reader.add(changes.iter().map(|(name, _)| name.clone()));
        }
        drop(readers);
        self.changed.send_modify(|count| *count += 1);
    }

    fn read(&self) -> RwLockReadGuard<'_, Set> {
        // Each change is made of whole values; a panic in the middle leaves a database without its route at worst.
        self.now.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Set> {
        self.now.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says what changed.
fn report(name: &DatabaseName, change: Change, wanted: Option<&Wanted>) {
    let role = || {
        wanted
            .and_then(|wanted| wanted.effective.role.as_ref())
            .map_or_else(
                || "own identity".to_owned(),
                |role| role.role_arn.to_string(),
            )
    };
    match change {
        Change::Add => info!(db.name = %name, aws.role = role(), "serving a database"),
        Change::Remove => info!(db.name = %name, "serving a database no longer"),
        Change::Restart => {
            info!(db.name = %name, aws.role = role(), "a database's endpoint changed");
        }
        Change::Update => info!(db.name = %name, aws.role = role(), "a database changed"),
    }
}

#[cfg(test)]
mod tests {
    use tidegate_core::{Database, overrides};

    use super::*;
    use crate::testing::redshift;

    fn name(name: &str) -> DatabaseName {
        name.parse().unwrap()
    }

    fn decided(database: Database) -> (DatabaseName, Option<Arc<Wanted>>) {
        let name = database.name.clone();
        let effective = overrides::effective_role(&[], &database);
        let wanted = Wanted::new(Arc::new(database), effective, "".into(), Vec::new());
        (name, Some(Arc::new(wanted)))
    }

    #[test]
    fn sessions_survive_a_label_change_and_end_with_the_endpoint() {
        let served = ServedSet::new();
        served.apply([decided(redshift("orders", &[("env", "prod")]))]);
        let ended = served.by_route("orders").unwrap().ended;

        served.apply([decided(redshift("orders", &[("env", "dev")]))]);
        assert!(!ended.is_cancelled());

        let mut moved = redshift("orders", &[]);
        moved.uri = "orders.zzz.us-east-1.redshift.amazonaws.com:5439"
            .parse()
            .unwrap();
        served.apply([decided(moved)]);
        assert!(ended.is_cancelled());
        assert!(!served.by_route("orders").unwrap().ended.is_cancelled());
    }

    #[test]
    fn sessions_of_a_database_that_is_gone_end() {
        let served = ServedSet::new();
        served.apply([decided(redshift("orders", &[]))]);
        let ended = served.by_route("ORDERS").unwrap().ended;
        served.apply([(name("orders"), None)]);
        assert!(ended.is_cancelled());
        assert_eq!(served.by_route("orders").unwrap_err(), LookupError::Unknown);
    }

    #[test]
    fn a_shared_route_leads_nowhere() {
        let served = ServedSet::new();
        let mut upper = redshift("Orders", &[]);
        upper.aws.redshift_cluster_id = Some("orders".to_owned());
        served.apply([decided(redshift("orders", &[])), decided(upper)]);
        assert_eq!(
            served.by_route("orders").unwrap_err(),
            LookupError::Ambiguous
        );
        assert_eq!(served.len(), 2);
        served.apply([(name("Orders"), None)]);
        let found = served.by_route("orders").unwrap();
        assert_eq!(found.wanted.database.name, name("orders"));
    }

    #[test]
    fn nothing_is_told_when_nothing_changed() {
        let served = ServedSet::new();
        served.apply([decided(redshift("orders", &[]))]);
        let changes = served.changes();
        served.apply([decided(redshift("orders", &[]))]);
        assert!(!changes.has_changed().unwrap());
    }

    #[tokio::test]
    async fn readers_are_told_the_names_that_changed_and_no_others() {
        let served = ServedSet::new();
        served.apply([
            decided(redshift("orders", &[])),
            decided(redshift("users", &[])),
        ]);
        let names = served.names();
        served.apply([
            decided(redshift("orders", &[])),
            decided(redshift("stock", &[])),
            (name("users"), None),
        ]);
        let told: Vec<_> = names.next().await.into_iter().collect();
        assert_eq!(told, [name("stock"), name("users")]);
        assert!(served.get(&name("users")).is_none() && served.get(&name("stock")).is_some());
    }
}
