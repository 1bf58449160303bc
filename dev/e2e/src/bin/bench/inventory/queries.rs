//! Pages, a scan and a count, each asked of the auth service and of PostgreSQL in turn.
//!
//! Both are asked over a unix socket and give the same databases, whole; the answers are compared once. What is timed ends
//! when the caller has them in its hands, decoded.

use std::{collections::BTreeMap, time::Instant};

use anyhow::{Context, Result, ensure};
use prost::Message;
use tidegate_proto::v1::{self, inventory_service_client::InventoryServiceClient};
use tonic::transport::Channel;

use super::{
    BENCH, fleet,
    reference::{Client, Filling, Postgres, Row},
};
use crate::figure::{Figure, median};

/// Databases of one page.
const PAGE: usize = 100;
/// Databases that are read at once to fill PostgreSQL.
const FILL_PAGE: i32 = 1_000;
/// The database whose contact the predicate looks for.
const SOUGHT: usize = 4_321;
/// Teams whose pages are asked for, in turn.
const TEAMS_ASKED: usize = 10;

type Inventory = InventoryServiceClient<Channel>;

/// What is asked.
#[derive(Clone, Copy)]
enum Question {
    /// The first page of a team's databases.
    Page(usize),
    /// Which databases have a contact with some part in it.
    Scan,
    /// How many databases each team has.
    Facet,
}

/// What comes back: databases, or values and their counts.
#[derive(Debug, PartialEq)]
enum Answer {
    Databases(Vec<v1::Database>),
    Counts(Vec<(String, u64)>),
}

/// What a metric asks for.
struct Asked {
    metric: &'static str,
    /// How often in a round.
    times: usize,
    question: fn(usize) -> Question,
}

const ASKED: [Asked; 3] = [
    Asked {
        metric: "selector_page_p50_over_postgres",
        times: 40,
        question: |turn| Question::Page(turn % TEAMS_ASKED),
    },
    Asked {
        metric: "predicate_scan_over_postgres",
        times: 3,
        question: |_| Question::Scan,
    },
    Asked {
        metric: "facet_over_postgres",
        times: 5,
        question: |_| Question::Facet,
    },
];

/// Reads every database, as it is listed, into PostgreSQL; how many there were.
pub(super) async fn fill(
    inventory: &mut Inventory,
    postgres: &Postgres,
) -> Result<(Client, usize)> {
    let mut filling = Filling::start(postgres.connect().await?).await?;
    let mut request = v1::ListDatabasesRequest {
        page_size: FILL_PAGE,
        ..Default::default()
    };
    let mut count = 0;
    loop {
        let page = inventory
            .list_databases(request.clone())
            .await?
            .into_inner();
        count += page.databases.len();
        filling.add(page.databases).await?;
        if page.next_page_token.is_empty() {
            return Ok((filling.finish().await?, count));
        }
        request.page_token = page.next_page_token;
    }
}

/// Asks both; a figure for each question.
pub(super) async fn measure(
    inventory: &mut Inventory,
    postgres: &mut Client,
    rounds: usize,
) -> Result<Vec<Figure>> {
    for team in 0..TEAMS_ASKED {
        prepare(postgres, Question::Page(team)).await?;
    }
    prepare(postgres, Question::Scan).await?;
    prepare(postgres, Question::Facet).await?;
    let mut figures = ASKED.map(|asked| Figure::of_rounds(BENCH, asked.metric, "ms"));
    // One round that does not count warms caches, and compares the answers.
    for round in 0..=rounds {
        for (figure, asked) in figures.iter_mut().zip(ASKED) {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for turn in 0..asked.times {
                let question = (asked.question)(turn);
                let started = Instant::now();
                let answer = ask(inventory, question).await?;
                ours.push(milliseconds(started));
                let started = Instant::now();
                let reference = ask_postgres(postgres, question).await?;
                theirs.push(milliseconds(started));
                ensure!(
                    round > 0 || answer == reference,
                    "{}: {}",
                    asked.metric,
                    differ(&answer, &reference)
                );
            }
            if round > 0 {
                figure.add((median(ours.into_iter()), median(theirs.into_iter())));
            }
        }
    }
    tell_of_settings(postgres).await?;
    Ok(figures.into())
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

async fn ask(inventory: &mut Inventory, question: Question) -> Result<Answer> {
    let page_size = PAGE as i32;
    let request = match question {
        Question::Page(team) => v1::ListDatabasesRequest {
            page_size,
            selector: Some(of_label(fleet::TEAM, &fleet::team(team))),
            ..Default::default()
        },
        Question::Scan => v1::ListDatabasesRequest {
            page_size,
            filter: format!(
                r#"hasPrefix(name, "{}") && regexp.match(labels["{}"], "*{}*")"#,
                fleet::NAME_PREFIX,
                fleet::CONTACT,
                sought()
            ),
            ..Default::default()
        },
        Question::Facet => {
            let request = v1::CountDatabasesRequest {
                label: fleet::TEAM.to_owned(),
                ..Default::default()
            };
            let counted = inventory.count_databases(request).await?.into_inner();
            let counts = counted
                .counts
                .into_iter()
                .map(|count| (count.value, count.count));
            return Ok(Answer::Counts(counts.collect()));
        }
    };
    let mut databases = inventory
        .list_databases(request)
        .await?
        .into_inner()
        .databases;
    // PostgreSQL keeps them as they were when it was filled.
    databases
        .iter_mut()
        .for_each(|database| database.revision = 0);
    Ok(Answer::Databases(databases))
}

/// A selector of one value of one label.
pub(super) fn of_label(key: &str, value: &str) -> v1::Selector {
    let values = v1::LabelValues {
        values: vec![value.to_owned()],
    };
    v1::Selector {
        labels: BTreeMap::from([(key.to_owned(), values)]),
    }
}

/// A part of one database's contact, and of hardly another's.
fn sought() -> String {
    fleet::contact(SOUGHT % fleet::SCOPE_DATABASES)[6..14].to_owned()
}

fn name(question: Question) -> String {
    match question {
        Question::Page(team) => format!("page_{team}"),
        Question::Scan => "scan".to_owned(),
        Question::Facet => "facet".to_owned(),
    }
}

fn statement(question: Question) -> String {
    let (team, contact, prefix) = (fleet::TEAM, fleet::CONTACT, fleet::NAME_PREFIX);
    match question {
        Question::Page(number) => format!(
            r#"SELECT name, labels, body FROM databases WHERE labels @> '{{"{team}": "{}"}}' ORDER BY name LIMIT {PAGE}"#,
            fleet::team(number)
        ),
        Question::Scan => format!(
            "SELECT name, labels, body FROM databases WHERE name LIKE '{prefix}%' AND labels->>'{contact}' LIKE '%{}%' \
             ORDER BY name LIMIT {PAGE}",
            sought()
        ),
        Question::Facet => format!(
            "SELECT labels->>'{team}', count(*) FROM databases GROUP BY 1 ORDER BY 2 DESC, 1"
        ),
    }
}

async fn prepare(postgres: &mut Client, question: Question) -> Result<()> {
    postgres
        .prepare(&name(question), &statement(question))
        .await
}

async fn ask_postgres(postgres: &mut Client, question: Question) -> Result<Answer> {
    let rows = postgres.query(&name(question)).await?;
    Ok(match question {
        Question::Page(_) | Question::Scan => {
            Answer::Databases(rows.iter().map(database).collect::<Result<_>>()?)
        }
        Question::Facet => Answer::Counts(rows.iter().map(count).collect::<Result<_>>()?),
    })
}

fn database(row: &Row) -> Result<v1::Database> {
    let [name, labels, body] = row.as_slice() else {
        anyhow::bail!("not a database: {row:?}")
    };
    let mut database = v1::Database::decode(body.clone())?;
    database.name = String::from_utf8(name.to_vec())?;
    database.labels = serde_json::from_slice(labels.get(1..).context("no labels")?)?;
    database.revision = 0;
    Ok(database)
}

fn count(row: &Row) -> Result<(String, u64)> {
    let [value, count] = row.as_slice() else {
        anyhow::bail!("not a count: {row:?}")
    };
    let count: [u8; 8] = count.as_ref().try_into()?;
    Ok((
        String::from_utf8(value.to_vec())?,
        u64::from_be_bytes(count),
    ))
}

fn differ(ours: &Answer, theirs: &Answer) -> String {
    match (ours, theirs) {
        (Answer::Databases(ours), Answer::Databases(theirs)) => {
            let first = ours
                .iter()
                .zip(theirs)
                .find(|(ours, theirs)| ours != theirs);
            format!(
                "{} databases and {} of PostgreSQL's; the first that differ: {first:?}",
                ours.len(),
                theirs.len()
            )
        }
        _ => format!("{ours:?} and PostgreSQL's {theirs:?}"),
    }
}

/// How PostgreSQL goes about it, and what other settings make of it, for whoever watches.
async fn tell_of_settings(postgres: &mut Client) -> Result<()> {
    let settings = [
        ("as it is set by default", "RESET ALL"),
        ("in one process", "SET max_parallel_workers_per_gather = 0"),
        (
            "in one process, not compiled",
            "SET max_parallel_workers_per_gather = 0; SET jit = off",
        ),
    ];
    for question in [Question::Page(0), Question::Scan, Question::Facet] {
        let statement = statement(question);
        for (how, set) in settings {
            postgres.run("RESET ALL").await?;
            for set in set.split("; ") {
                postgres.run(set).await?;
            }
            let plan = postgres
                .texts(&format!("EXPLAIN (COSTS OFF) {statement}"))
                .await?;
            let nodes: Vec<&str> = plan.iter().flatten().map(|line| line.trim()).collect();
            let mut taken = Vec::new();
            for _ in 0..3 {
                let started = Instant::now();
                postgres.texts(&statement).await?;
                taken.push(milliseconds(started));
            }
            let taken = median(taken.into_iter());
            eprintln!(
                "PostgreSQL, {}, {how}: {taken:.1} ms: {}",
                name(question),
                nodes.join(" / ")
            );
        }
    }
    postgres.run("RESET ALL").await
}
