//! What this agent serves now: looked up once a session by route, replaced as a whole.
//!
//! Readers take a snapshot without a lock. Two databases whose names differ by case alone share a route; then neither
//! is served over it, since nobody could say which one a client meant.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use arc_swap::ArcSwap;
use tidegate_core::DatabaseName;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::wanted::{Change, Plan, Wanted, diff};

/// A database that is served now.
#[derive(Clone, Debug)]
pub(crate) struct Serving {
    /// What, and as whom.
    pub(crate) wanted: Arc<Wanted>,
    /// Cancelled when the database is served no longer, or at another endpoint: its sessions end.
    pub(crate) ended: CancellationToken,
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
struct Snapshot {
    by_name: BTreeMap<DatabaseName, Serving>,
    /// `None` for a route that several databases share.
    by_route: HashMap<String, Option<Serving>>,
}

/// The set of databases that are served, shared by all parts of the agent.
#[derive(Debug)]
pub(crate) struct ServedSet {
    now: ArcSwap<Snapshot>,
    changed: watch::Sender<u64>,
}

impl ServedSet {
    /// Nothing.
    pub(crate) fn new() -> Self {
        Self {
            now: ArcSwap::default(),
            changed: watch::Sender::new(0),
        }
    }

    /// The database that a route leads to. Case does not matter.
    pub(crate) fn by_route(&self, route: &str) -> Result<Serving, LookupError> {
        let snapshot = self.now.load();
        let found = if route.bytes().any(|byte| byte.is_ascii_uppercase()) {
            snapshot.by_route.get(&route.to_ascii_lowercase())
        } else {
            snapshot.by_route.get(route)
        };
        match found {
            Some(Some(serving)) => Ok(serving.clone()),
            Some(None) => Err(LookupError::Ambiguous),
            None => Err(LookupError::Unknown),
        }
    }

    /// All databases that are served, in name order.
    pub(crate) fn all(&self) -> Vec<Arc<Wanted>> {
        let snapshot = self.now.load();
        snapshot
            .by_name
            .values()
            .map(|serving| Arc::clone(&serving.wanted))
            .collect()
    }

    /// How many databases are served.
    pub(crate) fn len(&self) -> usize {
        self.now.load().by_name.len()
    }

    /// Tells when the set has changed; the value only counts changes.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Serves what the plan says from here on. One caller at a time.
    pub(crate) fn apply(&self, plan: &Plan) -> Vec<Change> {
        let before = self.now.load_full();
        let then: BTreeMap<_, _> = before
            .by_name
            .iter()
            .map(|(name, serving)| (name.clone(), Arc::clone(&serving.wanted)))
            .collect();
        let changes = diff(&then, &plan.served);
        if changes.is_empty() {
            return changes;
        }
        let restarted: HashSet<&DatabaseName> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Restart(name) => Some(name),
                _ => None,
            })
            .collect();
        let by_name: BTreeMap<DatabaseName, Serving> = plan
            .served
            .iter()
            .map(|(name, wanted)| {
                let ended = before
                    .by_name
                    .get(name)
                    .filter(|_| !restarted.contains(name))
                    .map(|serving| serving.ended.clone())
                    .unwrap_or_default();
                let wanted = Arc::clone(wanted);
                (name.clone(), Serving { wanted, ended })
            })
            .collect();
        self.now.store(Arc::new(Snapshot {
            by_route: routes(&by_name),
            by_name,
        }));
        for change in &changes {
            report(change, &before, plan);
        }
        self.changed.send_modify(|count| *count += 1);
        changes
    }
}

fn routes(by_name: &BTreeMap<DatabaseName, Serving>) -> HashMap<String, Option<Serving>> {
    let mut routes: HashMap<String, Option<Serving>> = HashMap::with_capacity(by_name.len());
    for (name, serving) in by_name {
        routes
            .entry(serving.wanted.route.clone())
            .and_modify(|shared| {
                *shared = None;
                warn!(db.name = %name, route = serving.wanted.route, "several databases share a route; none is served over it");
            })
            .or_insert_with(|| Some(serving.clone()));
    }
    routes
}

/// Says what changed, and ends the sessions of what is gone.
fn report(change: &Change, before: &Snapshot, plan: &Plan) {
    let end_sessions = |name: &DatabaseName| {
        if let Some(serving) = before.by_name.get(name) {
            serving.ended.cancel();
        }
    };
    let role = |name: &DatabaseName| {
        plan.served
            .get(name)
            .and_then(|wanted| wanted.effective.role.as_ref())
            .map_or_else(
                || "own identity".to_owned(),
                |role| role.role_arn.to_string(),
            )
    };
    match change {
        Change::Add(name) => {
            info!(db.name = %name, aws.role = role(name), "serving a database");
        }
        Change::Remove(name) => {
            end_sessions(name);
            info!(db.name = %name, "serving a database no longer");
        }
        Change::Restart(name) => {
            end_sessions(name);
            info!(db.name = %name, aws.role = role(name), "a database's endpoint changed");
        }
        Change::Update(name) => {
            info!(db.name = %name, aws.role = role(name), "a database changed");
        }
    }
}

#[cfg(test)]
mod tests {
    use tidegate_core::{Database, ResourceMatcher, Selector};

    use super::*;
    use crate::{testing::redshift, wanted::plan};

    fn planned(databases: &[Database]) -> Plan {
        let all = [ResourceMatcher {
            labels: Selector::everything(),
            assume_role: None,
        }];
        plan(&[], &all, databases)
    }

    #[test]
    fn sessions_survive_a_label_change_and_end_with_the_endpoint() {
        let served = ServedSet::new();
        served.apply(&planned(&[redshift("orders", &[("env", "prod")])]));
        let ended = served.by_route("orders").unwrap().ended;

        served.apply(&planned(&[redshift("orders", &[("env", "dev")])]));
        assert!(!ended.is_cancelled());

        let mut moved = redshift("orders", &[]);
        moved.uri = "orders.zzz.us-east-1.redshift.amazonaws.com:5439"
            .parse()
            .unwrap();
        served.apply(&planned(&[moved]));
        assert!(ended.is_cancelled());
        assert!(!served.by_route("orders").unwrap().ended.is_cancelled());
    }

    #[test]
    fn sessions_of_a_database_that_is_gone_end() {
        let served = ServedSet::new();
        served.apply(&planned(&[redshift("orders", &[])]));
        let ended = served.by_route("ORDERS").unwrap().ended;
        served.apply(&planned(&[]));
        assert!(ended.is_cancelled());
        assert_eq!(served.by_route("orders").unwrap_err(), LookupError::Unknown);
    }

    #[test]
    fn a_shared_route_leads_nowhere() {
        let served = ServedSet::new();
        let mut upper = redshift("Orders", &[]);
        upper.aws.redshift_cluster_id = Some("orders".to_owned());
        served.apply(&planned(&[redshift("orders", &[]), upper]));
        assert_eq!(
            served.by_route("orders").unwrap_err(),
            LookupError::Ambiguous
        );
        assert_eq!(served.len(), 2);
    }

    #[test]
    fn nothing_is_told_when_nothing_changed() {
        let served = ServedSet::new();
        served.apply(&planned(&[redshift("orders", &[])]));
        let changes = served.changes();
        served.apply(&planned(&[redshift("orders", &[])]));
        assert!(!changes.has_changed().unwrap());
    }
}
