//! What came of a statement on each database: for people a table, for programs a file.

use std::{path::PathBuf, time::Duration};

use serde::Serialize;
use tidegate_console::Table;

/// What came of it on one database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub(super) enum Outcome {
    /// The client ended well.
    Succeeded,
    /// The client said that something failed; what, it wrote itself.
    Failed {
        /// Its exit code.
        exit_code: i32,
    },
    /// The client did not start.
    NotConnected {
        /// Why.
        error: String,
    },
    /// It was cut off by Ctrl-C.
    Interrupted,
    /// It was never begun: Ctrl-C came before its turn.
    NotRun,
}

impl Outcome {
    /// How it went, in a word.
    pub(super) fn word(&self) -> &'static str {
        self.words().0
    }

    fn words(&self) -> (&'static str, String) {
        match self {
            Self::Succeeded => ("ok", String::new()),
            Self::Failed { exit_code } => {
                ("failed", format!("the client's exit code was {exit_code}"))
            }
            Self::NotConnected { error } => ("failed", error.clone()),
            Self::Interrupted => ("interrupted", String::new()),
            Self::NotRun => ("not run", String::new()),
        }
    }
}

/// One database's part.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Entry {
    pub(super) database: String,
    #[serde(flatten)]
    pub(super) outcome: Outcome,
    /// From the question for a certificate to the end of the client.
    #[serde(rename = "duration_ms", serialize_with = "milliseconds")]
    pub(super) took: Duration,
    /// Where its output is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) output: Option<PathBuf>,
}

fn milliseconds<S: serde::Serializer>(took: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(u64::try_from(took.as_millis()).unwrap_or(u64::MAX))
}

/// What `summary.json` says.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    pub(super) statement: String,
    pub(super) succeeded: usize,
    pub(super) failed: usize,
    /// In the order in which they were asked for.
    pub(super) databases: Vec<Entry>,
}

impl Summary {
    pub(super) fn new(statement: &str, databases: Vec<Entry>) -> Self {
        let succeeded = databases
            .iter()
            .filter(|entry| entry.outcome == Outcome::Succeeded)
            .count();
        Self {
            statement: statement.to_owned(),
            succeeded,
            failed: databases.len() - succeeded,
            databases,
        }
    }

    /// One row a database.
    pub(super) fn table(&self) -> Table {
        let mut table = Table::new(["Database", "Outcome", "Time", "Why"]);
        for entry in &self.databases {
            let (outcome, why) = entry.outcome.words();
            let time = match entry.outcome {
                Outcome::NotRun => String::new(),
                _ => format!("{:.1}s", entry.took.as_secs_f64()),
            };
            table.row([entry.database.as_str(), outcome, &time, &why]);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(database: &str, outcome: Outcome) -> Entry {
        Entry {
            database: database.to_owned(),
            outcome,
            took: Duration::from_millis(1250),
            output: None,
        }
    }

    #[test]
    fn what_did_not_succeed_counts_as_failed_whatever_it_was() {
        let summary = Summary::new(
            "SELECT 1",
            vec![
                entry("a", Outcome::Succeeded),
                entry("b", Outcome::Failed { exit_code: 3 }),
                entry("c", Outcome::Interrupted),
                entry("d", Outcome::NotRun),
            ],
        );
        assert_eq!((summary.succeeded, summary.failed), (1, 3));
        assert_eq!(
            summary.table().render(None),
            "\
Database  Outcome      Time  Why
--------  -----------  ----  ----------------------------
a         ok           1.2s
b         failed       1.2s  the client's exit code was 3
c         interrupted  1.2s
d         not run
"
        );
        let json = serde_json::to_value(&summary).unwrap();
        assert_eq!(json["databases"][1]["outcome"], "failed");
        assert_eq!(json["databases"][1]["exit_code"], 3);
        assert_eq!(json["databases"][0]["duration_ms"], 1250);
    }
}
