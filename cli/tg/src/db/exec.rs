//! `tg db exec`: one statement on several databases, each by its own client.
//!
//! Every database that was asked for is in the summary, whatever came of it, and Ctrl-C ends every client.

mod report;
mod run;

use std::{
    collections::VecDeque,
    fs::DirBuilder,
    io::{self, IsTerminal as _, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tidegate_console::{
    Failure,
    client::Client,
    inventory::{self, Query},
    labels, output,
    profile::{self, Home, Profile, ProxyAddr},
    table::{self, visible},
};
use tidegate_proto::v1;
use tokio::{sync::watch, task::JoinSet};

use super::{Session, ends::Ends};
use crate::{
    args::{ExecArgs, Who},
    trust,
};
use report::{Entry, Outcome, Summary};
use run::{Stop, output_file};

/// Most databases of one call: a statement that is meant for more is better run by something that can resume.
const DATABASES_MAX: usize = 1_000;
const SUMMARY: &str = "summary.json";

/// Runs a statement on all databases that are meant.
pub(crate) async fn exec(proxy: Option<&ProxyAddr>, args: ExecArgs) -> Result<(), Failure> {
    if args.parallel > 1 && args.output_dir.is_none() {
        return Err(
            Failure::usage("output of several databases at once would be mixed up")
                .hint("name a folder for it with --output-dir"),
        );
    }
    let profile = Home::locate()?.profile(proxy)?;
    let client = Client::of_profile(&profile)?;
    let databases = wanted(&client, &args).await?;
    confirm(&args, &databases)?;
    if let Some(dir) = &args.output_dir {
        let made = DirBuilder::new().mode(0o700).create(dir);
        made.map_err(|error| {
            Failure::new(format!("cannot make {}: {error}", dir.display()))
                .hint("--output-dir names a folder that is not there yet")
        })?;
    }
    let ends = Ends::new()?;
    let trust = trust::refresh(&profile, &client).await?;
    let (stopping, stop) = watch::channel(false);
    let ending = tokio::spawn(async move {
        ends.wait().await;
        stopping.send_replace(true);
        // Who waits for the word must not find that nobody will say it.
        std::future::pending::<()>().await;
    });
    let crew = Crew {
        profile,
        client,
        trust,
        args: &args,
        stop,
    };
    let summary = Summary::new(&args.statement, crew.run(databases).await);
    ending.abort();
    tell(&summary, args.output_dir.as_deref())
}

/// The databases that are meant, each once, in the order in which they were named, else by name.
async fn wanted(client: &Client, args: &ExecArgs) -> Result<Vec<v1::Database>, Failure> {
    let query = Query {
        selector: args.labels.as_deref().map(labels::filter).transpose()?,
        search: args.search.clone(),
        filter: args.query.clone().unwrap_or_default(),
        ..Query::default()
    };
    let mut found: Vec<v1::Database> = Vec::new();
    if args.dbs.is_empty() {
        found = inventory::databases(&mut client.inventory(), &query).await?;
    }
    for name in &args.dbs {
        let one =
            inventory::find_among(&mut client.inventory(), Some(name.as_str()), &query).await?;
        if found.iter().all(|known| known.name != one.name) {
            found.push(one);
        }
    }
    match found.len() {
        0 => Err(Failure::new("no database that you may see fits")
            .hint("`tg db ls` shows those that you can use")),
        1..=DATABASES_MAX => Ok(found),
        more => Err(Failure::usage(format!(
            "{more} databases fit, and one call runs on at most {DATABASES_MAX}"
        ))
        .hint("narrow them with --labels, --search or --query")),
    }
}

/// Shows what would be done, and asks; nothing runs where nobody can answer and `--yes` was not given.
fn confirm(args: &ExecArgs, databases: &[v1::Database]) -> Result<(), Failure> {
    if args.yes {
        return Ok(());
    }
    let names: Vec<String> = databases
        .iter()
        .map(|database| format!("    {}\n", visible(&database.name)))
        .collect();
    output::remark(&format!(
        "This runs on {} database{}:\n\n{}",
        names.len(),
        if names.len() == 1 { "" } else { "s" },
        names.concat()
    ));
    let nobody = || {
        Failure::usage("nobody said yes, so nothing was run")
            .hint("add --yes to run without being asked")
    };
    if !io::stdin().is_terminal() {
        return Err(nobody());
    }
    let _ = write!(io::stderr(), "Run it? [y/N] ");
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    match answer.trim() {
        "y" | "Y" | "yes" if read.is_ok() => Ok(()),
        _ => Err(nobody()),
    }
}

/// What all databases' parts need.
struct Crew<'a> {
    profile: Profile,
    client: Client,
    trust: v1::Trust,
    args: &'a ExecArgs,
    stop: Stop,
}

impl Crew<'_> {
    /// Runs on all, so many at a time; what came of each, in their order.
    async fn run(&self, databases: Vec<v1::Database>) -> Vec<Entry> {
        let mut entries: Vec<Entry> = databases.iter().map(|one| self.not_run(one)).collect();
        let mut waiting: VecDeque<(usize, v1::Database)> =
            databases.into_iter().enumerate().collect();
        let mut running: JoinSet<(usize, Outcome, Duration)> = JoinSet::new();
        loop {
            while running.len() < usize::from(self.args.parallel)
                && !*self.stop.borrow()
                && let Some((index, database)) = waiting.pop_front()
            {
                if self.args.output_dir.is_none() {
                    output::remark(&format!("Running on \"{}\".", visible(&database.name)));
                }
                let output = entries[index].output.clone();
                running.spawn(self.part(index, database, output));
            }
            let Some(ended) = running.join_next().await else {
                return entries;
            };
            if let Ok((index, outcome, took)) = ended {
                if self.args.output_dir.is_some() {
                    let (word, name) = (outcome.word(), &entries[index].database);
                    output::remark(&format!("{word}: \"{}\"", visible(name)));
                }
                entries[index].outcome = outcome;
                entries[index].took = took;
            }
        }
    }

    fn not_run(&self, database: &v1::Database) -> Entry {
        let dir = self.args.output_dir.as_deref();
        Entry {
            database: database.name.clone(),
            outcome: Outcome::NotRun,
            took: Duration::ZERO,
            output: dir.map(|dir| output_file(dir, &database.name)),
        }
    }

    /// One database's part, which owns what it needs.
    fn part(
        &self,
        index: usize,
        database: v1::Database,
        output: Option<PathBuf>,
    ) -> impl Future<Output = (usize, Outcome, Duration)> + use<> {
        let who = Who {
            db_user: self.args.who.db_user.clone(),
            db_name: self.args.who.db_name.clone(),
        };
        let session = Session::of(
            self.profile.clone(),
            self.client.clone(),
            self.trust.clone(),
            database,
        );
        let (statement, stop) = (self.args.statement.clone(), self.stop.clone());
        async move {
            let began = Instant::now();
            let outcome = match session {
                Ok(session) => run::run(session, who, &statement, output.as_deref(), stop).await,
                Err(failure) => Outcome::NotConnected {
                    error: failure.message().to_owned(),
                },
            };
            (index, outcome, began.elapsed())
        }
    }
}

/// Writes the summary. Where anything failed, so did the command.
fn tell(summary: &Summary, dir: Option<&Path>) -> Result<(), Failure> {
    if let Some(dir) = dir {
        let path = dir.join(SUMMARY);
        profile::write_private(&path, output::json(summary)?.as_bytes())?;
    }
    output::remark(&format!(
        "\n{}",
        summary.table().render(table::terminal_width()).trim_end()
    ));
    if summary.failed == 0 {
        return Ok(());
    }
    let failure = Failure::new(format!(
        "{} of {} databases failed",
        summary.failed,
        summary.databases.len()
    ));
    Err(match dir {
        Some(dir) => failure.hint(format!(
            "each database's output is in {}, and {SUMMARY}",
            dir.display()
        )),
        None => failure,
    })
}
