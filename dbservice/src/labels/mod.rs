//! Labels of databases of the file whose values commands print (`dynamic_labels`).
//!
//! Each command has a task of its own, which runs it, keeps what it printed, and waits for its period: a slow command
//! runs later and never twice at once. What a command printed last stays while it fails. A database waits to be served
//! until each of its commands has run once, since labels decide who may use it; one that has never worked gives no
//! label, which is said.
//!
//! Pure: [`shown`]. Running one command: [`command`]. Not here: what a label changes ([`crate::wanted`]).

mod command;
mod shown;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tidegate_core::DatabaseName;
use tidegate_service::{settings::LabelCommand, tasks::Tasks, telemetry};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub(crate) use shown::Shown;

use crate::names::Names;

/// Commands that run at the same time; others wait for their turn.
const RUNNING_MAX: usize = 8;

/// What commands say, and the tasks that run them.
#[derive(Debug)]
pub(crate) struct Labelled {
    tasks: Tasks,
    /// Where names go whose labels changed.
    again: Arc<Names>,
    turns: Semaphore,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    shown: HashMap<DatabaseName, Shown>,
    running: BTreeMap<DatabaseName, Vec<Running>>,
}

/// A command whose task runs. Dropping it ends the task, and the command with it.
#[derive(Debug)]
struct Running {
    command: LabelCommand,
    stop: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Labelled {
    /// No commands yet. Names of databases whose labels change are added to `again`.
    pub(crate) fn new(tasks: Tasks, again: Arc<Names>) -> Self {
        Self {
            tasks,
            again,
            turns: Semaphore::new(RUNNING_MAX),
            state: Mutex::default(),
        }
    }

    /// Runs these commands from here on, and no others. Those that are the same go on. Answers the names of databases
    /// whose commands are other ones now.
    pub(crate) fn run(
        self: &Arc<Self>,
        commands: &BTreeMap<DatabaseName, Vec<LabelCommand>>,
    ) -> BTreeSet<DatabaseName> {
        let mut state = self.lock();
        let mut before = std::mem::take(&mut state.running);
        let mut changed: BTreeSet<DatabaseName> = before
            .keys()
            .filter(|name| !commands.contains_key(*name))
            .cloned()
            .collect();
        state.shown.retain(|name, _| commands.contains_key(name));
        for (name, commands) in commands {
            let mut then = before.remove(name).unwrap_or_default();
            if then.iter().map(|running| &running.command).ne(commands) {
                changed.insert(name.clone());
            }
            let shown = state.shown.entry(name.clone()).or_default();
            shown.keep(commands.iter().map(|command| command.label.as_str()));
            let running = commands.iter().map(|command| {
                let same = then.iter().position(|one| one.command == *command);
                same.map_or_else(
                    || self.begin(name.clone(), command.clone()),
                    |at| then.swap_remove(at),
                )
            });
            let running = running.collect();
            state.running.insert(name.clone(), running);
        }
        changed
    }

    /// What the commands of a database have shown; `None` when it has none.
    pub(crate) fn of(&self, name: &DatabaseName) -> Option<Shown> {
        self.lock().shown.get(name).cloned()
    }

    fn begin(self: &Arc<Self>, name: DatabaseName, command: LabelCommand) -> Running {
        let stop = self.tasks.shutdown().child_token();
        let (labelled, stopped, told) = (Arc::clone(self), stop.clone(), command.clone());
        self.tasks.spawn_quiet("label", async move {
            let running = labelled.repeat(&name, &told, &stopped);
            // Dropping the run kills the command that is under way.
            let _ = stopped.run_until_cancelled(running).await;
        });
        Running { command, stop }
    }

    async fn repeat(&self, name: &DatabaseName, command: &LabelCommand, stop: &CancellationToken) {
        loop {
            let Ok(turn) = self.turns.acquire().await else {
                return;
            };
            let outcome = command::run(&command.command).await;
            drop(turn);
            self.take(name, command, outcome, stop);
            tokio::time::sleep(command.period).await;
        }
    }

    /// Keeps what a command said, unless it was stopped meanwhile.
    fn take(
        &self,
        name: &DatabaseName,
        command: &LabelCommand,
        outcome: Result<String, command::CommandError>,
        stop: &CancellationToken,
    ) {
        let mut state = self.lock();
        if stop.is_cancelled() {
            return;
        }
        let Some(shown) = state.shown.get_mut(name) else {
            return;
        };
        let problem = outcome.as_ref().err().map(|error| telemetry::chain(error));
        let taken = shown.take(&command.label, outcome);
        drop(state);
        match (taken.is_news, problem) {
            (true, Some(problem)) => {
                warn!(db.name = %name, label = command.label, command = command.command.first(), error = problem, "a command for a label failed; the label stays as it was");
            }
            (true, None) => {
                info!(db.name = %name, label = command.label, "a command for a label works again");
            }
            (false, _) => {}
        }
        if taken.is_change {
            self.again.add([name.clone()]);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Entries are replaced as whole values: a panic elsewhere leaves none half-made.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn commands(
        period: Duration,
        scripts: &[(&str, &str)],
    ) -> BTreeMap<DatabaseName, Vec<LabelCommand>> {
        let command = |(label, script): &(&str, &str)| LabelCommand {
            label: (*label).to_owned(),
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            period,
        };
        let name = "orders".parse().unwrap();
        [(name, scripts.iter().map(command).collect())].into()
    }

    fn labelled() -> (Arc<Labelled>, Arc<Names>, Tasks) {
        let (tasks, again) = (Tasks::new(), Arc::new(Names::default()));
        let labelled = Arc::new(Labelled::new(tasks.clone(), Arc::clone(&again)));
        (labelled, again, tasks)
    }

    fn value(labelled: &Labelled, label: &str) -> Option<String> {
        let shown = labelled.of(&"orders".parse().unwrap())?;
        let found = shown.values().find(|(key, _)| *key == label);
        found.map(|(_, value)| value.to_owned())
    }

    #[tokio::test]
    async fn a_label_is_what_its_command_printed_last_and_changes_are_told() {
        let dir = std::env::temp_dir().join(format!("tidegate-labels-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("load");
        std::fs::write(&file, "low\n").unwrap();
        let (labelled, again, tasks) = labelled();
        let script = format!("cat {}", file.display());
        let wanted = commands(Duration::from_millis(20), &[("load", &script)]);
        assert_eq!(labelled.run(&wanted).len(), 1);
        again.next().await;
        assert_eq!(value(&labelled, "load").as_deref(), Some("low"));

        std::fs::write(&file, "high").unwrap();
        again.next().await;
        assert_eq!(value(&labelled, "load").as_deref(), Some("high"));

        std::fs::remove_file(&file).unwrap();
        again.next().await;
        assert_eq!(
            value(&labelled, "load").as_deref(),
            Some("high"),
            "kept while it fails"
        );
        let shown = labelled.of(&"orders".parse().unwrap()).unwrap();
        assert!(shown.remarks()[0].contains("label `load`"), "{shown:?}");

        assert!(labelled.run(&wanted).is_empty(), "the same commands go on");
        assert_eq!(labelled.run(&BTreeMap::new()).len(), 1);
        assert!(labelled.of(&"orders".parse().unwrap()).is_none());
        assert!(tasks.close_and_wait(Duration::from_secs(20)).await);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[tokio::test]
    async fn a_database_is_ready_once_every_command_has_run() {
        let (labelled, again, tasks) = labelled();
        let scripts = [("good", "echo yes"), ("bad", "exit 3")];
        labelled.run(&commands(Duration::from_secs(600), &scripts));
        let name = "orders".parse().unwrap();
        while !labelled.of(&name).unwrap().is_ready() {
            again.next().await;
        }
        assert_eq!(value(&labelled, "good").as_deref(), Some("yes"));
        assert_eq!(value(&labelled, "bad"), None);
        assert!(tasks.close_and_wait(Duration::from_secs(20)).await);
    }

    #[tokio::test]
    async fn commands_end_with_the_process_that_asked_for_them() {
        let (labelled, _, tasks) = labelled();
        labelled.run(&commands(
            Duration::from_secs(600),
            &[("slow", "sleep 600")],
        ));
        tokio::task::yield_now().await;
        assert!(tasks.close_and_wait(Duration::from_secs(20)).await);
    }
}
