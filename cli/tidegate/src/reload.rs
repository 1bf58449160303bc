//! `SIGHUP`: the configuration file is read again, and what may change while the process runs is changed.
//!
//! Invariant: a file is taken whole or not at all. One that is wrong, or that a process could not start with, is refused
//! with its reasons, and everything stays as it was. What needs a restart is named each time until there was one.
//!
//! [`plan`] is pure. Not here: what new settings of the database service lead to (`tidegate_dbservice`).

use std::collections::BTreeSet;

use tidegate_core::ResourceMatcher;
use tidegate_service::{
    settings::{self, ConfigError, DatabaseSettings, Settings},
    telemetry::{self, LogFilter},
};
use tokio::sync::watch;
use tracing::{error, info, warn};

/// Keys whose values may change while the process runs.
const RELOADED: [&str; 3] = [
    "db_service.databases",
    "db_service.resources",
    "tidegate.log.severity",
];

/// What follows new settings.
#[derive(Debug)]
pub(crate) struct Reload {
    /// As the process was started.
    started: Settings,
    /// As they were taken last.
    last: Settings,
    log: LogFilter,
    /// Whether `-d` says what is logged, whatever the file does.
    debug: bool,
    agent: Option<Agent>,
}

/// The agent of this process.
#[derive(Debug)]
pub(crate) struct Agent {
    /// Where its settings go.
    pub(crate) settings: watch::Sender<DatabaseSettings>,
    /// Entries made from its own matchers, which stay those of the start: their worker keeps its matchers too.
    pub(crate) own_entries: Vec<ResourceMatcher>,
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
    let is_reloaded = |key: &String| {
        let is_served = started.database.is_some() && new.database.is_some();
        RELOADED.contains(&key.as_str()) && (is_served || !key.starts_with("db_service."))
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

impl Reload {
    /// Of a process that was started with these settings.
    pub(crate) fn new(
        started: Settings,
        log: LogFilter,
        debug: bool,
        agent: Option<Agent>,
    ) -> Self {
        Self {
            last: started.clone(),
            started,
            log,
            debug,
            agent,
        }
    }

    /// Reads the file again, and takes it unless it is wrong.
    pub(crate) async fn run(&mut self) {
        let file = self.started.file.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let settings = settings::load(&file)?;
            settings.check_startable()?;
            Ok(settings)
        });
        let read: Result<Settings, ConfigError> = match reading.await {
            Ok(read) => read,
            Err(failed) => {
                error!(error = %failed, "could not read the configuration file again");
                return;
            }
        };
        match read {
            Ok(new) => self.take(new),
            Err(refused) => error!(
                file = %self.started.file.display(),
                error = telemetry::chain(&refused),
                "refused the configuration file; everything stays as it was"
            ),
        }
    }

    fn take(&mut self, new: Settings) {
        let Plan { now, at_restart } = plan(&self.started, &self.last, &new);
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
        if let (Some(agent), Some(database)) = (&self.agent, &new.database) {
            let mut database = database.clone();
            // The worker beside the agent goes on with the matchers of the start, and so does the agent.
            let started = self.started.database.as_ref();
            database.matchers = started
                .map(|started| started.matchers.clone())
                .unwrap_or_default();
            database.resources.extend(agent.own_entries.iter().cloned());
            agent.settings.send_if_modified(|settings| {
                let is_other = *settings != database;
                *settings = database;
                is_other
            });
        }
        info!(file = %new.file.display(), changed = listed(&now), "took the configuration file again");
        if !at_restart.is_empty() {
            warn!(
                file = %new.file.display(),
                keys = listed(&at_restart),
                "these settings changed and count only after a restart"
            );
        }
        self.last = new;
    }
}

fn listed(keys: &BTreeSet<String>) -> String {
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    keys.join(", ")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

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

    #[test]
    fn matchers_wait_for_a_restart_and_so_does_a_service_that_comes_or_goes() {
        let started = settings(AGENT);
        let matchers = AGENT.replace(
            "enabled: yes,",
            "enabled: yes, aws: [{types: [redshift], regions: [us-east-1]}],",
        );
        assert_eq!(
            plan(&started, &started, &settings(&matchers)),
            Plan {
                now: BTreeSet::new(),
                at_restart: keys(&["db_service.aws"]),
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
