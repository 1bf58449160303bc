//! `SIGHUP`: the configuration file is read again, and what may change while the process runs is changed.
//!
//! Invariant: a file is taken whole or not at all. One that is wrong, or that a process could not start with, is refused
//! with its reasons, and everything stays as it was. What needs a restart is named each time until there was one.
//!
//! A process that was started with flags has no file; the files that its flags name are read again.
//!
//! [`plan`] is pure. Not here: what new settings of a service lead to (`tidegate_dbservice`, `tidegate_discovery`).

use std::{collections::BTreeSet, sync::Arc};

use tidegate_core::{AwsMatcher, InvalidSelector, ResourceMatcher};
use tidegate_service::{
    settings::{DatabaseSettings, DiscoverySettings, Settings},
    telemetry::{self, LogFilter},
};
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::beside;

/// Keys of the database service whose values may change while the process runs, with what is in them.
const RELOADED_OF_AGENT: [&str; 5] = [
    "db_service.audit",
    "db_service.aws_session",
    "db_service.ca_bundles",
    "db_service.databases",
    "db_service.resources",
];

/// Matchers of the agent's own worker, which runs only where there were some at the start.
const OWN_MATCHERS: &str = "db_service.aws";

/// Matchers of the discovery service.
const MATCHERS: &str = "discovery_service.aws";

/// What is logged.
const SEVERITY: &str = "tidegate.log.severity";

/// Where the settings of a process come from, and can be had again.
#[derive(Clone)]
pub(crate) struct Source {
    /// Reads them, with everything that a start would refuse. It reads files: not for the runtime's own threads.
    pub(crate) read: Arc<dyn Fn() -> anyhow::Result<Settings> + Send + Sync>,
    /// Whether they are those of flags, and there is no configuration file.
    pub(crate) is_flags: bool,
}

/// What new settings go to.
#[derive(Debug, Default)]
pub(crate) struct Followers {
    pub(crate) agent: Option<Agent>,
    /// The discovery service's worker.
    pub(crate) worker: Option<watch::Sender<DiscoverySettings>>,
}

/// The agent of this process.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) settings: watch::Sender<DatabaseSettings>,
    /// The worker beside it, for matchers of its own. An agent that was started without any has none, and its
    /// certificate lets it run none.
    pub(crate) worker: Option<watch::Sender<DiscoverySettings>>,
}

/// What follows new settings.
pub(crate) struct Reload {
    /// As the process was started.
    started: Settings,
    /// As they were taken last.
    last: Settings,
    source: Source,
    log: LogFilter,
    /// Whether `-d` says what is logged, whatever the file does.
    debug: bool,
    followers: Followers,
}

/// What to do about a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Plan {
    /// Keys that say something new and count from now on.
    now: BTreeSet<String>,
    /// Keys that say something else than at the start and count only after a restart.
    at_restart: BTreeSet<String>,
}

/// Compares a file with the one that the process was started with and the one that was taken last.
fn plan(started: &Settings, last: &Settings, new: &Settings) -> Plan {
    let is_served = started.database.is_some() && new.database.is_some();
    let has_own_worker = started
        .database
        .as_ref()
        .is_some_and(|database| !database.matchers.is_empty());
    let discovers = started.discovery.is_some() && new.discovery.is_some();
    let is_reloaded = |key: &String| match key.as_str() {
        SEVERITY => true,
        OWN_MATCHERS => is_served && has_own_worker,
        MATCHERS => discovers,
        key => is_served && RELOADED_OF_AGENT.iter().any(|part| is_in(key, part)),
    };
    Plan {
        now: last
            .differences(new)
            .into_iter()
            .filter(is_reloaded)
            .collect(),
        at_restart: started
            .differences(new)
            .into_iter()
            .filter(|key| !is_reloaded(key))
            .collect(),
    }
}

/// Whether a key is this part of the file, or in it.
fn is_in(key: &str, part: &str) -> bool {
    key.strip_prefix(part)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

impl Agent {
    /// What its own matchers come to: the settings of its worker, and the entries by which it serves what that finds.
    fn own(
        &self,
        matchers: &[AwsMatcher],
    ) -> Result<Option<(DiscoverySettings, Vec<ResourceMatcher>)>, InvalidSelector> {
        self.worker
            .is_some()
            .then(|| beside::discovery(matchers))
            .transpose()
    }

    fn take(
        &self,
        new: &DatabaseSettings,
        own: Option<(DiscoverySettings, Vec<ResourceMatcher>)>,
    ) -> bool {
        let mut database = new.clone();
        match (&self.worker, own) {
            (Some(worker), Some((settings, entries))) => {
                put(worker, settings.matchers);
                database.resources.extend(entries);
            }
            // There is no worker for them.
            _ => database.matchers.clear(),
        }
        self.settings.send_if_modified(|settings| {
            let is_other = *settings != database;
            *settings = database;
            is_other
        })
    }
}

/// Hands matchers on to a worker, which follows nothing else.
fn put(to: &watch::Sender<DiscoverySettings>, matchers: Vec<AwsMatcher>) {
    to.send_if_modified(|settings| {
        let is_other = settings.matchers != matchers;
        settings.matchers = matchers;
        is_other
    });
}

impl Reload {
    /// Of a process that was started with these settings.
    pub(crate) fn new(
        started: Settings,
        source: Source,
        log: LogFilter,
        debug: bool,
        followers: Followers,
    ) -> Self {
        Self {
            last: started.clone(),
            started,
            source,
            log,
            debug,
            followers,
        }
    }

    /// Reads the settings again, and takes them unless they are wrong.
    pub(crate) async fn run(&mut self) {
        let read = Arc::clone(&self.source.read);
        let read = match tokio::task::spawn_blocking(move || read()).await {
            Ok(read) => read,
            Err(failed) => {
                error!(error = %failed, "could not read the configuration file again");
                return;
            }
        };
        let taken = read.and_then(|new| self.take(new));
        if let Err(refused) = taken {
            let error = format!("{refused:#}");
            if self.source.is_flags {
                error!(
                    error,
                    "refused what the files that the flags name say now; everything stays as it was"
                );
            } else {
                error!(
                    file = %self.started.file.display(),
                    error,
                    "refused the configuration file; everything stays as it was"
                );
            }
        }
    }

    fn take(&mut self, new: Settings) -> anyhow::Result<()> {
        let agent = self.followers.agent.as_ref().zip(new.database.as_ref());
        // What can be wrong comes before anything is changed.
        let own = agent.map(|(agent, database)| agent.own(&database.matchers));
        let own = own.transpose()?.flatten();
        let is_other = agent.is_some_and(|(agent, database)| agent.take(database, own));
        if let (Some(worker), Some(discovery)) = (&self.followers.worker, &new.discovery) {
            put(worker, discovery.matchers.clone());
        }
        if self.source.is_flags {
            info!(
                changed = is_other,
                "this process was started with flags, so there is no configuration file to read again; read the files that the flags name"
            );
        } else {
            self.tell(&new);
        }
        self.last = new;
        Ok(())
    }

    /// Says what a file changes, and changes what is logged.
    fn tell(&self, new: &Settings) {
        let Plan { now, at_restart } = plan(&self.started, &self.last, new);
        for warning in &new.warnings {
            warn!(file = %new.file.display(), line = warning.line, "{}", warning.message);
        }
        for note in &new.notes {
            info!(file = %new.file.display(), line = note.line, "{}", note.message);
        }
        if !self.debug
            && let Err(error) = self.log.set(&new.process.log.filter)
        {
            error!(
                error = telemetry::chain(&error),
                "could not change what is logged"
            );
        }
        info!(file = %new.file.display(), changed = listed(&now), "took the configuration file again");
        if !at_restart.is_empty() {
            warn!(
                file = %new.file.display(),
                keys = listed(&at_restart),
                "these settings changed and count only after a restart"
            );
        }
    }
}

fn listed(keys: &BTreeSet<String>) -> String {
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    keys.join(", ")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tidegate_service::settings;

    use super::*;

    fn settings(text: &str) -> Settings {
        settings::parse(text, Path::new("t.yaml")).unwrap()
    }

    fn keys(keys: &[&str]) -> BTreeSet<String> {
        keys.iter().map(|key| (*key).to_owned()).collect()
    }

    const AGENT: &str = "tidegate: {auth_server: a, log: {severity: info}}\ndb_service: {enabled: yes, resources: [{labels: {a: b}}]}";

    #[test]
    fn what_may_change_counts_now_and_the_rest_is_named_until_a_restart() {
        let (started, last) = (
            settings(AGENT),
            settings(&AGENT.replace("{a: b}", "{a: c}")),
        );
        let new = AGENT
            .replace("severity: info", "severity: debug")
            .replace("auth_server: a", "auth_server: b");
        assert_eq!(
            plan(&started, &last, &settings(&new)),
            Plan {
                now: keys(&["db_service.resources", "tidegate.log.severity"]),
                at_restart: keys(&["tidegate.auth_server"]),
            }
        );
        let other = settings(&new);
        assert_eq!(
            plan(&started, &other, &other),
            Plan {
                now: BTreeSet::new(),
                at_restart: keys(&["tidegate.auth_server"]),
            },
            "nothing is new, and the restart is still due"
        );
    }

    const MATCHER: &str = "aws: [{types: [redshift], regions: [us-east-1]}],";

    /// A file with these matchers of its own.
    fn agent_with(matchers: &str) -> Settings {
        settings(&AGENT.replace("enabled: yes,", &format!("enabled: yes, {matchers}")))
    }

    #[test]
    fn matchers_count_now_where_a_worker_runs_for_them() {
        let (started, other, none) = (
            agent_with(MATCHER),
            agent_with(&MATCHER.replace("east", "west")),
            agent_with(""),
        );
        let now = Plan {
            now: keys(&[OWN_MATCHERS]),
            at_restart: BTreeSet::new(),
        };
        assert_eq!(plan(&started, &started, &other), now);
        assert_eq!(plan(&started, &started, &none), now);

        let discovery = |region: &str| {
            let matcher = MATCHER.replace("us-east-1", region);
            settings(&format!(
                "tidegate: {{auth_server: a}}\ndiscovery_service: {{enabled: yes, discovery_group: g, {} poll_interval: 5m}}",
                matcher
            ))
        };
        let started = discovery("us-east-1");
        assert_eq!(
            plan(&started, &started, &discovery("us-west-1")).now,
            keys(&[MATCHERS])
        );
    }

    #[test]
    fn what_is_within_a_key_that_counts_now_counts_now_too() {
        let started = agent_with("");
        let new = agent_with("aws_session: {name: '{user}'}, ca_bundles: 'file:///b',");
        assert_eq!(
            plan(&started, &started, &new),
            Plan {
                now: keys(&["db_service.aws_session.name", "db_service.ca_bundles"]),
                at_restart: BTreeSet::new(),
            }
        );
        assert!(!is_in("db_service.aws_session", OWN_MATCHERS));
    }

    #[test]
    fn first_matchers_wait_for_a_restart_and_so_does_a_service_that_comes_or_goes() {
        let started = settings(AGENT);
        assert_eq!(
            plan(&started, &started, &agent_with(MATCHER)),
            Plan {
                now: BTreeSet::new(),
                at_restart: keys(&[OWN_MATCHERS]),
            }
        );
        let off = settings(
            &AGENT
                .replace("enabled: yes", "enabled: no")
                .replace("{a: b}", "{a: c}"),
        );
        let away = plan(&started, &started, &off);
        assert_eq!(
            away.at_restart,
            keys(&["db_service.enabled", "db_service.resources"])
        );
        assert_eq!(away.now, BTreeSet::new());
    }
}
