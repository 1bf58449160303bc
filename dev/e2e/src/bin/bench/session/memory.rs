//! What sessions hold at proxy and agent together: while they idle, after they moved bulk, and while one moves much of it.
//!
//! Each measurement has a system of its own, so that nothing is left of the one before. Idle sessions are with a database
//! that can hold thousands at little cost ([`crate::agent::far`]); those that move bulk are with PostgreSQL.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use tidegate_e2e::{Lab, Part};

use super::{BENCH, measured};
use crate::{
    Args,
    agent::{
        FLEET, Fleet, PATIENCE_ONE,
        client::{Connection, Way},
        far::Far,
        far_name, through,
    },
    figure::Figure,
    usage,
};

/// Sessions that begin at once.
const BEGIN_MAX: usize = 16;
/// Sessions before the first that counts: caches, threads and the allocator's first pages belong to none of them.
const WARM_UP: usize = 32;
/// After the last session began, until memory is looked at.
const SETTLE: Duration = Duration::from_secs(10);
/// Sessions that each pull this much and then idle.
const BULK_SESSIONS: usize = 200;
const BULK_ROWS: u64 = 5_000;
/// A row of bulk, with its end of line.
const ROW_BYTES: u64 = 1_000;

/// What the slow reader takes a second: less than every part of the way can give.
const SLOW_BYTES_PER_SECOND: f64 = 150e6;
/// Between two looks at memory while it reads.
const LOOK: Duration = Duration::from_millis(250);

/// Which measurements.
pub(super) struct Wanted<'w> {
    pub(super) idle: &'w [usize],
    pub(super) bulk: bool,
    pub(super) stream_gb: Option<u64>,
}

/// Measures what is wanted, and prints each figure when it is there.
pub(super) async fn run(args: &Args, wanted: &Wanted<'_>) -> Result<()> {
    if !wanted.idle.is_empty() {
        let small = Small::start().await?;
        let outcome = small.idle(args, wanted.idle).await;
        small.stop(outcome).await?;
    }
    if wanted.bulk {
        let small = Small::start().await?;
        let outcome = small.after_bulk(args).await;
        small.stop(outcome).await?;
    }
    if let Some(gigabytes) = wanted.stream_gb {
        let small = Small::start().await?;
        let outcome = small.stream(args, gigabytes).await;
        small.stop(outcome).await?;
    }
    Ok(())
}

/// A system of one agent with two databases.
struct Small {
    lab: Lab,
    _far: Far,
    /// To PostgreSQL.
    bench: Way,
    /// To the database that only holds sessions.
    still: Way,
}

impl Small {
    async fn start() -> Result<Self> {
        let far = Far::start(1).await?;
        let mut lab = Lab::start_bench_cluster(&["reader"]).await?;
        let (label, value) = FLEET;
        lab.configure(
            Part::AgentA,
            json!({ "db_service": { "resources": [{ "labels": { label: value } }] } }),
        );
        lab.start_part(Part::AgentA).await?;
        let fleet = Fleet::new(&lab).await?;
        let mut watch = fleet.watch().await?;
        fleet.create(fleet.cluster_database("bench")).await?;
        fleet.create_all(&far.listening).await?;
        let name = far_name(0);
        watch.healthy(["bench", &name], PATIENCE_ONE).await?;
        let person = lab.person("bench", "*", "*").await?;
        let bench = through(&lab, &person)?;
        let still = bench.to_database(&name);
        for way in [&bench, &still] {
            way.soon(PATIENCE_ONE).await?;
            drop(open(way, WARM_UP).await?);
        }
        Ok(Self {
            lab,
            _far: far,
            bench,
            still,
        })
    }

    async fn stop(self, outcome: Result<()>) -> Result<()> {
        let outcome = outcome.with_context(|| self.lab.log(Part::AgentA));
        self.lab.stop().await?;
        outcome
    }

    fn resident_kib(&self) -> Result<f64> {
        let bytes: Result<f64> = measured(&self.lab)?
            .into_iter()
            .map(usage::resident_bytes)
            .sum();
        Ok(bytes? / 1024.0)
    }

    async fn idle(&self, args: &Args, counts: &[usize]) -> Result<()> {
        let before = self.resident_kib()?;
        let mut sessions = Vec::new();
        for &count in counts {
            sessions.extend(open(&self.still, count.saturating_sub(sessions.len())).await?);
            tokio::time::sleep(SETTLE).await;
            let each = (self.resident_kib()? - before) / sessions.len() as f64;
            let figure = Figure::once(BENCH, "idle_kib_per_session", "KiB", each);
            figure.of(sessions.len(), "sessions").print(args.json);
        }
        Ok(())
    }

    async fn after_bulk(&self, args: &Args) -> Result<()> {
        let before = self.resident_kib()?;
        let copy = copy_rows(BULK_ROWS);
        let sessions = open(&self.bench, BULK_SESSIONS).await?;
        let pulling = stream::iter(sessions.into_iter().map(|mut session| {
            let copy = &copy;
            async move {
                let bytes = session.copied(copy, |_| std::future::ready(())).await?;
                ensure!(bytes >= BULK_ROWS * ROW_BYTES, "{bytes} bytes");
                anyhow::Ok(session)
            }
        }));
        let sessions: Vec<Connection> = pulling.buffer_unordered(BEGIN_MAX).try_collect().await?;
        tokio::time::sleep(SETTLE).await;
        let each = (self.resident_kib()? - before) / sessions.len() as f64;
        let figure = Figure::once(BENCH, "idle_kib_after_bulk", "KiB", each);
        figure.of(sessions.len(), "sessions").print(args.json);
        Ok(())
    }

    async fn stream(&self, args: &Args, gigabytes: u64) -> Result<()> {
        let rows = gigabytes * 1_000_000_000 / ROW_BYTES;
        let mut session = self.bench.connect().await?;
        let before = self.resident_kib()?;
        let mut most = before;
        let begun = Instant::now();
        let copy = copy_rows(rows);
        let copying = session.copied(&copy, |bytes| {
            let due = Duration::from_secs_f64(bytes as f64 / SLOW_BYTES_PER_SECOND);
            tokio::time::sleep(due.saturating_sub(begun.elapsed()))
        });
        let mut copying = std::pin::pin!(copying);
        let bytes = loop {
            tokio::select! {
                bytes = &mut copying => break bytes?,
                () = tokio::time::sleep(LOOK) => most = most.max(self.resident_kib()?),
            }
        };
        ensure!(bytes >= rows * ROW_BYTES, "{bytes} bytes");
        eprintln!("{gigabytes} GB in {:.0} s", begun.elapsed().as_secs_f64());
        let growth = (most - before) / 1024.0;
        Figure::once(BENCH, "rss_growth_mib", "MiB", growth).print(args.json);
        Ok(())
    }
}

/// A copy of that many rows, made as they go: the set-returning function does not stand in `FROM`, where PostgreSQL would
/// keep its rows first.
fn copy_rows(rows: u64) -> String {
    format!(
        "COPY (SELECT repeat('x', {}) FROM (SELECT generate_series(1, {rows})) AS made) TO STDOUT",
        ROW_BYTES - 1
    )
}

/// That many sessions, logged in.
async fn open(way: &Way, count: usize) -> Result<Vec<Connection>> {
    stream::iter((0..count).map(|_| way.connect()))
        .buffer_unordered(BEGIN_MAX)
        .try_collect()
        .await
}
